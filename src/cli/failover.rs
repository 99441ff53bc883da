//! Failover: sends a call again when a server is unavailable: to the next address of the list, each
//! address at most once.
//!
//! INVARIANT (changed once): a call is sent again only if a second execution changes nothing. A read
//! and a dry run change nothing. A change has a `request_id`, and the server makes it once. A change
//! without a `request_id` gets a random one here. A stream of requests is sent once.
//!
//! After `NOT_YET_EVERYWHERE` the change is sent again for up to 90 seconds, until every replica has
//! it. Not here: the watch of changes, which opens its stream again by its cursor; see
//! [`super::watch`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use tokio::time::{Instant, sleep};
use tonic::body::Body as TonicBody;
use tonic::codegen::{Service, StdError};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;
use uuid::Uuid;

use super::failure;
use super::timeout::Timeout;

/// How long a change is sent again that is not yet at every replica: longer than a change waits for a
/// replica that has died with the longest lease, which is 75 s.
const REPEAT_LIMIT: Duration = Duration::from_secs(90);
/// The delay before the first of these repeats, and the maximum delay between two.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// The reason of a change that is committed and not yet at every replica.
const NOT_YET_EVERYWHERE: &str = "NOT_YET_EVERYWHERE";

/// The length of the prefix of a gRPC message: a flag, and the length of the message.
const PREFIX_LEN: usize = 5;
/// The field of the idempotency key, and the field of a dry run.
const REQUEST_ID: &str = "request_id";
const VALIDATE_ONLY: &str = "validate_only";

type Outcome = Result<Response<TonicBody>, StdError>;

/// The servers of a list of addresses, which have the same data.
#[derive(Clone)]
pub(super) struct Failover {
    servers: Arc<[Timeout]>,
    /// The index of the server that answered last: the next call begins there.
    current: Arc<AtomicUsize>,
    /// The timeout of the response to a change.
    change_limit: Duration,
    messages: DescriptorPool,
}

impl Failover {
    /// Begins with the server at index `current`.
    ///
    /// # Errors
    /// The protobuf descriptors of this program cannot be decoded.
    pub(super) fn new(
        servers: Vec<Timeout>,
        current: usize,
        change_limit: Duration,
    ) -> anyhow::Result<Self> {
        let messages = DescriptorPool::decode(crate::proto::DESCRIPTORS)?;
        let current = Arc::new(AtomicUsize::new(current));
        Ok(Self { servers: servers.into(), current, change_limit, messages })
    }

    async fn send(self, request: Request<TonicBody>) -> Outcome {
        let (head, body) = request.into_parts();
        let method = method(&self.messages, &head.uri);
        if method.as_ref().is_some_and(MethodDescriptor::is_client_streaming) {
            let server = self.in_order().next().map(|(_, server)| server.clone());
            let server = server.ok_or_else(no_server)?;
            return server.oneshot(Request::from_parts(head, body)).await;
        }
        let body = body.collect().await?.to_bytes();
        let change = method.and_then(|method| as_change(&method.input(), &body));
        let limit = change.as_ref().map(|_| self.change_limit);
        let request = Request::from_parts(head, change.unwrap_or(body));

        let (mut not_yet, mut delay) = (None, MIN_DELAY);
        let mut deadline = None;
        loop {
            let outcome = self.round(&request, limit).await;
            let Some(status) = unavailable(&outcome) else { return outcome };
            if is_not_yet_everywhere(&status) {
                let first = || {
                    failure::warn(&format!(
                        "{}; repeating it for up to {} s",
                        status.message(),
                        REPEAT_LIMIT.as_secs()
                    ));
                    Instant::now() + REPEAT_LIMIT
                };
                deadline.get_or_insert_with(first);
                not_yet = outcome.ok();
            } else if deadline.is_none() {
                return outcome;
            }
            if deadline.is_none_or(|deadline| Instant::now() + delay >= deadline) {
                return not_yet.ok_or_else(no_server);
            }
            sleep(delay).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    /// Sends the request to one server after the other until one is available. If none is, the result
    /// is that of a server, or else of the last connection.
    async fn round(&self, request: &Request<Bytes>, limit: Option<Duration>) -> Outcome {
        let mut refused = Err(no_server());
        for (index, server) in self.in_order() {
            let server = limit.map_or_else(|| server.clone(), |limit| server.with_limit(limit));
            let request = request.clone().map(|body| TonicBody::new(Full::new(body)));
            let outcome = server.oneshot(request).await;
            match unavailable(&outcome) {
                Some(status) if !is_not_yet_everywhere(&status) => {
                    if refused.is_err() {
                        refused = outcome;
                    }
                }
                _ => {
                    self.current.store(index, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        refused
    }

    /// All servers in the order in which a call tries them: the current one first.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Timeout)> {
        let servers = self.servers.iter().enumerate();
        servers.cycle().skip(self.current.load(Ordering::Relaxed)).take(self.servers.len())
    }
}

impl Service<Request<TonicBody>> for Failover {
    type Response = Response<TonicBody>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    /// Always ready: a server is chosen by the call.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TonicBody>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

fn no_server() -> StdError {
    Status::internal("the list of addresses is empty").into()
}

/// The status of a call that another server may answer: the server is unavailable, or the connection
/// to it failed.
fn unavailable(outcome: &Outcome) -> Option<Status> {
    let status = match outcome {
        // A unary call that failed, and a stream that did not begin, have their status in the headers.
        Ok(response) => Status::from_header_map(response.headers())?,
        Err(error) => match error.downcast_ref::<Status>() {
            Some(status) => status.clone(),
            None => Status::unavailable("the connection failed"),
        },
    };
    (status.code() == Code::Unavailable).then_some(status)
}

fn is_not_yet_everywhere(status: &Status) -> bool {
    let details = status.get_error_details();
    details.error_info().is_some_and(|info| info.reason == NOT_YET_EVERYWHERE)
}

/// The method of a path `/SERVICE/METHOD`; None if it is not of this API.
fn method(messages: &DescriptorPool, uri: &Uri) -> Option<MethodDescriptor> {
    let (service, name) = uri.path().strip_prefix('/')?.split_once('/')?;
    messages.get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

/// The body of a call that makes a change, with a `request_id`. None if the call changes nothing.
fn as_change(input: &MessageDescriptor, body: &Bytes) -> Option<Bytes> {
    let field = input.get_field_by_name(REQUEST_ID)?;
    let mut message = DynamicMessage::decode(input.clone(), body.get(PREFIX_LEN..)?).ok()?;
    let is_dry_run = message.get_field_by_name(VALIDATE_ONLY);
    if is_dry_run.is_some_and(|value| value.as_bool() == Some(true)) {
        return None;
    }
    if message.has_field(&field) {
        return Some(body.clone());
    }
    let id = Uuid::new_v4().to_string();
    message.set_field(&field, Value::String(id));
    let mut framed = BytesMut::with_capacity(PREFIX_LEN + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).ok()?);
    message.encode(&mut framed).ok()?;
    Some(framed.freeze())
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;
    use crate::proto::{CreateSecretRequest, GetCompanyRequest};

    fn messages() -> DescriptorPool {
        DescriptorPool::decode(crate::proto::DESCRIPTORS).expect("descriptors")
    }

    fn sent<M: Message + Name + Default>(message: &M) -> Option<M> {
        let mut body = vec![0];
        body.extend(u32::try_from(message.encoded_len()).expect("short").to_be_bytes());
        message.encode(&mut body).expect("room");
        let input = messages().get_message_by_name(&M::full_name()).expect("a message");
        let framed = as_change(&input, &body.into())?;
        let length = u32::from_be_bytes(framed[1..PREFIX_LEN].try_into().expect("four bytes"));
        assert_eq!(length as usize, framed.len() - PREFIX_LEN);
        Some(M::decode(&framed[PREFIX_LEN..]).expect("a message"))
    }

    #[test]
    fn every_call_without_a_request_id_only_reads() {
        let reads =
            ["Check", "BatchCheck", "ExplainCheck", "WatchChanges", "VerifySecret", "WhoAmI"];
        let mut found = 0;
        for method in
            messages().services().flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let name = method.name();
            let is_read = ["Get", "List"].iter().any(|prefix| name.starts_with(prefix))
                || reads.contains(&name)
                || name == "Backup";
            let is_of_scopegate = method.full_name().starts_with("scopegate.v1.");
            if !is_of_scopegate || method.is_client_streaming() {
                continue;
            }
            found += 1;
            assert_eq!(method.input().get_field_by_name(REQUEST_ID).is_none(), is_read, "{name}");
        }
        assert!(found > 40, "{found}");
    }

    #[test]
    fn change_gets_one_request_id_and_a_read_or_dry_run_none() {
        let change = CreateSecretRequest { company_id: "demo".into(), ..Default::default() };
        let with_id = sent(&change).expect("a change");
        assert!(Uuid::parse_str(&with_id.request_id).is_ok(), "{with_id:?}");
        assert_eq!(CreateSecretRequest { request_id: String::new(), ..with_id.clone() }, change);
        assert_eq!(sent(&with_id), Some(with_id));
        assert_eq!(sent(&CreateSecretRequest { validate_only: true, ..change }), None);
        assert_eq!(sent(&GetCompanyRequest { company_id: "demo".into() }), None);
    }
}
