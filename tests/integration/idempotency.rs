//! Requests sent again, over real sockets: the first answer, and nothing changed twice.
use std::path::Path;

use crate::harness;
use crate::harness::{Client, Server, fields, owned, refused};
use scopegate::proto::*;
use scopegate::store::{RequestKey, Store, WriteResult};
use tonic::Code;
use uuid::Uuid;

const REDIRECT_URI: &str = "https://app.example.org/";

async fn served(dir: &Path) -> (Server, Client) {
    let catalog = harness::catalog("horizonwebref.yaml");
    let catalog = catalog.to_str().expect("a path");
    let args = ["--catalog", catalog, "--issuer", "https://id.example.org"];
    let server = Server::start(dir, &args);
    let client = server.client().await;
    (server, client)
}

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

async fn head(client: &Client) -> u64 {
    let list = ListCompaniesRequest::default();
    client.directory.clone().list_companies(list).await.expect("a list").into_inner().revision
}

/// Runs every RPC that changes something, twice each, and returns what can be sent once more.
macro_rules! twice {
    ($client:ident, $($service:ident.$rpc:ident($request:expr);)*) => {{
        let mut kept = Vec::new();
        $(
            let request = { let mut r = $request; r.request_id = new_id(); r };
            let first = $client.$service.clone().$rpc(request.clone()).await;
            let first = first.expect(stringify!($rpc)).into_inner();
            let at = head(&$client).await;
            assert_eq!(at, first.revision, "{} changes something", stringify!($rpc));
            let again = $client.$service.clone().$rpc(request.clone()).await;
            let again = again.expect(stringify!($rpc)).into_inner();
            // The resource is as it is now, so the same; of what is gone there are the ids.
            if again != without_secret(&first) {
                assert_eq!(again, first.clone().to_keep(), stringify!($rpc));
                assert!(stringify!($rpc).starts_with("delete_"), "{}", stringify!($rpc));
            }
            assert_eq!(head(&$client).await, at, "{} changed once", stringify!($rpc));
            let other = { let mut r = request.clone(); r.reason = "another".to_owned(); r };
            let (code, details) = refused($client.$service.clone().$rpc(other).await);
            assert_eq!(code, Code::InvalidArgument, stringify!($rpc));
            assert_eq!(fields(&details), ["request_id"], stringify!($rpc));
            kept.push(Kept::new(first, move |client: Client| {
                let request = request.clone();
                Box::pin(async move {
                    let again = client.$service.clone().$rpc(request).await;
                    format!("{:?}", again.expect(stringify!($rpc)).into_inner())
                })
            }));
        )*
        kept
    }};
}

type Again = std::pin::Pin<Box<dyn Future<Output = String> + Send>>;

/// A response to a change, of which the repetition keeps a part.
trait StoredResponse {
    /// The response with the ids of a resource that no longer exists.
    fn to_keep(self) -> Self;
}

macro_rules! ids {
    ($($resource:ident { $($id:ident),* })*) => {$(
        impl StoredResponse for $resource {
            fn to_keep(self) -> Self {
                Self { $($id: self.$id,)* ..Self::default() }
            }
        }
    )*};
}

ids! {
    Company { company_id }
    Credential { company_id, credential_id }
    User { company_id, user_id }
    Consent { company_id, credential_id, user_id }
}

macro_rules! with_a_resource {
    ($($response:ident { $resource:ident })*) => {$(
        impl StoredResponse for $response {
            fn to_keep(self) -> Self {
                Self { $resource: self.$resource.map(StoredResponse::to_keep), ..self }
            }
        }
    )*};
}

with_a_resource! {
    CreateCompanyResponse { company }
    UpdateCompanyResponse { company }
    DeleteCompanyResponse { company }
    AddCompanyScopesResponse { company }
    RestrictCompanyScopesResponse { company }
    CreateCredentialResponse { credential }
    UpdateCredentialResponse { credential }
    DeleteCredentialResponse { credential }
    GrantScopesResponse { credential }
    RevokeScopesResponse { credential }
    ReplaceScopesResponse { credential }
    ResetScopesResponse { credential }
    DeleteSecretResponse { credential }
    RevokeTokensResponse { credential }
    PutUserResponse { user }
    DeleteUserResponse { user }
    PutConsentResponse { consent }
    DeleteConsentResponse { consent }
}

macro_rules! without_a_resource {
    ($($response:ident)*) => {$(
        impl StoredResponse for $response {
            fn to_keep(self) -> Self {
                self
            }
        }
    )*};
}

without_a_resource! {
    CreateSecretResponse CreateAuthorizationCodeResponse RestoreGrantsResponse ApplyCatalogResponse
}

/// A request and its first answer.
struct Kept {
    first: String,
    again: Box<dyn Fn(Client) -> Again>,
}

impl Kept {
    fn new<M: StoredResponse + Clone + std::fmt::Debug + 'static>(
        first: M,
        again: impl Fn(Client) -> Again + 'static,
    ) -> Self {
        Self { first: format!("{:?}", without_secret(&first).to_keep()), again: Box::new(again) }
    }
}

/// Of an answer, what a repeat gets: all but the text of a new secret or code, and who was affected.
fn without_secret<M: Clone + std::fmt::Debug + 'static>(first: &M) -> M {
    let mut again = first.clone();
    if let Some(made) =
        (&mut again as &mut dyn std::any::Any).downcast_mut::<CreateSecretResponse>()
    {
        assert!(made.secret.starts_with("sgs_") && !made.secret_id.is_empty());
        made.secret.clear();
    }
    if let Some(made) =
        (&mut again as &mut dyn std::any::Any).downcast_mut::<CreateAuthorizationCodeResponse>()
    {
        assert!(made.code.starts_with("sgc_") && made.redirect_to.contains(&made.code));
        made.code.clear();
        made.redirect_to.clear();
    }
    // Who was affected is not told again, only how many.
    if let Some(restricted) =
        (&mut again as &mut dyn std::any::Any).downcast_mut::<RestrictCompanyScopesResponse>()
    {
        restricted.affected_credentials.clear();
    }
    if let Some(applied) =
        (&mut again as &mut dyn std::any::Any).downcast_mut::<ApplyCatalogResponse>()
    {
        applied.affected_companies.clear();
        applied.affected_credentials.clear();
    }
    again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_sent_again_is_answered_as_at_first_also_after_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, client) = served(dir.path()).await;
    let (acme, app, ada) = (|| "acme".to_owned(), || "app".to_owned(), || "ada".to_owned());
    let one = || owned(&["read_organization"]);
    let two = || owned(&["read_organization", "read_personal_account"]);
    client.put_user_roles_catalog().await;
    let masked = |path: &str| Some(prost_types::FieldMask { paths: owned(&[path]) });
    let kept = twice! { client,
        directory.create_company(CreateCompanyRequest { company_id: acme(), ..Default::default() });
        directory.update_company(UpdateCompanyRequest {
            company_id: acme(), display_name: "Acme".to_owned(),
            update_mask: masked("display_name"), ..Default::default()
        });
        directory.create_credential(CreateCredentialRequest {
            company_id: acme(), credential_id: app(), redirect_uris: owned(&[REDIRECT_URI]),
            ..Default::default()
        });
        directory.update_credential(UpdateCredentialRequest {
            company_id: acme(), credential_id: app(), label: "App".to_owned(),
            update_mask: masked("label"), ..Default::default()
        });
        authorization.grant_scopes(GrantScopesRequest {
            company_id: acme(), credential_id: app(), scopes: two(), ..Default::default()
        });
        authorization.revoke_scopes(RevokeScopesRequest {
            company_id: acme(), credential_id: app(), scopes: one(), ..Default::default()
        });
        authorization.replace_scopes(ReplaceScopesRequest {
            company_id: acme(), credential_id: app(), scopes: one(), ..Default::default()
        });
        authorization.reset_scopes(ResetScopesRequest {
            company_id: acme(), credential_id: app(), ..Default::default()
        });
        directory.create_secret(CreateSecretRequest {
            company_id: acme(), credential_id: app(), ..Default::default()
        });
        directory.revoke_tokens(RevokeTokensRequest {
            company_id: acme(), credential_id: app(), ..Default::default()
        });
        directory.put_user(PutUserRequest {
            company_id: acme(), user_id: ada(), roles: owned(&["reader"]), ..Default::default()
        });
        directory.put_consent(PutConsentRequest {
            company_id: acme(), credential_id: app(), user_id: ada(), scopes: one(),
            ..Default::default()
        });
        directory.create_authorization_code(CreateAuthorizationCodeRequest {
            company_id: acme(), credential_id: app(), user_id: ada(), scopes: one(),
            redirect_uri: REDIRECT_URI.to_owned(),
            code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
            ..Default::default()
        });
        directory.delete_consent(DeleteConsentRequest {
            company_id: acme(), credential_id: app(), user_id: ada(), ..Default::default()
        });
        directory.delete_user(DeleteUserRequest {
            company_id: acme(), user_id: ada(), ..Default::default()
        });
        authorization.restrict_company_scopes(RestrictCompanyScopesRequest {
            company_id: acme(), scopes: one(), acknowledge_impact: true, ..Default::default()
        });
        authorization.add_company_scopes(AddCompanyScopesRequest {
            company_id: acme(), scopes: one(), ..Default::default()
        });
        authorization.restore_grants(RestoreGrantsRequest {
            company_id: acme(), scopes: one(),
            restricted_at_revision: head(&client).await - 1, ..Default::default()
        });
        directory.delete_secret(DeleteSecretRequest {
            company_id: acme(), credential_id: app(),
            secret_id: client.credential("acme", "app").await.expect("there").secret_ids[0].clone(),
            ..Default::default()
        });
        catalog.apply_catalog(ApplyCatalogRequest {
            yaml: "scopes: { read_organization: , other: }\nroles: { reader: { scopes: { other: all } } }".to_owned(), ..Default::default()
        });
        directory.delete_credential(DeleteCredentialRequest {
            company_id: acme(), credential_id: app(), ..Default::default()
        });
        directory.delete_company(DeleteCompanyRequest { company_id: acme(), ..Default::default() });
    };
    let at = head(&client).await;
    server.kill();
    // What they named is long gone, and another catalog is in force: of the resources there are
    // only the ids, and all else of the answers stands.
    let server = Server::start(dir.path(), &["--issuer", "https://id.example.org"]);
    let client = server.client().await;
    for Kept { first, again } in &kept {
        assert_eq!(again(client.clone()).await, *first);
    }
    assert_eq!(head(&client).await, at, "nothing changed");
}

impl Client {
    /// A catalog with a role that may read what the tests grant.
    async fn put_user_roles_catalog(&self) {
        let yaml = "
scopes: { read_organization: , read_personal_account: }
roles: { reader: { scopes: { read_organization: all } } }";
        let request = ApplyCatalogRequest { yaml: yaml.to_owned(), ..Default::default() };
        self.catalog.clone().apply_catalog(request).await.expect("applied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_duplicates_change_once_and_get_equal_responses() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path()).await;
    for round in 0..20 {
        let company = format!("c{round}");
        let create = CreateCompanyRequest {
            company_id: company.clone(),
            request_id: new_id(),
            ..Default::default()
        };
        let before = head(&client).await;
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (mut directory, create) = (client.directory.clone(), create.clone());
                tokio::spawn(async move { directory.create_company(create).await })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("done").expect("created").into_inner());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(head(&client).await, before + 1, "created once");
        client.create_credential(&company, "app", &[]).await;
        let secret = CreateSecretRequest {
            company_id: company.clone(),
            credential_id: "app".to_owned(),
            request_id: new_id(),
            ..Default::default()
        };
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (mut directory, secret) = (client.directory.clone(), secret.clone());
                tokio::spawn(async move { directory.create_secret(secret).await })
            })
            .collect();
        let mut shown = 0;
        let mut ids = std::collections::BTreeSet::new();
        for task in tasks {
            let made = task.await.expect("done").expect("created").into_inner();
            shown += u32::from(!made.secret.is_empty());
            ids.insert(made.secret_id);
        }
        assert_eq!((shown, ids.len()), (1, 1), "one secret, shown once");
        // Different requests under one id share no fact: one of them is carried out.
        let request_id = new_id();
        let before = head(&client).await;
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let mut directory = client.directory.clone();
                let company_id = format!("c{round}n{n}");
                let request_id = request_id.clone();
                let create = CreateCompanyRequest { company_id, request_id, ..Default::default() };
                tokio::spawn(async move { directory.create_company(create).await })
            })
            .collect();
        let mut created = 0;
        for task in tasks {
            match task.await.expect("done") {
                Ok(_) => created += 1,
                refusal => assert_eq!(fields(&refused(refusal).1), ["request_id"]),
            }
        }
        assert_eq!((created, head(&client).await), (1, before + 1));
    }
}

#[tokio::test]
async fn a_repeat_tells_what_was_done_then_of_a_resource_as_it_is_now() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &[]);
    let client = server.client().await;
    let names: Vec<_> = (0..1000).map(|n| format!("a-scope-with-a-long-name:{n:04}")).collect();
    let yaml = format!("scopes: {{ {}: }}", names.join(": , "));
    let apply = ApplyCatalogRequest { yaml, ..Default::default() };
    client.catalog.clone().apply_catalog(apply).await.expect("applied");
    client.create_company("acme", None).await;
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    client.create_credential("acme", "app", &all).await;
    let update = |label: &str, request_id: &str| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        label: label.to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: owned(&["label"]) }),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let send = |request| {
        let mut directory = client.directory.clone();
        async move { directory.update_credential(request).await.expect("done").into_inner() }
    };
    let id = new_id();
    let first = send(update("one", &id)).await;
    let second = send(update("two", "")).await;
    let again = send(update("one", &id)).await;
    assert_eq!((again.revision, again.credential), (first.revision, second.credential));
    assert_eq!(head(&client).await, second.revision);
    // A credential that is gone is told by its ids, and one of another life as it is.
    let delete = DeleteCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        request_id: new_id(),
        ..Default::default()
    };
    let directory = || client.directory.clone();
    let gone = directory().delete_credential(delete.clone()).await.expect("gone").into_inner();
    let ids = Credential {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        ..Default::default()
    };
    assert_eq!(send(update("one", &id)).await.credential, Some(ids.clone()));
    let born = client.create_credential("acme", "app", &[]).await;
    let again = send(update("one", &id)).await;
    assert_eq!((again.revision, again.credential), (first.revision, Some(born)));
    let again = directory().delete_credential(delete).await.expect("gone").into_inner();
    assert_eq!((again.revision, again.credential), (gone.revision, Some(ids)));
    client.credential("acme", "app").await.expect("it was not deleted again");
    // What is kept does not grow with the resource.
    assert!(prost::Message::encoded_len(&first) > 30_000);
    assert!(server.terminate().success());
    let store = Store::open(dir.path()).expect("opened");
    let id = Uuid::parse_str(&id).expect("an id");
    let key = [id.as_bytes().as_slice(), b"UpdateCredential", &[0, 1]].concat();
    let kept = store.answered(&RequestKey(*blake3::hash(&key).as_bytes())).expect("readable");
    assert_eq!(kept.and_then(|kept| kept.result), Some(WriteResult::default()));
}

#[tokio::test]
async fn request_without_effect_is_not_remembered() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = served(dir.path()).await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "app", &[]).await;
    let grant = |scopes: &[&str], request_id: &str| GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        scopes: owned(scopes),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let send = |request: GrantScopesRequest| {
        let mut authorization = client.authorization.clone();
        async move { authorization.grant_scopes(request).await.map(tonic::Response::into_inner) }
    };
    let id = new_id();
    // A refusal, a dry run, and a change that changes nothing; each leaves the id free.
    assert_eq!(refused(send(grant(&["nothing"], &id)).await).0, Code::InvalidArgument);
    let dry = GrantScopesRequest { validate_only: true, ..grant(&["read_organization"], &id) };
    let shown = send(dry.clone()).await.expect("shown");
    assert_eq!(shown.added_scopes, ["read_organization"]);
    let done = send(grant(&["read_organization"], &id)).await.expect("granted");
    assert_eq!(done.revision, shown.revision + 1);
    // The dry run of what was carried out is a dry run.
    assert!(send(dry).await.expect("shown").added_scopes.is_empty());
    let idle = new_id();
    let nothing = send(grant(&["read_organization"], &idle)).await.expect("nothing to do");
    assert_eq!((nothing.revision, nothing.added_scopes.len()), (done.revision, 0));
    let done = send(grant(&["read_personal_account"], &idle)).await.expect("granted");
    assert_eq!(done.added_scopes, ["read_personal_account"]);
    // Another method may use the same id; the id's case is no difference.
    let revoke = RevokeScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        scopes: owned(&["read_organization"]),
        request_id: idle.to_uppercase(),
        ..Default::default()
    };
    let revoked = client.authorization.clone().revoke_scopes(revoke).await.expect("revoked");
    assert_eq!(revoked.into_inner().removed_scopes, ["read_organization"]);
    for wrong in ["x", "00000000-0000-0000-0000-000000000000", &"a".repeat(5_000)] {
        let (code, details) = refused(send(grant(&["read_organization"], wrong)).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["request_id"]));
    }
}

#[tokio::test]
async fn a_request_is_known_by_the_key_that_sent_it_and_not_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = harness::bootstrap(dir.path());
    let server = Server::with_catalog(dir.path(), "horizonwebref.yaml");
    let operator = Client::connect_as(&server.url(), Some(&root)).await;
    operator.create_company("acme", None).await;
    operator.create_credential("acme", "app", &[]).await;
    let key = async |name: &str| {
        let request = CreateKeyRequest {
            name: name.to_owned(),
            roles: vec![Role::CompanyAdmin.into()],
            company_ids: owned(&["acme"]),
            ..Default::default()
        };
        operator.keys.clone().create_key(request).await.expect("made").into_inner()
    };
    let request = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "app".to_owned(),
        request_id: new_id(),
        ..Default::default()
    };
    let ask = async |secret: &str| {
        let client = Client::connect_as(&server.url(), Some(secret)).await;
        let asked = client.directory.clone().create_secret(request.clone()).await;
        asked.expect("an answer").into_inner()
    };
    let first = key("hr").await;
    let one = ask(&first.secret).await;
    assert_eq!(ask(&first.secret).await.secret_id, one.secret_id, "sent again by its sender");
    // Another key of the same name has made no such request.
    let second = key("hr").await;
    let two = ask(&second.secret).await;
    assert!(two.revision > one.revision && two.secret_id != one.secret_id);
    assert!(!two.secret.is_empty(), "it was carried out");
    assert_eq!(ask(&second.secret).await.secret_id, two.secret_id);
    // Nor has one that follows them: it is refused, as a third secret is.
    for key in [first, second] {
        let request =
            DeleteKeyRequest { key_id: key.key.expect("a key").key_id, ..Default::default() };
        operator.keys.clone().delete_key(request).await.expect("revoked");
    }
    let third = Client::connect_as(&server.url(), Some(&key("hr").await.secret)).await;
    let third = third.directory.clone().create_secret(request.clone()).await;
    assert_eq!(refused(third).0, Code::FailedPrecondition);
}
