//! The platforms' own documents, sentence by sentence, over a real socket.
use crate::harness;
use crate::harness::{Server, endpoint_of, fields, owned, refused, scopes_of};
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
        // without one is denied.
        let read = endpoint_of(tenant, "full", "GET", "/v1/users");
        assert_eq!(ask(read).await.decision(), Decision::Allowed);
        let webhooks = endpoint_of(tenant, "full", "GET", "/v1/webhooks");
        let answer = ask(webhooks.clone()).await;
        assert_eq!((answer.reason(), answer.http_status), (Reason::TokenRequired, 401));
        assert_eq!(answer.error, "invalid_token");
        assert_eq!(answer.missing_scopes, ["api/webhooks"]);
        assert_eq!(ask(on("webhooks", "full", &["api/all"])).await.reason(), Reason::TokenRequired);
        // "Public API access tokens" and "Webhooks access tokens" are two kinds.
        let token = |audience: &str, scopes: &[&str]| {
            let (audience, scopes) = (audience.to_owned(), owned(scopes));
            Some(Token { audience, scopes, ..Token::default() })
        };
        let with = |token| CheckRequest { token, ..webhooks.clone() };
        let answer = ask(with(token("webhooks", &["api/webhooks"]))).await;
        assert_eq!(answer.decision(), Decision::Allowed);
        assert_eq!(ask(with(token("webhooks", &["api/all"]))).await.decision(), Decision::Allowed);
        let answer = ask(with(token("public", &["api/all"]))).await;
        assert_eq!(answer.reason(), Reason::TokenAudienceMismatch);
        // "Tokens must include appropriate scopes for the endpoints you wish to call."
        let read = CheckRequest {
            token: token("public", &["api/read"]),
            ..endpoint_of(tenant, "full", "POST", "/v1/users")
        };
        assert_eq!(ask(read).await.reason(), Reason::ScopeNotInToken);
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

/// HorizonWebRef, "What developer scopes are available?".
mod horizonwebref {
    use super::*;

    const ASKED: [&str; 2] = ["read_personal_account", "manage_personal_account"];

    #[tokio::test]
    async fn a_user_may_refuse_a_scope_and_the_application_learns_what_it_got() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "horizonwebref.yaml");
        let client = server.client().await;
        client.create_company("league", None).await;
        client
            .create_credential("league", "app", &["manage_personal_account", "manage_organization"])
            .await;
        client.put_user("league", "ref", &["general_member"]).await;
        let ask = async |scope: &str| {
            let request =
                CheckRequest { user_id: "ref".to_owned(), ..scopes_of("league", "app", &[scope]) };
            client.agreed(request).await.reason()
        };
        assert_eq!(
            ask(ASKED[0]).await,
            Reason::ScopeNotConsented,
            "nothing before the user said so"
        );
        // "the user […] may refuse to allow the manage_personal_account scope and only allow the
        // read_personal_account scope" (D21)
        let given = client.consent("league", "app", "ref", &ASKED[..1]).await;
        assert_eq!(given, ["read_personal_account"]);
        assert_eq!(ask(ASKED[0]).await, Reason::Allowed);
        assert_eq!(ask(ASKED[1]).await, Reason::ScopeNotConsented);
        // "The application should […] adjust any future API calls […] based on the scopes that
        // the user actually provided."
        assert_eq!(client.consent("league", "app", "ref", &ASKED).await, [ASKED[1], ASKED[0]]);
        assert_eq!(ask(ASKED[1]).await, Reason::Allowed);
    }

    #[tokio::test]
    async fn a_general_member_is_unable_to_provide_manage_organization() {
        // "If the user has only General Member permissions and has no permissions on their
        // account to manage their organization, they will be unable to provide the API
        // application the manage_organization scope." (D21)
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "horizonwebref.yaml");
        let client = server.client().await;
        client.create_company("league", None).await;
        let asked = ["manage_personal_account", "manage_organization"];
        client.create_credential("league", "app", &asked).await;
        client.put_user("league", "ref", &["general_member"]).await;
        client.put_user("league", "admin", &["administrator"]).await;
        let ask = async |user: &str, scope: &str, owner: &str| {
            let request = CheckRequest {
                user_id: user.to_owned(),
                resource_owner_id: owner.to_owned(),
                ..scopes_of("league", "app", &[scope])
            };
            client.agreed(request).await.reason()
        };
        let given = client.consent("league", "app", "ref", &asked).await;
        assert_eq!(given, ["manage_personal_account", "read_personal_account"]);
        assert_eq!(ask("ref", "manage_organization", "").await, Reason::ScopeNotConsented);
        client.consent("league", "app", "admin", &asked).await;
        assert_eq!(ask("admin", "manage_organization", "").await, Reason::Allowed);
        assert_eq!(ask("admin", "read_organization", "").await, Reason::Allowed);
        // "Scopes do not override the user's account permissions. […] the user must have the
        // appropriate permissions": taken away after the consent, they are gone (D15).
        client.put_user("league", "admin", &["general_member"]).await;
        assert_eq!(ask("admin", "manage_organization", "").await, Reason::UserLacksPermission);
        // "the user's personal account": nobody else's.
        assert_eq!(ask("ref", "manage_personal_account", "ref").await, Reason::Allowed);
        assert_eq!(ask("ref", "manage_personal_account", "admin").await, Reason::NotRecordOwner);
        // "the API application must have the appropriate scope issued to the API Application"
        assert_eq!(ask("ref", "manage_personal_schedule", "ref").await, Reason::ScopeNotGranted);
    }
}

/// Humaans, "API scopes".
mod humaans {
    use super::*;

    async fn company(server: &Server) -> harness::Client {
        let client = server.client().await;
        client.create_company("acme", None).await;
        let all = [
            "private:read",
            "private:write",
            "compensations:read",
            "compensations:write",
            "documents:read",
            "documents:write",
            "webhooks:manage",
        ];
        client.create_credential("acme", "integration", &all).await;
        client.put_user("acme", "owner", &["owner"]).await;
        client.put_user("acme", "member", &["member"]).await;
        client
    }

    fn with_token(user: &str, token: &[&str], scope: &str, owner: &str) -> CheckRequest {
        let token = Token {
            audience: "api".to_owned(),
            scopes: owned(token),
            user_id: user.to_owned(),
            ..Token::default()
        };
        CheckRequest {
            token: Some(token),
            resource_owner_id: owner.to_owned(),
            ..scopes_of("acme", "integration", &[scope])
        }
    }

    #[tokio::test]
    async fn an_owners_token_is_limited_by_its_scope() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "humaans.yaml");
        let client = company(&server).await;
        let ask = async |token: &[&str], scope: &str| {
            client.agreed(with_token("owner", token, scope, "")).await.reason()
        };
        // "if they create an access token with a public:read scope, their API access will be
        // limited to public data only […] not […] any private data, such as employee
        // compensation or documents"
        let public = ["public:read"];
        assert_eq!(ask(&public, "public:read").await, Reason::Allowed);
        for scope in ["private:read", "compensations:read", "documents:read"] {
            assert_eq!(ask(&public, scope).await, Reason::ScopeNotInToken, "{scope}");
        }
        // "provide a token with the private:read scope. This would give them access to all data,
        // except for compensation and documents, which are handled separately."
        let private = ["private:read"];
        for scope in ["public:read", "private:read"] {
            assert_eq!(ask(&private, scope).await, Reason::Allowed, "{scope}");
        }
        for scope in ["compensations:read", "documents:read", "private:write"] {
            assert_eq!(ask(&private, scope).await, Reason::ScopeNotInToken, "{scope}");
        }
        assert_eq!(ask(&["compensations:read"], "compensations:read").await, Reason::Allowed);
        // A call needs a token, and a user who made it.
        let bare = scopes_of("acme", "integration", &["public:read"]);
        assert_eq!(client.agreed(bare).await.reason(), Reason::TokenRequired);
        assert_eq!(
            client.agreed(with_token("", &public, "public:read", "")).await.reason(),
            Reason::UserRequired
        );
    }

    #[tokio::test]
    async fn a_plain_members_token_gives_their_own_account_only() {
        // "is a member with user permissions only created a token with a private:read scope, it
        // would still only provide information about their own account" (D17)
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "humaans.yaml");
        let client = company(&server).await;
        let ask = async |scope: &str, owner: &str| {
            client
                .agreed(with_token("member", &["private:read", "documents:read"], scope, owner))
                .await
        };
        let own = ask("private:read", "member").await;
        assert_eq!((own.decision(), own.reach()), (Decision::Allowed, Reach::Own));
        let unsaid = ask("private:read", "").await;
        assert_eq!((unsaid.decision(), unsaid.reach()), (Decision::Allowed, Reach::Own));
        let others = ask("private:read", "owner").await;
        assert_eq!(
            (others.reason(), others.error.as_str()),
            (Reason::NotRecordOwner, "access_denied")
        );
        // "View access to data that is public to the entire company."
        let public = ask("public:read", "owner").await;
        assert_eq!((public.decision(), public.reach()), (Decision::Allowed, Reach::All));
        // "Scopes are dependent on the user's role": the token's scope alone is not enough.
        assert_eq!(ask("documents:read", "member").await.reason(), Reason::UserLacksPermission);
    }
}

/// Learning Pool, "Learning Experience Platform API Documentation".
mod learning_pool {
    use super::*;

    fn ago(seconds: u64) -> Option<prost_types::Timestamp> {
        Some((std::time::SystemTime::now() - std::time::Duration::from_secs(seconds)).into())
    }

    async fn company(server: &Server) -> harness::Client {
        let client = server.client().await;
        client.create_company("customer", None).await;
        let all = ["simple:users", "simple:completions", "lxp:assessments", "lxp:organisation"];
        client.create_credential("customer", "client", &all).await;
        client.put_user("customer", "learner", &["learner"]).await;
        client.put_user("customer", "admin", &["administrator"]).await;
        client
    }

    fn oauth(seconds: u64) -> Token {
        Token {
            audience: "simple".to_owned(),
            scopes: owned(&["simple:users", "simple:completions"]),
            issued_at: ago(seconds),
            ..Token::default()
        }
    }

    fn jwt(user: &str) -> Token {
        Token {
            audience: "lxp".to_owned(),
            scopes: owned(&["lxp:assessments", "lxp:organisation"]),
            user_id: user.to_owned(),
            ..Token::default()
        }
    }

    fn call(token: Option<Token>, method: &str, path: &str) -> CheckRequest {
        CheckRequest { token, ..endpoint_of("customer", "client", method, path) }
    }

    #[tokio::test]
    async fn two_apis_with_two_kinds_of_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "learning-pool.yaml");
        let client = company(&server).await;
        let ask = async |token, method: &str, path: &str| {
            let answer = client.agreed(call(token, method, path)).await;
            (answer.reason(), answer.http_status)
        };
        // "The Simple API uses OAuth 2.0 client credentials flow."
        let simple = ask(Some(oauth(60)), "POST", "/simple/users").await;
        assert_eq!(simple, (Reason::Allowed, 200));
        // "This collection uses two different authentication systems": neither token is the other's.
        let wrong = ask(Some(jwt("admin")), "POST", "/simple/users").await;
        assert_eq!(wrong, (Reason::TokenExpired, 401), "it does not say when it was issued");
        let dated = Token { issued_at: ago(1), ..jwt("admin") };
        let wrong = ask(Some(dated), "POST", "/simple/users").await;
        assert_eq!(wrong, (Reason::TokenAudienceMismatch, 401));
        let wrong = ask(Some(oauth(60)), "PUT", "/lxp/organisation").await;
        assert_eq!(wrong, (Reason::TokenAudienceMismatch, 401));
        // "OAuth tokens expire after 1 hour. […] when you receive a 401 Unauthorized response."
        let old = ask(Some(oauth(3601)), "POST", "/simple/users").await;
        assert_eq!(old, (Reason::TokenExpired, 401));
        // "401 Unauthorized - Token missing or expired"
        assert_eq!(ask(None, "POST", "/simple/users").await, (Reason::TokenRequired, 401));
        // "403 Forbidden - Insufficient permissions", "404 Not Found"
        let lacking = ask(Some(oauth(60)), "POST", "/simple/groups").await;
        assert_eq!(lacking, (Reason::ScopeNotGranted, 403));
        let nowhere = ask(Some(oauth(60)), "POST", "/simple/nothing").await;
        assert_eq!(nowhere, (Reason::EndpointUnknown, 404));
        // "400 Bad Request - Invalid parameters"
        let bad = client.ask(call(Some(oauth(60)), "POST", "/simple/../users")).await;
        assert_eq!(refused(bad).0, Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_jwt_acts_on_behalf_of_its_user() {
        // "backend integrations that need to act on behalf of a user […] Set userId to the target
        // user's ID […] The bearerToken will be populated for that user"
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::with_catalog(dir.path(), "learning-pool.yaml");
        let client = company(&server).await;
        let ask = async |user: &str, method: &str, path: &str, owner: &str| {
            let request = CheckRequest {
                resource_owner_id: owner.to_owned(),
                ..call(Some(jwt(user)), method, path)
            };
            client.agreed(request).await.reason()
        };
        assert_eq!(ask("admin", "PUT", "/lxp/organisation", "").await, Reason::Allowed);
        assert_eq!(
            ask("learner", "PUT", "/lxp/organisation", "").await,
            Reason::UserLacksPermission
        );
        let assessments = "/lxp/users/7/assessments";
        assert_eq!(ask("learner", "GET", assessments, "learner").await, Reason::Allowed);
        assert_eq!(ask("learner", "GET", assessments, "admin").await, Reason::NotRecordOwner);
        assert_eq!(ask("nobody", "GET", assessments, "").await, Reason::UserUnknown);
        assert_eq!(ask("", "GET", assessments, "").await, Reason::UserRequired);
        let other = CheckRequest {
            user_id: "admin".to_owned(),
            ..call(Some(jwt("learner")), "PUT", "/lxp/organisation")
        };
        assert_eq!(client.agreed(other).await.reason(), Reason::TokenInvalid);
    }
}
