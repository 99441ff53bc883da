//! Reply: the parts of responses to changes, and their metadata.
//!
//! A repeated request gets the resource as it is now. A resource that no longer exists, or that the
//! request itself deleted, has only its ids.
//!
//! Not here: the resources themselves; see [`crate::wire::render`].

use http::{HeaderMap, HeaderName, HeaderValue};

use super::import_position::ImportPosition;
use crate::authority::api_keys::KeyWritten;
use crate::authority::consents::{ConsentId, ConsentView};
use crate::authority::import::ImportSummary;
use crate::authority::import_difference::ImportDifference;
use crate::authority::import_item::ImportItem;
use crate::authority::{Applied, Written};
use crate::policy::company::CompanyView;
use crate::policy::credential::CredentialView;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::secret::SecretText;
use crate::policy::user::User;
use crate::proto;
use crate::store::replicated::Waited;
use crate::wire::render::{self, names};

/// The replica that made the change.
const REPLICA: HeaderName = HeaderName::from_static("scopegate-replica");
/// How many milliseconds the change waited until every replica showed it.
const WAITED_MS: HeaderName = HeaderName::from_static("scopegate-waited-ms");
/// The names of the replicas that it waited for, separated by commas; absent if there are none.
const WAITED_FOR: HeaderName = HeaderName::from_static("scopegate-waited-for");

/// Tells in the metadata of a response how its change waited for other replicas.
pub(crate) fn tell_waited(headers: &mut HeaderMap, replica: &Name, waited: &Waited) {
    let names = waited.waited_for.iter().map(Name::as_str).collect::<Vec<_>>().join(",");
    let names = Some(names).filter(|names| !names.is_empty());
    let millis = u64::try_from(waited.time.as_millis()).unwrap_or(u64::MAX);
    headers.insert(WAITED_MS, HeaderValue::from(millis));
    for (header, names) in [(REPLICA, Some(replica.to_string())), (WAITED_FOR, names)] {
        // A name is ASCII.
        if let Some(Ok(value)) = names.map(HeaderValue::try_from) {
            headers.insert(header, value);
        }
    }
}

/// The company of a response.
pub(super) fn company(id: &CompanyId, written: Written<CompanyView>) -> proto::Company {
    match written.resource {
        Some(view) => render::company(view, written.etag),
        None => proto::Company { company_id: id.to_string(), ..Default::default() },
    }
}

/// The credential of a response.
pub(super) fn credential(
    company: &CompanyId,
    id: &CredentialId,
    written: Written<CredentialView>,
) -> proto::Credential {
    let (company_id, credential_id) = (company.to_string(), id.to_string());
    match written.resource {
        Some(view) => render::credential(view, written.etag),
        None => proto::Credential { company_id, credential_id, ..Default::default() },
    }
}

/// The user of a response.
pub(super) fn user(company: &CompanyId, id: &UserId, written: Written<User>) -> proto::User {
    let (company_id, user_id) = (company.to_string(), id.to_string());
    match written.resource {
        Some(user) => render::user(user, company, written.etag),
        None => proto::User { company_id, user_id, ..Default::default() },
    }
}

/// The consent of a response.
pub(super) fn consent(id: &ConsentId, written: Written<ConsentView>) -> proto::Consent {
    match written.resource {
        Some(view) => render::consent(view, id, written.etag),
        None => proto::Consent {
            company_id: id.company.to_string(),
            credential_id: id.credential.to_string(),
            user_id: id.user.to_string(),
            ..Default::default()
        },
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

pub(crate) fn key_created(mut written: KeyWritten) -> proto::CreateKeyResponse {
    let (secret, revision) = (written.secret.take(), written.revision.0);
    proto::CreateKeyResponse {
        key: key(written),
        secret: secret.map(SecretText::reveal).unwrap_or_default(),
        revision,
        warnings: vec![],
    }
}

/// The key of a response.
pub(super) fn key(written: KeyWritten) -> Option<proto::Key> {
    let KeyWritten { id, key, etag, .. } = written;
    let ids = |id: Name| proto::Key { key_id: id.to_string(), ..Default::default() };
    key.map(|view| render::key(view, etag)).or(id.map(ids))
}

pub(super) fn applied(applied: Applied) -> proto::ApplyCatalogResponse {
    let Applied { difference, losers, etag, revision, warnings } = applied;
    let difference = difference.bounded();
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
        added_endpoints: difference.added_endpoints,
        removed_endpoints: difference.removed_endpoints,
        affected_companies: companies.collect(),
        affected_credentials: credentials.collect(),
        changed_titles: difference.changed_titles,
        changed_issuers: difference.changed_issuers,
        changed_resources: difference.changed_resources,
        warnings,
    }
}
