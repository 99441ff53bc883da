//! Client proof: how an API client proves who it is to the authorization server: by a secret (T30), or by
//! an access token of its own (T33).
//!
//! Not here: how the proof is read from a request; see [`crate::policy::client_credential`]. A check that
//! carries a secret is decided with it at one revision; see `client`.

use std::fmt;
use std::sync::Arc;

use super::error::AuthorityError;
use super::secrets::{SecretOf, Verification};
use super::session::Session;
use super::token_issue::is_live;
use crate::policy::cause::Cause;
use crate::policy::client_credential::ClientCredential;
use crate::policy::decision::Facts;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::query::{Asked, Query, Requirement, Subject};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::token::unverified_token::UnverifiedToken;
use crate::policy::token::{PresentedToken, VerifiedToken};

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

/// A client that has proven who it is by an access token of its own, without a user. `Debug` does not
/// print the token.
#[derive(Clone)]
pub struct ProvenActor {
    /// The company.
    pub company: CompanyId,
    /// The credential.
    pub credential: CredentialId,
    /// The public id of the secret by which it got the token.
    pub(super) secret: Name,
    /// The creation revisions of the company and of the credential that the token belongs to.
    pub(super) born: [Revision; 2],
    pub(super) token: Arc<VerifiedToken>,
}

impl fmt::Debug for ProvenActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenActor({}/{})", self.company, self.credential)
    }
}

impl ProvenActor {
    /// Whether this client has also proven itself by this secret.
    #[must_use]
    pub fn is(&self, other: &ProvenSecret) -> bool {
        self.company == other.company
            && self.credential == other.credential
            && self.born == other.born
    }

    /// The creation revision of the credential.
    #[must_use]
    pub fn credential_created_at(&self) -> Revision {
        let [_, credential] = self.born;
        credential
    }
}

impl ProvenSecret {
    /// The creation revision of the credential.
    #[must_use]
    pub fn credential_created_at(&self) -> Revision {
        let [_, credential] = self.born;
        credential
    }

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

    /// The client whose own access token this is. None: it is no token that this server issued to a client
    /// itself, it has expired or was revoked, or the client is not one of this `company`. A later end is found
    /// when a token is issued for it.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn prove_actor(
        &self,
        token: &str,
        company: Option<&CompanyId>,
    ) -> Result<Option<ProvenActor>, AuthorityError> {
        // No keys are fetched for a token of another issuer.
        let issuer = UnverifiedToken::parse(token);
        if !issuer.is_ok_and(|token| self.authority.is_own(token.issuer())) {
            return Ok(None);
        }
        let Ok(token) = self.verified(token).await? else { return Ok(None) };
        let (Some(own), Some(of), Some(credential)) =
            (&token.own, &token.company, &token.credential)
        else {
            return Ok(None);
        };
        let is_own = token.facts.user.is_none() && !own.is_exchanged;
        if !is_own || company.is_some_and(|company| company != of) {
            return Ok(None);
        }
        // An old token proves nothing, also not for the limits of the client.
        let query = Query {
            subject: Subject::Known { company: of.clone(), credential: credential.clone() },
            needs: Requirement::Scopes(vec![]),
            audience: None,
            token: Some(PresentedToken::Verified(Arc::clone(&token))),
            user: None,
            owner: None,
            denies_own: false,
        };
        let question = |_: &Query, facts: Facts<'_>| Ok(is_live(&token, facts));
        let asked = &mut Asked::from(&query);
        let (is_live, ..) = self.evaluate(asked, Revision::ZERO, |_, _| (), question).await?;
        if !is_live {
            return Ok(None);
        }
        Ok(Some(ProvenActor {
            company: of.clone(),
            credential: credential.clone(),
            secret: own.secret.clone(),
            born: [own.born.company, own.born.credential],
            token: Arc::clone(&token),
        }))
    }
}
