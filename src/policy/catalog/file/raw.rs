//! The catalog file as serde reads it: the keys that each part accepts, before any check of the
//! values. Text keeps its location, so that a later check can report line and column.
//!
//! Not here: bounds, references between parts, defaults with a meaning; see [`super::validator`].

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::value::{RawScalar, RawValue, present_key};
use crate::policy::catalog::issuer::ClaimValue;
use crate::policy::catalog::required_scopes::RawScopeList;

/// A mapping in the order of the file, its keys with their places.
#[derive(Debug)]
pub(super) struct OrderedMap<V>(pub(super) Vec<(Spanned<String>, V)>);

impl<V> Default for OrderedMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedMapVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for OrderedMapVisitor<V> {
            type Value = OrderedMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(OrderedMap(entries))
            }
        }
        deserializer.deserialize_map(OrderedMapVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) audiences: OrderedMap<Option<RawAudience>>,
    pub(super) scopes: OrderedMap<Option<RawScope>>,
    #[serde(default)]
    pub(super) roles: OrderedMap<Option<RawRole>>,
    #[serde(default)]
    pub(super) endpoints: Vec<RawEndpoint>,
    #[serde(default)]
    pub(super) issuers: OrderedMap<RawIssuer>,
    #[serde(default)]
    pub(super) resources: OrderedMap<RawResource>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudience {
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    pub(super) token: Presence,
    #[serde(default)]
    pub(super) user: Presence,
    #[serde(default)]
    pub(super) consent: Presence,
    pub(super) max_token_age: Option<Spanned<String>>,
    pub(super) clock_skew: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) aud: Vec<Spanned<String>>,
    pub(super) token_ttl: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) hosts: Vec<Spanned<String>>,
    pub(super) exchange: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Presence {
    #[default]
    Optional,
    Required,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScope {
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    pub(super) implies: Vec<Spanned<String>>,
    pub(super) audiences: Option<Vec<Spanned<String>>>,
    pub(super) renamed_from: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRole {
    #[serde(default)]
    pub(super) scopes: OrderedMap<RawReach>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawReach {
    All,
    Own,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub(super) method: Spanned<String>,
    pub(super) path: Spanned<String>,
    #[serde(default)]
    pub(super) colon_in: Vec<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) scopes: Option<RawScopeList>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) any_of: Option<RawScopeList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    pub(super) audience: Option<Spanned<String>>,
    pub(super) actions: Spanned<OrderedMap<Vec<Spanned<RawActionRule>>>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) known: Option<Spanned<RawKnown>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawActionRule {
    #[serde(default, deserialize_with = "present_key")]
    pub(super) when: Option<RawWhen>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) scopes: Option<RawScopeList>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) any_of: Option<RawScopeList>,
}

/// The conditions of a rule.
pub(super) type RawWhen = Spanned<RawValue<OrderedMap<Spanned<RawScalar>>>>;

/// The resources of a type by id, each with its properties.
pub(super) type RawKnown = RawValue<OrderedMap<Option<OrderedMap<Spanned<RawScalar>>>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    #[serde(default)]
    pub(super) aliases: Vec<Spanned<String>>,
    pub(super) jwks_url: Option<Spanned<String>>,
    pub(super) jwks_file: Option<Spanned<String>>,
    pub(super) jwks: Option<Spanned<Value>>,
    #[serde(default)]
    pub(super) algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) audiences: Option<Spanned<RawValue<OrderedMap<Spanned<String>>>>>,
    #[serde(default)]
    pub(super) require: OrderedMap<Spanned<ClaimValue>>,
    pub(super) without_aud: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) company: Option<Spanned<RawValue<RawParty>>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) companies: Option<Spanned<RawValue>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) credential: Option<Spanned<RawValue<RawParty>>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) user: Option<Spanned<RawValue<RawUser>>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) scope_claims: Option<Spanned<RawValue>>,
    #[serde(default, deserialize_with = "present_key")]
    pub(super) types: Option<Spanned<RawValue>>,
    pub(super) clock_skew: Option<Spanned<String>>,
    pub(super) refresh: Option<Spanned<String>>,
    pub(super) refetch_after: Option<Spanned<String>>,
    pub(super) usable_for: Option<Spanned<String>>,
    pub(super) confirmation: Option<RawConfirmation>,
}

/// Who names the company or the credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawParty {
    #[serde(default, deserialize_with = "present_key")]
    pub(super) claim: Option<Spanned<RawValue>>,
    pub(super) is: Option<Spanned<String>>,
    pub(super) prefix: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUser {
    pub(super) claim: Option<Spanned<String>>,
    pub(super) prefix: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) unless: OrderedMap<Spanned<ClaimValue>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawConfirmation {
    Caller,
}
