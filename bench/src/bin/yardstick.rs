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
use tonic::transport::{Identity, Server, ServerTlsConfig};
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
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut server = Server::builder();
    let listen: SocketAddr = match words[..] {
        ["--listen", address] => address.parse()?,
        ["--listen", address, "--tls-cert", cert, "--tls-key", key] => {
            let identity = Identity::from_pem(std::fs::read(cert)?, std::fs::read(key)?);
            server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
            address.parse()?
        }
        _ => {
            let usage = "usage: yardstick --listen ADDRESS [--tls-cert FILE --tls-key FILE]";
            return Err(usage.into());
        }
    };
    server.add_service(AuthorizationServiceServer::new(Yardstick)).serve(listen).await?;
    Ok(())
}
