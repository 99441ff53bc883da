//! Decision observer: the interface through which a session reports its decisions, for the decision log.
//!
//! Not here: the log; see `observe::decision_log`.

use std::sync::Arc;

use super::request_context::RequestContext;
use crate::policy::caller::Caller;
use crate::policy::decision::Verdict;
use crate::policy::query::Query;
use crate::policy::revision::Revision;

/// An observer of decisions. It is called for each check and must not block.
pub trait DecisionObserver: Send + Sync {
    /// A check of this caller was decided at this revision.
    fn decided(
        &self,
        caller: &Caller,
        context: Option<&Arc<RequestContext>>,
        query: &Query,
        verdict: &Verdict,
        revision: Revision,
    );
}
