//! Issuer: an issuer of tokens that the platform trusts, as the catalog declares it (T8).
//!
//! An issuer is a trust anchor: who holds its keys can name any of its companies. The entry says how a
//! token of the issuer is verified, and which claims name the company, the credential and the user.
//!
//! Not here: the keys of an issuer that are fetched; see `authority::issuer_keys`. How a token is read
//! and verified is in [`crate::policy::token`].

mod terms;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::ResolvedAudience;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::token::key_set::KeySet;

/// The most issuers of a catalog.
pub const MAX_ISSUERS: usize = 256;

/// The most bytes of an issuer's name or alias.
pub const MAX_ISSUER_LEN: usize = 512;
/// The most bytes of the name of a claim.
pub const MAX_CLAIM_LEN: usize = 256;
/// The most entries of one list or map of an issuer, apart from its companies.
pub const MAX_ENTRIES: usize = 64;

/// The claims that are scopes unless the entry says others: the first one that a token has is read.
pub const SCOPE_CLAIMS: [&str; 4] = ["scope", "scp", "scopes", "permissions"];
/// The claims that name the credential unless the entry says others (RFC 9068, OpenID Connect).
pub const CREDENTIAL_CLAIMS: [&str; 2] = ["client_id", "azp"];
/// The claim that names the user unless the entry says another (RFC 7519 section 4.1.2).
pub const USER_CLAIM: &str = "sub";
/// The values of the header `typ` that are accepted unless the entry says others. A token without `typ`
/// is accepted then, too.
pub const TYPES: [&str; 2] = ["at+jwt", "jwt"];
/// How far `nbf` and `iat` may be ahead unless the entry says otherwise, in seconds.
pub const CLOCK_SKEW: u32 = 30;
/// How old keys get before they are fetched again unless the entry says otherwise, in seconds.
pub const REFRESH: u32 = 5 * 60;
/// The least time between two fetches for unknown keys unless the entry says otherwise, in seconds.
pub const REFETCH_AFTER: u32 = 10;
/// How long keys are used without a successful fetch unless the entry says otherwise, in seconds.
pub const USABLE_FOR: u32 = 24 * 60 * 60;
/// The longest `refresh`, in seconds.
pub const MAX_REFRESH: u32 = 24 * 60 * 60;
/// The longest `refetch_after`, in seconds.
pub const MAX_REFETCH_AFTER: u32 = 60 * 60;
/// The longest `usable_for`, in seconds.
pub const MAX_USABLE_FOR: u32 = 30 * 24 * 60 * 60;

/// An algorithm of a signature (RFC 7518 section 3.1, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the registry")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Its name in the catalog and in the header `alg` of a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with this name. `Ed25519` is another name of `EdDSA` (RFC 9864).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// They are fetched from this URL, which is `https`, or `http` on a loopback address (T9).
    Url(Box<str>),
    /// They are read from the file of this name in the directory of `--jwks-dir`.
    File(Box<str>),
    /// They are in the catalog.
    Inline(Arc<KeySet>),
}

/// A value that a claim must have: a string, a whole number or a boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of JSON")]
pub enum ClaimValue {
    String(Box<str>),
    Number(i64),
    Boolean(bool),
}

/// Who names the company or the credential of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartySource<T> {
    /// The first of these claims that the token has, behind this prefix. Claims that are present and
    /// differ make the token invalid (T8).
    Claim {
        /// The names of the claims, at least one.
        claims: Vec<Box<str>>,
        /// What goes before the value.
        prefix: Box<str>,
    },
    /// The issuer speaks for this one alone.
    Is(T),
    /// The caller of scopegate names it, and vouches for it.
    Request,
}

/// Who names the user of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSource {
    /// A claim. A token without it is invalid.
    Claim {
        /// The name of the claim.
        claim: Box<str>,
        /// What goes before the value.
        prefix: Box<str>,
        /// A token with one of these claims and this value has no user.
        unless: BTreeMap<Box<str>, ClaimValue>,
    },
    /// Tokens of this issuer have no user.
    None,
}

/// The companies that an issuer may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Companies {
    /// Any company.
    Any,
    /// These companies.
    Only(BTreeSet<CompanyId>),
}

impl Companies {
    /// Whether the issuer may speak for this company.
    #[must_use]
    pub fn has(&self, company: &CompanyId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(companies) => companies.contains(company),
        }
    }
}

/// The `aud` values that an issuer writes, if the entry lists them. They alone count then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// Each value, and the audience of the catalog that it stands for.
    Map(BTreeMap<Box<str>, Name>),
    /// The values of a catalog that declares no audience.
    List(BTreeSet<Box<str>>),
}

/// An issuer of tokens, as the catalog declares it (T8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The value of `iss`, compared byte for byte.
    pub name: Box<str>,
    /// Other spellings of the same issuer.
    pub aliases: BTreeSet<Box<str>>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The algorithms that it signs with, at least one.
    pub algorithms: BTreeSet<Algorithm>,
    /// The `aud` values that it writes. None: the `aud` of the catalog's audiences, and the names of
    /// audiences without one.
    pub audiences: Option<Audiences>,
    /// Claims that a token must have with exactly these values.
    pub require: BTreeMap<Box<str>, ClaimValue>,
    /// The audience of a token without `aud`.
    pub without_aud: Option<Name>,
    /// Who names the company.
    pub company: PartySource<CompanyId>,
    /// The companies that it may speak for.
    pub companies: Companies,
    /// Who names the credential.
    pub credential: PartySource<CredentialId>,
    /// Who names the user.
    pub user: UserSource,
    /// The claims that are scopes: the first that the token has is read, the others are not.
    pub scope_claims: Vec<Box<str>>,
    /// The values of `typ` that are accepted, in lower case and without `application/`. None: those of
    /// [`TYPES`], or no `typ`.
    pub types: Option<BTreeSet<Box<str>>>,
    /// How far `nbf` and `iat` may be ahead of the time here, in seconds (T14).
    pub clock_skew: u32,
    /// How old keys get before they are fetched again, in seconds.
    pub refresh: u32,
    /// The least time between two fetches for unknown keys, in seconds.
    pub refetch_after: u32,
    /// How long keys are used without a successful fetch, in seconds.
    pub usable_for: u32,
    /// Whether the caller of scopegate has verified that the client holds the key that a token is bound
    /// to (`cnf`, RFC 7800). Otherwise such a token is invalid (T17).
    pub confirmed_by_caller: bool,
}

impl Issuer {
    /// Whether this is the issuer's name or one of its aliases, byte for byte.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        *self.name == *name || self.aliases.contains(name)
    }

    /// Whether a token with this `aud` claim was issued for an audience (T15). `None`: the token has no
    /// such claim. A claim without values is for no audience.
    #[must_use]
    pub fn is_for(&self, aud: Option<&[Box<str>]>, resolved: ResolvedAudience<'_>) -> bool {
        let Some(aud) = aud else {
            return resolved.name.is_some() && resolved.name == self.without_aud.as_ref();
        };
        aud.iter().any(|value| match (&self.audiences, resolved.name) {
            (Some(Audiences::Map(map)), Some(name)) => map.get(value) == Some(name),
            (Some(Audiences::List(list)), None) => list.contains(value),
            (None, Some(name)) if resolved.audience.aud.is_empty() => name.as_str() == &**value,
            (None, Some(_)) => resolved.audience.aud.contains(value),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::policy::catalog::Catalog;
    use crate::policy::id::Name;

    const AUDIENCES: &str = "{ public: { aud: [\"https://api\", \"urn:api\"] }, webhooks: }";

    /// A catalog with these audiences and an issuer with these keys, besides those that it must have.
    fn catalog(audiences: &str, keys: &str) -> Catalog {
        let yaml = format!(
            "audiences: {audiences}\nscopes: {{}}\nissuers: {{ x: {{ jwks_file: a, \
             algorithms: [RS256], company: {{ is: acme }}{keys} }} }}\n"
        );
        Catalog::empty().replaced_by(&yaml).expect("a catalog")
    }

    /// Whether a token with this `aud` is for a call of this audience; without a name, of the only one.
    fn is_for(catalog: &Catalog, aud: Option<&[&str]>, name: &str) -> bool {
        let name = Name::parse(name).ok();
        let audience = catalog.resolve_audience(None, name.as_ref()).expect("an audience");
        let aud: Option<Vec<Box<str>>> =
            aud.map(|values| values.iter().map(|value| (*value).into()).collect());
        catalog.issuer("x").expect("an issuer").is_for(aud.as_deref(), audience)
    }

    #[test]
    fn t15_a_token_is_for_the_audiences_that_its_aud_values_stand_for() {
        let map = ", audiences: { \"urn:a\": public, \"urn:b\": public, \"urn:h\": webhooks }";
        for (audiences, keys, aud, expected) in [
            // Without `audiences`: the `aud` of the catalog, and the names of audiences without one.
            (AUDIENCES, "", &["https://api"][..], [true, false]),
            (AUDIENCES, "", &["urn:api"], [true, false]),
            (AUDIENCES, "", &["webhooks"], [false, true]),
            (AUDIENCES, "", &["https://api", "webhooks"], [true, true]),
            (AUDIENCES, "", &["other", "webhooks"], [false, true]),
            (AUDIENCES, "", &["public"], [false, false]),
            (AUDIENCES, "", &["HTTPS://api"], [false, false]),
            (AUDIENCES, "", &["https://api/"], [false, false]),
            (AUDIENCES, "", &[""], [false, false]),
            (AUDIENCES, "", &[], [false, false]),
            // With `audiences`: those values alone.
            (AUDIENCES, map, &["urn:a"], [true, false]),
            (AUDIENCES, map, &["urn:b"], [true, false]),
            (AUDIENCES, map, &["urn:h", "urn:b"], [true, true]),
            (AUDIENCES, map, &["https://api"], [false, false]),
            (AUDIENCES, map, &["webhooks"], [false, false]),
            (AUDIENCES, map, &[], [false, false]),
        ] {
            let catalog = catalog(audiences, keys);
            let found = ["public", "webhooks"].map(|name| is_for(&catalog, Some(aud), name));
            assert_eq!(found, expected, "{keys} {aud:?}");
        }
    }

    #[test]
    fn t15_a_token_without_aud_is_for_none_unless_the_entry_says_one() {
        let silent = catalog(AUDIENCES, "");
        let public = catalog(AUDIENCES, ", without_aud: public");
        for (name, expected) in [("public", true), ("webhooks", false)] {
            assert!(!is_for(&silent, None, name), "{name}");
            assert_eq!(is_for(&public, None, name), expected, "{name}");
            assert!(!is_for(&public, Some(&[]), name), "an empty `aud` is none");
        }
    }

    #[test]
    fn t15_a_catalog_without_audiences_has_the_values_of_the_list() {
        let list = catalog("{}", ", audiences: [\"urn:a\", \"urn:b\"]");
        for (aud, expected) in [
            (Some(&["urn:a"][..]), true),
            (Some(&["other", "urn:b"]), true),
            (Some(&["other"]), false),
            (Some(&[]), false),
            (None, false),
        ] {
            assert_eq!(is_for(&list, aud, ""), expected, "{aud:?}");
        }
    }

    proptest! {
        /// More values never take an audience away, and each audience needs a value of its own.
        #[test]
        fn t15_each_value_counts_alone(
            aud in prop::collection::vec("(urn:[abh]|public|webhooks|other)", 0..5),
        ) {
            let map = ", audiences: { \"urn:a\": public, \"urn:b\": public, \"urn:h\": webhooks }";
            let catalog = catalog(AUDIENCES, map);
            let aud: Vec<_> = aud.iter().map(String::as_str).collect();
            for name in ["public", "webhooks"] {
                let alone = aud.iter().any(|value| is_for(&catalog, Some(&[value]), name));
                prop_assert_eq!(is_for(&catalog, Some(&aud), name), alone);
            }
        }
    }
}
