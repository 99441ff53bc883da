//! `scopegate completions`: the completion script for a shell.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell, such as `bash`: `source <(scopegate completions bash)`.
    shell: Shell,
}

/// Prints the script for these commands.
///
/// # Errors
/// Standard output is closed.
pub async fn completions(args: CompletionsArgs, mut commands: Command) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut commands, "scopegate", &mut script);
    io::stdout().write_all(&script)?;
    Ok(true)
}
