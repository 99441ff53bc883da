//! Authorization codes: creates a code with which an application gets a token of a user (T34, RFC 6749
//! section 4.1). The user's consent is put in the same change (D21).
//!
//! Not here: how a code is redeemed; see [`super::code_redemption`]. The platform's own page
//! authenticates the user and shows the scopes.

use jiff::{SignedDuration, Timestamp};

use super::consents::{self, ConsentId};
use super::error::AuthorityError;
use super::reader::Reader;
use super::session::Session;
use super::transaction::{Outcome, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::consent::Consent;
use crate::policy::id::Name;
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::secret::SecretText;
use crate::policy::token::authorization_code::{
    AuthorizationCode, CodeChallenge, CodeState, LIFETIME,
};
use crate::store::{FactWrite, ResultDetail, StoreError, StoredResult};

/// A code to create.
#[derive(Clone, Debug)]
pub struct NewAuthorizationCode {
    /// The consent that the user gives.
    pub consent: ConsentId,
    /// The audience of the token, if the request names one.
    pub audience: Option<Name>,
    /// The scopes that the user gives.
    pub scopes: Vec<Scope>,
    /// Where the browser is sent.
    pub redirect_uri: RedirectUri,
    /// The challenge of the application.
    pub challenge: CodeChallenge,
    /// The `state` of the application's request, which may be empty.
    pub state: String,
}

impl NewAuthorizationCode {
    /// Where the browser is to be sent, with this code or with an error (RFC 6749 section 4.1.2, RFC 9207).
    fn redirect_to(&self, code: Option<&str>, issuer: &str) -> RedirectTo {
        let result = code.map_or(("error", "access_denied"), |code| ("code", code));
        let state = Some(("state", self.state.as_str())).filter(|(_, state)| !state.is_empty());
        let parameters = [result].into_iter().chain(state).chain([("iss", issuer)]);
        RedirectTo(self.redirect_uri.with(&parameters.collect::<Vec<_>>()))
    }
}

/// A code that was created. `Debug` does not print it.
#[derive(Clone, Debug)]
pub struct CreatedAuthorizationCode {
    /// The code; none if the user gives nothing, in a dry run, and for a repeated request.
    pub code: Option<SecretText>,
    /// The scopes that the user gives and can give, sorted.
    pub scopes: Vec<Scope>,
    /// When the code expires, if there is one.
    pub expires_at: Option<Timestamp>,
    /// Where the browser is to be sent; none in a dry run, and for a repeated request of a code.
    pub redirect_to: Option<RedirectTo>,
    /// The revision of the change.
    pub revision: Revision,
}

/// A URI with a code in it. `Debug` does not print it.
#[derive(Clone)]
pub struct RedirectTo(pub String);

impl std::fmt::Debug for RedirectTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedirectTo(…)")
    }
}

impl Session<'_> {
    /// Puts a consent, and creates a code if the user gives anything.
    ///
    /// # Errors
    /// A scope, the company, the credential, the user, the audience or the redirect URI is unknown, the
    /// etag is not current, or this server issues no tokens.
    pub async fn create_authorization_code(
        &self,
        new: &NewAuthorizationCode,
        options: &WriteOptions,
    ) -> Result<CreatedAuthorizationCode, AuthorityError> {
        let issuer = &*self.authority.issuer()?.entry.name;
        let incarnation = self.authority.incarnation();
        let plan = async |mut tx: Transaction<'_>| {
            let requested = tx.resolve("scopes", &new.scopes)?;
            let (parties, user) = consents::parties(&mut tx, &new.consent).await?;
            let ConsentId { company, credential, .. } = &new.consent;
            let (_, credential) = tx.credential(company, credential).await?;
            if !credential.redirect_uris.contains(&new.redirect_uri) {
                let id = credential.id.clone();
                return Err(AuthorityError::RedirectUriUnknown(id).into());
            }
            let (catalog, now) = (tx.catalog(), tx.now());
            let audience = catalog.resolve_audience(None, new.audience.as_ref());
            let audience = audience.map_err(AuthorityError::from)?.name.cloned();
            let before = tx.find::<Consent>(&parties).await?;
            tx.check_etag(before.as_ref().map(|consent| consent.revision))?;
            let mut edit = Consent::put(before.as_deref(), parties, &catalog, &user, &requested);
            let mut given = requested;
            given.retain(|scope| edit.after.scopes.contains(*scope));
            given.sort_unstable();
            given.dedup();
            let mut scopes = catalog.names(&given);
            scopes.sort();
            if given.is_empty() {
                return Ok(tx.put(before, edit).with_context((None, scopes)));
            }
            let life = SignedDuration::from_secs(LIFETIME);
            let expires_at = now.checked_add(life).map_err(|_| StoreError::Unavailable)?;
            let mut random = [0; 44];
            getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
            let text = AuthorizationCode::mint(expires_at, random);
            let code = AuthorizationCode {
                id: text.id().ok_or(StoreError::Unavailable)?,
                hash: text.hash(),
                of: parties,
                incarnation,
                user: user.id.clone(),
                audience,
                scopes: given,
                redirect_uri: new.redirect_uri.clone(),
                challenge: new.challenge,
                expires_at,
                state: CodeState::Unused,
                created_at: Revision::NEXT,
                revision: Revision::NEXT,
            };
            let uri = new.redirect_uri.as_str();
            edit.fields.extend(FieldChange::new_text("redirect_uri", uri));
            // It has the precondition that the key is new, so no two codes have one public id.
            let context = (Some((text, expires_at)), scopes);
            let detail = ResultDetail::Id(code.id.clone());
            let planned = tx.put(before, edit).with_write(FactWrite::create(code));
            let planned = planned.with_detail(detail);
            Ok::<_, TransactionError>(planned.with_context(context))
        };
        let subject = new.consent.subject(ChangeKind::CreateAuthorizationCode);
        let (written, (code, scopes)) = match self.write(subject, options, plan).await? {
            Outcome::Written(written, context) => (written, context),
            Outcome::Repeated(stored) => return self.created_before(stored, new, issuer).await,
        };
        let (code, expires_at) = code.filter(|_| !options.validate_only).unzip();
        let text = code.clone().map(SecretText::reveal);
        let redirect_to =
            (!options.validate_only).then(|| new.redirect_to(text.as_deref(), issuer));
        let revision = written.revision;
        Ok(CreatedAuthorizationCode { code, scopes, expires_at, redirect_to, revision })
    }

    /// The response to a request that was carried out before. The store has only the hash of the code.
    async fn created_before(
        &self,
        stored: StoredResult,
        new: &NewAuthorizationCode,
        issuer: &str,
    ) -> Result<CreatedAuthorizationCode, AuthorityError> {
        let (Written { revision, .. }, detail) = self.repeated_without::<Consent>(stored).await?;
        let id = detail.into_id();
        let read = async |mut reader: Reader<'_>| {
            let Some(id) = &id else { return Ok((vec![], None)) };
            let Some(code) = reader.find::<AuthorizationCode>(id).await? else {
                return Ok((vec![], None));
            };
            let mut scopes = reader.catalog().names(&code.scopes);
            scopes.sort();
            Ok((scopes, Some(code.expires_at)))
        };
        let (scopes, expires_at) = self.read(read).await?;
        // Without a code the response has nothing that is told once.
        let redirect_to = id.is_none().then(|| new.redirect_to(None, issuer));
        let code = None;
        Ok(CreatedAuthorizationCode { code, scopes, expires_at, redirect_to, revision })
    }
}
