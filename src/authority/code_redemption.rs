//! Code redemption: an application gets the token that an authorization code stands for (T34, RFC 6749
//! section 4.1.3).
//!
//! INVARIANT (a code is good once): the token is signed before the code is marked as used, and is
//! returned only after that change is durable. Of two attempts, one finds the code used, and then
//! revokes the token of the other. An attempt of another client changes nothing.
//!
//! Not here: the endpoint and its form, and which scopes the token gets; see [`super::token_issue`].

use std::sync::Arc;

use super::ATTEMPTS;
use super::client_proof::ProvenSecret;
use super::error::AuthorityError;
use super::fact_cache::ReadError;
use super::reader::Reader;
use super::session::Session;
use super::token_issue::{
    IssuedToken, TokenClient, TokenError, TokenGrant, TokenRefusal, TokenRequest, new_id,
};
use super::transaction::{Outcome, Subject, Transaction, TransactionError};
use super::write_options::WriteOptions;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::edit::Edit;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::secret::SecretText;
use crate::policy::token::authorization_code::{AuthorizationCode, CodeState, LIFETIME};
use crate::policy::token::own::{Born, OwnClaims};
use crate::policy::token::revoked::TokenId;
use crate::policy::user::User;
use crate::store::StoreError;

/// The audience that a request names for a code. It must be that of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedAudience<'a> {
    /// None: that of the code is meant.
    None,
    /// One of the catalog.
    Known(&'a Name),
    /// One that the catalog does not have.
    Unknown,
}

/// What a client presents to redeem a code. `Debug` does not print the code and the verifier.
#[derive(Clone, Copy)]
pub struct PresentedCode<'a> {
    /// The code.
    pub code: &'a SecretText,
    /// The parameter `redirect_uri`, if it is there.
    pub redirect_uri: Option<&'a str>,
    /// The parameter `code_verifier`, if it is there.
    pub verifier: Option<&'a str>,
    /// The audience that the request names.
    pub audience: NamedAudience<'a>,
}

impl std::fmt::Debug for PresentedCode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresentedCode(…)")
    }
}

impl PresentedCode<'_> {
    /// Whether this is what the code was created for.
    fn is_for(&self, code: &AuthorizationCode) -> bool {
        self.redirect_uri == Some(code.redirect_uri.as_str())
            && self.verifier.is_some_and(|verifier| code.challenge.is_of(verifier))
            && match self.audience {
                NamedAudience::None => true,
                NamedAudience::Known(audience) => code.audience.as_ref() == Some(audience),
                NamedAudience::Unknown => false,
            }
    }
}

/// The refusal of a code, whatever is wrong with it.
const INVALID: TokenRefusal = TokenRefusal {
    error: TokenError::InvalidGrant,
    cause: None,
    description: "The code is not valid for this client, redirect_uri and code_verifier, or has expired, or was used. Send the user to the platform again.",
};

impl Session<'_> {
    /// Redeems a code for a token. Use a session with the client's name as its actor, as for
    /// [`Session::issue_token`].
    ///
    /// # Errors
    /// The store cannot answer, or this server has no key to sign with.
    pub async fn redeem_code(
        &self,
        client: &ProvenSecret,
        presented: PresentedCode<'_>,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let Some(id) = presented.code.id() else { return Ok(Err(INVALID)) };
        let redeemed = self.redeem(client, presented, &id).await?;
        if redeemed.is_err() {
            // The refusal rests on the facts of this replica.
            self.everywhere().await?;
        }
        Ok(redeemed)
    }

    async fn redeem(
        &self,
        client: &ProvenSecret,
        presented: PresentedCode<'_>,
        id: &Name,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let hash = presented.code.hash();
        for _ in 0..ATTEMPTS {
            let read = async |mut reader: Reader<'_>| {
                let found = found(&mut reader, client, id).await?;
                Ok((found, reader.catalog(), reader.now()))
            };
            let (found, catalog, now) = self.read(read).await?;
            let Some(Found { code, consent, is_registered }) =
                found.filter(|found| found.code.hash == hash)
            else {
                return Ok(Err(INVALID));
            };
            if let CodeState::Redeemed(..) = code.state {
                self.revoke_token_of(client, &code).await?;
            }
            if now >= code.expires_at {
                self.authority.persist_reported(now, |_| Some(code.expires_at)).await?;
                return Ok(Err(INVALID));
            }
            // A code of later than now was created while the machine's clock was wrong.
            let is_of_now = code.expires_at.as_second() - now.as_second() <= LIFETIME;
            if code.state != CodeState::Unused || !is_registered || !is_of_now {
                return Ok(Err(INVALID));
            }
            let issued = match presented.is_for(&code) {
                true => {
                    // What the user has withdrawn since is not given, also where the audience asks for no
                    // consent.
                    let mut given = code.scopes.clone();
                    given.retain(|scope| {
                        consent.as_ref().is_some_and(|consent| consent.scopes.contains(*scope))
                    });
                    self.token_of(client, &code, catalog.names(&given)).await?
                }
                false => Err(INVALID),
            };
            if self.use_code(client, &code, consent.as_deref(), issued.as_ref().ok()).await? {
                return Ok(issued);
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// The token that a code stands for, with these scopes. Its client does not get it before the code is
    /// marked as used.
    async fn token_of(
        &self,
        client: &ProvenSecret,
        code: &AuthorizationCode,
        scopes: Vec<Scope>,
    ) -> Result<Result<IssuedToken, TokenRefusal>, AuthorityError> {
        let (user, claims) = (code.user.clone(), claims(client, code, code.created_at, None)?);
        let request = TokenRequest {
            client: TokenClient::Secret(client),
            grant: TokenGrant::AuthorizationCode { user, claims },
            audience: code.audience.clone(),
            scopes: Some(scopes),
        };
        let issued = self.issue_token(&request).await?;
        Ok(issued.map_err(|refusal| match refusal.error {
            TokenError::InvalidClient => refusal,
            _ => TokenRefusal { error: TokenError::InvalidGrant, ..refusal },
        }))
    }

    /// Marks a code as used, with the token that its client gets. False: another attempt was first, or the
    /// consent is not of this revision any more.
    async fn use_code(
        &self,
        client: &ProvenSecret,
        code: &AuthorizationCode,
        consent: Option<&Consent>,
        token: Option<&IssuedToken>,
    ) -> Result<bool, AuthorityError> {
        let subject = Subject {
            credential: Some(&client.credential),
            user: Some(&code.user),
            ..Subject::of(ChangeKind::RedeemAuthorizationCode, &client.company)
        };
        let plan = async |mut tx: Transaction<'_>| {
            let found = found(&mut tx, client, &code.id).await?;
            let Found { code: before, consent: now_given, is_registered } =
                found.ok_or(AuthorityError::Conflict)?;
            let mut edit = Edit::none(&*before);
            let is_first = before.state == CodeState::Unused
                && is_registered
                && now_given.as_deref() == consent;
            if is_first {
                edit.after.state = match token {
                    Some(token) => CodeState::Redeemed(token.token_id, token.expires_at),
                    None => CodeState::Refused,
                };
                match token {
                    Some(token) => edit.fields.extend(FieldChange::new_text("token_id", &token.id)),
                    None => edit.fields.push(FieldChange::new_flag("refused", true)),
                }
            }
            Ok::<_, TransactionError>(tx.put(Some(before), edit).with_context(is_first))
        };
        match self.write(subject, &WriteOptions::default(), plan).await {
            Ok(Outcome::Written(_, is_first)) => Ok(is_first),
            Ok(Outcome::Repeated(_)) | Err(AuthorityError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Revokes the token that a code was redeemed for, if it lives.
    async fn revoke_token_of(
        &self,
        client: &ProvenSecret,
        code: &AuthorizationCode,
    ) -> Result<(), AuthorityError> {
        let CodeState::Redeemed(token, expires_at) = code.state else { return Ok(()) };
        // It was issued at the last change of the code or before, and not before the code.
        let own = claims(client, code, code.revision, Some(token))?;
        self.end_token(client, &own, Some(&code.user), expires_at).await?;
        Ok(())
    }
}

/// A code, with what it rests on.
struct Found {
    code: Arc<AuthorizationCode>,
    /// The present consent of its user.
    consent: Option<Arc<Consent>>,
    /// Whether its redirect URI is still one of the credential's.
    is_registered: bool,
}

/// The code of this id and what it rests on, if the code is of this client. None also where
/// the company, the credential or the user does not live any more: garbage collection removes what they
/// had, so nothing may rest on it.
async fn found(
    reader: &mut Reader<'_>,
    client: &ProvenSecret,
    id: &Name,
) -> Result<Option<Found>, ReadError> {
    let Some(code) = reader.find::<AuthorizationCode>(id).await? else { return Ok(None) };
    let Some(company) = reader.find::<Company>(&client.company).await? else { return Ok(None) };
    let company = company.created_at;
    let credential = reader.find::<Credential>((&company, &client.credential)).await?;
    let user = reader.find::<User>((&company, &code.user)).await?;
    let Some((credential, user)) = credential.zip(user) else { return Ok(None) };
    let is_registered = credential.redirect_uris.contains(&code.redirect_uri);
    let (user, credential) = (user.created_at, credential.created_at);
    if code.of != (Parties { company, user, credential }) || client.born != [company, credential] {
        return Ok(None);
    }
    let consent = reader.find::<Consent>(&Parties { company, user, credential }).await?;
    Ok(Some(Found { code, consent, is_registered }))
}

/// The claims of a code, as of a token that was issued at this revision: what ends such a token ends the
/// code (T27).
fn claims(
    client: &ProvenSecret,
    code: &AuthorizationCode,
    issued_at_revision: Revision,
    id: Option<TokenId>,
) -> Result<OwnClaims, StoreError> {
    let Parties { company, user, credential } = code.of;
    Ok(OwnClaims {
        secret: client.secret.clone(),
        born: Born { company, credential, user: Some(user) },
        incarnation: code.incarnation,
        issued_at_revision,
        id: id.map_or_else(new_id, Ok)?,
        exchanged_with: None,
        exchanged_with_key: None,
        is_exchanged: false,
    })
}
