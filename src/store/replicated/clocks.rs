//! Clocks: how far the clocks of the other replicas are ahead of the own one, and whose clock is wrong.
//!
//! A replica cannot know the time. It knows that a clock is wrong if most others differ from it. A replica
//! whose clock is ahead of most others would write times that are not yet, so it makes no changes. One
//! whose clock is behind most others would allow what has expired there (D19), so it answers nothing.
//!
//! Only live records count: those that are not fenced, and of which a renewal was seen within the time
//! after which any replica may delete them. Records of the own name are earlier sessions of this replica.
//!
//! Not here: how a replica follows a clock that is a little ahead; see
//! [`DecidingTime`](crate::store::DecidingTime).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use jiff::{SignedDuration, Timestamp};

use super::members_view::{Member, MembersView};
use crate::policy::id::Name;

/// How far two clocks may differ.
pub(in crate::store) const MAX_APART: SignedDuration = SignedDuration::from_secs(5);

/// The clocks of the other replicas.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Clocks {
    /// By replica.
    others: BTreeMap<Name, OtherClock>,
}

/// The clock of another replica.
#[derive(Clone, Copy, Debug)]
struct OtherClock {
    /// How far it is ahead of the own one.
    ahead: SignedDuration,
    /// When its last renewal was seen.
    since: u64,
    /// The time that it told.
    told: Timestamp,
    /// Whether it says that the own clock is ahead.
    names_own: bool,
}

impl Clocks {
    /// The clocks by their records, except for the replica of this name. `now` is the time of the boot
    /// clock, and `clock` that of the own clock.
    pub(in crate::store) fn of(view: &MembersView, own: &Name, now: u64, clock: Timestamp) -> Self {
        let mut others = BTreeMap::new();
        for member @ Member { record, since, .. } in view.iter() {
            let Some(record) = record else { continue };
            if record.fenced || member.has_lapsed(now) || record.name == *own {
                continue;
            }
            let other = OtherClock {
                ahead: member.clock_ahead(record, now, clock),
                since: *since,
                told: record.clock,
                names_own: record.report.ahead.contains(own),
            };
            match others.entry(record.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(other);
                }
                // Its earlier session is not deleted yet.
                Entry::Occupied(mut entry) if entry.get().since < other.since => {
                    entry.insert(other);
                }
                Entry::Occupied(_) => {}
            }
        }
        Self { others }
    }

    /// The times that the others told.
    pub(super) fn told(&self) -> impl Iterator<Item = Timestamp> {
        self.others.values().map(|other| other.told)
    }

    /// The replicas whose clocks are ahead of the own one by more than [`MAX_APART`], sorted.
    pub(in crate::store) fn ahead(&self) -> Vec<Name> {
        let is_ahead = |(_, other): &(&Name, &OtherClock)| other.ahead > MAX_APART;
        self.others.iter().filter(is_ahead).map(|(name, _)| name.clone()).collect()
    }

    /// Whether the clocks of more than half of the others are ahead by more than [`MAX_APART`].
    pub(super) fn is_behind(&self) -> bool {
        self.most_are_ahead_by(MAX_APART)
    }

    /// Whether the clocks of more than half of the others are ahead by more than this.
    pub(in crate::store) fn most_are_ahead_by(&self, by: SignedDuration) -> bool {
        self.are_most(|other| other.ahead > by)
    }

    /// Whether more than half of the others say that the own clock is ahead.
    pub(super) fn is_named_ahead(&self) -> bool {
        self.are_most(|other| other.names_own)
    }

    fn are_most(&self, is_counted: impl Fn(&OtherClock) -> bool) -> bool {
        2 * self.others.values().filter(|other| is_counted(other)).count() > self.others.len()
    }
}

#[cfg(test)]
mod tests;
