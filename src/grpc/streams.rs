//! Streams: the methods whose requests or responses are streams of messages.
//!
//! Not here: unary methods; see [`super::methods`].

use http_body::Body;
use tonic::server::Grpc;
use tonic::{Response, Status, Streaming};
use tower::service_fn;

use super::codec::CountingCodec;
use super::{Api, backup, change, import};
use crate::authority::operation::Operation;
use crate::policy::caller::Caller;
use crate::proto::*;
use crate::wire::access::{CompanyScoped, is_method_of};

/// The operations of these methods.
#[must_use]
pub fn operations() -> [&'static Operation; 3] {
    [
        <Streaming<ImportCredentialsRequest>>::OPERATION,
        WatchChangesRequest::OPERATION,
        BackupRequest::OPERATION,
    ]
}

/// A method whose response is a stream of messages.
macro_rules! server_stream {
    ($api:ident, $caller:ident, $request:ident, $limit:ident, $of:ty => $handler:path) => {{
        let service = service_fn(move |request: tonic::Request<$of>| {
            let (api, caller) = ($api.clone(), $caller.clone());
            async move {
                let request = request.into_inner();
                let session = api.authorize(caller, &request)?;
                Ok::<_, Status>(Response::new($handler(&api, session, request).await?))
            }
        });
        let grpc = Grpc::new(CountingCodec::default());
        let mut grpc = grpc.apply_max_message_size_config(Some($limit), None);
        grpc.server_streaming(service, $request).await
    }};
}

/// Answers a call of a method with streams. A message has at most `limit` bytes. None: the method has no
/// streams.
pub async fn answer<B>(
    api: &Api,
    operation: &'static Operation,
    caller: Caller,
    request: http::Request<B>,
    limit: usize,
) -> Option<http::Response<tonic::body::Body>>
where
    B: Body + Send + 'static,
    B::Error: Into<super::body_timeout::Error> + Send,
{
    let api = api.clone();
    Some(if is_method_of::<Streaming<ImportCredentialsRequest>>(operation) {
        let service = service_fn(move |request: tonic::Request<_>| {
            let (api, caller) = (api.clone(), caller.clone());
            async move {
                let messages: Streaming<ImportCredentialsRequest> = request.into_inner();
                let session = api.authorize(caller, &messages)?;
                let response = import::import(session, messages, api.closing()).await?;
                Ok::<_, Status>(Response::new(response))
            }
        });
        let grpc = Grpc::new(CountingCodec::default());
        let mut grpc = grpc.apply_max_message_size_config(Some(limit), None);
        grpc.client_streaming(service, request).await
    } else if is_method_of::<WatchChangesRequest>(operation) {
        server_stream!(api, caller, request, limit, WatchChangesRequest => change::watch_changes)
    } else if is_method_of::<BackupRequest>(operation) {
        server_stream!(api, caller, request, limit, BackupRequest => backup::backup)
    } else {
        return None;
    })
}
