//! SeenTask: tells the other replicas when credentials were last seen here, and takes what they tell.
//!
//! At each interval a replica puts what was seen since the last one into etcd, in pieces under its name, and
//! reads the pieces of the others that it has not read. The store keeps the later minute of each credential.
//! A piece is deleted when the others have had six intervals to read it. A replica that was away for longer
//! may show an earlier time until the credential is seen again. No decision depends on it.
//!
//! Not here: what a piece has; see `seen_times`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::etcd::{Client, EtcdError, Operation, Range, Txn};
use super::keys;
use super::seen_times::SeenTimes;
use crate::metrics::machine_time;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::Minute;
use crate::store::command_queue::{CommandQueue, WriterCommand};

/// How often a replica tells what it has seen.
pub(super) const INTERVAL: Duration = Duration::from_secs(600);
/// For how many intervals a replica keeps its pieces.
const KEPT_INTERVALS: u32 = 6;
/// After how many intervals a piece is deleted by another replica, because its owner no longer does it.
const ABANDONED_INTERVALS: u32 = 144;
/// A piece whose number is that of a time so much later was put by a clock that was wrong.
const AHEAD: Duration = Duration::from_secs(3600);
/// The time limit of a call to etcd.
const WITHIN: Duration = Duration::from_secs(3);

/// What was seen here and is not in etcd yet.
#[derive(Clone, Debug, Default)]
pub(super) struct UntoldTimes(Arc<Mutex<HashMap<Revision, Minute>>>);

impl UntoldTimes {
    /// Adds the minutes in which credentials were seen. The later minute of a credential stays.
    pub(super) fn note(&self, seen: impl IntoIterator<Item = (Revision, Minute)>) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (credential, minute) in seen {
            untold.entry(credential).and_modify(|last| *last = minute.max(*last)).or_insert(minute);
        }
    }

    fn take(&self) -> BTreeMap<Revision, Minute> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *untold).into_iter().collect()
    }
}

/// Tells when credentials were last seen, and takes what others tell.
pub(super) struct SeenTask {
    pub(super) client: Arc<Client>,
    pub(super) cluster: Uuid,
    /// The own name.
    pub(super) name: Name,
    pub(super) untold: UntoldTimes,
    pub(super) commands: CommandQueue,
    pub(super) every: Duration,
    /// The number of the last piece of each name that was read or put.
    pub(super) last: HashMap<String, u64>,
}

impl SeenTask {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut interval = tokio::time::interval(self.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // What fails is done at the next interval.
            if let Err(error) = self.turn().await {
                tracing::debug!(%error, "etcd gave no answer about last-seen times");
            }
        }
    }

    /// Reads what others have put, and puts what was seen here. The own pieces of an earlier process are
    /// read first, so that the next ones get later numbers.
    async fn turn(&mut self) -> Result<(), EtcdError> {
        self.read().await?;
        let untold = self.untold.take();
        let pieces = SeenTimes::pieces(self.cluster, &untold);
        let now = machine_time();
        let put = async {
            for piece in pieces {
                let last = self.last.entry(self.name.to_string()).or_default();
                *last = last.saturating_add(1).max(number(now));
                let put = Operation::Put(keys::seen(self.name.as_str(), *last), piece.into());
                self.client.txn(&Txn { then: vec![put], ..Txn::default() }, WITHIN).await?;
            }
            Ok(())
        };
        let put: Result<(), EtcdError> = put.await;
        if put.is_err() {
            self.untold.note(untold);
        }
        put
    }

    /// Reads all pieces that were not read yet, and deletes those that are too old.
    async fn read(&mut self) -> Result<(), EtcdError> {
        let now = machine_time();
        let latest = number(now.saturating_add(AHEAD).unwrap_or(Timestamp::MAX));
        self.last.retain(|_, last| *last <= latest);
        let mut from = Range::under(keys::SEEN);
        loop {
            let answer = self.client.range(&from.limit(1), WITHIN).await?;
            let Some(pair) = answer.pairs.into_iter().next() else { return Ok(()) };
            from = Range::behind(keys::SEEN, &pair.key);
            let Some((name, piece)) = keys::piece_of_seen(&pair.key) else { continue };
            let kept =
                if name == self.name.as_str() { KEPT_INTERVALS } else { ABANDONED_INTERVALS };
            let oldest = number(now.saturating_sub(self.every * kept).unwrap_or(Timestamp::MIN));
            if piece > latest {
                self.delete(Range::key(&pair.key)).await?;
                continue;
            }
            match self.last.get(name) {
                Some(last) if piece <= *last => {
                    from = Range::behind(keys::SEEN, &keys::seen(name, *last));
                }
                _ => {
                    if !self.take(&pair.value, now) {
                        // The queue is full. The piece is read again at the next interval.
                        return Ok(());
                    }
                    self.last.insert(name.to_owned(), piece);
                }
            }
            if piece < oldest {
                let old = Range::up_to(&keys::seen_by(name), &keys::seen(name, oldest));
                self.delete(old).await?;
            }
        }
    }

    async fn delete(&self, pieces: Range) -> Result<(), EtcdError> {
        let then = vec![Operation::Delete(pieces)];
        self.client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.map(drop)
    }

    /// Hands a piece to the writer. False: it cannot take it now.
    fn take(&self, piece: &[u8], now: Timestamp) -> bool {
        // What cannot be read, or is of an earlier cluster under this prefix, is left out.
        let Ok(piece) = SeenTimes::decode(piece) else { return true };
        if piece.cluster != self.cluster || piece.minutes.is_empty() {
            return true;
        }
        // A clock that is ahead must not make a time that is later than all others for long.
        let now = Minute::try_from(now.as_second() / 60).unwrap_or(Minute::MAX);
        let seen =
            piece.minutes.into_iter().map(|(credential, minute)| (credential, minute.min(now)));
        self.commands.queue_behind(WriterCommand::Seen(seen.collect())).is_ok()
    }
}

/// The number of a piece that is put at this time. The number tells how old the piece is.
fn number(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}
