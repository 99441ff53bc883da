//! EtcdLog: the log in etcd, as the writer of a replica commits to it.
//!
//! A commit is one transaction. It compares the head with the one that this store has applied, and puts
//! the next head and the entry. Only one of several replicas can win, so the log has one order.
//!
//! INVARIANT (no answer is no answer): a transaction without an answer may have been carried out, or may
//! be later. The log is read until it says which, and meanwhile only the same transaction is sent again.
//! The head has the hash of the entry, so no value of it comes back, and only one of them can succeed.
//!
//! Not here: how other entries come into the store (`follower`), and when a change is published
//! everywhere (`barrier`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::etcd::{Client, Compare, EtcdError, Operation, Pair, Range, RangeAnswer, Txn};
use super::head::Head;
use super::log_page::{self, LogPage, PageError};
use super::member_record::MemberRecord;
use super::members_task::BarrierHandle;
use super::truncation::{LogMark, Truncation};
use super::{EntryLog, EntryOutcome, LogError, LogMetrics, NewEntry, Waited, Waiter, keys};
use crate::metrics::machine_time;
use crate::policy::revision::Revision;
use crate::store::command_queue::CommandReply;
use crate::store::{Receipt, StoreError};

/// How long a commit waits for an answer. etcd's own limit is 7 s.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause before etcd is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the writer does what cannot wait, while etcd is asked.
const MEANWHILE: Duration = Duration::from_millis(20);

/// The log in etcd.
pub(super) struct EtcdLog {
    pub(super) client: Arc<Client>,
    /// The runtime that drives the connections of the client.
    pub(super) runtime: Handle,
    pub(super) cluster: Uuid,
    /// The format of the last head that was seen. It only becomes later.
    pub(super) format: u32,
    /// The head that this store has applied, with its bytes in etcd; none if it is not known.
    pub(super) head: Option<(Head, Bytes)>,
    /// The own session.
    pub(super) session: watch::Receiver<Option<Uuid>>,
    /// Where it is told that the log and the store have parted.
    pub(super) parted: watch::Sender<Option<LogError>>,
    /// Where changes wait until every replica has published them.
    pub(super) barrier: BarrierHandle,
    pub(super) metrics: Arc<LogMetrics>,
    /// The entries that this writer has committed, by which the log is truncated.
    pub(super) truncation: Truncation,
    /// What each session had published at the last commit.
    pub(super) published: Vec<Revision>,
}

/// Callers that wait until their changes are published everywhere.
struct Callers(Vec<(CommandReply, Receipt)>);

impl Waiter for Callers {
    fn is_closed(&self) -> bool {
        self.0.iter().all(|(reply, _)| reply.is_closed())
    }

    fn end(self: Box<Self>, result: Result<Waited, StoreError>) {
        for (reply, receipt) in self.0 {
            let at = Some(receipt.revision);
            let result = match &result {
                Ok(waited) => Ok(Receipt { waited: Some(waited.clone()), ..receipt }),
                Err(StoreError::NotYetEverywhere(_)) => Err(StoreError::NotYetEverywhere(at)),
                Err(error) => Err(error.clone()),
            };
            reply.send(result.map_err(Into::into)).ok();
        }
    }
}

/// Tells that the log and the store have parted, and why first.
pub(super) fn part(parted: &watch::Sender<Option<LogError>>, error: LogError) {
    parted.send_if_modified(|parted| {
        let is_first = parted.is_none();
        parted.get_or_insert(error);
        is_first
    });
}

impl EtcdLog {
    /// Commits an entry. It ends when the outcome is known.
    async fn commit(&mut self, entry: &NewEntry) -> EntryOutcome {
        let mut is_in_doubt = false;
        loop {
            let head = self.head.take().filter(|(head, _)| head.position() == entry.before);
            let Some((head, head_bytes)) = head else {
                let page = LogPage::read(&self.client, self.cluster, entry.before, ANSWER).await;
                match page {
                    Ok(page) => match self.place(entry, page) {
                        Some(Placed::Own) => return self.committed().await,
                        Some(Placed::Others(outcome)) => return outcome,
                        None => {}
                    },
                    Err(PageError::Log(error)) => return self.part(error, is_in_doubt),
                    Err(PageError::Etcd(error)) if error.is_certain() && !is_in_doubt => {
                        return refused(&error);
                    }
                    Err(PageError::Etcd(error)) => self.pause(&error).await,
                }
                continue;
            };
            let mut next = head.after(entry);
            let truncated_to = self.truncated_to(&next);
            if let Some(mark) = truncated_to {
                next.truncated_bytes = mark.bytes;
            }
            let next_bytes = Bytes::from(next.encode());
            let (head_key, entry_bytes) = (keys::HEAD.to_owned(), Bytes::from(entry.bytes.clone()));
            let mut txn = Txn {
                compares: vec![Compare::Is(head_key.clone(), head_bytes)],
                then: vec![
                    Operation::Put(head_key, next_bytes.clone()),
                    Operation::Put(keys::entry(next.seq), entry_bytes),
                    Operation::Range(Range::under(keys::MEMBERS)),
                ],
                or_else: log_page::ranges(entry.before).to_vec(),
            };
            txn.then
                .extend(truncated_to.map(|mark| Operation::Delete(keys::entries_up_to(mark.seq))));
            match self.client.txn(&txn, ANSWER).await {
                Ok(answer) if answer.succeeded => {
                    self.metrics.set_head(&next);
                    let Head { seq, revision, time, bytes, .. } = next;
                    self.truncation.applied(LogMark { seq, revision, time, bytes });
                    if let Some(LogMark { seq, .. }) = truncated_to {
                        tracing::info!(seq, "the log was truncated up to this entry");
                        self.truncation.deleted(seq);
                    }
                    self.head = Some((next, next_bytes));
                    return match answer.ranges.first() {
                        Some(members) => EntryOutcome::Committed(self.listed(members)),
                        None => self.committed().await,
                    };
                }
                Ok(answer) => match LogPage::of(&answer, self.cluster, entry.before) {
                    Ok(page) => match self.place(entry, page) {
                        Some(Placed::Own) => return self.committed().await,
                        Some(Placed::Others(outcome)) => return outcome,
                        None => {}
                    },
                    Err(error) => return self.part(error, is_in_doubt),
                },
                Err(error) if error.is_certain() && !is_in_doubt => return refused(&error),
                Err(error) => {
                    is_in_doubt = true;
                    self.pause(&error).await;
                }
            }
        }
    }

    /// What has the place of an entry in the log; none if nothing has.
    fn place(&mut self, entry: &NewEntry, page: LogPage) -> Option<Placed> {
        let first = page.entries.first().map(|(_, hash)| *hash);
        let is_other_format =
            std::mem::replace(&mut self.format, page.head.format) != page.head.format;
        // The store may have applied all entries up to it by the next commit.
        self.head = Some((page.head, page.head_bytes));
        let Some(first) = first else {
            // The entry is made again in the format of the head. A transaction in doubt compares a head of
            // the earlier format, and none of those comes back.
            return is_other_format.then(|| Placed::Others(EntryOutcome::Behind(Vec::new())));
        };
        // The entry has a random id, so its hash is that of no other entry.
        Some(match first == entry.after.hash {
            true => Placed::Own,
            false => Placed::Others(EntryOutcome::Behind(page.entries)),
        })
    }

    /// The outcome of an entry that is in the log, although no answer said so when it was committed.
    async fn committed(&mut self) -> EntryOutcome {
        loop {
            match self.client.range(&Range::under(keys::MEMBERS), ANSWER).await {
                Ok(answer) => return EntryOutcome::Committed(self.listed(&answer)),
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Up to which entry the log is deleted by the commit that makes this head.
    fn truncated_to(&self, next: &Head) -> Option<LogMark> {
        let is_due = Truncation::is_due(next.seq);
        is_due.then(|| self.truncation.end(&self.published, next.bytes, machine_time()))?
    }

    /// The sessions of an answer, but the own one.
    fn listed(&mut self, members: &RangeAnswer) -> Vec<Uuid> {
        let pairs = members.pairs.as_slice();
        let published = |pair: &Pair| {
            // A record that cannot be read keeps the log.
            MemberRecord::decode(&pair.value).map_or(Revision::ZERO, |record| record.published)
        };
        self.published = pairs.iter().map(published).collect();
        let own = *self.session.borrow();
        let sessions = pairs.iter().filter_map(|pair| keys::session(&pair.key));
        sessions.filter(|session| Some(*session) != own).collect()
    }

    async fn pause(&self, error: &EtcdError) {
        tracing::debug!(%error, "etcd gave no answer to a commit");
        tokio::time::sleep(PAUSE).await;
    }

    /// Nothing more is committed. An entry in doubt may be in the log.
    fn part(&self, error: LogError, is_in_doubt: bool) -> EntryOutcome {
        self.failed(error);
        EntryOutcome::Rejected(match is_in_doubt {
            true => StoreError::NotYetEverywhere(None),
            false => StoreError::CutOff,
        })
    }
}

/// What has the place of an entry in the log.
enum Placed {
    Own,
    Others(EntryOutcome),
}

/// The outcome of an entry that etcd certainly does not have.
fn refused(error: &EtcdError) -> EntryOutcome {
    tracing::warn!(%error, "etcd refused a commit");
    EntryOutcome::Rejected(StoreError::CutOff)
}

impl EntryLog for EtcdLog {
    fn format(&self) -> u32 {
        self.format
    }

    fn commit(&mut self, entry: &NewEntry, meanwhile: &mut dyn FnMut() -> bool) -> EntryOutcome {
        let (runtime, metrics) = (self.runtime.clone(), Arc::clone(&self.metrics));
        let begun = Instant::now();
        let outcome = runtime.block_on(async {
            let mut commit = std::pin::pin!(Self::commit(self, entry));
            let mut often = tokio::time::interval(MEANWHILE);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut commit => return outcome,
                    _ = often.tick() => if !meanwhile() {
                        return EntryOutcome::Rejected(StoreError::NotYetEverywhere(None));
                    }
                }
            }
        });
        metrics.commits.note(begun.elapsed());
        if matches!(outcome, EntryOutcome::Behind(_)) {
            metrics.lost.inc();
        }
        outcome
    }

    fn failed(&self, error: LogError) {
        part(&self.parted, error);
    }

    fn acknowledge(
        &self,
        at: Revision,
        listed: Vec<Uuid>,
        committed: Vec<(CommandReply, Receipt)>,
    ) {
        if !committed.is_empty() {
            self.barrier.wait(at, listed, Callers(committed));
        }
    }
}
