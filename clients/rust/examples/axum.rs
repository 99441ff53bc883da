//! An axum route behind a guard. Start `scopegate serve --demo` first.

use axum::{Router, extract::Path, routing::patch};
use scopegate_client::{Caller, Client, Guard};

async fn change(Path(id): Path<String>) -> String {
    format!("changed {id}\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder("http://127.0.0.1:50051").connect()?;
    let app = Router::new()
        .route("/api/v2/users/{id}", patch(change))
        .layer(Guard::endpoint(&client, Caller::of_request));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    Ok(axum::serve(listener, app).await?)
}
