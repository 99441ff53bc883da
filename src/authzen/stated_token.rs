//! Stated token: `context.token`, the fields of `scopegate.v1.Token` as the JSON of Protocol Buffers has
//! them: each by its name or its camel-case name, and `null` for a field that is not set.
//!
//! Not here: whether the values are well formed; see [`crate::wire::validate`].

use super::json::Value;
use crate::proto::Token;
use crate::wire::validate::MAX_CHECK_SCOPES;

/// Reads a token. The error names the field.
///
/// # Errors
/// A field has a wrong type, or is there by both of its names.
pub(super) fn read(value: Value<'_>) -> Result<Token, String> {
    let members = value.members(&[
        "audience",
        "scopes",
        "issued_at",
        "issuedAt",
        "expires_at",
        "expiresAt",
        "user_id",
        "userId",
    ]);
    let wrong = |field: &str, must: &str| format!("`token{field}` must be {must}");
    let [
        audience,
        scopes,
        issued_at,
        issued_at_camel,
        expires_at,
        expires_at_camel,
        user,
        user_camel,
    ] = members.ok_or_else(|| wrong("", "an object"))?;
    let string = |field: &str, one, other| match once(one, other) {
        Err(()) => Err(wrong(field, "there once")),
        Ok(None) => Ok(String::new()),
        Ok(Some(text)) => text.string().map(Into::into).ok_or_else(|| wrong(field, "a string")),
    };
    // An empty text is no time: left out, the token would have no end.
    let time = |field: &str, one, other| {
        let value = once(one, other).map_err(|()| wrong(field, "there once"))?;
        let time = value.map(|value| value.string().and_then(|text| instant(&text)));
        time.map(|time| time.ok_or_else(|| wrong(field, "a time of RFC 3339"))).transpose()
    };
    let listed = match scopes.filter(|scopes| !scopes.is_null()) {
        None => vec![],
        Some(scopes) => {
            let strings = "an array of strings";
            let items = scopes.items(MAX_CHECK_SCOPES + 1);
            let (items, _) = items.ok_or_else(|| wrong(".scopes", strings))?;
            let items = items.into_iter().map(|item| item.string().map(Into::into));
            items.collect::<Option<Vec<String>>>().ok_or_else(|| wrong(".scopes", strings))?
        }
    };
    Ok(Token {
        audience: string(".audience", audience, None)?,
        scopes: listed,
        issued_at: time(".issued_at", issued_at, issued_at_camel)?,
        expires_at: time(".expires_at", expires_at, expires_at_camel)?,
        user_id: string(".user_id", user, user_camel)?,
    })
}

/// The time of a text that says its offset from UTC. A text without one, or a date alone, is a local time
/// of its writer: taken for UTC, a token could live hours longer.
fn instant(text: &str) -> Option<prost_types::Timestamp> {
    let sign = text.len().checked_sub("+00:00".len()).filter(|at| *at > "2026-01-02".len());
    let sign = sign.and_then(|at| text.as_bytes().get(at));
    let has_offset = text.ends_with(['Z', 'z']) || matches!(sign, Some(b'+' | b'-'));
    if has_offset { text.parse().ok() } else { None }
}

/// The value of a field that has two names. An error: it is there by both.
fn once<'a>(one: Option<Value<'a>>, other: Option<Value<'a>>) -> Result<Option<Value<'a>>, ()> {
    match (one, other) {
        (Some(_), Some(_)) => Err(()),
        (one, other) => Ok(one.or(other).filter(|value| !value.is_null())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn token(text: &str) -> Result<Token, String> {
        read(json::parse(text.as_bytes()).expect("JSON"))
    }

    #[test]
    fn fields_are_those_of_the_message() {
        let whole = token(
            r#"{"audience":"api","scopes":["a","b"],"issued_at":"2026-01-02T03:04:05Z",
                "expiresAt":"9999-12-31T23:59:59Z","userId":"ann","other":[{}]}"#,
        );
        let whole = whole.expect("a token");
        assert_eq!((whole.audience.as_str(), whole.scopes.len()), ("api", 2));
        assert_eq!(whole.issued_at.map(|time| time.seconds), Some(1_767_323_045));
        assert_eq!(whole.expires_at.map(|time| time.seconds), Some(253_402_300_799));
        assert_eq!(whole.user_id, "ann");
        let nothing = token(r#"{"audience":null,"scopes":null,"issued_at":null,"user_id":null}"#);
        assert_eq!(nothing, Ok(Token::default()));
        assert_eq!(token("{}"), Ok(Token::default()));
    }

    #[test]
    fn offset_of_a_time_counts() {
        let seconds = |time: &str| {
            let read = token(&format!(r#"{{"expires_at":"{time}"}}"#)).expect(time);
            read.expires_at.expect("a time").seconds
        };
        for same in
            ["2026-01-02T03:04:05.9Z", "2026-01-02T05:04:05+02:00", "2026-01-01T22:34:05-04:30"]
        {
            assert_eq!(seconds(same), 1_767_323_045, "{same}");
        }
    }

    #[test]
    fn field_of_a_wrong_type_is_named() {
        for (text, field) in [
            (r#"{"audience":1}"#, "`token.audience`"),
            (r#"{"scopes":"a b"}"#, "`token.scopes`"),
            (r#"{"scopes":["a",1]}"#, "`token.scopes`"),
            (r#"{"scopes":[null]}"#, "`token.scopes`"),
            (r#"{"issued_at":1767323045}"#, "`token.issued_at`"),
            (r#"{"issued_at":"soon"}"#, "`token.issued_at`"),
            (r#"{"expires_at":""}"#, "`token.expires_at`"),
            (r#"{"issuedAt":""}"#, "`token.issued_at`"),
            (r#"{"expires_at":"2026-01-02"}"#, "`token.expires_at`"),
            (r#"{"expires_at":"2026-01-02T03:04:05"}"#, "`token.expires_at`"),
            (r#"{"expiresAt":"2026-01-02 03:04:05.5"}"#, "`token.expires_at`"),
            (r#"{"issuedAt":"2026-01-02T03:04:05"}"#, "`token.issued_at`"),
            (r#"{"expires_at":null,"expiresAt":null}"#, "`token.expires_at`"),
            (r#"{"user_id":"ann","userId":"ann"}"#, "`token.user_id`"),
            (r#"{"userId":{}}"#, "`token.user_id`"),
        ] {
            let error = token(text).expect_err(text);
            assert!(error.starts_with(field), "{text}: {error}");
        }
    }
}
