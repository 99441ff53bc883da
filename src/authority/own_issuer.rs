//! Own issuer: scopegate as an issuer of access tokens (T24).
//!
//! Not here: its keys; see [`super::signing_keys`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::Authority;
use super::error::AuthorityError;
use super::signing_key_files::SigningKeyFiles;
use crate::policy::catalog::Catalog;
use crate::policy::catalog::issuer::{
    CREDENTIAL_CLAIMS, Companies, Issuer, KeySource, PartySource, REFETCH_AFTER, REFRESH,
    SCOPE_CLAIMS, USABLE_FOR, UserSource,
};
use crate::policy::token::new_token::TYPE;
use crate::policy::token::signing_keys::ALGORITHM;

/// How far the times of own tokens may be ahead, in seconds (T14).
const CLOCK_SKEW: u32 = 5;

/// scopegate as an issuer of access tokens.
#[derive(Debug)]
pub struct OwnIssuer {
    /// How its tokens are verified, as an issuer of the catalog would be declared.
    pub(super) entry: Arc<Issuer>,
    pub(super) files: Arc<SigningKeyFiles>,
}

impl OwnIssuer {
    /// The issuer of this name, with its private keys in this directory.
    #[must_use]
    pub fn new(name: &str, signing_keys: PathBuf) -> Self {
        let claims = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        let entry = Issuer {
            name: name.into(),
            aliases: BTreeSet::new(),
            // Its keys are facts, and not in a set that is fetched.
            keys: KeySource::Inline(Arc::default()),
            algorithms: BTreeSet::from([ALGORITHM]),
            audiences: None,
            require: BTreeMap::new(),
            without_aud: None,
            company: PartySource::Claim { claims: claims(&["company_id"]), prefix: "".into() },
            companies: Companies::Any,
            credential: PartySource::Claim {
                claims: claims(&CREDENTIAL_CLAIMS),
                prefix: "".into(),
            },
            user: UserSource::None,
            scope_claims: claims(&SCOPE_CLAIMS[..1]),
            types: Some(BTreeSet::from([TYPE.into()])),
            clock_skew: CLOCK_SKEW,
            refresh: REFRESH,
            refetch_after: REFETCH_AFTER,
            usable_for: USABLE_FOR,
            confirmed_by_caller: false,
        };
        Self { entry: Arc::new(entry), files: Arc::new(SigningKeyFiles::new(signing_keys)) }
    }
}

impl Authority {
    /// The same authority, which issues and accepts tokens of its own.
    #[must_use]
    pub fn with_own_issuer(self, own_issuer: Option<OwnIssuer>) -> Self {
        Self { own_issuer: own_issuer.map(Arc::new), ..self }
    }

    /// The value of `iss` of the tokens that this server issues; none without `--issuer`. No own token
    /// is issued or accepted then.
    #[must_use]
    pub fn own_issuer(&self) -> Option<&str> {
        self.own_issuer.as_ref().map(|own| &*own.entry.name)
    }

    /// Whether this is the text of `iss` of own tokens.
    pub(super) fn is_own(&self, iss: Option<&str>) -> bool {
        iss.is_some() && iss == self.own_issuer()
    }

    /// Rejects a catalog that declares an issuer with the name of this server (T24).
    ///
    /// # Errors
    /// The catalog has such an issuer, or one with such an alias.
    pub fn check_issuers(&self, catalog: &Catalog) -> Result<(), AuthorityError> {
        match self.own_issuer() {
            Some(own) if catalog.issuer(own).is_some() => {
                Err(AuthorityError::IssuerIsOwn(own.to_owned()))
            }
            _ => Ok(()),
        }
    }
}
