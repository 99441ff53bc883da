//! Floor 3, how it is asked: gRPC messages in, one question to the authority, a message out.
//!
//! A handler parses, asks and renders. Not here: any decision, and any rule about what a
//! request means beyond its form.

mod authorization;
mod backup;
mod catalog;
mod change;
mod directory;
pub mod express;
mod fields;
mod import;
mod page;
mod parse;
mod render;
mod reply;
pub mod status;

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tonic::Status;

use crate::authority::{Authority, Reply};

impl<M: prost::Message + Default + 'static> Reply for M {
    fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }
}

/// What the handlers share: the authority, once the store is open, and whether the end has come.
#[derive(Clone)]
pub struct Doors {
    authority: Arc<OnceLock<Authority>>,
    /// The authority's desk where these doors are.
    desk: Arc<OnceLock<Authority>>,
    closing: watch::Sender<bool>,
}

impl Default for Doors {
    fn default() -> Self {
        let (authority, desk) = (Arc::default(), Arc::default());
        Self { authority, desk, closing: watch::Sender::new(false) }
    }
}

impl Doors {
    /// Opens the doors.
    pub fn open(&self, authority: Authority) -> &Authority {
        self.authority.get_or_init(|| authority)
    }

    /// The same doors on another core, with a desk of their own.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { desk: Arc::default(), ..self.clone() }
    }

    /// Ends the streams, which would not end by themselves.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Becomes true when the doors close.
    fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The authority, if the doors are open.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.get()
    }

    /// The authority, for a handler.
    fn ask(&self) -> Result<&Authority, Status> {
        let authority = self.authority().ok_or_else(status::not_open)?;
        Ok(self.desk.get_or_init(|| authority.desk()))
    }
}
