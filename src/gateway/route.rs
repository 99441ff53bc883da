//! Route: the settings that a gateway has for a route. An operator writes them, and no client can.
//!
//! Not here: how a gateway sends them.

use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::scope::Scope;
use crate::policy::text;
use crate::wire::validate::{Auds, FieldPrefix, FieldValidator, InvalidRequest, MAX_QUOTED};

/// The settings of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The company that all requests are made for.
    pub company: Option<CompanyId>,
    /// The credential that all requests are made with.
    pub credential: Option<CredentialId>,
    /// The audience of the API.
    pub audience: Option<Name>,
    /// The scopes that every request needs, at least one. None: the endpoint says it.
    pub scopes: Option<Vec<Scope>>,
    /// Whether a request is denied that reaches only the user's own records. If not, the API must filter.
    pub denies_own: bool,
    /// Whether the API gets `authorization` also if it holds a secret.
    pub forwards_authorization: bool,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            company: None,
            credential: None,
            audience: None,
            scopes: None,
            denies_own: true,
            forwards_authorization: false,
        }
    }
}

impl Route {
    /// Reads the settings of a route.
    ///
    /// # Errors
    /// A name is unknown, is there twice, or has a value that it cannot have. Nothing is left out of the
    /// question because of a mistake: a typing error in `scopes` must not ask for less.
    pub(crate) fn parse<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
        auds: Auds<'_>,
    ) -> Result<Self, InvalidRequest> {
        let mut fields = FieldValidator::default();
        fields.prefix = FieldPrefix::Route;
        let (mut route, mut seen) = (Self::default(), Vec::new());
        for (name, value) in settings {
            if seen.contains(&name) {
                fields.wrong(text::quoted(name, MAX_QUOTED), "is there twice");
            }
            seen.push(name);
            route.set(name, value, &mut fields, auds);
        }
        fields.finish(Some(route))
    }

    fn set(&mut self, name: &str, value: &str, fields: &mut FieldValidator, auds: Auds<'_>) {
        match name {
            "company_id" => self.company = fields.company(value.to_owned()),
            "credential_id" => self.credential = fields.credential(value.to_owned()),
            "audience" => {
                if value.is_empty() {
                    fields.wrong(name, "must not be empty: leave it out");
                }
                self.audience = fields.audience(value, auds);
            }
            "scopes" => {
                let scopes = value.split(' ').filter(|scope| !scope.is_empty());
                let scopes = fields.scopes_once(name, scopes.map(str::to_owned).collect());
                if scopes.is_empty() {
                    fields.wrong(name, "must have at least one scope");
                }
                self.scopes = Some(scopes);
            }
            "accept_reach" => {
                if value != "OWN" {
                    fields.wrong(name, "must be `OWN`, or be left out");
                }
                self.denies_own = false;
            }
            "forward_authorization" => {
                if value != "true" {
                    fields.wrong(name, "must be `true`, or be left out");
                }
                self.forwards_authorization = true;
            }
            other => {
                let known = "must be one of `company_id`, `credential_id`, `audience`, `scopes`, \
                             `accept_reach` and `forward_authorization`";
                fields.wrong(text::quoted(other, MAX_QUOTED), known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: &[(&str, &str)]) -> Result<Route, String> {
        let read = Route::parse(settings.iter().copied(), &|_| None);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_those_of_the_documentation_and_no_others() {
        assert_eq!(parse(&[]), Ok(Route::default()));
        let all = parse(&[
            ("company_id", "acme"),
            ("credential_id", "hr"),
            ("audience", "public"),
            ("scopes", " a:read  b:write a:read"),
            ("accept_reach", "OWN"),
            ("forward_authorization", "true"),
        ]);
        let scopes = ["a:read", "b:write"].map(|scope| Scope::parse(scope).expect("a scope"));
        let expected = Route {
            company: CompanyId::parse("acme").ok(),
            credential: CredentialId::parse("hr").ok(),
            audience: Name::parse("public").ok(),
            scopes: Some(scopes.to_vec()),
            denies_own: false,
            forwards_authorization: true,
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn mistake_asks_nothing_instead_of_less() {
        for (name, value) in [
            ("scope", "a:read"),
            ("Scopes", "a:read"),
            ("scopes ", "a:read"),
            ("", ""),
            ("user_id", "ann"),
            ("scopes", ""),
            ("scopes", "   "),
            ("scopes", "a:read\tb:write"),
            ("scopes", "a:read,\"b\""),
            ("company_id", ""),
            ("company_id", "a/b"),
            ("credential_id", ""),
            ("audience", ""),
            ("audience", "https://api.example.org"),
            ("accept_reach", ""),
            ("accept_reach", "own"),
            ("accept_reach", "ALL"),
            ("forward_authorization", ""),
            ("forward_authorization", "false"),
            ("forward_authorization", "True"),
        ] {
            let error = parse(&[(name, value)]).expect_err(name);
            assert!(error.starts_with(&format!("`context_extensions.{name}")), "{error}");
        }
        for name in ["company_id", "credential_id", "audience", "scopes"] {
            let error = parse(&[(name, "a"), (name, "a")]).expect_err(name);
            assert!(error.contains("is there twice"), "{error}");
        }
    }
}
