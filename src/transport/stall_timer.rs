//! Stall timer: bounds the time that a peer may take for one step, such as a frame that it has begun.
//!
//! Not here: which step that is; see [`super::frame_progress`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// The timer of one connection.
pub(crate) struct StallTimer {
    timeout: Duration,
    /// The number of the step that has begun, and the end of the time for it.
    pending: Option<(u64, Pin<Box<Sleep>>)>,
}

impl StallTimer {
    /// A timer that allows this time for each step.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, pending: None }
    }

    /// Ready when a step took too long. `begun` is the number of the step that has begun and not ended.
    pub(crate) fn poll(&mut self, begun: Option<u64>, context: &mut Context<'_>) -> Poll<()> {
        let Some(begun) = begun else {
            self.pending = None;
            return Poll::Pending;
        };
        match &mut self.pending {
            Some((step, end)) if *step == begun => end.as_mut().poll(context),
            pending => {
                let (_, end) = pending.insert((begun, Box::pin(tokio::time::sleep(self.timeout))));
                end.as_mut().poll(context)
            }
        }
    }
}
