//! Replaying the log gives the stored facts (D18): the records, in order, from an empty store,
//! say all that is kept and leave nothing else.
pub mod reference;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use crate::harness;
use crate::harness::{Client, Server, owned};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::subsequence;
use reference::{Kept, ReferenceReplay, State, kept};
use scopegate::policy::catalog::endpoint::RequestPath;
use scopegate::policy::catalog::{AudienceError, Catalog};
use scopegate::policy::ceiling::RemovedEntry;
use scopegate::policy::change::{Author, Change, ChangeKind, FieldChange};
use scopegate::policy::company::Company;
use scopegate::policy::consent::{Consent, Parties};
use scopegate::policy::credential::{Credential, GrantContext};
use scopegate::policy::decision::{Facts, Verdict, decide};
use scopegate::policy::edit::{Edit, Stamped};
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::query::{Query, Requirement, Subject};
use scopegate::policy::replay::{Replay, requirement_changed};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::{Scope, ScopeId};
use scopegate::policy::token::Token;
use scopegate::policy::user::User;
use scopegate::proto;
use tonic::{Code, Status};

/// Catalogs that add, take and put back scopes, rename them there and back, and change what they
/// imply. Some renames are a merge after some catalogs: those are refused.
const CATALOGS: [&str; 8] = [
    "{ name: one, scopes: { a: { implies: [b] }, b: { implies: [c] }, c: , d: }, roles: { r: { scopes: { a: all, d: own } } }, endpoints: [{ method: GET, path: /x, scopes: [a] }] }",
    "{ name: two, scopes: { a: { implies: [c] }, c: , d: { implies: [c] }, e: }, roles: { r: { scopes: { e: all } } }, endpoints: [{ method: GET, path: /x, scopes: [c], any_of: [a, d] }] }",
    "{ name: two, scopes: { b: { implies: [e] }, c: , d: , e: }, roles: { r: { scopes: { b: all } } } }",
    "{ scopes: { a: , b: , c: , d: , e: }, roles: { r: { scopes: { a: all, b: all, c: all, d: all, e: all } } }, endpoints: [{ method: GET, path: /x, scopes: none }] }",
    "{ scopes: { a: , b: , c: , d: , e: }, roles: { r: { scopes: { a: all, b: all } } }, endpoints: [{ method: GET, path: /x, any_of: [d, e] }] }",
    "{ name: one, scopes: { f: { implies: [b], renamed_from: a }, b: { implies: [c] }, c: , d: }, roles: { r: { scopes: { f: all, d: own } } }, endpoints: [{ method: GET, path: /x, scopes: [f] }] }",
    "{ name: one, scopes: { a: { implies: [b], renamed_from: f }, b: { implies: [c] }, c: , e: { renamed_from: d } }, roles: { r: { scopes: { a: all, e: own } } }, endpoints: [{ method: GET, path: /x, scopes: [a] }] }",
    "{ name: two, scopes: { a: { renamed_from: f }, b: , d: { renamed_from: c, implies: [b] }, e: }, roles: { r: { scopes: { d: all } } }, endpoints: [{ method: GET, path: /x, scopes: [d] }] }",
];
const SCOPES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One step. Scopes that the catalog lacks are left out of it.
#[derive(Clone, Debug)]
enum Act {
    Catalog(usize),
    CreateCompany(Option<Vec<&'static str>>, &'static str),
    UpdateCompany(Option<&'static str>, Option<bool>),
    Add(Vec<&'static str>),
    Restrict(Vec<&'static str>),
    /// Undoes the restriction of this place among those that there were.
    Restore(usize),
    DeleteCompany,
    CreateCredential(Vec<&'static str>, Option<i64>),
    UpdateCredential(Option<&'static str>, Option<bool>, Option<Option<i64>>),
    Grant(Vec<&'static str>, Option<i64>),
    Revoke(Vec<&'static str>),
    Replace(Vec<&'static str>),
    Reset,
    DeleteCredential,
    PutUser(bool),
    DeleteUser,
    PutConsent(Vec<&'static str>),
    DeleteConsent,
    Wait(i64),
}

fn act() -> impl Strategy<Value = Act> {
    let some = || subsequence(&SCOPES[..], 1..=2);
    let end = || prop::option::of(0..60_i64);
    let text = || prop::sample::select(&["", "x", "y \"z\""][..]);
    prop_oneof![
        2 => (0..CATALOGS.len()).prop_map(Act::Catalog),
        1 => (prop::option::of(some()), text()).prop_map(|(s, t)| Act::CreateCompany(s, t)),
        1 => (prop::option::of(text()), any::<Option<bool>>())
            .prop_map(|(t, on)| Act::UpdateCompany(t, on)),
        2 => some().prop_map(Act::Add),
        2 => some().prop_map(Act::Restrict),
        2 => (0..4_usize).prop_map(Act::Restore),
        1 => Just(Act::DeleteCompany),
        1 => (some(), end()).prop_map(|(s, end)| Act::CreateCredential(s, end)),
        1 => (prop::option::of(text()), any::<Option<bool>>(), prop::option::of(end()))
            .prop_map(|(t, on, end)| Act::UpdateCredential(t, on, end)),
        4 => (some(), end()).prop_map(|(s, end)| Act::Grant(s, end)),
        1 => some().prop_map(Act::Revoke),
        2 => some().prop_map(Act::Replace),
        1 => Just(Act::Reset),
        1 => Just(Act::DeleteCredential),
        1 => any::<bool>().prop_map(Act::PutUser),
        1 => Just(Act::DeleteUser),
        2 => subsequence(&SCOPES[..], 0..=2).prop_map(Act::PutConsent),
        1 => Just(Act::DeleteConsent),
        1 => (1..20_i64).prop_map(Act::Wait),
    ]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn company_id() -> CompanyId {
    CompanyId::parse("acme").expect("an id")
}

fn credential_id() -> CredentialId {
    CredentialId::parse("hr").expect("an id")
}

fn user_id() -> UserId {
    UserId::parse("ada").expect("an id")
}

/// One company, its credential, its user and their consent, each there or not, and the log.
struct Book {
    catalog: Catalog,
    company: Option<Company>,
    credential: Option<Credential>,
    user: Option<User>,
    consent: Option<Consent>,
    restrictions: Vec<(Vec<RemovedEntry>, Revision)>,
    now: Timestamp,
    log: Vec<Change>,
}

impl Book {
    fn new() -> Self {
        Self {
            catalog: Catalog::empty(),
            company: None,
            credential: None,
            user: None,
            consent: None,
            restrictions: vec![],
            now: at(0),
            log: vec![],
        }
    }

    fn write(&mut self, kind: ChangeKind, edit: Edit<()>) -> Revision {
        let revision = Revision(self.log.len() as u64 + 1);
        self.log.push(Change {
            revision,
            time: self.now,
            author: Author::default(),
            kind,
            company: Some(company_id()),
            credential: Some(credential_id()),
            user: Some(user_id()),
            added: self.catalog.names(&edit.added),
            removed: self.catalog.names(&edit.removed),
            displaced: edit.displaced,
            fields: edit.fields,
        });
        revision
    }

    /// What is kept of a fact after an edit, which is written down if it changes anything.
    fn keep<T: Stamped + Clone>(
        &mut self,
        kind: ChangeKind,
        before: Option<&T>,
        edit: Edit<T>,
    ) -> Option<T> {
        if before.is_some() && edit.is_none() {
            return before.cloned();
        }
        let Edit { mut after, added, removed, displaced, fields } = edit;
        let revision = self.write(kind, Edit { after: (), added, removed, displaced, fields });
        after.stamp(revision, self.now);
        Some(after)
    }

    fn drop_with<T>(&mut self, kind: ChangeKind, edit: Edit<T>) {
        let Edit { added, removed, displaced, fields, .. } = edit;
        self.write(kind, Edit { after: (), added, removed, displaced, fields });
    }

    fn ids(&self, names: &[&str]) -> Vec<ScopeId> {
        names.iter().filter_map(|name| self.catalog.id(&scope(name))).collect()
    }

    fn act(&mut self, act: &Act) {
        use ChangeKind as Kind;
        let (catalog, company, now) = (self.catalog.clone(), self.company.clone(), self.now);
        match act {
            Act::Wait(seconds) => self.now = at(now.as_second() + seconds),
            Act::Catalog(n) => return self.apply(CATALOGS[*n]),
            Act::CreateCompany(scopes, name) if company.is_none() => {
                let scopes = scopes.as_ref().map(|names| self.ids(names));
                let id = company_id();
                let mut edit =
                    Company::create(id, (*name).to_owned(), &catalog, scopes.as_deref(), now);
                edit.fields.extend(FieldChange::new_text("display_name", name));
                self.company = self.keep(Kind::CreateCompany, None, edit);
            }
            _ => {}
        }
        let Some(company) = company else { return };
        let ground = GrantContext { catalog: &catalog, company: &company, now };
        let credential = self.credential.clone();
        match act {
            Act::UpdateCompany(name, enabled) => {
                let edit = company.update(name.map(str::to_owned), *enabled);
                self.company = self.keep(Kind::UpdateCompany, Some(&company), edit);
            }
            Act::Add(names) => {
                let edit = company.add_scopes(&catalog, &self.ids(names));
                self.company = self.keep(Kind::AddCompanyScopes, Some(&company), edit);
            }
            Act::Restrict(names) => {
                let edit = company.restrict(&catalog, &self.ids(names));
                let taken = edit.displaced.clone();
                self.company = self.keep(Kind::RestrictCompanyScopes, Some(&company), edit);
                if !taken.is_empty() {
                    self.restrictions.push((taken, Revision(self.log.len() as u64)));
                }
            }
            Act::Restore(n) => {
                let Some((taken, at)) = self.restrictions.iter().rev().nth(*n).cloned() else {
                    return;
                };
                let back = |place: &RemovedEntry| {
                    company.ceiling.contains(place.scope) && catalog.name(place.scope).is_some()
                };
                let taken: Vec<_> = taken.into_iter().filter(back).collect();
                let mut edit = company.restore(&taken, at);
                if !edit.added.is_empty() {
                    let field = "restricted_at_revision";
                    edit.fields.extend(FieldChange::new_text(field, &at.to_string()));
                }
                self.company = self.keep(Kind::RestoreGrants, Some(&company), edit);
            }
            Act::DeleteCompany => {
                self.drop_with(Kind::DeleteCompany, company.delete(&catalog));
                (self.company, self.credential, self.user, self.consent) = (None, None, None, None);
                self.restrictions.clear();
            }
            Act::CreateCredential(names, end) if credential.is_none() => {
                let (scopes, end) = (self.ids(names), end.map(at));
                let label = "for the \"HR\" team";
                let made =
                    Credential::create(credential_id(), label.to_owned(), end, &scopes, ground);
                let Ok(mut edit) = made else { return };
                edit.fields.extend(FieldChange::new_text("label", label));
                edit.fields.extend(FieldChange::time("expires_at", None, end));
                self.credential = self.keep(Kind::CreateCredential, None, edit);
            }
            Act::PutUser(role) => {
                let roles: Vec<_> =
                    role.then(|| Name::parse("r").expect("a name")).into_iter().collect();
                let before = self.user.clone();
                let edit = User::put(before.as_ref(), &user_id(), company.created_at, &roles);
                self.user = self.keep(Kind::PutUser, before.as_ref(), edit);
            }
            Act::DeleteUser => {
                let Some(user) = self.user.take() else { return };
                let roles = FieldChange::list("roles", Some(&user.roles), &[]);
                let edit = Edit { fields: roles.into_iter().collect(), ..Edit::none(&user) };
                self.drop_with(Kind::DeleteUser, edit);
                self.consent = None;
            }
            _ => {}
        }
        let Some(credential) = credential else { return };
        let (kind, edit) = match act {
            Act::UpdateCredential(label, enabled, end) => {
                let end = end.map(|end| end.map(at));
                let edit = credential.update(label.map(str::to_owned), *enabled, end, None);
                (Kind::UpdateCredential, Ok(edit))
            }
            Act::Grant(names, end) => {
                (Kind::GrantScopes, credential.grant(&self.ids(names), end.map(at), ground))
            }
            Act::Revoke(names) => {
                (Kind::RevokeScopes, Ok(credential.revoke(&self.ids(names), ground)))
            }
            Act::Replace(names) => {
                (Kind::ReplaceScopes, credential.replace(&self.ids(names), ground))
            }
            Act::Reset => (Kind::ResetScopes, Ok(credential.reset(ground))),
            Act::DeleteCredential => {
                self.drop_with(Kind::DeleteCredential, credential.delete(&catalog));
                (self.credential, self.consent) = (None, None);
                return;
            }
            Act::PutConsent(names) => {
                let Some(user) = self.user.clone() else { return };
                let of = Parties {
                    company: company.created_at,
                    user: user.created_at,
                    credential: credential.created_at,
                };
                let before = self.consent.clone();
                let edit = Consent::put(before.as_ref(), of, &catalog, &user, &self.ids(names));
                self.consent = self.keep(Kind::PutConsent, before.as_ref(), edit);
                return;
            }
            Act::DeleteConsent => {
                let Some(consent) = self.consent.take() else { return };
                let removed = consent.scopes.iter().map(|(scope, ())| scope).collect();
                let edit = Edit { removed, ..Edit::none(&consent) };
                return self.drop_with(Kind::DeleteConsent, edit);
            }
            _ => return,
        };
        // What reaches above the ceiling is refused, and leaves no record.
        if let Ok(edit) = edit {
            self.credential = self.keep(kind, Some(&credential), edit);
        }
    }

    fn apply(&mut self, yaml: &str) {
        let Ok(mut next) = self.catalog.replaced_by(yaml) else {
            assert!(yaml.contains("renamed_from"), "only a merge is refused: {yaml}");
            return;
        };
        if next.yaml == self.catalog.yaml {
            return;
        }
        let difference = next.difference(&self.catalog);
        let name = FieldChange::text("name", self.catalog.platform(), next.platform());
        let scopes = difference.changed_scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let renamed: Vec<_> = difference.renamed.iter().map(ToString::to_string).collect();
        let marks = [
            ("renamed_scopes", renamed),
            ("scopes", scopes),
            ("roles", difference.changed_roles.clone()),
            ("endpoints", difference.changed_endpoints.clone()),
        ];
        let marks = marks
            .into_iter()
            .filter_map(|(field, changed)| FieldChange::new_text(field, &changed.join(", ")));
        let fields = name.into_iter().chain(marks).collect();
        let nothing = Edit { fields, ..Edit::to(()) };
        next.revision = self.write(ChangeKind::ApplyCatalog, nothing);
        let written = self.log.last_mut().expect("written");
        (written.added, written.removed) = (difference.added, difference.removed_names);
        self.catalog = next;
    }

    /// What is decided now, of every query.
    fn decide(&self) -> Vec<Result<Verdict, AudienceError>> {
        let facts = |query: &Query| Facts {
            ambiguous_subject: false,
            tokens: Default::default(),
            catalog: &self.catalog,
            company: self.company.as_ref(),
            credential: self.credential.as_ref(),
            user: self.user.as_ref().filter(|_| query.on_behalf_of().is_some()),
            consent: self.consent.as_ref(),
            now: self.now,
        };
        queries().iter().map(|query| decide(query, facts(query))).collect()
    }

    fn state(&self) -> State {
        let kept = Kept(&self.catalog);
        let mut state = kept.state();
        let Some(company) = &self.company else { return state };
        let mut view = kept.company(company);
        let credential = self.credential.iter();
        view.credentials = credential.map(|c| (c.id.to_string(), kept.credential(c))).collect();
        view.users = self.user.iter().map(|u| (u.id.to_string(), kept.user(u))).collect();
        let of = || (user_id().to_string(), credential_id().to_string());
        view.consents = self.consent.iter().map(|c| (of(), kept.consent(c))).collect();
        state.companies.insert(company_id().to_string(), view);
        state
    }
}

/// Checks by scope and by endpoint, with and without a user and a token that ends.
fn queries() -> Vec<Query> {
    let needs = SCOPES.iter().map(|name| Requirement::Scopes(vec![scope(name)]));
    let path = RequestPath::parse("/x").expect("a path");
    let needs = needs.chain([Requirement::Endpoint { method: "GET".into(), path }]);
    let token = |user| Token {
        scopes: vec![scope("a"), scope("d")],
        expires_at: Some(at(30)),
        user,
        ..Token::default()
    };
    let parties = [
        (None, None),
        (Some(user_id()), None),
        (None, Some(token(None))),
        (None, Some(token(Some(user_id())))),
    ];
    let query = |needs: Requirement, (user, token): &(Option<UserId>, Option<Token>)| Query {
        subject: Subject::Known { company: company_id(), credential: credential_id() },
        needs,
        audience: None,
        token: token.clone().map(Into::into),
        user: user.clone(),
        owner: None,
        denies_own: false,
    };
    needs.flat_map(|needs| parties.iter().map(move |p| query(needs.clone(), p))).collect()
}

fn scope(name: &str) -> Scope {
    Scope::parse(name).expect("a scope")
}

fn cases() -> u32 {
    std::env::var("SCOPEGATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// Of any step, once all are made: the log up to there, and the catalog of then, decide as was
/// decided then; and so does the catalog of today, where it asks nothing else since.
fn is_decided_as_then(acts: &[Act]) {
    let mut book = Book::new();
    let first = [Act::Catalog(0), Act::CreateCompany(None, "Acme"), Act::PutUser(true)];
    let mut decided = vec![];
    for act in first.iter().chain([&Act::CreateCredential(vec!["a"], None)]).chain(acts) {
        book.act(act);
        decided.push((book.log.len(), book.now, book.catalog.yaml.clone(), book.decide()));
    }
    let (today, mut read) = (&book.catalog.yaml, 0);
    let queries = queries();
    let mut pasts: Vec<_> = queries.iter().map(|query| Replay::of(query, true)).collect();
    for (step, (up_to, now, yaml, then)) in decided.iter().enumerate() {
        for change in &book.log[read..*up_to] {
            pasts.iter_mut().for_each(|past| past.take(change).expect("readable"));
        }
        read = *up_to;
        // Numbers are the same for all queries.
        let of_then = pasts[0].catalog(yaml).expect("a catalog");
        let of_today = pasts[0].catalog(today).expect("a catalog");
        for ((query, past), verdict) in queries.iter().zip(&pasts).zip(then) {
            assert_eq!(&decide(query, past.facts(&of_then, *now)), verdict, "{}", step);
            if !book.log[read..].iter().any(|change| requirement_changed(query, change)) {
                let by_today = decide(query, past.facts(&of_today, *now));
                assert_eq!(&by_today, verdict, "{} by today's", step);
            }
        }
        // Between two changes it is decided otherwise only at a turn.
        let Some((_, later, _, next)) = decided.get(step + 1).filter(|n| n.0 == read) else {
            continue;
        };
        for ((past, verdict), next) in pasts.iter().zip(then).zip(next) {
            let turned = past.turns(&of_then).iter().any(|turn| now < turn && turn <= later);
            assert!(turned || next == verdict, "{}", step);
        }
    }
}

/// What the random histories rarely have.
#[test]
fn reactivated_grants_keep_their_end() {
    let restrict = || Act::Restrict(vec!["d"]);
    let add = || Act::Add(vec!["d"]);
    let grant = |end| Act::Grant(vec!["d"], end);
    for acts in [
        vec![grant(None), restrict(), add(), Act::Restore(0), Act::Wait(1)],
        vec![grant(Some(20)), restrict(), add(), Act::Restore(0), restrict(), add()],
        vec![grant(None), restrict(), add(), Act::Restore(0), restrict(), add(), Act::Restore(0)],
        vec![grant(Some(20)), restrict(), add(), grant(Some(20)), Act::Wait(19), Act::Wait(1)],
        vec![grant(Some(5)), Act::Wait(10), grant(Some(30)), Act::Wait(15), Act::Wait(15)],
        vec![grant(None), Act::Catalog(2), Act::Catalog(3), Act::Catalog(4), Act::Catalog(3)],
        vec![
            grant(None),
            Act::UpdateCompany(None, Some(false)),
            Act::UpdateCompany(None, Some(true)),
        ],
        vec![Act::DeleteUser, Act::PutUser(true), Act::PutUser(false), Act::Catalog(3)],
        vec![grant(None), Act::DeleteCompany, Act::CreateCompany(None, ""), Act::PutUser(true)],
    ] {
        is_decided_as_then(&acts);
    }
}

proptest! {
    // Each case is some thousand decisions.
    #![proptest_config(ProptestConfig { cases: cases() / 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_up_to_a_revision_decides_as_was_decided_then(
        acts in prop::collection::vec(act(), 1..30),
    ) {
        is_decided_as_then(&acts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// After every step of any sequence.
    #[test]
    fn replaying_the_log_gives_the_facts(acts in prop::collection::vec(act(), 1..40)) {
        let (mut book, mut replay, mut read) = (Book::new(), ReferenceReplay::default(), 0);
        let first = [Act::Catalog(0), Act::CreateCompany(None, "Acme"), Act::PutUser(true)];
        for act in first.iter().chain([&Act::CreateCredential(vec!["a"], None)]).chain(&acts) {
            book.act(act);
            book.log[read..].iter().for_each(|change| replay.take(change));
            read = book.log.len();
            prop_assert_eq!(&replay.state, &book.state(), "after {:?}", act);
        }
    }
}

/// A change as a client reads it off the wire. What only the engine needs is not on it.
fn change(change: proto::Change) -> Change {
    let time = change.time.expect("a time");
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let scopes = |names: Vec<String>| names.iter().map(|name| scope(name)).collect();
    Change {
        revision: Revision(change.revision),
        time: Timestamp::new(time.seconds, time.nanos).expect("a time"),
        author: Author {
            actor: change.actor,
            on_behalf_of: change.on_behalf_of,
            reason: change.reason,
        },
        kind: ChangeKind::of(&change.kind).expect("an RPC's name"),
        company: some(&change.company_id).map(|id| CompanyId::parse(id).expect("an id")),
        credential: some(&change.credential_id).map(|id| CredentialId::parse(id).expect("an id")),
        user: some(&change.user_id).map(|id| UserId::parse(id).expect("an id")),
        added: scopes(change.added_scopes),
        removed: scopes(change.removed_scopes),
        displaced: vec![],
        fields: change
            .fields
            .into_iter()
            .map(|f| FieldChange { field: f.field, before: f.before, after: f.after })
            .collect(),
    }
}

/// All that the service tells of its log.
async fn told(client: &Client) -> Vec<Change> {
    let mut all = vec![];
    let mut page_token = String::new();
    loop {
        let request = proto::ListChangesRequest { page_size: 97, page_token, ..Default::default() };
        let page = client.changes.clone().list_changes(request).await.expect("a page");
        let page = page.into_inner();
        all.extend(page.changes.into_iter().map(change));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

struct Rng(u64);

impl Rng {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())]
    }

    fn some(&mut self) -> Vec<String> {
        let count = 1 + self.roll(2);
        (0..count).map(|_| self.one(&SCOPES).to_owned()).collect()
    }

    /// An end in the past, in the future, or none; not of whole seconds.
    fn end(&mut self) -> Option<prost_types::Timestamp> {
        let seconds = self.one(&[None, Some(1), Some(4_102_444_800), Some(4_102_444_801)])?;
        Some(prost_types::Timestamp { seconds, nanos: self.one(&[0, 1, 999_999_999]) })
    }
}

/// A refusal is an answer like any other; a failure is not.
fn said<T>(answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(said) => Some(said),
        Err(status) => {
            let fine = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::AlreadyExists,
                Code::Aborted,
                Code::FailedPrecondition,
            ];
            assert!(fine.contains(&status.code()), "{status}");
            None
        }
    }
}

/// The kinds of step, of which a client takes each in turn.
const STEPS: usize = 18;

/// One step of a client, on whoever is there.
async fn step(client: &Client, rng: &mut Rng, kind: usize) {
    use proto::*;
    let company_id = rng.one(&["acme", "Acme"]).to_owned();
    let credential_id = rng.one(&["hr", "bi"]).to_owned();
    let user_id = rng.one(&["ada", "bob"]).to_owned();
    let (scopes, display_name) = (rng.some(), rng.one(&["", "x", "y \"z\" \\ é"]).to_owned());
    let mask = |paths: &[&str]| Some(prost_types::FieldMask { paths: owned(paths) });
    let mut directory = client.directory.clone();
    let mut authorization = client.authorization.clone();
    macro_rules! of_credential {
        ($request:ident { $($field:ident: $value:expr),* }) => {
            $request {
                company_id: company_id.clone(),
                credential_id: credential_id.clone(),
                $($field: $value,)*
                ..Default::default()
            }
        };
    }
    // Whatever a step is about is there, unless another client takes it away meanwhile.
    let named = (rng.roll(2) == 0).then(|| Scopes { names: scopes.clone() });
    let create = CreateCompanyRequest {
        company_id: company_id.clone(),
        display_name: display_name.clone(),
        scopes: named,
        ..Default::default()
    };
    said(directory.create_company(create).await);
    let label = display_name.clone();
    let create = of_credential!(CreateCredentialRequest { label: label, expires_at: rng.end() });
    said(directory.create_credential(create).await);
    let roles = owned(rng.one(&[&[][..], &["r"], &["r", "nobody's"]]));
    let put = |roles| PutUserRequest {
        company_id: company_id.clone(),
        user_id: user_id.clone(),
        roles,
        ..Default::default()
    };
    match kind {
        0 => {
            let yaml = rng.one(&CATALOGS).to_owned();
            let apply = ApplyCatalogRequest { yaml, ..Default::default() };
            said(client.catalog.clone().apply_catalog(apply).await);
        }
        1 => {
            let enabled = rng.roll(2) == 0;
            let update_mask = mask(rng.one(&[&["display_name"][..], &["enabled"], &[]]));
            let update = UpdateCompanyRequest {
                company_id,
                display_name,
                enabled,
                update_mask,
                ..Default::default()
            };
            said(directory.update_company(update).await);
        }
        2 => {
            let add = AddCompanyScopesRequest { company_id, scopes, ..Default::default() };
            said(authorization.add_company_scopes(add).await);
        }
        3 | 4 => {
            let ids = company_id.clone();
            let add = AddCompanyScopesRequest {
                company_id: ids,
                scopes: scopes.clone(),
                ..Default::default()
            };
            said(authorization.add_company_scopes(add.clone()).await);
            if kind == 4 {
                // Somebody to wake.
                let grant = of_credential!(GrantScopesRequest { scopes: scopes.clone() });
                said(authorization.grant_scopes(grant).await);
            }
            let restrict = RestrictCompanyScopesRequest {
                company_id: company_id.clone(),
                scopes: scopes.clone(),
                acknowledge_impact: true,
                ..Default::default()
            };
            let Some(done) = said(authorization.restrict_company_scopes(restrict).await) else {
                return;
            };
            if kind == 4 {
                let restore = RestoreGrantsRequest {
                    company_id,
                    scopes,
                    restricted_at_revision: done.into_inner().revision,
                    ..Default::default()
                };
                said(authorization.add_company_scopes(add).await);
                said(authorization.restore_grants(restore).await);
            }
        }
        5 => {
            let delete = DeleteCompanyRequest { company_id, ..Default::default() };
            said(directory.delete_company(delete).await);
        }
        6 => {
            let paths = rng.one(&[&["label", "expires_at"][..], &["enabled"], &["expires_at"]]);
            let update = of_credential!(UpdateCredentialRequest {
                label: display_name,
                enabled: rng.roll(2) == 0,
                expires_at: rng.end(),
                update_mask: mask(paths)
            });
            said(directory.update_credential(update).await);
        }
        7..=10 => {
            let end = rng.end();
            let grant = of_credential!(GrantScopesRequest { scopes: scopes, expires_at: end });
            said(authorization.grant_scopes(grant).await);
        }
        11 => {
            let revoke = of_credential!(RevokeScopesRequest { scopes: scopes });
            said(authorization.revoke_scopes(revoke).await);
        }
        12 => {
            let replace = of_credential!(ReplaceScopesRequest { scopes: scopes });
            said(authorization.replace_scopes(replace).await);
        }
        13 => {
            let reset = of_credential!(ResetScopesRequest {});
            said(authorization.reset_scopes(reset).await);
        }
        14 => {
            said(directory.create_secret(of_credential!(CreateSecretRequest {})).await);
            let made = said(directory.create_secret(of_credential!(CreateSecretRequest {})).await);
            if let Some(made) = made.filter(|_| rng.roll(2) == 0) {
                let secret_id = made.into_inner().secret_id;
                let delete = of_credential!(DeleteSecretRequest { secret_id: secret_id });
                said(directory.delete_secret(delete).await);
            }
        }
        15 => {
            said(directory.delete_credential(of_credential!(DeleteCredentialRequest {})).await);
        }
        _ => {
            said(directory.put_user(put(roles)).await);
            let scopes = if rng.roll(4) == 0 { vec![] } else { scopes };
            let user = user_id.clone();
            let consent = of_credential!(PutConsentRequest { user_id: user, scopes: scopes });
            said(directory.put_consent(consent).await);
            let user = user_id.clone();
            match (kind, rng.roll(3)) {
                (16, 0) => {
                    let delete = of_credential!(DeleteConsentRequest { user_id: user });
                    said(directory.delete_consent(delete).await);
                }
                (17, 0) => {
                    let delete = DeleteUserRequest { company_id, user_id, ..Default::default() };
                    said(directory.delete_user(delete).await);
                }
                _ => {}
            }
        }
    }
}

/// What the log gives of every check is what the server says of it.
async fn decides_as_the_server(client: &Client, told: &[Change]) {
    let request = proto::GetCatalogRequest {};
    let yaml = client.catalog.clone().get_catalog(request).await.expect("read").into_inner().yaml;
    let users = [None, Some("ada"), Some("bob")];
    let parties = ["acme", "Acme"].iter().flat_map(|company| {
        let of = move |credential| users.map(|user| (*company, credential, user));
        ["hr", "bi"].into_iter().flat_map(of)
    });
    for (company, credential, user) in parties {
        let query = Query {
            subject: Subject::Known {
                company: CompanyId::parse(company).expect("an id"),
                credential: CredentialId::parse(credential).expect("an id"),
            },
            needs: Requirement::Scopes(SCOPES.iter().map(|name| scope(name)).collect()),
            audience: None,
            token: None,
            user: user.map(|id| UserId::parse(id).expect("an id")),
            owner: None,
            denies_own: false,
        };
        let mut past = Replay::of(&query, true);
        told.iter().for_each(|change| past.take(change).expect("readable"));
        let catalog = past.catalog(&yaml).expect("a catalog");
        let verdict = decide(&query, past.facts(&catalog, Timestamp::now())).expect("decided");
        let request = proto::CheckRequest {
            user_id: user.unwrap_or_default().to_owned(),
            ..harness::scopes_of(company, credential, &SCOPES)
        };
        let said = client.ask(request).await.expect("an answer");
        match verdict {
            Verdict::Allowed { .. } => assert_eq!(said.reason(), proto::Reason::Allowed),
            Verdict::Denied { reason, missing, .. } => {
                let word = said.reason().as_str_name().replace("REASON_", "").replace('_', "");
                assert_eq!(word, format!("{reason:?}").to_uppercase(), "{query:?}");
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                assert_eq!(said.missing_scopes, missing, "{query:?}");
            }
        }
    }
}

/// Several clients at once, on the same few resources, over the real wire: what the service tells
/// of its log, and what its store keeps of it, both give the facts that the store keeps.
#[tokio::test]
async fn replaying_the_log_of_a_served_store_gives_what_it_keeps() {
    const CLIENTS: u64 = 4;
    const ROUNDS: usize = 8;
    let seed = std::env::var("SCOPEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 8);
    println!("SCOPEGATE_SEED={seed} rolls the same rng; the clients still race");
    let dir = tempfile::tempdir().expect("a directory");
    let (file, data) = (dir.path().join("catalog.yaml"), dir.path().join("data"));
    std::fs::write(&file, CATALOGS[0]).expect("written");
    let arg = ["--catalog", file.to_str().expect("a path"), "--cache-entries", "4"];
    let server = Server::start(&data, &arg);
    let clients = (0..CLIENTS).map(|n| {
        let url = server.url();
        tokio::spawn(async move {
            let client = Client::connect(&url).await;
            let mut rng = Rng((seed ^ (n << 60)) | 1);
            for kind in (0..ROUNDS).flat_map(|_| 0..STEPS) {
                step(&client, &mut rng, kind).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no failure");
    }
    let client = server.client().await;
    let told = told(&client).await;
    decides_as_the_server(&client, &told).await;
    drop(client);
    server.kill();
    let (state, log) = kept(&data);
    assert_eq!(ReferenceReplay::of(&told), state, "what clients read");
    let without_places = |change| Change { displaced: vec![], ..change };
    assert_eq!(log.into_iter().map(without_places).collect::<Vec<_>>(), told, "one log");
    let kinds: BTreeSet<_> = told.iter().map(|change| change.kind.name()).collect();
    assert_eq!(kinds.len(), 20, "every kind of change was there: {kinds:?}");
}
