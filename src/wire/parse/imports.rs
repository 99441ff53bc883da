//! Imports: the messages of an ImportCredentials stream and their items.

use super::companies::new_company;
use super::credentials::new_credential;
use crate::authority::{NewCompany, NewCredential, WriteOptions};
use crate::proto;
use crate::wire::validate::{
    FieldPrefix, FieldValidator, InvalidRequest, MAX_IMPORTED, RawWriteOptions,
};

/// The write options of an import, from its first message.
pub(crate) fn import_options(
    first: &proto::ImportCredentialsRequest,
) -> Result<WriteOptions, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let options = fields.write_options(RawWriteOptions {
        body: [0; 32],
        etag: String::new(),
        validate_only: first.validate_only,
        request_id: String::new(),
        reason: first.reason.clone(),
        on_behalf_of: first.on_behalf_of.clone(),
    });
    fields.finish(Some(options))
}

/// Checks that a message of an import is not too large and has the write options of the first message.
pub(crate) fn import_message(
    message: &proto::ImportCredentialsRequest,
    options: &WriteOptions,
) -> Result<(), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = message.companies.len() + message.credentials.len();
    if count > MAX_IMPORTED {
        let description = format!("has {count} items, the limit is {MAX_IMPORTED}");
        fields.too_many("message", description);
    }
    // A later message may omit the options. It must not start a dry run, which a caller could take for a
    // dry run of the whole import.
    let difference = "differs from that of the first message, which holds for the whole import";
    if message.validate_only && !options.validate_only {
        fields.wrong("validate_only", difference);
    }
    if !["", options.reason.as_str()].contains(&message.reason.as_str()) {
        fields.wrong("reason", difference);
    }
    if !["", options.on_behalf_of.as_str()].contains(&message.on_behalf_of.as_str()) {
        fields.wrong("on_behalf_of", difference);
    }
    fields.finish(Some(()))
}

/// A company of an import; `index` is its index in the message.
pub(crate) fn imported_company(
    index: usize,
    new: proto::ImportedCompany,
) -> Result<NewCompany, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.prefix = FieldPrefix::Companies(index);
    let new = new_company(&mut fields, new.company_id, new.display_name, new.scopes);
    fields.finish(new)
}

/// A credential of an import; `index` is its index in the message.
pub(crate) fn imported_credential(
    index: usize,
    new: proto::ImportedCredential,
) -> Result<NewCredential, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.prefix = FieldPrefix::Credentials(index);
    let new = new_credential(&mut fields, new);
    fields.finish(new)
}
