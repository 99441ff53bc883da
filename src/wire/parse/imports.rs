//! Imports: the messages of an ImportCredentials stream and their items.

use super::companies::new_company;
use super::credentials::new_credential;
use crate::authority::{NewCompany, NewCredential, WriteOptions};
use crate::policy::caller::Caller;
use crate::proto;
use crate::wire::validate::{FieldValidator, InvalidRequest, MAX_IMPORTED, Place, RawWriteOptions};

/// The terms of an import, which its first message has.
pub(crate) fn import_options(
    caller: &Caller,
    first: &proto::ImportCredentialsRequest,
) -> Result<WriteOptions, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let terms = fields.terms(RawWriteOptions {
        caller: caller.clone(),
        body: [0; 32],
        etag: String::new(),
        validate_only: first.validate_only,
        request_id: String::new(),
        reason: first.reason.clone(),
        on_behalf_of: first.on_behalf_of.clone(),
    });
    fields.finish(Some(terms))
}

/// Refuses a message of an import that is too large, or that has other terms than the first.
pub(crate) fn import_message(
    message: &proto::ImportCredentialsRequest,
    terms: &WriteOptions,
) -> Result<(), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = message.companies.len() + message.credentials.len();
    if count > MAX_IMPORTED {
        let description = format!("has {count} items, the limit is {MAX_IMPORTED}");
        fields.too_many("message", description);
    }
    // Left out, they are those of the first message. A dry run that begins in the middle would
    // be taken for one of all.
    let otherwise = "is not that of the first message, which counts for the whole import";
    if message.validate_only && !terms.validate_only {
        fields.wrong("validate_only", otherwise);
    }
    if !["", terms.author.reason.as_str()].contains(&message.reason.as_str()) {
        fields.wrong("reason", otherwise);
    }
    if !["", terms.author.on_behalf_of.as_str()].contains(&message.on_behalf_of.as_str()) {
        fields.wrong("on_behalf_of", otherwise);
    }
    fields.finish(Some(()))
}

/// A company of an import; `index` is its place in the message.
pub(crate) fn imported_company(
    index: usize,
    new: proto::ImportedCompany,
) -> Result<NewCompany, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.place = Place::Companies(index);
    let new = new_company(&mut fields, new.company_id, new.display_name, new.scopes);
    fields.finish(new)
}

/// A credential of an import; `index` is its place in the message.
pub(crate) fn imported_credential(
    index: usize,
    new: proto::ImportedCredential,
) -> Result<NewCredential, InvalidRequest> {
    let mut fields = FieldValidator::default();
    fields.place = Place::Credentials(index);
    let new = new_credential(&mut fields, new);
    fields.finish(new)
}
