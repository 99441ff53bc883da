//! Signals: the signals of a server. SIGTERM and SIGINT end it, SIGHUP makes it read its files again.
//! SIGUSR1 and SIGUSR2 have no effect; without a handler they would kill the process.
//!
//! Not here: what the server does on a signal; see [`super::run`].

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartupError;

/// The SIGHUPs that the process gets.
pub(super) struct ReloadSignals(Signal);

impl ReloadSignals {
    /// Installs the handlers. After this none of the signals ends the process, even while no task
    /// waits for one.
    pub(super) fn listen() -> io::Result<Self> {
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            // After the first handler a signal never has its default effect again.
            drop(signal(ignored)?);
        }
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next SIGHUP. Signals that arrive together count once.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime ends, so no signal follows.
            std::future::pending().await
        }
    }
}

/// The signals that end a server.
pub(super) struct TerminationSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl TerminationSignals {
    /// Installs the handlers.
    pub(super) fn listen() -> Result<Self, StartupError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| StartupError::Config(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal, and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
