//! Ids, etags, page tokens and cursors as no honest client sends them: each is either right or
//! refused by the contract's code, and what is refused changes nothing.
use crate::harness::{Client, Server, fields, owned, refused};
use scopegate::proto::*;
use tonic::{Code, Status};

const CATALOG: &str = "
scopes: { a: { implies: [b] }, b: , c: }
roles: { r: { scopes: { a: all } } }
";

const REDIRECT_URI: &str = "https://app.example.org/";

async fn create_credential(client: &Client, company: &str, credential: &str, scopes: &[&str]) {
    let request = CreateCredentialRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        scopes: owned(scopes),
        redirect_uris: owned(&[REDIRECT_URI]),
        ..Default::default()
    };
    client.directory.clone().create_credential(request).await.expect("created");
}

async fn served(dir: &std::path::Path) -> (Server, Client) {
    let file = dir.join("catalog.yaml");
    std::fs::write(&file, CATALOG).expect("written");
    let catalog = file.to_str().expect("a path");
    let args = ["--catalog", catalog, "--issuer", "https://id.example.org"];
    let server = Server::start(&dir.join("data"), &args);
    let client = server.client().await;
    (server, client)
}

/// What a call of any RPC is about.
#[derive(Clone, Default)]
struct Call {
    company: String,
    credential: String,
    user: String,
    etag: String,
    /// Of a credential, for DeleteSecret.
    secret: String,
    /// Of a restriction, for RestoreGrants.
    revision: u64,
    /// The call is to be carried out; else it is a dry run.
    real: bool,
}

/// Every RPC that takes an etag, with the resource whose etag it is.
const CHANGES: [(&str, Of); 22] = [
    ("ApplyCatalog", Of::Catalog),
    ("CreateCompany", Of::Nothing),
    ("UpdateCompany", Of::Company),
    ("AddCompanyScopes", Of::Company),
    ("RestrictCompanyScopes", Of::Audit),
    ("RestoreGrants", Of::Company),
    ("DeleteCompany", Of::Company),
    ("CreateCredential", Of::Nothing),
    ("UpdateCredential", Of::Credential),
    ("GrantScopes", Of::Credential),
    ("RevokeScopes", Of::Credential),
    ("ReplaceScopes", Of::Credential),
    ("ResetScopes", Of::Credential),
    ("CreateSecret", Of::Credential),
    ("DeleteSecret", Of::Credential),
    ("RevokeTokens", Of::Credential),
    ("DeleteCredential", Of::Credential),
    ("PutUser", Of::User),
    ("DeleteUser", Of::User),
    ("PutConsent", Of::Consent),
    ("CreateAuthorizationCode", Of::Consent),
    ("DeleteConsent", Of::Consent),
];

/// Every RPC that names a company and only asks.
const QUESTIONS: [&str; 10] = [
    "Check",
    "BatchCheck",
    "ExplainCheck",
    "ListEffectiveScopes",
    "GetCompany",
    "GetCredential",
    "ListCredentials",
    "GetUser",
    "ListUsers",
    "GetConsent",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Nothing,
    Catalog,
    Company,
    Audit,
    Credential,
    User,
    Consent,
}

/// Calls an RPC by its name.
#[allow(clippy::needless_update, reason = "some requests have no other field")]
async fn call(client: &Client, rpc: &str, call: &Call) -> Result<(), Status> {
    let Client { mut authorization, mut directory, mut catalog, .. } = client.clone();
    let Call { company, credential, user, etag, secret, revision, real } = call.clone();
    macro_rules! send {
        ($client:ident.$method:ident($request:ident { $($field:ident: $value:expr),* $(,)? })) => {
            $client.$method($request { $($field: $value,)* ..Default::default() }).await.map(|_| ())
        };
    }
    macro_rules! change {
        ($client:ident.$method:ident($request:ident { $($field:ident: $value:expr),* $(,)? })) => {
            send!($client.$method($request {
                etag: etag, validate_only: !real, $($field: $value,)*
            }))
        };
    }
    let check = CheckRequest {
        company_id: company.clone(),
        credential_id: credential.clone(),
        scopes: owned(&["a"]),
        user_id: user.clone(),
        ..Default::default()
    };
    let mask = |path: &str| Some(prost_types::FieldMask { paths: owned(&[path]) });
    let (company_id, credential_id, user_id) = (company, credential, user);
    let scopes = owned(&["a"]);
    match rpc {
        "Check" => authorization.check(check).await.map(|_| ()),
        "BatchCheck" => send!(authorization.batch_check(BatchCheckRequest { checks: vec![check] })),
        "ExplainCheck" => {
            send!(authorization.explain_check(ExplainCheckRequest { check: Some(check) }))
        }
        "ListEffectiveScopes" => {
            send!(authorization.list_effective_scopes(ListEffectiveScopesRequest {
                company_id: company_id,
                credential_id: credential_id,
                user_id: user_id,
            }))
        }
        "GetCompany" => send!(directory.get_company(GetCompanyRequest { company_id: company_id })),
        "GetCredential" => send!(directory.get_credential(GetCredentialRequest {
            company_id: company_id,
            credential_id: credential_id,
        })),
        "ListCredentials" => {
            send!(directory.list_credentials(ListCredentialsRequest { company_id: company_id }))
        }
        "GetUser" => {
            send!(directory.get_user(GetUserRequest { company_id: company_id, user_id: user_id }))
        }
        "ListUsers" => send!(directory.list_users(ListUsersRequest { company_id: company_id })),
        "GetConsent" => send!(directory.get_consent(GetConsentRequest {
            company_id: company_id,
            credential_id: credential_id,
            user_id: user_id,
        })),
        "ApplyCatalog" => change!(
            catalog.apply_catalog(ApplyCatalogRequest { yaml: format!("{CATALOG}# otherwise\n") })
        ),
        "CreateCompany" => {
            change!(directory.create_company(CreateCompanyRequest { company_id: company_id }))
        }
        "UpdateCompany" => change!(directory.update_company(UpdateCompanyRequest {
            company_id: company_id,
            display_name: "otherwise".to_owned(),
            update_mask: mask("display_name"),
        })),
        "AddCompanyScopes" => change!(authorization.add_company_scopes(AddCompanyScopesRequest {
            company_id: company_id,
            scopes: owned(&["c"]),
        })),
        "RestrictCompanyScopes" => {
            change!(authorization.restrict_company_scopes(RestrictCompanyScopesRequest {
                company_id: company_id,
                scopes: scopes,
            }))
        }
        "RestoreGrants" => change!(authorization.restore_grants(RestoreGrantsRequest {
            company_id: company_id,
            scopes: scopes,
            restricted_at_revision: revision,
        })),
        "DeleteCompany" => {
            change!(directory.delete_company(DeleteCompanyRequest { company_id: company_id }))
        }
        "CreateCredential" => change!(directory.create_credential(CreateCredentialRequest {
            company_id: company_id,
            credential_id: credential_id,
        })),
        "UpdateCredential" => change!(directory.update_credential(UpdateCredentialRequest {
            company_id: company_id,
            credential_id: credential_id,
            label: "otherwise".to_owned(),
            update_mask: mask("label"),
        })),
        "GrantScopes" => change!(authorization.grant_scopes(GrantScopesRequest {
            company_id: company_id,
            credential_id: credential_id,
            scopes: scopes,
        })),
        "RevokeScopes" => change!(authorization.revoke_scopes(RevokeScopesRequest {
            company_id: company_id,
            credential_id: credential_id,
            scopes: owned(&["b"]),
        })),
        "ReplaceScopes" => change!(authorization.replace_scopes(ReplaceScopesRequest {
            company_id: company_id,
            credential_id: credential_id,
            scopes: scopes,
        })),
        "ResetScopes" => change!(authorization.reset_scopes(ResetScopesRequest {
            company_id: company_id,
            credential_id: credential_id,
        })),
        "CreateSecret" => change!(directory.create_secret(CreateSecretRequest {
            company_id: company_id,
            credential_id: credential_id,
        })),
        "DeleteSecret" => change!(directory.delete_secret(DeleteSecretRequest {
            company_id: company_id,
            credential_id: credential_id,
            secret_id: secret,
        })),
        "RevokeTokens" => change!(directory.revoke_tokens(RevokeTokensRequest {
            company_id: company_id,
            credential_id: credential_id,
            issued_before: None,
        })),
        "DeleteCredential" => change!(directory.delete_credential(DeleteCredentialRequest {
            company_id: company_id,
            credential_id: credential_id,
        })),
        "PutUser" => change!(directory.put_user(PutUserRequest {
            company_id: company_id,
            user_id: user_id,
            roles: owned(&["r"]),
        })),
        "DeleteUser" => change!(
            directory.delete_user(DeleteUserRequest { company_id: company_id, user_id: user_id })
        ),
        "PutConsent" => change!(directory.put_consent(PutConsentRequest {
            company_id: company_id,
            credential_id: credential_id,
            user_id: user_id,
            scopes: owned(&["b"]),
        })),
        "CreateAuthorizationCode" => {
            change!(directory.create_authorization_code(CreateAuthorizationCodeRequest {
                company_id: company_id,
                credential_id: credential_id,
                user_id: user_id,
                scopes: owned(&["b"]),
                redirect_uri: REDIRECT_URI.to_owned(),
                code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
            }))
        }
        "DeleteConsent" => change!(directory.delete_consent(DeleteConsentRequest {
            company_id: company_id,
            credential_id: credential_id,
            user_id: user_id,
        })),
        "ImportCredentials" => {
            let new = ImportedCredential { company_id, credential_id, ..Default::default() };
            let only = ImportCredentialsRequest {
                credentials: vec![new],
                validate_only: !real,
                ..Default::default()
            };
            directory.import_credentials(tokio_stream::iter([only])).await.map(|_| ())
        }
        other => panic!("{other} is not known here"),
    }
}

/// A company with a credential, a secret, a user, a consent, and a restriction to undo.
async fn settle(client: &Client, company: &str, credential: &str, user: &str) -> Call {
    client.create_company(company, Some(&["a"])).await;
    create_credential(client, company, credential, &["b"]).await;
    let revision = client.restrict(company, &["a"]).await.revision;
    client.add_scopes(company, &["a"]).await;
    client.put_user(company, user, &["r"]).await;
    client.consent(company, credential, user, &["a"]).await;
    let secret = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        ..Default::default()
    };
    let secret = client.directory.clone().create_secret(secret).await.expect("made");
    Call {
        company: company.to_owned(),
        credential: credential.to_owned(),
        user: user.to_owned(),
        secret: secret.into_inner().secret_id,
        revision,
        ..Call::default()
    }
}

/// The etag that is current for a resource; none for what does not exist yet.
async fn current(client: &Client, of: Of, call: &Call) -> String {
    let Client { mut directory, mut catalog, .. } = client.clone();
    let Call { company, credential, user, .. } = call.clone();
    match of {
        Of::Nothing => String::new(),
        Of::Catalog => {
            catalog.get_catalog(GetCatalogRequest {}).await.expect("read").into_inner().etag
        }
        Of::Company => {
            let get = GetCompanyRequest { company_id: company };
            let read = directory.get_company(get).await.expect("read").into_inner();
            read.company.expect("a company").etag
        }
        Of::Audit => {
            let audit = RestrictCompanyScopesRequest {
                company_id: company,
                scopes: owned(&["a"]),
                validate_only: true,
                ..Default::default()
            };
            client.try_restrict(audit).await.expect("a report").etag
        }
        Of::Credential => client.credential(&company, &credential).await.expect("read").etag,
        Of::User => {
            let get = GetUserRequest { company_id: company, user_id: user };
            let read = directory.get_user(get).await.expect("read").into_inner();
            read.user.expect("a user").etag
        }
        Of::Consent => {
            let get =
                GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
            let read = directory.get_consent(get).await.expect("read").into_inner();
            read.consent.expect("a consent").etag
        }
    }
}

async fn head(client: &Client) -> u64 {
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    read.into_inner().revision
}

/// A call of this RPC that nothing stands against: what it would create is not there yet.
fn fit(rpc: &str, of: &Call) -> Call {
    match rpc {
        "CreateCompany" => Call { company: format!("{}-new", of.company), ..of.clone() },
        "CreateCredential" => Call { credential: format!("{}-new", of.credential), ..of.clone() },
        _ => of.clone(),
    }
}

#[tokio::test]
async fn an_etag_is_the_resources_current_one_or_the_change_is_aborted() {
    let (dir, elsewhere) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
    let (_server, client) = &served(dir.path()).await;
    let (_other, twin) = &served(elsewhere.path()).await;
    let acme = settle(client, "acme", "hr", "ada").await;
    // The same history in another store: the same revisions, and no common etag.
    let twins = settle(twin, "acme", "hr", "ada").await;
    let kinds =
        [Of::Catalog, Of::Company, Of::Audit, Of::Credential, Of::User, Of::Consent, Of::Nothing];
    let mut etags = vec![];
    for of in kinds {
        etags.push((of, current(client, of, &acme).await));
        let theirs = current(twin, of, &twins).await;
        if !theirs.is_empty() {
            etags.push((Of::Nothing, theirs));
        }
    }
    let before = head(client).await;
    for (rpc, of) in CHANGES {
        let fit = fit(rpc, &acme);
        let own = current(client, of, &acme).await;
        let strange = [
            "x".to_owned(),
            " ".to_owned(),
            "*".to_owned(),
            "\0".to_owned(),
            "0".repeat(32),
            "f".repeat(10_000),
            "é".repeat(5_000),
            format!("{own} "),
            own.to_uppercase() + "A",
            own.chars().skip(1).collect::<String>() + "_",
        ];
        let others = etags.iter().filter(|(kind, _)| *kind != of || of == Of::Nothing);
        let others = others.map(|(_, etag)| etag.clone()).filter(|etag| !etag.is_empty());
        for etag in strange.into_iter().chain(others) {
            for real in [false, true] {
                let call_ = Call { etag: etag.clone(), real, ..fit.clone() };
                let (code, _) = refused(call(client, rpc, &call_).await);
                assert_eq!(code, Code::Aborted, "{rpc} with {etag:.40?}");
            }
        }
        // The one that is current, and none at all, are no obstacle. Without either a restriction
        // must be acknowledged; its dry run needs neither.
        for etag in [own, String::new()] {
            let done = call(client, rpc, &Call { etag, ..fit.clone() }).await;
            done.unwrap_or_else(|status| panic!("{rpc}: {status}"));
        }
    }
    assert_eq!(head(client).await, before, "nothing of it changed anything");
    // And each is good once: the change that it allows makes it stale.
    let mut spent = 0;
    for (rpc, of) in CHANGES {
        let gone = rpc.starts_with("Delete") || rpc.starts_with("Create") || of == Of::Audit;
        if gone || matches!(rpc, "PutUser" | "AddCompanyScopes") {
            continue;
        }
        let etag = current(client, of, &acme).await;
        let first = Call { etag, real: true, ..acme.clone() };
        let before = head(client).await;
        call(client, rpc, &first).await.unwrap_or_else(|status| panic!("{rpc}: {status}"));
        if head(client).await > before {
            let (code, _) = refused(call(client, rpc, &first).await);
            assert_eq!(code, Code::Aborted, "{rpc} again");
            spent += 1;
        }
    }
    assert!(spent >= 7, "{spent} were spent");
}

#[tokio::test]
async fn ids_differ_by_every_byte_and_have_128_at_most() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &served(dir.path()).await;
    let long = |first: &str| format!("{first}{}", "x".repeat(127));
    let mut calls = vec![];
    for first in ["i", "I"] {
        let id = long(first);
        calls.push(settle(client, &id, &id, &id).await);
    }
    // Of the same bytes but for one letter's case: whoever changes one has not changed the other.
    let [one, other] = &calls[..] else { panic!("two") };
    client.grant(&one.company, &one.credential, &["a"]).await.expect("granted");
    for (call, expected) in [(one, Reason::Allowed), (other, Reason::ScopeNotGranted)] {
        assert_eq!(client.reason(&call.company, &call.credential, &["a"]).await, expected);
    }
    let crossed = client.reason(&one.company, &other.credential, &["a"]).await;
    assert_eq!(crossed, Reason::CredentialUnknown);
    create_credential(client, &one.company, &other.credential, &[]).await;
    let crossed = client.reason(&one.company, &other.credential, &["a"]).await;
    assert_eq!(crossed, Reason::ScopeNotGranted);
    client.put_user(&one.company, &other.user, &[]).await;
    // Every RPC takes the longest, and refuses what is longer by the field's name.
    let before = head(client).await;
    let rpcs = CHANGES.iter().map(|(rpc, _)| *rpc).chain(QUESTIONS).chain(["ImportCredentials"]);
    for rpc in rpcs.filter(|rpc| *rpc != "ApplyCatalog") {
        let fit = match rpc {
            "CreateCompany" => Call { company: long("n"), ..one.clone() },
            "CreateCredential" => Call { credential: long("n"), ..one.clone() },
            _ => one.clone(),
        };
        call(client, rpc, &fit).await.unwrap_or_else(|status| panic!("{rpc}: {status}"));
        let mut named = vec![];
        for hostile in ["x".repeat(129), "x".repeat(10_000), "é".to_owned(), "a\0".to_owned()] {
            for field in ["company_id", "credential_id", "user_id"] {
                let mut wrong = fit.clone();
                match field {
                    "company_id" => wrong.company.clone_from(&hostile),
                    "credential_id" => wrong.credential.clone_from(&hostile),
                    // Ids of users have 255 bytes at most.
                    _ if hostile.len() == 129 => wrong.user = "x".repeat(256),
                    _ => wrong.user.clone_from(&hostile),
                }
                // A field that the RPC does not have is not sent, and its dry run is fine.
                if let Err(status) = call(client, rpc, &wrong).await {
                    let (code, details) = refused(Err::<(), _>(status));
                    assert_eq!(code, Code::InvalidArgument, "{rpc} {field}");
                    let said = fields(&details);
                    assert!(said.len() == 1 && said[0].ends_with(field), "{rpc}: {said:?}");
                    named.push(field);
                }
            }
        }
        assert_eq!(named.iter().filter(|field| **field == "company_id").count(), 4, "{rpc}");
        assert_eq!(named.len() % 4, 0, "{rpc} refuses each of them: {named:?}");
    }
    assert_eq!(head(client).await, before, "nothing of it changed anything");
}

/// A list and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum List {
    Companies,
    Credentials(&'static str, &'static str, bool),
    Users(&'static str),
    Changes(Option<&'static str>, u64),
}

/// A page of two: its ids, and the token of the next.
async fn page(client: &Client, list: List, token: &str) -> Result<(Vec<String>, String), Status> {
    let Client { mut directory, mut changes, .. } = client.clone();
    let (page_size, page_token) = (2, token.to_owned());
    Ok(match list {
        List::Companies => {
            let request = ListCompaniesRequest { page_size, page_token };
            let page = directory.list_companies(request).await?.into_inner();
            (page.companies.into_iter().map(|c| c.company_id).collect(), page.next_page_token)
        }
        List::Credentials(company, scope, include_dormant) => {
            let request = ListCredentialsRequest {
                company_id: company.to_owned(),
                scope: scope.to_owned(),
                include_dormant,
                page_size,
                page_token,
            };
            let page = directory.list_credentials(request).await?.into_inner();
            (page.credentials.into_iter().map(|c| c.credential_id).collect(), page.next_page_token)
        }
        List::Users(company) => {
            let company_id = company.to_owned();
            let request = ListUsersRequest { company_id, page_size, page_token };
            let page = directory.list_users(request).await?.into_inner();
            (page.users.into_iter().map(|u| u.user_id).collect(), page.next_page_token)
        }
        List::Changes(company, after_revision) => {
            let company_id = company.map(str::to_owned);
            let request = ListChangesRequest {
                company_id,
                after_revision,
                page_size,
                page_token,
                ..Default::default()
            };
            let page = changes.list_changes(request).await?.into_inner();
            let revisions = page.changes.into_iter().map(|c| c.revision.to_string());
            (revisions.collect(), page.next_page_token)
        }
    })
}

async fn populate(client: &Client) {
    for company in ["a", "b", "c"] {
        client.create_company(company, None).await;
        for id in ["k1", "k2", "k3"] {
            create_credential(client, company, id, &["a"]).await;
            client.put_user(company, id, &[]).await;
        }
    }
}

/// What no list gave: cut short, changed in one bit, or made up.
fn forged(token: &str) -> Vec<String> {
    let mut all: Vec<_> = (1..token.len()).map(|n| token[..n].to_owned()).collect();
    for n in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.as_bytes().to_vec();
            bytes[n] ^= 1 << bit;
            all.push(String::from_utf8(bytes).expect("ASCII"));
        }
    }
    all.extend(["A", "AAAA", "====", "not base64!", "\0", "é"].map(str::to_owned));
    all.extend([
        format!("{token}="),
        format!("{token}A"),
        format!("{token}AA"),
        format!(" {token}"),
    ]);
    all.extend([token.repeat(2), "A".repeat(22), "A".repeat(10_000), "é".repeat(5_000)]);
    all
}

#[tokio::test]
async fn a_page_token_continues_its_own_list_and_no_other() {
    let (dir, elsewhere) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
    let (_server, client) = &served(dir.path()).await;
    let (_other, twin) = &served(elsewhere.path()).await;
    populate(client).await;
    populate(twin).await;
    let lists = [
        List::Companies,
        List::Credentials("a", "", false),
        List::Credentials("b", "", false),
        List::Credentials("a", "a", false),
        List::Credentials("a", "a", true),
        List::Credentials("a", "b", false),
        List::Users("a"),
        List::Users("b"),
        List::Changes(None, 0),
        List::Changes(None, 1),
        List::Changes(Some("a"), 0),
        List::Changes(Some("a"), 1),
        List::Changes(Some("b"), 1),
    ];
    let mut tokens = vec![];
    for list in lists {
        let (first, token) = page(client, list, "").await.expect("a page");
        assert_eq!(first.len(), 2, "{list:?}");
        let (second, _) = page(client, list, &token).await.expect("a page");
        assert!(!second.is_empty() && second.iter().all(|id| !first.contains(id)), "{list:?}");
        let (_, theirs) = page(twin, list, "").await.expect("a page");
        tokens.push((list, token));
        tokens.push((List::Changes(None, u64::MAX), theirs));
    }
    for (list, token) in tokens.iter().filter(|(list, _)| lists.contains(list)) {
        let others = tokens.iter().filter(|(other, _)| other != list).map(|(_, t)| t.clone());
        for strange in forged(token).into_iter().chain(others) {
            let (code, details) = refused(page(client, *list, &strange).await);
            let told = (code, fields(&details));
            assert_eq!(told, (Code::InvalidArgument, vec!["page_token"]), "{list:?} {strange:.60}");
        }
    }
}

#[tokio::test]
async fn a_cursor_resumes_its_own_stream_and_no_other() {
    let (dir, elsewhere) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
    let (_server, client) = &served(dir.path()).await;
    let (_other, twin) = &served(elsewhere.path()).await;
    populate(client).await;
    populate(twin).await;
    let watch = async |client: &Client, company: Option<&str>, cursor: &str| {
        let company_id = company.map(str::to_owned);
        let request =
            WatchChangesRequest { company_id, cursor: cursor.to_owned(), ..Default::default() };
        let mut stream = client.changes.clone().watch_changes(request).await?.into_inner();
        stream.message().await.map(|step| step.expect("a change"))
    };
    let first = watch(client, None, "").await.expect("a change");
    let next = watch(client, None, &first.cursor).await.expect("a change");
    assert_eq!(next.change.expect("a change").revision, 2, "right behind it");
    let (_, page) = page(client, List::Changes(None, 0), "").await.expect("a page");
    let of_one = watch(client, Some("a"), "").await.expect("a change").cursor;
    let theirs = watch(twin, None, "").await.expect("a change").cursor;
    for strange in forged(&first.cursor).into_iter().chain([page, of_one, theirs]) {
        let (code, details) = refused(watch(client, None, &strange).await);
        let told = (code, fields(&details));
        assert_eq!(told, (Code::InvalidArgument, vec!["cursor"]), "{strange:.60}");
    }
}
