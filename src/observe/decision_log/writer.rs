//! Writer: the thread that writes the decision log.
//!
//! Not here: the file that it writes; see [`super::output`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::entry::DecisionLogLine;
use super::output::DecisionLogOutput;
use super::token_entry::TokenLogLine;
use super::{DecisionCounts, Message};

/// Lines are written when they have this many bytes together, or when the queue is empty.
const WRITE_BYTES: usize = 64 << 10;
/// The shortest time between two warnings that decisions are dropped for their bytes.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// A token bucket of bytes. It holds the bytes of one second at most.
struct ByteRate {
    bytes_per_second: f64,
    available: f64,
    updated: Instant,
}

impl ByteRate {
    fn of(bytes_per_second: u32) -> Self {
        let bytes_per_second = bytes_per_second.into();
        Self { bytes_per_second, available: bytes_per_second, updated: Instant::now() }
    }

    /// Takes these bytes if they may be written. Half of a second's bytes are reserved for denials.
    fn take(&mut self, bytes: usize, is_denial: bool, now: Instant) -> bool {
        let more = now.duration_since(self.updated).as_secs_f64() * self.bytes_per_second;
        self.available = (self.available + more).min(self.bytes_per_second);
        self.updated = now;
        let reserved = if is_denial { 0.0 } else { self.bytes_per_second / 2.0 };
        let remaining = self.available - bytes as f64;
        if remaining < reserved {
            return false;
        }
        self.available = remaining;
        true
    }
}

/// The writer of the log, on its own thread.
pub(super) struct DecisionLogWriter {
    messages: Receiver<Message>,
    output: DecisionLogOutput,
    rate: ByteRate,
    /// Lines that are not written yet, and the end of each.
    lines: Vec<u8>,
    ends: Vec<usize>,
    counts: Arc<DecisionCounts>,
    reopen: Arc<AtomicBool>,
    is_failing: bool,
    /// When the log last warned that decisions are dropped for their bytes.
    rate_warned: Option<Instant>,
}

impl DecisionLogWriter {
    pub(super) fn new(
        messages: Receiver<Message>,
        output: DecisionLogOutput,
        bytes_per_second: u32,
        counts: Arc<DecisionCounts>,
        reopen: Arc<AtomicBool>,
    ) -> Self {
        Self {
            messages,
            output,
            rate: ByteRate::of(bytes_per_second),
            lines: vec![],
            ends: vec![],
            counts,
            reopen,
            is_failing: false,
            rate_warned: None,
        }
    }

    /// Writes until the log is dropped. Lines are written when there are enough of them, or when
    /// the queue is empty.
    pub(super) fn run(&mut self) {
        loop {
            if self.reopen.load(Ordering::Acquire) {
                // This precedes the reset: the flag ends a write that waits for the reader of a pipe.
                self.write();
                self.reopen.store(false, Ordering::Release);
                self.reopen_output();
            }
            let message = match self.messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => return self.write(),
                Err(TryRecvError::Empty) => {
                    self.write();
                    match self.messages.recv() {
                        Ok(message) => message,
                        Err(_) => return,
                    }
                }
            };
            match message {
                Message::Entry(entry) => {
                    self.counts.queued_bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
                    self.add(&DecisionLogLine::of(&entry), entry.denied.is_some());
                }
                Message::Token(entry) => {
                    self.counts.queued_bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
                    self.add(&TokenLogLine::of(&entry), entry.decision.error.is_some());
                }
                Message::Reopen => {}
            }
            if self.lines.len() >= WRITE_BYTES {
                self.write();
            }
        }
    }

    fn add(&mut self, line: &impl Serialize, is_denial: bool) {
        let begin = self.lines.len();
        let line = serde_json::to_writer(&mut self.lines, line);
        self.lines.push(b'\n');
        let (bytes, now) = (self.lines.len() - begin, Instant::now());
        if line.is_ok() && self.rate.take(bytes, is_denial, now) {
            self.ends.push(self.lines.len());
            return;
        }
        self.lines.truncate(begin);
        self.counts.dropped.inc();
        self.counts.queued.down();
        if self.rate_warned.is_none_or(|warned| now.duration_since(warned) > WARN_INTERVAL) {
            self.rate_warned = Some(now);
            tracing::warn!(
                "the decision log exceeds --decision-log-bytes-per-second: decisions are dropped and \
                 counted"
            );
        }
    }

    fn write(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let Self { output, lines, ends, counts, reopen, .. } = self;
        let (bytes, result) = output.write(lines, || reopen.load(Ordering::Relaxed));
        let written = ends.iter().filter(|end| **end <= bytes).count();
        counts.written.inc_by(written as u64);
        counts.dropped.inc_by((ends.len() - written) as u64);
        for _ in ends.drain(..) {
            counts.queued.down();
        }
        lines.clear();
        self.report(result);
    }

    fn reopen_output(&mut self) {
        match self.output.reopen() {
            Ok(()) => tracing::info!("the decision log was opened again"),
            Err(error) => tracing::warn!(
                %error,
                "the decision log cannot be opened again: the old file is still written"
            ),
        }
    }

    /// Logs a change: that the log cannot be written, or that it can again.
    fn report(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) if self.is_failing => {
                tracing::info!("the decision log is written again");
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                tracing::error!(%error, "the decision log cannot be written: decisions are dropped");
                self.is_failing = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_half_are_reserved_for_denials() {
        let mut rate = ByteRate::of(1_000);
        let begin = rate.updated;
        assert!(rate.take(500, false, begin));
        assert!(!rate.take(1, false, begin), "the other half is for denials");
        assert!(rate.take(500, true, begin));
        assert!(!rate.take(1, true, begin));
        let later = begin + Duration::from_millis(600);
        assert!(rate.take(100, false, later));
        assert!(!rate.take(1, false, later));
        assert!(rate.take(500, true, later));
        assert!(!rate.take(2_000, true, later + Duration::from_secs(60)), "no more at once");
    }
}
