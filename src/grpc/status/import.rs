//! Imports: the error of an import that stopped early, with its position in the import and the summary of
//! what was created before.
//!
//! Not here: what an import creates; see `authority::import`.

use crate::authority::problem::{Problem, call};
use crate::grpc::import::{ImportError, ImportErrorCause};

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let ImportError { position, summary, cause } = error;
        let mut problem = match cause {
            ImportErrorCause::Invalid(invalid) => Self::from(invalid),
            ImportErrorCause::Rejected(error) => Self::from(error).at(&position.to_string()),
            ImportErrorCause::ShuttingDown => call::shutting_down(
                "the server is shutting down: import again, and continue where this import stopped",
            ),
            ImportErrorCause::CallerRevoked => call::caller_revoked(),
        };
        if !position.list.is_empty() {
            problem = problem.with_metadata("item", position);
        }
        if position.line > 0 {
            problem = problem.with_metadata("line", position.line);
        }
        problem
            .with_metadata("message", position.message)
            .with_metadata("created_company_count", summary.companies)
            .with_metadata("created_credential_count", summary.credentials)
            .with_metadata("skipped_count", summary.skipped)
            .with_metadata("differing_count", summary.differing)
            .with_metadata("revision", summary.revision)
    }
}
