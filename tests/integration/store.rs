//! What a store must do on every engine. One line per engine at the end of the suite.
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::harness::replica;
use crate::redb_engine::RedbEngine;

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
use scopegate::policy::role::Roles;
use scopegate::policy::scope::ScopeId;
use scopegate::policy::secret::Secret;
use scopegate::policy::token::authorization_code::{
    AuthorizationCode, CodeChallenge, CodeState, KEPT_AFTER,
};
use scopegate::policy::token::revoked::TokenId;
use scopegate::policy::user::User;
use scopegate::store::{
    CommitError, CommitObserver, Fact, FactKey, FactWrite, IdempotencyRecord, Outcome, Proposal,
    Receipt, RequestKey, ResultDetail, Store, StoreError, StoredResult, WriteResult,
};

/// Remembers what it was told, in order.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl CommitObserver for Ear {
    fn before_apply(&self, last: Revision, keys: &[FactKey]) {
        assert!(!keys.is_empty());
        self.0.lock().expect("whole").push(format!("applying {last}"));
    }

    fn durable(&self, last: Revision, outcomes: Vec<Outcome>) {
        assert!(outcomes.iter().all(|outcome| outcome.since <= last));
        self.0.lock().expect("whole").push(format!("durable {last}"));
    }

    fn failed(&self) {
        self.0.lock().expect("whole").push("failed".to_owned());
    }
}

pub fn change(kind: ChangeKind, company: &str) -> Change {
    Change {
        revision: Revision::NEXT,
        time: Timestamp::from_millisecond(1_000).expect("a time"),
        author: Author { actor: "test".to_owned(), ..Author::default() },
        kind,
        company: Some(id(company)),
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    }
}

fn id(text: &str) -> CompanyId {
    CompanyId::parse(text).expect("an id")
}

pub fn catalog(scopes: usize) -> Catalog {
    let names: Vec<_> = (0..scopes).map(|n| format!("s{n}: ")).collect();
    Catalog::empty().replaced_by(&format!("scopes: {{ {} }}", names.join(", "))).expect("a catalog")
}

pub fn company(text: &str, catalog: &Catalog) -> Company {
    let now = Timestamp::UNIX_EPOCH;
    Company::create(id(text), format!("The company {text}"), catalog, None, now).after
}

/// A store with a writer that listens to nobody in particular.
fn started(store: Arc<Store>) -> Arc<Store> {
    store.start(Arc::new(Ear::default()));
    store
}

pub fn put(before: Option<Fact>, after: Fact) -> FactWrite {
    let key = match &after {
        Fact::Company(company) => FactKey::Company(company.id.clone()),
        Fact::Credential(credential) => {
            FactKey::Credential(credential.company, credential.id.clone())
        }
        Fact::Catalog(_) => FactKey::Catalog,
        Fact::Keyring(_) => FactKey::Keyring,
        Fact::User(user) => FactKey::User(user.company, user.id.clone()),
        Fact::Consent(consent) => FactKey::Consent(consent.of),
        Fact::Secret(secret) => FactKey::Secret(secret.company, secret.id.clone()),
        Fact::SecretOwner(owner) => FactKey::SecretOwner(owner.secret.clone()),
        Fact::SigningKeys(_) => FactKey::SigningKeys,
        Fact::AuthorizationCode(code) => FactKey::AuthorizationCode(code.id.clone()),
        Fact::Impact(_) => unreachable!("the engine's own"),
    };
    FactWrite { key, before, after: Some(after) }
}

fn commit(store: &Store, step: FactWrite) -> Result<Receipt, CommitError> {
    let change = change(ChangeKind::UpdateCompany, "acme");
    propose(
        store,
        Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![step],
            change,
            idempotency: None,
        },
    )
}

fn propose(store: &Store, proposal: Proposal) -> Result<Receipt, CommitError> {
    store.commit(proposal).expect("queued").blocking_recv().expect("answered")
}

fn read_company(store: &Store, text: &str) -> Option<Arc<Company>> {
    match store.get(&FactKey::Company(id(text))).expect("readable") {
        Some(Fact::Company(company)) => Some(company),
        _ => None,
    }
}

pub fn credential(
    company: &Company,
    text: &str,
    catalog: &Catalog,
    scopes: &[ScopeId],
) -> Credential {
    let id = CredentialId::parse(text).expect("an id");
    let ground = GrantContext { catalog, company, now: Timestamp::UNIX_EPOCH };
    Credential::create(id, String::new(), None, scopes, ground).expect("within").after
}

fn committed_facts_are_read_back_by_the_next_process(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(3);
    let store = started(open(dir.path()));
    assert_eq!(store.opened_at(), Revision::ZERO);
    let incarnation = store.incarnation();
    let fact = Fact::Company(Arc::new(company("acme", &catalog)));
    let receipt = commit(&store, put(None, fact)).expect("committed");
    assert_eq!(receipt.revision, Revision(1));
    let read = read_company(&store, "acme").expect("there");
    assert_eq!((read.revision, read.created_at), (Revision(1), Revision(1)), "stamped");
    assert!(read.ceiling.iter().all(|(_, at)| *at == Revision(1)));
    store.close();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.opened_at(), Revision(1));
    assert_eq!(store.incarnation(), incarnation, "the same life");
    assert_eq!(read_company(&store, "acme"), Some(read));
    assert!(store.time_mark() >= Some(receipt.time));
}

fn a_proposal_stands_only_on_what_it_read(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    let fact = Fact::Company(Arc::new(company("acme", &catalog)));
    commit(&store, put(None, fact.clone())).expect("committed");
    assert_eq!(commit(&store, put(None, fact)), Err(CommitError::Conflict), "it exists now");
    let old = Fact::Company(read_company(&store, "acme").expect("there"));
    commit(&store, put(Some(old.clone()), old.clone())).expect("committed");
    assert_eq!(commit(&store, put(Some(old.clone()), old.clone())), Err(CommitError::Conflict));
    // The same for facts that it only rests on, present or absent.
    let other = || put(None, Fact::Company(Arc::new(company("other", &catalog))));
    for (key, revision) in
        [(FactKey::Company(id("acme")), Some(Revision(1))), (FactKey::Catalog, Some(Revision(1)))]
    {
        let change = change(ChangeKind::CreateCompany, "other");
        let proposal = Proposal {
            preconditions: vec![(key, revision)],
            caller: None,
            writes: vec![other()],
            change,
            idempotency: None,
        };
        assert_eq!(propose(&store, proposal), Err(CommitError::Conflict));
    }
    assert!(read_company(&store, "other").is_none(), "a conflict changes nothing");
    // Of many that rest on the same state one is committed, also within one batch.
    let before = Fact::Company(read_company(&store, "acme").expect("there"));
    let tickets: Vec<_> = (0..50)
        .map(|_| {
            let writes = vec![put(Some(before.clone()), before.clone())];
            let change = change(ChangeKind::UpdateCompany, "acme");
            store
                .commit(Proposal {
                    preconditions: vec![],
                    caller: None,
                    writes,
                    change,
                    idempotency: None,
                })
                .expect("queued")
        })
        .collect();
    let done = tickets.into_iter().filter_map(|t| t.blocking_recv().expect("answered").ok());
    assert_eq!(done.count(), 1);
}

fn a_full_queue_still_accepts_removals(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    // Without a writer nothing leaves the queue.
    let store = open(dir.path());
    let before = company("acme", &catalog);
    let disabled = Company { enabled: false, ..before.clone() };
    let fact = |company: &Company| Fact::Company(Arc::new(company.clone()));
    let queue = |step| {
        let change = change(ChangeKind::UpdateCompany, "acme");
        let proposal = Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![step],
            change,
            idempotency: None,
        };
        store.commit(proposal).map(drop)
    };
    let mut queued = 0;
    while queue(put(None, fact(&before))).is_ok() {
        queued += 1;
        assert!(queued < 100_000, "there is no end");
    }
    assert_eq!(queue(put(None, fact(&before))), Err(StoreError::Busy));
    queue(put(Some(fact(&before)), fact(&disabled))).expect("it takes away");
    let delete =
        FactWrite { key: FactKey::Company(id("acme")), before: Some(fact(&before)), after: None };
    queue(delete).expect("it takes away");
    for _ in 0..1_000 {
        assert!(store.persist_time(later(1)).is_err(), "the places are for what takes away");
        store.mark_time(later(1), later(1));
        store.note_last_seen(vec![(Revision(1), 1)]);
    }
    queue(put(Some(fact(&before)), fact(&disabled))).expect("it takes away");
    assert_eq!(queue(put(None, fact(&before))), Err(StoreError::Busy));
    assert_eq!(queue(put(Some(fact(&disabled)), fact(&before))), Err(StoreError::Busy));
    // The last places are for the deletion of keys.
    let mut urgent = 3;
    while queue(put(Some(fact(&before)), fact(&disabled))).is_ok() {
        urgent += 1;
    }
    assert!(urgent > 64, "{urgent}");
    let keys = || Fact::Keyring(Arc::default());
    for _ in 0..64 {
        queue(put(Some(keys()), keys())).expect("it deletes a key");
    }
    assert_eq!(queue(put(Some(keys()), keys())), Err(StoreError::Busy), "there is an end");
}

fn a_change_depends_on_its_callers_key_and_on_no_other(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    let name = |name: &str| Name::parse(name).expect("a name");
    let key = |id: &str| ApiKey {
        id: name(id),
        name: name("someone"),
        roles: Roles::NONE,
        companies: vec![],
        certificate: None,
        hash: None,
        expires_at: None,
        created_at: Revision::NEXT,
        create_time: Timestamp::UNIX_EPOCH,
    };
    let keyring = || match store.get(&FactKey::Keyring).expect("readable") {
        Some(Fact::Keyring(keyring)) => keyring,
        _ => Arc::default(),
    };
    let change_keys = |edit: &dyn Fn(&mut Keyring)| {
        let before = keyring();
        let mut after = Keyring::clone(&before);
        edit(&mut after);
        let before = before.is_used().then_some(Fact::Keyring(before));
        commit(&store, put(before, Fact::Keyring(Arc::new(after)))).expect("committed");
    };
    let mut number = 0;
    let mut change_by = |caller: (Name, Revision)| {
        number += 1;
        let company = company(&format!("c{number}"), &catalog);
        let proposal = Proposal {
            preconditions: vec![],
            caller: Some(caller),
            writes: vec![put(None, Fact::Company(Arc::new(company)))],
            change: change(ChangeKind::CreateCompany, "acme"),
            idempotency: None,
        };
        propose(&store, proposal).map(drop)
    };
    assert_eq!(change_by((name("a"), Revision(1))), Err(CommitError::Conflict), "no keys yet");
    change_keys(&|keys| keys.insert(key("a")));
    let caller = (name("a"), keyring().get("a").expect("made").created_at);
    assert_eq!(change_by(caller.clone()), Ok(()));
    change_keys(&|keys| keys.insert(key("b")));
    assert_eq!(change_by(caller.clone()), Ok(()), "another key came");
    change_keys(&|keys| keys.remove(&name("b")));
    assert_eq!(change_by(caller.clone()), Ok(()), "and went");
    change_keys(&|keys| keys.remove(&name("a")));
    assert_eq!(change_by(caller.clone()), Err(CommitError::Conflict), "it was revoked");
    change_keys(&|keys| keys.insert(key("a")));
    assert_eq!(change_by(caller), Err(CommitError::Conflict), "another key of its id");
    let again = (name("a"), keyring().get("a").expect("made").created_at);
    assert_eq!(change_by(again.clone()), Ok(()));
    store.close();
    drop(store);
    // The next process knows the keys, too.
    let store = started(open(dir.path()));
    let company = company("later", &catalog);
    let proposal = Proposal {
        preconditions: vec![],
        caller: Some(again),
        writes: vec![put(None, Fact::Company(Arc::new(company)))],
        change: change(ChangeKind::CreateCompany, "acme"),
        idempotency: None,
    };
    propose(&store, proposal).expect("committed");
}

fn revisions_and_times_only_go_forward(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    let mut last = Receipt { revision: Revision::ZERO, time: Timestamp::UNIX_EPOCH, waited: None };
    for (n, second) in [9, 3, 7, 12].into_iter().enumerate() {
        let mut change = change(ChangeKind::CreateCompany, "acme");
        change.time = Timestamp::from_second(second).expect("a time");
        let writes = vec![put(None, Fact::Company(Arc::new(company(&format!("c{n}"), &catalog))))];
        let receipt = propose(
            &store,
            Proposal { preconditions: vec![], caller: None, writes, change, idempotency: None },
        )
        .expect("done");
        assert_eq!(receipt.revision, last.revision.next());
        assert!(receipt.time >= last.time);
        last = receipt;
    }
    let late = Timestamp::from_second(500).expect("a time");
    store.mark_time(late, late);
    store.close();
    drop(store);
    assert_eq!(open(dir.path()).time_mark(), Timestamp::from_second(500).ok());
}

fn holders_and_impact_follow_every_change_of_credentials(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(3);
    let scopes: Vec<_> = (0..3)
        .map(|n| catalog.id(&scopegate::policy::scope::Scope::parse(format!("s{n}")).expect("ok")))
        .map(|id| id.expect("known"))
        .collect();
    let store = started(open(dir.path()));
    let acme = Fact::Company(Arc::new(company("acme", &catalog)));
    commit(&store, put(None, acme)).expect("committed");
    let acme = read_company(&store, "acme").expect("there");
    let impact = |store: &Store| {
        let fact = store.get(&FactKey::Impact(acme.created_at)).expect("readable");
        fact.map(|fact| fact.revision())
    };
    let holders = |store: &Store, scope: usize| -> Vec<String> {
        let found = store.holders(acme.created_at, scopes[scope], None, 10).expect("readable");
        found.iter().map(ToString::to_string).collect()
    };
    assert_eq!(impact(&store), None);
    for (name, held) in [("a", &scopes[..2]), ("b", &scopes[1..]), ("B", &scopes[..0])] {
        let fact = Fact::Credential(Arc::new(credential(&acme, name, &catalog, held)));
        let receipt = commit(&store, put(None, fact)).expect("committed");
        assert_eq!(impact(&store), Some(receipt.revision));
    }
    assert_eq!(
        (holders(&store, 0), holders(&store, 1)),
        (vec!["a".into()], vec!["a".into(), "b".into()])
    );
    let b = CredentialId::parse("b").expect("an id");
    assert!(store.holders(acme.created_at, scopes[1], Some(&b), 10).expect("readable").is_empty());
    let listed = store.credentials(acme.created_at, None, 10).expect("readable");
    let listed: Vec<_> = listed.iter().map(|c| c.id.to_string()).collect();
    assert_eq!(listed, ["B", "a", "b"], "byte for byte");
    // Deleting one takes it out of the index.
    let key = FactKey::Credential(acme.created_at, CredentialId::parse("a").expect("an id"));
    let before = store.get(&key).expect("readable");
    let receipt = commit(&store, FactWrite { key, before, after: None }).expect("committed");
    assert_eq!((holders(&store, 0), holders(&store, 1)), (vec![], vec!["b".into()]));
    assert_eq!(impact(&store), Some(receipt.revision));
}

fn a_deleted_companys_id_starts_empty(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(2);
    let store = started(open(dir.path()));
    let mut births = Vec::new();
    for _ in 0..2 {
        commit(&store, put(None, Fact::Company(Arc::new(company("acme", &catalog)))))
            .expect("created");
        let acme = read_company(&store, "acme").expect("there");
        births.push(acme.created_at);
        assert!(store.credentials(acme.created_at, None, 10).expect("readable").is_empty());
        for n in 0..700 {
            let fact = credential(&acme, &format!("c{n}"), &catalog, &[ScopeId(1)]);
            commit(&store, put(None, Fact::Credential(Arc::new(fact)))).expect("created");
        }
        let user = UserId::parse("ada").expect("an id");
        let role = Name::parse("r").expect("a name");
        let user = User::put(None, &user, acme.created_at, &[role]).after;
        commit(&store, put(None, Fact::User(Arc::new(user.clone())))).expect("created");
        let key = FactKey::User(acme.created_at, user.id.clone());
        let Some(Fact::User(user)) = store.get(&key).expect("readable") else { panic!("there") };
        assert_eq!((user.roles.len(), user.created_at), (1, user.revision));
        assert_eq!(store.users(acme.created_at, None, 10).expect("readable"), [(*user).clone()]);
        let (company, credential) = (acme.created_at, Revision(3));
        let of = Parties { company, user: user.created_at, credential };
        let consent = Consent::put(None, of, &catalog, &user, &[]).after;
        commit(&store, put(None, Fact::Consent(Arc::new(consent)))).expect("created");
        assert!(store.get(&FactKey::Consent(of)).expect("readable").is_some());
        let before = Some(Fact::Company(acme));
        commit(&store, FactWrite { key: FactKey::Company(id("acme")), before, after: None })
            .expect("deleted");
        assert!(read_company(&store, "acme").is_none());
    }
    // What they left is swept while the writer has nothing else to do.
    for birth in births {
        let gone = |store: &Store| {
            store.credentials(birth, None, 1).expect("readable").is_empty()
                && store.holders(birth, ScopeId(1), None, 1).expect("readable").is_empty()
                && store.users(birth, None, 1).expect("readable").is_empty()
        };
        assert!(in_time(|| gone(&store)), "swept");
    }
}

fn values_of_any_size_are_kept_whole(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = started(open(dir.path()));
    // An entry of the log of replicas has at most 1 MiB.
    let follows_log = store.log_position().expect("readable").is_some();
    let size = if follows_log { 40_000 } else { 70_000 };
    let big = catalog(size);
    let acme = Fact::Company(Arc::new(company("acme", &big)));
    commit(&store, put(None, acme)).expect("committed");
    commit(&store, put(None, Fact::Catalog(Arc::new(big.clone())))).expect("committed");
    let read = read_company(&store, "acme").expect("there");
    assert_eq!(read.ceiling.len(), size);
    // Replaced by a small one, and by a big one again.
    let small = Company { ceiling: Default::default(), ..(*read).clone() };
    let before = Some(Fact::Company(Arc::clone(&read)));
    let step = put(before, Fact::Company(Arc::new(small)));
    commit(&store, step).expect("committed");
    let small = read_company(&store, "acme").expect("there");
    assert!(small.ceiling.is_empty());
    let step = put(Some(Fact::Company(small)), Fact::Company(Arc::clone(&read)));
    commit(&store, step).expect("committed");
    store.close();
    drop(store);
    let store = open(dir.path());
    assert_eq!(read_company(&store, "acme").expect("there").ceiling, read.ceiling);
    let Some(Fact::Catalog(catalog)) = store.get(&FactKey::Catalog).expect("readable") else {
        panic!("the catalog is there")
    };
    assert_eq!(catalog.yaml, big.yaml);
    assert_eq!(catalog.scope_id_map(), big.scope_id_map());
    assert!(!dir.path().join("blobs").read_dir().is_ok_and(|mut files| files.next().is_some()));
}

fn the_log_has_every_change_once_in_order(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    for name in ["a", "ab", "a-b"] {
        let step = put(None, Fact::Company(Arc::new(company(name, &catalog))));
        let change = change(ChangeKind::CreateCompany, name);
        propose(
            &store,
            Proposal {
                preconditions: vec![],
                caller: None,
                writes: vec![step],
                change,
                idempotency: None,
            },
        )
        .expect("done");
    }
    let of = |company: Option<&str>, after: u64, up_to: u64, limit: usize| -> Vec<u64> {
        let company = company.map(id);
        let (after, up_to) = (Revision(after), Revision(up_to));
        let found = store.changes(company.as_ref(), after, up_to, limit).expect("readable");
        found.iter().map(|change| change.revision.0).collect()
    };
    assert_eq!(of(None, 0, 99, 9), [1, 2, 3]);
    assert_eq!(of(None, 1, 2, 9), [2]);
    assert_eq!(of(None, 0, 99, 2), [1, 2]);
    assert_eq!(of(Some("a"), 0, 99, 9), [1], "no other company's, whatever its id begins with");
    assert!(of(None, 3, 99, 9).is_empty());
    assert!(of(None, u64::MAX, u64::MAX, 9).is_empty());
}

/// Waits for what the writer does while it has nothing else to do.
pub fn in_time(done: impl Fn() -> bool) -> bool {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !done() && std::time::Instant::now() < patience {
        std::thread::yield_now();
    }
    done()
}

pub fn later(hours: i64) -> Timestamp {
    Timestamp::from_second(hours * 3_600).expect("a time")
}

fn a_request_is_answered_once_and_remembered_for_a_day(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    let key = RequestKey([7; 32]);
    // Longer than a value has in its place.
    let result = || WriteResult {
        detail: ResultDetail::Impact(7, "e".repeat(10_000)),
        ..Default::default()
    };
    let proposal = |name: &str| Proposal {
        preconditions: vec![],
        caller: None,
        writes: vec![put(None, Fact::Company(Arc::new(company(name, &catalog))))],
        change: change(ChangeKind::CreateCompany, name),
        idempotency: Some(IdempotencyRecord { key, body: [1; 32], result: result() }),
    };
    assert_eq!(store.answered(&key).expect("readable"), None);
    // Both may be in one batch: the second is refused all the same.
    let first = store.commit(proposal("a")).expect("queued");
    let second = store.commit(proposal("b")).expect("queued");
    let receipt = first.blocking_recv().expect("answered").expect("committed");
    assert_eq!(second.blocking_recv().expect("answered"), Err(CommitError::Conflict));
    assert_eq!(propose(&store, proposal("c")), Err(CommitError::Conflict));
    let answered =
        StoredResult { body: [1; 32], revision: receipt.revision, result: Some(result()) };
    assert_eq!(store.answered(&key).expect("readable"), Some(answered.clone()));
    store.close();
    drop(store);
    let store = started(open(dir.path()));
    store.mark_time(later(23), later(23));
    commit(&store, put(None, Fact::Company(Arc::new(company("d", &catalog))))).expect("done");
    assert_eq!(store.answered(&key).expect("readable"), Some(answered), "a day is not over");
    store.mark_time(later(25), later(25));
    assert!(in_time(|| store.answered(&key).expect("readable").is_none()), "forgotten");
    propose(&store, proposal("c")).expect("a request of its own");
}

fn authorization_codes_are_kept_as_long_as_their_tokens_live(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    let now = later(0);
    let code = |n: u8| {
        let expires_at = now + SignedDuration::from_secs(60 + i64::from(n));
        let text = AuthorizationCode::mint(expires_at, [n; 44]);
        AuthorizationCode {
            id: text.id().expect("an id"),
            hash: text.hash(),
            of: Parties { company: Revision(1), user: Revision(2), credential: Revision(3) },
            incarnation: Default::default(),
            user: UserId::parse("ada").expect("an id"),
            audience: None,
            scopes: vec![ScopeId(1)],
            // Longer than a value has in its place.
            redirect_uri: RedirectUri::parse(&format!("https://a.example/{}", "x".repeat(400)))
                .expect("a URI"),
            challenge: CodeChallenge([n; 32]),
            expires_at,
            state: CodeState::Unused,
            created_at: Revision::NEXT,
            revision: Revision::NEXT,
        }
    };
    let codes: Vec<_> = (0..3).map(code).collect();
    for code in &codes {
        commit(&store, put(None, Fact::AuthorizationCode(Arc::new(code.clone())))).expect("done");
    }
    let key = |n: usize| FactKey::AuthorizationCode(codes[n].id.clone());
    let read = |n: usize| store.get(&key(n)).expect("readable");
    let Some(Fact::AuthorizationCode(stored)) = read(1) else { panic!("no code") };
    let redeemed = AuthorizationCode {
        state: CodeState::Redeemed(TokenId([7; 16]), now + SignedDuration::from_hours(24)),
        ..(*stored).clone()
    };
    let used = put(Some(Fact::AuthorizationCode(stored)), Fact::AuthorizationCode(redeemed.into()));
    commit(&store, used).expect("done");
    let at = |second: i64| now + SignedDuration::from_secs(second);
    let end = 60 + KEPT_AFTER;
    let commit_one = |name: &str| {
        commit(&store, put(None, Fact::Company(Arc::new(company(name, &catalog))))).expect("done")
    };
    store.mark_time(at(end - 1), at(end - 1));
    commit_one("b");
    assert!((0..3).all(|n| read(n).is_some()), "a token may live");
    store.mark_time(at(end + 1), at(end + 1));
    commit_one("c");
    assert!(in_time(|| read(0).is_none() && read(1).is_none()), "forgotten");
    assert!(read(2).is_some());
}

fn tombstones_of_users_and_credentials_are_collected(open: &dyn Fn(&Path) -> Arc<Store>) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = started(open(dir.path()));
    commit(&store, put(None, Fact::Company(Arc::new(company("acme", &catalog))))).expect("done");
    let acme = read_company(&store, "acme").expect("there");
    let birth = acme.created_at;
    let mut users = Vec::new();
    let mut credentials = Vec::new();
    for n in 0..30 {
        let id = UserId::parse(format!("u{n}")).expect("an id");
        let user = Fact::User(Arc::new(User::put(None, &id, birth, &[]).after));
        commit(&store, put(None, user)).expect("done");
        let user = store.get(&FactKey::User(birth, id)).expect("readable").expect("there");
        users.push(user);
        let mut made = credential(&acme, &format!("c{n}"), &catalog, &[]);
        let secret = Secret {
            id: Name::parse(format!("s{n}")).expect("a name"),
            company: birth,
            credential: made.id.clone(),
            credential_created_at: Revision::NEXT,
            hash: blake3::hash(b"x"),
            revision: Revision::NEXT,
        };
        made.secrets.push(secret.id.clone());
        let key = FactKey::Credential(birth, made.id.clone());
        commit(&store, put(None, Fact::Credential(Arc::new(made)))).expect("done");
        commit(&store, put(None, Fact::Secret(Arc::new(secret)))).expect("done");
        credentials.push(store.get(&key).expect("readable").expect("there"));
    }
    let of = |user: &Fact, credential: &Fact| Parties {
        company: birth,
        user: user.revision(),
        credential: credential.revision(),
    };
    for user in &users {
        for credential in &credentials {
            let scopes = Default::default();
            let of = of(user, credential);
            let consent = Consent { of, scopes, revision: Revision::NEXT };
            commit(&store, put(None, Fact::Consent(Arc::new(consent)))).expect("done");
        }
    }
    let there = |of: Parties| store.get(&FactKey::Consent(of)).expect("readable").is_some();
    let delete = |fact: &Fact| {
        let key = put(None, fact.clone()).key;
        commit(&store, FactWrite { key, before: Some(fact.clone()), after: None })
            .expect("deleted");
    };
    delete(&users[3]);
    delete(&credentials[5]);
    let secret = |n: usize| {
        let id = Name::parse(format!("s{n}")).expect("a name");
        store.get(&FactKey::Secret(birth, id)).expect("readable").is_some()
    };
    assert!(!secret(5) && secret(6), "secrets go with their credential");
    let swept = || {
        credentials.iter().all(|credential| !there(of(&users[3], credential)))
            && users.iter().all(|user| !there(of(user, &credentials[5])))
    };
    assert!(in_time(swept), "swept");
    for (u, user) in users.iter().enumerate() {
        for (c, credential) in credentials.iter().enumerate() {
            assert_eq!(there(of(user, credential)), u != 3 && c != 5, "{u} {c}");
        }
    }
}

fn every_last_use_is_kept(open: &dyn Fn(&Path) -> Arc<Store>) {
    const MANY: u64 = 5_500;
    let dir = tempfile::tempdir().expect("a directory");
    let store = started(open(dir.path()));
    let noted = |minute: u32| (1..=MANY).map(|n| (Revision(n), minute)).collect();
    store.note_last_seen(noted(7));
    // The later minute stays, although the earlier ones are hardly written yet.
    store.note_last_seen(noted(8));
    let acme = company("acme", &catalog(1));
    commit(&store, put(None, Fact::Company(Arc::new(acme)))).expect("changes go on meanwhile");
    store.close();
    drop(store);
    let store = open(dir.path());
    for n in 1..=MANY {
        assert_eq!(store.last_seen(Revision(n)), Ok(Some(8)));
    }
    assert_eq!(store.last_seen(Revision(MANY + 1)), Ok(None));
}

fn a_batch_is_announced_before_it_is_applied_and_when_it_is_durable(
    open: &dyn Fn(&Path) -> Arc<Store>,
) {
    let dir = tempfile::tempdir().expect("a directory");
    let catalog = catalog(1);
    let store = open(dir.path());
    let ear = Arc::new(Ear::default());
    store.start(Arc::clone(&ear) as Arc<dyn CommitObserver>);
    let receipt =
        commit(&store, put(None, Fact::Company(Arc::new(company("a", &catalog))))).expect("done");
    assert_eq!(receipt.revision, Revision(1));
    assert_eq!(*ear.0.lock().expect("whole"), ["applying 1", "durable 1"]);
    store.close();
    assert!(
        store
            .commit(Proposal {
                preconditions: vec![],
                caller: None,
                writes: vec![],
                change: change(ChangeKind::CreateCompany, "b"),
                idempotency: None,
            })
            .is_err(),
        "nothing is accepted that nobody would commit"
    );
}

macro_rules! suite {
    ($engine:ident, $open:expr) => {
        mod $engine {
            use super::*;
            suite! { @ $open,
                committed_facts_are_read_back_by_the_next_process
                a_full_queue_still_accepts_removals
                a_proposal_stands_only_on_what_it_read
                a_change_depends_on_its_callers_key_and_on_no_other
                revisions_and_times_only_go_forward
                holders_and_impact_follow_every_change_of_credentials
                a_deleted_companys_id_starts_empty
                values_of_any_size_are_kept_whole
                the_log_has_every_change_once_in_order
                a_request_is_answered_once_and_remembered_for_a_day
                authorization_codes_are_kept_as_long_as_their_tokens_live
                tombstones_of_users_and_credentials_are_collected
                every_last_use_is_kept
                a_batch_is_announced_before_it_is_applied_and_when_it_is_durable
            }
        }
    };
    (@ $open:expr, $($law:ident)*) => {
        $(#[test] fn $law() { super::$law(&$open); })*
    };
}

suite!(sled, |dir: &Path| -> Arc<Store> { Arc::new(Store::open(dir).expect("opened")) });
suite!(redb, |dir: &Path| -> Arc<Store> {
    Arc::new(Store::open_on::<RedbEngine>(dir, 64 << 20).expect("opened"))
});

suite!(replicated, |dir: &Path| -> Arc<Store> {
    // Without etcd on this machine, the laws are those of sled.
    replica::open_alone(dir).unwrap_or_else(|| Arc::new(Store::open(dir).expect("opened")))
});

/// Of sled: every reason not to open is one sentence.
mod open_errors {
    use super::*;

    fn sentence(dir: &Path) -> String {
        match Store::open(dir) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn locked() {
        let dir = tempfile::tempdir().expect("a directory");
        let _held = Store::open(dir.path()).expect("opened");
        assert!(sentence(dir.path()).contains("another process"));
    }

    #[test]
    fn damaged() {
        for (what, damage) in [
            (
                "garbage",
                Box::new(|log: &Path| std::fs::write(log, vec![7; 1 << 20]).expect("written"))
                    as Box<dyn Fn(&Path)>,
            ),
            (
                "a foreign tree",
                Box::new(|log: &Path| {
                    let dir = log.parent().expect("a directory");
                    std::fs::remove_dir_all(dir).expect("removed");
                    let db = ::sled::open(log.parent().expect("a directory")).expect("opened");
                    db.insert("x", "y").expect("written");
                    db.flush().expect("flushed");
                }),
            ),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("store");
            let store = started(Arc::new(Store::open(&path).expect("opened")));
            let catalog = catalog(500);
            commit(&store, put(None, Fact::Company(Arc::new(company("a", &catalog)))))
                .expect("done");
            store.close();
            drop(store);
            damage(&path.join("db"));
            assert!(sentence(&path).contains("damaged"), "{what}: {}", sentence(&path));
        }
    }

    /// Whatever byte of the log is damaged, the store opens with everything that was
    /// acknowledged, or not at all: an older state would allow what was since forbidden.
    #[test]
    fn a_damaged_byte_never_brings_an_older_state_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store");
        let catalog = catalog(3);
        let store = started(Arc::new(Store::open(&path).expect("opened")));
        for n in 0..20 {
            let fact = Fact::Company(Arc::new(company(&format!("c{n}"), &catalog)));
            commit(&store, put(None, fact)).expect("done");
        }
        store.close();
        drop(store);
        let log = std::fs::read(path.join("db")).expect("readable");
        let used: Vec<_> = (0..log.len()).filter(|n| log[*n] != 0).collect();
        let (mut whole, mut refused) = (0, 0);
        for at in used.iter().step_by(used.len() / 60) {
            let copy = dir.path().join("copy");
            std::fs::remove_dir_all(&copy).ok();
            std::fs::create_dir_all(&copy).expect("made");
            for file in ["conf", "db", "witness"] {
                std::fs::copy(path.join(file), copy.join(file)).expect("copied");
            }
            let mut damaged = log.clone();
            damaged[*at] ^= 0x10;
            std::fs::write(copy.join("db"), damaged).expect("written");
            match Store::open(&copy) {
                Ok(store) => {
                    assert_eq!(store.opened_at(), Revision(20), "byte {at}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("damaged"), "byte {at}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 10, "{whole} opened, {refused} refused");
    }

    #[test]
    fn newer() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Store::open(dir.path()).expect("opened"));
        let db = ::sled::open(dir.path()).expect("opened");
        db.insert("Mschema", &99_u64.to_be_bytes()).expect("written");
        db.flush().expect("flushed");
        drop(db);
        assert!(sentence(dir.path()).contains("newer version (schema 99"));
    }

    #[test]
    fn not_a_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert!(sentence(&file).contains("cannot be opened"));
    }
}

/// How long changes are kept.
mod retention {
    use super::*;
    use jiff::SignedDuration;

    fn open(dir: &Path) -> Arc<Store> {
        let store = Store::open(dir).expect("opened");
        started(Arc::new(store.keeping_changes_for(SignedDuration::from_hours(24))))
    }

    /// Commits a change of this hour.
    fn commit_at(store: &Store, name: &str, hour: i64) {
        let writes = vec![put(None, Fact::Company(Arc::new(company(name, &catalog(1)))))];
        let change = Change { time: later(hour), ..change(ChangeKind::CreateCompany, name) };
        propose(
            store,
            Proposal { preconditions: vec![], caller: None, writes, change, idempotency: None },
        )
        .expect("done");
    }

    fn read(store: &Store, company: Option<&str>, after: u64) -> Result<Vec<u64>, StoreError> {
        let company = company.map(id);
        let found = store.changes(company.as_ref(), Revision(after), Revision(1 << 40), 10_000)?;
        Ok(found.iter().map(|change| change.revision.0).collect())
    }

    #[test]
    fn changes_are_kept_for_their_time_and_the_last_one_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        for n in 0..40 {
            commit_at(&store, &format!("c{n}"), n);
        }
        store.mark_time(later(39), later(39));
        let kept_after = |store: &Store| match read(store, None, 0) {
            Err(StoreError::Compacted(revision)) => revision.0,
            found => panic!("{found:?}"),
        };
        // Revision n + 1 is of hour n; at hour 39 those of the hours 15 and later are kept.
        assert!(in_time(
            || read(&store, None, 15).is_ok_and(|all| all == (16..=40).collect::<Vec<_>>())
        ));
        assert!(in_time(|| read(&store, None, 14).is_err()));
        assert_eq!(kept_after(&store), 15);
        assert_eq!(read(&store, Some("c20"), 15), Ok(vec![21]));
        assert!(read(&store, Some("c2"), 0).is_err(), "an empty answer would be a gap");
        store.mark_time(later(1_000), later(1_000));
        assert!(in_time(|| kept_after(&store) == 39));
        assert_eq!(read(&store, None, 39), Ok(vec![40]), "the last one stays");
        store.close();
        drop(store);
        let store = open(dir.path());
        assert_eq!((store.opened_at(), kept_after(&store)), (Revision(40), 39));
        commit_at(&store, "new", 1_001);
        assert_eq!(read(&store, None, 40), Ok(vec![41]));
    }

    #[test]
    fn a_reader_sees_no_gap_while_changes_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        let reader = std::thread::spawn({
            let store = Arc::clone(&store);
            move || {
                // It always reads from the very edge of what is kept.
                let (mut after, mut missed, mut last) = (0, 0, 0);
                while last < 1_000 {
                    match read(&store, None, after) {
                        Ok(found) => {
                            let next: Vec<_> = (after + 1..).take(found.len()).collect();
                            assert_eq!(found, next, "after {after}");
                            last = found.last().copied().unwrap_or(last);
                        }
                        Err(StoreError::Compacted(gone)) => {
                            assert!(gone.0 > after);
                            (after, missed) = (gone.0, missed + 1);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                missed
            }
        });
        for n in 0..1_000 {
            commit_at(&store, &format!("c{n}"), n);
            store.mark_time(later(n), later(n));
        }
        assert!(reader.join().expect("no gap") > 0, "it was overtaken");
    }
}

/// The quotas of companies.
mod bounds {
    use super::*;
    use scopegate::store::quota::{Quota, Quotas, Reached};

    fn open(dir: &Path, bounds: Quotas) -> Arc<Store> {
        let store = Store::open(dir).expect("opened");
        started(Arc::new(store.bounding_companies(bounds)))
    }

    fn reached<T>(bound: Quota, limit: u64) -> Result<T, CommitError> {
        Err(CommitError::Store(StoreError::AtBound(Reached { bound, limit })))
    }

    fn proposal(step: FactWrite, time: Timestamp) -> Proposal {
        let change = Change { time, ..change(ChangeKind::UpdateCompany, "acme") };
        Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![step],
            change,
            idempotency: None,
        }
    }

    /// Commits these as fast as the queue takes them, so that many are in one batch.
    fn pipelined(store: &Store, writes: Vec<FactWrite>) -> Vec<Result<Receipt, CommitError>> {
        let queue = |step| store.commit(proposal(step, later(0))).expect("queued");
        let tickets: Vec<_> = writes.into_iter().map(queue).collect();
        tickets.into_iter().map(|ticket| ticket.blocking_recv().expect("answered")).collect()
    }

    fn create_company(store: &Store, catalog: &Catalog) -> Arc<Company> {
        commit(store, put(None, Fact::Company(Arc::new(company("acme", catalog))))).expect("done");
        read_company(store, "acme").expect("there")
    }

    fn new_credential(acme: &Company, n: usize, catalog: &Catalog) -> FactWrite {
        put(None, Fact::Credential(Arc::new(credential(acme, &format!("k{n}"), catalog, &[]))))
    }

    fn new_user(acme: &Company, n: usize) -> FactWrite {
        let id = UserId::parse(format!("u{n}")).expect("an id");
        put(None, Fact::User(Arc::new(User::put(None, &id, acme.created_at, &[]).after)))
    }

    fn new_consent(acme: &Company, user: &User, credential: u64, catalog: &Catalog) -> FactWrite {
        let credential = Revision(credential);
        let of = Parties { company: acme.created_at, user: user.created_at, credential };
        put(None, Fact::Consent(Arc::new(Consent::put(None, of, catalog, user, &[]).after)))
    }

    /// Removes what there is under a key, or puts it again as it is.
    fn again(store: &Store, key: FactKey, remove: bool) -> FactWrite {
        let before = store.get(&key).expect("readable");
        let after = before.clone().filter(|_| !remove);
        FactWrite { key, before, after }
    }

    fn of_credential(acme: &Company, n: usize) -> FactKey {
        let id = CredentialId::parse(format!("k{n}")).expect("an id");
        FactKey::Credential(acme.created_at, id)
    }

    const FEW: Quotas = Quotas { credentials: 10, users: 5, consents: 7, bytes_per_day: u64::MAX };

    #[test]
    fn no_company_has_more_than_its_bounds_whatever_is_pipelined() {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = catalog(1);
        let mut store = open(dir.path(), FEW);
        for life in 0..2 {
            let acme = create_company(&store, &catalog);
            // What a deleted company of the id had does not count.
            let made =
                pipelined(&store, (0..50).map(|n| new_credential(&acme, n, &catalog)).collect());
            assert!(made[..10].iter().all(Result::is_ok), "life {life}: {made:?}");
            assert!(made[10..].iter().all(|made| *made == reached(Quota::Credentials, 10)));
            let made = pipelined(&store, (0..9).map(|n| new_user(&acme, n)).collect());
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 5);
            assert_eq!(made[5], reached(Quota::Users, 5));
            let key = FactKey::User(acme.created_at, UserId::parse("u0").expect("an id"));
            let Some(Fact::User(u0)) = store.get(&key).expect("readable") else { panic!("there") };
            let consents = (1..10).map(|n| new_consent(&acme, &u0, n, &catalog)).collect();
            let made = pipelined(&store, consents);
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 7);
            assert_eq!(made[7], reached(Quota::Consents, 7));
            // What exists is changed, and is said to exist.
            commit(&store, again(&store, of_credential(&acme, 3), false)).expect("changed");
            commit(&store, again(&store, key, false)).expect("changed");
            let exists = commit(&store, new_credential(&acme, 3, &catalog));
            assert_eq!(exists, Err(CommitError::Conflict));
            // One goes, one comes, in one batch.
            let made = pipelined(
                &store,
                vec![
                    new_credential(&acme, 20, &catalog),
                    again(&store, of_credential(&acme, 3), true),
                    new_credential(&acme, 21, &catalog),
                    new_credential(&acme, 22, &catalog),
                ],
            );
            let done: Vec<_> = made.iter().map(Result::is_ok).collect();
            assert_eq!(done, [false, true, true, false], "{made:?}");
            // Another process counts the same.
            store.close();
            drop(store);
            store = open(dir.path(), FEW);
            let full = reached(Quota::Credentials, 10);
            assert_eq!(commit(&store, new_credential(&acme, 30, &catalog)), full);
            let told = store.admits(&proposal(new_credential(&acme, 30, &catalog), later(0)));
            assert_eq!(told.map_err(CommitError::Store), full.map(drop));
            let more = |n| store.check_quota(acme.created_at, Quota::Credentials, n).is_ok();
            assert!(more(0) && !more(1));
            let of_a_new_one = |n| store.check_quota(Revision::NEXT, Quota::Users, n).is_ok();
            assert!(of_a_new_one(5) && !of_a_new_one(6));
            commit(&store, again(&store, of_credential(&acme, 21), true)).expect("removed");
            assert!(more(1) && !more(2));
            commit(&store, again(&store, FactKey::Company(acme.id.clone()), true)).expect("gone");
        }
        // Those who would be found are swept, and counted down to nothing.
        let counted = |store: &Store| {
            let first = Revision(1);
            Quota::ALL.map(|bound| store.check_quota(first, bound, FEW.of(bound)).is_ok())
        };
        assert!(in_time(|| counted(&store) == [true; 4]));
        assert_eq!(store.metrics().at_bounds().map(|(_, n)| n).collect::<Vec<_>>(), [1, 0, 0, 0]);
    }

    #[test]
    fn consents_of_the_deleted_count_until_they_are_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = catalog(1);
        let store = open(dir.path(), FEW);
        let acme = create_company(&store, &catalog);
        commit(&store, new_user(&acme, 0)).expect("put");
        let key = FactKey::User(acme.created_at, UserId::parse("u0").expect("an id"));
        let Some(Fact::User(u0)) = store.get(&key).expect("readable") else { panic!("there") };
        for n in 1..=7 {
            commit(&store, new_consent(&acme, &u0, n, &catalog)).expect("put");
        }
        commit(&store, again(&store, key, true)).expect("removed");
        assert!(in_time(|| store.check_quota(acme.created_at, Quota::Consents, 7).is_ok()));
        assert!(store.check_quota(acme.created_at, Quota::Users, 5).is_ok());
    }

    #[test]
    fn a_company_writes_its_bytes_a_day_and_then_only_what_takes_away() {
        const LIMIT: u64 = 20_000;
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = catalog(1);
        let store = open(dir.path(), Quotas { bytes_per_day: LIMIT, ..Quotas::NONE });
        let acme = create_company(&store, &catalog);
        let at = |step, hour| propose(&store, proposal(step, later(hour)));
        // How many credentials a day takes, pipelined or not.
        let fill = |first: usize, hour: i64| {
            let writes = (first..first + 300).map(|n| new_credential(&acme, n, &catalog));
            let queue = |step| store.commit(proposal(step, later(hour))).expect("queued");
            let tickets: Vec<_> = writes.map(queue).collect();
            let made: Vec<_> =
                tickets.into_iter().map(|t| t.blocking_recv().expect("answered")).collect();
            let done = made.iter().filter(|made| made.is_ok()).count();
            assert!(made[..done].iter().all(Result::is_ok), "{made:?}");
            assert!(made[done..].iter().all(|made| *made == reached(Quota::Bytes, LIMIT)));
            done
        };
        let first = fill(0, 1);
        assert!((20..200).contains(&first), "{first}");
        assert_eq!(at(new_user(&acme, 0), 2), reached(Quota::Bytes, LIMIT));
        let told = store.admits(&proposal(new_user(&acme, 0), later(3)));
        assert!(matches!(told, Err(StoreError::AtBound(_))), "{told:?}");
        store.admits(&proposal(new_user(&acme, 0), later(25))).expect("another day");
        // Others are none the worse.
        let other = Company { id: id("other"), ..company("other", &catalog) };
        at(put(None, Fact::Company(Arc::new(other))), 3).expect("created");
        let other = read_company(&store, "other").expect("there");
        at(new_user(&other, 0), 3).expect("put");
        // All of it can be taken away.
        for n in 0..first {
            at(again(&store, of_credential(&acme, n), true), 4).expect("it takes away");
        }
        let before = read_company(&store, "acme").expect("there");
        let disabled = Company { enabled: false, ..(*before).clone() };
        let disable = put(Some(Fact::Company(before)), Fact::Company(Arc::new(disabled)));
        at(disable, 5).expect("it takes away");
        let before = read_company(&store, "acme").expect("there");
        let enabled = Company { enabled: true, ..(*before).clone() };
        let enable = || {
            put(Some(Fact::Company(Arc::clone(&before))), Fact::Company(Arc::new(enabled.clone())))
        };
        assert_eq!(at(enable(), 6), reached(Quota::Bytes, LIMIT));
        // The next day begins at 00:00 UTC.
        at(enable(), 24).expect("another day");
        let second = fill(300, 25);
        assert!(second.abs_diff(first) <= 2, "{second} {first}");
        // Another company of the same id begins at zero.
        at(again(&store, FactKey::Company(id("acme")), true), 26).expect("it takes away");
        let again = put(None, Fact::Company(Arc::new(company("acme", &catalog))));
        at(again, 26).expect("created");
        let acme = read_company(&store, "acme").expect("there");
        at(new_user(&acme, 0), 26).expect("put");
    }
}
