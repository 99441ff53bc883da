//! Difference: the changes from one catalog to the next.
//!
//! A scope is identified by its id, so a reference to a renamed scope by its new name is not a
//! change. Not here: the credentials that lose a scope; that depends on facts outside the catalog.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoint::Endpoint;
use super::file::{CatalogFile, ScopeEntry};
use super::rename::RenamedScope;
use super::resource::ResourceType;
use super::{Audience, Catalog, Reach};
use crate::policy::change::FieldChange;
use crate::policy::id::Name;
use crate::policy::scope::{Scope, ScopeId, ScopeMap};

/// The changes from one catalog to another, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogDifference {
    /// Scopes that are new, sorted.
    pub added: Vec<Scope>,
    /// Ids of the removed scopes.
    pub removed: Vec<ScopeId>,
    /// The names that they had, sorted.
    pub removed_names: Vec<Scope>,
    /// Scopes that have another name, sorted by the old one.
    pub renamed: Vec<RenamedScope>,
    /// Scopes that stay and imply, or belong to, something else.
    pub changed_scopes: Vec<Scope>,
    /// Audiences that were added or removed, or whose requirements changed.
    pub changed_audiences: Vec<String>,
    /// The removed audiences among them: their requirements no longer apply.
    pub removed_audiences: Vec<String>,
    /// Roles that were added or removed, or whose permissions changed.
    pub changed_roles: Vec<String>,
    /// The removed ones among them.
    pub removed_roles: Vec<String>,
    /// Endpoints that were added or removed, or whose needed scopes changed.
    pub changed_endpoints: Vec<String>,
    /// Those of them that are new.
    pub added_endpoints: Vec<String>,
    /// The removed ones among them.
    pub removed_endpoints: Vec<String>,
    /// Scopes, then audiences, of which the title alone changed.
    pub changed_titles: Vec<String>,
    /// Issuers that were added or removed, or whose entry changed.
    pub changed_issuers: Vec<String>,
    /// The removed ones among them, and removed aliases of issuers, sorted: tokens with this `iss` are no
    /// longer accepted.
    pub removed_issuers: Vec<String>,
    /// Types of resources that were added or removed, or whose actions or listed resources changed.
    pub changed_resources: Vec<String>,
    /// The removed ones among them.
    pub removed_resources: Vec<String>,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// It is new.
    Added,
    /// It was removed.
    Removed,
    /// It changed.
    Changed,
}

impl DifferenceKind {
    fn of<T>(before: Option<&T>, after: Option<&T>) -> Self {
        match (before, after) {
            (None, _) => Self::Added,
            (_, None) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// A change of one part of a catalog, as text for people. A missing side is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartChange {
    /// Its name: of a renamed scope the new one.
    pub name: String,
    /// The kind of the change.
    pub kind: DifferenceKind,
    /// The text before.
    pub before: String,
    /// The text after.
    pub after: String,
}

/// All changes from one catalog to another, part by part, as text for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DifferenceDetails {
    /// The platform's name.
    pub name: Option<PartChange>,
    /// Titles of scopes and audiences that stay.
    pub titles: Vec<PartChange>,
    /// What scopes that stay imply and belong to: only what they no longer have, and now have.
    pub scopes: Vec<PartChange>,
    /// Requirements of audiences: the changed ones only.
    pub audiences: Vec<PartChange>,
    /// Permissions that roles lose and gain.
    pub roles: Vec<PartChange>,
    /// Scopes that endpoints need.
    pub endpoints: Vec<PartChange>,
    /// Terms of issuers: the changed ones only.
    pub issuers: Vec<PartChange>,
    /// Actions and listed resources of types: the changed ones only.
    pub resources: Vec<PartChange>,
}

/// The most bytes of the names in one list of a response.
const MAX_LISTED_BYTES: usize = 512 << 10;

/// The first of these names, up to [`MAX_LISTED_BYTES`].
fn first(names: &[String]) -> Vec<String> {
    let mut bytes = 0;
    let fits = |name: &&String| {
        bytes += name.len();
        bytes <= MAX_LISTED_BYTES
    };
    names.iter().take_while(fits).cloned().collect()
}

impl CatalogDifference {
    /// The same difference, with as many endpoints and titles as a response can have.
    #[must_use]
    pub fn bounded(&self) -> Self {
        Self {
            added_endpoints: first(&self.added_endpoints),
            removed_endpoints: first(&self.removed_endpoints),
            changed_titles: first(&self.changed_titles),
            ..self.clone()
        }
    }

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The fields for the audit log, without the added and removed scopes.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldChange> {
        fn joined(items: &[impl ToString]) -> String {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        let is_left = |name: &&String, removed: &[String]| !removed.contains(name);
        // What is gone is told as what was before, all else as what is now.
        let parts = |changed: &[String], removed: &[String]| {
            let left: Vec<_> = changed.iter().filter(|name| is_left(name, removed)).collect();
            (joined(removed), joined(&left))
        };
        let marks = [
            ("renamed_scopes", (String::new(), joined(&self.renamed))),
            ("scopes", (String::new(), joined(&self.changed_scopes))),
            ("audiences", parts(&self.changed_audiences, &self.removed_audiences)),
            ("roles", parts(&self.changed_roles, &self.removed_roles)),
            ("endpoints", parts(&self.changed_endpoints, &self.removed_endpoints)),
            ("issuers", parts(&self.changed_issuers, &self.removed_issuers)),
            ("resources", parts(&self.changed_resources, &self.removed_resources)),
        ];
        let marks = marks.into_iter();
        let told =
            |(field, (gone, now)): (&str, (String, String))| FieldChange::names(field, &gone, &now);
        marks.filter_map(told).collect()
    }
}

/// The keys whose values differ between two maps, or that only one has.
fn changed<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
    same: impl Fn(&K, &V, &V) -> bool,
) -> Vec<&'a K> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differs = |key: &&K| match (old.get(*key), new.get(*key)) {
        (Some(old), Some(new)) => !same(key, old, new),
        _ => true,
    };
    keys.into_iter().filter(differs).collect()
}

/// The keys that only the old map has.
fn gone<K: Ord + ToString, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<String> {
    texts(old.keys().filter(|key| !new.contains_key(*key)).collect())
}

fn texts<K: ToString>(keys: Vec<&K>) -> Vec<String> {
    keys.into_iter().map(ToString::to_string).collect()
}

fn joined_words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// The audience without its title, which requires nothing.
fn without_title(audience: &Audience) -> Audience {
    Audience { title: String::new(), ..audience.clone() }
}

/// A part of a catalog that differs, with only those of its terms that the other side lacks.
fn part_change(name: String, then: Option<Vec<String>>, now: Option<Vec<String>>) -> PartChange {
    let kind = DifferenceKind::of(then.as_ref(), now.as_ref());
    let text = |own: &Option<Vec<String>>, other: &Option<Vec<String>>| {
        let other: BTreeSet<_> = other.iter().flatten().collect();
        let own = own.iter().flatten().filter(|term| !other.contains(term));
        own.cloned().collect::<Vec<_>>().join(", ")
    };
    PartChange { name, kind, before: text(&then, &now), after: text(&now, &then) }
}

/// The names that the scopes of the catalog before have now, where they have others.
struct RenameMap(BTreeMap<Scope, Scope>);

impl RenameMap {
    fn of<'a>(&'a self, scope: &'a Scope) -> &'a Scope {
        self.0.get(scope).unwrap_or(scope)
    }

    /// An endpoint as it would be written with the names of now.
    fn endpoint(&self, endpoint: &Endpoint) -> Endpoint {
        let renamed =
            |scopes: &[Scope]| scopes.iter().map(|scope| self.of(scope).clone()).collect();
        Endpoint {
            scopes: renamed(&endpoint.scopes),
            any_of: renamed(&endpoint.any_of),
            ..endpoint.clone()
        }
    }

    /// A type of resources as it would be written with the names of now.
    fn resource_type(&self, kind: &ResourceType) -> ResourceType {
        let mut kind = kind.clone();
        for rule in kind.actions.values_mut().flatten() {
            rule.needs = self.endpoint(&rule.needs);
        }
        kind
    }

    /// An audience without its title, as it would be written with the names of now.
    fn audience(&self, audience: &Audience) -> Audience {
        let exchange = audience.exchange.as_ref().map(|scope| self.of(scope).clone());
        Audience { exchange, ..without_title(audience) }
    }

    fn implied(&self, entry: &ScopeEntry) -> BTreeSet<Scope> {
        entry.implies.iter().map(|scope| self.of(scope).clone()).collect()
    }
}

impl Catalog {
    /// The changes from the catalog before to this one.
    #[must_use]
    pub fn difference(&self, before: &Self) -> CatalogDifference {
        let (old, new) = (&before.file, &self.file);
        let lost = |id: &ScopeId| self.name(*id).is_none();
        let fresh = |id: &ScopeId| before.name(*id).is_none();
        let mut removed: Vec<_> = before.scope_ids().filter(lost).collect();
        removed.sort();
        let added: Vec<_> = self.scope_ids().filter(fresh).collect();
        let renamed = self.renamed(before);
        let names = self.rename_map(before);
        let acts = |(_, old, new): &(&Scope, &ScopeEntry, &ScopeEntry)| {
            names.implied(old) != new.implies.iter().cloned().collect()
                || old.audiences != new.audiences
        };
        let (unchanged_scopes, titled): (Vec<_>, Vec<_>) =
            self.unchanged_scopes(before).partition(acts);
        let titled = titled.into_iter().filter(|(_, old, new)| old.title != new.title);
        let endpoints = self.changed_endpoints(before, &names);
        let only = |of: &CatalogFile, other: &CatalogFile| {
            let own = endpoints.iter().filter(|name| {
                of.endpoints_by_name.contains_key(*name)
                    && !other.endpoints_by_name.contains_key(*name)
            });
            own.cloned().collect()
        };
        let audience_titles = new.audiences.iter().filter(|(name, now)| {
            let then = old.audiences.get(*name);
            then.is_some_and(|then| {
                then.title != now.title && names.audience(then) == without_title(now)
            })
        });
        let changed_titles = titled
            .map(|(name, ..)| name.to_string())
            .chain(audience_titles.map(|(name, _)| name.to_string()))
            .collect();
        CatalogDifference {
            added: self.names(&added),
            removed_names: before.names(&removed),
            removed,
            renamed,
            changed_scopes: unchanged_scopes.into_iter().map(|(name, ..)| name.clone()).collect(),
            changed_audiences: texts(changed(&old.audiences, &new.audiences, |_, old, new| {
                names.audience(old) == without_title(new)
            })),
            removed_audiences: gone(&old.audiences, &new.audiences),
            removed_roles: gone(&old.roles, &new.roles),
            changed_roles: texts(changed(&old.roles, &new.roles, |name, _, _| {
                self.roles.get(name) == before.roles.get(name)
            })),
            added_endpoints: only(new, old),
            removed_endpoints: only(old, new),
            changed_endpoints: endpoints,
            changed_titles,
            changed_issuers: texts(changed(&old.issuers, &new.issuers, |_, old, new| old == new)),
            removed_issuers: self.removed_issuers(before),
            changed_resources: texts(self.changed_resources(before, &names)),
            removed_resources: gone(&old.resources, &new.resources),
        }
    }

    fn removed_issuers(&self, before: &Self) -> Vec<String> {
        let aliases = before.issuers().flat_map(|issuer| &issuer.aliases);
        let aliases = aliases.filter(|alias| self.issuer(alias).is_none());
        let names = gone(&before.file.issuers, &self.file.issuers);
        let all: BTreeSet<_> = names.into_iter().chain(aliases.map(ToString::to_string)).collect();
        all.into_iter().collect()
    }

    /// The same changes part by part, as text for people. The text can be long.
    #[must_use]
    pub fn details(&self, before: &Self) -> DifferenceDetails {
        let (old, new) = (&before.file, &self.file);
        let names = self.rename_map(before);
        let quoted =
            |title: &str| if title.is_empty() { String::new() } else { format!("\"{title}\"") };
        let moved = |name: String, before: String, after: String| {
            (before != after).then_some(PartChange {
                name,
                kind: DifferenceKind::Changed,
                before,
                after,
            })
        };
        let scope_titles = self.unchanged_scopes(before).filter_map(|(name, then, now)| {
            moved(name.to_string(), quoted(&then.title), quoted(&now.title))
        });
        let audience_titles = new.audiences.iter().filter_map(|(name, now)| {
            let then = old.audiences.get(name)?;
            moved(format!("audience {name}"), quoted(&then.title), quoted(&now.title))
        });
        let scopes = self.unchanged_scopes(before).filter_map(|(name, then, now)| {
            let (had, has) = (names.implied(then), now.implies.iter().cloned().collect());
            let mut before = clause("implies", had.difference(&has));
            let mut after = clause("implies", has.difference(&had));
            if then.audiences != now.audiences {
                let of = |audiences: &Option<BTreeSet<_>>| match audiences {
                    Some(names) => format!("of audience {}", joined_words(names)),
                    None => "of all audiences".to_owned(),
                };
                before.push(of(&then.audiences));
                after.push(of(&now.audiences));
            }
            moved(name.to_string(), before.join("; "), after.join("; "))
        });
        let audiences = changed(&old.audiences, &new.audiences, |_, old, new| {
            names.audience(old) == without_title(new)
        });
        let none = Audience::default();
        let audiences = audiences.into_iter().map(|name| {
            let then = old.audiences.get(name).map(|audience| names.audience(audience));
            let (then, now) = (then.as_ref(), new.audiences.get(name));
            let terms = |own: Option<&Audience>, other: Option<&Audience>| {
                own.map(|own| requirements(own, other.unwrap_or(&none)))
            };
            part_change(name.to_string(), terms(then, now), terms(now, then))
        });
        let issuers = changed(&old.issuers, &new.issuers, |_, old, new| old == new);
        let issuers = issuers.into_iter().map(|name| {
            let terms = |of: &CatalogFile| of.issuers.get(name).map(|issuer| issuer.terms());
            part_change(name.to_string(), terms(old), terms(new))
        });
        let roles = changed(&old.roles, &new.roles, |name, _, _| {
            self.roles.get(name) == before.roles.get(name)
        });
        let roles = roles.into_iter().map(|name| {
            let (then, now) = (before.roles.get(name), self.roles.get(name));
            let permits =
                |of: &Self, set: Option<&ScopeMap<Reach>>, other: Option<&ScopeMap<Reach>>| {
                    let entries = set.into_iter().flat_map(ScopeMap::iter);
                    let own = entries
                        .filter(|(id, reach)| other.and_then(|set| set.get(*id)) != Some(*reach));
                    let own: BTreeSet<_> = own
                        .filter_map(|(id, reach)| {
                            let reach = match reach {
                                Reach::All => "",
                                Reach::Own => " (own)",
                            };
                            let name = self.name(id).or_else(|| of.name(id))?;
                            Some(format!("{name}{reach}"))
                        })
                        .collect();
                    own.into_iter().collect::<Vec<_>>().join(", ")
                };
            let (loses, gains) = (permits(before, then, now), permits(self, now, then));
            PartChange {
                name: name.to_string(),
                kind: DifferenceKind::of(then, now),
                before: loses,
                after: gains,
            }
        });
        let endpoints = self.changed_endpoints(before, &names).into_iter().map(|name| {
            let (then, now) = (old.endpoints_by_name.get(&name), new.endpoints_by_name.get(&name));
            let kind = DifferenceKind::of(then, now);
            let (had, has) = (old.colon_in.get(&name), new.colon_in.get(&name));
            let before = then.map(|then| needs(&names.endpoint(then), had)).unwrap_or_default();
            let after = now.map(|now| needs(now, has)).unwrap_or_default();
            PartChange { name, kind, before, after }
        });
        let resources = self.changed_resources(before, &names).into_iter().map(|name| {
            let then = old.resources.get(name).map(|kind| names.resource_type(kind).terms());
            let now = new.resources.get(name).map(ResourceType::terms);
            part_change(name.to_string(), then, now)
        });
        DifferenceDetails {
            name: moved("name".to_owned(), old.name.clone(), new.name.clone()),
            titles: scope_titles.chain(audience_titles).collect(),
            scopes: scopes.collect(),
            audiences: audiences.collect(),
            roles: roles.collect(),
            endpoints: endpoints.collect(),
            issuers: issuers.collect(),
            resources: resources.collect(),
        }
    }

    /// The scopes that both have, by name, each as it was and as it is.
    fn unchanged_scopes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a Scope, &'a ScopeEntry, &'a ScopeEntry)> {
        self.file.scopes.iter().filter_map(|(name, now)| {
            let then = before.file.scopes.get(before.name(self.id(name)?)?)?;
            Some((name, then, now))
        })
    }

    fn renamed(&self, before: &Self) -> Vec<RenamedScope> {
        let then = before.file.scopes.keys();
        let renamed = then.filter_map(|old| {
            let new = self.name(before.id(old)?)?;
            (new != old).then(|| RenamedScope { old: old.clone(), new: new.clone() })
        });
        renamed.collect()
    }

    fn rename_map(&self, before: &Self) -> RenameMap {
        RenameMap(self.renamed(before).into_iter().map(|scope| (scope.old, scope.new)).collect())
    }

    fn changed_resources<'a>(&'a self, before: &'a Self, names: &RenameMap) -> Vec<&'a Name> {
        changed(&before.file.resources, &self.file.resources, |_, then, now| {
            names.resource_type(then) == *now
        })
    }

    fn changed_endpoints(&self, before: &Self, names: &RenameMap) -> Vec<String> {
        let (old, new) = (&before.file, &self.file);
        texts(changed(&old.endpoints_by_name, &new.endpoints_by_name, |name, then, now| {
            names.endpoint(then) == *now && old.colon_in.get(name) == new.colon_in.get(name)
        }))
    }
}

fn clause<'a>(verb: &str, scopes: impl Iterator<Item = &'a Scope>) -> Vec<String> {
    let scopes = joined_words(scopes);
    if scopes.is_empty() { vec![] } else { vec![format!("{verb} {scopes}")] }
}

/// The scopes that an endpoint needs and its `colon_in`, as text.
pub(super) fn needs(endpoint: &Endpoint, colon_in: Option<&BTreeSet<String>>) -> String {
    let mut parts = Vec::new();
    if !endpoint.scopes.is_empty() {
        parts.push(joined_words(&endpoint.scopes));
    }
    if !endpoint.any_of.is_empty() {
        parts.push(format!("any of {}", joined_words(&endpoint.any_of)));
    }
    if parts.is_empty() {
        parts.push("no scope".to_owned());
    }
    let mut text = parts.join(", and ");
    if let Some(audience) = &endpoint.audience {
        text.push_str(&format!(" (audience {audience})"));
    }
    if let Some(names) = colon_in {
        text.push_str(&format!("; colon in {}", joined_words(names)));
    }
    text
}

/// The requirements of an audience, as text. Those of issued tokens are told where they differ from
/// the other side's.
fn requirements(audience: &Audience, other: &Audience) -> Vec<String> {
    let need = |what: &str, required| match required {
        true => format!("{what} required"),
        false => format!("{what} optional"),
    };
    let age = audience.max_token_age.map(|seconds| format!("{seconds}s"));
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let mut terms = vec![
        need("token", audience.token_required),
        need("user", audience.user_required),
        need("consent", audience.consent_required),
        format!("max_token_age {}", age.as_deref().unwrap_or("none")),
        format!("clock_skew {}s", audience.clock_skew),
        format!("aud {}", or_none(joined_words(&audience.aud))),
    ];
    if audience.token_ttl != other.token_ttl {
        terms.push(format!("token_ttl {}s", audience.token_ttl));
    }
    if audience.hosts != other.hosts {
        terms.push(format!("hosts {}", or_none(joined_words(&audience.hosts))));
    }
    if audience.exchange != other.exchange {
        terms.push(format!("exchange {}", or_none(joined_words(&audience.exchange))));
    }
    terms
}
