//! Write result: encodes and decodes what a committed request changed.
//!
//! Not here: facts and changes; see [`super`].

use prost::Message;

use super::proto::{AnsweredRecord, CatalogDifferenceRecord, ImpactRecord, WriteResultRecord};
use crate::policy::catalog::difference::CatalogDifference;
use crate::policy::catalog::rename::RenamedScope;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::store::error::Corrupt;
use crate::store::idempotency::{ResultDetail, StoredResult, WriteResult};

/// Encodes the result of a request. Its revision is stored next to it.
pub(in crate::store) fn encode_result(body: [u8; 32], result: WriteResult) -> Vec<u8> {
    let WriteResult { added, removed, detail } = result;
    let mut record = WriteResultRecord {
        added_scopes: texts(&added),
        removed_scopes: texts(&removed),
        ..WriteResultRecord::default()
    };
    match detail {
        ResultDetail::None => {}
        ResultDetail::Id(id) => record.id = id.to_string(),
        ResultDetail::Restored(count) => record.restored_credential_count = count,
        ResultDetail::Impact(credential_count, etag) => {
            record.impact = Some(ImpactRecord { credential_count, etag });
        }
        ResultDetail::Catalog(difference, company_count, credential_count) => {
            let renamed = &difference.renamed;
            record.catalog = Some(CatalogDifferenceRecord {
                company_count,
                credential_count,
                old_names: renamed.iter().map(|scope| scope.old.to_string()).collect(),
                new_names: renamed.iter().map(|scope| scope.new.to_string()).collect(),
                changed_scopes: texts(&difference.changed_scopes),
                changed_audiences: difference.changed_audiences,
                changed_roles: difference.changed_roles,
                changed_endpoints: difference.changed_endpoints,
                added_endpoints: difference.added_endpoints,
                removed_endpoints: difference.removed_endpoints,
                changed_titles: difference.changed_titles,
                changed_issuers: difference.changed_issuers,
                changed_resources: difference.changed_resources,
            });
        }
    }
    AnsweredRecord { body: body.to_vec(), reply: vec![], result: Some(record) }.encode_to_vec()
}

/// Decodes the result of the request that made this revision.
pub(in crate::store) fn decode_result(
    revision: Revision,
    bytes: &[u8],
) -> Result<StoredResult, Corrupt> {
    let AnsweredRecord { body, result, .. } = AnsweredRecord::decode(bytes)?;
    let result = result.map(write_result).transpose()?;
    Ok(StoredResult { body: body.try_into().map_err(|_| Corrupt)?, revision, result })
}

fn write_result(record: WriteResultRecord) -> Result<WriteResult, Corrupt> {
    let WriteResultRecord {
        added_scopes,
        removed_scopes,
        id,
        restored_credential_count,
        impact,
        catalog,
    } = record;
    let (added, removed) = (scopes(added_scopes)?, scopes(removed_scopes)?);
    let detail = if let Some(ImpactRecord { credential_count, etag }) = impact {
        ResultDetail::Impact(credential_count, etag)
    } else if let Some(record) = catalog {
        let renamed = scopes(record.old_names)?.into_iter().zip(scopes(record.new_names)?);
        let difference = CatalogDifference {
            added: added.clone(),
            removed_names: removed.clone(),
            renamed: renamed.map(|(old, new)| RenamedScope { old, new }).collect(),
            changed_scopes: scopes(record.changed_scopes)?,
            changed_audiences: record.changed_audiences,
            changed_roles: record.changed_roles,
            changed_endpoints: record.changed_endpoints,
            added_endpoints: record.added_endpoints,
            removed_endpoints: record.removed_endpoints,
            changed_titles: record.changed_titles,
            changed_issuers: record.changed_issuers,
            changed_resources: record.changed_resources,
            ..CatalogDifference::default()
        };
        let (companies, credentials) = (record.company_count, record.credential_count);
        ResultDetail::Catalog(Box::new(difference), companies, credentials)
    } else if !id.is_empty() {
        ResultDetail::Id(Name::parse(id).map_err(|_| Corrupt)?)
    } else if restored_credential_count > 0 {
        ResultDetail::Restored(restored_credential_count)
    } else {
        ResultDetail::None
    };
    Ok(WriteResult { added, removed, detail })
}

fn texts(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

fn scopes(names: Vec<String>) -> Result<Vec<Scope>, Corrupt> {
    names.into_iter().map(|name| Scope::parse(name).map_err(|_| Corrupt)).collect()
}
