//! Yardstick: a stock tonic server with an empty handler. What anyone gets for no work at all.
//!
//! Everything is as the libraries ship it: the multi-threaded runtime, the allocator, the
//! server's builder. Tuning any of it would bend the yardstick.

use std::error::Error;
use std::net::SocketAddr;

use scopegate_bench::authorization_service_server::{
    AuthorizationService, AuthorizationServiceServer,
};
use scopegate_bench::{CheckRequest, CheckResponse, Decision, Reach, Reason};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

struct Yardstick;

#[tonic::async_trait]
impl AuthorizationService for Yardstick {
    /// The fields, and so the bytes, of scopegate's reply to an allowed check.
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse {
            decision: Decision::Allowed.into(),
            reason: Reason::Allowed.into(),
            reach: Reach::All.into(),
            http_status: 200,
            revision: 4,
            ..CheckResponse::default()
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let listen: SocketAddr = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--listen", address] => address.parse()?,
        _ => return Err("usage: yardstick --listen ADDRESS".into()),
    };
    Server::builder().add_service(AuthorizationServiceServer::new(Yardstick)).serve(listen).await?;
    Ok(())
}
