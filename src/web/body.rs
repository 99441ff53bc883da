//! Body: reads the body of a request, with limits of bytes and of time. Its memory is counted.
//!
//! Not here: what the bytes mean.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;

use crate::metrics::memory_budget::{Account, Exhausted, Reservation};

/// Bodies of up to this many bytes are not counted: the limits of connections and of requests in flight
/// bound them.
const COUNTED_FROM: usize = 1 << 10;
/// How many bytes above the limit are read and dropped, so that the client sees the response.
const MAX_DROPPED: usize = 256 << 10;

/// The limits of a body.
pub(crate) struct BodyLimits<'a> {
    /// The most bytes.
    pub(crate) bytes: usize,
    /// How long it may take to arrive.
    pub(crate) time: Duration,
    /// The account of its memory.
    pub(crate) account: &'a Account,
}

/// A body, with the reservation of its memory if it has one.
pub(crate) type ReadBody = (Bytes, Option<Reservation>);

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It has more bytes than the limit.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// It ended early.
    Incomplete,
    /// There is no memory for it.
    NoMemory(Exhausted),
}

/// Reads a body. Bytes above the limit are dropped.
///
/// # Errors
/// A limit is reached, or the body ended early.
pub(crate) async fn read<B>(body: B, limits: &BodyLimits<'_>) -> Result<ReadBody, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let read = tokio::time::timeout(limits.time, read_all(body, limits));
    read.await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_all<B>(mut body: B, limits: &BodyLimits<'_>) -> Result<ReadBody, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > (limits.bytes + MAX_DROPPED) as u64 {
        return Err(BodyError::TooLarge);
    }
    let (mut first, mut rest, mut length) = (Bytes::new(), BytesMut::new(), 0_usize);
    let mut memory: Option<Reservation> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > limits.bytes + MAX_DROPPED {
            break;
        }
        if length > limits.bytes {
            (first, rest) = (Bytes::new(), BytesMut::new());
            continue;
        }
        if length > COUNTED_FROM {
            let memory = memory.get_or_insert_with(|| limits.account.empty());
            memory.resize(length as u64).map_err(BodyError::NoMemory)?;
        }
        if first.is_empty() && rest.is_empty() {
            // Usually the whole body, which is then read without a copy.
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    let whole = if rest.is_empty() { first } else { rest.freeze() };
    if length > limits.bytes { Err(BodyError::TooLarge) } else { Ok((whole, memory)) }
}

/// Whether the headers announce a body of this media type, which is not compressed.
pub(crate) fn has_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return false };
    let announced = content_type.to_str().unwrap_or_default().split(';').next();
    announced.unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
        && !headers.contains_key(CONTENT_ENCODING)
}
