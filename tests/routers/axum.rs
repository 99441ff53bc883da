//! axum: its router matches the path as it was sent, without decoding it.
#![allow(clippy::expect_used, reason = "a test's program ends by panicking")]

use std::collections::{BTreeMap, HashMap};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tower::ServiceExt;

#[derive(Clone, serde::Deserialize)]
struct Route {
    method: String,
    path: String,
    scope: String,
    #[serde(skip)]
    verb: Option<String>,
}

/// The first route whose verb is the end of the last parameter. `RawPathParams` are decoded.
fn answer(choices: &[Route], params: &RawPathParams, request: &Request) -> Response {
    let last = params.iter().last().map_or("", |(_, value)| value);
    let fits = |r: &&Route| r.verb.as_ref().is_none_or(|verb| last.ends_with(verb));
    let Some(route) = choices.iter().find(fits) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let params: HashMap<_, _> = params.iter().collect();
    let body = serde_json::json!({ "handler": route.scope, "params": params }).to_string();
    let headers = [("x-handler", route.scope.as_str()), ("x-path", request.uri().path())];
    (headers, body).into_response()
}

fn router(routes: Vec<Route>) -> Router {
    // axum has no template like `{id}:verb`: the handler compares the end of the parameter.
    let mut shapes = BTreeMap::<(String, String), Vec<Route>>::new();
    for mut route in routes {
        let mut path = route.path.clone();
        if let Some((shape, verb)) = route.path.rsplit_once("}:") {
            path = format!("{shape}}}");
            route.verb = Some(format!(":{verb}"));
        }
        if let Some(shape) = path.strip_suffix("+}") {
            let (before, name) = shape.rsplit_once('{').expect("a template");
            path = format!("{before}{{*{name}}}");
        }
        shapes.entry((path, route.method.clone())).or_default().push(route);
    }
    shapes.into_iter().fold(Router::new(), |router, ((path, method), choices)| {
        let method = method.parse::<http::Method>().expect("a method");
        let filter = MethodFilter::try_from(method).expect("a usual method");
        let handler = async move |params: RawPathParams, request: Request| {
            answer(&choices, &params, &request)
        };
        router.route(&path, on(filter, handler))
    })
}

#[tokio::main]
async fn main() {
    let routes = std::fs::read(std::env::var("ROUTES").expect("ROUTES")).expect("the routes");
    let router = router(serde_json::from_slice(&routes).expect("a list of routes"));
    let port = std::env::var("PORT").expect("PORT");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("a port");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let http = hyper::server::conn::http1::Builder::new();
        tokio::spawn(
            async move { http.serve_connection(TokioIo::new(stream), service).await.ok() },
        );
    }
}
