//! Catalog: the request that applies a catalog file.

use super::raw_write_options;
use crate::authority::WriteOptions;
use crate::proto;
use crate::wire::access::Authorized;
use crate::wire::validate::{FieldValidator, InvalidRequest};

pub(crate) fn apply_catalog(
    Authorized { caller, mut request }: Authorized<proto::ApplyCatalogRequest>,
) -> Result<(String, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(caller, request);
    let options = fields.write_options(options);
    if request.yaml.trim().is_empty() {
        fields.wrong("yaml", "must be a catalog file");
    }
    fields.finish(Some((request.yaml, options)))
}
