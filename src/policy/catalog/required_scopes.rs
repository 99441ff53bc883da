//! Required scopes: the keys `scopes` and `any_of` of an endpoint, or of a rule of a resource.
//!
//! `scopes` lists scopes that are all needed, or is `none`. `any_of` lists scopes of which one is
//! enough. One without both keys is refused: nothing is assumed.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};
use serde_saphyr::{Location, Spanned};

use super::file::value::RawValue;

/// The value of `scopes` or `any_of`, with its location.
pub(super) type RawScopeList = Spanned<RawValue<NoMap>>;

/// The map that these keys do not allow.
#[derive(Debug)]
pub(super) enum NoMap {}

impl<'de> Deserialize<'de> for NoMap {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::invalid_type(Unexpected::Map, &"a list of scopes"))
    }
}

/// The scopes that an endpoint needs, before they are parsed.
#[derive(Default)]
pub(super) struct RequiredScopes<'a> {
    /// All of these.
    pub(super) scopes: &'a [Spanned<String>],
    /// At least one of these, if there are any.
    pub(super) any_of: &'a [Spanned<String>],
    /// The endpoint has `scopes: none`.
    pub(super) no_scope: bool,
}

/// A problem, with its location if that is not the endpoint's.
type LocatedMessage = (Option<Location>, String);

/// The scopes that an endpoint or a rule needs, from the values of both keys.
pub(super) fn read<'a>(
    what: &str,
    scopes: Option<&'a RawScopeList>,
    any_of: Option<&'a RawScopeList>,
) -> Result<RequiredScopes<'a>, LocatedMessage> {
    let mut required = RequiredScopes::default();
    match scopes.map(|scopes| (&scopes.value, scopes.referenced)) {
        None => {}
        Some((RawValue::Word(word), at)) if word == "none" => {
            if let Some(any_of) = any_of {
                let message = "`any_of` cannot be combined with `scopes: none`: remove one of them";
                return Err((Some(any_of.referenced).or(Some(at)), message.to_owned()));
            }
            required.no_scope = true;
        }
        Some((raw, at)) => {
            required.scopes = list("scopes", raw, at)?;
        }
    }
    if let Some(any_of) = any_of {
        required.any_of = list("any_of", &any_of.value, any_of.referenced)?;
    }
    if scopes.is_none() && any_of.is_none() {
        let message = format!(
            "{what} must have `scopes`, `any_of` or both; write `scopes: none` if a call needs no scope"
        );
        return Err((None, message));
    }
    Ok(required)
}

/// The list that a key must have.
fn list<'a>(
    key: &str,
    raw: &'a RawValue<NoMap>,
    at: Location,
) -> Result<&'a [Spanned<String>], LocatedMessage> {
    let otherwise = match key {
        "scopes" => "name the scopes, or write `scopes: none` if a call needs no scope",
        _ => "name the scopes of which one is enough, or leave `any_of` out",
    };
    let wrong = match raw {
        RawValue::List(scopes) if scopes.is_empty() => format!("`{key}` is an empty list"),
        RawValue::List(scopes) => return Ok(scopes),
        RawValue::Word(word) => {
            let word = crate::policy::text::quoted(word, 160);
            format!("`{key}` must be a list such as `[{word}]`, and is `{word}`")
        }
        RawValue::Map(none) => match *none {},
        RawValue::Nothing => format!("`{key}` has no value"),
    };
    Err((Some(at), format!("{wrong}: {otherwise}")))
}

#[cfg(test)]
mod tests {
    use crate::policy::catalog::endpoint::Endpoint;
    use crate::policy::catalog::file::{CatalogErrors, CatalogFile};

    fn endpoint(needs: &str) -> Result<Endpoint, Vec<String>> {
        let yaml = format!(
            "audiences: {{ p: , q: }}\nscopes: {{ a: , b: {{ audiences: [q] }}, none: , c: }}\n\
             endpoints: [{{ method: GET, path: /x, audience: p, {needs} }}]\n"
        );
        match CatalogFile::parse(&yaml) {
            Ok(mut file) => Ok(file.endpoints_by_name.remove("GET /x").expect("an endpoint")),
            Err(CatalogErrors(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn d20_an_endpoint_needs_all_of_some_one_of_others_or_none() {
        let read = |needs: &str| {
            let Endpoint { scopes, any_of, needs_no_scope, .. } = endpoint(needs).expect("good");
            let names = |scopes: Vec<_>| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
            (names(scopes).join(" "), names(any_of).join(" "), needs_no_scope)
        };
        let required = |all: &str, any: &str, none| (all.to_owned(), any.to_owned(), none);
        assert_eq!(read("scopes: [a, c, a]"), required("a c", "", false));
        assert_eq!(read("any_of: [c, a, c]"), required("", "c a", false));
        assert_eq!(read("scopes: [a], any_of: [a, c]"), required("a", "a c", false));
        assert_eq!(read("scopes: none"), required("", "", true));
        assert_eq!(read("scopes: [none]"), required("none", "", false), "a scope of this name");
        assert_eq!(read("any_of: [none]"), required("", "none", false));
    }

    #[test]
    fn d20_an_endpoint_with_unclear_scopes_is_refused_at_its_location() {
        for (needs, place, part) in [
            ("", "34: ", "an endpoint must have `scopes`, `any_of` or both"),
            ("scopes: [], ", "59: ", "`scopes` is an empty list"),
            ("any_of: [], ", "59: ", "`any_of` is an empty list"),
            ("scopes: [a], any_of: []", "72: ", "`any_of` is an empty list"),
            ("scopes: [], any_of: [a]", "59: ", "`scopes` is an empty list"),
            ("scopes: none, any_of: [a]", "73: ", "cannot be combined with `scopes: none`"),
            ("scopes: none, any_of: []", "73: ", "cannot be combined with `scopes: none`"),
            ("scopes: other", "59: ", "`scopes` must be a list such as `[other]`, and is `other`"),
            ("scopes: None", "59: ", "`scopes` must be a list such as `[None]`"),
            ("any_of: none", "59: ", "`any_of` must be a list such as `[none]`"),
            ("scopes: , any_of: [a]", "", "`scopes` has no value"),
            ("scopes: ~", "59: ", "`scopes` has no value"),
            ("any_of: ~, scopes: [a]", "59: ", "`any_of` has no value"),
            ("scopes: 5", "59: ", "`scopes` must be a list such as `[5]`"),
            ("scopes: false", "59: ", "`scopes` must be a list such as `[false]`"),
            ("any_of: 1.5", "59: ", "`any_of` must be a list such as `[1.5]`"),
            ("any_of: { a: all }", "59: ", "expected a list of scopes"),
            ("any_of: [a, moon]", "63: ", "`moon` is not a scope of this catalog"),
            ("any_of: [a, b]", "63: ", "`b` does not belong to the endpoint's audience `p`"),
            ("scopes: [b], any_of: [a]", "60: ", "`b` does not belong to the endpoint's audience"),
        ] {
            let found = endpoint(needs).expect_err(needs);
            assert_eq!(found.len(), 1, "{needs}: {found:?}");
            let place = format!("line 3, column {place}");
            let place = place.trim_end_matches("column ");
            assert!(found[0].starts_with(place) && found[0].contains(part), "{needs}: {found:?}");
        }
    }
}
