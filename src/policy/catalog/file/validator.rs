//! Validation of a catalog file: names, bounds, references between parts, and endpoint paths.
//!
//! The validator does not stop at the first problem. It reports every one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde_saphyr::{Location, Spanned};

use super::MAX_AUDIENCE_LEN;
use super::cycle::find_cycle;
use super::duration::{clock_skew, duration, up_to};
use super::host::parse_host;
use super::raw::{
    OrderedMap, Presence, RawAudience, RawEndpoint, RawFile, RawReach, RawRole, RawScope,
};
use super::{CatalogError, CatalogFile, ScopeEntry};
use crate::policy::catalog::endpoint::{
    Endpoint, Template, TemplateError, check_method, is_method,
};
use crate::policy::catalog::rename::Rename;
use crate::policy::catalog::required_scopes::{self, RequiredScopes};
use crate::policy::catalog::{Audience, MAX_TOKEN_TTL, Reach, RoleEntry, TOKEN_TTL};
use crate::policy::id::Name;
use crate::policy::scope::Scope;
use crate::policy::text;

/// The most strings in the `aud` of one audience.
pub const MAX_AUDS: usize = 32;
/// The most hosts of one audience.
pub const MAX_HOSTS: usize = 32;

/// A text of the file, shortened and escaped for an error.
pub(super) fn quoted(text: &str) -> String {
    text::quoted(text, 160)
}

pub(super) struct FileValidator<'a> {
    /// The text of the file.
    pub(super) yaml: &'a str,
    pub(super) problems: Vec<CatalogError>,
    /// Whether the rules for new files apply, or the file is in force already.
    pub(super) is_new: bool,
}

impl<'a> FileValidator<'a> {
    /// The text of the file at a place.
    pub(super) fn source(&self, at: Location) -> &'a str {
        let span = at.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        let text = bytes.and_then(|(from, len)| {
            let from = usize::try_from(from).ok()?;
            self.yaml.get(from..from.checked_add(usize::try_from(len).ok()?)?)
        });
        text.unwrap_or_default()
    }

    pub(super) fn problem(&mut self, at: Location, message: String) {
        self.problems.push(CatalogError {
            line: at.line().max(1),
            column: at.column().max(1),
            message,
        });
    }

    /// The parsed value, or a problem at its location.
    pub(super) fn parse_value<T, E: fmt::Display>(
        &mut self,
        text: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(text.referenced, format!("`{}` {error}", quoted(&text.value)));
                None
            }
        }
    }

    /// A text that people read, which may be written with escapes.
    pub(super) fn check_text(&mut self, at: Location, what: &str, text: &str) {
        if let Err(error) = text::check_line(text)
            && self.is_new
        {
            self.problem(at, format!("{what} {error}"));
        }
    }

    pub(super) fn scope(&mut self, text: &Spanned<String>) -> Option<Scope> {
        self.parse_value(text, |text| Scope::parse(text))
    }

    pub(super) fn name(&mut self, text: &Spanned<String>) -> Option<Name> {
        self.parse_value(text, |text| Name::parse(text))
    }

    /// A name that the file must declare.
    pub(super) fn declared<K: Ord, V>(
        &mut self,
        text: &Spanned<String>,
        key: Option<K>,
        all: &BTreeMap<K, V>,
        what: &str,
    ) -> Option<K> {
        let key = key?;
        if all.contains_key(&key) {
            return Some(key);
        }
        self.problem(
            text.referenced,
            format!("`{}` is not {what} of this catalog", quoted(&text.value)),
        );
        None
    }

    /// To YAML, `1` and `"1"` are different keys. Here they are the same name.
    pub(super) fn check_duplicate(&mut self, key: &Spanned<String>, earlier: bool) {
        if earlier {
            self.problem(
                key.referenced,
                format!("`{}` is a duplicate key: remove one of the two", quoted(&key.value)),
            );
        }
    }

    pub(super) fn read(&mut self, raw: RawFile) -> CatalogFile {
        let mut file = CatalogFile::default();
        if let Some(name) = raw.name {
            self.check_text(name.referenced, "the name", &name.value);
            file.name = name.value;
        }
        let (mut auds, mut hosts, mut exchanges) = (Vec::new(), Vec::new(), Vec::new());
        for (key, audience) in raw.audiences.0 {
            let mut audience = audience.unwrap_or_default();
            auds.push((key.value.clone(), std::mem::take(&mut audience.aud)));
            hosts.push((key.value.clone(), std::mem::take(&mut audience.hosts)));
            exchanges.extend(audience.exchange.take().map(|scope| (key.value.clone(), scope)));
            let audience = self.audience(audience);
            self.check_text(key.referenced, "the title", &audience.title);
            if let Some(name) = self.name(&key) {
                let earlier = file.audiences.insert(name, audience).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        self.auds(auds, &mut file);
        self.hosts(hosts, &mut file);
        self.scopes(raw.scopes, &mut file);
        for (audience, text) in exchanges {
            let scope = self.scope(&text);
            let scope = self.declared(&text, scope, &file.scopes, "a scope");
            if let Some(audience) = file.audiences.get_mut(audience.as_str()) {
                audience.exchange = scope;
            }
        }
        for (key, role) in raw.roles.0 {
            let role = self.role(role.unwrap_or_default(), &file.scopes);
            if let Some(name) = self.name(&key) {
                let earlier = file.roles.insert(name, role).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        for raw in raw.endpoints {
            self.endpoint(&raw, &mut file);
        }
        self.issuers(raw.issuers, &mut file);
        self.resources(raw.resources, &mut file);
        file
    }

    fn audience(&mut self, raw: RawAudience) -> Audience {
        let max_token_age = raw.max_token_age.and_then(|age| self.parse_value(&age, duration));
        let clock_skew = raw.clock_skew.and_then(|skew| self.parse_value(&skew, clock_skew));
        let token_ttl = up_to(MAX_TOKEN_TTL, "24h");
        let token_ttl = raw.token_ttl.and_then(|ttl| self.parse_value(&ttl, token_ttl));
        let consent_required = raw.consent == Presence::Required;
        Audience {
            title: raw.title,
            token_required: raw.token == Presence::Required,
            // Only a user can consent (D16).
            user_required: raw.user == Presence::Required || consent_required,
            consent_required,
            max_token_age,
            clock_skew: clock_skew.unwrap_or_default(),
            token_ttl: token_ttl.unwrap_or(TOKEN_TTL),
            ..Audience::default()
        }
    }

    /// The strings by which tokens name the audiences, each of one audience alone.
    fn auds(&mut self, auds: Vec<(String, Vec<Spanned<String>>)>, file: &mut CatalogFile) {
        let mut owners: HashMap<Box<str>, Name> = HashMap::new();
        for (key, texts) in auds {
            // An invalid name is reported already.
            let Ok(name) = Name::parse(key) else { continue };
            if let Some(first_above) = texts.get(MAX_AUDS) {
                let count = texts.len();
                let message =
                    format!("`{name}` has {count} strings in `aud`, the limit is {MAX_AUDS}");
                self.problem(first_above.referenced, message);
                continue;
            }
            for text in &texts {
                let aud = self.parse_value(text, token_string(MAX_AUDIENCE_LEN));
                let Some(aud) = aud else { continue };
                if file.audiences.contains_key(&*aud) {
                    let message = format!(
                        "`{}` is an audience's name, by which tokens name that audience anyway",
                        quoted(&aud)
                    );
                    self.problem(text.referenced, message);
                } else if let Some(owner) = owners.insert(aud.clone(), name.clone()) {
                    let message = format!(
                        "`{}` is in the `aud` of `{owner}` already: it must name one audience, once",
                        quoted(&aud)
                    );
                    self.problem(text.referenced, message);
                } else if let Some(audience) = file.audiences.get_mut(&name) {
                    audience.aud.push(aud);
                }
            }
        }
    }

    /// The hosts of the audiences, each of one audience alone.
    fn hosts(&mut self, hosts: Vec<(String, Vec<Spanned<String>>)>, file: &mut CatalogFile) {
        let mut owners: HashMap<Box<str>, Name> = HashMap::new();
        for (key, texts) in hosts {
            // An invalid name is reported already.
            let Ok(name) = Name::parse(key) else { continue };
            if !self.check_count(&texts, "hosts", MAX_HOSTS) {
                continue;
            }
            for text in &texts {
                let Some(host) = self.parse_value(text, parse_host) else { continue };
                if let Some(owner) = owners.insert(host.clone(), name.clone()) {
                    let message = format!(
                        "`{host}` is in the `hosts` of `{owner}` already: it must name one \
                         audience, once"
                    );
                    self.problem(text.referenced, message);
                } else if let Some(audience) = file.audiences.get_mut(&name) {
                    audience.hosts.insert(host);
                }
            }
        }
    }

    /// Whether a list has no more texts than the limit.
    pub(super) fn check_count(
        &mut self,
        texts: &[Spanned<String>],
        key: &str,
        limit: usize,
    ) -> bool {
        let Some(first_above) = texts.get(limit) else { return true };
        let message = format!("`{key}` has {} entries, the limit is {limit}", texts.len());
        self.problem(first_above.referenced, message);
        false
    }

    fn scopes(&mut self, raw: OrderedMap<Option<RawScope>>, file: &mut CatalogFile) {
        let mut places = HashMap::new();
        let (mut implications, mut renames) = (Vec::new(), Vec::new());
        for (key, scope) in raw.0 {
            let scope = scope.unwrap_or_default();
            self.check_text(key.referenced, "the title", &scope.title);
            let Some(name) = self.scope(&key) else {
                continue;
            };
            let audiences = scope.audiences.map(|named| {
                let mut audiences = BTreeSet::new();
                for text in &named {
                    let audience = self.name(text);
                    audiences.extend(self.declared(text, audience, &file.audiences, "an audience"));
                }
                if named.is_empty() {
                    self.problem(
                        key.referenced,
                        format!("`{name}` belongs to no audience; leave `audiences` out for all"),
                    );
                }
                audiences
            });
            places.insert(name.clone(), key.referenced);
            implications.push((name.clone(), scope.implies));
            renames.extend(scope.renamed_from.map(|old| (name.clone(), old)));
            let entry = ScopeEntry { title: scope.title, implies: vec![], audiences };
            let earlier = file.scopes.insert(name, entry).is_some();
            self.check_duplicate(&key, earlier);
        }
        for (name, texts) in implications {
            let mut implies = Vec::new();
            for text in &texts {
                let implied = self.scope(text);
                implies.extend(self.declared(text, implied, &file.scopes, "a scope"));
            }
            if let Some(entry) = file.scopes.get_mut(&name) {
                entry.implies = implies;
            }
        }
        self.renames(renames, file);
        if let Some(cycle) = find_cycle(&file.scopes) {
            let at = cycle.first().and_then(|name| places.get(*name)).copied();
            let names: Vec<_> = cycle.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("a scope must not imply itself: {}", names.join(" implies "));
            self.problem(at.unwrap_or(Location::UNKNOWN), message);
        }
    }

    /// The old names of scopes: each once, and none that is still a scope.
    fn renames(&mut self, named: Vec<(Scope, Spanned<String>)>, file: &mut CatalogFile) {
        for (new, text) in named {
            let Some(old) = self.scope(&text) else { continue };
            let place = text.referenced;
            let (line, column) = (place.line().max(1), place.column().max(1));
            let rename = Rename { old, line, column };
            match rename.check(&new, &file.scopes, &file.renames) {
                Ok(()) => drop(file.renames.insert(new, rename)),
                Err(message) => self.problem(place, message),
            }
        }
    }

    fn role(&mut self, raw: RawRole, scopes: &BTreeMap<Scope, ScopeEntry>) -> RoleEntry {
        let mut role = RoleEntry::default();
        for (key, reach) in raw.scopes.0 {
            let scope = self.scope(&key);
            if let Some(scope) = self.declared(&key, scope, scopes, "a scope") {
                let reach = match reach {
                    RawReach::All => Reach::All,
                    RawReach::Own => Reach::Own,
                };
                let earlier = role.scopes.insert(scope, reach).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        role
    }

    fn endpoint(&mut self, raw: &RawEndpoint, file: &mut CatalogFile) {
        if let Err(error) = check_method(&raw.method.value)
            && self.is_new
        {
            let message = format!("`{}` {error}", quoted(&raw.method.value));
            self.problem(raw.method.referenced, message);
        } else if !is_method(&raw.method.value) {
            let message = format!(
                "`{}` is not a method: letters, `-` and `_`, 32 at most",
                quoted(&raw.method.value)
            );
            self.problem(raw.method.referenced, message);
        }
        let template = self.template(raw);
        let audience = raw.audience.as_ref().and_then(|text| {
            let name = self.name(text);
            self.declared(text, name, &file.audiences, "an audience")
        });
        let required =
            match required_scopes::read("an endpoint", raw.scopes.as_ref(), raw.any_of.as_ref()) {
                Ok(required) => required,
                Err((at, message)) => {
                    self.problem(at.unwrap_or(raw.path.referenced), message);
                    RequiredScopes::default()
                }
            };
        let scopes = self.scope_list(required.scopes, audience.as_ref(), "endpoint", file);
        let any_of = self.scope_list(required.any_of, audience.as_ref(), "endpoint", file);
        let endpoint = Endpoint { audience, scopes, any_of, needs_no_scope: required.no_scope };
        let name = format!("{} {}", raw.method.value, raw.path.value);
        file.endpoints_by_name.insert(name.clone(), endpoint.clone());
        if !raw.colon_in.is_empty() {
            let names = raw.colon_in.iter().map(|name| name.value.clone());
            file.colon_in.insert(name, names.collect());
        }
        let Some(template) = template else {
            return;
        };
        let inserted = match self.is_new {
            true => file.endpoints.insert(&raw.method.value, &template, endpoint),
            false => file.endpoints.insert_stored(&raw.method.value, &template, endpoint),
        };
        if let Err(error) = inserted {
            self.template_problem(raw, &error);
        }
    }

    /// Scopes of a list of an endpoint or of a rule, each once. All exist, and belong to its audience.
    pub(super) fn scope_list(
        &mut self,
        texts: &[Spanned<String>],
        audience: Option<&Name>,
        what: &str,
        file: &CatalogFile,
    ) -> Vec<Scope> {
        let mut scopes = Vec::new();
        for text in texts {
            let scope = self.scope(text);
            let Some(scope) = self.declared(text, scope, &file.scopes, "a scope") else {
                continue;
            };
            let of = file.scopes.get(&scope).and_then(|entry| entry.audiences.as_ref());
            if let (Some(audience), Some(of)) = (audience, of)
                && !of.contains(audience)
            {
                let message =
                    format!("`{scope}` does not belong to the {what}'s audience `{audience}`");
                self.problem(text.referenced, message);
            }
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes
    }

    /// The template of an endpoint, if it is valid.
    fn template(&mut self, raw: &RawEndpoint) -> Option<Template> {
        let read = match self.is_new {
            true => Template::parse(&raw.path.value),
            false => Template::parse_stored(&raw.path.value),
        };
        let mut template = match read {
            Ok(template) => template,
            Err(error) => {
                self.template_problem(raw, &error);
                return None;
            }
        };
        for name in &raw.colon_in {
            if !template.allow_colon(&name.value) {
                let message = format!(
                    "`{}` is not a parameter of `{}`: name one of its parameters, without braces",
                    quoted(&name.value),
                    quoted(&raw.path.value)
                );
                self.problem(name.referenced, message);
            }
        }
        Some(template)
    }

    /// Reports an error at its segment, or at the path if escapes hide the column of the segment.
    fn template_problem(&mut self, raw: &RawEndpoint, error: &TemplateError) {
        let (path, at) = (&raw.path, raw.path.referenced);
        let before = path.value.get(..error.offset).unwrap_or_default().chars().count() as u64;
        // Quotes make a scalar longer than its text by two, and escapes by more.
        let quotes = at.span().len().checked_sub(path.value.chars().count() as u64);
        let column = match quotes {
            Some(quotes @ (0 | 2)) if before > 0 => at.column() + before + quotes / 2,
            _ => at.column(),
        };
        self.problems.push(CatalogError {
            line: at.line().max(1),
            column: column.max(1),
            message: format!("{} `{}`: {error}", quoted(&raw.method.value), quoted(&path.value)),
        });
    }
}

/// Reads a string that tokens have: the value of a claim, or the name of one.
pub(super) fn token_string(max_len: usize) -> impl Fn(&str) -> Result<Box<str>, String> {
    move |text| {
        match text.len() {
            0 => return Err("is empty: write the string that tokens have".to_owned()),
            length if length > max_len => {
                return Err(format!("has {length} bytes, the limit is {max_len}"));
            }
            _ => {}
        }
        text::check_line(text).map(|()| text.into()).map_err(|error| error.to_string())
    }
}
