//! The laws of floor 0: sets, ceilings, grants, decisions. Pure; each test reads as its rule.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use scopegate::policy::catalog::endpoint::RequestPath;
use scopegate::policy::catalog::{Catalog, Reach};
use scopegate::policy::cause::DenialCause;
use scopegate::policy::ceiling::RemovedEntry;
use scopegate::policy::company::Company;
use scopegate::policy::consent::{Consent, Parties};
use scopegate::policy::credential::{Credential, GrantContext, GrantState};
use scopegate::policy::decision::{
    Facts, Layer, Verdict, admits_client, decide, decide_for_gateway, effective, explain,
};
use scopegate::policy::edit::{Edit, Stamped};
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::property::Properties;
use scopegate::policy::query::{Query, Requirement, ResourceAction, Subject};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::{Scope, ScopeId};
use scopegate::policy::token::{PresentedToken, Token};
use scopegate::policy::user::User;

const LEARN_AMP: &str = include_str!("../../catalogs/learn-amp.yaml");

/// A world of one company and one credential, changed step by step.
struct World {
    catalog: Catalog,
    company: Company,
    credential: Credential,
    revision: u64,
    now: Timestamp,
    /// What each restriction took, so that it can be undone.
    taken: Vec<(Vec<RemovedEntry>, Revision)>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn scope(name: &str) -> Scope {
    Scope::parse(name).expect("a scope")
}

impl World {
    /// A company with these scopes, and a credential without any.
    fn new(yaml: &str, ceiling: Option<&[&str]>) -> Self {
        let mut catalog = Catalog::empty().replaced_by(yaml).expect("a catalog");
        catalog.revision = Revision(1);
        let ids = ceiling.map(|names| ids(&catalog, names));
        let id = CompanyId::parse("acme").expect("an id");
        let mut company = Company::create(id, String::new(), &catalog, ids.as_deref(), at(0)).after;
        company.stamp(Revision(2), at(0));
        let id = CredentialId::parse("hr").expect("an id");
        let ground = GrantContext { catalog: &catalog, company: &company, now: at(0) };
        let made = Credential::create(id, String::new(), None, &[], ground);
        let mut credential = made.expect("nothing above the ceiling").after;
        credential.stamp(Revision(3), at(0));
        Self { catalog, company, credential, revision: 8, now: at(0), taken: vec![] }
    }

    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn ids(&self, names: &[&str]) -> Vec<ScopeId> {
        ids(&self.catalog, names)
    }

    fn grant(&mut self, names: &[&str]) -> Vec<String> {
        self.grant_until(names, None)
    }

    fn grant_until(&mut self, names: &[&str], end: Option<Timestamp>) -> Vec<String> {
        let ground = GrantContext { catalog: &self.catalog, company: &self.company, now: self.now };
        let edit =
            self.credential.grant(&self.ids(names), end, ground).expect("within the ceiling");
        let added = strings(&self.catalog.names(&edit.added));
        self.credential = edit.after;
        let revision = self.next();
        self.credential.stamp(revision, self.now);
        added
    }

    fn revoke(&mut self, names: &[&str]) -> Vec<String> {
        let ground = GrantContext { catalog: &self.catalog, company: &self.company, now: self.now };
        let edit = self.credential.revoke(&self.ids(names), ground);
        let removed = strings(&self.catalog.names(&edit.removed));
        self.credential = edit.after;
        let revision = self.next();
        self.credential.stamp(revision, self.now);
        removed
    }

    fn restrict(&mut self, names: &[&str]) -> Vec<String> {
        let edit = self.company.restrict(&self.catalog, &self.ids(names));
        let removed = strings(&self.catalog.names(&edit.removed));
        self.company = edit.after;
        let revision = self.next();
        self.company.stamp(revision, self.now);
        removed
    }

    /// Restricts, and returns what an undo needs.
    fn restrict_noting(&mut self, names: &[&str]) -> (Vec<RemovedEntry>, Revision) {
        let edit = self.company.restrict(&self.catalog, &self.ids(names));
        self.company = edit.after;
        let revision = self.next();
        self.company.stamp(revision, self.now);
        (edit.displaced, revision)
    }

    fn restore(&mut self, (taken, at): &(Vec<RemovedEntry>, Revision)) -> Vec<String> {
        let edit = self.company.restore(taken, *at);
        let woken = strings(&self.catalog.names(&edit.added));
        self.company = edit.after;
        let revision = self.next();
        self.company.stamp(revision, self.now);
        woken
    }

    fn add(&mut self, names: &[&str]) -> Vec<String> {
        let edit = self.company.add_scopes(&self.catalog, &self.ids(names));
        let added = strings(&self.catalog.names(&edit.added));
        self.company = edit.after;
        let revision = self.next();
        self.company.stamp(revision, self.now);
        added
    }

    fn apply(&mut self, yaml: &str) {
        self.catalog = self.catalog.replaced_by(yaml).expect("a catalog");
        self.catalog.revision = self.next();
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            ambiguous_subject: false,
            tokens: Default::default(),
            catalog: &self.catalog,
            company: Some(&self.company),
            credential: Some(&self.credential),
            user: None,
            consent: None,
            now: self.now,
        }
    }

    fn ask(&self, names: &[&str]) -> Verdict {
        decide(&query(names, None), self.facts()).expect("a clear audience")
    }

    fn reason(&self, names: &[&str]) -> Option<Reason> {
        match self.ask(names) {
            Verdict::Allowed { .. } => None,
            Verdict::Denied { reason, .. } => Some(reason),
        }
    }

    fn state(&self, name: &str) -> Option<GrantState> {
        let id = self.catalog.id(&scope(name))?;
        let grant = self.credential.grants.get(id)?;
        Some(grant.state(id, &self.company, self.now))
    }
}

fn ids(catalog: &Catalog, names: &[&str]) -> Vec<ScopeId> {
    names.iter().map(|name| catalog.id(&scope(name)).expect("a known scope")).collect()
}

fn strings(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

fn query(names: &[&str], audience: Option<&str>) -> Query {
    Query {
        subject: Subject::Known {
            company: CompanyId::parse("acme").expect("an id"),
            credential: CredentialId::parse("hr").expect("an id"),
        },
        needs: Requirement::Scopes(names.iter().map(|name| scope(name)).collect()),
        audience: audience.map(|name| Name::parse(name).expect("a name")),
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    }
}

const PLAIN: &str =
    "scopes: { a: , b: , c: , top: { implies: [mid] }, mid: { implies: [low] }, low: }";

#[test]
fn d1_adding_adds_what_is_implied_and_removing_takes_what_implies() {
    let mut world = World::new(PLAIN, None);
    assert_eq!(world.grant(&["top"]), ["low", "mid", "top"]);
    assert_eq!(world.revoke(&["mid"]), ["mid", "top"]);
    assert_eq!(world.state("low"), Some(GrantState::Active), "the implied scope stays");
    // `top` goes along where `mid`, which is named, is not even held.
    world.grant(&["top"]);
    world.restrict(&["mid"]);
    assert_eq!(world.reason(&["top"]), Some(Reason::ScopeNotInCompany));
    assert_eq!(world.reason(&["low"]), None);
}

#[test]
fn d1_a_closure_above_the_ceiling_names_the_implied_scope() {
    let mut world = World::new("scopes: { a: , b: }", Some(&["a"]));
    world.apply("scopes: { a: { implies: [b] }, b: }");
    let ground = GrantContext { catalog: &world.catalog, company: &world.company, now: world.now };
    let refused = world.credential.grant(&world.ids(&["a"]), None, ground).expect_err("refused");
    assert_eq!(strings(&refused.scopes), ["b"]);
}

#[test]
fn d2_a_catalog_change_widens_nobody_and_a_scope_put_back_returns_to_nobody() {
    let mut world = World::new("scopes: { a: , b: { implies: [a] } }", None);
    world.grant(&["b"]);
    world.apply("scopes: { a: , b: { implies: [c] }, c: }");
    assert_eq!(world.reason(&["c"]), Some(Reason::ScopeNotInCompany), "a new scope is nobody's");
    assert_eq!(world.reason(&["a"]), None);
    world.apply("scopes: { b: { implies: [c] }, c: }");
    assert_eq!(world.reason(&["a"]), Some(Reason::ScopeUnknown));
    assert_eq!(world.reason(&["b"]), None, "what implied it stays");
    world.apply("scopes: { a: , b: , c: }");
    assert_eq!(world.reason(&["a"]), Some(Reason::ScopeNotInCompany));
    assert_eq!(world.add(&["a"]), ["a"]);
    assert_eq!(world.reason(&["a"]), Some(Reason::ScopeNotGranted));
}

#[test]
fn d3_readmission_revives_nothing_until_granted_again() {
    let mut world = World::new(PLAIN, None);
    world.grant(&["a", "b"]);
    world.restrict(&["a"]);
    assert_eq!(world.state("a"), Some(GrantState::Dormant));
    assert_eq!(world.reason(&["a"]), Some(Reason::ScopeNotInCompany));
    world.add(&["a"]);
    assert_eq!(world.reason(&["a"]), Some(Reason::GrantDormant));
    assert_eq!(world.reason(&["b"]), None);
    assert_eq!(world.grant(&["a", "b"]), ["a"], "what is active keeps its stamp");
    assert_eq!(world.reason(&["a"]), None);
}

#[test]
fn d3_a_restore_reactivates_only_grants_active_right_before_the_restriction() {
    let mut world = World::new(PLAIN, None);
    world.grant_until(&["a"], Some(at(100)));
    world.restrict(&["a"]);
    world.add(&["a"]);
    // `a` was dormant before the restriction to undo; `top`, `mid` and `low` were active.
    world.grant(&["top"]);
    let taken = world.restrict_noting(&["a", "low"]);
    world.add(&["a", "top"]);
    assert_eq!(world.reason(&["low"]), Some(Reason::GrantDormant));
    assert_eq!(world.restore(&taken), ["a", "low", "mid", "top"]);
    for name in ["top", "mid", "low"] {
        assert_eq!(world.reason(&[name]), None, "{name}");
    }
    assert_eq!(world.reason(&["a"]), Some(Reason::GrantDormant), "it was dormant then too");
    assert!(world.restore(&taken).is_empty(), "once is enough");
    // Another restriction takes what was woken, and its undo wakes it again, with its end.
    world.grant_until(&["b"], Some(at(50)));
    let taken = world.restrict_noting(&["low", "b"]);
    assert_eq!(world.reason(&["top"]), Some(Reason::ScopeNotInCompany));
    world.add(&["top", "b"]);
    assert_eq!(world.reason(&["top"]), Some(Reason::GrantDormant));
    world.restore(&taken);
    assert_eq!(world.reason(&["top", "b"]), None);
    world.now = at(50);
    assert_eq!(world.reason(&["b"]), Some(Reason::GrantExpired));
    // A restriction that nobody undoes still ends what an undo had woken.
    world.restrict(&["low"]);
    world.add(&["top"]);
    assert_eq!(world.reason(&["low"]), Some(Reason::GrantDormant));
}

#[test]
fn d4_a_new_company_receives_the_whole_catalog_unless_fewer_are_named() {
    assert_eq!(World::new(PLAIN, None).company.ceiling.len(), 6);
    assert_eq!(World::new(PLAIN, Some(&["mid"])).company.ceiling.len(), 2);
    assert_eq!(World::new(PLAIN, Some(&[])).company.ceiling.len(), 0);
}

#[test]
fn d5_scopes_added_to_the_ceiling_are_available_and_not_granted() {
    let mut world = World::new(PLAIN, Some(&["a"]));
    assert_eq!(world.add(&["a", "top"]), ["low", "mid", "top"]);
    assert_eq!(world.reason(&["top"]), Some(Reason::ScopeNotGranted));
    world.grant(&["top"]);
    assert_eq!(world.reason(&["top"]), None);
}

#[test]
fn d9_a_grant_above_the_ceiling_is_refused_whole_naming_every_scope() {
    let world = World::new(PLAIN, Some(&["a"]));
    let ground = GrantContext { catalog: &world.catalog, company: &world.company, now: world.now };
    let wanted = world.ids(&["a", "c", "mid"]);
    let refused = world.credential.grant(&wanted, None, ground).expect_err("refused");
    assert_eq!(strings(&refused.scopes), ["c", "low", "mid"]);
    assert!(refused.to_string().contains("operator"));
    assert!(world.credential.replace(&wanted, ground).is_err());
}

#[test]
fn d10_replace_and_reset_keep_stamp_and_end_of_what_stays() {
    let mut world = World::new(PLAIN, Some(&["a", "b", "top"]));
    world.grant_until(&["a"], Some(at(100)));
    world.grant(&["b"]);
    let stamp = |world: &World, name: &str| {
        *world.credential.grants.get(world.ids(&[name])[0]).expect("held")
    };
    let kept = stamp(&world, "a");
    let ground = GrantContext { catalog: &world.catalog, company: &world.company, now: world.now };
    let replaced = world.credential.replace(&world.ids(&["a", "mid"]), ground).expect("within");
    assert_eq!(strings(&world.catalog.names(&replaced.added)), ["low", "mid"]);
    assert_eq!(strings(&world.catalog.names(&replaced.removed)), ["b"]);
    world.credential = replaced.after;
    world.credential.stamp(Revision(50), at(0));
    assert_eq!(stamp(&world, "a"), kept);
    assert_eq!(stamp(&world, "mid").expires_at, None);
    let ground = GrantContext { catalog: &world.catalog, company: &world.company, now: world.now };
    let reset = world.credential.reset(ground);
    assert_eq!(strings(&world.catalog.names(&reset.added)), ["b", "top"]);
    world.credential = reset.after;
    world.credential.stamp(Revision(51), at(0));
    assert_eq!(stamp(&world, "a"), kept, "a copy of the ceiling keeps what is active");
    // A copy, not an alias: what the ceiling gains later does not follow.
    world.add(&["c"]);
    assert_eq!(world.reason(&["c"]), Some(Reason::ScopeNotGranted));
}

#[test]
fn d10_new_grants_of_replace_and_reset_extend_no_implied_grant() {
    let mut world = World::new(PLAIN, None);
    world.grant_until(&["low"], Some(at(100)));
    let low = world.credential.clone();
    for save in [true, false] {
        world.credential = low.clone();
        world.now = at(0);
        let ground =
            GrantContext { catalog: &world.catalog, company: &world.company, now: world.now };
        let edit = match save {
            true => world.credential.replace(&world.ids(&["top", "low"]), ground).expect("within"),
            false => world.credential.reset(ground),
        };
        world.credential = edit.after;
        let revision = world.next();
        world.credential.stamp(revision, world.now);
        assert_eq!(world.reason(&["top", "mid", "low"]), None);
        world.now = at(100);
        assert_eq!(world.reason(&["low"]), Some(Reason::GrantExpired));
        assert_eq!(world.reason(&["top", "mid"]), None, "what is new has no end");
    }
}

#[test]
fn d10_an_active_grant_keeps_the_later_end_and_no_end_is_the_latest() {
    let mut world = World::new(PLAIN, None);
    let end = |world: &World, name: &str| {
        world.credential.grants.get(world.ids(&[name])[0]).expect("held").expires_at
    };
    world.grant_until(&["mid"], Some(at(100)));
    assert_eq!(end(&world, "low"), Some(at(100)), "so do the scopes implied");
    assert!(world.grant_until(&["mid"], Some(at(50))).is_empty());
    assert_eq!(end(&world, "mid"), Some(at(100)));
    world.grant_until(&["mid"], Some(at(200)));
    assert_eq!(end(&world, "low"), Some(at(200)));
    world.grant(&["mid"]);
    assert_eq!(end(&world, "mid"), None);
    world.grant_until(&["mid"], Some(at(300)));
    assert_eq!(end(&world, "mid"), None);
    // What is over takes the request's end, and is made anew.
    world.grant_until(&["a"], Some(at(10)));
    world.now = at(10);
    assert_eq!(world.reason(&["a"]), Some(Reason::GrantExpired));
    assert_eq!(world.grant_until(&["a"], Some(at(20))), ["a"]);
    assert_eq!(end(&world, "a"), Some(at(20)));
}

#[test]
fn d13_all_scopes_named_must_be_effective_and_d14_every_missing_one_is_named() {
    let mut world = World::new(PLAIN, Some(&["a", "b"]));
    world.grant(&["a"]);
    assert_eq!(world.reason(&["a"]), None);
    let denied = Verdict::Denied {
        reason: Reason::ScopeNotInCompany,
        fault: None,
        missing: vec![scope("c"), scope("b")],
    };
    assert_eq!(world.ask(&["c", "a", "b"]), denied, "in the order asked");
}

#[test]
fn d15_the_reason_is_the_first_that_fails() {
    let mut world = World::new(PLAIN, Some(&["a", "b", "low"]));
    world.grant_until(&["low"], Some(at(5)));
    world.grant(&["b"]);
    world.restrict(&["b"]);
    world.add(&["b"]);
    world.now = at(5);
    // From the innermost outwards: each new failure is the reason instead.
    assert_eq!(world.reason(&["low"]), Some(Reason::GrantExpired));
    assert_eq!(world.reason(&["low", "b"]), Some(Reason::GrantDormant));
    assert_eq!(world.reason(&["low", "b", "a"]), Some(Reason::ScopeNotGranted));
    assert_eq!(world.reason(&["low", "b", "a", "c"]), Some(Reason::ScopeNotInCompany));
    assert_eq!(world.reason(&["low", "b", "a", "c", "nowhere"]), Some(Reason::ScopeUnknown));
    world.credential.expires_at = Some(at(5));
    let all = ["low", "b", "nowhere"];
    let denied = |reason| Verdict::Denied { reason, fault: None, missing: all.map(scope).to_vec() };
    assert_eq!(world.ask(&all), denied(Reason::CredentialExpired), "a 401 misses every scope");
    world.credential.enabled = false;
    assert_eq!(world.ask(&all), denied(Reason::CredentialDisabled));
    let unknown = Facts { credential: None, ..world.facts() };
    assert_eq!(decide(&query(&all, None), unknown), Ok(denied(Reason::CredentialUnknown)));
    world.company.enabled = false;
    assert_eq!(world.ask(&all), denied(Reason::CompanyDisabled));
    let unknown = Facts { company: None, credential: None, ..world.facts() };
    assert_eq!(decide(&query(&all, None), unknown), Ok(denied(Reason::CompanyUnknown)));
    let path = RequestPath::parse("/nowhere").expect("a path");
    let lost =
        Query { needs: Requirement::Endpoint { method: "GET".into(), path }, ..query(&[], None) };
    let denied = Verdict::Denied { reason: Reason::EndpointUnknown, fault: None, missing: vec![] };
    assert_eq!(decide(&lost, unknown), Ok(denied), "an unknown endpoint before all");
}

#[test]
fn d15_every_reason_has_its_status_word_and_remedy() {
    use Reason::*;
    for (reason, status, word) in [
        (EndpointUnknown, 404, "not_found"),
        (CompanyUnknown, 401, "invalid_client"),
        (CredentialExpired, 401, "invalid_client"),
        (TokenRequired, 401, "invalid_token"),
        (UserRequired, 401, "invalid_token"),
        (ScopeUnknown, 403, "invalid_scope"),
        (ScopeNotInCompany, 403, "invalid_scope"),
        (GrantDormant, 403, "invalid_scope"),
    ] {
        assert_eq!((reason.http_status(), reason.error()), (status, word));
    }
    assert!(ScopeNotInCompany.remedy().contains("operator"));
    assert!(ScopeNotGranted.remedy().contains("admin"));
}

#[test]
fn d16_the_audience_is_the_endpoints_else_the_requests_else_the_only_one() {
    let mut world = World::new(LEARN_AMP, None);
    world.grant(&["api/all"]);
    let ask = |query: &Query| decide(query, world.facts());
    assert!(matches!(ask(&query(&["api/read"], Some("public"))), Ok(Verdict::Allowed { .. })));
    // With several audiences one must be named, and must exist.
    assert!(ask(&query(&["api/read"], None)).is_err());
    assert!(ask(&query(&["api/read"], Some("moon"))).is_err());
    // A scope of another audience is unknown here.
    let Ok(Verdict::Denied { reason, .. }) = ask(&query(&["api/webhooks"], Some("public"))) else {
        panic!("denied")
    };
    assert_eq!(reason, Reason::ScopeUnknown);
    let call = |path: &str, audience: Option<&str>| {
        let path = RequestPath::parse(path).expect("a path");
        let needs = Requirement::Endpoint { method: "GET".into(), path };
        ask(&Query { needs, ..query(&[], audience) })
    };
    assert!(matches!(call("/v1/users", None), Ok(Verdict::Allowed { .. })));
    assert!(matches!(call("/v1/users", Some("public")), Ok(Verdict::Allowed { .. })));
    assert!(call("/v1/users", Some("webhooks")).is_err(), "other than the endpoint's");
    assert!(call("/nowhere", None).is_ok(), "an unknown endpoint needs none");
    // A catalog without audiences has one without a name; any that is named is unknown.
    let plain = World::new(PLAIN, None);
    assert!(decide(&query(&["a"], Some("public")), plain.facts()).is_err());
}

#[test]
fn d16_an_endpoint_of_another_audience_is_none_of_a_gateways() {
    let mut world = World::new(LEARN_AMP, None);
    world.grant(&["api/all"]);
    let ask = |path: &str, audience: Option<&str>, subject: Option<Subject>| {
        let path = RequestPath::parse(path).expect("a path");
        let needs = Requirement::Endpoint { method: "GET".into(), path };
        let mut asked = Query { needs, ..query(&[], audience) };
        asked.subject = subject.unwrap_or(asked.subject);
        decide_for_gateway(&asked, world.facts())
    };
    let reason = |decided: Result<Verdict, _>| match decided {
        Ok(Verdict::Denied { reason, .. }) => Some(reason),
        Ok(Verdict::Allowed { .. }) => None,
        Err(_) => panic!("an error"),
    };
    assert_eq!(reason(ask("/v1/users", None, None)), None);
    assert_eq!(reason(ask("/v1/users", Some("public"), None)), None);
    let other = ask("/v1/users", Some("webhooks"), None);
    assert_eq!(reason(other), Some(Reason::EndpointUnknown));
    assert_eq!(reason(ask("/nowhere", None, None)), Some(Reason::EndpointUnknown));
    // A client that did not prove who it is does not learn which of these there are.
    for path in ["/v1/users", "/nowhere"] {
        for audience in [None, Some("public"), Some("webhooks")] {
            let unproven = Subject::Unproven(Reason::TokenUnverifiable.into());
            let decided = ask(path, audience, Some(unproven));
            assert_eq!(reason(decided), Some(Reason::TokenUnverifiable), "{path} {audience:?}");
        }
    }
    // Nor does one that the gateway's route names, in any state of its company and its credential.
    let live = world.facts();
    let (company, credential) = (live.company.expect("one"), live.credential.expect("one"));
    let (disabled, off) = (
        Company { enabled: false, ..company.clone() },
        Credential { enabled: false, ..credential.clone() },
    );
    let ended = Credential { expires_at: Some(live.now), ..credential.clone() };
    for (facts, expected) in [
        (live, Reason::TokenInvalid),
        (Facts { company: None, credential: None, ..live }, Reason::CompanyUnknown),
        (Facts { company: Some(&disabled), ..live }, Reason::CompanyDisabled),
        (Facts { credential: None, ..live }, Reason::CredentialUnknown),
        (Facts { credential: Some(&off), ..live }, Reason::CredentialDisabled),
        (Facts { credential: Some(&ended), ..live }, Reason::CredentialExpired),
    ] {
        for path in ["/v1/users", "/nowhere"] {
            let path = RequestPath::parse(path).expect("a path");
            let needs = Requirement::Endpoint { method: "GET".into(), path };
            let token = Some(PresentedToken::Rejected(Reason::TokenInvalid.into()));
            let asked = Query { needs, token, ..query(&[], Some("public")) };
            assert_eq!(reason(decide_for_gateway(&asked, facts)), Some(expected), "{asked:?}");
        }
    }
    // What the gateway itself names must exist, whatever a client asks for.
    for path in ["/v1/users", "/nowhere"] {
        assert!(ask(path, Some("moon"), None).is_err());
    }
    let scopes = decide_for_gateway(&query(&["api/read"], None), world.facts());
    assert!(scopes.is_err(), "which of two?");
}

#[test]
fn d16_a_token_may_be_ahead_by_the_audiences_skew_and_nothing_else_may() {
    let yaml = PEOPLE.replace("max_token_age: 1m", "max_token_age: 1m, clock_skew: 30s");
    let mut world = World::new(&yaml, None);
    world.grant(&["a"]);
    let fault = |token: Token, seconds: i64| {
        let query = Query { token: Some(token.into()), ..query(&["a"], Some("app")) };
        let facts = Facts { now: at(seconds), ..world.facts() };
        match decide(&query, facts).expect("an audience") {
            Verdict::Allowed { .. } => None,
            Verdict::Denied { reason, fault, .. } => {
                assert_eq!(fault.map(DenialCause::reason), Some(reason));
                fault
            }
        }
    };
    // It was issued at 100, and ends at 150.
    assert_eq!(fault(token(&["a"]), 70), None);
    assert_eq!(fault(token(&["a"]), 69), Some(DenialCause::IssuedAhead));
    assert_eq!(fault(token(&["a"]), 150), Some(DenialCause::Ended), "an end has no skew");
    let endless = Token { expires_at: None, ..token(&["a"]) };
    assert_eq!(fault(endless.clone(), 159), None);
    assert_eq!(fault(endless, 160), Some(DenialCause::TooOld), "neither has an age");
    let late = Token { expires_at: Some(at(99)), ..token(&["a"]) };
    assert_eq!(fault(late, 80), Some(DenialCause::EndsBeforeIssue));
    let ageless = Token { issued_at: None, ..token(&["a"]) };
    assert_eq!(fault(ageless.clone(), 120), Some(DenialCause::IssueTimeMissing));
    assert_eq!(fault(ageless, 150), Some(DenialCause::Ended), "what a new token mends comes first");
    let unnamed = Token { audience: "".into(), ..token(&["a"]) };
    assert_eq!(fault(unnamed, 120), Some(DenialCause::AudienceMissing));
    let other = Token { audience: "asking".into(), ..token(&["a"]) };
    assert_eq!(fault(other, 120), Some(DenialCause::OtherAudience));
}

#[test]
fn d16_an_audience_is_named_by_its_name_and_by_its_aud() {
    let yaml =
        PEOPLE.replace("open: }", "open: { aud: [\"urn:acme:open\", \"https://a.example/\"] } }");
    let mut world = World::new(&yaml, None);
    world.grant(&["a"]);
    let ask = |named: &str, audience: &str| {
        let token = Token { audience: named.into(), ..token(&["a"]) };
        let query = Query { token: Some(token.into()), ..query(&["a"], Some(audience)) };
        decide(&query, Facts { now: at(120), ..world.facts() })
    };
    let allowed = Ok(Verdict::Allowed { reach: Reach::All });
    for own in ["open", "urn:acme:open", "https://a.example/"] {
        assert_eq!(ask(own, "open"), allowed, "{own}");
        assert!(matches!(ask(own, "app"), Ok(Verdict::Denied { .. })), "{own}");
    }
    for other in ["", "https://a.example", "HTTPS://a.example/", "urn:acme:open ", "app"] {
        assert!(matches!(ask(other, "open"), Ok(Verdict::Denied { .. })), "{other}");
    }
    let said = ask("open", "urn:acme:open").expect_err("a request names the audience");
    assert!(said.to_string().contains("write `open` here"), "{said}");
}

#[test]
fn d16_a_layer_that_an_audience_requires_is_never_skipped() {
    for (requires, reason) in [
        ("token: required", Reason::TokenRequired),
        ("user: required", Reason::UserRequired),
        ("consent: required", Reason::UserRequired),
    ] {
        let yaml = format!("audiences: {{ only: {{ {requires} }} }}\nscopes: {{ a: }}");
        let mut world = World::new(&yaml, None);
        world.grant(&["a"]);
        assert_eq!(world.reason(&["a"]), Some(reason), "{requires}");
    }
}

/// An audience whose tokens live for a minute, and a role that reaches all of `a` and own `b`.
const PEOPLE: &str = "
audiences: { app: { token: required, max_token_age: 1m }, asking: { consent: required }, open: }
scopes: { a: , b: , c: { implies: [b] }, d: }
roles: { all: { scopes: { a: all } }, own: { scopes: { a: own, c: own } } }
";

fn ada() -> UserId {
    UserId::parse("ada").expect("an id")
}

fn user(roles: &[&str]) -> User {
    let roles: Vec<_> = roles.iter().map(|role| Name::parse(*role).expect("a name")).collect();
    let mut user = User::put(None, &ada(), Revision(2), &roles).after;
    user.stamp(Revision(6), at(0));
    user
}

fn token(scopes: &[&str]) -> Token {
    Token {
        not_before: None,
        clock_skew: None,
        audience: "app".into(),
        scopes: scopes.iter().map(|name| scope(name)).collect(),
        issued_at: Some(at(100)),
        expires_at: Some(at(150)),
        user: None,
    }
}

#[test]
fn d16_a_token_carries_what_its_scopes_imply_however_many_it_has() {
    let many: Vec<_> = (0..40).map(|n| format!("s{n}")).collect();
    let listed: String = many.iter().map(|name| format!(", {name}: ")).collect();
    let yaml = format!(
        "audiences: {{ app: }}\nscopes: {{ top: {{ implies: [mid] }}, mid: {{ implies: [low] }}, low: {listed} }}"
    );
    let mut world = World::new(&yaml, None);
    world.grant(&["top", "s0", "s39"]);
    let reason = |scopes: &[&str], asked: &str| {
        let token = Some(token(scopes).into());
        let facts = Facts { now: at(100), ..world.facts() };
        match decide(&Query { token, ..query(&[asked], Some("app")) }, facts) {
            Ok(Verdict::Denied { reason, .. }) => Some(reason),
            allowed => allowed.map(|_| None).expect("an audience"),
        }
    };
    let missing = Some(Reason::ScopeNotInToken);
    for (scopes, asked, expected) in [
        (vec!["mid"], "mid", None),
        (vec!["mid"], "low", None),
        (vec!["mid"], "top", missing),
        (vec!["gone"], "low", missing),
        (vec!["gone"], "gone", Some(Reason::ScopeUnknown)),
        (vec![], "low", missing),
    ] {
        assert_eq!(reason(&scopes, asked), expected, "{asked} with {scopes:?}");
        // The same behind and before many others.
        let others = many.iter().skip(1).map(String::as_str);
        let behind: Vec<_> = others.clone().chain(scopes.iter().copied()).collect();
        assert_eq!(reason(&behind, asked), expected, "{asked} behind many");
        let before: Vec<_> = scopes.iter().copied().chain(others).collect();
        assert_eq!(reason(&before, asked), expected, "{asked} before many");
        assert_eq!((reason(&before, "s39"), reason(&before, "s0")), (None, missing));
    }
}

#[test]
fn d15_a_token_is_invalid_before_it_is_expired_before_it_is_anothers() {
    let mut world = World::new(PEOPLE, None);
    world.grant(&["a", "b"]);
    world.now = at(120);
    let own = token(&["a"]);
    let reason = |token: &Token, seconds: i64, user: Option<&str>| {
        let user = user.map(|id| UserId::parse(id).expect("an id"));
        let query = Query { token: Some(token.clone().into()), user, ..query(&["a"], Some("app")) };
        let known = self::user(&["all"]);
        let facts = Facts { now: at(seconds), user: Some(&known), ..world.facts() };
        match decide(&query, facts).expect("an audience") {
            Verdict::Allowed { .. } => None,
            Verdict::Denied { reason, .. } => Some(reason),
        }
    };
    assert_eq!(reason(&own, 100, None), None, "issued now is not in the future");
    assert_eq!(reason(&own, 99, None), Some(Reason::TokenInvalid), "no clock skew is allowed");
    assert_eq!(reason(&own, 149, None), None);
    assert_eq!(reason(&own, 150, None), Some(Reason::TokenExpired), "it ends at its end");
    // Its user and the request's must be one, where both are named.
    let named = Token { user: Some(ada()), ..own.clone() };
    assert_eq!(reason(&named, 120, Some("ada")), None);
    assert_eq!(reason(&named, 120, Some("bob")), Some(Reason::TokenInvalid));
    assert_eq!(reason(&named, 150, Some("bob")), Some(Reason::TokenInvalid), "first of all");
    // It must not end before it begins; it may end as it begins, and is then over.
    let backwards = Token { expires_at: Some(at(99)), ..own.clone() };
    assert_eq!(reason(&backwards, 120, None), Some(Reason::TokenInvalid));
    let at_once = Token { expires_at: Some(at(100)), ..own.clone() };
    assert_eq!(reason(&at_once, 120, None), Some(Reason::TokenExpired));
    // The audience's minute, whatever the token's own end.
    let endless = Token { expires_at: None, ..own.clone() };
    assert_eq!(reason(&endless, 159, None), None);
    assert_eq!(reason(&endless, 160, None), Some(Reason::TokenExpired));
    let ageless = Token { issued_at: None, ..own.clone() };
    assert_eq!(reason(&ageless, 120, None), Some(Reason::TokenExpired), "of any age");
    for other in ["", "open", "App"] {
        let token = Token { audience: other.into(), ..own.clone() };
        assert_eq!(reason(&token, 120, None), Some(Reason::TokenAudienceMismatch), "{other}");
        assert_eq!(reason(&token, 150, None), Some(Reason::TokenExpired), "{other}");
    }
    let narrow = Token { scopes: vec![scope("b"), scope("nowhere")], ..own };
    assert_eq!(reason(&narrow, 120, None), Some(Reason::ScopeNotInToken));
}

#[test]
fn d17_own_reaches_the_users_own_records_only() {
    let mut world = World::new(PEOPLE, None);
    world.grant(&["a", "c", "d"]);
    let decided = |roles: &[&str], names: &[&str], owner: Option<&str>| {
        let owner = owner.map(|id| UserId::parse(id).expect("an id"));
        let query = Query { user: Some(ada()), owner, ..query(names, Some("open")) };
        let user = user(roles);
        decide(&query, Facts { user: Some(&user), ..world.facts() }).expect("an audience")
    };
    let denied = |reason, name| Verdict::Denied { reason, fault: None, missing: vec![scope(name)] };
    let (own, all) =
        (Verdict::Allowed { reach: Reach::Own }, Verdict::Allowed { reach: Reach::All });
    for owner in [None, Some("ada")] {
        assert_eq!(decided(&["own"], &["a"], owner), own);
        assert_eq!(decided(&["own", "all"], &["a"], owner), all, "roles are united");
        assert_eq!(decided(&["own", "all"], &["a", "b"], owner), own, "the least of all scopes");
    }
    assert_eq!(decided(&["own"], &["a"], Some("bob")), denied(Reason::NotRecordOwner, "a"));
    assert_eq!(decided(&["all"], &["a"], Some("bob")), all);
    assert_eq!(decided(&["own"], &["b"], None), own, "a role is closed: `c` implies `b` (D1)");
    assert_eq!(decided(&["own", "all"], &["d"], None), denied(Reason::UserLacksPermission, "d"));
    assert_eq!(decided(&["gone"], &["a"], None), denied(Reason::UserLacksPermission, "a"), "D2");
    assert_eq!(decided(&[], &["a"], None), denied(Reason::UserLacksPermission, "a"));
}

#[test]
fn d21_a_user_consents_to_what_they_could_do_and_what_that_implies() {
    let mut world = World::new(PEOPLE, None);
    world.grant(&["a", "c", "d"]);
    let of = Parties { company: Revision(2), user: Revision(6), credential: Revision(3) };
    let user = user(&["own"]);
    let names = |scopes: &[ScopeId]| strings(&world.catalog.names(scopes));
    let put = |before: Option<&Consent>, asked: &[&str]| {
        Consent::put(before, of, &world.catalog, &user, &world.ids(asked))
    };
    let first = put(None, &["a", "c", "d"]);
    assert_eq!(names(&first.added), ["a", "b", "c"], "not `d`, which no role permits");
    assert!(first.removed.is_empty() && first.fields.is_empty() && !first.is_none());
    let mut consent = first.after;
    consent.stamp(Revision(9), at(0));
    assert_eq!(consent.revision, Revision(9));
    // The next one replaces it, and what stays is neither added nor removed.
    let next = put(Some(&consent), &["a"]);
    assert!(next.added.is_empty());
    assert_eq!(names(&next.removed), ["b", "c"]);
    assert!(put(Some(&consent), &["c", "a", "a"]).is_none(), "the same again changes nothing");
    let refused = put(Some(&consent), &[]);
    assert_eq!(names(&refused.removed), ["a", "b", "c"]);
    assert!(refused.fields.is_empty());
    // To refuse everything at once is a change too: the log says that it was asked.
    let nothing = put(None, &["d"]);
    assert!(nothing.added.is_empty() && !nothing.is_none());
    assert_eq!(nothing.fields[0].field, "scopes");
    let ask = |consent: Option<&Consent>, name: &str| {
        let query = Query { user: Some(ada()), ..query(&[name], Some("asking")) };
        let facts = Facts { user: Some(&user), consent, ..world.facts() };
        decide(&query, facts).expect("an audience")
    };
    assert_eq!(ask(Some(&consent), "a"), Verdict::Allowed { reach: Reach::Own });
    let denied = Verdict::Denied {
        reason: Reason::ScopeNotConsented,
        fault: None,
        missing: vec![scope("a")],
    };
    assert_eq!(ask(Some(&refused.after), "a"), denied);
    assert_eq!(ask(None, "a"), denied, "no record allows nothing");
    // A scope that has left the catalog left the consent with it, and is not taken again.
    world.apply("audiences: { asking: }\nscopes: { a: }\nroles: { own: { scopes: { a: all } } }");
    let after = Consent::put(Some(&consent), of, &world.catalog, &user, &[]);
    assert_eq!(strings(&world.catalog.names(&after.removed)), ["a"]);
    assert_eq!(after.removed.len(), 1);
}

#[test]
fn d22_explanations_and_lists_say_what_a_check_says() {
    let mut world = World::new(PEOPLE, Some(&["a", "b", "c"]));
    world.grant(&["a", "c"]);
    let user = user(&["own"]);
    let facts = Facts { user: Some(&user), ..world.facts() };
    let bob = UserId::parse("bob").expect("an id");
    let all = ["a", "b", "c", "d", "nowhere"];
    let asked = Query { user: Some(ada()), owner: Some(bob), ..query(&all, Some("open")) };
    let listed = effective(&asked, facts).expect("an audience");
    let own = ["a", "b", "c"].map(|name| (scope(name), Reach::Own));
    assert_eq!(listed, own, "without an owner, sorted");
    let explained = explain(&asked, facts).expect("an audience");
    assert_eq!(explained.len(), all.len());
    for (name, said) in all.iter().zip(explained) {
        assert_eq!(said.scope, scope(name));
        let layers: Vec<_> = said.layers.iter().map(|(layer, _)| *layer).collect();
        assert_eq!(layers, [Layer::Company, Layer::Credential, Layer::User], "those that apply");
        let first =
            said.layers.iter().filter_map(|(_, said)| said.err()).map(|cause| cause.reason).min();
        let one = Query { needs: query(&[name], None).needs, ..asked.clone() };
        let Ok(Verdict::Denied { reason, .. }) = decide(&one, facts) else { panic!("denied") };
        assert_eq!(Some(reason), first, "{name}");
    }
    let path = RequestPath::parse("/nowhere").expect("a path");
    let lost = Query { needs: Requirement::Endpoint { method: "GET".into(), path }, ..asked };
    assert_eq!(explain(&lost, facts), Ok(vec![]), "an unknown endpoint needs no scope");
}

#[test]
fn d18_an_edit_says_what_moved_and_a_stamp_keeps_births() {
    let mut world = World::new(PLAIN, None);
    assert_eq!(world.restrict(&["mid"]), ["mid", "top"]);
    assert!(world.restrict(&["mid"]).is_empty(), "once is enough");
    let fields = |edit: &Edit<Credential>| {
        let all = edit.fields.iter();
        all.map(|f| format!("{} {}>{}", f.field, f.before, f.after)).collect::<Vec<_>>()
    };
    let a = world.ids(&["a"]);
    let given = world.credential.grant(&a, Some(at(5)), world.ground()).expect("within");
    let end = "\"1970-01-01T00:00:05Z\"";
    assert_eq!(fields(&given), [format!("grants[a].expires_at >{end}")]);
    world.credential = given.after;
    world.credential.stamp(Revision(20), at(7));
    world.company.stamp(Revision(21), at(8));
    let (company, credential) = (&world.company, &world.credential);
    assert_eq!((company.created_at, credential.created_at), (Revision(2), Revision(3)));
    assert_eq!((company.create_time, credential.create_time), (at(0), at(0)), "born once");
    assert_eq!((company.update_time, credential.update_time), (at(8), at(7)));
    let gone = credential.revoke(&a, world.ground());
    assert_eq!(fields(&gone), [format!("grants[a].expires_at {end}>")]);
    // What is made is born when it is committed, not when it was planned.
    let id = CompanyId::parse("other").expect("an id");
    let mut made = Company::create(id, String::new(), &world.catalog, None, at(1)).after;
    made.stamp(Revision(30), at(9));
    assert_eq!((made.created_at, made.create_time), (Revision(30), at(9)));
    let ground = GrantContext { company: &made, ..world.ground() };
    let id = CredentialId::parse("new").expect("an id");
    let mut made = Credential::create(id, String::new(), None, &[], ground).expect("within").after;
    made.stamp(Revision(31), at(10));
    assert_eq!((made.created_at, made.create_time), (Revision(31), at(10)));
}

#[test]
fn d9_the_refusal_names_twenty_scopes_and_counts_the_rest() {
    let many: Vec<_> = (10..40).map(|n| format!("s{n}")).collect();
    let world = World::new(&format!("scopes: {{ {}: }}", many.join(": , ")), Some(&[]));
    let said = |count: usize| {
        let names: Vec<_> = many.iter().take(count).map(String::as_str).collect();
        let refused = world.credential.grant(&world.ids(&names), None, world.ground());
        refused.expect_err("above the ceiling").to_string()
    };
    let rest = "not in the company's ceiling; the operator can add to it";
    assert_eq!(said(1), format!("`s10` is {rest}"));
    assert_eq!(said(2), format!("`s10`, `s11` are {rest}"));
    assert!(said(20).ends_with(&format!("`s28`, `s29` are {rest}")));
    assert!(said(21).ends_with(&format!("`s29` and 1 more are {rest}")));
}

#[test]
fn d3_a_restriction_is_undone_only_after_later_ones() {
    let mut world = World::new(PLAIN, None);
    world.grant(&["top"]);
    let first = world.restrict_noting(&["top"]);
    world.add(&["top"]);
    let below = |world: &World, taken: &(Vec<RemovedEntry>, Revision)| {
        let asleep = world.company.blocked_by_later_restriction(&world.catalog, &taken.0, taken.1);
        strings(&world.catalog.names(&asleep))
    };
    assert!(below(&world, &first).is_empty(), "`mid` and `low` never went");
    let second = world.restrict_noting(&["low"]);
    world.add(&["top"]);
    assert_eq!(below(&world, &first), ["low", "mid"]);
    let third = world.restrict_noting(&["low"]);
    world.add(&["top"]);
    // What was undone is another restriction than the one that came after `first`.
    world.restore(&third);
    assert_eq!(below(&world, &first), ["low", "mid"]);
    world.restore(&second);
    assert!(below(&world, &first).is_empty());
    world.restore(&first);
    assert_eq!(world.reason(&["top"]), None);
}

#[test]
fn d13_checks_share_facts_only_with_equal_subjects() {
    let one = Query { user: Some(ada()), ..query(&["a"], None) };
    let by_token = Token { user: Some(ada()), ..token(&[]) };
    assert!(one.same_subject_as(&Query { needs: query(&["b"], None).needs, ..one.clone() }));
    assert!(one.same_subject_as(&Query {
        user: None,
        token: Some(by_token.into()),
        ..one.clone()
    }));
    let (acme, hr) =
        (CompanyId::parse("acme").expect("an id"), CredentialId::parse("hr").expect("an id"));
    let company = CompanyId::parse("Acme").expect("an id");
    let credential = CredentialId::parse("HR").expect("an id");
    assert!(!one.same_subject_as(&Query {
        subject: Subject::Known { company, credential: hr },
        ..one.clone()
    }));
    assert!(!one.same_subject_as(&Query {
        subject: Subject::Known { company: acme, credential },
        ..one.clone()
    }));
    assert!(!one.same_subject_as(&Query { user: None, ..one.clone() }));
}

#[test]
fn d2_a_catalog_reports_its_differences() {
    let world = World::new(PEOPLE, None);
    let next = PEOPLE.replace("d: }", "e: { implies: [b] } }").replace("a: own", "a: all");
    let next = world.catalog.replaced_by(&next.replace("1m", "2m")).expect("a catalog");
    let moved = next.difference(&world.catalog);
    assert_eq!((moved.added, moved.removed_names), (vec![scope("e")], vec![scope("d")]));
    assert_eq!(moved.changed_scopes, []);
    assert_eq!(
        (moved.changed_audiences, moved.changed_roles),
        (vec!["app".into()], vec!["own".into()])
    );
    let none = world.catalog.difference(&world.catalog);
    assert_eq!(none, Default::default());
}

#[test]
fn d19_a_grant_that_ends_now_is_expired_and_dormant_is_reported_first() {
    let mut world = World::new(PLAIN, None);
    world.grant_until(&["a"], Some(at(5)));
    world.now = Timestamp::new(4, 999_999_999).expect("a time");
    assert_eq!(world.reason(&["a"]), None);
    world.now = at(5);
    assert_eq!(world.reason(&["a"]), Some(Reason::GrantExpired));
    world.restrict(&["a"]);
    world.add(&["a"]);
    assert_eq!(world.reason(&["a"]), Some(Reason::GrantDormant));
}

/// One random step in a small world.
#[derive(Clone, Debug)]
pub enum Act {
    /// Undoes a restriction, the latest is 0, as far as it took these scopes.
    Undo(usize, Vec<usize>),
    /// Gives these scopes, until this second if there is one.
    Grant(Vec<usize>, Option<i64>),
    /// Takes these scopes from the credential.
    Revoke(Vec<usize>),
    /// Makes the credential's scopes exactly these.
    Replace(Vec<usize>),
    /// Makes the credential's scopes those of the ceiling.
    Reset,
    /// Takes these scopes from the ceiling.
    Restrict(Vec<usize>),
    /// Adds these scopes to the ceiling.
    Add(Vec<usize>),
    /// So many seconds pass.
    Wait(i64),
}

/// The scopes that acts are about.
pub const NAMES: [&str; 6] = ["a", "b", "c", "top", "mid", "low"];

fn act() -> impl Strategy<Value = Act> {
    let some = || prop::collection::vec(0..NAMES.len(), 1..3);
    prop_oneof![
        3 => (some(), prop::option::of(0..50_i64)).prop_map(|(s, end)| Act::Grant(s, end)),
        1 => some().prop_map(Act::Revoke),
        1 => some().prop_map(Act::Replace),
        1 => Just(Act::Reset),
        2 => some().prop_map(Act::Restrict),
        1 => some().prop_map(Act::Add),
        1 => (1..10_i64).prop_map(Act::Wait),
        2 => (0..3_usize, some()).prop_map(|(n, s)| Act::Undo(n, s)),
    ]
}

fn names(indices: &[usize]) -> Vec<&'static str> {
    indices.iter().map(|n| NAMES[*n]).collect()
}

/// What a scope has to be to be allowed, kept as plain sets.
#[derive(Clone, Default)]
struct Model {
    ceiling: BTreeSet<usize>,
    /// Until their end, or until they are revoked or made anew.
    grants: BTreeMap<usize, Held>,
    /// What each restriction took, each with the restrictions of it that were undone by then.
    taken: Vec<BTreeMap<usize, BTreeSet<usize>>>,
    /// Which restrictions of a scope in the ceiling are undone.
    undone: BTreeMap<usize, BTreeSet<usize>>,
}

#[derive(Clone, Default)]
struct Held {
    end: Option<i64>,
    asleep: bool,
    /// The restrictions that found it active: the undo of any of them wakes it.
    slept: BTreeSet<usize>,
}

impl Model {
    fn active(&self, n: usize) -> Option<&Held> {
        self.grants.get(&n).filter(|held| !held.asleep)
    }

    /// Gives what is not active yet.
    fn fill(&mut self, wanted: &BTreeSet<usize>, end: Option<i64>) {
        for n in wanted {
            if self.active(*n).is_none() {
                self.grants.insert(*n, Held { end, ..Held::default() });
            }
        }
    }

    /// Whether a scope was taken since a restriction, and that was not undone.
    fn taken_since(&self, n: usize, at: usize) -> bool {
        let later = self.taken.iter().enumerate().skip(at + 1);
        let first = later.filter(|(_, taken)| taken.contains_key(&n)).map(|(by, _)| by).next();
        first.is_some_and(|by| !self.undone.get(&n).is_some_and(|undone| undone.contains(&by)))
    }
}

fn implied(n: usize) -> Vec<usize> {
    match NAMES[n] {
        "top" => vec![3, 4, 5],
        "mid" => vec![4, 5],
        _ => vec![n],
    }
}

fn implying(n: usize) -> Vec<usize> {
    match NAMES[n] {
        "low" => vec![5, 4, 3],
        "mid" => vec![4, 3],
        _ => vec![n],
    }
}

/// A catalog of some of the names, each implying some of those before it.
#[derive(Clone, Debug)]
struct Drawn {
    there: Vec<bool>,
    implies: Vec<Vec<bool>>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let flags = |chance| prop::collection::vec(prop::bool::weighted(chance), NAMES.len());
    (flags(0.7), prop::collection::vec(flags(0.4), NAMES.len()))
        .prop_map(|(there, implies)| Drawn { there, implies })
}

impl Drawn {
    fn whole(self) -> Self {
        Self { there: vec![true; NAMES.len()], ..self }
    }

    fn yaml(&self) -> String {
        let there = |n: &usize| self.there[*n];
        let all: Vec<_> = (0..NAMES.len()).filter(there).collect();
        let scope = |n: &usize| {
            let implied = (0..*n).filter(|m| self.there[*m] && self.implies[*n][*m]);
            let implied: Vec<_> = implied.map(|m| NAMES[m]).collect();
            format!("{}: {{ implies: [{}] }}", NAMES[*n], implied.join(", "))
        };
        let scopes: Vec<_> = all.iter().map(scope).collect();
        let role: Vec<_> = all.iter().map(|n| format!("{}: all", NAMES[*n])).collect();
        let (scopes, role) = (scopes.join(", "), role.join(", "));
        format!("scopes: {{ {scopes} }}\nroles: {{ all: {{ scopes: {{ {role} }} }} }}")
    }
}

impl World {
    /// Does what an act says, as far as the catalog has its scopes and the ceiling allows it.
    fn act(&mut self, act: &Act) {
        let known = |some: &[usize]| -> Vec<&'static str> {
            names(some).into_iter().filter(|n| self.catalog.id(&scope(n)).is_some()).collect()
        };
        match act {
            Act::Wait(seconds) => self.now = at(self.now.as_second() + seconds),
            Act::Grant(some, end) => {
                let wanted = self.ids(&known(some));
                let ground = self.ground();
                let edit = self.credential.grant(&wanted, end.map(at), ground).ok();
                self.become_of(edit);
            }
            Act::Revoke(some) => {
                let gone = self.ids(&known(some));
                let edit = self.credential.revoke(&gone, self.ground());
                self.become_of(Some(edit));
            }
            Act::Replace(some) => {
                let edit = self.credential.replace(&self.ids(&known(some)), self.ground()).ok();
                self.become_of(edit);
            }
            Act::Reset => self.become_of(Some(self.credential.reset(self.ground()))),
            Act::Restrict(some) => {
                let taken = self.restrict_noting(&known(some));
                self.taken.push(taken);
            }
            Act::Add(some) => {
                self.add(&known(some));
            }
            Act::Undo(n, some) => {
                let known = known(some);
                self.undo(*n, &known);
            }
        }
    }

    /// Puts these scopes back in the ceiling, as far as the `n`th last restriction took them, and
    /// wakes what was active then.
    fn undo(&mut self, n: usize, names: &[&str]) {
        let Some((taken, at)) = self.taken.iter().rev().nth(n).cloned() else { return };
        let wanted = self.catalog.closure(&self.ids(names));
        let places = taken.into_iter().filter(|place| wanted.contains(&place.scope));
        let places: Vec<_> = places.collect();
        let back: Vec<_> = places.iter().map(|place| place.scope).collect();
        let back = strings(&self.catalog.names(&back));
        self.add(&back.iter().map(String::as_str).collect::<Vec<_>>());
        // As the service refuses it.
        if self.company.blocked_by_later_restriction(&self.catalog, &places, at).is_empty() {
            self.restore(&(places, at));
        }
    }

    fn ground(&self) -> GrantContext<'_> {
        GrantContext { catalog: &self.catalog, company: &self.company, now: self.now }
    }

    fn become_of(&mut self, edit: Option<Edit<Credential>>) {
        if let Some(edit) = edit {
            self.credential = edit.after;
            let revision = self.next();
            self.credential.stamp(revision, self.now);
        }
    }

    /// When a grant ends.
    fn end(&self, scope: ScopeId) -> Option<Timestamp> {
        self.credential.grants.get(scope).and_then(|grant| grant.expires_at)
    }

    /// The scopes that the credential holds at this moment.
    fn held(&self, now: Timestamp) -> Vec<ScopeId> {
        let ground = GrantContext { now, ..self.ground() };
        let held = self.credential.grants.iter().map(|(scope, _)| scope);
        held.filter(|scope| self.credential.active(*scope, ground).is_some()).collect()
    }

    /// Every set that a catalog change could widen, by name: the ceiling and the grants with
    /// their stamps, what is active, what a user consented to, and what is allowed in the end.
    fn sets(&self, consent: &Consent) -> [BTreeSet<String>; 5] {
        let catalog = &self.catalog;
        let name = |scope: ScopeId| catalog.name(scope).map(ToString::to_string);
        let ceiling = self.company.view(catalog).ceiling.into_iter();
        let grants = self.credential.view(self.ground()).grants.into_iter();
        let allowed = NAMES.iter().filter(|name| self.reason(&[name]).is_none());
        [
            ceiling.map(|(scope, at)| format!("{scope} {at}")).collect(),
            grants.map(|(scope, state, grant)| format!("{scope} {state:?} {grant:?}")).collect(),
            self.held(self.now).into_iter().filter_map(name).collect(),
            consent.scopes.iter().filter_map(|(scope, ())| name(scope)).collect(),
            allowed.map(ToString::to_string).collect(),
        ]
    }
}

/// How many random cases each law is tried on.
fn cases() -> u32 {
    std::env::var("SCOPEGATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000)
}

/// After any sequence of changes, what is allowed is what plain sets say. `fuzz/` chooses the
/// sequence in another way.
pub fn what_stamps_say_is_what_plain_sets_say(acts: impl IntoIterator<Item = Act>) {
    let mut world = World::new(PLAIN, None);
    let mut model = Model { ceiling: (0..NAMES.len()).collect(), ..Model::default() };
    for act in acts {
        let now = world.now.as_second();
        model.grants.retain(|_, held| held.end.is_none_or(|end| end > now));
        match &act {
            Act::Wait(_) => {}
            Act::Grant(some, end) => {
                let wanted: BTreeSet<_> = some.iter().flat_map(|n| implied(*n)).collect();
                let within = wanted.is_subset(&model.ceiling);
                let asked = world.credential.grant(&world.ids(&names(some)), None, world.ground());
                assert_eq!(asked.is_ok(), within);
                if within {
                    for n in &wanted {
                        if let Some(held) = model.grants.get_mut(n).filter(|held| !held.asleep) {
                            held.end = held.end.zip(*end).map(|(a, b)| a.max(b));
                        }
                    }
                    model.fill(&wanted, *end);
                }
            }
            Act::Revoke(some) => {
                some.iter().flat_map(|n| implying(*n)).for_each(|n| {
                    model.grants.remove(&n);
                });
            }
            Act::Replace(some) => {
                let wanted: BTreeSet<_> = some.iter().flat_map(|n| implied(*n)).collect();
                let within = wanted.is_subset(&model.ceiling);
                let asked = world.credential.replace(&world.ids(&names(some)), world.ground());
                assert_eq!(asked.is_ok(), within);
                if within {
                    model.grants.retain(|n, _| wanted.contains(n));
                    model.fill(&wanted, None);
                }
            }
            Act::Reset => {
                let wanted = model.ceiling.clone();
                model.grants.retain(|n, _| wanted.contains(n));
                model.fill(&wanted, None);
            }
            Act::Restrict(some) => {
                let gone: BTreeSet<_> = some.iter().flat_map(|n| implying(*n)).collect();
                let gone: BTreeSet<_> = gone.intersection(&model.ceiling).copied().collect();
                for n in &gone {
                    model.ceiling.remove(n);
                    if let Some(held) = model.grants.get_mut(n).filter(|held| !held.asleep) {
                        held.asleep = true;
                        held.slept.insert(model.taken.len());
                    }
                }
                let gone =
                    gone.into_iter().map(|n| (n, model.undone.remove(&n).unwrap_or_default()));
                let gone = gone.collect();
                model.taken.push(gone);
            }
            Act::Add(some) => model.ceiling.extend(some.iter().flat_map(|n| implied(*n))),
            Act::Undo(n, some) => {
                if *n < model.taken.len() {
                    let at = model.taken.len() - 1 - n;
                    let wanted: BTreeSet<_> = some.iter().flat_map(|n| implied(*n)).collect();
                    let taken = model.taken[at].clone();
                    let places: BTreeSet<_> =
                        wanted.into_iter().filter(|n| taken.contains_key(n)).collect();
                    let below: BTreeSet<_> = places.iter().flat_map(|n| implied(*n)).collect();
                    model.ceiling.extend(&below);
                    if below.iter().any(|n| !places.contains(n) && model.taken_since(*n, at)) {
                        world.act(&act);
                        continue;
                    }
                    for n in places {
                        model
                            .undone
                            .entry(n)
                            .or_default()
                            .extend(taken[&n].iter().copied().chain([at]));
                        if let Some(held) = model.grants.get_mut(&n)
                            && held.slept.contains(&at)
                        {
                            held.asleep = false;
                        }
                    }
                }
            }
        }
        world.act(&act);
        let now = world.now.as_second();
        for (n, name) in NAMES.iter().enumerate() {
            let held = model.active(n).is_some_and(|held| held.end.is_none_or(|end| end > now));
            assert_eq!(world.reason(&[name]).is_none(), held, "{} after {:?}", name, act);
            assert!(!held || model.ceiling.contains(&n), "nothing above the ceiling");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// After any sequence of changes, what is allowed is what plain sets say.
    #[test]
    fn stamps_say_what_plain_sets_say(acts in prop::collection::vec(act(), 1..40)) {
        what_stamps_say_is_what_plain_sets_say(acts);
    }

    /// Whoever holds a scope holds all that it implies, after every change and at every later
    /// moment; the ceiling likewise (D1, D10). Restrictions are undone newest first, before
    /// anything is granted anew: what a credential was given since keeps the end that it was
    /// given (D3), whatever wakes above it. And what Replace and Reset make anew has no end,
    /// while what stays below it keeps its own (D10): that alone ends before what is above it.
    #[test]
    fn closed_sets_stay_closed_over_time(
        catalog in drawn(),
        acts in prop::collection::vec(act(), 1..30),
    ) {
        let mut world = World::new(&catalog.whole().yaml(), None);
        let implied: BTreeMap<_, _> =
            world.catalog.scope_ids().map(|s| (s, world.catalog.closure(&[s]))).collect();
        // What kept its end through a Replace or a Reset.
        let mut ending = BTreeSet::new();
        for act in acts {
            if matches!(act, Act::Replace(_) | Act::Reset) {
                let held = world.held(world.now).into_iter();
                ending.extend(held.filter(|scope| world.end(*scope).is_some()));
            }
            match &act {
                // What was granted anew since a restriction keeps the end it was given, and so may
                // end before what the undo wakes above it.
                Act::Grant(..) | Act::Replace(_) | Act::Reset => {
                    world.act(&act);
                    world.taken.clear();
                }
                _ => world.act(&act),
            }
            for (scope, _) in world.company.ceiling.iter() {
                let closed = implied[&scope].iter().all(|s| world.company.ceiling.contains(*s));
                prop_assert!(closed, "the ceiling after {:?}", act);
            }
            let ends = world.credential.grants.iter().filter_map(|(_, grant)| grant.expires_at);
            let moments: BTreeSet<_> = ends.filter(|end| *end > world.now).collect();
            for moment in moments.into_iter().chain([world.now]) {
                let held = world.held(moment);
                for scope in &held {
                    let over = |scope: &ScopeId| {
                        ending.contains(scope) && world.end(*scope).is_some_and(|end| moment >= end)
                    };
                    let lacks = |below: &&ScopeId| !held.contains(below) && !over(below);
                    for below in implied[scope].iter().filter(lacks) {
                        prop_assert!(false, "{:?} without {:?} at {} after {:?}", scope, below, moment, act);
                    }
                }
            }
        }
    }

    /// Whatever a catalog adds, removes, puts back or implies otherwise: every set keeps exactly
    /// the scopes that stay, and wins none (D2).
    #[test]
    fn a_catalog_change_widens_nothing(
        catalogs in prop::collection::vec(drawn(), 3),
        before in prop::collection::vec(act(), 0..12),
        between in prop::collection::vec(act(), 0..4),
        asked in prop::collection::vec(0..NAMES.len(), 0..4),
    ) {
        let known = |world: &World, asked: &[usize]| -> Vec<ScopeId> {
            names(asked).into_iter().filter_map(|name| world.catalog.id(&scope(name))).collect()
        };
        let mut world = World::new(&catalogs[0].yaml(), None);
        let role = Name::parse("all").expect("a name");
        let id = UserId::parse("ada").expect("an id");
        let user = User::put(None, &id, world.company.created_at, &[role]).after;
        let births = [world.company.created_at, Revision(7), world.credential.created_at];
        let [company, user_at, credential] = births;
        let of = Parties { company, user: user_at, credential };
        let asked = known(&world, &asked);
        let mut consent = Consent::put(None, of, &world.catalog, &user, &asked).after;
        consent.stamp(Revision(8), at(0));
        before.iter().for_each(|act| world.act(act));
        for next in &catalogs[1..] {
            let sets = world.sets(&consent);
            world.apply(&next.yaml());
            let stays = |entry: &&String| {
                let name = entry.split(' ').next().expect("a name");
                world.catalog.id(&scope(name)).is_some()
            };
            let expected = sets.each_ref().map(|set| set.iter().filter(stays).cloned().collect());
            prop_assert_eq!(world.sets(&consent), expected);
            // Edits under one catalog leave nothing behind that the next could widen.
            between.iter().for_each(|act| world.act(act));
        }
    }
}

/// What an endpoint with these lists is to be decided, by what each scope alone is decided (D20).
fn by_single_scopes(
    all: &[&str],
    any: &[&str],
    alone: impl Fn(&str) -> Result<Reach, Reason>,
) -> Result<Reach, (Reason, Vec<String>)> {
    let enough = any.iter().any(|name| alone(name).is_ok());
    let mut missing: Vec<String> = Vec::new();
    let mut reasons = BTreeSet::new();
    for name in all {
        if let Err(reason) = alone(name) {
            reasons.insert(reason);
            missing.push((*name).to_owned());
        }
    }
    if !any.is_empty() && !enough {
        reasons.extend(any.iter().filter_map(|name| alone(name).err()).max());
        missing.extend(any.iter().map(ToString::to_string));
    }
    let mut seen = BTreeSet::new();
    missing.retain(|name| seen.insert(name.clone()));
    match reasons.first() {
        Some(reason) => Err((*reason, missing)),
        None => {
            let widest = any.iter().filter_map(|name| alone(name).ok()).max();
            let reaches = all.iter().filter_map(|name| alone(name).ok()).chain(widest);
            Ok(reaches.min().unwrap_or(Reach::All))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// An endpoint is decided as its scopes are one by one, whatever they are and whoever asks;
    /// and one that needs none as a call is of which no layer looks at a scope (D20, D22).
    #[test]
    fn an_endpoint_is_decided_as_its_scopes_are_alone(
        acts in prop::collection::vec(act(), 0..12),
        all in prop::collection::vec(0..NAMES.len(), 0..3),
        any in prop::collection::vec(0..NAMES.len(), 0..4),
        who in 0..6_usize,
        bearer in prop::option::of((prop::collection::vec(0..NAMES.len(), 0..4), 0..3_usize)),
        unwell in 0..12_usize,
    ) {
        let unique = |some: &[usize]| {
            let mut seen = BTreeSet::new();
            names(some).into_iter().filter(|name| seen.insert(*name)).collect::<Vec<_>>()
        };
        let (all, any) = (unique(&all), unique(&any));
        let needs = match (all.is_empty(), any.is_empty()) {
            (true, true) => "scopes: none".to_owned(),
            (false, true) => format!("scopes: [{}]", all.join(", ")),
            (true, false) => format!("any_of: [{}]", any.join(", ")),
            (false, false) => format!("scopes: [{}], any_of: [{}]", all.join(", "), any.join(", ")),
        };
        let yaml = format!(
            "{PLAIN}\nroles: {{ own: {{ scopes: {{ a: own, top: own }} }}, all: {{ scopes: {{ mid: all, c: all }} }} }}\n\
             endpoints: [{{ method: GET, path: \"/x/{{id}}\", {needs} }}]\n\
             resources: {{ x: {{ actions: {{ get: [{{ when: {{ resource.on: true }}, {needs} }}] }} }} }}"
        );
        let mut world = World::new(&yaml, None);
        world.grant(&["a", "mid"]);
        acts.iter().for_each(|act| world.act(act));
        match unwell {
            0 => world.company.enabled = false,
            1 => world.credential.enabled = false,
            2 => world.credential.expires_at = Some(at(0)),
            _ => {}
        }
        let fault = bearer.as_ref().map(|(_, fault)| *fault);
        let token = bearer.map(|(scopes, fault)| Token {
            audience: if fault == 1 { "other".into() } else { "".into() },
            issued_at: None,
            expires_at: if fault == 2 { Some(at(0)) } else { None },
            ..token(&names(&scopes))
        });
        let roles: &[&str] = match who { 1 => &[], 2 => &["own"], 3 => &["all"], _ => &["own", "all"] };
        let known = user(roles);
        let facts = Facts { user: (who != 5).then_some(&known), ..world.facts() };
        let token = token.map(Into::into);
        let asked = Query { user: (who > 0).then(ada), token, ..query(&[], None) };
        let path = RequestPath::parse("/x/7").expect("a path");
        let call = Query { needs: Requirement::Endpoint { method: "GET".into(), path }, ..asked.clone() };
        let alone = |name: &str| {
            let one = Query { needs: query(&[name], None).needs, ..asked.clone() };
            match decide(&one, facts).expect("an audience") {
                Verdict::Allowed { reach } => Ok(reach),
                Verdict::Denied { reason, .. } => Err(reason),
            }
        };
        let found = match decide(&call, facts).expect("an audience") {
            Verdict::Allowed { reach } => Ok(reach),
            Verdict::Denied { reason, missing, .. } => Err((reason, strings(&missing))),
        };
        let expected = if all.is_empty() && any.is_empty() {
            // A reason of 401 is that of every scope; any other is of the scope.
            match alone("a") {
                Err(reason) if reason.http_status() == 401 => Err((reason, vec![])),
                _ => Ok(Reach::All),
            }
        } else {
            by_single_scopes(&all, &any, alone)
        };
        prop_assert_eq!(&found, &expected, "{}", needs);
        let explained = explain(&call, facts).expect("an audience");
        let explained: Vec<_> = explained.iter().map(|said| said.scope.to_string()).collect();
        let mut seen = BTreeSet::new();
        let each: Vec<_> = all.iter().chain(&any).filter(|name| seen.insert(**name)).collect();
        prop_assert!(explained.iter().eq(each.into_iter()), "{:?}: {}", explained, needs);
        // A template of the endpoint's shape, and a rule with the same requirement, decide alike.
        let template = Requirement::route("GET", "/x/{any}").expect("a template");
        for same in [template, resource_action(r#"{"on": true}"#)] {
            let same = Query { needs: same, ..call.clone() };
            prop_assert_eq!(decide(&same, facts), decide(&call, facts), "{:?}", same.needs);
            prop_assert_eq!(explain(&same, facts), explain(&call, facts), "{:?}", same.needs);
        }
        // Where no rule holds, the call is one to an unknown endpoint.
        let path = RequestPath::parse("/nowhere").expect("a path");
        let lost = Query { needs: Requirement::Endpoint { method: "GET".into(), path }, ..call.clone() };
        for none in [r#"{"on": false}"#, r#"{"on": "true"}"#, r#"{"on": null}"#, "{}"] {
            let none = Query { needs: resource_action(none), ..call.clone() };
            prop_assert_eq!(decide(&none, facts), decide(&lost, facts), "{:?}", none.needs);
            prop_assert_eq!(explain(&none, facts), explain(&lost, facts), "{:?}", none.needs);
        }

        // A gateway decides the same, but that it may want every record.
        let for_gateway =
            |query: &Query| decide_for_gateway(query, facts).expect("an audience");
        prop_assert_eq!(for_gateway(&call), decide(&call, facts).expect("an audience"));
        let of_all_records = |name: &str| match alone(name) {
            Ok(Reach::Own) => Err(Reason::NotRecordOwner),
            other => other,
        };
        let for_all = Query { owner: None, denies_own: true, ..call.clone() };
        let found = match for_gateway(&for_all) {
            Verdict::Allowed { reach } => Ok(reach),
            Verdict::Denied { reason, missing, .. } => Err((reason, strings(&missing))),
        };
        let expected = match all.is_empty() && any.is_empty() {
            true => expected,
            false => by_single_scopes(&all, &any, of_all_records),
        };
        prop_assert_eq!(found, expected, "{}", needs);
        // Of an endpoint that does not exist, a client learns only if its token is good.
        let path = RequestPath::parse("/nowhere").expect("a path");
        let nowhere = Query { needs: Requirement::Endpoint { method: "GET".into(), path }, ..asked };
        let Verdict::Denied { reason, .. } = for_gateway(&nowhere) else {
            panic!("an allow of nothing")
        };
        // The state of its company and of its credential comes first, as for an endpoint that exists.
        let state = admits_client(&nowhere, facts).expect("an audience").err();
        let state = state.map(|cause| cause.reason);
        let expected = match fault {
            Some(1) => state.unwrap_or(Reason::TokenAudienceMismatch),
            Some(2) => state.unwrap_or(Reason::TokenExpired),
            _ => Reason::EndpointUnknown,
        };
        prop_assert_eq!(reason, expected);
    }
}

/// The action `get` on a resource of the type `x` with these properties.
fn resource_action(properties: &str) -> Requirement {
    Requirement::Resource(Box::new(ResourceAction {
        kind: "x".into(),
        id: "7".into(),
        action: "get".into(),
        resource: Properties::parse(properties).expect("an object"),
        action_properties: Properties::default(),
    }))
}

/// `GET /x` and the action `get` on a resource of the type `x`, which lists two resources.
const LISTED: &str = "audiences: { p: , q: { user: required } }
scopes: { a: , b: { audiences: [q] } }
roles: { own: { scopes: { b: own } } }
resources:
  x:
    audience: q
    actions: { get: [{ scopes: [b] }] }
    known: { 7: { owner_id: ada }, 8: { owner_id: bob }, 9: }
";

#[test]
fn d17_the_owner_that_the_catalog_lists_counts_whatever_the_request_says() {
    let mut world = World::new(LISTED, None);
    world.grant(&["b"]);
    let known = user(&["own"]);
    let facts = Facts { user: Some(&known), ..world.facts() };
    let bob = UserId::parse("bob").expect("an id");
    let ask = |id: &str, owner: Option<UserId>| {
        let Requirement::Resource(mut asked) = resource_action("{}") else { unreachable!() };
        asked.id = id.into();
        let needs = Requirement::Resource(asked);
        let owned = needs.known_owner(&world.catalog).map(ToString::to_string);
        let query = Query { needs, owner, user: Some(ada()), ..query(&[], None) };
        let reason = match decide(&query, facts).expect("the audience of the type") {
            Verdict::Allowed { reach } => Ok(reach),
            Verdict::Denied { reason, .. } => Err(reason),
        };
        (reason, owned)
    };
    for said in [None, Some(ada()), Some(bob.clone())] {
        assert_eq!(ask("7", said.clone()), (Ok(Reach::Own), Some("ada".to_owned())));
        assert_eq!(ask("8", said), (Err(Reason::NotRecordOwner), Some("bob".to_owned())));
    }
    assert_eq!(ask("9", Some(bob)), (Err(Reason::NotRecordOwner), None));
    assert_eq!(ask("9", None), (Ok(Reach::Own), None));
    assert_eq!(ask("10", None), (Err(Reason::EndpointUnknown), None));
}

#[test]
fn d16_a_resource_is_of_the_audience_of_its_type() {
    let mut world = World::new(LISTED, None);
    world.grant(&["b"]);
    let ask = |needs: Requirement, audience| {
        let query = Query { needs, ..query(&[], audience) };
        match decide(&query, world.facts()) {
            Err(_) => None,
            Ok(Verdict::Allowed { .. }) => Some(None),
            Ok(Verdict::Denied { reason, .. }) => Some(Some(reason)),
        }
    };
    let listed = || resource_action("{}");
    for audience in [None, Some("q")] {
        assert_eq!(ask(listed(), audience), Some(Some(Reason::UserRequired)));
    }
    assert_eq!(ask(listed(), Some("p")), None, "another audience than the type's");
    assert_eq!(ask(listed(), Some("moon")), None);
    let unknown = Requirement::Resource(Box::default());
    assert_eq!(ask(unknown.clone(), None), Some(Some(Reason::EndpointUnknown)));
    assert_eq!(ask(unknown.clone(), Some("p")), Some(Some(Reason::EndpointUnknown)));
    assert_eq!(ask(unknown, Some("moon")), None);
}
