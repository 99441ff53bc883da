//! `scopegate completions`: what a shell needs to complete the commands.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell, such as `bash`: `source <(scopegate completions bash)`.
    shell: Shell,
}

/// Writes the shell's script.
///
/// # Errors
/// Nobody reads.
pub async fn completions(args: CompletionsArgs, mut commands: Command) -> anyhow::Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut commands, "scopegate", &mut script);
    io::stdout().write_all(&script)?;
    Ok(true)
}
