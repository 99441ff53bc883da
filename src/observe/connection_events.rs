//! Connection events: counts the connections that were rejected, failed, or were ended by the
//! server. Events that an operator can act on are also logged, with one line per burst.
//!
//! A burst is logged when it begins, and again every ten seconds with the number of events since
//! the last line. A flood of connections therefore does not fill the log.
//!
//! Not here: when a connection ends; see `transport::activity`.

use std::time::Duration;

use tokio::sync::Notify;

use crate::metrics::Counter;

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The server shuts down.
    Drain,
    /// The connection has reached its maximum age.
    Age,
    /// The connection has no open call, and had none for the idle timeout.
    Idle,
    /// No call was accepted on the connection.
    NoCall,
}

/// How long the first event of a burst waits for others of the same line.
const BURST_DELAY: Duration = Duration::from_millis(200);
/// The shortest time between two lines of one kind.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The counts of events, by kind.
#[derive(Default)]
pub(crate) struct ConnectionEvents {
    /// Rejected because the limit of connections was reached.
    at_limit: LoggedEvent,
    /// Not accepted by the operating system.
    not_accepted: LoggedEvent,
    /// Not accepted by the operating system, on the metrics port.
    not_scraped: LoggedEvent,
    /// TLS handshakes that failed or took too long. They are not logged: any peer can cause them.
    pub(crate) handshakes: Counter,
    /// Ended for their age.
    aged: Counter,
    /// Ended because they were idle.
    idle: Counter,
    /// Ended without an accepted call.
    unused: Counter,
}

/// The events of a kind that is logged.
#[derive(Default)]
struct LoggedEvent {
    count: Counter,
    /// Wakes the task that logs.
    changed: Notify,
}

impl LoggedEvent {
    fn record(&self) {
        self.count.inc();
        self.changed.notify_one();
    }

    /// Writes at most one line per burst, for as long as this is polled.
    async fn log(&self, mut line: impl FnMut(u64)) {
        let mut logged = 0;
        loop {
            self.changed.notified().await;
            tokio::time::sleep(BURST_DELAY).await;
            let count = self.count.read();
            if count > logged {
                line(count - logged);
                logged = count;
                tokio::time::sleep(LINE_INTERVAL).await;
            }
        }
    }
}

impl ConnectionEvents {
    /// Records that a connection was rejected at the limit of connections.
    pub(crate) fn at_limit(&self) {
        self.at_limit.record();
    }

    /// Records that the operating system did not accept a connection.
    pub(crate) fn not_accepted(&self) {
        self.not_accepted.record();
    }

    /// Records that the operating system did not accept a connection of the metrics port.
    pub(crate) fn not_scraped(&self) {
        self.not_scraped.record();
    }

    /// Records that the server asked a connection to end.
    pub(crate) fn ended(&self, reason: EndReason) {
        match reason {
            EndReason::Drain => {}
            EndReason::Age => self.aged.inc(),
            EndReason::Idle => self.idle.inc(),
            EndReason::NoCall => self.unused.inc(),
        }
    }

    /// The number of rejected connections, by reason.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 3] {
        [
            ("limit", self.at_limit.count.read()),
            ("system", self.not_accepted.count.read() + self.not_scraped.count.read()),
            ("tls_handshake", self.handshakes.read()),
        ]
    }

    /// The number of connections that the server asked to end, by reason.
    pub(crate) fn ends(&self) -> [(&'static str, u64); 3] {
        let (age, idle, no_call) = (self.aged.read(), self.idle.read(), self.unused.read());
        [("age", age), ("idle", idle), ("no_call", no_call)]
    }

    /// Logs the events for as long as this is polled. `max_connections` is the limit that the line
    /// names.
    pub(crate) async fn log(&self, max_connections: usize) {
        let at_limit = self.at_limit.log(|count| {
            tracing::warn!(
                count,
                max_connections,
                "connections were turned away: as many are open as --max-connections allows"
            );
        });
        let cannot = |what: &'static str| {
            move |count| {
                tracing::warn!(
                    count,
                    "{what} could not be accepted: see the limits of files and memory of the process"
                );
            }
        };
        let not_accepted = self.not_accepted.log(cannot("connections"));
        let not_scraped = self.not_scraped.log(cannot("connections for metrics"));
        tokio::join!(at_limit, not_accepted, not_scraped);
    }
}
