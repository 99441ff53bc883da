//! Claims: what a token whose signature is right says, read as its issuer's entry asks (T8, T14 to T17).
//!
//! Not here: whether the token is good for a call. Time, audience, company, user and scopes are compared
//! in each decision, because the result is cached (T21).

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::json::{Object, Value};
use super::key::Thumbprint;
use super::own::{Born, OwnClaims};
use super::revoked::TokenId;
use super::{Token, TokenAudience, VerifiedToken};
use crate::policy::catalog::issuer::{
    ClaimValue, Issuer, PartySource, TYPES, USER_CLAIM, UserSource,
};
use crate::policy::cause::DenialCause;
use crate::policy::id::{CompanyId, CredentialId, IdError, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;

/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// The claim that alone names the user of an own token (T16).
const OWN_USER_CLAIM: &str = "user_id";

/// The most bytes of a `jti` that is kept.
const MAX_TOKEN_ID_LEN: usize = 256;

/// Reads the claims of a token that this key of the issuer has signed.
pub(super) fn read(
    header: &Object,
    claims: &Object,
    issuer: &Arc<Issuer>,
    key: Thumbprint,
) -> Result<VerifiedToken, DenialCause> {
    if !has_type(header, issuer) {
        return Err(DenialCause::TypeNotAllowed);
    }
    if !issuer.require.iter().all(|(name, value)| has_value(claims, name, value)) {
        return Err(DenialCause::RequiredClaim);
    }
    if claims.get("cnf").is_some() && !issuer.confirmed_by_caller {
        return Err(DenialCause::BoundToken);
    }
    // Never a longer life than the claims say: the end is rounded down, the beginning up. The issue time
    // stays as it is, because a life begins and ends with it.
    let expires_at = time(claims, "exp", f64::floor)?.ok_or(DenialCause::MalformedClaim)?;
    let not_before = time(claims, "nbf", f64::ceil)?;
    let issued_at = time(claims, "iat", |seconds| seconds)?;
    let (company, _) = party(claims, &issuer.company, CompanyId::parse)?;
    let is_claimed = matches!(issuer.company, PartySource::Claim { .. });
    if is_claimed && !company.as_ref().is_some_and(|company| issuer.companies.has(company)) {
        return Err(DenialCause::CompanyNotAllowed);
    }
    let (credential, client) = party(claims, &issuer.credential, CredentialId::parse)?;
    let subject = subject(claims, &issuer.user, client)?;
    let (user, client_subject) = match subject {
        Subject::None => (None, None),
        Subject::User(user) => (Some(user), None),
        Subject::Client(client) => (None, Some(client)),
    };
    let id = claims.get("jti").and_then(Value::as_str).filter(|id| id.len() <= MAX_TOKEN_ID_LEN);
    Ok(VerifiedToken {
        issuer: Arc::clone(issuer),
        key,
        id: id.map(Into::into),
        company,
        credential,
        client_subject,
        facts: Token {
            audience: TokenAudience::Claim {
                issuer: Arc::clone(issuer),
                values: audiences(claims)?,
            },
            scopes: scopes(claims, &issuer.scope_claims)?,
            issued_at,
            not_before,
            clock_skew: Some(issuer.clock_skew),
            expires_at: Some(expires_at),
            user,
        },
        own: None,
    })
}

/// Reads the claims of a token that scopegate has issued itself (T25).
pub(super) fn read_own(
    header: &Object,
    claims: &Object,
    issuer: &Arc<Issuer>,
    key: Thumbprint,
) -> Result<VerifiedToken, DenialCause> {
    let malformed = DenialCause::MalformedClaim;
    if !has_type(header, issuer) {
        return Err(DenialCause::TypeNotAllowed);
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let own = own_claims(claims).ok_or(malformed)?;
    let user = text(OWN_USER_CLAIM).map(UserId::parse).transpose().map_err(|_| malformed)?;
    if own.born.user.is_some() != user.is_some() {
        return Err(malformed);
    }
    let company = text("company_id").and_then(|id| CompanyId::parse(id).ok()).ok_or(malformed)?;
    let credential = text("client_id").and_then(|id| CredentialId::parse(id).ok());
    let expires_at = time(claims, "exp", f64::floor)?.ok_or(malformed)?;
    let issued_at = time(claims, "iat", |seconds| seconds)?.ok_or(malformed)?;
    let values = audiences(claims)?.unwrap_or_default();
    // Without audiences in the catalog, a token is for the issuer itself.
    let name = match values.first().ok_or(malformed)? {
        first if *first == issuer.name => None,
        first => Some(Name::parse(first.clone()).map_err(|_| malformed)?),
    };
    Ok(VerifiedToken {
        issuer: Arc::clone(issuer),
        key,
        id: text("jti").map(Into::into),
        company: Some(company),
        credential: Some(credential.ok_or(malformed)?),
        client_subject: None,
        facts: Token {
            audience: TokenAudience::Own { name, values },
            scopes: scopes(claims, &issuer.scope_claims)?,
            issued_at: Some(issued_at),
            not_before: None,
            clock_skew: Some(issuer.clock_skew),
            expires_at: Some(expires_at),
            user,
        },
        own: Some(Box::new(own)),
    })
}

/// The claims that only an own token has.
fn own_claims(claims: &Object) -> Option<OwnClaims> {
    let Value::Object(sg) = claims.get("sg")? else { return None };
    let revision = |value: &Value| match value {
        Value::Integer(number) => u64::try_from(*number).ok().map(Revision),
        _ => None,
    };
    let text = |name: &str| sg.get(name).and_then(Value::as_str);
    let Value::Array(born) = sg.get("born")? else { return None };
    let born: Option<Vec<_>> = born.iter().map(revision).collect();
    let (company, credential, user) = match born?.as_slice() {
        [company, credential] => (*company, *credential, None),
        [company, credential, user] => (*company, *credential, Some(*user)),
        _ => return None,
    };
    let exchanged_with = match sg.get("from") {
        None => None,
        Some(id) => Some(TokenId::parse(id.as_str()?)?),
    };
    let exchanged_with_key = match sg.get("from_kid") {
        None => None,
        Some(key) => Some(Thumbprint::parse(key.as_str()?)?),
    };
    Some(OwnClaims {
        secret: Name::parse(text("secret_id")?).ok()?,
        born: Born { company, credential, user },
        incarnation: Uuid::try_parse(text("incarnation")?).ok()?,
        issued_at_revision: revision(sg.get("at")?)?,
        id: TokenId::parse(claims.get("jti")?.as_str()?)?,
        exchanged_with,
        exchanged_with_key,
        is_exchanged: claims.get("act").is_some(),
    })
}

/// Whether the header's `typ` is one of the issuer's: in any case, with or without `application/`
/// (RFC 7515 section 4.1.9).
fn has_type(header: &Object, issuer: &Issuer) -> bool {
    let Some(value) = header.get("typ") else { return issuer.types.is_none() };
    let Some(text) = value.as_str() else { return false };
    let text = text.to_ascii_lowercase();
    let own = text.strip_prefix("application/").unwrap_or(&text);
    match &issuer.types {
        Some(types) => types.contains(own),
        None => TYPES.contains(&own),
    }
}

/// Whether the token has the claim with exactly this value.
fn has_value(claims: &Object, name: &str, value: &ClaimValue) -> bool {
    match (claims.get(name), value) {
        (Some(Value::String(own)), ClaimValue::String(value)) => own == value,
        (Some(Value::Integer(own)), ClaimValue::Number(value)) => own == value,
        (Some(Value::Boolean(own)), ClaimValue::Boolean(value)) => own == value,
        _ => false,
    }
}

/// A claim that is a time: seconds since 1970 until the end of the year 9999, with a fraction that is
/// rounded so. Of the last two days, which the clock cannot tell, it is the beginning.
fn time(
    claims: &Object,
    name: &str,
    round: fn(f64) -> f64,
) -> Result<Option<Timestamp>, DenialCause> {
    let (seconds, nanoseconds) = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Integer(seconds)) if (0..=LAST_SECOND).contains(seconds) => (*seconds, 0),
        Some(Value::Float(seconds)) if (0.0..(LAST_SECOND + 1) as f64).contains(seconds) => {
            let seconds = round(*seconds);
            (seconds.floor() as i64, (seconds.fract() * 1e9) as i32)
        }
        Some(_) => return Err(DenialCause::MalformedClaim),
    };
    Ok(Some(Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::MAX)))
}

/// The company or credential that the issuer's entry gives a token, and the claim that names it; none
/// if the request names it.
fn party<'a, T: Clone>(
    claims: &'a Object,
    source: &PartySource<T>,
    parse: fn(String) -> Result<T, IdError>,
) -> Result<(Option<T>, Option<&'a str>), DenialCause> {
    let (names, prefix) = match source {
        PartySource::Is(party) => return Ok((Some(party.clone()), None)),
        PartySource::Request => return Ok((None, None)),
        PartySource::Claim { claims, prefix } => (claims, prefix),
    };
    let mut present = names.iter().filter_map(|name| claims.get(name));
    let value = named(present.next())?;
    if present.any(|other| other.as_str() != Some(value)) {
        return Err(DenialCause::AmbiguousClient);
    }
    let party = parse(format!("{prefix}{value}")).map_err(|_| DenialCause::MalformedClaim)?;
    Ok((Some(party), Some(value)))
}

/// For whom a token was issued.
enum Subject {
    /// For the credential, without a user.
    None,
    /// For a user.
    User(UserId),
    /// For the credential, which `sub` names, too. This is the user that `sub` would name.
    Client(UserId),
}

/// The subject of a token whose credential this claim names.
fn subject(
    claims: &Object,
    source: &UserSource,
    client: Option<&str>,
) -> Result<Subject, DenialCause> {
    let UserSource::Claim { claim, prefix, unless } = source else { return Ok(Subject::None) };
    if unless.iter().any(|(name, value)| has_value(claims, name, value)) {
        return Ok(Subject::None);
    }
    let value = named(claims.get(claim))?;
    let user =
        UserId::parse(format!("{prefix}{value}")).map_err(|_| DenialCause::MalformedClaim)?;
    let is_client = **claim == *USER_CLAIM && client == Some(value);
    Ok(if is_client { Subject::Client(user) } else { Subject::User(user) })
}

/// The value of a claim that names a company, a credential or a user. An empty one names none: behind a
/// prefix it would be an id.
fn named(claim: Option<&Value>) -> Result<&str, DenialCause> {
    let value = claim.and_then(Value::as_str).filter(|value| !value.is_empty());
    value.ok_or(DenialCause::MalformedClaim)
}

/// The values of `aud`; none if the token has no such claim. An empty text is no value (T15).
fn audiences(claims: &Object) -> Result<Option<Vec<Box<str>>>, DenialCause> {
    let Some(value) = claims.get("aud") else { return Ok(None) };
    let values = texts(value)?.into_iter().filter(|value| !value.is_empty());
    Ok(Some(values.map(Into::into).collect()))
}

/// The scopes of the first of these claims that the token has. A word that is no scope is in no catalog,
/// so it is ignored as every scope that the catalog lacks (D16).
fn scopes(claims: &Object, names: &[Box<str>]) -> Result<Vec<Scope>, DenialCause> {
    let Some(value) = names.iter().find_map(|name| claims.get(name)) else { return Ok(Vec::new()) };
    let words = match value.as_str() {
        Some(text) => text.split(' ').collect(),
        None => texts(value)?,
    };
    Ok(words.into_iter().filter_map(|word| Scope::parse(word).ok()).collect())
}

/// A string, or the strings of an array.
fn texts(value: &Value) -> Result<Vec<&str>, DenialCause> {
    match value.as_str() {
        Some(text) => Ok(vec![text]),
        None => value.as_strings().ok_or(DenialCause::MalformedClaim),
    }
}
