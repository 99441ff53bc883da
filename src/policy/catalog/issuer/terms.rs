//! Terms: what an issuer's entry says, as text for people. A difference of two catalogs shows the
//! terms that only one of them has.

use std::collections::BTreeMap;
use std::fmt;

use super::{Audiences, ClaimValue, Companies, Issuer, KeySource, PartySource, UserSource};

impl Issuer {
    /// Its terms. Each value of a long list is a term of its own, so that a difference names only what
    /// one side lacks.
    #[must_use]
    pub fn terms(&self) -> Vec<String> {
        let mut terms: Vec<_> = self.aliases.iter().map(|alias| format!("alias {alias}")).collect();
        match &self.keys {
            KeySource::Url(url) => terms.push(format!("jwks_url {url}")),
            KeySource::File(name) => terms.push(format!("jwks_file {name}")),
            KeySource::Inline(keys) => terms.extend(keys.iter().map(|key| {
                let id = key.id.as_deref().map(|id| format!(" with kid {id}")).unwrap_or_default();
                let algorithm = key.algorithm.map(|one| format!(" for {one}")).unwrap_or_default();
                format!("key {}{id}{algorithm}", key.thumbprint)
            })),
        }
        terms.extend(self.algorithms.iter().map(|algorithm| format!("algorithm {algorithm}")));
        match &self.audiences {
            None => terms.push("aud as in the catalog".to_owned()),
            Some(Audiences::Map(map)) => {
                terms.extend(map.iter().map(|(aud, name)| format!("aud {aud} is {name}")));
            }
            Some(Audiences::List(list)) => {
                terms.extend(list.iter().map(|aud| format!("aud {aud}")));
            }
        }
        terms.extend(self.without_aud.iter().map(|name| format!("without aud is {name}")));
        terms.extend(equalities(&self.require).map(|claim| format!("requires {claim}")));
        terms.push(format!("company {}", self.company));
        match &self.companies {
            Companies::Any => terms.push("speaks for any company".to_owned()),
            Companies::Only(only) => {
                terms.extend(only.iter().map(|company| format!("speaks for {company}")));
            }
        }
        terms.push(format!("credential {}", self.credential));
        terms.push(match &self.user {
            UserSource::None => "no user".to_owned(),
            UserSource::Claim { claim, prefix, unless } => {
                let unless: Vec<_> = equalities(unless).collect();
                let unless = match unless.is_empty() {
                    true => String::new(),
                    false => format!(" unless {}", unless.join(" or ")),
                };
                format!("user claim {claim}{}{unless}", prefixed(prefix))
            }
        });
        terms.push(format!("scope_claims {}", self.scope_claims.join(" ")));
        terms.push(match &self.types {
            None => "types as usual".to_owned(),
            Some(types) => {
                format!("types {}", types.iter().map(|one| &**one).collect::<Vec<_>>().join(" "))
            }
        });
        terms.push(format!("clock_skew {}s", self.clock_skew));
        terms.push(format!("refresh {}s", self.refresh));
        terms.push(format!("refetch_after {}s", self.refetch_after));
        terms.push(format!("usable_for {}s", self.usable_for));
        if self.confirmed_by_caller {
            terms.push("confirmation by the caller".to_owned());
        }
        terms
    }
}

impl<T: fmt::Display> fmt::Display for PartySource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { claims, prefix } => {
                write!(f, "claim {}{}", claims.join(" or "), prefixed(prefix))
            }
            Self::Is(id) => write!(f, "is {id}"),
            Self::Request => f.write_str("of the request"),
        }
    }
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
        }
    }
}

fn equalities(values: &BTreeMap<Box<str>, ClaimValue>) -> impl Iterator<Item = String> {
    values.iter().map(|(claim, value)| format!("{claim} = {value}"))
}

fn prefixed(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!(" behind {prefix}") }
}
