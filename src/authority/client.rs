//! Client: completes the query of a client by the credential that the client presents.
//!
//! The credential and the facts of the decision are of one published revision, so a secret that is
//! deleted and a company that is disabled are seen by the same check or by none of it (T30).
//!
//! Not here: how a credential is read from a header; see [`crate::policy::client_credential`]. The
//! verification of access tokens is in [`super::token_verifier`].

use super::fact_cache::{ReadError, Snapshot};
use super::reader::Reader;
use super::secrets::{FoundSecret, SecretOf, find_secret};
use super::session::Session;
use super::token_verifier::check_reached;
pub(super) use super::token_verifier::{Proof, VerifyResult};
use crate::policy::catalog::issuer::PartySource;
use crate::policy::cause::{Cause, DenialCause};
use crate::policy::client_credential::ClientCredential;
use crate::policy::query::{Client, Query, Request, Subject};
use crate::policy::reason::Reason;
use crate::policy::secret::SecretText;
use crate::policy::token::{PresentedToken, VerifiedToken};

impl Session<'_> {
    /// Completes the query of a client by what the client presents.
    ///
    /// # Errors
    /// A fact cannot be read at the snapshot's revision. Nothing that a client presents is an error (T3).
    pub(super) async fn prove(
        &self,
        view: &Snapshot,
        query: &mut Query,
        client: &Client,
        proof: &mut Proof,
    ) -> Result<(), ReadError> {
        let verified = match &client.presented {
            ClientCredential::BearerToken(text) => {
                Some(self.authority.verify_token(view, text, proof).await?)
            }
            _ => None,
        };
        self.complete(view, query, client, verified).await
    }

    /// Completes the queries of a batch. Each distinct token is verified once.
    ///
    /// # Errors
    /// As for one query.
    pub(super) async fn prove_all(
        &self,
        view: &Snapshot,
        requests: &mut [Request],
        proof: &mut Proof,
    ) -> Result<(), ReadError> {
        let texts =
            requests.iter().filter_map(|request| match &request.client.as_ref()?.presented {
                ClientCredential::BearerToken(text) => Some(&**text),
                _ => None,
            });
        let mut verified = self.authority.verify_tokens(view, texts, proof).await?.into_iter();
        for Request { query, client } in requests {
            let Some(client) = client else { continue };
            let is_token = matches!(client.presented, ClientCredential::BearerToken(_));
            let token = if is_token { verified.next() } else { None };
            self.complete(view, query, client, token).await?;
        }
        Ok(())
    }

    async fn complete(
        &self,
        view: &Snapshot,
        query: &mut Query,
        client: &Client,
        verified: Option<VerifyResult>,
    ) -> Result<(), ReadError> {
        let by_token = |verified: VerifyResult| {
            let token = verified?;
            let subject = self.by_token(client, &token)?;
            Ok((subject, Some(PresentedToken::Verified(token))))
        };
        let (subject, token) = match (&client.presented, verified) {
            (ClientCredential::Secret { name, secret }, _) => {
                // Boxed, so that the future of a check has none of its state.
                (Box::pin(self.by_secret(view, client, name.as_deref(), secret)).await?, None)
            }
            (_, Some(verified)) => {
                by_token(verified).unwrap_or_else(|cause| self.rejected(client, cause))
            }
            (ClientCredential::Unusable(cause), None) => self.rejected(client, *cause),
            (ClientCredential::BearerToken(_), None) => {
                self.rejected(client, Reason::TokenUnverifiable.into())
            }
        };
        if let Some(PresentedToken::Verified(token)) = &token {
            check_reached(view, token)?;
        }
        (query.subject, query.token) = (subject, token);
        Ok(())
    }

    /// A query of a client whose credential is no good. Without ids in the request, no credential is known
    /// (T5).
    fn rejected(&self, client: &Client, cause: Cause) -> (Subject, Option<PresentedToken>) {
        // A caller that is bound to other companies learns nothing of the companies of an issuer (T6).
        let is_secret = cause.fault == Some(DenialCause::CompanyNotAllowed);
        let cause = match is_secret && !self.caller.reaches_all() {
            true => DenialCause::CompanyNotAllowedUntold.into(),
            false => cause,
        };
        match (&client.company, &client.credential) {
            (Some(company), Some(credential)) if cause.reason.is_of_token() => {
                let (company, credential) = (company.clone(), credential.clone());
                (Subject::Known { company, credential }, Some(PresentedToken::Rejected(cause)))
            }
            _ => (Subject::Unproven(cause), None),
        }
    }

    /// The company and the credential of a secret.
    async fn by_secret(
        &self,
        view: &Snapshot,
        client: &Client,
        name: Option<&str>,
        secret: &SecretText,
    ) -> Result<Subject, ReadError> {
        let unknown = Subject::Unproven(Reason::CredentialUnknown.into());
        let Some(id) = secret.id() else { return Ok(unknown) };
        let named =
            SecretOf { company: client.company.clone(), credential: client.credential.clone() };
        let mut reader = Reader::new(self, view.clone());
        let found = find_secret(&mut reader, &named, &id).await?;
        let Some(FoundSecret { company, credential, secret: stored }) = found else {
            return Ok(unknown);
        };
        let is_named =
            name.is_none_or(|name| name == company.id.as_str() || name == credential.id.as_str());
        if stored.hash != secret.hash() || !is_named {
            return Ok(unknown);
        }
        if !self.caller.reaches(company.id.as_str()) {
            return Ok(Subject::Unproven(DenialCause::SecretNotReached.into()));
        }
        Ok(Subject::Known { company: company.id.clone(), credential: credential.id.clone() })
    }

    /// The company and the credential of a token (T2).
    fn by_token(&self, client: &Client, token: &VerifiedToken) -> Result<Subject, Cause> {
        // First of all, so that a caller learns nothing of another company's token (T6).
        if token.company.as_ref().is_some_and(|company| !self.caller.reaches(company.as_str())) {
            return Err(DenialCause::CompanyNotReached.into());
        }
        fn one<T: Clone + PartialEq>(
            token: Option<&T>,
            request: Option<&T>,
        ) -> Result<T, DenialCause> {
            if token.zip(request).is_some_and(|(token, request)| token != request) {
                return Err(DenialCause::OtherClient);
            }
            token.or(request).cloned().ok_or(DenialCause::ClientMissing)
        }
        let company = one(token.company.as_ref(), client.company.as_ref())?;
        let credential = one(token.credential.as_ref(), client.credential.as_ref())?;
        if token.issuer.company == PartySource::Request && !token.issuer.companies.has(&company) {
            return Err(DenialCause::CompanyNotAllowed.into());
        }
        Ok(Subject::Known { company, credential })
    }
}
