//! Clocks by scripted records.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::super::etcd::{Pair, RangeAnswer};
use super::super::member_record::{MemberRecord, PeerToken};
use super::super::{FORMAT, ReplicaReport, keys};
use super::*;
use crate::policy::revision::Revision;

const SECOND: u64 = 1_000_000_000;
/// The own clock, in seconds.
const OWN: i64 = 1000;

fn name(text: &str) -> Name {
    Name::parse(text.to_owned()).expect("a name")
}

/// A record of a replica whose clock is so many seconds ahead of `OWN`, and that says so of these.
fn record(session: u128, of: &str, ahead: i64, names: &[&str]) -> MemberRecord {
    MemberRecord {
        session: Uuid::from_u128(session),
        name: name(of),
        count: 1,
        random: [1; 16],
        published: Revision(5),
        fenced: false,
        ttl: Duration::from_secs(4),
        clock: Timestamp::from_second(OWN + ahead).expect("a time"),
        started: Timestamp::UNIX_EPOCH,
        speaks: FORMAT,
        version: "0".to_owned(),
        advertise: "http://b".to_owned(),
        peer_token: PeerToken([0; 32]),
        report: ReplicaReport {
            ahead: names.iter().map(|text| name(text)).collect(),
            ..ReplicaReport::default()
        },
    }
}

fn view(before: &MembersView, at: u64, records: &[MemberRecord]) -> MembersView {
    let pair = |record: &MemberRecord| Pair {
        key: keys::member(record.session),
        value: Bytes::from(record.encode()),
    };
    let pairs = records.iter().map(pair).collect();
    before.next(at * SECOND, &RangeAnswer { revision: 1, pairs, has_more: false })
}

/// The clocks by these records, which were seen just now, as replica `a` sees them.
fn clocks(records: &[MemberRecord]) -> Clocks {
    at(&view(&MembersView::default(), 1, records), 1, OWN)
}

fn at(view: &MembersView, now: u64, clock: i64) -> Clocks {
    Clocks::of(view, &name("a"), now * SECOND, Timestamp::from_second(clock).expect("a time"))
}

#[test]
fn the_own_clock_is_behind_if_more_than_half_of_the_others_are_ahead() {
    for (ahead, is_behind) in [
        (&[][..], false),
        (&[5], false),
        (&[6], true),
        (&[6, 0], false),
        (&[6, 6], true),
        (&[6, -60], false),
        (&[6, 6, 0], true),
        (&[6, 6, 0, 0], false),
    ] {
        let record = |(n, ahead): (usize, &i64)| record(n as u128, &format!("b{n}"), *ahead, &[]);
        let records: Vec<_> = ahead.iter().enumerate().map(record).collect();
        let clocks = clocks(&records);
        assert_eq!(clocks.is_behind(), is_behind, "{ahead:?}");
        let named = ahead.iter().filter(|ahead| **ahead > 5).count();
        assert_eq!(clocks.ahead().len(), named, "{ahead:?}");
    }
}

#[test]
fn the_own_clock_is_ahead_if_more_than_half_of_the_others_say_so() {
    for (names, is_ahead) in [
        (&[][..], false),
        (&[&["a"][..]], true),
        (&[&["a"], &[]], false),
        (&[&["a"], &["b0"]], false),
        (&[&["a"], &["a", "b0"]], true),
        (&[&["a"], &["a"], &[]], true),
    ] {
        let record = |(n, names): (usize, &&[&str])| record(n as u128, &format!("b{n}"), 0, names);
        let records: Vec<_> = names.iter().enumerate().map(record).collect();
        assert_eq!(clocks(&records).is_named_ahead(), is_ahead, "{names:?}");
    }
}

#[test]
fn only_the_last_live_record_of_another_replica_counts() {
    let ahead = |session, of| record(session, of, 60, &["a"]);
    let fenced = MemberRecord { fenced: true, ..ahead(1, "b") };
    for records in [&[fenced][..], &[ahead(1, "a")]] {
        let clocks = clocks(records);
        assert!(!clocks.is_behind() && !clocks.is_named_ahead());
        assert_eq!((clocks.ahead(), clocks.told().count()), (vec![], 0));
    }
    // Its clock was set right by a restart, and its earlier record is not deleted yet.
    let first = view(&MembersView::default(), 1, &[ahead(1, "b")]);
    let second = view(&first, 2, &[ahead(1, "b"), record(2, "b", 1, &[])]);
    assert!(at(&first, 2, OWN + 1).is_behind());
    let clocks = at(&second, 2, OWN + 1);
    assert!(!clocks.is_behind() && !clocks.is_named_ahead());

    // It is seen for its lapse time, during which its clock goes on.
    for now in 2..7 {
        let own = OWN + i64::try_from(now).expect("small");
        assert!(at(&first, now, own).is_behind());
        assert!(!at(&first, now, own + 55).is_behind());
    }
    assert!(!at(&first, 7, OWN + 7).is_behind());
}
