//! Address: parses the addresses of a server: URLs, `HOST:PORT` or `unix:PATH`, separated by commas.
//!
//! Not here: it resolves no name and opens no connection; see [`super::connection`].

use std::net::Ipv6Addr;

use std::path::Path;

use anyhow::{anyhow, bail};
use http::Uri;

use super::server_address::ServerAddress;
use crate::transport::listen_address::socket_path;

/// The default port of an address without a scheme.
const PORT: u16 = 50051;

/// Schemes of addresses of other tools, which would otherwise read as a host with a port.
const SCHEMES: [&str; 8] = ["dns", "grpc", "http", "https", "ipv4", "ipv6", "unix", "xds"];

/// The scheme of the path of a Unix socket.
const UNIX: &str = "unix:";

/// The addresses of a list that is separated by commas.
///
/// # Errors
/// One of them is not an address of a server.
pub(super) fn addresses(text: &str, has_tls: bool) -> anyhow::Result<Vec<ServerAddress>> {
    text.split(',').map(|one| address(one, has_tls)).collect()
}

/// The address of a server.
fn address(text: &str, has_tls: bool) -> anyhow::Result<ServerAddress> {
    if let Some(path) = text.trim().strip_prefix(UNIX) {
        let path = socket_path(path);
        let path = path.map_err(|error| anyhow!("the endpoint `{}` {error}", text.trim()))?;
        return Ok(ServerAddress::Unix(path));
    }
    let uri: Result<Uri, _> = url(text, has_tls)?.parse();
    let uri = uri.map_err(|_| anyhow!("the endpoint `{text}` is neither HOST:PORT nor a URL"))?;
    Ok(ServerAddress::Url(uri))
}

/// A list of addresses, with its paths from this directory instead of the current one.
pub(super) fn based(text: &str, base: &Path) -> String {
    let one = |one: &str| match one.trim().strip_prefix(UNIX) {
        Some(path) if !path.is_empty() && !path.starts_with('/') => {
            format!("{UNIX}{}", base.join(path).display())
        }
        _ => one.to_owned(),
    };
    text.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// The URL of an address. Without a scheme it is https if `has_tls`, else http.
///
/// # Errors
/// It is not an address of a server. The error says what to write.
fn url(text: &str, has_tls: bool) -> anyhow::Result<String> {
    let text = text.trim();
    let shown = without_user(text);
    let wrong = |problem: String| anyhow!("the endpoint `{shown}` {problem}");
    if text.is_empty() {
        bail!("the endpoint is empty: write HOST:PORT, such as `localhost:{PORT}`");
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (other_scheme(text), text),
    };
    let is_url = scheme.is_some();
    let scheme = match scheme.as_deref() {
        Some(scheme @ ("http" | "https")) if text.contains("://") => scheme,
        Some(other) => {
            return Err(wrong(format!(
                "begins with `{other}:`, which is not supported: begin with http:// or https://, \
                 or write HOST:PORT alone, or unix:PATH"
            )));
        }
        None if has_tls => "https",
        None => "http",
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !matches!(path, "" | "/") {
        let problem = match text.contains('@') {
            true => "has a path, which is not supported: leave it out".to_owned(),
            false => format!("has a path, which is not supported: leave `{path}` out"),
        };
        return Err(wrong(problem));
    }
    if authority.contains('@') {
        return Err(wrong("has a user name: set the key by --key-file or SCOPEGATE_KEY".into()));
    }
    let (host, port) = parts(authority).map_err(wrong)?;
    if !is_url && port.is_none() && host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(format!("has no host: write `localhost:{host}`")));
    }
    let port = match port {
        None if is_url => return Ok(format!("{scheme}://{host}")),
        None => PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            wrong(format!("has the port `{port}`: write a number from 1 to 65535"))
        })?,
    };
    Ok(format!("{scheme}://{host}:{port}"))
}

/// An address without the part before its `@`, which may be a password.
fn without_user(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
    format!("{}…@{host}", scheme.unwrap_or_default())
}

/// The part before the first colon, if it is a scheme and not a host.
fn other_scheme(text: &str) -> Option<String> {
    let (first, rest) = text.split_once(':')?;
    let first = first.to_ascii_lowercase();
    let is_port = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    (!is_port && SCHEMES.contains(&first.as_str())).then_some(first)
}

/// The host and the port of an authority (RFC 3986, section 3.2).
fn parts(authority: &str) -> Result<(&str, Option<&str>), String> {
    if authority.starts_with('[') {
        let is_address = |inner: &str| inner.parse::<Ipv6Addr>().is_ok();
        let inner = authority.get(1..).and_then(|rest| rest.split_once(']'));
        let valid = inner.filter(|(inner, _)| is_address(inner));
        let (inner, rest) = valid
            .ok_or_else(|| "has no IPv6 address in its brackets: write `[::1]:50051`".to_owned())?;
        let host = authority.get(..inner.len() + 2).unwrap_or(authority);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("has `{rest}` after its brackets: write `{host}:{PORT}`")),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            let address = if authority.parse::<Ipv6Addr>().is_ok() { authority } else { "::1" };
            return Err(format!(
                "has more than one colon: write an IPv6 address in brackets, as in `[{address}]:{PORT}`"
            ));
        }
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        let port = port.filter(|port| port.parse::<u16>().is_ok());
        let port = port.map_or_else(|| PORT.to_string(), str::to_owned);
        return Err(format!("has no host: write `localhost:{port}`"));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(format!("has the host `{host}`, which is neither a name nor an IP address"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_with_port_becomes_a_url_and_a_url_is_kept() {
        for (text, plain) in [
            ("localhost:50051", "http://localhost:50051"),
            ("localhost", "http://localhost:50051"),
            (" db-1.internal:7 \n", "http://db-1.internal:7"),
            ("127.0.0.1:9/", "http://127.0.0.1:9"),
            ("[::1]:9", "http://[::1]:9"),
            ("[::1]", "http://[::1]:50051"),
            ("dns:50051", "http://dns:50051"),
            ("unix", "http://unix:50051"),
            ("http://a", "http://a"),
            ("HTTP://a:1/", "http://a:1"),
            ("https://a.example", "https://a.example"),
            ("https://[::1]:3", "https://[::1]:3"),
        ] {
            assert_eq!(url(text, false).expect(text), plain);
        }
        assert_eq!(url("a:1", true).expect("TLS"), "https://a:1");
        assert_eq!(url("http://a:1", true).expect("as written"), "http://a:1");
    }

    #[test]
    fn addresses_are_separated_by_commas() {
        let all = addresses("a:1, https://b ,[::1], unix:/run/s,unix:///run/s", false);
        let all: Vec<_> = all.expect("five").iter().map(ToString::to_string).collect();
        let urls = ["http://a:1/", "https://b/", "http://[::1]:50051/"];
        assert_eq!(all, [&urls[..], &["unix:/run/s", "unix:/run/s"]].concat());
        for text in ["a:1,", ",a:1", "a:1,,b:1", ","] {
            let error = addresses(text, false).expect_err(text).to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn path_of_a_list_can_be_from_another_directory() {
        let list = based("unix:s, unix:/a ,unix:///b,h:1", Path::new("/config"));
        assert_eq!(list, "unix:/config/s, unix:/a ,unix:///b,h:1");
        for text in ["unix:", "unix:/run/", "unix://host/s"] {
            assert!(addresses(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn invalid_address_is_rejected_with_what_to_write() {
        for (text, says) in [
            ("", "HOST:PORT"),
            ("grpc://a:1", "`grpc:`"),
            ("dns:///a:1", "`dns:`"),
            ("dns:a:1", "`dns:`"),
            ("UNIX:/run/a", "`unix:`"),
            ("http:a:1", "`http:`"),
            ("http:/a:1", "`http:`"),
            ("::1", "`[::1]:50051`"),
            ("::1:50051", "in brackets"),
            ("http://fe80::1:1", "in brackets"),
            ("[::1:1", "`[::1]:50051`"),
            ("[::1]1", "after its brackets"),
            (":50051", "`localhost:50051`"),
            ("50052", "`localhost:50052`"),
            ("http://", "has no host"),
            ("http://a:1/v1", "leave `/v1` out"),
            ("a:1?x", "leave `?x` out"),
            ("a:0", "from 1 to 65535"),
            ("a:65536", "from 1 to 65535"),
            ("a:", "from 1 to 65535"),
            ("a:http", "from 1 to 65535"),
            ("me@a:1", "--key-file"),
            ("a b:1", "neither a name"),
        ] {
            let error = url(text, false).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
