//! `scopegate changes watch`: the stream of changes, which outlives a server's restart.
//!
//! INVARIANT (each change once): the cursor of a change is remembered when the change was printed,
//! and a new stream begins behind that cursor. So no change is printed twice, and none is left out.
//!
//! A stream that breaks is opened again where that can help: the server ended, was killed or is
//! silent. It is not where the server answered that it will not serve this stream.

use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::changes::line;
use super::client::{Client, ServerArgs, unwrap_response};
use super::connection::{Purpose, connect_for};
use super::failure::server_error;
use super::suggestion;
use crate::observe::log;
use crate::policy::text;
use crate::proto::{ListCompaniesRequest, WatchChangesRequest, WatchChangesResponse};

/// How long to wait before the first attempt to connect again, and at most between two.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A stream that lived so long was a good one: its end begins a new time for attempts.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a stream that has had a heartbeat may be silent. Servers send one every 30 seconds.
const SILENCE: Duration = Duration::from_secs(75);
/// For ever, as far as a timer knows.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Prints changes until Ctrl-C.
///
/// # Errors
/// No server could be asked, it refused, or it went and did not come back in time.
pub(super) async fn watch(
    company: Option<String>,
    after: Option<u64>,
    cursor: String,
    reconnect: Duration,
    asking: &ServerArgs,
) -> anyhow::Result<()> {
    let mut desk = open(asking).await?;
    let after_revision = match after {
        Some(after) => after,
        None if cursor.is_empty() => head(&mut desk).await?,
        None => 0,
    };
    // Before the first change is shown: whoever has seen it may stop this.
    let stop = signal(SignalKind::interrupt())?;
    if let Some(company) = &company {
        suggestion::warn_of_company(&mut desk, company).await;
    }
    let next = WatchChangesRequest { company_id: company, after_revision, cursor };
    let stream = unwrap_response(desk.changes.watch_changes(next.clone()).await)?;
    let mut watch = Watch { next, reconnect, stop, lost: None };
    watch.run(desk, stream, asking).await?;
    let cursor = &watch.next.cursor;
    let is_for_people = asking.output == super::output_format::OutputFormat::Table;
    if is_for_people && !cursor.is_empty() {
        log::tell(&resume(cursor));
    }
    Ok(())
}

async fn open(asking: &ServerArgs) -> anyhow::Result<Client> {
    asking.open_on(connect_for(Purpose::Events, &asking.server).await?)
}

/// The revision that the server is at.
async fn head(desk: &mut Client) -> anyhow::Result<u64> {
    let one = ListCompaniesRequest { page_size: 1, page_token: String::new() };
    Ok(unwrap_response(desk.directory.list_companies(one).await)?.revision)
}

fn resume(cursor: &str) -> String {
    match cursor {
        "" => "no change was seen: run it again".to_owned(),
        cursor => {
            format!("go on behind the last change with --cursor {}", text::escaped(cursor))
        }
    }
}

/// How a stream ended.
enum End {
    /// By Ctrl-C.
    Stopped,
    /// Another stream may go on behind it.
    Broken(anyhow::Error),
    /// No other stream would be another.
    Refused(anyhow::Error),
    /// Nobody reads what is printed, or it cannot be read.
    Failed(anyhow::Error),
}

impl End {
    fn of(status: &Status, cursor: &str) -> Self {
        if is_passing(status) {
            return Self::Broken(server_error(status));
        }
        Self::Refused(match status.code() {
            // With another key it goes on.
            Code::Unauthenticated | Code::PermissionDenied => {
                anyhow!("{}; {}", server_error(status), resume(cursor))
            }
            // It is about the cursor, or about the request.
            _ => server_error(status),
        })
    }
}

/// Whether the same request may be answered otherwise in a while.
fn is_passing(status: &Status) -> bool {
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
        // The connection's error, and not the server's answer.
        _ => status.get_error_details().error_info().is_none(),
    }
}

struct Watch {
    /// What continues behind the last change that was printed.
    next: WatchChangesRequest,
    /// For how long to try again.
    reconnect: Duration,
    stop: Signal,
    /// Since when there is no good stream.
    lost: Option<Instant>,
}

impl Watch {
    async fn run(
        &mut self,
        mut desk: Client,
        mut stream: Streaming<WatchChangesResponse>,
        asking: &ServerArgs,
    ) -> anyhow::Result<()> {
        loop {
            let opened = Instant::now();
            let why = match self.print(&desk, &mut stream).await {
                End::Stopped => return Ok(()),
                End::Refused(error) | End::Failed(error) => return Err(error),
                End::Broken(error) => error,
            };
            if opened.elapsed() >= SETTLED {
                self.lost = None;
            }
            let lost = *self.lost.get_or_insert_with(Instant::now);
            match self.again(asking, lost, why).await? {
                Some(opened) => (desk, stream) = opened,
                None => return Ok(()),
            }
        }
    }

    /// Prints a stream up to its end.
    async fn print(&mut self, desk: &Client, stream: &mut Streaming<WatchChangesResponse>) -> End {
        let (mut patience, mut last) = (NEVER, Instant::now());
        loop {
            let next = tokio::select! {
                next = timeout(patience, stream.message()) => next,
                _ = self.stop.recv() => return End::Stopped,
            };
            let step = match next {
                Ok(Ok(Some(step))) => step,
                Ok(Ok(None)) => return End::Broken(anyhow!("the server has ended the stream")),
                Ok(Err(status)) => return End::of(&status, &self.next.cursor),
                Err(_) => {
                    let silent = patience.as_secs();
                    return End::Broken(anyhow!("the server has been silent for {silent} s"));
                }
            };
            match &step.change {
                // A heartbeat.
                // A server may have been told to send them more rarely.
                None => patience = SILENCE.max(last.elapsed() * 5 / 2),
                Some(change) => {
                    if let Err(error) = desk.printer.print_line(&step, &line(change)) {
                        return End::Failed(error);
                    }
                }
            }
            (self.lost, last) = (None, Instant::now());
            if !step.cursor.is_empty() {
                self.next.cursor = step.cursor;
                self.next.after_revision = 0;
            }
        }
    }

    /// Opens another stream behind the last change, until that works or takes too long. None if
    /// it was stopped.
    async fn again(
        &mut self,
        asking: &ServerArgs,
        lost: Instant,
        mut why: anyhow::Error,
    ) -> anyhow::Result<Option<(Client, Streaming<WatchChangesResponse>)>> {
        let mut pause = FIRST_PAUSE;
        loop {
            let left = self.reconnect.saturating_sub(lost.elapsed());
            if left.is_zero() {
                let tried = match self.reconnect.as_secs() {
                    0 => String::new(),
                    seconds => format!("; no stream could be opened for {seconds} s"),
                };
                return Err(self.explain(&anyhow!("{why:#}{tried}")));
            }
            let (request, cursor) = (self.next.clone(), self.next.cursor.clone());
            let attempt = async {
                sleep(pause).await;
                let mut desk = open(asking).await.map_err(End::Broken)?;
                let stream = desk.changes.watch_changes(request).await;
                let stream = stream.map_err(|status| End::of(&status, &cursor))?.into_inner();
                Ok((desk, stream))
            };
            let attempt = tokio::select! {
                attempt = timeout(left, attempt) => attempt,
                _ = self.stop.recv() => return Ok(None),
            };
            match attempt {
                Ok(Ok(opened)) => {
                    let seconds = lost.elapsed().as_secs();
                    let why = format!("{why:#}");
                    let why = text::escaped(&why);
                    log::tell(&format!(
                        "reconnected after {seconds} s ({why}): no change was missed"
                    ));
                    return Ok(Some(opened));
                }
                Ok(Err(End::Broken(error))) => why = error,
                Ok(Err(End::Refused(error) | End::Failed(error))) => {
                    return Err(error);
                }
                Ok(Err(End::Stopped)) => return Ok(None),
                // The time is over.
                Err(_) => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}; {}", resume(&self.next.cursor))
    }
}
