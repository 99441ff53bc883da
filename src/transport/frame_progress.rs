//! Pace: whether a peer is in the middle of something that it must bring to its end.
//!
//! HTTP/2 has no bound on how long a preface, a frame or a header block may take (RFC 9113): a
//! peer that sends half of one, or nothing at all, would keep its connection for ever. This
//! follows the frames by their lengths and reads nothing else of them. And it reads no more header
//! blocks at once than there is memory for.
//!
//! Not here: when a connection between frames is too old, since it may be idle; and the time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of the preface (RFC 9113 section 3.4), which the first frame follows.
const PREFACE: usize = 24;
/// The bytes in front of every frame (section 4.1).
const HEADER: usize = 9;
/// The kinds of frame that begin or prolong a header block (sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The flag of the last frame of a header block.
const END_HEADERS: u8 = 4;

/// After how many bytes of header blocks the calls that they begin are answered before more is
/// read. One byte of a block can be a whole header (RFC 7541 section 6.1) and a hundred bytes of
/// memory, which are held until the call is looked at.
const BLOCKS: usize = 64 << 10;

/// A connection whose incoming frames are followed.
pub(crate) struct ProgressStream<I> {
    /// Until it is given back.
    io: Option<I>,
    place: FrameParser,
    told: Arc<SharedProgress<I>>,
}

/// What is told of a connection to who holds it no more.
pub(crate) struct Progress<I>(Arc<SharedProgress<I>>);

struct SharedProgress<I> {
    place: AtomicU64,
    /// Whether no more is read before the calls that have come are looked at.
    rests: AtomicBool,
    /// Whether the peer takes nothing of what is to be written.
    is_blocked: AtomicBool,
    /// The connection itself, after it was dropped.
    back: Mutex<Option<I>>,
}

impl<I> ProgressStream<I> {
    pub(crate) fn new(io: I) -> (Self, Progress<I>) {
        let place = FrameParser::default();
        let (tell, rests) = (AtomicU64::new(place.tell()), AtomicBool::new(false));
        let is_blocked = AtomicBool::new(false);
        let told = SharedProgress { place: tell, rests, is_blocked, back: Mutex::new(None) };
        let told = Arc::new(told);
        (Self { io: Some(io), place, told: Arc::clone(&told) }, Progress(told))
    }
}

impl<I: Unpin> ProgressStream<I> {
    fn io(&mut self) -> io::Result<Pin<&mut I>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<I> Drop for ProgressStream<I> {
    fn drop(&mut self) {
        *self.told.back.lock().unwrap_or_else(PoisonError::into_inner) = self.io.take();
    }
}

impl<I> Progress<I> {
    /// What the peer has begun and not ended: the number of frames and header blocks before it.
    /// The preface is one with the first frame.
    pub(crate) fn stalled_frame(&self) -> Option<u64> {
        let told = self.0.place.load(Ordering::Relaxed);
        (told & 1 == 1).then_some(told >> 1)
    }

    /// Whether the peer takes nothing of what is to be written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.0.is_blocked.load(Ordering::Relaxed)
    }

    /// Reads on: all calls that have come were looked at.
    pub(crate) fn read_on(&self) {
        self.0.rests.store(false, Ordering::Relaxed);
    }

    /// The connection, if nobody holds it any more.
    pub(crate) fn into_connection(self) -> Option<I> {
        self.0.back.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where a peer is in what it sends.
struct FrameParser {
    /// Bytes still to come of the preface or of a frame's content.
    left: usize,
    /// As much as has come of a frame's header.
    header: [u8; HEADER],
    held: usize,
    /// Whether a header block goes on in the next frame.
    block: bool,
    /// Bytes of header blocks since the last rest.
    blocks: usize,
    /// Frames that have ended; those of one header block count as one.
    ended: u64,
}

impl Default for FrameParser {
    fn default() -> Self {
        Self { left: PREFACE, header: [0; HEADER], held: 0, block: false, blocks: 0, ended: 0 }
    }
}

impl FrameParser {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.read_header(bytes);
                if self.held < HEADER {
                    return;
                }
            }
            let (_, behind) = bytes.split_at_checked(self.left).unwrap_or((bytes, &[]));
            self.left -= bytes.len() - behind.len();
            bytes = behind;
            if self.left == 0 && self.held == HEADER {
                self.held = 0;
                self.ended += u64::from(!self.block);
            }
        }
    }

    /// Reads as much of a frame's header as is there, and returns what is behind.
    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let count = bytes.len().min(HEADER - self.held);
        for (place, byte) in self.header.iter_mut().skip(self.held).zip(bytes) {
            *place = *byte;
        }
        self.held += count;
        if self.held == HEADER {
            let [high, middle, low, kind, flags, ..] = self.header;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if matches!(kind, HEADERS | CONTINUATION) {
                self.block = flags & END_HEADERS == 0;
                self.blocks = self.blocks.saturating_add(self.left);
            }
        }
        bytes.get(count..).unwrap_or_default()
    }

    fn tell(&self) -> u64 {
        let midway = self.left > 0 || self.held > 0 || self.block || self.ended == 0;
        self.ended << 1 | u64::from(midway)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ProgressStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.blocks > BLOCKS {
            self.place.blocks = 0;
            self.told.rests.store(true, Ordering::Relaxed);
        }
        if self.told.rests.load(Ordering::Relaxed) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = self.io()?.poll_read(context, buffer);
        if let Some(new) = buffer.filled().get(before..)
            && !new.is_empty()
        {
            self.place.read(new);
            self.told.place.store(self.place.tell(), Ordering::Relaxed);
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
        self.told.is_blocked.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.io()?.poll_write_vectored(context, bytes);
        self.told.is_blocked.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(I::is_write_vectored)
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

    /// The place after each byte, by what it tells: how much has ended, and whether more began.
    fn told(bytes: &[u8]) -> Vec<(u64, bool)> {
        let mut place = FrameParser::default();
        let tell = |place: &FrameParser| (place.tell() >> 1, place.tell() & 1 == 1);
        bytes
            .iter()
            .map(|byte| {
                place.read(&[*byte]);
                tell(&place)
            })
            .collect()
    }

    #[test]
    fn whatever_has_begun_and_not_ended_is_told() {
        let mut bytes = vec![7; PREFACE];
        // Settings; headers in three frames; data; data without any.
        let frames = [(4, 0, 6), (1, 0, 5), (9, 0, 3), (9, 4, 2), (0, 0, 11), (0, 1, 0)];
        let mut ends = Vec::new();
        for (kind, flags, length) in frames {
            bytes.extend(frame(kind, flags, length));
            ends.push(bytes.len());
        }
        let between = [ends[0], ends[3], ends[4], ends[5]];
        for (at, (ended, midway)) in told(&bytes).into_iter().enumerate() {
            let whole = between.iter().filter(|end| **end <= at + 1).count();
            assert_eq!((ended, midway), (whole as u64, !between.contains(&(at + 1))), "{at}");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let mut bytes = vec![7; PREFACE];
        for (kind, flags, length) in [(4, 0, 0), (1, 4, 200), (0, 1, 100), (8, 0, 4), (1, 0, 1)] {
            bytes.extend(frame(kind, flags, length));
        }
        let last = *told(&bytes).last().expect("bytes");
        for size in 1..=bytes.len() {
            let mut place = FrameParser::default();
            bytes.chunks(size).for_each(|piece| place.read(piece));
            assert_eq!((place.tell() >> 1, place.tell() & 1 == 1), last, "{size}");
        }
    }
}
