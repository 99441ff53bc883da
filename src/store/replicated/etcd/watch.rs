//! Watch: wakes when a key of a range changes.
//!
//! A watch may come late, or never. It makes waiting shorter, and nothing may rest on it. Any error
//! ends it; its caller reads the range, and begins another watch.
//!
//! Not here: the changes themselves. A caller reads them with a range.

use std::time::Duration;

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Request, Response, Streaming};

use super::proto::watch_client::WatchClient;
use super::proto::{WatchRequest, WatchResponse};
use super::{Answer, Client, EtcdError, MAX_ANSWER_BYTES, Range};

/// A watch that has begun.
pub struct Watch<'client> {
    client: &'client Client,
    node: usize,
    responses: Streaming<WatchResponse>,
}

/// The stream of a watch, with etcd's confirmation that it began.
struct Begun(WatchResponse, Streaming<WatchResponse>);

impl Answer for Begun {
    fn cluster_id(&self) -> Option<u64> {
        self.0.cluster_id()
    }
}

impl<'client> Watch<'client> {
    pub(super) async fn begin(
        client: &'client Client,
        range: &Range,
        from: i64,
        within: Duration,
    ) -> Result<Self, EtcdError> {
        let request = client.keyspace.watch(range, from);
        let node = client.nodes.choose();
        let Begun(_, responses) = client.call(node, within, request, begin).await?;
        Ok(Self { client, node, responses })
    }

    /// Waits for a change.
    ///
    /// # Errors
    /// The watch has ended. It is [`EtcdError::Refused`] if changes since the revision from which it
    /// began were removed from etcd's history.
    pub async fn woken(&mut self) -> Result<(), EtcdError> {
        loop {
            let received = match self.responses.message().await {
                Ok(Some(response)) => self.client.check_cluster(response),
                Ok(None) => Err(EtcdError::NoAnswer("it ended the watch".to_owned())),
                Err(status) => Err(EtcdError::of(&status)),
            };
            let received = received.and_then(|response| match refusal(&response) {
                Some(status) => Err(EtcdError::of(&status)),
                None => Ok(response),
            });
            match received {
                // A message without changes tells only that the node lives.
                Ok(response) if response.events.is_empty() => {}
                Ok(_) => return Ok(()),
                Err(error) => {
                    if matches!(error, EtcdError::NoAnswer(_)) {
                        self.client.nodes.gave_no_answer(self.node);
                    }
                    return Err(error.at(self.client.nodes.address(self.node)));
                }
            }
        }
    }
}

/// Begins a watch on a stream of its own, and waits for etcd's confirmation.
async fn begin(
    channel: Channel,
    request: Request<WatchRequest>,
) -> Result<Response<Begun>, tonic::Status> {
    let (metadata, extensions, request) = request.into_parts();
    // The watch ends when this side of the stream ends.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let request = Request::from_parts(metadata, extensions, requests);
    let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut responses = client.watch(request).await?.into_inner();
    let first = responses.message().await?;
    let first = first.ok_or_else(|| tonic::Status::unavailable("it ended the watch"))?;
    match refusal(&first) {
        Some(status) => Err(status),
        None => Ok(Response::new(Begun(first, responses))),
    }
}

/// The error of a watch that etcd has ended, as another call would have it.
fn refusal(response: &WatchResponse) -> Option<tonic::Status> {
    if !response.canceled {
        return None;
    }
    let reason = response.cancel_reason.as_str();
    Some(match reason {
        _ if response.compact_revision != 0 => {
            tonic::Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
        }
        // The reason has the code of the error, and its text.
        _ if reason.ends_with("etcdserver: permission denied") => {
            tonic::Status::permission_denied("etcdserver: permission denied")
        }
        _ if reason.ends_with("etcdserver: invalid auth token") => {
            tonic::Status::unauthenticated("etcdserver: invalid auth token")
        }
        _ => tonic::Status::unavailable(format!("it ended the watch: {reason}")),
    })
}
