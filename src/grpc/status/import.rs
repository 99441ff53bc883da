//! Imports: the error of an import that stopped early, with its position in the import and the summary of
//! what was created before.
//!
//! Not here: what an import creates; see `authority::import`.

use tonic::Status;

use super::StatusBuilder;
use super::authentication::revoked;
use super::availability::shutting_down;
use crate::grpc::import::{ImportError, ImportErrorCause};

impl From<ImportError> for Status {
    fn from(error: ImportError) -> Self {
        let ImportError { position, summary, cause } = error;
        let mut status = match cause {
            ImportErrorCause::Invalid(invalid) => StatusBuilder::from(invalid),
            ImportErrorCause::Rejected(error) => {
                StatusBuilder::from(error).at(&position.to_string())
            }
            ImportErrorCause::ShuttingDown => shutting_down(
                "the server is shutting down: import again, and continue where this import stopped",
            ),
            ImportErrorCause::CallerRevoked => revoked(),
        };
        if !position.list.is_empty() {
            status = status.with("item", position);
        }
        if position.line > 0 {
            status = status.with("line", position.line);
        }
        status
            .with("message", position.message)
            .with("created_company_count", summary.companies)
            .with("created_credential_count", summary.credentials)
            .with("skipped_count", summary.skipped)
            .with("differing_count", summary.differing)
            .with("revision", summary.revision)
            .finish()
    }
}
