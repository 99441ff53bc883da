//! Resource: a type of resources that the catalog declares, and what each action on one needs.
//!
//! An action is a list of rules. The first one whose conditions hold says what the call needs, as an
//! endpoint does. Where none holds, the call is one to an unknown endpoint.
//!
//! Not here: who may do it; see [`crate::policy::decision`].

use std::collections::BTreeMap;

use super::difference::needs;
use super::endpoint::Endpoint;
use crate::policy::id::{Name, UserId};
use crate::policy::property::{Properties, PropertyValue};

/// The property of a resource that names its owner.
pub const OWNER_ID: &str = "owner_id";

/// Names of types that a catalog cannot declare, because a request has them for scopes and endpoints.
pub const RESERVED_TYPES: [&str; 2] = ["scope", "route"];

/// A type of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceType {
    /// The audience that it belongs to, if it names one.
    pub audience: Option<Name>,
    /// The actions, each with its rules in the order of the file.
    pub actions: BTreeMap<Name, Vec<ActionRule>>,
    /// The only resources of the type, by id. `None`: a resource can have any id.
    pub known: Option<BTreeMap<Box<str>, KnownResource>>,
}

/// A resource that the catalog lists. A request cannot change its properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownResource {
    /// The properties.
    pub properties: Properties,
    /// The user that `owner_id` names, if the properties have it.
    pub owner: Option<UserId>,
}

/// A rule of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionRule {
    /// The conditions, all of which must hold. Without one the rule always holds.
    pub when: BTreeMap<Compared, PropertyValue>,
    /// What the call needs, as of an endpoint. The audience is the type's.
    pub needs: Endpoint,
}

/// What a condition compares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compared {
    /// This property of the resource.
    Resource(Box<str>),
    /// This property of the action.
    Action(Box<str>),
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resource(name) => write!(f, "resource.{name}"),
            Self::Action(name) => write!(f, "action.{name}"),
        }
    }
}

/// An action on a resource of a type that the catalog declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAction {
    /// The type of the resource.
    pub kind: Box<str>,
    /// The id of the resource.
    pub id: Box<str>,
    /// The action.
    pub action: Box<str>,
    /// What the request says of the resource.
    pub resource: Properties,
    /// What the request says of the action.
    pub action_properties: Properties,
}

/// What a call needs, and the owner of the resource if the catalog knows it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceNeeds<'a> {
    /// The audience and the scopes.
    pub needs: &'a Endpoint,
    /// The owner, whatever the request says.
    pub owner: Option<&'a UserId>,
}

impl ResourceType {
    /// What an action on a resource needs. `None`: the type has no such action, it does not know the id, or
    /// no rule holds.
    #[must_use]
    pub fn needs(&self, asked: &ResourceAction) -> Option<ResourceNeeds<'_>> {
        let known = match &self.known {
            Some(known) => Some(known.get(&*asked.id)?),
            None => None,
        };
        let rules = self.actions.get(&*asked.action)?;
        let value = |compared: &Compared| match compared {
            Compared::Action(name) => asked.action_properties.get(name),
            Compared::Resource(name) => match known {
                Some(known) if known.properties.contains(name) => known.properties.get(name),
                _ => asked.resource.get(name),
            },
        };
        let holds = |rule: &&ActionRule| {
            rule.when.iter().all(|(compared, wanted)| value(compared) == Some(wanted))
        };
        let rule = rules.iter().find(holds)?;
        Some(ResourceNeeds {
            needs: &rule.needs,
            owner: known.and_then(|known| known.owner.as_ref()),
        })
    }

    /// What the file says of the type, as text for people: one sentence for each action and each listed
    /// resource.
    pub(super) fn terms(&self) -> Vec<String> {
        let actions = self.actions.iter().map(|(action, rules)| {
            let rules = rules.iter().map(|rule| {
                let when = rule.when.iter().map(|(of, value)| format!("{of} = {value}"));
                let when = when.collect::<Vec<_>>().join(" and ");
                let needs = needs(&rule.needs, None);
                if when.is_empty() { needs } else { format!("when {when}: {needs}") }
            });
            format!("{action}: {}", rules.collect::<Vec<_>>().join(", else "))
        });
        let ids = match &self.known {
            None => vec!["any id".to_owned()],
            Some(known) if known.is_empty() => vec!["no id".to_owned()],
            Some(known) => known.iter().map(|(id, known)| known.term(id)).collect(),
        };
        actions.chain(ids).collect()
    }
}

impl KnownResource {
    fn term(&self, id: &str) -> String {
        let all = self.properties.iter();
        let all = all.filter_map(|(name, value)| Some(format!(" {name} = {}", value?)));
        format!("id {id:?}{}", all.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::catalog::Catalog;

    const OLD: &str = "
audiences: { p: }
scopes: { a: , b: , c: }
resources:
  gone: { actions: { x: [{ scopes: [a] }] } }
  same: { actions: { x: [{ when: { resource.n: 1 }, scopes: [b] }] } }
  doc:
    audience: p
    actions:
      read: [{ scopes: [a] }]
      write: [{ when: { action.soft: true, resource.n: 1.50 }, any_of: [a, b] }, { scopes: [c] }]
    known: { one: { status: active }, two: }
  open: { actions: { x: [{ scopes: none }] }, known: {} }";

    #[test]
    fn what_a_new_catalog_changes_of_resources_is_told_by_type() {
        let new = OLD
            .replace("gone:", "new:")
            .replace("b: , c: }", "b2: { renamed_from: b }, c: }")
            .replace("scopes: [b]", "scopes: [b2]")
            .replace("any_of: [a, b]", "any_of: [a, b2]")
            .replace("resource.n: 1 }", "resource.n: 1.0 }")
            .replace("read: [{ scopes: [a] }]", "read: [{ scopes: [a, c] }]")
            .replace("{ status: active }, two:", "{ status: archived }, three:")
            .replace("known: {} }", "}")
            .replace("scopes: none }] }, }", "scopes: none }] } }");
        let old = Catalog::empty().replaced_by(OLD).expect("a catalog");
        let new = old.replaced_by(&new).expect("a catalog");
        let difference = new.difference(&old);
        // `same` has a scope by its new name, and an equal number.
        assert_eq!(difference.changed_resources, ["doc", "gone", "new", "open"]);
        assert_eq!(difference.removed_resources, ["gone"]);
        assert!(difference.changed_scopes.is_empty() && difference.changed_endpoints.is_empty());
        let fields = difference.fields();
        let field = fields.iter().find(|field| field.field == "resources").expect("a field");
        assert_eq!((&*field.before, &*field.after), ("\"gone\"", "\"doc, new, open\""));
        let told = new.details(&old).resources;
        let told: Vec<_> = told
            .iter()
            .map(|part| format!("{} {:?}: {} / {}", part.name, part.kind, part.before, part.after))
            .collect();
        assert_eq!(
            told,
            [
                "doc Changed: read: a (audience p), id \"one\" status = \"active\", id \"two\" / \
                 read: a c (audience p), id \"one\" status = \"archived\", id \"three\"",
                "gone Removed: x: a, any id / ",
                "new Added:  / x: a, any id",
                "open Changed: no id / any id",
            ]
        );
        let [_, write, ..] = &*old.resource_type("doc").expect("a type").terms() else {
            panic!("two actions")
        };
        assert_eq!(
            write,
            "write: when resource.n = 15e-1 and action.soft = true: any of a b (audience p), else c (audience p)"
        );
        assert!(new.difference(&new).is_empty());
    }

    #[test]
    fn routes_are_listed_by_method_and_template() {
        let yaml = "
scopes: { a: }
endpoints:
  - { method: POST, path: /b, scopes: [a] }
  - { method: GET, path: /b, scopes: [a] }
  - { method: GET, path: \"/a/{x}\", scopes: [a] }
  - { method: GETS, path: /a, scopes: [a] }";
        let catalog = Catalog::empty().replaced_by(yaml).expect("a catalog");
        let of = |method, after| {
            catalog.routes_of(method, after).map(|(path, _)| path).collect::<Vec<_>>()
        };
        assert_eq!(of("GET", None), ["/a/{x}", "/b"]);
        assert_eq!(of("GET", Some("/a/{x}")), ["/b"]);
        assert_eq!(of("GET", Some("/a/{y}")), ["/b"]);
        assert!(of("GET", Some("/b")).is_empty() && of("HEAD", None).is_empty());
        assert_eq!(catalog.methods().into_iter().collect::<Vec<_>>(), ["GET", "GETS", "POST"]);
        assert_eq!(catalog.routes().count(), 4);
    }
}
