//! Warnings: the issuers of a catalog that have more power than their operator may think, and keys in
//! the catalog that are not used.
//!
//! Not here: what is refused. A platform can have reasons for each of these.

use super::{Companies, Issuer, KeySource, PartySource, UserSource};
use crate::policy::catalog::Catalog;
use crate::policy::id::CredentialId;
use crate::policy::text::quoted;

/// The most bytes of a name in a sentence.
const MAX_NAME: usize = 160;
/// The most sentences. The last one counts the others.
const MAX_WARNINGS: usize = 20;
/// The most issuers that one sentence names.
const MAX_NAMED: usize = 3;

impl Catalog {
    /// A sentence for each issuer that may speak for any company, for each whose keys get too old before
    /// they are fetched again, for each two that can name the same credentials or users of one company
    /// (T8), and for each key in the catalog that is not used (T10). The first of them, and how many more
    /// there are.
    #[must_use]
    pub fn issuer_warnings(&self) -> Vec<String> {
        let issuers: Vec<_> = self.issuers().collect();
        let of_one = issuers.iter().flat_map(|issuer| [of_any(issuer), of_usable_for(issuer)]);
        let of_two = issuers
            .iter()
            .enumerate()
            .flat_map(|(index, one)| issuers.iter().skip(index + 1).map(|two| of_both(one, two)));
        let mut all = of_one.chain(of_two).flatten().chain(self.file.skipped_keys.iter().cloned());
        let mut warnings: Vec<_> = all.by_ref().take(MAX_WARNINGS).collect();
        let more = all.count();
        if more > 0 {
            warnings.push(format!("there are {more} more warnings about issuers"));
        }
        warnings
    }

    /// A sentence for the issuers of the catalog before that begin without keys, because their entries
    /// have changed and their keys are fetched from a URL (T18).
    #[must_use]
    pub fn refetch_warning(&self, before: &Self) -> Option<String> {
        let changed = self.issuers().filter(|issuer| {
            let mut spellings = issuer.aliases.iter().chain([&issuer.name]);
            matches!(issuer.keys, KeySource::Url(_))
                && before.file.issuers.get(&issuer.name) != Some(issuer)
                && spellings.any(|spelling| before.issuer(spelling).is_some())
        });
        let names: Vec<_> =
            changed.map(|issuer| format!("`{}`", quoted(&issuer.name, MAX_NAME))).collect();
        let named = names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (issuers, their) = match names.len() {
            0 => return None,
            1 => ("a changed issuer".to_owned(), "its"),
            count => (format!("{count} changed issuers"), "their"),
        };
        Some(format!(
            "the keys of {issuers} are fetched anew, and until then {their} tokens are denied with \
             status 503: {named}{more}"
        ))
    }
}

fn of_any(issuer: &Issuer) -> Option<String> {
    if issuer.companies != Companies::Any {
        return None;
    }
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
    Some(format!(
        "the issuer `{name}` may speak for any company: {why}; list `companies` unless that is \
         intended"
    ))
}

/// The time between two fetches varies by a tenth of `refresh`.
fn of_usable_for(issuer: &Issuer) -> Option<String> {
    let (refresh, usable_for) = (u64::from(issuer.refresh), u64::from(issuer.usable_for));
    let is_short = matches!(issuer.keys, KeySource::Url(_)) && usable_for * 10 < refresh * 11;
    is_short.then(|| {
        let name = quoted(&issuer.name, MAX_NAME);
        format!(
            "the keys of the issuer `{name}` are fetched again after {refresh}s, give or take a tenth, \
             and are used for {usable_for}s: make `usable_for` several times as long as `refresh`, \
             otherwise its tokens can be denied between two fetches"
        )
    })
}

fn of_both(one: &Issuer, two: &Issuer) -> Option<String> {
    let company = match (&one.companies, &two.companies) {
        (Companies::Any, Companies::Any) => "any company".to_owned(),
        (Companies::Any, Companies::Only(only)) | (Companies::Only(only), Companies::Any) => {
            format!("company `{}`", only.first()?)
        }
        (Companies::Only(these), Companies::Only(those)) => {
            format!("company `{}`", these.intersection(those).next()?)
        }
    };
    let users = || {
        let (one, two) = (one.user_prefix()?, two.user_prefix()?);
        overlap(one, two).then_some(("users".to_owned(), BOTH.to_owned()))
    };
    let (what, advice) = same_credentials(&one.credential, &two.credential).or_else(users)?;
    let (one, two) = (quoted(&one.name, MAX_NAME), quoted(&two.name, MAX_NAME));
    Some(format!(
        "the issuers `{one}` and `{two}` can both name the same {what} of {company}: {advice}, unless \
         both mean the same {what}"
    ))
}

/// What to do if two issuers take ids from claims.
const BOTH: &str = "give both a `prefix`, neither of which begins with the other";

/// The credentials that both can name, and what to do.
fn same_credentials(
    one: &PartySource<CredentialId>,
    two: &PartySource<CredentialId>,
) -> Option<(String, String)> {
    use PartySource::{Claim, Is};

    match (one, two) {
        (Claim { prefix: one, .. }, Claim { prefix: two, .. }) => {
            overlap(one, two).then_some(("credentials".to_owned(), BOTH.to_owned()))
        }
        (Is(id), Claim { prefix, .. }) | (Claim { prefix, .. }, Is(id)) => {
            let can_name = id.as_str().starts_with(&**prefix);
            let advice = "give the one that reads a claim a `prefix` with which the other's `is` does \
                          not begin";
            can_name.then_some((format!("credential `{id}`"), advice.to_owned()))
        }
        (Is(one), Is(two)) => {
            (one == two).then(|| (format!("credential `{one}`"), "name two credentials".to_owned()))
        }
        // The caller vouches for the credential.
        _ => None,
    }
}

/// Whether one id can begin with both prefixes. The claim behind a prefix, also behind none, can begin
/// with the rest of the other.
fn overlap(one: &str, two: &str) -> bool {
    one.starts_with(two) || two.starts_with(one)
}

impl Issuer {
    /// What goes before the users that its tokens name, if any.
    fn user_prefix(&self) -> Option<&str> {
        match &self.user {
            UserSource::Claim { prefix, .. } => Some(prefix),
            UserSource::None => None,
        }
    }
}
