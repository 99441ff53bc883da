//! Closing: ends a log for all replicas, before one store goes on with a new incarnation.
//!
//! A closed head accepts no entry, and no replica joins behind it. Then the sessions of all replicas are
//! ended: each record is fenced, so that its replica cannot renew it, and is deleted by its replica, or by
//! this program when it has [lapsed](super::members_view). A replica answers only while its record exists,
//! so when no record is left, no replica of that log answers. A replica that creates a record behind the
//! closed head sees it in the same transaction, and never answers.
//!
//! Not here: what begins then; see [`initialisation`](super::initialisation).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::etcd::{Client, Compare, EtcdError, Operation, Range, Txn};
use super::head::{Head, HeadState};
use super::listing::{ListingError, read_head};
use super::members_view::{Member, MembersView};
use super::{LogError, keys};
use crate::store::boot_clock;

/// The limit of one call.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a call without an answer is repeated.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The transaction that closes the log, if its head still has the bytes that were seen. The random id
/// distinguishes this closing from every other.
pub(super) fn closing(head: Head, seen: Bytes) -> Txn {
    closing_as(head, seen, Uuid::new_v4())
}

fn closing_as(head: Head, seen: Bytes, id: Uuid) -> Txn {
    replacing(seen, &Head { state: HeadState::Closed(id), ..head })
}

fn replacing(seen: Bytes, head: &Head) -> Txn {
    Txn {
        compares: vec![Compare::Is(keys::HEAD.to_owned(), seen)],
        then: vec![Operation::Put(keys::HEAD.to_owned(), head.encode().into())],
        or_else: vec![],
    }
}

/// Closes the log of this cluster, with this id of the closing. Returns the closed head with its bytes. It
/// is that of another closing if the log was closed before, and an open one if the log is now that of
/// another cluster, which is left alone.
///
/// # Errors
/// There is no log, or etcd gave no answer. The log may be closed all the same.
pub async fn close(
    client: &Client,
    cluster: Uuid,
    id: Uuid,
) -> Result<(Head, Bytes), ListingError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match client.range(&Range::key(keys::HEAD), WITHIN).await {
            Ok(answer) => {
                let (head, seen) = read_head(&answer)?.ok_or(LogError::Missing)?;
                if head.state != HeadState::Open || head.cluster != cluster {
                    return Ok((head, seen));
                }
                // Whatever came of it, the next look tells: a commit may have come between.
                client.txn(&closing_as(head, seen, id), WITHIN).await.err()
            }
            Err(error) => Some(error),
        };
        give_up_late(error, deadline).await?;
    }
}

/// Opens a log again that this program has closed. It does nothing if the head is another one now.
///
/// # Errors
/// etcd gave no answer. The log may be open all the same.
pub async fn reopen(client: &Client, head: &Head, closed: &Bytes) -> Result<(), ListingError> {
    let txn = replacing(closed.clone(), &Head { state: HeadState::Open, ..head.clone() });
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.txn(&txn, WITHIN).await {
        give_up_late(Some(error), deadline).await?;
    }
    Ok(())
}

/// Ends the sessions of all replicas of a closed log, whose head has these bytes; none if there is no head.
/// It returns when no record is left: at once if every replica has ended its session, and else after the
/// lease of the last one, at most 75 s. It also returns when there is another head: the sessions are those
/// of another cluster then, and are left alone.
///
/// # Errors
/// etcd gave no answer. A replica may answer still.
pub async fn end_sessions(client: &Client, closed: Option<&Bytes>) -> Result<(), ListingError> {
    let mut view = MembersView::default();
    let mut deadline = Instant::now() + PATIENCE;
    let ranges = [Range::key(keys::HEAD), Range::under(keys::MEMBERS)].map(Operation::Range);
    let look = Txn { then: ranges.to_vec(), ..Txn::default() };
    loop {
        match client.txn(&look, WITHIN).await {
            Ok(answer) => {
                deadline = Instant::now() + PATIENCE;
                let now = boot_clock::now();
                let [head, records] = answer.ranges.as_slice() else { continue };
                if head.pairs.first().map(|pair| &pair.value) != closed {
                    return Ok(());
                }
                view = view.next(now, records);
                if view.iter().next().is_none() {
                    return Ok(());
                }
                for mut txn in view.iter().filter_map(|member| ending(member, now)) {
                    txn.compares.push(match closed {
                        Some(closed) => Compare::Is(keys::HEAD.to_owned(), closed.clone()),
                        None => Compare::Absent(keys::HEAD.to_owned()),
                    });
                    // Whatever came of it, the next look shows.
                    client.txn(&txn, WITHIN).await.ok();
                }
                sleep(PAUSE).await;
            }
            Err(error) => give_up_late(Some(error), deadline).await?,
        }
    }
}

/// The transaction that brings the end of a session nearer. A record that cannot be read is only deleted:
/// its lease may be the longest.
fn ending(member: &Member, now: u64) -> Option<Txn> {
    let key = keys::member(member.session);
    let operation = if member.has_lapsed(now) {
        Operation::Delete(Range::key(&key))
    } else if member.record.is_some() && !member.is_fenced() {
        Operation::Put(key.clone(), member.fenced_bytes())
    } else {
        return None;
    };
    let compares = vec![Compare::Is(key, member.bytes().clone())];
    Some(Txn { compares, then: vec![operation], or_else: vec![] })
}

/// Whether the head of the log has these bytes still.
///
/// # Errors
/// etcd gave no answer.
pub async fn is_present(client: &Client, closed: &Bytes) -> Result<bool, ListingError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.range(&Range::key(keys::HEAD), WITHIN).await {
            Ok(answer) => {
                return Ok(answer.pairs.first().is_some_and(|pair| pair.value == *closed));
            }
            Err(error) => give_up_late(Some(error), deadline).await?,
        }
    }
}

/// Pauses after a call that failed, if another attempt is due.
async fn give_up_late(error: Option<EtcdError>, deadline: Instant) -> Result<(), EtcdError> {
    match error {
        Some(error) if error.is_certain() || Instant::now() > deadline => Err(error),
        Some(_) => {
            sleep(PAUSE).await;
            Ok(())
        }
        None => Ok(()),
    }
}
