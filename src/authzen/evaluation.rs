//! Evaluation: reads one question, with the defaults of a request that has several (AuthZEN sections 6
//! and 7).

use std::sync::Arc;

use super::entity::{Action, Context, Malformed, Resource, Subject};
use super::json::Value;
use super::question::Question;

/// The entities of a request, each of which its items have unless they have their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults<'a> {
    subject: Option<Arc<Subject<'a>>>,
    action: Option<Arc<Action<'a>>>,
    resource: Option<Arc<Resource<'a>>>,
    context: Option<Context<'a>>,
}

impl<'a> Defaults<'a> {
    /// Reads the entities of an object.
    ///
    /// # Errors
    /// One of them is malformed.
    pub(super) fn read(object: Value<'a>) -> Result<Self, Malformed> {
        let members = object.members(&["subject", "action", "resource", "context"]);
        let [subject, action, resource, context] =
            members.ok_or_else(|| Malformed("must be an object".to_owned()))?;
        Ok(Self {
            subject: subject.map(Subject::read).transpose()?.map(Arc::new),
            action: action.map(Action::read).transpose()?.map(Arc::new),
            resource: resource.map(Resource::read).transpose()?.map(Arc::new),
            context: context.map(Context::read).transpose()?,
        })
    }

    /// The question of these entities, and of `others` where this one has none.
    ///
    /// # Errors
    /// An entity is missing.
    pub(super) fn question(self, others: &Self) -> Result<Question<'a>, Malformed> {
        let missing = Malformed::no_object;
        let subject = self.subject.or_else(|| others.subject.clone());
        let action = self.action.or_else(|| others.action.clone());
        let resource = self.resource.or_else(|| others.resource.clone());
        Ok(Question {
            subject: subject.ok_or_else(|| missing("subject"))?,
            action: action.ok_or_else(|| missing("action"))?,
            resource: resource.ok_or_else(|| missing("resource"))?,
            context: self.context.or(others.context).unwrap_or_default(),
        })
    }
}
