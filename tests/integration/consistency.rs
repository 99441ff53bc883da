//! Consistency: checks at full speed during changes, with a cache that is far too small.
//!
//! Everything that a check depends on has an epoch. The writers move it before a change is sent and
//! after the change is acknowledged. If no epoch of a check moves during the check, there is one right
//! answer, an allow or a denial. Its revision is not older than any revision that was acknowledged
//! before the check began. The writers restrict, disable, delete and recreate companies and
//! credentials. They remove roles and users, and they withdraw consents. Checks run alone and in
//! batches.
//!
//! Facts of two revisions in one answer do not move an epoch. The second test covers them.
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scopegate::authority::consents::ConsentId;
use scopegate::authority::{
    Authority, CompanyChange, CredentialChange, NewCompany, NewCredential, Restriction,
    WriteOptions,
};
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::query::{Query, Request, Requirement, Subject};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;
use tokio::sync::{Semaphore, SemaphorePermit};

const COMPANIES: usize = 20;
const CREDENTIALS: usize = 20;
const CHECKERS: usize = 4;
/// How many of a company's credentials its user consents to.
const CONSENTED: usize = 3;
/// How many checks a batch has.
const BATCH: usize = 50;
/// How many settled checks allow a writer one more change.
const CHECKS_A_TURN: u64 = 200;
/// The capacity of the cache: far fewer facts than the checks need.
const CACHE: u64 = 128;

const CATALOG: &str = "
audiences: { plain: , asking: { consent: required } }
scopes: { a: , b: }
roles: { r: { scopes: { a: all } } }
";

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
    /// Of each company's one user.
    users: Vec<Epoch>,
    /// Of that user's consents.
    consents: Vec<Vec<Epoch>>,
    /// The last acknowledged revision.
    acknowledged: AtomicU64,
    /// Permits of the writers. The checks add them, so that also on a busy machine there are many
    /// changes, and many settled checks between them.
    turns: Semaphore,
}

fn terms() -> WriteOptions {
    WriteOptions::default()
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

fn ada() -> UserId {
    UserId::parse("ada").expect("an id")
}

fn role() -> Name {
    Name::parse("r").expect("a name")
}

/// What a check depends on besides company and credential.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Alone,
    ForUser,
    WithConsent,
}

const KINDS: [Kind; 3] = [Kind::Alone, Kind::ForUser, Kind::WithConsent];

/// One check: of which company and credential, and what else.
type Asked = (usize, usize, Kind);

fn query((n, k, kind): Asked) -> Query {
    let audience = if kind == Kind::WithConsent { "asking" } else { "plain" };
    Query {
        subject: Subject::Known { company: company(n), credential: credential(k) },
        needs: Requirement::Scopes(scopes()),
        audience: Some(Name::parse(audience).expect("a name")),
        token: None,
        user: (kind != Kind::Alone).then(ada),
        owner: None,
        denies_own: false,
    }
}

/// How many checks had one right answer, by kind and by what was right.
#[derive(Default)]
struct Settled {
    all: AtomicU64,
    by_kind: [[AtomicU64; 2]; KINDS.len()],
}

impl Settled {
    fn note(&self, kind: Kind, allowed: bool) -> u64 {
        self.by_kind[kind as usize][usize::from(allowed)].fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed)
    }
}

impl World {
    async fn new(dir: &std::path::Path, cache_entries: u64) -> Arc<Self> {
        let store = Arc::new(Store::open(dir).expect("opened"));
        let authority = Authority::new(store, cache_entries).expect("readable");
        authority
            .internal_session("test")
            .apply_catalog_file(CATALOG, false, "")
            .await
            .expect("applied");
        let epochs = |count| (0..count).map(|_| Epoch::default()).collect::<Vec<_>>();
        let world = Arc::new(Self {
            authority,
            companies: epochs(COMPANIES),
            credentials: (0..COMPANIES).map(|_| epochs(CREDENTIALS)).collect(),
            users: epochs(COMPANIES),
            consents: (0..COMPANIES).map(|_| epochs(CONSENTED)).collect(),
            acknowledged: AtomicU64::new(0),
            turns: Semaphore::new(0),
        });
        for n in 0..COMPANIES {
            world.create_company(n).await;
        }
        world
    }

    /// Creates a company and everything in it.
    async fn create_company(self: &Arc<Self>, n: usize) {
        let new = NewCompany { id: company(n), display_name: String::new(), scopes: None };
        let done = self.authority.internal_session("test").create_company(&new, &terms()).await;
        self.acknowledge(done.expect("created").revision);
        self.for_all_credentials(
            n,
            |world, n, k| async move { world.create_credential(n, k).await },
        )
        .await;
        self.put_user(n, true).await;
        for k in 0..CONSENTED {
            self.consent(n, k, true).await;
        }
    }

    async fn create_credential(&self, n: usize, k: usize) -> Revision {
        let new = NewCredential {
            company: company(n),
            id: credential(k),
            label: String::new(),
            scopes: scopes(),
            expires_at: None,
            enabled: true,
            redirect_uris: vec![],
            tokens_valid_from: None,
        };
        self.authority
            .internal_session("test")
            .create_credential(&new, &terms())
            .await
            .expect("created")
            .revision
    }

    /// Gives a company's user the role, or removes it.
    async fn put_user(&self, n: usize, able: bool) {
        let roles = if able { vec![role()] } else { vec![] };
        let done = self
            .authority
            .internal_session("test")
            .put_user(&company(n), &ada(), &roles, &terms())
            .await;
        self.acknowledge(done.expect("put").revision);
    }

    async fn consent(&self, n: usize, k: usize, given: bool) {
        let id = ConsentId { company: company(n), credential: credential(k), user: ada() };
        let asked = if given { scopes() } else { vec![] };
        let done = self.authority.internal_session("test").put_consent(&id, &asked, &terms()).await;
        self.acknowledge(done.expect("put").revision);
    }

    /// Waits for a writer's permit; false when there are no more.
    async fn turn(&self) -> bool {
        self.turns.acquire().await.map(SemaphorePermit::forget).is_ok()
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
        let done = self
            .authority
            .internal_session("test")
            .change_credential(&company, &credential, &change, &terms)
            .await;
        done.expect("changed").revision
    }

    /// Restricts a company, and later adds the scopes to the ceiling and grants them again.
    async fn restrict(self: &Arc<Self>, n: usize) {
        let epoch = &self.companies[n];
        let id = company(n);
        epoch.step();
        let restriction =
            Restriction { company: id.clone(), scopes: scopes(), acknowledge_impact: true };
        let done =
            self.authority.internal_session("test").restrict_company(&restriction, &terms()).await;
        let (written, impact) = done.expect("restricted");
        assert!(impact.count <= CREDENTIALS as u64);
        self.acknowledge(written.revision);
        epoch.step();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        // Back in the ceiling, the grants are still dormant: still surely shut.
        let add = CompanyChange::AddScopes(scopes());
        let done = self
            .authority
            .internal_session("test")
            .change_company(&id, &add, &terms())
            .await
            .expect("added");
        self.acknowledge(done.revision);
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
            let done = self
                .authority
                .internal_session("test")
                .change_company(&company(n), &change, &terms())
                .await;
            self.acknowledge(done.expect("changed").revision);
            self.companies[n].step();
        }
    }

    /// Deletes a company and everything in it, and creates it again.
    async fn recreate(self: &Arc<Self>, n: usize) {
        let epoch = &self.companies[n];
        let (id, terms) = (company(n), terms());
        epoch.step();
        let gone = self
            .authority
            .internal_session("test")
            .change_company(&id, &CompanyChange::Delete, &terms)
            .await;
        self.acknowledge(gone.expect("deleted").revision);
        epoch.step();
        tokio::task::yield_now().await;
        epoch.step();
        self.create_company(n).await;
        epoch.step();
    }

    /// Shuts a company's user or one of their consents in one of four ways, and opens it again.
    async fn shut_person(&self, n: usize, k: usize, way: usize) {
        let epoch = if way < 2 { &self.users[n] } else { &self.consents[n][k] };
        let id = ConsentId { company: company(n), credential: credential(k), user: ada() };
        epoch.step();
        match way {
            0 => self.put_user(n, false).await,
            1 => {
                let gone = self
                    .authority
                    .internal_session("test")
                    .delete_user(&company(n), &ada(), &terms())
                    .await;
                self.acknowledge(gone.expect("deleted").revision);
            }
            2 => self.consent(n, k, false).await,
            _ => {
                let gone =
                    self.authority.internal_session("test").delete_consent(&id, &terms()).await;
                self.acknowledge(gone.expect("deleted").revision);
            }
        }
        epoch.step();
        tokio::task::yield_now().await;
        epoch.step();
        match way {
            0 => self.put_user(n, true).await,
            1 => {
                // A new user of the same id, without consents.
                self.put_user(n, true).await;
                for k in 0..CONSENTED {
                    self.consent(n, k, true).await;
                }
            }
            _ => self.consent(n, k, true).await,
        }
        epoch.step();
    }

    /// Shuts one credential in one of three ways, and opens it again.
    async fn shut_credential(self: &Arc<Self>, n: usize, k: usize, way: u64) {
        let epoch = &self.credentials[n][k];
        epoch.step();
        let flag = |enabled| CredentialChange::Update {
            label: None,
            enabled: Some(enabled),
            expires_at: None,
            redirect_uris: None,
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
                self.acknowledge(self.create_credential(n, k).await);
                if k < CONSENTED {
                    self.consent(n, k, true).await;
                }
            }
        }
        epoch.step();
    }

    /// The epochs that a check depends on. The others in the list never move.
    fn epochs(&self, (n, k, kind): Asked) -> [u64; 4] {
        let user = if kind == Kind::Alone { 0 } else { self.users[n].now() };
        let consent = if kind == Kind::WithConsent { self.consents[n][k].now() } else { 0 };
        [self.companies[n].now(), self.credentials[n][k].now(), user, consent]
    }

    /// Runs some checks on this core. Counts each that has one right answer, and asserts that answer.
    async fn check(&self, core: &Authority, asked: &[Asked], settled: &Settled) {
        let before: Vec<_> = asked.iter().map(|one| self.epochs(*one)).collect();
        let passed = self.acknowledged.load(Ordering::SeqCst);
        let (verdicts, revision) = match asked {
            [one] => {
                let answer = core
                    .internal_session("test")
                    .check(&query(*one), Revision::ZERO)
                    .await
                    .expect("an answer");
                (vec![answer.verdict], answer.revision)
            }
            _ => {
                let mut requests: Vec<Request> =
                    asked.iter().map(|one| query(*one).into()).collect();
                let session = core.internal_session("test");
                let answers = session.batch_check(&mut requests, Revision::ZERO).await;
                let (answers, revision) = answers.expect("answers");
                (answers.into_iter().map(|answer| answer.verdict).collect(), revision)
            }
        };
        assert!(revision.0 >= passed, "{revision} after {passed}");
        assert_eq!(verdicts.len(), asked.len());
        for ((one, before), verdict) in asked.iter().zip(before).zip(verdicts) {
            if self.epochs(*one) != before {
                continue;
            }
            let (n, k, kind) = *one;
            let allowed = matches!(verdict, Verdict::Allowed { .. });
            let states = before.map(|epoch| epoch % 4);
            if states.contains(&2) {
                assert!(!allowed, "a stale allow of c{n}/k{k} at {before:?}, {revision}");
            } else if states == [0; 4] {
                assert!(allowed, "a stale denial of c{n}/k{k} at {revision}: {verdict:?}");
            } else {
                continue;
            }
            if settled.note(kind, allowed).is_multiple_of(CHECKS_A_TURN) {
                self.turns.add_permits(1);
            }
        }
    }
}

/// Small random numbers.
struct Rng(u64);

impl Rng {
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
    let asked = std::env::var("SCOPEGATE_SETTLED_CHECKS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(500_000)
}

/// The next check. Half of the checks go to a few credentials, so that the small cache has both hits
/// and misses.
fn ask(rng: &mut Rng) -> Asked {
    let kind = KINDS[rng.roll(KINDS.len())];
    let few = rng.roll(2) == 0;
    let n = if few { rng.roll(3) * 7 } else { rng.roll(COMPANIES) };
    let k = if few || kind == Kind::WithConsent { CONSENTED } else { CREDENTIALS };
    (n, rng.roll(k), kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn check_after_an_acknowledgement_sees_the_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new(dir.path(), CACHE).await;
    let mut writers = Vec::new();
    // Companies are divided among the writers: 0 to 7 are changed themselves, in 8 to 13
    // credentials are, and in the rest users and consents.
    for writer in 0..4 {
        let world = Arc::clone(&world);
        writers.push(tokio::spawn(async move {
            let mut rng = Rng::new(writer as u64);
            while world.turn().await {
                let n = writer + 4 * rng.roll(2);
                match rng.roll(4) {
                    0 => world.disable_company(n).await,
                    1 => world.recreate(n).await,
                    _ => world.restrict(n).await,
                }
            }
        }));
    }
    for writer in 0..3 {
        let world = Arc::clone(&world);
        writers.push(tokio::spawn(async move {
            let mut rng = Rng::new(100 + writer as u64);
            while world.turn().await {
                let n = 8 + writer + 3 * rng.roll(2);
                let k = if rng.roll(2) == 0 { CONSENTED } else { CREDENTIALS };
                let way = rng.roll(3) as u64;
                world.shut_credential(n, rng.roll(k), way).await;
            }
        }));
    }
    for writer in 0..3 {
        let world = Arc::clone(&world);
        writers.push(tokio::spawn(async move {
            let mut rng = Rng::new(200 + writer as u64);
            while world.turn().await {
                let n = 14 + writer + 3 * rng.roll(2);
                world.shut_person(n, rng.roll(CONSENTED), rng.roll(4)).await;
            }
        }));
    }
    let settled = Arc::new(Settled::default());
    let mut checkers = Vec::new();
    for checker in 0..CHECKERS {
        let (world, settled) = (Arc::clone(&world), Arc::clone(&settled));
        checkers.push(tokio::spawn(async move {
            let mut rng = Rng::new(300 + checker as u64);
            let goal = settled_checks();
            let core = world.authority.for_core();
            while settled.all.load(Ordering::Relaxed) < goal {
                let count = if rng.roll(4) == 0 { BATCH } else { 1 };
                // Consecutive checks often have the same subject.
                let mut one = ask(&mut rng);
                let mut next = || {
                    if rng.roll(4) == 0 {
                        one = ask(&mut rng);
                    }
                    one
                };
                let asked: Vec<_> = (0..count).map(|_| next()).collect();
                world.check(&core, &asked, &settled).await;
            }
        }));
    }
    for task in checkers {
        task.await.expect("no stale answer");
    }
    world.turns.close();
    for task in writers {
        task.await.expect("written");
    }
    let count = settled.all.load(Ordering::Relaxed);
    println!("{count} settled checks, {} changes", world.authority.published());
    assert!(count >= settled_checks());
    for of_kind in &settled.by_kind {
        for seen in of_kind {
            let seen = seen.load(Ordering::Relaxed);
            // Few on a busy machine, where a writer waits longer between its changes.
            assert!(seen > settled_checks() / 10_000, "some of every kind and answer, not {seen}");
        }
    }
    assert!(world.authority.published().0 > 1_000, "there was something to go stale");
}

/// A change is answered with its revision.
/// How many checks to see between the changes.
fn torn_checks() -> u64 {
    std::env::var("SCOPEGATE_TORN_CHECKS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

/// A writer alternates "role removed, then scope granted" and "scope revoked, then role given". No
/// revision allows the check, so no check may be allowed. A check that pairs facts of two revisions
/// would be allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_check_pairs_a_users_roles_with_grants_of_another_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Store::open(dir.path()).expect("opened"));
    let authority = Arc::new(Authority::new(store, 16).expect("readable"));
    let yaml = "scopes: { a: , b: }\nroles: { r: { scopes: { a: all } } }";
    authority.internal_session("test").apply_catalog_file(yaml, false, "").await.expect("applied");
    let new = NewCompany { id: company(0), display_name: String::new(), scopes: None };
    authority.internal_session("test").create_company(&new, &terms()).await.expect("created");
    let new = NewCredential {
        company: company(0),
        id: credential(0),
        label: String::new(),
        scopes: vec![],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    authority.internal_session("test").create_credential(&new, &terms()).await.expect("created");
    let user = UserId::parse("ada").expect("an id");
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (authority, user, done) = (Arc::clone(&authority), user.clone(), Arc::clone(&done));
        async move {
            let (company, credential, terms) = (company(0), credential(0), terms());
            let role = Name::parse("r").expect("a name");
            let grant = CredentialChange::Grant { scopes: scopes(), expires_at: None };
            let revoke = CredentialChange::Revoke(scopes());
            let session = authority.internal_session("test");
            while !done.load(Ordering::Relaxed) {
                session.put_user(&company, &user, &[], &terms).await.expect("taken");
                let change = session.change_credential(&company, &credential, &grant, &terms);
                change.await.expect("granted");
                let change = session.change_credential(&company, &credential, &revoke, &terms);
                change.await.expect("revoked");
                let roles = std::slice::from_ref(&role);
                session.put_user(&company, &user, roles, &terms).await.expect("given");
            }
        }
    });
    let query = Query {
        subject: Subject::Known { company: company(0), credential: credential(0) },
        needs: Requirement::Scopes(scopes()),
        audience: None,
        token: None,
        user: Some(user),
        owner: None,
        denies_own: false,
    };
    let checkers: Vec<_> = (0..CHECKERS)
        .map(|_| {
            let (authority, query) = (Arc::clone(&authority), query.clone());
            tokio::spawn(async move {
                let mut reasons = std::collections::BTreeSet::new();
                for _ in 0..torn_checks() / CHECKERS as u64 {
                    let answer = authority
                        .internal_session("test")
                        .check(&query, Revision::ZERO)
                        .await
                        .expect("an answer");
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
