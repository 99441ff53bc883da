//! Queue: the queued lines of the log, and the thread that writes them.
//!
//! Only this thread uses the output. To log a line costs one copy of the line, also when the output
//! is full, closed or blocked. Then lines are lost and counted. The first line that can be written
//! after a loss reports how many were lost.
//!
//! Not here: the format of a line; see [`super`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::Counter;

/// The limit of queued lines, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// The approximate number of bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// How long to wait before an output that would block is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Makes the line that reports how many lines were lost.
type LossLine = Box<dyn Fn(u64) -> String + Send>;

/// The queued lines.
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    dropped: Counter,
    has_thread: AtomicBool,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The number of lost lines that the log has not reported yet.
    unreported: u64,
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes. If the system has no thread, nothing is logged.
    pub(super) fn start(output: impl Write + Send + 'static, loss_line: LossLine) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: Counter::default(),
            has_thread: AtomicBool::new(true),
        });
        let mut writer = LogWriter { queue: Arc::clone(&queue), output, loss_line, is_torn: false };
        let run = move || {
            while panic::catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                thread::sleep(RETRY);
            }
        };
        if thread::Builder::new().name("log".to_owned()).spawn(run).is_err() {
            queue.has_thread.store(false, Ordering::Relaxed);
        }
        queue
    }

    /// Whether there is a thread that writes.
    pub(super) fn has_thread(&self) -> bool {
        self.has_thread.load(Ordering::Relaxed)
    }

    /// Queues a line. This never waits for the output.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() > MAX_BYTES {
            self.lose(&mut state, 1);
        } else {
            state.bytes += line.len();
            state.lines.push_back(line.to_vec());
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written or lost, for this time at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() {
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of lost lines.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.read()
    }

    fn lose(&self, state: &mut QueueState, lines: u64) {
        state.unreported += lines;
        self.dropped.inc_by(lines);
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, and returns the next ones with the number of lines lost before them.
    fn take(&self) -> (Vec<Vec<u8>>, u64) {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        let (mut lines, mut bytes) = (vec![], 0);
        while bytes < WRITE_BYTES
            && let Some(line) = state.lines.pop_front()
        {
            bytes += line.len();
            lines.push(line);
        }
        state.bytes -= bytes;
        (lines, mem::take(&mut state.unreported))
    }
}

/// The thread that writes.
struct LogWriter<W> {
    queue: Arc<LogQueue>,
    output: W,
    loss_line: LossLine,
    /// Whether the output ends within a line.
    is_torn: bool,
}

impl<W: Write> LogWriter<W> {
    fn run(&mut self) {
        loop {
            let (lines, unreported) = self.queue.take();
            let mut bytes = Vec::new();
            if self.is_torn {
                bytes.push(b'\n');
            }
            if unreported > 0 {
                bytes.extend((self.loss_line)(unreported).into_bytes());
            }
            let begin = bytes.len();
            bytes.extend(lines.iter().flatten());
            let (written, error) = write_all(&mut self.output, &bytes);
            if written > 0 {
                self.is_torn = bytes.get(written - 1) != Some(&b'\n');
            }
            if error.is_ok() {
                continue;
            }
            let mut end = begin;
            let whole = lines.iter().take_while(|line| {
                end += line.len();
                end <= written
            });
            let lost = lines.len() - whole.count();
            let mut state = self.queue.lock();
            self.queue.lose(&mut state, lost as u64);
            if written < begin {
                state.unreported += unreported;
            }
        }
    }
}

/// Writes bytes and returns how many were written. An output that would block is tried again.
fn write_all(output: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, output.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that takes the allowed number of bytes and then fails, until more are allowed.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Output {
        fn allow(&self, more: usize) {
            self.0.lock().expect("a lock").1 += more;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("a lock").0.clone()).expect("text")
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, allowed) = &mut *self.0.lock().expect("a lock");
            let count = bytes.len().min(*allowed);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            written.extend(&bytes[..count]);
            *allowed -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn lost_lines_are_counted_and_reported_with_the_next_line() {
        let output = Output::default();
        let queue = LogQueue::start(output.clone(), Box::new(|lost| format!("{lost} lost\n")));
        output.allow(10);
        for line in ["first\n", "second\n", "third\n"] {
            queue.push(line.as_bytes());
            queue.flush(LONG);
        }
        assert_eq!((output.text().as_str(), queue.dropped()), ("first\nseco", 2));
        output.allow(1_000);
        for line in ["fourth\n", "fifth\n"] {
            queue.push(line.as_bytes());
            queue.flush(LONG);
        }
        assert_eq!(output.text(), "first\nseco\n2 lost\nfourth\nfifth\n");
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn blocked_output_loses_lines_and_delays_nothing() {
        struct BlockedOutput(std::sync::mpsc::Receiver<()>, Output);
        impl Write for BlockedOutput {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().ok();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = Output::default();
        output.allow(64 << 20);
        let (go, blocked) = std::sync::mpsc::channel();
        let output_blocked = BlockedOutput(blocked, output.clone());
        let queue = LogQueue::start(output_blocked, Box::new(|lost| format!("{lost} lost\n")));
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..10_000 {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(1));
        let lost = queue.dropped();
        assert!(lost > 5_000, "{lost}");
        drop(go);
        queue.flush(LONG);
        let text = output.text();
        assert_eq!(text.matches(&format!("{lost} lost\n")).count(), 1);
        assert_eq!(text.lines().count() as u64, 10_000 - lost + 1);
    }
}
