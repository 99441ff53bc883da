//! Longer than other files: the tree is compared with two independent models, a list of templates
//! and the behavior of real servers, and both share their generators with the examples above them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::segment::fold;
use super::template::SegmentPattern;
use super::*;

/// An endpoint that needs the scope of this name.
fn needing(name: &str) -> Endpoint {
    let plain = name.replace(' ', "_");
    Endpoint { scopes: vec![Scope::parse(plain).expect("a scope")], ..Endpoint::default() }
}

fn template(text: &str, colon_in: &[&str]) -> Template {
    let mut template = Template::parse(text).expect(text);
    for name in colon_in {
        assert!(template.allow_colon(name), "{name}");
    }
    template
}

/// A template, behind `|` the parameters that match a colon.
fn read(text: &str) -> (&str, Template) {
    let (path, names) = text.split_once('|').unwrap_or((text, ""));
    let names: Vec<_> = names.split(',').filter(|name| !name.is_empty()).collect();
    (path, template(path, &names))
}

fn endpoints(templates: &[(&str, &str)]) -> EndpointTree {
    let mut endpoints = EndpointTree::default();
    for (method, text) in templates {
        let (path, template) = read(text);
        endpoints.insert(method, &template, needing(path)).expect(path);
    }
    endpoints
}

fn found<'a>(endpoints: &'a EndpointTree, method: &str, path: &str) -> Option<&'a str> {
    let path = RequestPath::parse(path).expect(path);
    endpoints.find(method, &path).map(|e| e.scopes[0].as_str())
}

/// What `GET` finds among these.
#[track_caller]
fn assert_found(templates: &[&str], expected: &[(&str, Option<&str>)]) {
    let all: Vec<_> = templates.iter().map(|template| ("GET", *template)).collect();
    let all = endpoints(&all);
    for (path, template) in expected {
        assert_eq!(found(&all, "GET", path), *template, "{path} among {templates:?}");
    }
}

#[test]
fn literals_win_from_left_to_right_among_all_that_match() {
    let all = endpoints(&[
        ("GET", "/"),
        ("GET", "/users/{id}"),
        ("GET", "/users/me"),
        ("GET", "/users/me/photo"),
        ("GET", "/{kind}/{id}/files"),
        ("GET", "/users/{id}/{what}"),
        ("GRPC", "/pkg.Service/Method"),
    ]);
    assert_eq!(found(&all, "GET", "/"), Some("/"));
    assert_eq!(found(&all, "GET", "/users/me"), Some("/users/me"));
    assert_eq!(found(&all, "GET", "/users/7"), Some("/users/{id}"));
    // `/users/me` leads nowhere here: the parameter is tried behind it.
    assert_eq!(found(&all, "GET", "/users/me/files"), Some("/users/{id}/{what}"));
    assert_eq!(found(&all, "GET", "/groups/7/files"), Some("/{kind}/{id}/files"));
    assert_eq!(found(&all, "GRPC", "/pkg.Service/Method"), Some("/pkg.Service/Method"));
    assert_eq!(found(&all, "GRPC", "/pkg.Service/method"), None);
    assert_eq!(found(&all, "GET", "/pkg.Service/Method"), None);
    assert_eq!(found(&all, "get", "/users/me"), None);
    assert_eq!(found(&all, "GET", "/users/"), None, "a parameter is not empty");
    assert_eq!(found(&all, "GET", "/users/me/"), None);
    assert_eq!(found(&all, "GET", "/users"), None);
}

/// What a template finds.
fn named<'a>(endpoints: &'a EndpointTree, method: &str, text: &str) -> Option<&'a str> {
    let template = Template::parse(text).expect(text);
    assert_eq!(template.to_string(), text);
    endpoints.find_template(method, &template).map(|e| e.scopes[0].as_str())
}

#[test]
fn a_template_names_the_endpoint_of_its_shape() {
    let all = endpoints(&[
        ("GET", "/"),
        ("GET", "/users/{id}"),
        ("GET", "/users/export"),
        ("GET", "/users/{id}:purge"),
        ("GET", "/users/{id}/files/{path+}"),
        ("GET", "/users/"),
    ]);
    for (text, expected) in [
        ("/", Some("/")),
        ("/users/{id}", Some("/users/{id}")),
        ("/users/{userId}", Some("/users/{id}")),
        ("/users/export", Some("/users/export")),
        ("/users/{x}:purge", Some("/users/{id}:purge")),
        ("/users/{x}/files/{rest+}", Some("/users/{id}/files/{path+}")),
        ("/users/", Some("/users/")),
        ("/users", None),
        ("/users/{id}/", None),
        ("/users/7", None),
        ("/users/EXPORT", None),
        ("/users/{x}:PURGE", None),
        ("/users/{x+}", None),
        ("/users/{x}/files/{rest}", None),
        ("/users/{x}/files", None),
        ("/{any}/{id}", None),
    ] {
        assert_eq!(named(&all, "GET", text), expected, "{text}");
        assert_eq!(named(&all, "HEAD", text), expected, "{text} by way of GET");
        assert_eq!(named(&all, "POST", text), None, "{text}");
    }
}

#[test]
fn a_template_for_head_names_the_endpoint_that_its_paths_have() {
    let all = endpoints(&[
        ("GET", "/a"),
        ("HEAD", "/a/"),
        ("GET", "/b/export"),
        ("GET", "/b/{x}/c"),
        ("HEAD", "/b/{y}"),
        ("GET", "/d/{x}"),
        ("HEAD", "/d/me"),
        ("GET", "/e/{x}:v"),
        ("HEAD", "/e/{x}"),
        ("GET", "/f/{x}/{y}"),
        ("HEAD", "/f/{z+}"),
        ("GET", "/g/I"),
        ("HEAD", "/g/i"),
        ("GET", "/h/{x}"),
        ("HEAD", "/h/{x}/"),
        ("GET", "/i/{x+}"),
        ("HEAD", "/i/{x}/{y+}"),
        ("GET", "/j/{x+}"),
        ("HEAD", "/j/{x}"),
    ]);
    for (text, path, expected) in [
        ("/a", "/a", None),
        ("/a/", "/a/", None),
        ("/b/export", "/b/export", None),
        ("/b/{z}", "/b/7", Some("/b/{y}")),
        ("/h/{x}/", "/h/7/", None),
        ("/i/{x+}", "/i/7", None),
        ("/j/{x+}", "/j/7/8", Some("/j/{x+}")),
        ("/b/{x}/c", "/b/7/c", Some("/b/{x}/c")),
        ("/d/{x}", "/d/7", Some("/d/{x}")),
        ("/d/me", "/d/me", Some("/d/me")),
        ("/e/{x}:v", "/e/7:v", None),
        ("/f/{x}/{y}", "/f/7/8", None),
        ("/g/I", "/g/I", None),
    ] {
        assert_eq!(named(&all, "HEAD", text), expected, "{text}");
        assert_eq!(found(&all, "HEAD", path), expected, "{path}");
    }
}

#[test]
fn a_segment_that_some_server_reads_as_a_literal_matches_nothing() {
    let templates =
        ["/users/{id}", "/users/export", "/users/{id}:x", "/users/me:purge", "/users/%C3%A9"];
    for path in [
        "/users/EXPORT",
        "/users/Export",
        "/users/export;x=1",
        "/users/EXPORT;x",
        "/users/export%3Bx",
        "/users/e%2578port",
        "/users/E%252578port",
        "/users/me%3Apurge",
        "/users/me%3apurge",
        "/users/me:PURGE",
        "/users/%c3%a9",
        "/users/%C3%89",
        "/USERS/7",
        "/Users/export",
    ] {
        assert_found(&templates, &[(path, None)]);
    }
    for path in ["/users/a%40b.com", "/users/exports", "/users/EXPORTS", "/users/7;x=1"] {
        assert_found(&templates, &[(path, Some("/users/{id}"))]);
    }
    // A literal in upper case has look-alikes in lower case.
    assert_found(
        &["/users/EXPORT", "/users/{id}"],
        &[("/users/export", None), ("/users/EXPORT", Some("/users/EXPORT"))],
    );
}

#[test]
fn a_look_alike_on_any_way_ends_the_search() {
    let templates = ["/users/me/photo", "/users/{id}/{what}", "/users/{all+}", "/{a}/{b}/{c}"];
    assert_found(&templates, &[("/users/me/files", Some("/users/{id}/{what}"))]);
    for path in ["/users/me/photo;x", "/users/me/photo%3Bx", "/users/me;x/files", "/users/me/Photo"]
    {
        assert_found(&templates, &[(path, None)]);
    }
}

#[test]
fn a_colon_matches_only_where_the_endpoint_permits_it() {
    assert_found(
        &["/a/{x}", "/b/{x}|x", "/c/{x}/b|x", "/c/{y}/c", "/c/{y}/{z}/d|z"],
        &[
            ("/a/7", Some("/a/{x}")),
            ("/a/7:8", None),
            ("/a/:", None),
            ("/a/7%3A8", Some("/a/{x}")),
            ("/b/7:8", Some("/b/{x}")),
            ("/b/7:8:9", Some("/b/{x}")),
            // The permission is the endpoint's, not that of the place.
            ("/c/1:2/b", Some("/c/{x}/b")),
            ("/c/1:2/c", None),
            ("/c/1/2:3/d", Some("/c/{y}/{z}/d")),
            ("/c/1:2/3/d", None),
        ],
    );
    // To a server that does not mind the colon the first one is the match.
    assert_found(
        &["/f/{x}", "/f/{p+}|p", "/{a}/{b}|a,b"],
        &[("/f/a:b", None), ("/f/a:b/c", Some("/f/{p+}")), ("/g/a:b", Some("/{a}/{b}"))],
    );
}

#[test]
fn a_verb_wins_over_a_parameter_and_its_look_alikes_match_nothing() {
    let templates =
        ["/u/{x}", "/u/{x}:purge", "/u/{x}:undo|x", "/u/me", "/u/root:purge", "/u/{x}:purge/log"];
    for path in [
        "/u/7:PURGE",
        "/u/7%3Apurge",
        "/u/7%253apurge",
        "/u/7%3APurge",
        "/u/7:purge;x",
        "/u/7:purge%3Bx",
        "/u/7;x:purge",
        "/u/7%3Bx:purge",
        "/u/7;x%3Apurge",
        "/u/7%3Ba:purge;y",
        "/u/:purge",
        "/u/%3Apurge",
        "/u/1:2:purge",
        "/u/root:Purge",
        "/u/ROOT:purge",
        "/u/root%3Apurge",
        "/u/7:purgatory",
        "/u/7:purge/",
        "/u/7:UNDO",
        "/u/1%3A2:UNDO",
    ] {
        assert_found(&templates, &[(path, None)]);
    }
    assert_found(
        &templates,
        &[
            ("/u/7:purge", Some("/u/{x}:purge")),
            ("/u/7%3A8:purge", Some("/u/{x}:purge")),
            ("/u/me:purge", Some("/u/{x}:purge")),
            ("/u/root:purge", Some("/u/root:purge")),
            ("/u/root:purge/log", Some("/u/{x}:purge/log")),
            ("/u/7:undo", Some("/u/{x}:undo")),
            ("/u/1:2:undo", Some("/u/{x}:undo")),
            ("/u/7purge", Some("/u/{x}")),
            ("/u/7-PURGE", Some("/u/{x}")),
        ],
    );
    // A parameter that may have a colon is no way round.
    assert_found(
        &["/u/{x}|x", "/u/{x}:purge"],
        &[
            ("/u/1:2", Some("/u/{x}")),
            ("/u/1:purge", Some("/u/{x}:purge")),
            ("/u/1:Purge", None),
            ("/u/1:2:purge", None),
        ],
    );
}

#[test]
fn the_rest_of_a_path_is_matched_last_and_never_by_a_lookalike() {
    assert_found(
        &[
            "/files/{path+}",
            "/files/admin/export",
            "/files/{id}",
            "/files/{id}/meta",
            "/files/{id}:v/x",
        ],
        &[
            ("/files/a", Some("/files/{id}")),
            ("/files/a/b", Some("/files/{path+}")),
            ("/files/a/b/c/d", Some("/files/{path+}")),
            ("/files/a/meta", Some("/files/{id}/meta")),
            ("/files/admin/export", Some("/files/admin/export")),
            ("/files/admin/import", Some("/files/{path+}")),
            ("/files/admin/export/x", Some("/files/{path+}")),
            ("/files/ADMIN/export", None),
            ("/files/admin/EXPORT", None),
            ("/files/admin;x/export", None),
            ("/files/ADMIN/x/y", None),
            ("/files/a/META", None),
            ("/files/a:V/x", None),
            ("/files/a/b:c", None),
            ("/files/a:b/c", None),
            ("/files", None),
            ("/files/", None),
            ("/files/a/", None),
            ("/files/a/b/", None),
        ],
    );
    assert_found(&["/{all+}|all"], &[("/", None), ("/a:b/c:d", Some("/{all+}"))]);
}

#[test]
fn a_trailing_slash_matches_only_a_template_that_ends_in_one() {
    assert_found(
        &["/a/", "/b", "/c", "/c/", "/d/{x}/"],
        &[
            ("/a/", Some("/a/")),
            ("/a", None),
            ("/b/", None),
            ("/c", Some("/c")),
            ("/c/", Some("/c/")),
            ("/d/7/", Some("/d/{x}/")),
            ("/d/7", None),
        ],
    );
    // Servers that do not mind the slash run the more specific one.
    assert_found(
        &["/u/me", "/u/{x}/", "/v/me/", "/v/{x}", "/w/{p+}", "/{x}/{y}/", "/{x}"],
        &[
            ("/u/me/", None),
            ("/u/7/", Some("/u/{x}/")),
            ("/v/me", None),
            ("/v/7", Some("/v/{x}")),
            ("/w/7/", None),
            ("/w/", None),
            ("/w", None),
            ("/x", Some("/{x}")),
        ],
    );
}

#[test]
fn head_is_answered_by_the_endpoint_of_get() {
    let all = endpoints(&[
        ("GET", "/a"),
        ("GET", "/a/{x}"),
        ("GET", "/b/export"),
        ("HEAD", "/b/{x}"),
        ("HEAD", "/c"),
        ("GET", "/c"),
        ("HEAD", "/d/me"),
        ("GET", "/d/{x}"),
        ("POST", "/e"),
    ]);
    assert_eq!(found(&all, "HEAD", "/a"), Some("/a"));
    assert_eq!(found(&all, "HEAD", "/a/7"), Some("/a/{x}"));
    assert_eq!(found(&all, "HEAD", "/c"), Some("/c"));
    assert_eq!(found(&all, "HEAD", "/b/7"), Some("/b/{x}"));
    assert_eq!(found(&all, "HEAD", "/d/me"), Some("/d/me"));
    assert_eq!(found(&all, "HEAD", "/d/7"), Some("/d/{x}"));
    // Some servers run the handler of `GET /b/export`, others that of `HEAD /b/{x}`.
    assert_eq!(found(&all, "HEAD", "/b/export"), None);
    // What looks like an endpoint of either is answered by neither.
    assert_eq!(found(&all, "HEAD", "/b/EXPORT"), None);
    assert_eq!(found(&all, "HEAD", "/d/ME"), None);
    assert_eq!(found(&all, "HEAD", "/e"), None);
    assert_eq!(found(&all, "head", "/a"), None);
    assert_eq!(found(&all, "GET", "/d/me"), Some("/d/{x}"));
}

#[test]
fn ambiguous_templates_are_refused() {
    for (first, second) in [
        ("/u/{id}", "/u/{name}"),
        ("/u/{id}", "/u/{id}|id"),
        ("/u/{id}:v", "/u/{name}:v"),
        ("/u/{a+}", "/u/{b+}|b"),
        ("/a/", "/a/"),
        ("/", "/"),
    ] {
        let mut all = endpoints(&[("GET", first)]);
        let (_, template) = read(second);
        let refused = all.insert("GET", &template, needing("x")).expect_err(second);
        assert_eq!(
            refused,
            TemplateError { offset: 0, kind: TemplateErrorKind::DuplicateShape },
            "{first} {second}"
        );
        assert!(all.insert("POST", &template, needing("x")).is_ok());
    }
    for (first, second, segment, other) in [
        ("/a/export", "/a/EXPORT", "EXPORT", "export"),
        ("/a/EXPORT/x", "/a/export/{y}", "export", "EXPORT"),
        ("/{x}/b/%C3%A9", "/{x}/b/%c3%a9", "%c3%a9", "%C3%A9"),
        ("/a/b", "/a/b;x", "b;x", "b"),
        ("/a/b", "/a/b%3Bx", "b%3Bx", "b"),
        ("/a/b/", "/a/B/", "B", "b"),
        ("/{x}:v/a", "/{x}:v/A", "A", "a"),
        ("/a/{x}:v", "/a/{x}:V", ":V", ":v"),
    ] {
        let mut all = endpoints(&[("GET", first)]);
        let (path, template) = read(second);
        let refused = all.insert("GET", &template, needing("x")).expect_err(second);
        let at = path.rfind(segment).expect("there");
        let at = path[..at].rfind('/').expect("a slash") + 1;
        let kind = TemplateErrorKind::AmbiguousSegment {
            segment: segment.to_owned(),
            other: other.to_owned(),
        };
        assert_eq!(refused, TemplateError { offset: at, kind }, "{first} {second}");
    }
    // A literal and a verb are told apart.
    endpoints(&[("GET", "/a/{x}:purge"), ("GET", "/a/me:purge"), ("GET", "/a/root:PURGE")]);
    endpoints(&[("GET", "/a/export"), ("POST", "/a/EXPORT"), ("GET", "/{x}/EXPORT")]);
}

#[test]
fn a_catalog_in_force_keeps_literals_that_differ_by_case() {
    let mut all = EndpointTree::default();
    for text in ["/a/export", "/a/EXPORT", "/a/{x}", "/a/{x}/y", "/b/*", "/b/{*x}"] {
        let template = Template::parse_stored(text).expect(text);
        all.insert_stored("GET", &template, needing(text)).expect(text);
    }
    assert_eq!(found(&all, "GET", "/a/export"), Some("/a/export"));
    assert_eq!(found(&all, "GET", "/a/EXPORT"), Some("/a/EXPORT"));
    assert_eq!(found(&all, "GET", "/a/Export"), None);
    assert_eq!(found(&all, "GET", "/a/export/y"), None, "it may be meant for the other one");
    assert_eq!(found(&all, "GET", "/a/7/y"), Some("/a/{x}/y"));
    assert_eq!(found(&all, "GET", "/b/*"), Some("/b/*"));
    assert_eq!(found(&all, "GET", "/b/7"), Some("/b/{*x}"));
}

/// Every way through `depth` segments of a literal and a parameter each.
fn all_combinations(depth: usize) -> (EndpointTree, usize) {
    let mut all = EndpointTree::default();
    for way in 0..1_usize << depth {
        let segments = (0..depth).map(|n| match way >> n & 1 {
            0 => "/a".to_owned(),
            _ => format!("/{{p{n}}}"),
        });
        let text = segments.collect::<String>() + "/end";
        all.insert("GET", &template(&text, &[]), needing("x")).expect("a template");
    }
    // The root, two nodes below each, and the ends.
    (all, (1 << (depth + 1)) - 1 + (1 << depth))
}

#[test]
fn a_search_visits_each_node_once_at_most_whatever_the_path_is() {
    let (all, nodes) = all_combinations(10);
    for len in [0, 1, 10, 11, 12, 2_040] {
        let path = "/a".repeat(len) + "/other";
        let path = RequestPath::parse(path).expect("a path");
        let (found, visits) = all.count_visits("GET", &path);
        assert!(!found && visits <= nodes, "{visits} of {nodes}");
        assert!(visits > len.min(10), "{visits}");
    }
    // A deep template, and one for the rest at each of its segments.
    let mut all = EndpointTree::default();
    for depth in 0..1_000 {
        let text = "/a".repeat(depth) + "/{rest+}";
        all.insert("GET", &template(&text, &[]), needing("rest")).expect("a template");
    }
    let path = RequestPath::parse("/a".repeat(2_047) + "/").expect("a path");
    let (found, visits) = all.count_visits("GET", &path);
    assert!(!found && visits <= 2_001, "{visits}");
    let path = RequestPath::parse("/a".repeat(2_047)).expect("a path");
    assert!(all.find("GET", &path).is_some());
}

#[test]
fn a_template_of_two_thousand_segments_is_kept_and_found() {
    let text = "/a".repeat(2_048);
    let mut all = EndpointTree::default();
    all.insert("GET", &template(&text, &[]), needing("x")).expect("inserted");
    let path = RequestPath::parse(text).expect("a path");
    assert!(all.clone().find("GET", &path).is_some());
}

/// The result of one template for a path, with its position in the order of D20.
struct Candidate<'a> {
    order: Vec<u8>,
    template: Option<&'a str>,
}

/// The results of all templates of one method; the first one in the order counts.
fn candidates<'a>(templates: &'a [String], path: &str) -> Vec<Candidate<'a>> {
    let segments = split(path);
    let mut all = Vec::new();
    for text in templates {
        let (text, template) = read(text);
        let mut order = vec![];
        let mut unclear = |order: &[u8], last| {
            all.push(Candidate { order: [order, &[last]].concat(), template: None });
        };
        let mut at = 0;
        let mut is_permitted = true;
        let colons = |segment: &str| segment.matches(':').count();
        let is_match = loop {
            let (segment, part) = (segments.get(at), template.parts.get(at));
            at += 1;
            match (segment, part) {
                (None, None) => {
                    order.push(0);
                    break true;
                }
                (None, Some(SegmentPattern::Literal(literal))) if literal.is_empty() => {
                    unclear(&order, 1);
                    break false;
                }
                (None, Some(SegmentPattern::Rest(_)))
                | (Some(&""), Some(SegmentPattern::Rest(_)) | None) => {
                    unclear(&order, 1);
                    break false;
                }
                (None, Some(_)) | (Some(_), None) => break false,
                (Some(segment), Some(SegmentPattern::Literal(literal))) => {
                    if *segment != &**literal {
                        if !segment.is_empty() && cut(segment) == cut(literal) {
                            unclear(&order, 1);
                        }
                        break false;
                    }
                    order.push(0);
                }
                (Some(&""), Some(_)) => break false,
                (Some(segment), Some(part @ SegmentPattern::Verb { verb, .. })) => {
                    let name = segment.strip_suffix(&**verb).and_then(|s| s.strip_suffix(':'));
                    let plain = String::from_utf8_lossy(&fold(segment)).into_owned();
                    let own = format!(":{}", verb.to_lowercase());
                    match name.filter(|name| !name.is_empty()) {
                        Some(_) if plain.contains(';') => {
                            unclear(&order, 1);
                            break false;
                        }
                        Some(name) => {
                            if name.contains(':') {
                                unclear(&order, 3);
                            }
                            is_permitted &= colons(name) == 0 || template.allows_colon(part);
                            order.push(2);
                        }
                        None => {
                            if plain.split(';').any(|piece| piece.ends_with(&own)) {
                                unclear(&order, 1);
                            }
                            break false;
                        }
                    }
                }
                (Some(segment), Some(part @ SegmentPattern::Parameter(_))) => {
                    is_permitted &= colons(segment) == 0 || template.allows_colon(part);
                    order.push(4);
                }
                (Some(_), Some(part @ SegmentPattern::Rest(_))) => {
                    let rest = &segments[at - 1..];
                    is_permitted &= !rest.contains(&"");
                    is_permitted &=
                        template.allows_colon(part) || rest.iter().all(|s| colons(s) == 0);
                    order.push(5);
                    break true;
                }
            }
        };
        if is_match {
            all.push(Candidate { order, template: is_permitted.then_some(text) });
        }
    }
    all.sort_by(|one, other| one.order.cmp(&other.order));
    all
}

fn cut(segment: &str) -> Vec<u8> {
    fold(segment).split(|b| *b == b';').next().unwrap_or_default().to_vec()
}

fn split(path: &str) -> Vec<&str> {
    if path == "/" { vec![] } else { path[1..].split('/').collect() }
}

/// How a server reads a segment.
#[derive(Clone, Copy, Debug)]
struct ServerBehavior {
    decodes: usize,
    cuts_before: bool,
    cuts_after: bool,
    ignores_case: bool,
    ignores_slash: bool,
    matches_empty_rest: bool,
}

impl ServerBehavior {
    fn segment(self, segment: &str) -> String {
        let cut = |text: String| text.split(';').next().unwrap_or_default().to_owned();
        let mut text = segment.to_owned();
        if self.cuts_before {
            text = cut(text);
        }
        for _ in 0..self.decodes {
            text = decode(&text);
        }
        if self.cuts_after {
            text = cut(text);
        }
        if self.ignores_case { text.to_lowercase() } else { text }
    }

    /// The kinds of the template's segments if the server runs its handler for the path, which
    /// has no rule for colons.
    fn kinds(self, template: &Template, path: &str) -> Option<Vec<u8>> {
        let mut segments: Vec<_> = split(path);
        let mut parts = template.parts.clone();
        if self.ignores_slash {
            if segments.last() == Some(&"") {
                segments.pop();
            }
            if parts.last() == Some(&SegmentPattern::Literal("".into())) {
                parts.pop();
            }
        }
        let mut kinds = vec![];
        let mut at = 0;
        for part in &parts {
            let segment = segments.get(at).map(|segment| self.segment(segment));
            at += 1;
            kinds.push(match (part, segment) {
                (SegmentPattern::Rest(_), None) if self.matches_empty_rest => 3,
                (SegmentPattern::Rest(_), Some(segment))
                    if !segment.is_empty() || self.matches_empty_rest =>
                {
                    at = segments.len();
                    3
                }
                (SegmentPattern::Literal(own), Some(segment)) if self.segment(own) == segment => 0,
                (SegmentPattern::Verb { verb, .. }, Some(segment)) => {
                    let own = format!(":{}", self.segment(verb));
                    segment.strip_suffix(&own).filter(|name| !name.is_empty())?;
                    1
                }
                (SegmentPattern::Parameter(_), Some(segment)) if !segment.is_empty() => 2,
                _ => return None,
            });
        }
        (at >= segments.len()).then_some(kinds)
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, suffix)) = rest.split_first() {
        let code = suffix.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &suffix[2..];
            }
            _ => {
                bytes.push(*first);
                rest = suffix;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn server_behaviors() -> Vec<ServerBehavior> {
    let bit = |n: u32, at: u32| n >> at & 1 == 1;
    let all = (0..32_u32).flat_map(|n| {
        (0..3).map(move |decodes| ServerBehavior {
            decodes,
            cuts_before: bit(n, 0),
            cuts_after: bit(n, 1),
            ignores_case: bit(n, 2),
            ignores_slash: bit(n, 3),
            matches_empty_rest: bit(n, 4),
        })
    });
    all.collect()
}

/// Every handler that some server runs for the call, as method and template.
fn handlers<'a>(
    templates: &'a [(&'static str, Vec<String>)],
    method: &str,
    path: &str,
) -> BTreeSet<(&'static str, &'a str)> {
    let mut ran = BTreeSet::new();
    for reading in server_behaviors() {
        let best = |own: &str| {
            let (method, all) = templates.iter().find(|(name, _)| *name == own)?;
            let matching = all.iter().filter_map(|text| {
                let (path_of, template) = read(text);
                // Of two that differ only by a slash the one that is written so is run.
                let slash = path_of.ends_with('/') != path.ends_with('/');
                Some((reading.kinds(&template, path)?, slash, (*method, path_of)))
            });
            matching.min()
        };
        let own = best(method);
        if method != "HEAD" {
            ran.extend(own.map(|(_, _, handler)| handler));
            continue;
        }
        let get = best("GET");
        // By the method first, and by the path first.
        ran.extend(own.clone().or(get.clone()).map(|(_, _, handler)| handler));
        let by_path = match (own, get) {
            (Some(own), Some(get)) if get.0 < own.0 => Some(get),
            (own, get) => own.or(get),
        };
        ran.extend(by_path.map(|(_, _, handler)| handler));
    }
    ran
}

const PARTS: [&str; 14] = [
    "a", "b", "A", "a;x", "me:v", "7:W", "%C3%A9", "{x}", "{x}", "{x}", "{x}:v", "{x}:w", "{x+}",
    "",
];
const SEGMENTS: [&str; 30] = [
    "a",
    "a",
    "b",
    "b",
    "7",
    "A",
    "B",
    "a;x",
    "b;x",
    "a%3Bx",
    "%2561",
    "7:v",
    "7:v",
    "7:V",
    "7%3Av",
    "7%253AV",
    "7;x:v",
    "7:v;x",
    "7;x%3Av",
    "7%3Ba:v;y",
    "1:2:v",
    "1:2",
    "me:v",
    "me:V",
    "ME%3Av",
    ":v",
    "%C3%89",
    "%c3%a9",
    "7:W",
    "7:w",
];

fn a_template() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(select(&PARTS[..]), 0..4);
    (parts, any::<[bool; 4]>()).prop_map(|(parts, colons)| {
        let mut path = String::new();
        let mut names = vec![];
        for (n, part) in parts.iter().enumerate() {
            path += "/";
            path += &part.replace('x', &format!("x{n}"));
            if part.starts_with('{') && colons[n] {
                names.push(format!("x{n}"));
            }
        }
        if path.is_empty() {
            path += "/";
        }
        format!("{path}|{}", names.join(","))
    })
}

fn a_path() -> impl Strategy<Value = String> {
    let segments = prop::collection::vec(select(&SEGMENTS[..]), 0..5);
    (segments, any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if slash || path.is_empty() { path + "/" } else { path }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_tree_agrees_with_a_list_and_no_server_runs_another_handler(
        get in prop::collection::vec(a_template(), 1..8),
        head in prop::collection::vec(a_template(), 0..3),
        paths in prop::collection::vec(a_path(), 1..10),
    ) {
        let mut all = EndpointTree::default();
        let mut kept = vec![("GET", vec![]), ("HEAD", vec![])];
        for (n, texts) in [get, head].into_iter().enumerate() {
            for text in texts {
                let (path, names) = text.split_once('|').expect("two parts");
                let Ok(mut template) = Template::parse(path) else { continue };
                for name in names.split(',').filter(|name| !name.is_empty()) {
                    prop_assert!(template.allow_colon(name));
                }
                let mut with = all.clone();
                // A catalog with a template that is refused is refused whole.
                if with.insert(kept[n].0, &template, needing(&format!("{} {path}", kept[n].0))).is_ok() {
                    all = with;
                    kept[n].1.push(text);
                }
            }
        }
        for path in &paths {
            let parsed = RequestPath::parse(path.as_str());
            prop_assert!(parsed.is_ok(), "{path}");
            for method in ["GET", "HEAD"] {
                let found = parsed.as_ref().ok().and_then(|path| all.find(method, path));
                let found = found.map(|endpoint| endpoint.scopes[0].as_str().replacen('_', " ", 1));
                let own = candidates(&kept[0].1, path);
                let get = own.first();
                let head = candidates(&kept[1].1, path);
                let kinds = |order: &[u8]| order.to_vec();
                let read = decode(&decode(&decode(path)));
                let is_cut = read.split_once(';').is_some_and(|(_, rest)| rest.contains('/'));
                let expected = match (method, head.first(), get) {
                    _ if is_cut => None,
                    ("GET", _, get) => get.and_then(|c| c.template).map(|t| format!("GET {t}")),
                    (_, None, get) => get.and_then(|c| c.template).map(|t| format!("GET {t}")),
                    (_, Some(head), get) => match (head.template, get) {
                        (None, _) => None,
                        (Some(_), Some(Candidate { template: None, .. })) => None,
                        (Some(_), Some(get)) if kinds(&get.order) < kinds(&head.order) => None,
                        (Some(t), _) => Some(format!("HEAD {t}")),
                    },
                };
                prop_assert_eq!(&found, &expected, "{} {} among {:?}", method, path, &kept);
                let Some(found) = found else { continue };
                for (method, template) in handlers(&kept, method, path) {
                    let ran = format!("{method} {template}");
                    let same = ran.trim_end_matches('/') == found.trim_end_matches('/');
                    prop_assert!(same, "{path}: {found} is asked for, {ran} runs among {kept:?}");
                }
            }
        }
    }
}

#[test]
fn a_semicolon_before_the_last_segment_matches_nothing() {
    let all = endpoints(&[("GET", "/w/{x}"), ("GET", "/w/{rest+}"), ("GET", "/{a}/{b}/{c}")]);
    for path in ["/w/x;/y", "/w/x;v=1/y", "/w/x%3B/y", "/w/x%3b1/y", "/w/x%253B/y", "/a;/b/c"] {
        assert_eq!(found(&all, "GET", path), None, "{path}");
    }
    assert!(found(&all, "GET", "/w/x/y").is_some() && found(&all, "GET", "/w/x;v=1").is_some());
    for template in ["/a;v=1/b", "/a%3Bv/b", "/a;/"] {
        assert!(Template::parse(template).is_err(), "{template}");
    }
    assert!(Template::parse("/a/b;v=1").is_ok());
}
