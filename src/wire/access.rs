//! Access: which caller may make which call (D8), in one table of all of them.
//!
//! A call that is not in the table is not answered, and a request whose type is not in it has no
//! way to a handler: [`Authorized`] is made here alone, and only of a call in the table.
//!
//! Who is refused learns that it may not call this for the company that it names, and the same
//! whether there is such a company or not.
//!
//! Not here: how a caller proves who it is; see `policy::keyring`.

use tonic::Streaming;

use crate::policy::caller::{Caller, Role, Roles};
use crate::proto;

/// Asks for decisions.
const CHECK_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::Service);
/// Asks why a decision is as it is.
const EXPLAINS: Roles = CHECK_ROLES.with(Role::CompanyAdmin).with(Role::Auditor);
/// Reads what concerns one company.
const VIEW_ROLES: Roles =
    Roles::NONE.with(Role::Operator).with(Role::CompanyAdmin).with(Role::Auditor);
/// Reads what concerns the users of one company.
const VIEWS_USERS: Roles = VIEW_ROLES.with(Role::Identity);
/// Edits the credentials of one company.
const EDIT_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::CompanyAdmin);
/// Maintains users and consents.
const IDENTITY_ROLES: Roles = Roles::NONE.with(Role::Operator).with(Role::Identity);
/// Reads what concerns all.
const AUDITS: Roles = Roles::NONE.with(Role::Operator).with(Role::Auditor);
/// Does everything else.
const OPERATOR_ONLY: Roles = Roles::NONE.with(Role::Operator);

/// A request of a call in the table.
pub trait CompanyScoped {
    /// Whether the caller can name all companies that the request names.
    fn is_reached_by(&self, caller: &Caller) -> bool;
}

/// Which companies a request names.
macro_rules! reached {
    ($request:ident, $caller:ident, company) => {
        $caller.reaches(&$request.company_id)
    };
    // Unnamed, it is found by the secret; whether the caller reaches it is looked at then.
    ($request:ident, $caller:ident, company_of_secret) => {
        $request.company_id.is_empty() || $caller.reaches(&$request.company_id)
    };
    ($request:ident, $caller:ident, some_company) => {
        $caller.reaches($request.company_id.as_deref().unwrap_or_default())
    };
    // None to check: the request is malformed, and will be told so.
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

/// Calls by path, the roles one of which is needed, and the companies that the request names.
macro_rules! calls {
    ($($path:literal $request:ty: $roles:ident of $of:ident;)*) => {
        /// The roles one of which a call needs; none if there is no such call.
        #[must_use]
        pub fn roles(path: &str) -> Option<Roles> {
            match path {
                $($path => Some($roles),)*
                // What there is to call is told to whoever may call something.
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

        /// The paths of all calls of this program's own services.
        pub const PATHS: &[&str] = &[$($path),*];
    };
}

calls! {
    "/scopegate.v1.AuthorizationService/Check" proto::CheckRequest: CHECK_ROLES of company;
    "/scopegate.v1.AuthorizationService/BatchCheck" proto::BatchCheckRequest: CHECK_ROLES of checks;
    "/scopegate.v1.AuthorizationService/ExplainCheck" proto::ExplainCheckRequest: EXPLAINS of check;
    "/scopegate.v1.AuthorizationService/ListEffectiveScopes" proto::ListEffectiveScopesRequest: EXPLAINS of company;
    "/scopegate.v1.AuthorizationService/GrantScopes" proto::GrantScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/RevokeScopes" proto::RevokeScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/ReplaceScopes" proto::ReplaceScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/ResetScopes" proto::ResetScopesRequest: EDIT_ROLES of company;
    "/scopegate.v1.AuthorizationService/RestoreGrants" proto::RestoreGrantsRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.AuthorizationService/AddCompanyScopes" proto::AddCompanyScopesRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.AuthorizationService/RestrictCompanyScopes" proto::RestrictCompanyScopesRequest: OPERATOR_ONLY of company;

    "/scopegate.v1.DirectoryService/CreateCompany" proto::CreateCompanyRequest: OPERATOR_ONLY of company;
    "/scopegate.v1.DirectoryService/GetCompany" proto::GetCompanyRequest: VIEW_ROLES of company;
    "/scopegate.v1.DirectoryService/ListCompanies" proto::ListCompaniesRequest: AUDITS of all;
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
    "/scopegate.v1.DirectoryService/GetUser" proto::GetUserRequest: VIEWS_USERS of company;
    "/scopegate.v1.DirectoryService/ListUsers" proto::ListUsersRequest: VIEWS_USERS of company;
    "/scopegate.v1.DirectoryService/DeleteUser" proto::DeleteUserRequest: IDENTITY_ROLES of company;
    "/scopegate.v1.DirectoryService/PutConsent" proto::PutConsentRequest: IDENTITY_ROLES of company;
    "/scopegate.v1.DirectoryService/GetConsent" proto::GetConsentRequest: VIEWS_USERS of company;
    "/scopegate.v1.DirectoryService/DeleteConsent" proto::DeleteConsentRequest: IDENTITY_ROLES of company;

    "/scopegate.v1.CatalogService/ApplyCatalog" proto::ApplyCatalogRequest: OPERATOR_ONLY of all;
    "/scopegate.v1.CatalogService/GetCatalog" proto::GetCatalogRequest: AUDITS of all;

    "/scopegate.v1.ChangeService/ListChanges" proto::ListChangesRequest: VIEW_ROLES of some_company;
    "/scopegate.v1.ChangeService/WatchChanges" proto::WatchChangesRequest: VIEW_ROLES of some_company;

    "/scopegate.v1.KeyService/CreateKey" proto::CreateKeyRequest: OPERATOR_ONLY of all;
    "/scopegate.v1.KeyService/GetKey" proto::GetKeyRequest: AUDITS of all;
    "/scopegate.v1.KeyService/ListKeys" proto::ListKeysRequest: AUDITS of all;
    "/scopegate.v1.KeyService/DeleteKey" proto::DeleteKeyRequest: OPERATOR_ONLY of all;

    "/scopegate.v1.BackupService/Backup" proto::BackupRequest: OPERATOR_ONLY of all;
}

/// Whether a call takes rights away, or can: a caller that revokes a stolen key must not have to
/// wait for others.
#[must_use]
pub fn takes_away(path: &str) -> bool {
    const VERBS: [&str; 4] = ["Delete", "Revoke", "Restrict", "Update"];
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| VERBS.iter().any(|verb| method.starts_with(verb)))
}

/// Whether a call can change anything.
#[must_use]
pub fn is_change(path: &str) -> bool {
    const READS: [&str; 8] =
        ["Get", "List", "Watch", "Explain", "Check", "BatchCheck", "VerifySecret", "Backup"];
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| !READS.iter().any(|read| method.starts_with(read)))
}

/// Whether a call reads a page of the store.
#[must_use]
pub fn is_list(path: &str) -> bool {
    let method = path.strip_prefix("/scopegate.v1.").and_then(|path| path.split_once('/'));
    method.is_some_and(|(_, method)| method.starts_with("List") && method != "ListEffectiveScopes")
}

/// Whether a call counts in its key's rate: not those that a service makes with every request.
#[must_use]
pub fn is_rated(path: &str) -> bool {
    const WITH_EVERY_REQUEST: [&str; 3] = [
        "/scopegate.v1.AuthorizationService/Check",
        "/scopegate.v1.AuthorizationService/BatchCheck",
        "/scopegate.v1.DirectoryService/VerifySecret",
    ];
    !WITH_EVERY_REQUEST.contains(&path)
}

/// A request, and who makes it: one that may make it.
pub struct Authorized<R> {
    /// Who asks.
    pub caller: Caller,
    /// What it asks for.
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
    fn every_call_of_every_service_is_in_the_table() {
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
    fn what_can_take_rights_away_is_known_by_its_verb() {
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
    fn every_call_that_takes_the_fields_of_a_change_is_a_change() {
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
    fn only_what_services_call_with_every_request_has_no_rate() {
        let unrated: Vec<_> = PATHS.iter().copied().filter(|path| !is_rated(path)).collect();
        let expected = [
            "/scopegate.v1.AuthorizationService/Check",
            "/scopegate.v1.AuthorizationService/BatchCheck",
            "/scopegate.v1.DirectoryService/VerifySecret",
        ];
        assert_eq!(unrated, expected);
    }

    #[test]
    fn what_only_operators_may_do_nobody_else_may() {
        // D8, as the contract says it.
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
