//! Page: the page of a search that a request wants, and the token of the next one (AuthZEN section 8.2).
//!
//! A token has a digest of what the request asks. So it is accepted only for the same request.
//!
//! Not here: how a page is filled; see [`super::search`].

use super::entity::Malformed;
use super::json::Value;
use super::route::Route;
use crate::store::Incarnation;
use crate::wire::pagination::PageTokens;

/// The results of a page whose request does not say how many.
const DEFAULT_LIMIT: usize = 100;
/// The most results of a page, and the most candidates that it looks at.
pub(super) const MAX_LIMIT: usize = 1000;

/// The page that a request wants.
pub(super) struct Page {
    /// The most results.
    pub(super) limit: usize,
    /// After which candidate it begins.
    pub(super) after: Option<String>,
    tokens: PageTokens,
}

impl Page {
    /// Reads the page of a request. `searched` is the entity whose id is ignored.
    ///
    /// # Errors
    /// It is malformed, or its token is one of another request.
    pub(super) fn read(
        request: Value<'_>,
        route: &Route,
        searched: &str,
        incarnation: Incarnation,
    ) -> Result<Self, Malformed> {
        let [page] = request.members(&["page"]).unwrap_or_default();
        let [token, limit] = match page {
            None => [None, None],
            Some(page) => {
                page.members(&["token", "limit"]).ok_or_else(|| Malformed::no_object("page"))?
            }
        };
        let base = route.base.to_string();
        let mut parameters = vec![base.as_str()];
        parameters.extend(asked(request, searched));
        let tokens = PageTokens::new(incarnation, route.endpoint.path(), &parameters);
        let wrong = |field: &str, must: &str| Malformed(format!("`page.{field}` {must}"));
        let token = match token.map(Value::string) {
            None => String::new(),
            Some(Some(token)) => token.into_owned(),
            Some(None) => return Err(wrong("token", "must be a string")),
        };
        let foreign = "is not a token of this request: start again without one";
        let after = tokens.after(&token).map_err(|_| wrong("token", foreign))?;
        let limit = match limit.map(|limit| serde_json::from_str::<u64>(limit.text())) {
            None | Some(Ok(0)) => DEFAULT_LIMIT,
            Some(Ok(limit)) => usize::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
            Some(Err(_)) => return Err(wrong("limit", "must be an integer that is not negative")),
        };
        Ok(Self { limit, after, tokens })
    }

    /// The token of the page after this candidate.
    pub(super) fn token(&self, last: &str) -> String {
        self.tokens.token(last)
    }
}

/// The texts of a request that decide what is found, without the id that is searched for. They are the
/// same however the entities and their members are ordered. No text of JSON has a zero byte in it.
fn asked<'a>(request: Value<'a>, searched: &str) -> [&'a str; 8] {
    let text = |value: Option<Value<'a>>| value.map_or("", Value::text);
    let [subject, action, resource, context] =
        request.members(&["subject", "action", "resource", "context"]).unwrap_or_default();
    let entity = |name: &str, value: Option<Value<'a>>| {
        let members = value.and_then(|value| value.members(&["type", "id", "properties"]));
        let [kind, id, properties] = members.unwrap_or_default();
        let id = id.filter(|_| name != searched);
        [text(kind), text(id), text(properties)]
    };
    let [subject_type, subject_id, _] = entity("subject", subject);
    // A `type` of an action means nothing.
    let action = action.and_then(|action| action.members(&["name", "properties"]));
    let [name, action_properties] = action.unwrap_or_default().map(text);
    let [resource_type, resource_id, properties] = entity("resource", resource);
    [
        subject_type,
        subject_id,
        name,
        action_properties,
        resource_type,
        resource_id,
        properties,
        text(context),
    ]
}
