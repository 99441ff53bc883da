//! AuthZEN: evaluations, their answers and their errors, over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scopegate::proto::*;
use serde_json::{Value, json};

use crate::harness::authzen::{Platform, question, serve, with};
use crate::harness::http::{basic, get, post, send};
use crate::harness::raw::WAIT_LIMIT;
use crate::harness::scopes_of;

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const HR: (&str, &str) = ("credential", "acme/hr");
const ANN: (&str, &str) = ("user", "acme/hr/ann");
const READ: (&str, &str) = ("scope", "users:read");

/// What a decision says in short: `ALL`, `OWN`, a reason, or the status of what cannot be asked.
fn short(decision: &Value) -> String {
    let context = &decision["context"];
    match (decision["decision"].as_bool().expect("a decision"), &context["reason"]) {
        (true, reason) => {
            assert!(reason.is_null() && context["error"].is_null(), "{decision}");
            assert!(context["missing_scopes"].is_null(), "{decision}");
            context["reach"].as_str().expect("a reach").to_owned()
        }
        (false, Value::String(reason)) => {
            assert!(context["reach"].is_null() && context["error"]["status"].is_u64());
            assert!(context["missing_scopes"].is_array() && context["revision"].is_string());
            reason.clone()
        }
        (false, _) => {
            let error = &context["error"];
            assert_eq!(error["code"], "invalid_request", "{decision}");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
            error["status"].to_string()
        }
    }
}

#[tokio::test]
async fn answer_has_the_fields_of_the_contract() {
    let platform = Platform::start(&[]).await;
    let allowed = platform.decide(&question(HR, "use", READ));
    let revision = allowed["context"]["revision"].as_str().expect("a string").to_owned();
    assert!(revision.parse::<u64>().expect("a number") > 0);
    let expected = json!({"decision": true, "context": {"reach": "ALL", "revision": revision}});
    assert_eq!(allowed, expected);
    let denied = platform.decide(&question(HR, "use", ("scope", "records:trash")));
    let by_grpc = platform.client.ask(CheckRequest {
        audience: "public".to_owned(),
        ..scopes_of("acme", "hr", &["records:trash"])
    });
    let by_grpc = by_grpc.await.expect("an answer");
    assert_eq!(
        denied,
        json!({
            "decision": false,
            "context": {
                "reason": "SCOPE_NOT_GRANTED",
                "missing_scopes": ["records:trash"],
                "error": {
                    "status": 403,
                    "code": by_grpc.error,
                    "message": by_grpc.message,
                },
                "revision": revision,
            },
        })
    );
}

#[tokio::test]
async fn questions_are_decided_as_the_contract_says() {
    let platform = Platform::start(&[]).await;
    let long = format!("acme/{}", "a".repeat(129));
    for (subject, action, resource, expected) in [
        (HR, "use", READ, "ALL"),
        (ANN, "use", READ, "ALL"),
        (("credential", "acme/idle"), "use", READ, "SCOPE_NOT_GRANTED"),
        (("user", "acme/hr/bob"), "use", ("scope", "records:read"), "USER_LACKS_PERMISSION"),
        // What is only a user's own.
        (ANN, "use", ("scope", "users:write"), "NOT_RECORD_OWNER"),
        (ANN, "PUT", ("route", "/users/7"), "NOT_RECORD_OWNER"),
        // Other numbers of parts.
        (("credential", "acme"), "use", READ, "400"),
        (("credential", "acme/hr/ann"), "use", READ, "400"),
        (("user", "acme/hr"), "use", READ, "400"),
        (("user", "acme/hr/ann/x"), "use", READ, "400"),
        // Ids and types that there are none of.
        (("credential", "none/hr"), "use", READ, "COMPANY_UNKNOWN"),
        (("credential", "/"), "use", READ, "COMPANY_UNKNOWN"),
        (("credential", "acme/none"), "use", READ, "CREDENTIAL_UNKNOWN"),
        (("credential", "acme/h r"), "use", READ, "CREDENTIAL_UNKNOWN"),
        (("credential", &long), "use", READ, "CREDENTIAL_UNKNOWN"),
        (("credential", "ac me/hr"), "use", READ, "COMPANY_UNKNOWN"),
        (("user", "acme/hr/none"), "use", READ, "USER_UNKNOWN"),
        (("user", "acme/hr/a nn"), "use", READ, "USER_UNKNOWN"),
        (("group", "acme/hr"), "use", READ, "CREDENTIAL_UNKNOWN"),
        (("Credential", "acme/hr"), "use", READ, "CREDENTIAL_UNKNOWN"),
        (HR, "use", ("scope", "none:none"), "SCOPE_UNKNOWN"),
        (HR, "use", ("scope", "not a scope"), "SCOPE_UNKNOWN"),
        (("credential", "acme/none"), "use", ("scope", "not a scope"), "CREDENTIAL_UNKNOWN"),
        (HR, "read", READ, "ENDPOINT_UNKNOWN"),
        (HR, "USE", READ, "ENDPOINT_UNKNOWN"),
        (HR, "read", ("planet", "mars"), "ENDPOINT_UNKNOWN"),
        // Routes.
        (HR, "GET", ("route", "/users"), "ALL"),
        (HR, "GET", ("route", "/users/7"), "ALL"),
        (HR, "GET", ("route", "/users/{userId}"), "ALL"),
        (HR, "GET", ("route", "/users/{x}"), "ALL"),
        (HR, "HEAD", ("route", "/users/{x}"), "ALL"),
        (HR, "HEAD", ("route", "/users/7"), "ALL"),
        (HR, "GRPC", ("route", "/records.v1.Records/Get"), "ALL"),
        (HR, "POST", ("route", "/users"), "ENDPOINT_UNKNOWN"),
        (HR, "get", ("route", "/users"), "ENDPOINT_UNKNOWN"),
        (HR, "G E T", ("route", "/users"), "ENDPOINT_UNKNOWN"),
        (HR, "GET", ("route", "/users/{x+}"), "ENDPOINT_UNKNOWN"),
        (HR, "GET", ("route", "/{x}"), "ENDPOINT_UNKNOWN"),
        (HR, "GET", ("route", "/nothing"), "ENDPOINT_UNKNOWN"),
        (HR, "GET", ("route", "users"), "400"),
        (HR, "GET", ("route", "/users/../x"), "400"),
        (HR, "GET", ("route", "/users%2F7"), "400"),
        (HR, "GET", ("route", "/users?x=1"), "400"),
        (HR, "GET", ("route", "/users/{x"), "400"),
        // The catalog's types.
        (HR, "read", ("record", "record-1"), "ALL"),
        (HR, "write", ("record", "record-1"), "ALL"),
        (HR, "write", ("record", "record-2"), "SCOPE_NOT_GRANTED"),
        (HR, "delete", ("record", "record-1"), "ENDPOINT_UNKNOWN"),
        (HR, "read", ("record", "record-3"), "ENDPOINT_UNKNOWN"),
        (HR, "paint", ("record", "record-1"), "ENDPOINT_UNKNOWN"),
        (HR, "read", ("note", "any"), "ENDPOINT_UNKNOWN"),
    ] {
        let asked = question(subject, action, resource);
        assert_eq!(short(&platform.decide(&asked)), expected, "{asked}");
    }
}

#[tokio::test]
async fn context_and_properties_are_read_as_the_contract_says() {
    let platform =
        Platform::start(&["--oauth", "127.0.0.1:0", "--issuer", "https://id.example.org"]).await;
    let write = question(ANN, "use", ("scope", "users:write"));
    let scope = |name: &str| question(HR, "use", ("scope", name));
    let token = json!({"audience": "public", "scopes": ["users:read"], "expires_at": "9999-12-31T23:59:59Z"});
    let camel = json!({"audience": "public", "scopes": ["users:read"], "expiresAt": "2001-01-01T00:00:00Z"});
    let owner = "resource.properties";
    let note = question(HR, "read", ("note", "any"));
    let delete = question(HR, "delete", ("record", "record-1"));
    let archived = question(HR, "write", ("record", "record-2"));
    for (asked, expected) in [
        // The audience.
        (with(scope("users:read"), "context", json!({})), "400"),
        (with(scope("users:read"), "context.audience", json!("none")), "400"),
        (with(scope("users:read"), "context.audience", json!("")), "400"),
        (with(scope("users:read"), "context.audience", json!("people")), "USER_REQUIRED"),
        (with(scope("users:read"), "context.audience", json!("hooks")), "TOKEN_REQUIRED"),
        (with(scope("users:read"), "context.audience", json!(["public"])), "400"),
        (with(scope("users:read"), "context.audience", Value::Null), "400"),
        (with(question(HR, "GET", ("route", "/users")), "context", json!({})), "ALL"),
        (with(question(HR, "read", ("record", "record-1")), "context", json!({})), "ALL"),
        // Only a user's own.
        (with(write.clone(), "context.accept_reach", json!("OWN")), "OWN"),
        (with(write.clone(), "context.accept_reach", json!("ALL")), "NOT_RECORD_OWNER"),
        (with(write.clone(), "context.accept_reach", json!("own")), "NOT_RECORD_OWNER"),
        (with(write.clone(), "context.accept_reach", json!(true)), "400"),
        (with(write.clone(), owner, json!({"owner_id": "ann"})), "OWN"),
        (with(write.clone(), owner, json!({"owner_id": "bob"})), "NOT_RECORD_OWNER"),
        (with(write.clone(), owner, json!({"owner_id": null})), "400"),
        (with(write.clone(), owner, json!({"owner_id": 7})), "400"),
        (with(write.clone(), owner, json!({"owner_id": ""})), "400"),
        (with(write.clone(), owner, json!({"owner_id": "no user"})), "400"),
        (
            with(
                with(write.clone(), "context.accept_reach", json!("OWN")),
                owner,
                json!({"owner_id": "bob"}),
            ),
            "NOT_RECORD_OWNER",
        ),
        // A stated token.
        (with(scope("users:read"), "context.token", token.clone()), "ALL"),
        (with(scope("users:write"), "context.token", token.clone()), "SCOPE_NOT_IN_TOKEN"),
        (with(scope("users:read"), "context.token", camel), "TOKEN_EXPIRED"),
        (with(scope("users:read"), "context.token", json!("text")), "400"),
        (with(scope("users:read"), "context.token", Value::Null), "400"),
        (with(scope("users:read"), "context.token", json!({"scopes": "users:read"})), "400"),
        (with(scope("users:read"), "context.token", json!({"scopes": ["no scope"]})), "400"),
        // A bearer token.
        (with(scope("users:read"), "context.bearer_token", Value::Null), "400"),
        (with(scope("users:read"), "context.bearer_token", json!(7)), "400"),
        (with(scope("users:read"), "context.bearer_token", json!("")), "TOKEN_INVALID"),
        (with(scope("users:read"), "context.bearer_token", json!("nonsense")), "TOKEN_INVALID"),
        (
            with(
                with(scope("users:read"), "context.token", token),
                "context.bearer_token",
                json!("nonsense"),
            ),
            "400",
        ),
        // What is unknown is ignored, and so is what is said of a subject.
        (with(scope("users:read"), "context.other", json!({"audience": 1})), "ALL"),
        (with(scope("users:read"), "other", json!([1])), "ALL"),
        (
            with(
                scope("records:trash"),
                "subject.properties",
                json!({"roles": ["owner", "operator"], "scopes": ["records:trash"]}),
            ),
            "SCOPE_NOT_GRANTED",
        ),
        // Properties are compared by type and value.
        (with(note.clone(), owner, json!({"level": 1})), "ALL"),
        (with(note.clone(), owner, json!({"level": 1.0})), "ALL"),
        (with(note.clone(), owner, json!({"level": "1"})), "ENDPOINT_UNKNOWN"),
        (with(note.clone(), owner, json!({"level": true})), "ENDPOINT_UNKNOWN"),
        (with(note, owner, json!({"level": [1]})), "ENDPOINT_UNKNOWN"),
        (with(delete.clone(), "action.properties", json!({"soft": true})), "SCOPE_NOT_GRANTED"),
        (with(delete.clone(), "action.properties", json!({"soft": "true"})), "ENDPOINT_UNKNOWN"),
        (with(delete, owner, json!({"soft": true})), "ENDPOINT_UNKNOWN"),
        (with(archived, owner, json!({"status": "active"})), "SCOPE_NOT_GRANTED"),
    ] {
        assert_eq!(short(&platform.decide(&asked)), expected, "{asked}");
    }
    // A token that the server has issued proves its client, and no other.
    let secret = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let secret = platform.client.directory.clone().create_secret(secret).await.expect("made");
    let basic = basic("acme", &secret.into_inner().secret);
    let form = "grant_type=client_credentials&audience=public&scope=users:read";
    let token = post(&platform.server.oauth, "/oauth2/token", &basic, form).json();
    let token = &token["access_token"];
    for (asked, expected) in [
        (scope("users:read"), "ALL"),
        (scope("users:write"), "SCOPE_NOT_IN_TOKEN"),
        (question(("credential", "acme/idle"), "use", READ), "TOKEN_INVALID"),
        (question(("credential", "other/hr"), "use", READ), "TOKEN_INVALID"),
        (question(("credential", "none/hr"), "use", READ), "TOKEN_INVALID"),
        // A token of the client itself, and the request names the user (D16).
        (question(("user", "acme/hr/ann"), "use", READ), "ALL"),
    ] {
        let asked = with(asked, "context.bearer_token", token.clone());
        let decision = platform.decide(&asked);
        assert_eq!(decision["decision"], json!(expected == "ALL"), "{asked} {decision}");
        if expected != "TOKEN_INVALID" {
            assert_eq!(short(&decision), expected, "{asked}");
        }
    }
}

#[tokio::test]
async fn base_url_and_subject_are_one_path_of_ids() {
    let platform = Platform::start(&[]).await;
    for (base, kind, id, expected) in [
        ("/companies/acme", "credential", "hr", "ALL"),
        ("/companies/acme", "user", "hr/ann", "ALL"),
        ("/companies/acme", "credential", "acme/hr", "400"),
        ("/companies/acme", "user", "ann", "400"),
        ("/companies/acme/credentials/hr", "credential", "hr", "ALL"),
        ("/companies/acme/credentials/hr", "user", "ann", "ALL"),
        ("/companies/acme/credentials/hr", "credential", "idle", "CREDENTIAL_UNKNOWN"),
        ("/companies/acme/credentials/hr", "user", "hr/ann", "400"),
        ("/companies/none", "credential", "hr", "COMPANY_UNKNOWN"),
        ("/companies/acme/credentials/none", "user", "ann", "CREDENTIAL_UNKNOWN"),
    ] {
        let asked = question((kind, id), "use", READ);
        let path = format!("{base}{EVALUATION}");
        assert_eq!(short(&platform.answer(&path, &asked)), expected, "{base} {kind} {id}");
        let path = format!("{base}{EVALUATIONS}");
        let all = platform.answer(&path, &with(asked, "evaluations", json!([{}])));
        assert_eq!(short(&all["evaluations"][0]), expected, "{base} {kind} {id}");
    }
}

#[tokio::test]
async fn several_evaluations_are_answered_in_order_at_one_revision() {
    let platform = Platform::start(&[]).await;
    let defaults = question(HR, "use", READ);
    let ask = |semantic: &str, items: Value| {
        let mut body = with(defaults.clone(), "evaluations", items);
        if !semantic.is_empty() {
            body["options"] = json!({"evaluations_semantic": semantic, "other": [1]});
        }
        let answer = platform.answer(EVALUATIONS, &body);
        assert!(answer.get("decision").is_none(), "{answer}");
        answer["evaluations"].as_array().expect("decisions").iter().map(short).collect::<Vec<_>>()
    };
    let scope = |id: &str| json!({"resource": {"type": "scope", "id": id}});
    let (yes, no) = (json!({}), scope("records:trash"));
    let malformed = json!({"subject": {"type": "credential"}});
    let cannot = json!({"subject": {"type": "credential", "id": "acme"}});
    let items = json!([yes, no, malformed, cannot, yes, no]);
    let all = ["ALL", "SCOPE_NOT_GRANTED", "400", "400", "ALL", "SCOPE_NOT_GRANTED"];
    assert_eq!(ask("", items.clone()), all);
    assert_eq!(ask("execute_all", items.clone()), all);
    assert_eq!(ask("deny_on_first_deny", items.clone()), all[..2]);
    assert_eq!(ask("deny_on_first_deny", json!([yes, malformed, yes])), ["ALL", "400"]);
    assert_eq!(ask("deny_on_first_deny", json!([yes, cannot, yes])), ["ALL", "400"]);
    assert_eq!(ask("deny_on_first_deny", json!([yes, yes])), ["ALL", "ALL"]);
    assert_eq!(ask("permit_on_first_permit", items), ["ALL"]);
    assert_eq!(
        ask("permit_on_first_permit", json!([no, malformed, yes, yes])),
        ["SCOPE_NOT_GRANTED", "400", "ALL"]
    );
    assert_eq!(ask("permit_on_first_permit", json!([no, cannot])), ["SCOPE_NOT_GRANTED", "400"]);
    let unnamed = json!({"context": {}});
    assert_eq!(ask("deny_on_first_deny", json!([unnamed, yes])), ["400"]);
    assert_eq!(ask("permit_on_first_permit", json!([unnamed, yes])), ["400", "ALL"]);
    // An entity is replaced as a whole, and `null` is one.
    let items = json!([
        {"context": {}},
        {"context": {"audience": "public", "token": {"audience": "public", "scopes": []}}},
        {"subject": null},
        {"context": null},
        {"resource": {"type": "scope"}},
        {"action": {"name": ""}},
        7,
        {"subject": {"type": "user", "id": "acme/hr/ann"}, "resource": {"type": "scope", "id": "users:write"}},
    ]);
    let expected =
        ["400", "SCOPE_NOT_IN_TOKEN", "400", "400", "400", "400", "400", "NOT_RECORD_OWNER"];
    assert_eq!(ask("", items), expected);
    // Every answer has the same revision.
    let answer = platform
        .answer(EVALUATIONS, &with(defaults.clone(), "evaluations", json!(vec![json!({}); 1000])));
    let all = answer["evaluations"].as_array().expect("decisions");
    assert_eq!(all.len(), 1000);
    assert!(all.iter().all(|one| one["context"]["revision"] == all[0]["context"]["revision"]));
    // Without items it is one evaluation.
    for body in [defaults.clone(), with(defaults.clone(), "evaluations", json!([]))] {
        assert_eq!(short(&platform.answer(EVALUATIONS, &body)), "ALL");
    }
    // Entities may be in the items only.
    let alone = json!({"evaluations": [defaults, {}]});
    let answer = platform.answer(EVALUATIONS, &alone);
    assert_eq!(short(&answer["evaluations"][0]), "ALL");
    assert_eq!(short(&answer["evaluations"][1]), "400");
}

#[tokio::test]
async fn evaluations_that_are_not_given_are_not_recorded() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions");
    let platform = Platform::start(&["--decision-log", log.to_str().expect("a path")]).await;
    let scope = |id: &str| json!({"resource": {"type": "scope", "id": id}});
    let items = json!([scope("users:read"), scope("records:trash"), scope("users:write")]);
    let mut body = with(question(HR, "use", READ), "evaluations", items);
    body["options"] = json!({"evaluations_semantic": "deny_on_first_deny"});
    assert_eq!(
        platform.answer(EVALUATIONS, &body)["evaluations"].as_array().map(Vec::len),
        Some(2)
    );
    platform.server.terminate();
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("users:read") && log.contains("records:trash"), "{log}");
    assert!(!log.contains("users:write"), "{log}");
}

/// Whether a reply is an error with this status, and has what every error has.
fn assert_error(reply: &crate::harness::http::Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.json().as_str().is_some_and(|text| !text.is_empty()), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("retry-after").is_some(), status == 503, "{reply:?}");
    assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{reply:?}");
    assert_eq!(reply.header("allow").is_some(), status == 405, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn malformed_request_is_refused() {
    let platform = Platform::start(&[]).await;
    let good = question(HR, "use", READ);
    let text = good.to_string();
    let twice = |name: &str| text.replacen('{', &format!("{{\"{name}\":{{}},"), 1);
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for body in [
        "".to_owned(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("[{text}]"),
        format!("{text}{text}"),
        format!("\u{feff}{text}"),
        deep.replacen('{', &format!("{},", &text[..text.len() - 1]), 1),
        twice("subject"),
        text.replace("\"type\":\"scope\"", "\"type\":\"scope\",\"type\":\"scope\""),
        text.replace("\"type\":\"scope\"", "\"typ\\u0065\":\"scope\",\"type\":\"scope\""),
        text.replacen('{', "{\"other\":{\"deep\":[{\"a\":1,\"a\":2}]},", 1),
        with(good.clone(), "subject", json!("acme/hr")).to_string(),
        with(good.clone(), "subject", Value::Null).to_string(),
        with(good.clone(), "subject.id", json!("")).to_string(),
        with(good.clone(), "subject.id", json!(7)).to_string(),
        with(good.clone(), "subject.type", Value::Null).to_string(),
        with(good.clone(), "subject.properties", json!([])).to_string(),
        with(good.clone(), "action", json!({})).to_string(),
        with(good.clone(), "action.name", json!("")).to_string(),
        with(good.clone(), "action.properties", json!("x")).to_string(),
        with(good.clone(), "resource.id", json!("")).to_string(),
        with(good.clone(), "resource.properties", Value::Null).to_string(),
        with(good.clone(), "context", json!([])).to_string(),
        with(good.clone(), "context", Value::Null).to_string(),
    ] {
        for path in [EVALUATION, EVALUATIONS] {
            assert_error(&platform.post_as(&platform.key, path, &body), 400);
        }
    }
    for name in ["subject", "action", "resource"] {
        let mut without = good.clone();
        without.as_object_mut().expect("an object").remove(name);
        for path in [EVALUATION, EVALUATIONS] {
            assert_error(&platform.post(path, &without), 400);
        }
        // A malformed default fails the request, also if no item needs it.
        let mut with_item = with(good.clone(), "evaluations", json!([good]));
        with_item[name] = json!({});
        assert_error(&platform.post(EVALUATIONS, &with_item), 400);
    }
    for (field, value) in [
        ("evaluations", json!({})),
        ("evaluations", Value::Null),
        ("options", json!([])),
        ("options", Value::Null),
        ("options", json!({"evaluations_semantic": "first"})),
        ("options", json!({"evaluations_semantic": null})),
    ] {
        let items = with(good.clone(), "evaluations", json!([{}]));
        assert_error(&platform.post(EVALUATIONS, &with(items, field, value)), 400);
    }
    let bearer = format!("Bearer {}", platform.key);
    for headers in [
        &[("Content-Type", "text/plain")][..],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "application/json+x")],
        &[("Content-Type", "application/json"), ("Content-Type", "application/json")],
        &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
        &[],
    ] {
        let headers = [headers, &[("Authorization", &*bearer)]].concat();
        let reply = send(platform.server.http(), &format!("POST {EVALUATION}"), &headers, &text);
        assert_error(&reply, 400);
    }
    let utf_8 = [("Content-Type", "Application/JSON; charset=utf-8"), ("Authorization", &*bearer)];
    let reply = send(platform.server.http(), &format!("POST {EVALUATION}"), &utf_8, &text);
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let platform = Platform::start(&["--max-message-bytes", "65536"]).await;
    let good = question(HR, "use", READ);
    let items = |count: usize| with(good.clone(), "evaluations", json!(vec![json!({}); count]));
    assert_error(&platform.post(EVALUATIONS, &items(1001)), 413);
    assert_eq!(platform.post(EVALUATIONS, &items(1000)).status, 200);
    let long = with(good.clone(), "other", json!("a".repeat(65536)));
    assert_error(&platform.post(EVALUATION, &long), 413);
    let longest = with(good.clone(), "other", json!("a".repeat(60000)));
    assert_eq!(platform.post(EVALUATION, &longest).status, 200);
    let tokens: Vec<_> =
        (0..101).map(|n| json!({"context": {"bearer_token": format!("t{n}")}})).collect();
    assert_error(&platform.post(EVALUATIONS, &with(good, "evaluations", json!(tokens))), 413);
}

#[tokio::test]
async fn a_default_that_many_items_share_is_bounded_by_the_memory_for_calls() {
    let platform = Platform::start(&["--call-memory-mib", "8"]).await;
    let good = question(HR, "read", ("note", "any"));
    let many: serde_json::Map<_, _> = (0..2000).map(|n| (format!("p{n}"), json!(n))).collect();
    let one = with(good.clone(), "resource.properties", json!(many));
    assert_eq!(platform.post(EVALUATION, &one).status, 200, "one copy fits");
    let all = with(one, "evaluations", json!(vec![json!({}); 1000]));
    assert_error(&platform.post(EVALUATIONS, &all), 503);
    let long = with(good, "resource.id", json!("a".repeat(100_000)));
    let all = with(long, "evaluations", json!(vec![json!({}); 1000]));
    assert_error(&platform.post(EVALUATIONS, &all), 503);
}

#[tokio::test]
async fn paths_are_compared_as_they_are_and_methods_are_listed() {
    let platform = Platform::start(&[]).await;
    let http = platform.server.http();
    for path in ["/", "/access/v1/evaluation/", "/access/v1/%65valuation", "/oauth2/token"] {
        assert_error(&platform.post(path, &question(HR, "use", READ)), 404);
    }
    for (line, allow) in [
        ("GET /access/v1/evaluation", "POST"),
        ("OPTIONS /access/v1/evaluation", "POST"),
        ("PUT /companies/acme/access/v1/evaluations", "POST"),
        ("DELETE /access/v1/search/subject", "POST"),
        ("POST /.well-known/authzen-configuration", "GET, HEAD"),
    ] {
        let reply = send(http, line, &[("X-Request-ID", "abc")], "");
        assert_error(&reply, 405);
        assert_eq!(reply.header("allow"), Some(allow));
        assert_eq!(reply.header("x-request-id"), Some("abc"));
    }
}

#[tokio::test]
async fn metadata_needs_no_key_and_has_the_url_of_the_flag() {
    let dir = tempfile::tempdir().expect("a directory");
    crate::harness::bootstrap(&dir.path().join("data"));
    let url = "https://pdp.example.org";
    let server = serve(dir.path(), &["--http-url", url]);
    for base in ["", "/companies/none", "/companies/none/credentials/x"] {
        let path = format!("/.well-known/authzen-configuration{base}");
        let headers = [("Host", "evil.example.org"), ("X-Forwarded-Host", "evil.example.org")];
        let reply = send(server.http(), &format!("GET {path}"), &headers, "");
        assert_eq!(reply.status, 200);
        assert_ne!(reply.header("cache-control"), Some("no-store"));
        let of = |path: &str| format!("{url}{base}{path}");
        let expected = json!({
            "policy_decision_point": of(""),
            "access_evaluation_endpoint": of("/access/v1/evaluation"),
            "access_evaluations_endpoint": of("/access/v1/evaluations"),
            "search_subject_endpoint": of("/access/v1/search/subject"),
            "search_resource_endpoint": of("/access/v1/search/resource"),
            "search_action_endpoint": of("/access/v1/search/action"),
        });
        assert_eq!(reply.json(), expected);
    }
    drop(server);
    let server = serve(dir.path(), &[]);
    let document = get(server.http(), "/.well-known/authzen-configuration").json();
    assert_eq!(document["policy_decision_point"], format!("http://{}", server.http()));
}

#[tokio::test]
async fn request_id_comes_back_on_every_answer() {
    let platform = Platform::start(&[]).await;
    let bearer = format!("Bearer {}", platform.key);
    let good = question(HR, "use", READ).to_string();
    for (line, key, body, status) in [
        (format!("POST {EVALUATION}"), bearer.as_str(), good.as_str(), 200),
        (format!("POST {EVALUATION}"), bearer.as_str(), "{", 400),
        (format!("POST {EVALUATION}"), "Bearer sgk_nonsense", good.as_str(), 401),
        ("POST /nothing".to_owned(), bearer.as_str(), good.as_str(), 404),
        (format!("GET {EVALUATION}"), bearer.as_str(), "", 405),
        ("GET /.well-known/authzen-configuration".to_owned(), "", "", 200),
    ] {
        let id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
        let headers =
            [("Content-Type", "application/json"), ("Authorization", key), ("X-Request-ID", id)];
        let reply = send(platform.server.http(), &line, &headers, body);
        assert_eq!((reply.status, reply.header("x-request-id")), (status, Some(id)), "{line}");
    }
}

#[tokio::test]
async fn restriction_is_in_force_on_the_next_request() {
    let platform = Platform::start(&[]).await;
    let asked = question(HR, "use", READ);
    for _ in 0..20 {
        assert_eq!(short(&platform.decide(&asked)), "ALL");
        platform.client.restrict("acme", &["users:read"]).await;
        assert_eq!(short(&platform.decide(&asked)), "SCOPE_NOT_IN_COMPANY");
        platform.client.add_scopes("acme", &["users:read"]).await;
        assert_eq!(short(&platform.decide(&asked)), "GRANT_DORMANT");
        platform.client.grant("acme", "hr", &["users:read"]).await.expect("granted");
    }
}

#[tokio::test]
async fn request_that_does_not_arrive_as_a_whole_is_refused() {
    let platform = Platform::start(&["--request-timeout", "1s"]).await;
    let mut tcp = TcpStream::connect(platform.server.http()).expect("accepted");
    tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        platform.key
    );
    tcp.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).ok();
    assert_error(&crate::harness::http::Reply::read(&answer), 503);
    assert_eq!(short(&platform.decide(&question(HR, "use", READ))), "ALL");
}

/// A random question, as AuthZEN and as gRPC have it.
fn pair() -> impl Strategy<Value = (Value, CheckRequest)> {
    let company = prop::sample::select(vec!["acme", "other", "none"]);
    let credential = prop::sample::select(vec!["hr", "idle", "none"]);
    let user = prop::sample::select(vec!["", "ann", "bob", "none"]);
    let audience = prop::sample::select(vec!["public", "people", "hooks"]);
    let owner = prop::sample::select(vec!["", "ann", "bob"]);
    let token = prop::option::of(prop::collection::vec(
        prop::sample::select(vec!["users:read", "users:write", "hooks", "records:read"]),
        0..3,
    ));
    let resource = prop::sample::select(vec![
        ("scope", "use", "users:read"),
        ("scope", "use", "users:write"),
        ("scope", "use", "records:trash"),
        ("scope", "use", "none:none"),
        ("route", "GET", "/users"),
        ("route", "PUT", "/users/7"),
        ("route", "HEAD", "/status"),
        ("route", "POST", "/users"),
    ]);
    (company, credential, user, audience, owner, token, resource).prop_map(
        |(company, credential, user, audience, owner, token, (kind, action, id))| {
            let subject = match user {
                "" => json!({"type": "credential", "id": format!("{company}/{credential}")}),
                user => json!({"type": "user", "id": format!("{company}/{credential}/{user}")}),
            };
            let mut asked = json!({
                "subject": subject,
                "action": {"name": action},
                "resource": {"type": kind, "id": id},
                "context": {"audience": audience, "accept_reach": "OWN"},
            });
            if !owner.is_empty() {
                asked["resource"]["properties"] = json!({"owner_id": owner});
            }
            if let Some(scopes) = &token {
                asked["context"]["token"] = json!({"audience": audience, "scopes": scopes});
            }
            let token = token.map(|scopes| Token {
                audience: audience.to_owned(),
                scopes: scopes.iter().map(ToString::to_string).collect(),
                ..Token::default()
            });
            let check = CheckRequest {
                company_id: company.to_owned(),
                credential_id: credential.to_owned(),
                user_id: user.to_owned(),
                audience: audience.to_owned(),
                resource_owner_id: owner.to_owned(),
                token,
                scopes: if kind == "scope" { vec![id.to_owned()] } else { vec![] },
                endpoint: (kind == "route")
                    .then(|| Endpoint { method: action.to_owned(), path: id.to_owned() }),
                ..CheckRequest::default()
            };
            (asked, check)
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn same_question_has_the_same_answer_as_by_grpc() {
    let platform = Platform::start(&[]).await;
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let ran = runner.run(&pair(), |(asked, check)| {
        let by_grpc = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(platform.client.ask(check))
        });
        let decision = platform.decide(&asked);
        let context = &decision["context"];
        let Ok(by_grpc) = by_grpc else {
            prop_assert_eq!(short(&decision), "400");
            return Ok(());
        };
        prop_assert_eq!(&context["revision"], &json!(by_grpc.revision.to_string()));
        let is_allowed = by_grpc.decision() == Decision::Allowed;
        prop_assert_eq!(&decision["decision"], &json!(is_allowed));
        if is_allowed {
            let reach = by_grpc.reach().as_str_name().trim_start_matches("REACH_").to_owned();
            prop_assert_eq!(&context["reach"], &json!(reach));
        } else {
            let reason = by_grpc.reason().as_str_name().trim_start_matches("REASON_").to_owned();
            prop_assert_eq!(&context["reason"], &json!(reason));
            prop_assert_eq!(&context["missing_scopes"], &json!(by_grpc.missing_scopes));
            let error = json!({
                "status": by_grpc.http_status, "code": by_grpc.error, "message": by_grpc.message,
            });
            prop_assert_eq!(&context["error"], &error);
        }
        // Only a user's own, without `accept_reach`.
        let strict = with(asked.clone(), "context.accept_reach", json!("ALL"));
        let has_owner = !asked["resource"]["properties"]["owner_id"].is_null();
        let is_denied_now = is_allowed && by_grpc.reach() == Reach::Own && !has_owner;
        let expected = if is_denied_now { "NOT_RECORD_OWNER".to_owned() } else { short(&decision) };
        prop_assert_eq!(short(&platform.decide(&strict)), expected);
        Ok(())
    });
    ran.expect("the same");
}

#[tokio::test]
async fn open_requests_end_in_a_drain_and_no_more_are_accepted() {
    let platform = Platform::start(&["--drain-timeout", "30s"]).await;
    let address = platform.server.http().to_owned();
    let mut tcp = TcpStream::connect(&address).expect("accepted");
    tcp.set_read_timeout(Some(WAIT_LIMIT)).expect("set");
    let body = question(HR, "use", READ).to_string();
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        platform.key,
        body.len()
    );
    tcp.write_all(head.as_bytes()).expect("sent");
    tcp.write_all(&body.as_bytes()[..1]).expect("sent");
    // The request has begun when another one on the same worker is answered.
    assert_eq!(short(&platform.decide(&question(HR, "use", READ))), "ALL");
    platform.server.signal("TERM");
    let end = std::time::Instant::now() + WAIT_LIMIT;
    while platform.server.logged("draining") == 0 {
        assert!(std::time::Instant::now() < end, "no drain");
        std::thread::sleep(Duration::from_millis(5));
    }
    tcp.write_all(&body.as_bytes()[1..]).expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).ok();
    let reply = crate::harness::http::Reply::read(&answer);
    assert_eq!(short(&reply.json()), "ALL", "{reply:?}");
    assert!(platform.server.terminate().success());
}
