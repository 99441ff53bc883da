//! Question: what a subject, an action, a resource and a context ask: the request of a check.
//!
//! An id or a type that does not exist is denied like any other. Only what cannot be asked here is an
//! error: an id with another number of parts, a refused path, or a wrong field of the context. What cannot
//! be read is never left out of a question, because the question would be a weaker one.
//!
//! Not here: how the answer is rendered; see [`super::decision`].

use std::borrow::Cow;
use std::sync::Arc;

use super::base::{Base, SubjectIds, SubjectKind};
use super::entity::{Action, Context, Resource, Subject};
use super::json::Value;
use super::stated_token;
use crate::policy::catalog::resource::OWNER_ID;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::property::Properties;
use crate::policy::query::{self, Query, Request, Requirement, ResourceAction, RouteError};
use crate::policy::reason::Reason;
use crate::policy::scope::Scope;
use crate::wire::validate::{AskedSubject, Auds, FieldValidator, RawSubject};

/// The types of resources that every catalog has.
pub(super) const SCOPE: &str = "scope";
pub(super) const ROUTE: &str = "route";
/// The one action on a scope.
pub(super) const USE: &str = "use";
/// The value of `accept_reach` of a caller that filters by the owner itself.
const OWN: &str = "OWN";

/// How much more memory the parts of a question take than their text: the shortest property has six bytes
/// of text, and the shortest scope four.
const PROPERTIES_WEIGHT: usize = 16;
const TOKEN_WEIGHT: usize = 12;

/// Why a question cannot be asked: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotAskable(pub(super) String);

/// What one item of a request asks. Several items can share an entity.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) subject: Arc<Subject<'a>>,
    pub(super) action: Arc<Action<'a>>,
    pub(super) resource: Arc<Resource<'a>>,
    pub(super) context: Context<'a>,
}

/// The parts of questions that do not depend on the subject, the action and the resource.
#[derive(Clone, Debug)]
pub(super) struct AskedContext {
    audience: Option<Name>,
    token: Option<crate::proto::Token>,
    bearer_token: Option<String>,
    denies_own: bool,
}

impl AskedContext {
    /// Reads a context.
    ///
    /// # Errors
    /// A member has a wrong type, or is not well formed.
    pub(super) fn read(context: &Context<'_>, auds: Auds<'_>) -> Result<Self, NotAskable> {
        let string = |name: &str, value: Option<Value<'_>>| match value.map(Value::string) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.into_owned())),
            Some(None) => Err(NotAskable(format!("`context.{name}` must be a string"))),
        };
        let audience = string("audience", context.audience)?.unwrap_or_default();
        let bearer_token = string("bearer_token", context.bearer_token)?;
        let accepted = string("accept_reach", context.accept_reach)?;
        let token = context.token.map(stated_token::read).transpose().map_err(NotAskable)?;
        let mut fields = FieldValidator::default();
        let audience = fields.audience(&audience, auds);
        fields.finish(Some(())).map_err(|invalid| NotAskable(invalid.to_string()))?;
        let denies_own = accepted.as_deref() != Some(OWN);
        Ok(Self { audience, token, bearer_token, denies_own })
    }
}

/// For whom questions ask.
#[derive(Clone, Debug)]
pub(super) enum AskedFor {
    /// A credential, perhaps on behalf of a user.
    Ids(CompanyId, CredentialId, Option<UserId>),
    /// What no credential or user can be.
    Unknown(Reason),
}

impl AskedFor {
    /// Reads a subject.
    ///
    /// # Errors
    /// The id has another number of parts.
    pub(super) fn read(base: &Base, subject: &Subject<'_>) -> Result<Self, NotAskable> {
        let Some(kind) = SubjectKind::of(&subject.kind) else {
            return Ok(Self::Unknown(Reason::CredentialUnknown));
        };
        let ids = base.subject(kind, &subject.id).map_err(|form| {
            NotAskable(format!("`subject.id` must have the form {form} at this URL"))
        })?;
        Ok(Self::of(ids))
    }

    fn of(SubjectIds { company, credential, user }: SubjectIds<'_>) -> Self {
        let Ok(company) = CompanyId::parse(company) else {
            return Self::Unknown(Reason::CompanyUnknown);
        };
        let Some(Ok(credential)) = credential.map(CredentialId::parse) else {
            return Self::Unknown(Reason::CredentialUnknown);
        };
        match user.map(UserId::parse).transpose() {
            Ok(user) => Self::Ids(company, credential, user),
            Err(_) => Self::Unknown(Reason::UserUnknown),
        }
    }
}

/// The text of the company that a subject names, if its id has the right form. It may be no id.
pub(super) fn named_company<'a>(base: &'a Base, subject: &'a Subject<'_>) -> Option<&'a str> {
    let kind = SubjectKind::of(&subject.kind)?;
    base.subject(kind, &subject.id).ok().map(|ids| ids.company)
}

/// What is asked of a resource.
#[derive(Clone, Debug)]
pub(super) struct AskedOf {
    pub(super) needs: Requirement,
    pub(super) owner: Option<UserId>,
}

impl AskedOf {
    /// Reads an action and a resource.
    ///
    /// # Errors
    /// The path is refused, or the owner is no user id.
    pub(super) fn read(action: &Action<'_>, resource: &Resource<'_>) -> Result<Self, NotAskable> {
        let owner = resource.properties.and_then(|properties| {
            let [owner] = properties.members(&[OWNER_ID]).unwrap_or_default();
            owner
        });
        let owner = owner.map(|owner| {
            let text = owner.string().map(Cow::into_owned);
            let wrong = |why: &str| NotAskable(format!("`resource.properties.{OWNER_ID}` {why}"));
            let text = text.ok_or_else(|| wrong("must be a string"))?;
            UserId::parse(text).map_err(|error| wrong(&error.to_string()))
        });
        Ok(Self { owner: owner.transpose()?, needs: needs(action, resource)? })
    }
}

fn needs(action: &Action<'_>, resource: &Resource<'_>) -> Result<Requirement, NotAskable> {
    let wrong = |error: &RouteError| NotAskable(format!("`resource.id`: {error}"));
    match (&*resource.kind, &*action.name) {
        // A text that is no scope is one that the catalog does not have: a check of no scope is denied.
        (SCOPE, USE) => {
            Ok(Requirement::Scopes(Scope::parse(resource.id.clone()).into_iter().collect()))
        }
        (ROUTE, method) => match Requirement::route(method, &resource.id) {
            Ok(needs) => Ok(needs),
            // A call of such a method has no endpoint.
            Err(RouteError::Method) => Ok(unknown(action, resource)),
            Err(error) => Err(wrong(&error)),
        },
        (SCOPE, _) => Ok(unknown(action, resource)),
        _ => {
            let properties = |value: Option<Value<'_>>| match value {
                None => Ok(Properties::default()),
                Some(value) => Properties::parse(value.text())
                    .map_err(|_| NotAskable("the properties cannot be read".to_owned())),
            };
            Ok(Requirement::Resource(Box::new(ResourceAction {
                kind: (&*resource.kind).into(),
                id: (&*resource.id).into(),
                action: (&*action.name).into(),
                resource: properties(resource.properties)?,
                action_properties: properties(action.properties)?,
            })))
        }
    }
}

/// An action on a type that no catalog can declare.
fn unknown(action: &Action<'_>, resource: &Resource<'_>) -> Requirement {
    Requirement::Resource(Box::new(ResourceAction {
        kind: (&*resource.kind).into(),
        id: (&*resource.id).into(),
        action: (&*action.name).into(),
        ..ResourceAction::default()
    }))
}

/// The request of a check.
///
/// # Errors
/// A field of the token is not well formed, or the context has both a token and a bearer token.
pub(super) fn request(
    asked_for: &AskedFor,
    asked_of: AskedOf,
    context: &AskedContext,
) -> Result<Request, NotAskable> {
    let AskedOf { needs, owner } = asked_of;
    let AskedContext { audience, token, bearer_token, denies_own } = context;
    let (company, credential, user) = match asked_for {
        AskedFor::Ids(company, credential, user) => {
            (company.to_string(), credential.to_string(), user.clone())
        }
        // Only the token is read.
        AskedFor::Unknown(_) => ("-".to_owned(), "-".to_owned(), None),
    };
    let mut fields = FieldValidator::default();
    let subject = fields.subject(RawSubject {
        company,
        credential,
        token: token.clone(),
        bearer_token: bearer_token.clone(),
        authorization: None,
    });
    let subject = fields.finish(subject).map_err(|invalid| {
        let of_context = invalid.to_string();
        NotAskable(format!("the context is malformed: {of_context}"))
    })?;
    let mut request: Request = match asked_for {
        AskedFor::Ids(..) => AskedSubject::request(subject, needs, audience.clone(), user, owner),
        AskedFor::Unknown(reason) => Query {
            subject: query::Subject::Unproven((*reason).into()),
            needs,
            audience: audience.clone(),
            token: None,
            user: None,
            owner,
            denies_own: *denies_own,
        }
        .into(),
    };
    request.query.denies_own = *denies_own;
    Ok(request)
}

impl Question<'_> {
    /// The request of a check.
    ///
    /// # Errors
    /// The question cannot be asked.
    pub(super) fn request(&self, base: &Base, auds: Auds<'_>) -> Result<Request, NotAskable> {
        let asked_for = AskedFor::read(base, &self.subject)?;
        let asked_of = AskedOf::read(&self.action, &self.resource)?;
        request(&asked_for, asked_of, &AskedContext::read(&self.context, auds)?)
    }

    /// About how many bytes of memory its request takes.
    pub(super) fn weight(&self) -> usize {
        let Self { subject, action, resource, context } = self;
        let ids = subject.id.len() + resource.kind.len() + resource.id.len() + action.name.len();
        ids + properties_weight(action.properties, resource.properties) + context_weight(context)
    }
}

/// About how many bytes of memory these properties take.
pub(super) fn properties_weight(action: Option<Value<'_>>, resource: Option<Value<'_>>) -> usize {
    (length(action) + length(resource)) * PROPERTIES_WEIGHT
}

/// About how many bytes of memory what is asked with this context takes more.
pub(super) fn context_weight(context: &Context<'_>) -> usize {
    length(context.token) * TOKEN_WEIGHT + length(context.bearer_token)
}

fn length(value: Option<Value<'_>>) -> usize {
    value.map_or(0, |value| value.text().len())
}
