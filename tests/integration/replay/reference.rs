//! Fold: the log of changes, read in order from an empty store, and the facts that it leaves.
//! It knows the contract's words and nothing of how a change is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use scopegate::policy::catalog::Catalog;
use scopegate::policy::change::{Change, ChangeKind, FieldChange};
use scopegate::policy::company::Company;
use scopegate::policy::consent::{Consent, Parties};
use scopegate::policy::credential::Credential;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::{Scope, ScopeId};
use scopegate::policy::user::User;
use scopegate::store::{Fact, FactKey, Store};
use serde_json::{Value, json};

/// Named values, as JSON has them. What is empty is not there.
type FieldValidator = BTreeMap<String, Value>;
type Windows = Vec<(u64, u64)>;

/// All facts, by the names that people know them by; scopes as far as the catalog has them (D2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub platform: String,
    pub catalog: BTreeSet<String>,
    pub companies: BTreeMap<String, CompanyState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompanyState {
    pub about: About,
    pub ceiling: BTreeMap<String, u64>,
    pub restored: BTreeMap<String, Windows>,
    pub credentials: BTreeMap<String, CredentialState>,
    pub users: BTreeMap<String, About>,
    /// By user and credential.
    pub consents: BTreeMap<(String, String), ConsentState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CredentialState {
    pub about: About,
    /// The stamps; where they end is among the fields.
    pub grants: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsentState {
    pub scopes: BTreeSet<String>,
    pub revision: u64,
}

/// What every resource has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    pub fields: FieldValidator,
    pub born: u64,
    pub revision: u64,
    pub times: Option<(Timestamp, Timestamp)>,
}

fn end_of(scope: &str) -> String {
    format!("grants[{scope}].expires_at")
}

fn nothing(value: &Value) -> bool {
    *value == json!(null) || *value == json!("") || *value == json!([])
}

fn read(text: &str) -> Value {
    if text.is_empty() { json!(null) } else { serde_json::from_str(text).expect("JSON") }
}

impl About {
    fn new(change: &Change, timed: bool) -> Self {
        let (born, revision) = (change.revision.0, change.revision.0);
        Self {
            born,
            revision,
            times: timed.then_some((change.time, change.time)),
            ..Self::default()
        }
    }

    fn touch(&mut self, change: &Change) {
        self.revision = change.revision.0;
        self.times = self.times.map(|(made, _)| (made, change.time));
        for field in &change.fields {
            self.take(field);
        }
    }

    fn take(&mut self, change: &FieldChange) {
        let (before, after) = (read(&change.before), read(&change.after));
        let now = self.fields.get(&change.field).cloned().unwrap_or_default();
        let same = before == now || (nothing(&before) && nothing(&now));
        assert!(same, "{change:?} where it was {now}");
        self.set(&change.field, after);
    }

    fn set(&mut self, field: &str, value: Value) {
        if nothing(&value) {
            self.fields.remove(field);
        } else {
            self.fields.insert(field.to_owned(), value);
        }
    }
}

fn names(scopes: &[Scope]) -> Vec<String> {
    assert!(scopes.is_sorted(), "{scopes:?}");
    scopes.iter().map(ToString::to_string).collect()
}

/// The replayer.
#[derive(Default)]
pub struct ReferenceReplay {
    pub state: State,
    last: Option<(u64, Timestamp)>,
    /// What each restriction took, by its revision.
    taken: BTreeMap<u64, BTreeMap<String, (u64, Windows)>>,
}

impl ReferenceReplay {
    /// The facts that these changes leave behind.
    pub fn of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> State {
        let mut replay = Self::default();
        changes.into_iter().for_each(|change| replay.take(change));
        replay.state
    }

    pub fn take(&mut self, change: &Change) {
        let (head, time) = self.last.unwrap_or((0, Timestamp::MIN));
        if change.kind == ChangeKind::RestoreBackup {
            let from = change.fields.iter().find(|field| field.field == "backup_revision");
            assert_eq!(read(&from.expect("from where").after), json!(head.to_string()));
            assert!(change.revision.0 > head + 1, "a jump");
        } else {
            assert_eq!(change.revision.0, head + 1, "one step up with each change");
        }
        if change.kind != ChangeKind::AcceptClock {
            assert!(change.time >= time, "time never runs backwards");
        }
        self.last = Some((change.revision.0, change.time));
        let text = |id: Option<String>| id.expect("a change of it names it");
        let company_id = || text(change.company.as_ref().map(ToString::to_string));
        let credential_id = || text(change.credential.as_ref().map(ToString::to_string));
        let user_id = || text(change.user.as_ref().map(ToString::to_string));
        let (added, removed) = (names(&change.added), names(&change.removed));
        let companies = &mut self.state.companies;
        use ChangeKind::*;
        match change.kind {
            ApplyCatalog => self.apply(change, added, removed),
            CreateKey | DeleteKey | RotateSigningKey | DeleteSigningKey => says_something(change),
            RestoreBackup | AcceptClock => {
                assert!(added.is_empty() && removed.is_empty(), "no fact changes")
            }
            CreateCompany => {
                let mut company =
                    CompanyState { about: About::new(change, true), ..Default::default() };
                company.about.set("enabled", json!(true));
                company.about.touch(change);
                company.ceiling = added.into_iter().map(|s| (s, change.revision.0)).collect();
                assert!(companies.insert(company_id(), company).is_none(), "{change:?}");
            }
            UpdateCompany | AddCompanyScopes | RestrictCompanyScopes | RestoreGrants => {
                says_something(change);
                let company = companies.get_mut(&company_id()).expect("it exists");
                if change.kind == RestoreGrants {
                    company.about.revision = change.revision.0;
                    company.about.times = company.about.times.map(|(made, _)| (made, change.time));
                    let undone = change.fields.iter().find(|f| f.field == "restricted_at_revision");
                    let undone = read(&undone.expect("which one").after);
                    let at: u64 = undone.as_str().expect("a text").parse().expect("a revision");
                    for scope in added {
                        let (place, older) = self.taken[&at][&scope].clone();
                        let windows = company.restored.entry(scope).or_default();
                        for window in older.into_iter().chain([(place, at)]) {
                            if !windows.contains(&window) {
                                windows.push(window);
                            }
                        }
                    }
                } else {
                    company.about.touch(change);
                    for scope in added {
                        let fresh = company.ceiling.insert(scope, change.revision.0).is_none();
                        assert!(fresh, "{change:?}");
                    }
                    let mut taken = BTreeMap::new();
                    for scope in removed {
                        let place = company.ceiling.remove(&scope).expect("it was there");
                        let windows = company.restored.remove(&scope).unwrap_or_default();
                        taken.insert(scope, (place, windows));
                    }
                    self.taken.insert(change.revision.0, taken);
                }
            }
            DeleteCompany => {
                let mut company = companies.remove(&company_id()).expect("it existed");
                company.about.touch(change);
                let left: Vec<_> = company.ceiling.into_keys().collect();
                assert_eq!(
                    (company.about.fields, left),
                    (FieldValidator::new(), removed),
                    "all that ends"
                );
            }
            CreateCredential => {
                let company = companies.get_mut(&company_id()).expect("it exists");
                let mut made =
                    CredentialState { about: About::new(change, true), ..Default::default() };
                made.about.set("enabled", json!(true));
                made.about.touch(change);
                made.grants = added.into_iter().map(|s| (s, change.revision.0)).collect();
                assert!(company.credentials.insert(credential_id(), made).is_none());
            }
            UpdateCredential | GrantScopes | RevokeScopes | ReplaceScopes | ResetScopes
            | CreateSecret | DeleteSecret | RevokeToken | RevokeTokens => {
                says_something(change);
                let company = companies.get_mut(&company_id()).expect("it exists");
                let credential = company.credentials.get_mut(&credential_id()).expect("it exists");
                credential.about.touch(change);
                for scope in removed {
                    credential.grants.remove(&scope).expect("it was there");
                    assert!(!credential.about.fields.contains_key(&end_of(&scope)), "{change:?}");
                }
                credential.grants.extend(added.into_iter().map(|s| (s, change.revision.0)));
            }
            DeleteCredential => {
                let company = companies.get_mut(&company_id()).expect("it exists");
                let mut gone = company.credentials.remove(&credential_id()).expect("it existed");
                gone.about.touch(change);
                let left: Vec<_> = gone.grants.into_keys().collect();
                assert_eq!(
                    (gone.about.fields, left),
                    (FieldValidator::new(), removed),
                    "all that ends"
                );
                company.consents.retain(|(_, credential), _| *credential != credential_id());
            }
            PutUser => {
                says_something(change);
                let company = companies.get_mut(&company_id()).expect("it exists");
                let user = company.users.entry(user_id());
                user.or_insert_with(|| About::new(change, false)).touch(change);
            }
            DeleteUser => {
                let company = companies.get_mut(&company_id()).expect("it exists");
                let mut gone = company.users.remove(&user_id()).expect("it existed");
                gone.touch(change);
                assert_eq!(gone.fields, FieldValidator::new(), "all that ends");
                company.consents.retain(|(user, _), _| *user != user_id());
            }
            RedeemAuthorizationCode => {
                says_something(change);
                assert!(added.is_empty() && removed.is_empty(), "no scope changes");
            }
            PutConsent | CreateAuthorizationCode => {
                says_something(change);
                let company = companies.get_mut(&company_id()).expect("it exists");
                let of = (user_id(), credential_id());
                let empty = !company.consents.contains_key(&of) && change.added.is_empty();
                let of_code = change.fields.iter().filter(|field| field.field == "redirect_uri");
                let fields = change.fields.len() - of_code.count();
                assert_eq!(fields, usize::from(empty), "{change:?}");
                let consent = company.consents.entry(of).or_default();
                consent.revision = change.revision.0;
                for scope in removed {
                    assert!(consent.scopes.remove(&scope), "{change:?}");
                }
                for scope in added {
                    assert!(consent.scopes.insert(scope), "{change:?}");
                }
            }
            DeleteConsent => {
                let company = companies.get_mut(&company_id()).expect("it exists");
                let gone = company.consents.remove(&(user_id(), credential_id()));
                let left: Vec<_> = gone.expect("it existed").scopes.into_iter().collect();
                assert_eq!(left, removed, "all that ends");
            }
        }
    }

    /// A scope that leaves the catalog leaves every set at once, without a record a set (D2).
    fn apply(&mut self, change: &Change, added: Vec<String>, removed: Vec<String>) {
        says_something(change);
        let state = &mut self.state;
        if let Some(name) = change.fields.iter().find(|field| field.field == "name") {
            assert_eq!(read(&name.before), json!(state.platform));
            state.platform = read(&name.after).as_str().expect("a text").to_owned();
        }
        for scope in removed {
            assert!(state.catalog.remove(&scope), "{change:?}");
            for company in state.companies.values_mut() {
                company.ceiling.remove(&scope);
                company.restored.remove(&scope);
                for credential in company.credentials.values_mut() {
                    credential.grants.remove(&scope);
                    credential.about.fields.remove(&end_of(&scope));
                }
                for consent in company.consents.values_mut() {
                    consent.scopes.remove(&scope);
                }
            }
            self.taken.values_mut().for_each(|taken| {
                taken.remove(&scope);
            });
        }
        let renamed = change.fields.iter().find(|field| field.field == "renamed_scopes");
        let renamed = renamed.map(|field| read(&field.after)).unwrap_or_default();
        let pairs = renamed.as_str().into_iter().flat_map(|text| text.split(", "));
        let pairs: BTreeMap<_, _> =
            pairs.map(|pair| pair.split_once(" -> ").expect("two names")).collect();
        self.rename(&pairs);
        for scope in added {
            assert!(self.state.catalog.insert(scope), "{change:?}");
        }
    }

    /// What is called otherwise stays where it is (D2), in all sets at once: a name may be one
    /// scope's old and another's new one.
    fn rename(&mut self, pairs: &BTreeMap<&str, &str>) {
        let name = |scope: String| {
            pairs.get(scope.as_str()).map_or_else(|| scope.clone(), ToString::to_string)
        };
        fn keys<V>(set: &mut BTreeMap<String, V>, name: impl Fn(String) -> String) {
            *set = std::mem::take(set).into_iter().map(|(key, value)| (name(key), value)).collect();
        }
        let field = |field: String| {
            let scope = field.strip_prefix("grants[").and_then(|f| f.strip_suffix("].expires_at"));
            scope.map(|scope| end_of(&name(scope.to_owned()))).unwrap_or(field)
        };
        for (old, new) in pairs {
            assert!(self.state.catalog.contains(*old), "{old} -> {new}");
        }
        let all = |set: &mut BTreeSet<String>| {
            *set = std::mem::take(set).into_iter().map(name).collect();
        };
        all(&mut self.state.catalog);
        for company in self.state.companies.values_mut() {
            keys(&mut company.ceiling, name);
            keys(&mut company.restored, name);
            for credential in company.credentials.values_mut() {
                keys(&mut credential.grants, name);
                keys(&mut credential.about.fields, field);
            }
            company.consents.values_mut().for_each(|consent| all(&mut consent.scopes));
        }
        self.taken.values_mut().for_each(|taken| keys(taken, name));
    }
}

/// A record of a change to what exists says what it changed.
fn says_something(change: &Change) {
    let silent = change.added.is_empty() && change.removed.is_empty() && change.fields.is_empty();
    // A catalog may change in a title or a comment alone.
    assert!(!silent || change.kind == ChangeKind::ApplyCatalog, "{change:?}");
}

/// The facts of one catalog as they are kept.
pub struct Kept<'a>(pub &'a Catalog);

impl Kept<'_> {
    fn known<'a, V>(
        &'a self,
        entries: impl Iterator<Item = (ScopeId, V)> + 'a,
    ) -> impl Iterator<Item = (String, V)> + 'a {
        entries.filter_map(|(scope, value)| Some((self.0.name(scope)?.to_string(), value)))
    }

    pub fn state(&self) -> State {
        let catalog = self.0.scope_ids().filter_map(|scope| self.0.name(scope));
        let catalog = catalog.map(ToString::to_string).collect();
        State { platform: self.0.platform().to_owned(), catalog, companies: BTreeMap::new() }
    }

    pub fn company(&self, company: &Company) -> CompanyState {
        let mut about = About {
            born: company.created_at.0,
            revision: company.revision.0,
            times: Some((company.create_time, company.update_time)),
            ..About::default()
        };
        about.set("display_name", json!(company.display_name));
        about.set("enabled", json!(company.enabled));
        let ceiling = company.ceiling.iter().map(|(scope, at)| (scope, at.0));
        let restored = company.restored.iter().map(|(scope, windows)| {
            (scope, windows.iter().map(|window| (window.from.0, window.to.0)).collect())
        });
        CompanyState {
            about,
            ceiling: self.known(ceiling).collect(),
            restored: self.known(restored).collect(),
            ..CompanyState::default()
        }
    }

    pub fn credential(&self, credential: &Credential) -> CredentialState {
        let mut about = About {
            born: credential.created_at.0,
            revision: credential.revision.0,
            times: Some((credential.create_time, credential.update_time)),
            ..About::default()
        };
        let secrets: Vec<_> = credential.secrets.iter().map(ToString::to_string).collect();
        about.set("label", json!(credential.label));
        about.set("enabled", json!(credential.enabled));
        about.set("expires_at", json!(credential.expires_at.map(|end| end.to_string())));
        about.set("secret_ids", json!(secrets));
        let ends = credential.grants.iter().map(|(scope, grant)| (scope, grant.expires_at));
        for (scope, end) in self.known(ends) {
            about.set(&end_of(&scope), json!(end.map(|end| end.to_string())));
        }
        let grants = credential.grants.iter().map(|(scope, grant)| (scope, grant.granted_at.0));
        CredentialState { about, grants: self.known(grants).collect() }
    }

    pub fn user(&self, user: &User) -> About {
        let mut about =
            About { born: user.created_at.0, revision: user.revision.0, ..About::default() };
        let roles: Vec<_> = user.roles.iter().map(ToString::to_string).collect();
        about.set("roles", json!(roles));
        about
    }

    pub fn consent(&self, consent: &Consent) -> ConsentState {
        let scopes = self.known(consent.scopes.iter()).map(|(scope, ())| scope).collect();
        ConsentState { scopes, revision: consent.revision.0 }
    }
}

/// What a store keeps, by walking it; and its log.
pub fn kept(dir: &Path) -> (State, Vec<Change>) {
    const ALL: usize = 1_000_000;
    let store = Store::open(dir).expect("opened");
    let Some(Fact::Catalog(catalog)) = store.get(&FactKey::Catalog).expect("readable") else {
        panic!("a catalog was applied")
    };
    let kept = Kept(&catalog);
    let mut state = kept.state();
    for company in store.companies(None, ALL).expect("readable") {
        let mut view = kept.company(&company);
        let birth = company.created_at;
        let credentials = store.credentials(birth, None, ALL).expect("readable");
        let users = store.users(birth, None, ALL).expect("readable");
        for user in &users {
            view.users.insert(user.id.to_string(), kept.user(user));
            for credential in &credentials {
                let (user_at, credential_at) = (user.created_at, credential.created_at);
                let of = Parties { company: birth, user: user_at, credential: credential_at };
                let found = store.get(&FactKey::Consent(of)).expect("readable");
                if let Some(Fact::Consent(consent)) = found {
                    let of = (user.id.to_string(), credential.id.to_string());
                    view.consents.insert(of, kept.consent(&consent));
                }
            }
        }
        for credential in &credentials {
            for secret in &credential.secrets {
                let key = FactKey::Secret(birth, secret.clone());
                assert!(store.get(&key).expect("readable").is_some(), "a live secret is kept");
                let key = FactKey::SecretOwner(secret.clone());
                assert!(store.get(&key).expect("readable").is_some(), "and can be found");
            }
            view.credentials.insert(credential.id.to_string(), kept.credential(credential));
        }
        state.companies.insert(company.id.to_string(), view);
    }
    let up_to = Revision(u64::MAX - 1);
    let log = store.changes(None, Revision::ZERO, up_to, ALL).expect("readable");
    (state, log)
}
