//! Queue: the lines of the log that are still to be written, and the thread that writes them.
//!
//! Only this thread touches the output. A line costs its author a copy of it, whatever becomes of
//! the output: one that is full, gone or stuck costs lines, which are counted. The first line that
//! can be written after a loss says how many were lost.
//!
//! Not here: what a line looks like; see [`super`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::Counter;

/// The most bytes that wait to be written.
const MAX_BYTES: usize = 4 << 20;
/// About how many bytes are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// How long to wait for an output that takes nothing now and says so.
const RETRY: Duration = Duration::from_millis(10);

/// Makes the line that says how many lines were lost.
type LossLine = Box<dyn Fn(u64) -> String + Send>;

/// The lines that are still to be written.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
    has_thread: AtomicBool,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many lines were lost since a line of the log last said so.
    unreported: u64,
    is_writing: bool,
}

impl Queue {
    /// Starts the thread that writes. Without a thread there is none, and no log.
    pub(super) fn start(output: impl Write + Send + 'static, loss_line: LossLine) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: Counter::default(),
            has_thread: AtomicBool::new(true),
        });
        let mut writer = Writer { queue: Arc::clone(&queue), output, loss_line, is_torn: false };
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

    /// Has a line written. It never waits for the output.
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

    /// Waits until all lines are written or lost, but not longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many lines were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.read()
    }

    fn lose(&self, state: &mut State, lines: u64) {
        state.unreported += lines;
        self.dropped.inc_by(lines);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next lines, and how many were lost before. Waits until there are lines.
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
struct Writer<W> {
    queue: Arc<Queue>,
    output: W,
    loss_line: LossLine,
    /// Whether the last write ended within a line.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
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

/// Writes bytes, and says how many were written. An output that would block is waited for.
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

    /// An output that takes so many bytes, then fails, until it may take more.
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
            let (written, room) = &mut *self.0.lock().expect("a lock");
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            written.extend(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_when_one_can() {
        let output = Output::default();
        let queue = Queue::start(output.clone(), Box::new(|lost| format!("{lost} lost\n")));
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
    fn a_stuck_output_costs_lines_and_no_time() {
        struct Stuck(std::sync::mpsc::Receiver<()>, Output);
        impl Write for Stuck {
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
        let (go, stuck) = std::sync::mpsc::channel();
        let stuck = Stuck(stuck, output.clone());
        let queue = Queue::start(stuck, Box::new(|lost| format!("{lost} lost\n")));
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
