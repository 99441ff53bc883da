//! The catalog file: YAML to a catalog's parts, every problem with its line and column.
//!
//! Not here: scope numbers. A file has names; the catalog that adopts it gives them numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::endpoint::{Endpoint, Endpoints};
use super::{Audience, Reach, Role};
use crate::policy::id::Name;
use crate::policy::scope::Scope;
use crate::policy::text;

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
    /// The roles by name.
    pub roles: BTreeMap<Name, Role>,
    /// The endpoints by method and path, for people.
    pub listed_endpoints: BTreeMap<String, Endpoint>,
    pub(super) endpoints: Endpoints,
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
    pub(super) fn no_numbers_left() -> Self {
        let message = "this store has numbered 4294967295 scopes and can number no more".to_owned();
        Self(vec![CatalogError { line: 1, column: 1, message }])
    }
}

/// A mapping in the order of the file, its keys with their places.
#[derive(Debug)]
struct Entries<V>(Vec<(Spanned<String>, V)>);

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Reader<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: Option<Spanned<String>>,
    #[serde(default)]
    audiences: Entries<Option<RawAudience>>,
    scopes: Entries<Option<RawScope>>,
    #[serde(default)]
    roles: Entries<Option<RawRole>>,
    #[serde(default)]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAudience {
    #[serde(default)]
    title: String,
    #[serde(default)]
    token: Need,
    #[serde(default)]
    user: Need,
    #[serde(default)]
    consent: Need,
    max_token_age: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Need {
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
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRole {
    #[serde(default)]
    scopes: Entries<RawReach>,
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
    audience: Option<Spanned<String>>,
    scopes: Vec<Spanned<String>>,
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
                plain(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
            )
        })?;
        let mut reader = FileReader { problems: vec![], is_new };
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
fn plain(message: &str) -> String {
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

struct FileReader {
    problems: Vec<CatalogError>,
    /// Whether nothing may deceive its readers.
    is_new: bool,
}

impl FileReader {
    fn problem(&mut self, at: Location, message: String) {
        self.problems.push(CatalogError {
            line: at.line().max(1),
            column: at.column().max(1),
            message,
        });
    }

    /// The value, or a problem at its place.
    fn typed<T, E: fmt::Display>(
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
    fn text(&mut self, at: Location, what: &str, text: &str) {
        if let Err(error) = text::check_line(text)
            && self.is_new
        {
            self.problem(at, format!("{what} {error}"));
        }
    }

    fn scope(&mut self, text: &Spanned<String>) -> Option<Scope> {
        self.typed(text, |text| Scope::parse(text))
    }

    fn name(&mut self, text: &Spanned<String>) -> Option<Name> {
        self.typed(text, |text| Name::parse(text))
    }

    /// A name that the file must declare.
    fn known<K: Ord, V>(
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
    fn once(&mut self, key: &Spanned<String>, earlier: bool) {
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
            self.text(name.referenced, "the name", &name.value);
            file.name = name.value;
        }
        for (key, audience) in raw.audiences.0 {
            let audience = self.audience(audience.unwrap_or_default());
            self.text(key.referenced, "the title", &audience.title);
            if let Some(name) = self.name(&key) {
                let earlier = file.audiences.insert(name, audience).is_some();
                self.once(&key, earlier);
            }
        }
        self.scopes(raw.scopes, &mut file);
        for (key, role) in raw.roles.0 {
            let role = self.role(role.unwrap_or_default(), &file.scopes);
            if let Some(name) = self.name(&key) {
                let earlier = file.roles.insert(name, role).is_some();
                self.once(&key, earlier);
            }
        }
        for raw in raw.endpoints {
            self.endpoint(&raw, &mut file);
        }
        file
    }

    fn audience(&mut self, raw: RawAudience) -> Audience {
        let max_token_age = raw.max_token_age.and_then(|age| self.typed(&age, duration));
        let consent_required = raw.consent == Need::Required;
        Audience {
            title: raw.title,
            token_required: raw.token == Need::Required,
            // Consent is a user's: without a user there is none (D16).
            user_required: raw.user == Need::Required || consent_required,
            consent_required,
            max_token_age,
        }
    }

    fn scopes(&mut self, raw: Entries<Option<RawScope>>, file: &mut CatalogFile) {
        let mut places = HashMap::new();
        let mut implications = Vec::new();
        for (key, scope) in raw.0 {
            let scope = scope.unwrap_or_default();
            self.text(key.referenced, "the title", &scope.title);
            let Some(name) = self.scope(&key) else {
                continue;
            };
            let audiences = scope.audiences.map(|named| {
                let mut audiences = BTreeSet::new();
                for text in &named {
                    let audience = self.name(text);
                    audiences.extend(self.known(text, audience, &file.audiences, "an audience"));
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
            let entry = ScopeEntry { title: scope.title, implies: vec![], audiences };
            let earlier = file.scopes.insert(name, entry).is_some();
            self.once(&key, earlier);
        }
        for (name, texts) in implications {
            let mut implies = Vec::new();
            for text in &texts {
                let implied = self.scope(text);
                implies.extend(self.known(text, implied, &file.scopes, "a scope"));
            }
            if let Some(entry) = file.scopes.get_mut(&name) {
                entry.implies = implies;
            }
        }
        if let Some(cycle) = cycle(&file.scopes) {
            let at = cycle.first().and_then(|name| places.get(*name)).copied();
            let names: Vec<_> = cycle.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("a scope must not imply itself: {}", names.join(" implies "));
            self.problem(at.unwrap_or(Location::UNKNOWN), message);
        }
    }

    fn role(&mut self, raw: RawRole, scopes: &BTreeMap<Scope, ScopeEntry>) -> Role {
        let mut role = Role::default();
        for (key, reach) in raw.scopes.0 {
            let scope = self.scope(&key);
            if let Some(scope) = self.known(&key, scope, scopes, "a scope") {
                let reach = match reach {
                    RawReach::All => Reach::All,
                    RawReach::Own => Reach::Own,
                };
                let earlier = role.scopes.insert(scope, reach).is_some();
                self.once(&key, earlier);
            }
        }
        role
    }

    fn endpoint(&mut self, raw: &RawEndpoint, file: &mut CatalogFile) {
        if !is_method(&raw.method.value) {
            let message = format!(
                "`{}` is not a method: letters, `-` and `_`, 32 at most",
                quoted(&raw.method.value)
            );
            self.problem(raw.method.referenced, message);
        }
        let audience = raw.audience.as_ref().and_then(|text| {
            let name = self.name(text);
            self.known(text, name, &file.audiences, "an audience")
        });
        let mut scopes = Vec::new();
        for text in &raw.scopes {
            let scope = self.scope(text);
            let Some(scope) = self.known(text, scope, &file.scopes, "a scope") else {
                continue;
            };
            let of = file.scopes.get(&scope).and_then(|entry| entry.audiences.as_ref());
            if let (Some(audience), Some(of)) = (&audience, of)
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
        if raw.scopes.is_empty() {
            self.problem(
                raw.path.referenced,
                "an endpoint must need at least one scope".to_owned(),
            );
        }
        let endpoint = Endpoint { audience, scopes };
        let name = format!("{} {}", raw.method.value, raw.path.value);
        file.listed_endpoints.insert(name, endpoint.clone());
        if let Err(error) = file.endpoints.insert(&raw.method.value, &raw.path.value, endpoint) {
            self.problem(
                raw.path.referenced,
                format!("{} `{}`: {error}", quoted(&raw.method.value), quoted(&raw.path.value)),
            );
        }
    }
}

/// Whether a text is an HTTP method, or the word `GRPC` (D20).
#[must_use]
pub fn is_method(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_');
    letters && (1..=32).contains(&text.len())
}

/// The seconds of a duration: an integer with `s`, `m`, `h` or `d`.
///
/// # Errors
/// It is none, or none of this length can be told.
pub fn duration(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "is not a duration: an integer with `s`, `m`, `h` or `d`";
    let unit: u32 = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(WRONG),
    };
    let digits = text.get(..text.len() - 1).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let count: u32 = digits.and_then(|d| d.parse().ok()).ok_or(WRONG)?;
    count.checked_mul(unit).filter(|age| *age > 0).ok_or(WRONG)
}

/// A scope that implies itself, by which way; found without recursion, since a file may be deep.
fn cycle(scopes: &BTreeMap<Scope, ScopeEntry>) -> Option<Vec<&Scope>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        OnTheWay,
        Done,
    }
    let mut seen: HashMap<&Scope, Seen> = HashMap::with_capacity(scopes.len());
    for start in scopes.keys() {
        if seen.contains_key(start) {
            continue;
        }
        seen.insert(start, Seen::OnTheWay);
        let mut way = vec![(start, 0)];
        while let Some((scope, next)) = way.last_mut() {
            let implied = scopes.get(*scope).and_then(|entry| entry.implies.get(*next));
            *next += 1;
            let Some(implied) = implied else {
                seen.insert(scope, Seen::Done);
                way.pop();
                continue;
            };
            match seen.get(implied) {
                Some(Seen::Done) => {}
                Some(Seen::OnTheWay) => {
                    let from = way.iter().position(|(scope, _)| *scope == implied).unwrap_or(0);
                    let mut cycle: Vec<_> =
                        way.iter().skip(from).map(|(scope, _)| *scope).collect();
                    cycle.push(implied);
                    return Some(cycle);
                }
                None => {
                    seen.insert(implied, Seen::OnTheWay);
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
                "line 7, column 26: an endpoint must need at least one scope",
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
        assert_eq!(file.listed_endpoints["GET /a"].scopes, [scope("b"), scope("a")], "each once");
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
