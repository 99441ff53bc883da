//! Forms of API clients: no bytes make the reader panic, and what it reads is what another reader of
//! `application/x-www-form-urlencoded` reads (WHATWG URL). A parameter that is there twice, or is not
//! UTF-8, has no value, and no credential in a URL is missed.
//!
//! The input is a query, and a form: its first line and the rest. The first line is a header
//! `Authorization`, too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::oauth::fuzz::{form, query_has_secret};
use scopegate::policy::client_credential::ClientCredential;

const KNOWN: &[&str] = &["grant_type", "scope", "client_id", "client_secret", "token"];
/// Some of the parameters that no URL may have.
const SECRET: [&str; 4] = ["client_secret", "token", "actor_token", "code"];

/// The pairs that have a value, by the other reader. It replaces what is not UTF-8 by U+FFFD.
fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(bytes).into_owned();
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

fn body(bytes: &[u8]) {
    let pairs = pairs(bytes);
    let of = |name: &str| -> Vec<&str> {
        let values = pairs.iter().filter(|(other, _)| other == name);
        values.map(|(_, value)| value.as_str()).collect()
    };
    let Some(parameters) = form(bytes, KNOWN) else {
        let is_strange = |name: &&&str| {
            let values = of(name);
            values.len() > 1 || values.iter().any(|value| value.contains('\u{fffd}'))
        };
        let is_text = std::str::from_utf8(bytes).is_ok();
        assert!(!is_text || KNOWN.iter().any(|name| is_strange(&name)), "a good form is refused");
        return;
    };
    for name in KNOWN {
        let read = parameters.iter().filter(|(other, _)| other == name);
        let read: Vec<_> = read.map(|(_, value)| value.as_str()).collect();
        assert_eq!(read, of(name), "{name}");
        assert!(read.len() <= 1, "{name} is read twice");
    }
}

fn query(text: &str) {
    let has_secret = pairs(text.as_bytes()).iter().any(|(name, _)| SECRET.contains(&name.as_str()));
    assert!(!has_secret || query_has_secret(text), "a credential in a URL is missed");
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (first, rest) = end.map_or((bytes, bytes), |end| (&bytes[..end], &bytes[end + 1..]));
    body(rest);
    let Ok(first) = std::str::from_utf8(first) else { return };
    query(first);
    // No part of a credential is printed.
    let printed = format!("{:?}", ClientCredential::authorization(first));
    let secret = first.split_ascii_whitespace().nth(1).filter(|secret| secret.len() > 64);
    assert!(secret.is_none_or(|secret| !printed.contains(secret)));
});
