//! HTTP URL: the public URL of the HTTP API.
//!
//! Not here: the flag; see [`super::args`].

use fluent_uri::Uri;

/// Reads a URL that has a scheme and a host, perhaps a port, and nothing else.
pub(super) fn http_url(text: &str) -> Result<String, &'static str> {
    const FORM: &str =
        "is not a URL with a scheme and a host only, such as `https://pdp.example.org`";
    let text = text.trim();
    let url = Uri::parse(text).map_err(|_| FORM)?;
    let authority = url.authority().ok_or(FORM)?;
    let scheme = url.scheme().as_str();
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let is_bare =
        matches!(url.path().as_str(), "" | "/") && !url.has_query() && !url.has_fragment();
    if !is_http || !is_bare || authority.host().is_empty() || authority.has_userinfo() {
        return Err(FORM);
    }
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_a_scheme_and_a_host_only() {
        for (text, url) in [
            ("https://pdp.example.org", "https://pdp.example.org"),
            ("https://pdp.example.org/", "https://pdp.example.org"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            (" https://[::1]:8443 ", "https://[::1]:8443"),
        ] {
            assert_eq!(http_url(text).as_deref(), Ok(url));
        }
        for wrong in [
            "",
            "pdp.example.org",
            "pdp.example.org:8080",
            "https://",
            "https:///",
            "ftp://pdp.example.org",
            "https://pdp.example.org/authzen",
            "https://pdp.example.org?x=1",
            "https://pdp.example.org#x",
            "https://a:b@pdp.example.org",
            "https://pdp example.org",
        ] {
            assert!(http_url(wrong).is_err(), "{wrong}");
        }
    }
}
