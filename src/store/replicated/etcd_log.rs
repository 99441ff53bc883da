//! EtcdLog: the log in etcd, as the writer of a replica commits to it.
//!
//! A commit is one transaction. It compares the head with the one that this store has applied, and puts
//! the next head and the entry. Only one of several replicas can win, so the log has one order.
//!
//! INVARIANT (no answer is no answer): a transaction without an answer may have been carried out, or may
//! be later. The log is read until it says which, and meanwhile only the same transaction is sent again.
//! The head has the hash of the entry, so no value of it comes back, and only one of them can succeed.
//!
//! The parts of a large entry are put before that transaction.
//!
//! Not here: how other entries come into the store (`follower`), and when a change is published
//! everywhere (`barrier`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use blake3::Hash;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::entry::Entry;
use super::entry_parts::UnusedParts;
use super::etcd::{Client, Compare, EtcdError, Operation, Pair, Range, RangeAnswer, Txn};
use super::head::Head;
use super::log_page::{self, LogPage, PageError};
use super::member_record::MemberRecord;
use super::members_task::BarrierHandle;
use super::truncation::{LogMark, Truncation};
use super::turn::Turn;
use super::{
    EntryLog, EntryOutcome, EtcdSpace, LogError, LogMetrics, LogSpace, NewEntry, ReplicaReport,
    Waited, Waiter, keys,
};
use crate::metrics::machine_time;
use crate::policy::revision::Revision;
use crate::store::command_queue::CommandReply;
use crate::store::{Receipt, StoreError};

/// How long a commit waits for an answer. etcd's own limit is 7 s.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause before etcd is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause before the next attempt while it is another replica's turn.
const TURN_PAUSE: Duration = Duration::from_millis(10);
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
    /// What the record of this replica tells.
    pub(super) report: watch::Sender<ReplicaReport>,
    pub(super) space: Arc<EtcdSpace>,
    /// The entries that this writer has committed, by which the log is truncated.
    pub(super) truncation: Truncation,
    /// Whose turn it is to commit.
    pub(super) turn: Turn,
    /// The content of the parts that were put last. They exist, unless they were deleted since.
    pub(super) parts_put: Option<Hash>,
    /// The parts that no entry has.
    pub(super) unused_parts: UnusedParts,
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
            match self.attempt(entry, &mut is_in_doubt).await {
                Ok(Attempt::Committed(Some(members))) => {
                    return EntryOutcome::Committed(self.listed(&members));
                }
                Ok(Attempt::Committed(None)) => return self.committed().await,
                Ok(Attempt::Behind(entries)) => return EntryOutcome::Behind(entries),
                Ok(Attempt::Undecided) => {}
                Err(PageError::Log(error)) => return self.part(error, is_in_doubt),
                Err(PageError::Etcd(error)) if error.is_certain() && !is_in_doubt => {
                    return refused(&error);
                }
                Err(PageError::Etcd(error)) => self.pause(&error).await,
            }
        }
    }

    /// Commits an entry if the head is known, and reads it otherwise.
    async fn attempt(
        &mut self,
        entry: &NewEntry,
        is_in_doubt: &mut bool,
    ) -> Result<Attempt, PageError> {
        let head = self.head.take().filter(|(head, _)| head.position() == entry.before);
        let Some((head, head_bytes)) = head else {
            let page = LogPage::read(&self.client, self.cluster, entry.before, ANSWER).await?;
            return self.place(entry, page).await;
        };
        if let Some((parts, content)) = &entry.parts
            && self.parts_put != Some(parts.hash)
        {
            parts.put(&self.client, content, ANSWER).await.map_err(PageError::Etcd)?;
            self.parts_put = Some(parts.hash);
        }
        let mut next = head.after(entry);
        let (truncated_to, deletions) = self.truncated_to(entry, &next).await;
        if let Some(mark) = truncated_to {
            next.truncated_bytes = mark.bytes;
        }
        let next_bytes = Bytes::from(next.encode());
        let (head_key, entry_bytes) = (keys::HEAD.to_owned(), Bytes::from(entry.bytes.clone()));
        let mut txn = Txn {
            compares: vec![Compare::Is(head_key.clone(), head_bytes), self.turn.compare()],
            then: vec![
                Operation::Put(head_key, next_bytes.clone()),
                Operation::Put(keys::entry(next.seq), entry_bytes),
                Operation::Range(Range::under(keys::MEMBERS)),
            ],
            or_else: log_page::ranges(entry.before).to_vec(),
        };
        if let Some((parts, _)) = &entry.parts {
            txn.compares.extend(parts.compares());
            let key = keys::part_of_entry(parts.hash, next.seq);
            txn.then.push(Operation::Put(key, Bytes::new()));
        }
        txn.then.extend(deletions);
        txn.then.extend(self.turn.deletion());
        txn.or_else.push(Operation::Range(Range::key(keys::TURN)));
        match self.client.txn(&txn, ANSWER).await {
            Ok(answer) if answer.succeeded => {
                self.metrics.set_head(&next);
                let Head { seq, revision, time, bytes, .. } = next;
                self.truncation.applied(LogMark { seq, revision, time, bytes });
                if let Some(LogMark { seq, .. }) = truncated_to {
                    tracing::info!(seq, "the log was truncated up to this entry");
                    self.truncation.deleted(seq);
                }
                self.turn.committed();
                self.head = Some((next, next_bytes));
                Ok(Attempt::Committed(answer.ranges.into_iter().next()))
            }
            Ok(answer) => {
                let page = LogPage::of(&answer, self.cluster, entry.before)?;
                let turn = answer.ranges.last().and_then(|turn| turn.pairs.first());
                let turn = turn.map(|pair| &pair.value);
                if let Some(ending) = self.turn.seen(turn, Instant::now()) {
                    self.client.txn(&ending, ANSWER).await.map_err(PageError::Etcd)?;
                }
                match page.entries.is_empty() {
                    true if self.turn.is_others() => tokio::time::sleep(TURN_PAUSE).await,
                    // The head is the same, so a part is missing.
                    true => self.parts_put = None,
                    false => {}
                }
                self.place(entry, page).await
            }
            Err(error) => {
                *is_in_doubt |= !error.is_certain();
                Err(PageError::Etcd(error))
            }
        }
    }

    /// What has the place of an entry in the log.
    async fn place(&mut self, entry: &NewEntry, mut page: LogPage) -> Result<Attempt, PageError> {
        let first = page.entries.first().map(|(_, hash)| *hash);
        let is_other_format =
            std::mem::replace(&mut self.format, page.head.format) != page.head.format;
        let attempt = match first {
            // The entry is made again in the format of the head. A transaction in doubt compares a head of
            // the earlier format, and none of those comes back.
            None if is_other_format => Attempt::Behind(Vec::new()),
            None => Attempt::Undecided,
            // The entry has a random id, so its hash is that of no other entry.
            Some(first) if first == entry.after.hash => {
                self.turn.committed();
                Attempt::Committed(None)
            }
            Some(_) => {
                page = self.lost(entry, page).await?;
                page.read_parts(&self.client, ANSWER).await?;
                Attempt::Behind(page.entries)
            }
        };
        // The store may have applied all entries up to it by the next commit.
        self.head = Some((page.head, page.head_bytes));
        Ok(attempt)
    }

    /// Takes the turn if it is time for it. Returns the page of the moment from which on no other replica
    /// commits.
    async fn lost(&mut self, entry: &NewEntry, page: LogPage) -> Result<LogPage, PageError> {
        let session = *self.session.borrow();
        let Some(mut txn) = self.turn.lost(session) else { return Ok(page) };
        txn.then.extend(log_page::ranges(entry.before));
        // Without an answer, the next commit shows whose turn it is.
        let answer = self.client.txn(&txn, ANSWER).await.map_err(PageError::Etcd)?;
        match answer.succeeded {
            true => Ok(LogPage::of(&answer, self.cluster, entry.before)?),
            false => {
                self.turn.missed();
                Ok(page)
            }
        }
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

    /// Up to which entry the log is deleted by the commit that makes this head, and what that commit
    /// deletes.
    async fn truncated_to(
        &mut self,
        entry: &NewEntry,
        next: &Head,
    ) -> (Option<LogMark>, Vec<Operation>) {
        if !Truncation::is_due(next.seq) {
            return (None, Vec::new());
        }
        let mark = self.truncation.end(&self.published, next.bytes, machine_time());
        let seq = mark.map(|mark| mark.seq);
        let of_log = seq.map(|seq| Operation::Delete(keys::entries_up_to(seq)));
        let mut deletions: Vec<_> = of_log.into_iter().collect();
        // The head was read before, and the commit compares it: no entry comes between.
        match self.client.range(&Range::under(keys::PARTS).keys_only(), ANSWER).await {
            Ok(answer) => {
                let own = entry.parts.as_ref().map(|(parts, _)| parts.hash);
                let (pairs, now) = (answer.pairs, Instant::now());
                deletions.extend(self.unused_parts.deletions(&pairs, own, seq, now));
            }
            // The next truncation deletes them.
            Err(error) => tracing::debug!(%error, "etcd gave no answer to a read of the parts"),
        }
        (mark, deletions)
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

/// What came of an attempt to commit an entry.
enum Attempt {
    /// The log has it. The records are those of its commit, if an answer had them.
    Committed(Option<RangeAnswer>),
    /// These entries came first.
    Behind(Vec<(Entry, Hash)>),
    /// Nothing has its place yet.
    Undecided,
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

    fn space(&self) -> LogSpace {
        self.space.log_space()
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

    fn nothing_left(&mut self) {
        if let Some(txn) = self.turn.give_up() {
            let client = Arc::clone(&self.client);
            // If it is lost, others end the turn.
            self.runtime.spawn(async move { client.txn(&txn, ANSWER).await.ok() });
        }
    }

    fn failed(&self, error: LogError) {
        part(&self.parted, error);
    }

    fn diverged(&self, count: u64) {
        self.report.send_modify(|report| report.diverged = count);
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
