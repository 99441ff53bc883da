//! Credential arguments: the ids of a company and of its credential.

use std::fmt;

use clap::Args;

/// The ids of a credential.
#[derive(Clone, Debug, Args)]
pub struct CredentialArgs {
    /// The company's id.
    pub company: String,

    /// The credential's id.
    pub credential: String,
}

impl fmt::Display for CredentialArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.credential, self.company)
    }
}
