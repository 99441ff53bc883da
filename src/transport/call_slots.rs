//! CallSlots: how many calls of a kind may be open at once, on one connection and in all.
//!
//! They are for calls that anybody can make, or that stay open for as long as the caller likes. A
//! call has its place until its HTTP/2 stream ends: also while its reply waits to be read.
//!
//! Not here: calls that are short; see [`super::call_counters`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::grpc::status;
use crate::grpc::unary::Reply;
use crate::metrics::{Counted, Counter};

/// The kinds of calls that have places.
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

    /// Its name as a label of metrics.
    fn label(self) -> &'static str {
        match self {
            Self::HealthCheck => "health_check",
            Self::HealthWatch => "health_watch",
            Self::Reflection => "reflection",
        }
    }

    /// What its calls are called in an error.
    fn subject(self) -> &'static str {
        match self {
            Self::HealthCheck => "health checks",
            Self::HealthWatch => "health watches",
            Self::Reflection => "reflection streams",
        }
    }

    /// How many a connection has.
    fn of_connection(self) -> usize {
        match self {
            Self::HealthCheck => 8,
            Self::HealthWatch | Self::Reflection => 16,
        }
    }

    /// How many there are in all. Health checks have no such bound, which strangers could meet on
    /// behalf of everybody: each ends within a second.
    fn in_all(self) -> usize {
        match self {
            Self::HealthCheck => usize::MAX,
            Self::HealthWatch => 1_000,
            Self::Reflection => 256,
        }
    }
}

/// One of each kind.
#[derive(Default)]
struct Each<T>([T; 3]);

impl<T> Each<T> {
    fn of(&self, kind: CallKind) -> &T {
        let Self([check, watch, reflection]) = self;
        match kind {
            CallKind::HealthCheck => check,
            CallKind::HealthWatch => watch,
            CallKind::Reflection => reflection,
        }
    }
}

/// The places of all connections together.
#[derive(Default)]
pub(crate) struct CallSlots {
    open: Each<Arc<AtomicUsize>>,
    refused: Each<Counter>,
}

/// The places of one connection.
#[derive(Default)]
pub(crate) struct ConnectionSlots(Each<Arc<AtomicUsize>>);

/// A place, until it is dropped.
pub(crate) struct CallSlot {
    _of_connection: Counted,
    _in_all: Counted,
}

impl CallSlots {
    /// Takes a place.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(&self, kind: CallKind, own: &ConnectionSlots) -> Result<CallSlot, Status> {
        let taken = self.try_take(kind, own);
        if taken.is_err() {
            self.refused.of(kind).inc();
        }
        taken
    }

    fn try_take(&self, kind: CallKind, own: &ConnectionSlots) -> Result<CallSlot, Status> {
        let bounded = |all: &Arc<AtomicUsize>, most, where_| {
            let (counted, open) = Counted::one_more(all);
            if open > most {
                return Err(status::too_many_open(kind.subject(), most, where_));
            }
            Ok(counted)
        };
        Ok(CallSlot {
            _of_connection: bounded(own.0.of(kind), kind.of_connection(), "on this connection")?,
            _in_all: bounded(self.open.of(kind), kind.in_all(), "on this server")?,
        })
    }

    /// How many calls of each kind are open, by its name.
    pub(crate) fn open(&self) -> [(&'static str, u64); 3] {
        CallKind::ALL.map(|kind| (kind.label(), self.open.of(kind).load(Ordering::Relaxed) as u64))
    }

    /// How many calls of each kind found no place, by its name.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 3] {
        CallKind::ALL.map(|kind| (kind.label(), self.refused.of(kind).read()))
    }
}

impl CallSlot {
    /// Keeps the place until the reply was sent, or is given up.
    pub(crate) fn kept_by(self, response: Response<Reply>) -> Response<Reply> {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|reply| Reply::Other(tonic::body::Body::new(Kept { reply, _place: self })))
    }
}

/// A reply that has a place.
struct Kept {
    reply: Reply,
    _place: CallSlot,
}

impl Body for Kept {
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
    fn a_place_that_is_refused_or_dropped_is_free_again() {
        let (all, own) = (CallSlots::default(), ConnectionSlots::default());
        let take = |own: &ConnectionSlots| all.take(CallKind::HealthWatch, own);
        let mut taken: Vec<_> = (0..16).map(|_| take(&own).expect("a place")).collect();
        for _ in 0..3 {
            assert!(take(&own).is_err());
        }
        taken.pop();
        taken.push(take(&own).expect("a place"));
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
