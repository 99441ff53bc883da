//! Token revocation: a client revokes one of its own tokens (RFC 7009, T36), and a caller that may
//! edit a credential ends all of its tokens (T27).
//!
//! Not here: how a decision tells that a token was revoked; see [`crate::policy::token::own`].

use jiff::Timestamp;

use super::client_proof::ProvenSecret;
use super::credentials::ViewContext;
use super::error::AuthorityError;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::credential::CredentialView;
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::token::own::OwnClaims;
use crate::policy::token::revoked::{RevokedToken, RevokedTokens, latest};
use crate::policy::token::unverified_token::UnverifiedToken;

/// The result of a revocation by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The token is good for nothing, with the revision that ended it. None: nothing was committed,
    /// because it is no token, it is over, or it was revoked before. Status 200.
    Revoked(Option<Revision>),
    /// The token is another client's: `unauthorized_client`.
    OfOtherClient,
    /// The token is of an issuer of the catalog: `unsupported_token_type`.
    OfOtherIssuer,
}

impl Session<'_> {
    /// Revokes a token of this client. Use a session with the client's name as its actor:
    /// [`Authority::internal_session`] with [`ProvenSecret::actor`].
    ///
    /// [`Authority::internal_session`]: super::Authority::internal_session
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke_token(
        &self,
        client: &ProvenSecret,
        token: &str,
    ) -> Result<Revocation, AuthorityError> {
        let Ok(unverified) = UnverifiedToken::parse(token) else {
            return Ok(Revocation::Revoked(None));
        };
        let revocation = self.revoke_parsed(client, token, &unverified).await?;
        if !matches!(revocation, Revocation::Revoked(Some(_))) {
            // Nothing was committed, so the answer rests on the facts of this replica.
            self.everywhere().await?;
        }
        Ok(revocation)
    }

    async fn revoke_parsed(
        &self,
        client: &ProvenSecret,
        token: &str,
        unverified: &UnverifiedToken,
    ) -> Result<Revocation, AuthorityError> {
        let catalog = self.authority.facts.view().await?.catalog;
        if unverified.issuer().is_some_and(|iss| catalog.issuer(iss).is_some()) {
            return Ok(Revocation::OfOtherIssuer);
        }
        let Ok(token) = self.verified(token).await? else { return Ok(Revocation::Revoked(None)) };
        let (Some(own), Some(expires_at)) = (token.own.as_deref(), token.facts.expires_at) else {
            return Ok(Revocation::Revoked(None));
        };
        let is_of_client = token.company.as_ref() == Some(&client.company)
            && token.credential.as_ref() == Some(&client.credential);
        if !is_of_client {
            return Ok(Revocation::OfOtherClient);
        }
        let user = token.facts.user.as_ref();
        self.end_token(client, own, user, expires_at).await.map(Revocation::Revoked)
    }

    /// Revokes an own token of this client. None: it was over, or revoked before.
    pub(super) async fn end_token(
        &self,
        client: &ProvenSecret,
        own: &OwnClaims,
        user: Option<&UserId>,
        expires_at: Timestamp,
    ) -> Result<Option<Revision>, AuthorityError> {
        let (company_id, id) = (&client.company, &client.credential);
        let subject = Subject {
            credential: Some(id),
            user,
            ..Subject::of(ChangeKind::RevokeToken, company_id)
        };
        let options = WriteOptions::default();
        let plan = async |mut tx: Transaction<'_>| {
            let (company, before) = tx.credential(company_id, id).await?;
            let (now, epoch) = (tx.now(), tx.token_epoch());
            // Whether its user is still there does not matter: then it is over already.
            let ended = own.ended((&company, &before), own.born.user, &epoch);
            let mut edit = Edit::none(&*before);
            let is_over = ended.is_some() || expires_at <= now;
            if !is_over {
                let revoked = RevokedToken { id: own.id, expires_at, user: own.born.user };
                let believed = self.authority.clock.believed().min(now);
                let all = edit.after.revoked_tokens.revoke(revoked, now, believed);
                edit.fields.extend(FieldChange::new_text("token_id", &own.id.to_string()));
                if all {
                    edit.fields.push(FieldChange::new_flag("own_tokens_revoked", true));
                }
            }
            Ok::<_, TransactionError>(tx.put(Some(before), edit).with_context(is_over))
        };
        match self.write(subject, &options, plan).await {
            Ok(Outcome::Written(_, true)) => {
                // That it has expired is told, so it must not be valid after a crash (D19).
                let now = self.authority.clock.now();
                let end = (expires_at <= now).then_some(expires_at);
                self.authority.persist_reported(now, |_| end).await?;
                Ok(None)
            }
            Ok(Outcome::Written(Written { revision, .. }, false)) => Ok(Some(revision)),
            Ok(Outcome::Repeated(_))
            | Err(AuthorityError::CompanyNotFound(_) | AuthorityError::CredentialNotFound(..)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Revokes all tokens of a credential: its own tokens that were issued until now, and the tokens of
    /// the catalog's issuers that were issued at or before a time, or do not say when. The time is now
    /// unless it is given, and never goes back.
    ///
    /// # Errors
    /// The company or the credential is unknown, the etag is not current, or the time is more than 5
    /// minutes ahead.
    pub async fn revoke_tokens(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        issued_before: Option<Timestamp>,
        options: &WriteOptions,
    ) -> Result<Written<CredentialView>, AuthorityError> {
        let subject = Subject::of(ChangeKind::RevokeTokens, company_id);
        let subject = Subject { credential: Some(id), ..subject };
        let plan = async |mut tx: Transaction<'_>| {
            let (company, before) = tx.credential(company_id, id).await?;
            tx.check_etag(Some(before.revision))?;
            let now = tx.now();
            let until = issued_before.unwrap_or(now);
            if until > latest(now) {
                return Err(AuthorityError::RevokedTooFarAhead.into());
            }
            let mut edit = Edit::none(&*before);
            edit.after.revoked_tokens.end_all(until);
            let time = |tokens: &RevokedTokens| tokens.issued_before;
            let times = (time(&before.revoked_tokens), time(&edit.after.revoked_tokens));
            edit.fields.extend(FieldChange::time("tokens_valid_from", times.0, times.1));
            let last_seen = self.authority.last_seen(&before);
            let context = ViewContext { catalog: tx.catalog(), company, now, last_seen };
            // Own tokens end also where the time stays.
            edit.fields.push(FieldChange::new_flag("own_tokens_revoked", true));
            Ok::<_, TransactionError>(tx.put(Some(before), edit).with_context(context))
        };
        let outcome = self.write(subject, options, plan).await?;
        self.credential_written(company_id, id, outcome).await
    }
}
