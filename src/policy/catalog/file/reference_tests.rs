//! The reference page, the JSON Schema and the parser have the same keys and bounds.

use std::cell::Cell;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor, value};
use serde_json::Value;

use super::MAX_AUDIENCE_LEN;
use super::raw::{RawAudience, RawEndpoint, RawFile, RawRole, RawScope};
use super::{CatalogFile, MAX_AUDS, MAX_CLOCK_SKEW, MAX_LEN};
use crate::policy::catalog::endpoint::MAX_PATH_LEN;
use crate::policy::catalog::schema::JSON_SCHEMA;

const REFERENCE: &str = include_str!("../../../../docs/catalog-reference.md");

/// Asks a type for its keys, and gives it none.
struct KeyRecorder<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for KeyRecorder<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("only structs have keys"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        self.0.set(keys);
        Err(value::Error::custom("the keys are recorded"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn parser_keys<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let keys = Cell::new(&[][..]);
    assert!(T::deserialize(KeyRecorder(&keys)).is_err());
    let mut keys = keys.get().to_vec();
    keys.sort_unstable();
    keys
}

/// The keys of the table below a heading of the reference.
fn reference_keys(heading: &str) -> Vec<&'static str> {
    let section = REFERENCE.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.and_then(|section| section.split("\n### ").next()).expect(heading);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut keys: Vec<_> = rows.collect();
    keys.sort_unstable();
    keys
}

fn schema() -> Value {
    serde_json::from_str(JSON_SCHEMA).expect("the schema is JSON")
}

#[test]
fn parser_schema_and_reference_have_the_same_keys() {
    let schema = schema();
    for (heading, pointer, keys) in [
        ("Top level", "", parser_keys::<RawFile>()),
        ("Audiences", "/$defs/audience", parser_keys::<RawAudience>()),
        ("Scopes", "/$defs/scope", parser_keys::<RawScope>()),
        ("Roles", "/$defs/role", parser_keys::<RawRole>()),
        ("Endpoints", "/$defs/endpoint", parser_keys::<RawEndpoint>()),
    ] {
        assert!(!keys.is_empty(), "{heading}");
        let object = schema.pointer(pointer).expect(heading);
        assert_eq!(object["additionalProperties"], false, "{heading}");
        let properties = object["properties"].as_object().expect(heading);
        let mut own: Vec<_> = properties.keys().map(String::as_str).collect();
        own.sort_unstable();
        assert_eq!(own, keys, "the schema's keys of {heading}");
        assert_eq!(reference_keys(heading), keys, "the reference's keys of {heading}");
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{heading}: {key}");
        }
    }
}

#[test]
fn schema_and_reference_state_the_parser_bounds() {
    let schema = schema();
    for (pointer, bound) in [
        ("/$defs/audience/properties/aud/maxItems", MAX_AUDS),
        ("/$defs/audience/properties/aud/items/maxLength", MAX_AUDIENCE_LEN),
        ("/$defs/endpoint/properties/path/maxLength", MAX_PATH_LEN),
    ] {
        assert_eq!(schema.pointer(pointer), Some(&bound.into()), "{pointer}");
    }
    let nodes = crate::policy::catalog::endpoint::MAX_NODES;
    for bound in [
        format!("| file | {MAX_LEN} bytes |"),
        format!("| strings in one `aud` | {MAX_AUDS} |"),
        format!("| one string in `aud` | {MAX_AUDIENCE_LEN} bytes |"),
        format!("| `clock_skew` | {MAX_CLOCK_SKEW} seconds |"),
        format!("| path | {MAX_PATH_LEN} bytes |"),
        format!("| segments of all paths | {nodes} |"),
        "| scope name | 128 bytes |".to_owned(),
        "| name of an audience or role | 128 bytes |".to_owned(),
        "| method | 32 characters |".to_owned(),
    ] {
        assert!(REFERENCE.contains(&bound), "the reference lacks `{bound}`");
    }
    // The bounds that have no constant of the catalog: the parser accepts the last value only.
    for len in [128, 129] {
        let long = "a".repeat(len);
        for yaml in [
            format!("scopes: {{ {long}: }}"),
            format!("scopes: {{}}\nroles: {{ {long}: }}"),
            format!("scopes: {{}}\naudiences: {{ {long}: }}"),
        ] {
            assert_eq!(accepted(&yaml), (len == 128, len == 128), "{len}");
        }
    }
    for len in [32, 33] {
        let yaml = endpoint(&format!("method: {}, path: /a, scopes: none", "M".repeat(len)));
        assert_eq!(accepted(&yaml), (len == 32, len == 32), "{len}");
    }
}

/// Whether the parser and the schema accept a text.
fn accepted(yaml: &str) -> (bool, bool) {
    let validator = jsonschema::draft202012::new(&schema()).expect("a schema");
    let value = serde_saphyr::from_str::<Value>(yaml);
    (CatalogFile::parse(yaml).is_ok(), value.is_ok_and(|value| validator.is_valid(&value)))
}

fn endpoint(keys: &str) -> String {
    format!("scopes: {{ a: }}\nendpoints: [{{ {keys} }}]\n")
}

#[test]
fn schema_is_valid_draft_2020_12() {
    assert!(jsonschema::meta::is_valid(&schema()));
}

#[test]
fn parser_and_schema_accept_the_catalogs_and_the_examples_of_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("catalogs")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.to_string_lossy().into_owned();
        if !name.ends_with(".yaml") || name.ends_with(".test.yaml") {
            continue;
        }
        count += 1;
        let yaml = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(accepted(&yaml), (true, true), "{name}");
    }
    assert!(count >= 5, "{count}");
    let examples = REFERENCE.split("\n```yaml\n").skip(1);
    let examples: Vec<_> = examples.filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2);
    for yaml in examples {
        assert_eq!(accepted(yaml), (true, true), "{yaml}");
    }
}

#[test]
fn parser_and_schema_refuse_the_same_wrong_shapes() {
    let wrong = [
        "name: x\n",
        "scopes: [a]\n",
        "scopes: {}\nscops: {}\n",
        "scopes: { a: { titel: x } }\n",
        "scopes: { a: { implies: b } }\n",
        "scopes: { a: { audiences: [] } }\n",
        "scopes: { \"a b\": }\n",
        "scopes: {}\naudiences: { p: { token: maybe } }\n",
        "scopes: {}\naudiences: { p: { max_token_age: 1.5h } }\n",
        "scopes: {}\naudiences: { p: { aud: [\"\"] } }\n",
        "scopes: {}\naudiences: { \"p q\": }\n",
        "scopes: { a: }\nroles: { r: { scopes: { a: some } } }\n",
        "scopes: {}\nroles: { r: { scope: {} } }\n",
        "scopes: {}\nendpoints: {}\n",
    ];
    let endpoints = [
        "path: /a, scopes: [a]",
        "method: GET, scopes: [a]",
        "method: GET, path: /a",
        "method: GET, path: a, scopes: [a]",
        "method: G T, path: /a, scopes: [a]",
        "method: GET, path: /a, scopes: []",
        "method: GET, path: /a, scopes: other",
        "method: GET, path: /a, any_of: none",
        "method: GET, path: /a, scopes: none, any_of: [a]",
        "method: GET, path: /a, scopes: [a], colon: [x]",
    ];
    let endpoints = endpoints.iter().map(|keys| endpoint(keys));
    for yaml in wrong.iter().map(|yaml| (*yaml).to_owned()).chain(endpoints) {
        assert_eq!(accepted(&yaml), (false, false), "{yaml}");
    }
}
