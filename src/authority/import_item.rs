//! Import item: one company or credential of an import.

use super::{NewCompany, NewCredential};
use crate::policy::id::CompanyId;

/// A company or credential that an import creates, if it does not exist.
#[derive(Clone, Debug)]
pub enum ImportItem {
    /// A company.
    Company(NewCompany),
    /// A credential.
    Credential(NewCredential),
}

impl ImportItem {
    pub(super) fn is_company(&self, id: &CompanyId) -> bool {
        matches!(self, Self::Company(new) if new.id == *id)
    }
}
