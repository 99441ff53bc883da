//! Connection: a gRPC channel that sends the client's API key with every call.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A connection that sends the client's API key with every call.
pub type Connection = InterceptedService<Channel, BearerInterceptor>;

/// Adds the API key to a call, if the client has one.
#[derive(Clone)]
pub struct BearerInterceptor(Option<MetadataValue<Ascii>>);

impl BearerInterceptor {
    /// `None` if the key is empty or has characters that RFC 6750 section 2.1 does not allow.
    pub(crate) fn new(key: Option<&str>) -> Option<Self> {
        match key {
            Some(key) => Some(Self(Some(header(key)?))),
            None => Some(Self(None)),
        }
    }
}

impl Interceptor for BearerInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

fn header(key: &str) -> Option<MetadataValue<Ascii>> {
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header: MetadataValue<Ascii> = format!("Bearer {key}").parse().ok()?;
    header.set_sensitive(true);
    Some(header)
}

impl fmt::Debug for BearerInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.0.is_some() { "a key" } else { "no key" };
        write!(f, "BearerInterceptor({key})")
    }
}
