//! Access: the roles that each method of the API requires, and the companies that its request names (D8),
//! in one table.
//!
//! A server rejects a method that is not in the table. A request type that is not in the table cannot
//! reach a handler: only this module makes an [`Authorized`], and only of a request type in the table.
//!
//! The error for a caller that may not name a company is the same whether the company exists or not.
//!
//! Not here: authentication; see `policy::keyring`.

use tonic::Streaming;

use crate::policy::caller::Caller;
use crate::policy::role::{Role, Roles};
use crate::proto;

/// Requests decisions.
const CHECK_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::Service);
/// Explains decisions.
const EXPLAIN_ROLES: Roles = CHECK_ROLES.with(Role::CompanyAdmin).with(Role::Auditor);
/// Reads data of one company.
const VIEW_ROLES: Roles =
    Roles::NONE.with(Role::Operator).with(Role::CompanyAdmin).with(Role::Auditor);
/// Reads the users of one company.
const VIEW_USERS_ROLES: Roles = VIEW_ROLES.with(Role::Identity);
/// Edits the credentials of one company.
const EDIT_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::CompanyAdmin);
/// Maintains users and consents.
const IDENTITY_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::Identity);
/// Reads data of all companies.
const AUDIT_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::Auditor);
/// Makes all other changes.
const OPERATOR_ONLY: Roles = Roles::NONE.with(Role::Operator);

/// A request of a method in the table.
pub trait CompanyScoped {
    /// Whether the caller may name every company that the request names.
    fn is_reached_by(&self, caller: &Caller) -> bool;
}

/// Whether the caller may name the companies of a request.
macro_rules! reached {
    ($request:ident, $caller:ident, company) => {
        $caller.reaches(&$request.company_id)
    };
    // Without a company, the authority finds it by the secret and checks the caller then.
    ($request:ident, $caller:ident, company_of_secret) => {
        $request.company_id.is_empty() || $caller.reaches(&$request.company_id)
    };
    ($request:ident, $caller:ident, some_company) => {
        $caller.reaches($request.company_id.as_deref().unwrap_or_default())
    };
    // Without a check, the request is malformed; the parser rejects it.
    ($request:ident, $caller:ident, check) => {
        $request.check.as_ref().is_none_or(|check| $caller.reaches(&check.company_id))
    };
    ($request:ident, $caller:ident, checks) => {
        $request.checks.iter().all(|check| $caller.reaches(&check.company_id))
    };
    ($request:ident, $caller:ident, all) => {{
        let _ = $request;
        $caller.reaches_all()
    }};
}

/// The methods by path, the roles of which the caller needs one, and the companies that the request names.
macro_rules! calls {
    ($($path:literal $request:ty: $roles:ident of $of:ident;)*) => {
        /// The roles of which a caller of this method needs one; none if there is no such method.
        #[must_use]
        pub fn roles(path: &str) -> Option<Roles> {
            match path {
                $($path => Some($roles),)*
                // Every caller with a role may use reflection.
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
                | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                    Some(Roles::ALL)
                }
                _ => None,
            }
        }

        $(impl CompanyScoped for $request {
            fn is_reached_by(&self, caller: &Caller) -> bool {
                let request = self;
                reached!(request, caller, $of)
            }
        })*

        /// The paths of all methods of the services of scopegate.
        pub const PATHS: &[&str] = &[$($path),*];
    };
}

calls! {
    "/scopegate.v1.AuthorizationService/Check" proto::CheckRequest: CHECK_ROLES of company;
    "/scopegate.v1.AuthorizationService/BatchCheck" proto::BatchCheckRequest: CHECK_ROLES of checks;
    "/scopegate.v1.AuthorizationService/ExplainCheck" proto::ExplainCheckRequest: EXPLAIN_ROLES of check;
    "/scopegate.v1.AuthorizationService/ListEffectiveScopes" proto::ListEffectiveScopesRequest: EXPLAIN_ROLES of company;
    "/scopegate.v1.AuthorizationService/GrantScopes" proto::GrantScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/RevokeScopes" proto::RevokeScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/ReplaceScopes" proto::ReplaceScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/ResetScopes" proto::ResetScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/RestoreGrants" proto::RestoreGrantsRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.AuthorizationService/AddCompanyScopes" proto::AddCompanyScopesRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.AuthorizationService/RestrictCompanyScopes" proto::RestrictCompanyScopesRequest: OPERATOR_ONLY of company;

    "/scopegate.v1.DirectoryService/CreateCompany" proto::CreateCompanyRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.DirectoryService/GetCompany" proto::GetCompanyRequest: VIEW_ROLES of company;
    "/scopegate.v1.DirectoryService/ListCompanies" proto::ListCompaniesRequest: AUDIT_ROLES of all;
    "/scopegate.v1.DirectoryService/UpdateCompany" proto::UpdateCompanyRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.DirectoryService/DeleteCompany" proto::DeleteCompanyRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.DirectoryService/CreateCredential" proto::CreateCredentialRequest: EDIT_ROLES of company;
    "/scopegate.v1.DirectoryService/GetCredential" proto::GetCredentialRequest: VIEW_ROLES of company;
    "/scopegate.v1.DirectoryService/ListCredentials" proto::ListCredentialsRequest: VIEW_ROLES of company;
    "/scopegate.v1.DirectoryService/UpdateCredential" proto::UpdateCredentialRequest: EDIT_ROLES of company;
    "/scopegate.v1.DirectoryService/DeleteCredential" proto::DeleteCredentialRequest: EDIT_ROLES of company;
    "/scopegate.v1.DirectoryService/ImportCredentials" Streaming<proto::ImportCredentialsRequest>: OPERATOR_ONLY of all;
    "/scopegate.v1.DirectoryService/CreateSecret" proto::CreateSecretRequest: EDIT_ROLES of company;
    "/scopegate.v1.DirectoryService/DeleteSecret" proto::DeleteSecretRequest: EDIT_ROLES of company;
    "/scopegate.v1.DirectoryService/VerifySecret" proto::VerifySecretRequest: CHECK_ROLES of company_of_secret;
    "/scopegate.v1.DirectoryService/PutUser" proto::PutUserRequest: IDENTITY_ROLES of company;
    "/scopegate.v1.DirectoryService/GetUser" proto::GetUserRequest: VIEW_USERS_ROLES of company;
    "/scopegate.v1.DirectoryService/ListUsers" proto::ListUsersRequest: VIEW_USERS_ROLES of company;
    "/scopegate.v1.DirectoryService/DeleteUser" proto::DeleteUserRequest: IDENTITY_ROLES of company;
    "/scopegate.v1.DirectoryService/PutConsent" proto::PutConsentRequest: IDENTITY_ROLES of company;
    "/scopegate.v1.DirectoryService/GetConsent" proto::GetConsentRequest: VIEW_USERS_ROLES of company;
    "/scopegate.v1.DirectoryService/DeleteConsent" proto::DeleteConsentRequest: IDENTITY_ROLES of company;

    "/scopegate.v1.CatalogService/ApplyCatalog" proto::ApplyCatalogRequest: OPERATOR_ONLY of all;
    "/scopegate.v1.CatalogService/GetCatalog" proto::GetCatalogRequest: AUDIT_ROLES of all;

    "/scopegate.v1.ChangeService/ListChanges" proto::ListChangesRequest: VIEW_ROLES of some_company;
    "/scopegate.v1.ChangeService/WatchChanges" proto::WatchChangesRequest: VIEW_ROLES of some_company;

    "/scopegate.v1.KeyService/CreateKey" proto::CreateKeyRequest: OPERATOR_ONLY of all;
    "/scopegate.v1.KeyService/GetKey" proto::GetKeyRequest: AUDIT_ROLES of all;
    "/scopegate.v1.KeyService/ListKeys" proto::ListKeysRequest: AUDIT_ROLES of all;
    "/scopegate.v1.KeyService/DeleteKey" proto::DeleteKeyRequest: OPERATOR_ONLY of all;

    "/scopegate.v1.BackupService/Backup" proto::BackupRequest: OPERATOR_ONLY of all;
}

/// Whether a method can remove access. Such a request has priority: a caller that revokes a stolen key
/// must not wait for other requests.
#[must_use]
pub fn takes_away(path: &str) -> bool {
    const VERBS: [&str; 4] = ["Delete", "Revoke", "Restrict", "Update"];
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| VERBS.iter().any(|verb| method.starts_with(verb)))
}

/// Whether a method can change the store.
#[must_use]
pub fn is_change(path: &str) -> bool {
    const READS: [&str; 8] =
        ["Get", "List", "Watch", "Explain", "Check", "BatchCheck", "VerifySecret", "Backup"];
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| !READS.iter().any(|read| method.starts_with(read)))
}

/// Whether a method reads a page of the store.
#[must_use]
pub fn is_list(path: &str) -> bool {
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| method.starts_with("List") && method != "ListEffectiveScopes")
}

/// Whether a method counts for the rate limit of its key. The methods that a service calls for each of
/// its own requests do not.
#[must_use]
pub fn is_rated(path: &str) -> bool {
    const WITH_EVERY_REQUEST: [&str; 3] = [
        "/scopegate.v1.AuthorizationService/Check",
        "/scopegate.v1.AuthorizationService/BatchCheck",
        "/scopegate.v1.DirectoryService/VerifySecret",
    ];
    !WITH_EVERY_REQUEST.contains(&path)
}

/// A request and its caller, who may name every company in it.
pub struct Authorized<R> {
    /// The caller.
    pub caller: Caller,
    /// The request message.
    pub request: R,
}

impl<R: CompanyScoped> Authorized<R> {
    /// The request of this caller, whose roles the transport has already compared with [`roles`].
    ///
    /// # Errors
    /// The caller, if its key is not bound to every company that the request names.
    pub fn new(caller: Caller, request: R) -> Result<Self, Caller> {
        if request.is_reached_by(&caller) { Ok(Self { caller, request }) } else { Err(caller) }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_every_service_is_in_the_table() {
        let all = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
        let own = all.file.iter().filter(|file| file.package() == "scopegate.v1");
        let mut calls: Vec<_> = own
            .flat_map(|file| {
                file.service.iter().flat_map(move |service| {
                    service.method.iter().map(move |method| {
                        format!("/{}.{}/{}", file.package(), service.name(), method.name())
                    })
                })
            })
            .collect();
        calls.sort_unstable();
        let mut table = PATHS.to_vec();
        table.sort_unstable();
        assert_eq!(calls, table);
    }

    #[test]
    fn methods_that_remove_access_are_known_by_their_verb() {
        let mut all: Vec<_> = PATHS.iter().copied().filter(|path| takes_away(path)).collect();
        all.sort_unstable();
        let expected = [
            "/scopegate.v1.AuthorizationService/RestrictCompanyScopes",
            "/scopegate.v1.AuthorizationService/RevokeScopes",
            "/scopegate.v1.DirectoryService/DeleteCompany",
            "/scopegate.v1.DirectoryService/DeleteConsent",
            "/scopegate.v1.DirectoryService/DeleteCredential",
            "/scopegate.v1.DirectoryService/DeleteSecret",
            "/scopegate.v1.DirectoryService/DeleteUser",
            "/scopegate.v1.DirectoryService/UpdateCompany",
            "/scopegate.v1.DirectoryService/UpdateCredential",
            "/scopegate.v1.KeyService/DeleteKey",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn every_method_with_the_fields_of_a_change_is_a_change() {
        let all = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
        let own: Vec<_> = all.file.iter().filter(|file| file.package() == "scopegate.v1").collect();
        for file in &own {
            for (service, method) in
                file.service.iter().flat_map(|s| s.method.iter().map(move |m| (s, m)))
            {
                let name = method.input_type().trim_start_matches(".scopegate.v1.");
                let mut messages = own.iter().flat_map(|file| &file.message_type);
                let message = messages.find(|message| message.name() == name).expect("a request");
                let changes = message.field.iter().any(|field| field.name() == "on_behalf_of");
                let path = format!("/scopegate.v1.{}/{}", service.name(), method.name());
                assert_eq!(is_change(&path), changes, "{path}");
            }
        }
    }

    #[test]
    fn only_methods_that_services_call_for_each_request_have_no_rate_limit() {
        let unrated: Vec<_> = PATHS.iter().copied().filter(|path| !is_rated(path)).collect();
        let expected = [
            "/scopegate.v1.AuthorizationService/Check",
            "/scopegate.v1.AuthorizationService/BatchCheck",
            "/scopegate.v1.DirectoryService/VerifySecret",
        ];
        assert_eq!(unrated, expected);
    }

    #[test]
    fn operator_methods_are_for_operators_alone() {
        // D8.
        for path in [
            "/scopegate.v1.AuthorizationService/AddCompanyScopes",
            "/scopegate.v1.AuthorizationService/RestrictCompanyScopes",
            "/scopegate.v1.DirectoryService/CreateCompany",
            "/scopegate.v1.DirectoryService/DeleteCompany",
            "/scopegate.v1.CatalogService/ApplyCatalog",
            "/scopegate.v1.KeyService/CreateKey",
        ] {
            assert_eq!(roles(path), Some(Roles::NONE.with(Role::Operator)), "{path}");
        }
        for path in PATHS {
            let reads = ["Get", "List", "Watch", "Explain"];
            let method = path.rsplit('/').next().expect("a method");
            let is_read = reads.iter().any(|read| method.starts_with(read));
            let found = roles(path).expect("in the table");
            assert!(found.has(Role::Operator), "{path}");
            assert_eq!(found.has(Role::Auditor), is_read, "{path}: an auditor reads, all of it");
            let asks = ["Check", "Verify", "Effective"].iter().any(|word| method.contains(word));
            assert_eq!(found.has(Role::Service), asks, "{path}: a service asks");
        }
        assert_eq!(roles("/scopegate.v1.KeyService/Nothing"), None);
    }
}
