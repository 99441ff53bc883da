//! Tests of the resources of a catalog file.

use super::resources::*;
use super::{CatalogErrors, CatalogFile};
use crate::policy::catalog::resource::{Compared, ResourceAction, ResourceType};
use crate::policy::id::Name;
use crate::policy::property::{Number, Properties, PropertyValue};

/// A catalog whose fourth line is this type of resources.
fn parse(resource: &str) -> Result<CatalogFile, Vec<String>> {
    let yaml = format!(
        "audiences: {{ p: , q: }}\nscopes: {{ a: , b: {{ audiences: [q] }}, c: }}\n\
         resources:\n{resource}\n"
    );
    CatalogFile::parse(&yaml)
        .map_err(|CatalogErrors(errors)| errors.iter().map(ToString::to_string).collect())
}

fn kind(resource: &str) -> ResourceType {
    let mut file = parse(resource).expect("a catalog");
    file.resources.remove("r").expect("a type")
}

fn asked(id: &str, action: &str, resource: &str, action_properties: &str) -> ResourceAction {
    ResourceAction {
        kind: "r".into(),
        id: id.into(),
        action: action.into(),
        resource: Properties::parse(resource).expect("an object"),
        action_properties: Properties::parse(action_properties).expect("an object"),
    }
}

fn needed(kind: &ResourceType, asked: &ResourceAction) -> Option<String> {
    let needs = kind.needs(asked)?.needs;
    let all = needs.scopes.iter().chain(&needs.any_of).map(ToString::to_string);
    Some(all.collect::<Vec<_>>().join(" "))
}

#[test]
fn the_first_rule_whose_conditions_hold_counts() {
    let kind = kind(
        "  r: { audience: q, actions: { write: [
           { when: { resource.status: archived, action.force: true }, scopes: [a, b] },
           { when: { resource.status: archived }, any_of: [b, c] },
           { when: { resource.level: 1.50 }, scopes: none },
           { when: { resource.level: \"1.5\" }, scopes: [c] } ] } }",
    );
    assert_eq!(kind.audience.as_ref().map(Name::as_str), Some("q"));
    let ask = |resource: &str, action: &str| needed(&kind, &asked("x", "write", resource, action));
    let none = r#"{}"#;
    let archived = r#"{"status": "archived", "level": 1.5}"#;
    assert_eq!(ask(archived, r#"{"force": true}"#).as_deref(), Some("a b"));
    for force in ["{}", r#"{"force": false}"#, r#"{"force": "true"}"#, r#"{"force": 1}"#] {
        assert_eq!(ask(archived, force).as_deref(), Some("b c"), "{force}");
    }
    for equal in ["1.5", "15e-1", "1.50"] {
        let resource = format!(r#"{{"level": {equal}}}"#);
        assert_eq!(ask(&resource, none).as_deref(), Some(""), "{equal}");
    }
    assert_eq!(ask(r#"{"level": "1.5"}"#, none).as_deref(), Some("c"), "another type");
    for other in [
        none,
        r#"{"status": null}"#,
        r#"{"status": ["archived"]}"#,
        r#"{"status": {"archived": true}}"#,
        r#"{"status": "Archived"}"#,
        r#"{"level": 1.5000000000000001}"#,
        r#"{"level": 1.5e9999999999999999999999}"#,
        r#"{"level": "1.50"}"#,
    ] {
        assert_eq!(ask(other, none), None, "{other}");
    }
    // The two sets of properties are apart.
    assert_eq!(ask(none, r#"{"status": "archived", "level": 1.5}"#), None);
    assert_eq!(needed(&kind, &asked("x", "erase", archived, none)), None);
}

#[test]
fn a_request_cannot_change_a_listed_resource() {
    let kind = kind(
        "  r: { actions: { write: [{ when: { resource.status: archived }, scopes: [a] },
           { when: { resource.open: true }, scopes: [c] }] },
           known: { one: { status: active, owner_id: ann }, two: { status: archived }, 3: } }",
    );
    let ask = |id: &str, resource: &str| needed(&kind, &asked(id, "write", resource, "{}"));
    let archived = r#"{"status": "archived", "owner_id": "bob"}"#;
    assert_eq!(ask("one", archived), None);
    assert_eq!(ask("two", r#"{"status": "active"}"#).as_deref(), Some("a"));
    assert_eq!(ask("two", "{}").as_deref(), Some("a"));
    // What the list does not say is the request's to say.
    assert_eq!(ask("3", archived).as_deref(), Some("a"));
    assert_eq!(ask("one", r#"{"open": true}"#).as_deref(), Some("c"));
    for unknown in ["four", "", "One", "one "] {
        assert_eq!(ask(unknown, archived), None, "{unknown:?}");
    }
    let call = asked("one", "write", r#"{"open": true, "owner_id": "bob"}"#, "{}");
    let owner = kind.needs(&call).expect("a rule").owner.map(ToString::to_string);
    assert_eq!(owner.as_deref(), Some("ann"));
}

#[test]
fn a_type_that_lists_nothing_knows_no_id() {
    let with =
        |known: &str| kind(&format!("  r: {{ actions: {{ read: [{{ scopes: none }}] }}{known} }}"));
    let call = asked("x", "read", "{}", "{}");
    assert!(with("").needs(&call).is_some());
    assert!(with(", known: {}").needs(&call).is_none());
}

#[test]
fn what_a_reader_could_mistake_is_refused_at_its_place() {
    let rule = |keys: &str| format!("  r: {{ actions: {{ x: [{{ {keys} }}] }} }}");
    let rules = |all: &str| format!("  r: {{ actions: {{ x: [{all}] }} }}");
    let known =
        |all: &str| format!("  r: {{ actions: {{ x: [{{ scopes: none }}] }}, known: {all} }}");
    let mut wrong = Vec::new();
    for (resource, place, part) in [
        (rule("when: { resource.a: 1 }"), "4:23", "a rule must have `scopes`, `any_of` or both"),
        (rule("scopes: []"), "4:33", "`scopes` is an empty list"),
        (rule("scopes: none, any_of: [a]"), "4:47", "cannot be combined"),
        (rule("scopes: [a, moon]"), "4:37", "`moon` is not a scope of this catalog"),
        (
            "  r: { audience: p, actions: { x: [{ any_of: [a, b] }] } }".into(),
            "4:50",
            "`b` does not belong to the resource's audience `p`",
        ),
        (
            "  r: { audience: moon, actions: { x: [{ scopes: [a] }] } }".into(),
            "4:18",
            "`moon` is not an audience",
        ),
        (
            rules("{ scopes: [a] }, { when: { action.b: 1 }, scopes: [c] }"),
            "4:40",
            "that of line 4, column 23 has no `when`",
        ),
        (rules("{ scopes: [a] }, { scopes: [c] }"), "4:40", "has no `when`"),
        (
            rules(
                "{ when: { action.b: 1 }, scopes: [a] }, { when: { action.b: 1.0 }, scopes: [c] }",
            ),
            "4:63",
            "has the same `when`",
        ),
        (
            rules(
                "{ when: { action.b: 1 }, scopes: [a] }, { when: { action.c: 1, action.b: 1 }, scopes: [c] }",
            ),
            "4:63",
            "has a part of this `when`",
        ),
        ("  scope: { actions: { use: [{ scopes: [a] }] } }".into(), "4:3", "`scope` cannot be"),
        ("  route: { actions: { GET: [{ scopes: [a] }] } }".into(), "4:3", "`route` cannot be"),
        ("  a/b: { actions: { x: [{ scopes: [a] }] } }".into(), "4:3", "has the character '/'"),
        (
            "  r: { actions: { \"x y\": [{ scopes: [a] }] } }".into(),
            "4:19",
            "has the character ' '",
        ),
        ("  r: { actions: {} }".into(), "4:17", "`actions` is empty"),
        ("  r: { actions: { x: [] } }".into(), "4:19", "`x` has no rule"),
        ("  r: { }".into(), "4:6", "missing field `actions`"),
        ("  r: { actions: { x: { scopes: [a] } } }".into(), "4:22", "sequence"),
        ("  r: { actions: { x: [{ scope: [a] }] } }".into(), "4:25", "unknown field `scope`"),
        (
            "  r: { actions: { x: [{ scopes: [a] }] }, title: x }".into(),
            "4:43",
            "unknown field `title`",
        ),
        (rule("when: {}, scopes: [a]"), "4:31", "`when` must be a map"),
        (rule("when: , scopes: [a]"), "4:", "`when` must be a map"),
        (rule("when: [resource.a], scopes: [a]"), "4:31", "`when` must be a map"),
        (rule("when: { status: 1 }, scopes: [a]"), "4:33", "`status` is not a condition"),
        (rule("when: { subject.a: 1 }, scopes: [a]"), "4:33", "`subject.a` is not a condition"),
        (rule("when: { resource.: 1 }, scopes: [a]"), "4:33", "must not be empty"),
        (rule("when: { resource.a.b: 1 }, scopes: [a]"), "4:33", "a property of a property"),
        (rule("when: { resource.a: }, scopes: [a]"), "4:", "the value is missing"),
        (rule("when: { resource.a: ~ }, scopes: [a]"), "4:45", "the value is missing"),
        (rule("when: { resource.a: [1] }, scopes: [a]"), "4:33", "expected a string, a number"),
        (
            rule("when: { resource.a: { b: 1 } }, scopes: [a]"),
            "4:45",
            "expected a string, a number",
        ),
        (rule("when: { resource.a: 0x10 }, scopes: [a]"), "4:45", "`0x10` is not a number of JSON"),
        (rule("when: { resource.a: +1 }, scopes: [a]"), "4:45", "`+1` is not a number of JSON"),
        (rule("when: { resource.a: \"a\\u202eb\" }, scopes: [a]"), "4:45", "U+202E"),
        (known(""), "4:", "`known` must be a map"),
        (known("[one]"), "4:51", "`known` must be a map"),
        (known("{ \"\": }"), "4:53", "`` is empty"),
        (known("{ one: { a: [1] } }"), "4:60", "expected a string, a number"),
        (known("{ one: { a.b: 1 } }"), "4:60", "a property of a property"),
        (known("{ one: { owner_id: 7 } }"), "4:70", "`owner_id` must be the id of a user"),
        (known("{ one: { owner_id: \"a b\" } }"), "4:70", "`owner_id` must be the id of a user"),
        (known("{ 1: , \"1\": }"), "4:58", "`1` is a duplicate key"),
    ] {
        let found = parse(&resource).err().unwrap_or_else(|| panic!("accepted: {resource}"));
        assert_eq!(found.len(), 1, "{resource}: {found:?}");
        let place = place.replace(':', ", column ");
        let start = format!("line {place}");
        if !found[0].starts_with(&start) || !found[0].contains(part) {
            wrong.push((resource, part, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_problem_is_reported() {
    let found = parse(
        "  route: { audience: moon, actions: { x: [{ scopes: [moon] }, { when: { a: 1 } }] } }\n  \
           b: { actions: { \"\": [] }, known: { \"\": { a.b: 1 } } }",
    );
    let found = found.expect_err("wrong");
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_number_is_the_one_that_the_file_has() {
    let value =
        |text: &str| {
            let kind = kind(&format!(
            "  r: {{ actions: {{ x: [{{ when: {{ resource.é: {text} }}, scopes: [a] }}] }} }}"
        ).replace('é', "e"));
            kind.actions["x"][0].when.values().next().cloned().expect("a condition")
        };
    for text in
        ["9007199254740993", "0.10000000000000000555", "123456789012345678901234567890", "-1e-3"]
    {
        let number = Number::parse(text).expect("a number");
        assert_eq!(value(text), PropertyValue::Number(number), "{text}");
    }
    assert_eq!(value("\"1\""), PropertyValue::Text("1".into()));
    assert_eq!(value("true"), PropertyValue::Bool(true));
    assert_eq!(value("\"true\""), PropertyValue::Text("true".into()));
    assert_eq!(value("yes"), PropertyValue::Text("yes".into()));
    // Behind characters of several bytes, a mark at the beginning, and by an alias.
    for yaml in [
        "name: \"Größe 🔑\"\nscopes: { a: }\nresources: { r: { actions: { x: [{ when: { resource.a: 0.10 }, scopes: [a] }] } } }\n".to_owned(),
        "\u{feff}name: ü\r\nscopes: { a: }\r\nresources: { r: { actions: { x: [{ when: { resource.a: 0.10 }, scopes: [a] }] } } }\r\n".to_owned(),
        "scopes: { a: }\nresources: { r: { actions: { x: [{ when: { resource.b: &n 0.1, resource.a: *n }, scopes: [a] }] } } }\n".to_owned(),
    ] {
        let file = CatalogFile::parse(&yaml).expect(&yaml);
        let when = &file.resources["r"].actions["x"][0].when;
        let number = PropertyValue::Number(Number::parse("0.1").expect("a number"));
        assert_eq!(when.get(&Compared::Resource("a".into())), Some(&number), "{yaml}");
    }
}

#[test]
fn the_last_value_within_a_bound_is_accepted() {
    let many = |count: usize, item: &dyn Fn(usize) -> String, between: &str| {
        (0..count).map(item).collect::<Vec<_>>().join(between)
    };
    let action = |n: usize| format!("a{n}: [{{ scopes: none }}]");
    let with = |actions: String| format!("  r: {{ actions: {{ {actions} }} }}");
    let check = |within: String, above: String, part: &str| {
        assert!(parse(&within).is_ok(), "{part}: {:?}", parse(&within).err());
        let found = parse(&above).expect_err(part);
        assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
    };
    let types = |count| {
        many(count, &|n| format!("  t{n}: {{ actions: {{ x: [{{ scopes: none }}] }} }}"), "\n")
    };
    check(types(MAX_RESOURCE_TYPES), types(MAX_RESOURCE_TYPES + 1), "`resources` has 1001 entries");
    let actions = |count| with(many(count, &action, ", "));
    check(actions(MAX_ACTIONS), actions(MAX_ACTIONS + 1), "`actions` has 65 entries");
    let rules = |count| {
        let rule = |n: usize| format!("{{ when: {{ resource.a: {n} }}, scopes: [a] }}");
        with(format!("x: [{}]", many(count, &rule, ", ")))
    };
    check(rules(MAX_RULES), rules(MAX_RULES + 1), "`x` has 65 entries");
    let conditions = |count| {
        let condition = |n: usize| format!("resource.a{n}: 1");
        with(format!("x: [{{ when: {{ {} }}, scopes: [a] }}]", many(count, &condition, ", ")))
    };
    check(conditions(MAX_CONDITIONS), conditions(MAX_CONDITIONS + 1), "`when` has 17 entries");
    let known = |count: usize, second: usize| {
        let id = |n: usize| format!("i{n}: ");
        let actions = "actions: { x: [{ scopes: none }] }";
        format!(
            "  r: {{ {actions}, known: {{ {} }} }}\n  s: {{ {actions}, known: {{ {} }} }}",
            many(count, &id, ", "),
            many(second, &id, ", ")
        )
    };
    check(known(MAX_KNOWN - 1, 1), known(MAX_KNOWN - 1, 2), "more than 10000 resources");
    let one = |text: String| {
        format!("  r: {{ actions: {{ x: [{{ scopes: none }}] }}, known: {{ {text} }} }}")
    };
    let properties =
        |count| one(format!("i: {{ {} }}", many(count, &|n| format!("a{n}: 1"), ", ")));
    check(properties(MAX_PROPERTIES), properties(MAX_PROPERTIES + 1), "has 65 properties");
    let id = |len: usize| one(format!("{}: ", "i".repeat(len)));
    check(id(MAX_ID_LEN), id(MAX_ID_LEN + 1), "has 257 bytes, the limit is 256");
    let value = |len: usize| one(format!("i: {{ a: {} }}", "v".repeat(len)));
    check(value(MAX_VALUE_LEN), value(MAX_VALUE_LEN + 1), "the value has 257 bytes");
}
