//! Access: the operation of each method of the API, and the companies that its request names (D8).
//!
//! The build generates the table from the option `operation` of the methods in `proto/scopegate/v1`. A
//! method without the option fails the build. A server rejects a method that is not in the table. A
//! request type that is not in the table cannot reach a handler.
//!
//! Not here: the rules; see [`crate::authority::admission`].

use crate::authority::operation::{Companies, Effect, Operation};
use crate::policy::role::{Role, Roles};
use crate::proto;
use crate::proto::envoy::service::auth::v3 as envoy;
use crate::store::replicated::peer;

include!(concat!(env!("OUT_DIR"), "/operations.rs"));

const REFLECTION_PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The index in metrics of the paths that have none of their own.
pub const OTHER: usize = OPERATIONS.len() + 1;

/// Envoy's question whether it may pass a request on. It is a check, so it has the roles of one, no rate
/// limit and no line in the access log.
pub static ENVOY_CHECK: Operation = Operation {
    path: "/envoy.service.auth.v3.Authorization/Check",
    index: OPERATIONS.len(),
    roles: Roles::NONE.with(Role::Service).with(Role::Operator),
    effect: Effect::Read,
    reads_page: false,
    is_stream: false,
    is_rated: false,
    is_logged: false,
};

/// The company that Envoy's configuration names. What the client's credential names is compared later (T6).
impl CompanyScoped for envoy::CheckRequest {
    const OPERATION: &'static Operation = &ENVOY_CHECK;

    fn companies(&self) -> Companies<'_> {
        let settings = self.attributes.iter().flat_map(|all| &all.context_extensions);
        let companies = settings.filter(|setting| setting.key == "company_id");
        let mut companies = companies.map(|setting| &*setting.value);
        match (companies.next(), companies.next()) {
            (None, _) => Companies::None,
            (Some(company), None) => Companies::One(company),
            (Some(company), Some(other)) => {
                Companies::Each([company, other].into_iter().chain(companies).collect())
            }
        }
    }
}

/// Server reflection. Every caller with a role may use it. Metrics count it as a call of another path.
static REFLECTION: Operation = Operation {
    path: "other",
    index: OTHER,
    roles: Roles::ALL,
    effect: Effect::Read,
    reads_page: false,
    is_stream: true,
    is_rated: true,
    is_logged: true,
};

/// The list of the replicas of a cluster. Metrics count it as a call of another path.
static REPLICAS: Operation = Operation {
    path: "other",
    index: OTHER,
    roles: Roles::NONE.with(Role::Operator).with(Role::Auditor),
    effect: Effect::Read,
    reads_page: false,
    is_stream: false,
    is_rated: true,
    is_logged: true,
};

impl CompanyScoped for peer::ReplicasRequest {
    const OPERATION: &'static Operation = &REPLICAS;

    fn companies(&self) -> Companies<'_> {
        Companies::All
    }
}

/// A request of a method in the table.
pub trait CompanyScoped {
    /// The method.
    const OPERATION: &'static Operation;

    /// The companies that the request names.
    fn companies(&self) -> Companies<'_>;
}

/// The operation of a path; none if there is no such method.
#[must_use]
pub fn operation(path: &str) -> Option<&'static Operation> {
    // `Check` is the first one, so it is found at once.
    if path == ENVOY_CHECK.path {
        return Some(&ENVOY_CHECK);
    }
    let operation = OPERATIONS.iter().find(|operation| operation.path == path);
    operation.copied().or_else(|| match path {
        peer::REPLICAS => Some(&REPLICAS),
        _ => REFLECTION_PATHS.contains(&path).then_some(&REFLECTION),
    })
}

/// The names of the services of the API, once each.
pub fn services() -> impl Iterator<Item = &'static str> {
    let service = |operation: &'static Operation| operation.path.split('/').nth(1);
    let all = OPERATIONS.iter().copied().chain([&ENVOY_CHECK]);
    let mut names: Vec<_> = all.filter_map(service).collect();
    names.dedup();
    names.into_iter()
}

/// Whether the requests of an operation are of this type.
#[must_use]
pub fn is_method_of<R: CompanyScoped>(operation: &'static Operation) -> bool {
    std::ptr::eq(operation, R::OPERATION)
}

/// Whether this is the operation of server reflection.
#[must_use]
pub fn is_reflection(operation: &'static Operation) -> bool {
    std::ptr::eq(operation, &REFLECTION)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use Effect::{Change, Read, Removal};

    /// Each method: the roles by their first letter (`*`: any role), the companies, the effect, and
    /// what else differs: `p` it reads a page, `s` a stream of messages, `u` without a rate limit, `l`
    /// without a line in the access log.
    const TABLE: &[(&str, &str, &str, Effect, &str)] = &[
        ("AuthorizationService/Check", "SO", "may_omit_company", Read, "ul"),
        ("AuthorizationService/BatchCheck", "SO", "checks", Read, "ul"),
        ("AuthorizationService/ExplainCheck", "SCOA", "check", Read, ""),
        ("AuthorizationService/ListEffectiveScopes", "SCOA", "may_omit_company", Read, ""),
        ("AuthorizationService/GrantScopes", "CO", "company", Change, ""),
        ("AuthorizationService/RevokeScopes", "CO", "company", Removal, ""),
        ("AuthorizationService/ReplaceScopes", "CO", "company", Change, ""),
        ("AuthorizationService/ResetScopes", "CO", "company", Change, ""),
        ("AuthorizationService/RestoreGrants", "O", "company", Change, ""),
        ("AuthorizationService/AddCompanyScopes", "O", "company", Change, ""),
        ("AuthorizationService/RestrictCompanyScopes", "O", "company", Removal, ""),
        ("DirectoryService/CreateCompany", "O", "company", Change, ""),
        ("DirectoryService/GetCompany", "COA", "company", Read, ""),
        ("DirectoryService/ListCompanies", "OA", "all", Read, "p"),
        ("DirectoryService/UpdateCompany", "O", "company", Removal, ""),
        ("DirectoryService/DeleteCompany", "O", "company", Removal, ""),
        ("DirectoryService/CreateCredential", "CO", "company", Change, ""),
        ("DirectoryService/GetCredential", "COA", "company", Read, ""),
        ("DirectoryService/ListCredentials", "COA", "company", Read, "p"),
        ("DirectoryService/UpdateCredential", "CO", "company", Removal, ""),
        ("DirectoryService/DeleteCredential", "CO", "company", Removal, ""),
        ("DirectoryService/ImportCredentials", "O", "all", Change, "s"),
        ("DirectoryService/CreateSecret", "CO", "company", Change, ""),
        ("DirectoryService/DeleteSecret", "CO", "company", Removal, ""),
        ("DirectoryService/VerifySecret", "SO", "may_omit_company", Read, "u"),
        ("DirectoryService/RevokeTokens", "CO", "company", Removal, ""),
        ("DirectoryService/PutUser", "IO", "company", Change, ""),
        ("DirectoryService/GetUser", "CIOA", "company", Read, ""),
        ("DirectoryService/ListUsers", "CIOA", "company", Read, "p"),
        ("DirectoryService/DeleteUser", "IO", "company", Removal, ""),
        ("DirectoryService/PutConsent", "IO", "company", Change, ""),
        ("DirectoryService/CreateAuthorizationCode", "IO", "company", Change, ""),
        ("DirectoryService/GetConsent", "CIOA", "company", Read, ""),
        ("DirectoryService/DeleteConsent", "IO", "company", Removal, ""),
        ("CatalogService/ApplyCatalog", "O", "all", Change, ""),
        ("CatalogService/GetCatalog", "OA", "all", Read, ""),
        ("ChangeService/ListChanges", "COA", "some_company", Read, "p"),
        ("ChangeService/WatchChanges", "COA", "some_company", Read, ""),
        ("KeyService/CreateKey", "O", "all", Change, ""),
        ("KeyService/GetKey", "OA", "all", Read, ""),
        ("KeyService/ListKeys", "OA", "all", Read, "p"),
        ("KeyService/DeleteKey", "O", "all", Removal, ""),
        ("KeyService/WhoAmI", "*", "none", Read, ""),
        ("KeyService/ListSigningKeys", "OA", "all", Read, ""),
        ("KeyService/RotateSigningKey", "O", "all", Change, ""),
        ("KeyService/DeleteSigningKey", "O", "all", Removal, ""),
        ("BackupService/Backup", "O", "all", Read, ""),
    ];

    #[test]
    fn every_method_has_the_operation_that_is_expected() {
        let expected: Vec<_> = TABLE
            .iter()
            .enumerate()
            .map(|(index, (path, roles, _, effect, other))| {
                let path = format!("/scopegate.v1.{path}");
                let role = |letter| match letter {
                    'S' => Role::Service,
                    'C' => Role::CompanyAdmin,
                    'I' => Role::Identity,
                    'O' => Role::Operator,
                    _ => Role::Auditor,
                };
                let roles =
                    if *roles == "*" { Roles::ALL } else { roles.chars().map(role).collect() };
                let has = |letter| other.contains(letter);
                let flags = [has('p'), has('s'), !has('u'), !has('l')];
                (path, index, roles, *effect, flags)
            })
            .collect();
        let declared: Vec<_> = OPERATIONS
            .iter()
            .map(|operation| {
                let Operation { reads_page, is_stream, is_rated, is_logged, .. } = **operation;
                let flags = [reads_page, is_stream, is_rated, is_logged];
                let Operation { path, index, roles, effect, .. } = **operation;
                (path.to_owned(), index, roles, effect, flags)
            })
            .collect();
        assert_eq!(declared, expected);
        assert_eq!(
            OPERATIONS.first().map(|first| first.path),
            Some(proto::CheckRequest::OPERATION.path)
        );
    }

    #[test]
    fn envoys_check_is_treated_as_a_check() {
        let check = proto::CheckRequest::OPERATION;
        let as_check = Operation { path: check.path, index: check.index, ..ENVOY_CHECK };
        assert_eq!(&as_check, check);
        assert!(operation(ENVOY_CHECK.path).is_some_and(is_method_of::<envoy::CheckRequest>));
        assert_eq!(OPERATIONS.iter().filter(|other| other.index == ENVOY_CHECK.index).count(), 0);
        let naming = |companies: &[&str]| {
            let setting = |(key, value): (&str, &str)| {
                let (key, value) = (key.to_owned(), value.to_owned());
                envoy::attribute_context::ContextExtensionsEntry { key, value }
            };
            let settings = companies.iter().map(|company| ("company_id", *company));
            let settings = settings.chain([("credential_id", "hr")]).map(setting).collect();
            let attributes =
                envoy::AttributeContext { context_extensions: settings, ..Default::default() };
            envoy::CheckRequest { attributes: Some(attributes) }
        };
        assert_eq!(envoy::CheckRequest::default().companies(), Companies::None);
        assert_eq!(naming(&[]).companies(), Companies::None);
        assert_eq!(naming(&["acme"]).companies(), Companies::One("acme"));
        assert_eq!(naming(&[""]).companies(), Companies::One(""));
        let all = naming(&["acme", "other", "acme"]);
        assert_eq!(all.companies(), Companies::Each(vec!["acme", "other", "acme"]));
    }

    /// Every method of the contract: its path, and whether its request has the fields of a change.
    fn methods() -> Vec<(String, bool)> {
        let all = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
        let own: Vec<_> = all.file.iter().filter(|file| file.package() == "scopegate.v1").collect();
        let messages: Vec<_> = own.iter().flat_map(|file| &file.message_type).collect();
        let services = own.iter().flat_map(|file| &file.service);
        services
            .flat_map(|service| service.method.iter().map(move |method| (service, method)))
            .map(|(service, method)| {
                let name = method.input_type().trim_start_matches(".scopegate.v1.");
                let request = messages.iter().find(|message| message.name() == name);
                let fields = &request.expect("a request").field;
                let changes = fields.iter().any(|field| field.name() == "on_behalf_of");
                (format!("/scopegate.v1.{}/{}", service.name(), method.name()), changes)
            })
            .collect()
    }

    #[test]
    fn every_method_with_the_fields_of_a_change_is_a_change() {
        let methods = methods();
        assert_eq!(methods.len(), OPERATIONS.len());
        for (path, changes) in methods {
            let operation = operation(&path).expect("in the table");
            assert_eq!(operation.path, path);
            assert_eq!(operation.effect != Read, changes, "{path}");
        }
    }

    #[test]
    #[allow(clippy::needless_update, reason = "some requests have no other field")]
    fn every_request_names_the_companies_that_are_expected() {
        let mut found = Vec::new();
        macro_rules! name {
            ($of:literal, $companies:expr, $fields:tt, $($request:ident)*) => {$(
                let request = proto::$request $fields;
                assert_eq!(request.companies(), $companies, stringify!($request));
                found.push((proto::$request::OPERATION.path, $of));
            )*};
        }
        let acme = || "acme".to_owned();
        let check = |company: &str| proto::CheckRequest {
            company_id: company.to_owned(),
            ..Default::default()
        };
        name!("company", Companies::One("acme"), { company_id: acme(), ..Default::default() },
            GrantScopesRequest RevokeScopesRequest ReplaceScopesRequest ResetScopesRequest
            RestoreGrantsRequest AddCompanyScopesRequest
            RestrictCompanyScopesRequest CreateCompanyRequest GetCompanyRequest
            UpdateCompanyRequest DeleteCompanyRequest CreateCredentialRequest
            GetCredentialRequest ListCredentialsRequest UpdateCredentialRequest
            DeleteCredentialRequest CreateSecretRequest DeleteSecretRequest RevokeTokensRequest
            PutUserRequest GetUserRequest ListUsersRequest DeleteUserRequest
            PutConsentRequest CreateAuthorizationCodeRequest GetConsentRequest
            DeleteConsentRequest);
        name!("company", Companies::One(""), { ..Default::default() }, GrantScopesRequest);
        // A credential of a client names the company.
        name!("may_omit_company", Companies::One("acme"), { company_id: acme(), ..Default::default() },
            CheckRequest ListEffectiveScopesRequest VerifySecretRequest);
        name!("may_omit_company", Companies::None, { ..Default::default() },
            CheckRequest ListEffectiveScopesRequest VerifySecretRequest);
        name!("some_company", Companies::One("acme"), { company_id: Some(acme()), ..Default::default() },
            ListChangesRequest WatchChangesRequest);
        name!("some_company", Companies::All, { ..Default::default() }, ListChangesRequest WatchChangesRequest);
        name!("check", Companies::One("acme"), { check: Some(check("acme")), ..Default::default() }, ExplainCheckRequest);
        name!("check", Companies::None, { check: Some(check("")), ..Default::default() }, ExplainCheckRequest);
        name!("check", Companies::None, { ..Default::default() }, ExplainCheckRequest);
        name!("checks", Companies::Each(vec!["acme", "other"]),
            { checks: vec![check("acme"), check(""), check("other")], ..Default::default() }, BatchCheckRequest);
        name!("all", Companies::All, { ..Default::default() },
            ListCompaniesRequest ApplyCatalogRequest GetCatalogRequest
            CreateKeyRequest GetKeyRequest ListKeysRequest DeleteKeyRequest
            ListSigningKeysRequest RotateSigningKeyRequest DeleteSigningKeyRequest
            BackupRequest);
        name!("none", Companies::None, { ..Default::default() }, WhoAmIRequest);
        type Import = tonic::Streaming<proto::ImportCredentialsRequest>;
        found.push((Import::OPERATION.path, "all"));
        found.sort_unstable();
        found.dedup();
        let mut expected: Vec<_> = OPERATIONS
            .iter()
            .zip(TABLE)
            .map(|(operation, (_, _, of, ..))| (operation.path, *of))
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
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
            let roles = operation(path).map(|operation| operation.roles);
            assert_eq!(roles, Some(Roles::NONE.with(Role::Operator)), "{path}");
        }
        for operation in OPERATIONS.iter().filter(|operation| operation.roles != Roles::ALL) {
            let (path, found) = (operation.path, operation.roles);
            let reads = ["Get", "List", "Watch", "Explain"];
            let method = path.rsplit('/').next().expect("a method");
            let is_read = reads.iter().any(|read| method.starts_with(read));
            assert!(found.has(Role::Operator), "{path}");
            assert_eq!(found.has(Role::Auditor), is_read, "{path}: an auditor reads, all of it");
            let asks = ["Check", "Verify", "Effective"].iter().any(|word| method.contains(word));
            assert_eq!(found.has(Role::Service), asks, "{path}: a service asks");
            for role in [Role::Backup, Role::Restrictor, Role::KeyAdmin] {
                assert!(!found.has(role), "{path}: {role} permits nothing yet");
            }
        }
    }

    #[test]
    fn any_caller_may_use_reflection_and_no_other_path_is_known() {
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(operation(&path), Some(&REFLECTION));
        }
        for path in ["/scopegate.v1.KeyService/Nothing", "/grpc.reflection.v1.Other", "other", ""] {
            assert_eq!(operation(path), None, "{path}");
        }
    }
}
