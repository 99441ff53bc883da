//! The reference page, the JSON Schema and the parser have the same keys and bounds.

use std::cell::Cell;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor, value};
use serde_json::Value;

use super::MAX_AUDIENCE_LEN;
use super::host::MAX_URL_LEN;
use super::issuers::{MAX_PREFIX_LEN, MAX_VALUE_LEN};
use super::raw::{
    RawActionRule, RawAudience, RawEndpoint, RawFile, RawIssuer, RawParty, RawResource, RawRole,
    RawScope, RawUser,
};
use super::resources;
use super::{CatalogFile, MAX_AUDS, MAX_CLOCK_SKEW, MAX_HOSTS, MAX_LEN};
use crate::policy::catalog::MAX_TOKEN_TTL;
use crate::policy::catalog::endpoint::MAX_PATH_LEN;
use crate::policy::catalog::issuer::{
    Algorithm, MAX_CLAIM_LEN, MAX_ENTRIES, MAX_ISSUER_LEN, MAX_ISSUERS, MAX_REFETCH_AFTER,
    MAX_REFRESH, MAX_USABLE_FOR,
};
use crate::policy::catalog::schema::JSON_SCHEMA;
use crate::policy::token::key_set;

const REFERENCE: &str = include_str!("../../../../docs/catalog-reference.md");
/// Each of its examples is a whole catalog, like those of the reference.
const ACCESS_TOKENS: &str = include_str!("../../../../docs/access-tokens.md");

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
        ("Issuers", "/$defs/issuer", parser_keys::<RawIssuer>()),
        ("Resources", "/$defs/resource", parser_keys::<RawResource>()),
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
    // The reference lists the forms of these, not their keys.
    for (pointer, keys) in [
        ("/$defs/credentialSource", parser_keys::<RawParty>()),
        ("/$defs/userSource", parser_keys::<RawUser>()),
        ("/$defs/actionRule", parser_keys::<RawActionRule>()),
    ] {
        let properties = schema.pointer(pointer).expect(pointer)["properties"].as_object();
        let own: Vec<_> = properties.expect(pointer).keys().map(String::as_str).collect();
        assert_eq!(own, keys, "{pointer}");
    }
    let algorithms = schema.pointer("/$defs/issuer/properties/algorithms/items/enum");
    let algorithms = algorithms.and_then(Value::as_array).expect("the algorithms");
    for algorithm in Algorithm::ALL {
        assert!(algorithms.contains(&algorithm.name().into()), "the schema lacks {algorithm}");
        assert!(REFERENCE.contains(&format!("`{algorithm}`")), "the reference lacks {algorithm}");
    }
}

#[test]
fn schema_and_reference_state_the_parser_bounds() {
    let schema = schema();
    for (pointer, bound) in [
        ("/$defs/audience/properties/aud/maxItems", MAX_AUDS),
        ("/$defs/audValue/maxLength", MAX_AUDIENCE_LEN),
        ("/$defs/audience/properties/hosts/maxItems", MAX_HOSTS),
        ("/$defs/endpoint/properties/path/maxLength", MAX_PATH_LEN),
        ("/properties/issuers/maxProperties", MAX_ISSUERS),
        ("/$defs/issuerName/maxLength", MAX_ISSUER_LEN),
        ("/$defs/claimName/maxLength", MAX_CLAIM_LEN),
        ("/$defs/claimValues/maxProperties", MAX_ENTRIES),
        ("/$defs/claimValues/additionalProperties/maxLength", MAX_VALUE_LEN),
        ("/$defs/credentialSource/properties/prefix/maxLength", MAX_PREFIX_LEN),
        ("/$defs/userSource/properties/prefix/maxLength", MAX_PREFIX_LEN),
        ("/$defs/issuer/properties/jwks_url/maxLength", MAX_URL_LEN),
        ("/$defs/issuer/properties/aliases/maxItems", MAX_ENTRIES),
        ("/$defs/issuer/properties/jwks/properties/keys/maxItems", key_set::MAX_KEYS),
        ("/properties/resources/maxProperties", resources::MAX_RESOURCE_TYPES),
        ("/$defs/resource/properties/actions/maxProperties", resources::MAX_ACTIONS),
        ("/$defs/resource/properties/actions/additionalProperties/maxItems", resources::MAX_RULES),
        ("/$defs/actionRule/properties/when/maxProperties", resources::MAX_CONDITIONS),
        ("/$defs/resource/properties/known/maxProperties", resources::MAX_KNOWN),
        ("/$defs/resource/properties/known/propertyNames/maxLength", resources::MAX_ID_LEN),
        ("/$defs/knownProperties/maxProperties", resources::MAX_PROPERTIES),
        ("/$defs/propertyValue/maxLength", resources::MAX_VALUE_LEN),
    ] {
        assert_eq!(schema.pointer(pointer), Some(&bound.into()), "{pointer}");
    }
    let nodes = crate::policy::catalog::endpoint::MAX_NODES;
    for bound in [
        format!("| file | {MAX_LEN} bytes |"),
        format!("| strings in one `aud` | {MAX_AUDS} |"),
        format!("| one string in `aud` | {MAX_AUDIENCE_LEN} bytes |"),
        format!("| `clock_skew` | {MAX_CLOCK_SKEW} seconds |"),
        format!("| `token_ttl` | {MAX_TOKEN_TTL} seconds |"),
        format!("| hosts of one audience | {MAX_HOSTS} |"),
        format!("| issuers | {MAX_ISSUERS} |"),
        format!("| name or alias of an issuer | {MAX_ISSUER_LEN} bytes |"),
        format!(
            "| entries of one list or map of an issuer, apart from `companies` | {MAX_ENTRIES} |"
        ),
        format!("| name of a claim | {MAX_CLAIM_LEN} bytes |"),
        format!("| value in `require`, `unless` or `types` | {MAX_VALUE_LEN} bytes |"),
        format!("| `prefix` | {MAX_PREFIX_LEN} bytes |"),
        format!("| `jwks_url` | {MAX_URL_LEN} bytes |"),
        format!("| `jwks` | {} bytes, {} keys |", key_set::MAX_BYTES, key_set::MAX_KEYS),
        format!("| `refresh` | {MAX_REFRESH} seconds |"),
        format!("| `refetch_after` | {MAX_REFETCH_AFTER} seconds |"),
        format!("| `usable_for` | {MAX_USABLE_FOR} seconds |"),
        format!("| path | {MAX_PATH_LEN} bytes |"),
        format!("| segments of all paths | {nodes} |"),
        format!("| resource types | {} |", resources::MAX_RESOURCE_TYPES),
        format!("| actions of one type | {} |", resources::MAX_ACTIONS),
        format!("| rules of one action | {} |", resources::MAX_RULES),
        format!("| conditions of one rule | {} |", resources::MAX_CONDITIONS),
        format!("| `known` of all types together | {} |", resources::MAX_KNOWN),
        format!("| properties of one known resource | {} |", resources::MAX_PROPERTIES),
        format!("| id of a known resource | {} bytes |", resources::MAX_ID_LEN),
        format!("| value of a property | {} bytes |", resources::MAX_VALUE_LEN),
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

fn resource(keys: &str) -> String {
    format!("audiences: {{ p: }}\nscopes: {{ a: }}\nresources: {{ r: {{ {keys} }} }}\n")
}

fn issuer(keys: &str) -> String {
    format!("audiences: {{ p: }}\nscopes: {{}}\nissuers: {{ x: {{ {keys} }} }}\n")
}

#[test]
fn parser_and_schema_accept_every_form_of_an_issuer() {
    for keys in [
        "jwks_file: a, algorithms: [RS256], company: { is: acme }",
        "jwks_url: \"http://[::1]:80/a\", algorithms: [Ed25519], company: request, companies: any",
        "jwks: { keys: [{ kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo }] }, \
         algorithms: [EdDSA], company: { claim: [a, b] }, companies: [acme], credential: request",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, credential: { is: a }, user: none",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, credential: { prefix: \"y:\" }, \
         user: { unless: { a: 1, b: true, c: d } }, require: { a: b }, types: [JWT], \
         scope_claims: [a], audiences: { \"urn:a\": p }, without_aud: p, confirmation: caller",
    ] {
        assert_eq!(accepted(&issuer(keys)), (true, true), "{keys}");
    }
}

#[test]
fn parser_and_schema_accept_every_form_of_a_resource() {
    for keys in [
        "actions: { x: [{ scopes: none }] }",
        "audience: p, actions: { x: [{ any_of: [a] }], \"a:b@c.d_e-1\": [{ scopes: [a], any_of: [a] }] }",
        "actions: { x: [{ when: { resource.a: b, action.c-d_e:f@g: -1.5e3 }, scopes: [a] },
                       { when: { action.a: true }, scopes: [a] }, { scopes: none }] }",
        "actions: { x: [{ scopes: none }] }, known: {}",
        "actions: { x: [{ scopes: none }] }, known: { \"a/b c\": , 7: { owner_id: \"o'b|c\", n: 1 } }",
    ] {
        assert_eq!(accepted(&resource(keys)), (true, true), "{keys}");
    }
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
    let examples = [REFERENCE, ACCESS_TOKENS].map(|page| page.split("\n```yaml\n").skip(1));
    let examples: Vec<_> =
        examples.into_iter().flatten().filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 5);
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
        "scopes: {}\naudiences: { p: { token_ttl: 1.5h } }\n",
        "scopes: {}\naudiences: { p: { hosts: [\"a:80\"] } }\n",
        "scopes: {}\naudiences: { p: { hosts: [a., b] } }\n",
        "scopes: {}\naudiences: { p: { exchange: \"a b\" } }\n",
        "scopes: {}\nissuers: { x: }\n",
        "scopes: {}\nissuers: { x: [] }\n",
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
    let issuers = [
        "algorithms: [RS256], company: { is: acme }",
        "jwks_file: a, jwks_url: \"https://a\", algorithms: [RS256], company: { is: acme }",
        "jwks_file: a/b, algorithms: [RS256], company: { is: acme }",
        "jwks_url: \"ftp://a\", algorithms: [RS256], company: { is: acme }",
        "jwks_url: \"https://a#b\", algorithms: [RS256], company: { is: acme }",
        "jwks: { keys: [] }, algorithms: [RS256], company: { is: acme }",
        "jwks_file: a, company: { is: acme }",
        "jwks_file: a, algorithms: [none], company: { is: acme }",
        "jwks_file: a, algorithms: [HS256], company: { is: acme }",
        "jwks_file: a, algorithms: [], company: { is: acme }",
        "jwks_file: a, algorithms: [RS256]",
        "jwks_file: a, algorithms: [RS256], company: acme, companies: any",
        "jwks_file: a, algorithms: [RS256], company: request",
        "jwks_file: a, algorithms: [RS256], company: { claim: a }",
        "jwks_file: a, algorithms: [RS256], company: { claim: a }, companies: []",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, companies: [acme]",
        "jwks_file: a, algorithms: [RS256], company: { is: acme, claim: a }",
        "jwks_file: a, algorithms: [RS256], company: { claim: a, prefix: b }, companies: any",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, credential: { is: a, prefix: b }",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, user: { claims: a }",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, user: { claim: [a] }",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, require: { a: [b] }",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, require: { a: 1.5 }",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, types: []",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, scope_claims: []",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, refresh: 1.5h",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, confirmation: none",
        "jwks_file: a, algorithms: [RS256], company: { is: acme }, jwks_uri: a",
    ];
    let issuers = issuers.iter().map(|keys| issuer(keys));
    let rule = "actions: { x: [{ scopes: none }] }";
    let resources = [
        "audience: p",
        "actions: {}",
        "actions: { x: [] }",
        "actions: { x: { scopes: [a] } }",
        "actions: { \"x y\": [{ scopes: none }] }",
        "actions: { x: [{ when: { resource.a: 1 } }] }",
        "actions: { x: [{ scopes: [] }] }",
        "actions: { x: [{ scopes: none, any_of: [a] }] }",
        "actions: { x: [{ when: {}, scopes: [a] }] }",
        "actions: { x: [{ when: , scopes: [a] }] }",
        "actions: { x: [{ when: { status: 1 }, scopes: [a] }] }",
        "actions: { x: [{ when: { resource.a.b: 1 }, scopes: [a] }] }",
        "actions: { x: [{ when: { resource.a: [1] }, scopes: [a] }] }",
        "actions: { x: [{ when: { resource.a: ~ }, scopes: [a] }] }",
        &format!("{rule}, known: "),
        &format!("{rule}, known: [a]"),
        &format!("{rule}, known: {{ \"\": }}"),
        &format!("{rule}, known: {{ a: {{ b: ~ }} }}"),
        &format!("{rule}, known: {{ a: {{ owner_id: 7 }} }}"),
        &format!("{rule}, ids: []"),
    ];
    let resources: Vec<_> = resources.iter().map(|keys| resource(keys)).collect();
    let reserved = ["scope", "route"];
    let reserved =
        reserved.map(|name| format!("scopes: {{}}\nresources: {{ {name}: {{ {rule} }} }}\n"));
    let endpoints = endpoints.chain(issuers).chain(resources).chain(reserved);
    for yaml in wrong.iter().map(|yaml| (*yaml).to_owned()).chain(endpoints) {
        assert_eq!(accepted(&yaml), (false, false), "{yaml}");
    }
}
