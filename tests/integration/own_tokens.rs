//! Own tokens: what is issued, what it is good for, and everything that ends it (T24 to T28, T32, T33,
//! T35, T36), without the endpoints.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use scopegate::authority::client_proof::ProvenSecret;
use scopegate::authority::error::AuthorityError;
use scopegate::authority::introspection::{ActiveToken, Introspection, Introspector};
use scopegate::authority::own_issuer::OwnIssuer;
use scopegate::authority::token_issue::{
    IssuedToken, MAX_ISSUED_BYTES, TokenClient, TokenError, TokenGrant, TokenRefusal, TokenRequest,
};
use scopegate::authority::token_revocation::Revocation;
use scopegate::authority::{
    Authority, CompanyChange, CredentialChange, NewCompany, NewCredential, WriteOptions,
};
use scopegate::policy::caller::Caller;
use scopegate::policy::cause::DenialCause;
use scopegate::policy::client_credential::ClientCredential;
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::query::{Client as Presenter, Query, Request, Requirement, Subject};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::policy::secret::SecretText;
use scopegate::policy::token::key_set::Thumbprint;
use scopegate::policy::token::signing_keys::KeyState;
use scopegate::proto::*;
use scopegate::store::Store;
use scopegate::store::quota::Quotas;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::jwt::{Signer, key_set};
use crate::harness::{Client, Server, bootstrap, owned, scopegate};

const ISSUER: &str = "https://tokens.example.org";

/// `act` is the scope by which a client acts for users. Tokens of `lxp` are for users alone.
const CATALOG: &str = "
audiences:
  public: { aud: [\"https://api.example.org\", \"urn:api\"] }
  hooks: { token: required, token_ttl: 10m }
  lxp: { token: required, user: required, max_token_age: 30m, exchange: act }
  agreed: { token: required, user: required, consent: required, exchange: act }
scopes:
  all: { implies: [read, write], audiences: [public, hooks, lxp, agreed] }
  read: { audiences: [public, lxp, agreed] }
  write: { audiences: [public, lxp] }
  hook: { audiences: [hooks] }
  act: { audiences: [public] }
roles:
  member: { scopes: { read: all, write: own } }
";

fn company(id: &str) -> CompanyId {
    CompanyId::parse(id).expect("an id")
}

fn credential(id: &str) -> CredentialId {
    CredentialId::parse(id).expect("an id")
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("an id")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn scopes(names: &[&str]) -> Vec<Scope> {
    names.iter().map(|name| Scope::parse(*name).expect("a scope")).collect()
}

fn plain() -> WriteOptions {
    WriteOptions::default()
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The claims of a token.
fn claims(token: &str) -> Value {
    part(token, 1)
}

fn part(token: &str, n: usize) -> Value {
    let part = token.split('.').nth(n).expect("a part");
    serde_json::from_slice(&BASE64.decode(part).expect("base64")).expect("JSON")
}

/// The parts of a server without its wire, with the company `acme`, its credential `hr` and its user
/// `ada`.
struct World {
    authority: Authority,
    store: Arc<Store>,
    secret: SecretText,
}

impl World {
    async fn new(dir: &Path) -> Self {
        Self::with_cache(dir, 1_000).await
    }

    async fn with_cache(dir: &Path, cache_entries: u64) -> Self {
        let store = Arc::new(Store::open(dir).expect("opened"));
        let authority = authority(&store, dir, cache_entries);
        authority.prepare_signing_keys().await.expect("a key");
        let session = authority.internal_session("test");
        session.apply_catalog(CATALOG, &plain()).await.expect("applied");
        let secret = furnish(&authority).await;
        Self { authority, store, secret }
    }

    /// The same directory, opened again with the same secret.
    fn reopened(dir: &Path, secret: &SecretText) -> Self {
        Self::of(Arc::new(Store::open(dir).expect("opened")), dir, secret)
    }

    fn of(store: Arc<Store>, dir: &Path, secret: &SecretText) -> Self {
        let authority = authority(&store, dir, 1_000);
        Self { authority, store, secret: secret.clone() }
    }

    /// The same world with another secret.
    fn with_secret(self, secret: SecretText) -> Self {
        Self { secret, ..self }
    }

    /// Closes the store, and waits until its directory is free.
    fn close(self) -> SecretText {
        let store = Arc::downgrade(&self.store);
        self.authority.close();
        let Self { authority, store: own, secret } = self;
        drop((authority, own));
        while store.strong_count() > 0 {
            std::thread::yield_now();
        }
        secret
    }

    fn session(&self) -> scopegate::authority::Session<'_> {
        self.authority.internal_session("test")
    }

    async fn proven(&self) -> ProvenSecret {
        self.proven_by(&self.secret, "hr").await.expect("right")
    }

    async fn proven_by(&self, secret: &SecretText, name: &str) -> Result<ProvenSecret, Reason> {
        let presented = ClientCredential::client_secret(name.to_owned(), secret.clone().reveal());
        let proven = self.session().prove_client(&presented, None).await.expect("an answer");
        proven.map_err(|cause| cause.reason)
    }

    async fn request(
        &self,
        client: TokenClient<'_>,
        grant: TokenGrant,
        audience: &str,
        scopes: Option<&[&str]>,
    ) -> Result<IssuedToken, TokenRefusal> {
        let request = TokenRequest {
            client,
            grant,
            audience: Name::parse(audience).ok(),
            scopes: scopes.map(self::scopes),
        };
        self.session().issue_token(&request).await.expect("an answer")
    }

    /// A token of the client itself.
    async fn issue(&self, audience: &str, scopes: Option<&[&str]>) -> IssuedToken {
        let (proven, grant) = (self.proven().await, TokenGrant::ClientCredentials);
        self.request(TokenClient::Secret(&proven), grant, audience, scopes).await.expect("issued")
    }

    /// A token of the client for the user `ada`.
    async fn exchange(&self, actor: Option<&str>) -> IssuedToken {
        let proven = self.proven().await;
        let client = match actor {
            Some(token) => TokenClient::Actor { token, secret: None, company: None },
            None => TokenClient::Secret(&proven),
        };
        self.request(client, exchange("ada"), "lxp", Some(&["read"])).await.expect("issued")
    }

    /// What a check of one scope with this token answers.
    async fn verdict(&self, token: &str, audience: &str, scope: &str) -> Verdict {
        let mut request = asking(token, audience, scope);
        let answer = self.session().check(&mut request, Revision::ZERO).await.expect("an answer");
        answer.verdict
    }

    async fn fault(&self, token: &str) -> Option<DenialCause> {
        // An exchanged token has another audience than one of the client itself.
        let audience = claims(token)["aud"].clone();
        let audience = audience.as_str().unwrap_or("public");
        match self.verdict(token, audience, "read").await {
            Verdict::Allowed { .. } => None,
            Verdict::Denied { reason: Reason::TokenInvalid, fault, .. } => {
                Some(fault.expect("a cause"))
            }
            denied @ Verdict::Denied { .. } => panic!("{denied:?}"),
        }
    }

    async fn is_allowed(&self, token: &str) -> bool {
        self.fault(token).await.is_none()
    }

    async fn revoke(&self, token: &str) -> Revocation {
        let proven = self.proven().await;
        let actor = proven.actor();
        let session = self.authority.internal_session(&actor);
        session.revoke_token(&proven, token).await.expect("an answer")
    }

    async fn active(&self, token: &str, audience: Option<&str>) -> Option<ActiveToken> {
        let audience = audience.map(name);
        let asked =
            self.session().introspect(Introspector::Service, token, None, audience.as_ref()).await;
        match asked.expect("an answer") {
            Introspection::Active(active) => Some(*active),
            Introspection::Inactive => None,
            Introspection::Unverifiable => panic!("unverifiable"),
        }
    }
}

fn authority(store: &Arc<Store>, dir: &Path, cache_entries: u64) -> Authority {
    let authority = Authority::new(Arc::clone(store), cache_entries).expect("readable");
    authority.with_own_issuer(Some(OwnIssuer::new(ISSUER, dir.join("signing-keys"))))
}

/// The company, its credential and its user; and a secret.
async fn furnish(authority: &Authority) -> SecretText {
    let session = authority.internal_session("test");
    let new = NewCompany { id: company("acme"), display_name: String::new(), scopes: None };
    session.create_company(&new, &plain()).await.ok();
    let new = NewCredential {
        company: company("acme"),
        id: credential("hr"),
        label: String::new(),
        scopes: scopes(&["all", "hook", "act"]),
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    session.create_credential(&new, &plain()).await.ok();
    session.put_user(&company("acme"), &user("ada"), &[name("member")], &plain()).await.ok();
    let made = session.create_secret(&company("acme"), &credential("hr"), &plain()).await;
    made.expect("made").secret.expect("a secret")
}

fn exchange(of: &str) -> TokenGrant {
    TokenGrant::Exchange { user: user(of) }
}

fn asking(token: &str, audience: &str, scope: &str) -> Request {
    let query = Query {
        subject: Subject::Unproven(Reason::TokenRequired.into()),
        needs: Requirement::Scopes(scopes(&[scope])),
        audience: Name::parse(audience).ok(),
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    };
    let presented = ClientCredential::bearer_token(token.to_owned());
    Request { query, client: Some(Presenter { presented, company: None, credential: None }) }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    i64::try_from(now.as_secs()).expect("a time")
}

#[tokio::test]
async fn t25_a_token_says_for_whom_it_is_and_whose_life_it_is_of() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let proven = world.proven().await;
    let issued = world.issue("public", Some(&["read"])).await;
    let (header, body) = (part(&issued.text, 0), claims(&issued.text));
    let keys: Value =
        serde_json::from_str(&world.authority.signing_jwks().await.expect("keys")).expect("JSON");
    let kid = &keys["keys"][0]["kid"];
    assert_eq!(header, json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }));
    let keys = keys["keys"][0].as_object().expect("a key");
    let members: Vec<_> = keys.keys().map(String::as_str).collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"], "public members only");
    let iat = body["iat"].as_i64().expect("a time");
    assert!((now() - 5..=now() + 5).contains(&iat));
    let expected = json!({
        "iss": ISSUER, "sub": "acme/hr", "client_id": "hr", "company_id": "acme",
        "aud": ["public", "https://api.example.org", "urn:api"], "scope": "read",
        "iat": iat, "exp": iat + 3600, "jti": issued.id,
        "sg": {
            "secret_id": proven.secret.as_str(), "born": body["sg"]["born"],
            "incarnation": world.authority.incarnation().to_string(), "at": issued.revision.0,
        },
    });
    assert_eq!(body, expected);
    assert_eq!(body["sg"]["born"].as_array().map(Vec::len), Some(2));
    assert_eq!(BASE64.decode(&issued.id).expect("base64").len(), 16);
    assert_eq!((issued.expires_in, issued.scopes), (3600, scopes(&["read"])));
    let exchanged = world.exchange(None).await;
    let body = claims(&exchanged.text);
    for (member, expected) in [
        ("sub", json!("acme/hr/ada")),
        ("user_id", json!("ada")),
        ("act", json!({ "sub": "acme/hr" })),
        ("aud", json!("lxp")),
    ] {
        assert_eq!(body[member], expected, "{member}");
    }
    assert_eq!(body["sg"]["born"].as_array().map(Vec::len), Some(3));
    assert_eq!(body["sg"]["from"], Value::Null);
    assert_ne!(exchanged.id, issued.id);
    let actor = world.issue("public", Some(&["act"])).await;
    let by_token = claims(&world.exchange(Some(&actor.text)).await.text);
    assert_eq!(by_token["sg"]["from"], json!(actor.id));
    assert_eq!((&by_token["sg"]["from_kid"], &body["sg"]["from_kid"]), (kid, &Value::Null));
    assert!(by_token["exp"].as_i64() <= claims(&actor.text)["exp"].as_i64());
}

#[tokio::test]
async fn t25_a_token_lives_as_long_as_its_audience_and_its_credential_let_it() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    assert_eq!(world.issue("hooks", None).await.expires_in, 600);
    assert_eq!(world.exchange(None).await.expires_in, 1800, "`max_token_age`");
    let end = Timestamp::now() + SignedDuration::from_secs(100);
    let update = CredentialChange::Update {
        label: None,
        enabled: None,
        expires_at: Some(Some(end)),
        redirect_uris: None,
    };
    let (acme, hr) = (company("acme"), credential("hr"));
    world.session().change_credential(&acme, &hr, &update, &plain()).await.expect("updated");
    let issued = world.issue("public", None).await;
    assert!((95..=100).contains(&issued.expires_in), "{}", issued.expires_in);
    assert!(claims(&issued.text)["exp"].as_i64() <= Some(end.as_second()));
    // A token that is exchanged ends no later than the token that it was exchanged with.
    let lasts = |expires_at| CredentialChange::Update {
        label: None,
        enabled: None,
        expires_at,
        redirect_uris: None,
    };
    world
        .session()
        .change_credential(&acme, &hr, &lasts(Some(None)), &plain())
        .await
        .expect("updated");
    let actor = world.issue("public", Some(&["act", "read"])).await;
    assert_eq!(actor.expires_in, 3600);
    let short = issued.text;
    let exchanged = {
        let client = TokenClient::Actor { token: &short, secret: None, company: None };
        world.request(client, exchange("ada"), "lxp", None).await
    };
    // `act` is in no token that was not asked for it by name.
    assert_eq!(exchanged.expect_err("refused").error, TokenError::UnauthorizedClient);
    let exchanged = world.exchange(Some(&actor.text)).await;
    assert!(exchanged.expires_in <= 1800);
}

#[tokio::test]
async fn t26_a_token_has_the_scopes_that_are_requested_and_effective() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    for (audience, requested, expected) in [
        ("public", None, &["all", "read", "write"][..]),
        ("public", Some(&["all"][..]), &["all"]),
        ("public", Some(&["act"][..]), &["act"]),
        ("public", Some(&["write", "read", "write", "hook", "nothing"][..]), &["read", "write"]),
        ("hooks", None, &["all", "hook"]),
    ] {
        let issued = world.issue(audience, requested).await;
        assert_eq!(issued.scopes, scopes(expected), "{audience} {requested:?}");
        assert_eq!(claims(&issued.text)["scope"], json!(expected.join(" ")));
    }
    // What a token's scopes imply is closed when it is read.
    let all = world.issue("public", Some(&["all"])).await.text;
    assert!(world.is_allowed(&all).await);
    // Every check asks all layers again.
    let restriction = scopegate::authority::Restriction {
        company: company("acme"),
        scopes: scopes(&["read"]),
        acknowledge_impact: true,
    };
    world.session().restrict_company(&restriction, &plain()).await.expect("restricted");
    let denied = world.verdict(&all, "public", "read").await;
    assert!(matches!(denied, Verdict::Denied { reason: Reason::ScopeNotInCompany, .. }));
    assert!(matches!(world.verdict(&all, "public", "write").await, Verdict::Allowed { .. }));
    // If nothing is left, the refusal says why.
    let proven = world.proven().await;
    let refused = async |audience: &str, scopes: Option<&[&str]>| {
        let (client, grant) = (TokenClient::Secret(&proven), TokenGrant::ClientCredentials);
        let refusal = world.request(client, grant, audience, scopes).await.expect_err("refused");
        (refusal.error, refusal.cause.map(|cause| cause.reason))
    };
    let invalid = |reason| (TokenError::InvalidScope, Some(reason));
    assert_eq!(refused("public", Some(&["read"])).await, invalid(Reason::ScopeNotInCompany));
    assert_eq!(refused("public", Some(&["hook"])).await, invalid(Reason::ScopeUnknown));
    assert_eq!(refused("public", Some(&["x"])).await, invalid(Reason::ScopeUnknown));
    assert_eq!(refused("public", Some(&[])).await, (TokenError::InvalidScope, None));
    assert_eq!(refused("nothing", None).await, (TokenError::InvalidTarget, None));
    assert_eq!(refused("", None).await, (TokenError::InvalidRequest, None));
    // An audience that is for users is for no client alone (T32).
    assert_eq!(refused("lxp", None).await, (TokenError::UnauthorizedClient, None));
    assert_eq!(refused("agreed", None).await, (TokenError::UnauthorizedClient, None));
}

#[tokio::test]
async fn t15_a_token_is_for_the_audience_of_its_first_value_alone() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let token = world.issue("public", Some(&["all"])).await.text;
    assert!(matches!(world.verdict(&token, "public", "read").await, Verdict::Allowed { .. }));
    let other = world.verdict(&token, "hooks", "all").await;
    assert!(matches!(other, Verdict::Denied { reason: Reason::TokenAudienceMismatch, .. }));
    // A catalog in which the name is a URL of another audience.
    let yaml = CATALOG
        .replace(
            "public: { aud: [\"https://api.example.org\", \"urn:api\"] }",
            "open: { aud: [public] }",
        )
        .replace("public", "open")
        .replace("aud: [open]", "aud: [public]");
    world.session().apply_catalog(&yaml, &plain()).await.expect("applied");
    let moved = world.verdict(&token, "open", "read").await;
    assert!(matches!(moved, Verdict::Denied { reason: Reason::TokenAudienceMismatch, .. }));
    // Without audiences in the catalog, a token is for the issuer itself.
    let none = "scopes: { read: , write: }\n";
    world.session().apply_catalog(none, &plain()).await.expect("applied");
    let grant = CredentialChange::Grant { scopes: scopes(&["read"]), expires_at: None };
    let (acme, hr) = (company("acme"), credential("hr"));
    world.session().change_credential(&acme, &hr, &grant, &plain()).await.ok();
    let restore = CompanyChange::AddScopes(scopes(&["read"]));
    world.session().change_company(&acme, &restore, &plain()).await.ok();
    let token = world.issue("", None).await.text;
    assert_eq!(claims(&token)["aud"], json!(ISSUER));
    assert!(matches!(world.verdict(&token, "", "read").await, Verdict::Allowed { .. }));
    world.session().apply_catalog(CATALOG, &plain()).await.expect("applied");
    let declared = world.verdict(&token, "public", "read").await;
    assert!(matches!(declared, Verdict::Denied { reason: Reason::TokenAudienceMismatch, .. }));
}

#[tokio::test]
async fn t33_acting_for_users_is_a_power_of_its_own() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let (acme, hr) = (company("acme"), credential("hr"));
    let proven = world.proven().await;
    let refused = async |client: TokenClient<'_>, user: &str, audience: &str| {
        world.request(client, exchange(user), audience, None).await.expect_err("refused").error
    };
    let by_secret = TokenClient::Secret(&proven);
    fn by(token: &str) -> TokenClient<'_> {
        TokenClient::Actor { token, secret: None, company: None }
    }
    assert_eq!(refused(by_secret, "nobody", "lxp").await, TokenError::InvalidRequest);
    assert_eq!(refused(by_secret, "ada", "public").await, TokenError::UnauthorizedClient);
    assert_eq!(refused(by_secret, "ada", "x").await, TokenError::InvalidTarget);
    // The user's own reach limits the token: `write` is there, on the user's own records.
    let both = world.request(by_secret, exchange("ada"), "lxp", None).await.expect("issued");
    assert_eq!(both.scopes, scopes(&["read", "write"]));
    // Without consent there is nothing to issue.
    let refusal = world.request(by_secret, exchange("ada"), "agreed", None).await;
    let refusal = refusal.expect_err("refused");
    assert_eq!(refusal.error, TokenError::InvalidScope);
    assert_eq!(refusal.cause.map(|cause| cause.reason), Some(Reason::ScopeNotConsented));
    // An actor token is a client's own, is valid, and has the scope by name.
    let (actor, all) =
        (world.issue("public", Some(&["act"])).await, world.issue("public", None).await);
    let exchanged = world.exchange(Some(&actor.text)).await;
    assert_eq!(refused(by(&all.text), "ada", "lxp").await, TokenError::UnauthorizedClient);
    for bad in [&exchanged.text, "x", "", &actor.text[..actor.text.len() - 8]] {
        assert_eq!(refused(by(bad), "ada", "lxp").await, TokenError::InvalidRequest);
    }
    let client = TokenClient::Actor { token: &actor.text, secret: None, company: None };
    let grant = TokenGrant::ClientCredentials;
    let own = world.request(client, grant, "public", None).await.expect_err("refused");
    assert_eq!(own.error, TokenError::InvalidRequest);
    let other = company("other");
    let elsewhere = TokenClient::Actor { token: &actor.text, secret: None, company: Some(&other) };
    assert_eq!(refused(elsewhere, "ada", "lxp").await, TokenError::InvalidRequest);
    // Beside a secret, the actor token must be of the same client.
    let both =
        TokenClient::Actor { token: &actor.text, secret: Some(&proven), company: Some(&acme) };
    assert!(world.request(both, exchange("ada"), "lxp", Some(&["read"])).await.is_ok());
    let new = NewCredential {
        company: acme.clone(),
        id: credential("bi"),
        label: String::new(),
        scopes: scopes(&["all"]),
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    world.session().create_credential(&new, &plain()).await.expect("created");
    let made = world.session().create_secret(&acme, &credential("bi"), &plain()).await;
    let bi = made.expect("made").secret.expect("a secret");
    let bi = world.proven_by(&bi, "bi").await.expect("right");
    let mixed = TokenClient::Actor { token: &actor.text, secret: Some(&bi), company: None };
    assert_eq!(refused(mixed, "ada", "lxp").await, TokenError::InvalidRequest);
    assert_eq!(
        refused(TokenClient::Secret(&bi), "ada", "lxp").await,
        TokenError::UnauthorizedClient,
        "it does not hold the scope"
    );
    // A revoked grant ends the power at once, whatever the token says; so does a revoked token.
    world.revoke(&actor.text).await;
    assert_eq!(refused(by(&actor.text), "ada", "lxp").await, TokenError::InvalidRequest);
    let actor = world.issue("public", Some(&["act"])).await;
    let revoke = CredentialChange::Revoke(scopes(&["act"]));
    world.session().change_credential(&acme, &hr, &revoke, &plain()).await.expect("revoked");
    assert_eq!(refused(by(&actor.text), "ada", "lxp").await, TokenError::UnauthorizedClient);
    assert_eq!(refused(by_secret, "ada", "lxp").await, TokenError::UnauthorizedClient);
}

#[tokio::test]
async fn d11_a_proof_that_is_wrong_in_any_way_tells_nothing() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let (acme, hr) = (company("acme"), credential("hr"));
    assert!(world.proven_by(&world.secret, "acme").await.is_ok(), "the tenant is a name, too");
    let presented = ClientCredential::client_secret("hr".to_owned(), world.secret.clone().reveal());
    let of = async |company: &CompanyId| {
        let proven = world.session().prove_client(&presented, Some(company)).await;
        proven.expect("an answer").map(drop).map_err(|cause| cause.reason)
    };
    assert_eq!(of(&acme).await, Ok(()));
    assert_eq!(of(&company("other")).await, Err(Reason::CredentialUnknown));
    let enable = async |enabled: bool| {
        let update = CredentialChange::Update {
            label: None,
            enabled: Some(enabled),
            expires_at: None,
            redirect_uris: None,
        };
        world.session().change_credential(&acme, &hr, &update, &plain()).await.expect("updated");
    };
    let proven = world.proven().await;
    enable(false).await;
    let by = async |secret: &SecretText, name: &str| {
        world.proven_by(secret, name).await.expect_err("not proven")
    };
    let mut forged = world.secret.clone().reveal();
    let last = forged.pop();
    forged.push(if last == Some('0') { '1' } else { '0' });
    let kind = scopegate::policy::secret::SecretKind::Credential;
    let forged = SecretText::parse(kind, forged).expect("a form");
    assert_eq!(by(&world.secret, "hr").await, Reason::CredentialDisabled);
    assert_eq!(by(&world.secret, "bi").await, Reason::CredentialUnknown);
    assert_eq!(by(&forged, "hr").await, Reason::CredentialUnknown);
    // What was proven before is asked again at the issue.
    let grant = TokenGrant::ClientCredentials;
    let refusal = world.request(TokenClient::Secret(&proven), grant, "public", None).await;
    let refusal = refusal.expect_err("refused");
    assert_eq!(refusal.error, TokenError::InvalidClient);
    assert_eq!(refusal.cause.map(|cause| cause.reason), Some(Reason::CredentialDisabled));
    enable(true).await;
    let deleted = world.session().delete_secret(&acme, &hr, &proven.secret, &plain()).await;
    deleted.expect("deleted");
    let grant = TokenGrant::ClientCredentials;
    let refusal = world.request(TokenClient::Secret(&proven), grant, "public", None).await;
    let cause = refusal.expect_err("refused").cause.map(|cause| cause.reason);
    assert_eq!(cause, Some(Reason::CredentialUnknown));
}

#[tokio::test]
async fn t35_a_token_that_is_too_long_is_not_issued() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let long = |n: usize| format!("{}{n}", "s".repeat(100));
    let list: String = (0..80).map(|n| format!("  {}: \n", long(n))).collect();
    let yaml = format!("audiences: {{ public: }}\nscopes:\n{list}");
    world.session().apply_catalog(&yaml, &plain()).await.expect("applied");
    let all: Vec<_> = (0..80).map(|n| Scope::parse(long(n)).expect("a scope")).collect();
    let acme = company("acme");
    let add = CompanyChange::AddScopes(all.clone());
    world.session().change_company(&acme, &add, &plain()).await.expect("added");
    let grant = CredentialChange::Grant { scopes: all.clone(), expires_at: None };
    let hr = credential("hr");
    world.session().change_credential(&acme, &hr, &grant, &plain()).await.expect("granted");
    let proven = world.proven().await;
    let grant = || TokenGrant::ClientCredentials;
    let client = TokenClient::Secret(&proven);
    let refusal = world.request(client, grant(), "public", None).await.expect_err("refused");
    assert_eq!(refusal.error, TokenError::InvalidScope);
    let some: Vec<_> = all.iter().take(30).map(Scope::as_str).collect();
    let issued = world.request(client, grant(), "public", Some(&some)).await.expect("issued");
    assert!(issued.text.len() <= MAX_ISSUED_BYTES);
}

/// T27, row by row. A token that was not ended stays valid.
#[tokio::test]
async fn t27_a_token_ends_with_everything_that_it_rests_on() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let (acme, hr) = (company("acme"), credential("hr"));
    let session = world.session();
    let bystander = world.issue("public", Some(&["read"])).await.text;

    // Its own id; and the id of the token that it was exchanged with.
    let (one, actor) =
        (world.issue("public", Some(&["read"])).await, world.issue("public", Some(&["act"])).await);
    let exchanged = world.exchange(Some(&actor.text)).await.text;
    let by_secret = world.exchange(None).await.text;
    assert!(world.is_allowed(&one.text).await && world.is_allowed(&exchanged).await);
    assert!(matches!(world.revoke(&one.text).await, Revocation::Revoked(Some(_))));
    assert_eq!(world.fault(&one.text).await, Some(DenialCause::Revoked));
    assert!(world.is_allowed(&exchanged).await);
    world.revoke(&actor.text).await;
    assert_eq!(world.fault(&exchanged).await, Some(DenialCause::Revoked));
    assert!(world.is_allowed(&by_secret).await && world.is_allowed(&bystander).await);
    // Revoked already, or no token: nothing is committed.
    for nothing in [&one.text, &actor.text, "x", "", "a.b.c", &bystander[..bystander.len() - 9]] {
        assert_eq!(world.revoke(nothing).await, Revocation::Revoked(None), "{nothing}");
    }
    // Its revocation is in the audit log, by the client.
    let changes = session.signing_keys().await.expect("read").revision;
    assert!(changes > Revision::ZERO);

    // Its user.
    session.delete_user(&acme, &user("ada"), &plain()).await.expect("deleted");
    assert_eq!(world.fault(&by_secret).await, Some(DenialCause::Recreated));
    session.put_user(&acme, &user("ada"), &[name("member")], &plain()).await.expect("put");
    assert_eq!(world.fault(&by_secret).await, Some(DenialCause::Recreated));
    assert!(world.is_allowed(&bystander).await);

    // All of the credential's, until now.
    session.revoke_tokens(&acme, &hr, None, &plain()).await.expect("revoked");
    assert_eq!(world.fault(&bystander).await, Some(DenialCause::Revoked));
    let later = world.issue("public", Some(&["read"])).await.text;
    assert!(world.is_allowed(&later).await, "issued at this revision");
    let earlier = Some(Timestamp::UNIX_EPOCH);
    let written = session.revoke_tokens(&acme, &hr, earlier, &plain()).await.expect("revoked");
    assert_eq!(world.fault(&later).await, Some(DenialCause::Revoked));
    let view = written.resource.expect("a credential");
    assert!(view.credential.revoked_tokens.issued_before > earlier, "it never goes back");
    let ahead = |minutes| Some(Timestamp::now() + SignedDuration::from_mins(minutes));
    let far = session.revoke_tokens(&acme, &hr, ahead(6), &plain()).await;
    assert_eq!(far.expect_err("refused"), AuthorityError::RevokedTooFarAhead);
    session.revoke_tokens(&acme, &hr, ahead(4), &plain()).await.expect("revoked");

    // Its secret.
    let by_first = world.issue("public", Some(&["read"])).await.text;
    let first = world.proven().await;
    let made = session.create_secret(&acme, &hr, &plain()).await.expect("made");
    let second = world.proven_by(&made.secret.expect("a secret"), "hr").await.expect("right");
    let grant = TokenGrant::ClientCredentials;
    let by_second = TokenClient::Secret(&second);
    let by_second = world.request(by_second, grant, "public", Some(&["read"])).await;
    let by_second = by_second.expect("issued").text;
    session.delete_secret(&acme, &hr, &first.secret, &plain()).await.expect("deleted");
    assert_eq!(world.fault(&by_first).await, Some(DenialCause::SecretDeleted));
    assert!(world.is_allowed(&by_second).await);

    // Its key.
    let keys = session.signing_keys().await.expect("read").resource;
    session.delete_signing_key(&keys[0].id, &plain()).await.expect("deleted");
    assert_eq!(world.fault(&by_second).await, Some(DenialCause::KeyUnknown));

    // Its credential, and its company.
    let secret = furnish(&world.authority).await;
    let world = world.with_secret(secret);
    let session = world.session();
    let of_credential = world.issue("public", Some(&["read"])).await.text;
    let delete = CredentialChange::Delete;
    session.change_credential(&acme, &hr, &delete, &plain()).await.expect("deleted");
    let secret = furnish(&world.authority).await;
    let world = world.with_secret(secret);
    assert_eq!(world.fault(&of_credential).await, Some(DenialCause::Recreated));
    let of_company = world.issue("public", Some(&["read"])).await.text;
    assert!(world.is_allowed(&of_company).await);
    let session = world.session();
    session.change_company(&acme, &CompanyChange::Delete, &plain()).await.expect("deleted");
    let gone = world.verdict(&of_company, "public", "read").await;
    assert!(matches!(gone, Verdict::Denied { reason: Reason::CompanyUnknown, .. }));
    furnish(&world.authority).await;
    assert_eq!(world.fault(&of_company).await, Some(DenialCause::Recreated));
}

#[tokio::test]
async fn t27_many_revoked_tokens_of_a_user_end_all_until_then() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let (kept, own) =
        (world.exchange(None).await.text, world.issue("public", Some(&["read"])).await);
    for n in 0..9 {
        assert!(world.is_allowed(&kept).await, "{n}");
        let token = world.exchange(None).await.text;
        assert!(matches!(world.revoke(&token).await, Revocation::Revoked(Some(_))));
    }
    assert_eq!(world.fault(&kept).await, Some(DenialCause::Revoked));
    assert!(world.is_allowed(&own.text).await, "it has no user");
    assert!(world.is_allowed(&world.exchange(None).await.text).await, "issued since");
}

#[tokio::test]
async fn t36_a_client_revokes_its_own_tokens_only() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let token = world.issue("public", Some(&["read"])).await.text;
    let idp = Signer::new("ES256", "a");
    let yaml = format!(
        "{CATALOG}issuers:\n  https://id.example.org/:\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    jwks: {}\n",
        key_set([&idp])
    );
    world.session().apply_catalog(&yaml, &plain()).await.expect("applied");
    let foreign = idp.token(&json!({ "iss": "https://id.example.org/", "exp": now() + 60 }));
    assert_eq!(world.revoke(&foreign).await, Revocation::OfOtherIssuer);
    let new = NewCredential {
        company: company("acme"),
        id: credential("bi"),
        label: String::new(),
        scopes: vec![],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    let session = world.session();
    session.create_credential(&new, &plain()).await.expect("created");
    let made = session.create_secret(&company("acme"), &credential("bi"), &plain()).await;
    let bi = made.expect("made").secret.expect("a secret");
    let bi = world.proven_by(&bi, "bi").await.expect("right");
    let revoked = session.revoke_token(&bi, &token).await.expect("an answer");
    assert_eq!(revoked, Revocation::OfOtherClient);
    assert!(world.is_allowed(&token).await);
}

/// T37: a client that issues and revokes tokens without end uses up nothing of its company's day, and the
/// end of that day does not keep a token valid.
#[tokio::test]
async fn t36_revocations_by_clients_use_no_bytes_of_the_companys_day() {
    let dir = dir();
    let secret = World::new(dir.path()).await.close();
    let quotas = Quotas { bytes_per_day: 32 << 10, ..Quotas::NONE };
    let store = Store::open(dir.path()).expect("opened").bounding_companies(quotas);
    let world = World::of(Arc::new(store), dir.path(), &secret);
    let revoked = async |count: usize| {
        for _ in 0..count {
            let token = world.issue("public", Some(&["read"])).await.text;
            assert!(matches!(world.revoke(&token).await, Revocation::Revoked(Some(_))));
            assert_eq!(world.fault(&token).await, Some(DenialCause::Revoked));
        }
    };
    revoked(10).await;
    let (acme, session) = (company("acme"), world.session());
    let put = async |n: usize| {
        let (user, reason) = (user(&format!("u{n}")), "x".repeat(900));
        let options = WriteOptions { reason, ..plain() };
        session.put_user(&acme, &user, &[name("member")], &options).await
    };
    put(0).await.expect("the day's bytes are all there");
    for n in 1.. {
        assert!(n < 100, "there is no limit");
        if put(n).await.is_err() {
            break;
        }
    }
    revoked(1).await;
    // Their own account has the same quota.
    for n in 1.. {
        assert!(n < 200, "there is no limit");
        let token = world.issue("public", Some(&["read"])).await.text;
        let proven = world.proven().await;
        let session = world.authority.internal_session("client");
        if session.revoke_token(&proven, &token).await.is_err() {
            assert_eq!(world.fault(&token).await, None, "it was not revoked");
            break;
        }
    }
}

#[tokio::test]
async fn t36_introspection_tells_what_a_check_would_allow() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let issued = world.issue("public", Some(&["read", "act"])).await;
    let active = world.active(&issued.text, None).await.expect("active");
    assert_eq!((active.scopes, active.own_scopes), (scopes(&["act", "read"]), vec![]));
    assert_eq!((&*active.issuer, active.subject.as_str()), (ISSUER, "acme/hr"));
    assert_eq!((active.id.as_deref(), active.user), (Some(issued.id.as_str()), None));
    let aud: Vec<_> = active.audiences.iter().map(|aud| &**aud).collect();
    assert_eq!(aud, ["public", "https://api.example.org", "urn:api"]);
    assert_eq!(world.active(&issued.text, Some("hooks")).await, None, "not of this audience");
    assert!(world.active(&issued.text, Some("public")).await.is_some());
    // What reaches the user's own records only is apart.
    let proven = world.proven().await;
    let both = world.request(TokenClient::Secret(&proven), exchange("ada"), "lxp", None).await;
    let both = both.expect("issued").text;
    let active = world.active(&both, None).await.expect("active");
    assert_eq!((active.scopes, active.own_scopes), (scopes(&["read"]), scopes(&["write"])));
    assert_eq!(active.user, Some(user("ada")));
    assert_eq!(active.subject, "acme/hr/ada");
    // A client is told of its own tokens only, and a bound service of those of its companies.
    let session = world.session();
    let own = session.introspect(Introspector::Client(&proven), &issued.text, None, None).await;
    assert!(matches!(own, Ok(Introspection::Active(_))));
    let mut other = proven.clone();
    other.credential = credential("bi");
    let other = session.introspect(Introspector::Client(&other), &issued.text, None, None).await;
    assert_eq!(other, Ok(Introspection::Inactive));
    let mut new = scopegate::authority::api_keys::NewKey {
        name: name("gateway"),
        roles: scopegate::policy::role::Roles::NONE.with(scopegate::policy::role::Role::Operator),
        companies: vec![],
        certificate: None,
        certificate_only: false,
        expires_at: None,
    };
    session.create_key(&new, &plain()).await.expect("created");
    new.companies = vec![company("other")];
    let bound = session.create_key(&new, &plain()).await.expect("created");
    let caller = Caller::Key(bound.key.expect("a key").key);
    let bound = world.authority.session(caller);
    let hidden = bound.introspect(Introspector::Service, &issued.text, None, None).await;
    assert_eq!(hidden, Ok(Introspection::Inactive));
    // What is over is over.
    world.revoke(&issued.text).await;
    assert_eq!(world.active(&issued.text, None).await, None);
    for nothing in ["", "x", "a.b.c", &both[..both.len() - 9]] {
        assert_eq!(world.active(nothing, None).await, None);
    }
    let update = CompanyChange::Update { display_name: None, enabled: Some(false) };
    session.change_company(&company("acme"), &update, &plain()).await.expect("disabled");
    assert_eq!(world.active(&both, None).await, None, "a row with status 401");
}

/// A token of several audiences has the scopes that all of them allow.
#[tokio::test]
async fn t36_a_token_of_several_audiences_has_what_all_of_them_allow() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let idp = Signer::new("ES256", "a");
    let yaml = format!(
        "{CATALOG}issuers:\n  https://id.example.org/:\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    user: none\n    audiences: {{ a: public, b: hooks }}\n    jwks: {}\n",
        key_set([&idp])
    );
    world.session().apply_catalog(&yaml, &plain()).await.expect("applied");
    let token = idp.token(&json!({
        "iss": "https://id.example.org/", "exp": now() + 60, "iat": now() - 1, "client_id": "hr",
        "aud": ["a", "b"], "scope": "all hook",
    }));
    let scopes_of = async |audience| world.active(&token, audience).await.expect("active").scopes;
    assert_eq!(scopes_of(None).await, scopes(&["all"]));
    assert_eq!(scopes_of(Some("public")).await, scopes(&["all", "read", "write"]));
    assert_eq!(scopes_of(Some("hooks")).await, scopes(&["all", "hook"]));
    // Nobody knows of which lives such a token is: its time decides.
    let (acme, hr) = (company("acme"), credential("hr"));
    let before = Some(Timestamp::from_second(now() - 2).expect("a time"));
    world.session().revoke_tokens(&acme, &hr, before, &plain()).await.expect("revoked");
    assert!(world.active(&token, None).await.is_some());
    let at = Some(Timestamp::from_second(now() - 1).expect("a time"));
    world.session().revoke_tokens(&acme, &hr, at, &plain()).await.expect("revoked");
    assert_eq!(world.active(&token, None).await, None);
    let undated = idp.token(&json!({
        "iss": "https://id.example.org/", "exp": now() + 60, "client_id": "hr", "aud": "a",
        "scope": "all",
    }));
    assert_eq!(world.active(&undated, None).await, None);
}

#[tokio::test]
async fn t28_keys_are_published_rotated_and_deleted() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let session = world.session();
    let files = || {
        let all = std::fs::read_dir(dir.path().join("signing-keys")).expect("a directory");
        all.map(|file| file.expect("a file").file_name().into_string().expect("a name"))
            .collect::<BTreeSet<_>>()
    };
    let states = async || {
        let keys = world.session().signing_keys().await.expect("read").resource;
        keys.iter().map(|key| (key.id, key.state)).collect::<Vec<_>>()
    };
    let first = states().await[0].0;
    let by_first = world.issue("public", Some(&["read"])).await.text;
    let dry = WriteOptions { validate_only: true, ..plain() };
    for publish_only in [true, false] {
        session.rotate_signing_key(publish_only, &dry).await.expect("a preview");
    }
    assert_eq!((states().await.len(), files().len()), (1, 1), "a dry run makes nothing");
    let next = session.rotate_signing_key(true, &plain()).await.expect("published");
    let again = session.rotate_signing_key(true, &plain()).await.expect("published");
    assert_eq!(next, again, "nothing changed");
    let second = next.key.expect("a key").id;
    assert_eq!(states().await, [(first, KeyState::Current), (second, KeyState::Next)]);
    session.rotate_signing_key(false, &plain()).await.expect("rotated");
    assert_eq!(states().await, [(first, KeyState::Previous), (second, KeyState::Current)]);
    let by_second = world.issue("public", Some(&["read"])).await.text;
    assert_eq!(part(&by_second, 0)["kid"], json!(second.to_string()));
    assert!(world.is_allowed(&by_first).await && world.is_allowed(&by_second).await);
    // Deleting the current key makes a new one, in the same change.
    session.delete_signing_key(&second, &plain()).await.expect("deleted");
    let now = states().await;
    assert_eq!((now[0], now[1].1, now.len()), ((first, KeyState::Previous), KeyState::Current, 2));
    assert_eq!(world.fault(&by_second).await, Some(DenialCause::KeyUnknown));
    assert!(world.is_allowed(&by_first).await);
    assert!(world.is_allowed(&world.issue("public", Some(&["read"])).await.text).await);
    let name = |id: &dyn ToString| format!("{}.pem", id.to_string());
    assert_eq!(files(), BTreeSet::from([name(&first), name(&now[1].0)]), "no other file is left");
    let unknown = session.delete_signing_key(&second, &plain()).await;
    assert_eq!(unknown.expect_err("refused"), AuthorityError::SigningKeyNotFound(second));
    // The etag is that of all keys.
    let etag = session.signing_keys().await.expect("read").etag;
    session.rotate_signing_key(false, &plain()).await.expect("rotated");
    let stale = WriteOptions { etag: Some(etag), ..plain() };
    let refused = session.rotate_signing_key(false, &stale).await.expect_err("refused");
    assert_eq!(refused, AuthorityError::EtagStale);
    assert_eq!(files().len(), 3, "the loser's file is gone");
    for n in 0.. {
        match session.rotate_signing_key(false, &plain()).await {
            Ok(_) => assert!(n < 20),
            Err(error) => {
                assert_eq!(error, AuthorityError::TooManySigningKeys(16));
                break;
            }
        }
    }
    assert_eq!(files().len(), 16);
}

#[tokio::test]
async fn t28_without_a_file_of_the_current_key_another_one_signs_from_the_next_start_on() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let token = world.issue("public", Some(&["read"])).await.text;
    let secret = world.close();
    std::fs::remove_dir_all(dir.path().join("signing-keys")).expect("removed");
    let world = World::reopened(dir.path(), &secret);
    // It verifies, and does not issue.
    assert!(world.is_allowed(&token).await);
    let proven = world.proven().await;
    let request = TokenRequest {
        client: TokenClient::Secret(&proven),
        grant: TokenGrant::ClientCredentials,
        audience: Some(name("public")),
        scopes: None,
    };
    let refused = world.session().issue_token(&request).await;
    assert_eq!(refused.map(drop), Err(AuthorityError::CannotSign));
    world.authority.prepare_signing_keys().await.expect("a key");
    assert!(world.is_allowed(&token).await, "the lost key verifies still");
    assert!(world.is_allowed(&world.issue("public", Some(&["read"])).await.text).await);
    // Without an issuer, its tokens are those of nobody.
    let world = World { authority: world.authority.with_own_issuer(None), ..world };
    assert_eq!(world.fault(&token).await, Some(DenialCause::IssuerUnknown));
}

#[tokio::test]
async fn t27_setting_the_time_back_ends_all_own_tokens() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    let token = world.issue("public", Some(&["read"])).await.text;
    let ahead = Timestamp::now() + SignedDuration::from_hours(1);
    world.store.persist_time(ahead).expect("queued").await.expect("durable");
    let secret = world.close();
    // The time of the store alone ends what has expired by it.
    let world = World::reopened(dir.path(), &secret);
    let late = world.verdict(&token, "public", "read").await;
    assert!(matches!(late, Verdict::Denied { reason: Reason::TokenExpired, .. }), "{late:?}");
    let secret = world.close();
    let mut store = Store::open(dir.path()).expect("opened");
    let author = scopegate::policy::change::Author::default();
    assert!(
        store
            .accept_clock(Timestamp::now(), author, &Default::default())
            .expect("accepted")
            .is_some()
    );
    let world = World::of(Arc::new(store), dir.path(), &secret);
    assert_eq!(world.fault(&token).await, Some(DenialCause::OtherStore));
    assert!(world.is_allowed(&world.issue("public", Some(&["read"])).await.text).await);
}

/// What was revoked while the clock was years ahead, one by one and by a restore, stays revoked when the
/// time is set back, and no token from then on is refused. A restore keeps that.
#[tokio::test]
async fn t27_setting_the_time_back_ends_the_revocations_of_later_times() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    let idp = Signer::new("ES256", "a");
    let world = World::new(&at("a")).await;
    let yaml = format!(
        "{CATALOG}issuers:\n  https://id.example.org/:\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    user: none\n    audiences: {{ public: public }}\n    jwks: {}\n",
        key_set([&idp])
    );
    world.session().apply_catalog(&yaml, &plain()).await.expect("applied");
    let issued = |iat: i64| {
        idp.token(&json!({
            "iss": "https://id.example.org/", "exp": now() + 86_400, "iat": iat,
            "client_id": "hr", "aud": "public", "scope": "read",
        }))
    };
    let before = issued(now() - 7200);
    assert!(world.is_allowed(&before).await);
    let years = Timestamp::now() + SignedDuration::from_hours(24 * 900);
    world.store.persist_time(years).expect("queued").await.expect("durable");
    let secret = world.close();
    let world = World::reopened(&at("a"), &secret);
    let written =
        world.session().revoke_tokens(&company("acme"), &credential("hr"), None, &plain()).await;
    let credential = written.expect("revoked").resource.expect("a credential").credential;
    let ahead = Timestamp::now() + SignedDuration::from_hours(24 * 800);
    assert!(credential.revoked_tokens.issued_before > Some(ahead));
    world.session().rotate_signing_key(false, &plain()).await.expect("rotated");
    let bytes = backup(&world);
    let secret = world.close();
    let author = scopegate::policy::change::Author::default;
    let accept = |name: &str| {
        let mut store = Store::open(&at(name)).expect("opened");
        let accepted = Timestamp::now() - SignedDuration::from_mins(30);
        assert!(
            store
                .accept_clock(accepted, author(), &Default::default())
                .expect("accepted")
                .is_some()
        );
        (World::of(Arc::new(store), &at(name), &secret), accepted.as_second())
    };
    // The store, and a restore of its backup while the time is wrong.
    scopegate::store::restore(&at("b"), &bytes[..], author(), Timestamp::now()).expect("restored");
    for name in ["a", "b"] {
        let (world, accepted) = accept(name);
        let (last, after) = (issued(accepted + 299), issued(accepted + 301));
        // The keys are replaced and deleted by the time of now.
        let keys = world.session().signing_keys().await.expect("read").resource;
        assert!(keys.iter().all(|key| key.state_time.as_second() <= accepted), "{name}");
        assert_eq!(world.fault(&before).await, Some(DenialCause::Revoked), "{name}");
        assert_eq!(world.fault(&last).await, Some(DenialCause::Revoked), "{name}");
        assert!(world.is_allowed(&after).await, "{name}");
        // A restore of a later backup.
        let bytes = backup(&world);
        let copy = format!("{name} restored");
        let restored_at = Timestamp::now() - SignedDuration::from_mins(10);
        scopegate::store::restore(&at(&copy), &bytes[..], author(), restored_at).expect("restored");
        let world = World::reopened(&at(&copy), &secret);
        let (last, after) = (issued(now() - 660), issued(now() - 60));
        assert_eq!(world.fault(&last).await, Some(DenialCause::Revoked), "{copy}");
        assert!(world.is_allowed(&after).await, "{copy}");
    }
}

fn backup(world: &World) -> Vec<u8> {
    let mut backup = world.store.backup().expect("begun");
    let mut bytes = Vec::new();
    while let Some(part) = backup.next_part().expect("a part") {
        bytes.extend(part);
    }
    bytes
}

#[tokio::test]
async fn t24_no_issuer_of_the_catalog_has_the_name_of_the_server() {
    let dir = dir();
    let world = World::new(dir.path()).await;
    for (issuer, alias) in [(ISSUER, "x"), ("x", ISSUER)] {
        let yaml = format!(
            "{CATALOG}issuers:\n  {issuer}:\n    aliases: [\"{alias}\"]\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    jwks_file: a\n",
        );
        let refused = world.session().apply_catalog(&yaml, &plain()).await.expect_err("refused");
        let expected = AuthorityError::IssuerIsOwn(ISSUER.to_owned());
        assert_eq!(refused.to_string(), expected.to_string());
    }
}

/// D12: a revocation that was acknowledged before a check starts is seen by it, with everything cached
/// and with next to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d12_no_token_is_good_after_the_acknowledgement_of_what_ends_it() {
    for cache_entries in [1, 10_000] {
        let dir = dir();
        let world = Arc::new(World::with_cache(dir.path(), cache_entries).await);
        for round in 0..12 {
            let token = world.exchange(None).await.text;
            assert!(world.is_allowed(&token).await);
            let is_over = Arc::new(AtomicBool::new(false));
            let askers: Vec<_> = (0..4)
                .map(|_| {
                    let (world, token) = (Arc::clone(&world), token.clone());
                    let is_over = Arc::clone(&is_over);
                    tokio::spawn(async move {
                        loop {
                            let was_over = is_over.load(Ordering::SeqCst);
                            let allowed = world.is_allowed(&token).await;
                            assert!(!(was_over && allowed), "after the acknowledgement");
                            if was_over {
                                return;
                            }
                            tokio::task::yield_now().await;
                        }
                    })
                })
                .collect();
            let (acme, hr) = (company("acme"), credential("hr"));
            let session = world.session();
            match round % 4 {
                0 => drop(world.revoke(&token).await),
                1 => {
                    drop(session.revoke_tokens(&acme, &hr, None, &plain()).await.expect("revoked"))
                }
                2 => {
                    let ada = user("ada");
                    session.delete_user(&acme, &ada, &plain()).await.expect("deleted");
                    is_over.store(true, Ordering::SeqCst);
                    let roles = [name("member")];
                    session.put_user(&acme, &ada, &roles, &plain()).await.expect("put");
                }
                _ => {
                    let keys = session.signing_keys().await.expect("read").resource;
                    let current = keys.iter().rfind(|key| key.state == KeyState::Current);
                    let id = current.expect("a key").id;
                    session.delete_signing_key(&id, &plain()).await.expect("deleted");
                }
            }
            is_over.store(true, Ordering::SeqCst);
            for asker in askers {
                asker.await.expect("no panic");
            }
        }
    }
}

/// T28, T33: a thief with a stolen signing key makes an actor token and exchanges it. What it got ends
/// with the key, also what is exchanged while the key is deleted, and also where it was verified before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t28_a_deleted_key_ends_what_was_exchanged_with_its_tokens() {
    let dir = dir();
    let world = Arc::new(World::new(dir.path()).await);
    for _ in 0..8 {
        let actor = world.issue("public", Some(&["act"])).await.text;
        let stolen = part(&actor, 0)["kid"].as_str().and_then(Thumbprint::parse).expect("a key");
        // Another key signs what is exchanged.
        world.session().rotate_signing_key(false, &plain()).await.expect("rotated");
        let by_secret = world.exchange(None).await.text;
        let before = world.exchange(Some(&actor)).await.text;
        assert!(
            part(&before, 0)["kid"] != part(&actor, 0)["kid"] && world.is_allowed(&before).await
        );
        let exchangers: Vec<_> = (0..4)
            .map(|_| {
                let (world, actor) = (Arc::clone(&world), actor.clone());
                tokio::spawn(async move {
                    let mut exchanged = Vec::new();
                    let client = TokenClient::Actor { token: &actor, secret: None, company: None };
                    loop {
                        let read = Some(&["read"][..]);
                        match world.request(client, exchange("ada"), "lxp", read).await {
                            Ok(token) => exchanged.push(token.text),
                            Err(refusal) => {
                                assert_eq!(refusal.error, TokenError::InvalidRequest);
                                return exchanged;
                            }
                        }
                    }
                })
            })
            .collect();
        world.session().delete_signing_key(&stolen, &plain()).await.expect("deleted");
        for exchanger in exchangers {
            for token in exchanger.await.expect("no panic") {
                assert_eq!(world.fault(&token).await, Some(DenialCause::KeyUnknown));
            }
        }
        assert_eq!(world.fault(&before).await, Some(DenialCause::KeyUnknown));
        assert!(world.is_allowed(&by_secret).await, "its client proved itself by a secret");
    }
}

/// The files of a directory, as they are after the process was killed.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn t36_a_revocation_is_in_force_after_a_crash() {
    let (dir, copies) = (dir(), dir());
    let world = World::new(dir.path()).await;
    for n in 0..4 {
        let (token, kept) = (
            world.issue("public", Some(&["read"])).await.text,
            world.issue("public", Some(&["read"])).await.text,
        );
        world.revoke(&token).await;
        let crashed = copies.path().join(n.to_string());
        copy(dir.path(), &crashed);
        let world = World::reopened(&crashed, &world.secret);
        assert_eq!(world.fault(&token).await, Some(DenialCause::Revoked), "{n}");
        assert!(world.is_allowed(&kept).await, "{n}");
    }
}

/// A token that was issued in this directory, by a process that is gone.
async fn issued_in(dir: &Path) -> (String, SecretText) {
    let world = World::new(dir).await;
    (world.issue("public", Some(&["read"])).await.text, world.close())
}

fn serve(dir: &Path, args: &[&str]) -> Server {
    Server::start(dir, &[&["--issuer", ISSUER], args].concat())
}

fn check(token: &str) -> CheckRequest {
    CheckRequest {
        scopes: owned(&["read"]),
        audience: "public".to_owned(),
        bearer_token: Some(token.to_owned()),
        ..Default::default()
    }
}

async fn reason(client: &Client, token: &str) -> Reason_ {
    client.ask(check(token)).await.expect("an answer").reason()
}

type Reason_ = scopegate::proto::Reason;

async fn revoke_tokens(client: &Client, before: Option<i64>) -> Result<Credential, tonic::Status> {
    let request = RevokeTokensRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        issued_before: before.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    };
    let done = client.directory.clone().revoke_tokens(request).await?;
    Ok(done.into_inner().credential.expect("a credential"))
}

#[tokio::test]
async fn an_own_token_is_decided_over_the_wire_until_it_is_revoked() {
    let dir = dir();
    let (token, _) = issued_in(dir.path()).await;
    let server = serve(dir.path(), &[]);
    let client = server.client().await;
    let answer = client.ask(check(&token)).await.expect("an answer");
    let of = (answer.company_id.as_str(), answer.credential_id.as_str());
    assert_eq!((answer.decision(), of), (Decision::Allowed, ("acme", "hr")));
    let far = revoke_tokens(&client, Some(now() + 600)).await.expect_err("refused");
    assert_eq!(far.code(), Code::InvalidArgument);
    let credential = revoke_tokens(&client, None).await.expect("revoked");
    assert!(credential.tokens_valid_from.is_some_and(|time| (time.seconds - now()).abs() < 60));
    assert_eq!(reason(&client, &token).await, Reason_::TokenInvalid);
    // The acknowledgement outlives the process.
    server.kill();
    let server = serve(dir.path(), &[]);
    assert_eq!(reason(&server.client().await, &token).await, Reason_::TokenInvalid);
    let changes = server.client().await.changes.clone();
    let changes = { changes }.list_changes(ListChangesRequest::default()).await.expect("listed");
    let kinds: Vec<_> = changes.into_inner().changes.into_iter().map(|c| c.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "RevokeTokens").count(), 1);
    assert_eq!(kinds.iter().filter(|kind| *kind == "RotateSigningKey").count(), 1);
}

#[tokio::test]
async fn t27_a_restore_ends_all_own_tokens_and_what_other_issuers_issued_until_then() {
    let dir = dir();
    let (source, target, file) =
        (dir.path().join("a"), dir.path().join("b"), dir.path().join("backup"));
    let (token, _) = issued_in(&source).await;
    let idp = Signer::new("ES256", "a");
    let yaml = format!(
        "{CATALOG}issuers:\n  https://id.example.org/:\n    algorithms: [ES256]\n    company: {{ is: acme }}\n    user: none\n    audiences: {{ a: public }}\n    jwks: {}\n",
        key_set([&idp])
    );
    let foreign = |iat: i64| {
        idp.token(&json!({
            "iss": "https://id.example.org/", "exp": now() + 600, "iat": iat, "client_id": "hr",
            "aud": "a", "scope": "read",
        }))
    };
    let before = foreign(now());
    {
        let server = serve(&source, &[]);
        let client = server.client().await;
        let request = ApplyCatalogRequest { yaml, ..Default::default() };
        client.catalog.clone().apply_catalog(request).await.expect("applied");
        assert_eq!(reason(&client, &token).await, Reason_::Allowed);
        assert_eq!(reason(&client, &before).await, Reason_::Allowed);
        run(scopegate().args(["backup", "--endpoint", &server.url(), "--output"]).arg(&file));
    }
    run(scopegate().args(["restore", "--data-dir"]).arg(&target).arg(&file));
    // Its keys are not in the backup. Even with them, the tokens have ended.
    assert!(!target.join("signing-keys").exists());
    copy(&source.join("signing-keys"), &target.join("signing-keys"));
    let server = serve(&target, &[]);
    assert_eq!(reason(&server.client().await, &token).await, Reason_::TokenInvalid);
    // Also in the next process after a crash.
    server.kill();
    let server = serve(&target, &[]);
    let client = server.client().await;
    assert_eq!(reason(&client, &token).await, Reason_::TokenInvalid);
    assert_eq!(reason(&client, &before).await, Reason_::TokenInvalid);
    // The restore was within this second or the one before, and a token may be ahead by the skew.
    assert_eq!(reason(&client, &foreign(now() + 10)).await, Reason_::Allowed);
}

fn run(command: &mut Command) {
    let done = command.output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn t28_private_keys_are_in_files_and_nowhere_else() {
    let dir = dir();
    let (source, backup, export) =
        (dir.path().join("a"), dir.path().join("backup"), dir.path().join("export"));
    let (_, _) = issued_in(&source).await;
    let server = serve(&source, &[]);
    run(scopegate().args(["backup", "--endpoint", &server.url(), "--output"]).arg(&backup));
    run(scopegate().args(["export", "--endpoint", &server.url(), "--output"]).arg(&export));
    let (_, log) = server.end();
    let keys: Vec<PathBuf> = std::fs::read_dir(source.join("signing-keys"))
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .collect();
    assert_eq!(keys.len(), 1);
    let text = std::fs::read_to_string(&keys[0]).expect("a key");
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let pkcs8 = base64::engine::general_purpose::STANDARD.decode(body).expect("base64");
    // The private scalar of a PKCS#8 key of P-256, which is between its headers and its public half.
    let scalar = &pkcs8[36..68];
    let has = |bytes: &[u8]| bytes.windows(scalar.len()).any(|window| window == scalar);
    assert!(has(&pkcs8));
    for file in [&backup, &export] {
        assert!(!has(&std::fs::read(file).expect("read")), "{}", file.display());
    }
    for entry in std::fs::read_dir(&source).expect("a directory") {
        let path = entry.expect("an entry").path();
        let files = if path.is_dir() && !path.ends_with("signing-keys") {
            std::fs::read_dir(&path).expect("a directory").map(|e| e.expect("one").path()).collect()
        } else {
            vec![path]
        };
        for file in files.into_iter().filter(|file| file.is_file()) {
            assert!(!has(&std::fs::read(&file).expect("read")), "{}", file.display());
        }
    }
    assert!(log.iter().all(|line| !line.contains("PRIVATE")));
}

/// A token of a later revision lets its call wait for the revision (T25), and no other call: a caller that
/// does not reach its company is answered as for a forged one (T6).
#[tokio::test]
async fn t6_a_token_of_an_unreached_company_spoils_no_batch() {
    let dir = dir();
    let (ahead, behind) = (dir.path().join("a"), dir.path().join("b"));
    let (_, secret) = issued_in(&ahead).await;
    let operator = bootstrap(&ahead);
    let server = serve(&ahead, &[]);
    let client = Client::connect_as(&server.url(), Some(&operator)).await;
    client.create_company("other", None).await;
    client.create_credential("other", "hr", &["read"]).await;
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["other"]),
        ..Default::default()
    };
    let key = client.keys.clone().create_key(new).await.expect("created").into_inner().secret;
    assert!(server.terminate().success());
    copy(&ahead, &behind);
    let world = World::reopened(&ahead, &secret);
    world.session().put_user(&company("acme"), &user("eve"), &[], &plain()).await.expect("made");
    let token = world.issue("public", Some(&["read"])).await.text;
    world.close();
    let server = serve(&behind, &[]);
    let bound = Client::connect_as(&server.url(), Some(&key)).await;
    let by_ids = CheckRequest {
        bearer_token: None,
        company_id: "other".to_owned(),
        credential_id: "hr".to_owned(),
        ..check(&token)
    };
    let of_other = CheckRequest { company_id: "other".to_owned(), ..check(&token) };
    let batch = BatchCheckRequest { checks: vec![check(&token), of_other, by_ids] };
    let answer = bound.authorization.clone().batch_check(batch).await.expect("an answer");
    let reasons: Vec<_> = answer.into_inner().results.iter().map(|one| one.reason()).collect();
    assert_eq!(reasons, [Reason_::TokenInvalid, Reason_::TokenInvalid, Reason_::Allowed]);
    assert_eq!(reason(&bound, &token).await, Reason_::TokenInvalid);
    let reaches = Client::connect_as(&server.url(), Some(&operator)).await;
    let unreached = reaches.ask(check(&token)).await.expect_err("the revision is not there");
    assert_eq!(unreached.code(), Code::Unavailable, "{unreached}");
}

/// A start removes old files of keys that the store does not have, from its own directory alone.
#[tokio::test]
async fn t28_orphaned_key_files_are_removed_at_the_start() {
    let dir = dir();
    let (data, shared) = (dir.path().join("data"), dir.path().join("shared"));
    let key = bootstrap(&data);
    let oauth = ["--oauth", "127.0.0.1:0"];
    let shared_args = [&oauth[..], &["--signing-keys", shared.to_str().expect("a path")]].concat();
    let files = |dir: &Path| {
        let entries = std::fs::read_dir(dir).expect("a directory");
        entries.map(|entry| entry.expect("one").path()).collect::<BTreeSet<PathBuf>>()
    };
    // Two days old, as are the keys that the store has.
    let orphans = |dir: &Path| {
        let [old, new] = [1, 2].map(|n| dir.join(format!("{}.pem", BASE64.encode([n; 32]))));
        std::fs::write(&old, "old").expect("written");
        for file in files(dir) {
            let file = std::fs::File::options().append(true).open(file).expect("opened");
            file.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).expect("set");
        }
        std::fs::write(&new, "new").expect("written");
        (old, new)
    };
    let own = data.join("signing-keys");
    let server = serve(&data, &oauth);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    for publish_only in [true, false] {
        let request = RotateSigningKeyRequest { publish_only, ..Default::default() };
        client.keys.clone().rotate_signing_key(request).await.expect("rotated");
    }
    server.kill();
    assert_eq!(files(&own).len(), 2, "a previous key and a current one");
    let (old, new) = orphans(&own);
    let before = files(&own);
    let server = serve(&data, &oauth);
    assert_eq!(server.logged("removing the file of a signing key that the store does not"), 1);
    assert_eq!(server.logged("the file of the current signing key is missing"), 0);
    server.kill();
    assert_eq!(before.difference(&files(&own)).collect::<Vec<_>>(), [&old]);
    assert!(files(&own).contains(&new));
    // Another server may have its keys in a directory that a flag names.
    std::fs::rename(&own, &shared).expect("moved");
    orphans(&shared);
    let before = files(&shared);
    let server = serve(&data, &shared_args);
    assert_eq!(server.logged("--signing-keys has files of keys that the store does not have"), 1);
    server.kill();
    assert_eq!(files(&shared), before);
}

/// An address for clients, as far as it is in these tests: the first key is made at the start.
#[tokio::test]
async fn t28_the_first_start_makes_the_first_key_and_a_lost_file_is_told() {
    let dir = dir();
    let key = bootstrap(dir.path());
    let args = ["--oauth", "127.0.0.1:0"];
    let server = serve(dir.path(), &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    let list = async |client: &Client| {
        let list = client.keys.clone().list_signing_keys(ListSigningKeysRequest {}).await;
        list.expect("listed").into_inner().signing_keys
    };
    let first = list(&client).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].state(), SigningKeyState::Current);
    server.kill();
    let server = serve(dir.path(), &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    assert_eq!(list(&client).await, first, "the same key after a crash");
    assert_eq!(server.logged("the file of the current signing key is missing"), 0);
    server.kill();
    std::fs::remove_dir_all(dir.path().join("signing-keys")).expect("removed");
    let server = serve(dir.path(), &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    assert_eq!(server.logged("the file of the current signing key is missing"), 1);
    let now = list(&client).await;
    assert_eq!(now[0].state(), SigningKeyState::Previous);
    assert_eq!((now[1].state(), now.len()), (SigningKeyState::Current, 2));
    let delete = DeleteSigningKeyRequest { key_id: now[0].key_id.clone(), ..Default::default() };
    let deleted = client.keys.clone().delete_signing_key(delete).await.expect("deleted");
    assert_eq!(deleted.into_inner().signing_key.expect("a key").key_id, now[0].key_id);
    let rotated = client.keys.clone().rotate_signing_key(RotateSigningKeyRequest::default()).await;
    let rotated = rotated.expect("rotated").into_inner().signing_key.expect("a key");
    assert_eq!(rotated.state(), SigningKeyState::Current);
    assert_ne!(rotated.key_id, now[1].key_id);
    // A request that is sent again changes nothing.
    let once = RotateSigningKeyRequest {
        request_id: "c9d7a1de-6f5c-4b52-9f0a-2f9be1a0a7d1".to_owned(),
        ..Default::default()
    };
    let rotate = async || {
        let keys = client.keys.clone();
        let done = { keys }.rotate_signing_key(once.clone()).await.expect("rotated");
        done.into_inner()
    };
    assert_eq!(rotate().await, rotate().await);
    let files = std::fs::read_dir(dir.path().join("signing-keys")).expect("a directory").count();
    assert_eq!(files, list(&client).await.len());
    // A directory that cannot be written ends no start: the server serves checks and issues no token.
    let known = list(&client).await;
    server.kill();
    std::fs::remove_dir_all(dir.path().join("signing-keys")).expect("removed");
    std::fs::write(dir.path().join("signing-keys"), "no directory").expect("written");
    let server = serve(dir.path(), &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    assert_eq!(server.logged("no key can sign tokens, so none is issued"), 1);
    assert_eq!(list(&client).await, known);
    // A stolen key can be deleted, also if no other can be written.
    let current = known.iter().find(|key| key.state() == SigningKeyState::Current);
    let key_id = current.expect("a current key").key_id.clone();
    let delete = DeleteSigningKeyRequest { key_id: key_id.clone(), ..Default::default() };
    client.keys.clone().delete_signing_key(delete).await.expect("deleted");
    assert!(list(&client).await.iter().all(|key| key.key_id != key_id));
    server.kill();
    std::fs::remove_file(dir.path().join("signing-keys")).expect("removed");
    let server = serve(dir.path(), &args);
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    let has_current = list(&client).await.iter().any(|key| key.state() == SigningKeyState::Current);
    assert!(has_current, "the next start makes another");
}

#[tokio::test]
async fn a_server_without_an_issuer_has_no_signing_keys() {
    let dir = dir();
    let server = Server::start(dir.path(), &[]);
    let keys = server.client().await.keys;
    let rotated = { keys }.rotate_signing_key(RotateSigningKeyRequest::default()).await;
    assert_eq!(rotated.expect_err("refused").code(), Code::FailedPrecondition);
    assert!(!dir.path().join("signing-keys").exists());
}
