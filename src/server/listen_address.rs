//! Listen: the address of a listener, as `HOST:PORT`.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The address to listen on. A name is resolved; it may have several addresses, of which one is
/// listened on: if any is off loopback, one of those, so that what holds there is not evaded by a
/// name. `localhost` is 127.0.0.1, which the commands ask by default.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.contains("://") || text.contains('/') {
        return Err("is no HOST:PORT: write it without a scheme and without a path".to_owned());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Err(format!("has no port: write `[{address}]:50051`"));
    }
    let both = |port: &str| {
        format!(
            "has no host: write `127.0.0.1:{port}` for callers on this machine, or \
             `0.0.0.0:{port}` for all"
        )
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if is_number(text) {
            both(text)
        } else {
            format!("has no port: write HOST:PORT, such as `{text}:50051`")
        });
    };
    let number = port.parse::<u16>().map_err(|_| {
        format!("has the port `{port}`: write a number up to 65535, as in `127.0.0.1:50051`")
    })?;
    if host.is_empty() {
        return Err(both(port));
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
    chosen(resolved).ok_or_else(|| {
        format!("has the host `{host}`, which this machine cannot resolve: write an IP address")
    })
}

fn chosen(resolved: Vec<SocketAddr>) -> Option<SocketAddr> {
    let first = |is: fn(&SocketAddr) -> bool| resolved.iter().copied().find(is);
    first(|address| !address.ip().is_loopback())
        .or_else(|| first(SocketAddr::is_ipv4))
        .or_else(|| first(|_| true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_of_its_addresses_and_for_none_on_loopback_if_it_has_others() {
        let of = |all: &[&str]| {
            chosen(all.iter().map(|text| text.parse().expect("an address")).collect())
                .map(|address| address.to_string())
        };
        assert_eq!(of(&["[::1]:1", "127.0.0.1:1"]).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(of(&["[::1]:1"]).as_deref(), Some("[::1]:1"));
        assert_eq!(of(&["127.0.0.1:1", "10.0.0.1:1"]).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(of(&["127.0.0.1:1", "[2001:db8::1]:1"]).as_deref(), Some("[2001:db8::1]:1"));
        assert_eq!(of(&[]), None);
        let localhost = address("localhost:50051").expect("a machine knows itself");
        assert!(localhost.ip().is_loopback());
    }

    #[test]
    fn what_is_no_address_is_told_what_to_write() {
        for (text, says) in [
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
            let wrong = address(text).expect_err(text);
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
    }
}
