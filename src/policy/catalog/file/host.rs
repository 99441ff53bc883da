//! Host: the hosts of a catalog file, in `hosts` of an audience and in `jwks_url` of an issuer.

// Addresses as values: nothing here opens a socket.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// The most bytes of a host name (RFC 1035 section 2.3.4).
const MAX_HOST_LEN: usize = 253;
/// The most bytes of a `jwks_url`.
pub(super) const MAX_URL_LEN: usize = 2048;

/// A host of an audience, in lower case.
pub(super) fn parse_host(text: &str) -> Result<Box<str>, &'static str> {
    let is_name = |text: &str| is_host_name(text) && !text.ends_with('.');
    match is_name(text) || ipv6_literal(text).is_some() {
        true => Ok(text.to_ascii_lowercase().into()),
        false => {
            Err("is not a host: write the name alone, without scheme, port, path and final dot")
        }
    }
}

/// Checks the URL of a key set (T9): `https`, or `http` on a loopback address, which no
/// other machine can answer. The name `localhost` may resolve to another address.
pub(super) fn check_jwks_url(text: &str) -> Result<(), &'static str> {
    const WRONG: &str = "is not a URL: write one such as `https://id.example.org/jwks.json`";
    if text.len() > MAX_URL_LEN {
        return Err("is too long: the limit is 2048 bytes");
    }
    // The parser drops a fragment without a word.
    if text.contains('#') {
        return Err("has a fragment, which no server sees: remove it");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WRONG);
    }
    let url: Uri = text.parse().map_err(|_| WRONG)?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(WRONG);
    };
    if authority.as_str().contains('@') {
        return Err("has user info: remove it, a key set is public");
    }
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).ok_or(WRONG)?;
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        digits && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err("has a port that is not a number from 1 to 65535");
    }
    let address = match host.parse::<Ipv4Addr>() {
        Ok(address) => Some(IpAddr::V4(address)),
        Err(_) => ipv6_literal(host).map(IpAddr::V6),
    };
    if address.is_none() && !is_host_name(host) {
        return Err(WRONG);
    }
    match scheme {
        "https" => Ok(()),
        "http" if address.is_some_and(|address| address.is_loopback()) => Ok(()),
        _ => Err(
            "is not `https`: another machine on the way could answer with other keys; `http` is only \
             for a loopback address such as `127.0.0.1` or `[::1]`, not for `localhost`",
        ),
    }
}

/// Checks the name of this server as an issuer of tokens (T24): a URL as `check_jwks_url` accepts, of
/// scheme, host and port alone.
pub fn check_own_issuer(text: &str) -> Result<(), &'static str> {
    check_jwks_url(text)?;
    let (_, authority) = text.split_once("://").unwrap_or_default();
    match authority.contains(['/', '?']) {
        true => Err("has a path, a query or a `/` at its end: write scheme, host and port alone"),
        false => Ok(()),
    }
}

/// Letters, digits, `-`, `_` and `.`; no label is empty, apart from the one after a final dot.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_HOST_LEN && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

/// The address of an IPv6 literal in brackets (RFC 3986 section 3.2.2).
fn ipv6_literal(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}
