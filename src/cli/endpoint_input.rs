//! Endpoint input: the endpoint of a check in a file of checks or of catalog tests.

use serde::Deserialize;

use crate::proto::Endpoint;

/// A method and a path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointInput {
    pub(super) method: String,
    pub(super) path: String,
}

impl From<EndpointInput> for Endpoint {
    fn from(EndpointInput { method, path }: EndpointInput) -> Self {
        Self { method, path }
    }
}
