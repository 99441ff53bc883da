//! AuthZEN: searches find exactly what evaluations allow, page by page.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::authzen::{Platform, question, with};

const SUBJECT: &str = "/access/v1/search/subject";
const RESOURCE: &str = "/access/v1/search/resource";
const ACTION: &str = "/access/v1/search/action";
const CONTEXTS: [&str; 5] = [
    r#"{"audience":"public"}"#,
    r#"{"audience":"public","accept_reach":"OWN"}"#,
    r#"{"audience":"public","token":{"audience":"public","scopes":["users:read","records:read"]}}"#,
    r#"{"audience":"people","accept_reach":"OWN"}"#,
    r#"{}"#,
];

impl Platform {
    /// Whether an evaluation at this base URL is allowed.
    fn is_allowed(&self, base: &str, question: &Value) -> bool {
        let path = format!("{base}/access/v1/evaluation");
        self.answer(&path, question)["decision"].as_bool().expect("a decision")
    }

    /// Compares a search with the evaluations of all candidates, with several sizes of pages.
    fn assert_finds(
        &self,
        base: &str,
        path: &str,
        asked: &Value,
        candidates: &[(Value, Value)],
    ) -> usize {
        let expected: Vec<_> = candidates
            .iter()
            .filter(|(_, question)| self.is_allowed(base, question))
            .map(|(found, _)| found.clone())
            .collect();
        for limit in [1, 2, 3, 0] {
            let found = self.search(&format!("{base}{path}"), asked, limit);
            let key = |value: &Value| value.to_string();
            let distinct: BTreeSet<_> = found.iter().map(key).collect();
            assert_eq!(distinct.len(), found.len(), "{asked}: one is there twice");
            assert_eq!(distinct, expected.iter().map(key).collect(), "{base} {asked} {limit}");
        }
        expected.len()
    }
}

fn of_context(subject: (&str, &str), action: &str, resource: (&str, &str), context: &str) -> Value {
    let context = serde_json::from_str(context).expect("JSON");
    with(question(subject, action, resource), "context", context)
}

#[tokio::test]
async fn subjects_are_found_as_evaluations_allow() {
    let platform = Platform::start(&[]).await;
    for credential in ["a", "b", "c", "zz"] {
        let scopes: &[&str] = if credential == "b" { &[] } else { &["users:read"] };
        platform.client.create_credential("acme", credential, scopes).await;
    }
    for (user, role) in [("cid", "reader"), ("dan", "owner"), ("eve", "none")] {
        platform.client.put_user("acme", user, &[role]).await;
    }
    let mut found = 0;
    for context in CONTEXTS {
        for (action, resource) in [
            ("use", ("scope", "users:read")),
            ("use", ("scope", "users:write")),
            ("GET", ("route", "/users/7")),
            ("PUT", ("route", "/users/{id}")),
            ("read", ("record", "record-1")),
            ("read", ("record", "none")),
        ] {
            let ids = ["a", "b", "c", "hr", "idle", "zz"];
            let asked = of_context(("credential", "ignored/id"), action, resource, context);
            let candidates = ids.map(|id| {
                let question = of_context(("credential", id), action, resource, context);
                (json!({"type": "credential", "id": id}), question)
            });
            found += platform.assert_finds("/companies/acme", SUBJECT, &asked, &candidates);
            let asked = of_context(("user", "ignored"), action, resource, context);
            let candidates = ["ann", "bob", "cid", "dan", "eve"].map(|id| {
                let question = of_context(("user", id), action, resource, context);
                (json!({"type": "user", "id": id}), question)
            });
            let base = "/companies/acme/credentials/hr";
            found += platform.assert_finds(base, SUBJECT, &asked, &candidates);
        }
    }
    assert!(found > 20, "{found}");
    // What is unknown finds nothing.
    let asked = question(("credential", "x"), "use", ("scope", "users:read"));
    for base in ["/companies/none", "/companies/acme"] {
        let asked = match base {
            "/companies/none" => asked.clone(),
            _ => with(asked.clone(), "subject.type", json!("group")),
        };
        let answer = platform.answer(&format!("{base}{SUBJECT}"), &asked);
        assert_eq!(answer, json!({"results": [], "page": {"next_token": ""}}), "{base}");
    }
    // At another URL a type has no subjects.
    for (base, kind) in [
        ("", "credential"),
        ("", "user"),
        ("/companies/acme", "user"),
        ("/companies/acme/credentials/hr", "credential"),
    ] {
        let asked = with(asked.clone(), "subject.type", json!(kind));
        assert_eq!(platform.post(&format!("{base}{SUBJECT}"), &asked).status, 400, "{base} {kind}");
    }
}

#[tokio::test]
async fn resources_are_found_as_evaluations_allow() {
    let platform = Platform::start(&[]).await;
    let scopes = [
        "archive:write",
        "hooks",
        "records:read",
        "records:trash",
        "records:write",
        "users:read",
        "users:write",
    ];
    let routes = ["/records.v1.Records/Get", "/status", "/users", "/users/{userId}"];
    let mut found = 0;
    for context in CONTEXTS {
        for subject in [
            ("credential", "acme/hr"),
            ("credential", "acme/idle"),
            ("user", "acme/hr/ann"),
            ("user", "acme/hr/bob"),
            ("credential", "none/hr"),
            ("credential", "acme"),
        ] {
            for (action, kind, ids) in [
                ("use", "scope", &scopes[..]),
                ("read", "scope", &scopes),
                ("GET", "route", &routes),
                ("PUT", "route", &routes),
                ("HEAD", "route", &routes),
                ("GRPC", "route", &routes),
                ("read", "record", &["record-1", "record-2"]),
                ("write", "record", &["record-1", "record-2"]),
                ("paint", "record", &["record-1", "record-2"]),
                ("read", "planet", &["mars"]),
            ] {
                let asked = of_context(subject, action, (kind, "ignored"), context);
                let candidates: Vec<_> = ids
                    .iter()
                    .map(|id| {
                        let question = of_context(subject, action, (kind, id), context);
                        (json!({"type": kind, "id": id}), question)
                    })
                    .collect();
                found += platform.assert_finds("", RESOURCE, &asked, &candidates);
            }
        }
    }
    assert!(found > 50, "{found}");
    // The owner counts as in an evaluation.
    let own = of_context(("user", "acme/hr/ann"), "use", ("scope", "x"), CONTEXTS[0]);
    let own = with(own, "resource.properties", json!({"owner_id": "ann"}));
    let candidates = scopes.map(|id| {
        (json!({"type": "scope", "id": id}), with(own.clone(), "resource.id", json!(id)))
    });
    assert_eq!(platform.assert_finds("", RESOURCE, &own, &candidates), 4);
    // A type without known ids has none to find.
    let notes = question(("credential", "acme/hr"), "read", ("note", "x"));
    let notes = with(notes, "resource.properties", json!({"level": 1}));
    assert!(platform.is_allowed("", &notes));
    assert_eq!(platform.search(RESOURCE, &notes, 0), Vec::<Value>::new());
}

#[tokio::test]
async fn actions_are_found_as_evaluations_allow() {
    let platform = Platform::start(&[]).await;
    let methods = ["GET", "GRPC", "HEAD", "POST", "PUT"];
    let mut found = 0;
    for context in CONTEXTS {
        for subject in
            [("credential", "acme/hr"), ("user", "acme/hr/ann"), ("credential", "acme/none")]
        {
            for (resource, actions) in [
                (("scope", "users:read"), &["use"][..]),
                (("route", "/users/{x}"), &methods),
                (("route", "/users/7"), &methods),
                (("route", "/status"), &methods),
                (("route", "/nothing"), &methods),
                (("route", "/users/.."), &methods),
                (("record", "record-1"), &["read", "write", "delete"]),
                (("record", "record-2"), &["read", "write", "delete"]),
                (("planet", "mars"), &["read"]),
            ] {
                // HEAD by way of GET is allowed and not listed.
                let is_listed = |action: &str| action != "HEAD" || resource.1 == "/status";
                let asked = of_context(subject, "-", resource, context);
                let candidates: Vec<_> = actions
                    .iter()
                    .filter(|action| is_listed(action))
                    .map(|action| {
                        (json!({"name": action}), of_context(subject, action, resource, context))
                    })
                    .collect();
                let mut without_action = asked.clone();
                without_action.as_object_mut().expect("an object").remove("action");
                found += platform.assert_finds("", ACTION, &without_action, &candidates);
            }
        }
    }
    assert!(found > 20, "{found}");
    let head = question(("credential", "acme/hr"), "HEAD", ("route", "/users/7"));
    assert!(platform.is_allowed("", &head), "by way of GET");
}

#[tokio::test]
async fn token_is_good_for_the_same_request_only() {
    let platform = Platform::start(&[]).await;
    let base = question(("credential", "acme/hr"), "use", ("scope", "x"));
    let first = platform.answer(RESOURCE, &with(base.clone(), "page", json!({"limit": 1})));
    let token = first["page"]["next_token"].as_str().expect("a token").to_owned();
    assert!(!token.is_empty() && first["results"].as_array().map(Vec::len) == Some(1));
    let page = json!({"token": token});
    let status = |path: &str, body: &Value| platform.post(path, body).status;
    let again = with(base.clone(), "page", page.clone());
    assert_eq!(status(RESOURCE, &again), 200, "without a limit");
    let other_id = with(again.clone(), "resource.id", json!("y"));
    assert_eq!(status(RESOURCE, &other_id), 200, "the id that is searched for is ignored");
    for other in [
        with(again.clone(), "subject.id", json!("acme/idle")),
        with(again.clone(), "subject.type", json!("user")),
        with(again.clone(), "action.name", json!("read")),
        with(again.clone(), "action.properties", json!({"a": 1})),
        with(again.clone(), "resource.type", json!("route")),
        with(again.clone(), "resource.properties", json!({"owner_id": "ann"})),
        with(again.clone(), "context.accept_reach", json!("OWN")),
        with(again.clone(), "page.token", json!(format!("{token}A"))),
        with(again.clone(), "page.token", json!("made-up")),
        with(again.clone(), "page.token", Value::Null),
        with(again.clone(), "page.token", json!(1)),
        with(again.clone(), "page.limit", json!(-1)),
        with(again.clone(), "page.limit", json!(1.5)),
        with(again.clone(), "page.limit", json!("1")),
        with(again.clone(), "page.limit", Value::Null),
        with(again.clone(), "page", Value::Null),
        with(again.clone(), "page", json!([])),
    ] {
        assert_eq!(status(RESOURCE, &other), 400, "{other}");
    }
    // A `type` is no member of an action, and hides nothing of it.
    let typed = |name: &str| {
        let action = json!({"type": "t", "name": name});
        with(base.clone(), "action", action)
    };
    let first = platform.answer(RESOURCE, &with(typed("use"), "page", json!({"limit": 1})));
    let of_typed = json!({"token": first["page"]["next_token"]});
    assert_eq!(status(RESOURCE, &with(typed("use"), "page", of_typed.clone())), 200);
    assert_eq!(status(RESOURCE, &with(typed("read"), "page", of_typed)), 400);
    let in_company = with(again.clone(), "subject.id", json!("hr"));
    assert_eq!(status(&format!("/companies/acme{RESOURCE}"), &in_company), 400, "another base");
    assert_eq!(status(ACTION, &again), 400, "another search");
}

#[tokio::test]
async fn pages_end_and_miss_nothing_in_a_large_company() {
    let platform = Platform::start(&[]).await;
    for n in 0..1_200 {
        let scopes: &[&str] = if n % 400 == 7 { &["users:read"] } else { &[] };
        platform.client.create_credential("other", &format!("c{n:04}"), scopes).await;
    }
    let asked = question(("credential", "x"), "use", ("scope", "users:read"));
    let path = format!("/companies/other{SUBJECT}");
    let ids = |found: Vec<Value>| -> Vec<String> {
        found.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = ["c0007", "c0407", "c0807", "hr"];
    for limit in [1, 2, 100, 1000, 5000] {
        assert_eq!(ids(platform.search(&path, &asked, limit)), all, "{limit}");
    }
    // A page looks at a thousand candidates, and says that there is more.
    let first = platform.answer(&path, &with(asked, "page", json!({"limit": 1000})));
    assert_eq!(first["results"].as_array().map(Vec::len), Some(3));
    assert_ne!(first["page"]["next_token"], "");
}

#[tokio::test]
async fn malformed_search_is_refused() {
    let platform = Platform::start(&[]).await;
    let good = question(("credential", "acme/hr"), "use", ("scope", "users:read"));
    for (path, names) in [
        ("/companies/acme/access/v1/search/subject", &["subject", "action", "resource"][..]),
        (RESOURCE, &["subject", "action", "resource"]),
        (ACTION, &["subject", "resource"]),
    ] {
        for name in names {
            let mut without = good.clone();
            without.as_object_mut().expect("an object").remove(*name);
            assert_eq!(platform.post(path, &without).status, 400, "{path} {name}");
            assert_eq!(platform.post(path, &with(good.clone(), name, json!({}))).status, 400);
            assert_eq!(platform.post(path, &with(good.clone(), name, Value::Null)).status, 400);
        }
        assert_eq!(platform.post(path, &with(good.clone(), "context", json!(1))).status, 400);
    }
    // A context that cannot be asked with allows nothing.
    let asked = with(good, "context.audience", json!(7));
    assert_eq!(platform.search(RESOURCE, &asked, 0), Vec::<Value>::new());
    let revoked = platform.client.restrict("acme", &["users:read"]).await;
    assert!(revoked.revision > 0);
    let scopes =
        with(question(("credential", "acme/hr"), "use", ("scope", "x")), "page", json!({}));
    let found = platform.search(RESOURCE, &scopes, 0);
    assert!(found.iter().all(|one| one["id"] != "users:read"), "in force on the next request");
    assert_eq!(found.len(), 3);
}
