//! Failure: classifies failed attempts by whether a retry makes sense.

use std::error::Error;
use std::io::ErrorKind;

use tonic::{Code, ConnectError, Status, TimeoutExpired};

/// The kind of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection was refused, or ended before the request was sent: no server has received it.
    /// A server that restarts is back soon.
    NotSent,
    /// The server is not available, or the connection was lost before the response. A check changes
    /// nothing, so a retry is safe; the budget limits it.
    Lost,
    /// Another attempt would fail in the same way, or would add to an overload.
    Permanent,
    /// The deadline has expired.
    DeadlineExceeded,
}

impl Failure {
    pub(crate) fn of(status: &Status) -> Self {
        // A status from the server has no source. A status from the transport has its error as the
        // source.
        let Some(source) = status.source() else {
            return match status.code() {
                Code::Unavailable => Self::Lost,
                Code::DeadlineExceeded => Self::DeadlineExceeded,
                _ => Self::Permanent,
            };
        };
        if causes(source).any(|error| error.is::<TimeoutExpired>()) {
            return Self::DeadlineExceeded;
        }
        if let Some(connect) = causes(source).find_map(|error| error.downcast_ref::<ConnectError>())
        {
            return if passes(connect) { Self::NotSent } else { Self::Permanent };
        }
        if causes(source).filter_map(|error| error.downcast_ref()).any(hyper::Error::is_canceled) {
            return Self::NotSent;
        }
        match status.code() {
            // The peer reports too many requests (`ENHANCE_YOUR_CALM`), or TLS is too weak.
            Code::ResourceExhausted | Code::PermissionDenied => Self::Permanent,
            _ => Self::Lost,
        }
    }
}

/// Converts the status of a failed attempt for the application. A status from the server stays. A
/// transport error gets its first cause, and the code `UNAVAILABLE` unless its own code is more
/// specific.
pub(crate) fn to_client_status(status: Status) -> Status {
    let Some(cause) = status.source().and_then(|source| causes(source).last()) else {
        return status;
    };
    let code = match status.code() {
        Code::ResourceExhausted | Code::PermissionDenied => status.code(),
        _ => Code::Unavailable,
    };
    Status::new(code, format!("{}: {cause}", status.message()))
}

/// True if the cause of a failed connect is temporary, such as a refused connection. An untrusted
/// certificate is not.
fn passes(connect: &ConnectError) -> bool {
    causes(connect).any(|error| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(
            kind,
            Some(
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::NotConnected
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
            )
        )
    })
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: impl Error + Send + Sync + 'static) -> Failure {
        Failure::of(&Status::from_error(Box::new(error)))
    }

    #[test]
    fn only_unavailable_of_all_that_a_server_says_is_asked_again() {
        for code in (0..=16).map(Code::from) {
            let failure = Failure::of(&Status::new(code, "said"));
            match code {
                Code::Unavailable => assert_eq!(failure, Failure::Lost),
                Code::DeadlineExceeded => assert_eq!(failure, Failure::DeadlineExceeded),
                _ => assert_eq!(failure, Failure::Permanent, "{code:?}"),
            }
        }
    }

    #[test]
    fn a_refused_connection_passes_and_a_bad_certificate_does_not() {
        let io = |kind| ConnectError(Box::new(std::io::Error::from(kind)));
        assert_eq!(of(io(ErrorKind::ConnectionRefused)), Failure::NotSent);
        assert_eq!(of(io(ErrorKind::InvalidData)), Failure::Permanent);
    }

    #[test]
    fn a_timeout_is_late_and_a_cut_connection_is_lost() {
        assert_eq!(of(TimeoutExpired(())), Failure::DeadlineExceeded);
        assert_eq!(of(std::io::Error::from(ErrorKind::BrokenPipe)), Failure::Lost);
    }

    #[test]
    fn a_lost_connection_is_told_as_unavailable_and_a_server_as_it_said() {
        let cut = std::io::Error::from(ErrorKind::BrokenPipe);
        assert_eq!(to_client_status(Status::from_error(Box::new(cut))).code(), Code::Unavailable);
        let said = to_client_status(Status::cancelled("said"));
        assert_eq!((said.code(), said.message()), (Code::Cancelled, "said"));
    }
}
