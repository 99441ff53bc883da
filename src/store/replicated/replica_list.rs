//! ReplicaList: the log and all records as one observer sees them, for operators.
//!
//! Not here: how it is shown; see `cli::replica_list`. And what another replica concludes from a record;
//! see [`MembersView`](super::members_view::MembersView).

use std::time::Duration;

use jiff::SignedDuration;

use super::etcd::{EtcdError, NodeStatus};
use super::head::Head;
use super::listing::Listing;
use super::member_record::{MemberRecord, PeerToken};
use super::{LogError, peer};

/// The log and all records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaList {
    /// The end of the log.
    pub head: Head,
    /// The number of the first entry that the log still has.
    pub first_entry: Option<u64>,
    /// The records, sorted by the names of their replicas.
    pub replicas: Vec<ListedReplica>,
    /// The nodes of etcd.
    pub nodes: Vec<EtcdNode>,
}

/// A record, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedReplica {
    /// The record.
    pub record: MemberRecord,
    /// The last renewal that was seen; none if none was.
    pub seen: Option<SeenRenewal>,
}

/// A renewal of a record, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenRenewal {
    /// The time since it was seen.
    pub age: Duration,
    /// How far the clock of the replica is ahead of the observer's.
    pub clock_ahead: SignedDuration,
}

/// A node of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdNode {
    /// The address by which it is called.
    pub address: String,
    /// Whether it has answered.
    pub is_reached: bool,
    /// Whether it is the leader.
    pub is_leader: bool,
}

impl EtcdNode {
    /// The nodes with these addresses, by what each says about itself.
    #[must_use]
    pub fn all(addresses: &[String], status: &[Result<NodeStatus, EtcdError>]) -> Vec<Self> {
        let node = |(address, status): (&String, &Result<NodeStatus, EtcdError>)| Self {
            address: address.clone(),
            is_reached: status.is_ok(),
            is_leader: status.as_ref().is_ok_and(|status| status.is_leader),
        };
        addresses.iter().zip(status).map(node).collect()
    }
}

impl ReplicaList {
    /// The list of what etcd has. `seen` tells the last renewal of a record.
    ///
    /// # Errors
    /// etcd has no cluster.
    pub fn new(
        listing: Listing,
        nodes: Vec<EtcdNode>,
        seen: impl Fn(&MemberRecord) -> Option<SeenRenewal>,
    ) -> Result<Self, LogError> {
        let (head, _) = listing.head.ok_or(LogError::Missing)?;
        let replica = |(record, _)| ListedReplica { seen: seen(&record), record };
        let mut replicas: Vec<_> = listing.members.into_iter().map(replica).collect();
        replicas.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(Self { head, first_entry: listing.first_entry, replicas, nodes })
    }

    /// Reads the list in a response.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(response: peer::ReplicasResponse) -> Result<Self, LogError> {
        let damaged = || LogError::Damaged("list of replicas");
        let replica = |listed: peer::ListedReplica| {
            let seen = match (listed.age, listed.clock_ahead) {
                (Some(age), Some(ahead)) => Some(SeenRenewal {
                    age: age.try_into().map_err(|_| damaged())?,
                    clock_ahead: SignedDuration::new(ahead.seconds, ahead.nanos),
                }),
                _ => None,
            };
            Ok(ListedReplica { record: MemberRecord::decode(&listed.record)?, seen })
        };
        let replicas = response.replicas.into_iter().map(replica);
        let node = |node: peer::EtcdNode| EtcdNode {
            address: node.address,
            is_reached: node.is_reached,
            is_leader: node.is_leader,
        };
        Ok(Self {
            head: Head::decode(&response.head)?,
            first_entry: response.first_entry,
            replicas: replicas.collect::<Result<_, LogError>>()?,
            nodes: response.nodes.into_iter().map(node).collect(),
        })
    }

    /// The list as a response. It has no secret of a replica.
    #[must_use]
    pub fn response(&self) -> peer::ReplicasResponse {
        let replica = |ListedReplica { record, seen }: &ListedReplica| {
            let record = MemberRecord { peer_token: PeerToken([0; 32]), ..record.clone() };
            peer::ListedReplica {
                record: record.encode(),
                age: seen.and_then(|seen| seen.age.try_into().ok()),
                clock_ahead: seen.map(|SeenRenewal { clock_ahead, .. }| prost_types::Duration {
                    seconds: clock_ahead.as_secs(),
                    nanos: clock_ahead.subsec_nanos(),
                }),
            }
        };
        let node = |node: &EtcdNode| peer::EtcdNode {
            address: node.address.clone(),
            is_reached: node.is_reached,
            is_leader: node.is_leader,
        };
        peer::ReplicasResponse {
            head: self.head.encode(),
            first_entry: self.first_entry,
            replicas: self.replicas.iter().map(replica).collect(),
            nodes: self.nodes.iter().map(node).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::policy::id::Name;
    use crate::policy::revision::Revision;
    use crate::store::replicated::ReplicaReport;

    #[test]
    fn response_has_all_of_the_list_except_the_secrets() {
        let (id, now) = (Uuid::from_u128(1), Timestamp::UNIX_EPOCH);
        let record = MemberRecord {
            session: id,
            name: Name::parse("a".to_owned()).expect("a name"),
            count: 1,
            random: [1; 16],
            published: Revision(7),
            fenced: true,
            ttl: Duration::from_secs(4),
            clock: now,
            started: now,
            speaks: 1,
            version: "0.1.0".to_owned(),
            advertise: "http://127.0.0.1:1".to_owned(),
            peer_token: PeerToken([7; 32]),
            report: ReplicaReport { diverged: 3, ..ReplicaReport::default() },
        };
        let clock_ahead = SignedDuration::from_millis(-1_500);
        let seen = Some(SeenRenewal { age: Duration::from_millis(300), clock_ahead });
        let node = EtcdNode { address: "h:1".to_owned(), is_reached: true, is_leader: true };
        let list = ReplicaList {
            head: Head::first(id, id, Revision(7), now),
            first_entry: Some(4),
            replicas: [seen, None]
                .map(|seen| ListedReplica { record: record.clone(), seen })
                .into(),
            nodes: vec![node],
        };
        let mut read = ReplicaList::read(list.response()).expect("readable");
        for listed in &mut read.replicas {
            assert_eq!(listed.record.peer_token, PeerToken([0; 32]));
            listed.record.peer_token = PeerToken([7; 32]);
        }
        assert_eq!(read, list);
    }
}
