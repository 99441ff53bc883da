//! Client proof: how an API client proves who it is to the authorization server, by a secret (T30).
//!
//! Not here: how the proof is read from a request; see [`crate::policy::client_credential`]. A check that
//! carries a secret is decided with it at one revision; see [`super::client`].

use super::error::AuthorityError;
use super::secrets::{SecretOf, Verification};
use super::session::Session;
use crate::policy::cause::Cause;
use crate::policy::client_credential::ClientCredential;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;

/// A client that has proven who it is by a secret of its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenSecret {
    /// The company.
    pub company: CompanyId,
    /// The credential.
    pub credential: CredentialId,
    /// The public id of the secret.
    pub secret: Name,
    /// The creation revisions of the company and of the credential that the secret belongs to.
    pub(super) born: [Revision; 2],
}

impl ProvenSecret {
    /// The actor of its changes in the audit log: `client COMPANY/CREDENTIAL` (T37).
    #[must_use]
    pub fn actor(&self) -> String {
        format!("client {}/{}", self.company, self.credential)
    }
}

impl Session<'_> {
    /// The client that presents this secret. With a `company`, the client must be one of that company.
    /// The cause is [`Reason::CredentialUnknown`] if anything is wrong, and a specific one only for a
    /// right secret (D11).
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn prove_client(
        &self,
        presented: &ClientCredential,
        company: Option<&CompanyId>,
    ) -> Result<Result<ProvenSecret, Cause>, AuthorityError> {
        let unknown = Ok(Err(Reason::CredentialUnknown.into()));
        let ClientCredential::Secret { name, secret } = presented else { return unknown };
        let named = SecretOf { company: company.cloned(), credential: None };
        let found = self.verify_secret(&named, secret).await?;
        let Verification::Right { company, credential, secret, against, born } = found else {
            return unknown;
        };
        let is_named = name
            .as_deref()
            .is_none_or(|name| name == company.as_str() || name == credential.as_str());
        Ok(match against {
            _ if !is_named => Err(Reason::CredentialUnknown.into()),
            Some(reason) => Err(reason.into()),
            None => Ok(ProvenSecret { company, credential, secret, born }),
        })
    }
}
