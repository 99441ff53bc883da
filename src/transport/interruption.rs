//! Interruption: a call that is still open when its connection or the server ends is told so, by
//! `UNAVAILABLE` and a sentence, instead of being reset or ended as if it were complete.
//!
//! Not here: when that is; see [`super::activity`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::activity::{Activity, Interruption, OpenCall};
use crate::grpc::status;
use crate::grpc::unary::{InFlight, Reply};

/// The streams that have no end of their own: when one ends without an error, the server ended it.
const ENDLESS: [&str; 2] =
    ["/scopegate.v1.ChangeService/WatchChanges", "/grpc.health.v1.Health/Watch"];

/// The streams that end when their caller has sent everything, which may be never.
const REFLECTION: &str = "/grpc.reflection.";

/// How a call is interrupted.
pub(crate) struct Interruptible {
    activity: Arc<Activity>,
    is_endless: bool,
    /// Whether it has no end of its own.
    never_complete: bool,
}

impl Interruptible {
    /// Of a call of this path on a connection.
    pub(crate) fn new(activity: &Arc<Activity>, path: &str) -> Self {
        let never_complete = ENDLESS.contains(&path);
        let is_endless = never_complete || path.starts_with(REFLECTION);
        Self { activity: Arc::clone(activity), is_endless, never_complete }
    }

    /// The answer, or the refusal if it takes too long. One that is there at once costs nothing.
    pub(crate) async fn answer(
        &self,
        answered: impl Future<Output = Response<Reply>>,
    ) -> Response<Reply> {
        let (mut answered, mut interrupted) = (pin!(answered), None);
        poll_fn(|context| {
            if let Poll::Ready(response) = answered.as_mut().poll(context) {
                return Poll::Ready(response);
            }
            let interrupted = interrupted
                .get_or_insert_with(|| Box::pin(self.activity.interrupted(self.is_endless)));
            interrupted.as_mut().poll(context).map(|why| {
                self.note(why);
                said(why).into_http()
            })
        })
        .await
    }

    /// The body of an answer, which ends in an error if it takes too long.
    pub(crate) fn body<B>(
        self,
        body: B,
        open: OpenCall,
        in_flight: InFlight,
    ) -> InterruptibleBody<B> {
        // Streams without an end are bounded by their own number.
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

    fn note(&self, why: Interruption) {
        if why == Interruption::Cut {
            self.activity.calls.cut.inc();
        }
    }
}

fn said(why: Interruption) -> Status {
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
    /// Whether it came to an end of its own.
    is_complete: bool,
    _open: OpenCall,
    _in_flight: InFlight,
}

impl<B> Drop for InterruptibleBody<B> {
    fn drop(&mut self) {
        // One whose client reads nothing is not asked for more, and so does not hear of its end.
        if !self.has_ended && !self.is_complete && self.call.activity.is_over() {
            self.call.note(Interruption::Cut);
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
        // What there is comes first: a last change, or that the server no longer serves.
        let why = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame)))
                if self.call.never_complete
                    && frame.trailers_ref().is_some_and(status::is_success) =>
            {
                Interruption::Drain
            }
            Poll::Ready(frame) => {
                // Behind the trailers there is nothing, and it need not be asked for.
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
        self.call.note(why);
        Poll::Ready(Some(Ok(Frame::trailers(status::trailers(&said(why))))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Whether it comes to its end is not known.
        SizeHint::default()
    }
}
