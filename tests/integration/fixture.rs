//! Fixture: a long life of a store that anybody can foretell. Revision `n` makes one change, which
//! follows from `n` and from those before it, so what a store must hold at a revision is known
//! without having been noted anywhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use scopegate::policy::catalog::Catalog;
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::company::Company;
use scopegate::policy::credential::{Credential, Grant};
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::ScopeId;
use scopegate::store::engine::{Engine, SledEngine};
use scopegate::store::{
    CommitObserver, Fact, FactKey, FactWrite, OpenError, Outcome, Proposal, Store, StoreError,
};

/// How many companies there can be at once, and credentials of each.
const COMPANIES: u64 = 12;
const CREDENTIALS: u64 = 40;
const SCOPES: u32 = 3;

/// Rng that always fall the same way.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
}

/// A name of some length, known by who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    by: u64,
    length: usize,
}

impl Label {
    fn text(self) -> String {
        let word = format!("{} ", self.by);
        word.repeat(self.length.div_ceil(word.len()))
    }
}

#[derive(Clone, Debug)]
struct Held {
    born: u64,
    label: Label,
    scopes: u64,
}

#[derive(Clone, Debug)]
struct House {
    born: u64,
    label: Label,
    /// The last change of any of its credentials.
    impact: Option<u64>,
    credentials: BTreeMap<u64, Held>,
}

/// What a revision does.
#[derive(Clone, Copy, Debug)]
enum Op {
    Name(Label),
    Raze,
    Hold(u64, Label, u64),
    Drop(u64),
}

/// Why a store does not hold the fixture of its revision.
#[derive(Debug)]
pub enum Wrong {
    /// It says that it cannot read it.
    Unreadable(#[allow(dead_code, reason = "its `Debug` shows it")] StoreError),
    /// It holds something else.
    Differs(String),
}

/// What the store holds at a revision.
#[derive(Clone, Debug, Default)]
pub struct Fixture {
    pub revision: u64,
    houses: BTreeMap<u64, House>,
}

impl Fixture {
    /// The fixture of this revision.
    pub fn at(revision: u64) -> Self {
        let mut fixture = Self::default();
        while fixture.revision < revision {
            fixture.step();
        }
        fixture
    }

    fn next(&self) -> (u64, Op) {
        let n = self.revision + 1;
        let mut rng = Rng(n);
        let company = rng.below(COMPANIES);
        let length = match rng.below(12) {
            // Longer than a value has in its place.
            0 => 20_000,
            _ => 100 + rng.below(3_000),
        };
        let label = Label { by: n, length: length as usize };
        let Some(house) = self.houses.get(&company) else { return (company, Op::Name(label)) };
        let credential = rng.below(CREDENTIALS);
        let op = match rng.below(32) {
            0 => Op::Raze,
            1..=4 => Op::Name(label),
            5..=9 if house.credentials.contains_key(&credential) => Op::Drop(credential),
            _ => Op::Hold(credential, label, rng.below(1 << SCOPES)),
        };
        (company, op)
    }

    fn step(&mut self) {
        let n = self.revision + 1;
        let (company, op) = self.next();
        self.revision = n;
        let Some(house) = self.houses.get_mut(&company) else {
            let Op::Name(label) = op else { panic!("a company begins with its name") };
            let house = House { born: n, label, impact: None, credentials: BTreeMap::new() };
            self.houses.insert(company, house);
            return;
        };
        match op {
            Op::Name(label) => house.label = label,
            Op::Raze => drop(self.houses.remove(&company)),
            Op::Hold(credential, label, scopes) => {
                let born = house.credentials.get(&credential).map_or(n, |held| held.born);
                house.credentials.insert(credential, Held { born, label, scopes });
                house.impact = Some(n);
            }
            Op::Drop(credential) => {
                house.credentials.remove(&credential);
                house.impact = Some(n);
            }
        }
    }

    /// Changes that can be proposed together, because none rests on another.
    fn batch(&mut self, most: usize, store: &Store) -> Vec<Proposal> {
        let (mut proposals, mut touched) = (Vec::new(), Vec::new());
        while proposals.len() < most {
            let (company, op) = self.next();
            if touched.contains(&company) {
                break;
            }
            touched.push(company);
            proposals.push(propose(store, self.houses.get(&company), company, op, self.revision));
            self.step();
        }
        proposals
    }

    /// Commits about as many changes, and says which revision is acknowledged.
    pub fn live(&mut self, store: &Store, until: u64, rng: &mut Rng, mut told: impl FnMut(u64)) {
        while self.revision < until {
            let most = 1 + rng.below(6) as usize;
            let proposals = self.batch(most, store);
            let tickets: Vec<_> =
                proposals.into_iter().map(|p| store.commit(p).expect("queued")).collect();
            if rng.below(4) == 0 {
                store.note_last_seen(vec![(Revision(self.revision), rng.roll() as u32)]);
            }
            let mut last = 0;
            for ticket in tickets {
                last = ticket.blocking_recv().expect("answered").expect("committed").revision.0;
            }
            assert_eq!(last, self.revision);
            told(last);
        }
    }

    /// The store holds this fixture, the whole fixture, and nothing else.
    pub fn verify(&self, store: &Store) -> Result<(), Wrong> {
        let readable = Wrong::Unreadable;
        let same = |what: &str, found: String, expected: String| {
            if found == expected {
                return Ok(());
            }
            Err(Wrong::Differs(format!("{what}: {found} not {expected}")))
        };
        let found = store.companies(None, 1_000).map_err(readable)?;
        let mut ids: Vec<_> = self.houses.keys().map(|id| format!("c{id}")).collect();
        ids.sort();
        let listed: Vec<_> = found.iter().map(|company| company.id.to_string()).collect();
        same("the companies", format!("{listed:?}"), format!("{ids:?}"))?;
        for (id, house) in &self.houses {
            let name = format!("c{id}");
            let read = store.get(&FactKey::Company(company_id(*id))).map_err(readable)?;
            let Some(Fact::Company(company)) = read else {
                return Err(Wrong::Differs(format!("{name} is gone")));
            };
            let found = (company.created_at.0, company.revision.0, &company.display_name);
            let expected = (house.born, house.label.by, &house.label.text());
            same(&name, format!("{found:?}"), format!("{expected:?}"))?;
            let impact = store.get(&FactKey::Impact(company.created_at)).map_err(readable)?;
            let impact = impact.map(|fact| fact.revision().0);
            same(&name, format!("{impact:?}"), format!("{:?}", house.impact))?;
            let mut expected: Vec<_> = house
                .credentials
                .iter()
                .map(|(id, held)| (format!("k{id}"), held.born, held.label.by, held))
                .map(|(id, born, by, held)| (id, born, by, held.label.text(), grants(held, born)))
                .collect();
            expected.sort();
            let found = store.credentials(company.created_at, None, 1_000).map_err(readable)?;
            let found: Vec<_> = found
                .iter()
                .map(|c| {
                    let grants: Vec<_> =
                        c.grants.iter().map(|(s, g)| (s.0, g.granted_at.0)).collect();
                    (c.id.to_string(), c.created_at.0, c.revision.0, c.label.clone(), grants)
                })
                .collect();
            same(&name, format!("{found:?}"), format!("{expected:?}"))?;
            for scope in 0..SCOPES {
                let all = store.holders(company.created_at, ScopeId(scope), None, 1_000);
                let all: Vec<_> = all.map_err(readable)?.iter().map(ToString::to_string).collect();
                let holds = |grants: &[(u32, u64)]| grants.iter().any(|(s, _)| *s == scope);
                let expected: Vec<_> =
                    expected.iter().filter(|e| holds(&e.4)).map(|e| e.0.clone()).collect();
                same("holders", format!("{all:?}"), format!("{expected:?}"))?;
            }
        }
        let mut after = 0;
        let log = loop {
            match store.changes(None, Revision(after), Revision(u64::MAX), usize::MAX) {
                Err(StoreError::Compacted(gone)) if gone.0 > after => after = gone.0,
                found => break found.map_err(readable)?,
            }
        };
        let log: Vec<_> = log.iter().map(|change| change.revision.0).collect();
        let expected: Vec<_> = (after + 1..=self.revision).collect();
        same("the log", format!("{log:?}"), format!("{expected:?}"))?;
        Ok(())
    }
}

fn grants(held: &Held, born: u64) -> Vec<(u32, u64)> {
    (0..SCOPES).filter(|scope| held.scopes & (1 << scope) != 0).map(|s| (s, born)).collect()
}

fn company_id(id: u64) -> CompanyId {
    CompanyId::parse(format!("c{id}")).expect("an id")
}

fn moment(n: u64) -> Timestamp {
    Timestamp::from_second(n as i64).expect("a time")
}

fn propose(store: &Store, house: Option<&House>, company: u64, op: Op, revision: u64) -> Proposal {
    let id = company_id(company);
    let now = moment(revision + 1);
    let key = match (op, house) {
        (Op::Hold(credential, ..) | Op::Drop(credential), Some(house)) => {
            let credential = CredentialId::parse(format!("k{credential}")).expect("an id");
            FactKey::Credential(Revision(house.born), credential)
        }
        _ => FactKey::Company(id.clone()),
    };
    let before = store.get(&key).expect("readable");
    let after = match (op, &key, &before) {
        (Op::Name(label), _, Some(Fact::Company(old))) => {
            let named = Company { display_name: label.text(), ..(**old).clone() };
            Some(Fact::Company(Arc::new(named)))
        }
        (Op::Name(label), ..) => {
            let catalog = Catalog::empty();
            let made = Company::create(id.clone(), label.text(), &catalog, None, now).after;
            Some(Fact::Company(Arc::new(made)))
        }
        (Op::Raze | Op::Drop(_), ..) => None,
        (Op::Hold(_, label, scopes), FactKey::Credential(company, id), old) => {
            let born = match old {
                Some(Fact::Credential(old)) => old.created_at,
                _ => Revision::NEXT,
            };
            let grant = Grant { granted_at: born, expires_at: None };
            let held = (0..SCOPES).filter(|scope| scopes & (1 << scope) != 0);
            Some(Fact::Credential(Arc::new(Credential {
                id: id.clone(),
                company: *company,
                label: label.text(),
                enabled: true,
                expires_at: None,
                grants: held.map(|scope| (ScopeId(scope), grant)).collect(),
                secrets: vec![],
                redirect_uris: [].into(),
                revoked_tokens: Default::default(),
                created_at: born,
                revision: Revision::NEXT,
                create_time: now,
                update_time: now,
            })))
        }
        (Op::Hold(..), ..) => panic!("a credential has a company"),
    };
    let change = Change {
        revision: Revision::NEXT,
        time: now,
        author: Author { actor: "fixture".to_owned(), ..Author::default() },
        kind: ChangeKind::UpdateCompany,
        company: Some(id),
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    };
    Proposal {
        preconditions: vec![],
        caller: None,
        writes: vec![FactWrite { key, before, after }],
        change,
        idempotency: None,
    }
}

/// Opens the store; changes are kept for as long as it takes to make a thousand.
pub fn open(dir: &Path) -> Result<Store, OpenError> {
    open_on::<SledEngine>(dir)
}

/// The same on an engine.
pub fn open_on<E: Engine>(dir: &Path) -> Result<Store, OpenError> {
    let store = Store::open_on::<E>(dir, 64 << 20)?;
    Ok(store.keeping_changes_for(SignedDuration::from_secs(1_000)))
}

/// Listens to nothing in particular.
pub struct NoListener;

impl CommitObserver for NoListener {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}
