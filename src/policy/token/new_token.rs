//! New token: the text of an own token before it is signed (RFC 9068, T25).
//!
//! Not here: the signature, and how the text is read again; see `claims`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Serialize;

use super::key_set::Thumbprint;
use super::own::OwnClaims;
use super::signing_keys::ALGORITHM;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::scope::Scope;

/// The type of own tokens in their header (RFC 9068 section 2.1).
pub const TYPE: &str = "at+jwt";

/// A token that is issued.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The company of the client.
    pub company: &'a CompanyId,
    /// The credential of the client.
    pub credential: &'a CredentialId,
    /// The user, if it has one.
    pub user: Option<&'a UserId>,
    /// The values of `aud`: first the audience's name, or the issuer if the catalog declares no
    /// audience.
    pub audiences: Vec<&'a str>,
    /// The scopes.
    pub scopes: &'a [Scope],
    /// When it is issued, in seconds since 1970.
    pub issued_at: i64,
    /// When it expires, in seconds since 1970.
    pub expires_at: i64,
    /// What only an own token says.
    pub own: &'a OwnClaims,
}

#[derive(Serialize)]
struct Header {
    alg: &'static str,
    typ: &'static str,
    kid: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    aud: Audiences<'a>,
    client_id: &'a str,
    company_id: &'a str,
    scope: String,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor>,
    sg: Lives<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audiences<'a> {
    One(&'a str),
    Several(Vec<&'a str>),
}

#[derive(Serialize)]
struct Actor {
    sub: String,
}

/// The claim `sg`.
#[derive(Serialize)]
struct Lives<'a> {
    secret_id: &'a str,
    born: Vec<u64>,
    incarnation: String,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_kid: Option<String>,
}

impl NewToken<'_> {
    /// The subject of a token of this client and user (T25).
    #[must_use]
    pub fn subject(
        company: &CompanyId,
        credential: &CredentialId,
        user: Option<&UserId>,
    ) -> String {
        match user {
            None => format!("{company}/{credential}"),
            Some(user) => format!("{company}/{credential}/{user}"),
        }
    }

    /// The text to sign with this key: header and claims.
    ///
    /// # Errors
    /// A value cannot be written as JSON, which no value of these types can cause.
    pub fn to_sign(&self, key: &Thumbprint) -> Result<String, serde_json::Error> {
        let Self { company, credential, own, .. } = *self;
        let header = Header { alg: ALGORITHM.name(), typ: TYPE, kid: key.to_string() };
        let scopes: Vec<_> = self.scopes.iter().map(Scope::as_str).collect();
        let born = [own.born.company, own.born.credential];
        let claims = Claims {
            iss: self.issuer,
            sub: Self::subject(company, credential, self.user),
            aud: match self.audiences.as_slice() {
                [one] => Audiences::One(one),
                several => Audiences::Several(several.to_vec()),
            },
            client_id: credential.as_str(),
            company_id: company.as_str(),
            scope: scopes.join(" "),
            iat: self.issued_at,
            exp: self.expires_at,
            jti: own.id.to_string(),
            user_id: self.user.map(UserId::as_str),
            act: own.is_exchanged.then(|| Actor { sub: Self::subject(company, credential, None) }),
            sg: Lives {
                secret_id: own.secret.as_str(),
                born: born.into_iter().chain(own.born.user).map(|at| at.0).collect(),
                incarnation: own.incarnation.to_string(),
                at: own.issued_at_revision.0,
                from: own.exchanged_with.map(|id| id.to_string()),
                from_kid: own.exchanged_with_key.map(|key| key.to_string()),
            },
        };
        let (header, claims) = (serde_json::to_vec(&header)?, serde_json::to_vec(&claims)?);
        Ok(format!("{}.{}", BASE64.encode(header), BASE64.encode(claims)))
    }
}
