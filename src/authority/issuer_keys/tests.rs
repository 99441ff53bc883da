//! Every cell of T19's table, with a reader that the test scripts.

use std::cell::Cell;
use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::policy::catalog::issuer::{Algorithm, Companies, PartySource, REFRESH, UserSource};

type Reply = Result<&'static str, &'static str>;

const ONE: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const TWO: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"2","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const NONE: &str = r#"{"keys":[]}"#;
const DOWN: Reply = Err("the server is down");

/// Hands each read to the test.
struct Script(mpsc::UnboundedSender<oneshot::Sender<Reply>>);

impl KeyReader for Script {
    fn read<'a>(&'a self, _: &'a KeySource) -> KeyReading<'a> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).ok();
        Box::pin(async move {
            let answer = answer.await.unwrap_or(Err("the test has ended"));
            answer
                .map(|text| Bytes::from_static(text.as_bytes()))
                .map_err(|cause| KeyReadError(cause.to_owned()))
        })
    }
}

fn issuer(keys: KeySource) -> Issuer {
    Issuer {
        name: "https://id.example.org/".into(),
        aliases: BTreeSet::new(),
        keys,
        algorithms: [Algorithm::EdDsa].into(),
        audiences: None,
        require: Default::default(),
        without_aud: None,
        company: PartySource::Request,
        companies: Companies::Any,
        credential: PartySource::Request,
        user: UserSource::None,
        scope_claims: vec![],
        types: None,
        clock_skew: 0,
        refresh: REFRESH,
        refetch_after: 3600,
        usable_for: 3600,
        confirmed_by_caller: false,
    }
}

fn by_url() -> Issuer {
    issuer(KeySource::Url("https://id.example.org/jwks.json".into()))
}

fn set(text: &str) -> KeysNow {
    KeysNow::Usable(Arc::new(KeySet::parse(text.as_bytes()).expect("a key set").keys))
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// The keys of one issuer, whose reads the test answers.
struct Scene {
    keys: IssuerKeys,
    issuer: Arc<Issuer>,
    reader: Arc<dyn KeyReader>,
    reads: mpsc::UnboundedReceiver<oneshot::Sender<Reply>>,
    waiters: Waiters,
    supervisor: Arc<Supervisor>,
    /// The revision of the catalog in force.
    revision: Cell<Revision>,
}

impl Scene {
    fn new(issuer: Issuer) -> Self {
        let (send, reads) = mpsc::unbounded_channel();
        let scene = Self {
            keys: IssuerKeys::default(),
            issuer: Arc::new(issuer),
            reader: Arc::new(Script(send)),
            reads,
            waiters: Waiters::default(),
            supervisor: Arc::default(),
            revision: Cell::new(Revision::ZERO),
        };
        scene.publish(&scene.issuer);
        scene
    }

    /// Puts the next catalog in force, which has this issuer alone.
    fn publish(&self, issuer: &Arc<Issuer>) {
        self.revision.set(self.revision.get().next());
        self.keys.reconcile(self.revision.get(), [issuer], &self.reader, &self.supervisor);
    }

    fn current(&self) -> KeysNow {
        self.keys.current(&self.issuer)
    }

    async fn refetched(&self, deadline: Instant) -> Refetched {
        self.keys.refetched(&self.issuer, self.revision.get(), &self.waiters, deadline).await
    }

    /// Asks for a fetch, and answers the read that is under way then.
    async fn answer(&mut self, reply: Reply) -> Refetched {
        let asked = self.keys.refetched(&self.issuer, self.revision.get(), &self.waiters, far());
        let answer = async {
            let read = self.reads.recv().await.expect("a read");
            read.send(reply).expect("it waits for the reply");
        };
        let (refetched, ()) = tokio::join!(biased; asked, answer);
        refetched
    }

    /// The keys after a first fetch that succeeded.
    async fn fetched(issuer: Issuer) -> Self {
        let mut scene = Self::new(issuer);
        assert_eq!(scene.answer(Ok(ONE)).await, Refetched::LookAgain);
        scene
    }
}

#[tokio::test]
async fn keys_that_were_fetched_are_usable_and_no_fetch_may_begin_yet() {
    let scene = Scene::fetched(by_url()).await;
    assert_eq!(scene.current(), set(ONE));
    assert_eq!(scene.refetched(far()).await, Refetched::Unchanged, "it does not wait");
    assert_eq!(scene.current(), set(ONE));
}

#[tokio::test]
async fn unknown_key_begins_a_fetch_that_brings_it() {
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    assert_eq!(scene.answer(Ok(TWO)).await, Refetched::LookAgain);
    assert_eq!(scene.current(), set(TWO), "the set replaces the last one whole");
    assert_eq!(scene.answer(Ok(NONE)).await, Refetched::LookAgain);
    assert_eq!(scene.current(), set(NONE), "an empty one too");
}

#[tokio::test]
async fn unknown_key_is_unverifiable_if_the_fetch_fails() {
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    for reply in [DOWN, Ok("<html>"), Ok("[]"), Ok("{}"), Ok("")] {
        assert_eq!(scene.answer(reply).await, Refetched::Unverifiable, "{reply:?}");
        assert_eq!(scene.current(), set(ONE), "the set stays");
    }
    assert_eq!(scene.answer(Ok(TWO)).await, Refetched::LookAgain, "the issuer comes back");
    let status = scene.keys.status();
    assert_eq!((status[0].fetched, status[0].failed), (2, 5));
}

#[tokio::test]
async fn failed_fetch_counts_for_the_time_until_another_may_begin() {
    let mut scene = Scene::new(by_url());
    assert_eq!(scene.answer(DOWN).await, Refetched::Unverifiable);
    assert_eq!(scene.refetched(Instant::now()).await, Refetched::Unverifiable);
    assert_eq!(scene.current(), KeysNow::Unusable);
}

#[tokio::test]
async fn unknown_key_is_unverifiable_if_the_fetch_is_not_over() {
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    assert_eq!(scene.refetched(Instant::now()).await, Refetched::Unverifiable);
    assert_eq!(scene.current(), set(ONE));
    assert_eq!(scene.answer(Ok(TWO)).await, Refetched::LookAgain, "the same fetch goes on");
    assert!(scene.reads.is_empty(), "one fetch at a time");
}

#[tokio::test]
async fn calls_wait_for_the_one_fetch_under_way() {
    let scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    let Scene { keys, issuer, mut reads, waiters, revision, .. } = scene;
    let ask = || keys.refetched(&issuer, revision.get(), &waiters, far());
    let answer = async {
        let read = reads.recv().await.expect("a read");
        assert!(reads.is_empty(), "one fetch at a time");
        read.send(Ok(TWO)).expect("it waits");
    };
    let (a, b, c, ()) = tokio::join!(biased; ask(), ask(), ask(), answer);
    assert_eq!([a, b, c], [Refetched::LookAgain; 3]);
}

#[tokio::test]
async fn calls_above_the_limit_do_not_wait() {
    let scene = Scene::new(by_url());
    let places: Vec<_> = (0..32).map(|_| scene.waiters.enter(&scene.issuer.name)).collect();
    assert!(places.iter().all(Option::is_some));
    assert_eq!(scene.refetched(far()).await, Refetched::Unverifiable);
}

#[tokio::test]
async fn keys_that_are_too_old_are_as_good_as_none_until_a_fetch() {
    let too_old = Issuer { usable_for: 0, ..by_url() };
    let scene = Scene::fetched(too_old.clone()).await;
    assert_eq!(scene.current(), KeysNow::Unusable);
    assert_eq!(scene.refetched(far()).await, Refetched::Unverifiable, "no fetch may begin");
    assert!(scene.keys.status()[0].age.is_some());
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..too_old }).await;
    assert_eq!(scene.answer(DOWN).await, Refetched::Unverifiable);
    assert_eq!(scene.answer(Ok(TWO)).await, Refetched::LookAgain);
}

#[tokio::test]
async fn issuer_without_keys_waits_for_its_first_fetch() {
    let mut scene = Scene::new(by_url());
    assert_eq!(scene.current(), KeysNow::Unusable);
    assert_eq!(scene.refetched(Instant::now()).await, Refetched::Unverifiable, "it is not over");
    assert_eq!(scene.answer(Ok(ONE)).await, Refetched::LookAgain);
    assert_eq!(scene.current(), set(ONE));
}

#[tokio::test]
async fn inline_keys_are_those_of_the_entry() {
    let KeysNow::Usable(inline) = set(ONE) else { panic!("usable") };
    let scene = Scene::new(Issuer { usable_for: 0, ..issuer(KeySource::Inline(inline)) });
    assert_eq!(scene.current(), set(ONE));
    assert_eq!(scene.refetched(far()).await, Refetched::Unchanged);
    assert!(scene.reads.is_empty() && scene.keys.status().is_empty());
}

#[tokio::test]
async fn keys_of_a_file_are_never_too_old() {
    let mut scene =
        Scene::new(Issuer { usable_for: 0, ..issuer(KeySource::File("a.json".into())) });
    assert_eq!(scene.answer(Ok(ONE)).await, Refetched::LookAgain, "the first read");
    assert_eq!(scene.current(), set(ONE));
    let mut read = scene.reads.recv().await.expect("a read");
    for (reply, keys) in [(DOWN, ONE), (Ok("{"), ONE), (Ok(TWO), TWO)] {
        assert_eq!(scene.refetched(far()).await, Refetched::Unchanged, "no call waits for a file");
        read.send(reply).expect("it waits");
        // The next read begins after the reply was used.
        read = scene.reads.recv().await.expect("a read");
        assert_eq!(scene.current(), set(keys), "{reply:?}");
    }
    let scene = Scene::new(issuer(KeySource::File("a.json".into())));
    assert_eq!(scene.current(), KeysNow::Unusable);
}

#[tokio::test]
async fn changed_entry_begins_without_keys_and_drops_the_fetch_under_way() {
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    let other_url = issuer(KeySource::Url("https://id.example.org/other.json".into()));
    for changed in [Issuer { clock_skew: 1, ..(*scene.issuer).clone() }, other_url] {
        let changed = Arc::new(changed);
        assert_eq!(scene.keys.current(&changed), KeysNow::Unusable, "before it is published");
        let asked = scene.refetched(far());
        let publish = async { scene.publish(&changed) };
        let (refetched, ()) = tokio::join!(biased; asked, publish);
        assert_eq!(refetched, Refetched::Outdated, "its fetch was dropped");
        assert_eq!(scene.current(), KeysNow::Unusable, "the old entry has no keys");
        let old = std::mem::replace(&mut scene.issuer, changed);
        assert_eq!(scene.current(), KeysNow::Unusable, "neither has the new one");
        // The first of the two is the read of the old entry, if it had begun.
        let mut read = scene.reads.recv().await.expect("a read");
        while read.is_closed() {
            read = scene.reads.recv().await.expect("a read");
        }
        let answered = scene.refetched(far());
        let answer = async { read.send(Ok(TWO)).expect("it waits") };
        assert_eq!(tokio::join!(biased; answered, answer).0, Refetched::LookAgain);
        assert_eq!((scene.current(), scene.keys.current(&old)), (set(TWO), KeysNow::Unusable));
    }
    assert_eq!(scene.keys.status()[0].fetched, 3, "the counts stay");
}

#[tokio::test]
async fn same_entry_of_another_catalog_keeps_its_keys() {
    let mut scene = Scene::fetched(by_url()).await;
    let same = Arc::new((*scene.issuer).clone());
    assert_eq!(scene.keys.current(&same), set(ONE), "before it is published");
    scene.publish(&same);
    assert_eq!((scene.current(), scene.keys.current(&same)), (set(ONE), set(ONE)));
    assert!(scene.reads.is_empty(), "it is not read again");
    scene.keys.reconcile(scene.revision.get().next(), [], &scene.reader, &scene.supervisor);
    assert_eq!(scene.current(), KeysNow::Unusable, "the issuer was removed");
    assert!(scene.reads.try_recv().is_err());
}

#[tokio::test]
async fn call_waits_for_an_entry_that_is_being_published() {
    let scene = Scene::fetched(by_url()).await;
    let Scene { keys, reader, mut reads, waiters, supervisor, revision, .. } = scene;
    let revision = revision.get().next();
    let new = Arc::new(Issuer { name: "https://new.example.org/".into(), ..by_url() });
    let asked = keys.refetched(&new, revision, &waiters, far());
    let publish = async {
        keys.reconcile(revision, [&new], &reader, &supervisor);
        reads.recv().await.expect("a read").send(Ok(TWO)).expect("it waits");
    };
    assert_eq!(tokio::join!(biased; asked, publish).0, Refetched::LookAgain);
    assert_eq!(keys.current(&new), set(TWO));
    let unknown = Arc::new(Issuer { name: "https://unknown.example.org/".into(), ..by_url() });
    let refetched = keys.refetched(&unknown, revision.next(), &waiters, Instant::now()).await;
    assert_eq!(refetched, Refetched::Unverifiable);
}

#[tokio::test]
async fn call_of_an_older_catalog_does_not_wait_for_an_entry_that_has_gone() {
    let scene = Scene::fetched(by_url()).await;
    let older = scene.revision.get();
    let refetched =
        async |catalog| scene.keys.refetched(&scene.issuer, catalog, &scene.waiters, far()).await;
    scene.publish(&Arc::new((*scene.issuer).clone()));
    assert_eq!(refetched(older).await, Refetched::Unchanged, "the entry is the same");
    scene.publish(&Arc::new(Issuer { clock_skew: 1, ..by_url() }));
    assert_eq!(refetched(older).await, Refetched::Outdated, "it was changed");
    let newest = scene.revision.get().next();
    scene.keys.reconcile(newest, [], &scene.reader, &scene.supervisor);
    assert_eq!(refetched(older).await, Refetched::Outdated, "it was removed");
}

#[tokio::test]
async fn document_of_the_keys_in_use_is_not_parsed_again() {
    let mut scene = Scene::fetched(Issuer { refetch_after: 0, ..by_url() }).await;
    let current = |scene: &Scene| match scene.current() {
        KeysNow::Usable(keys) => keys,
        KeysNow::Unusable => panic!("usable"),
    };
    let first = current(&scene);
    for (reply, is_same) in [(Ok(ONE), true), (Ok("{"), true), (Ok(ONE), true), (Ok(TWO), false)] {
        scene.answer(reply).await;
        assert_eq!(Arc::ptr_eq(&first, &current(&scene)), is_same, "{reply:?}");
    }
    assert_eq!(scene.keys.status()[0].fetched, 4, "each is a fetch");
}
