//! Listen address: where a server accepts connections, a TCP address or the path of a Unix socket, and how
//! it is written: `HOST:PORT` or `unix:PATH`.
//!
//! Not here: how it is bound; see `transport::listen_socket`. And other addresses that a command connects to;
//! see `cli::address`.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::socket_file::MAX_PATH;

/// Where a server accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only processes of this machine reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The IP address and the port, if it has them.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The address that the log names if there is room for one: the first of TCP, else the first.
    #[must_use]
    pub fn main(all: &[Self]) -> Option<&Self> {
        all.iter().find(|address| address.tcp().is_some()).or_else(|| all.first())
    }
}

impl Display for ListenAddress {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// Parses an address of TCP or of a Unix socket. The latter is written as gRPC has it: `unix:PATH`, or
/// `unix:///PATH`.
pub(crate) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty: write HOST:PORT or unix:PATH".to_owned());
    }
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(ListenAddress::Unix),
        None => address(text).map(ListenAddress::Tcp),
    }
}

/// Parses the path of a Unix socket, which follows `unix:`.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(path) => {
            return Err(format!("has the host of a URL: write `unix:/{path}`"));
        }
        None => text,
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("has no file name: write a path, such as `unix:/run/scopegate.sock`".to_owned());
    }
    if path.len() > MAX_PATH {
        return Err(format!(
            "has a path of {} bytes: the system allows {MAX_PATH} for a socket; give a shorter one",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Err("has a path with a zero byte".to_owned());
    }
    Ok(path.into())
}

/// Parses the mode of a file, in octal.
pub(crate) fn mode(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode @ ..=0o777) if is_octal && digits.len() >= 3 => Ok(mode),
        _ => Err("is no mode of a file: write three octal digits, such as `0660`"),
    }
}

/// Parses the address to listen on. A name is resolved once. If it has several addresses, one of them
/// is used: one that is not a loopback address if there is one, so that a name does not evade the
/// requirement of keys there. `localhost` is 127.0.0.1, which the commands connect to by default.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
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

    #[test]
    fn path_of_a_socket_is_written_as_grpc_has_it() {
        for (text, path) in [
            ("unix:/run/s", "/run/s"),
            ("unix:///run/s", "/run/s"),
            ("unix:s", "s"),
            (" unix:a/s.sock ", "a/s.sock"),
            ("unix:/with space", "/with space"),
        ] {
            assert_eq!(listen_address(text), Ok(ListenAddress::Unix(path.into())), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH - 1));
        listen_address(&long).expect("as long as allowed");
        for (text, expected) in [
            (&format!("{long}x")[..], "shorter"),
            ("unix:", "no file name"),
            ("unix:/run/", "no file name"),
            ("unix://run/s", "`unix:/run/s`"),
            ("unix:a\0b", "zero byte"),
            ("", "is empty"),
        ] {
            let error = listen_address(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn mode_is_octal() {
        for (text, expected) in [("0660", 0o660), ("600", 0o600), ("0o777", 0o777), ("000", 0)] {
            assert_eq!(mode(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "66", "rw-rw----", "0888", "1777", "+660", "-660", "0x1ff"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
