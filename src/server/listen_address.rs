//! Listen address: parses the address of a listener, `HOST:PORT`.
//!
//! Not here: addresses that a command connects to; see `cli::address`.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Parses the address to listen on. A name is resolved once. If it has several addresses, one of them
/// is used: one that is not a loopback address if there is one, so that a name does not evade the
/// requirement of keys there. `localhost` is 127.0.0.1, which the commands connect to by default.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.contains("://") || text.contains('/') {
        return Err("is not HOST:PORT: write it without a scheme and without a path".to_owned());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Err(format!("has no port: write `[{address}]:50051`"));
    }
    let missing_host = |port: &str| {
        format!(
            "has no host: write `127.0.0.1:{port}` for callers on this machine, or \
             `0.0.0.0:{port}` for all"
        )
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if is_number(text) {
            missing_host(text)
        } else {
            format!("has no port: write HOST:PORT, such as `{text}:50051`")
        });
    };
    let number = port.parse::<u16>().map_err(|_| {
        format!("has the port `{port}`: write a number up to 65535, as in `127.0.0.1:50051`")
    })?;
    if host.is_empty() {
        return Err(missing_host(port));
    }
    if host == "*" {
        return Err(format!("has the host `*`: write `0.0.0.0:{port}`, or `[::]:{port}`"));
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err(format!(
            "has more than one colon: write an IPv6 address in brackets, as in `[::1]:{port}`"
        ));
    }
    let resolved = (host, number).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    choose(resolved).ok_or_else(|| {
        format!("has the host `{host}`, which this machine cannot resolve: write an IP address")
    })
}

/// The address to use of those that a name has.
fn choose(resolved: Vec<SocketAddr>) -> Option<SocketAddr> {
    let first = |is: fn(&SocketAddr) -> bool| resolved.iter().copied().find(is);
    first(|address| !address.ip().is_loopback())
        .or_else(|| first(SocketAddr::is_ipv4))
        .or_else(|| first(|_| true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_resolves_to_a_non_loopback_address_if_it_has_one() {
        let of = |all: &[&str]| {
            choose(all.iter().map(|text| text.parse().expect("an address")).collect())
                .map(|address| address.to_string())
        };
        assert_eq!(of(&["[::1]:1", "127.0.0.1:1"]).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(of(&["[::1]:1"]).as_deref(), Some("[::1]:1"));
        assert_eq!(of(&["127.0.0.1:1", "10.0.0.1:1"]).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(of(&["127.0.0.1:1", "[2001:db8::1]:1"]).as_deref(), Some("[2001:db8::1]:1"));
        assert_eq!(of(&[]), None);
        let localhost = address("localhost:50051").expect("localhost resolves");
        assert!(localhost.ip().is_loopback());
    }

    #[test]
    fn error_for_an_invalid_address_shows_a_valid_one() {
        for (text, expected) in [
            (":50051", "`0.0.0.0:50051`"),
            ("50051", "`127.0.0.1:50051`"),
            ("localhost", "`localhost:50051`"),
            ("127.0.0.1", "`127.0.0.1:50051`"),
            ("::1", "`[::1]:50051`"),
            ("fe80::x:1", "in brackets"),
            ("*:9464", "`0.0.0.0:9464`"),
            ("a:b", "up to 65535"),
            ("a:65536", "up to 65535"),
            ("http://localhost:50051", "without a scheme"),
            ("nowhere.invalid:1", "cannot resolve"),
        ] {
            let error = address(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
