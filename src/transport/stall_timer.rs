//! Stall timer: bounds the time that a peer may take for a frame that it has begun.
//!
//! Not here: which frame the peer has begun; see [`super::frame_progress`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::frame_progress::Progress;

/// The timer of one connection.
pub(crate) struct StallTimer {
    timeout: Duration,
    /// The number of the frame that has begun, and the end of the time for it.
    pending: Option<(u64, Pin<Box<Sleep>>)>,
}

impl StallTimer {
    /// A timer that allows this time for each frame.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, pending: None }
    }

    /// Ready when a frame took too long.
    pub(crate) fn poll<I>(
        &mut self,
        progress: &Progress<I>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(begun) = progress.stalled_frame() else {
            self.pending = None;
            return Poll::Pending;
        };
        match &mut self.pending {
            Some((frame, end)) if *frame == begun => end.as_mut().poll(context),
            pending => {
                let (_, end) = pending.insert((begun, Box::pin(tokio::time::sleep(self.timeout))));
                end.as_mut().poll(context)
            }
        }
    }
}
