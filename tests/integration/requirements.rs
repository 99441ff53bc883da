//! What a call needs, over the wire: all of some scopes, one of others, or none; and the tokens
//! that an audience takes. Every RPC that decides agrees.
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Client, Server, endpoint_of, fields, owned, refused, scopegate, scopes_of};
use scopegate::proto::*;
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;

const CATALOG: &str = r#"
name: needs
audiences:
  plain:  { aud: ["https://api.acme.com/v1/", "urn:acme:api"] }
  minted: { token: required, max_token_age: 1h, clock_skew: 5m }
  strict: { token: required, max_token_age: 1h, aud: ["api://6f1c-22"] }
  people: { user: required }
  asking: { consent: required, token: required }
scopes:
  a:
  b:
  c:
  none:
  top: { implies: [a] }
  above:
  ungranted:
  dormant:
  own:
  unpermitted:
  elsewhere: { audiences: [strict] }
roles:
  member: { scopes: { a: all, b: own, c: all, own: own, above: all, ungranted: all, dormant: all } }
endpoints:
  - { method: GET, path: /all,          audience: plain, scopes: [a, b] }
  - { method: GET, path: /any,          audience: plain, any_of: [a, b] }
  - { method: GET, path: /both,         audience: plain, scopes: [c], any_of: [a, b] }
  - { method: GET, path: /twice,        audience: plain, scopes: [a, c], any_of: [b, a] }
  - { method: GET, path: /reach,        audience: plain, any_of: [own, c] }
  - { method: GET, path: /narrow,       audience: plain, scopes: [c], any_of: [own, b] }
  - { method: GET, path: /word,         audience: plain, scopes: [none] }
  - { method: GET, path: /nearest,      audience: plain, any_of: [above, ungranted, dormant] }
  - { method: GET, path: /nearest/own,  audience: plain, any_of: [above, unpermitted, own] }
  - { method: GET, path: /first,        audience: plain, scopes: [ungranted], any_of: [above, dormant] }
  - { method: GET, path: /outermost,    audience: plain, scopes: [dormant], any_of: [above, above] }
  - { method: GET, path: /free,         audience: plain, scopes: none }
  - { method: GET, path: /free/minted,  audience: minted, scopes: none }
  - { method: GET, path: /free/people,  audience: people, scopes: none }
  - { method: GET, path: /free/asking,  audience: asking, scopes: none }
  - { method: GET, path: /some/minted,  audience: minted, any_of: [a, c] }
"#;

/// A server with this catalog, a company whose ceiling lacks `above`, and a credential.
async fn served(dir: &Path, args: &[&str]) -> (Server, Client) {
    let file = dir.join("catalog.yaml");
    std::fs::write(&file, CATALOG).expect("written");
    let data = dir.join("data");
    let all = [&["--catalog", file.to_str().expect("a path")], args].concat();
    let server = Server::start(&data, &all);
    let client = server.client().await;
    client.create_company("acme", None).await;
    let held = ["a", "c", "own", "dormant", "unpermitted", "none"];
    client.create_credential("acme", "hr", &held).await;
    client.restrict("acme", &["above", "dormant"]).await;
    client.add_scopes("acme", &["dormant"]).await;
    client.put_user("acme", "ada", &["member"]).await;
    (server, client)
}

fn call(path: &str) -> CheckRequest {
    endpoint_of("acme", "hr", "GET", path)
}

fn seconds_from_now(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("a time");
    Some(prost_types::Timestamp { seconds: now + seconds, nanos: 0 })
}

fn token(audience: &str) -> Token {
    Token {
        audience: audience.to_owned(),
        scopes: owned(&["a", "b", "c"]),
        issued_at: seconds_from_now(-600),
        ..Token::default()
    }
}

/// The answer to a check, and what Explain says of its scopes. A batch agrees (D22), and every
/// scope that is explained passes exactly if a check of it alone is allowed.
async fn agreed(client: &Client, request: CheckRequest) -> (CheckResponse, Vec<ScopeExplanation>) {
    let answer = client.ask(request.clone()).await.expect("an answer");
    let mut authorization = client.authorization.clone();
    let batch = BatchCheckRequest { checks: vec![request.clone(), request.clone()] };
    let batch = authorization.batch_check(batch).await.expect("an answer").into_inner();
    assert_eq!(batch.results, [answer.clone(), answer.clone()], "{request:?}");
    let explain = ExplainCheckRequest { check: Some(request.clone()) };
    let explained = authorization.explain_check(explain).await.expect("an answer").into_inner();
    assert_eq!(explained.decision.as_ref(), Some(&answer), "{request:?}");
    let audience = match &request.endpoint {
        Some(endpoint) => audience_of(&endpoint.path),
        None => request.audience.clone(),
    };
    let list = ListEffectiveScopesRequest {
        bearer_token: None,
        authorization: None,
        company_id: request.company_id.clone(),
        credential_id: request.credential_id.clone(),
        audience: audience.clone(),
        token: request.token.clone(),
        user_id: request.user_id.clone(),
    };
    let list = authorization.list_effective_scopes(list).await.expect("a list").into_inner();
    for scope in &explained.scopes {
        let alone = CheckRequest {
            endpoint: None,
            scopes: vec![scope.scope.clone()],
            audience: audience.clone(),
            ..request.clone()
        };
        let alone = client.ask(alone).await.expect("an answer");
        let passed = scope.layers.iter().all(|layer| layer.passed);
        assert_eq!(passed, alone.decision() == Decision::Allowed, "{scope:?}");
        assert!(!answer.missing_scopes.contains(&scope.scope) || !passed, "{scope:?}");
        if request.resource_owner_id.is_empty() {
            let listed = list.scopes.iter().find(|effective| effective.scope == scope.scope);
            assert_eq!(listed.map(|effective| effective.reach), passed.then_some(alone.reach));
        }
    }
    (answer, explained.scopes)
}

fn audience_of(path: &str) -> String {
    let word = path.rsplit('/').next().unwrap_or_default();
    let own = ["minted", "people", "asking"].contains(&word);
    if own { word.to_owned() } else { "plain".to_owned() }
}

fn names(scopes: &[ScopeExplanation]) -> String {
    scopes.iter().map(|scope| scope.scope.as_str()).collect::<Vec<_>>().join(" ")
}

/// The reason, what is missing, the reach, and the scopes that are explained.
type Row<'a> = (Reason, &'a str, Reach, &'a str);

async fn row(client: &Client, request: CheckRequest, expected: Row<'_>) {
    let (answer, explained) = agreed(client, request.clone()).await;
    let missing = answer.missing_scopes.join(" ");
    let (reason, reach) = (answer.reason(), answer.reach());
    let found = (reason, missing.as_str(), reach, names(&explained));
    let (reason, missing, reach, scopes) = expected;
    assert_eq!(found, (reason, missing, reach, scopes.to_owned()), "{request:?}");
    let allowed = reason == Reason::Allowed;
    assert_eq!(answer.decision() == Decision::Allowed, allowed, "{request:?}");
}

#[tokio::test]
async fn one_of_several_is_enough_and_the_nearest_to_a_yes_is_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path(), &[]).await;
    let by =
        |user: &str, request: CheckRequest| CheckRequest { user_id: user.to_owned(), ..request };
    use Reach::{All, Own, Unspecified};
    // `b` is in the ceiling, and not granted.
    for (path, expected) in [
        ("/all", (Reason::ScopeNotGranted, "b", Unspecified, "a b")),
        ("/any", (Reason::Allowed, "", All, "a b")),
        ("/both", (Reason::Allowed, "", All, "c a b")),
        ("/twice", (Reason::Allowed, "", All, "a c b")),
        ("/word", (Reason::Allowed, "", All, "none")),
        // The ceiling fails before the grants, and of these a dormant one is nearest to a yes.
        (
            "/nearest",
            (
                Reason::GrantDormant,
                "above ungranted dormant",
                Unspecified,
                "above ungranted dormant",
            ),
        ),
        (
            "/first",
            (
                Reason::ScopeNotGranted,
                "ungranted above dormant",
                Unspecified,
                "ungranted above dormant",
            ),
        ),
        ("/outermost", (Reason::ScopeNotInCompany, "dormant above", Unspecified, "dormant above")),
    ] {
        row(client, call(path), expected).await;
    }
    // A user's roles: `b` and `own` reach the user's own records.
    for (path, owner, expected) in [
        ("/reach", "", (Reason::Allowed, "", All, "own c")),
        ("/reach", "bob", (Reason::Allowed, "", All, "own c")),
        ("/narrow", "", (Reason::Allowed, "", Own, "c own b")),
        ("/narrow", "ada", (Reason::Allowed, "", Own, "c own b")),
        ("/narrow", "bob", (Reason::NotRecordOwner, "own b", Unspecified, "c own b")),
        (
            "/nearest/own",
            "bob",
            (Reason::NotRecordOwner, "above unpermitted own", Unspecified, "above unpermitted own"),
        ),
        ("/nearest/own", "", (Reason::Allowed, "", Own, "above unpermitted own")),
    ] {
        let request = CheckRequest { resource_owner_id: owner.to_owned(), ..call(path) };
        row(client, by("ada", request), expected).await;
    }
    // A token narrows each of them; one that is left is enough.
    let bearing = |scopes: &[&str], path: &str| CheckRequest {
        token: Some(Token { scopes: owned(scopes), ..token("plain") }),
        ..call(path)
    };
    row(client, bearing(&["a"], "/any"), (Reason::Allowed, "", All, "a b")).await;
    let denied = (Reason::ScopeNotInToken, "a b", Unspecified, "a b");
    row(client, bearing(&["b"], "/any"), denied).await;
    let denied = (Reason::ScopeNotInToken, "c", Unspecified, "c a b");
    row(client, bearing(&["a"], "/both"), denied).await;
    let denied = (Reason::ScopeNotInToken, "c a b", Unspecified, "c a b");
    row(client, bearing(&[], "/both"), denied).await;
    // A 401 misses all of both lists, each once.
    let unknown = CheckRequest { credential_id: "gone".to_owned(), ..call("/twice") };
    row(client, unknown, (Reason::CredentialUnknown, "a c b", Unspecified, "a c b")).await;
    row(client, by("bob", call("/any")), (Reason::UserUnknown, "a b", Unspecified, "a b")).await;
    row(client, call("/some/minted"), (Reason::TokenRequired, "a c", Unspecified, "a c")).await;
    // A change of one of them acts at once.
    client.grant("acme", "hr", &["ungranted"]).await.expect("granted");
    row(client, call("/nearest"), (Reason::Allowed, "", All, "above ungranted dormant")).await;
    client.restrict("acme", &["a"]).await;
    let denied = (Reason::ScopeNotGranted, "a b", Unspecified, "a b");
    row(client, call("/any"), denied).await;
}

#[tokio::test]
async fn a_call_that_needs_no_scope_is_still_checked_for_who_makes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path(), &[]).await;
    let ask = async |request: CheckRequest| {
        let (answer, explained) = agreed(client, request).await;
        assert!(answer.missing_scopes.is_empty() && explained.is_empty(), "{answer:?}");
        if answer.decision() == Decision::Allowed {
            assert_eq!((answer.http_status, answer.reach()), (200, Reach::All));
        } else {
            assert_eq!((answer.http_status, answer.reach()), (401, Reach::Unspecified));
            assert!(!answer.message.is_empty());
        }
        answer.reason()
    };
    let of = |company: &str, credential: &str| endpoint_of(company, credential, "GET", "/free");
    let by = |user: &str, path: &str| CheckRequest { user_id: user.to_owned(), ..call(path) };
    let with = |token: Token, path: &str| CheckRequest { token: Some(token), ..call(path) };
    client.create_credential("acme", "bare", &[]).await;
    assert_eq!(ask(of("acme", "bare")).await, Reason::Allowed, "nothing is granted to it");
    assert_eq!(ask(of("nowhere", "hr")).await, Reason::CompanyUnknown);
    assert_eq!(ask(of("acme", "nobody")).await, Reason::CredentialUnknown);
    // A token is checked where there is one or must be one; its scopes are not.
    assert_eq!(ask(call("/free/minted")).await, Reason::TokenRequired);
    let bare = Token { scopes: vec![], ..token("minted") };
    assert_eq!(ask(with(bare, "/free/minted")).await, Reason::Allowed);
    let over = Token { expires_at: seconds_from_now(-60), ..token("minted") };
    assert_eq!(ask(with(over, "/free/minted")).await, Reason::TokenExpired);
    let ahead = Token { issued_at: seconds_from_now(1200), ..token("minted") };
    assert_eq!(ask(with(ahead, "/free/minted")).await, Reason::TokenInvalid);
    assert_eq!(ask(with(token("plain"), "/free/minted")).await, Reason::TokenAudienceMismatch);
    assert_eq!(ask(with(token("minted"), "/free")).await, Reason::TokenAudienceMismatch);
    // So is a user; their roles and consent are not.
    assert_eq!(ask(call("/free/people")).await, Reason::UserRequired);
    assert_eq!(ask(by("bob", "/free/people")).await, Reason::UserUnknown);
    assert_eq!(ask(by("bob", "/free")).await, Reason::UserUnknown, "named, so asked for");
    client.put_user("acme", "bob", &[]).await;
    assert_eq!(ask(by("bob", "/free/people")).await, Reason::Allowed);
    let foreign = CheckRequest { resource_owner_id: "ada".to_owned(), ..by("bob", "/free") };
    assert_eq!(ask(foreign).await, Reason::Allowed);
    assert_eq!(ask(by("bob", "/free/asking")).await, Reason::TokenRequired, "before the user");
    assert_eq!(ask(with(token("asking"), "/free/asking")).await, Reason::UserRequired);
    let named = Token { user_id: "bob".to_owned(), ..token("asking") };
    assert_eq!(ask(with(named.clone(), "/free/asking")).await, Reason::Allowed, "no consent");
    let other = CheckRequest { user_id: "ada".to_owned(), ..with(named, "/free/asking") };
    assert_eq!(ask(other).await, Reason::TokenInvalid);
    // What was ended is no longer answered with a yes.
    let mut directory = client.directory.clone();
    let credential = |field: &str, expires_at| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "bare".to_owned(),
        expires_at,
        update_mask: Some(prost_types::FieldMask { paths: vec![field.to_owned()] }),
        ..UpdateCredentialRequest::default()
    };
    let past = seconds_from_now(-60);
    directory.update_credential(credential("expires_at", past)).await.expect("changed");
    assert_eq!(ask(of("acme", "bare")).await, Reason::CredentialExpired);
    directory.update_credential(credential("enabled", None)).await.expect("changed");
    assert_eq!(ask(of("acme", "bare")).await, Reason::CredentialDisabled);
    let company = UpdateCompanyRequest {
        company_id: "acme".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..UpdateCompanyRequest::default()
    };
    directory.update_company(company).await.expect("changed");
    assert_eq!(ask(of("acme", "bare")).await, Reason::CompanyDisabled);
    assert_eq!(ask(call("/free")).await, Reason::CompanyDisabled);
}

/// The answer, and what Explain's layer of tokens says.
async fn token_layer(client: &Client, request: CheckRequest) -> (CheckResponse, String) {
    let (answer, explained) = agreed(client, request).await;
    let layers = explained.iter().flat_map(|scope| &scope.layers);
    let failed = layers.filter(|layer| layer.layer() == Layer::Token && !layer.passed);
    let details: Vec<_> = failed.map(|layer| layer.detail.clone()).collect();
    assert!(details.windows(2).all(|two| two[0] == two[1]), "{details:?}");
    (answer, details.into_iter().next().unwrap_or_default())
}

#[tokio::test]
async fn every_fault_of_a_token_is_told_by_its_own_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    let args = ["--decision-log", log.to_str().expect("a path")];
    let (_server, client) = served(dir.path(), &args).await;
    let in_strict = |change: &dyn Fn(&mut Token)| {
        let mut token = token("strict");
        change(&mut token);
        CheckRequest {
            token: Some(token),
            audience: "strict".to_owned(),
            user_id: "ada".to_owned(),
            ..scopes_of("acme", "hr", &["a"])
        }
    };
    let (answer, _) = token_layer(&client, in_strict(&|_| {})).await;
    assert_eq!(answer.reason(), Reason::Allowed);
    let mut expected = vec![];
    for (request, reason, cause, message, detail) in [
        (
            in_strict(&|t| t.user_id = "bob".to_owned()),
            Reason::TokenInvalid,
            "OTHER_USER",
            "issued for another user",
            "`token.user_id`",
        ),
        (
            in_strict(&|t| t.expires_at = seconds_from_now(-1200)),
            Reason::TokenInvalid,
            "ENDS_BEFORE_ISSUE",
            "ends before the time at which it was issued",
            "`token.expires_at` is before `token.issued_at`",
        ),
        (
            in_strict(&|t| t.issued_at = seconds_from_now(120)),
            Reason::TokenInvalid,
            "ISSUED_AHEAD",
            "issued in the future",
            "`clock_skew`",
        ),
        (
            in_strict(&|t| t.expires_at = seconds_from_now(-60)),
            Reason::TokenExpired,
            "ENDED",
            "The access token has expired. Request a new one.",
            "`token.expires_at` has passed",
        ),
        (
            in_strict(&|t| t.issued_at = seconds_from_now(-4000)),
            Reason::TokenExpired,
            "TOO_OLD",
            "older than this API allows",
            "`max_token_age`",
        ),
        (
            in_strict(&|t| t.issued_at = None),
            Reason::TokenExpired,
            "ISSUE_TIME_MISSING",
            "issue time is missing",
            "`token.issued_at` is missing",
        ),
        (
            in_strict(&|t| t.audience = "minted".to_owned()),
            Reason::TokenAudienceMismatch,
            "OTHER_AUDIENCE",
            "issued for another API",
            "`aud`",
        ),
        (
            in_strict(&|t| t.audience.clear()),
            Reason::TokenAudienceMismatch,
            "AUDIENCE_MISSING",
            "does not say which API it was issued for",
            "`token.audience` is missing",
        ),
    ] {
        let (answer, told) = token_layer(&client, request).await;
        assert_eq!(answer.reason(), reason, "{cause}");
        assert_eq!((answer.http_status, answer.error.as_str()), (401, "invalid_token"), "{cause}");
        assert_eq!(answer.missing_scopes, ["a"], "{cause}");
        assert!(answer.message.contains(message), "{cause}: {}", answer.message);
        assert!(!answer.message.contains('`'), "{cause}: {}", answer.message);
        assert!(told.contains(detail), "{cause}: {told}");
        expected.push((reason, cause));
    }
    // A scope of another audience is not one that the catalog lacks.
    let of = |name: &str| CheckRequest {
        audience: "plain".to_owned(),
        ..scopes_of("acme", "hr", &[name])
    };
    let (elsewhere, explained) = agreed(&client, of("elsewhere")).await;
    let (nowhere, unexplained) = agreed(&client, of("nowhere")).await;
    assert_eq!(
        (elsewhere.reason(), nowhere.reason()),
        (Reason::ScopeUnknown, Reason::ScopeUnknown)
    );
    assert_eq!(elsewhere.message, nowhere.message);
    assert!(explained[0].layers[0].detail.contains("does not belong to the call's audience"));
    assert_ne!(explained[0].layers[0].detail, unexplained[0].layers[0].detail);
    // The decision log has each cause beside its reason: of the check, and of two in a batch.
    let logged = |reason: Reason, cause: &str| {
        let reason = reason.as_str_name().trim_start_matches("REASON_");
        let lines = std::fs::read_to_string(&log).expect("a log");
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["reason"] == reason && line["cause"] == cause).count()
    };
    let patience = Instant::now() + Duration::from_secs(60);
    for (reason, cause) in expected {
        while logged(reason, cause) < 3 {
            assert!(Instant::now() < patience, "{cause}: {}", logged(reason, cause));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_catalog_without_audiences_has_no_name_that_a_token_could_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("catalog.yaml");
    let yaml = "scopes: { a: }\nendpoints: [{ method: GET, path: /free, scopes: none }]\n";
    std::fs::write(&file, yaml).expect("written");
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--catalog", file.to_str().expect("a path")]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a"]).await;
    for request in [scopes_of("acme", "hr", &["a"]), call("/free")] {
        let with =
            |audience: &str| CheckRequest { token: Some(token(audience)), ..request.clone() };
        for named in ["public", "https://api.acme.com/v1/"] {
            let answer = client.ask(with(named)).await.expect("an answer");
            assert_eq!(answer.reason(), Reason::TokenAudienceMismatch, "{named}");
        }
        assert_eq!(client.ask(with("")).await.expect("an answer").reason(), Reason::Allowed);
    }
    let explain = ExplainCheckRequest {
        check: Some(CheckRequest { token: Some(token("x")), ..scopes_of("acme", "hr", &["a"]) }),
    };
    let told = client.authorization.clone().explain_check(explain).await.expect("an answer");
    let told = told.into_inner().scopes[0].layers[2].detail.clone();
    assert!(told.contains("the catalog declares none"), "{told}");
}

#[tokio::test]
async fn a_token_may_be_issued_ahead_by_the_skew_of_its_audience() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path(), &[]).await;
    let ask = async |audience: &str, issued: i64, expires: Option<i64>| {
        let token = Token {
            issued_at: seconds_from_now(issued),
            expires_at: expires.and_then(seconds_from_now),
            ..token(audience)
        };
        let request = CheckRequest {
            token: Some(token),
            audience: audience.to_owned(),
            ..scopes_of("acme", "hr", &["a"])
        };
        agreed(client, request).await.0.reason()
    };
    assert_eq!(ask("minted", 120, None).await, Reason::Allowed);
    assert_eq!(ask("minted", 600, None).await, Reason::TokenInvalid);
    assert_eq!(ask("strict", 120, None).await, Reason::TokenInvalid, "none by default");
    assert_eq!(ask("minted", -120, Some(-60)).await, Reason::TokenExpired, "an end has none");
    assert_eq!(ask("minted", -3660, None).await, Reason::TokenExpired, "an age has none");
    assert_eq!(ask("minted", 180, Some(120)).await, Reason::TokenInvalid, "it ends before");
}

#[tokio::test]
async fn a_token_names_an_audience_by_its_aud_and_a_request_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, client) = &served(dir.path(), &[]).await;
    let ask = async |named: &str, path: &str| {
        let request = CheckRequest { token: Some(token(named)), ..call(path) };
        agreed(client, request).await.0.reason()
    };
    for own in ["plain", "https://api.acme.com/v1/", "urn:acme:api"] {
        assert_eq!(ask(own, "/any").await, Reason::Allowed, "{own}");
        assert_eq!(ask(own, "/some/minted").await, Reason::TokenAudienceMismatch, "{own}");
    }
    for other in ["https://api.acme.com/v1", "https://API.acme.com/v1/", "api://6f1c-22", "Plain"] {
        assert_eq!(ask(other, "/any").await, Reason::TokenAudienceMismatch, "{other}");
    }
    let longest = format!("https://{}", "x".repeat(504));
    assert_eq!(ask(&longest, "/any").await, Reason::TokenAudienceMismatch);
    let too_long = CheckRequest { token: Some(token(&format!("{longest}x"))), ..call("/any") };
    let (code, details) = refused(client.ask(too_long).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["token.audience"]));
    // In the request stands the name; whoever writes what tokens have is told it.
    let mut authorization = client.authorization.clone();
    for aud in ["https://api.acme.com/v1/", "urn:acme:api"] {
        let request = CheckRequest { audience: aud.to_owned(), ..scopes_of("acme", "hr", &["a"]) };
        let batch = BatchCheckRequest { checks: vec![call("/any"), request.clone()] };
        let explain = ExplainCheckRequest { check: Some(request.clone()) };
        let list = ListEffectiveScopesRequest {
            bearer_token: None,
            authorization: None,
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            audience: aud.to_owned(),
            ..ListEffectiveScopesRequest::default()
        };
        for (refusal, field) in [
            (client.ask(request).await.err(), "audience"),
            (authorization.batch_check(batch).await.err(), "checks[1].audience"),
            (authorization.explain_check(explain).await.err(), "check.audience"),
            (authorization.list_effective_scopes(list).await.err(), "audience"),
        ] {
            let status = refusal.expect("a refusal");
            assert!(status.message().contains("write `plain` here"), "{aud}: {status:?}");
            let (code, details) = refused(Err::<(), _>(status));
            assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field]), "{aud}");
        }
    }
    // The command line, too.
    let check = |words: &[&str]| {
        let mut command = scopegate();
        command.args(["check", "acme", "hr", "a", "--endpoint", &server.url()]).args(words);
        let said = command.output().expect("it runs");
        let text = [said.stdout, said.stderr].concat();
        (said.status.code(), String::from_utf8(text).expect("text"))
    };
    let bearing = ["--audience", "plain", "--token-scope", "a", "--token-audience"];
    let with = |aud: &'static str| check(&[&bearing[..], &[aud]].concat());
    assert_eq!(with("https://api.acme.com/v1/").0, Some(0));
    assert_eq!(with("urn:acme:other").0, Some(1));
    let (code, said) = check(&["--audience", "https://api.acme.com/v1/"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("write `plain` here"), "{said}");
    let strict = ["--audience", "strict", "--token-scope", "a"];
    let (code, said) = check(&strict);
    assert_eq!(code, Some(1));
    assert!(said.contains("TOKEN_EXPIRED") && said.contains("issue time is missing"), "{said}");
}

#[tokio::test]
async fn a_catalog_change_of_what_an_endpoint_needs_is_told_and_acts_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path(), &[]).await;
    let apply = async |yaml: &str| {
        let request = ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() };
        client.catalog.clone().apply_catalog(request).await
    };
    let reason = async |path: &str| agreed(client, call(path)).await.0.reason();
    assert_eq!(reason("/any").await, Reason::Allowed);
    let next = CATALOG
        .replace("plain, any_of: [a, b] }", "plain, any_of: [b, ungranted] }")
        .replace("plain, scopes: none }", "plain, scopes: [b] }")
        .replace("plain, scopes: [a, b] }", "plain, scopes: none }");
    apply(&next).await.expect("applied");
    assert_eq!(reason("/any").await, Reason::ScopeNotGranted);
    assert_eq!(reason("/free").await, Reason::ScopeNotGranted);
    assert_eq!(reason("/all").await, Reason::Allowed);
    let list = ListChangesRequest { page_size: 1_000, ..ListChangesRequest::default() };
    let changes = client.changes.clone().list_changes(list).await.expect("a log").into_inner();
    let change = changes.changes.last().expect("a change");
    let told = change.fields.iter().find(|field| field.field == "endpoints").expect("told");
    for endpoint in ["GET /any", "GET /free", "GET /all"] {
        assert!(told.after.contains(endpoint), "{told:?}");
    }
    assert!(!told.after.contains("GET /both"), "{told:?}");
    // What a catalog leaves open is refused with its place, and changes nothing.
    let (code, _) = refused(apply(&CATALOG.replace("plain, scopes: none }", "plain }")).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(reason("/free").await, Reason::ScopeNotGranted);
}

/// `catalog test` and `explain` of the past decide as the server does.
#[tokio::test]
async fn the_command_line_decides_as_the_server_does() {
    let dir: TempDir = tempfile::tempdir().expect("a directory");
    let (server, client) = &served(dir.path(), &[]).await;
    let answer = client.ask(call("/nearest")).await.expect("an answer");
    client.grant("acme", "hr", &["ungranted"]).await.expect("granted");
    let run = |words: &[&str]| {
        let said = scopegate().args(words).output().expect("it runs");
        let text = [said.stdout, said.stderr].concat();
        (said.status.code(), String::from_utf8(text).expect("text"))
    };
    let (url, revision) = (server.url(), answer.revision.to_string());
    let at = ["--at-revision", &revision, "--endpoint", &url];
    let explain = |path: &str, more: &[&str]| {
        let asked = ["explain", "acme", "hr", "--method", "GET", "--path", path];
        run(&[&asked[..], &at, more].concat())
    };
    let (code, said) = explain("/nearest", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("GRANT_DORMANT") && said.contains("above ungranted dormant"), "{said}");
    assert!(said.contains("now ALLOWED"), "{said}");
    let (_, said) = explain("/free", &[]);
    assert!(said.contains("decision  ALLOWED"), "{said}");
    let (_, said) = explain("/some/minted", &["--token-scope", "a", "--token-audience", "minted"]);
    assert!(said.contains("issue time is missing"), "the message: {said}");
    assert!(said.contains("token.issued_at"), "the detail: {said}");
    let file = dir.path().join("needs.test.yaml");
    std::fs::write(
        &file,
        "catalog: catalog.yaml\n\
         companies: { acme: { scopes: [a, b, c], credentials: { hr: { scopes: [a] } } } }\n\
         tests:\n\
         - name: one is enough\n  \
           check: { company: acme, credential: hr, endpoint: { method: GET, path: /any } }\n  \
           expect: { decision: allowed, reach: all }\n\
         - name: none is needed\n  \
           check: { company: acme, credential: hr, endpoint: { method: GET, path: /free } }\n  \
           expect: { decision: allowed }\n\
         - name: its aud names it\n  \
           check: { company: acme, credential: hr, endpoint: { method: GET, path: /any }, \
                    token: { audience: \"urn:acme:api\", scopes: [a] } }\n  \
           expect: { decision: allowed }\n\
         - name: all are missing\n  \
           check: { company: acme, credential: hr, endpoint: { method: GET, path: /nearest } }\n  \
           expect: { decision: denied, missing_scopes: [above, ungranted, dormant] }\n\
         - name: this one fails\n  \
           check: { company: acme, credential: hr, endpoint: { method: GET, path: /free/minted }, \
                    token: { audience: minted } }\n  \
           expect: { decision: allowed }\n",
    )
    .expect("written");
    let (code, said) = run(&["catalog", "test", file.to_str().expect("a path")]);
    assert!(said.contains("4 passed, 1 failed"), "{said}");
    assert!(said.contains("`token.issued_at` is missing"), "{said}");
    assert_eq!(code, Some(2), "{said}");
}
