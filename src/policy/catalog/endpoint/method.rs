//! Method: the methods that a new catalog can have.

/// Methods that are compared as they are written, so that another case would match no call: those
/// that IANA lists, a few that servers know besides, and `GRPC`.
const STANDARD: [&str; 46] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "GRPC",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Words with which other tools mean every method.
const EVERY: [&str; 4] = ["*", "ALL", "ANY", "x-amazon-apigateway-any-method"];

/// Why a method of a new catalog would match no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// A standard method in another case.
    #[error("matches no call, since methods match exactly: write `{0}`")]
    Case(&'static str),
    /// A wildcard for all methods.
    #[error("stands for no method: write one endpoint for each method, such as `GET` and `POST`")]
    Every,
}

/// Whether a call can have this method.
///
/// # Errors
/// The method would match no request; the error says what to write instead.
pub fn check_method(text: &str) -> Result<(), MethodError> {
    if EVERY.iter().any(|every| every.eq_ignore_ascii_case(text)) {
        return Err(MethodError::Every);
    }
    match STANDARD.iter().find(|standard| standard.eq_ignore_ascii_case(text)) {
        Some(standard) if *standard != text => Err(MethodError::Case(standard)),
        _ => Ok(()),
    }
}

/// Whether a text has the form of an HTTP method, or is `GRPC` (D20).
#[must_use]
pub fn is_method(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_');
    letters && (1..=32).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_written_as_calls_have_it() {
        for standard in STANDARD {
            assert_eq!(check_method(standard), Ok(()));
            assert_eq!(check_method(&standard.to_lowercase()), Err(MethodError::Case(standard)));
        }
        assert_eq!(check_method("Post"), Err(MethodError::Case("POST")));
        assert_eq!(check_method("gRPC"), Err(MethodError::Case("GRPC")));
        for every in ["*", "ANY", "any", "All", "ALL"] {
            assert_eq!(check_method(every), Err(MethodError::Every));
        }
        for own in ["Frob", "frob", "BREW"] {
            assert_eq!(check_method(own), Ok(()), "a platform's own method may have any case");
        }
    }

    #[test]
    fn d20_a_method_is_letters_and_a_line_or_two() {
        let longest = "M".repeat(32);
        for method in ["GET", "get", "M-SEARCH", "_", longest.as_str()] {
            assert!(is_method(method), "{method}");
        }
        for none in ["", "G T", "G3T", "G\u{c9}T", &format!("{longest}M")] {
            assert!(!is_method(none), "{none}");
        }
    }
}
