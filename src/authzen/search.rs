//! Search: finds the subjects, the resources or the actions for which an evaluation is allowed (AuthZEN
//! section 8).
//!
//! A page decides its candidates as evaluations are decided, at one revision. A candidate is only an id,
//! so it does not matter at which revision it was read.
//!
//! Not here: how a check is decided; see [`crate::authority::batch`].

use std::collections::BTreeSet;

use serde::Serialize;

use super::base::{Base, CREDENTIAL, SubjectKind, USER};
use super::entity::{Action, Context, Malformed, Resource, Subject};
use super::json::Value;
use super::page::{MAX_LIMIT, Page};
use super::question::{
    AskedContext, AskedFor, AskedOf, ROUTE, SCOPE, USE, context_weight, named_company,
    properties_weight, request,
};
use super::refusal::Refusal;
use super::route::{Endpoint, Route};
use crate::authority::Session;
use crate::authority::error::AuthorityError;
use crate::policy::catalog::Catalog;
use crate::policy::id::{CompanyId, CredentialId, IdError, UserId};
use crate::policy::query::{Request, Requirement};
use crate::store::Incarnation;
use crate::wire::validate::Auds;

/// The method that is answered by that of `GET` where the catalog does not declare it (D20).
const HEAD: &str = "HEAD";
const GET: &str = "GET";

/// What a search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searched {
    /// Credentials of the base's company.
    Credentials,
    /// Users of the base's company, who call by the base's credential.
    Users,
    /// Subjects of a type that there is none of.
    NoSubject,
    /// Resources of a type.
    Resources,
    /// Actions on a resource.
    Actions,
}

/// A request for a search.
pub(super) struct Search<'a> {
    route: &'a Route,
    pub(super) searched: Searched,
    subject: Subject<'a>,
    /// The action; in a search for actions it is found.
    action: Option<Action<'a>>,
    resource: Resource<'a>,
    context: Context<'a>,
    page: Page,
}

/// The results of a search.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    results: Vec<FoundEntity>,
    page: NextPage,
}

/// A subject or a resource, or an action.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FoundEntity {
    Entity {
        #[serde(rename = "type")]
        kind: String,
        id: String,
    },
    Action {
        name: String,
    },
}

#[derive(Debug, Default, Serialize)]
struct NextPage {
    next_token: String,
}

/// The candidates of a page, and whether there are more behind them.
#[derive(Default)]
struct Candidates {
    ids: Vec<String>,
    more: bool,
}

impl<'a> Search<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// It is malformed, or the base URL has no subjects of the type.
    pub(super) fn read(
        value: Value<'a>,
        route: &'a Route,
        incarnation: Incarnation,
    ) -> Result<Self, Malformed> {
        let members = value.members(&["subject", "action", "resource", "context"]);
        let [subject, action, resource, context] = members.unwrap_or_default();
        let missing = Malformed::no_object;
        let subject = subject.ok_or_else(|| missing("subject"))?;
        let resource = resource.ok_or_else(|| missing("resource"))?;
        let action = match route.endpoint {
            Endpoint::SearchAction => None,
            _ => Some(Action::read(action.ok_or_else(|| missing("action"))?)?),
        };
        let (subject, name) = match route.endpoint {
            Endpoint::SearchSubject => (Subject::read_type(subject)?, "subject"),
            Endpoint::SearchResource => (Subject::read(subject)?, "resource"),
            _ => (Subject::read(subject)?, "action"),
        };
        let resource = match route.endpoint {
            Endpoint::SearchResource => Resource::read_type(resource)?,
            _ => Resource::read(resource)?,
        };
        let searched = match route.endpoint {
            Endpoint::SearchSubject => searched_subjects(&route.base, &subject)?,
            Endpoint::SearchResource => Searched::Resources,
            _ => Searched::Actions,
        };
        let context = context.map(Context::read).transpose()?.unwrap_or_default();
        let page = Page::read(value, route, name, incarnation)?;
        Ok(Self { route, searched, subject, action, resource, context, page })
    }

    /// The company that the request names, if it names one. The text may be no id.
    pub(super) fn company(&self) -> Option<&str> {
        match self.searched {
            Searched::Resources | Searched::Actions => {
                named_company(&self.route.base, &self.subject)
            }
            _ => None,
        }
    }

    /// About how many bytes of memory the requests of a page take beside their ids.
    pub(super) fn weight(&self) -> usize {
        let action = self.action.as_ref().and_then(|action| action.properties);
        let one = properties_weight(action, self.resource.properties)
            + context_weight(&self.context)
            + self.resource.id.len()
            + self.action.as_ref().map_or(0, |action| action.name.len());
        one.saturating_mul(MAX_LIMIT)
    }

    /// Finds a page.
    ///
    /// # Errors
    /// The store cannot answer.
    pub(super) async fn find(self, session: &Session<'_>) -> Result<Found, Refusal> {
        let context = {
            let auds: Auds<'_> = &|aud| session.audience_by_aud(aud);
            AskedContext::read(&self.context, auds)
        };
        // No evaluation with this context is allowed.
        let Ok(context) = context else { return Ok(Found::nothing()) };
        let candidates = self.candidates(session).await?;
        let requests = candidates.ids.iter().map(|id| self.request(id, &context));
        let requests: Option<Vec<Request>> = requests.collect();
        let Some(mut requests) = requests else { return Ok(Found::nothing()) };
        let allowed = session.find_allowed(&mut requests, self.page.limit).await?;
        let looked_at = candidates.ids.get(..allowed.len()).unwrap_or_default();
        let next_token = match looked_at.last() {
            Some(last) if candidates.more || looked_at.len() < candidates.ids.len() => {
                self.page.token(last)
            }
            _ => String::new(),
        };
        let found = looked_at.iter().zip(allowed).filter(|(_, is_allowed)| *is_allowed);
        let results = found.map(|(id, _)| self.found(id)).collect();
        Ok(Found { results, page: NextPage { next_token } })
    }

    fn found(&self, id: &str) -> FoundEntity {
        let entity = |kind: &str| FoundEntity::Entity { kind: kind.to_owned(), id: id.to_owned() };
        match self.searched {
            Searched::Credentials => entity(CREDENTIAL),
            Searched::Users | Searched::NoSubject => entity(USER),
            Searched::Resources => entity(&self.resource.kind),
            Searched::Actions => FoundEntity::Action { name: id.to_owned() },
        }
    }

    /// The request of the evaluation with this candidate; none if it cannot be asked.
    fn request(&self, candidate: &str, context: &AskedContext) -> Option<Request> {
        let asked_for = match self.searched {
            Searched::Resources | Searched::Actions => {
                AskedFor::read(&self.route.base, &self.subject)
            }
            _ => {
                let (kind, id) = (self.subject.kind.clone(), candidate.into());
                AskedFor::read(&self.route.base, &Subject { kind, id })
            }
        };
        let asked_of = match (self.searched, &self.action) {
            (Searched::Actions, _) | (_, None) => {
                let action = Action { name: candidate.into(), properties: None };
                AskedOf::read(&action, &self.resource)
            }
            (Searched::Resources, Some(action)) => {
                let id = candidate.into();
                AskedOf::read(action, &Resource { id, ..self.resource.clone() })
            }
            (_, Some(action)) => AskedOf::read(action, &self.resource),
        };
        request(&asked_for.ok()?, asked_of.ok()?, context).ok()
    }

    /// The candidates after the page's beginning, in their order.
    async fn candidates(&self, session: &Session<'_>) -> Result<Candidates, Refusal> {
        match self.searched {
            Searched::NoSubject => Ok(Candidates::default()),
            Searched::Credentials | Searched::Users => self.subjects(session).await,
            Searched::Resources => {
                let catalog = session.catalog().await?.resource;
                Ok(self.resources(&catalog))
            }
            Searched::Actions => {
                let catalog = session.catalog().await?.resource;
                Ok(self.first_after(self.actions(&catalog).into_iter()))
            }
        }
    }

    async fn subjects(&self, session: &Session<'_>) -> Result<Candidates, Refusal> {
        let Some(company) = self.route.base.company() else { return Ok(Candidates::default()) };
        let listed = match self.searched {
            Searched::Credentials => {
                credentials(session, company, self.after(CredentialId::parse)?).await
            }
            _ => users(session, company, self.after(UserId::parse)?).await,
        };
        match listed {
            Err(AuthorityError::CompanyNotFound(_)) => Ok(Candidates::default()),
            listed => Ok(listed?),
        }
    }

    /// The id after which the page begins.
    fn after<T>(
        &self,
        parse: impl FnOnce(String) -> Result<T, IdError>,
    ) -> Result<Option<T>, Refusal> {
        let after = self.page.after.clone().map(parse).transpose();
        after.map_err(|_| Refusal::malformed("`page.token` is not a token of this request"))
    }

    fn resources(&self, catalog: &Catalog) -> Candidates {
        let Some(action) = &self.action else { return Candidates::default() };
        match (&*self.resource.kind, &*action.name) {
            (SCOPE, USE) => {
                let names: BTreeSet<_> = catalog
                    .scope_ids()
                    .filter_map(|id| catalog.name(id))
                    .map(ToString::to_string)
                    .collect();
                self.first_after(names.into_iter())
            }
            (SCOPE, _) => Candidates::default(),
            (ROUTE, method) => {
                let after = self.page.after.as_deref();
                let of = |method| {
                    catalog.routes_of(method, after).map(|(template, _)| template.to_owned())
                };
                if method != HEAD {
                    return self.first_after(of(method));
                }
                // One more than a page of each, in the order of both.
                let both = of(HEAD).take(MAX_LIMIT + 1).chain(of(GET).take(MAX_LIMIT + 1));
                self.first_after(both.collect::<BTreeSet<_>>().into_iter())
            }
            (kind, _) => {
                let known = catalog.resource_type(kind).and_then(|kind| kind.known.as_ref());
                let known = known.into_iter().flatten();
                self.first_after(known.map(|(id, _)| id.to_string()))
            }
        }
    }

    /// The actions of the resource that the catalog declares, sorted.
    fn actions(&self, catalog: &Catalog) -> BTreeSet<String> {
        match &*self.resource.kind {
            SCOPE => BTreeSet::from([USE.to_owned()]),
            ROUTE => {
                let declared = |method: &&str| {
                    // A `HEAD` that the endpoint of `GET` answers is not declared.
                    *method != HEAD || is_declared_head(catalog, &self.resource.id)
                };
                catalog.methods().into_iter().filter(declared).map(ToOwned::to_owned).collect()
            }
            kind => {
                let kind = catalog.resource_type(kind);
                let actions = kind.into_iter().flat_map(|kind| kind.actions.keys());
                actions.map(ToString::to_string).collect()
            }
        }
    }

    /// The first of these sorted candidates after the page's beginning.
    fn first_after(&self, sorted: impl Iterator<Item = String>) -> Candidates {
        let after = self.page.after.as_ref();
        let mut behind = sorted.skip_while(|id| after.is_some_and(|after| id <= after));
        let ids = behind.by_ref().take(MAX_LIMIT).collect();
        Candidates { ids, more: behind.next().is_some() }
    }
}

impl Found {
    fn nothing() -> Self {
        Self { results: vec![], page: NextPage::default() }
    }
}

/// The subjects that a search looks for at this URL.
fn searched_subjects(base: &Base, subject: &Subject<'_>) -> Result<Searched, Malformed> {
    match (SubjectKind::of(&subject.kind), base) {
        (None, _) => Ok(Searched::NoSubject),
        (Some(SubjectKind::Credential), Base::Company(_)) => Ok(Searched::Credentials),
        (Some(SubjectKind::User), Base::Credential(..)) => Ok(Searched::Users),
        (Some(SubjectKind::Credential), _) => Err(Malformed(
            "credentials are searched for at the URL of a company: /companies/COMPANY".to_owned(),
        )),
        (Some(SubjectKind::User), _) => Err(Malformed(
            "users are searched for at the URL of a credential: \
             /companies/COMPANY/credentials/CREDENTIAL"
                .to_owned(),
        )),
    }
}

/// Whether a `HEAD` on this route has an endpoint of its own.
fn is_declared_head(catalog: &Catalog, route: &str) -> bool {
    let endpoint = |method| match Requirement::route(method, route).ok()? {
        Requirement::Endpoint { method, path } => catalog.endpoint(&method, &path),
        Requirement::Template { method, template } => {
            catalog.endpoint_of_template(&method, &template)
        }
        _ => None,
    };
    match (endpoint(HEAD), endpoint(GET)) {
        (Some(head), Some(get)) => !std::ptr::eq(head, get),
        (head, _) => head.is_some(),
    }
}

async fn credentials(
    session: &Session<'_>,
    company: &CompanyId,
    after: Option<CredentialId>,
) -> Result<Candidates, AuthorityError> {
    let page = session.credentials(company, None, after, MAX_LIMIT).await?;
    let ids = page.items.iter().map(|(view, _)| view.credential.id.to_string()).collect();
    Ok(Candidates { ids, more: page.more })
}

async fn users(
    session: &Session<'_>,
    company: &CompanyId,
    after: Option<UserId>,
) -> Result<Candidates, AuthorityError> {
    let page = session.users(company, after, MAX_LIMIT).await?;
    let ids = page.items.iter().map(|(user, _)| user.id.to_string()).collect();
    Ok(Candidates { ids, more: page.more })
}
