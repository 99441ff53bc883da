//! Frame progress: shows whether a peer has begun a frame that it has not finished.
//!
//! HTTP/2 does not limit how long a preface, a frame or a header block may take (RFC 9113). A peer
//! that sends half of one, or nothing at all, could keep its connection for ever. This stream follows
//! the frames by their lengths and parses nothing else. It also bounds how many bytes of header blocks
//! are read before their calls are handled.
//!
//! The keep-alive of hyper is no substitute: it ends an idle peer that does not answer a PING, and it
//! begins only after the preface. `docs/adr/0013` names the tests.
//!
//! Not here: the timeout; see [`super::stall_timer`]. And idle connections; see [`super::activity`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of the preface (RFC 9113, section 3.4), in bytes. The first frame follows it.
const PREFACE: usize = 24;
/// The length of a frame header (section 4.1), in bytes.
const HEADER: usize = 9;
/// The frame types that begin or continue a header block (sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The flag of the last frame of a header block.
const END_HEADERS: u8 = 4;

/// After this many bytes of header blocks the stream pauses until their calls are handled. One byte of
/// a block can be a whole header (RFC 7541, section 6.1) and a hundred bytes of memory, which are held
/// until the call is handled.
const MAX_HEADER_BLOCK_BYTES: usize = 64 << 10;

/// A connection whose incoming frames are followed.
pub(crate) struct ProgressStream<I> {
    /// None after the connection was given back.
    io: Option<I>,
    parser: FrameParser,
    shared: Arc<SharedProgress<I>>,
}

/// The progress of a connection, for the task that serves it.
pub(crate) struct Progress<I>(Arc<SharedProgress<I>>);

struct SharedProgress<I> {
    /// The state of the parser, as [`FrameParser::state`] encodes it.
    state: AtomicU64,
    /// Whether reads pause until the received calls are handled.
    is_paused: AtomicBool,
    /// How often a write has begun to wait for the peer, shifted left by one. The lowest bit is set while
    /// the peer reads nothing.
    waits: AtomicU64,
    /// The connection, after the stream was dropped.
    returned: Mutex<Option<I>>,
}

impl<I> ProgressStream<I> {
    pub(crate) fn new(io: I) -> (Self, Progress<I>) {
        let parser = FrameParser::default();
        let (state, is_paused) = (AtomicU64::new(parser.state()), AtomicBool::new(false));
        let waits = AtomicU64::new(0);
        let returned = Mutex::new(None);
        let shared = Arc::new(SharedProgress { state, is_paused, waits, returned });
        (Self { io: Some(io), parser, shared: Arc::clone(&shared) }, Progress(shared))
    }
}

impl<I: Unpin> ProgressStream<I> {
    fn io(&mut self) -> io::Result<Pin<&mut I>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Notes whether a write waits for the peer.
    fn note_write(&self, waits: bool) {
        let before = self.shared.waits.load(Ordering::Relaxed);
        let now = match (waits, before & 1 == 1) {
            (true, false) => (before | 1).wrapping_add(2),
            (false, true) => before & !1,
            _ => return,
        };
        self.shared.waits.store(now, Ordering::Relaxed);
    }
}

impl<I> Drop for ProgressStream<I> {
    fn drop(&mut self) {
        *self.shared.returned.lock().unwrap_or_else(PoisonError::into_inner) = self.io.take();
    }
}

impl<I> Progress<I> {
    /// The number of complete frames and header blocks, if the peer has begun another one and not
    /// finished it. The preface and the first frame count as one.
    pub(crate) fn stalled_frame(&self) -> Option<u64> {
        let state = self.0.state.load(Ordering::Relaxed);
        (state & 1 == 1).then_some(state >> 1)
    }

    /// Whether the peer does not read the data that the server writes.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unread_write().is_some()
    }

    /// The number of the write that waits for the peer, if one does. It is another one as soon as the peer
    /// has read something.
    pub(crate) fn unread_write(&self) -> Option<u64> {
        let waits = self.0.waits.load(Ordering::Relaxed);
        (waits & 1 == 1).then_some(waits >> 1)
    }

    /// Ends a pause: all received calls were handled.
    pub(crate) fn resume(&self) {
        self.0.is_paused.store(false, Ordering::Relaxed);
    }

    /// The connection, if the stream was dropped.
    pub(crate) fn into_connection(self) -> Option<I> {
        self.0.returned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The position in the frames that a peer sends.
struct FrameParser {
    /// The missing bytes of the preface or of a frame's payload.
    remaining: usize,
    /// The received part of a frame's header, and its length.
    header: [u8; HEADER],
    header_len: usize,
    /// Whether the header block continues in the next frame.
    in_block: bool,
    /// The bytes of header blocks since the last pause.
    block_bytes: usize,
    /// The complete frames. Those of one header block count as one.
    complete: u64,
}

impl Default for FrameParser {
    fn default() -> Self {
        Self {
            remaining: PREFACE,
            header: [0; HEADER],
            header_len: 0,
            in_block: false,
            block_bytes: 0,
            complete: 0,
        }
    }
}

impl FrameParser {
    /// Advances by these bytes.
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                bytes = self.read_header(bytes);
                if self.header_len < HEADER {
                    return;
                }
            }
            let (_, rest) = bytes.split_at_checked(self.remaining).unwrap_or((bytes, &[]));
            self.remaining -= bytes.len() - rest.len();
            bytes = rest;
            if self.remaining == 0 && self.header_len == HEADER {
                self.header_len = 0;
                self.complete += u64::from(!self.in_block);
            }
        }
    }

    /// Reads the frame header as far as it is received, and returns the bytes after it.
    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let count = bytes.len().min(HEADER - self.header_len);
        for (target, byte) in self.header.iter_mut().skip(self.header_len).zip(bytes) {
            *target = *byte;
        }
        self.header_len += count;
        if self.header_len == HEADER {
            let [high, middle, low, kind, flags, ..] = self.header;
            self.remaining = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_block = flags & END_HEADERS == 0;
                self.block_bytes = self.block_bytes.saturating_add(self.remaining);
            }
        }
        bytes.get(count..).unwrap_or_default()
    }

    /// The number of complete frames, shifted left by one. The lowest bit is set if a frame is
    /// incomplete.
    fn state(&self) -> u64 {
        let is_incomplete =
            self.remaining > 0 || self.header_len > 0 || self.in_block || self.complete == 0;
        self.complete << 1 | u64::from(is_incomplete)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ProgressStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.parser.block_bytes > MAX_HEADER_BLOCK_BYTES {
            self.parser.block_bytes = 0;
            self.shared.is_paused.store(true, Ordering::Relaxed);
        }
        if self.shared.is_paused.load(Ordering::Relaxed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = self.io()?.poll_read(context, buffer);
        if let Some(new) = buffer.filled().get(before..)
            && !new.is_empty()
        {
            self.parser.advance(new);
            self.shared.state.store(self.parser.state(), Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ProgressStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.io()?.poll_write(context, bytes);
        self.note_write(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.io()?.poll_write_vectored(context, bytes);
        self.note_write(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        // h2 then copies answers of less than 1 KiB into its buffer, and writes many of them at once. Vectored,
        // each answer of 256 bytes or more is a write of its own.
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![7; usize::from(length)]);
        frame
    }

    /// The state after each byte: the number of complete frames, and whether one is incomplete.
    fn states(bytes: &[u8]) -> Vec<(u64, bool)> {
        let mut parser = FrameParser::default();
        let state = |parser: &FrameParser| (parser.state() >> 1, parser.state() & 1 == 1);
        bytes
            .iter()
            .map(|byte| {
                parser.advance(&[*byte]);
                state(&parser)
            })
            .collect()
    }

    #[test]
    fn incomplete_frame_is_reported() {
        let mut bytes = vec![7; PREFACE];
        // Settings; headers in three frames; data; data without any.
        let frames = [(4, 0, 6), (1, 0, 5), (9, 0, 3), (9, 4, 2), (0, 0, 11), (0, 1, 0)];
        let mut ends = Vec::new();
        for (kind, flags, length) in frames {
            bytes.extend(frame(kind, flags, length));
            ends.push(bytes.len());
        }
        let between = [ends[0], ends[3], ends[4], ends[5]];
        for (at, (ended, midway)) in states(&bytes).into_iter().enumerate() {
            let whole = between.iter().filter(|end| **end <= at + 1).count();
            assert_eq!((ended, midway), (whole as u64, !between.contains(&(at + 1))), "{at}");
        }
    }

    #[test]
    fn write_that_waits_is_another_one_when_the_peer_has_read() {
        let (stream, progress) = ProgressStream::new(tokio::io::empty());
        assert_eq!(progress.unread_write(), None);
        stream.note_write(false);
        assert_eq!(progress.unread_write(), None);
        stream.note_write(true);
        let first = progress.unread_write();
        assert!(first.is_some());
        stream.note_write(true);
        assert_eq!(progress.unread_write(), first, "nothing was read between them");
        stream.note_write(false);
        assert_eq!(progress.unread_write(), None);
        stream.note_write(true);
        assert!(progress.unread_write().is_some_and(|second| Some(second) != first));
    }

    #[test]
    fn result_does_not_depend_on_read_sizes() {
        let mut bytes = vec![7; PREFACE];
        for (kind, flags, length) in [(4, 0, 0), (1, 4, 200), (0, 1, 100), (8, 0, 4), (1, 0, 1)] {
            bytes.extend(frame(kind, flags, length));
        }
        let last = *states(&bytes).last().expect("bytes");
        for size in 1..=bytes.len() {
            let mut parser = FrameParser::default();
            bytes.chunks(size).for_each(|piece| parser.advance(piece));
            assert_eq!((parser.state() >> 1, parser.state() & 1 == 1), last, "{size}");
        }
    }
}
