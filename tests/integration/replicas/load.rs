//! Load: changes and checks at all replicas of a cluster, and the proof that no answer is stale.
//!
//! A company belongs to one writer, which restricts it and grants its scope again. The writer moves the
//! epoch of the company before a change is sent, and after it was acknowledged. A check during which the
//! epoch does not move, while no change is under way, has one right answer. And every answer, of whatever
//! company and replica, is decided at a revision that is not older than any that was acknowledged before
//! the check began.
//!
//! A change without an answer is sent again with the same request id until it is acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use scopegate::proto::*;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::cluster::{Cluster, until};
use crate::harness::{Client, scopes_of};

const SCOPE: &[&str] = &["a"];
/// The pause of a checker in milliseconds, and a quarter of that of a writer, so that the machine has time
/// for etcd.
const PACE: u64 = 8;
/// The pause before a call that failed is repeated.
const AGAIN: Duration = Duration::from_millis(10);

/// Where the calls of a load go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Each checker and each writer has a replica of its own.
    Own,
    /// Each checker has a replica of its own, and a change goes to any.
    Any,
}

/// Changes and checks that go on until [`Load::finish`].
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    clients: Vec<Client>,
    route: Route,
    companies: Vec<Company>,
    /// The highest revision that was acknowledged.
    acknowledged: AtomicU64,
    /// How many checks had one right answer, which was an allow or a denial.
    settled: [AtomicU64; 2],
    /// Of each replica.
    seen: Vec<Mutex<Seen>>,
    /// What was wrong.
    wrong: Mutex<Vec<String>>,
    is_over: AtomicBool,
    turns: AtomicU64,
}

/// What belongs to one writer.
struct Company {
    id: String,
    /// `epoch % 4` is 0 while the scope is surely granted, and 2 while it surely is not.
    epoch: AtomicU64,
}

impl Company {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

/// What the clients of one replica saw since the row began.
struct Seen {
    begun: Instant,
    /// When a check failed first.
    failed_after: Option<Duration>,
    /// When it answered a check last.
    answered_at: Instant,
    longest_silence: Duration,
    longest_change: Duration,
    answers: u64,
    changes: u64,
    /// Checks that failed, by reason.
    failed: BTreeMap<String, u64>,
    /// Attempts of changes that failed, by reason.
    failed_changes: BTreeMap<String, u64>,
}

impl Seen {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            failed_after: None,
            answered_at: Instant::now(),
            longest_silence: Duration::ZERO,
            longest_change: Duration::ZERO,
            answers: 0,
            changes: 0,
            failed: BTreeMap::new(),
            failed_changes: BTreeMap::new(),
        }
    }

    fn failed(&mut self, reason: String) {
        *self.failed.entry(reason).or_default() += 1;
        self.failed_after.get_or_insert(self.begun.elapsed());
    }

    fn answered(&mut self) {
        let now = Instant::now();
        self.longest_silence = self.longest_silence.max(now - self.answered_at);
        self.answered_at = now;
        self.answers += 1;
    }
}

/// What a row of the table of faults saw, by replica.
pub struct Row(Vec<Seen>);

impl Row {
    /// Panics if a check failed at one of these replicas.
    pub fn untouched(&self, replicas: &[usize]) {
        for replica in replicas {
            assert!(self.0[*replica].failed.is_empty(), "{replica}: {:?}", self.0[*replica].failed);
        }
    }

    /// How many checks of a replica failed for this reason.
    pub fn failed(&self, replica: usize, reason: &str) -> u64 {
        self.0[replica].failed.get(reason).copied().unwrap_or(0)
    }
}

impl Load {
    /// Starts a checker and a writer for each replica of a cluster.
    pub async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, Route::Own, 1).await
    }

    /// Starts a writer and some checkers for each replica of a cluster.
    pub async fn start_with(cluster: &Cluster, route: Route, checkers: usize) -> Self {
        /// Of each writer.
        const COMPANIES: usize = 3;
        let clients = cluster.clients();
        let count = clients.len();
        let mut companies = Vec::new();
        for n in 0..count * COMPANIES {
            let id = format!("company-{n}");
            clients[0].create_company(&id, Some(SCOPE)).await;
            clients[0].create_credential(&id, "key", SCOPE).await;
            companies.push(Company { id, epoch: AtomicU64::new(0) });
        }
        let shared = Arc::new(Shared {
            clients,
            route,
            companies,
            acknowledged: AtomicU64::new(0),
            settled: Default::default(),
            seen: (0..count).map(|_| Mutex::new(Seen::begin())).collect(),
            wrong: Mutex::default(),
            is_over: AtomicBool::new(false),
            turns: AtomicU64::new(0),
        });
        let mut tasks = Vec::new();
        for number in 0..count {
            for _ in 0..checkers {
                tasks.push(tokio::spawn(Arc::clone(&shared).check_on(number)));
            }
            tasks.push(tokio::spawn(Arc::clone(&shared).write_on(number, count)));
        }
        let load = Self { shared, tasks };
        load.goes_on(&(0..count).collect::<Vec<_>>()).await;
        load
    }

    /// Begins a row of the table of faults.
    pub fn begin_row(&self) {
        self.shared.seen.iter().for_each(|seen| *lock(seen) = Seen::begin());
    }

    /// Ends a row, and prints its times.
    pub fn end_row(&self, fault: &str) -> Row {
        let take = |seen: &Mutex<Seen>| std::mem::replace(&mut *lock(seen), Seen::begin());
        let mut row: Vec<Seen> = self.shared.seen.iter().map(take).collect();
        for seen in &mut row {
            seen.longest_silence = seen.longest_silence.max(seen.answered_at.elapsed());
        }
        let each = |what: &dyn Fn(&Seen) -> u128| {
            row.iter().map(|seen| what(seen).to_string()).collect::<Vec<_>>().join("/")
        };
        let silences = each(&|seen| seen.longest_silence.as_millis());
        let changes = each(&|seen| seen.longest_change.as_millis());
        let failed = each(&|seen| seen.failed.values().sum::<u64>().into());
        let first = |seen: &Seen| seen.failed_after.map(|after| after.as_millis());
        let first = row.iter().map(|seen| first(seen).map_or("-".to_owned(), |ms| ms.to_string()));
        let first = first.collect::<Vec<_>>().join("/");
        let failed_changes = each(&|seen| seen.failed_changes.values().sum::<u64>().into());
        eprintln!(
            "fault {fault}: checks without an answer {silences} ms (failed {failed}, first after {first} ms), \
             changes {changes} ms (failed {failed_changes})"
        );
        Row(row)
    }

    /// Waits until these replicas have answered checks that begin from now on, and have acknowledged
    /// changes.
    pub async fn goes_on(&self, replicas: &[usize]) {
        self.checks_go_on(replicas).await;
        self.changes_go_on(replicas).await;
    }

    pub async fn checks_go_on(&self, replicas: &[usize]) {
        self.more(replicas, "checks", |seen| seen.answers, 10).await;
    }

    /// Waits until these replicas have acknowledged changes that begin from now on.
    pub async fn changes_go_on(&self, replicas: &[usize]) {
        self.more(replicas, "changes", |seen| seen.changes, 2).await;
    }

    async fn more(&self, replicas: &[usize], what: &str, of: fn(&Seen) -> u64, more: u64) {
        let now = |replica: &usize| of(&lock(&self.shared.seen[*replica]));
        let before: Vec<_> = replicas.iter().map(now).collect();
        let are_there = async || {
            self.nothing_is_wrong();
            replicas.iter().zip(&before).all(|(replica, before)| now(replica) >= before + more)
        };
        until(&format!("{what} at {replicas:?}"), are_there).await;
    }

    /// Waits until checks of all these replicas fail for this reason.
    pub async fn until_failed(&self, replicas: &[usize], reason: &str) {
        let has_failed =
            |replica: &usize| lock(&self.shared.seen[*replica]).failed.contains_key(reason);
        until(reason, async || replicas.iter().all(has_failed)).await;
    }

    /// How many checks had one right answer.
    pub fn settled(&self) -> u64 {
        self.shared.settled.iter().map(|one| one.load(Ordering::Relaxed)).sum()
    }

    /// Waits until so many more changes are acknowledged, at any replica.
    pub async fn changes_go_on_somewhere(&self, more: u64) {
        let now = || self.shared.seen.iter().map(|seen| lock(seen).changes).sum::<u64>();
        let target = now() + more;
        let are_there = async || {
            self.nothing_is_wrong();
            now() >= target
        };
        until("changes", are_there).await;
    }

    pub fn nothing_is_wrong(&self) {
        let wrong = lock(&self.shared.wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// So many checks of one replica that begin now, at once. Returns them; each is judged when it ends.
    pub fn burst(&self, replica: usize, count: usize) -> Vec<JoinHandle<()>> {
        let one = |n: usize| {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.check(replica, &[n % shared.companies.len()]).await })
        };
        (0..count).map(one).collect()
    }

    /// Ends all calls. No answer was stale.
    pub async fn finish(self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
            ended.expect("calls end").expect("no panic");
        }
        let wrong = lock(&self.shared.wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let settled = self.shared.settled.each_ref().map(|one| one.load(Ordering::Relaxed));
        assert!(settled.iter().all(|count| *count > 0), "{settled:?}");
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Where the next call of an owner of this number goes.
    fn replica(&self, number: usize) -> usize {
        match self.route {
            Route::Own => number,
            Route::Any => {
                let turn = self.turns.fetch_add(1, Ordering::Relaxed);
                let mut rng = crate::fixture::Rng(turn);
                rng.below(self.clients.len() as u64) as usize
            }
        }
    }

    async fn check_on(self: Arc<Self>, replica: usize) {
        let all: Vec<_> = (0..self.companies.len()).collect();
        let pace = Duration::from_millis(super::size("SCOPEGATE_REPLICA_PACE", PACE));
        for turn in 0.. {
            if self.is_over() {
                return;
            }
            // One company, and all of them in a batch.
            let one = turn % all.len();
            self.check(replica, &all[one..=one]).await;
            if one == 0 {
                self.check(replica, &all).await;
            }
            tokio::time::sleep(pace).await;
        }
    }

    /// Checks the scope of some companies, and judges the answers.
    async fn check(&self, replica: usize, companies: &[usize]) {
        let companies = || companies.iter().map(|company| &self.companies[*company]);
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let before: Vec<_> = companies().map(Company::epoch).collect();
        let mut checks: Vec<_> = companies().map(|of| scopes_of(&of.id, "key", SCOPE)).collect();
        let client = &self.clients[replica];
        let answer = match checks.pop() {
            Some(check) if checks.is_empty() => {
                client.ask(check).await.map(|answer| (answer.revision, vec![answer]))
            }
            last => {
                checks.extend(last);
                let mut client = client.authorization.clone();
                client.batch_check(BatchCheckRequest { checks }).await.map(|answer| {
                    let BatchCheckResponse { results, revision, .. } = answer.into_inner();
                    (revision, results)
                })
            }
        };
        let after: Vec<_> = companies().map(Company::epoch).collect();
        let (revision, answers) = match answer {
            Ok(answer) => answer,
            Err(status) => {
                lock(&self.seen[replica]).failed(reason(&status));
                if !may_fail(&status) {
                    self.note_wrong(format!("a check at {replica}: {status:?}"));
                }
                return tokio::time::sleep(AGAIN).await;
            }
        };
        lock(&self.seen[replica]).answered();
        if revision < acknowledged {
            self.note_wrong(format!("{replica} answered at {revision} behind {acknowledged}"));
        }
        assert_eq!(answers.len(), before.len());
        for (answer, (before, after)) in answers.iter().zip(before.into_iter().zip(after)) {
            if before != after || before % 2 != 0 {
                continue;
            }
            let is_allowed = answer.decision() == Decision::Allowed;
            self.settled[usize::from(is_allowed)].fetch_add(1, Ordering::Relaxed);
            if is_allowed != before.is_multiple_of(4) {
                let reason = answer.reason();
                self.note_wrong(format!("{replica} answered {reason:?} in epoch {before}"));
            }
        }
    }

    async fn write_on(self: Arc<Self>, number: usize, count: usize) {
        for turn in 0.. {
            let own = self.companies.iter().skip(number).step_by(count);
            for company in own {
                let steps: &[Step] = if turn % 2 == 0 { &[restrict] } else { &[add, grant] };
                company.epoch.fetch_add(1, Ordering::SeqCst);
                for step in steps {
                    if !self.change(number, &company.id, *step).await {
                        return;
                    }
                }
                company.epoch.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(PACE * 4)).await;
            }
        }
    }

    /// Makes a change, and repeats it until it is acknowledged. False: the load is over.
    async fn change(&self, number: usize, company: &str, step: Step) -> bool {
        let (begun, request_id) = (Instant::now(), Uuid::new_v4().to_string());
        loop {
            if self.is_over() {
                return false;
            }
            let replica = self.replica(number);
            match step(self.clients[replica].clone(), company.to_owned(), request_id.clone()).await
            {
                Ok(revision) => {
                    self.acknowledged.fetch_max(revision, Ordering::SeqCst);
                    let mut seen = lock(&self.seen[replica]);
                    seen.changes += 1;
                    seen.longest_change = seen.longest_change.max(begun.elapsed());
                    return true;
                }
                Err(status) => {
                    let failed = reason(&status);
                    *lock(&self.seen[replica]).failed_changes.entry(failed).or_default() += 1;
                    if !may_fail(&status) {
                        self.note_wrong(format!("a change at {replica}: {status:?}"));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn note_wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        lock(&self.wrong).push(what);
    }
}

/// One change of a company, with its request id. It returns the revision.
type Step =
    fn(Client, String, String) -> futures_util::future::BoxFuture<'static, Result<u64, Status>>;

fn restrict(
    client: Client,
    company_id: String,
    request_id: String,
) -> futures_util::future::BoxFuture<'static, Result<u64, Status>> {
    Box::pin(async move {
        let scopes = vec!["a".to_owned()];
        let request = RestrictCompanyScopesRequest {
            company_id,
            scopes,
            acknowledge_impact: true,
            request_id,
            ..Default::default()
        };
        client.try_restrict(request).await.map(|done| done.revision)
    })
}

fn add(
    mut client: Client,
    company_id: String,
    request_id: String,
) -> futures_util::future::BoxFuture<'static, Result<u64, Status>> {
    Box::pin(async move {
        let scopes = vec!["a".to_owned()];
        let request =
            AddCompanyScopesRequest { company_id, scopes, request_id, ..Default::default() };
        client
            .authorization
            .add_company_scopes(request)
            .await
            .map(|done| done.into_inner().revision)
    })
}

fn grant(
    mut client: Client,
    company_id: String,
    request_id: String,
) -> futures_util::future::BoxFuture<'static, Result<u64, Status>> {
    Box::pin(async move {
        let (credential_id, scopes) = ("key".to_owned(), vec!["a".to_owned()]);
        let request = GrantScopesRequest {
            company_id,
            credential_id,
            scopes,
            request_id,
            ..Default::default()
        };
        client.authorization.grant_scopes(request).await.map(|done| done.into_inner().revision)
    })
}

/// The reason of an error of the server, or that no server said anything.
pub fn reason(status: &Status) -> String {
    match status.get_error_details().error_info() {
        Some(info) => info.reason.clone(),
        None => "NOBODY".to_owned(),
    }
}

/// Whether a fault explains the error: the server is not there, or does not know.
fn may_fail(status: &Status) -> bool {
    let nobody = status.get_error_details().error_info().is_none();
    nobody || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
