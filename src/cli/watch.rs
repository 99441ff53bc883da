//! `scopegate changes watch`: prints the stream of changes, and reconnects after a restart of the
//! server.
//!
//! INVARIANT (each change once): the cursor of a change is stored after the change was printed, and
//! a new stream starts after that cursor. So no change is printed twice, and none is skipped.
//!
//! A broken stream is reopened if a retry can succeed: the server was stopped or killed, or sends
//! nothing. It is not reopened if the server rejected the stream.

use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::change_row::line;
use super::client::{Client, ServerArgs, unwrap_response};
use super::connection::{Purpose, connect_for};
use super::failure::server_error;
use super::suggestion;
use crate::observe::log;
use crate::policy::text;
use crate::proto::{ListCompaniesRequest, WatchChangesRequest, WatchChangesResponse};

/// The delay before the first reconnection attempt, and the maximum delay between two attempts.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// A stream that was open for this long resets the time limit of reconnections.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// The maximum time without a message on a stream that has had a heartbeat. By default servers send
/// a heartbeat every 30 seconds.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(75);
/// Practically no timeout.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Prints changes until Ctrl-C.
///
/// # Errors
/// The server cannot be reached or rejects the stream, or it was lost and did not come back in
/// time.
pub(super) async fn watch(
    company: Option<String>,
    after: Option<u64>,
    cursor: String,
    reconnect: Duration,
    server_args: &ServerArgs,
) -> anyhow::Result<()> {
    let mut client = open(server_args).await?;
    let after_revision = match after {
        Some(after) => after,
        None if cursor.is_empty() => current_revision(&mut client).await?,
        None => 0,
    };
    // Handle Ctrl-C before the first change is printed, because a reader of that change may send
    // it.
    let stop = signal(SignalKind::interrupt())?;
    if let Some(company) = &company {
        suggestion::warn_of_company(&mut client, company).await;
    }
    let next = WatchChangesRequest { company_id: company, after_revision, cursor };
    let stream = unwrap_response(client.changes.watch_changes(next.clone()).await)?;
    let mut watch = WatchState { next, reconnect, stop, lost_at: None };
    watch.run(client, stream, server_args).await?;
    let cursor = &watch.next.cursor;
    let is_for_people = server_args.output == super::output_format::OutputFormat::Table;
    if is_for_people && !cursor.is_empty() {
        log::tell(&resume(cursor));
    }
    Ok(())
}

async fn open(server_args: &ServerArgs) -> anyhow::Result<Client> {
    server_args.open_on(connect_for(Purpose::Events, &server_args.server).await?)
}

/// The current revision of the server.
async fn current_revision(client: &mut Client) -> anyhow::Result<u64> {
    let request = ListCompaniesRequest { page_size: 1, page_token: String::new() };
    Ok(unwrap_response(client.directory.list_companies(request).await)?.revision)
}

fn resume(cursor: &str) -> String {
    match cursor {
        "" => "no change was printed: run the command again".to_owned(),
        cursor => {
            format!("continue after the last change with --cursor {}", text::escaped(cursor))
        }
    }
}

/// The reason why a stream ended.
enum WatchEnd {
    /// Ctrl-C was pressed.
    Stopped,
    /// The connection was lost; a new stream can continue.
    Broken(anyhow::Error),
    /// The server rejected the stream; a retry would be rejected too.
    Refused(anyhow::Error),
    /// Standard output is closed, or the change cannot be printed.
    Failed(anyhow::Error),
}

impl WatchEnd {
    fn of(status: &Status, cursor: &str) -> Self {
        if is_transient(status) {
            return Self::Broken(server_error(status));
        }
        Self::Refused(match status.code() {
            // With another key the stream can be continued.
            Code::Unauthenticated | Code::PermissionDenied => {
                anyhow!("{}; {}", server_error(status), resume(cursor))
            }
            // The error is about the cursor or the request.
            _ => server_error(status),
        })
    }
}

/// Whether a later retry of the same request can succeed.
fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => {
            true
        }
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::OutOfRange
        | Code::NotFound
        | Code::Unimplemented => false,
        // An error of the connection, not a response of the server.
        _ => status.get_error_details().error_info().is_none(),
    }
}

struct WatchState {
    /// The request that continues after the last printed change.
    next: WatchChangesRequest,
    /// The time limit of reconnections.
    reconnect: Duration,
    stop: Signal,
    /// The time at which the last good stream was lost.
    lost_at: Option<Instant>,
}

impl WatchState {
    async fn run(
        &mut self,
        mut client: Client,
        mut stream: Streaming<WatchChangesResponse>,
        server_args: &ServerArgs,
    ) -> anyhow::Result<()> {
        loop {
            let opened = Instant::now();
            let cause = match self.print(&client, &mut stream).await {
                WatchEnd::Stopped => return Ok(()),
                WatchEnd::Refused(error) | WatchEnd::Failed(error) => return Err(error),
                WatchEnd::Broken(error) => error,
            };
            if opened.elapsed() >= STABLE_AFTER {
                self.lost_at = None;
            }
            let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
            match self.reopen(server_args, lost_at, cause).await? {
                Some(opened) => (client, stream) = opened,
                None => return Ok(()),
            }
        }
    }

    /// Prints the changes of a stream until it ends.
    async fn print(
        &mut self,
        client: &Client,
        stream: &mut Streaming<WatchChangesResponse>,
    ) -> WatchEnd {
        let (mut message_timeout, mut last) = (NEVER, Instant::now());
        loop {
            let next = tokio::select! {
                next = timeout(message_timeout, stream.message()) => next,
                _ = self.stop.recv() => return WatchEnd::Stopped,
            };
            let message = match next {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return WatchEnd::Broken(anyhow!("the server closed the stream")),
                Ok(Err(status)) => return WatchEnd::of(&status, &self.next.cursor),
                Err(_) => {
                    let silent = message_timeout.as_secs();
                    return WatchEnd::Broken(anyhow!("the server has been silent for {silent} s"));
                }
            };
            match &message.change {
                // A heartbeat. Servers can be configured to send them less often.
                None => message_timeout = HEARTBEAT_TIMEOUT.max(last.elapsed() * 5 / 2),
                Some(change) => {
                    if let Err(error) = client.printer.print_line(&message, &line(change)) {
                        return WatchEnd::Failed(error);
                    }
                }
            }
            (self.lost_at, last) = (None, Instant::now());
            if !message.cursor.is_empty() {
                self.next.cursor = message.cursor;
                self.next.after_revision = 0;
            }
        }
    }

    /// Reopens the stream after the last printed change, until it succeeds or the time limit is
    /// reached. `None` after Ctrl-C.
    async fn reopen(
        &mut self,
        server_args: &ServerArgs,
        lost_at: Instant,
        mut cause: anyhow::Error,
    ) -> anyhow::Result<Option<(Client, Streaming<WatchChangesResponse>)>> {
        let mut delay = MIN_DELAY;
        loop {
            let remaining = self.reconnect.saturating_sub(lost_at.elapsed());
            if remaining.is_zero() {
                let tried = match self.reconnect.as_secs() {
                    0 => String::new(),
                    seconds => format!("; no stream could be opened for {seconds} s"),
                };
                return Err(self.explain(&anyhow!("{cause:#}{tried}")));
            }
            let (request, cursor) = (self.next.clone(), self.next.cursor.clone());
            let attempt = async {
                sleep(delay).await;
                let mut client = open(server_args).await.map_err(WatchEnd::Broken)?;
                let stream = client.changes.watch_changes(request).await;
                let stream = stream.map_err(|status| WatchEnd::of(&status, &cursor))?.into_inner();
                Ok((client, stream))
            };
            let attempt = tokio::select! {
                attempt = timeout(remaining, attempt) => attempt,
                _ = self.stop.recv() => return Ok(None),
            };
            match attempt {
                Ok(Ok(opened)) => {
                    let seconds = lost_at.elapsed().as_secs();
                    let cause = format!("{cause:#}");
                    let cause = text::escaped(&cause);
                    log::tell(&format!(
                        "reconnected after {seconds} s ({cause}): no change was missed"
                    ));
                    return Ok(Some(opened));
                }
                Ok(Err(WatchEnd::Broken(error))) => cause = error,
                Ok(Err(WatchEnd::Refused(error) | WatchEnd::Failed(error))) => {
                    return Err(error);
                }
                Ok(Err(WatchEnd::Stopped)) => return Ok(None),
                // The time limit is reached.
                Err(_) => {}
            }
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}; {}", resume(&self.next.cursor))
    }
}
