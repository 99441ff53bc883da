//! Call slots: limit how many calls of a kind are open at once, on one connection and in all.
//!
//! They apply to calls that need no key, or that stay open as long as the caller wants. A call holds
//! its slot until its HTTP/2 stream ends, also while its reply is not read yet.
//!
//! Not here: the limits of other calls; see `authority::caller_limits`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::grpc::response_body::ResponseBody;
use crate::grpc::status;
use crate::metrics::{Counted, Counter};

/// The kinds of calls that need a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// `grpc.health.v1.Health/Check`.
    HealthCheck,
    /// `grpc.health.v1.Health/Watch`.
    HealthWatch,
    /// Server reflection, of either version.
    Reflection,
}

impl CallKind {
    const ALL: [Self; 3] = [Self::HealthCheck, Self::HealthWatch, Self::Reflection];

    /// The label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::HealthCheck => "health_check",
            Self::HealthWatch => "health_watch",
            Self::Reflection => "reflection",
        }
    }

    /// The subject of an error message.
    fn subject(self) -> &'static str {
        match self {
            Self::HealthCheck => "health checks",
            Self::HealthWatch => "health watches",
            Self::Reflection => "reflection streams",
        }
    }

    /// The slots of one connection.
    fn per_connection(self) -> usize {
        match self {
            Self::HealthCheck => 8,
            Self::HealthWatch | Self::Reflection => 16,
        }
    }

    /// The slots of the whole server. Health checks have no such limit, because clients without a key
    /// could use it up for all others. Each health check ends within a second.
    fn in_total(self) -> usize {
        match self {
            Self::HealthCheck => usize::MAX,
            Self::HealthWatch => 1_000,
            Self::Reflection => 256,
        }
    }
}

/// One value for each kind.
#[derive(Default)]
struct PerKind<T>([T; 3]);

impl<T> PerKind<T> {
    fn of(&self, kind: CallKind) -> &T {
        let Self([check, watch, reflection]) = self;
        match kind {
            CallKind::HealthCheck => check,
            CallKind::HealthWatch => watch,
            CallKind::Reflection => reflection,
        }
    }
}

/// The slots of the whole server.
#[derive(Default)]
pub(crate) struct CallSlots {
    open: PerKind<Arc<AtomicUsize>>,
    rejected: PerKind<Counter>,
}

/// The slots of one connection.
#[derive(Default)]
pub(crate) struct ConnectionSlots(PerKind<Arc<AtomicUsize>>);

/// A slot. It is free again when this is dropped.
pub(crate) struct CallSlot {
    _of_connection: Counted,
    _in_all: Counted,
}

impl CallSlots {
    /// Takes a slot.
    ///
    /// # Errors
    /// No slot is free.
    pub(crate) fn take(&self, kind: CallKind, own: &ConnectionSlots) -> Result<CallSlot, Status> {
        let taken = self.try_take(kind, own);
        if taken.is_err() {
            self.rejected.of(kind).inc();
        }
        taken
    }

    fn try_take(&self, kind: CallKind, own: &ConnectionSlots) -> Result<CallSlot, Status> {
        let take = |all: &Arc<AtomicUsize>, limit, scope| {
            let (counted, open) = Counted::one_more(all);
            if open > limit {
                return Err(status::too_many_open(kind.subject(), limit, scope));
            }
            Ok(counted)
        };
        Ok(CallSlot {
            _of_connection: take(own.0.of(kind), kind.per_connection(), "on this connection")?,
            _in_all: take(self.open.of(kind), kind.in_total(), "on this server")?,
        })
    }

    /// The number of open calls, by kind.
    pub(crate) fn open(&self) -> [(&'static str, u64); 3] {
        CallKind::ALL.map(|kind| (kind.label(), self.open.of(kind).load(Ordering::Relaxed) as u64))
    }

    /// The number of calls that got no slot, by kind.
    pub(crate) fn rejected(&self) -> [(&'static str, u64); 3] {
        CallKind::ALL.map(|kind| (kind.label(), self.rejected.of(kind).read()))
    }
}

impl CallSlot {
    /// Holds the slot until the reply is sent or dropped.
    pub(crate) fn hold(self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|reply| {
            ResponseBody::Other(tonic::body::Body::new(SlotBody { reply, _slot: self }))
        })
    }
}

/// A reply that holds a slot.
struct SlotBody {
    reply: ResponseBody,
    _slot: CallSlot,
}

impl Body for SlotBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.reply).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_or_dropped_slot_is_free_again() {
        let (all, own) = (CallSlots::default(), ConnectionSlots::default());
        let take = |own: &ConnectionSlots| all.take(CallKind::HealthWatch, own);
        let mut taken: Vec<_> = (0..16).map(|_| take(&own).expect("a slot")).collect();
        for _ in 0..3 {
            assert!(take(&own).is_err());
        }
        taken.pop();
        taken.push(take(&own).expect("a slot"));
        let more: Vec<_> = (0..100)
            .flat_map(|_| {
                let own = ConnectionSlots::default();
                (0..16).map(|_| take(&own)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(more.iter().filter(|taken| taken.is_ok()).count(), 1_000 - 16);
        assert!(all.take(CallKind::HealthCheck, &own).is_ok(), "of another kind");
        drop((taken, more));
        assert_eq!(all.open().map(|(_, open)| open), [0; 3]);
        assert!(take(&own).is_ok());
    }
}
