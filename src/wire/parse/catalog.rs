//! Catalog: the request that applies a catalog file.

use super::raw_write_options;
use crate::authority::WriteOptions;
use crate::proto;
use crate::wire::validate::{FieldValidator, InvalidRequest};

pub(crate) fn apply_catalog(
    mut request: proto::ApplyCatalogRequest,
) -> Result<(String, WriteOptions), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = raw_write_options!(request);
    let options = fields.write_options(options);
    if request.yaml.trim().is_empty() {
        fields.wrong("yaml", "must be a catalog file");
    }
    fields.finish(Some((request.yaml, options)))
}
