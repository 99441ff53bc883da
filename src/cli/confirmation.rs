//! Confirmation: the question before a change that removes access or data.
//!
//! INVARIANT (only what was shown is removed): a change that was confirmed on a terminal carries the
//! etag of the resource that was shown, unless the operator passed one. With `--yes` the command
//! shows nothing and sends the request as it is, so that a script can repeat it.
//!
//! Not here: restrictions of a company, which have an impact preview; see
//! [`super::company_restrict`].

use anyhow::bail;
use clap::Args;

use super::client::WriteArgs;
use super::printer::Printer;
use super::prompt;
use super::report::Report;

/// Whether to ask before a change that removes access or data.
#[derive(Clone, Copy, Debug, Args)]
pub struct Confirmation {
    /// Do not ask for confirmation. Required if standard input is not a terminal.
    #[arg(long)]
    yes: bool,
}

impl Confirmation {
    /// Whether the command asks, if the change removes access or data.
    pub(super) fn is_asked(self, write: &WriteArgs) -> bool {
        !self.yes && !write.dry_run
    }

    /// Shows the impact and asks. Returns only after a yes.
    ///
    /// # Errors
    /// The answer is no, or there is no terminal.
    pub(super) async fn ask(
        self,
        printer: &Printer,
        impact: Report,
        question: &str,
    ) -> anyhow::Result<()> {
        let is_interactive = prompt::is_interactive();
        // With `--output json` standard error has only the line of the error.
        if is_interactive || printer.is_for_people() {
            printer.show(impact)?;
        }
        if !is_interactive {
            bail!(
                "nothing was changed: no terminal can answer `{question}`: run it on a terminal, \
                 or add --yes if this is what you want"
            );
        }
        if !prompt::confirm(question).await? {
            bail!("nothing was changed");
        }
        Ok(())
    }
}

/// Checks that the impact is still the one that was shown. An etag covers one resource, but the impact
/// may depend on others, too.
///
/// # Errors
/// The impact has changed.
pub(super) fn still_so<T: PartialEq>(shown: &T, now: &T) -> anyhow::Result<()> {
    if shown != now {
        bail!(
            "nothing was changed: the impact of this command has changed while the question was \
             open: run it again to see the current impact"
        );
    }
    Ok(())
}

/// Makes the shown etag the precondition of a change, unless the operator passed an etag.
pub(super) fn rest_on(etag: &mut String, shown: &str) {
    if etag.is_empty() {
        shown.clone_into(etag);
    }
}
