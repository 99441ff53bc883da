//! Turn: lets a replica commit that has lost several times in a row, for example because etcd is farther
//! from it than from the others.
//!
//! It puts a key with a random value. Until it has committed, which deletes the key, no other replica
//! commits. A key that is there for too long is deleted by who sees it: its replica has died, or is slow.
//!
//! It is about patience only. The order of the log rests on the compare of the head alone.
//!
//! Not here: the commit; see `etcd_log`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::etcd::{Compare, Operation, Range, Txn};
use super::keys;

/// After so many commits that were lost in a row a replica takes the turn.
const LOSSES: u32 = 2;
/// For how long a replica may have the turn.
const LIMIT: Duration = Duration::from_millis(500);

/// Whose turn it is, as the writer of a replica knows it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The value of the key while it is this replica's turn, or may be.
    own: Option<Bytes>,
    /// The value of another replica, and when it was first seen.
    other: Option<(Bytes, Instant)>,
    /// How many commits were lost in a row.
    losses: u32,
}

impl Turn {
    /// The condition of a commit: that it is the turn of no other replica.
    pub(super) fn compare(&self) -> Compare {
        match &self.own {
            Some(own) => Compare::Is(keys::TURN.to_owned(), own.clone()),
            None => Compare::Absent(keys::TURN.to_owned()),
        }
    }

    /// What a commit deletes.
    pub(super) fn deletion(&self) -> Option<Operation> {
        self.own.as_ref().map(|_| Operation::Delete(Range::key(keys::TURN)))
    }

    /// Notes an own commit.
    pub(super) fn committed(&mut self) {
        *self = Self::default();
    }

    /// Notes a commit that was lost. Returns what takes the turn if it is time for it.
    pub(super) fn lost(&mut self, session: Option<Uuid>) -> Option<Txn> {
        self.losses += 1;
        if self.losses < LOSSES || self.own.is_some() {
            return None;
        }
        let value = [*session?.as_bytes(), *Uuid::new_v4().as_bytes()].concat();
        let value = self.own.insert(value.into()).clone();
        Some(Txn {
            compares: vec![Compare::Absent(keys::TURN.to_owned())],
            then: vec![Operation::Put(keys::TURN.to_owned(), value)],
            ..Txn::default()
        })
    }

    /// Notes that another replica has the turn that this one was to take.
    pub(super) fn missed(&mut self) {
        self.own = None;
    }

    /// Notes the value of the key when a commit failed. Returns what ends a turn of another replica that
    /// takes too long.
    pub(super) fn seen(&mut self, value: Option<&Bytes>, now: Instant) -> Option<Txn> {
        if self.own.as_ref() != value {
            self.own = None;
        }
        let other = value.filter(|value| self.own.as_ref() != Some(value));
        match (other, &self.other) {
            (Some(value), Some((seen, since))) if value == seen => {
                (now.duration_since(*since) >= LIMIT).then(|| ending(value))
            }
            (other, _) => {
                self.other = other.map(|value| (value.clone(), now));
                None
            }
        }
    }

    /// Whether it was another replica's turn when a commit failed.
    pub(super) fn is_others(&self) -> bool {
        self.other.is_some()
    }

    /// Ends the own turn, if there is one: there is nothing to commit.
    pub(super) fn give_up(&mut self) -> Option<Txn> {
        self.losses = 0;
        self.own.take().map(|own| ending(&own))
    }
}

/// Ends the turn that has this value.
fn ending(value: &Bytes) -> Txn {
    Txn {
        compares: vec![Compare::Is(keys::TURN.to_owned(), value.clone())],
        then: vec![Operation::Delete(Range::key(keys::TURN))],
        ..Txn::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Option<Uuid> = Some(Uuid::from_u128(7));

    fn put(txn: &Txn) -> Bytes {
        match &txn.then[..] {
            [Operation::Put(_, value)] => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replica_that_lost_twice_in_a_row_takes_the_turn_once() {
        let mut turn = Turn::default();
        assert_eq!(turn.lost(SESSION), None);
        turn.committed();
        assert_eq!(turn.lost(SESSION), None);
        assert_eq!(turn.compare(), Compare::Absent(keys::TURN.to_owned()));
        let value = put(&turn.lost(SESSION).expect("the turn"));
        assert_eq!(turn.lost(SESSION), None, "it has the turn");
        assert_eq!(turn.compare(), Compare::Is(keys::TURN.to_owned(), value));
        assert!(turn.deletion().is_some());
        turn.committed();
        assert_eq!((turn.deletion(), turn.give_up()), (None, None));
    }

    #[test]
    fn a_turn_that_is_over_is_not_compared() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        let (_, taken) = (turn.lost(SESSION), turn.lost(SESSION));
        let value = put(&taken.expect("the turn"));
        assert_eq!(turn.seen(Some(&value), now), None);
        assert!(turn.deletion().is_some() && !turn.is_others());
        // Another replica found that it took too long.
        assert_eq!(turn.seen(None, now), None);
        assert_eq!(turn.compare(), Compare::Absent(keys::TURN.to_owned()));
        let again = put(&turn.lost(SESSION).expect("the turn"));
        assert_ne!(again, value);
        assert_eq!(turn.give_up(), Some(ending(&again)));
        assert_eq!(turn.lost(None), None);
    }

    #[test]
    fn the_turn_of_another_replica_lasts_half_a_second() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        let [a, b] = ["a", "b"].map(Bytes::from);
        let at = |milliseconds| now + Duration::from_millis(milliseconds);
        assert_eq!(turn.seen(Some(&a), at(0)), None);
        assert!(turn.is_others());
        assert_eq!(turn.seen(Some(&a), at(499)), None);
        assert_eq!(turn.seen(Some(&b), at(500)), None, "it is another turn");
        assert_eq!(turn.seen(Some(&b), at(999)), None);
        assert_eq!(turn.seen(Some(&b), at(1000)), Some(ending(&b)));
        assert_eq!(turn.seen(None, at(1001)), None);
        assert!(!turn.is_others());
    }
}
