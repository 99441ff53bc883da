//! Reply: the responses to changes, from what the authority has written.
//!
//! A response depends only on what was written, since the commit stores a part of it for a request that
//! is sent again; see [`super::stored_reply`].
//!
//! Not here: the resources in the responses; see [`crate::wire::render`].

use super::import_position::ImportPosition;
use crate::authority::api_keys::KeyChanged;
use crate::authority::consents::{ConsentId, ConsentView};
use crate::authority::impact::Impact;
use crate::authority::import::ImportSummary;
use crate::authority::import_difference::ImportDifference;
use crate::authority::import_item::ImportItem;
use crate::authority::secrets::NewSecret;
use crate::authority::{Applied, Written};
use crate::policy::company::CompanyView;
use crate::policy::credential::CredentialView;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::secret::SecretText;
use crate::policy::user::User;
use crate::proto;
use crate::wire::render::{self, names};

/// Responses that are a resource and a revision.
macro_rules! resources {
    ($($name:ident: $view:ty => $message:ident { $field:ident })*) => {$(
        pub(super) fn $name(written: Written<$view>) -> proto::$message {
            let revision = written.revision.0;
            proto::$message { $field: Some(render::$field(written.resource, written.etag)), revision }
        }
    )*};
}

resources! {
    company_created: CompanyView => CreateCompanyResponse { company }
    company_updated: CompanyView => UpdateCompanyResponse { company }
    company_deleted: CompanyView => DeleteCompanyResponse { company }
    credential_created: CredentialView => CreateCredentialResponse { credential }
    credential_updated: CredentialView => UpdateCredentialResponse { credential }
    credential_deleted: CredentialView => DeleteCredentialResponse { credential }
    secret_deleted: CredentialView => DeleteSecretResponse { credential }
}

pub(super) fn granted(written: Written<CredentialView>) -> proto::GrantScopesResponse {
    proto::GrantScopesResponse {
        added_scopes: names(&written.added),
        revision: written.revision.0,
        credential: Some(render::credential(written.resource, written.etag)),
    }
}

pub(super) fn revoked(written: Written<CredentialView>) -> proto::RevokeScopesResponse {
    proto::RevokeScopesResponse {
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(render::credential(written.resource, written.etag)),
    }
}

pub(super) fn replaced(written: Written<CredentialView>) -> proto::ReplaceScopesResponse {
    proto::ReplaceScopesResponse {
        added_scopes: names(&written.added),
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(render::credential(written.resource, written.etag)),
    }
}

pub(super) fn reset(written: Written<CredentialView>) -> proto::ResetScopesResponse {
    proto::ResetScopesResponse {
        added_scopes: names(&written.added),
        removed_scopes: names(&written.removed),
        revision: written.revision.0,
        credential: Some(render::credential(written.resource, written.etag)),
    }
}

pub(super) fn restored(count: u64, revision: Revision) -> proto::RestoreGrantsResponse {
    proto::RestoreGrantsResponse { restored_credential_count: count, revision: revision.0 }
}

pub(super) fn scopes_added(written: Written<CompanyView>) -> proto::AddCompanyScopesResponse {
    proto::AddCompanyScopesResponse {
        added_scopes: names(&written.added),
        revision: written.revision.0,
        company: Some(render::company(written.resource, written.etag)),
    }
}

pub(super) fn restricted(
    written: Written<CompanyView>,
    impact: Impact,
) -> proto::RestrictCompanyScopesResponse {
    proto::RestrictCompanyScopesResponse {
        restricted_scopes: names(&written.removed),
        affected_credential_count: impact.count,
        affected_credentials: impact.affected.into_iter().map(render::affected).collect(),
        etag: impact.etag,
        revision: written.revision.0,
        company: Some(render::company(written.resource, written.etag)),
    }
}

pub(super) fn imported(
    summary: ImportSummary,
    differences: Vec<ImportDifference<ImportPosition>>,
) -> proto::ImportCredentialsResponse {
    proto::ImportCredentialsResponse {
        created_company_count: summary.companies,
        created_credential_count: summary.credentials,
        skipped_count: summary.skipped,
        revision: summary.revision.0,
        differing_count: summary.differing,
        differing: differences.into_iter().map(differing).collect(),
    }
}

fn differing(difference: ImportDifference<ImportPosition>) -> proto::ImportDifference {
    let ImportDifference { place: position, new, fields } = difference;
    let (company_id, credential_id) = match new {
        ImportItem::Company(new) => (new.id.to_string(), String::new()),
        ImportItem::Credential(new) => (new.company.to_string(), new.id.to_string()),
    };
    let fields = fields.into_iter().map(str::to_owned).collect();
    proto::ImportDifference { company_id, credential_id, line: position.line, fields }
}

pub(super) fn secret_created(created: NewSecret) -> proto::CreateSecretResponse {
    proto::CreateSecretResponse {
        secret_id: created.id.map(|id| id.to_string()).unwrap_or_default(),
        secret: created.secret.map(SecretText::reveal).unwrap_or_default(),
        revision: created.revision.0,
    }
}

pub(crate) fn key_created(created: KeyChanged) -> proto::CreateKeyResponse {
    proto::CreateKeyResponse {
        key: Some(render::key(created.key, created.etag)),
        secret: created.secret.map(SecretText::reveal).unwrap_or_default(),
        revision: created.revision.0,
        warnings: vec![],
    }
}

pub(super) fn key_deleted(deleted: KeyChanged) -> proto::DeleteKeyResponse {
    let key = Some(render::key(deleted.key, deleted.etag));
    proto::DeleteKeyResponse { key, revision: deleted.revision.0 }
}

pub(super) fn user_put(company: &CompanyId, written: Written<User>) -> proto::PutUserResponse {
    let user = Some(render::user(written.resource, company, written.etag));
    proto::PutUserResponse { user, revision: written.revision.0, warnings: vec![] }
}

pub(super) fn user_deleted(
    company: &CompanyId,
    written: Written<User>,
) -> proto::DeleteUserResponse {
    let user = Some(render::user(written.resource, company, written.etag));
    proto::DeleteUserResponse { user, revision: written.revision.0 }
}

pub(super) fn consent_put(
    id: &ConsentId,
    written: Written<ConsentView>,
) -> proto::PutConsentResponse {
    let consent = Some(render::consent(written.resource, id, written.etag));
    proto::PutConsentResponse { consent, revision: written.revision.0 }
}

pub(super) fn consent_deleted(
    id: &ConsentId,
    written: Written<ConsentView>,
) -> proto::DeleteConsentResponse {
    let consent = Some(render::consent(written.resource, id, written.etag));
    proto::DeleteConsentResponse { consent, revision: written.revision.0 }
}

pub(super) fn applied(applied: Applied) -> proto::ApplyCatalogResponse {
    let Applied { difference, losers, etag, revision } = applied;
    let renamed = difference.renamed.iter().map(|scope| proto::RenamedScope {
        old_name: scope.old.to_string(),
        new_name: scope.new.to_string(),
    });
    let companies = losers.companies.into_iter().map(|company| proto::AffectedCompany {
        company_id: company.id.to_string(),
        display_name: company.display_name,
        scopes: names(&company.scopes),
        affected_credential_count: company.credential_count,
    });
    let credentials = losers.credentials.into_iter().map(|(company, affected)| {
        let credential = Some(render::affected(affected));
        proto::LosingCredential { company_id: company.to_string(), credential }
    });
    proto::ApplyCatalogResponse {
        added_scopes: names(&difference.added),
        removed_scopes: names(&difference.removed_names),
        affected_company_count: losers.company_count,
        affected_credential_count: losers.credential_count,
        etag,
        revision: revision.0,
        changed_scopes: names(&difference.changed_scopes),
        changed_audiences: difference.changed_audiences,
        changed_roles: difference.changed_roles,
        changed_endpoints: difference.changed_endpoints,
        renamed_scopes: renamed.collect(),
        added_endpoints: first(difference.added_endpoints),
        removed_endpoints: first(difference.removed_endpoints),
        affected_companies: companies.collect(),
        affected_credentials: credentials.collect(),
        changed_titles: first(difference.changed_titles),
    }
}

/// The most bytes of the names in one list of a response.
const MAX_LISTED: usize = 512 << 10;

/// The first of these names, up to [`MAX_LISTED`] bytes.
fn first(names: Vec<String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |name: &String| {
        bytes += name.len();
        bytes <= MAX_LISTED
    };
    names.into_iter().take_while(fits).collect()
}
