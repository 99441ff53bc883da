//! Leased body: the body of a stream of messages, whose lease is tested before each message leaves.
//!
//! A response of one message is tested once, when it is complete. A stream may go on for hours, so the test
//! of its beginning says nothing about a later message.
//!
//! Not here: the test; see [`crate::authority::noted_call`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::response_body::ResponseBody;
use super::status;
use crate::authority::noted_call::{Leased, NotedCall};
use crate::store::lease::Lease;

/// The response of a call that noted a session, when the response is complete or its stream begins.
pub fn leased(
    noted: NotedCall,
    lease: &Arc<Lease>,
    response: Response<ResponseBody>,
) -> Leased<Response<ResponseBody>> {
    let response = response.map(|body| match body {
        ResponseBody::Other(body) if !noted.is_exempt() => {
            let lease = Arc::clone(lease);
            ResponseBody::Other(tonic::body::Body::new(LeasedBody { body, noted, lease }))
        }
        whole => whole,
    });
    noted.answer(lease, response, status::response)
}

/// The body of a stream. It ends with `UNAVAILABLE` if the session of its call does not hold.
struct LeasedBody {
    body: tonic::body::Body,
    noted: NotedCall,
    lease: Arc<Lease>,
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(match self.noted.test(&self.lease) {
            Ok(()) => frame,
            Err(error) => {
                // The stream ends, and what it holds is released.
                self.body = tonic::body::Body::empty();
                let refused = error.refused(|error| status::trailers(&error.into()));
                Some(Ok(Frame::trailers(refused.into_inner())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A refusal may replace the rest of the body, so its size is not known.
        SizeHint::default()
    }
}
