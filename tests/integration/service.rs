//! The service as its clients meet it: real sockets, the contract's names, every kind of error.
use std::collections::BTreeSet;
use std::process::Stdio;

use crate::harness::{Client, Server, endpoint_of, fields, owned, refused, scopegate, scopes_of};
use prost_types::FieldMask;
use scopegate::proto::*;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

struct Served {
    server: Server,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = server.client().await;
    Served { server, client, _dir: dir }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: owned(paths) })
}

#[tokio::test]
async fn a_client_that_knows_only_the_contract_can_do_it_all() {
    let Served { client, .. } = &served().await;
    client.create_company("all", None).await;
    let few = client.create_company("few", Some(&["users:read", "users:write"])).await;
    assert_eq!(few.scopes.len(), 2);
    client.create_credential("few", "hr", &["users:read"]).await;
    client.grant("few", "hr", &["users:write"]).await.expect("granted");
    let (code, details) = refused(client.grant("few", "hr", &["paths:read", "users:bulk"]).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(details.precondition_failure().expect("named").violations.len(), 2);
    let restrict = RestrictCompanyScopesRequest {
        company_id: "few".to_owned(),
        scopes: owned(&["users:write"]),
        ..Default::default()
    };
    let audit = RestrictCompanyScopesRequest { validate_only: true, ..restrict.clone() };
    let stale = client.try_restrict(audit.clone()).await.expect("a report").etag;
    // A grant between audit and restriction makes the etag stale, to whomever it was made (D7).
    client.create_credential("few", "new", &["users:write"]).await;
    let with = |etag| RestrictCompanyScopesRequest { etag, ..restrict.clone() };
    assert_eq!(refused(client.try_restrict(with(stale)).await).0, Code::Aborted);
    let report = client.try_restrict(audit).await.expect("a report");
    assert_eq!(report.affected_credential_count, 2);
    let done = client.try_restrict(with(report.etag)).await.expect("restricted");
    assert_eq!(client.reason("few", "hr", &["users:write"]).await, Reason::ScopeNotInCompany);
    client.add_scopes("few", &["users:write"]).await;
    assert_eq!(client.reason("few", "hr", &["users:write"]).await, Reason::GrantDormant);
    let held = client.credential("few", "hr").await.expect("there");
    assert_eq!(held.effective_scopes, ["users:read"]);
    assert_eq!(held.grants[1].state(), GrantState::Dormant);
    let reset = ResetScopesRequest {
        company_id: "few".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let reset = client.authorization.clone().reset_scopes(reset).await.expect("reset").into_inner();
    assert_eq!(reset.added_scopes, ["users:write"]);
    assert!(reset.revision > done.revision);
    assert_eq!(client.reason("few", "hr", &["users:write"]).await, Reason::Allowed);
}

#[tokio::test]
async fn a_restriction_needs_no_acknowledgement_where_nobody_enabled_is_affected() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "off", &["users:bulk"]).await;
    let disable = UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "off".to_owned(),
        update_mask: mask(&["enabled"]),
        ..Default::default()
    };
    client.directory.clone().update_credential(disable).await.expect("disabled");
    let restrict = RestrictCompanyScopesRequest {
        company_id: "acme".to_owned(),
        scopes: owned(&["users:bulk"]),
        ..Default::default()
    };
    let done = client.try_restrict(restrict.clone()).await.expect("restricted");
    assert_eq!((done.affected_credential_count, done.affected_credentials[0].enabled), (1, false));
    // Again: nothing is left to restrict, and nothing is committed.
    let again = client.try_restrict(restrict).await.expect("nothing to do");
    assert_eq!(again.revision, done.revision);
    assert!(again.restricted_scopes.is_empty());
}

#[tokio::test]
async fn validate_only_answers_as_the_change_would_and_changes_nothing() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", Some(&["users:read", "users:write"])).await;
    let before = client.create_credential("acme", "hr", &["users:read"]).await;
    let dry = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:write"]),
        validate_only: true,
        ..Default::default()
    };
    let shown = client.authorization.clone().grant_scopes(dry.clone()).await.expect("shown");
    let shown = shown.into_inner();
    assert_eq!(shown.added_scopes, ["users:write"]);
    assert_eq!(shown.credential.expect("shown").effective_scopes.len(), 2);
    assert_eq!(shown.revision, before.revision, "the current one");
    assert_eq!(client.credential("acme", "hr").await.expect("there"), before);
    let above = GrantScopesRequest { scopes: owned(&["users:bulk"]), ..dry };
    let (code, _) = refused(client.authorization.clone().grant_scopes(above).await);
    assert_eq!(code, Code::FailedPrecondition, "all checks run");
    let create = CreateCompanyRequest {
        company_id: "other".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    client.directory.clone().create_company(create).await.expect("shown");
    let delete = DeleteCompanyRequest {
        company_id: "acme".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    client.directory.clone().delete_company(delete).await.expect("shown");
    let all = client.directory.clone().list_companies(ListCompaniesRequest::default()).await;
    let all = all.expect("listed").into_inner().companies;
    assert_eq!(all.iter().map(|c| c.company_id.as_str()).collect::<Vec<_>>(), ["acme"]);
}

#[tokio::test]
async fn a_change_that_changes_nothing_commits_nothing() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    let made = client.create_credential("acme", "hr", &["users:read"]).await;
    let again = client.grant("acme", "hr", &["users:read"]).await.expect("nothing to do");
    assert_eq!((again.revision, again.added_scopes.len()), (made.revision, 0));
    let idle = UpdateCompanyRequest {
        company_id: "acme".to_owned(),
        display_name: "Not masked".to_owned(),
        ..Default::default()
    };
    let done = client.directory.clone().update_company(idle).await.expect("nothing to do");
    let done = done.into_inner();
    assert_eq!(done.revision, made.revision);
    assert_eq!(done.company.expect("a company").display_name, "");
}

#[tokio::test]
async fn a_stale_etag_aborts_and_a_current_one_does_not() {
    let Served { client, .. } = &served().await;
    let company = client.create_company("acme", None).await;
    let credential = client.create_credential("acme", "hr", &["users:read"]).await;
    let update = |etag: &str, label: &str| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        label: label.to_owned(),
        update_mask: mask(&["label"]),
        etag: etag.to_owned(),
        ..Default::default()
    };
    let mut directory = client.directory.clone();
    let done = directory.update_credential(update(&credential.etag, "one")).await.expect("current");
    let now = done.into_inner().credential.expect("a credential");
    assert_ne!(now.etag, credential.etag);
    for stale in [credential.etag.as_str(), "", "x", &"é".repeat(5_000)] {
        let answer = directory.update_credential(update(stale, "two")).await;
        // Empty is none given.
        if stale.is_empty() {
            answer.expect("no etag, no condition");
            continue;
        }
        assert_eq!(refused(answer).0, Code::Aborted);
    }
    let delete = DeleteCompanyRequest {
        company_id: "acme".to_owned(),
        etag: company.etag,
        ..Default::default()
    };
    directory.delete_company(delete).await.expect("the company itself did not change");
}

#[tokio::test]
async fn an_id_created_again_has_nothing_of_its_earlier_life() {
    let Served { client, .. } = &served().await;
    let mut directory = client.directory.clone();
    for round in 0..3 {
        client.create_company("acme", None).await;
        let page = ListCredentialsRequest { company_id: "acme".to_owned(), ..Default::default() };
        let page = directory.list_credentials(page).await.expect("listed").into_inner();
        assert!(page.credentials.is_empty(), "round {round}");
        let unknown = client.reason("acme", "hr", &["users:read"]).await;
        assert_eq!(unknown, Reason::CredentialUnknown);
        for _ in 0..2 {
            client.create_credential("acme", "hr", &[]).await;
            let empty = client.reason("acme", "hr", &["users:read"]).await;
            assert_eq!(empty, Reason::ScopeNotGranted);
            client.grant("acme", "hr", &["users:read"]).await.expect("granted");
            assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
            let delete = DeleteCredentialRequest {
                company_id: "acme".to_owned(),
                credential_id: "hr".to_owned(),
                ..Default::default()
            };
            let last = directory.delete_credential(delete).await.expect("deleted").into_inner();
            assert_eq!(last.credential.expect("its last state").effective_scopes, ["users:read"]);
            let gone = client.reason("acme", "hr", &["users:read"]).await;
            assert_eq!(gone, Reason::CredentialUnknown);
        }
        client.create_credential("acme", "hr", &["users:read"]).await;
        let delete = DeleteCompanyRequest { company_id: "acme".to_owned(), ..Default::default() };
        directory.delete_company(delete).await.expect("deleted");
        assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::CompanyUnknown);
    }
}

#[tokio::test]
async fn disabled_and_expired_credentials_are_denied_at_once_and_come_back() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let mut directory = client.directory.clone();
    let company = |enabled| UpdateCompanyRequest {
        company_id: "acme".to_owned(),
        enabled,
        update_mask: mask(&["enabled"]),
        ..Default::default()
    };
    let credential = |path: &str, seconds| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        enabled: false,
        expires_at: seconds,
        update_mask: mask(&[path]),
        ..Default::default()
    };
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    directory.update_company(company(false)).await.expect("disabled");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::CompanyDisabled);
    directory.update_company(company(true)).await.expect("enabled");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
    directory.update_credential(credential("expires_at", past)).await.expect("expired");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::CredentialExpired);
    directory.update_credential(credential("enabled", None)).await.expect("disabled");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::CredentialDisabled);
    let enable = UpdateCredentialRequest { enabled: true, ..credential("enabled", None) };
    directory.update_credential(enable).await.expect("enabled");
    // A masked field that is absent is cleared.
    directory.update_credential(credential("expires_at", None)).await.expect("endless");
    assert_eq!(client.reason("acme", "hr", &["users:read"]).await, Reason::Allowed);
}

#[tokio::test]
async fn lists_page_through_all_once_and_refuse_foreign_tokens() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_company("Acme", None).await;
    let mut expected = BTreeSet::new();
    for n in 0..25 {
        // Differing in case only, and as long as can be.
        for id in [format!("k{n}"), format!("K{n}"), format!("{}{n:02}", "x".repeat(126))] {
            let scopes: &[&str] = if n % 2 == 0 { &["users:read"] } else { &["users:write"] };
            client.create_credential("acme", &id, scopes).await;
            expected.insert((id, n % 2 == 0));
        }
    }
    let mut directory = client.directory.clone();
    let mut list = async |scope: &str, dormant, size, token: &str, company: &str| {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            scope: scope.to_owned(),
            include_dormant: dormant,
            page_size: size,
            page_token: token.to_owned(),
        };
        directory.list_credentials(request).await.map(tonic::Response::into_inner)
    };
    for (scope, only) in [("", None), ("users:read", Some(true)), ("users:write", Some(false))] {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let page = list(scope, false, 7, &token, "acme").await.expect("a page");
            assert!(page.credentials.len() <= 7);
            found.extend(page.credentials.into_iter().map(|c| c.credential_id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let wanted = expected.iter().filter(|(_, read)| only.is_none_or(|only| only == *read));
        let wanted: Vec<_> = wanted.map(|(id, _)| id.clone()).collect();
        assert_eq!(found, wanted, "each once, by id, byte for byte");
    }
    client.restrict("acme", &["users:read"]).await;
    assert!(list("users:read", false, 0, "", "acme").await.expect("a page").credentials.is_empty());
    let dormant = list("users:read", true, 0, "", "acme").await.expect("a page");
    assert_eq!(dormant.credentials.len(), 39);
    // Tokens of another list, another company, or nobody's.
    let token = list("", false, 7, "", "acme").await.expect("a page").next_page_token;
    for (scope, company, token) in [
        ("users:write", "acme", token.as_str()),
        ("", "Acme", &token),
        ("", "acme", "AAAA"),
        ("", "acme", "not base64!"),
        ("", "acme", &"A".repeat(100_000)),
        ("", "acme", &token[..token.len() - 3]),
    ] {
        let (code, details) = refused(list(scope, false, 7, token, company).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["page_token"]));
    }
    let answer = list("", false, -1, "", "acme").await;
    assert_eq!(fields(&refused(answer).1), ["page_size"]);
    assert_eq!(list("", false, i32::MAX, "", "acme").await.expect("a page").credentials.len(), 75);
}

#[tokio::test]
async fn the_change_log_says_who_what_when_and_why_in_order() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_company("acme2", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    let revoke = RevokeScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:read"]),
        reason: "left the project".to_owned(),
        on_behalf_of: "ada@acme".to_owned(),
        ..Default::default()
    };
    client.authorization.clone().revoke_scopes(revoke).await.expect("revoked");
    let rename = UpdateCompanyRequest {
        company_id: "acme".to_owned(),
        display_name: "Acme \"Ltd\"".to_owned(),
        enabled: false,
        update_mask: mask(&["display_name", "enabled"]),
        ..Default::default()
    };
    client.directory.clone().update_company(rename).await.expect("renamed");
    let list = async |company: Option<&str>, after| {
        let request = ListChangesRequest {
            company_id: company.map(str::to_owned),
            after_revision: after,
            ..Default::default()
        };
        let page = client.changes.clone().list_changes(request).await.expect("listed");
        page.into_inner().changes
    };
    let all = list(None, 0).await;
    assert_eq!(all.iter().map(|c| c.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let kinds: Vec<_> = all.iter().map(|c| c.kind.as_str()).collect();
    let expected = [
        "ApplyCatalog",
        "CreateCompany",
        "CreateCompany",
        "CreateCredential",
        "RevokeScopes",
        "UpdateCompany",
    ];
    assert_eq!(kinds, expected);
    let revoked = &all[4];
    assert_eq!(revoked.removed_scopes, ["users:read"]);
    assert_eq!(
        (revoked.reason.as_str(), revoked.on_behalf_of.as_str()),
        ("left the project", "ada@acme")
    );
    assert_eq!((revoked.actor.as_str(), revoked.credential_id.as_str()), ("anonymous", "hr"));
    let fields: Vec<_> = all[5]
        .fields
        .iter()
        .map(|f| (f.field.as_str(), f.before.as_str(), f.after.as_str()))
        .collect();
    assert_eq!(
        fields,
        [("display_name", "\"\"", "\"Acme \\\"Ltd\\\"\""), ("enabled", "true", "false")]
    );
    assert!(
        all.windows(2)
            .all(|pair| pair[0].time.expect("a time").seconds
                <= pair[1].time.expect("a time").seconds)
    );
    assert_eq!(list(Some("acme2"), 0).await.len(), 1);
    assert_eq!(list(Some("acme"), 2).await.len(), 3);
    assert!(list(None, u64::MAX).await.is_empty());
}

#[tokio::test]
async fn malformed_requests_name_every_field_and_change_nothing() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    let bad =
        CheckRequest { company_id: "a/b".to_owned(), ..scopes_of("", "é", &["a b", "ok", "\""]) };
    let (code, details) = refused(client.ask(bad).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(fields(&details), ["company_id", "credential_id", "scopes[0]", "scopes[2]"]);
    // Neither scopes nor an endpoint is an error, never a yes (D13); both is one too.
    assert_eq!(fields(&refused(client.ask(scopes_of("acme", "hr", &[])).await).1), ["scopes"]);
    let both = CheckRequest {
        scopes: owned(&["users:read"]),
        ..endpoint_of("acme", "hr", "GET", "/api/v2/users")
    };
    assert_eq!(fields(&refused(client.ask(both).await).1), ["endpoint"]);
    for path in [
        "",
        "users",
        "/api/v2/users?x=1",
        "/api/../users",
        "/api//users",
        "/api\\users",
        "/api%2Fusers",
        "/%2e%2e/x",
    ] {
        let (code, details) = refused(client.ask(endpoint_of("acme", "hr", "GET", path)).await);
        assert_eq!(
            (code, fields(&details)),
            (Code::InvalidArgument, vec!["endpoint.path"]),
            "{path}"
        );
    }
    for method in ["", "G T", "GET /"] {
        let (_, details) = refused(client.ask(endpoint_of("acme", "hr", method, "/x")).await);
        assert_eq!(fields(&details), ["endpoint.method"]);
    }
    // A scope that the catalog lacks is a denial in a check, and malformed in a change.
    client.create_credential("acme", "hr", &[]).await;
    assert_eq!(client.reason("acme", "hr", &["users:raed"]).await, Reason::ScopeUnknown);
    let (code, details) = refused(client.grant("acme", "hr", &["users:read", "users:raed"]).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["scopes[1]"]));
    let twice = ["users:read", "users:read", "users:raed"];
    let (_, details) = refused(client.grant("acme", "hr", &twice).await);
    assert_eq!(fields(&details), ["scopes[2]"], "its place in the request");
    let (code, _) = refused(client.grant("nobody", "hr", &["users:raed"]).await);
    assert_eq!(code, Code::InvalidArgument, "before NOT_FOUND");
    let update = UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        expires_at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
        label: "a\nb".to_owned(),
        reason: "x".repeat(2_000),
        update_mask: mask(&["label", "grants"]),
        ..Default::default()
    };
    let (_, details) = refused(client.directory.clone().update_credential(update).await);
    assert_eq!(fields(&details), ["update_mask.paths[1]", "label", "expires_at", "reason"]);
    let empty = ReplaceScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let refusal = client.authorization.clone().replace_scopes(empty.clone()).await;
    assert_eq!(fields(&refused(refusal).1), ["scopes"]);
    let allowed = ReplaceScopesRequest { allow_empty: true, ..empty };
    client.authorization.clone().replace_scopes(allowed).await.expect("as said");
}

#[tokio::test]
async fn errors_have_the_contracts_codes_and_details() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &[]).await;
    let mut directory = client.directory.clone();
    let (code, details) = refused(client.credential("acme", "nobody").await);
    assert_eq!(code, Code::NotFound);
    assert_eq!(details.resource_info().expect("named").resource_name, "nobody");
    let (code, _) = refused(client.grant("nobody", "hr", &["users:read"]).await);
    assert_eq!(code, Code::NotFound);
    let again = CreateCompanyRequest { company_id: "acme".to_owned(), ..Default::default() };
    assert_eq!(refused(directory.create_company(again.clone()).await).0, Code::AlreadyExists);
    let etag = CreateCompanyRequest { company_id: "new".to_owned(), etag: "x".to_owned(), ..again };
    assert_eq!(refused(directory.create_company(etag).await).0, Code::Aborted);
    let again = CreateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    assert_eq!(refused(directory.create_credential(again).await).0, Code::AlreadyExists);
    // ABORTED goes before FAILED_PRECONDITION.
    client.restrict("acme", &["users:bulk"]).await;
    let both = GrantScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        scopes: owned(&["users:bulk"]),
        etag: "stale".to_owned(),
        ..Default::default()
    };
    assert_eq!(refused(client.authorization.clone().grant_scopes(both).await).0, Code::Aborted);
}

#[tokio::test]
async fn errors_name_the_limit_and_its_value() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    let names: Vec<_> = (0..1_001).map(|n| format!("s{n}")).collect();
    let many: Vec<_> = names.iter().map(String::as_str).collect();
    let (code, details) = refused(client.ask(scopes_of("acme", "hr", &many)).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(details.quota_failure().expect("a limit").violations[0].subject, "scopes");
    // A message above the limit: tonic alone would say OUT_OF_RANGE.
    let huge = "x".repeat(5 << 20);
    let (code, details) = refused(client.ask(scopes_of("acme", &huge, &["users:read"])).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(details.quota_failure().expect("a limit").violations[0].subject, "message");
    // Details stay small whatever is wrong, and say how much there is.
    let unknown: Vec<_> = (0..500).map(|n| format!("{}{n}", "u".repeat(100))).collect();
    let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
    client.create_credential("acme", "hr", &[]).await;
    let status = client.grant("acme", "hr", &unknown).await.expect_err("unknown scopes");
    assert!(status.details().len() <= 4096, "{}", status.details().len());
    let (_, details) = refused(Err::<(), _>(status));
    assert!(fields(&details).len() <= 20);
    assert_eq!(details.error_info().expect("info").metadata["violation_count"], "500");
}

#[tokio::test]
async fn an_answer_waits_for_the_revision_asked_for_or_says_unavailable() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    let made = client.create_credential("acme", "hr", &["users:read"]).await;
    let at = |revision| CheckRequest {
        at_least_revision: revision,
        ..scopes_of("acme", "hr", &["users:read"])
    };
    assert_eq!(client.ask(at(made.revision)).await.expect("there").decision(), Decision::Allowed);
    let (waiting, change) =
        tokio::join!(client.ask(at(made.revision + 1)), client.restrict("acme", &["users:read"]),);
    let waiting = waiting.expect("it came");
    assert!(waiting.revision >= change.revision);
    assert_eq!(waiting.decision(), Decision::Denied);
    let (code, details) = refused(client.ask(at(u64::MAX)).await);
    assert_eq!(code, Code::Unavailable);
    assert!(details.retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_is_kept_and_applied_again_only_when_its_file_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("catalog.yaml");
    let data = dir.path().join("data");
    let arg = file.to_str().expect("a path").to_owned();
    std::fs::write(&file, "scopes: { a: , b: }").expect("written");
    let server = Server::start(&data, &["--catalog", &arg]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a", "b"]).await;
    assert!(server.terminate().success());
    // Unchanged: nothing is committed.
    let server = Server::start(&data, &["--catalog", &arg]);
    let client = server.client().await;
    let read = client.catalog.clone().get_catalog(GetCatalogRequest {}).await.expect("read");
    let read = read.into_inner();
    assert_eq!((read.yaml.as_str(), read.revision), ("scopes: { a: , b: }", 3));
    server.kill();
    // A removal must be meant.
    std::fs::write(&file, "scopes: { a: , c: }").expect("written");
    let start = |args: &[&str]| {
        let mut command = scopegate();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data).args(args);
        let output = command.stdin(Stdio::null()).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, said) = start(&["--catalog", &arg, "--strict-catalog"]);
    assert_eq!(code, Some(64));
    assert!(
        said.contains("would remove `b`") && said.contains("--allow-catalog-removals"),
        "{said}"
    );
    let server = Server::start(&data, &["--catalog", &arg, "--allow-catalog-removals"]);
    let client = server.client().await;
    assert_eq!(client.reason("acme", "hr", &["a"]).await, Reason::Allowed);
    assert_eq!(client.reason("acme", "hr", &["b"]).await, Reason::ScopeUnknown);
    assert_eq!(client.reason("acme", "hr", &["c"]).await, Reason::ScopeNotInCompany);
    assert_eq!(client.credential("acme", "hr").await.expect("there").effective_scopes, ["a"]);
}

#[tokio::test]
async fn seventy_thousand_scopes_are_a_catalog_like_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("catalog.yaml");
    let names: Vec<_> = (0..70_000).map(|n| format!("resource{n}:read: ")).collect();
    std::fs::write(&file, format!("scopes: {{ {} }}", names.join(", "))).expect("written");
    let arg = file.to_str().expect("a path");
    let server = Server::start(&dir.path().join("data"), &["--catalog", arg]);
    let client = server.client().await;
    let company = client.create_company("acme", None).await;
    assert_eq!(company.scopes.len(), 70_000);
    client.create_credential("acme", "hr", &["resource69999:read"]).await;
    assert_eq!(client.reason("acme", "hr", &["resource69999:read"]).await, Reason::Allowed);
    assert_eq!(client.reason("acme", "hr", &["resource4463:read"]).await, Reason::ScopeNotGranted);
}

// A thread of its own for the client, which must hear that the server is going.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_signals() {
    let Served { server, client, _dir } = served().await;
    let channel = crate::harness::endpoint(&server.url()).connect().await.expect("up");
    let mut health = HealthClient::new(channel.clone());
    for service in
        ["", "AuthorizationService", "DirectoryService", "CatalogService", "ChangeService"]
    {
        let service =
            if service.is_empty() { String::new() } else { format!("scopegate.v1.{service}") };
        let answer = health.check(HealthCheckRequest { service }).await.expect("known");
        assert_eq!(answer.into_inner().status, 1, "SERVING");
    }
    let unknown = health.check(HealthCheckRequest { service: "scopegate.v1.Nothing".to_owned() });
    assert_eq!(unknown.await.expect_err("unknown").code(), Code::NotFound);
    client.create_company("acme", None).await;
    // A client that stays connected does not hold up the end.
    assert_eq!(server.terminate().code(), Some(0));
    assert!(health.check(HealthCheckRequest::default()).await.is_err(), "nobody is there");
}

mod process {
    use super::*;

    fn run(args: &[&str]) -> (Option<i32>, String) {
        let output = scopegate().args(args).stdin(Stdio::null()).output().expect("runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }

    #[test]
    fn bad_configuration_prints_one_sentence_and_exits_64() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("never-made");
        let data = data.to_str().expect("a path");
        let bad = dir.path().join("bad.yaml");
        std::fs::write(&bad, "scopes:\n  a: { implies: [b] }\n").expect("written");
        let bad = bad.to_str().expect("a path");
        for (args, said) in [
            (vec!["--listen", "0.0.0.0:0"], "--allow-unauthenticated"),
            (vec!["--listen", "[::]:0"], "not a loopback address"),
            (vec!["--listen", "nonsense"], "--listen"),
            (vec!["--cache-entries", "0"], "--cache-entries"),
            (vec!["--catalog", bad], "line 2, column 18: `b` is not a scope of this catalog"),
            (vec!["--catalog", "/nowhere.yaml"], "/nowhere.yaml"),
            (vec!["--log", "=="], "--log"),
        ] {
            let args = [vec!["serve", "--data-dir", data], args].concat();
            let (code, output) = run(&args);
            assert_eq!(code, Some(64), "{args:?}: {output}");
            assert!(output.contains(said), "{args:?}: {output}");
        }
        assert!(!std::path::Path::new(data).exists(), "said before anything opens");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_is_one_sentence_and_74() {
        let Served { server, _dir, .. } = served().await;
        let data = _dir.path().to_str().expect("a path");
        let (code, output) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
        assert_eq!(code, Some(74), "{output}");
        assert!(output.contains("another process has the store"), "{output}");
        server.kill();
        std::fs::write(_dir.path().join("db"), vec![3; 1 << 20]).expect("written");
        let (code, output) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
        assert_eq!(code, Some(74), "{output}");
        assert!(output.contains("is damaged; restore it from a backup"), "{output}");
        assert!(!output.contains("panicked"), "{output}");
    }

    #[tokio::test]
    async fn check_and_health_report_by_exit_code() {
        let Served { server, client, .. } = &served().await;
        client.create_company("acme", None).await;
        client.create_credential("acme", "hr", &["users:read"]).await;
        let url = server.url();
        let ask = |args: &[&str]| run(&[args, &["--endpoint", &url]].concat());
        let (code, output) = ask(&["check", "acme", "hr", "users:read"]);
        assert_eq!(code, Some(0));
        assert!(output.contains("ALLOWED"), "{output}");
        let (code, output) =
            ask(&["check", "acme", "hr", "users:read", "users:write", "--output", "json"]);
        assert_eq!(code, Some(1));
        let answer: serde_json::Value = serde_json::from_str(&output).expect("JSON");
        assert_eq!(answer["decision"], "DECISION_DENIED");
        assert_eq!(answer["reason"], "REASON_SCOPE_NOT_GRANTED");
        assert_eq!(answer["missingScopes"], serde_json::json!(["users:write"]));
        let (code, output) = ask(&["check", "a/b", "hr", "users:read"]);
        assert_eq!(code, Some(2));
        assert!(output.contains("COMPANY"), "{output}");
        assert_eq!(ask(&["check", "acme"]).0, Some(2));
        assert_eq!(ask(&["health"]), (Some(0), "SERVING\n".to_owned()));
        assert_eq!(ask(&["health", "--service", "nothing"]).0, Some(2));
        let (code, output) = run(&["health", "--endpoint", "http://127.0.0.1:1"]);
        assert_eq!(code, Some(2));
        assert!(output.contains("no server answers"), "{output}");
    }
}

#[tokio::test]
async fn a_wrong_restriction_can_be_undone() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    for n in 0..5 {
        client.create_credential("acme", &format!("k{n}"), &["users:read", "users:write"]).await;
    }
    let wrong = client.restrict("acme", &["users:read", "users:write"]).await;
    assert_eq!(wrong.affected_credential_count, 5);
    let restore = |scopes: &[&str], revision| RestoreGrantsRequest {
        company_id: "acme".to_owned(),
        scopes: owned(scopes),
        restricted_at_revision: revision,
        ..Default::default()
    };
    let mut authorization = client.authorization.clone();
    let early = authorization.restore_grants(restore(&["users:read"], wrong.revision)).await;
    assert_eq!(refused(early).0, Code::FailedPrecondition, "not back in the ceiling");
    client.add_scopes("acme", &["users:read", "users:write"]).await;
    for (scopes, revision) in [
        (&["users:read"], wrong.revision - 1),
        (&["users:read"], wrong.revision + 1_000),
        (&["users:bulk"], wrong.revision),
    ] {
        let unknown = authorization.restore_grants(restore(scopes, revision)).await;
        let (code, details) = refused(unknown);
        assert_eq!(code, Code::FailedPrecondition, "{scopes:?} at {revision}");
        let failure = details.precondition_failure().expect("it");
        assert_eq!(failure.violations.len(), 1, "{scopes:?} at {revision}");
    }
    assert_eq!(client.reason("acme", "k3", &["users:read"]).await, Reason::GrantDormant);
    let dry =
        RestoreGrantsRequest { validate_only: true, ..restore(&["users:read"], wrong.revision) };
    let shown = authorization.restore_grants(dry).await.expect("shown").into_inner();
    assert_eq!(shown.restored_credential_count, 5);
    assert_eq!(client.reason("acme", "k3", &["users:read"]).await, Reason::GrantDormant);
    let request = restore(&["users:read"], wrong.revision);
    let done = authorization.restore_grants(request.clone()).await.expect("restored").into_inner();
    assert_eq!(done.restored_credential_count, 5);
    assert_eq!(client.reason("acme", "k3", &["users:read"]).await, Reason::Allowed);
    assert_eq!(client.reason("acme", "k3", &["users:write"]).await, Reason::GrantDormant);
    let again = authorization.restore_grants(request).await.expect("nothing to do").into_inner();
    assert_eq!((again.restored_credential_count, again.revision), (0, done.revision));
    let held = client.credential("acme", "k3").await.expect("there");
    assert_eq!(held.effective_scopes, ["users:read"]);
    // Where nobody sleeps nothing changes, and nothing is logged (D18).
    let nobody = client.restrict("acme", &["users:bulk"]).await;
    assert_eq!(nobody.affected_credential_count, 0);
    let before = client.add_scopes("acme", &["users:bulk"]).await.revision;
    let none = restore(&["users:bulk"], nobody.revision);
    let none = authorization.restore_grants(none).await.expect("nothing to do").into_inner();
    assert_eq!((none.restored_credential_count, none.revision), (0, before));
}

/// The undo of a later restriction wakes nobody, but the undo of an earlier one waits for it.
#[tokio::test]
async fn an_undo_that_another_waits_for_counts_although_it_wakes_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::with_catalog(dir.path(), "learn-amp.yaml");
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["api/all"]).await;
    let all = client.restrict("acme", &["api/all"]).await.revision;
    let read = client.restrict("acme", &["api/read"]).await.revision;
    client.add_scopes("acme", &["api/all"]).await;
    client.grant("acme", "hr", &["api/read"]).await.expect("granted");
    let restore = async |scope: &str, revision| {
        let request = RestoreGrantsRequest {
            company_id: "acme".to_owned(),
            scopes: owned(&[scope]),
            restricted_at_revision: revision,
            ..Default::default()
        };
        let mut authorization = client.authorization.clone();
        authorization.restore_grants(request).await.map(tonic::Response::into_inner)
    };
    let (code, details) = refused(restore("api/all", all).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(details.error_info().expect("it").reason, "LATER_RESTRICTION_ACTIVE");
    assert_eq!(restore("api/read", read).await.expect("undone").restored_credential_count, 0);
    assert_eq!(restore("api/all", all).await.expect("undone").restored_credential_count, 1);
    let held = client.credential("acme", "hr").await.expect("there").effective_scopes;
    assert!(held.contains(&"api/all".to_owned()), "{held:?}");
}

#[tokio::test]
async fn a_secret_is_shown_once_and_good_only_while_everything_is_live() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    client.create_company("other", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    client.create_credential("acme", "bi", &[]).await;
    let mut directory = client.directory.clone();
    let make = CreateSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    let dry = CreateSecretRequest { validate_only: true, ..make.clone() };
    let shown = directory.create_secret(dry).await.expect("shown").into_inner();
    assert_eq!((shown.secret.as_str(), shown.secret_id.as_str()), ("", ""));
    let first = directory.create_secret(make.clone()).await.expect("made").into_inner();
    let second = directory.create_secret(make.clone()).await.expect("made").into_inner();
    assert_ne!(first.secret, second.secret);
    let (code, _) = refused(directory.create_secret(make.clone()).await);
    assert_eq!(code, Code::FailedPrecondition, "a third live one");
    assert_eq!(
        client.credential("acme", "hr").await.expect("there").secret_ids,
        [first.secret_id.clone(), second.secret_id.clone()]
    );
    let verify = async |company: &str, credential: &str, secret: &str| {
        let request = VerifySecretRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
            secret: secret.to_owned(),
        };
        client.directory.clone().verify_secret(request).await.expect("an answer").into_inner()
    };
    // HTTP Basic knows the tenant and the secret: the public part finds the credential.
    for (credential, secret) in [("", &first), ("hr", &second)] {
        let good = verify("acme", credential, &secret.secret).await;
        assert!(good.verified);
        assert_eq!((good.credential_id.as_str(), good.reason()), ("hr", Reason::Allowed));
        assert_eq!(good.secret_id, secret.secret_id);
    }
    let mut forged = first.secret.clone();
    forged.pop();
    forged.push(if first.secret.ends_with('0') { '1' } else { '0' });
    let wrong = [
        ("acme", "hr", forged.as_str()),
        ("acme", "bi", &first.secret),
        ("other", "", &first.secret),
        ("nobody", "", &first.secret),
        ("acme", "", &first.secret_id),
        ("acme", "", ""),
        ("acme", "", &"x".repeat(100_000)),
    ];
    for (company, credential, secret) in wrong {
        let found = verify(company, credential, secret).await;
        let told = (found.verified, found.credential_id.as_str(), found.secret_id.as_str());
        assert_eq!(told, (false, "", ""), "whoever has no right secret learns nothing");
        assert_eq!(found.reason(), Reason::CredentialUnknown);
    }
    let update = |path: &str, expires_at| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        update_mask: mask(&[path]),
        expires_at,
        ..Default::default()
    };
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    directory.update_credential(update("expires_at", past)).await.expect("expired");
    let found = verify("acme", "", &first.secret).await;
    assert_eq!((found.verified, found.reason()), (false, Reason::CredentialExpired));
    directory.update_credential(update("enabled", None)).await.expect("disabled");
    assert_eq!(verify("acme", "", &first.secret).await.reason(), Reason::CredentialDisabled);
    assert_eq!(verify("acme", "", &forged).await.reason(), Reason::CredentialUnknown);
    // Rotation: one ends, the other goes on, and another can be made.
    let end = DeleteSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        secret_id: first.secret_id.clone(),
        ..Default::default()
    };
    directory.delete_secret(end.clone()).await.expect("ended");
    assert_eq!(refused(directory.delete_secret(end).await).0, Code::NotFound);
    assert_eq!(verify("acme", "", &first.secret).await.reason(), Reason::CredentialUnknown);
    directory.create_secret(make.clone()).await.expect("made");
    // Created again under its old id, the credential has none of its earlier secrets.
    let delete = DeleteCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    directory.delete_credential(delete).await.expect("deleted");
    client.create_credential("acme", "hr", &["users:read"]).await;
    let found = verify("acme", "hr", &second.secret).await;
    assert_eq!((found.verified, found.reason()), (false, Reason::CredentialUnknown));
    // No secret is in the log.
    let log = client.changes.clone().list_changes(ListChangesRequest::default()).await;
    let log = format!("{:?}", log.expect("listed"));
    for secret in [&first, &second] {
        let hidden = secret.secret.rsplit('_').next().expect("a part");
        assert!(!log.contains(hidden));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impact_previews_show_the_last_use_of_a_credential_after_a_restart() {
    let Served { server, client, _dir } = served().await;
    client.create_company("acme", None).await;
    let made = client.create_credential("acme", "hr", &["users:read"]).await;
    client.create_credential("acme", "idle", &["users:read"]).await;
    assert_eq!(made.last_seen_time, None);
    client.check("acme", "hr", &["users:bulk"]).await;
    // Looking at a credential is not using it.
    let look = ExplainCheckRequest { check: Some(scopes_of("acme", "idle", &["users:read"])) };
    client.authorization.clone().explain_check(look).await.expect("explained");
    let look = ListEffectiveScopesRequest {
        company_id: "acme".to_owned(),
        credential_id: "idle".to_owned(),
        ..Default::default()
    };
    client.authorization.clone().list_effective_scopes(look).await.expect("listed");
    let audit = RestrictCompanyScopesRequest {
        company_id: "acme".to_owned(),
        scopes: owned(&["users:read"]),
        validate_only: true,
        ..Default::default()
    };
    let seen = async |client: &Client| {
        let report = client.try_restrict(audit.clone()).await.expect("a report");
        let audited: Vec<_> =
            report.affected_credentials.iter().map(|a| a.last_seen_time).collect();
        let page = ListCredentialsRequest { company_id: "acme".to_owned(), ..Default::default() };
        let page = client.directory.clone().list_credentials(page).await.expect("listed");
        let listed: Vec<_> =
            page.into_inner().credentials.iter().map(|c| c.last_seen_time).collect();
        assert_eq!(audited, listed);
        assert_eq!(client.credential("acme", "hr").await.expect("there").last_seen_time, listed[0]);
        assert_eq!(listed[1], None);
        listed[0].expect("it was asked for")
    };
    let before = seen(&client).await;
    let created = client.credential("acme", "hr").await.expect("there").create_time;
    assert!(before.seconds % 60 == 0 || Some(before) == created, "in steps of minutes");
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.expect("ended");
    assert!(status.success());
    let server = Server::start(_dir.path(), &[]);
    assert_eq!(seen(&server.client().await).await, before);
}

const LAYERED: &str = "
audiences: { plain: , asking: { consent: required }, minted: { token: required, max_token_age: 1h } }
scopes: { a: { implies: [b] }, b: , c: , d: { audiences: [asking] } }
roles: { all: { scopes: { a: all, c: all } }, own: { scopes: { a: own } } }
";

async fn layered(dir: &std::path::Path) -> (Server, Client) {
    let file = dir.join("catalog.yaml");
    std::fs::write(&file, LAYERED).expect("written");
    let server = Server::start(&dir.join("data"), &["--catalog", file.to_str().expect("a path")]);
    let client = server.client().await;
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["a", "b", "c", "d"]).await;
    (server, client)
}

fn heard(audience: &str, scopes: &[&str]) -> CheckRequest {
    CheckRequest { audience: audience.to_owned(), ..scopes_of("acme", "hr", scopes) }
}

fn seconds_from_now(seconds: i64) -> Option<prost_types::Timestamp> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_secs()).expect("a time");
    Some(prost_types::Timestamp { seconds: now + seconds, nanos: 0 })
}

#[tokio::test]
async fn a_token_only_narrows_and_its_faults_come_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &layered(dir.path()).await;
    let with = |token: Token, audience: &str, scopes: &[&str]| CheckRequest {
        token: Some(token),
        ..heard(audience, scopes)
    };
    let token = |audience: &str, scopes: &[&str]| Token {
        audience: audience.to_owned(),
        scopes: owned(scopes),
        issued_at: seconds_from_now(-60),
        ..Token::default()
    };
    let reason = async |request| client.agreed(request).await.reason();
    // Closed as it is read; what the catalog lacks is ignored; without scopes nothing is allowed.
    assert_eq!(reason(with(token("plain", &["a", "zzz"]), "plain", &["b"])).await, Reason::Allowed);
    assert_eq!(
        reason(with(token("plain", &["b"]), "plain", &["a"])).await,
        Reason::ScopeNotInToken
    );
    assert_eq!(reason(with(token("plain", &[]), "plain", &["a"])).await, Reason::ScopeNotInToken);
    assert_eq!(reason(heard("minted", &["a"])).await, Reason::TokenRequired);
    assert_eq!(reason(with(token("minted", &["a"]), "minted", &["a"])).await, Reason::Allowed);
    // It never turns a denial into an allow.
    client.restrict("acme", &["c"]).await;
    assert_eq!(
        reason(with(token("plain", &["c"]), "plain", &["c"])).await,
        Reason::ScopeNotInCompany
    );
    let faulty = |change: fn(&mut Token)| {
        let mut token = token("minted", &["a"]);
        change(&mut token);
        with(token, "minted", &["a"])
    };
    for (request, expected) in [
        (faulty(|t| t.audience = "plain".to_owned()), Reason::TokenAudienceMismatch),
        (faulty(|t| t.audience.clear()), Reason::TokenAudienceMismatch),
        (faulty(|t| t.expires_at = seconds_from_now(-1)), Reason::TokenExpired),
        (faulty(|t| t.issued_at = None), Reason::TokenExpired),
        (faulty(|t| t.issued_at = seconds_from_now(-3601)), Reason::TokenExpired),
        (faulty(|t| t.issued_at = seconds_from_now(60)), Reason::TokenInvalid),
        (faulty(|t| t.expires_at = seconds_from_now(-61)), Reason::TokenInvalid),
        (
            faulty(|t| {
                t.expires_at = seconds_from_now(-1);
                t.audience.clear();
            }),
            Reason::TokenExpired,
        ),
    ] {
        let answer = client.agreed(request.clone()).await;
        assert_eq!(answer.reason(), expected, "{request:?}");
        assert_eq!((answer.http_status, answer.error.as_str()), (401, "invalid_token"));
        assert_eq!(answer.missing_scopes, ["a"], "all of them for a 401");
    }
    // The token's user and the request's must be one.
    client.put_user("acme", "ada", &["all"]).await;
    let named = Token { user_id: "ada".to_owned(), ..token("plain", &["a"]) };
    assert_eq!(reason(with(named.clone(), "plain", &["a"])).await, Reason::Allowed);
    let other = CheckRequest { user_id: "bob".to_owned(), ..with(named, "plain", &["a"]) };
    assert_eq!(reason(other).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_users_roles_bound_what_is_done_in_their_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &layered(dir.path()).await;
    let by = |user: &str, owner: &str, scopes: &[&str]| CheckRequest {
        user_id: user.to_owned(),
        resource_owner_id: owner.to_owned(),
        ..heard("plain", scopes)
    };
    let ask = async |request| {
        let answer = client.agreed(request).await;
        (answer.reason(), answer.reach())
    };
    assert_eq!(ask(by("ada", "", &["a"])).await.0, Reason::UserUnknown);
    client.put_user("acme", "ada", &["own", "unknown-role"]).await;
    assert_eq!(ask(by("ada", "", &["a"])).await, (Reason::Allowed, Reach::Own));
    assert_eq!(ask(by("ada", "", &["b"])).await, (Reason::Allowed, Reach::Own), "closed as read");
    assert_eq!(ask(by("ada", "ada", &["a"])).await, (Reason::Allowed, Reach::Own));
    assert_eq!(ask(by("ada", "bob", &["a"])).await.0, Reason::NotRecordOwner);
    assert_eq!(ask(by("ada", "", &["c"])).await.0, Reason::UserLacksPermission);
    let answer = client.agreed(by("ada", "", &["c"])).await;
    assert_eq!((answer.http_status, answer.error.as_str()), (403, "access_denied"));
    client.put_user("acme", "ada", &["own", "all"]).await;
    assert_eq!(ask(by("ada", "bob", &["a"])).await, (Reason::Allowed, Reach::All), "united");
    // Deleted and created again: nothing of the earlier user returns.
    let delete = DeleteUserRequest {
        company_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    client.directory.clone().delete_user(delete.clone()).await.expect("deleted");
    assert_eq!(refused(client.directory.clone().delete_user(delete).await).0, Code::NotFound);
    assert_eq!(ask(by("ada", "", &["a"])).await.0, Reason::UserUnknown);
    client.put_user("acme", "ada", &[]).await;
    assert_eq!(ask(by("ada", "", &["a"])).await.0, Reason::UserLacksPermission);
    let page = ListUsersRequest { company_id: "acme".to_owned(), ..Default::default() };
    let page = client.directory.clone().list_users(page).await.expect("listed").into_inner();
    assert_eq!(page.users.len(), 1);
}

#[tokio::test]
async fn a_consent_gives_what_the_user_could_do_and_ends_with_its_parties() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client) = &layered(dir.path()).await;
    let by = |user: &str, scopes: &[&str]| CheckRequest {
        user_id: user.to_owned(),
        ..heard("asking", scopes)
    };
    let reason = async |request| client.agreed(request).await.reason();
    assert_eq!(reason(heard("asking", &["a"])).await, Reason::UserRequired);
    client.put_user("acme", "ada", &["own"]).await;
    assert_eq!(reason(by("ada", &["a"])).await, Reason::ScopeNotConsented, "no record");
    // Unable to provide c and d (D21); a comes with what it implies.
    assert_eq!(client.consent("acme", "hr", "ada", &["a", "c", "d"]).await, ["a", "b"]);
    let get = GetConsentRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        user_id: "ada".to_owned(),
    };
    let read = client.directory.clone().get_consent(get).await.expect("read").into_inner();
    let again = PutConsentRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        user_id: "ada".to_owned(),
        scopes: owned(&["a"]),
        etag: read.consent.clone().expect("a consent").etag,
        ..Default::default()
    };
    let same = client.directory.clone().put_consent(again).await.expect("nothing to do");
    assert_eq!(same.into_inner().consent, read.consent, "a change that changes nothing");
    assert_eq!(reason(by("ada", &["a", "b"])).await, Reason::Allowed);
    assert_eq!(reason(by("ada", &["c"])).await, Reason::ScopeNotConsented);
    // More rights later do not widen the consent; fewer narrow what it is good for.
    client.put_user("acme", "ada", &["all"]).await;
    assert_eq!(reason(by("ada", &["c"])).await, Reason::ScopeNotConsented);
    client.put_user("acme", "ada", &[]).await;
    assert_eq!(reason(by("ada", &["a"])).await, Reason::UserLacksPermission);
    client.put_user("acme", "ada", &["all"]).await;
    // Another credential's user has consented to nothing.
    client.create_credential("acme", "other", &["a"]).await;
    let other = CheckRequest { credential_id: "other".to_owned(), ..by("ada", &["a"]) };
    assert_eq!(reason(other).await, Reason::ScopeNotConsented);
    // An empty list refuses everything; withdrawn, there is none.
    assert!(client.consent("acme", "hr", "ada", &[]).await.is_empty());
    assert_eq!(reason(by("ada", &["a"])).await, Reason::ScopeNotConsented);
    assert_eq!(client.consent("acme", "hr", "ada", &["a"]).await, ["a", "b"]);
    let id = |credential: &str| DeleteConsentRequest {
        company_id: "acme".to_owned(),
        credential_id: credential.to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    let mut directory = client.directory.clone();
    assert_eq!(refused(directory.delete_consent(id("other")).await).0, Code::NotFound);
    directory.delete_consent(id("hr")).await.expect("withdrawn");
    assert_eq!(reason(by("ada", &["a"])).await, Reason::ScopeNotConsented);
    // Neither the user nor the credential, created again, has it.
    client.consent("acme", "hr", "ada", &["a"]).await;
    let user = DeleteUserRequest {
        company_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    directory.delete_user(user).await.expect("deleted");
    client.put_user("acme", "ada", &["all"]).await;
    assert_eq!(reason(by("ada", &["a"])).await, Reason::ScopeNotConsented);
    client.consent("acme", "hr", "ada", &["a"]).await;
    let credential = DeleteCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    directory.delete_credential(credential).await.expect("deleted");
    client.create_credential("acme", "hr", &["a"]).await;
    assert_eq!(reason(by("ada", &["a"])).await, Reason::ScopeNotConsented);
    let kinds: Vec<_> = client
        .changes
        .clone()
        .list_changes(ListChangesRequest::default())
        .await
        .expect("listed")
        .into_inner()
        .changes
        .into_iter()
        .map(|change| (change.kind, change.user_id))
        .collect();
    assert!(kinds.contains(&("DeleteConsent".to_owned(), "ada".to_owned())));
}

#[tokio::test]
async fn a_batch_is_decided_whole_in_order_and_within_its_limits() {
    let Served { client, .. } = &served().await;
    client.create_company("acme", None).await;
    let made = client.create_credential("acme", "hr", &["users:read"]).await;
    let mut authorization = client.authorization.clone();
    let checks: Vec<_> = (0..1_000)
        .map(|n| {
            scopes_of("acme", "hr", if n % 3 == 0 { &["users:read"] } else { &["users:write"] })
        })
        .collect();
    let batch = authorization.batch_check(BatchCheckRequest { checks: checks.clone() }).await;
    let batch = batch.expect("an answer").into_inner();
    assert_eq!(batch.results.len(), 1_000);
    for (n, result) in batch.results.iter().enumerate() {
        assert_eq!(result.decision() == Decision::Allowed, n % 3 == 0);
        assert_eq!(result.revision, batch.revision);
    }
    let mut batch = async |checks| authorization.batch_check(BatchCheckRequest { checks }).await;
    assert_eq!(fields(&refused(batch(vec![]).await).1), ["checks"]);
    let mut many = checks.clone();
    many.push(checks[0].clone());
    assert_eq!(refused(batch(many).await).0, Code::ResourceExhausted);
    let mut bad = checks.clone();
    bad[3].scopes = vec![];
    bad[7].audience = "moon".to_owned();
    assert_eq!(fields(&refused(batch(bad.clone()).await).1), ["checks[3].scopes"]);
    // However much is wrong, the answer stays small, and says how much.
    let empty = CheckRequest { scopes: vec![String::new(); 150], ..checks[0].clone() };
    let (_, details) = refused(batch(vec![empty; 1_000]).await);
    assert!(fields(&details).len() <= 20);
    assert_eq!(details.error_info().expect("info").metadata["violation_count"], "150000");
    bad[3].scopes = owned(&["users:read"]);
    assert_eq!(fields(&refused(batch(bad).await).1), ["checks[7].audience"]);
    // The largest revision counts.
    let mut late = checks;
    late[5].at_least_revision = made.revision + 1;
    let (late, change) = tokio::join!(batch(late), client.restrict("acme", &["users:bulk"]));
    assert!(late.expect("it came").into_inner().revision >= change.revision);
}
