//! Pagination: page sizes and page tokens of List methods (AIP-158).
//!
//! A token has a digest of the incarnation of the store, the parameters of the list and the position
//! after which the list continues. So it is accepted only for that list of that store.
//!
//! Not here: reading a page; see `authority::queries`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::validate::{InvalidRequest, malformed};
use crate::authority::queries::Page;
use crate::store::Incarnation;

/// The page size of a request that sets none.
const DEFAULT: usize = 100;
/// The largest page size; a larger one in a request is reduced to it.
const MAX: usize = 1000;
/// The longest token in bytes: a digest and an id, or a template of at most 4096 bytes, in base64.
const MAX_TOKEN: usize = 5_504;

/// Makes and checks the page tokens of one list.
pub(crate) struct PageTokens {
    digest: blake3::Hasher,
}

impl PageTokens {
    /// The tokens of the list that this method returns for these parameters.
    pub(crate) fn new(incarnation: Incarnation, rpc: &str, parameters: &[&str]) -> Self {
        let mut digest = blake3::Hasher::new();
        digest.update(incarnation.as_bytes()).update(rpc.as_bytes());
        for parameter in parameters {
            digest.update(&[0]).update(parameter.as_bytes());
        }
        digest.update(&[0]);
        Self { digest }
    }

    fn digest(&self, last: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        self.digest.clone().update(last).finalize_xof().fill(&mut short);
        short
    }

    /// The token of the page after this id.
    pub(crate) fn token(&self, last: &str) -> String {
        let last = last.as_bytes();
        BASE64.encode([&self.digest(last), last].concat())
    }

    /// The id after which a page starts; none for the first page.
    pub(crate) fn after(&self, token: &str) -> Result<Option<String>, InvalidRequest> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = if token.len() <= MAX_TOKEN { BASE64.decode(token).ok() } else { None };
        let parts = bytes.as_deref().and_then(|bytes| bytes.split_first_chunk::<16>());
        let last = parts.filter(|(digest, last)| **digest == self.digest(last));
        let last = last.and_then(|(_, last)| String::from_utf8(last.to_vec()).ok());
        last.map(Some).ok_or_else(foreign_token)
    }
}

/// The error of a token of another list, or of a malformed one.
pub(crate) fn foreign_token() -> InvalidRequest {
    malformed("page_token", "is not a token of this list: start again without one")
}

/// The page size for the one of a request.
pub(crate) fn size(requested: i32) -> Result<usize, InvalidRequest> {
    match usize::try_from(requested) {
        Ok(0) => Ok(DEFAULT),
        Ok(size) => Ok(size.min(MAX)),
        Err(_) => Err(malformed("page_size", "must not be negative")),
    }
}

/// The parsed id after which a page starts; none for the first page.
pub(crate) fn after<T, E>(
    list: &PageTokens,
    token: &str,
    parse: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>, InvalidRequest> {
    let Some(last) = list.after(token)? else {
        return Ok(None);
    };
    parse(last).map(Some).map_err(|_| foreign_token())
}

/// The token of the next page; empty if this is the last one.
pub(crate) fn next<T>(list: &PageTokens, page: &Page<T>, id: impl FnOnce(&T) -> &str) -> String {
    let last = page.items.last().filter(|_| page.more);
    last.map(|(item, _)| list.token(id(item))).unwrap_or_default()
}
