//! Usage: how much each company has in the store, and has written to it today, so that the
//! writer can keep the bounds of companies.
//!
//! Everything is kept under a company's creation: another company of the same id begins at zero.
//!
//! INVARIANT (counts are keys): the counts are the numbers of keys in the tree. Opening a store
//! counts the keys, and [`Entries::apply`](super::checksum::WriteBatch::apply) counts what it adds and
//! removes. So they are right after a crash and after a restore. A consent whose user or
//! credential was deleted counts until the sweep has removed it.
//!
//! The bytes of the day are in memory only: a restart forgets them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::policy::revision::Revision;
use crate::store::quota::{Quota, Quotas, Reached};
use crate::store::{Proposal, key};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// How many credentials, users and consents.
type Counts = [u32; 3];

/// What each company has and wrote, and how much it may.
struct Usage {
    bounds: Quotas,
    /// Only companies that have something.
    counts: HashMap<Revision, Counts>,
    written: Written,
}

/// How many bytes the changes of each company wrote on one day.
#[derive(Default)]
struct Written {
    /// The day, counted from 1970.
    day: i64,
    bytes: HashMap<Revision, u64>,
}

/// The usage, for the writer and for those who only ask.
#[derive(Clone)]
pub(super) struct SharedUsage(Arc<Mutex<Usage>>);

/// What keys move the counts by.
#[derive(Default)]
pub(super) struct Moves(HashMap<Revision, [i64; 3]>);

/// What a batch in the making moves.
#[derive(Default)]
pub(super) struct Pending {
    moves: Moves,
    written: Written,
}

impl Quota {
    /// Its place among the counts.
    fn place(self) -> Option<usize> {
        match self {
            Self::Credentials => Some(0),
            Self::Users => Some(1),
            Self::Consents => Some(2),
            Self::Bytes => None,
        }
    }
}

impl Moves {
    fn by(&mut self, company: Revision, bound: Quota, by: i64) {
        let counts = self.0.entry(company).or_default();
        if let Some(count) = bound.place().and_then(|place| counts.get_mut(place)) {
            *count += by;
        }
    }

    /// Something is put in a place, or removed from it.
    pub(super) fn note(&mut self, place: &[u8], was: bool, is: bool) {
        if was != is
            && let Some((company, bound)) = key::bounded(place)
        {
            self.by(company, bound, if is { 1 } else { -1 });
        }
    }

    fn of(&self, company: Revision, bound: Quota) -> i64 {
        let counts = self.0.get(&company);
        bound.place().and_then(|place| counts?.get(place).copied()).unwrap_or(0)
    }
}

impl Written {
    fn on(&self, day: i64, company: Revision) -> u64 {
        if self.day == day { self.bytes.get(&company).copied().unwrap_or(0) } else { 0 }
    }

    fn add(&mut self, day: i64, company: Revision, bytes: u64) {
        if self.day != day {
            (self.day, self.bytes) = (day, HashMap::new());
        }
        let sum = self.bytes.entry(company).or_default();
        *sum = sum.saturating_add(bytes);
    }
}

impl Pending {
    /// Takes in a proposal's steps.
    pub(super) fn add_steps(&mut self, proposal: &Proposal) {
        for (company, bound, by) in proposal.steps.iter().filter_map(|step| step.moves()) {
            self.moves.by(company, bound, by);
        }
    }

    /// Takes in how many bytes a change of this company writes.
    pub(super) fn add_bytes(&mut self, company: Option<Revision>, time: Timestamp, bytes: u64) {
        if let Some(company) = company {
            self.written.add(day(time), company, bytes);
        }
    }
}

impl Usage {
    /// How much there is of a kind; of bytes, those of the last day on which any were written.
    fn count(&self, company: Revision, bound: Quota) -> u64 {
        let Some(place) = bound.place() else {
            return self.written.bytes.get(&company).copied().unwrap_or(0);
        };
        let counts = self.counts.get(&company);
        counts.and_then(|counts| counts.get(place).copied()).unwrap_or(0).into()
    }

    /// Refuses so many more of a kind, behind what is pending.
    fn has_room(
        &self,
        pending: &Pending,
        company: Revision,
        bound: Quota,
        more: u64,
    ) -> Result<(), Reached> {
        let limit = self.bounds.of(bound);
        let there = self.count(company, bound);
        let there = there.saturating_add_signed(pending.moves.of(company, bound));
        if there.saturating_add(more) > limit { Err(Reached { bound, limit }) } else { Ok(()) }
    }

    fn admits(
        &self,
        pending: &Pending,
        proposal: &Proposal,
        time: Timestamp,
    ) -> Result<(), Reached> {
        let mut moves: Vec<(Revision, Quota, i64)> = Vec::new();
        for (company, bound, by) in proposal.steps.iter().filter_map(|step| step.moves()) {
            match moves.iter_mut().find(|(c, b, _)| (*c, *b) == (company, bound)) {
                Some((.., sum)) => *sum += by,
                None => moves.push((company, bound, by)),
            }
        }
        for (company, bound, by) in moves {
            if let Ok(more @ 1..) = u64::try_from(by) {
                self.has_room(pending, company, bound, more)?;
            }
        }
        let Some(company) = proposal.company() else { return Ok(()) };
        let (day, limit) = (day(time), self.bounds.bytes_per_day);
        let written = self.written.on(day, company);
        let written = written.saturating_add(pending.written.on(day, company));
        if written >= limit && !proposal.takes_away() {
            return Err(Reached { bound: Quota::Bytes, limit });
        }
        Ok(())
    }

    fn apply(&mut self, moves: Moves) {
        for (company, by) in moves.0 {
            let counts = self.counts.entry(company).or_default();
            for (count, by) in counts.iter_mut().zip(by) {
                let sum = i64::from(*count).saturating_add(by).max(0);
                *count = u32::try_from(sum).unwrap_or(u32::MAX);
            }
            if *counts == Counts::default() {
                self.counts.remove(&company);
            }
        }
    }
}

impl SharedUsage {
    /// What is in a tree, by the moves that all of its keys make. Without bounds.
    pub(super) fn of(moves: Moves) -> Self {
        let (counts, written) = (HashMap::new(), Written::default());
        let mut usage = Usage { bounds: Quotas::NONE, counts, written };
        usage.apply(moves);
        Self(Arc::new(Mutex::new(usage)))
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are the bounds of every company.
    pub(super) fn bound_by(&self, bounds: Quotas) {
        self.lock().bounds = bounds;
    }

    /// Refuses a proposal that would lead above a bound, behind what is pending.
    pub(super) fn admits(
        &self,
        pending: &Pending,
        proposal: &Proposal,
        time: Timestamp,
    ) -> Result<(), Reached> {
        self.lock().admits(pending, proposal, time)
    }

    /// Refuses so many more of a kind.
    pub(super) fn has_room(
        &self,
        company: Revision,
        bound: Quota,
        more: u64,
    ) -> Result<(), Reached> {
        self.lock().has_room(&Pending::default(), company, bound, more)
    }

    /// The tree was changed so.
    pub(super) fn apply(&self, moves: Moves) {
        if !moves.0.is_empty() {
            self.lock().apply(moves);
        }
    }

    /// So many bytes were written. The counts know already.
    pub(super) fn wrote(&self, pending: Pending) {
        let Written { day, bytes } = pending.written;
        if !bytes.is_empty() {
            let written = &mut self.lock().written;
            bytes.into_iter().for_each(|(company, bytes)| written.add(day, company, bytes));
        }
    }
}

/// The day of a change, counted from 1970. A store whose time is ahead of the machine's clock stands
/// still until the clock has caught up; a day ends all the same.
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
        let told = day(ahead);
        assert!((before..=day(Timestamp::now())).contains(&told));
        assert_eq!(
            [-1, 0, DAY - 1, DAY].map(|s| day(Timestamp::from_second(s).expect("a time"))),
            [-1, 0, 0, 1]
        );
    }

    #[test]
    fn counts_follow_what_is_put_and_removed_and_nothing_is_left_of_nothing() {
        let (company, of) = (Revision(7), |tables: &[u8]| {
            let mut moves = Moves::default();
            for table in tables {
                let place = [&[*table][..], &7_u64.to_be_bytes(), b"x"].concat();
                moves.note(&place, false, true);
                moves.note(&place, true, true);
            }
            moves
        });
        let usage = SharedUsage::of(of(b"KKUTSHL"));
        let counts = |usage: &SharedUsage| usage.lock().counts.get(&company).copied();
        assert_eq!(counts(&usage), Some([2, 1, 1]));
        let mut gone = Moves::default();
        for table in *b"KKUT" {
            let place = [&[table][..], &7_u64.to_be_bytes(), b"x"].concat();
            gone.note(&place, true, false);
        }
        usage.apply(gone);
        assert_eq!(counts(&usage), None);
        usage.apply(Moves::default());
        assert!(usage.lock().counts.is_empty());
    }
}
