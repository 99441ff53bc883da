//! Base: the ids that a base URL has, and the ids of a subject below it. The two are one path of ids:
//! `COMPANY/CREDENTIAL`, or `COMPANY/CREDENTIAL/USER`.
//!
//! Not here: whether the ids exist.

use std::fmt;

use crate::policy::id::{CompanyId, CredentialId};

/// The types of subjects.
pub(super) const CREDENTIAL: &str = "credential";
pub(super) const USER: &str = "user";

/// The ids that a base URL has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// None.
    Server,
    /// `/companies/COMPANY`.
    Company(CompanyId),
    /// `/companies/COMPANY/credentials/CREDENTIAL`.
    Credential(CompanyId, CredentialId),
}

impl Base {
    /// Reads the path of a base URL; none if it has another form.
    pub(super) fn of(path: &str) -> Option<Self> {
        if path.is_empty() {
            return Some(Self::Server);
        }
        let mut parts = path.strip_prefix("/companies/")?.split('/');
        let company = CompanyId::parse(parts.next()?).ok()?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(Self::Company(company)),
            (Some("credentials"), Some(credential), None) => {
                Some(Self::Credential(company, CredentialId::parse(credential).ok()?))
            }
            _ => None,
        }
    }

    /// The company, if the base has one.
    pub(super) fn company(&self) -> Option<&CompanyId> {
        match self {
            Self::Server => None,
            Self::Company(company) | Self::Credential(company, _) => Some(company),
        }
    }

    /// The texts of the ids of a subject of this type; `Err` with the form that the id must have if it
    /// has another number of parts.
    pub(super) fn subject<'a>(
        &'a self,
        kind: SubjectKind,
        id: &'a str,
    ) -> Result<SubjectIds<'a>, &'static str> {
        let parts: Vec<_> = id.splitn(4, '/').collect();
        let (company, credential, user) = match (self, kind, parts.as_slice()) {
            (Self::Server, SubjectKind::Credential, [company, credential]) => {
                (*company, Some(*credential), None)
            }
            (Self::Server, SubjectKind::User, [company, credential, user]) => {
                (*company, Some(*credential), Some(*user))
            }
            (Self::Company(company), SubjectKind::Credential, [credential]) => {
                (company.as_str(), Some(*credential), None)
            }
            (Self::Company(company), SubjectKind::User, [credential, user]) => {
                (company.as_str(), Some(*credential), Some(*user))
            }
            (Self::Credential(company, own), SubjectKind::Credential, [credential]) => {
                (company.as_str(), Some(*credential).filter(|id| *id == own.as_str()), None)
            }
            (Self::Credential(company, own), SubjectKind::User, [user]) => {
                (company.as_str(), Some(own.as_str()), Some(*user))
            }
            _ => return Err(self.form(kind)),
        };
        Ok(SubjectIds { company, credential, user })
    }

    fn form(&self, kind: SubjectKind) -> &'static str {
        match (self, kind) {
            (Self::Server, SubjectKind::Credential) => "COMPANY/CREDENTIAL",
            (Self::Server, SubjectKind::User) => "COMPANY/CREDENTIAL/USER",
            (Self::Company(_), SubjectKind::User) => "CREDENTIAL/USER",
            (_, SubjectKind::Credential) => "CREDENTIAL",
            (Self::Credential(..), SubjectKind::User) => "USER",
        }
    }
}

/// The path of the base URL.
impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => Ok(()),
            Self::Company(company) => write!(f, "/companies/{company}"),
            Self::Credential(company, credential) => {
                write!(f, "/companies/{company}/credentials/{credential}")
            }
        }
    }
}

/// A type of subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubjectKind {
    Credential,
    User,
}

impl SubjectKind {
    /// The type of this name; none if there is none.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            CREDENTIAL => Some(Self::Credential),
            USER => Some(Self::User),
            _ => None,
        }
    }
}

/// The texts of the ids of a subject, which may not be ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubjectIds<'a> {
    pub(super) company: &'a str,
    /// The credential; none if the base has another one.
    pub(super) credential: Option<&'a str>,
    pub(super) user: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_and_subject_are_one_path_of_ids() {
        let bases = ["", "/companies/acme", "/companies/acme/credentials/hr"];
        let base = |n: usize| Base::of(bases[n]).expect("a base");
        for (n, kind, id, expected) in [
            (0, CREDENTIAL, "acme/hr", Some(("acme", Some("hr"), None))),
            (0, USER, "acme/hr/ann", Some(("acme", Some("hr"), Some("ann")))),
            (1, CREDENTIAL, "hr", Some(("acme", Some("hr"), None))),
            (1, USER, "hr/ann", Some(("acme", Some("hr"), Some("ann")))),
            (2, CREDENTIAL, "hr", Some(("acme", Some("hr"), None))),
            (2, CREDENTIAL, "other", Some(("acme", None, None))),
            (2, USER, "ann", Some(("acme", Some("hr"), Some("ann")))),
            (0, CREDENTIAL, "/", Some(("", Some(""), None))),
            (0, CREDENTIAL, "acme", None),
            (0, CREDENTIAL, "acme/hr/ann", None),
            (0, USER, "acme/hr", None),
            (0, USER, "acme/hr/ann/x", None),
            (0, USER, "acme/hr/ann/", None),
            (1, CREDENTIAL, "acme/hr", None),
            (1, USER, "ann", None),
            (1, USER, "acme/hr/ann", None),
            (2, CREDENTIAL, "acme/hr", None),
            (2, USER, "hr/ann", None),
        ] {
            let kind = SubjectKind::of(kind).expect("a type");
            let base = base(n);
            let found = base.subject(kind, id).ok();
            let found = found.map(|ids| (ids.company, ids.credential, ids.user));
            assert_eq!(found, expected, "{base} {id}");
        }
        for text in bases {
            assert_eq!(Base::of(text).expect("a base").to_string(), text);
        }
        assert_eq!(SubjectKind::of("User"), None);
    }
}
