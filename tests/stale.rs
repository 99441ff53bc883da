//! No stale answer: checks at full speed against changes, with a cache far too small.
//!
//! Everything that can be asked has an epoch, which the writers move before a change is sent
//! and after it is acknowledged. A check whose epochs did not move from before it to after it
//! has one right answer, an allow or a denial; and its revision is none that was passed before
//! it began.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scopegate::authority::audit::Impact;
use scopegate::authority::{
    Authority, CompanyChange, CredentialChange, Done, NewCompany, NewCredential, Restriction, Terms,
};
use scopegate::policy::change::Author;
use scopegate::policy::company::CompanyView;
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::query::{Needs, Query};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::sled::SledStore;

const COMPANIES: usize = 20;
const CREDENTIALS: usize = 50;
const CHECKERS: usize = 4;

/// The state of one thing: `number % 4` is 0 while it is surely open, 2 while it is surely shut.
#[derive(Default)]
struct Epoch(AtomicU64);

impl Epoch {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn step(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct World {
    authority: Authority,
    companies: Vec<Epoch>,
    credentials: Vec<Vec<Epoch>>,
    /// The last revision that anybody was told of.
    acknowledged: AtomicU64,
    done: AtomicBool,
}

fn terms() -> Terms {
    Terms { author: Author { actor: "test".to_owned(), ..Author::default() }, ..Terms::default() }
}

fn company(n: usize) -> CompanyId {
    CompanyId::parse(format!("c{n}")).expect("an id")
}

fn credential(n: usize) -> CredentialId {
    CredentialId::parse(format!("k{n}")).expect("an id")
}

fn scopes() -> Vec<Scope> {
    vec![Scope::parse("a").expect("a scope")]
}

impl World {
    async fn new(dir: &std::path::Path, cache_entries: u64) -> Arc<Self> {
        let store = Arc::new(SledStore::open(dir).expect("opened"));
        let authority = Authority::new(store, cache_entries).expect("readable");
        let yaml = "scopes: { a: , b: }";
        authority.apply_catalog_file(yaml, false, &Author::default()).await.expect("applied");
        let world = Arc::new(Self {
            authority,
            companies: (0..COMPANIES).map(|_| Epoch::default()).collect(),
            credentials: (0..COMPANIES)
                .map(|_| (0..CREDENTIALS).map(|_| Epoch::default()).collect())
                .collect(),
            acknowledged: AtomicU64::new(0),
            done: AtomicBool::new(false),
        });
        for n in 0..COMPANIES {
            let new = NewCompany { id: company(n), display_name: String::new(), scopes: None };
            world.authority.create_company(&new, &terms(), at).await.expect("created");
            world
                .for_all_credentials(n, |world, n, k| async move {
                    let new = NewCredential {
                        company: company(n),
                        id: credential(k),
                        label: String::new(),
                        scopes: scopes(),
                        expires_at: None,
                        enabled: true,
                    };
                    let made = world.authority.create_credential(&new, &terms(), at).await;
                    Revision(made.expect("created"))
                })
                .await;
        }
        world
    }

    fn acknowledge(&self, revision: Revision) {
        self.acknowledged.fetch_max(revision.0, Ordering::SeqCst);
    }

    async fn for_all_credentials<F: Future<Output = Revision> + Send + 'static>(
        self: &Arc<Self>,
        n: usize,
        act: impl Fn(Arc<Self>, usize, usize) -> F,
    ) {
        let tasks: Vec<_> =
            (0..CREDENTIALS).map(|k| tokio::spawn(act(Arc::clone(self), n, k))).collect();
        for task in tasks {
            self.acknowledge(task.await.expect("done"));
        }
    }

    async fn change(&self, n: usize, k: usize, change: CredentialChange) -> Revision {
        let (company, credential, terms) = (company(n), credential(k), terms());
        let done =
            self.authority.change_credential(&company, &credential, &change, &terms, at).await;
        Revision(done.expect("changed"))
    }

    /// Restricts a company, and some time later gives everything back.
    async fn restrict(self: &Arc<Self>, n: usize) {
        let epoch = &self.companies[n];
        let id = company(n);
        epoch.step();
        let restriction =
            Restriction { company: id.clone(), scopes: scopes(), acknowledge_impact: true };
        let restricted = |done: Done<CompanyView>, impact: Impact| {
            assert!(impact.count <= CREDENTIALS as u64);
            at(done)
        };
        let done = self.authority.restrict_company(&restriction, &terms(), restricted).await;
        self.acknowledge(Revision(done.expect("restricted")));
        epoch.step();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        // Back in the ceiling, the grants are still dormant: still surely shut.
        let add = CompanyChange::AddScopes(scopes());
        let done = self.authority.change_company(&id, &add, &terms(), at).await.expect("added");
        self.acknowledge(Revision(done));
        epoch.step();
        self.for_all_credentials(n, |world, n, k| async move {
            world.change(n, k, CredentialChange::Grant { scopes: scopes(), expires_at: None }).await
        })
        .await;
        epoch.step();
    }

    /// Disables a company, and enables it again.
    async fn disable_company(self: &Arc<Self>, n: usize) {
        for enabled in [false, true] {
            self.companies[n].step();
            let change = CompanyChange::Update { display_name: None, enabled: Some(enabled) };
            let done = self.authority.change_company(&company(n), &change, &terms(), at).await;
            self.acknowledge(Revision(done.expect("changed")));
            self.companies[n].step();
        }
    }

    /// Shuts one credential in one of three ways, and opens it again.
    async fn shut_credential(self: &Arc<Self>, n: usize, k: usize, way: u64) {
        let epoch = &self.credentials[n][k];
        epoch.step();
        let flag = |enabled| CredentialChange::Update {
            label: None,
            enabled: Some(enabled),
            expires_at: None,
        };
        match way {
            0 => self.acknowledge(self.change(n, k, CredentialChange::Revoke(scopes())).await),
            1 => self.acknowledge(self.change(n, k, flag(false)).await),
            _ => self.acknowledge(self.change(n, k, CredentialChange::Delete).await),
        }
        epoch.step();
        tokio::task::yield_now().await;
        epoch.step();
        let grant = CredentialChange::Grant { scopes: scopes(), expires_at: None };
        match way {
            0 => self.acknowledge(self.change(n, k, grant).await),
            1 => self.acknowledge(self.change(n, k, flag(true)).await),
            _ => {
                let new = NewCredential {
                    company: company(n),
                    id: credential(k),
                    label: String::new(),
                    scopes: scopes(),
                    expires_at: None,
                    enabled: true,
                };
                let done = self.authority.create_credential(&new, &terms(), at).await;
                self.acknowledge(Revision(done.expect("created")));
            }
        }
        epoch.step();
    }

    /// One check: whether it had one right answer; that it had it is asserted.
    async fn check(&self, n: usize, k: usize) -> bool {
        let epochs = || (self.companies[n].now(), self.credentials[n][k].now());
        let query = Query {
            company: company(n),
            credential: credential(k),
            needs: Needs::Scopes(scopes()),
            audience: None,
            token: None,
            user: None,
            owner: None,
        };
        let before = epochs();
        let passed = self.acknowledged.load(Ordering::SeqCst);
        let answer = self.authority.check(&query, Revision::ZERO).await.expect("an answer");
        assert!(answer.revision.0 >= passed, "{} after {passed}", answer.revision);
        if epochs() != before {
            return false;
        }
        let allowed = matches!(answer.verdict, Verdict::Allowed { .. });
        match (before.0 % 4, before.1 % 4) {
            (2, _) | (_, 2) => assert!(!allowed, "a stale allow of c{n}/k{k} at {before:?}"),
            (0, 0) => assert!(allowed, "a stale denial of c{n}/k{k}: {:?}", answer.verdict),
            _ => return false,
        }
        true
    }
}

/// Small random numbers.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(RandomState::new().hash_one(seed) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

/// How many checks with one right answer to see.
fn settled_checks() -> u64 {
    std::env::var("SCOPEGATE_SETTLED_CHECKS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_after_an_acknowledgement_never_answers_as_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), 16).await;
    let mut writers = Vec::new();
    // Companies are divided among the writers of companies, credentials among theirs.
    for writer in 0..4 {
        let world = Arc::clone(&world);
        writers.push(tokio::spawn(async move {
            let mut dice = Dice::new(writer as u64);
            while !world.done.load(Ordering::Relaxed) {
                let n = writer + 4 * dice.roll(2);
                match dice.roll(3) {
                    0 => world.disable_company(n).await,
                    _ => world.restrict(n).await,
                }
            }
        }));
    }
    for writer in 0..4 {
        let world = Arc::clone(&world);
        writers.push(tokio::spawn(async move {
            let mut dice = Dice::new(100 + writer as u64);
            while !world.done.load(Ordering::Relaxed) {
                let n = 8 + writer + 4 * dice.roll(3);
                let way = dice.roll(3) as u64;
                world.shut_credential(n, dice.roll(CREDENTIALS), way).await;
            }
        }));
    }
    let settled = Arc::new(AtomicU64::new(0));
    let mut checkers = Vec::new();
    for checker in 0..CHECKERS {
        let (world, settled) = (Arc::clone(&world), Arc::clone(&settled));
        checkers.push(tokio::spawn(async move {
            let mut dice = Dice::new(200 + checker as u64);
            let goal = settled_checks();
            while settled.load(Ordering::Relaxed) < goal && !world.done.load(Ordering::Relaxed) {
                // Half of them go to a few, so that the small cache is hit and missed.
                let few = dice.roll(2) == 0;
                let n = if few { dice.roll(3) * 7 } else { dice.roll(COMPANIES) };
                let k = if few { dice.roll(3) } else { dice.roll(CREDENTIALS) };
                if world.check(n, k).await {
                    settled.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for task in checkers {
        task.await.expect("no stale answer");
    }
    world.done.store(true, Ordering::Relaxed);
    for task in writers {
        task.await.expect("written");
    }
    assert!(settled.load(Ordering::Relaxed) >= settled_checks());
    assert!(world.authority.published().0 > 1_000, "there was something to go stale");
}

/// How many checks to see between the changes.
/// A change is answered with its revision.
fn at<T>(done: Done<T>) -> u64 {
    done.revision.0
}

fn torn_checks() -> u64 {
    std::env::var("SCOPEGATE_TORN_CHECKS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

/// "Role taken, then scope granted" and "scope revoked, then role given", in turn: no revision
/// allows, so no check may, and none that pairs facts of two revisions would be denied.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_check_pairs_a_users_roles_with_grants_of_another_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(SledStore::open(dir.path()).expect("opened"));
    let authority = Arc::new(Authority::new(store, 16).expect("readable"));
    let yaml = "scopes: { a: , b: }\nroles: { r: { scopes: { a: all } } }";
    authority.apply_catalog_file(yaml, false, &Author::default()).await.expect("applied");
    let new = NewCompany { id: company(0), display_name: String::new(), scopes: None };
    authority.create_company(&new, &terms(), at).await.expect("created");
    let new = NewCredential {
        company: company(0),
        id: credential(0),
        label: String::new(),
        scopes: vec![],
        expires_at: None,
        enabled: true,
    };
    authority.create_credential(&new, &terms(), at).await.expect("created");
    let user = UserId::parse("ada").expect("an id");
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (authority, user, done) = (Arc::clone(&authority), user.clone(), Arc::clone(&done));
        async move {
            let (company, credential, terms) = (company(0), credential(0), terms());
            let role = Name::parse("r").expect("a name");
            let grant = CredentialChange::Grant { scopes: scopes(), expires_at: None };
            let revoke = CredentialChange::Revoke(scopes());
            while !done.load(Ordering::Relaxed) {
                authority.put_user(&company, &user, &[], &terms, at).await.expect("taken");
                let change = authority.change_credential(&company, &credential, &grant, &terms, at);
                change.await.expect("granted");
                let change =
                    authority.change_credential(&company, &credential, &revoke, &terms, at);
                change.await.expect("revoked");
                let roles = std::slice::from_ref(&role);
                authority.put_user(&company, &user, roles, &terms, at).await.expect("given");
            }
        }
    });
    let query = Query {
        company: company(0),
        credential: credential(0),
        needs: Needs::Scopes(scopes()),
        audience: None,
        token: None,
        user: Some(user),
        owner: None,
    };
    let checkers: Vec<_> = (0..CHECKERS)
        .map(|_| {
            let (authority, query) = (Arc::clone(&authority), query.clone());
            tokio::spawn(async move {
                let mut reasons = std::collections::BTreeSet::new();
                for _ in 0..torn_checks() / CHECKERS as u64 {
                    let answer = authority.check(&query, Revision::ZERO).await.expect("an answer");
                    let Verdict::Denied { reason, .. } = answer.verdict else {
                        panic!("no revision allows, and {} did", answer.revision)
                    };
                    reasons.insert(reason);
                }
                reasons
            })
        })
        .collect();
    let mut reasons = std::collections::BTreeSet::new();
    for checker in checkers {
        reasons.extend(checker.await.expect("no torn answer"));
    }
    done.store(true, Ordering::Relaxed);
    writer.await.expect("written");
    let wanted = [Reason::ScopeNotGranted, Reason::UserLacksPermission];
    assert!(wanted.iter().all(|reason| reasons.contains(reason)), "both states were seen");
}
