//! Validation of the issuers of a catalog file (T8, T9).
//!
//! An issuer is a trust anchor, so nothing that widens its power has a default: the algorithms, the
//! company and the companies are written, and an entry that no token can meet is refused.
//!
//! Not here: which keys of a set are usable; see [`crate::policy::token::key_set`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::duration::{clock_skew, up_to};
use super::host::check_jwks_url;
use super::raw::{OrderedMap, RawConfirmation, RawIssuer, RawParty, RawUser};
use super::validator::{FileValidator, quoted, token_string};
use super::value::RawValue;
use super::{CatalogFile, MAX_AUDIENCE_LEN};
use crate::policy::catalog::issuer::{
    Algorithm, Audiences, CLOCK_SKEW, CREDENTIAL_CLAIMS, ClaimValue, Companies, Issuer, KeySource,
    MAX_CLAIM_LEN, MAX_ENTRIES, MAX_ISSUER_LEN, MAX_ISSUERS, MAX_REFETCH_AFTER, MAX_REFRESH,
    MAX_USABLE_FOR, PartySource, REFETCH_AFTER, REFRESH, SCOPE_CLAIMS, USABLE_FOR, USER_CLAIM,
    UserSource,
};
use crate::policy::id::{CompanyId, CredentialId, IdError, Name, UserId};
use crate::policy::text;
use crate::policy::token::key_set::{KeySet, KeySetError, ParsedKeySet};

/// The most bytes of a value in `require` or `unless`, and of a value of `types`.
pub(super) const MAX_VALUE_LEN: usize = 512;
/// The most bytes of a `prefix`, so that most of an id remains for the claim.
pub(super) const MAX_PREFIX_LEN: usize = 64;
/// The most bytes of a file name.
const MAX_FILE_NAME_LEN: usize = 255;

type Values = BTreeMap<Box<str>, ClaimValue>;

impl FileValidator<'_> {
    pub(super) fn issuers(&mut self, raw: OrderedMap<RawIssuer>, file: &mut CatalogFile) {
        let count = raw.0.len();
        if let Some((first_above, _)) = raw.0.get(MAX_ISSUERS) {
            let message = format!("the file has {count} issuers, the limit is {MAX_ISSUERS}");
            return self.problem(first_above.referenced, message);
        }
        // Each name and alias, with the name of its issuer.
        let mut owners: HashMap<Box<str>, Box<str>> = HashMap::new();
        for (key, raw) in raw.0 {
            let name = self.spelling(&key, &key.value, &mut owners);
            let mut aliases = BTreeSet::new();
            if self.check_count(&raw.aliases, "aliases", MAX_ENTRIES) {
                for alias in &raw.aliases {
                    aliases.extend(self.spelling(alias, &key.value, &mut owners));
                }
            }
            let issuer = self.issuer(&key, raw, file);
            if let (Some(name), Some(issuer)) = (name, issuer) {
                let issuer = Issuer { name: name.clone(), aliases, ..issuer };
                file.issuers.insert(name, Arc::new(issuer));
            }
        }
    }

    /// A value of `iss`, which stands for one issuer alone.
    fn spelling(
        &mut self,
        text: &Spanned<String>,
        issuer: &str,
        owners: &mut HashMap<Box<str>, Box<str>>,
    ) -> Option<Box<str>> {
        let spelling = self.parse_value(text, token_string(MAX_ISSUER_LEN))?;
        let Some(owner) = owners.insert(spelling.clone(), issuer.into()) else {
            return Some(spelling);
        };
        let message = format!(
            "`{}` stands for the issuer `{}` already: it must stand for one issuer, once",
            quoted(&spelling),
            quoted(&owner)
        );
        self.problem(text.referenced, message);
        None
    }

    /// An issuer without its name and aliases. Every part is read, so that every problem is reported.
    fn issuer(
        &mut self,
        key: &Spanned<String>,
        mut raw: RawIssuer,
        file: &mut CatalogFile,
    ) -> Option<Issuer> {
        let at = key.referenced;
        let keys = self.keys(key, &mut raw, file);
        let algorithms = self.algorithms(at, raw.algorithms);
        let audiences = self.audiences(at, raw.audiences, raw.without_aud.is_some(), file);
        let without_aud = raw.without_aud.and_then(|text| {
            let name = self.name(&text);
            self.declared(&text, name, &file.audiences, "an audience")
        });
        let require = self.values(raw.require, "require");
        if let Some(RawValue::Map(RawParty { prefix: Some(prefix), .. })) =
            raw.company.as_ref().map(|company| &company.value)
        {
            let message = "`prefix` is for `credential` and `user`: a company has none";
            self.problem(prefix.referenced, message.to_owned());
        }
        let company = match raw.company {
            Some(company) => self.party("company", company, &[], |text| CompanyId::parse(text)),
            None => {
                let message = "`company` is missing: write `{ claim: C }`, `{ is: COMPANY }` if the \
                               issuer speaks for one company, or `request`";
                self.problem(at, message.to_owned());
                None
            }
        };
        let companies = self.companies(at, company.as_ref(), raw.companies);
        let credential = match raw.credential {
            Some(credential) => self.party("credential", credential, &CREDENTIAL_CLAIMS, |text| {
                CredentialId::parse(text)
            }),
            None => Some(PartySource::Claim {
                claims: boxed(&CREDENTIAL_CLAIMS),
                prefix: Box::default(),
            }),
        };
        let user = self.user(raw.user);
        let scope_claims = match raw.scope_claims {
            Some(claims) => self.claims("scope_claims", claims),
            None => Some(boxed(&SCOPE_CLAIMS)),
        };
        let types = raw.types.map(|types| self.types(types));
        let mut seconds = |text: Option<Spanned<String>>, default, max, said: &str| {
            text.map_or(Some(default), |text| self.parse_value(&text, up_to(max, said)))
        };
        let refresh = seconds(raw.refresh, REFRESH, MAX_REFRESH, "24h");
        let refetch_after = seconds(raw.refetch_after, REFETCH_AFTER, MAX_REFETCH_AFTER, "1h");
        let usable_for = seconds(raw.usable_for, USABLE_FOR, MAX_USABLE_FOR, "30d");
        let clock_skew = match raw.clock_skew {
            Some(text) => self.parse_value(&text, clock_skew),
            None => Some(CLOCK_SKEW),
        };
        Some(Issuer {
            name: Box::default(),
            aliases: BTreeSet::new(),
            keys: keys?,
            algorithms: algorithms?,
            audiences: audiences?,
            require,
            without_aud,
            company: company?,
            companies: companies?,
            credential: credential?,
            user: user?,
            scope_claims: scope_claims?,
            types: types.map_or(Some(None), |types| types.map(Some))?,
            clock_skew: clock_skew?,
            refresh: refresh?,
            refetch_after: refetch_after?,
            usable_for: usable_for?,
            confirmed_by_caller: raw.confirmation == Some(RawConfirmation::Caller),
        })
    }

    fn keys(
        &mut self,
        key: &Spanned<String>,
        raw: &mut RawIssuer,
        file: &mut CatalogFile,
    ) -> Option<KeySource> {
        const ONE: &str = "write exactly one of `jwks_url`, `jwks_file` and `jwks`";
        let (url, name, set) = (raw.jwks_url.take(), raw.jwks_file.take(), raw.jwks.take());
        let url_at = url.as_ref().map(|url| url.referenced);
        let name_at = name.as_ref().map(|name| name.referenced);
        let set_at = set.as_ref().map(|set| set.referenced);
        match (url, name, set) {
            (Some(url), None, None) => {
                self.parse_value(&url, check_jwks_url).map(|()| KeySource::Url(url.value.into()))
            }
            (None, Some(name), None) => self
                .parse_value(&name, check_file_name)
                .map(|()| KeySource::File(name.value.into())),
            (None, None, Some(set)) => self.inline_keys(key, &set, file),
            (None, None, None) => {
                self.problem(key.referenced, format!("the issuer has no keys: {ONE}"));
                None
            }
            _ => {
                let places = [url_at, name_at, set_at].into_iter().flatten();
                let second = places.max_by_key(|place| (place.line(), place.column()));
                let message = format!("the issuer has its keys from several sources: {ONE}");
                self.problem(second.unwrap_or(key.referenced), message);
                None
            }
        }
    }

    /// The usable keys of a set in the file. A set that is in force keeps its place even if this
    /// version can use none of its keys: its tokens are denied then.
    fn inline_keys(
        &mut self,
        issuer: &Spanned<String>,
        set: &Spanned<Value>,
        file: &mut CatalogFile,
    ) -> Option<KeySource> {
        let error = match inline_keys(&set.value) {
            Ok(ParsedKeySet { keys, skipped }) if !keys.is_empty() || !self.is_new => {
                let name = quoted(&issuer.value);
                file.skipped_keys.extend(
                    skipped
                        .iter()
                        .map(|key| format!("a key of the issuer `{name}` is not used: {key}")),
                );
                return Some(KeySource::Inline(Arc::new(keys)));
            }
            Ok(ParsedKeySet { skipped, .. }) => match skipped.first() {
                Some(key) => format!("has no key that verifies signatures: {key}"),
                None => "has no keys".to_owned(),
            },
            Err(error) => error,
        };
        self.problem(set.referenced, format!("`jwks` {error}"));
        None
    }

    fn algorithms(
        &mut self,
        at: Location,
        raw: Option<Spanned<Vec<Spanned<String>>>>,
    ) -> Option<BTreeSet<Algorithm>> {
        let Some(raw) = raw else {
            let message = "`algorithms` is missing: list those that the issuer signs with, such as \
                           `[RS256]`";
            self.problem(at, message.to_owned());
            return None;
        };
        if raw.value.is_empty() {
            let message = "`algorithms` is an empty list: list those that the issuer signs with";
            self.problem(raw.referenced, message.to_owned());
            return None;
        }
        let mut algorithms = BTreeSet::new();
        let mut is_valid = true;
        for text in &raw.value {
            let algorithm = self.parse_value(text, algorithm);
            is_valid &= algorithm.is_some();
            algorithms.extend(algorithm);
        }
        is_valid.then_some(algorithms)
    }

    /// The `aud` values that count. The outer option is none if there is a problem.
    fn audiences(
        &mut self,
        at: Location,
        raw: Option<Spanned<RawValue<OrderedMap<Spanned<String>>>>>,
        has_without_aud: bool,
        file: &CatalogFile,
    ) -> Option<Option<Audiences>> {
        let declares = !file.audiences.is_empty();
        let (place, value) = match raw {
            Some(raw) => (raw.referenced, raw.value),
            None if declares => return Some(None),
            None => {
                let message = "`audiences` is missing: the catalog declares no audience, so list the \
                               `aud` values that the issuer writes for this platform";
                self.problem(at, message.to_owned());
                return None;
            }
        };
        let message = match value {
            RawValue::Map(map) if declares && (has_without_aud || !map.0.is_empty()) => {
                return self.audience_map(map, file).map(Audiences::Map).map(Some);
            }
            RawValue::List(list) if !declares && !list.is_empty() => {
                let values = self.strings("audiences", &list, MAX_AUDIENCE_LEN)?;
                return Some(Some(Audiences::List(values.into_iter().collect())));
            }
            RawValue::Map(_) | RawValue::List(_) if declares => {
                "`audiences` must map each `aud` value to an audience of the catalog, such as \
                 `{ \"https://api.example.org\": NAME }`; leave it out for the `aud` values of the \
                 catalog"
            }
            _ if declares => "`audiences` must be a map of `aud` value to audience",
            _ => {
                "`audiences` must be a list of one or more `aud` values, because the catalog \
                 declares no audience"
            }
        };
        self.problem(place, message.to_owned());
        None
    }

    fn audience_map(
        &mut self,
        map: OrderedMap<Spanned<String>>,
        file: &CatalogFile,
    ) -> Option<BTreeMap<Box<str>, Name>> {
        if !self.check_entries(&map, "audiences") {
            return None;
        }
        let mut audiences = BTreeMap::new();
        for (key, text) in map.0 {
            let aud = self.parse_value(&key, token_string(MAX_AUDIENCE_LEN));
            let name = self.name(&text);
            let name = self.declared(&text, name, &file.audiences, "an audience");
            if let (Some(aud), Some(name)) = (aud, name) {
                let earlier = audiences.insert(aud, name).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        Some(audiences)
    }

    /// Claims with the values that they must have.
    fn values(&mut self, map: OrderedMap<Spanned<ClaimValue>>, what: &str) -> Values {
        let mut values = BTreeMap::new();
        if !self.check_entries(&map, what) {
            return values;
        }
        for (key, value) in map.0 {
            if let ClaimValue::String(text) = &value.value {
                let checked = match text.len() {
                    0..=MAX_VALUE_LEN => text::check_line(text).map_err(|error| error.to_string()),
                    length => Err(format!("has {length} bytes, the limit is {MAX_VALUE_LEN}")),
                };
                if let Err(error) = checked {
                    self.problem(value.referenced, format!("`{}` {error}", quoted(text)));
                }
            }
            if let Some(claim) = self.parse_value(&key, token_string(MAX_CLAIM_LEN)) {
                let earlier = values.insert(claim, value.value).is_some();
                self.check_duplicate(&key, earlier);
            }
        }
        values
    }

    fn check_entries<V>(&mut self, map: &OrderedMap<V>, what: &str) -> bool {
        let Some((first_above, _)) = map.0.get(MAX_ENTRIES) else { return true };
        let count = map.0.len();
        let message = format!("`{what}` has {count} entries, the limit is {MAX_ENTRIES}");
        self.problem(first_above.referenced, message);
        false
    }

    /// Who names the company or the credential. Without default claims, a map must name some.
    fn party<T>(
        &mut self,
        what: &str,
        raw: Spanned<RawValue<RawParty>>,
        default_claims: &[&str],
        parse: impl Fn(&str) -> Result<T, IdError>,
    ) -> Option<PartySource<T>> {
        let message = match raw.value {
            RawValue::Word(word) if word == "request" => return Some(PartySource::Request),
            RawValue::Map(RawParty { claim: None, is: Some(id), prefix }) => {
                if let Some(prefix) = prefix.filter(|_| what == "credential") {
                    let message = "`prefix` goes before the value of a claim, and `is` has none";
                    self.problem(prefix.referenced, message.to_owned());
                }
                return self.parse_value(&id, parse).map(PartySource::Is);
            }
            RawValue::Map(RawParty { claim, is: None, prefix })
                if claim.is_some() || !default_claims.is_empty() =>
            {
                let claims = match claim {
                    Some(claims) => self.claims("claim", claims),
                    None => Some(boxed(default_claims)),
                };
                let prefix = self.prefix(prefix, |text| CredentialId::parse(text).map(drop));
                return Some(PartySource::Claim { claims: claims?, prefix: prefix? });
            }
            _ => format!("`{what}` must be `{{ claim: C }}`, `{{ is: ID }}` or `request`"),
        };
        self.problem(raw.referenced, message);
        None
    }

    /// A prefix of ids, which has the characters of an id.
    fn prefix(
        &mut self,
        raw: Option<Spanned<String>>,
        check: impl Fn(&str) -> Result<(), IdError>,
    ) -> Option<Box<str>> {
        let Some(text) = raw.filter(|text| !text.value.is_empty()) else {
            return Some(Box::default());
        };
        let checked = |text: &str| match text.len() {
            length if length > MAX_PREFIX_LEN => {
                Err(format!("has {length} bytes, the limit is {MAX_PREFIX_LEN}"))
            }
            _ => check(text).map_err(|error| error.to_string()),
        };
        self.parse_value(&text, checked).map(|()| text.value.into())
    }

    /// The companies that the issuer may speak for.
    fn companies(
        &mut self,
        at: Location,
        company: Option<&PartySource<CompanyId>>,
        raw: Option<Spanned<RawValue>>,
    ) -> Option<Companies> {
        let Some(raw) = raw else {
            return match company {
                Some(PartySource::Is(id)) => Some(Companies::Only(BTreeSet::from([id.clone()]))),
                // What is wrong with `company` is reported already.
                None => None,
                Some(_) => {
                    let message = "`companies` is missing: list the companies that the issuer may \
                                   speak for, or write `any`";
                    self.problem(at, message.to_owned());
                    None
                }
            };
        };
        if let Some(PartySource::Is(id)) = company {
            let message =
                format!("`company` is `{id}` alone, so `companies` says nothing: remove it");
            self.problem(raw.referenced, message);
            return None;
        }
        match raw.value {
            RawValue::Word(word) if word == "any" => Some(Companies::Any),
            RawValue::List(list) if !list.is_empty() => {
                let mut companies = BTreeSet::new();
                for text in &list {
                    companies.extend(self.parse_value(text, |text| CompanyId::parse(text)));
                }
                Some(Companies::Only(companies))
            }
            _ => {
                let message = "`companies` must be a list of one or more companies, or `any`";
                self.problem(raw.referenced, message.to_owned());
                None
            }
        }
    }

    fn user(&mut self, raw: Option<Spanned<RawValue<RawUser>>>) -> Option<UserSource> {
        let RawUser { claim, prefix, unless } = match raw.map(|raw| (raw.referenced, raw.value)) {
            None => RawUser::default(),
            Some((_, RawValue::Word(word))) if word == "none" => return Some(UserSource::None),
            Some((_, RawValue::Map(user))) => user,
            Some((at, _)) => {
                let message = "`user` must be `{ claim: C }`, or `none` if no token of the issuer has \
                               a user";
                self.problem(at, message.to_owned());
                return None;
            }
        };
        let claim = match claim {
            Some(claim) => self.parse_value(&claim, token_string(MAX_CLAIM_LEN)),
            None => Some(USER_CLAIM.into()),
        };
        let prefix = self.prefix(prefix, |text| UserId::parse(text).map(drop));
        let unless = self.values(unless, "unless");
        Some(UserSource::Claim { claim: claim?, prefix: prefix?, unless })
    }

    /// The names of one or more claims: a list, or one name.
    fn claims(&mut self, key: &str, raw: Spanned<RawValue>) -> Option<Vec<Box<str>>> {
        let names = match raw.value {
            RawValue::List(names) if !names.is_empty() => names,
            RawValue::Word(name) => vec![Spanned::new(name, raw.referenced, raw.defined)],
            _ => {
                let message = format!("`{key}` must name one or more claims");
                self.problem(raw.referenced, message);
                return None;
            }
        };
        self.strings(key, &names, MAX_CLAIM_LEN)
    }

    /// Values of the header `typ`, in lower case and without `application/` (RFC 7515 section 4.1.9).
    fn types(&mut self, raw: Spanned<RawValue>) -> Option<BTreeSet<Box<str>>> {
        let types = match raw.value {
            RawValue::List(types) if !types.is_empty() => types,
            _ => {
                let message =
                    "`types` must be a list of one or more values of `typ`, such as `[at+jwt]`";
                self.problem(raw.referenced, message.to_owned());
                return None;
            }
        };
        let types = self.strings("types", &types, MAX_VALUE_LEN)?;
        let lower = types.iter().map(|value| value.to_ascii_lowercase());
        let bare = |value: String| value.strip_prefix("application/").unwrap_or(&value).into();
        Some(lower.map(bare).collect())
    }

    /// Strings that tokens have, in the order of the file and each once.
    fn strings(
        &mut self,
        key: &str,
        texts: &[Spanned<String>],
        max_len: usize,
    ) -> Option<Vec<Box<str>>> {
        let mut is_valid = self.check_count(texts, key, MAX_ENTRIES);
        let mut strings = Vec::new();
        for text in texts.iter().take(MAX_ENTRIES) {
            match self.parse_value(text, token_string(max_len)) {
                Some(string) if !strings.contains(&string) => strings.push(string),
                Some(_) => {}
                None => is_valid = false,
            }
        }
        is_valid.then_some(strings)
    }
}

fn boxed(claims: &[&str]) -> Vec<Box<str>> {
    claims.iter().map(|claim| (*claim).into()).collect()
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let upper = name.to_ascii_uppercase();
    if upper == "NONE" {
        return Err("is no signature, so any client could write such a token: remove it".to_owned());
    }
    if upper.starts_with("HS") {
        let error = "is verified with the key that signs, so every server that verifies could also \
                     issue: let the issuer sign with a private key, as `RS256` and `ES256` do";
        return Err(error.to_owned());
    }
    Algorithm::parse(name).ok_or_else(|| {
        let all: Vec<_> = Algorithm::ALL.iter().map(|one| one.name()).collect();
        format!("is not an algorithm that scopegate verifies: {}", all.join(", "))
    })
}

/// Checks the name of a file in the directory of `--jwks-dir`.
fn check_file_name(name: &str) -> Result<(), String> {
    if name.is_empty() || matches!(name, "." | "..") || name.contains(['/', '\\']) {
        return Err("is not the bare name of a file in the directory of `--jwks-dir`".to_owned());
    }
    token_string(MAX_FILE_NAME_LEN)(name).map(drop)
}

/// The keys of a set in the catalog.
fn inline_keys(set: &Value) -> Result<ParsedKeySet, String> {
    KeySet::parse(set.to_string().as_bytes()).map_err(|error| match error {
        // The place is one in the JSON that is made here.
        KeySetError::Json { .. } => "must be a map of at most 32 levels".to_owned(),
        error => error.to_string(),
    })
}
