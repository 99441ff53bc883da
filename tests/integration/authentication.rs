//! Callers of scopegate itself (D8): over real sockets, by the calls that the server says it has.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness;
use crate::harness::bytes_codec::BytesCodec;
use crate::harness::{BearerInterceptor, Client, Server, bootstrap, owned, refused, scopegate};
use bytes::Bytes;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, Timestamp};
use scopegate::proto::envoy::service::auth::v3::AttributeContext;
use scopegate::proto::envoy::service::auth::v3::attribute_context::ContextExtensionsEntry;
use scopegate::proto::*;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// A server with a catalog, two companies, and an operator.
async fn served(dir: &Path) -> (Server, Client) {
    let key = bootstrap(dir);
    let server = Server::with_catalog(dir, "360learning.yaml");
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    for company in ["acme", "other"] {
        operator.create_company(company, None).await;
        operator.create_credential(company, "hr", &["users:read"]).await;
    }
    (server, operator)
}

fn new_key(name: &str, roles: &[Role], companies: &[&str]) -> CreateKeyRequest {
    CreateKeyRequest {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        company_ids: owned(companies),
        ..CreateKeyRequest::default()
    }
}

async fn create(by: &Client, new: CreateKeyRequest) -> Result<CreateKeyResponse, Status> {
    by.keys.clone().create_key(new).await.map(tonic::Response::into_inner)
}

async fn delete(by: &Client, key: &Key) -> Result<DeleteKeyResponse, Status> {
    let request = DeleteKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    by.keys.clone().delete_key(request).await.map(tonic::Response::into_inner)
}

/// Who may call what, as the contract says it: S service, C company admin, I identity,
/// O operator, A auditor, B backup, R restrictor, K key admin; a small letter for a call that concerns all companies, which nobody
/// makes who is bound to one.
const MAY: &[(&str, &str)] = &[
    ("AuthorizationService/Check", "SO"),
    ("AuthorizationService/BatchCheck", "SO"),
    ("AuthorizationService/ExplainCheck", "SCOA"),
    ("AuthorizationService/ListEffectiveScopes", "SCOA"),
    ("AuthorizationService/GrantScopes", "CO"),
    ("AuthorizationService/RevokeScopes", "CO"),
    ("AuthorizationService/ReplaceScopes", "CO"),
    ("AuthorizationService/ResetScopes", "CO"),
    ("AuthorizationService/RestoreGrants", "O"),
    ("AuthorizationService/AddCompanyScopes", "O"),
    ("AuthorizationService/RestrictCompanyScopes", "O"),
    ("DirectoryService/CreateCompany", "O"),
    ("DirectoryService/GetCompany", "COA"),
    ("DirectoryService/ListCompanies", "oa"),
    ("DirectoryService/UpdateCompany", "O"),
    ("DirectoryService/DeleteCompany", "O"),
    ("DirectoryService/CreateCredential", "CO"),
    ("DirectoryService/GetCredential", "COA"),
    ("DirectoryService/ListCredentials", "COA"),
    ("DirectoryService/UpdateCredential", "CO"),
    ("DirectoryService/DeleteCredential", "CO"),
    ("DirectoryService/ImportCredentials", "o"),
    ("DirectoryService/CreateSecret", "CO"),
    ("DirectoryService/DeleteSecret", "CO"),
    ("DirectoryService/VerifySecret", "SO"),
    ("DirectoryService/RevokeTokens", "CO"),
    ("DirectoryService/PutUser", "IO"),
    ("DirectoryService/GetUser", "ICOA"),
    ("DirectoryService/ListUsers", "ICOA"),
    ("DirectoryService/DeleteUser", "IO"),
    ("DirectoryService/PutConsent", "IO"),
    ("DirectoryService/CreateAuthorizationCode", "IO"),
    ("DirectoryService/GetConsent", "ICOA"),
    ("DirectoryService/DeleteConsent", "IO"),
    ("CatalogService/ApplyCatalog", "o"),
    ("CatalogService/GetCatalog", "oa"),
    ("ChangeService/ListChanges", "COA"),
    ("ChangeService/WatchChanges", "COA"),
    ("BackupService/Backup", "o"),
    ("KeyService/CreateKey", "o"),
    ("KeyService/GetKey", "oa"),
    ("KeyService/ListKeys", "oa"),
    ("KeyService/DeleteKey", "o"),
    ("KeyService/ListSigningKeys", "oa"),
    ("KeyService/RotateSigningKey", "o"),
    ("KeyService/DeleteSigningKey", "o"),
    ("KeyService/WhoAmI", "SCIOABRK"),
];

const ROLES: [(Role, char); 8] = [
    (Role::Service, 'S'),
    (Role::CompanyAdmin, 'C'),
    (Role::Identity, 'I'),
    (Role::Operator, 'O'),
    (Role::Auditor, 'A'),
    (Role::Backup, 'B'),
    (Role::Restrictor, 'R'),
    (Role::KeyAdmin, 'K'),
];

/// A call as reflection tells of it: its path, and how its request names a company.
pub struct Call {
    pub path: String,
    request: DescriptorProto,
}

impl Call {
    /// A request that names this company wherever one can be named, and nothing else.
    pub fn naming(&self, company: &str) -> Bytes {
        let mut request = Vec::new();
        for field in &self.request.field {
            let put = |request: &mut Vec<u8>, text: &[u8]| {
                prost::encoding::bytes::encode(
                    field.number().unsigned_abs(),
                    &text.to_vec(),
                    request,
                );
            };
            match field.name() {
                "company_id" => put(&mut request, company.as_bytes()),
                "check" | "checks" => {
                    let check =
                        CheckRequest { company_id: company.to_owned(), ..Default::default() };
                    put(&mut request, &check.encode_to_vec());
                }
                // The settings of a gateway's route.
                "attributes" if !company.is_empty() => {
                    let setting = ContextExtensionsEntry {
                        key: "company_id".to_owned(),
                        value: company.to_owned(),
                    };
                    let settings = vec![setting];
                    let attributes =
                        AttributeContext { context_extensions: settings, ..Default::default() };
                    put(&mut request, &attributes.encode_to_vec());
                }
                // A dry run, so that what is permitted is not done.
                "validate_only" => {
                    prost::encoding::bool::encode(
                        field.number().unsigned_abs(),
                        &true,
                        &mut request,
                    );
                }
                _ => {}
            }
        }
        request.into()
    }
}

/// Every call of the services that the server reflects, but health and reflection themselves.
pub async fn reflected(url: &str, key: &str) -> Vec<Call> {
    let wire = wire(url, Some(key)).await;
    let mut client = ServerReflectionClient::new(wire);
    let mut ask = async |request: MessageRequest| {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await
            .expect("answers")
            .into_inner();
        answers.message().await.expect("an answer").expect("one").message_response.expect("it")
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let mut calls = Vec::new();
    for service in list.service.into_iter().filter(|service| !service.name.starts_with("grpc.")) {
        let symbol = MessageRequest::FileContainingSymbol(service.name.clone());
        let MessageResponse::FileDescriptorResponse(files) = ask(symbol).await else {
            panic!("no file of {}", service.name);
        };
        let file = FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("a file");
        let found = file.service.iter().find(|s| service.name.ends_with(s.name()));
        for method in &found.expect("the service").method {
            let input = method.input_type().rsplit('.').next().expect("a name");
            let request = file.message_type.iter().find(|message| message.name() == input);
            calls.push(Call {
                path: format!("/{}/{}", service.name, method.name()),
                request: request.expect("its request is beside it").clone(),
            });
        }
    }
    calls
}

pub async fn wire(url: &str, key: Option<&str>) -> InterceptedService<Channel, BearerInterceptor> {
    let channel = harness::endpoint(url).connect().await.expect("up");
    let key = key.map(|key| format!("Bearer {key}").parse().expect("a header"));
    InterceptedService::new(channel, BearerInterceptor(key))
}

/// What a call of whatever kind begins with: an answer, or its error.
pub async fn call(
    wire: &InterceptedService<Channel, BearerInterceptor>,
    path: &str,
    request: Bytes,
) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(wire.clone());
    grpc.ready().await.expect("ready");
    let request = Request::new(tokio_stream::once(request));
    let is_stream = path.contains("/Watch") || path.contains("/Backup");
    let path = path.to_owned().try_into().expect("a path");
    let mut answers = grpc.streaming(request, path, BytesCodec).await?.into_inner();
    // A stream that has begun is answer enough.
    if is_stream { Ok(()) } else { answers.message().await.map(|_| ()) }
}

fn is_refused(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied)
}

#[tokio::test]
async fn every_call_is_open_only_to_its_roles() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = bootstrap(dir.path());
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    operator.create_company("acme", None).await;
    operator.create_company("other", None).await;
    let calls = reflected(&server.url(), &key).await;
    let may = MAY.iter().map(|(path, who)| (format!("/scopegate.v1.{path}"), *who));
    let envoy = ("/envoy.service.auth.v3.Authorization/Check".to_owned(), "SO");
    let may: BTreeMap<_, _> = may.chain([envoy]).collect();
    let known: Vec<_> = calls.iter().map(|call| &call.path).collect();
    assert_eq!(known.len(), may.len(), "reflected: {known:?}");

    for (role, letter) in ROLES {
        for bound in [false, true] {
            if role == Role::CompanyAdmin && !bound {
                continue;
            }
            let companies: &[&str] = if bound { &["acme"] } else { &[] };
            let made =
                create(&operator, new_key("someone", &[role], companies)).await.expect("made");
            let wire = wire(&server.url(), Some(&made.secret)).await;
            for call in &calls {
                let who = may[&call.path];
                let concerns_all = who.contains(letter.to_ascii_lowercase());
                let may = who.contains(letter) || concerns_all;
                for company in ["acme", "other", "nowhere", ""] {
                    let answer = self::call(&wire, &call.path, call.naming(company)).await;
                    let path = &call.path;
                    // A client that proves itself is looked up, and one of another company is as a wrong one.
                    let has_client = [
                        "VerifySecret",
                        "Check",
                        "BatchCheck",
                        "ExplainCheck",
                        "ListEffectiveScopes",
                    ];
                    let method = path.rsplit('/').next().expect("a method");
                    let is_by_secret = has_client.contains(&method) && company.is_empty();
                    // This names none.
                    let names_none = path.ends_with("/WhoAmI");
                    let is_own = company == "acme" && !concerns_all || is_by_secret || names_none;
                    let expected = may && (!bound || is_own);
                    assert_eq!(
                        !is_refused(&answer),
                        expected,
                        "{role:?} (bound: {bound}) at {path} for `{company}`: {answer:?}"
                    );
                    if let Err(status) = answer {
                        assert_ne!(status.code(), Code::Unauthenticated, "{path}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn any_caller_learns_who_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let anybody = server.client().await;
    let who = async |by: &Client| by.keys.clone().who_am_i(WhoAmIRequest {}).await;
    let expected = WhoAmIResponse { roles: owned(&["operator"]), ..Default::default() };
    assert_eq!(who(&anybody).await.expect("open").into_inner(), expected);
    let root = create(&anybody, new_key("root", &[Role::Operator], &[])).await.expect("made");
    let (code, _) = refused(who(&anybody).await);
    assert_eq!(code, Code::Unauthenticated, "a key is required now");
    let root = Client::connect_as(&server.url(), Some(&root.secret)).await;
    let end = Some(Timestamp { seconds: 4_000_000_000, nanos: 0 });
    let roles = [Role::KeyAdmin, Role::CompanyAdmin];
    let new = CreateKeyRequest { expires_at: end, ..new_key("ada", &roles, &["other", "acme"]) };
    let made = create(&root, new).await.expect("made");
    let key = made.key.expect("a key");
    assert_eq!(key.roles, [Role::CompanyAdmin as i32, Role::KeyAdmin as i32]);
    let ada = Client::connect_as(&server.url(), Some(&made.secret)).await;
    let expected = WhoAmIResponse {
        key_id: key.key_id.clone(),
        name: "ada".to_owned(),
        roles: owned(&["company-admin", "key-admin"]),
        company_ids: owned(&["acme", "other"]),
        expires_at: end,
    };
    assert_eq!(who(&ada).await.expect("known").into_inner(), expected);
    delete(&root, &key).await.expect("revoked");
    let (code, _) = refused(who(&ada).await);
    assert_eq!(code, Code::Unauthenticated);
}

/// The roles of a stored key are read again after a restart, and reflection shows the options.
#[tokio::test]
async fn roles_are_kept_and_reflection_shows_the_operations() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = bootstrap(dir.path());
    let roles = [Role::Backup, Role::Restrictor, Role::KeyAdmin];
    let made = {
        let server = Server::with_catalog(dir.path(), "360learning.yaml");
        let operator = Client::connect_as(&server.url(), Some(&key)).await;
        create(&operator, new_key("new", &roles, &[])).await.expect("made")
    };
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = Client::connect_as(&server.url(), Some(&made.secret)).await;
    let known = client.keys.clone().who_am_i(WhoAmIRequest {}).await.expect("known").into_inner();
    assert_eq!(known.roles, ["backup", "restrictor", "key-admin"]);

    let mut pool = prost_reflect::DescriptorPool::new();
    let mut reflection = ServerReflectionClient::new(wire(&server.url(), Some(&made.secret)).await);
    for name in ["descriptor", "timestamp"].map(|name| format!("google/protobuf/{name}.proto")) {
        pool.decode_file_descriptor_proto(&*file_of(&mut reflection, name).await).expect("a file");
    }
    for name in ["key", "backup"].map(|name| format!("scopegate/v1/{name}.proto")) {
        pool.decode_file_descriptor_proto(&*file_of(&mut reflection, name).await).expect("a file");
    }
    let option = pool.get_extension_by_name("scopegate.v1.operation").expect("the option");
    let service = pool.get_service_by_name("scopegate.v1.BackupService").expect("the service");
    let options = service.methods().next().expect("a method").options();
    let operation = options.get_extension(&option);
    let operation = operation.as_message().expect("a message");
    let all = operation.get_field_by_name("all_companies").expect("a field");
    assert_eq!(all.as_bool(), Some(true));
    let roles = operation.get_field_by_name("roles").expect("a field");
    assert_eq!(
        roles.as_list(),
        Some(&[prost_reflect::Value::EnumNumber(Role::Operator.into())][..])
    );
}

/// A file of the contract, as reflection returns it.
async fn file_of(
    client: &mut ServerReflectionClient<InterceptedService<Channel, BearerInterceptor>>,
    name: String,
) -> Vec<u8> {
    let request = Some(MessageRequest::FileByFilename(name));
    let request = ServerReflectionRequest { host: String::new(), message_request: request };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.expect("begun");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one");
    match answer.message_response {
        Some(MessageResponse::FileDescriptorResponse(mut files)) => {
            files.file_descriptor_proto.remove(0)
        }
        other => panic!("no file: {other:?}"),
    }
}

#[tokio::test]
async fn calls_without_a_valid_key_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let calls = reflected(
        &server.url(),
        &create(&operator, new_key("a", &[Role::Auditor], &[])).await.expect("made").secret,
    )
    .await;
    let revoked = create(&operator, new_key("gone", &[Role::Operator], &[])).await.expect("made");
    let key = revoked.key.expect("a key");
    let was_good = wire(&server.url(), Some(&revoked.secret)).await;
    let some = calls.iter().find(|call| call.path.ends_with("/GetCatalog")).expect("it");
    call(&was_good, &some.path, Bytes::new()).await.expect("good so far");
    delete(&operator, &key).await.expect("revoked");
    let expired = CreateKeyRequest {
        expires_at: Some(Timestamp { seconds: 1, nanos: 0 }),
        ..new_key("over", &[Role::Operator], &[])
    };
    let expired = create(&operator, expired).await.expect("made").secret;
    let mut wrong = expired.clone();
    wrong.pop();
    wrong.push(if expired.ends_with('0') { '1' } else { '0' });
    let mut directory = operator.directory.clone();
    let secret = directory.create_secret(CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    });
    let secret = secret.await.expect("made").into_inner().secret;
    for (what, key, reason) in [
        ("none", None, "KEY_REQUIRED"),
        ("revoked", Some(&*revoked.secret), "KEY_UNKNOWN"),
        ("expired", Some(&*expired), "KEY_EXPIRED"),
        ("wrong", Some(&*wrong), "KEY_UNKNOWN"),
        ("empty", Some(""), "KEY_UNKNOWN"),
        ("a credential's secret", Some(&*secret), "KEY_UNKNOWN"),
    ] {
        let wire = wire(&server.url(), key).await;
        let unknown = ("/scopegate.v1.Nothing/Nothing".to_owned(), Bytes::new());
        let reflection =
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(), Bytes::new());
        let all = calls.iter().map(|call| (call.path.clone(), call.naming("acme")));
        for (path, request) in all.chain([unknown, reflection]) {
            let (code, details) = refused(call(&wire, &path, request).await);
            assert_eq!(code, Code::Unauthenticated, "{what} at {path}");
            assert_eq!(details.error_info().expect("it").reason, reason, "{what} at {path}");
        }
        // A probe has no key.
        call(&wire, "/grpc.health.v1.Health/Check", Bytes::new()).await.expect("healthy");
    }
    // Two keys in one call are nobody's.
    let mut grpc = tonic::client::Grpc::new(wire(&server.url(), None).await);
    grpc.ready().await.expect("ready");
    let mut request = Request::new(Bytes::new());
    let good =
        create(&operator, new_key("good", &[Role::Operator], &[])).await.expect("made").secret;
    for _ in 0..2 {
        let good = format!("Bearer {good}").parse().expect("a header");
        request.metadata_mut().append("authorization", good);
    }
    let path = some.path.clone().try_into().expect("a path");
    let (code, _) = refused(grpc.unary(request, path, BytesCodec).await.map(|_| ()));
    assert_eq!(code, Code::Unauthenticated);
}

/// Whether tonic reads the bytes of a call or `grpc/unary.rs`: the caller hears that they are wrong,
/// and not that the server is.
#[tokio::test]
async fn bytes_that_are_no_message_are_malformed_in_every_call() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let key = create(&operator, new_key("all", &[Role::Operator], &[])).await.expect("made").secret;
    let wire = wire(&server.url(), Some(&key)).await;
    for of in reflected(&server.url(), &key).await {
        // A field of five bytes, of which one is there; one that is no text; a group that ends.
        let company = of
            .request
            .field
            .iter()
            .any(|field| field.name() == "company_id" && field.number() == 1);
        let cut: &[u8] = b"\x0a\x05a";
        let no_text: &[u8] = b"\x0a\x02\xff\xfe";
        let ends: &[u8] = b"\x0c";
        for bytes in [Some(cut), company.then_some(no_text), Some(ends)].into_iter().flatten() {
            let answer = call(&wire, &of.path, Bytes::copy_from_slice(bytes)).await;
            let (code, details) = refused(answer);
            assert_eq!(code, Code::InvalidArgument, "{bytes:?} to {}", of.path);
            assert_eq!(details.error_info().expect("it").reason, "MALFORMED_MESSAGE");
            assert_eq!(harness::fields(&details), ["message"]);
        }
        // Nor is anything read that is compressed.
        let mut grpc = tonic::client::Grpc::new(wire.clone());
        grpc.ready().await.expect("ready");
        let mut request = Request::new(tokio_stream::once(of.naming("acme")));
        request.metadata_mut().insert("grpc-encoding", "gzip".parse().expect("a value"));
        let path = of.path.clone().try_into().expect("a path");
        let (code, details) = refused(grpc.streaming(request, path, BytesCodec).await.map(|_| ()));
        assert_eq!(code, Code::Unimplemented, "{}", of.path);
        assert_eq!(details.error_info().expect("it").reason, "COMPRESSED_MESSAGE");
    }
}

#[tokio::test]
async fn a_refusal_says_the_same_of_what_exists_and_what_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let made =
        create(&operator, new_key("admin", &[Role::CompanyAdmin], &["acme"])).await.expect("made");
    let admin = Client::connect_as(&server.url(), Some(&made.secret)).await;
    let mut told = Vec::new();
    for (company, credential) in [("other", "hr"), ("other", "nobody"), ("nowhere", "hr")] {
        let status = admin.credential(company, credential).await.expect_err("refused");
        told.push((status.code(), status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(told[0].0, Code::PermissionDenied);
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    // Its own company it sees, and is told what is missing there.
    let (code, _) = refused(admin.credential("acme", "nobody").await);
    assert_eq!(code, Code::NotFound);
}

#[tokio::test]
async fn the_first_key_makes_keys_required_and_the_last_operator_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let anybody = server.client().await;
    anybody.create_company("acme", None).await;
    let over = Some(Timestamp { seconds: 1, nanos: 0 });
    for lost in [
        new_key("s", &[Role::Service], &[]),
        new_key("o", &[Role::Operator], &["acme"]),
        CreateKeyRequest { expires_at: over, ..new_key("o", &[Role::Operator], &[]) },
        CreateKeyRequest {
            certificate: "spiffe://a".to_owned(),
            certificate_only: true,
            ..new_key("o", &[Role::Operator], &[])
        },
    ] {
        let (code, details) = refused(create(&anybody, lost).await);
        assert_eq!(code, Code::FailedPrecondition);
        assert_eq!(details.error_info().expect("it").reason, "FIRST_KEY_NOT_OPERATOR");
    }
    let dry = CreateKeyRequest { validate_only: true, ..new_key("o", &[Role::Operator], &[]) };
    assert!(create(&anybody, dry).await.expect("would do").secret.is_empty());
    anybody.create_company("still-open", None).await;
    let first = create(&anybody, new_key("root", &[Role::Operator], &[])).await.expect("made");
    // From the acknowledgement on, on connections that were open too.
    let (code, _) = refused(anybody.ask(harness::scopes_of("acme", "hr", &["users:read"])).await);
    assert_eq!(code, Code::Unauthenticated);
    let operator = Client::connect_as(&server.url(), Some(&first.secret)).await;
    let (code, details) = refused(delete(&operator, first.key.as_ref().expect("a key")).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(details.error_info().expect("it").reason, "LAST_OPERATOR_KEY");
    // One that is over is no other operator.
    let over = CreateKeyRequest {
        expires_at: Some(Timestamp { seconds: 1, nanos: 0 }),
        ..new_key("over", &[Role::Operator], &[])
    };
    create(&operator, over).await.expect("made");
    refused(delete(&operator, first.key.as_ref().expect("a key")).await);
    let second = create(&operator, new_key("root", &[Role::Operator], &[])).await.expect("made");
    delete(&operator, first.key.as_ref().expect("a key")).await.expect("another one stays");
    let (code, _) = refused(operator.keys.clone().list_keys(ListKeysRequest::default()).await);
    assert_eq!(code, Code::Unauthenticated, "revoked at its acknowledgement");
    server.kill();
    // Closed also after a restart.
    let server = Server::start(dir.path(), &[]);
    let (code, _) = refused(server.client().await.credential("acme", "hr").await);
    assert_eq!(code, Code::Unauthenticated);
    let operator = Client::connect_as(&server.url(), Some(&second.secret)).await;
    operator.create_credential("acme", "hr", &[]).await;
}

#[tokio::test]
async fn the_log_names_the_caller_and_a_key_shows_its_use_and_never_its_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let new = CreateKeyRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: "a new colleague".to_owned(),
        ..new_key("ada", &[Role::CompanyAdmin, Role::Identity], &["other", "acme", "acme"])
    };
    let made = create(&operator, new.clone()).await.expect("made");
    let key = made.key.clone().expect("a key");
    assert_eq!(key.company_ids, ["acme", "other"]);
    assert!(made.secret.starts_with(&format!("sgk_{}_", key.key_id)));
    let again = create(&operator, new).await.expect("the same");
    assert_eq!(again, CreateKeyResponse { secret: String::new(), ..made.clone() });

    let ada = Client::connect_as(&server.url(), Some(&made.secret)).await;
    ada.grant("acme", "hr", &["groups:read"]).await.expect("granted");
    let list = ListChangesRequest::default();
    let changes = operator.changes.clone().list_changes(list).await.expect("a list").into_inner();
    let changes = changes.changes;
    let last = changes.last().expect("a change");
    assert_eq!((last.kind.as_str(), last.actor.as_str()), ("GrantScopes", "ada"));
    let creation = changes.iter().rfind(|change| change.kind == "CreateKey").expect("logged");
    assert_eq!(
        (creation.actor.as_str(), creation.reason.as_str()),
        ("operator", "a new colleague")
    );
    let first = changes.first().expect("a change");
    assert_eq!(
        (first.kind.as_str(), first.actor.as_str()),
        ("CreateKey", "scopegate keys bootstrap")
    );

    let read = GetKeyRequest { key_id: key.key_id.clone() };
    let read =
        operator.keys.clone().get_key(read).await.expect("it").into_inner().key.expect("a key");
    assert!(read.last_used_time.is_some());
    assert_eq!(Key { last_used_time: None, ..read }, key);
    let keys = ListKeysRequest { page_size: 1, ..Default::default() };
    let page = operator.keys.clone().list_keys(keys).await.expect("a page").into_inner();
    let rest = ListKeysRequest { page_token: page.next_page_token, ..Default::default() };
    let rest = operator.keys.clone().list_keys(rest).await.expect("a page").into_inner();
    let mut ids: Vec<_> =
        page.keys.iter().chain(&rest.keys).map(|key| key.key_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    ids.sort_unstable();
    assert!(ids.contains(&key.key_id));

    let gone = DeleteKeyRequest {
        key_id: key.key_id.clone(),
        etag: key.etag.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let first = operator.keys.clone().delete_key(gone.clone()).await.expect("gone").into_inner();
    let again = operator.keys.clone().delete_key(gone).await.expect("the same").into_inner();
    // Of what is gone there is the id.
    let id = Key { key_id: key.key_id.clone(), ..Default::default() };
    assert_eq!(again, DeleteKeyResponse { key: Some(id), ..first });
    for (id, code) in [(&*key.key_id, Code::NotFound), ("no/id", Code::InvalidArgument)] {
        let read = GetKeyRequest { key_id: id.to_owned() };
        assert_eq!(refused(operator.keys.clone().get_key(read).await).0, code, "{id}");
    }

    // Nothing on the disk has the secret: only its public id.
    let random = made.secret.rsplit('_').next().expect("the secret part");
    for entry in walk(dir.path()) {
        let bytes = fs::read(&entry).expect("readable");
        let found = bytes.windows(random.len()).any(|window| window == random.as_bytes());
        assert!(!found, "{}", entry.display());
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("one").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_opened_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let expiring = CreateKeyRequest {
        expires_at: Some(soon.into()),
        ..new_key("until-soon", &[Role::Auditor], &[])
    };
    let revoked = create(&operator, new_key("revoked", &[Role::Auditor], &[])).await.expect("made");
    let expiring = create(&operator, expiring).await.expect("made");
    let mut streams = Vec::new();
    for key in [&revoked, &expiring] {
        let auditor = Client::connect_as(&server.url(), Some(&key.secret)).await;
        let from = WatchChangesRequest { after_revision: 1, ..Default::default() };
        let mut stream =
            auditor.changes.clone().watch_changes(from).await.expect("a stream").into_inner();
        stream.message().await.expect("a change");
        streams.push(stream);
    }
    delete(&operator, revoked.key.as_ref().expect("a key")).await.expect("revoked");
    for mut stream in streams {
        let ended = loop {
            match stream.message().await {
                Ok(Some(step)) => {
                    let change = step.change.expect("a change");
                    // What came after the revocation is for others.
                    assert!(change.kind != "DeleteKey" || change.actor != "revoked");
                }
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn one_keys_request_flood_is_rate_limited_and_checks_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = bootstrap(dir.path());
    let catalog = harness::catalog("360learning.yaml");
    let args = ["--catalog", catalog.to_str().expect("a path"), "--key-rate-limit", "5"];
    let server = Server::start(dir.path(), &args);
    let operator = Client::connect_as(&server.url(), Some(&key)).await;
    let other = create(&operator, new_key("other", &[Role::Operator], &[])).await.expect("made");
    let other = Client::connect_as(&server.url(), Some(&other.secret)).await;
    let read = async |client: &Client| {
        client.catalog.clone().get_catalog(GetCatalogRequest::default()).await.map(|_| ())
    };
    let held_up = async {
        loop {
            if let Err(status) = read(&operator).await {
                break status;
            }
        }
    };
    let (code, details) = refused::<()>(Err(held_up.await));
    assert_eq!(code, Code::ResourceExhausted);
    assert!(details.retry_info().is_some() && details.quota_failure().is_some());
    read(&other).await.expect("another has its own");
    for _ in 0..50 {
        operator.check("acme", "hr", &["users:read"]).await;
    }
}

#[test]
fn a_bootstrapped_key_goes_to_a_file_that_nobody_else_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("key");
    let run = || {
        let mut command = scopegate();
        command.args(["keys", "bootstrap", "--name", "ci", "--data-dir"]);
        command.arg(dir.path().join("store")).arg("--to-file").arg(&file);
        command.output().expect("it runs")
    };
    assert!(run().status.success());
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read_to_string(&file).expect("a text").starts_with("sgk_"));
    let mut none = scopegate();
    none.args(["keys", "bootstrap", "--if-no-keys", "--to-file"]).arg(dir.path().join("other"));
    let none = none.arg("--data-dir").arg(dir.path().join("store")).output().expect("it runs");
    assert!(none.status.success() && none.stdout.is_empty());
    assert!(!dir.path().join("other").exists(), "there is one already");
    let again = run();
    assert_eq!(again.status.code(), Some(64), "it does not write over a file");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_address_that_others_reach_needs_a_key_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let serve = |listen: &str, extra: &[&str]| {
        let mut command = scopegate();
        command.args(["serve", "--listen", listen, "--data-dir"]).arg(&store).args(extra);
        command
    };
    let refused = |mut command: std::process::Command| {
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said.contains("keys bootstrap"))
    };
    assert_eq!(refused(serve("0.0.0.0:0", &[])), (Some(64), true), "no store");
    assert!(!store.exists(), "and none was made");
    drop(Server::start(&store, &[]));
    assert_eq!(refused(serve("0.0.0.0:0", &[])), (Some(64), true), "a store without a key");
    bootstrap(&store);
    let server = Server::start(&store, &["--listen", "0.0.0.0:0"]);
    assert!(server.address.starts_with("0.0.0.0:"));
    assert!(server.terminate().success());
}

/// A call whose headers go out at once, and its message when `send` says so.
async fn held(
    wire: &InterceptedService<Channel, BearerInterceptor>,
    path: &str,
    message: Bytes,
) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), Status>>) {
    let (send, sent) = tokio::sync::oneshot::channel::<()>();
    let mut grpc = tonic::client::Grpc::new(wire.clone());
    grpc.ready().await.expect("ready");
    let path: http::uri::PathAndQuery = path.to_owned().try_into().expect("a path");
    let messages = tokio_stream::StreamExt::filter_map(
        tokio_stream::StreamExt::then(
            tokio_stream::once((sent, message)),
            async |(sent, message)| {
                sent.await.ok();
                Some(message)
            },
        ),
        |message| message,
    );
    let messages = Box::pin(messages);
    let call = tokio::spawn(async move {
        let answers = grpc.streaming(Request::new(messages), path, BytesCodec).await;
        answers?.into_inner().message().await.map(drop)
    });
    (send, call)
}

#[tokio::test]
async fn call_whose_key_was_revoked_is_ignored() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    let stolen = create(&operator, new_key("stolen", &[Role::Operator], &[])).await.expect("made");
    let wire = wire(&server.url(), Some(&stolen.secret)).await;
    let check = harness::scopes_of("acme", "hr", &["users:read"]).encode_to_vec();
    let key = new_key("another", &[Role::Operator], &[]).encode_to_vec();
    let company = CreateCompanyRequest { company_id: "theirs".to_owned(), ..Default::default() };
    let mut calls = Vec::new();
    for (path, message) in [
        ("AuthorizationService/Check", check),
        ("KeyService/CreateKey", key),
        ("DirectoryService/CreateCompany", company.encode_to_vec()),
    ] {
        calls.push(held(&wire, &format!("/scopegate.v1.{path}"), message.into()).await);
    }
    // The headers have come when a later call on the connection is answered.
    call(&wire, "/scopegate.v1.CatalogService/GetCatalog", Bytes::new())
        .await
        .expect("good so far");
    delete(&operator, stolen.key.as_ref().expect("a key")).await.expect("revoked");
    for (send, call) in calls {
        send.send(()).expect("it waits");
        let (code, _) = refused(call.await.expect("it ends"));
        assert_eq!(code, Code::Unauthenticated);
    }
    let changes = operator.changes.clone().list_changes(ListChangesRequest::default()).await;
    let changes = changes.expect("a list").into_inner().changes;
    assert!(changes.iter().all(|change| change.actor != "stolen"), "{changes:?}");
}

/// Makes changes of one kind until it is refused for want of a good key; those acknowledged.
async fn until_revoked<R>(
    made: &AtomicUsize,
    mut change: impl AsyncFnMut(usize) -> Result<R, Status>,
    revision: impl Fn(R) -> u64,
) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        match change(number).await {
            Ok(reply) => {
                acknowledged.push(revision(reply));
                made.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => match status.code() {
                Code::Unauthenticated => break,
                // Held up by its quota, or by the others.
                Code::ResourceExhausted | Code::Aborted => tokio::task::yield_now().await,
                _ => panic!("{status}"),
            },
        }
    }
    acknowledged
}

/// A key is revoked while it grants, creates, makes keys, applies a catalog and imports, on
/// connections of its own.
#[tokio::test]
async fn no_change_comes_after_the_revocation_of_the_key_that_makes_it() {
    tokio::task::LocalSet::new().run_until(revoked_in_the_midst(12)).await;
}

async fn revoked_in_the_midst(rounds: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, operator) = served(dir.path()).await;
    for round in 0..rounds {
        let name = format!("thief-{round}");
        let thief = create(&operator, new_key(&name, &[Role::Operator], &[])).await.expect("made");
        let made = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for lane in 0..5 {
            let client = Client::connect_as(&server.url(), Some(&thief.secret)).await;
            let made = Arc::clone(&made);
            let id = move |number| format!("r{round}-l{lane}-{number}");
            tasks.push(tokio::task::spawn_local(async move {
                match lane {
                    0 => {
                        let grant = async |number| {
                            let scope = ["users:read", "users:write"][number % 2];
                            let request = ReplaceScopesRequest {
                                company_id: "acme".to_owned(),
                                credential_id: "hr".to_owned(),
                                scopes: owned(&[scope]),
                                ..Default::default()
                            };
                            client.authorization.clone().replace_scopes(request).await
                        };
                        until_revoked(&made, grant, |reply| reply.into_inner().revision).await
                    }
                    1 => {
                        let create = async |number| {
                            let company_id = id(number);
                            let request = CreateCompanyRequest { company_id, ..Default::default() };
                            client.directory.clone().create_company(request).await
                        };
                        until_revoked(&made, create, |reply| reply.into_inner().revision).await
                    }
                    2 => {
                        let mut last = None;
                        let keys = async |_| match last.take() {
                            None => {
                                let key =
                                    create(&client, new_key("another", &[Role::Auditor], &[]));
                                let key = key.await?;
                                last = key.key;
                                Ok(key.revision)
                            }
                            Some(key) => delete(&client, &key).await.map(|reply| reply.revision),
                        };
                        until_revoked(&made, keys, |revision| revision).await
                    }
                    3 => {
                        let apply = async |number| {
                            let title = id(number);
                            let yaml =
                                std::fs::read_to_string(harness::catalog("360learning.yaml"));
                            let yaml = format!("# {title}\n{}", yaml.expect("a catalog"));
                            let request = ApplyCatalogRequest { yaml, ..Default::default() };
                            client.catalog.clone().apply_catalog(request).await
                        };
                        until_revoked(&made, apply, |reply| reply.into_inner().revision).await
                    }
                    _ => {
                        let import = async |number| {
                            let credentials = (0..20).map(|n| ImportedCredential {
                                company_id: "acme".to_owned(),
                                credential_id: format!("{}-{n}", id(number)),
                                ..Default::default()
                            });
                            let credentials = credentials.collect();
                            let message =
                                ImportCredentialsRequest { credentials, ..Default::default() };
                            let messages = tokio_stream::iter([message]);
                            client.directory.clone().import_credentials(messages).await
                        };
                        until_revoked(&made, import, |reply| reply.into_inner().revision).await
                    }
                }
            }));
        }
        // Somewhere in the midst, each time elsewhere.
        while made.load(Ordering::Relaxed) < 10 + 3 * round {
            tokio::task::yield_now().await;
        }
        let end = delete(&operator, thief.key.as_ref().expect("a key")).await.expect("revoked");
        for task in tasks {
            let acknowledged = task.await.expect("it ends");
            assert!(acknowledged.iter().all(|revision| *revision < end.revision));
        }
        let mut after = end.revision;
        loop {
            let page = ListChangesRequest { after_revision: after, ..Default::default() };
            let page = operator.changes.clone().list_changes(page).await.expect("a list");
            let changes = page.into_inner().changes;
            let Some(last) = changes.last() else { break };
            after = last.revision;
            assert!(changes.iter().all(|change| change.actor != name), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn the_first_key_ends_calls_that_began_without_a_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let anybody = wire(&server.url(), None).await;
    let key = new_key("late", &[Role::Operator], &[]).encode_to_vec();
    let (send, late) = held(&anybody, "/scopegate.v1.KeyService/CreateKey", key.into()).await;
    let client = server.client().await;
    let watch = WatchChangesRequest { after_revision: 0, ..Default::default() };
    let mut stream = client.changes.clone().watch_changes(watch).await.expect("open").into_inner();
    stream.message().await.expect("a change");
    create(&client, new_key("root", &[Role::Operator], &[])).await.expect("made");
    send.send(()).expect("it waits");
    assert_eq!(refused(late.await.expect("it ends")).0, Code::Unauthenticated);
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_server_that_will_refuse_to_start_answers_no_call_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    drop(Server::with_catalog(&store, "360learning.yaml"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let listen = format!("0.0.0.0:{}", address.port());
    let mut child = scopegate();
    child.args(["serve", "--demo", "--drain-timeout", "2s", "--listen", &listen, "--data-dir"]);
    let mut child = child.arg(&store).stderr(std::process::Stdio::null()).spawn().expect("it runs");
    let mut asked = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        let endpoint = harness::endpoint(&format!("http://{address}"));
        let endpoint = endpoint.timeout(std::time::Duration::from_millis(500));
        let Ok(channel) = endpoint.connect().await else { continue };
        let wire = InterceptedService::new(channel, BearerInterceptor(None));
        let mut keys = key_service_client::KeyServiceClient::new(wire);
        for _ in 0..20 {
            asked += 1;
            let new = new_key("mine", &[Role::Operator], &[]);
            keys.create_key(new).await.expect_err("nobody is served");
        }
    };
    assert_eq!(status.code(), Some(64));
    assert!(asked > 0, "it was asked while it started");
    let server = Server::start(&store, &[]);
    let keys = server.client().await.keys.list_keys(ListKeysRequest::default()).await;
    assert!(keys.expect("a list").into_inner().keys.is_empty());
}
