//! Finalisation: raises the format of the log when all replicas speak a later one.
//!
//! It completes an upgrade: from then on entries are written in that format, and a program that does not
//! read it cannot join. Programs of two consecutive versions can serve together before it.
//!
//! The transaction compares the head and all records that were seen, so no replica that was seen can have
//! become one of an earlier version. A replica that joins in the same moment and does not read the format
//! leaves at its next renewal, and applies no entry of the format.
//!
//! Not here: in which format a replica writes; see `etcd_log`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::etcd::{Client, Compare, Operation, Txn};
use super::head::{Head, HeadState};
use super::listing::{Listing, ListingError};
use super::{FORMAT, LogError, keys};
use crate::policy::id::Name;

/// The limit of one call.
const WITHIN: Duration = Duration::from_secs(2);
/// How often it is tried while replicas renew their records.
const ATTEMPTS: usize = 50;

/// What the log has then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finalised {
    /// Entries are written in this format from now on.
    Raised(u32),
    /// They were written in this format before.
    Already(u32),
    /// These replicas do not speak a later format than that of the log.
    Old {
        /// The format of the log.
        format: u32,
        /// The names of the replicas.
        replicas: BTreeSet<Name>,
    },
    /// No replica has a record, so it is not known what replicas speak.
    NoReplica,
    /// Replicas renewed their records during each attempt.
    Busy,
}

/// Raises the format of the log to the latest one that this program and all replicas speak.
///
/// # Errors
/// There is no log, it is closed, this program does not speak its format, or etcd gave no answer.
pub async fn finalise(client: &Client) -> Result<Finalised, ListingError> {
    let mut raised = None;
    for _ in 0..ATTEMPTS {
        let Listing { head, members, .. } = Listing::read(client, WITHIN).await?;
        let (head, seen) = head.ok_or(LogError::Missing)?;
        head.check_format()?;
        if head.state != HeadState::Open {
            return Err(LogError::Closed.into());
        }
        if raised == Some(head.format) {
            return Ok(Finalised::Raised(head.format));
        }
        if head.format == FORMAT {
            return Ok(Finalised::Already(FORMAT));
        }
        let spoken = members.iter().map(|(record, _)| record.speaks).min();
        let Some(spoken) = spoken else { return Ok(Finalised::NoReplica) };
        let format = spoken.min(FORMAT);
        if format <= head.format {
            let old = members.into_iter().filter(|(record, _)| record.speaks <= head.format);
            let replicas = old.map(|(record, _)| record.name).collect();
            return Ok(Finalised::Old { format: head.format, replicas });
        }
        let mut compares: Vec<_> = members
            .into_iter()
            .map(|(record, seen)| Compare::Is(keys::member(record.session), seen))
            .collect();
        compares.push(Compare::Is(keys::HEAD.to_owned(), seen));
        let head = Head { format, ..head }.encode().into();
        let then = vec![Operation::Put(keys::HEAD.to_owned(), head)];
        raised = Some(format);
        match client.txn(&Txn { compares, then, or_else: vec![] }, WITHIN).await {
            Ok(answer) if answer.succeeded => return Ok(Finalised::Raised(format)),
            Err(error) if error.is_certain() => return Err(error.into()),
            // The next look tells.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(Finalised::Busy)
}
