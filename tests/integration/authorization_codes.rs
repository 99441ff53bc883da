//! Authorization codes over real sockets (T34): what a user gives an application, and what the
//! application gets for the code.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use scopegate::proto::*;
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::fake_clock::FakeClock;
use crate::harness::http::{Reply, basic, get, post};
use crate::harness::{Client, Server, bootstrap, fields, owned, refused, scopegate};

/// Tokens of `app` are for users alone, with their consent.
const CATALOG: &str = "
audiences:
  app:   { title: For applications, user: required, consent: required, token: required }
  free:  { title: Without consents, user: required, token: required }
  other: { title: For services }
scopes:
  profile:       { title: Read the profile, audiences: [app, free] }
  profile:write: { title: Change the profile, implies: [profile], audiences: [app, free] }
  members:       { title: Read all members, audiences: [app, free] }
  reports:       { title: Read reports, audiences: [app, free, other] }
roles:
  member: { scopes: { profile:write: own, reports: all } }
  admin:  { scopes: { profile:write: own, members: all, reports: all } }
";
const ISSUER: &str = "https://id.example.org";
const REDIRECT_URI: &str = "https://app.example.org/callback?from=scopegate";
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A platform with the application `app` of the company `acme`, and its users.
struct Platform {
    server: Server,
    client: Client,
    secret: String,
    dir: tempfile::TempDir,
    key: String,
}

impl Platform {
    async fn start() -> Self {
        Self::start_by(scopegate()).await
    }

    async fn start_by(command: Command) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("catalog.yaml"), CATALOG).expect("written");
        let key = bootstrap(&dir.path().join("data"));
        let server = serve(command, dir.path(), &[]);
        Self::of(server, dir, key).await
    }

    async fn of(server: Server, dir: tempfile::TempDir, key: String) -> Self {
        let client = Client::connect_as(&server.url(), Some(&key)).await;
        for company in ["acme", "other"] {
            client.create_company(company, None).await;
            client.put_user(company, "ann", &["member"]).await;
            create_application(&client, company, "app").await;
        }
        create_application(&client, "acme", "rival").await;
        client.put_user("acme", "bob", &["admin"]).await;
        let secret = secret(&client, "acme", "app").await;
        Self { server, client, secret, dir, key }
    }

    /// The same store, served again after a crash.
    async fn crash(self) -> Self {
        self.crash_by(scopegate(), &[]).await
    }

    async fn crash_by(self, command: Command, args: &[&str]) -> Self {
        self.server.kill();
        let server = serve(command, self.dir.path(), args);
        let client = Client::connect_as(&server.url(), Some(&self.key)).await;
        Self { server, client, ..self }
    }

    fn request(&self, user: &str, scopes: &[&str]) -> CreateAuthorizationCodeRequest {
        CreateAuthorizationCodeRequest {
            company_id: "acme".to_owned(),
            credential_id: "app".to_owned(),
            user_id: user.to_owned(),
            audience: "app".to_owned(),
            scopes: owned(scopes),
            redirect_uri: REDIRECT_URI.to_owned(),
            code_challenge: CHALLENGE.to_owned(),
            state: "a b&c".to_owned(),
            ..Default::default()
        }
    }

    async fn create(
        &self,
        request: CreateAuthorizationCodeRequest,
    ) -> Result<CreateAuthorizationCodeResponse, Status> {
        let mut directory = self.client.directory.clone();
        directory.create_authorization_code(request).await.map(tonic::Response::into_inner)
    }

    /// A code of this user for these scopes.
    async fn code(&self, user: &str, scopes: &[&str]) -> String {
        let created = self.create(self.request(user, scopes)).await.expect("created");
        assert!(created.code.starts_with("sgc_"), "{created:?}");
        created.code
    }

    fn redeem(&self, code: &str) -> Reply {
        self.redeem_as(&basic("app", &self.secret), &form(code))
    }

    fn redeem_as(&self, authorization: &str, form: &str) -> Reply {
        post(&self.server.oauth, "/oauth2/token/acme", authorization, form)
    }

    async fn reason(&self, token: &str, scope: &str, owner: &str) -> Reason {
        let request = CheckRequest {
            bearer_token: Some(token.to_owned()),
            audience: "app".to_owned(),
            scopes: owned(&[scope]),
            resource_owner_id: owner.to_owned(),
            ..Default::default()
        };
        self.client.ask(request).await.expect("an answer").reason()
    }

    async fn is_good(&self, token: &str) -> bool {
        match self.reason(token, "reports", "").await {
            Reason::Allowed => true,
            Reason::TokenInvalid => false,
            other => panic!("{other:?}"),
        }
    }

    async fn head(&self) -> u64 {
        let list = ListCompaniesRequest::default();
        let list = self.client.directory.clone().list_companies(list).await.expect("a list");
        list.into_inner().revision
    }

    async fn consent(&self, user: &str) -> Vec<String> {
        let request = GetConsentRequest {
            company_id: "acme".to_owned(),
            credential_id: "app".to_owned(),
            user_id: user.to_owned(),
        };
        match self.client.directory.clone().get_consent(request).await {
            Ok(read) => read.into_inner().consent.expect("a consent").scopes,
            Err(status) if status.code() == Code::NotFound => vec![],
            Err(status) => panic!("{status}"),
        }
    }
}

fn serve(command: Command, dir: &Path, args: &[&str]) -> Server {
    let catalog = dir.join("catalog.yaml");
    let catalog = catalog.to_str().expect("a path");
    let fixed = ["--catalog", catalog, "--oauth", "127.0.0.1:0", "--issuer", ISSUER];
    Server::start_by(command, &dir.join("data"), &[&fixed[..], args].concat())
}

async fn create_application(client: &Client, company: &str, credential: &str) {
    let request = CreateCredentialRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        scopes: owned(&["profile:write", "reports"]),
        redirect_uris: owned(&[REDIRECT_URI, "org.example.app:/callback"]),
        ..Default::default()
    };
    client.directory.clone().create_credential(request).await.expect("created");
}

async fn secret(client: &Client, company: &str, credential: &str) -> String {
    let request = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_secret(request).await.expect("created").into_inner().secret
}

/// What an application sends for a code.
fn form(code: &str) -> String {
    let uri = REDIRECT_URI.replace(':', "%3A").replace('?', "%3F").replace('=', "%3D");
    format!("grant_type=authorization_code&code={code}&redirect_uri={uri}&code_verifier={VERIFIER}")
}

/// The token of a reply, and its scopes.
fn issued(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["issued_token_type"]), (&"Bearer".into(), &Value::Null));
    let text = |name: &str| body[name].as_str().expect("a text").to_owned();
    (text("access_token"), text("scope"))
}

fn assert_invalid(reply: &Reply) {
    assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_grant"), "{reply:?}");
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("claims");
    serde_json::from_slice(&BASE64.decode(part).expect("base64url")).expect("JSON")
}

#[tokio::test]
async fn application_gets_what_the_user_gives_and_can_give() {
    let platform = Platform::start().await;
    // The user refuses `reports`. The user's roles do not permit `members`, and the application holds
    // no such grant.
    let request = platform.request("ann", &["profile:write", "members"]);
    let created = platform.create(request).await.expect("created");
    assert_eq!(created.scopes, ["profile:write"]);
    assert!(created.expires_at.is_some() && created.revision > 0);
    let redirect = format!(
        "{REDIRECT_URI}&code={}&state=a%20b%26c&iss=https%3A%2F%2Fid.example.org",
        created.code
    );
    assert_eq!(created.redirect_to, redirect);
    assert_eq!(platform.consent("ann").await, ["profile", "profile:write"]);

    let (token, scope) = issued(&platform.redeem(&created.code));
    assert_eq!(scope, "profile:write", "as given: what it implies is not added");
    let claims = claims(&token);
    assert_eq!(claims["sub"], "acme/app/ann");
    assert_eq!((&claims["user_id"], &claims["client_id"]), (&"ann".into(), &"app".into()));
    assert_eq!((&claims["aud"], &claims["act"]), (&"app".into(), &Value::Null));
    assert_eq!(platform.reason(&token, "profile", "ann").await, Reason::Allowed);
    assert_eq!(platform.reason(&token, "profile", "bob").await, Reason::NotRecordOwner);
    assert_eq!(platform.reason(&token, "reports", "").await, Reason::ScopeNotInToken);

    // Each layer acts on the token at once.
    platform.client.put_user("acme", "ann", &[]).await;
    assert_eq!(platform.reason(&token, "profile", "ann").await, Reason::UserLacksPermission);
    platform.client.put_user("acme", "ann", &["member"]).await;
    assert_eq!(platform.reason(&token, "profile", "ann").await, Reason::Allowed);
    let withdraw = DeleteConsentRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        user_id: "ann".to_owned(),
        ..Default::default()
    };
    platform.client.directory.clone().delete_consent(withdraw).await.expect("withdrawn");
    assert_eq!(platform.reason(&token, "profile", "ann").await, Reason::ScopeNotConsented);
}

#[tokio::test]
async fn nothing_given_is_access_denied() {
    let platform = Platform::start().await;
    platform.code("ann", &["reports"]).await;
    for scopes in [&[][..], &["members"]] {
        let created = platform.create(platform.request("ann", scopes)).await.expect("answered");
        assert_eq!((created.code.as_str(), created.scopes.len()), ("", 0));
        assert_eq!(created.expires_at, None);
        let redirect = format!(
            "{REDIRECT_URI}&error=access_denied&state=a%20b%26c&iss=https%3A%2F%2Fid.example.org"
        );
        assert_eq!(created.redirect_to, redirect);
        assert!(platform.consent("ann").await.is_empty());
    }
    // Nothing in the response is told once, so a retry has it, too.
    let request_id = "6f1c0a52-9d5e-4a6b-8f0e-2c4d1b3a7e90".to_owned();
    let request = CreateAuthorizationCodeRequest { request_id, ..platform.request("ann", &[]) };
    platform.code("ann", &["reports"]).await;
    let first = platform.create(request.clone()).await.expect("answered");
    assert_eq!(platform.create(request).await.expect("answered"), first);
    // Without a state there is none in the URI.
    let request =
        CreateAuthorizationCodeRequest { state: String::new(), ..platform.request("ann", &[]) };
    let created = platform.create(request).await.expect("answered");
    assert!(!created.redirect_to.contains("state"), "{}", created.redirect_to);
}

#[tokio::test]
async fn any_attempt_of_the_client_uses_the_code_up() {
    let platform = Platform::start().await;
    let without = |name: &str| -> String {
        let all = form("CODE");
        let kept = all.split('&').filter(|pair| !pair.starts_with(name));
        kept.collect::<Vec<_>>().join("&")
    };
    let wrong = [
        form("CODE").replace(VERIFIER, &"x".repeat(43)),
        form("CODE").replace(VERIFIER, CHALLENGE),
        form("CODE").replace("callback", "callback/"),
        form("CODE").replace("https", "HTTPS"),
        without("redirect_uri"),
        without("code_verifier"),
        format!("{}&audience=other", form("CODE")),
        format!("{}&audience=none", form("CODE")),
        format!("{}&resource=https://none.example", form("CODE")),
    ];
    for form_of_code in wrong {
        let code = platform.code("ann", &["reports"]).await;
        let authorization = basic("app", &platform.secret);
        let reply = platform.redeem_as(&authorization, &form_of_code.replace("CODE", &code));
        assert_invalid(&reply);
        assert_invalid(&platform.redeem(&code));
    }
    // A named audience that is the code's is right, and what is no parameter of this grant is ignored.
    let code = platform.code("ann", &["reports"]).await;
    let more = format!("{}&audience=app&scope=members&x=1", form(&code));
    let authorization = basic("app", &platform.secret);
    assert_eq!(issued(&platform.redeem_as(&authorization, &more)).1, "reports");
}

#[tokio::test]
async fn attempt_of_another_changes_nothing() {
    let platform = Platform::start().await;
    let code = platform.code("ann", &["reports"]).await;
    let head = platform.head().await;
    let rival = secret(&platform.client, "acme", "rival").await;
    let head = head + 1;
    let forged = format!("sgc_{}_{}", &code[4..28], "0".repeat(64));
    for _ in 0..2 {
        assert_invalid(&platform.redeem_as(&basic("rival", &rival), &form(&code)));
        assert_invalid(&platform.redeem(&forged));
        assert_invalid(&platform.redeem(&code.replace("sgc_", "sgs_")));
        assert_invalid(&platform.redeem("x"));
        let unproven = platform.redeem_as(&basic("app", &rival), &form(&code));
        assert_eq!((unproven.status, unproven.error().as_str()), (401, "invalid_client"));
        let missing = platform.redeem_as(&basic("app", &platform.secret), &form(""));
        assert_eq!((missing.status, missing.error().as_str()), (400, "invalid_request"));
    }
    // Nor does a client of another company.
    let other = secret(&platform.client, "other", "app").await;
    let reply =
        post(&platform.server.oauth, "/oauth2/token/other", &basic("app", &other), &form(&code));
    assert_invalid(&reply);
    assert_eq!(platform.head().await, head + 1);
    issued(&platform.redeem(&code));
}

#[tokio::test]
async fn second_attempt_revokes_the_token_of_the_first() {
    let platform = Platform::start().await;
    let code = platform.code("bob", &["reports"]).await;
    let (token, _) = issued(&platform.redeem(&code));
    let (other, _) = issued(&platform.redeem(&platform.code("bob", &["reports"]).await));
    assert!(platform.is_good(&token).await);
    assert_invalid(&platform.redeem(&code));
    assert!(!platform.is_good(&token).await);
    let head = platform.head().await;
    assert_invalid(&platform.redeem(&code));
    assert_eq!(platform.head().await, head, "it was revoked before");
    assert!(platform.is_good(&other).await, "another code's token");
    // Also after a crash, and with a wrong verifier.
    let code = platform.code("bob", &["reports"]).await;
    let (token, _) = issued(&platform.redeem(&code));
    let platform = platform.crash().await;
    assert!(platform.is_good(&token).await);
    let authorization = basic("app", &platform.secret);
    assert_invalid(&platform.redeem_as(&authorization, &form(&code).replace(VERIFIER, "x")));
    let platform = platform.crash().await;
    assert!(!platform.is_good(&token).await);
    assert!(platform.is_good(&other).await);
}

/// Of many attempts at the same time one gets a token at most, and every other one revokes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_at_the_same_time_give_one_token_and_revoke_it() {
    let platform = Platform::start().await;
    for _ in 0..10 {
        let code = platform.code("ann", &["reports"]).await;
        let replies: Vec<_> = std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..4).map(|_| scope.spawn(|| platform.redeem(&code))).collect();
            attempts.into_iter().map(|attempt| attempt.join().expect("a reply")).collect()
        });
        let (good, bad): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
        bad.into_iter().for_each(assert_invalid);
        assert_eq!(good.len(), 1);
        assert!(!platform.is_good(&issued(good[0]).0).await);
    }
}

/// T27: what ends a token ends a code.
#[tokio::test]
async fn code_ends_with_its_parties_and_with_all_tokens() {
    let platform = Platform::start().await;
    let Client { directory, .. } = platform.client.clone();
    let (acme, app) = (|| "acme".to_owned(), || "app".to_owned());
    // A user, or a credential, of the same id is another one.
    let code = platform.code("ann", &["reports"]).await;
    let user =
        DeleteUserRequest { company_id: acme(), user_id: "ann".to_owned(), ..Default::default() };
    directory.clone().delete_user(user).await.expect("deleted");
    platform.client.put_user("acme", "ann", &["member"]).await;
    assert_invalid(&platform.redeem(&code));
    let code = platform.code("ann", &["reports"]).await;
    let all =
        RevokeTokensRequest { company_id: acme(), credential_id: app(), ..Default::default() };
    directory.clone().revoke_tokens(all).await.expect("revoked");
    assert_invalid(&platform.redeem(&code));
    // What is not effective any more is left out, and without any scope there is no token.
    let code = platform.code("bob", &["reports", "profile:write"]).await;
    platform.client.put_user("acme", "bob", &["member"]).await;
    let revoke = RevokeScopesRequest {
        company_id: acme(),
        credential_id: app(),
        scopes: owned(&["reports"]),
        ..Default::default()
    };
    platform.client.authorization.clone().revoke_scopes(revoke).await.expect("revoked");
    assert_eq!(issued(&platform.redeem(&code)).1, "profile:write");
    let code = platform.code("bob", &["reports"]).await;
    assert_invalid(&platform.redeem(&code));
    // A withdrawn consent gives nothing, also where the audience asks for none.
    for audience in ["app", "free"] {
        let request = CreateAuthorizationCodeRequest {
            audience: audience.to_owned(),
            ..platform.request("bob", &["profile"])
        };
        let kept = platform.create(request.clone()).await.expect("created").code;
        issued(&platform.redeem(&kept));
        let code = platform.create(request).await.expect("created").code;
        let withdraw = DeleteConsentRequest {
            company_id: acme(),
            credential_id: app(),
            user_id: "bob".to_owned(),
            ..Default::default()
        };
        directory.clone().delete_consent(withdraw).await.expect("withdrawn");
        assert_invalid(&platform.redeem(&code));
    }
    // A disabled credential proves nothing.
    let code = platform.code("bob", &["profile"]).await;
    let update = |enabled| UpdateCredentialRequest {
        company_id: acme(),
        credential_id: app(),
        enabled,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    directory.clone().update_credential(update(false)).await.expect("updated");
    assert_eq!(platform.redeem(&code).error(), "invalid_client");
    directory.clone().update_credential(update(true)).await.expect("updated");
    issued(&platform.redeem(&code));
    let code = platform.code("bob", &["profile"]).await;
    let gone =
        DeleteCredentialRequest { company_id: acme(), credential_id: app(), ..Default::default() };
    directory.clone().delete_credential(gone).await.expect("deleted");
    create_application(&platform.client, "acme", "app").await;
    let secret = secret(&platform.client, "acme", "app").await;
    assert_invalid(&platform.redeem_as(&basic("app", &secret), &form(&code)));
    // A code is on disk when its creation is acknowledged.
    let platform = Platform { secret, ..platform };
    let code = platform.code("bob", &["profile"]).await;
    let platform = platform.crash().await;
    issued(&platform.redeem(&code));
    assert_invalid(&platform.redeem(&code));
}

#[tokio::test]
async fn code_expires_after_a_minute_and_ends_when_the_time_is_set_back() {
    let Some(clock) = FakeClock::new() else { return };
    let platform = Platform::start_by(clock.command()).await;
    let code = platform.code("ann", &["reports"]).await;
    clock.set("+50s");
    let (token, _) = issued(&platform.redeem(&code));
    let code = platform.code("ann", &["reports"]).await;
    clock.set("+111s");
    let head = platform.head().await;
    assert_invalid(&platform.redeem(&code));
    assert_eq!(platform.head().await, head, "it is over");
    // The expiry of the code that was redeemed is over, too; its token lives.
    assert!(platform.is_good(&token).await);
    // The time does not run backwards: what has expired stays so, also after a crash.
    clock.set("+0");
    assert_invalid(&platform.redeem(&code));
    let platform = platform.crash_by(clock.command(), &[]).await;
    assert_invalid(&platform.redeem(&code));
    let code = platform.code("ann", &["reports"]).await;
    clock.set("-1d");
    let platform = platform.crash_by(clock.command(), &["--accept-clock"]).await;
    assert_invalid(&platform.redeem(&code));
    assert!(!platform.is_good(&token).await);
    issued(&platform.redeem(&platform.code("ann", &["reports"]).await));
}

/// A backup does not say which codes were redeemed after it.
#[tokio::test]
async fn restored_store_redeems_no_code_of_the_backup() {
    let platform = Platform::start().await;
    let code = platform.code("ann", &["reports"]).await;
    let path = |name: &str| platform.dir.path().join(name);
    let key = path("key");
    std::fs::write(&key, &platform.key).expect("written");
    let run = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let url = platform.server.url();
    let backup = ["backup", "--endpoint", &url, "--key-file", key.to_str().expect("a path")];
    run(scopegate().args(backup).arg("--output").arg(path("backup")));
    run(scopegate().arg("restore").arg(path("backup")).arg("--data-dir").arg(path("new/data")));
    std::fs::copy(path("catalog.yaml"), path("new/catalog.yaml")).expect("copied");
    let restored = serve(scopegate(), &path("new"), &[]);
    let authorization = basic("app", &platform.secret);
    let redeem =
        |code: &str| post(&restored.oauth, "/oauth2/token/acme", &authorization, &form(code));
    assert_invalid(&redeem(&code));
    let client = Client::connect_as(&restored.url(), Some(&platform.key)).await;
    let mut directory = client.directory.clone();
    let created = directory.create_authorization_code(platform.request("ann", &["reports"]));
    issued(&redeem(&created.await.expect("created").into_inner().code));
}

/// A code names its scopes as the catalog has them when it is redeemed. Without any of them left it
/// gives nothing, and not all that the client may do.
#[tokio::test]
async fn scope_that_the_catalog_loses_is_not_given() {
    let platform = Platform::start().await;
    let code = platform.code("ann", &["reports"]).await;
    let both = platform.code("ann", &["reports", "profile"]).await;
    let lines = CATALOG.lines().filter(|line| !line.trim_start().starts_with("reports:"));
    let yaml = lines.collect::<Vec<_>>().join("\n").replace(", reports: all", "");
    let apply = ApplyCatalogRequest { yaml, ..Default::default() };
    platform.client.catalog.clone().apply_catalog(apply).await.expect("applied");
    assert_invalid(&platform.redeem(&code));
    // The second code's consent replaced that of the first.
    assert_eq!(issued(&platform.redeem(&both)).1, "profile");
}

#[tokio::test]
async fn malformed_request_names_its_field_and_changes_nothing() {
    let platform = Platform::start().await;
    let head = platform.head().await;
    let right = || platform.request("ann", &["reports"]);
    type Request = CreateAuthorizationCodeRequest;
    for (wrong, code, reason, field) in [
        (
            Request { redirect_uri: "https://evil.example/".to_owned(), ..right() },
            Code::InvalidArgument,
            "REDIRECT_URI_UNKNOWN",
            "redirect_uri",
        ),
        (
            Request { redirect_uri: format!("{REDIRECT_URI}/"), ..right() },
            Code::InvalidArgument,
            "REDIRECT_URI_UNKNOWN",
            "redirect_uri",
        ),
        (
            Request { redirect_uri: String::new(), ..right() },
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "redirect_uri",
        ),
        (
            Request { code_challenge: String::new(), ..right() },
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "code_challenge",
        ),
        (
            Request { code_challenge: VERIFIER[1..].to_owned(), ..right() },
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "code_challenge",
        ),
        (
            Request { state: "x".repeat(2049), ..right() },
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "state",
        ),
        (
            Request { state: "a\nb".to_owned(), ..right() },
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "state",
        ),
        (
            Request { audience: String::new(), ..right() },
            Code::InvalidArgument,
            "AUDIENCE_AMBIGUOUS",
            "audience",
        ),
        (
            Request { audience: "none".to_owned(), ..right() },
            Code::InvalidArgument,
            "AUDIENCE_AMBIGUOUS",
            "audience",
        ),
        (
            Request { scopes: owned(&["none"]), ..right() },
            Code::InvalidArgument,
            "SCOPE_UNKNOWN",
            "scopes[0]",
        ),
        (Request { user_id: "cid".to_owned(), ..right() }, Code::NotFound, "USER_NOT_FOUND", ""),
        (Request { etag: "\"x\"".to_owned(), ..right() }, Code::Aborted, "ETAG_STALE", ""),
    ] {
        let (found, details) = refused(platform.create(wrong.clone()).await);
        let info = details.error_info().expect("a reason");
        assert_eq!((found, info.reason.as_str()), (code, reason), "{wrong:?}");
        if !field.is_empty() {
            assert_eq!(fields(&details), [field], "{wrong:?}");
        }
    }
    let dry = Request { validate_only: true, ..right() };
    let dry = platform.create(dry).await.expect("a preview");
    assert_eq!((dry.code.as_str(), dry.redirect_to.as_str()), ("", ""));
    assert_eq!(dry.scopes, ["reports"]);
    assert_eq!(platform.head().await, head);
}

#[tokio::test]
async fn redirect_uris_of_a_credential_are_listed_and_replaced() {
    let platform = Platform::start().await;
    let mut directory = platform.client.directory.clone();
    let update = |uris: &[&str]| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        redirect_uris: owned(uris),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["redirect_uris"]) }),
        ..Default::default()
    };
    for (uris, field) in [
        (vec!["http://app.example.org/"], "redirect_uris[0]"),
        (vec![REDIRECT_URI, "https://a.example/#x"], "redirect_uris[1]"),
        (vec![REDIRECT_URI, REDIRECT_URI], "redirect_uris[1]"),
    ] {
        let (code, details) = refused(directory.update_credential(update(&uris)).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec![field]));
    }
    let many: Vec<_> = (0..17).map(|n| format!("https://a{n}.example/")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let status = directory.update_credential(update(&many)).await.expect_err("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let code = platform.code("ann", &["reports"]).await;
    let updated = directory.update_credential(update(&many[..16])).await.expect("updated");
    assert_eq!(updated.into_inner().credential.expect("it").redirect_uris, many[..16]);
    // A browser is sent to a URI that is removed no more, and a code that was sent there is over.
    assert_invalid(&platform.redeem(&code));
    let status = platform.create(platform.request("ann", &["reports"])).await;
    assert_eq!(status.expect_err("refused").code(), Code::InvalidArgument);
    let platform = platform.crash().await;
    let mut directory = platform.client.directory.clone();
    let cleared = directory.update_credential(update(&[])).await.expect("updated").into_inner();
    assert!(cleared.credential.expect("it").redirect_uris.is_empty());
    let request = ListChangesRequest { newest_first: true, ..Default::default() };
    let changes = platform.client.changes.clone().list_changes(request).await.expect("a list");
    let change = &changes.into_inner().changes[0];
    assert_eq!(
        (change.kind.as_str(), change.fields[0].field.as_str()),
        ("UpdateCredential", "redirect_uris")
    );
}

#[tokio::test]
async fn metadata_lists_codes_with_the_page_of_the_platform() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = "https://app.example.org/authorize";
    let server = Server::start(
        dir.path(),
        &["--oauth", "127.0.0.1:0", "--issuer", ISSUER, "--authorize-url", page],
    );
    let metadata = get(&server.oauth, "/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["authorization_endpoint"], page);
    assert_eq!(metadata["response_types_supported"], serde_json::json!(["code"]));
    assert_eq!(metadata["code_challenge_methods_supported"], serde_json::json!(["S256"]));
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    let grants = metadata["grant_types_supported"].as_array().expect("a list");
    assert!(grants.contains(&"authorization_code".into()));
    // A server that issues no tokens creates no codes.
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "horizonwebref.yaml");
    let client = server.client().await;
    let request = CreateAuthorizationCodeRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        user_id: "ann".to_owned(),
        redirect_uri: REDIRECT_URI.to_owned(),
        code_challenge: CHALLENGE.to_owned(),
        ..Default::default()
    };
    let status = client.directory.clone().create_authorization_code(request).await;
    assert_eq!(status.expect_err("refused").code(), Code::FailedPrecondition);
}
