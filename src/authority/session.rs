//! Session: one caller's use of the authority. Every check, read and change goes through it.
//!
//! Not here: how a transport finds the caller; see [`super::admission`]. The transactions of a session
//! are in [`super::transaction`].

use std::sync::Arc;

use tokio::time::Instant;

use super::Authority;
use super::error::AuthorityError;
use super::replica_waits::ReplicaWaits;
use super::request_context::RequestContext;
use crate::policy::caller::Caller;
use crate::policy::change::Author;
use crate::policy::id::Name;
use crate::store::Incarnation;
use crate::store::backup::Backup;
use crate::store::replicated::replica_list::ReplicaList;
use crate::store::replicated::{ReplicaError, Waited};

/// One caller's use of the authority.
#[derive(Clone)]
pub struct Session<'a> {
    pub(super) authority: &'a Authority,
    pub(super) caller: Caller,
    /// The actor in the audit log, if it is not the caller's own name.
    actor: Option<&'a str>,
    /// The request that the call serves, for the logs.
    pub(super) context: Option<&'a Arc<RequestContext>>,
    /// When the call must be answered, if its caller said so.
    pub(super) deadline: Option<Instant>,
    /// Where it is noted for which replicas the call waits.
    waits: Option<&'a ReplicaWaits>,
}

impl Authority {
    /// A session of this caller.
    #[must_use]
    pub fn session(&self, caller: Caller) -> Session<'_> {
        Session { authority: self, caller, actor: None, context: None, deadline: None, waits: None }
    }

    /// A session of the program itself. The audit log names this actor.
    #[must_use]
    pub fn internal_session<'a>(&'a self, actor: &'a str) -> Session<'a> {
        let (caller, actor) = (Caller::Internal, Some(actor));
        Session { authority: self, caller, actor, context: None, deadline: None, waits: None }
    }
}

impl<'a> Session<'a> {
    /// The same session, for a call that is part of this request.
    #[must_use]
    pub fn of_request(self, context: Option<&'a Arc<RequestContext>>) -> Self {
        Self { context, ..self }
    }

    /// The same session, for a call that must be answered by this time.
    #[must_use]
    pub fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }

    /// The same session, for a call that notes here for which replicas it waits.
    #[must_use]
    pub fn noting_waits(self, waits: &'a ReplicaWaits) -> Self {
        Self { waits: Some(waits), ..self }
    }

    /// The log and all records of the cluster; none if this process is not one of several replicas.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn replicas(&self) -> Option<Result<ReplicaList, ReplicaError>> {
        match self.authority.replica() {
            Some(replica) => Some(replica.list().await),
            None => None,
        }
    }

    /// Notes for which replicas the call waited.
    pub(super) fn note_wait(&self, waited: Option<Waited>) {
        if let (Some(waits), Some(waited)) = (self.waits, waited) {
            waits.note(waited);
        }
    }

    /// The caller.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The audience whose `aud` list has this string.
    #[must_use]
    pub fn audience_by_aud(&self, aud: &str) -> Option<Name> {
        self.authority.audience_by_aud(aud)
    }

    /// The store's incarnation, which page tokens carry.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.authority.incarnation()
    }

    /// Whether the caller is still authenticated as it was when its call began.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.authority.is_current(&self.caller)
    }

    /// Waits until the caller is no longer authenticated as it was when its call began.
    pub async fn wait_revoked(&self) {
        self.authority.wait_revoked(&self.caller).await;
    }

    /// Begins a backup of the whole store. Changes continue meanwhile.
    ///
    /// # Errors
    /// The store cannot answer, or the limit of concurrent backups is reached.
    pub async fn backup(&self) -> Result<Backup, AuthorityError> {
        Ok(self.authority.facts.read(|store| store.backup()).await?)
    }

    /// The author of a change, for the audit log (D18).
    pub(super) fn author(&self, reason: &str, on_behalf_of: &str) -> Author {
        Author {
            actor: self.actor.unwrap_or(self.caller.name()).to_owned(),
            on_behalf_of: on_behalf_of.to_owned(),
            reason: reason.to_owned(),
        }
    }
}
