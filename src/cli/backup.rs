//! `scopegate backup`: writes the backup of a server to a file, and verifies it while it is received.

use super::endpoint_args::EndpointArgs;
use clap::Args;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};

use super::connection::{Connection, Purpose, connect_for};
use super::failure::server_error;
use super::output::Output;

use crate::policy::revision::Revision;
use crate::proto::BackupRequest;
use crate::proto::backup_service_client::BackupServiceClient;
use crate::store::backup::Reading;

/// The arguments of a backup.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; `-` for standard output. A regular file of that name is replaced; anything
    /// else, such as a link or a FIFO, is rejected.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,

    /// The server to back up. The backup may take any time, as long as the server makes progress.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// Writes a backup, and prints its revision and size. True if the file is complete.
///
/// # Errors
/// There is no file: the server cannot be reached, returns an error or breaks off, or the file
/// cannot be written.
pub async fn backup(args: BackupArgs) -> anyhow::Result<bool> {
    let to_standard = args.output.as_os_str() == "-";
    if to_standard && io::stdout().is_terminal() {
        bail!("refusing to write a backup to a terminal: use `--output FILE` or redirect stdout");
    }
    let channel = connect_for(Purpose::Download, &args.server).await?;
    let mut client = BackupServiceClient::new(channel);
    let mut output = Output::open(&args.output)?;
    let (revision, bytes) = match receive(&mut client, &mut output).await {
        Ok(received) => received,
        Err(error) => {
            output.give_up();
            return Err(error.context("no backup was made"));
        }
    };
    output.finish()?;
    let summary = format!("backed up revision {revision} in {bytes} bytes");
    if to_standard {
        writeln!(io::stderr(), "{summary}")?
    } else {
        writeln!(io::stdout(), "{summary}")?
    }
    Ok(true)
}

/// Writes the stream to the output, up to its end.
async fn receive(
    client: &mut BackupServiceClient<Connection>,
    output: &mut Output,
) -> anyhow::Result<(Revision, u64)> {
    let mut parts =
        client.backup(BackupRequest {}).await.map_err(|status| server_error(&status))?.into_inner();
    let (mut reading, mut bytes) = (Reading::default(), 0);
    while let Some(part) = parts.message().await.map_err(|status| server_error(&status))? {
        let wrong = |error| anyhow!("what the server sent {error}");
        reading.check(&part.data).map_err(wrong)?;
        output.write_all(&part.data).context("cannot write the file")?;
        bytes += part.data.len() as u64;
    }
    let revision = reading
        .revision()
        .map_err(|_| anyhow!("the stream ended before the backup was complete: back up again"))?;
    Ok((revision, bytes))
}
