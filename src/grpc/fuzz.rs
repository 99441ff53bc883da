//! Fuzz: access to the parsers of this module for the targets in `fuzz/`. No other build has it.
//!
//! Not here: the properties that are tested; each target states them.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use tonic::Status;

use super::{list_limits, unary};
use crate::metrics::memory_budget::MemoryBudget;
use crate::policy::query::Query;
use crate::proto;
use crate::proto::envoy::service::auth::v3 as envoy;
use crate::store::Incarnation;
use crate::wire::pagination::{self, PageTokens};
use crate::wire::parse;

/// The number of kinds of requests that [`request`] can read.
pub const KINDS: u8 = 38;

/// Parses these bytes as a request of one kind; none if they do not decode as a message.
#[must_use]
pub fn request(kind: u8, bytes: &[u8]) -> Option<Result<(), Status>> {
    fn plain<Q: Message + Default, T, E: Into<Status>>(
        bytes: &[u8],
        parse: impl FnOnce(Q) -> Result<T, E>,
    ) -> Option<Result<(), Status>> {
        let request = Q::decode(bytes).ok()?;
        Some(parse(request).map(drop).map_err(Into::into))
    }
    match kind % KINDS {
        0 => plain(bytes, |request| parse::check(request, &|_| None)),
        1 => plain(bytes, |request| parse::batch(request, &|_| None)),
        2 => plain(bytes, |request| parse::explain(request, &|_| None)),
        3 => plain(bytes, |request| parse::effective(request, &|_| None)),
        4 => plain(bytes, parse::grant),
        5 => plain(bytes, parse::revoke),
        6 => plain(bytes, parse::replace),
        7 => plain(bytes, parse::reset),
        8 => plain(bytes, parse::update_credential),
        9 => plain(bytes, parse::delete_credential),
        10 => plain(bytes, parse::add_company_scopes),
        11 => plain(bytes, parse::update_company),
        12 => plain(bytes, parse::delete_company),
        13 => plain(bytes, parse::restrict),
        14 => plain(bytes, parse::restore),
        15 => plain(bytes, parse::create_company),
        16 => plain(bytes, parse::create_credential),
        17 => plain(bytes, import),
        18 => plain(bytes, parse::apply_catalog),
        19 => plain(bytes, parse::create_secret),
        20 => plain(bytes, parse::delete_secret),
        21 => plain(bytes, parse::verify_secret),
        22 => plain(bytes, parse::put_user),
        23 => plain(bytes, parse::delete_user),
        24 => plain(bytes, |request: proto::GetUserRequest| {
            parse::user(request.company_id, request.user_id)
        }),
        25 => plain(bytes, parse::put_consent),
        26 => plain(bytes, parse::delete_consent),
        27 => plain(bytes, parse::consent),
        28 => plain(bytes, |request: proto::GetCredentialRequest| {
            parse::credential(request.company_id, request.credential_id)
        }),
        29 => plain(bytes, |request: proto::ListCredentialsRequest| {
            parse::company(request.company_id)?;
            pagination::size(request.page_size)?;
            parse::scope_filter(request.scope, request.include_dormant)
        }),
        30 => plain(bytes, |request: proto::ListChangesRequest| {
            parse::optional_company(request.company_id)
        }),
        31 => plain(bytes, parse::create_key),
        32 => plain(bytes, parse::revoke_tokens),
        33 => plain(bytes, parse::rotate_signing_key),
        34 => plain(bytes, parse::delete_signing_key),
        35 => plain(bytes, parse::create_authorization_code),
        36 => plain(bytes, |request: envoy::CheckRequest| {
            super::ext_authz::parse(&request, &|_| None).map(drop)
        }),
        _ => plain(bytes, parse::delete_key),
    }
}

fn import(message: proto::ImportCredentialsRequest) -> Result<(), Status> {
    let options = parse::import_options(&message)?;
    parse::import_message(&message, &options)?;
    for (n, company) in message.companies.into_iter().enumerate() {
        parse::imported_company(n, company)?;
    }
    for (n, credential) in message.credentials.into_iter().enumerate() {
        parse::imported_credential(n, credential)?;
    }
    Ok(())
}

/// Parses these bytes as a check.
#[must_use]
pub fn check(bytes: &[u8]) -> Option<Query> {
    let request = proto::CheckRequest::decode(bytes).ok()?;
    parse::check(request, &|_| None).ok().map(|(request, _)| request.query)
}

/// The token of the page of a list after this position.
#[must_use]
pub fn token(of: Incarnation, rpc: &str, parameters: &[&str], last: &str) -> String {
    PageTokens::new(of, rpc, parameters).token(last)
}

/// The position after which a page of a list starts.
///
/// # Errors
/// The token is not one of this list.
pub fn place(
    of: Incarnation,
    rpc: &str,
    parameters: &[&str],
    token: &str,
) -> Result<Option<String>, Status> {
    Ok(PageTokens::new(of, rpc, parameters).after(token)?)
}

/// Reads one message from the frames of its request.
///
/// # Errors
/// The frames are not exactly one message.
pub fn express(pieces: Vec<Bytes>, limit: usize) -> Result<proto::CheckRequest, Status> {
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = StreamBody::new(tokio_stream::iter(frames));
    let memory = MemoryBudget::new(limit as u64 * 2 + 1024);
    let account = || memory.shared();
    let mut read = pin!(unary::read(body, limit, limit, &account, unary::count_and_decode));
    let mut context = Context::from_waker(Waker::noop());
    // All frames are available: a stream that yields continues when it is polled again.
    loop {
        if let Poll::Ready(read) = read.as_mut().poll(&mut context) {
            return read.map(|(message, _)| message);
        }
    }
}

/// Checks the lengths of the lists in a batch of checks, and returns the number of checks.
///
/// # Errors
/// A list is too long.
pub fn batch_counted(bytes: &[u8]) -> Result<usize, Status> {
    list_limits::count("scopegate.v1.BatchCheckRequest", bytes)?;
    Ok(proto::BatchCheckRequest::decode(bytes).map_or(0, |batch| batch.checks.len()))
}

/// The bearer token in these headers.
#[must_use]
pub fn presented(headers: &HeaderMap) -> Option<Option<&str>> {
    super::bearer_token(headers).ok()
}
