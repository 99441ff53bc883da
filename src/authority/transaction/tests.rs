//! Law: the preconditions of a transaction cover its reads. The fact cache notes each read of a test, and
//! the commit compares the reads with the proposal.

use std::cell::RefCell;
use std::sync::Arc;

use tempfile::TempDir;

use crate::authority::api_keys::NewKey;
use crate::authority::authorization_codes::NewAuthorizationCode;
use crate::authority::code_redemption::{NamedAudience, PresentedCode};
use crate::authority::consents::ConsentId;
use crate::authority::import_item::ImportItem;
use crate::authority::own_issuer::OwnIssuer;
use crate::authority::{
    Authority, CompanyChange, CredentialChange, NewCompany, NewCredential, RestoreGrants,
    Restriction, WriteOptions,
};
use crate::policy::caller::Caller;
use crate::policy::client_credential::ClientCredential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::revision::Revision;
use crate::policy::role::{Role, Roles};
use crate::policy::scope::Scope;
use crate::policy::token::authorization_code::CodeChallenge;
use crate::store::{Fact, FactKey, Proposal, ResultDetail, Store, StoredResult};

type Reads = RefCell<Vec<(FactKey, Option<Revision>)>>;

tokio::task_local! {
    /// The facts that the change of a test has read since its last commit.
    static READS: Reads;
    /// The kinds of facts that were compared.
    static COMPARED: RefCell<Vec<FactKey>>;
}

/// Notes a read of a test.
pub(in crate::authority) fn note_read(key: &FactKey, fact: Option<&Fact>) {
    let read = (key.clone(), fact.map(Fact::revision));
    READS.try_with(|reads| reads.borrow_mut().push(read)).ok();
}

/// Takes back a read on which the change does not depend.
pub(in crate::authority) fn forget_read(key: &FactKey) {
    READS.try_with(|reads| reads.borrow_mut().retain(|(read, _)| read != key)).ok();
}

/// Asserts that each read of a test is a precondition of its proposal, at the revision of the read.
pub(super) fn assert_covered(proposal: &Proposal) {
    let Ok(reads) = READS.try_with(RefCell::take) else { return };
    let by_writes =
        proposal.writes.iter().map(|write| (&write.key, write.before.as_ref().map(Fact::revision)));
    let preconditions = proposal.preconditions.iter().map(|(key, at)| (key, *at));
    let all: Vec<_> = preconditions.chain(by_writes).collect();
    for (key, at) in &reads {
        assert!(all.contains(&(key, *at)), "{:?} reads {key:?} at {at:?}", proposal.change.kind);
    }
    COMPARED.try_with(|seen| seen.borrow_mut().extend(reads.into_iter().map(|read| read.0))).ok();
}

const CATALOG: &str = "
scopes: { a: { implies: [b] }, b: , c: }
roles: { r: { scopes: { a: all } } }
audiences: { x: { user: required, consent: required } }
";

fn scope(name: &str) -> Scope {
    Scope::parse(name).expect("a scope")
}

fn acme() -> CompanyId {
    CompanyId::parse("acme").expect("an id")
}

fn app() -> CredentialId {
    CredentialId::parse("app").expect("an id")
}

fn opened() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().expect("a directory");
    let store: Arc<Store> = Arc::new(Store::open(dir.path()).expect("opened"));
    let own_issuer = OwnIssuer::new("https://id.example.org", dir.path().join("signing-keys"));
    let authority = Authority::new(store, 1_000).expect("readable");
    (dir, authority.with_own_issuer(Some(own_issuer)))
}

#[tokio::test]
async fn preconditions_cover_the_reads_of_every_change() {
    let (_dir, authority) = opened();
    let compared = COMPARED
        .scope(
            RefCell::default(),
            READS.scope(RefCell::default(), async {
                let session = authority.session(Caller::Anonymous);
                let (plain, dry) = (
                    WriteOptions::default(),
                    WriteOptions { validate_only: true, ..Default::default() },
                );
                let user = UserId::parse("ada").expect("an id");
                let role = Name::parse("r").expect("a name");
                let uri = RedirectUri::parse("https://app.example.org/").expect("a URI");
                let consent = ConsentId { company: acme(), credential: app(), user: user.clone() };
                session.apply_catalog(CATALOG, &plain).await.expect("applied");
                let new = NewCompany { id: acme(), display_name: String::new(), scopes: None };
                let credential = NewCredential {
                    company: acme(),
                    id: app(),
                    label: String::new(),
                    scopes: vec![scope("a")],
                    expires_at: None,
                    enabled: true,
                    redirect_uris: vec![],
                    tokens_valid_from: None,
                };
                for options in [&dry, &plain] {
                    session.create_company(&new, options).await.expect("created");
                }
                for options in [&dry, &plain] {
                    session.create_credential(&credential, options).await.expect("created");
                }
                session.put_user(&acme(), &user, &[role], &plain).await.expect("put");
                session.put_consent(&consent, &[scope("b")], &plain).await.expect("put");
                let secret = session.create_secret(&acme(), &app(), &plain).await.expect("created");
                let update =
                    CompanyChange::Update { display_name: Some("A".to_owned()), enabled: None };
                let scopes = vec![scope("c")];
                let grant = CredentialChange::Grant { scopes: scopes.clone(), expires_at: None };
                let label = CredentialChange::Update {
                    label: Some("App".to_owned()),
                    enabled: None,
                    expires_at: None,
                    redirect_uris: Some(vec![uri.clone()]),
                };
                session.change_company(&acme(), &update, &plain).await.expect("updated");
                for change in [
                    grant,
                    CredentialChange::Revoke(vec![scope("c")]),
                    CredentialChange::Replace(vec![scope("b")]),
                    CredentialChange::Reset,
                    label,
                ] {
                    session
                        .change_credential(&acme(), &app(), &change, &plain)
                        .await
                        .expect("changed");
                }
                // With an acknowledgement, with the etag of a preview, and the preview itself.
                let restrict = |acknowledge_impact| Restriction {
                    company: acme(),
                    scopes: vec![scope("c")],
                    acknowledge_impact,
                };
                let add = CompanyChange::AddScopes(vec![scope("c")]);
                let (preview, impact) =
                    session.restrict_company(&restrict(false), &dry).await.expect("a preview");
                assert!(preview.resource.is_some());
                let with_etag = WriteOptions { etag: Some(impact.etag), ..Default::default() };
                let (restricted, _) = session
                    .restrict_company(&restrict(false), &with_etag)
                    .await
                    .expect("restricted");
                session.change_company(&acme(), &add, &plain).await.expect("added");
                let restore =
                    RestoreGrants { company: acme(), scopes, restricted_at: restricted.revision };
                session.restore_grants(&restore, &plain).await.expect("restored");
                session.restrict_company(&restrict(true), &plain).await.expect("restricted");
                let new = NewAuthorizationCode {
                    consent: consent.clone(),
                    audience: None,
                    scopes: vec![scope("b")],
                    redirect_uri: uri.clone(),
                    challenge: CodeChallenge([0; 32]),
                    state: String::new(),
                };
                let code = session.create_authorization_code(&new, &plain).await.expect("created");
                let code = code.code.expect("a code");
                let text = secret.secret.clone().expect("a secret").reveal();
                let presented = ClientCredential::authorization(&format!("Bearer {text}"));
                // The change does not depend on these reads.
                let proven = session.prove_client(&presented, None);
                let proven = READS.scope(RefCell::default(), proven).await;
                let client = proven.expect("readable").expect("proven");
                let presented = PresentedCode {
                    code: &code,
                    redirect_uri: None,
                    verifier: None,
                    audience: NamedAudience::None,
                };
                let redeemed = session.redeem_code(&client, presented).await.expect("readable");
                assert!(redeemed.is_err());
                session.revoke_tokens(&acme(), &app(), None, &plain).await.expect("revoked");
                for publish_only in [true, false] {
                    session.rotate_signing_key(publish_only, &plain).await.expect("changed");
                }
                let keys = session.signing_keys().await.expect("read").resource;
                session.delete_signing_key(&keys[0].id, &plain).await.expect("deleted");
                let id = secret.id.expect("an id");
                session.delete_secret(&acme(), &app(), &id, &plain).await.expect("deleted");
                session.delete_consent(&consent, &plain).await.expect("deleted");
                session.delete_user(&acme(), &user, &plain).await.expect("deleted");
                let mut import = session.import(WriteOptions::default());
                let imported = CredentialId::parse("imported").expect("an id");
                let credential = NewCredential { id: imported, ..credential.clone() };
                let item = ImportItem::Credential(credential);
                assert!(import.add((), item).await.is_ok() && import.settle().await.is_ok());
                let delete = CredentialChange::Delete;
                session.change_credential(&acme(), &app(), &delete, &plain).await.expect("deleted");
                session
                    .change_company(&acme(), &CompanyChange::Delete, &plain)
                    .await
                    .expect("deleted");
                COMPARED.with(RefCell::take)
            }),
        )
        .await;
    // The test compares something of each kind that a change reads through the cache.
    let has = |is: fn(&FactKey) -> bool| compared.iter().any(is);
    assert!(has(|key| matches!(key, FactKey::Company(_))));
    assert!(has(|key| matches!(key, FactKey::Credential(..))));
    assert!(has(|key| matches!(key, FactKey::Impact(_))));
    assert!(has(|key| matches!(key, FactKey::User(..))));
    assert!(has(|key| matches!(key, FactKey::Consent(_))));
    assert!(has(|key| matches!(key, FactKey::Secret(..))));
    assert!(has(|key| matches!(key, FactKey::SigningKeys)));
    assert!(has(|key| matches!(key, FactKey::AuthorizationCode(_))));
}

#[tokio::test]
async fn a_change_without_a_key_rests_on_the_keyring() {
    let (_dir, authority) = opened();
    let anonymous = authority.session(Caller::Anonymous);
    let snapshot = anonymous.snapshot().await.expect("readable");
    let options = WriteOptions::default();
    // A keyring that changed between two reads leaves both as preconditions, so the commit conflicts.
    let mut reader = super::Reader::new(&anonymous, snapshot);
    let new = NewKey {
        name: Name::parse("ops").expect("a name"),
        roles: Roles::NONE.with(Role::Operator),
        companies: vec![],
        certificate: None,
        certificate_only: false,
        expires_at: None,
    };
    authority.internal_session("test").create_key(&new, &options).await.expect("created");
    assert!(reader.keyring().is_err(), "a caller without a key is no longer accepted");
    let (_, _, reads) = reader.into_parts();
    let at = Some(authority.facts.keyring().revision);
    assert_eq!(reads, [(FactKey::Keyring, None), (FactKey::Keyring, at)]);
}

#[tokio::test]
async fn a_request_of_an_earlier_version_is_answered_from_the_change_log() {
    let (_dir, authority) = opened();
    let session = authority.session(Caller::Anonymous);
    let options = WriteOptions::default();
    session.apply_catalog(CATALOG, &options).await.expect("applied");
    let new = NewCompany { id: acme(), display_name: String::new(), scopes: None };
    session.create_company(&new, &options).await.expect("created");
    let new = NewCredential {
        company: acme(),
        id: app(),
        label: String::new(),
        scopes: vec![scope("b")],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    let created = session.create_credential(&new, &options).await.expect("created");
    let secret = session.create_secret(&acme(), &app(), &options).await.expect("created");
    let legacy = |revision| StoredResult { body: [0; 32], revision, result: None };
    let (written, detail) =
        session.repeated_without::<()>(legacy(created.revision)).await.expect("answered");
    assert_eq!((written.revision, written.added), (created.revision, vec![scope("b")]));
    assert_eq!(detail, ResultDetail::None);
    let (_, detail) =
        session.repeated_without::<()>(legacy(secret.revision)).await.expect("answered");
    assert_eq!(detail.into_id(), secret.id);
    // The log no longer has the creation of a key: the response has the revision alone.
    let gone = legacy(Revision(99));
    let key = session.key_repeated(gone).await.expect("answered");
    assert_eq!((key.id, key.key, key.revision), (None, None, Revision(99)));
}
