//! FactComparison: which of several replicas has other facts than most of them, by the sums that they
//! return.
//!
//! Replicas are compared at one revision: the latest one that all of them return.
//!
//! Not here: how they are asked; see `peer_client`.

use std::collections::{BTreeMap, BTreeSet};

use super::LogError;
use super::peer::FactSumsResponse;
use crate::policy::revision::Revision;
use crate::store::SumOfKind;

/// The sums of a replica, by revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaFacts(BTreeMap<Revision, Vec<SumOfKind>>);

/// The facts of replicas at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactComparison {
    /// The revision.
    pub revision: Revision,
    /// The replicas, in the order in which they were given.
    pub replicas: Vec<ComparedReplica>,
    /// Whether more than half of the replicas have the same facts. Else it is not known whose are right.
    pub has_majority: bool,
}

/// The facts of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedReplica {
    /// The number of its facts.
    pub count: u64,
    /// The sum of the hashes of their keys and values.
    pub checksum: u128,
    /// The kinds of facts in which it differs from most replicas; without a majority, from any other one.
    pub differs_in: BTreeSet<String>,
}

impl ReplicaFacts {
    /// Reads the answer of a replica.
    ///
    /// # Errors
    /// It is not an answer that a replica gives.
    pub fn read(response: FactSumsResponse) -> Result<Self, LogError> {
        let mut all = BTreeMap::new();
        for at in response.at {
            let mut kinds = Vec::new();
            for sum in at.kinds {
                let damaged = |_| LogError::Damaged("answer with sums of facts");
                let checksum = sum.checksum.try_into().map_err(damaged)?;
                let checksum = u128::from_be_bytes(checksum);
                kinds.push(SumOfKind { kind: sum.kind, count: sum.count, checksum });
            }
            // Versions may have the kinds in other orders.
            kinds.sort();
            all.insert(Revision(at.revision), kinds);
        }
        Ok(Self(all))
    }
}

impl FactComparison {
    /// Compares the facts of these replicas. None: they return no revision in common.
    #[must_use]
    pub fn of(replicas: &[ReplicaFacts]) -> Option<Self> {
        let (first, others) = replicas.split_first()?;
        let is_common = |at: &&Revision| others.iter().all(|other| other.0.contains_key(at));
        let revision = *first.0.keys().rev().find(is_common)?;
        let all: Vec<_> = replicas.iter().filter_map(|replica| replica.0.get(&revision)).collect();
        let same = |as_this: &Vec<SumOfKind>| all.iter().filter(|sums| **sums == as_this).count();
        let majority = all.iter().find(|sums| same(sums) * 2 > all.len()).copied();
        let compared = all.iter().map(|own| {
            let count = own.iter().map(|sum| sum.count).sum();
            let checksum = own.iter().fold(0, |sum: u128, kind| sum.wrapping_add(kind.checksum));
            let right = majority.map_or_else(|| all.clone(), |right| vec![right]);
            let differs_in = right.iter().flat_map(|other| differences(own, other)).collect();
            ComparedReplica { count, checksum, differs_in }
        });
        let (replicas, has_majority) = (compared.collect(), majority.is_some());
        Some(Self { revision, replicas, has_majority })
    }

    /// Whether all replicas have the same facts.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.replicas.iter().all(|replica| replica.differs_in.is_empty())
    }
}

/// The kinds of which one has other sums than the other.
fn differences(one: &[SumOfKind], other: &[SumOfKind]) -> BTreeSet<String> {
    let lacks = |of: &[SumOfKind], sum: &&SumOfKind| !of.contains(sum);
    let (own, others) = (one.iter(), other.iter());
    let different = own.filter(|sum| lacks(other, sum)).chain(others.filter(|sum| lacks(one, sum)));
    different.map(|sum| sum.kind.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::peer::{FactSumsAt, KindSum};
    use super::*;

    /// A replica with one company at each of these revisions, with this checksum.
    fn facts(revisions: &[u64], checksum: u8) -> ReplicaFacts {
        let sum = |kind: &str, checksum: u8| KindSum {
            kind: kind.to_owned(),
            count: 1,
            checksum: vec![checksum; 16],
        };
        let at = revisions.iter().map(|revision| FactSumsAt {
            revision: *revision,
            kinds: vec![sum("Keyring", 7), sum("Company", checksum)],
        });
        ReplicaFacts::read(FactSumsResponse { at: at.collect() }).expect("an answer")
    }

    fn different(comparison: &FactComparison) -> Vec<usize> {
        let replicas = comparison.replicas.iter().enumerate();
        let different = replicas.filter(|(_, replica)| !replica.differs_in.is_empty());
        different.map(|(number, _)| number).collect()
    }

    #[test]
    fn replicas_are_compared_at_the_latest_revision_that_all_return() {
        let compared =
            FactComparison::of(&[facts(&[1, 2, 4], 1), facts(&[1, 2, 3], 1), facts(&[2, 3, 4], 1)]);
        let compared = compared.expect("a revision");
        assert_eq!((compared.revision, compared.is_same()), (Revision(2), true));
        assert_eq!(compared.replicas[0].count, 2);
        assert_eq!(FactComparison::of(&[facts(&[1], 1), facts(&[2], 1)]), None);
        assert_eq!(FactComparison::of(&[]), None);
        assert!(FactComparison::of(&[facts(&[5], 1)]).expect("one").is_same());
    }

    #[test]
    fn the_replica_that_is_alone_is_named_with_the_kinds() {
        let at = |checksum| facts(&[1], checksum);
        let compared = FactComparison::of(&[at(1), at(2), at(1)]).expect("a revision");
        assert!(compared.has_majority && different(&compared) == [1]);
        assert_eq!(compared.replicas[1].differs_in, BTreeSet::from(["Company".to_owned()]));
        for none_is_alone in [vec![at(1), at(2)], vec![at(1), at(2), at(3)]] {
            let compared = FactComparison::of(&none_is_alone).expect("a revision");
            assert!(!compared.has_majority);
            assert_eq!(different(&compared).len(), none_is_alone.len());
        }
        // A kind that only one has.
        let mut more = at(1);
        let kinds = more.0.get_mut(&Revision(1)).expect("sums");
        kinds.push(SumOfKind { kind: "New".to_owned(), count: 1, checksum: 0 });
        let compared = FactComparison::of(&[at(1), at(1), more]).expect("a revision");
        assert_eq!(different(&compared), [2]);
    }

    #[test]
    fn an_answer_with_a_short_checksum_is_refused() {
        let kinds = vec![KindSum { kind: "Company".to_owned(), count: 1, checksum: vec![1; 15] }];
        let at = vec![FactSumsAt { revision: 1, kinds }];
        ReplicaFacts::read(FactSumsResponse { at }).expect_err("refused");
    }
}
