//! The platforms' own documents, sentence by sentence, over a real socket.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod harness;

use harness::{Server, endpoint_of, fields, owned, refused, scopes_of};
use scopegate::proto::*;
use tonic::Code;

/// 360Learning, "Scopes and permissions".
mod learning_360 {
    use super::*;

    const ALL: usize = 12;

    #[tokio::test]
    async fn a_single_scope_grants_access_to_several_related_endpoints() {
        // "Each endpoint requires a specific scope, but a single scope (like users:read) can
        // grant access to multiple related endpoints." (D13, D20)
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "360learning.yaml");
        let client = server.client().await;
        client.create_company("acme", None).await;
        client.create_credential("acme", "analytics", &["users:read"]).await;
        for path in ["/api/v2/users", "/api/v2/users/7"] {
            let answer = client.ask(endpoint_of("acme", "analytics", "GET", path)).await;
            assert_eq!(answer.expect("an answer").decision(), Decision::Allowed, "{path}");
        }
        // "users:read grants read-only access to user-related resources"
        let answer = client.ask(endpoint_of("acme", "analytics", "PATCH", "/api/v2/users/7")).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.decision(), Decision::Denied);
        assert_eq!(answer.missing_scopes, ["users:write"]);
        // "groups:bulk allows bulk actions on groups"
        client.grant("acme", "analytics", &["groups:bulk"]).await.expect("granted");
        let answer =
            client.ask(endpoint_of("acme", "analytics", "POST", "/api/v2/bulk/groups")).await;
        assert_eq!(answer.expect("an answer").decision(), Decision::Allowed);
        // What the API reference does not have is not found.
        let answer = client.ask(endpoint_of("acme", "analytics", "GET", "/api/v1/users")).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.reason(), answer.http_status), (Reason::EndpointUnknown, 404));
        assert_eq!(answer.error, "not_found");
    }

    #[tokio::test]
    async fn the_documents_example_of_two_levels() {
        // "If company-level scopes include users:read, users:write, and groups:read, you might
        // configure: Analytics: users:read only; HR sync: users:read, users:write, groups:read"
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "360learning.yaml");
        let client = server.client().await;
        let ceiling = ["users:read", "users:write", "groups:read"];
        let company = client.create_company("acme", Some(&ceiling)).await;
        assert_eq!(company.scopes.len(), 3);
        client.create_credential("acme", "analytics", &["users:read"]).await;
        client.create_credential("acme", "hr-sync", &ceiling).await;
        assert_eq!(client.reason("acme", "analytics", &["users:read"]).await, Reason::Allowed);
        assert_eq!(client.reason("acme", "hr-sync", &ceiling).await, Reason::Allowed);
        // "if your credentials are missing the necessary scope": 403, "error": "invalid_scope",
        // and whether it is missing at the credential or at the company level (D15).
        let at_credential = client.check("acme", "analytics", &["users:write"]).await;
        assert_eq!(at_credential.reason(), Reason::ScopeNotGranted);
        assert!(at_credential.message.contains("admin"), "{}", at_credential.message);
        let at_company = client.check("acme", "analytics", &["users:bulk"]).await;
        assert_eq!(at_company.reason(), Reason::ScopeNotInCompany);
        assert!(at_company.message.contains("Customer Success Partner"));
        for answer in [at_credential, at_company] {
            assert_eq!((answer.http_status, answer.error.as_str()), (403, "invalid_scope"));
        }
        // "You cannot assign a scope to a credential unless it exists at the company level first."
        let (code, details) = refused(
            client.grant("acme", "analytics", &["users:write", "users:bulk", "paths:read"]).await,
        );
        assert_eq!(code, Code::FailedPrecondition);
        let named = &details.precondition_failure().expect("named").violations;
        let named: Vec<_> = named.iter().map(|v| v.subject.as_str()).collect();
        assert_eq!(named, ["paths:read", "users:bulk"], "D9: every offending scope");
        assert_eq!(
            client.reason("acme", "analytics", &["users:write"]).await,
            Reason::ScopeNotGranted,
            "refused whole"
        );
    }

    #[tokio::test]
    async fn company_level_scopes_are_added_and_restricted() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "360learning.yaml");
        let client = server.client().await;
        // "By default, your organization receives all available scopes" (D4)
        let company = client.create_company("acme", None).await;
        assert_eq!(company.scopes.len(), ALL);
        client.create_credential("acme", "hr-sync", &["users:read", "users:write"]).await;
        client.create_credential("acme", "old", &["users:write"]).await;
        // "Before requesting scope restrictions, audit your existing API credentials" (D7)
        let audit = RestrictCompanyScopesRequest {
            company_id: "acme".to_owned(),
            scopes: owned(&["users:write"]),
            validate_only: true,
            ..Default::default()
        };
        let report = client.try_restrict(audit.clone()).await.expect("a report");
        assert_eq!(report.affected_credential_count, 2);
        let affected = &report.affected_credentials[0];
        assert_eq!((affected.credential_id.as_str(), affected.enabled), ("hr-sync", true));
        assert_eq!(affected.label, "The label of hr-sync");
        assert_eq!(affected.scopes, ["users:write"]);
        assert_eq!(client.reason("acme", "old", &["users:write"]).await, Reason::Allowed);
        // "Update or disable those credentials before proceeding."
        let disable = UpdateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: "old".to_owned(),
            enabled: false,
            update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
            ..Default::default()
        };
        client.directory.clone().update_credential(disable).await.expect("disabled");
        assert_eq!(
            client.reason("acme", "old", &["users:write"]).await,
            Reason::CredentialDisabled
        );
        // Not confirmed, or confirmed by an audit that is no longer true: refused.
        let go = RestrictCompanyScopesRequest { validate_only: false, ..audit.clone() };
        let (code, details) = refused(client.try_restrict(go.clone()).await);
        assert_eq!(code, Code::FailedPrecondition);
        assert_eq!(details.precondition_failure().expect("named").violations.len(), 2);
        let stale = RestrictCompanyScopesRequest { etag: report.etag, ..go.clone() };
        assert_eq!(refused(client.try_restrict(stale).await).0, Code::Aborted);
        assert_eq!(client.reason("acme", "hr-sync", &["users:write"]).await, Reason::Allowed);
        // "Confirmation that you've audited existing credentials."
        let report = client.try_restrict(audit).await.expect("a report");
        let go = RestrictCompanyScopesRequest { etag: report.etag, ..go };
        let done = client.try_restrict(go).await.expect("restricted");
        assert_eq!(done.restricted_scopes, ["users:write"]);
        assert_eq!(done.affected_credential_count, 2);
        // "Credentials using the restricted scope will immediately lose access." "Any API
        // requests requiring that scope will return with a 403 error." (D6)
        let answer = client.check("acme", "hr-sync", &["users:write"]).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::ScopeNotInCompany, 403));
        assert!(answer.revision >= done.revision);
        assert_eq!(client.reason("acme", "hr-sync", &["users:read"]).await, Reason::Allowed);
        // "cannot be overridden at the credential level"
        let (code, _) = refused(client.grant("acme", "hr-sync", &["users:write"]).await);
        assert_eq!(code, Code::FailedPrecondition);
        // "New scopes become available for use, but are not automatically applied to existing
        // credentials. You'll need to manually update your credentials to use them." (D3, D5)
        let added = client.add_scopes("acme", &["users:write"]).await;
        assert_eq!(added.added_scopes, ["users:write"]);
        assert_eq!(client.reason("acme", "hr-sync", &["users:write"]).await, Reason::GrantDormant);
        client.grant("acme", "hr-sync", &["users:write"]).await.expect("granted");
        assert_eq!(client.reason("acme", "hr-sync", &["users:write"]).await, Reason::Allowed);
    }

    #[tokio::test]
    async fn the_dashboards_save_and_set_companys_permissions() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "360learning.yaml");
        let client = server.client().await;
        let ceiling = ["users:read", "users:write", "groups:read"];
        client.create_company("acme", Some(&ceiling)).await;
        client.create_credential("acme", "hr", &["users:read", "users:write"]).await;
        // "Select the permissions you want your API credentials to have […] Click Save." (D10)
        let save = ReplaceScopesRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            scopes: owned(&["users:read", "groups:read"]),
            ..Default::default()
        };
        let done =
            client.authorization.clone().replace_scopes(save).await.expect("saved").into_inner();
        assert_eq!(
            (done.added_scopes, done.removed_scopes),
            (owned(&["groups:read"]), owned(&["users:write"]))
        );
        // "Scope changes take effect immediately."
        assert_eq!(client.reason("acme", "hr", &["users:write"]).await, Reason::ScopeNotGranted);
        // "Click Set company's permissions to revert to the current company-level scopes."
        let reset = ResetScopesRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            ..Default::default()
        };
        let done =
            client.authorization.clone().reset_scopes(reset).await.expect("reset").into_inner();
        let credential = done.credential.expect("a credential");
        assert_eq!(credential.effective_scopes, ["groups:read", "users:read", "users:write"]);
        // "you can edit the Credentials label"
        let rename = UpdateCredentialRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            label: "HR sync".to_owned(),
            update_mask: Some(prost_types::FieldMask { paths: owned(&["label"]) }),
            ..Default::default()
        };
        let done = client.directory.clone().update_credential(rename).await.expect("renamed");
        assert_eq!(done.into_inner().credential.expect("a credential").label, "HR sync");
    }
}

/// Learn Amp, authentication and scopes.
mod learn_amp {
    use super::*;

    fn on(audience: &str, credential: &str, scopes: &[&str]) -> CheckRequest {
        CheckRequest {
            audience: audience.to_owned(),
            ..scopes_of("eu-west-2_AbcdEfghI", credential, scopes)
        }
    }

    #[tokio::test]
    async fn api_all_is_full_read_and_write_access_including_webhooks() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "learn-amp.yaml");
        let client = server.client().await;
        let tenant = "eu-west-2_AbcdEfghI";
        client.create_company(tenant, None).await;
        // "api/all – Full read and write access to the API, including webhooks." (D1)
        let granted = client.create_credential(tenant, "full", &["api/all"]).await;
        assert_eq!(granted.effective_scopes, ["api/all", "api/read", "api/webhooks", "api/write"]);
        // "api/read – Read-only access to the API."
        client.create_credential(tenant, "reader", &["api/read"]).await;
        let ask = async |request| client.ask(request).await.expect("an answer").reason();
        assert_eq!(ask(on("public", "full", &["api/read", "api/write"])).await, Reason::Allowed);
        assert_eq!(ask(on("public", "reader", &["api/read"])).await, Reason::Allowed);
        assert_eq!(ask(on("public", "reader", &["api/write"])).await, Reason::ScopeNotGranted);
        assert_eq!(ask(on("public", "reader", &["api/all"])).await, Reason::ScopeNotGranted);
        // Whoever loses api/read no longer has "all", and keeps the rest of it (D1).
        let revoke = RevokeScopesRequest {
            company_id: tenant.to_owned(),
            credential_id: "full".to_owned(),
            scopes: owned(&["api/read"]),
            ..Default::default()
        };
        let done = client.authorization.clone().revoke_scopes(revoke).await.expect("revoked");
        assert_eq!(done.into_inner().removed_scopes, ["api/all", "api/read"]);
        assert_eq!(ask(on("public", "full", &["api/write"])).await, Reason::Allowed);
        assert_eq!(ask(on("public", "full", &["api/all"])).await, Reason::ScopeNotGranted);
    }

    #[tokio::test]
    async fn two_apis_with_scopes_of_their_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "learn-amp.yaml");
        let client = server.client().await;
        let tenant = "eu-west-2_AbcdEfghI";
        client.create_company(tenant, None).await;
        client.create_credential(tenant, "full", &["api/all"]).await;
        let ask = async |request| client.ask(request).await.expect("an answer");
        // "For API access (non-webhooks), the following scopes are available": api/webhooks is
        // not among them. "For webhooks": api/read is not. (D16)
        let answer = ask(on("public", "full", &["api/webhooks"])).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::ScopeUnknown, 403));
        // "HTTP Basic authentication using your Tenant ID and API secret": no token on the
        // public API. The webhooks' access tokens come from an endpoint of their own: a call
        // without one is denied, and what is not checked yet is never skipped.
        let read = endpoint_of(tenant, "full", "GET", "/v1/users");
        assert_eq!(ask(read).await.decision(), Decision::Allowed);
        let answer = ask(endpoint_of(tenant, "full", "GET", "/v1/webhooks")).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenRequired, 401));
        assert_eq!(answer.error, "invalid_token");
        assert_eq!(answer.missing_scopes, ["api/webhooks"]);
        assert_eq!(ask(on("webhooks", "full", &["api/all"])).await.reason(), Reason::TokenRequired);
        // With two audiences a check by scope must say which.
        let (code, details) = refused(client.ask(scopes_of(tenant, "full", &["api/read"])).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["audience"]));
        // "Not Found"
        assert_eq!(ask(endpoint_of(tenant, "full", "GET", "/v1/nothing")).await.http_status, 404);
        // "Unauthorized": another tenant's credential is not known here.
        let answer = ask(endpoint_of("eu-west-2_Another", "full", "GET", "/v1/users")).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::CompanyUnknown, 401));
        assert_eq!(answer.error, "invalid_client");
    }
}
