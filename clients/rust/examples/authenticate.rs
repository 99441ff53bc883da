//! An API that authenticates its clients by Basic credentials, secrets or JWTs, and calls a handler
//! only if scopegate allows the request.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fs};

use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::patch};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use scopegate_client::proto::VerifySecretRequest;
use scopegate_client::proto::directory_service_client::DirectoryServiceClient;
use scopegate_client::{Caller, Client, Guard, Token};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

const NO_CREDENTIALS: &str = r#"Bearer realm="api", Basic realm="api""#;
const WRONG_BASIC: &str = r#"Basic realm="api""#;
const WRONG_BEARER: &str = r#"Bearer realm="api", error="invalid_token""#;
const DEADLINE: Duration = Duration::from_millis(250);

/// Turns the `Authorization` header into the caller of a check.
struct Authenticator {
    client: Client,
    /// Without an issuer, no JWT is accepted.
    issuer: Option<Issuer>,
}

struct Issuer {
    public_key: DecodingKey,
    audience: String,
    validation: Validation,
}

#[derive(serde::Deserialize)]
struct Claims {
    company_id: String,
    client_id: String,
    sub: Option<String>,
    #[serde(default)]
    scope: String,
    iat: u32,
    exp: u32,
}

enum Failure {
    /// No credentials, or wrong ones. Contains the value of `WWW-Authenticate`.
    Unauthenticated(&'static str),
    /// scopegate cannot verify the secret.
    Unavailable(Status),
}

impl Authenticator {
    async fn caller(&self, header: &str) -> Result<Caller, Failure> {
        let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let wrong = || Failure::Unauthenticated(WRONG_BASIC);
            let text =
                BASE64_STANDARD.decode(value).ok().and_then(|text| String::from_utf8(text).ok());
            let text = text.ok_or_else(wrong)?;
            let (client_id, secret) = text.split_once(':').ok_or_else(wrong)?;
            if client_id.is_empty() {
                // An empty `credential_id` would verify a secret of any credential.
                return Err(wrong());
            }
            return self.verify_secret(client_id, secret, WRONG_BASIC).await;
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Failure::Unauthenticated(NO_CREDENTIALS));
        }
        if value.starts_with("sgs_") {
            // The prefix of all secrets. The secret alone identifies the client.
            return self.verify_secret("", value, WRONG_BEARER).await;
        }
        let caller = self.issuer.as_ref().and_then(|issuer| issuer.verify(value).ok());
        caller.ok_or(Failure::Unauthenticated(WRONG_BEARER))
    }

    async fn verify_secret(
        &self,
        client_id: &str,
        secret: &str,
        challenge: &'static str,
    ) -> Result<Caller, Failure> {
        let mut request = tonic::Request::new(VerifySecretRequest {
            credential_id: client_id.to_owned(),
            secret: secret.to_owned(),
            ..VerifySecretRequest::default()
        });
        request.set_timeout(DEADLINE);
        let mut directory = DirectoryServiceClient::new(self.client.connection());
        // The timeout also includes the time that it takes to connect.
        let result = tokio::time::timeout(DEADLINE, directory.verify_secret(request)).await;
        match result.unwrap_or_else(|_| Err(Status::deadline_exceeded("no response in time"))) {
            Ok(response) => {
                let found = response.into_inner();
                let caller =
                    found.verified.then(|| Caller::new(found.company_id, found.credential_id));
                caller.ok_or(Failure::Unauthenticated(challenge))
            }
            // The client id is not a valid id.
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(Failure::Unauthenticated(challenge))
            }
            Err(status) => Err(Failure::Unavailable(status)),
        }
    }
}

impl Issuer {
    fn from_env() -> Result<Option<Self>, Box<dyn Error>> {
        let Ok(path) = env::var("JWT_PUBLIC_KEY_FILE") else { return Ok(None) };
        let public_key = DecodingKey::from_rsa_pem(&fs::read(path)?)?;
        let audience = env::var("JWT_AUDIENCE")?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[env::var("JWT_ISSUER")?]);
        validation.set_audience(&[&audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        validation.leeway = 0;
        Ok(Some(Self { public_key, audience, validation }))
    }

    fn verify(&self, jwt: &str) -> Result<Caller, jsonwebtoken::errors::Error> {
        let token = jsonwebtoken::decode::<Claims>(jwt, &self.public_key, &self.validation)?;
        let claims = token.claims;
        let mut token = Token::new(claims.scope.split_whitespace())
            .audience(&self.audience)
            .issued_at(UNIX_EPOCH + Duration::from_secs(claims.iat.into()))
            .expires_at(UNIX_EPOCH + Duration::from_secs(claims.exp.into()));
        // If the client acts for itself, `sub` is the client and not a user (RFC 9068).
        if let Some(user) = claims.sub.filter(|sub| *sub != claims.client_id) {
            token = token.user(user);
        }
        Ok(Caller::new(claims.company_id, claims.client_id).token(token))
    }
}

/// Passes the request on to the guard, with the caller in its extensions.
async fn authenticate(
    State(authenticator): State<Arc<Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match authenticator.caller(header.unwrap_or_default()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Failure::Unauthenticated(challenge)) => {
            let body = json!({ "error": "invalid_token", "message": "Send valid credentials." });
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], Json(body)).into_response()
        }
        Err(Failure::Unavailable(status)) => {
            eprintln!("scopegate: {status}");
            let message = "Try again in a moment.";
            let body = json!({ "error": "temporarily_unavailable", "message": message });
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], Json(body)).into_response()
        }
    }
}

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
    let client = builder.deadline(DEADLINE).connect()?;
    let guard = Guard::endpoint(&client, |parts| parts.extensions.get::<Caller>().cloned())
        .owned_by(|parts| parts.uri.path().rsplit('/').next().map(str::to_owned));
    let authenticator = Arc::new(Authenticator { client, issuer: Issuer::from_env()? });
    let app = Router::new()
        .route("/api/v2/users/{id}", patch(change))
        .layer(guard)
        .layer(from_fn_with_state(authenticator, authenticate));
    let port = env::var("PORT").unwrap_or_else(|_| "8000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    Ok(axum::serve(listener, app).await?)
}
