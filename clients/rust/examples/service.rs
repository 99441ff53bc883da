//! An API with settings from the environment. It passes the client's header `Authorization` on, and
//! calls a handler only if scopegate allows the request.

use std::error::Error;
use std::time::Duration;
use std::{env, fs};

use axum::extract::Path;
use axum::{Json, Router, routing::patch};
use scopegate_client::{Caller, Client, Guard};
use serde_json::{Map, Value};

async fn change(Path(id): Path<String>, Json(mut user): Json<Map<String, Value>>) -> Json<Value> {
    user.insert("id".to_owned(), id.into());
    Json(user.into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = env::var("SCOPEGATE_ENDPOINT");
    let mut builder = Client::builder(endpoint.as_deref().unwrap_or("http://127.0.0.1:50051"));
    if let Ok(path) = env::var("SCOPEGATE_CA") {
        builder = builder.ca_file(path);
    }
    if let Ok(path) = env::var("SCOPEGATE_KEY_FILE") {
        builder = builder.key(fs::read_to_string(path)?.trim());
    }
    let client = builder.deadline(Duration::from_millis(250)).connect()?;
    let guard = Guard::endpoint(&client, Caller::of_request)
        .owned_by(|parts| parts.uri.path().rsplit('/').next().map(str::to_owned));
    let app = Router::new().route("/api/v2/users/{id}", patch(change)).layer(guard);
    let port = env::var("PORT").unwrap_or_else(|_| "8000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    Ok(axum::serve(listener, app).await?)
}
