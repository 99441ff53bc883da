//! What the documents of the platforms say about tokens, over real sockets: a token is requested over
//! HTTP, and a check gets it over gRPC. `platforms` has the statements about scopes.

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use scopegate::proto::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::http::{Reply, basic, get, post, send};
use crate::harness::jwks::{Answer, JwksServer};
use crate::harness::jwt::{Signer, key_set};
use crate::harness::raw::WAIT_LIMIT;
use crate::harness::{Client, Server, bootstrap, free_address, owned};

const CREDENTIALS: &str = "grant_type=client_credentials";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn:scopegate:params:oauth:token-type:user-id";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A catalog of this repository.
fn shipped(name: &str) -> String {
    std::fs::read_to_string(crate::harness::catalog(name)).expect("a catalog")
}

/// A catalog with another text in one place.
fn replaced(catalog: &str, from: &str, to: &str) -> String {
    assert_eq!(catalog.matches(from).count(), 1, "{from}");
    catalog.replace(from, to)
}

/// A platform with one company, and its server.
struct Platform {
    server: Server,
    client: Client,
    company: &'static str,
    key: String,
    _dir: TempDir,
}

impl Platform {
    async fn start(catalog: &str, company: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("catalog.yaml");
        std::fs::write(&file, catalog).expect("written");
        let data = dir.path().join("data");
        let key = bootstrap(&data);
        let catalog = file.to_str().expect("a path");
        // The address is also the name of the issuer.
        let oauth = free_address();
        let server = Server::start(&data, &["--catalog", catalog, "--oauth", &oauth]);
        let client = Client::connect_as(&server.url(), Some(&key)).await;
        client.create_company(company, None).await;
        Self { server, client, company, key, _dir: dir }
    }

    /// Makes a credential with these scopes: its secret.
    async fn credential(&self, id: &str, scopes: &[&str]) -> String {
        self.client.create_credential(self.company, id, scopes).await;
        let request = CreateSecretRequest {
            company_id: self.company.to_owned(),
            credential_id: id.to_owned(),
            ..Default::default()
        };
        self.client
            .directory
            .clone()
            .create_secret(request)
            .await
            .expect("made")
            .into_inner()
            .secret
    }

    async fn apply(&self, catalog: &str) {
        let request = ApplyCatalogRequest { yaml: catalog.to_owned(), ..Default::default() };
        self.client.catalog.clone().apply_catalog(request).await.expect("applied");
    }

    /// Posts a form to the token endpoint of the company, as the company with this secret.
    fn token(&self, secret: &str, form: &str) -> Reply {
        let path = format!("/oauth2/token/{}", self.company);
        post(&self.server.oauth, &path, &basic(self.company, secret), form)
    }

    /// What a service reads of a token by introspection.
    fn introspect(&self, token: &str) -> Value {
        let service = format!("Bearer {}", self.key);
        let form = format!("token={token}");
        post(&self.server.oauth, "/oauth2/introspect", &service, &form).json()
    }

    /// Asks whether a request with this `Authorization` header may call an endpoint.
    async fn call(&self, authorization: &str, method: &str, path: &str) -> CheckResponse {
        self.call_for(authorization, method, path, "").await
    }

    /// The same, for a record of this user.
    async fn call_for(
        &self,
        authorization: &str,
        method: &str,
        path: &str,
        owner: &str,
    ) -> CheckResponse {
        self.client.agreed(call(authorization, method, path, owner)).await
    }

    /// The first answer that has not this reason any more.
    async fn once_not(&self, reason: Reason, request: &CheckRequest) -> CheckResponse {
        let end = Instant::now() + WAIT_LIMIT;
        loop {
            let answer = self.client.ask(request.clone()).await.expect("an answer");
            if answer.reason() != reason {
                return answer;
            }
            assert!(Instant::now() < end, "it stays {reason:?}");
        }
    }

    /// Asks whether a request with this token may use a scope.
    async fn reason(&self, token: &str, scope: &str) -> Reason {
        let request = CheckRequest {
            authorization: Some(format!("Bearer {token}")),
            scopes: owned(&[scope]),
            ..Default::default()
        };
        self.client.agreed(request).await.reason()
    }

    /// The claims of a token, as a service has them that finds the keys by the metadata and verifies
    /// the token by itself.
    fn verified(&self, token: &str) -> Value {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let read = |text: &str| -> Value { serde_json::from_slice(&decode(text)).expect("JSON") };
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        let (header, claims) = signed.split_once('.').expect("a header");
        let (header, claims) = (read(header), read(claims));
        let issuer = format!("http://{}", self.server.oauth);
        let metadata = get(&self.server.oauth, "/.well-known/oauth-authorization-server").json();
        assert_eq!((&metadata["issuer"], &claims["iss"]), (&json!(issuer), &json!(issuer)));
        let jwks = metadata["jwks_uri"].as_str().expect("a URL").strip_prefix(&issuer);
        let jwks = get(&self.server.oauth, jwks.expect("a path")).json();
        let mut keys = jwks["keys"].as_array().expect("keys").iter();
        let key = keys.find(|key| key["kid"] == header["kid"]).expect("the key of the token");
        let half = |name: &str| decode(key[name].as_str().expect("a number"));
        let point = [vec![4], half("x"), half("y")].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &decode(signature))
            .expect("a right signature");
        claims
    }
}

/// The check of a call of an endpoint with this `Authorization` header, for a record of this user.
fn call(authorization: &str, method: &str, path: &str, owner: &str) -> CheckRequest {
    CheckRequest {
        authorization: Some(authorization.to_owned()),
        endpoint: Some(Endpoint { method: method.to_owned(), path: path.to_owned() }),
        resource_owner_id: owner.to_owned(),
        ..Default::default()
    }
}

/// The token of a response, and its scopes.
fn issued(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["token_type"], "Bearer");
    let text = |name: &str| body[name].as_str().expect("a text").to_owned();
    (text("access_token"), text("scope"))
}

/// Panics unless the response is this error.
fn assert_refused(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, reply.error().as_str()), (status, error), "{reply:?}");
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The time of a claim, so many seconds before now.
fn ago(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() - seconds
}

/// The form of an exchange by the client's own access token, without any secret.
fn exchange_by(actor: &str, user: &str, more: &str) -> String {
    let actor = format!("actor_token={actor}&actor_token_type={ACCESS_TOKEN}");
    format!("{EXCHANGE}&subject_token={user}&{actor}&{more}")
}

/// Learn Amp, authentication and scopes.
mod learn_amp {
    use super::*;

    const TENANT: &str = "eu-west-2_AbcdEfghI";

    /// Requests a token as the document does: Basic, the tenant in the path, and no audience.
    fn token_of(platform: &Platform, host: &str, secret: &str, more: &str) -> Reply {
        let basic = basic(TENANT, secret);
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let headers = [form, ("Authorization", basic.as_str()), ("Host", host)];
        let line = format!("POST /oauth2/token/{TENANT}");
        send(&platform.server.oauth, &line, &headers, &format!("{CREDENTIALS}{more}"))
    }

    #[tokio::test]
    async fn basic_has_the_tenant_id_and_the_api_secret() {
        let platform = Platform::start(&shipped("learn-amp.yaml"), TENANT).await;
        let secret = platform.credential("hr", &["api/read"]).await;
        let answer = platform.call(&basic(TENANT, &secret), "GET", "/v1/users").await;
        assert_eq!(answer.reason(), Reason::Allowed);
        assert_eq!((&*answer.company_id, &*answer.credential_id), (TENANT, "hr"));
        let answer = platform.call(&basic(TENANT, &secret), "POST", "/v1/users").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::ScopeNotGranted, 403));
        // "Unauthorized": another secret, another tenant, nothing.
        let mut other = secret.clone();
        let last = other.pop();
        other.push(if last == Some('0') { '1' } else { '0' });
        for header in [basic(TENANT, &other), basic("eu-west-2_Another", &secret)] {
            let answer = platform.call(&header, "GET", "/v1/users").await;
            assert_eq!((answer.reason(), answer.http_status), (Reason::CredentialUnknown, 401));
        }
        let answer = platform.call("", "GET", "/v1/users").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenRequired, 401));
        // The webhooks take tokens alone.
        let answer = platform.call(&basic(TENANT, &secret), "GET", "/v1/webhooks").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenRequired, 401));
        // The same pair at the token endpoint: no pair, no token.
        let refused = token_of(&platform, "public.api.learn.link", &other, "");
        assert_refused(&refused, 401, "invalid_client");
    }

    #[tokio::test]
    async fn token_endpoint_of_each_host_has_the_tokens_of_its_api() {
        let platform = Platform::start(&shipped("learn-amp.yaml"), TENANT).await;
        let secret = platform.credential("full", &["api/all"]).await;
        // Staging and production, in two regions, each with two hosts.
        let of_host = |host: String| issued(&token_of(&platform, &host, &secret, ""));
        for place in [
            "api.learnstaging.link",
            "api.learn.link",
            "api.meastaging.learn.tech",
            "api.mea.learn.tech",
        ] {
            let (public, scope) = of_host(format!("public.{place}"));
            assert_eq!(scope, "api/all api/read api/write", "{place}");
            let (webhooks, scope) = of_host(format!("user.{place}"));
            assert_eq!(scope, "api/all api/webhooks", "{place}");
            for (token, audience, accepted, refused) in [
                (&public, "public", "/v1/users", "/v1/webhooks"),
                (&webhooks, "webhooks", "/v1/webhooks", "/v1/users"),
            ] {
                let claims = platform.verified(token);
                assert_eq!(
                    (&claims["aud"], &claims["company_id"]),
                    (&json!(audience), &json!(TENANT))
                );
                assert_eq!(platform.introspect(token)["aud"], audience);
                // "All access tokens must be sent using the Authorization: Bearer header."
                let answer = platform.call(&bearer(token), "GET", accepted).await;
                assert_eq!(answer.reason(), Reason::Allowed, "{place} {audience}");
                assert_eq!((&*answer.company_id, &*answer.credential_id), (TENANT, "full"));
                let answer = platform.call(&bearer(token), "GET", refused).await;
                assert_eq!(answer.reason(), Reason::TokenAudienceMismatch, "{place} {audience}");
                assert_eq!((answer.http_status, &*answer.error), (401, "invalid_token"));
                for header in [token.clone(), format!("Token {token}"), basic(TENANT, token)] {
                    let answer = platform.call(&header, "GET", accepted).await;
                    assert_eq!(answer.http_status, 401, "{header}");
                }
            }
        }
        // A host that the document does not name has no API of its own.
        let unknown = token_of(&platform, "www.learnamp.com", &secret, "");
        assert_refused(&unknown, 400, "invalid_request");
    }

    #[tokio::test]
    async fn token_must_have_the_scopes_of_the_called_endpoints() {
        let platform = Platform::start(&shipped("learn-amp.yaml"), TENANT).await;
        let secret = platform.credential("full", &["api/all"]).await;
        let (public, webhooks) = ("public.api.learn.link", "user.api.learn.link");
        let ask = |host, scope: &str| {
            let (token, scopes) =
                issued(&token_of(&platform, host, &secret, &format!("&scope={scope}")));
            assert_eq!(scopes, scope);
            bearer(&token)
        };
        let cases = [
            // "api/read – Read-only access to the API."
            (ask(public, "api/read"), "GET", "/v1/users", Reason::Allowed),
            (ask(public, "api/read"), "POST", "/v1/users", Reason::ScopeNotInToken),
            // "api/write – Write access to the API."
            (ask(public, "api/write"), "POST", "/v1/users", Reason::Allowed),
            (ask(public, "api/write"), "GET", "/v1/users", Reason::ScopeNotInToken),
            // "api/all – Full read and write access to the API, including webhooks."
            (ask(public, "api/all"), "GET", "/v1/users", Reason::Allowed),
            (ask(public, "api/all"), "PUT", "/v1/users/7", Reason::Allowed),
            (ask(webhooks, "api/all"), "POST", "/v1/webhooks", Reason::Allowed),
            // "api/webhooks – Access to webhook functionality."
            (ask(webhooks, "api/webhooks"), "DELETE", "/v1/webhooks/7", Reason::Allowed),
        ];
        for (header, method, path, expected) in &cases {
            let answer = platform.call(header, method, path).await;
            assert_eq!(answer.reason(), *expected, "{method} {path}");
            let status = if *expected == Reason::Allowed { 200 } else { 403 };
            assert_eq!(answer.http_status, status, "{method} {path}");
        }
        // Each API has a list of scopes of its own.
        for (host, scope) in [(public, "api/webhooks"), (webhooks, "api/read")] {
            let refused = token_of(&platform, host, &secret, &format!("&scope={scope}"));
            assert_refused(&refused, 400, "invalid_scope");
        }
        // The client can end its token.
        let (header, method, path, _) = &cases[0];
        let form = format!("token={}", header.trim_start_matches("Bearer "));
        let revoked =
            post(&platform.server.oauth, "/oauth2/revoke", &basic(TENANT, &secret), &form);
        assert_eq!(revoked.status, 200);
        let answer = platform.call(header, method, path).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenInvalid, 401));
    }
}

/// Learning Pool, "Learning Experience Platform API Documentation".
mod learning_pool {
    use super::*;

    const ASSESSMENTS: &str = "/lxp/users/7/assessments";

    async fn platform(catalog: &str) -> (Platform, String) {
        let platform = Platform::start(catalog, "customer").await;
        let scopes = ["simple:users", "simple:exchange", "lxp:assessments", "lxp:organisation"];
        let secret = platform.credential("client", &scopes).await;
        platform.client.put_user("customer", "learner", &["learner"]).await;
        platform.client.put_user("customer", "admin", &["administrator"]).await;
        (platform, secret)
    }

    #[tokio::test]
    async fn client_and_secret_give_an_access_token_for_an_hour() {
        let (platform, secret) = platform(&shipped("learning-pool.yaml")).await;
        // "OAuth client ID", "OAuth client secret": two fields of the form.
        let form = format!("{CREDENTIALS}&client_id=client&client_secret={secret}&audience=simple");
        let ask = || post(&platform.server.oauth, "/oauth2/token", "", &form);
        let reply = ask();
        let (token, scope) = issued(&reply);
        assert_eq!((&*scope, &reply.json()["expires_in"]), ("simple:users", &json!(3600)));
        let claims = platform.verified(&token);
        let life = claims["exp"].as_i64().zip(claims["iat"].as_i64());
        assert_eq!(life.map(|(end, begin)| end - begin), Some(3600));
        let create = async |header: &str| {
            let answer = platform.call(header, "POST", "/simple/users").await;
            (answer.reason(), answer.http_status)
        };
        assert_eq!(create(&bearer(&token)).await, (Reason::Allowed, 200));
        // "401 Unauthorized - Token missing or expired"
        assert_eq!(create("").await, (Reason::TokenRequired, 401));
        // "OAuth tokens expire after 1 hour": the same with an hour of one second.
        let shipped = shipped("learning-pool.yaml");
        platform.apply(&replaced(&shipped, "token_ttl: 1h", "token_ttl: 1s")).await;
        let short = ask();
        assert_eq!(short.json()["expires_in"], 1);
        let (short, _) = issued(&short);
        let request = call(&bearer(&short), "POST", "/simple/users", "");
        let over = platform.once_not(Reason::Allowed, &request).await;
        assert_eq!((over.reason(), over.http_status), (Reason::TokenExpired, 401));
        assert_eq!(platform.introspect(&short), json!({ "active": false }));
        // "Run the token request again when you receive a 401 Unauthorized response."
        platform.apply(&shipped).await;
        let (again, _) = issued(&ask());
        assert_eq!(create(&bearer(&again)).await, (Reason::Allowed, 200));
        assert_eq!(create(&bearer(&token)).await, (Reason::Allowed, 200), "its own hour");
        // "your platform instance", which a customer adds to the catalog: the request of the document
        // names no audience.
        let host = "learningplatform.customer.com";
        let of_customer = format!("token_ttl: 1h, hosts: [{host}]");
        platform.apply(&replaced(&shipped, "token_ttl: 1h", &of_customer)).await;
        let form = format!("{CREDENTIALS}&client_id=client&client_secret={secret}");
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Host", host)];
        let reply = send(&platform.server.oauth, "POST /oauth2/token", &headers, &form);
        let (token, _) = issued(&reply);
        assert_eq!(create(&bearer(&token)).await, (Reason::Allowed, 200));
    }

    #[tokio::test]
    async fn access_token_and_user_id_give_a_jwt_for_that_user() {
        let (platform, secret) = platform(&shipped("learning-pool.yaml")).await;
        // "First, obtain an OAuth accessToken." The client names the scope of the exchange.
        let scope = "&audience=simple&scope=simple:users+simple:exchange";
        let (access, _) = issued(&platform.token(&secret, &format!("{CREDENTIALS}{scope}")));
        let exchange = |actor: &str, user: &str| {
            let form = exchange_by(actor, user, "audience=lxp");
            post(&platform.server.oauth, "/oauth2/token", "", &form)
        };
        // "Set userId to the target user's ID": no secret is sent again.
        let mut jwts = Vec::new();
        for (user, scopes) in
            [("learner", "lxp:assessments"), ("admin", "lxp:assessments lxp:organisation")]
        {
            let reply = exchange(&access, user);
            assert_eq!(reply.json()["issued_token_type"], ACCESS_TOKEN);
            let (jwt, scope) = issued(&reply);
            assert_eq!(scope, scopes, "what the client and the user both may do");
            // "The bearerToken will be populated for that user."
            let claims = platform.verified(&jwt);
            assert_eq!((&claims["user_id"], &claims["aud"]), (&json!(user), &json!("lxp")));
            assert_eq!(claims["act"], json!({ "sub": "customer/client" }));
            jwts.push(bearer(&jwt));
        }
        let [learner, admin] = jwts.as_slice() else { panic!("two tokens") };
        for (header, method, path, owner, expected) in [
            (learner, "GET", ASSESSMENTS, "learner", Reason::Allowed),
            (learner, "GET", ASSESSMENTS, "admin", Reason::NotRecordOwner),
            (learner, "PUT", "/lxp/organisation", "", Reason::ScopeNotInToken),
            (admin, "GET", ASSESSMENTS, "learner", Reason::Allowed),
            (admin, "PUT", "/lxp/organisation", "", Reason::Allowed),
            // "two different authentication systems": neither token is good for the other API.
            (admin, "POST", "/simple/users", "", Reason::TokenAudienceMismatch),
            (&bearer(&access), "PUT", "/lxp/organisation", "", Reason::TokenAudienceMismatch),
        ] {
            let answer = platform.call_for(header, method, path, owner).await;
            assert_eq!(answer.reason(), expected, "{method} {path} {owner}");
        }
        let answer = platform.call_for(learner, "GET", ASSESSMENTS, "learner").await;
        assert_eq!(&*answer.user_id, "learner");
        // What the exchange refuses: an unknown user, no token, a token without the scope of the
        // exchange, a token of a user.
        let plain = format!("{CREDENTIALS}&audience=simple");
        let (plain, _) = issued(&platform.token(&secret, &plain));
        let jwt = learner.trim_start_matches("Bearer ");
        for (actor, user, error) in [
            (&*access, "nobody", "invalid_request"),
            ("a.b.c", "learner", "invalid_request"),
            (&*plain, "learner", "unauthorized_client"),
            (jwt, "admin", "invalid_request"),
        ] {
            assert_refused(&exchange(actor, user), 400, error);
        }
        // Without a user there is no token for the API of users.
        let alone = platform.token(&secret, &format!("{CREDENTIALS}&audience=lxp"));
        assert_refused(&alone, 400, "unauthorized_client");
        // The JWT ends with the access token that it was exchanged for.
        let form = format!("token={access}");
        let path = "/oauth2/revoke/customer";
        let revoked = post(&platform.server.oauth, path, &basic("client", &secret), &form);
        assert_eq!(revoked.status, 200);
        let answer = platform.call_for(learner, "GET", ASSESSMENTS, "learner").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenInvalid, 401));
        assert_refused(&exchange(&access, "learner"), 400, "invalid_request");
    }

    #[tokio::test]
    async fn jwt_of_a_password_or_a_session_cookie_is_of_another_issuer() {
        const LOGIN: &str = "https://login.learningplatform.customer.com";
        let signer = Signer::new("ES256", "login-1");
        let keys = JwksServer::start(Answer::keys(&key_set([&signer])));
        // The platform's own login makes these tokens: for one company, by one credential.
        let catalog = format!(
            "{}issuers:\n  {LOGIN}:\n    jwks_url: {}\n    algorithms: [ES256]\n    company: {{ is: customer }}\n    credential: {{ is: login }}\n",
            shipped("learning-pool.yaml"),
            keys.url()
        );
        let (platform, secret) = platform(&catalog).await;
        let scopes = ["simple:exchange", "simple:users", "lxp:assessments", "lxp:organisation"];
        platform.credential("login", &scopes).await;
        let jwt = |user: &str, changes: Value| {
            let mut claims = json!({
                "iss": LOGIN, "aud": "lxp", "sub": user, "iat": ago(10), "exp": ago(-600),
                "scope": "lxp:assessments lxp:organisation",
            });
            for (name, value) in changes.as_object().expect("an object") {
                claims[name] = value.clone();
            }
            signer.token(&claims)
        };
        let ask = async |token: &str, method: &str, path: &str, owner: &str| {
            platform.call_for(&bearer(token), method, path, owner).await
        };
        // "users log in with their credentials", "users are already logged in": the user of the
        // session is the user of the token, which comes as the bearer token of the request.
        let (learner, admin) = (jwt("learner", json!({})), jwt("admin", json!({})));
        // The first check may come before the keys.
        let first = call(&bearer(&learner), "GET", ASSESSMENTS, "learner");
        platform.once_not(Reason::TokenUnverifiable, &first).await;
        let answer = ask(&learner, "GET", ASSESSMENTS, "learner").await;
        assert_eq!(answer.reason(), Reason::Allowed, "{}", answer.message);
        let whom = (&*answer.company_id, &*answer.credential_id, &*answer.user_id);
        assert_eq!(whom, ("customer", "login", "learner"));
        assert_eq!(platform.introspect(&learner)["own_scope"], "lxp:assessments");
        for (token, method, path, owner, expected) in [
            (&*learner, "GET", ASSESSMENTS, "admin", Reason::NotRecordOwner),
            (&learner, "PUT", "/lxp/organisation", "", Reason::UserLacksPermission),
            (&admin, "PUT", "/lxp/organisation", "", Reason::Allowed),
            (&jwt("nobody", json!({})), "GET", ASSESSMENTS, "", Reason::UserUnknown),
            (
                &jwt("learner", json!({ "exp": ago(1) })),
                "GET",
                ASSESSMENTS,
                "",
                Reason::TokenExpired,
            ),
            (&admin, "POST", "/simple/users", "", Reason::TokenAudienceMismatch),
            // "OAuth tokens expire after 1 hour", also if their issuer gave them longer.
            (
                &jwt("admin", json!({ "aud": "simple", "iat": ago(3600) })),
                "POST",
                "/simple/users",
                "",
                Reason::TokenExpired,
            ),
        ] {
            assert_eq!(ask(token, method, path, owner).await.reason(), expected, "{method} {path}");
        }
        let forged = Signer::other("ES256", "login-1").token(&json!({
            "iss": LOGIN, "aud": "lxp", "sub": "admin", "iat": ago(10), "exp": ago(-600),
            "scope": "lxp:organisation",
        }));
        let answer = ask(&forged, "PUT", "/lxp/organisation", "").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenInvalid, 401));
        // A user's session is no power to act for another user.
        let form = exchange_by(&admin, "learner", "audience=lxp");
        let refused = post(&platform.server.oauth, "/oauth2/token", "", &form);
        assert_refused(&refused, 400, "invalid_request");
        // Nor does the authorization server here end the token of another one.
        let revoke = format!("token={learner}");
        let basic = basic("client", &secret);
        let refused = post(&platform.server.oauth, "/oauth2/revoke", &basic, &revoke);
        assert_refused(&refused, 400, "unsupported_token_type");
    }
}

/// HorizonWebRef, "What developer scopes are available?".
mod horizonwebref {
    use super::*;

    const READ: &str = "read_personal_account";
    const MANAGE: &str = "manage_personal_account";
    const ORGANIZATION: &str = "manage_organization";

    const REDIRECT_URI: &str = "https://app.example.org/callback?from=league";

    async fn platform() -> (Platform, String) {
        let platform = Platform::start(&shipped("horizonwebref.yaml"), "league").await;
        let secret = platform.credential("app", &[READ, MANAGE, ORGANIZATION]).await;
        let request = UpdateCredentialRequest {
            company_id: "league".to_owned(),
            credential_id: "app".to_owned(),
            redirect_uris: owned(&[REDIRECT_URI]),
            update_mask: Some(prost_types::FieldMask { paths: owned(&["redirect_uris"]) }),
            ..Default::default()
        };
        platform.client.directory.clone().update_credential(request).await.expect("updated");
        platform.client.put_user("league", "ref", &["general_member"]).await;
        platform.client.put_user("league", "admin", &["administrator"]).await;
        (platform, secret)
    }

    /// The parameters of the query of a URI.
    fn query(uri: &str) -> HashMap<String, String> {
        let (_, query) = uri.split_once('?').expect("a query");
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().expect("text").into();
        let pairs = query.split('&').map(|pair| pair.split_once('=').expect("a value"));
        pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
    }

    fn encoded(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    /// The platform's page: it has authenticated the user, shows what the application requests, and the
    /// user allows some of it. The page sends the browser to the returned URI.
    async fn page(platform: &Platform, request: &str, user: &str, allowed: &[&str]) -> String {
        let request = query(request);
        assert_eq!(
            (&*request["response_type"], &*request["code_challenge_method"]),
            ("code", "S256")
        );
        let shown: Vec<_> = request["scope"].split(' ').collect();
        assert!(allowed.iter().all(|scope| shown.contains(scope)), "{shown:?}");
        let request = CreateAuthorizationCodeRequest {
            company_id: "league".to_owned(),
            credential_id: request["client_id"].clone(),
            user_id: user.to_owned(),
            scopes: owned(allowed),
            redirect_uri: request["redirect_uri"].clone(),
            code_challenge: request["code_challenge"].clone(),
            state: request["state"].clone(),
            ..Default::default()
        };
        let mut directory = platform.client.directory.clone();
        let created = directory.create_authorization_code(request).await.expect("an answer");
        created.into_inner().redirect_to
    }

    /// The application asks for scopes, and the user allows some on the platform's page: the response to
    /// the application. An error: the code of the error with which the browser comes back.
    async fn authorize(
        (platform, secret): &(Platform, String),
        user: &str,
        asked: &[&str],
        allowed: &[&str],
    ) -> Result<Reply, String> {
        let random = || {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).expect("random bytes");
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let (state, verifier) = (random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let redirect_uri = encoded(REDIRECT_URI);
        let request = format!(
            "https://league.example.org/authorize?response_type=code&client_id=app&redirect_uri={redirect_uri}&scope={}&state={state}&code_challenge={challenge}&code_challenge_method=S256",
            encoded(&asked.join(" "))
        );
        let redirect_to = page(platform, &request, user, allowed).await;
        assert!(redirect_to.starts_with(&format!("{REDIRECT_URI}&")), "{redirect_to}");
        // The browser is at the application, which knows its request by the state, and this server by
        // the name of the issuer.
        let response = query(&redirect_to);
        assert_eq!((&response["from"], &response["state"]), (&"league".to_owned(), &state));
        let metadata = get(&platform.server.oauth, "/.well-known/oauth-authorization-server");
        assert_eq!(metadata.json()["issuer"], *response["iss"]);
        if let Some(error) = response.get("error") {
            assert!(!response.contains_key("code"), "{response:?}");
            return Err(error.clone());
        }
        let form = format!(
            "grant_type=authorization_code&code={}&redirect_uri={redirect_uri}&code_verifier={verifier}",
            response["code"]
        );
        Ok(platform.token(secret, &form))
    }

    /// The token that the application gets, and its scopes.
    async fn token_of(
        application: &(Platform, String),
        user: &str,
        asked: &[&str],
        allowed: &[&str],
    ) -> (String, String) {
        issued(&authorize(application, user, asked, allowed).await.expect("a code"))
    }

    #[tokio::test]
    async fn user_refuses_a_scope_and_the_application_reads_the_others() {
        let application = platform().await;
        let (platform, _) = &application;
        // The application requests two scopes, and the user allows one.
        let (token, scope) = token_of(&application, "ref", &[READ, MANAGE], &[READ]).await;
        assert_eq!(scope, READ, "the scopes that are actually returned");
        assert_eq!(platform.verified(&token)["scope"], READ);
        assert_eq!(platform.introspect(&token)["own_scope"], READ);
        // It adjusts its calls: the others are refused, also if it makes them.
        assert_eq!(platform.reason(&token, READ).await, Reason::Allowed);
        assert_eq!(platform.reason(&token, MANAGE).await, Reason::ScopeNotInToken);
        // Later the user allows both. The token has what was allowed when it was issued.
        let asked = [READ, MANAGE];
        let (both, scope) = token_of(&application, "ref", &asked, &asked).await;
        assert_eq!(scope, format!("{MANAGE} {READ}"));
        assert_eq!(platform.reason(&both, MANAGE).await, Reason::Allowed);
        assert_eq!(platform.reason(&token, MANAGE).await, Reason::ScopeNotInToken);
        // The user takes a part back, and then all: at once, of tokens that are not over, too.
        platform.client.consent("league", "app", "ref", &[READ]).await;
        assert_eq!(platform.reason(&both, MANAGE).await, Reason::ScopeNotConsented);
        assert_eq!(platform.reason(&both, READ).await, Reason::Allowed);
        assert_eq!(platform.introspect(&both)["own_scope"], READ);
        let withdrawn = DeleteConsentRequest {
            company_id: "league".to_owned(),
            credential_id: "app".to_owned(),
            user_id: "ref".to_owned(),
            ..Default::default()
        };
        platform.client.directory.clone().delete_consent(withdrawn).await.expect("withdrawn");
        assert_eq!(platform.reason(&both, READ).await, Reason::ScopeNotConsented);
        // The user refuses all: the browser comes back without a code.
        let refused = authorize(&application, "ref", &asked, &[]).await;
        assert_eq!(refused.expect_err("no code"), "access_denied");
    }

    #[tokio::test]
    async fn general_member_is_unable_to_provide_manage_organization() {
        let application = platform().await;
        let (platform, _) = &application;
        let asked = [MANAGE, ORGANIZATION];
        // The member allows all that the application asks for, and can give only a part of it.
        let (member, scope) = token_of(&application, "ref", &asked, &asked).await;
        assert_eq!(scope, MANAGE);
        assert_eq!(platform.reason(&member, ORGANIZATION).await, Reason::ScopeNotInToken);
        // An administrator can give both.
        let (admin, scope) = token_of(&application, "admin", &asked, &asked).await;
        assert_eq!(scope, format!("{ORGANIZATION} {MANAGE}"));
        assert_eq!(platform.reason(&admin, ORGANIZATION).await, Reason::Allowed);
        let organization = "add_to_organization manage_organization read_organization";
        assert_eq!(platform.introspect(&admin)["scope"], organization, "with what it implies");
        // "Scopes do not override the user's account permissions": without the role the same token
        // has the scope, and does not help.
        platform.client.put_user("league", "admin", &["general_member"]).await;
        assert_eq!(platform.reason(&admin, ORGANIZATION).await, Reason::UserLacksPermission);
        let read = platform.introspect(&admin);
        assert_eq!(
            (&read["scope"], &read["own_scope"]),
            (&json!(""), &json!([MANAGE, READ].join(" ")))
        );
        // The user can give nothing that the application asked for: no code.
        let none = authorize(&application, "ref", &[ORGANIZATION], &[ORGANIZATION]).await;
        assert_eq!(none.expect_err("no code"), "access_denied");
        // "the API application must have the appropriate scope issued to the API Application"
        let schedule = ["read_personal_schedule"];
        let none = authorize(&application, "ref", &schedule, &schedule).await.expect("a code");
        assert_refused(&none, 400, "invalid_grant");
    }

    #[tokio::test]
    async fn application_without_a_user_has_no_token() {
        let platform = Platform::start(&shipped("horizonwebref.yaml"), "league").await;
        let secret = platform.credential("app", &[READ]).await;
        let refused = platform.token(&secret, CREDENTIALS);
        assert_refused(&refused, 400, "unauthorized_client");
        // The application cannot name a user whom it did not ask.
        platform.client.put_user("league", "ref", &["general_member"]).await;
        let refused = platform.token(&secret, &format!("{EXCHANGE}&subject_token=ref"));
        assert_refused(&refused, 400, "unauthorized_client");
    }
}

/// Humaans, "API scopes".
mod humaans {
    use super::*;

    const ALL: [&str; 7] = [
        "private:read",
        "private:write",
        "compensations:read",
        "compensations:write",
        "documents:read",
        "documents:write",
        "webhooks:manage",
    ];

    async fn platform(catalog: &str, scopes: &[&str]) -> (Platform, String) {
        let platform = Platform::start(catalog, "acme").await;
        let secret = platform.credential("integration", scopes).await;
        platform.client.put_user("acme", "owner", &["owner"]).await;
        platform.client.put_user("acme", "member", &["member"]).await;
        (platform, secret)
    }

    /// What a token of a user with scopes allows: the scopes and the role, both.
    async fn assert_both_limit(platform: &Platform, token: impl Fn(&str, &str) -> String) {
        let (person, compensation, document) =
            ("/api/people/7", "/api/compensations/7", "/api/documents/7");
        for (user, scopes, calls) in [
            // An owner "has full permissions", and the token has "a public:read scope".
            (
                "owner",
                "public:read",
                &[
                    ("/api/people", "", Reason::Allowed),
                    (person, "", Reason::ScopeNotInToken),
                    (compensation, "", Reason::ScopeNotInToken),
                    (document, "owner", Reason::ScopeNotInToken),
                ][..],
            ),
            // "access to all data, except for compensation and documents"
            (
                "owner",
                "private:read",
                &[
                    ("/api/people", "", Reason::Allowed),
                    (person, "member", Reason::Allowed),
                    (compensation, "", Reason::ScopeNotInToken),
                    (document, "", Reason::ScopeNotInToken),
                ],
            ),
            ("owner", "compensations:read", &[(compensation, "member", Reason::Allowed)]),
            // A member's token "would still only provide information about their own account".
            (
                "member",
                "private:read",
                &[
                    ("/api/people", "owner", Reason::Allowed),
                    (person, "member", Reason::Allowed),
                    (person, "owner", Reason::NotRecordOwner),
                ],
            ),
        ] {
            let header = bearer(&token(user, scopes));
            for (path, owner, expected) in calls {
                let answer = platform.call_for(&header, "GET", path, owner).await;
                assert_eq!(answer.reason(), *expected, "{user} {scopes} {path} {owner}");
                assert_eq!(&*answer.user_id, user);
            }
        }
        let token = token("member", "private:read");
        let answer = platform.call(&bearer(&token), "GET", person).await;
        assert_eq!((answer.reason(), answer.reach()), (Reason::Allowed, Reach::Own));
        let read = platform.introspect(&token);
        assert_eq!(read["scope"], "public:read", "{read}");
        assert_eq!(read["own_scope"], "private:read", "{read}");
    }

    #[tokio::test]
    async fn token_of_the_platforms_own_page_is_limited_by_scope_and_role() {
        const PAGE: &str = "https://app.humaans.io";
        // Users create tokens in the platform's own settings. Its key signs them.
        let signer = Signer::new("ES256", "page-1");
        let issuers = format!(
            "issuers:\n  {PAGE}:\n    jwks: {}\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    credential: {{ is: integration }}\n",
            key_set([&signer])
        );
        let catalog = format!("{}{issuers}", shipped("humaans.yaml"));
        let (platform, secret) = platform(&catalog, &ALL).await;
        let token = |user: &str, scopes: &str| {
            signer.token(&json!({
                "iss": PAGE, "aud": "api", "sub": user, "scope": scopes, "iat": ago(10),
                "exp": ago(-600),
            }))
        };
        assert_both_limit(&platform, token).await;
        // The token has the scope, and the member's role does not: "dependent on the user's role".
        let header = bearer(&token("member", "documents:read"));
        let answer = platform.call_for(&header, "GET", "/api/documents/7", "member").await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::UserLacksPermission, 403));
        // A user made the token: a credential alone has none.
        let header = bearer(&token("integration", "private:read"));
        let answer = platform.call(&header, "GET", "/api/people").await;
        assert_eq!(answer.reason(), Reason::UserUnknown);
        let alone = platform.token(&secret, CREDENTIALS);
        assert_refused(&alone, 400, "unauthorized_client");
        assert_eq!(
            platform.call(&basic("acme", &secret), "GET", "/api/people").await.http_status,
            401
        );
    }

    #[tokio::test]
    async fn issued_token_of_a_user_has_what_scope_and_role_both_have() {
        // The catalog has no exchange. The test adds one, by which the page lets this server issue tokens.
        let catalog = shipped("humaans.yaml");
        let catalog = replaced(&catalog, "user: required }", "user: required, exchange: page }");
        let catalog = replaced(&catalog, "\nscopes:\n", "\nscopes:\n  page: { title: The page }\n");
        let (platform, secret) = platform(&catalog, &[&ALL[..], &["page"]].concat()).await;
        let request = |user: &str, scopes: &str| {
            let scopes = scopes.replace(' ', "+");
            platform.token(&secret, &format!("{EXCHANGE}&subject_token={user}&scope={scopes}"))
        };
        assert_both_limit(&platform, |user, scopes| {
            let (token, scope) = issued(&request(user, scopes));
            assert_eq!(scope, scopes);
            token
        })
        .await;
        // What the role has not is not in the token: the response says so.
        let (_, scope) = issued(&request("member", "private:read documents:read"));
        assert_eq!(scope, "private:read");
        assert_refused(&request("member", "documents:read"), 400, "invalid_scope");
        // A role that is lost is lost for the token, too.
        let (token, _) = issued(&request("owner", "private:read"));
        platform.client.put_user("acme", "owner", &["member"]).await;
        let answer = platform.call_for(&bearer(&token), "GET", "/api/people/7", "member").await;
        assert_eq!(answer.reason(), Reason::NotRecordOwner);
    }
}

/// 360Learning, "Scopes and permissions".
mod learning_360 {
    use super::*;

    async fn revoke(client: &Client, scopes: &[&str]) {
        let request = RevokeScopesRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr-sync".to_owned(),
            scopes: owned(scopes),
            ..Default::default()
        };
        client.authorization.clone().revoke_scopes(request).await.expect("revoked");
    }

    #[tokio::test]
    async fn scope_changes_act_at_once_on_a_token_that_is_not_over() {
        // "Scope changes take effect immediately. You don't need to regenerate access tokens."
        let platform = Platform::start(&shipped("360learning.yaml"), "acme").await;
        let secret = platform.credential("hr-sync", &["users:read", "users:write"]).await;
        let (token, scope) = issued(&platform.token(&secret, CREDENTIALS));
        assert_eq!(scope, "users:read users:write");
        let client = &platform.client;
        // Writes with this one token, and reads: the verdict on the write.
        let write = async |scopes: &str| {
            let read = platform.call(&bearer(&token), "GET", "/api/v2/users").await;
            assert_eq!(read.reason(), Reason::Allowed);
            assert_eq!(platform.introspect(&token)["scope"], scopes);
            let answer = platform.call(&bearer(&token), "PATCH", "/api/v2/users/7").await;
            (answer.reason(), answer.http_status)
        };
        assert_eq!(write("users:read users:write").await, (Reason::Allowed, 200));
        // An unchecked box, and one that is checked again.
        revoke(client, &["users:write"]).await;
        assert_eq!(write("users:read").await, (Reason::ScopeNotGranted, 403));
        client.grant("acme", "hr-sync", &["users:write"]).await.expect("granted");
        assert_eq!(write("users:read users:write").await, (Reason::Allowed, 200));
        // "Credentials using the restricted scope will immediately lose access."
        client.restrict("acme", &["users:write"]).await;
        assert_eq!(write("users:read").await, (Reason::ScopeNotInCompany, 403));
        // Scopes that are added "are not automatically applied to existing credentials".
        client.add_scopes("acme", &["users:write"]).await;
        assert_eq!(write("users:read").await, (Reason::GrantDormant, 403));
        client.grant("acme", "hr-sync", &["users:write"]).await.expect("granted");
        assert_eq!(write("users:read users:write").await, (Reason::Allowed, 200));
        // A request of a token meets the same facts.
        revoke(client, &["users:write"]).await;
        let refused = platform.token(&secret, &format!("{CREDENTIALS}&scope=users:write"));
        assert_refused(&refused, 400, "invalid_scope");
        assert_eq!(issued(&platform.token(&secret, CREDENTIALS)).1, "users:read");
    }

    #[tokio::test]
    async fn scope_that_is_granted_later_needs_no_new_token_that_names_it() {
        const PLATFORM: &str = "https://app.360learning.com";
        let signer = Signer::new("ES256", "platform-1");
        // Tokens of the platform's own issuer name all of its scopes.
        let issuers = format!(
            "issuers:\n  {PLATFORM}:\n    jwks: {}\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    audiences: [api]\n    user: none\n",
            key_set([&signer])
        );
        let catalog = format!("{}{issuers}", shipped("360learning.yaml"));
        let platform = Platform::start(&catalog, "acme").await;
        let secret = platform.credential("hr-sync", &["users:read"]).await;
        let (own, _) = issued(&platform.token(&secret, CREDENTIALS));
        let wide = signer.token(&json!({
            "iss": PLATFORM, "aud": "api", "client_id": "hr-sync", "scope": "users:read groups:read groups:write",
            "iat": ago(10), "exp": ago(-600),
        }));
        let add =
            async |header: &str| platform.call(header, "POST", "/api/v2/groups").await.reason();
        assert_eq!(add(&bearer(&wide)).await, Reason::ScopeNotGranted);
        assert_eq!(add(&bearer(&secret)).await, Reason::ScopeNotGranted);
        platform.client.grant("acme", "hr-sync", &["groups:write"]).await.expect("granted");
        assert_eq!(add(&bearer(&wide)).await, Reason::Allowed);
        assert_eq!(add(&bearer(&secret)).await, Reason::Allowed);
        // A token of this server names what was effective when it was issued, and never allows more.
        assert_eq!(add(&bearer(&own)).await, Reason::ScopeNotInToken);
        let (own, _) = issued(&platform.token(&secret, CREDENTIALS));
        assert_eq!(add(&bearer(&own)).await, Reason::Allowed);
    }
}
