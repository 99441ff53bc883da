use std::hash::{BuildHasher, RandomState};

use equivalent::Equivalent;

use super::*;
use crate::authority::change_stamps::ChangeStamps;
use crate::authority::l1_cache;
use crate::policy::consent::Parties;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};

#[test]
fn a_key_and_its_reference_hash_alike() {
    let company = CompanyId::parse("acme").expect("an id");
    let credential = CredentialId::parse("hr").expect("an id");
    let user = UserId::parse("ada").expect("an id");
    let secret = Name::parse("0123").expect("a name");
    let of = Parties { company: Revision(7), user: Revision(8), credential: Revision(9) };
    let state = RandomState::new();
    for key in [
        FactRef::Catalog,
        FactRef::Keyring,
        FactRef::Company(&company),
        FactRef::Credential(Revision(7), &credential),
        FactRef::Impact(Revision(7)),
        FactRef::User(Revision(7), &user),
        FactRef::Consent(of),
        FactRef::Secret(Revision(7), &secret),
        FactRef::SecretOwner(&secret),
    ] {
        assert_eq!(state.hash_one(key), state.hash_one(key.to_key()), "{key:?}");
        assert!(key.equivalent(&key.to_key()));
    }
}

// Of the front, whose own file is also compiled over scheduled locks.

fn kept(number: u64) -> Entry<u64> {
    Entry { since: Revision(1), fact: Some(number) }
}

#[test]
fn a_front_grows_as_it_is_filled_and_no_further() {
    let (marks, at) = (ChangeStamps::new(1 << 10), Revision(1));
    let all = 0..40_000_u64;
    for (places, least) in [(1 << 16, 30_000), (1 << 12, 3_000)] {
        let front = l1_cache::L1Cache::<u64, u64>::new(places);
        for number in all.clone() {
            front.insert(marks.hash(&number), || number, kept(number), at);
        }
        let found = all.clone().filter_map(|number| {
            let found = front.get(&marks, at, marks.hash(&number), &number)?;
            assert_eq!(found, number);
            Some(found)
        });
        let found = found.count();
        assert!((least..=places).contains(&found), "{found} of {places}");
    }
}

#[test]
fn what_is_asked_for_again_outlasts_what_is_not() {
    let (marks, at) = (ChangeStamps::new(1), Revision(1));
    let front = l1_cache::L1Cache::<u64, u64>::new(4);
    let ask = |number: u64| front.get(&marks, at, number << 32, &number);
    // It comes last into a full set, where the next would displace it.
    for number in (0..5_u64).rev() {
        front.insert(number << 32, || number, kept(number), at);
    }
    for number in 5..1_000_u64 {
        assert_eq!(ask(0), Some(0));
        front.insert(number << 32, || number, kept(number), at);
        assert_eq!(ask(number), Some(number));
    }
    // What is kept anew of one key is in the place of the older.
    front.insert(0, || 0, Entry { since: Revision(1), fact: Some(7) }, at);
    assert_eq!(ask(0), Some(7));
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    let (marks, at) = (ChangeStamps::new(1), Revision(1));
    let front = l1_cache::L1Cache::<u64, u64>::new(4);
    for number in 0..3 {
        front.insert(5, || number, kept(number), at);
    }
    for number in 0..3 {
        assert_eq!(front.get(&marks, at, 5, &number), Some(number));
    }
    assert_eq!(front.get(&marks, at, 5, &3), None);
}
