//! The catalog file: YAML to a catalog's parts, every problem with its line and column.
//!
//! Not here: scope numbers. A file has names; the catalog that adopts it gives them numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::endpoint::{Endpoint, EndpointTree, Template, TemplateError, check_method};
use super::rename::{Rename, Renames};
use super::required_scopes::{self, RawScopeList};
use super::{Audience, Reach, RoleEntry};
use crate::policy::id::Name;
use crate::policy::scope::Scope;
use crate::policy::text;
use crate::policy::token::MAX_AUDIENCE_LEN;

/// The most bytes that a catalog file can have.
pub const MAX_LEN: usize = 16 << 20;

/// A catalog file that holds together.
#[derive(Clone, Debug, Default)]
pub struct CatalogFile {
    /// The platform's name.
    pub name: String,
    /// The audiences by name.
    pub audiences: BTreeMap<Name, Audience>,
    /// The scopes by name.
    pub scopes: BTreeMap<Scope, ScopeEntry>,
    /// The scopes that had another name, by their new one.
    pub renames: Renames,
    /// The roles by name.
    pub roles: BTreeMap<Name, RoleEntry>,
    /// The endpoints by method and path, for people.
    pub endpoints_by_name: BTreeMap<String, Endpoint>,
    /// Their parameters that match a segment with a raw `:` too, where there are any.
    pub colon_in: BTreeMap<String, BTreeSet<String>>,
    pub(super) endpoints: EndpointTree,
}

/// A scope as the file declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeEntry {
    /// For people.
    pub title: String,
    /// What it implies directly.
    pub implies: Vec<Scope>,
    /// The audiences that it belongs to; none named, all.
    pub audiences: Option<BTreeSet<Name>>,
}

/// One problem of a catalog file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Everything that is wrong with a catalog file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CatalogErrors(pub Vec<CatalogError>);

impl CatalogErrors {
    /// Scope numbers are never used again, and all are used.
    pub(super) fn ids_exhausted() -> Self {
        let message = "this store has numbered 4294967295 scopes and can number no more".to_owned();
        Self(vec![CatalogError { line: 1, column: 1, message }])
    }
}

/// A mapping in the order of the file, its keys with their places.
#[derive(Debug)]
struct OrderedMap<V>(Vec<(Spanned<String>, V)>);

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
struct RawFile {
    name: Option<Spanned<String>>,
    #[serde(default)]
    audiences: OrderedMap<Option<RawAudience>>,
    scopes: OrderedMap<Option<RawScope>>,
    #[serde(default)]
    roles: OrderedMap<Option<RawRole>>,
    #[serde(default)]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAudience {
    #[serde(default)]
    title: String,
    #[serde(default)]
    token: Presence,
    #[serde(default)]
    user: Presence,
    #[serde(default)]
    consent: Presence,
    max_token_age: Option<Spanned<String>>,
    clock_skew: Option<Spanned<String>>,
    #[serde(default)]
    aud: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    #[default]
    Optional,
    Required,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScope {
    #[serde(default)]
    title: String,
    #[serde(default)]
    implies: Vec<Spanned<String>>,
    audiences: Option<Vec<Spanned<String>>>,
    renamed_from: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRole {
    #[serde(default)]
    scopes: OrderedMap<RawReach>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawReach {
    All,
    Own,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    method: Spanned<String>,
    path: Spanned<String>,
    #[serde(default)]
    colon_in: Vec<Spanned<String>>,
    audience: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_scopes::present_key")]
    scopes: Option<RawScopeList>,
    #[serde(default, deserialize_with = "required_scopes::present_key")]
    any_of: Option<RawScopeList>,
}

impl CatalogFile {
    /// Reads a new catalog file. Nothing in it deceives a person who reads it, comments included.
    ///
    /// # Errors
    /// Every problem, each with line and column. A file that is not YAML of the right shape has
    /// one problem: the first.
    pub fn parse(yaml: &str) -> Result<Self, CatalogErrors> {
        let mut problems = deceptive_characters(yaml);
        // What the lines have is not said again of the texts.
        let file = match Self::read(yaml, problems.is_empty()) {
            Ok(file) if problems.is_empty() => return Ok(file),
            Ok(_) => return Err(CatalogErrors(problems)),
            Err(file) => file,
        };
        problems.extend(file.0);
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(CatalogErrors(problems))
    }

    /// Reads a catalog file that a store or an audit log has kept. It may be older than the rule
    /// that nothing in it deceives a reader.
    ///
    /// # Errors
    /// As [`CatalogFile::parse`].
    pub fn parse_stored(yaml: &str) -> Result<Self, CatalogErrors> {
        Self::read(yaml, false)
    }

    fn read(yaml: &str, is_new: bool) -> Result<Self, CatalogErrors> {
        let one =
            |line, column, message| CatalogErrors(vec![CatalogError { line, column, message }]);
        if yaml.len() > MAX_LEN {
            return Err(one(
                1,
                1,
                format!("the file has {} bytes, the limit is {MAX_LEN}", yaml.len()),
            ));
        }
        if yaml.trim_start_matches('\u{feff}').trim().is_empty() {
            let message = "the file is empty: a catalog has `scopes`, at least one";
            return Err(one(1, 1, message.to_owned()));
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            strict_booleans: true,
            merge_keys: serde_saphyr::MergeKeyPolicy::Error,
            // As much as MAX_LEN bytes can hold.
            budget: serde_saphyr::budget! { max_nodes: MAX_LEN, max_events: MAX_LEN },
        };
        let raw: RawFile = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
            let place = error.location().unwrap_or(Location::UNKNOWN);
            one(
                place.line().max(1),
                place.column().max(1),
                without_location(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
            )
        })?;
        let mut reader = FileValidator { problems: vec![], is_new };
        let file = reader.read(raw);
        if reader.problems.is_empty() {
            return Ok(file);
        }
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(CatalogErrors(reader.problems))
    }
}

/// A text of the file in a sentence.
fn quoted(text: &str) -> String {
    text::quoted(text, 160)
}

/// The library's sentence without the place that it repeats.
fn without_location(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    text::quoted(message.trim_end_matches(['.', ',', ' ']), 400)
}

/// The most of its problems of one kind that a file is told.
const MAX_DECEPTIVE: usize = 20;

/// The first deceptive characters of a file, apart from its line ends, its tabs, and the mark that
/// some editors put at the beginning of a file.
fn deceptive_characters(yaml: &str) -> Vec<CatalogError> {
    let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml);
    let lines = (1..).zip(yaml.split('\n'));
    let wrong = lines.filter_map(|(line, text)| {
        let text = text.strip_suffix('\r').unwrap_or(text);
        // A tab is seen as a space is.
        let text = text.replace('\t', " ");
        let error = text::check_line(&text).err()?;
        let (behind, _) = text::first_deceptive(&text)?;
        let column = text.get(..behind).unwrap_or_default().chars().count() as u64 + 1;
        Some(CatalogError { line, column, message: format!("the line {error}") })
    });
    wrong.take(MAX_DECEPTIVE).collect()
}

struct FileValidator {
    problems: Vec<CatalogError>,
    /// Whether nothing may deceive its readers.
    is_new: bool,
}

impl FileValidator {
    fn problem(&mut self, at: Location, message: String) {
        self.problems.push(CatalogError {
            line: at.line().max(1),
            column: at.column().max(1),
            message,
        });
    }

    /// The value, or a problem at its place.
    fn parse_value<T, E: fmt::Display>(
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
    fn check_text(&mut self, at: Location, what: &str, text: &str) {
        if let Err(error) = text::check_line(text)
            && self.is_new
        {
            self.problem(at, format!("{what} {error}"));
        }
    }

    fn scope(&mut self, text: &Spanned<String>) -> Option<Scope> {
        self.parse_value(text, |text| Scope::parse(text))
    }

    fn name(&mut self, text: &Spanned<String>) -> Option<Name> {
        self.parse_value(text, |text| Name::parse(text))
    }

    /// A name that the file must declare.
    fn declared<K: Ord, V>(
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

    /// YAML's `1` and `"1"` are two keys, and one name.
    fn check_duplicate(&mut self, key: &Spanned<String>, earlier: bool) {
        if earlier {
            self.problem(
                key.referenced,
                format!("`{}` stands here a second time", quoted(&key.value)),
            );
        }
    }

    fn read(&mut self, raw: RawFile) -> CatalogFile {
        let mut file = CatalogFile::default();
        if let Some(name) = raw.name {
            self.check_text(name.referenced, "the name", &name.value);
            file.name = name.value;
        }
        let mut auds = Vec::new();
        for (key, audience) in raw.audiences.0 {
            let mut audience = audience.unwrap_or_default();
            auds.push((key.value.clone(), std::mem::take(&mut audience.aud)));
            let audience = self.audience(audience);
            self.check_text(key.referenced, "the title", &audience.title);
            if let Some(name) = self.name(&key) {
                let earlier = file.audiences.insert(name, audience).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        self.auds(auds, &mut file);
        self.scopes(raw.scopes, &mut file);
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
        file
    }

    fn audience(&mut self, raw: RawAudience) -> Audience {
        let max_token_age = raw.max_token_age.and_then(|age| self.parse_value(&age, duration));
        let clock_skew = raw.clock_skew.and_then(|skew| self.parse_value(&skew, clock_skew));
        let consent_required = raw.consent == Presence::Required;
        Audience {
            title: raw.title,
            token_required: raw.token == Presence::Required,
            // Consent is a user's: without a user there is none (D16).
            user_required: raw.user == Presence::Required || consent_required,
            consent_required,
            max_token_age,
            clock_skew: clock_skew.unwrap_or_default(),
            aud: vec![],
        }
    }

    /// The strings by which tokens name the audiences, each of one audience alone.
    fn auds(&mut self, auds: Vec<(String, Vec<Spanned<String>>)>, file: &mut CatalogFile) {
        let mut owners: HashMap<String, Name> = HashMap::new();
        for (key, texts) in auds {
            // Otherwise the name is a problem already.
            let Ok(name) = Name::parse(key) else { continue };
            if let Some(first_above) = texts.get(MAX_AUDS) {
                let count = texts.len();
                let message =
                    format!("`{name}` has {count} strings in `aud`, the limit is {MAX_AUDS}");
                self.problem(first_above.referenced, message);
                continue;
            }
            for text in &texts {
                let Some(aud) =
                    self.parse_value(text, |text| check_aud(text).map(|()| text.to_owned()))
                else {
                    continue;
                };
                if file.audiences.contains_key(aud.as_str()) {
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
                    audience.aud.push(aud.into());
                }
            }
        }
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
        if let Some(cycle) = cycle(&file.scopes) {
            let at = cycle.first().and_then(|name| places.get(*name)).copied();
            let names: Vec<_> = cycle.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("a scope must not imply itself: {}", names.join(" implies "));
            self.problem(at.unwrap_or(Location::UNKNOWN), message);
        }
    }

    /// What the scopes were called before, each once and nothing that is there.
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
        let required = match required_scopes::read(raw.scopes.as_ref(), raw.any_of.as_ref()) {
            Ok(required) => required,
            Err((at, message)) => {
                self.problem(at.unwrap_or(raw.path.referenced), message);
                required_scopes::RequiredScopes::default()
            }
        };
        let scopes = self.scope_list(required.scopes, audience.as_ref(), file);
        let any_of = self.scope_list(required.any_of, audience.as_ref(), file);
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

    /// Scopes of a list of an endpoint, each once. All exist, and belong to its audience.
    fn scope_list(
        &mut self,
        texts: &[Spanned<String>],
        audience: Option<&Name>,
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
                    format!("`{scope}` does not belong to the endpoint's audience `{audience}`");
                self.problem(text.referenced, message);
            }
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes
    }

    /// The template of an endpoint, and what is wrong with it and with its method.
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

    /// At the segment that is wrong, if the path is written as it reads.
    fn template_problem(&mut self, raw: &RawEndpoint, error: &TemplateError) {
        let (path, at) = (&raw.path, raw.path.referenced);
        let before = path.value.get(..error.offset).unwrap_or_default().chars().count() as u64;
        // A scalar in quotes is longer than its text by two, one with escapes by more.
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

/// Whether a text is an HTTP method, or the word `GRPC` (D20).
#[must_use]
pub fn is_method(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_');
    letters && (1..=32).contains(&text.len())
}

/// The most strings in the `aud` of one audience.
pub const MAX_AUDS: usize = 32;
/// The longest `clock_skew`, in seconds.
pub const MAX_CLOCK_SKEW: u32 = 300;

/// Checks a string of an audience's `aud`.
fn check_aud(text: &str) -> Result<(), String> {
    match text.len() {
        0 => return Err("is empty: write the string that tokens have".to_owned()),
        1..=MAX_AUDIENCE_LEN => {}
        length => return Err(format!("has {length} bytes, the limit is {MAX_AUDIENCE_LEN}")),
    }
    text::check_line(text).map_err(|error| error.to_string())
}

/// The seconds of a `clock_skew`: a duration, which may be zero.
fn clock_skew(text: &str) -> Result<u32, &'static str> {
    seconds(text)?.filter(|skew| *skew <= MAX_CLOCK_SKEW).ok_or("is not between `0s` and `5m`")
}

/// The seconds of a duration: an integer with `s`, `m`, `h` or `d`.
///
/// # Errors
/// It is none, or none of this length can be told.
pub fn duration(text: &str) -> Result<u32, &'static str> {
    seconds(text)?.filter(|age| *age > 0).ok_or(NO_DURATION)
}

const NO_DURATION: &str = "is not a duration: an integer with `s`, `m`, `h` or `d`";

/// The seconds of an integer with `s`, `m`, `h` or `d`; none if they are too many.
fn seconds(text: &str) -> Result<Option<u32>, &'static str> {
    const WRONG: &str = NO_DURATION;
    let unit: u32 = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(WRONG),
    };
    let digits = text.get(..text.len() - 1).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let count: u32 = digits.and_then(|d| d.parse().ok()).ok_or(WRONG)?;
    Ok(count.checked_mul(unit))
}

/// A scope that implies itself, by which way; found without recursion, since a file may be deep.
fn cycle(scopes: &BTreeMap<Scope, ScopeEntry>) -> Option<Vec<&Scope>> {
    #[derive(Clone, Copy, PartialEq)]
    enum VisitState {
        InProgress,
        Done,
    }
    let mut seen: HashMap<&Scope, VisitState> = HashMap::with_capacity(scopes.len());
    for start in scopes.keys() {
        if seen.contains_key(start) {
            continue;
        }
        seen.insert(start, VisitState::InProgress);
        let mut way = vec![(start, 0)];
        while let Some((scope, next)) = way.last_mut() {
            let implied = scopes.get(*scope).and_then(|entry| entry.implies.get(*next));
            *next += 1;
            let Some(implied) = implied else {
                seen.insert(scope, VisitState::Done);
                way.pop();
                continue;
            };
            match seen.get(implied) {
                Some(VisitState::Done) => {}
                Some(VisitState::InProgress) => {
                    let from = way.iter().position(|(scope, _)| *scope == implied).unwrap_or(0);
                    let mut cycle: Vec<_> =
                        way.iter().skip(from).map(|(scope, _)| *scope).collect();
                    cycle.push(implied);
                    return Some(cycle);
                }
                None => {
                    seen.insert(implied, VisitState::InProgress);
                    way.push((implied, 0));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        match CatalogFile::parse(yaml) {
            Ok(_) => vec![],
            Err(CatalogErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn every_problem_has_its_line_and_column() {
        let yaml = "\
scopes:
  a: { implies: [b, nowhere] }
  b: { implies: [c], audiences: [moon] }
  c: { implies: [a] }
  \"d e\":
endpoints:
  - { method: GET, path: \"/x/{id}\", scopes: [] }
  - { method: GET, path: \"/x/{other}\", scopes: [a] }
";
        assert_eq!(
            problems(yaml),
            [
                "line 2, column 3: a scope must not imply itself: `a` implies `b` implies `c` implies `a`",
                "line 2, column 21: `nowhere` is not a scope of this catalog",
                "line 3, column 34: `moon` is not an audience of this catalog",
                "line 5, column 3: `d e` has the character ' '; a scope is printable ASCII without space, quote and backslash",
                "line 7, column 45: `scopes` is an empty list: name the scopes, or write `scopes: none` if a call needs no scope",
                "line 8, column 26: GET `/x/{other}`: another endpoint has the same method and the same shape of path",
            ]
        );
    }

    #[test]
    fn what_is_not_the_shape_of_a_catalog_is_refused_where_it_stands() {
        for (yaml, place) in [
            ("scopes:\n  a: {}\n  a: {}\n", "line 3, column 3: "),
            ("scopes: {}\nscops: {}\n", "line 2, column 1: "),
            ("scopes:\n  a: { titel: x }\n", "line 2, column 8: "),
            ("scopes:\n  a: { implies: b }\n", "line 2, column 17: "),
            ("scopes: { 1: , \"1\": }\n", "line 1, column 16: "),
            ("name: x\n", "line 1, column 1: "),
            ("scopes: { a: {}\n", "line 1, column 9: "),
            ("scopes: {a: }\naudiences: { p: { token: maybe } }\n", "line 2, column 26: "),
            ("scopes: {a: }\naudiences: { p: { max_token_age: 1.5h } }\n", "line 2, column 34: "),
            ("scopes: {a: }\nroles: { r: { scopes: { a: some } } }\n", "line 2, column 28: "),
            ("scopes: {a: }\nroles: { r: { scopes: { b: all } } }\n", "line 2, column 25: "),
        ] {
            let found = problems(yaml);
            assert_eq!(found.len(), 1, "{yaml}: {found:?}");
            assert!(found[0].starts_with(place), "{yaml}: {found:?}");
        }
    }

    #[test]
    fn a_chain_of_twenty_thousand_implications_is_read_and_its_cycle_found() {
        let mut yaml = String::from("scopes:\n");
        for n in 0..20_000 {
            yaml.push_str(&format!("  s{n}: {{ implies: [s{}] }}\n", n + 1));
        }
        let open = format!("{yaml}  s20000:\n");
        assert!(CatalogFile::parse(&open).is_ok());
        let closed = format!("{yaml}  s20000: {{ implies: [s0] }}\n");
        assert!(CatalogFile::parse(&closed).is_err());
    }

    #[test]
    fn a_file_says_what_it_says() {
        let file = CatalogFile::parse(
            "
name: Acme
audiences: { app: { title: App, user: required, max_token_age: 2m }, free: }
scopes: { a: { title: All, implies: [b], audiences: [app] }, b: }
roles: { r: { scopes: { a: all, b: own } } }
endpoints: [{ method: GET, path: /a, audience: app, scopes: [b, a, b] }]
",
        );
        let file = file.expect("a catalog");
        assert_eq!(file.name, "Acme");
        let app = &file.audiences[&Name::parse("app").expect("a name")];
        assert_eq!((app.title.as_str(), app.max_token_age), ("App", Some(120)));
        assert_eq!(
            (app.token_required, app.user_required, app.consent_required),
            (false, true, false)
        );
        let scope = |name| Scope::parse(name).expect("a scope");
        let a = &file.scopes[&scope("a")];
        assert_eq!((a.title.as_str(), &a.implies), ("All", &vec![scope("b")]));
        assert_eq!(a.audiences.as_ref().map(BTreeSet::len), Some(1));
        let role = &file.roles[&Name::parse("r").expect("a name")];
        assert_eq!(role.scopes[&scope("a")], Reach::All);
        assert_eq!(role.scopes[&scope("b")], Reach::Own);
        assert_eq!(file.endpoints_by_name["GET /a"].scopes, [scope("b"), scope("a")], "each once");
    }

    #[test]
    fn consent_needs_a_user_and_a_token_needs_none() {
        let needs = |audience: &str| {
            let yaml = format!("scopes: {{}}\naudiences: {{ p: {{ {audience}: required }} }}");
            let file = CatalogFile::parse(&yaml).expect("a catalog");
            let p = &file.audiences[&Name::parse("p").expect("a name")];
            [p.token_required, p.user_required, p.consent_required]
        };
        assert_eq!(needs("token"), [true, false, false]);
        assert_eq!(needs("user"), [false, true, false]);
        assert_eq!(needs("consent"), [false, true, true]);
    }

    #[test]
    fn what_a_file_says_twice_or_of_another_audience_is_refused() {
        for (yaml, said) in [
            ("scopes: [a]\n", "line 1, column 9: expected mapping start"),
            (
                "scopes: {}\nroles: { 1: , \"1\": }\n",
                "line 2, column 15: `1` stands here a second time",
            ),
            (
                "scopes: {}\naudiences: { 1: , \"1\": }\n",
                "line 2, column 19: `1` stands here a second time",
            ),
            (
                "scopes: { 1: }\nroles: { r: { scopes: { 1: all, \"1\": own } } }\n",
                "line 2, column 33: `1` stands here a second time",
            ),
            (
                "scopes: { a: { audiences: [] } }\n",
                "line 1, column 11: `a` belongs to no audience; leave `audiences` out for all",
            ),
            (
                "audiences: { p: , q: }\nscopes: { a: { audiences: [p] } }\n\
                 endpoints: [{ method: GET, path: /a, audience: q, scopes: [a] }]\n",
                "line 3, column 60: `a` does not belong to the endpoint's audience `q`",
            ),
            (
                "scopes: { a: }\nendpoints: [{ method: G T, path: /a, scopes: [a] }]\n",
                "line 2, column 23: `G T` is not a method: letters, `-` and `_`, 32 at most",
            ),
        ] {
            assert_eq!(problems(yaml), [said], "{yaml}");
        }
    }

    #[test]
    fn a_file_may_be_so_long_and_no_longer() {
        let mut yaml = String::from("scopes: {}\n#");
        yaml.push_str(&"x".repeat(MAX_LEN - yaml.len()));
        assert!(CatalogFile::parse(&yaml).is_ok());
        yaml.push('x');
        let limit = "line 1, column 1: the file has 16777217 bytes, the limit is 16777216";
        assert_eq!(problems(&yaml), [limit]);
    }

    #[test]
    fn d20_a_method_is_letters_and_a_line_or_two() {
        let longest = "M".repeat(32);
        for method in ["GET", "get", "M-SEARCH", "_", longest.as_str()] {
            assert!(is_method(method), "{method}");
        }
        for none in ["", "G T", "G3T", "G\u{c9}T", &format!("{longest}M")] {
            assert!(!is_method(none), "{none}");
        }
    }

    #[test]
    fn d16_a_clock_skew_is_nothing_to_five_minutes() {
        let read = |skew: &str| {
            let yaml = format!("scopes: {}\naudiences: {{ p: {{ {skew} }} }}", "{}");
            let file = CatalogFile::parse(&yaml).map_err(|error| error.to_string())?;
            Ok::<_, String>(file.audiences[&Name::parse("p").expect("a name")].clock_skew)
        };
        assert_eq!(read(""), Ok(0));
        for (text, seconds) in [("0s", 0), ("0m", 0), ("1s", 1), ("300s", 300), ("5m", 300)] {
            assert_eq!(read(&format!("clock_skew: {text}")), Ok(seconds), "{text}");
        }
        for wrong in ["301s", "6m", "1h", "4294967295d", "-1s", "30", "1.5m", "none"] {
            let error = read(&format!("clock_skew: {wrong}")).expect_err(wrong);
            assert!(error.starts_with(&format!("line 2, column 31: `{wrong}` is not ")), "{error}");
        }
    }

    #[test]
    fn d16_an_aud_names_one_audience_and_is_no_audiences_name() {
        let read = |p: &str, q: &str| {
            let yaml =
                format!("scopes: {{}}\naudiences:\n  p: {{ aud: [{p}] }}\n  q: {{ aud: [{q}] }}\n");
            CatalogFile::parse(&yaml).map_err(|error| error.to_string())
        };
        let urls = "\"https://api.acme.com/v1/\", \"api://6f1c\", \"urn:acme:api\"";
        let file = read(urls, "\"https://api.acme.com/v1\"").expect("a catalog");
        let p = &file.audiences[&Name::parse("p").expect("a name")];
        let auds: Vec<_> = p.aud.iter().map(|aud| &**aud).collect();
        assert_eq!(auds, ["https://api.acme.com/v1/", "api://6f1c", "urn:acme:api"]);
        let long = format!("x{}", "y".repeat(MAX_AUDIENCE_LEN));
        let many: Vec<_> = (0..=MAX_AUDS).map(|n| format!("u:{n}")).collect();
        assert!(read(&long[1..], &many[1..].join(", ")).is_ok());
        for (p, q, said) in [
            ("a, a", "", "line 3, column 17: `a` is in the `aud` of `p` already"),
            ("a, b", "b", "line 4, column 14: `b` is in the `aud` of `p` already"),
            ("p", "", "line 3, column 14: `p` is an audience's name"),
            ("q", "", "line 3, column 14: `q` is an audience's name"),
            ("\"\"", "", "line 3, column 14: `` is empty"),
            ("\"a\\u202eb\"", "", "line 3, column 14: "),
            ("\"a\\nb\"", "", "line 3, column 14: "),
            (&long, "", "line 3, column 14: "),
            (
                &many.join(", "),
                "",
                "line 3, column 196: `p` has 33 strings in `aud`, the limit is 32",
            ),
        ] {
            let error = read(p, q).expect_err(said);
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_duration_is_an_integer_and_a_unit() {
        for (text, seconds) in
            [("1s", 1), ("90s", 90), ("2m", 120), ("3h", 10_800), ("4d", 345_600), ("007s", 7)]
        {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        assert_eq!(duration("4294967295s"), Ok(u32::MAX));
        for none in [
            "",
            "s",
            "1",
            "1.5h",
            "-1s",
            "+1s",
            "1w",
            "0s",
            "4294967296s",
            "49711d",
            "1\u{e9}",
            " 1s",
        ] {
            assert!(duration(none).is_err(), "{none}");
        }
    }
}
