use std::collections::BTreeSet;

use super::MAX_AUDIENCE_LEN;
use super::validator::MAX_AUDS;
use super::*;
use crate::policy::catalog::Reach;

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
fn a_file_of_the_wrong_shape_is_refused_at_its_location() {
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
fn a_file_is_parsed_into_its_parts() {
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
    assert_eq!((app.token_required, app.user_required, app.consent_required), (false, true, false));
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
fn duplicates_and_scopes_of_another_audience_are_refused() {
    for (yaml, said) in [
        ("scopes: [a]\n", "line 1, column 9: expected mapping start"),
        (
            "scopes: {}\nroles: { 1: , \"1\": }\n",
            "line 2, column 15: `1` is a duplicate key: remove one of the two",
        ),
        (
            "scopes: {}\naudiences: { 1: , \"1\": }\n",
            "line 2, column 19: `1` is a duplicate key: remove one of the two",
        ),
        (
            "scopes: { 1: }\nroles: { r: { scopes: { 1: all, \"1\": own } } }\n",
            "line 2, column 33: `1` is a duplicate key: remove one of the two",
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
fn a_file_has_a_maximum_length() {
    let mut yaml = String::from("scopes: {}\n#");
    yaml.push_str(&"x".repeat(MAX_LEN - yaml.len()));
    assert!(CatalogFile::parse(&yaml).is_ok());
    yaml.push('x');
    let limit = "line 1, column 1: the file has 16777217 bytes, the limit is 16777216";
    assert_eq!(problems(&yaml), [limit]);
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
        (&many.join(", "), "", "line 3, column 196: `p` has 33 strings in `aud`, the limit is 32"),
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
    for none in
        ["", "s", "1", "1.5h", "-1s", "+1s", "1w", "0s", "4294967296s", "49711d", "1\u{e9}", " 1s"]
    {
        assert!(duration(none).is_err(), "{none}");
    }
}
