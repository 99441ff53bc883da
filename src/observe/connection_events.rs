//! Incidents: connections that were turned away, failed, or were ended by the server. Each is
//! counted; what an operator can do something about is also logged, by one line per burst.
//!
//! A burst is logged when it begins, and again every ten seconds with the number of what came
//! meanwhile: a flood of connections does not fill the log.

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

/// How long the first of a burst waits for others, to be counted with them.
const GATHER: Duration = Duration::from_millis(200);
/// The shortest time between two lines of one kind.
const APART: Duration = Duration::from_secs(10);

/// What happened to connections.
#[derive(Default)]
pub(crate) struct ConnectionEvents {
    /// Turned away because there were as many as there may be.
    at_limit: Noted,
    /// Not accepted by the system.
    not_accepted: Noted,
    /// Not accepted by the system, on the metrics port.
    not_scraped: Noted,
    /// TLS handshakes that failed or took too long. Not logged: any peer can cause them.
    pub(crate) handshakes: Counter,
    aged: Counter,
    idle: Counter,
    unused: Counter,
}

/// Incidents of a kind that is logged.
#[derive(Default)]
struct Noted {
    count: Counter,
    news: Notify,
}

impl Noted {
    fn one(&self) {
        self.count.inc();
        self.news.notify_one();
    }

    /// Writes at most one line per burst, for as long as this is polled.
    async fn log(&self, mut line: impl FnMut(u64)) {
        let mut logged = 0;
        loop {
            self.news.notified().await;
            tokio::time::sleep(GATHER).await;
            let count = self.count.read();
            if count > logged {
                line(count - logged);
                logged = count;
                tokio::time::sleep(APART).await;
            }
        }
    }
}

impl ConnectionEvents {
    /// A connection was turned away: there were as many as there may be.
    pub(crate) fn at_limit(&self) {
        self.at_limit.one();
    }

    /// The system did not hand a connection over.
    pub(crate) fn not_accepted(&self) {
        self.not_accepted.one();
    }

    /// The system did not hand over a connection of the metrics port.
    pub(crate) fn not_scraped(&self) {
        self.not_scraped.one();
    }

    /// A connection was asked to end.
    pub(crate) fn ended(&self, cause: EndReason) {
        match cause {
            EndReason::Drain => {}
            EndReason::Age => self.aged.inc(),
            EndReason::Idle => self.idle.inc(),
            EndReason::NoCall => self.unused.inc(),
        }
    }

    /// How many connections were refused, by reason.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 3] {
        [
            ("limit", self.at_limit.count.read()),
            ("system", self.not_accepted.count.read() + self.not_scraped.count.read()),
            ("tls_handshake", self.handshakes.read()),
        ]
    }

    /// How many connections the server asked to end, by reason.
    pub(crate) fn ends(&self) -> [(&'static str, u64); 3] {
        let (age, idle, no_call) = (self.aged.read(), self.idle.read(), self.unused.read());
        [("age", age), ("idle", idle), ("no_call", no_call)]
    }

    /// Logs them, for as long as this is polled.
    pub(crate) async fn log(&self, most: usize) {
        let at_limit = self.at_limit.log(|count| {
            tracing::warn!(
                count,
                max_connections = most,
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
