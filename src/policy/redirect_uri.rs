//! Redirect URI: where a browser may be sent with an authorization code (RFC 6749 section 3.1.2).
//!
//! Not here: the codes; see [`super::token::authorization_code`].

use std::fmt;

use fluent_uri::UriRef;
use fluent_uri::component::Host;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client_credential::form_decoded;

/// The most redirect URIs of a credential.
pub const MAX_REDIRECT_URIS: usize = 16;
/// The most bytes of a redirect URI.
pub const MAX_REDIRECT_URI_LEN: usize = 512;

/// The parameters of an authorization response. A redirect URI that has one of them would make the
/// response ambiguous.
const RESPONSE: [&str; 4] = ["code", "error", "iss", "state"];

/// What a parameter keeps as it is: the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A URI to which a browser may be sent with an authorization code. Two are equal if their bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(Box<str>);

impl RedirectUri {
    /// Reads a redirect URI (RFC 8252 section 7, RFC 9700 section 2.1): an absolute URI without a fragment
    /// and without user information. Its scheme is `https`, or `http` with a loopback address, which is no
    /// other machine, or a private-use scheme, which has a dot.
    ///
    /// # Errors
    /// The URI is another one; the text says what to do.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not a URI such as `https://app.example.org/callback`";
        if text.len() > MAX_REDIRECT_URI_LEN {
            return Err("is too long: the limit is 512 bytes");
        }
        let uri = UriRef::parse(text).map_err(|_| WRONG)?;
        let scheme = uri.scheme().ok_or(WRONG)?.as_str().to_ascii_lowercase();
        if uri.has_fragment() {
            return Err("has a fragment: remove it");
        }
        let authority = uri.authority();
        if authority.is_some_and(|authority| authority.has_userinfo()) {
            return Err("has user info: remove it");
        }
        let host = authority.map(|authority| (authority.host(), authority.host_parsed()));
        let port = authority.and_then(|authority| authority.port());
        if port.is_some_and(|port| !port.is_empty() && port.as_str().parse::<u16>().is_err()) {
            return Err("has a port that is not a number up to 65535");
        }
        match (scheme.as_str(), host) {
            ("https", Some((name, _))) if !name.is_empty() => {}
            ("http", Some((_, Host::Ipv4(address)))) if address.is_loopback() => {}
            ("http", Some((_, Host::Ipv6(address)))) if address.is_loopback() => {}
            (private, _) if private.contains('.') => {}
            ("http", _) => {
                return Err(
                    "is `http`: others on the way would read the code; `http` is only for a loopback \
                     address such as `127.0.0.1` or `[::1]`, not for `localhost`",
                );
            }
            ("https", _) => return Err(WRONG),
            _ => {
                return Err(
                    "has a scheme that is not `https` and has no dot: a private scheme is a domain of \
                     the application, reversed, such as `org.example.app`",
                );
            }
        }
        let parameters = uri.query().map(|query| query.as_str()).unwrap_or_default().split('&');
        let names = parameters.map(|pair| pair.split('=').next().unwrap_or_default());
        let is_of_response =
            |name: &str| form_decoded(name).is_some_and(|name| RESPONSE.contains(&&*name));
        if names.into_iter().any(is_of_response) {
            return Err(
                "has a parameter of the response (`code`, `error`, `iss` or `state`): remove it",
            );
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI with these parameters added to its query (RFC 6749 section 4.1.2).
    #[must_use]
    pub fn with(&self, parameters: &[(&str, &str)]) -> String {
        let mut text = String::from(&*self.0);
        let is_open = self.0.ends_with('&') || self.0.find('?') == Some(self.0.len() - 1);
        let mut separator = match self.0.contains('?') {
            _ if is_open => "",
            true => "&",
            false => "?",
        };
        for (name, value) in parameters {
            text.push_str(separator);
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, ESCAPED));
            separator = "&";
        }
        text
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t34_a_redirect_uri_is_https_or_a_loopback_address_or_a_private_scheme() {
        for good in [
            "https://app.example.org",
            "https://app.example.org/callback?tenant=a&x",
            "HTTPS://app.example.org:8443/",
            "https://[2001:db8::1]/",
            "http://127.0.0.1/cb",
            "http://127.8.9.1:53123/cb",
            "http://[::1]:0/cb",
            "org.example.app:/callback",
            "org.example.app://callback",
            "org.example.app:callback",
        ] {
            assert_eq!(RedirectUri::parse(good).map(|uri| uri.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "/callback",
            "//app.example.org/",
            "app.example.org/callback",
            "https:/callback",
            "https:///callback",
            "https://",
            "https://app.example.org/#",
            "https://app.example.org/#code",
            "https://user@app.example.org/",
            "https://@app.example.org/",
            "https://app.example.org@evil.example/",
            "https://app.example.org\\@evil.example/",
            "https://app.example.org/a b",
            "https://app.example.org/\u{e9}",
            "https://app.example.org/%zz",
            "https://app.example.org:99999/",
            "https://app.example.org/cb?code=x",
            "https://app.example.org/cb?a=b&state",
            "https://app.example.org/cb?%63ode=x",
            "https://app.example.org/cb?is%73=x",
            "http://app.example.org/",
            "http://localhost/cb",
            "http://127.0.0.1.example.org/cb",
            "http://10.0.0.1/cb",
            "http://[::2]/cb",
            "http:/cb",
            "myapp:/callback",
            "javascript:alert(1)",
            "data:text/html,x",
            "urn:ietf:wg:oauth:2.0:oob",
            " https://app.example.org/",
            "https://app.example.org/\n",
        ] {
            assert!(RedirectUri::parse(bad).is_err(), "{bad}");
        }
        let long = |len: usize| format!("https://a.example/{}", "x".repeat(len - 18));
        assert!(RedirectUri::parse(&long(512)).is_ok() && RedirectUri::parse(&long(513)).is_err());
    }

    #[test]
    fn t34_a_response_adds_its_parameters_to_the_query() {
        for (uri, expected) in [
            ("https://a.example", "https://a.example?code=x&state=a%20b%26%3D"),
            ("https://a.example/cb?", "https://a.example/cb?code=x&state=a%20b%26%3D"),
            ("https://a.example/cb?t=1", "https://a.example/cb?t=1&code=x&state=a%20b%26%3D"),
            ("https://a.example/cb?t=1&", "https://a.example/cb?t=1&code=x&state=a%20b%26%3D"),
            ("https://a.example/cb?t=?", "https://a.example/cb?t=?&code=x&state=a%20b%26%3D"),
            ("org.example.app:/cb", "org.example.app:/cb?code=x&state=a%20b%26%3D"),
        ] {
            let uri = RedirectUri::parse(uri).expect("a redirect URI");
            assert_eq!(uri.with(&[("code", "x"), ("state", "a b&=")]), expected);
        }
    }
}
