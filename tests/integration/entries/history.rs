//! History: random changes of every kind of fact, some of which conflict, are too long for their
//! place, or are of a request that may be sent again.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use scopegate::policy::catalog::Catalog;
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::company::Company;
use scopegate::policy::consent::{Consent, Parties};
use scopegate::policy::credential::{Credential, GrantContext};
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::keyring::{ApiKey, Keyring};
use scopegate::policy::redirect_uri::RedirectUri;
use scopegate::policy::revision::Revision;
use scopegate::policy::role::{Role, Roles};
use scopegate::policy::scope::{Scope, ScopeId};
use scopegate::policy::secret::{Secret, SecretOwner};
use scopegate::policy::token::authorization_code::{AuthorizationCode, CodeChallenge, CodeState};
use scopegate::policy::token::revoked::TokenId;
use scopegate::policy::token::signing_keys::{KeyState, POINT_LEN, SigningKey, SigningKeys};
use scopegate::policy::user::User;
use scopegate::store::{
    CommitError, Fact, FactKey, FactWrite, IdempotencyRecord, Proposal, RequestKey, ResultDetail,
    Store, WriteResult,
};

use crate::fixture::Rng;
use crate::store::{catalog, change, put};

/// Later than every change.
pub const END: Timestamp = Timestamp::constant(4_000_000, 0);
const COMPANIES: u64 = 3;
const CREDENTIALS: u64 = 5;
const USERS: u64 = 3;

pub struct History {
    rng: Rng,
    second: i64,
    /// The requests that were carried out.
    pub requests: Vec<RequestKey>,
}

fn credential_id(n: u64) -> CredentialId {
    CredentialId::parse(format!("k{n}")).expect("an id")
}

impl History {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng(seed), second: 1_000, requests: vec![] }
    }

    /// Makes about so many changes, and says how many were committed.
    pub fn live(&mut self, store: &Store, changes: usize) -> usize {
        let mut committed = 0;
        for _ in 0..changes {
            // Those that are proposed together are of one state, and may conflict.
            let together = 1 + self.rng.below(6);
            let handles: Vec<_> = (0..together)
                .filter_map(|_| self.proposal(store))
                .map(|proposal| {
                    let request = proposal.idempotency.as_ref().map(|record| record.key);
                    (request, store.commit(proposal).expect("queued"))
                })
                .collect();
            for (request, handle) in handles {
                match handle.blocking_recv().expect("answered") {
                    Ok(_) => {
                        committed += 1;
                        self.requests.extend(request);
                    }
                    Err(error) => assert_eq!(error, CommitError::Conflict),
                }
            }
        }
        committed
    }

    fn chance(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    /// A text, which may be too long for a value in its place.
    fn text(&mut self) -> String {
        let length = if self.chance(6) { 20_000 } else { 40 };
        format!("{:x} ", self.rng.roll()).repeat(length / 10)
    }

    fn name(&mut self) -> Name {
        Name::parse(format!("{:016x}", self.rng.roll())).expect("a name")
    }

    /// A change of what the store has now.
    fn proposal(&mut self, store: &Store) -> Option<Proposal> {
        self.second += self.rng.below(3) as i64;
        let mut preconditions = Vec::new();
        let writes = self.writes(&mut |key| {
            let fact = store.get(key).expect("readable");
            preconditions.push((key.clone(), fact.as_ref().map(Fact::revision)));
            fact
        })?;
        let company = writes.iter().find_map(|write| match write.key {
            FactKey::Catalog | FactKey::Keyring | FactKey::SigningKeys => None,
            _ => CompanyId::parse(format!("c{}", self.rng.below(COMPANIES))).ok(),
        });
        let kind = ChangeKind::ALL[self.rng.below(ChangeKind::ALL.len() as u64) as usize];
        let reason = if self.chance(10) { self.text() } else { String::new() };
        let change = Change {
            time: Timestamp::from_second(self.second).expect("a time"),
            author: Author { actor: "history".to_owned(), on_behalf_of: String::new(), reason },
            company,
            added: vec![Scope::parse("s0").expect("a scope")],
            ..change(kind, "acme")
        };
        let idempotency = self.chance(2).then(|| {
            let detail = match self.rng.below(3) {
                0 => ResultDetail::None,
                1 => ResultDetail::Id(self.name()),
                _ => ResultDetail::Impact(self.rng.below(9), self.text()),
            };
            let result = WriteResult { detail, ..WriteResult::default() };
            let key = *blake3::hash(&self.rng.roll().to_be_bytes()).as_bytes();
            IdempotencyRecord { key: RequestKey(key), body: [7; 32], result }
        });
        Some(Proposal { preconditions, caller: None, writes, change, idempotency })
    }

    /// What is written, after what is read.
    fn writes(&mut self, read: &mut dyn FnMut(&FactKey) -> Option<Fact>) -> Option<Vec<FactWrite>> {
        let now = Timestamp::from_second(self.second).expect("a time");
        let before = read(&FactKey::Catalog);
        let Some(Fact::Catalog(current)) = &before else {
            return Some(vec![put(None, Fact::Catalog(Arc::new(catalog(4))))]);
        };
        let company = CompanyId::parse(format!("c{}", self.rng.below(COMPANIES))).expect("an id");
        let company_key = FactKey::Company(company.clone());
        match self.rng.below(30) {
            0 => {
                let scopes = if self.chance(3) { 600 } else { 4 + self.rng.below(4) };
                let names: Vec<_> = (0..scopes).map(|n| format!("s{n}: ")).collect();
                let yaml = format!("scopes: {{ {} }} # {}", names.join(", "), self.rng.roll());
                let next: Catalog = current.replaced_by(&yaml).expect("a catalog");
                return Some(vec![put(before, Fact::Catalog(Arc::new(next)))]);
            }
            1 => return Some(vec![self.keyring(read(&FactKey::Keyring))]),
            2 => return Some(vec![self.signing_keys(read(&FactKey::SigningKeys), now)]),
            _ => {}
        }
        let before = read(&company_key);
        let Some(Fact::Company(company)) = &before else {
            let made = Company::create(company, self.text(), current, None, now).after;
            return Some(vec![put(None, Fact::Company(Arc::new(made)))]);
        };
        let born = company.created_at;
        let context = GrantContext { catalog: current, company, now };
        let credential = credential_id(self.rng.below(CREDENTIALS));
        let user = UserId::parse(format!("u{}", self.rng.below(USERS))).expect("an id");
        let credential_key = FactKey::Credential(born, credential.clone());
        let user_key = FactKey::User(born, user.clone());
        let scopes: Vec<_> = (1..4).filter(|_| self.chance(2)).map(ScopeId).collect();
        match self.rng.below(30) {
            0 => return Some(vec![FactWrite { key: company_key, before, after: None }]),
            1..=3 => {
                let after = company.update(Some(self.text()), Some(self.chance(2))).after;
                return Some(vec![put(before.clone(), Fact::Company(Arc::new(after)))]);
            }
            4..=6 => {
                let before = read(&user_key);
                let old = match &before {
                    Some(Fact::User(user)) => Some(&**user),
                    _ => None,
                };
                let after = User::put(old, &user, born, &[self.name()]).after;
                return Some(vec![put(before.clone(), Fact::User(Arc::new(after)))]);
            }
            7 => {
                let before = read(&user_key)?;
                return Some(vec![FactWrite { key: user_key, before: Some(before), after: None }]);
            }
            _ => {}
        }
        let before = read(&credential_key);
        let Some(Fact::Credential(old)) = &before else {
            let made = Credential::create(credential, self.text(), None, &scopes, context);
            return Some(vec![put(None, Fact::Credential(Arc::new(made.ok()?.after)))]);
        };
        let with = |after: Credential| put(before.clone(), Fact::Credential(Arc::new(after)));
        Some(match self.rng.below(12) {
            0 => vec![FactWrite { key: credential_key, before: before.clone(), after: None }],
            1 | 2 => vec![with(old.grant(&scopes, None, context).ok()?.after)],
            3 => vec![with(old.revoke(&scopes, context).after)],
            4 => vec![with(old.update(Some(self.text()), None, None, None).after)],
            5 => {
                let mut after = (**old).clone();
                after.revoked_tokens.issued_before = Some(now);
                vec![with(after)]
            }
            6 | 7 => {
                let id = self.name();
                let mut after = (**old).clone();
                after.secrets.push(id.clone());
                let secret = Secret {
                    id: id.clone(),
                    company: born,
                    credential: old.id.clone(),
                    credential_created_at: old.created_at,
                    hash: blake3::hash(id.as_str().as_bytes()),
                    revision: Revision::NEXT,
                };
                let owner = SecretOwner {
                    secret: id,
                    company: company.id.clone(),
                    company_created_at: born,
                    credential_created_at: old.created_at,
                    revision: Revision::NEXT,
                };
                vec![with(after), FactWrite::create(secret), FactWrite::create(owner)]
            }
            8 => {
                let mut after = (**old).clone();
                let id = after.secrets.pop()?;
                let key = FactKey::Secret(born, id);
                let secret = FactWrite { before: Some(read(&key)?), after: None, key };
                vec![with(after), secret]
            }
            9 => {
                let Fact::User(user) = read(&user_key)? else { return None };
                let of =
                    Parties { company: born, user: user.created_at, credential: old.created_at };
                let key = FactKey::Consent(of);
                let before = read(&key);
                if before.is_some() && self.chance(2) {
                    return Some(vec![FactWrite { key, before, after: None }]);
                }
                let scopes = scopes.into_iter().map(|scope| (scope, ())).collect();
                let consent = Consent { of, scopes, revision: Revision::NEXT };
                vec![put(before, Fact::Consent(Arc::new(consent)))]
            }
            _ => vec![self.code(read, born, old.created_at, now)],
        })
    }

    /// A new authorization code, or an older one that is redeemed.
    fn code(
        &mut self,
        read: &mut dyn FnMut(&FactKey) -> Option<Fact>,
        company: Revision,
        credential: Revision,
        now: Timestamp,
    ) -> FactWrite {
        let number = self.rng.below(20) as u8;
        // A code is found by its number.
        let expires_at = END + SignedDuration::from_secs(number.into());
        let text = AuthorizationCode::mint(expires_at, [number; 44]);
        let id = text.id().expect("an id");
        let key = FactKey::AuthorizationCode(id.clone());
        if let Some(Fact::AuthorizationCode(code)) = read(&key) {
            let state = CodeState::Redeemed(TokenId([number; 16]), now);
            let after = AuthorizationCode { state, ..(*code).clone() };
            return put(Some(Fact::AuthorizationCode(code)), Fact::AuthorizationCode(after.into()));
        }
        FactWrite::create(AuthorizationCode {
            id,
            hash: text.hash(),
            of: Parties { company, user: company, credential },
            incarnation: Default::default(),
            user: UserId::parse("ada").expect("an id"),
            audience: None,
            scopes: vec![ScopeId(1)],
            redirect_uri: RedirectUri::parse("https://a.example/back").expect("a URI"),
            challenge: CodeChallenge([number; 32]),
            expires_at,
            state: CodeState::Unused,
            created_at: Revision::NEXT,
            revision: Revision::NEXT,
        })
    }

    fn keyring(&mut self, before: Option<Fact>) -> FactWrite {
        let mut after = match &before {
            Some(Fact::Keyring(keyring)) => Keyring::clone(keyring),
            _ => Keyring::default(),
        };
        let oldest = after.after(None).next().map(|key| key.id.clone());
        match oldest.filter(|_| self.chance(3)) {
            Some(id) => after.remove(&id),
            None => after.insert(ApiKey {
                id: self.name(),
                name: self.name(),
                roles: Roles::NONE.with(Role::ALL[self.rng.below(3) as usize]),
                companies: vec![],
                certificate: None,
                hash: Some(blake3::hash(b"x")),
                expires_at: None,
                created_at: Revision::NEXT,
                create_time: Timestamp::from_second(self.second).expect("a time"),
            }),
        }
        put(before, Fact::Keyring(Arc::new(after)))
    }

    fn signing_keys(&mut self, before: Option<Fact>, now: Timestamp) -> FactWrite {
        let old = match &before {
            Some(Fact::SigningKeys(keys)) => SigningKeys::clone(keys),
            _ => SigningKeys::default(),
        };
        let point = [self.rng.roll() as u8; POINT_LEN];
        let key = SigningKey::new(point, KeyState::Next, now);
        let after = match old.in_state(KeyState::Next).filter(|_| old.is_full() || self.chance(3)) {
            Some(oldest) => old.without(&oldest.id),
            None if old.get(&key.id).is_some() => old.without(&key.id),
            None => old.with(key),
        };
        put(before, Fact::SigningKeys(Arc::new(after)))
    }
}
