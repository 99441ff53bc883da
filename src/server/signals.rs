//! Hangup: the signals that do not end a server. SIGHUP asks it to look at its files again; SIGUSR1
//! and SIGUSR2 mean nothing to it, and would kill a process that does not say so.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUPs, from the beginning of the process on.
pub(super) struct ReloadSignals(Signal);

impl ReloadSignals {
    /// Takes the signals. From here on none of them ends the process, even while no task waits for it.
    pub(super) fn listen() -> io::Result<Self> {
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            // A signal once listened to never again does what it did by default.
            drop(signal(ignored)?);
        }
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for one that came since the last.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime ends: there will be none.
            std::future::pending().await
        }
    }
}
