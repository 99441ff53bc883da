//! Envoy's external authorization over the wire: who calls, what for, what the client and the API get, and
//! that it decides as Check does.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use prost_types::value::Kind;
use scopegate::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use scopegate::proto::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use scopegate::proto::envoy::service::auth::v3 as envoy;
use scopegate::proto::envoy::service::auth::v3::attribute_context::http_request::HeadersEntry;
use scopegate::proto::envoy::service::auth::v3::attribute_context::{
    ContextExtensionsEntry, HttpRequest, Request,
};
use scopegate::proto::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use scopegate::proto::envoy::service::auth::v3::check_response::HttpResponse;
use scopegate::proto::*;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::authentication::wire;
use crate::harness::bytes_codec::BytesCodec;
use crate::harness::http::get;
use crate::harness::jwt::{Signer, key_set};
use crate::harness::{
    BearerInterceptor, Client, Server, Wire, bootstrap, fields, free_address, owned, refused,
};

const ISSUER: &str = "https://id.example.org/";
const AUD: &str = "https://api.example.org";
const BOTH: &str = r#"Bearer realm="scopegate", Basic realm="scopegate", charset="UTF-8""#;
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// A server with two companies, `acme` and `other`, each with the credential `hr` and a user `ann`.
struct World {
    server: Server,
    client: Client,
    gateway: AuthorizationClient<Wire>,
    operator: String,
    secret: String,
    other_secret: String,
    signer: Signer,
}

fn catalog(signer: &Signer) -> Value {
    json!({
        "audiences": { "api": { "aud": [AUD] }, "internal": { "token": "required" } },
        "scopes": { "users:read": {}, "users:write": {}, "own:read": {}, "docs:read": {} },
        "roles": { "reader": { "scopes": { "users:read": "all", "own:read": "own" } } },
        "endpoints": [
            { "method": "GET", "path": "/users", "audience": "api", "scopes": ["users:read"] },
            { "method": "POST", "path": "/users", "audience": "api", "scopes": ["users:write"] },
            { "method": "GET", "path": "/both", "audience": "api",
              "scopes": ["users:write", "users:read", "docs:read"] },
            { "method": "GET", "path": "/own", "audience": "api", "scopes": ["own:read"] },
            { "method": "GET", "path": "/free", "audience": "api", "scopes": "none" },
            { "method": "GET", "path": "/internal", "audience": "internal",
              "scopes": ["docs:read"] },
            { "method": "GRPC", "path": "/acme.Users/List", "audience": "api",
              "scopes": ["users:read"] },
        ],
        "issuers": { ISSUER: {
            "jwks": serde_json::from_str::<Value>(&key_set([signer])).expect("a set"),
            "algorithms": ["ES256"],
            "company": { "claim": "tid" },
            "companies": ["acme", "other"],
        } },
    })
}

impl World {
    async fn new(dir: &Path, args: &[&str]) -> Self {
        let operator = bootstrap(dir);
        let signer = Signer::new("ES256", "key-1");
        let file = dir.join("catalog.yaml");
        std::fs::write(&file, catalog(&signer).to_string()).expect("written");
        let catalog = ["--catalog", file.to_str().expect("a path")];
        let server = Server::start(dir, &[&catalog, args].concat());
        let client = Client::connect_as(&server.url(), Some(&operator)).await;
        for company in ["acme", "other"] {
            client.create_company(company, None).await;
            client.create_credential(company, "hr", &["users:read", "own:read"]).await;
            client.put_user(company, "ann", &["reader"]).await;
        }
        let mine = secret(&client, "acme").await;
        let other_secret = secret(&client, "other").await;
        let gateway = gateway(&server, Some(&operator)).await;
        Self { server, client, gateway, operator, secret: mine, other_secret, signer }
    }

    fn token(&self, changes: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": ISSUER, "aud": AUD, "iat": now - 60, "exp": now + 3600, "jti": "token-7f",
            "tid": "acme", "client_id": "hr", "sub": "hr", "scope": "users:read own:read",
        });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        self.signer.token(&claims)
    }

    async fn ask(&self, request: envoy::CheckRequest) -> Decided {
        Decided::of(self.try_ask(request).await.expect("a decision"))
    }

    async fn try_ask(&self, request: envoy::CheckRequest) -> Result<envoy::CheckResponse, Status> {
        self.gateway.clone().check(request).await.map(tonic::Response::into_inner)
    }
}

async fn secret(client: &Client, company: &str) -> String {
    let request = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_secret(request).await.expect("made").into_inner().secret
}

pub async fn gateway(server: &Server, key: Option<&str>) -> AuthorizationClient<Wire> {
    let channel = Channel::from_shared(server.url()).expect("a URL");
    let channel = channel.connect().await.expect("a connection");
    let key = key.map(|key| format!("Bearer {key}").parse().expect("a header"));
    AuthorizationClient::with_interceptor(channel, BearerInterceptor(key))
}

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

/// The request of a client, as Envoy sends it.
pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    settings: &[(&str, &str)],
) -> envoy::CheckRequest {
    let entry = |(key, value): &(&str, &str)| HeadersEntry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let setting = |(key, value): &(&str, &str)| ContextExtensionsEntry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let http = HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: headers.iter().map(entry).collect(),
        ..Default::default()
    };
    envoy::CheckRequest {
        attributes: Some(envoy::AttributeContext {
            request: Some(Request { http: Some(http) }),
            context_extensions: settings.iter().map(setting).collect(),
        }),
    }
}

fn http(request: &mut envoy::CheckRequest) -> &mut HttpRequest {
    let attributes = request.attributes.as_mut().expect("attributes");
    attributes.request.as_mut().and_then(|request| request.http.as_mut()).expect("a request")
}

fn users(headers: &[(&str, &str)], settings: &[(&str, &str)]) -> envoy::CheckRequest {
    request("GET", "/users", headers, settings)
}

const ACME: [(&str, &str); 2] = [("company_id", "acme"), ("credential_id", "hr")];

/// A decision, whose parts agree.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decided {
    status: i32,
    /// Of an allow those that are set, of a denial those of the response.
    headers: BTreeMap<String, String>,
    removed: Vec<String>,
    body: Value,
    /// The metadata: texts, numbers as texts, lists joined by spaces.
    metadata: BTreeMap<String, String>,
}

impl Decided {
    /// An allow and nothing else has the code 0, the changes of the request and the word `ALLOWED`.
    fn of(response: envoy::CheckResponse) -> Self {
        let text = |kind: Option<Kind>| match kind {
            Some(Kind::StringValue(text)) => text,
            Some(Kind::NumberValue(number)) => number.to_string(),
            Some(Kind::ListValue(list)) => {
                let texts = list.values.into_iter().map(|value| match value.kind {
                    Some(Kind::StringValue(text)) => text,
                    other => panic!("{other:?}"),
                });
                texts.collect::<Vec<_>>().join(" ")
            }
            other => panic!("{other:?}"),
        };
        let metadata = response.dynamic_metadata.expect("metadata").fields;
        let metadata: BTreeMap<_, _> =
            metadata.into_iter().map(|(name, value)| (name, text(value.kind))).collect();
        let code = response.status.expect("a status").code;
        let said = metadata["decision"].as_str();
        match response.http_response.expect("a response") {
            HttpResponse::OkResponse(ok) => {
                assert_eq!((code, said, &*metadata["http_status"]), (0, "ALLOWED", "200"));
                assert_eq!(metadata["reason"], "ALLOWED");
                let (headers, removed) = (headers(ok.headers), ok.headers_to_remove);
                let is_set = |name: &String| headers.contains_key(&name.to_lowercase());
                assert!(!removed.iter().any(is_set), "Envoy removes after it has set");
                Self { status: 200, headers, removed, body: Value::Null, metadata }
            }
            HttpResponse::DeniedResponse(denied) => {
                let status = denied.status.expect("a status").code;
                let codes = [(400, 3), (401, 16), (403, 7), (404, 5), (503, 14)];
                assert!(codes.contains(&(status, code)), "{status} {code}");
                assert_eq!((said, &metadata["http_status"]), ("DENIED", &status.to_string()));
                let (headers, removed) = (headers(denied.headers), vec![]);
                assert_eq!(headers["content-type"], "application/json");
                let body: Value = serde_json::from_str(&denied.body).expect("JSON");
                assert_eq!(body.as_object().expect("an object").len(), 2);
                Self { status, headers, removed, body, metadata }
            }
        }
    }

    fn reason(&self) -> &str {
        self.metadata.get("reason").map_or("", String::as_str)
    }

    fn of_metadata(&self, name: &str) -> &str {
        self.metadata.get(name).map_or("", String::as_str)
    }

    fn challenge(&self) -> Option<&str> {
        self.headers.get("www-authenticate").map(String::as_str)
    }
}

fn headers(all: Vec<HeaderValueOption>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for option in all {
        assert_eq!(option.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
        let header = option.header.expect("a header");
        assert!(found.insert(header.key, header.value).is_none(), "each once");
    }
    found
}

#[tokio::test]
async fn client_is_who_its_credential_says_and_the_route_only_where_there_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let (tenant, by_id) = (basic("acme", &world.secret), basic("hr", &world.secret));
    let (alone, other) =
        (format!("Bearer {}", world.secret), format!("Bearer {}", world.other_secret));
    let token = format!("Bearer {}", world.token(json!({})));
    let of_other = format!("Bearer {}", world.token(json!({ "tid": "other" })));
    let expired =
        format!("Bearer {}", world.token(json!({ "iat": 1_700_000_000, "exp": 1_700_003_600 })));
    let forged = format!("Bearer {}x", world.token(json!({})));
    let list = format!("{token},{token}");
    let (company, credential) = (("company_id", "acme"), ("credential_id", "hr"));
    let wrong = basic("acme", "sgs_000000000000000000000000_0");
    let bare = world.secret.clone();
    type Row<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], u16, &'a str);
    let rows: &[Row<'_>] = &[
        // 2: the header `authorization`.
        (Some(&tenant), &[], 200, "ALLOWED"),
        (Some(&tenant), &[company], 200, "ALLOWED"),
        (Some(&tenant), &[credential], 200, "ALLOWED"),
        (Some(&by_id), &[company], 200, "ALLOWED"),
        (Some(&by_id), &ACME, 200, "ALLOWED"),
        (Some(&by_id), &[], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&by_id), &[credential], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&alone), &[], 200, "ALLOWED"),
        (Some(&alone), &ACME, 200, "ALLOWED"),
        (Some(&token), &[], 200, "ALLOWED"),
        (Some(&token), &ACME, 200, "ALLOWED"),
        // The route and the credential name different ones.
        (Some(&other), &[company], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&alone), &[("company_id", "other")], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&alone), &[("credential_id", "crm")], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&tenant), &[("company_id", "other")], 401, "CREDENTIAL_UNKNOWN"),
        (Some(&of_other), &[company], 401, "TOKEN_INVALID"),
        (Some(&token), &[("credential_id", "crm")], 401, "TOKEN_INVALID"),
        // 3: the route.
        (None, &ACME, 200, "ALLOWED"),
        (None, &[("company_id", "acme"), ("credential_id", "crm")], 401, "CREDENTIAL_UNKNOWN"),
        // A header that is there is never as if it were not.
        (Some(""), &ACME, 401, "TOKEN_REQUIRED"),
        (Some(" "), &ACME, 401, "TOKEN_REQUIRED"),
        (Some("Bearer"), &ACME, 401, "TOKEN_INVALID"),
        (Some("Negotiate x"), &ACME, 401, "TOKEN_REQUIRED"),
        (Some(&bare), &ACME, 401, "TOKEN_REQUIRED"),
        (Some(&expired), &ACME, 401, "TOKEN_EXPIRED"),
        (Some(&forged), &ACME, 401, "TOKEN_INVALID"),
        (Some(&wrong), &ACME, 401, "CREDENTIAL_UNKNOWN"),
        (Some(&list), &ACME, 401, "TOKEN_REQUIRED"),
        // Nothing says who calls.
        (None, &[], 401, "TOKEN_REQUIRED"),
        (None, &[company], 401, "TOKEN_REQUIRED"),
        (None, &[credential], 401, "TOKEN_REQUIRED"),
    ];
    for (header, settings, status, reason) in rows {
        let sent: Vec<_> = header.map(|value| ("authorization", value)).into_iter().collect();
        let decided = world.ask(users(&sent, settings)).await;
        let found = (decided.status, decided.reason());
        assert_eq!(found, (i32::from(*status), *reason), "{header:?} {settings:?}");
        if *status == 200 {
            assert_eq!(decided.headers["x-scopegate-company"], "acme");
            assert_eq!(decided.headers["x-scopegate-credential"], "hr");
            assert_eq!(decided.of_metadata("company_id"), "acme");
        } else {
            assert_eq!(decided.challenge(), Some(BOTH));
        }
        // The same headers, as they were sent.
        let mut raw = users(&[], settings);
        let value = |(key, value): &(&str, &str)| HeaderValue {
            key: (*key).to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..Default::default()
        };
        let all = sent.iter().map(value).collect();
        http(&mut raw).header_map = Some(HeaderMap { headers: all });
        assert_eq!(world.ask(raw).await, decided, "{header:?} {settings:?}");
    }
}

#[tokio::test]
async fn header_that_comes_twice_is_no_credential() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let good = format!("Bearer {}", world.secret);
    let header = |key: &str, value: &[u8]| HeaderValue {
        key: key.to_owned(),
        raw_value: value.to_vec(),
        ..Default::default()
    };
    let good_raw = header("authorization", good.as_bytes());
    let text = |value: &str| HeaderValue {
        key: "authorization".to_owned(),
        value: value.to_owned(),
        ..Default::default()
    };
    for (headers, is_allowed) in [
        (vec![good_raw.clone()], true),
        (vec![text(&good)], true),
        (vec![good_raw.clone(), good_raw.clone()], false),
        (vec![good_raw.clone(), header("Authorization", b"")], false),
        (vec![header("authorization", b""), good_raw.clone()], false),
        (vec![HeaderValue { value: "x".to_owned(), ..good_raw.clone() }], false),
        (vec![header("authorization", &[good.as_bytes(), b"\xff"].concat())], false),
    ] {
        let mut asked = users(&[], &ACME);
        http(&mut asked).header_map = Some(HeaderMap { headers: headers.clone() });
        let decided = world.ask(asked).await;
        let expected = if is_allowed { "ALLOWED" } else { "TOKEN_REQUIRED" };
        assert_eq!(decided.reason(), expected, "{headers:?}");
    }
    // In the map, which a lying sender can repeat; and in both.
    let twice = [("authorization", &*good), ("authorization", "")];
    assert_eq!(world.ask(users(&twice, &ACME)).await.reason(), "TOKEN_REQUIRED");
    let mut both = users(&[("authorization", &good)], &ACME);
    http(&mut both).header_map = Some(HeaderMap { headers: vec![good_raw] });
    assert_eq!(world.ask(both).await.reason(), "TOKEN_REQUIRED");
}

#[tokio::test]
async fn client_that_is_not_proven_learns_nothing_of_endpoints() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let bearer = |changes| format!("Bearer {}", world.token(changes));
    let api = ("audience", "api");
    let unproven = [
        None,
        Some(String::new()),
        Some("Basic eDp4".to_owned()),
        Some(bearer(json!({ "iat": 1_700_000_000, "exp": 1_700_003_600 }))),
        Some(bearer(json!({ "aud": "https://elsewhere.example.org" }))),
        Some(format!("{}x", bearer(json!({})))),
    ];
    for header in &unproven {
        let sent: Vec<_> = header.iter().map(|value| ("authorization", &**value)).collect();
        for settings in [&[][..], &[api], &[("company_id", "acme"), api]] {
            let known = world.ask(request("GET", "/users", &sent, settings)).await;
            assert_eq!(known.status, 401, "{header:?}");
            for path in ["/nothing", "/internal"] {
                let unknown = world.ask(request("GET", path, &sent, settings)).await;
                assert_eq!(unknown.status, 401, "{header:?} {path}");
                // What the client gets is the same, to the byte.
                let of_client = |it: &Decided| (it.headers.clone(), it.body.clone());
                if path == "/nothing" || settings.is_empty() {
                    let what = format!("{header:?} {path}");
                    assert_eq!(of_client(&unknown), of_client(&known), "{what}");
                    assert_eq!(unknown.reason(), known.reason(), "{what}");
                }
            }
        }
    }
    for header in [bearer(json!({})), format!("Bearer {}", world.secret)] {
        let sent = [("authorization", &*header)];
        for settings in [&[][..], &[api]] {
            let unknown = world.ask(request("GET", "/nothing", &sent, settings)).await;
            assert_eq!((unknown.status, unknown.reason()), (404, "ENDPOINT_UNKNOWN"));
            assert_eq!((unknown.challenge(), &unknown.body["error"]), (None, &json!("not_found")));
        }
        // An endpoint of another API is none of this one, and no error of the call.
        let other = world.ask(request("GET", "/internal", &sent, &[api])).await;
        assert_eq!((other.status, other.reason()), (404, "ENDPOINT_UNKNOWN"));
    }
    let stated = world.ask(request("GET", "/nothing", &[], &ACME)).await;
    assert_eq!((stated.status, stated.reason()), (404, "ENDPOINT_UNKNOWN"));
}

#[tokio::test]
async fn what_is_asked_is_the_endpoint_or_the_scopes_of_the_route() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let scopes = |scopes| [ACME[0], ACME[1], ("audience", "api"), ("scopes", scopes)];
    let grpc = [("content-type", "application/grpc")];
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], i32);
    let rows: &[Row<'_>] = &[
        ("GET", "/users", &[], &ACME, 200),
        ("GET", "/users?a=/internal?b", &[], &ACME, 200),
        ("HEAD", "/users", &[], &ACME, 200),
        ("GET", "/free", &[], &ACME, 200),
        ("POST", "/users", &[], &ACME, 403),
        ("PUT", "/users", &[], &ACME, 404),
        ("get", "/users", &[], &ACME, 404),
        ("GET", "/users/", &[], &ACME, 404),
        ("GET", "/Users", &[], &ACME, 404),
        // Another method by a header is not another question.
        ("GET", "/users", &[("x-http-method-override", "POST")], &ACME, 200),
        ("POST", "/users", &[("x-http-method-override", "GET")], &ACME, 403),
        // gRPC.
        ("POST", "/acme.Users/List", &grpc, &ACME, 200),
        ("POST", "/acme.Users/List", &[("content-type", "application/grpc+proto")], &ACME, 200),
        ("POST", "/acme.Users/List", &[("content-type", "application/grpc;v=1")], &ACME, 200),
        ("POST", "/acme.Users/List", &[("content-type", "application/grpc-web")], &ACME, 404),
        ("POST", "/acme.Users/List", &[], &ACME, 404),
        ("GET", "/acme.Users/List", &grpc, &ACME, 404),
        ("POST", "/users", &grpc, &ACME, 404),
        ("GRPC", "/acme.Users/List", &grpc, &ACME, 400),
        // What can be read in two ways.
        ("GET", "/a//b", &[], &ACME, 400),
        ("GET", "//users", &[], &ACME, 400),
        ("GET", "/a/../users", &[], &ACME, 400),
        ("GET", "/a/%2e%2e/users", &[], &ACME, 400),
        ("GET", "/a%2Fb", &[], &ACME, 400),
        ("GET", "/a\\b", &[], &ACME, 400),
        ("GET", "/users;x=1/..;/", &[], &ACME, 400),
        ("GET", "/users#x", &[], &ACME, 400),
        ("GET", "*", &[], &ACME, 400),
        ("CONNECT", "", &[], &ACME, 400),
        ("", "/users", &[], &ACME, 400),
        ("GET /", "/users", &[], &ACME, 400),
        // The route's scopes, whatever the path is.
        ("GET", "/nothing", &[], &scopes("users:read"), 200),
        ("GRPC", "//", &[], &scopes("users:read own:read"), 200),
        ("GET", "/users", &[], &scopes("users:write"), 403),
        ("GET", "/users", &[], &scopes("users:read users:write"), 403),
        ("GET", "/users", &[], &scopes("unheard:of"), 403),
    ];
    for (method, path, headers, settings, status) in rows {
        let decided = world.ask(request(method, path, headers, settings)).await;
        assert_eq!(decided.status, *status, "{method} {path} {headers:?} {settings:?}");
        if *status == 400 {
            let expected = json!({
                "error": "invalid_request",
                "message": "The call cannot be judged as it is written. Check its path.",
            });
            assert_eq!((decided.reason(), &decided.body), ("", &expected));
            assert_eq!(decided.challenge(), None);
        }
    }
    let long = format!("/{}", "a".repeat(5_000));
    assert_eq!(world.ask(request("GET", &long, &[], &ACME)).await.status, 400);
}

#[tokio::test]
async fn api_gets_the_identity_and_nothing_that_the_client_says_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let spoofed = [
        "x-scopegate-user",
        "x-scopegate-admin",
        "X_Scopegate-Company",
        "x.scopegate.company",
        "x_scopegate_reach",
        "X_HTTP_METHOD_OVERRIDE",
    ];
    let mut sent: Vec<_> = spoofed.iter().map(|name| (*name, "other")).collect();
    sent.extend([("X-Scopegate-Company", "other"), ("x-scopegate-revision", "9")]);
    sent.extend([("accept", "*/*"), ("x-scope", "a")]);
    let bearer = format!("Bearer {}", world.secret);
    let with = |value: &'static str| [("forward_authorization", value)];

    // A secret.
    sent.push(("authorization", &bearer));
    let decided = world.ask(users(&sent, &[])).await;
    let revision = decided.of_metadata("revision").to_owned();
    let expected = [
        ("x-scopegate-company", "acme"),
        ("x-scopegate-credential", "hr"),
        ("x-scopegate-reach", "ALL"),
        ("x-scopegate-revision", &revision),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(decided.headers, expected);
    let mut removed = owned(&["x-scopegate-user"]);
    removed.extend(owned(&OVERRIDES));
    removed.push("authorization".to_owned());
    removed.extend(owned(&spoofed[1..]));
    assert_eq!(decided.removed, removed);
    let forwarded = world.ask(users(&sent, &with("true"))).await;
    assert!(!forwarded.removed.contains(&"authorization".to_owned()));
    let basic = basic("acme", &world.secret);
    let by_basic = world.ask(users(&[("Authorization", &basic)], &[])).await;
    assert!(by_basic.removed.contains(&"authorization".to_owned()));

    // A token of a user, which the API may want to read.
    let token = format!("Bearer {}", world.token(json!({ "sub": "ann" })));
    let decided = world.ask(users(&[("authorization", &token)], &[])).await;
    assert_eq!(decided.headers["x-scopegate-user"], "ann");
    assert_eq!(decided.of_metadata("user_id"), "ann");
    assert_eq!(decided.removed, owned(&OVERRIDES));
}

#[tokio::test]
async fn own_reach_is_for_apis_that_filter() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let token = format!("Bearer {}", world.token(json!({ "sub": "ann" })));
    let sent = [("authorization", &*token)];
    let denied = world.ask(request("GET", "/own", &sent, &[])).await;
    assert_eq!((denied.status, denied.reason()), (403, "NOT_RECORD_OWNER"));
    assert_eq!(denied.of_metadata("missing_scopes"), "own:read");
    assert_eq!(denied.challenge(), Some(r#"Bearer error="insufficient_scope""#));
    let accepted = world.ask(request("GET", "/own", &sent, &[("accept_reach", "OWN")])).await;
    assert_eq!(accepted.headers["x-scopegate-reach"], "OWN");
    let all = world.ask(request("GET", "/users", &sent, &[("accept_reach", "OWN")])).await;
    assert_eq!(all.headers["x-scopegate-reach"], "ALL");
}

#[tokio::test]
async fn denial_has_a_body_and_a_challenge() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let lacks = world.ask(request("GET", "/both", &[], &ACME)).await;
    let challenge = r#"Bearer error="insufficient_scope", scope="users:write docs:read""#;
    assert_eq!((lacks.status, lacks.challenge()), (403, Some(challenge)));
    assert_eq!(lacks.of_metadata("missing_scopes"), "users:write docs:read");
    assert_eq!(lacks.body["error"], "invalid_scope");
    assert_eq!(
        (lacks.of_metadata("company_id"), lacks.of_metadata("credential_id")),
        ("acme", "hr")
    );
    let nobody = world.ask(users(&[], &[])).await;
    assert_eq!((nobody.status, nobody.challenge()), (401, Some(BOTH)));
    assert_eq!(nobody.of_metadata("company_id"), "");
    let browser = world.ask(users(&[("Sec-Fetch-Mode", "cors")], &[])).await;
    assert_eq!(browser.challenge(), Some(r#"Bearer realm="scopegate""#));
    assert_eq!(browser.body, nobody.body);
    for denied in [lacks, nobody] {
        assert_eq!(denied.headers["cache-control"], "no-store");
        assert!(!denied.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_a_503_of_the_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let mut catalog = catalog(&world.signer);
    let issuer = &mut catalog["issuers"][ISSUER];
    issuer.as_object_mut().expect("an issuer").remove("jwks");
    issuer["jwks_url"] = json!(format!("http://{}/", free_address()));
    let apply = ApplyCatalogRequest { yaml: catalog.to_string(), ..Default::default() };
    world.client.catalog.clone().apply_catalog(apply).await.expect("applied");
    let token = format!("Bearer {}", world.token(json!({})));
    for path in ["/users", "/nothing"] {
        let decided = world.ask(request("GET", path, &[("authorization", &token)], &[])).await;
        assert_eq!((decided.status, decided.reason()), (503, "TOKEN_UNVERIFIABLE"), "{path}");
        assert_eq!(decided.body["error"], "temporarily_unavailable");
        assert_eq!((decided.challenge(), &*decided.headers["retry-after"]), (None, "1"));
    }
}

#[tokio::test]
async fn mistake_of_the_configuration_fails_the_call() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let invalid = |settings: Vec<(&'static str, &'static str)>| {
        let world = &world;
        async move {
            let (code, details) = refused(world.try_ask(users(&[], &settings)).await);
            assert_eq!(code, Code::InvalidArgument, "{settings:?}");
            fields(&details).into_iter().map(str::to_owned).collect::<Vec<_>>()
        }
    };
    for (name, value) in [
        ("company", "acme"),
        ("scope", "users:read"),
        ("scopes", " "),
        ("accept_reach", "ALL"),
        ("forward_authorization", "false"),
        ("company_id", ""),
        ("audience", ""),
    ] {
        let found = invalid(vec![ACME[1], (name, value)]).await;
        assert_eq!(found, [format!("context_extensions.{name}")]);
    }
    assert_eq!(invalid(vec![("audience", "nothing")]).await, ["audience"]);
    assert_eq!(invalid(vec![("audience", AUD)]).await, ["context_extensions.audience"]);
    assert_eq!(invalid(vec![("scopes", "users:read")]).await, ["audience"], "which of two?");
    let twice = invalid(vec![ACME[0], ACME[1], ("company_id", "acme")]).await;
    assert_eq!(twice, ["context_extensions.company_id"]);
    // Not a request of HTTP.
    let mut none = users(&[], &ACME);
    none.attributes.as_mut().expect("attributes").request = None;
    for asked in [none, envoy::CheckRequest { attributes: None }] {
        let (code, details) = refused(world.try_ask(asked).await);
        assert_eq!(code, Code::InvalidArgument);
        assert_eq!(fields(&details), ["attributes.request.http"]);
    }
}

/// Envoy sends the query, and older versions the headers, as the client sent them.
#[tokio::test]
async fn client_that_sends_no_text_gets_a_decision() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let wire = wire(&world.server.url(), Some(&world.operator)).await;
    let secret = format!("Bearer {}", world.secret);
    let good = [("authorization", &*secret)];
    let own = [ACME[0]];
    for (request, status) in [
        (request("GET", "/users?x=@@", &good, &own), 200),
        (request("GET", "/users", &[good[0], ("x-name", "@@")], &own), 200),
        (request("GET", "/users/@@", &good, &own), 400),
        (request("G@@", "/users", &good, &own), 400),
        (request("GET", "/users", &[("authorization", "Bearer @@")], &own), 401),
        (request("GET", "/users", &[("authorization", "@@")], &ACME), 401),
        (request("GET", "/users?x=@@", &[], &own), 401),
    ] {
        let mut bytes = request.encode_to_vec();
        let at = bytes.windows(2).position(|two| two == b"@@").expect("it is there");
        bytes[at] = 0xff;
        envoy::CheckRequest::decode(&*bytes).expect_err("not text");
        let mut grpc = tonic::client::Grpc::new(wire.clone());
        grpc.ready().await.expect("ready");
        let path = "/envoy.service.auth.v3.Authorization/Check".parse().expect("a path");
        let call = tonic::Request::new(Bytes::from(bytes));
        let answer = grpc.unary(call, path, BytesCodec).await.expect("a decision").into_inner();
        let decided = Decided::of(envoy::CheckResponse::decode(answer).expect("a response"));
        assert_eq!(decided.status, status, "{request:?}");
    }
}

#[tokio::test]
async fn gateway_is_a_caller_like_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = free_address();
    let world = World::new(dir.path(), &["--metrics", &metrics]).await;
    let key = |role: Role, companies: &[&str]| {
        let request = CreateKeyRequest {
            name: "envoy".to_owned(),
            roles: vec![role.into()],
            company_ids: owned(companies),
            ..Default::default()
        };
        let mut keys = world.client.keys.clone();
        async move { keys.create_key(request).await.expect("made").into_inner().secret }
    };
    let code = |key: Option<String>, asked: envoy::CheckRequest| {
        let server = &world.server;
        async move {
            let mut gateway = gateway(server, key.as_deref()).await;
            gateway.check(asked).await.map(|response| Decided::of(response.into_inner()))
        }
    };
    let refusal = |answer: Result<Decided, Status>| answer.expect_err("a refusal").code();
    assert_eq!(refusal(code(None, users(&[], &ACME)).await), Code::Unauthenticated);
    let stranger = Some("sgk_000000000000000000000000_0".to_owned());
    assert_eq!(refusal(code(stranger, users(&[], &ACME)).await), Code::Unauthenticated);
    // A client's secret is no key of a gateway.
    let secret = Some(world.secret.clone());
    assert_eq!(refusal(code(secret, users(&[], &ACME)).await), Code::Unauthenticated);
    for role in [Role::Auditor, Role::CompanyAdmin, Role::Identity] {
        let companies: &[&str] = if role == Role::CompanyAdmin { &["acme"] } else { &[] };
        let key = key(role, companies).await;
        let refused = refusal(code(Some(key), users(&[], &ACME)).await);
        assert_eq!(refused, Code::PermissionDenied, "{role:?}");
    }
    let service = key(Role::Service, &[]).await;
    let allowed = code(Some(service), users(&[], &ACME)).await.expect("a decision");
    assert_eq!(allowed.reason(), "ALLOWED");

    // A key of one company: what the route names is an error, what a client presents is a denial.
    let bound = key(Role::Service, &["acme"]).await;
    let of_other = [("company_id", "other"), ("credential_id", "hr")];
    let refused = refusal(code(Some(bound.clone()), users(&[], &of_other)).await);
    assert_eq!(refused, Code::PermissionDenied);
    let secret = format!("Bearer {}", world.other_secret);
    let basic = basic("other", &world.other_secret);
    let token = format!("Bearer {}", world.token(json!({ "tid": "other" })));
    for (header, reason) in
        [(&secret, "CREDENTIAL_UNKNOWN"), (&basic, "CREDENTIAL_UNKNOWN"), (&token, "TOKEN_INVALID")]
    {
        let asked = users(&[("authorization", header)], &[]);
        let decided = code(Some(bound.clone()), asked).await.expect("a decision");
        assert_eq!((decided.status, decided.reason()), (401, reason));
        assert_eq!(decided.of_metadata("company_id"), "");
    }
    // Every call is counted under its own path.
    let text = get(&metrics, "/metrics").body;
    let path = "/envoy.service.auth.v3.Authorization/Check";
    for code in ["OK", "UNAUTHENTICATED", "PERMISSION_DENIED"] {
        let line = text.lines().find(|line| {
            line.starts_with("scopegate_grpc_requests_total")
                && line.contains(path)
                && line.contains(&format!("\"{code}\""))
        });
        assert!(line.is_some(), "{code}: {text}");
    }
}

#[tokio::test]
async fn restriction_is_in_force_at_the_next_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    let header = format!("Bearer {}", world.secret);
    let asked = || users(&[("authorization", &header)], &[]);
    let before = world.ask(asked()).await;
    let restricted = world.client.restrict("acme", &["users:read"]).await;
    let after = world.ask(asked()).await;
    assert_eq!((before.status, after.reason()), (200, "SCOPE_NOT_IN_COMPANY"));
    assert_eq!(after.of_metadata("revision"), restricted.revision.to_string());
    // A message that no request has is an error, and not a decision.
    let many: Vec<_> = (0..1_001).map(|n| format!("h{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    let (code, _) = refused(world.try_ask(users(&many, &ACME)).await);
    assert_eq!(code, Code::ResourceExhausted);
}

#[tokio::test]
async fn decision_log_names_the_request_that_is_judged_and_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("decisions.jsonl");
    let path = log.to_str().expect("a path").to_owned();
    let world = World::new(dir.path(), &["--decision-log", &path]).await;
    let header = format!("Bearer {}", world.secret);
    let token = world.token(json!({ "iat": 1_700_000_000, "exp": 1_700_003_600 }));
    let expired = format!("Bearer {token}");
    let mut by_id = users(&[("authorization", &header)], &[]);
    http(&mut by_id).id = "of-envoy".to_owned();
    let judged = [("authorization", &*header), ("X-Request-ID", "of-the-request")];
    let of_call = users(&judged, &[]);
    let twice = users(&[("x-request-id", "a,b"), ("authorization", &expired)], &[]);
    let mut responses = String::new();
    for asked in [by_id, users(&judged, &[]), twice] {
        responses.push_str(&format!("{:?}", world.ask(asked).await));
    }
    let mut call = tonic::Request::new(of_call);
    call.metadata_mut().insert("x-request-id", "of-the-call".parse().expect("a value"));
    world.gateway.clone().check(call).await.expect("a decision");
    let World { server, secret, operator, .. } = world;
    assert!(server.terminate().success());
    let log = std::fs::read_to_string(log).expect("a log");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<_> = lines.iter().map(|line| line["x_request_id"].as_str()).collect();
    let expected = [Some("of-envoy"), Some("of-the-request"), None, Some("of-the-call")];
    assert_eq!(ids, expected, "{log}");
    assert_eq!(lines[0]["company_id"], "acme");
    assert_eq!(
        (lines[2]["decision"].as_str(), lines[2]["reason"].as_str()),
        (Some("DENIED"), Some("TOKEN_EXPIRED"))
    );
    for text in [&*secret, &*token, &*operator] {
        assert!(!log.contains(text) && !responses.contains(text));
    }
}

/// What Check says of the same question, which the gateway's answer must be but for the rules of gateways.
#[tokio::test]
async fn gateway_decides_as_check_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), &[]).await;
    world.client.create_credential("acme", "idle", &[]).await;
    let bearer = |changes| Some(format!("Bearer {}", world.token(changes)));
    let credentials = [
        None,
        Some(String::new()),
        Some("Digest x".to_owned()),
        Some("Basic eDp4".to_owned()),
        Some(basic("acme", &world.secret)),
        Some(format!("bearer {}", world.secret)),
        Some(format!("Bearer {}", world.other_secret)),
        bearer(json!({})),
        bearer(json!({ "sub": "ann" })),
        bearer(json!({ "sub": "bob" })),
        bearer(json!({ "scope": "own:read" })),
        bearer(json!({ "aud": ["internal", AUD], "scope": "docs:read users:read" })),
        bearer(json!({ "tid": "other" })),
        bearer(json!({ "client_id": "idle" })),
        bearer(json!({ "iat": 1_700_000_000, "exp": 1_700_003_600 })),
        bearer(json!({ "aud": "elsewhere" })),
        bearer(json!({ "iss": "https://elsewhere.example.org/" })),
    ];
    let ids = [
        ("", ""),
        ("acme", ""),
        ("", "hr"),
        ("acme", "hr"),
        ("other", "hr"),
        ("acme", "idle"),
        ("none", "hr"),
    ];
    let endpoints = [
        ("GET", "/users"),
        ("HEAD", "/users"),
        ("POST", "/users"),
        ("GET", "/both"),
        ("GET", "/own"),
        ("GET", "/free"),
        ("GET", "/internal"),
        ("GET", "/nothing"),
    ];
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for header in &credentials {
        for (company, credential) in ids {
            for audience in ["", "api", "internal"] {
                // Whether Check finds the client proven, for one of the audiences.
                let mut proven = header.is_none() && !company.is_empty() && !credential.is_empty();
                let question = |scopes: &[&str], endpoint, audience: &str| CheckRequest {
                    company_id: company.to_owned(),
                    credential_id: credential.to_owned(),
                    audience: audience.to_owned(),
                    scopes: owned(scopes),
                    endpoint,
                    authorization: match (header, company, credential) {
                        (Some(value), ..) => Some(value.clone()),
                        (None, "", _) | (None, _, "") => Some(String::new()),
                        (None, ..) => None,
                    },
                    ..Default::default()
                };
                for of in ["api", "internal"] {
                    if audience.is_empty() || audience == of {
                        let asked = question(&["users:read"], None, of);
                        let answer = world.client.ask(asked).await.expect("an answer");
                        proven |= !answer.company_id.is_empty();
                    }
                }
                for (n, endpoint) in endpoints.iter().map(Some).chain([None]).enumerate() {
                    if endpoint.is_none() && audience.is_empty() {
                        continue;
                    }
                    let scopes: &[&str] =
                        if endpoint.is_none() { &["users:read", "own:read"] } else { &[] };
                    let asked = endpoint.map(|(method, path)| Endpoint {
                        method: (*method).to_owned(),
                        path: (*path).to_owned(),
                    });
                    let accepts = (n + audience.len()) % 2 == 0;
                    let mut settings = vec![];
                    if accepts {
                        settings.push(("accept_reach", "OWN"));
                    }
                    let joined = scopes.join(" ");
                    for (name, value) in [
                        ("company_id", company),
                        ("credential_id", credential),
                        ("audience", audience),
                        ("scopes", &*joined),
                    ] {
                        if !value.is_empty() {
                            settings.push((name, value));
                        }
                    }
                    let sent: Vec<_> =
                        header.iter().map(|value| ("authorization", &**value)).collect();
                    let (method, path) = endpoint.copied().unwrap_or(("GET", "/x"));
                    let decided = world.ask(request(method, path, &sent, &settings)).await;
                    *counts.entry(decided.reason().to_owned()).or_default() += 1;
                    let what = format!("{header:?} {settings:?} {method} {path}");
                    let check = match world.client.ask(question(scopes, asked, audience)).await {
                        Ok(check) => check,
                        Err(error) => {
                            // The endpoint is one of another audience.
                            assert_eq!(error.code(), Code::InvalidArgument, "{what}");
                            assert_eq!(decided.status == 404, proven, "{what}: {decided:?}");
                            assert!(matches!(decided.status, 401 | 404), "{what}");
                            continue;
                        }
                    };
                    if check.reason() == Reason::EndpointUnknown && !proven {
                        assert_eq!(decided.status, 401, "{what}");
                        continue;
                    }
                    assert_eq!(
                        decided.of_metadata("revision"),
                        check.revision.to_string(),
                        "{what}"
                    );
                    if check.decision() == Decision::Allowed
                        && check.reach() == Reach::Own
                        && !accepts
                    {
                        assert_eq!(decided.reason(), "NOT_RECORD_OWNER", "{what}");
                        continue;
                    }
                    let reason = check.reason().as_str_name().replace("REASON_", "");
                    assert_eq!(decided.reason(), reason, "{what}");
                    assert_eq!(decided.status, i32::try_from(check.http_status).expect("small"));
                    let missing = check.missing_scopes.join(" ");
                    assert_eq!(decided.of_metadata("missing_scopes"), missing, "{what}");
                    if check.decision() == Decision::Denied {
                        let body = json!({ "error": check.error, "message": check.message });
                        assert_eq!(decided.body, body, "{what}");
                    }
                    if header.is_some() {
                        let ids = ["company_id", "credential_id", "user_id"];
                        let ids = ids.map(|id| decided.of_metadata(id).to_owned());
                        let expected = [check.company_id, check.credential_id, check.user_id];
                        assert_eq!(ids, expected, "{what}");
                    }
                }
            }
        }
    }
    assert!(counts.len() >= 12 && counts.values().sum::<usize>() > 2_500, "{counts:?}");
}
