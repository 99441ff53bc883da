//! `scopegate backup`: a server's store as a file, which is checked while it is written.

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

/// Which server to back up, and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; `-` for standard output. A plain file of that name is replaced; anything
    /// else there, such as a link or a FIFO, is refused.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,

    /// Which server to back up. The backup takes any time, as long as the server makes progress.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// Backs up, and prints of which revision. True if the file is whole.
///
/// # Errors
/// There is no file, and why.
pub async fn backup(args: BackupArgs) -> anyhow::Result<bool> {
    let to_standard = args.output.as_os_str() == "-";
    if to_standard && io::stdout().is_terminal() {
        bail!("a backup is nothing to look at: name a file, or send standard output to one");
    }
    let channel = connect_for(Purpose::Download, &args.server).await?;
    let mut client = BackupServiceClient::new(channel);
    let mut output = Output::open(&args.output)?;
    let made = match receive(&mut client, &mut output).await {
        Ok(made) => made,
        Err(error) => {
            output.give_up();
            return Err(error.context("no backup was made"));
        }
    };
    output.finish()?;
    let (revision, bytes) = made;
    let told = format!("backed up revision {revision} in {bytes} bytes");
    if to_standard {
        writeln!(io::stderr(), "{told}")?
    } else {
        writeln!(io::stdout(), "{told}")?
    }
    Ok(true)
}

/// Writes what comes, up to its end.
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
        .map_err(|_| anyhow!("the server broke off before the end: back up again"))?;
    Ok((revision, bytes))
}
