//! A server that says what it is told to: what the real one never would.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::{Code, Status};

/// What it says to a call.
pub enum Says {
    This(Vec<u8>),
    No(Code),
    Nothing,
}

pub fn this(message: impl Message) -> Says {
    Says::This(message.encode_to_vec())
}

pub struct Liar {
    pub url: String,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    /// Says this to the n-th call, from 0.
    pub async fn saying(says: impl Fn(usize) -> Says + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let app = Router::new().fallback(async move |request: Request| {
            // Of its health it says nothing.
            if request.uri().path().starts_with("/grpc.health") {
                return Status::unimplemented("no").into_http();
            }
            match says(counter.fetch_add(1, Ordering::SeqCst)) {
                Says::This(message) => answer(&message),
                Says::No(code) => Status::new(code, "no").into_http(),
                Says::Nothing => pending().await,
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A message as gRPC frames it, and the trailer that says it was all.
fn answer(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).expect("a short message");
    let framed = [&[0], &length.to_be_bytes()[..], message].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(ready(Some(Ok(trailers))));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(Body::new(body)).expect("a response")
}
