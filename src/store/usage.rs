//! Usage: how much each company has stored, and has written today. The writer checks the quotas
//! against it.
//!
//! Counts are kept per creation revision: a new company of the same id begins at zero.
//!
//! INVARIANT (counts are keys): the counts are the numbers of keys in the store. Opening a store
//! counts the keys, and each batch that is applied adds and subtracts its own (`apply`). The counts are therefore right after a crash and after a restore.
//! A consent whose user or credential was deleted counts until garbage collection has removed it.
//!
//! The bytes of the day are only in memory: a restart resets them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::fact_sums::FactSums;
use super::quota::{ByteAccount, Quota, Quotas, Reached};
use super::{FactWrite, Proposal, key};
use crate::policy::revision::Revision;

/// The seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// The numbers of credentials, users and consents.
type UsageCounts = [u32; 3];

/// What each company has and wrote, and the quotas.
struct Usage {
    quotas: Quotas,
    /// Only companies with a count above zero.
    counts: HashMap<Revision, UsageCounts>,
    written: WrittenBytes,
}

/// How many bytes the changes of each company wrote on one day.
#[derive(Default)]
struct WrittenBytes {
    /// The day, counted from 1970.
    day: i64,
    bytes: HashMap<ByteAccount, u64>,
}

/// The usage, shared by the writer and its readers.
#[derive(Clone)]
pub(super) struct SharedUsage(Arc<Mutex<Usage>>);

/// How keys change the counts, and the sums of facts.
#[derive(Default)]
pub(super) struct Moves {
    counts: HashMap<Revision, [i64; 3]>,
    pub(super) facts: FactSums,
}

/// How a batch that is not applied yet changes the counts.
#[derive(Default)]
pub(super) struct Pending {
    moves: Moves,
    written: WrittenBytes,
}

impl Quota {
    /// Its index in the counts.
    fn index(self) -> Option<usize> {
        match self {
            Self::Credentials => Some(0),
            Self::Users => Some(1),
            Self::Consents => Some(2),
            Self::Bytes => None,
        }
    }
}

impl Moves {
    fn by(&mut self, company: Revision, quota: Quota, by: i64) {
        let counts = self.counts.entry(company).or_default();
        if let Some(count) = quota.index().and_then(|index| counts.get_mut(index)) {
            *count += by;
        }
    }

    /// Notes that a key did or did not exist before, and does or does not now.
    pub(super) fn note(&mut self, entry_key: &[u8], was: bool, is: bool) {
        if was != is
            && let Some((company, quota)) = key::quota_of(entry_key)
        {
            self.by(company, quota, if is { 1 } else { -1 });
        }
    }

    fn of(&self, company: Revision, quota: Quota) -> i64 {
        let counts = self.counts.get(&company);
        quota.index().and_then(|index| counts?.get(index).copied()).unwrap_or(0)
    }
}

impl WrittenBytes {
    /// Whether this day is before the counted one. The clocks of replicas differ a little, so a change of
    /// another replica may be of a day that has ended here. Where the counted day has not come yet, the
    /// machine's clock was ahead and went back; then the earlier day is the present one.
    fn has_ended(&self, day: i64) -> bool {
        day < self.day && self.day <= self::day(Timestamp::MAX)
    }

    /// The bytes of this day. For a day that has ended, those of the counted one.
    fn on(&self, day: i64, account: ByteAccount) -> u64 {
        let is_counted = self.day == day || self.has_ended(day);
        if is_counted { self.bytes.get(&account).copied().unwrap_or(0) } else { 0 }
    }

    /// Adds bytes of this day. Those of a day that has ended do not count.
    fn add(&mut self, day: i64, account: ByteAccount, bytes: u64) {
        if self.has_ended(day) {
            return;
        }
        if self.day != day {
            (self.day, self.bytes) = (day, HashMap::new());
        }
        let sum = self.bytes.entry(account).or_default();
        *sum = sum.saturating_add(bytes);
    }
}

impl Pending {
    /// Adds the writes of a change.
    pub(super) fn add_writes<'a>(&mut self, writes: impl Iterator<Item = &'a FactWrite>) {
        for (company, quota, by) in writes.filter_map(FactWrite::moves) {
            self.moves.by(company, quota, by);
        }
    }

    /// Adds the bytes that a change writes to its account.
    pub(super) fn add_bytes(&mut self, account: Option<ByteAccount>, time: Timestamp, bytes: u64) {
        if let Some(account) = account {
            self.written.add(day(time), account, bytes);
        }
    }
}

impl Usage {
    /// The count of a quota; of bytes, those of the last day on which any were written.
    fn count(&self, company: Revision, quota: Quota) -> u64 {
        let Some(index) = quota.index() else {
            let account = ByteAccount { company, of_clients: false };
            return self.written.bytes.get(&account).copied().unwrap_or(0);
        };
        let counts = self.counts.get(&company);
        counts.and_then(|counts| counts.get(index).copied()).unwrap_or(0).into()
    }

    /// Rejects `more` of a quota, on top of the pending batch.
    fn check_more(
        &self,
        pending: &Pending,
        company: Revision,
        quota: Quota,
        more: u64,
    ) -> Result<(), Reached> {
        let limit = self.quotas.of(quota);
        let count = self.count(company, quota);
        let count = count.saturating_add_signed(pending.moves.of(company, quota));
        if count.saturating_add(more) > limit {
            Err(Reached { bound: quota, limit })
        } else {
            Ok(())
        }
    }

    fn check(
        &self,
        pending: &Pending,
        proposal: &Proposal,
        time: Timestamp,
    ) -> Result<(), Reached> {
        let mut moves: Vec<(Revision, Quota, i64)> = Vec::new();
        for (company, quota, by) in proposal.writes.iter().filter_map(|write| write.moves()) {
            match moves.iter_mut().find(|(c, b, _)| (*c, *b) == (company, quota)) {
                Some((.., sum)) => *sum += by,
                None => moves.push((company, quota, by)),
            }
        }
        for (company, quota, by) in moves {
            if let Ok(more @ 1..) = u64::try_from(by) {
                self.check_more(pending, company, quota, more)?;
            }
        }
        let Some(account) = proposal.account() else { return Ok(()) };
        let (day, limit) = (day(time), self.quotas.bytes_per_day);
        let written = self.written.on(day, account);
        let written = written.saturating_add(pending.written.on(day, account));
        if written >= limit && !proposal.takes_away() {
            return Err(Reached { bound: Quota::Bytes, limit });
        }
        Ok(())
    }

    fn apply(&mut self, moves: Moves) {
        for (company, by) in moves.counts {
            let counts = self.counts.entry(company).or_default();
            for (count, by) in counts.iter_mut().zip(by) {
                let sum = i64::from(*count).saturating_add(by).max(0);
                *count = u32::try_from(sum).unwrap_or(u32::MAX);
            }
            if *counts == UsageCounts::default() {
                self.counts.remove(&company);
            }
        }
    }
}

impl SharedUsage {
    /// The usage of a store, from all of its keys. Without quotas.
    pub(super) fn of(moves: Moves) -> Self {
        let (counts, written) = (HashMap::new(), WrittenBytes::default());
        let mut usage = Usage { quotas: Quotas::NONE, counts, written };
        usage.apply(moves);
        Self(Arc::new(Mutex::new(usage)))
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the quotas of every company.
    pub(super) fn set_quotas(&self, quotas: Quotas) {
        self.lock().quotas = quotas;
    }

    /// Rejects a proposal that would exceed a quota, on top of the pending batch.
    pub(super) fn check(
        &self,
        pending: &Pending,
        proposal: &Proposal,
        time: Timestamp,
    ) -> Result<(), Reached> {
        self.lock().check(pending, proposal, time)
    }

    /// Rejects `more` of a quota.
    pub(super) fn check_more(
        &self,
        company: Revision,
        quota: Quota,
        more: u64,
    ) -> Result<(), Reached> {
        self.lock().check_more(&Pending::default(), company, quota, more)
    }

    /// Applies a change of the keys to the counts.
    pub(super) fn apply(&self, moves: Moves) {
        if !moves.counts.is_empty() {
            self.lock().apply(moves);
        }
    }

    /// Adds the written bytes of a batch. Its counts are applied already.
    pub(super) fn wrote(&self, pending: Pending) {
        let WrittenBytes { day, bytes } = pending.written;
        if !bytes.is_empty() {
            let written = &mut self.lock().written;
            bytes.into_iter().for_each(|(company, bytes)| written.add(day, company, bytes));
        }
    }
}

/// The day of a change, counted from 1970. If the store's time is ahead of the machine's clock, it
/// does not advance until the clock has caught up. The day then follows the clock, so that it ends
/// all the same.
fn day(time: Timestamp) -> i64 {
    time.min(crate::metrics::machine_time()).as_second().div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_also_where_the_stores_time_is_ahead() {
        let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 400);
        let before = day(Timestamp::now());
        let reported = day(ahead);
        assert!((before..=day(Timestamp::now())).contains(&reported));
        assert_eq!(
            [-1, 0, DAY - 1, DAY].map(|s| day(Timestamp::from_second(s).expect("a time"))),
            [-1, 0, 0, 1]
        );
    }

    #[test]
    fn a_change_of_an_earlier_day_resets_nothing_unless_the_clock_went_back() {
        let account = ByteAccount { company: Revision(7), of_clients: false };
        let today = day(Timestamp::MAX);
        let mut written = WrittenBytes::default();
        written.add(today - 1, account, 1);
        assert_eq!([today - 1, today].map(|day| written.on(day, account)), [1, 0]);
        written.add(today, account, 10);
        written.add(today - 1, account, 100);
        assert_eq!([today - 1, today].map(|day| written.on(day, account)), [10, 10]);
        // The counted day has not come yet.
        written.add(today + 400, account, 1);
        assert_eq!([today, today + 400].map(|day| written.on(day, account)), [0, 1]);
        written.add(today, account, 10);
        assert_eq!(written.on(today, account), 10);
    }

    #[test]
    fn counts_follow_the_keys_and_a_company_without_keys_has_no_entry() {
        let (company, of) = (Revision(7), |tables: &[u8]| {
            let mut moves = Moves::default();
            for table in tables {
                let entry_key = [&[*table][..], &7_u64.to_be_bytes(), b"x"].concat();
                moves.note(&entry_key, false, true);
                moves.note(&entry_key, true, true);
            }
            moves
        });
        let usage = SharedUsage::of(of(b"KKUTSHL"));
        let counts = |usage: &SharedUsage| usage.lock().counts.get(&company).copied();
        assert_eq!(counts(&usage), Some([2, 1, 1]));
        let mut gone = Moves::default();
        for table in *b"KKUT" {
            let entry_key = [&[table][..], &7_u64.to_be_bytes(), b"x"].concat();
            gone.note(&entry_key, true, false);
        }
        usage.apply(gone);
        assert_eq!(counts(&usage), None);
        usage.apply(Moves::default());
        assert!(usage.lock().counts.is_empty());
    }
}
