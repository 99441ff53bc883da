//! Random sequences of changes over the real wire, against a model of plain sets: no stamps, no
//! births, no cache. After every step checks, batches, explanations and lists agree with it and
//! with each other (D22), across restarts and kills.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use crate::harness;
use crate::harness::{Client, Server, owned};
use scopegate::proto::*;

const CATALOG: &str = "
audiences: { plain: , asking: { consent: required } }
scopes: { a: { implies: [b] }, b: , c: , d: { audiences: [asking] } }
roles: { all: { scopes: { a: all, c: all, d: all } }, own: { scopes: { a: own } } }
";
const SCOPES: [&str; 4] = ["a", "b", "c", "d"];
const COMPANIES: [&str; 2] = ["acme", "Acme"];
const CREDENTIALS: [&str; 2] = ["hr", "bi"];
const USERS: [&str; 2] = ["ada", "bob"];

type Set = BTreeSet<&'static str>;

#[derive(Default)]
struct Credential {
    disabled: bool,
    active: Set,
}

#[derive(Default)]
struct Company {
    disabled: bool,
    ceiling: Set,
    credentials: BTreeMap<&'static str, Credential>,
    users: BTreeMap<&'static str, Vec<&'static str>>,
    consents: BTreeMap<(&'static str, &'static str), Set>,
}

type Model = BTreeMap<&'static str, Company>;

fn implied(scopes: &[&'static str]) -> Set {
    scopes.iter().flat_map(|s| if *s == "a" { vec!["a", "b"] } else { vec![*s] }).collect()
}

fn implying(scopes: &[&'static str]) -> Set {
    scopes.iter().flat_map(|s| if *s == "b" { vec!["a", "b"] } else { vec![*s] }).collect()
}

/// What these roles permit, and how far.
fn permitted(roles: &[&str], scope: &str) -> Option<Reach> {
    if roles.contains(&"all") {
        Some(Reach::All)
    } else if roles.contains(&"own") && matches!(scope, "a" | "b") {
        Some(Reach::Own)
    } else {
        None
    }
}

fn allowed(
    model: &Model,
    company: &str,
    credential: &str,
    scope: &str,
    audience: &str,
    user: &str,
) -> Option<Reach> {
    let company = model.get(company).filter(|company| !company.disabled)?;
    let held = company.credentials.get(credential).filter(|c| !c.disabled)?;
    let heard = scope != "d" || audience == "asking";
    if !heard || !held.active.contains(scope) {
        return None;
    }
    if audience == "asking" {
        company.consents.get(&(user, credential)).filter(|given| given.contains(scope))?;
    }
    if user.is_empty() { Some(Reach::All) } else { permitted(company.users.get(user)?, scope) }
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

    fn some(&mut self) -> Vec<&'static str> {
        let count = 1 + self.roll(2);
        (0..count).map(|_| self.one(&SCOPES)).collect()
    }
}

/// One random step, on the wire and in the model; true if both could do it.
async fn step(client: &Client, model: &mut Model, rng: &mut Rng) {
    let (c, k, u) = (rng.one(&COMPANIES), rng.one(&CREDENTIALS), rng.one(&USERS));
    let scopes = rng.some();
    let (company_id, credential_id, user_id) = (c.to_owned(), k.to_owned(), u.to_owned());
    let mut directory = client.directory.clone();
    let mut authorization = client.authorization.clone();
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
    let there = model.contains_key(c);
    let mut nobody = Company::default();
    let company = model.get_mut(c).unwrap_or(&mut nobody);
    let held = company.credentials.contains_key(k);
    match rng.roll(16) {
        0 => {
            let named = (rng.roll(2) == 0).then(|| Scopes { names: owned(&scopes) });
            let ceiling = if named.is_some() { implied(&scopes) } else { SCOPES.into() };
            let request = CreateCompanyRequest { company_id, scopes: named, ..Default::default() };
            assert_eq!(directory.create_company(request).await.is_ok(), !there);
            if !there {
                model.insert(c, Company { ceiling, ..Company::default() });
            }
        }
        1 if rng.roll(4) == 0 => {
            let request = DeleteCompanyRequest { company_id, ..Default::default() };
            assert_eq!(directory.delete_company(request).await.is_ok(), there);
            model.remove(c);
        }
        2 => {
            let enabled = rng.roll(3) > 0;
            let update_mask = mask("enabled");
            let request =
                UpdateCompanyRequest { company_id, enabled, update_mask, ..Default::default() };
            assert_eq!(directory.update_company(request).await.is_ok(), there);
            company.disabled = !enabled;
        }
        3 => {
            let request = RestrictCompanyScopesRequest {
                company_id,
                scopes: owned(&scopes),
                acknowledge_impact: true,
                ..Default::default()
            };
            let gone = implying(&scopes);
            let holders = company.credentials.values();
            let affected = holders.filter(|k| !k.active.is_disjoint(&gone)).count() as u64;
            let done = authorization.restrict_company_scopes(request).await;
            assert_eq!(done.is_ok(), there);
            if let Ok(done) = done {
                assert_eq!(done.into_inner().affected_credential_count, affected);
            }
            company.ceiling.retain(|s| !gone.contains(s));
            company.credentials.values_mut().for_each(|k| k.active.retain(|s| !gone.contains(s)));
        }
        4 => {
            let request = AddCompanyScopesRequest {
                company_id,
                scopes: owned(&scopes),
                ..Default::default()
            };
            assert_eq!(authorization.add_company_scopes(request).await.is_ok(), there);
            company.ceiling.extend(implied(&scopes));
        }
        5 | 6 => {
            let wanted = implied(&scopes);
            let fits = there && !held && wanted.is_subset(&company.ceiling);
            let request = CreateCredentialRequest {
                company_id,
                credential_id,
                scopes: owned(&scopes),
                ..Default::default()
            };
            assert_eq!(directory.create_credential(request).await.is_ok(), fits);
            if fits {
                company.credentials.insert(k, Credential { disabled: false, active: wanted });
            }
        }
        7 if rng.roll(3) == 0 => {
            let request =
                DeleteCredentialRequest { company_id, credential_id, ..Default::default() };
            assert_eq!(directory.delete_credential(request).await.is_ok(), held);
            company.credentials.remove(k);
            company.consents.retain(|(_, of), _| *of != k);
        }
        8 => {
            let enabled = rng.roll(3) > 0;
            let request = UpdateCredentialRequest {
                company_id,
                credential_id,
                enabled,
                update_mask: mask("enabled"),
                ..Default::default()
            };
            assert_eq!(directory.update_credential(request).await.is_ok(), held);
            if let Some(credential) = company.credentials.get_mut(k) {
                credential.disabled = !enabled;
            }
        }
        kind @ 9..=12 => {
            let (wanted, gone) = (implied(&scopes), implying(&scopes));
            let fits = wanted.is_subset(&company.ceiling);
            let scopes = owned(&scopes);
            let done = match kind {
                9 => {
                    let request = GrantScopesRequest {
                        company_id,
                        credential_id,
                        scopes,
                        ..Default::default()
                    };
                    authorization.grant_scopes(request).await.is_ok()
                }
                10 => {
                    let request = RevokeScopesRequest {
                        company_id,
                        credential_id,
                        scopes,
                        ..Default::default()
                    };
                    authorization.revoke_scopes(request).await.is_ok()
                }
                11 => {
                    let request = ReplaceScopesRequest {
                        company_id,
                        credential_id,
                        scopes,
                        ..Default::default()
                    };
                    authorization.replace_scopes(request).await.is_ok()
                }
                _ => {
                    let request =
                        ResetScopesRequest { company_id, credential_id, ..Default::default() };
                    authorization.reset_scopes(request).await.is_ok()
                }
            };
            assert_eq!(done, held && (fits || kind == 10 || kind == 12));
            if let (true, Some(credential)) = (done, company.credentials.get_mut(k)) {
                match kind {
                    9 => credential.active.extend(wanted),
                    10 => credential.active.retain(|s| !gone.contains(s)),
                    11 => credential.active = wanted,
                    _ => credential.active = company.ceiling.clone(),
                }
            }
        }
        13 => {
            let roles = rng.one(&[&[][..], &["all"], &["own"], &["own", "all"], &["unknown"]]);
            let request =
                PutUserRequest { company_id, user_id, roles: owned(roles), ..Default::default() };
            assert_eq!(directory.put_user(request).await.is_ok(), there);
            company.users.insert(u, roles.to_vec());
        }
        14 if rng.roll(3) == 0 => {
            let known = company.users.contains_key(u);
            let request = DeleteUserRequest { company_id, user_id, ..Default::default() };
            assert_eq!(directory.delete_user(request).await.is_ok(), known);
            company.users.remove(u);
            company.consents.retain(|(of, _), _| *of != u);
        }
        15 => {
            let roles = company.users.get(u).cloned();
            let request = PutConsentRequest {
                company_id,
                credential_id,
                user_id,
                scopes: owned(&scopes),
                ..Default::default()
            };
            let done = directory.put_consent(request).await;
            assert_eq!(done.is_ok(), held && roles.is_some());
            if let (Ok(done), Some(roles)) = (done, roles) {
                let able: Vec<_> =
                    scopes.into_iter().filter(|s| permitted(&roles, s).is_some()).collect();
                let given = implied(&able);
                let told = done.into_inner().consent.expect("a consent").scopes;
                assert_eq!(told, given.iter().copied().collect::<Vec<_>>(), "D21");
                company.consents.insert((u, k), given);
            }
        }
        _ => {}
    }
}

async fn compare(client: &Client, model: &Model, rng: &mut Rng, samples: usize) {
    for _ in 0..samples {
        let (c, k, s) = (rng.one(&COMPANIES), rng.one(&CREDENTIALS), rng.one(&SCOPES));
        let (audience, user) = (rng.one(&["plain", "asking"]), rng.one(&["", "ada", "bob"]));
        let request = CheckRequest {
            audience: audience.to_owned(),
            user_id: user.to_owned(),
            ..harness::scopes_of(c, k, &[s])
        };
        let answer = client.agreed(request).await;
        let reach = (answer.decision() == Decision::Allowed).then(|| answer.reach());
        let expected = allowed(model, c, k, s, audience, user);
        assert_eq!(reach, expected, "{c}/{k} {s} {audience} {user}: {answer:?}");
    }
    let (c, s) = (rng.one(&COMPANIES), rng.one(&SCOPES));
    let Some(company) = model.get(c) else { return };
    let request = ListCredentialsRequest {
        company_id: c.to_owned(),
        scope: s.to_owned(),
        ..Default::default()
    };
    let page = client.directory.clone().list_credentials(request).await.expect("listed");
    let listed: Vec<_> =
        page.into_inner().credentials.into_iter().map(|k| k.credential_id).collect();
    let holders = company.credentials.iter().filter(|(_, k)| k.active.contains(s));
    assert_eq!(listed, holders.map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>(), "{c} {s}");
}

/// How many steps to make.
fn steps() -> usize {
    std::env::var("SCOPEGATE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

#[tokio::test]
async fn the_service_says_what_plain_sets_say_after_every_step() {
    let seed = std::env::var("SCOPEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0) | 1);
    println!("SCOPEGATE_SEED={seed} repeats this run");
    let mut rng = Rng(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("catalog.yaml");
    std::fs::write(&file, CATALOG).expect("written");
    let data = dir.path().join("data");
    let start = || {
        Server::start(&data, &["--catalog", file.to_str().expect("a path"), "--cache-entries", "4"])
    };
    let mut server = start();
    let mut client = server.client().await;
    let mut model = Model::new();
    for n in 1..=steps() {
        step(&client, &mut model, &mut rng).await;
        compare(&client, &model, &mut rng, 6).await;
        if n % 100 == 0 {
            server.kill();
            server = start();
            client = server.client().await;
            compare(&client, &model, &mut rng, 60).await;
        }
    }
}
