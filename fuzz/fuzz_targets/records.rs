//! Records: bytes from the disk are rejected as corrupt, or decode to a fact that encodes to an
//! equal record. The first byte chooses the kind of record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::policy::consent::Parties;
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::revision::Revision;
use scopegate::store::{Fact, FactKey, fuzz};

/// The comparable form of a fact. The scope numbers of a catalog have no order.
fn written(fact: &Fact) -> String {
    let Fact::Catalog(catalog) = fact else { return format!("{fact:?}") };
    let (ids, last) = catalog.scope_id_map();
    let ids: std::collections::BTreeMap<_, _> = ids.iter().collect();
    format!("{} {ids:?} {last} {:?} {}", catalog.yaml, catalog.file_digest, catalog.revision)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let own = Revision(5);
    let key = match kind % 13 {
        0 => FactKey::Catalog,
        1 => FactKey::Keyring,
        2 => FactKey::Company(CompanyId::parse("acme").expect("an id")),
        3 => FactKey::Credential(own, CredentialId::parse("hr").expect("an id")),
        4 => FactKey::Impact(own),
        5 => FactKey::User(own, UserId::parse("ada").expect("an id")),
        6 => FactKey::Secret(own, Name::parse("0123").expect("a name")),
        7 => FactKey::Consent(Parties { company: own, user: own, credential: own }),
        12 => FactKey::SigningKeys,
        10 => FactKey::SecretOwner(Name::parse("0123").expect("a name")),
        8 => {
            let Some(change) = fuzz::change(own, bytes) else { return };
            let again = fuzz::change(own, &fuzz::change_bytes(&change));
            assert_eq!(again.as_ref(), Some(&change));
            return;
        }
        9 => {
            let Some(stored) = fuzz::result(bytes) else { return };
            let Some(result) = stored.result.clone() else { return };
            let again = fuzz::result(&fuzz::result_bytes(stored.body, result));
            assert_eq!(again, Some(stored));
            return;
        }
        _ => {
            assert!(fuzz::keys_are_read_as_written(bytes));
            return;
        }
    };
    let Some(fact) = fuzz::fact(&key, Revision(9), bytes) else { return };
    assert_eq!(fact.revision(), Revision(9));
    let kept = fuzz::fact_bytes(&fact);
    let again = fuzz::fact(&key, Revision(9), &kept).expect("what is written reads");
    assert_eq!(written(&again), written(&fact));
});
