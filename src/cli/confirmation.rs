//! Confirmation: the question before a change that takes something away.
//!
//! INVARIANT (what was shown is what goes): a change that was agreed to on a terminal carries the
//! etag of the resource that was shown, unless the operator gave one. With `--yes` nothing is
//! shown, and the request is sent as it was given, so that a script can send it again.
//!
//! Not here: restrictions of a company, which have a report of their own; see `restriction`.

use anyhow::bail;
use clap::Args;

use super::client::WriteArgs;
use super::printer::Printer;
use super::prompt;
use super::report::Report;

/// Whether a change that takes something away has been agreed to.
#[derive(Clone, Copy, Debug, Args)]
pub struct Confirmation {
    /// Do not ask before something is taken away. Needed where no terminal can answer.
    #[arg(long)]
    yes: bool,
}

impl Confirmation {
    /// Whether the change is asked about, if it takes something away.
    pub(super) fn is_asked(self, terms: &WriteArgs) -> bool {
        !self.yes && !terms.dry_run
    }

    /// Shows what goes, and asks. Returns only after a yes.
    ///
    /// # Errors
    /// The answer is no, or no terminal can answer.
    pub(super) async fn ask(
        self,
        printer: &Printer,
        goes: Report,
        question: &str,
    ) -> anyhow::Result<()> {
        let is_answered = prompt::is_interactive();
        // A program reads one line of JSON there.
        if is_answered || printer.is_for_people() {
            printer.show(goes)?;
        }
        if !is_answered {
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

/// Refuses a change that would do something else by now than what was shown. An etag covers one
/// resource; what a change does may depend on others, too.
///
/// # Errors
/// It would.
pub(super) fn still_so<T: PartialEq>(shown: &T, now: &T) -> anyhow::Result<()> {
    if shown != now {
        bail!(
            "nothing was changed: what this does has changed while the question was open: run it \
             again to see what it does now"
        );
    }
    Ok(())
}

/// Lets a change rest on what was shown, unless the operator named an etag.
pub(super) fn rest_on(etag: &mut String, shown: &str) {
    if etag.is_empty() {
        shown.clone_into(etag);
    }
}
