//! Response body: the messages and trailers of a response, and how long its call is in flight.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::metrics::Counted;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The body of a response: of one message, or of a stream of messages.
pub enum ResponseBody {
    /// One message and the trailers after it. The call is in flight until the message is sent; hyper
    /// polls for the trailers only then.
    Message(Option<Bytes>, InFlight),
    /// Only the trailers remain.
    Trailers(InFlight),
    /// The body is complete.
    Ended,
    /// The body of a method with streams, or of server reflection.
    Other(tonic::body::Body),
}

/// The counts of calls in flight that include a call: of the worker, and of its key.
#[derive(Debug, Default)]
pub struct InFlight(pub Option<Counted>, pub Option<Counted>);

impl ResponseBody {
    /// Counts the call as in flight until its message is sent, if it has one.
    #[must_use]
    pub fn in_flight(self, in_flight: InFlight) -> Self {
        match self {
            Self::Message(message, _) => Self::Message(message, in_flight),
            other => other,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Message(message, in_flight) => {
                let message = message.take().unwrap_or_default();
                *self = Self::Trailers(std::mem::take(in_flight));
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Trailers(_) => {
                *self = Self::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            Self::Ended => Poll::Ready(None),
            Self::Other(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Message(..) | Self::Trailers(_) => false,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Other(body) => body.size_hint(),
            // Trailers follow, so the length is not exact.
            _ => SizeHint::default(),
        }
    }
}

/// A response without a body, which has its status in the headers.
impl Default for ResponseBody {
    fn default() -> Self {
        Self::Ended
    }
}

/// The trailers of a call that succeeded.
#[must_use]
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}
