//! EtcdError: why etcd did not do what it was asked to do, and whether that is certain.
//!
//! Few errors prove that a transaction was not carried out. These are the ones that etcd gives before
//! it proposes a request to the cluster, or before it changes anything: a wrong form, a missing
//! permission, a token that is not valid. The list is of exact codes and texts, so that the error of a
//! proxy, or one that a later version of etcd adds, proves nothing.
//!
//! Not here: the repeats of a caller that is in doubt.

use std::error::Error;

use tonic::Code;

/// Why etcd did not do what it was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// The node gave no answer that counts. It may have carried the request out, or may still do so.
    #[error("etcd gave no answer: {0}")]
    NoAnswer(String),
    /// The database of the node has reached its quota. etcd gives this error also for a transaction
    /// that it did carry out: it tests the quota before it applies the transaction, and reports the
    /// result after that.
    #[error(
        "etcd's database has reached its quota; compact it, defragment each node, then disarm the alarm"
    )]
    NoSpace,
    /// etcd answered no, and has changed nothing.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// The transaction exceeds a limit of etcd, and was not sent.
    #[error("a transaction of {size} {what} is above the limit of {limit}; make it smaller")]
    TooLarge {
        /// What there is too much of: bytes or operations.
        what: &'static str,
        /// How much there is.
        size: usize,
        /// How much there may be.
        limit: usize,
    },
}

/// The errors after which nothing has changed: all are found before a request is proposed, or, for the
/// permission, before it is applied.
const CERTAIN: [(Code, &str); 11] = [
    (Code::InvalidArgument, "etcdserver: key is not provided"),
    (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
    (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
    (Code::InvalidArgument, "etcdserver: request is too large"),
    (Code::InvalidArgument, "etcdserver: user name is empty"),
    (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
    (Code::PermissionDenied, "etcdserver: permission denied"),
    (Code::Unauthenticated, "etcdserver: invalid auth token"),
    // No transaction names a revision, so these are the answers of a compaction and of a watch.
    (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
    (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
];

impl EtcdError {
    /// Whether etcd certainly did nothing, and will do nothing.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge { .. })
    }

    /// Whether etcd has removed the history that was asked for.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused(why) if why == "mvcc: required revision has been compacted")
    }

    pub(super) fn of(status: &tonic::Status) -> Self {
        let (code, text) = (status.code(), status.message());
        if CERTAIN.contains(&(code, text)) {
            return Self::Refused(text.trim_start_matches("etcdserver: ").to_owned());
        }
        if (code, text) == (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded") {
            return Self::NoSpace;
        }
        Self::NoAnswer(cause(text, status.source()))
    }

    /// Names the node that gave no answer.
    pub(super) fn at(self, address: &str) -> Self {
        match self {
            Self::NoAnswer(why) => Self::NoAnswer(format!("`{address}`: {why}")),
            other => other,
        }
    }
}

/// A cause with those below it.
pub(in crate::store) fn cause(text: &str, mut next: Option<&(dyn Error + 'static)>) -> String {
    let mut text = text.to_owned();
    while let Some(error) = next {
        let more = error.to_string();
        // Some errors repeat the one below.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, text: &str) -> EtcdError {
        EtcdError::of(&tonic::Status::new(code, text))
    }

    #[test]
    fn only_exact_errors_are_certain() {
        let denied = "etcdserver: permission denied";
        assert!(error(Code::PermissionDenied, denied).is_certain());
        for (code, text) in [
            // What a proxy answers.
            (Code::PermissionDenied, "403"),
            (Code::Unknown, denied),
            // The request may have been proposed.
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Code::InvalidArgument, "etcdserver: request is too large, or so"),
        ] {
            assert!(!error(code, text).is_certain(), "{text}");
        }
    }
}
