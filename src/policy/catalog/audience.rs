//! Audiences: what each one requires of a request, and which one a request belongs to (D16).

use std::collections::BTreeSet;

use super::{Catalog, suggestion};
use crate::policy::id::Name;
use crate::policy::scope::Scope;

/// How long a token that is issued here lives unless the audience says otherwise, in seconds (T25).
pub const TOKEN_TTL: u32 = 60 * 60;
/// The longest `token_ttl`, in seconds.
pub const MAX_TOKEN_TTL: u32 = 24 * 60 * 60;

/// The requirements of an audience for a request (D16), and what is issued for it (T25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// For people.
    pub title: String,
    /// A call needs a token.
    pub token_required: bool,
    /// A call is made on behalf of a user.
    pub user_required: bool,
    /// A call needs the user's consent, and so a user.
    pub consent_required: bool,
    /// The oldest that a token may be, in seconds.
    pub max_token_age: Option<u32>,
    /// How far ahead of the time here a token may have been issued, in seconds.
    pub clock_skew: u32,
    /// The strings by which a token names this audience, besides its name.
    pub aud: Vec<Box<str>>,
    /// How long a token that is issued here for this audience lives at most, in seconds.
    pub token_ttl: u32,
    /// The hosts whose token endpoint issues tokens for this audience (T31), in lower case.
    pub hosts: BTreeSet<Box<str>>,
    /// The scope that a credential needs to exchange its token for a user's token of this audience
    /// (T33). None: no exchange.
    pub exchange: Option<Scope>,
}

impl Default for Audience {
    fn default() -> Self {
        UNNAMED_AUDIENCE.clone()
    }
}

/// The audience of a request.
#[derive(Clone, Copy, Debug)]
pub struct ResolvedAudience<'a> {
    /// The audience's name; none where the catalog declares none.
    pub name: Option<&'a Name>,
    /// Its requirements.
    pub audience: &'a Audience,
}

impl ResolvedAudience<'_> {
    /// Whether a token with this `audience` was issued for this audience (D16).
    #[must_use]
    pub fn accepts_token_audience(&self, aud: &str) -> bool {
        match self.name {
            None => aud.is_empty(),
            Some(name) => name.as_str() == aud || self.audience.aud.iter().any(|own| **own == *aud),
        }
    }
}

/// Why the audience of a request cannot be resolved (D16). The request is malformed, not denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// The catalog has several and the request names none.
    #[error("must name one of the catalog's audiences: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// The catalog has no audience of this name.
    #[error("`{name}` is not an audience of the catalog{}", did_you_mean(.near.as_ref()))]
    Unknown {
        /// The request's.
        name: Name,
        /// The one that was probably meant.
        near: Option<Name>,
    },
    /// The request names an audience as tokens do.
    #[error(
        "`{aud}` is an `aud` value of tokens, not the name of an audience: write `{audience}` here"
    )]
    NamedByAud {
        /// The string of the audience's `aud`.
        aud: String,
        /// The audience's name.
        audience: Name,
    },
    /// The endpoint belongs to another audience than the request names.
    #[error("`{named}` is not the endpoint's audience, which is `{endpoint}`")]
    EndpointMismatch {
        /// The request's.
        named: Name,
        /// The endpoint's.
        endpoint: Name,
    },
}

fn did_you_mean(near: Option<&Name>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

static UNNAMED_AUDIENCE: Audience = Audience {
    title: String::new(),
    token_required: false,
    user_required: false,
    consent_required: false,
    max_token_age: None,
    clock_skew: 0,
    aud: Vec::new(),
    token_ttl: TOKEN_TTL,
    hosts: BTreeSet::new(),
    exchange: None,
};

impl Catalog {
    /// The audience that tokens name by this string, besides its name.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<&Name> {
        let mut all = self.file.audiences.iter();
        all.find(|(_, audience)| audience.aud.iter().any(|own| **own == *aud)).map(|(name, _)| name)
    }

    /// The audience whose tokens the token endpoint of this host issues (T31). The host is in lower
    /// case and without a port.
    #[must_use]
    pub fn audience_by_host(&self, host: &str) -> Option<&Name> {
        let mut all = self.file.audiences.iter();
        all.find(|(_, audience)| audience.hosts.contains(host)).map(|(name, _)| name)
    }

    /// The error for a name that is not an audience.
    fn unknown_audience(&self, name: &Name) -> AudienceError {
        match self.audience_by_aud(name.as_str()) {
            Some(audience) => {
                let (aud, audience) = (name.to_string(), audience.clone());
                AudienceError::NamedByAud { aud, audience }
            }
            None => {
                let audiences = &self.file.audiences;
                let near = suggestion::nearest(name.as_str(), audiences.keys().map(Name::as_str));
                let near = near.and_then(|near| audiences.get_key_value(near));
                let near = near.map(|(near, _)| near.clone());
                AudienceError::Unknown { name: name.clone(), near }
            }
        }
    }

    /// The audience of a call: the endpoint's, else the one named, else the only one (D16).
    ///
    /// # Errors
    /// The catalog has several audiences and none is named, or the named one is unknown or not the
    /// endpoint's.
    pub fn resolve_audience<'a>(
        &'a self,
        endpoint: Option<&'a Name>,
        named: Option<&Name>,
    ) -> Result<ResolvedAudience<'a>, AudienceError> {
        let audiences = &self.file.audiences;
        let named = match named {
            Some(name) => match audiences.get_key_value(name) {
                Some(found) => Some(found),
                None => return Err(self.unknown_audience(name)),
            },
            None => None,
        };
        let of_endpoint = endpoint.and_then(|name| audiences.get_key_value(name));
        match (of_endpoint, named) {
            (Some((own, _)), Some((name, _))) if own != name => {
                Err(AudienceError::EndpointMismatch { named: name.clone(), endpoint: own.clone() })
            }
            (Some((name, audience)), _) | (None, Some((name, audience))) => {
                Ok(ResolvedAudience { name: Some(name), audience })
            }
            (None, None) => {
                let mut all = audiences.iter();
                match (all.next(), all.next()) {
                    (None, _) => Ok(ResolvedAudience { name: None, audience: &UNNAMED_AUDIENCE }),
                    (Some((name, audience)), None) => {
                        Ok(ResolvedAudience { name: Some(name), audience })
                    }
                    _ => Err(AudienceError::Ambiguous(
                        audiences.keys().map(|name| format!("`{name}`")).collect(),
                    )),
                }
            }
        }
    }
}
