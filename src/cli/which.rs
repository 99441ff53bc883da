//! Which: a credential, by the id of its company and its own.

use clap::Args;

/// Which credential.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The company's id.
    pub company: String,

    /// The credential's id.
    pub credential: String,
}
