//! Own server: the server of this container or machine, as the variables of `scopegate serve` have it.
//!
//! A probe runs with the same variables as its server, and needs no address of its own.
//!
//! Not here: the server that other commands connect to; see [`super::context`].

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{anyhow, bail};

use super::context::ServerProfile;
use super::endpoint_args::EndpointArgs;
use crate::transport::listen_address::{ListenAddress, listen_address};

/// The variables of `scopegate serve` for its addresses, and for its certificate.
const LISTEN: &str = "SCOPEGATE_LISTEN";
const TLS_CERT: &str = "SCOPEGATE_TLS_CERT";

/// The profile of the own server. None: the flags name another one, or the variables have none.
///
/// # Errors
/// The address in the variable is not one that can be connected to.
pub(super) fn profile(args: &EndpointArgs) -> anyhow::Result<Option<ServerProfile>> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(listen) = set(LISTEN) else { return Ok(None) };
    if args.endpoint.is_some() || args.context.is_some() {
        return Ok(None);
    }
    let address = first(&listen)?;
    let has_files = args.tls.ca.is_some() || args.tls.client_cert.is_some();
    let is_tcp = address.tcp().is_some();
    let certificate = set(TLS_CERT).filter(|_| is_tcp);
    let endpoint = match &address {
        ListenAddress::Tcp(address) if certificate.is_some() || has_files => {
            format!("https://{address}")
        }
        ListenAddress::Tcp(address) => format!("http://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    };
    Ok(Some(ServerProfile {
        endpoint,
        // The files are for addresses of TCP.
        ca: args.tls.ca.clone().filter(|_| is_tcp),
        client_cert: args.tls.client_cert.clone().filter(|_| is_tcp),
        client_key: args.tls.client_key.clone().filter(|_| is_tcp),
        key_file: args.key_file.clone(),
        pinned: certificate.filter(|_| args.tls.ca.is_none()).map(Into::into),
    }))
}

/// The first of these addresses, as one to connect to.
fn first(listen: &str) -> anyhow::Result<ListenAddress> {
    let text = listen.split(',').next().unwrap_or_default();
    let address = listen_address(text).map_err(|error| anyhow!("{LISTEN} `{text}` {error}"))?;
    let ListenAddress::Tcp(tcp) = address else { return Ok(address) };
    if tcp.port() == 0 {
        bail!(
            "{LISTEN} `{text}` leaves the port to the system: give the server's port by --endpoint"
        );
    }
    // `[::]` accepts connections of IPv4, too, and is `0.0.0.0` where the machine has no IPv6.
    let ip = if tcp.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { tcp.ip() };
    Ok(ListenAddress::Tcp(SocketAddr::new(ip, tcp.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_to_listen_on_becomes_one_to_connect_to() {
        for (listen, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:50051", "127.0.0.1:50051"),
            ("[::]:50051", "127.0.0.1:50051"),
            ("[::1]:2", "[::1]:2"),
            ("10.0.0.1:3,unix:/a", "10.0.0.1:3"),
            ("unix:/run/s,[::]:50051", "unix:/run/s"),
            ("unix:///run/s", "unix:/run/s"),
        ] {
            assert_eq!(first(listen).expect(listen).to_string(), expected);
        }
        for (listen, says) in
            [("127.0.0.1:0", "--endpoint"), ("50051", "has no host"), (",", "is empty")]
        {
            let error = first(listen).expect_err(listen).to_string();
            assert!(error.contains(says), "{listen}: {error}");
        }
    }
}
