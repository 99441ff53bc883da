//! Resources of a catalog file: types, actions, rules and the resources that the catalog lists.
//!
//! A rule that never applies is refused, since a reader would take it for one that does: an earlier rule of
//! the action holds whenever it does.
//!
//! Not here: which rule holds for a request; see [`crate::policy::catalog::resource`].

use std::collections::BTreeMap;

use serde_saphyr::{Location, Spanned};

use super::CatalogFile;
use super::raw::{OrderedMap, RawActionRule, RawKnown, RawResource, RawWhen};
use super::validator::{FileValidator, quoted};
use super::value::{RawScalar, RawValue};
use crate::policy::catalog::endpoint::Endpoint;
use crate::policy::catalog::required_scopes::{self, RequiredScopes};
use crate::policy::catalog::resource::{
    ActionRule, Compared, KnownResource, OWNER_ID, RESERVED_TYPES, ResourceType,
};
use crate::policy::id::{Name, UserId};
use crate::policy::property::{Number, Properties, PropertyValue};

/// The most types of resources.
pub const MAX_RESOURCE_TYPES: usize = 1_000;
/// The most actions of one type.
pub const MAX_ACTIONS: usize = 64;
/// The most rules of one action.
pub const MAX_RULES: usize = 64;
/// The most conditions of one rule.
pub const MAX_CONDITIONS: usize = 16;
/// The most resources that all types list together.
pub const MAX_KNOWN: usize = 10_000;
/// The most properties of one listed resource.
pub const MAX_PROPERTIES: usize = 64;
/// The limit of bytes of the id of a listed resource.
pub const MAX_ID_LEN: usize = 256;
/// The limit of bytes of a value that is compared.
pub const MAX_VALUE_LEN: usize = 256;

impl FileValidator<'_> {
    pub(super) fn resources(&mut self, raw: OrderedMap<RawResource>, file: &mut CatalogFile) {
        if let Some((first_above, _)) = raw.0.get(MAX_RESOURCE_TYPES) {
            self.above(first_above.referenced, "resources", raw.0.len(), MAX_RESOURCE_TYPES);
            return;
        }
        let mut known_count = 0;
        for (key, raw) in raw.0 {
            let kind = self.resource_type(raw, file, &mut known_count);
            if RESERVED_TYPES.contains(&&*key.value) {
                let message = format!(
                    "`{}` cannot be the name of a type: requests name scopes and endpoints by it",
                    key.value
                );
                self.problem(key.referenced, message);
                continue;
            }
            if let Some(name) = self.name(&key) {
                let earlier = file.resources.insert(name, kind).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
    }

    fn above(&mut self, at: Location, key: &str, count: usize, limit: usize) {
        self.problem(at, format!("`{key}` has {count} entries, the limit is {limit}"));
    }

    fn resource_type(
        &mut self,
        raw: RawResource,
        file: &CatalogFile,
        known_count: &mut usize,
    ) -> ResourceType {
        let audience = raw.audience.as_ref().and_then(|text| {
            let name = self.name(text);
            self.declared(text, name, &file.audiences, "an audience")
        });
        let (at, raw_actions) = (raw.actions.referenced, raw.actions.value.0);
        if raw_actions.is_empty() {
            self.problem(
                at,
                "`actions` is empty: name the actions, each with its rules".to_owned(),
            );
        }
        let mut actions = BTreeMap::new();
        if let Some((first_above, _)) = raw_actions.get(MAX_ACTIONS) {
            self.above(first_above.referenced, "actions", raw_actions.len(), MAX_ACTIONS);
        } else {
            for (key, rules) in raw_actions {
                let rules = self.rules(&key, &rules, audience.as_ref(), file);
                if let Some(name) = self.name(&key) {
                    let earlier = actions.insert(name, rules).is_some();
                    self.check_duplicate(&key, earlier);
                }
            }
        }
        let known = raw.known.map(|known| self.known(known, known_count));
        ResourceType { audience, actions, known }
    }

    /// The rules of an action, in the order of the file.
    fn rules(
        &mut self,
        action: &Spanned<String>,
        raw: &[Spanned<RawActionRule>],
        audience: Option<&Name>,
        file: &CatalogFile,
    ) -> Vec<ActionRule> {
        if raw.is_empty() {
            let message = format!(
                "`{}` has no rule, so no client may do it: write a rule, or leave the action out",
                quoted(&action.value)
            );
            self.problem(action.referenced, message);
        }
        if let Some(first_above) = raw.get(MAX_RULES) {
            self.above(first_above.referenced, &quoted(&action.value), raw.len(), MAX_RULES);
            return vec![];
        }
        let mut rules: Vec<(ActionRule, Location)> = Vec::with_capacity(raw.len());
        for raw in raw {
            let at = raw.referenced;
            let when = raw.value.when.as_ref();
            let when = match when.map(|when| self.when(when)) {
                None => BTreeMap::new(),
                Some(Some(when)) => when,
                // Reported already, and not to be taken for a rule without conditions.
                Some(None) => continue,
            };
            let holds_too = |earlier: &ActionRule| {
                earlier.when.iter().all(|(key, value)| when.get(key) == Some(value))
            };
            if let Some((earlier, place)) = rules.iter().find(|(earlier, _)| holds_too(earlier)) {
                let why = match earlier.when.len() {
                    0 => "has no `when`",
                    len if len == when.len() => "has the same `when`",
                    _ => "has a part of this `when`",
                };
                let message = format!(
                    "the rule never applies, since that of line {}, column {} {why}: remove one, or write \
                     this one first",
                    place.line(),
                    place.column()
                );
                self.problem(at, message);
            }
            let needs = self.rule_needs(raw, audience, file);
            rules.push((ActionRule { when, needs }, at));
        }
        rules.into_iter().map(|(rule, _)| rule).collect()
    }

    fn rule_needs(
        &mut self,
        raw: &Spanned<RawActionRule>,
        audience: Option<&Name>,
        file: &CatalogFile,
    ) -> Endpoint {
        let rule = &raw.value;
        let read = required_scopes::read("a rule", rule.scopes.as_ref(), rule.any_of.as_ref());
        let required = read.unwrap_or_else(|(at, message)| {
            self.problem(at.unwrap_or(raw.referenced), message);
            RequiredScopes::default()
        });
        let scopes = self.scope_list(required.scopes, audience, "resource", file);
        let any_of = self.scope_list(required.any_of, audience, "resource", file);
        Endpoint { audience: audience.cloned(), scopes, any_of, needs_no_scope: required.no_scope }
    }

    /// The conditions of a rule; `None` if one of them is wrong.
    fn when(&mut self, raw: &RawWhen) -> Option<BTreeMap<Compared, PropertyValue>> {
        let conditions = match &raw.value {
            RawValue::Map(conditions) if !conditions.0.is_empty() => &conditions.0,
            _ => {
                let message = "`when` must be a map such as `{ resource.status: archived }`; leave it \
                               out of a rule that always applies";
                self.problem(raw.referenced, message.to_owned());
                return None;
            }
        };
        if let Some((first_above, _)) = conditions.get(MAX_CONDITIONS) {
            self.above(first_above.referenced, "when", conditions.len(), MAX_CONDITIONS);
            return None;
        }
        let mut when = BTreeMap::new();
        let mut is_whole = true;
        for (key, raw) in conditions {
            let compared = self.parse_value(key, compared);
            let value = self.property_value(raw);
            let (Some(compared), Some(value)) = (compared, value) else {
                is_whole = false;
                continue;
            };
            let earlier = when.insert(compared, value).is_some();
            self.check_duplicate(key, earlier);
        }
        is_whole.then_some(when)
    }

    fn property_value(&mut self, raw: &Spanned<RawScalar>) -> Option<PropertyValue> {
        let at = raw.referenced;
        let source = self.source(raw.defined);
        let len = match &raw.value {
            RawScalar::Text(text) => text.len(),
            _ => source.len(),
        };
        if len > MAX_VALUE_LEN {
            let message = format!("the value has {len} bytes, the limit is {MAX_VALUE_LEN}");
            self.problem(at, message);
            return None;
        }
        match &raw.value {
            RawScalar::Text(text) => {
                self.check_text(at, "the value", text);
                Some(PropertyValue::Text(text.clone()))
            }
            RawScalar::Bool(value) => Some(PropertyValue::Bool(*value)),
            // The text of the file, since what YAML makes of it is rounded.
            RawScalar::Number => match Number::parse(source) {
                Ok(number) => Some(PropertyValue::Number(number)),
                Err(error) => {
                    let message =
                        format!("`{}` {error}; quote it if it is a string", quoted(source));
                    self.problem(at, message);
                    None
                }
            },
            RawScalar::Nothing => {
                let message = "the value is missing: write a string, a number or a boolean";
                self.problem(at, message.to_owned());
                None
            }
        }
    }

    /// The resources that a type lists.
    fn known(
        &mut self,
        raw: Spanned<RawKnown>,
        known_count: &mut usize,
    ) -> BTreeMap<Box<str>, KnownResource> {
        let RawValue::Map(all) = raw.value else {
            let message = "`known` must be a map of ids, each with its properties; leave it out if any \
                           id will do";
            self.problem(raw.referenced, message.to_owned());
            return BTreeMap::new();
        };
        let room = MAX_KNOWN.saturating_sub(*known_count);
        *known_count += all.0.len();
        if let Some((first_above, _)) = all.0.get(room) {
            let message = format!("all `known` have more than {MAX_KNOWN} resources together");
            self.problem(first_above.referenced, message);
            return BTreeMap::new();
        }
        let mut known = BTreeMap::new();
        for (key, properties) in all.0 {
            let id = self.parse_value(&key, known_id);
            let resource = self.known_resource(properties.unwrap_or_default());
            let Some(id) = id else { continue };
            self.check_text(key.referenced, "the id", &id);
            let earlier = known.insert(id, resource).is_some();
            self.check_duplicate(&key, earlier);
        }
        known
    }

    fn known_resource(&mut self, raw: OrderedMap<Spanned<RawScalar>>) -> KnownResource {
        if let Some((first_above, _)) = raw.0.get(MAX_PROPERTIES) {
            let message = format!(
                "the resource has {} properties, the limit is {MAX_PROPERTIES}",
                raw.0.len()
            );
            self.problem(first_above.referenced, message);
            return KnownResource::default();
        }
        let mut properties = Properties::default();
        let mut owner = None;
        for (key, raw) in raw.0 {
            let name = self.parse_value(&key, property_name);
            let value = self.property_value(&raw);
            let (Some(name), Some(value)) = (name, value) else { continue };
            if &*name == OWNER_ID {
                owner = match &value {
                    PropertyValue::Text(text) => UserId::parse(text.clone()).ok(),
                    _ => None,
                };
                if owner.is_none() {
                    let message = format!("`{OWNER_ID}` must be the id of a user, as a string");
                    self.problem(raw.referenced, message);
                }
            }
            let is_new = properties.insert(name, Some(value));
            self.check_duplicate(&key, !is_new);
        }
        KnownResource { properties, owner }
    }
}

/// What a condition compares.
fn compared(text: &str) -> Result<Compared, String> {
    let (of, name) = text.split_once('.').unwrap_or((text, ""));
    let compared = match of {
        "resource" => Compared::Resource,
        "action" => Compared::Action,
        _ => {
            return Err(
                "is not a condition: write `resource.` or `action.` and the name of a property"
                    .to_owned(),
            );
        }
    };
    property_name(name).map(compared)
}

/// The name of a property. One with a `.` would be taken for a property of a property.
fn property_name(text: &str) -> Result<Box<str>, String> {
    if text.contains('.') {
        return Err(
            "names a property of a property: only properties of the resource or the action itself \
             are compared"
                .to_owned(),
        );
    }
    Name::parse(text).map_err(|error| error.to_string())?;
    Ok(text.into())
}

fn known_id(text: &str) -> Result<Box<str>, String> {
    match text.len() {
        0 => Err("is empty: write the id of a resource".to_owned()),
        length if length > MAX_ID_LEN => {
            Err(format!("has {length} bytes, the limit is {MAX_ID_LEN}"))
        }
        _ => Ok(text.into()),
    }
}
