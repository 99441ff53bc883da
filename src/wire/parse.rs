//! Parse: from request messages to the values of the domain, one file for each resource. Only here does
//! text become typed, and an error names every field that is malformed.
//!
//! Not here: whether a named resource exists.

mod catalog;
mod changes;
mod checks;
mod companies;
mod credentials;
mod imports;
mod keys;
mod users;

use prost::Message;

pub(crate) use self::catalog::apply_catalog;
pub(crate) use self::changes::change_filter;
pub(crate) use self::checks::{batch, check, effective, explain};
pub(crate) use self::companies::{
    add_company_scopes, company, create_company, delete_company, optional_company, restore,
    restrict, update_company,
};
pub(crate) use self::credentials::{
    create_credential, create_secret, credential, delete_credential, delete_secret, grant, replace,
    reset, revoke, revoke_tokens, scope_filter, update_credential, verify_secret,
};
pub(crate) use self::imports::{
    import_message, import_options, imported_company, imported_credential,
};
pub(crate) use self::keys::{create_key, delete_key, delete_signing_key, key, rotate_signing_key};
pub(crate) use self::users::{
    consent, create_authorization_code, delete_consent, delete_user, put_consent, put_user, user,
};

/// The fields that every request for a change has, taken out of the request.
macro_rules! raw_write_options {
    ($request:ident) => {
        $crate::wire::validate::RawWriteOptions {
            body: $crate::wire::parse::digest(&$request.request_id, &$request),
            etag: std::mem::take(&mut $request.etag),
            validate_only: $request.validate_only,
            request_id: std::mem::take(&mut $request.request_id),
            reason: std::mem::take(&mut $request.reason),
            on_behalf_of: std::mem::take(&mut $request.on_behalf_of),
        }
    };
}
use raw_write_options;

/// A digest of the whole request, if it has a `request_id`; otherwise zeros.
fn digest(request_id: &str, request: &impl Message) -> [u8; 32] {
    if request_id.is_empty() {
        return [0; 32];
    }
    *blake3::hash(&request.encode_to_vec()).as_bytes()
}
