//! File read: the read of a file that may hang, as on a file system over a network that is gone.
//!
//! A read that takes too long is a failure, and goes on. No other read of the file begins before it has
//! ended, so a file that hangs takes one thread.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::read_time::ReadTime;
use super::{KeyReadError, KeyReading};

/// The read of one file that is under way, and when it began.
#[derive(Default)]
pub(super) struct FileRead<'a>(Option<(ReadTime, KeyReading<'a>)>);

impl<'a> FileRead<'a> {
    /// The document, and when its read began. Waits at most for `limit`.
    pub(super) async fn next(
        &mut self,
        begin: impl FnOnce() -> KeyReading<'a>,
        limit: Duration,
    ) -> Result<(Bytes, ReadTime), KeyReadError> {
        let (at, mut reading) = self.0.take().unwrap_or_else(|| (ReadTime::now(), begin()));
        match timeout(limit, &mut reading).await {
            Ok(read) => Ok((read?, at)),
            Err(_) => {
                self.0 = Some((at, reading));
                Err(KeyReadError(format!("not read within {} seconds", limit.as_secs())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn read_that_hangs_fails_and_is_the_only_one() {
        let (reply, replied) = oneshot::channel();
        let begin = || -> KeyReading<'static> {
            Box::pin(async { replied.await.map_err(|_| KeyReadError("no reply".to_owned())) })
        };
        let no_second = || -> KeyReading<'static> { panic!("a second read") };
        let (mut read, none, long) =
            (FileRead::default(), Duration::ZERO, Duration::from_secs(3600));
        let hangs = KeyReadError("not read within 0 seconds".to_owned());
        assert_eq!(read.next(begin, none).await.err(), Some(hangs.clone()));
        assert_eq!(read.next(no_second, none).await.err(), Some(hangs));
        reply.send(Bytes::from_static(b"{}")).expect("it is still read");
        let (document, _) = read.next(no_second, long).await.expect("a document");
        assert_eq!(document, "{}");
        let next = || -> KeyReading<'static> { Box::pin(async { Ok(Bytes::new()) }) };
        assert!(read.next(next, long).await.is_ok(), "the next read");
    }
}
