//! SeenTimes: when credentials were last seen at one replica, as a piece of it lies in etcd.
//!
//! A piece has few bytes for each credential: its creation revision as the difference from the one before,
//! and its minute as the difference from the latest one.
//!
//! Not here: when a piece is written, read and deleted; see `seen_task`.

use std::collections::BTreeMap;

use prost::Message;
use uuid::Uuid;

use super::{proto, uuid};
use crate::policy::revision::Revision;
use crate::store::Minute;
use crate::store::error::Corrupt;

/// The limit of credentials of a piece. At 10 bytes for a revision and 5 for a minute, a piece has at most
/// 512 KiB.
const MAX_CREDENTIALS: usize = 34_000;

/// When credentials were last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenTimes {
    /// The cluster whose credentials these are. Those of another one may have the same revisions.
    pub(super) cluster: Uuid,
    /// The minutes, by the creation revisions of the credentials.
    pub(super) minutes: BTreeMap<Revision, Minute>,
}

impl SeenTimes {
    /// The pieces with all of these minutes.
    pub(super) fn pieces(cluster: Uuid, minutes: &BTreeMap<Revision, Minute>) -> Vec<Vec<u8>> {
        let all: Vec<_> = minutes.iter().collect();
        let piece = |minutes: &[(&Revision, &Minute)]| {
            let latest = minutes.iter().map(|(_, minute)| **minute).max().unwrap_or(0);
            let mut before = 0;
            let mut births = Vec::with_capacity(minutes.len());
            for (Revision(birth), _) in minutes {
                births.push(birth - before);
                before = *birth;
            }
            proto::SeenTimes {
                cluster: cluster.as_bytes().to_vec(),
                latest,
                births,
                ages: minutes.iter().map(|(_, minute)| latest - **minute).collect(),
            }
            .encode_to_vec()
        };
        all.chunks(MAX_CREDENTIALS).map(piece).collect()
    }

    /// Reads a piece.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let piece = proto::SeenTimes::decode(bytes)?;
        if piece.births.len() != piece.ages.len() || piece.births.len() > MAX_CREDENTIALS {
            return Err(Corrupt);
        }
        let (mut birth, mut minutes) = (0_u64, BTreeMap::new());
        for (step, age) in piece.births.iter().zip(&piece.ages) {
            birth = birth.checked_add(*step).ok_or(Corrupt)?;
            let minute = piece.latest.checked_sub(*age).ok_or(Corrupt)?;
            minutes.insert(Revision(birth), minute);
        }
        Ok(Self { cluster: uuid(&piece.cluster)?, minutes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_read_back_from_their_pieces() {
        let cluster = Uuid::from_u128(7);
        assert!(SeenTimes::pieces(cluster, &BTreeMap::new()).is_empty());
        // Each difference as long as it can be in so large a map.
        let of = |n: u64| {
            (Revision(n * (u64::MAX / 40_000)), Minute::MAX * u32::from(n.is_multiple_of(2)))
        };
        let minutes: BTreeMap<_, _> = (0..40_000).map(of).collect();
        let pieces = SeenTimes::pieces(cluster, &minutes);
        assert_eq!(pieces.len(), 2);
        let mut read = BTreeMap::new();
        for piece in &pieces {
            assert!(piece.len() <= 512 << 10, "{}", piece.len());
            let piece = SeenTimes::decode(piece).expect("a piece");
            assert_eq!(piece.cluster, cluster);
            read.extend(piece.minutes);
        }
        assert_eq!(read, minutes);
        // A million credentials in use, of ten million: 10 bytes each are far more than enough.
        let minutes =
            (0..30_000).map(|n| (Revision(1 << 40 | (n * 10)), 29_000_000 - (n % 10) as u32));
        let pieces = SeenTimes::pieces(cluster, &minutes.collect());
        assert!(pieces[0].len() < 30_000 * 3, "{}", pieces[0].len());
    }

    #[test]
    fn a_damaged_piece_is_refused() {
        let piece = |births: Vec<u64>, ages: Vec<u32>| {
            let cluster = Uuid::from_u128(7).as_bytes().to_vec();
            let piece = proto::SeenTimes { cluster, latest: 9, births, ages };
            SeenTimes::decode(&piece.encode_to_vec())
        };
        piece(vec![1, 2], vec![0, 9]).expect("a piece");
        for (births, ages) in [
            (vec![1, 2], vec![0]),
            (vec![1, u64::MAX], vec![0, 0]),
            (vec![1], vec![10]),
            (vec![1; MAX_CREDENTIALS + 1], vec![0; MAX_CREDENTIALS + 1]),
        ] {
            piece(births, ages).expect_err("refused");
        }
        SeenTimes::decode(&[0xff; 9]).expect_err("refused");
    }
}
