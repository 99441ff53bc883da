//! Interruption: ends an open call with `UNAVAILABLE` and a message when its connection or the server
//! ends. Otherwise the call would be reset, or would look complete.
//!
//! Not here: when a call is interrupted; see [`super::activity`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::activity::{Activity, Interruption, OpenCall};
use crate::authority::noted_call::{LeaseExemption, Leased};
use crate::authority::operation::Operation;
use crate::grpc::response_body::{InFlight, ResponseBody};
use crate::grpc::status;
use crate::proto::WatchChangesRequest;
use crate::wire::access;

/// The health stream. It never ends by itself.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A call that can be interrupted.
pub(crate) struct Interruptible {
    activity: Arc<Activity>,
    is_endless: bool,
    /// Whether the call never ends by itself.
    never_completes: bool,
}

impl Interruptible {
    /// A call of this operation or path on a connection.
    pub(crate) fn new(
        activity: &Arc<Activity>,
        operation: Option<&'static Operation>,
        path: &str,
    ) -> Self {
        // If such a stream ends without an error, the server ended it.
        let never_completes = match operation {
            Some(operation) => access::is_method_of::<WatchChangesRequest>(operation),
            None => path == HEALTH_WATCH,
        };
        // A reflection stream ends when its caller closes its side, which may be never.
        let is_endless = never_completes || operation.is_some_and(access::is_reflection);
        Self { activity: Arc::clone(activity), is_endless, never_completes }
    }

    /// The response, as one that may be sent, or an error if the call is interrupted first. A response that is ready at once
    /// costs nothing extra.
    pub(crate) async fn answer<A>(
        &self,
        answered: impl Future<Output = A>,
        leased: impl Fn(A) -> Leased<Response<ResponseBody>>,
    ) -> Leased<Response<ResponseBody>> {
        let (mut answered, mut interrupted) = (pin!(answered), None);
        poll_fn(|context| {
            if let Poll::Ready(response) = answered.as_mut().poll(context) {
                return Poll::Ready(leased(response));
            }
            let interrupted = interrupted
                .get_or_insert_with(|| Box::pin(self.activity.interrupted(self.is_endless)));
            interrupted.as_mut().poll(context).map(|why| {
                self.count(why);
                let response = interrupted_status(why).into_http();
                Leased::exempt(response, LeaseExemption::Interrupted)
            })
        })
        .await
    }

    /// The body of a response. It ends with an error if the call is interrupted.
    pub(crate) fn body<B>(
        self,
        body: B,
        open: OpenCall,
        in_flight: InFlight,
    ) -> InterruptibleBody<B> {
        // Endless streams have limits of their own, so they are not calls in flight.
        let in_flight = if self.is_endless { InFlight::default() } else { in_flight };
        let interrupted = Box::pin(self.activity.interrupted(self.is_endless));
        InterruptibleBody {
            body,
            interrupted,
            call: self,
            has_ended: false,
            is_complete: false,
            _open: open,
            _in_flight: in_flight,
        }
    }

    fn count(&self, why: Interruption) {
        if why == Interruption::Cut {
            self.activity.calls.cut.inc();
        }
    }
}

/// The status of an interrupted call.
fn interrupted_status(why: Interruption) -> Status {
    match why {
        Interruption::Connection => status::connection_ending(),
        Interruption::Drain | Interruption::Cut => status::server_ending(),
    }
}

/// A body that ends with `UNAVAILABLE` when its call is interrupted.
pub(crate) struct InterruptibleBody<B> {
    body: B,
    interrupted: Pin<Box<dyn Future<Output = Interruption> + Send>>,
    call: Interruptible,
    has_ended: bool,
    /// Whether the body ended by itself.
    is_complete: bool,
    _open: OpenCall,
    _in_flight: InFlight,
}

impl<B> Drop for InterruptibleBody<B> {
    fn drop(&mut self) {
        // A body whose client reads nothing is not polled, so it is interrupted only by this drop.
        if !self.has_ended && !self.is_complete && self.call.activity.is_terminated() {
            self.call.count(Interruption::Cut);
        }
    }
}

impl<B: Body + Unpin> Body for InterruptibleBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        // Frames that are ready come first: a last change, or the health status NOT_SERVING.
        let why = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame)))
                if self.call.never_completes
                    && frame.trailers_ref().is_some_and(status::is_success) =>
            {
                Interruption::Drain
            }
            Poll::Ready(frame) => {
                // Nothing follows the trailers, so the body is complete without another poll.
                self.is_complete = match &frame {
                    Some(Ok(frame)) => frame.is_trailers(),
                    Some(Err(_)) | None => true,
                };
                return Poll::Ready(frame);
            }
            Poll::Pending => match self.interrupted.as_mut().poll(context) {
                Poll::Ready(why) => why,
                Poll::Pending => return Poll::Pending,
            },
        };
        self.has_ended = true;
        self.call.count(why);
        Poll::Ready(Some(Ok(Frame::trailers(status::trailers(&interrupted_status(why))))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // The body may be interrupted, so its size is unknown.
        SizeHint::default()
    }
}
