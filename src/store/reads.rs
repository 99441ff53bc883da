//! Reads: facts, lists and changes of a store, as they are in the engine.
//!
//! A read may see a batch that is not durable yet; see
//! [`before_apply`](super::CommitObserver::before_apply).

use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::engine::{EngineError, Entries, Entry};
use super::{
    Fact, FactKey, Minute, RequestKey, Store, StoreError, StoredResult, chunked, key, open, record,
};
use crate::policy::change::Change;
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::token::own::TokenEpoch;
use crate::policy::user::User;

/// The id at the end of a key, and the value.
type Listed = (Box<str>, Vec<u8>);

impl Store {
    /// Reads one fact. The fact may not be durable yet; see
    /// [`before_apply`](super::CommitObserver::before_apply).
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn get(&self, key: &FactKey) -> Result<Option<Fact>, StoreError> {
        let entry_key = key.bytes();
        loop {
            let Some(stored) = self.engine.get(&entry_key)? else { return Ok(None) };
            if let Some((revision, bytes)) = chunked::read(&stored, &*self.engine)? {
                return Ok(Some(self.decode(key, revision, &bytes)?));
            }
            // A chunk is missing: the value was replaced meanwhile, or it is corrupt.
            if self.engine.get(&entry_key)?.as_ref() == Some(&stored) {
                return Err(StoreError::Damaged);
            }
        }
    }

    /// What happened to the whole store that ends tokens. It does not change while the store is open.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn token_epoch(&self) -> Result<TokenEpoch, StoreError> {
        let restored = open::number(&*self.engine, key::RESTORED)?;
        let restored = restored.map(|time| {
            let time = i64::try_from(time).map_err(|_| StoreError::Damaged)?;
            Timestamp::from_millisecond(time).map_err(|_| StoreError::Damaged)
        });
        Ok(TokenEpoch {
            incarnation: self.incarnation,
            own_before: self.clock_accepted.map_or(Revision::ZERO, |(revision, _)| revision),
            issued_before: restored.transpose()?,
        })
    }

    /// Companies after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn companies(
        &self,
        after: Option<&CompanyId>,
        limit: usize,
    ) -> Result<Vec<Company>, StoreError> {
        let mut results = Vec::new();
        for (id, stored) in self.scan(&key::companies(), after.map(CompanyId::as_str), limit)? {
            let id = CompanyId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::Company(company)) = self.fact(&FactKey::Company(id), &stored)? {
                results.push(Arc::unwrap_or_clone(company));
            }
        }
        Ok(results)
    }

    /// Credentials of a company after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn credentials(
        &self,
        company: Revision,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<Credential>, StoreError> {
        let mut results = Vec::new();
        let prefix = key::credentials(company);
        for (id, stored) in self.scan(&prefix, after.map(CredentialId::as_str), limit)? {
            let id = CredentialId::parse(id).map_err(|_| StoreError::Damaged)?;
            let fact = self.fact(&FactKey::Credential(company, id), &stored)?;
            if let Some(Fact::Credential(credential)) = fact {
                results.push(Arc::unwrap_or_clone(credential));
            }
        }
        Ok(results)
    }

    /// The ids of credentials of a company that have a grant of this scope in any state, after this
    /// id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn holders(
        &self,
        company: Revision,
        scope: ScopeId,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<CredentialId>, StoreError> {
        let results =
            self.scan(&key::holders(company, scope), after.map(CredentialId::as_str), limit)?;
        results
            .into_iter()
            .map(|(id, _)| CredentialId::parse(id).map_err(|_| StoreError::Damaged))
            .collect()
    }

    /// Users of a company after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn users(
        &self,
        company: Revision,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<User>, StoreError> {
        let mut results = Vec::new();
        for (id, stored) in self.scan(&key::users(company), after.map(UserId::as_str), limit)? {
            let id = UserId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::User(user)) = self.fact(&FactKey::User(company, id), &stored)? {
                results.push(Arc::unwrap_or_clone(user));
            }
        }
        Ok(results)
    }

    /// Changes after one revision up to another, of one company or of all, in order and without a
    /// gap.
    ///
    /// # Errors
    /// The engine cannot answer, or garbage collection may have removed one of the changes.
    pub fn changes(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        self.changes_at(self.changes_between(company, after, up_to).take(limit), after)
    }

    /// As [`Self::changes`], in descending order.
    ///
    /// # Errors
    /// The engine cannot answer, or garbage collection may have removed one of the changes.
    pub fn changes_back(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        self.changes_at(self.changes_between(company, after, up_to).rev().take(limit), after)
    }

    /// The stored result of a request, if it was committed. It may not be durable yet; see
    /// [`before_apply`](super::CommitObserver::before_apply).
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn answered(&self, request: &RequestKey) -> Result<Option<StoredResult>, StoreError> {
        let stored = self.engine.get(&key::reply(request))?;
        // If the result expires between the two reads, it is not found.
        let Some(stored) = stored else { return Ok(None) };
        let Some((revision, bytes)) = chunked::read(&stored, &*self.engine)? else {
            return Ok(None);
        };
        Ok(Some(record::decode_result(revision, &bytes)?))
    }

    /// The minute in which the credential of this creation revision was last used, as far as it was
    /// stored.
    ///
    /// # Errors
    /// The engine cannot answer.
    pub fn last_seen(&self, credential: Revision) -> Result<Option<Minute>, StoreError> {
        let stored = self.engine.get(&key::seen(credential))?;
        stored
            .map(|bytes| bytes.try_into().map(Minute::from_be_bytes))
            .transpose()
            .map_err(|_| StoreError::Damaged)
    }

    /// The ids after `after` under a prefix, with their values.
    fn scan(
        &self,
        prefix: &key::Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut results = Vec::new();
        // The key after `x` is `x\0`: no id has that byte.
        let start = match after {
            Some(id) => [&prefix.last_of(id), "\0".as_bytes()].concat(),
            None => prefix.bytes().to_vec(),
        };
        for entry in self.engine.range(Bound::Included(&start), Bound::Unbounded) {
            let (key, value) = entry?;
            let Some(id) = key.starts_with(prefix.bytes()).then(|| prefix.id(&key)) else {
                break;
            };
            if results.len() == limit {
                break;
            }
            results.push((id.ok_or(StoreError::Damaged)?.into(), value));
        }
        Ok(results)
    }

    /// The change of this revision.
    fn change(&self, revision: Revision) -> Result<Change, StoreError> {
        if let Some(stored) = self.engine.get(&key::change(revision))?
            && let Some((_, bytes)) = chunked::read(&stored, &*self.engine)?
        {
            return Ok(record::decode_change(revision, &bytes)?);
        }
        match self.compacted_to()? {
            compacted if compacted >= revision => Err(StoreError::Compacted(compacted)),
            _ => Err(StoreError::Damaged),
        }
    }

    /// The changes of these index entries, all of which are after a revision.
    fn changes_at(
        &self,
        entries: impl Iterator<Item = Result<Entry, EngineError>>,
        after: Revision,
    ) -> Result<Vec<Change>, StoreError> {
        let mut results = Vec::new();
        for entry in entries {
            let (entry_key, _) = entry?;
            let revision = key::revision_at_end(&entry_key).ok_or(StoreError::Damaged)?;
            results.push(self.change(revision)?);
        }
        // Read after the changes (no silent gap).
        let compacted = self.compacted_to()?;
        if compacted > after { Err(StoreError::Compacted(compacted)) } else { Ok(results) }
    }

    /// The last revision whose change garbage collection removed.
    fn compacted_to(&self) -> Result<Revision, StoreError> {
        Ok(Revision(open::number(&*self.engine, key::COMPACTED)?.unwrap_or(0)))
    }

    /// The fact with these bytes. Credentials and signing keys from before an operator set the time back
    /// are read as if they had been changed then.
    fn decode(&self, key: &FactKey, revision: Revision, bytes: &[u8]) -> Result<Fact, StoreError> {
        let mut fact = record::decode(key, revision, bytes)?;
        if let Some((_, time)) = self.clock_accepted.filter(|(accepted, _)| revision < *accepted) {
            match &mut fact {
                Fact::Credential(credential) => {
                    Arc::make_mut(credential).revoked_tokens.accept_clock(time);
                }
                Fact::SigningKeys(keys) => Arc::make_mut(keys).accept_clock(time),
                _ => {}
            }
        }
        Ok(fact)
    }

    fn fact(&self, key: &FactKey, stored: &[u8]) -> Result<Option<Fact>, StoreError> {
        match chunked::read(stored, &*self.engine)? {
            Some((revision, bytes)) => Ok(Some(self.decode(key, revision, &bytes)?)),
            // A chunk is missing: the value was replaced after `stored` was read.
            None => self.get(key),
        }
    }

    /// The index entries of the changes after one revision and up to another.
    fn changes_between(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
    ) -> Entries<'_> {
        let key = |revision| match company {
            Some(id) => key::change_of(id, revision),
            None => key::change(revision),
        };
        if after >= up_to {
            return Box::new(std::iter::empty());
        }
        let (first, last) = (key(after.next()), key(up_to));
        self.engine.range(Bound::Included(&first), Bound::Included(&last))
    }
}
