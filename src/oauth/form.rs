//! Form: the parameters of a request, `application/x-www-form-urlencoded` (RFC 6749 appendix B).
//!
//! A form is read with limits of bytes and of time, and its memory is counted: a client has proven
//! nothing yet.
//!
//! Not here: what the parameters mean.

use bytes::Bytes;
use http::{HeaderMap, Uri};
use http_body::Body;

use super::refusal::Refusal;
use crate::metrics::memory_budget::Reservation;
use crate::policy::client_credential::form_decoded;
use crate::web::body::{self, BodyLimits};

const FORM: &str = "application/x-www-form-urlencoded";

/// The parameters that no URL may have: logs and histories keep URLs.
const SECRET: [&str; 9] = [
    "access_token",
    "actor_token",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "password",
    "refresh_token",
    "token",
];

/// The parameters of a request that its endpoint knows. Each has one value, which is not empty.
pub(super) struct Form {
    parameters: Vec<(&'static str, String)>,
    /// The memory, until the request is answered.
    _memory: Option<Reservation>,
}

impl Form {
    /// Reads the form of a request. `known` are the parameters of the endpoint; others are ignored.
    ///
    /// # Errors
    /// The content type is another, the form is too large or too slow, a parameter is given twice or
    /// cannot be decoded, or the URL has a credential.
    pub(super) async fn read<B: Body<Data = Bytes> + Unpin>(
        (uri, headers): (&Uri, &HeaderMap),
        body: B,
        known: &[&'static str],
        limits: BodyLimits<'_>,
    ) -> Result<Self, Refusal> {
        let (bytes, memory) = body::read(body, &limits).await?;
        if !body::has_type(headers, FORM) {
            return Err(Refusal::request(
                "The content type is not application/x-www-form-urlencoded.",
            ));
        }
        if has_secret(uri.query().unwrap_or_default()) {
            return Err(Refusal::request(
                "The URL has a credential. Send it in the form, and replace the credential: others may have read it.",
            ));
        }
        Ok(Self { _memory: memory, parameters: parse(&bytes, known)? })
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// The pairs of a form, not decoded.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether a query has a parameter that no URL may have.
pub(super) fn has_secret(query: &str) -> bool {
    pairs(query).any(|(name, value)| {
        let name = form_decoded(name);
        !value.is_empty() && name.is_some_and(|name| SECRET.contains(&name.as_str()))
    })
}

/// The known parameters of a form.
///
/// # Errors
/// One is given twice or is not UTF-8.
pub(super) fn parse(
    bytes: &[u8],
    known: &[&'static str],
) -> Result<Vec<(&'static str, String)>, Refusal> {
    const ENCODING: Refusal = Refusal::request("A parameter is not UTF-8.");
    let text = str::from_utf8(bytes).map_err(|_| ENCODING)?;
    let mut parameters: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in pairs(text).filter(|(_, value)| !value.is_empty()) {
        let name = form_decoded(name);
        let name = known.iter().find(|known| name.as_deref() == Some(**known));
        let Some(name) = name else { continue };
        if parameters.iter().any(|(other, _)| other == name) {
            return Err(Refusal::request("A parameter is given twice."));
        }
        parameters.push((name, form_decoded(value).ok_or(ENCODING)?));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(&'static str, String)>, Refusal> {
        parse(text.as_bytes(), &["scope", "grant_type"])
    }

    #[test]
    fn known_parameters_are_decoded_once() {
        let is = |text: &str, scope: &str| {
            assert_eq!(parsed(text), Ok(vec![("scope", scope.to_owned())]), "{text}");
        };
        is("scope=a+b", "a b");
        is("scope=a%20b%2Bc", "a b+c");
        is("scope=a%2525", "a%25");
        is("s%63ope=a", "a");
        is("other=1&scope=a&other=2&&=&x", "a");
        is("grant_type=&scope=&scope=a", "a");
        is("scope=a=b", "a=b");
        assert_eq!(parsed(""), Ok(vec![]));
    }

    #[test]
    fn bad_form_is_refused() {
        for text in ["scope=a&scope=a", "scope=a&s%63ope=b", "scope=%ff"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parse(b"scope=\xff", &["scope"]).is_err());
    }

    #[test]
    fn credential_in_a_url_is_found() {
        for query in ["client_secret=x", "a=b&token=x", "client%5Fsecret=x", "code=x&code=y"] {
            assert!(has_secret(query), "{query}");
        }
        for query in ["", "client_id=x", "token", "token=", "tokens=x", "x=client_secret"] {
            assert!(!has_secret(query), "{query}");
        }
    }
}
