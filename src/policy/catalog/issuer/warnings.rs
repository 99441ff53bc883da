//! Warnings: the issuers of a catalog that have more power than their operator may think, and keys in
//! the catalog that are not used.
//!
//! Not here: what is refused. A platform can have reasons for each of these.

use super::{Companies, Issuer, PartySource, UserSource};
use crate::policy::catalog::Catalog;
use crate::policy::text::quoted;

/// The most bytes of a name in a sentence.
const MAX_NAME: usize = 160;

impl Catalog {
    /// A sentence for each issuer that may speak for any company, for each two that can name the same
    /// credentials or users of one company (T8), and for each key in the catalog that is not used (T10).
    #[must_use]
    pub fn issuer_warnings(&self) -> Vec<String> {
        let issuers: Vec<_> = self.issuers().collect();
        let any = issuers.iter().filter(|issuer| issuer.companies == Companies::Any);
        let mut warnings: Vec<_> = any.map(|issuer| of_any(issuer)).collect();
        for (index, one) in issuers.iter().enumerate() {
            warnings.extend(issuers.iter().skip(index + 1).filter_map(|two| of_both(one, two)));
        }
        warnings.extend(self.file.skipped_keys.iter().cloned());
        warnings
    }
}

fn of_any(issuer: &Issuer) -> String {
    let name = quoted(&issuer.name, MAX_NAME);
    let why = match &issuer.company {
        PartySource::Claim { claims, .. } => {
            let claims: Vec<_> =
                claims.iter().map(|c| format!("`{}`", quoted(c, MAX_NAME))).collect();
            let claims = claims.join(" or ");
            format!("an account that can write the claim {claims} there can act in all companies")
        }
        _ => "its tokens count in every company that the request names".to_owned(),
    };
    format!(
        "the issuer `{name}` may speak for any company: {why}; list `companies` unless that is \
         intended"
    )
}

fn of_both(one: &Issuer, two: &Issuer) -> Option<String> {
    let what = match (one.credential_prefix(), one.user_prefix()) {
        (Some(prefix), _) if two.credential_prefix() == Some(prefix) => "credentials",
        (_, Some(prefix)) if two.user_prefix() == Some(prefix) => "users",
        _ => return None,
    };
    let company = match (&one.companies, &two.companies) {
        (Companies::Any, Companies::Any) => "any company".to_owned(),
        (Companies::Any, Companies::Only(only)) | (Companies::Only(only), Companies::Any) => {
            format!("company `{}`", only.first()?)
        }
        (Companies::Only(these), Companies::Only(those)) => {
            format!("company `{}`", these.intersection(those).next()?)
        }
    };
    let (one, two) = (quoted(&one.name, MAX_NAME), quoted(&two.name, MAX_NAME));
    Some(format!(
        "the issuers `{one}` and `{two}` can both name the same {what} of {company}: give one of \
         them a `prefix` unless both mean the same {what}"
    ))
}

impl Issuer {
    /// What goes before the credentials that its tokens name, if a claim names them.
    fn credential_prefix(&self) -> Option<&str> {
        match &self.credential {
            PartySource::Claim { prefix, .. } => Some(prefix),
            _ => None,
        }
    }

    /// What goes before the users that its tokens name, if any.
    fn user_prefix(&self) -> Option<&str> {
        match &self.user {
            UserSource::Claim { prefix, .. } => Some(prefix),
            UserSource::None => None,
        }
    }
}
