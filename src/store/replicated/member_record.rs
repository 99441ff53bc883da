//! MemberRecord: the record of a replica's session, which the other replicas read.
//!
//! Not here: when a replica renews it, and when another one ends the session.

use std::fmt;
use std::time::Duration;

use blake3::Hash;
use jiff::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::{LogError, ReplicaReport, proto, uuid};
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::error::Corrupt;
use crate::store::record::{moment, stamp};

/// The shortest and the longest time for which a replica may answer after a renewal.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(60);

/// The record of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// The random id of the session.
    pub session: Uuid,
    /// The name of the replica.
    pub name: Name,
    /// How many times the replica has renewed the record.
    pub count: u64,
    /// New with each renewal: no two values of a record are equal.
    pub random: [u8; 16],
    /// The last revision that the replica has published.
    pub published: Revision,
    /// Whether another replica has ended the session.
    pub fenced: bool,
    /// How long the replica may answer after a renewal began: 3 s to 60 s.
    pub ttl: Duration,
    /// The time of the replica's clock at the renewal.
    pub clock: Timestamp,
    /// When the session began, by the replica's clock.
    pub started: Timestamp,
    /// The highest format of entries that the replica reads and writes.
    pub speaks: u32,
    /// The version of the replica's program.
    pub version: String,
    /// The URL at which other replicas reach this one.
    pub advertise: String,
    /// The secret that other replicas present there.
    pub peer_token: PeerToken,
    /// What the replica tells about itself besides its session.
    pub report: ReplicaReport,
}

/// The secret that other replicas present. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerToken(pub [u8; 32]);

impl PeerToken {
    /// The secret as a caller presents it: 64 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Whether a caller presents this secret. The comparison takes constant time.
    #[must_use]
    pub fn is(&self, presented: &str) -> bool {
        Hash::from_hex(presented).is_ok_and(|presented| presented == self.0)
    }
}

impl fmt::Debug for PeerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerToken(..)")
    }
}

impl MemberRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        Self::read(bytes).map_err(|Corrupt| LogError::Damaged("record of a replica"))
    }

    fn read(bytes: &[u8]) -> Result<Self, Corrupt> {
        let record = proto::Record::decode(bytes)?;
        let ttl = Duration::try_from(record.ttl.ok_or(Corrupt)?).map_err(|_| Corrupt)?;
        if !TTL.contains(&ttl) || record.speaks == 0 {
            return Err(Corrupt);
        }
        Ok(Self {
            session: uuid(&record.session)?,
            name: Name::parse(record.name).map_err(|_| Corrupt)?,
            count: record.count,
            random: record.random.try_into().map_err(|_| Corrupt)?,
            published: Revision(record.published),
            fenced: record.fenced,
            ttl,
            clock: moment(record.clock)?,
            // Programs that speak only the first format do not tell it.
            started: moment(record.started.or(record.clock))?,
            speaks: record.speaks,
            version: record.version,
            advertise: record.advertise,
            peer_token: PeerToken(record.peer_token.try_into().map_err(|_| Corrupt)?),
            report: ReplicaReport::read(record.report.unwrap_or_default())?,
        })
    }

    /// The bytes of the record in the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::Record {
            session: self.session.as_bytes().to_vec(),
            name: self.name.to_string(),
            count: self.count,
            random: self.random.to_vec(),
            published: self.published.0,
            fenced: self.fenced,
            // The limits of the time are far below the range of the message.
            ttl: self.ttl.try_into().ok(),
            clock: Some(stamp(self.clock)),
            started: Some(stamp(self.started)),
            speaks: self.speaks,
            version: self.version.clone(),
            advertise: self.advertise.clone(),
            peer_token: self.peer_token.0.to_vec(),
            report: Some(self.report.message()),
        }
        .encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn record_of_a_program_that_speaks_only_the_first_format_is_read() {
        let (session, now) = (Uuid::from_u128(7), Timestamp::UNIX_EPOCH);
        let record = MemberRecord {
            session,
            name: Name::parse("a").expect("a name"),
            count: 1,
            random: [1; 16],
            published: Revision(7),
            fenced: false,
            ttl: Duration::from_secs(4),
            clock: now,
            started: now,
            speaks: 1,
            version: "0.1.0".to_owned(),
            advertise: "http://127.0.0.1:1".to_owned(),
            peer_token: PeerToken([7; 32]),
            report: ReplicaReport::default(),
        };
        let message = proto::Record::decode(record.encode().as_slice()).expect("a message");
        let message = proto::Record { started: None, report: None, ..message };
        // Field 9 had the names of the replicas whose clocks are ahead.
        let bytes = [message.encode_to_vec(), vec![9 << 3 | 2, 1, b'b']].concat();
        assert_eq!(MemberRecord::decode(&bytes), Ok(record));
    }
}
