//! Phase: how far the shutdown of the listener has come.

/// How far the shutdown has come. The phases only move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Calls are answered.
    Serving,
    /// Open calls may end. No new call begins.
    Draining,
    /// Calls that are still open are interrupted.
    Terminate,
}
