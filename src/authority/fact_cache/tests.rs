use super::*;
use crate::authority::change_stamps::ChangeStamps;
use crate::authority::l1_cache;

// Tests of the L1 cache. They are here because `l1_cache.rs` is also compiled into a test that uses
// the locks of a test scheduler.

fn entry(number: u64) -> Entry<u64> {
    Entry { since: Revision(1), fact: Some(number) }
}

#[test]
fn l1_cache_grows_up_to_its_capacity() {
    let (stamps, at) = (ChangeStamps::new(1 << 10), Revision(1));
    let all = 0..40_000_u64;
    for (capacity, least) in [(1 << 16, 30_000), (1 << 12, 3_000)] {
        let l1 = l1_cache::L1Cache::<u64, u64>::new(capacity);
        for number in all.clone() {
            l1.insert(stamps.hash(&number), || number, entry(number), at);
        }
        let found = all.clone().filter_map(|number| {
            let found = l1.get(&stamps, at, stamps.hash(&number), &number)?;
            assert_eq!(found, number);
            Some(found)
        });
        let found = found.count();
        assert!((least..=capacity).contains(&found), "{found} of {capacity}");
    }
}

#[test]
fn facts_that_are_used_again_stay_longer() {
    let (stamps, at) = (ChangeStamps::new(1), Revision(1));
    let l1 = l1_cache::L1Cache::<u64, u64>::new(4);
    let get = |number: u64| l1.get(&stamps, at, number << 32, &number);
    // Fact 0 is inserted last into a full bucket, where the next insertion would displace it.
    for number in (0..5_u64).rev() {
        l1.insert(number << 32, || number, entry(number), at);
    }
    for number in 5..1_000_u64 {
        assert_eq!(get(0), Some(0));
        l1.insert(number << 32, || number, entry(number), at);
        assert_eq!(get(number), Some(number));
    }
    // A new entry of a key replaces the older one.
    l1.insert(0, || 0, Entry { since: Revision(1), fact: Some(7) }, at);
    assert_eq!(get(0), Some(7));
}

#[test]
fn keys_with_equal_hashes_are_distinguished() {
    let (stamps, at) = (ChangeStamps::new(1), Revision(1));
    let l1 = l1_cache::L1Cache::<u64, u64>::new(4);
    for number in 0..3 {
        l1.insert(5, || number, entry(number), at);
    }
    for number in 0..3 {
        assert_eq!(l1.get(&stamps, at, 5, &number), Some(number));
    }
    assert_eq!(l1.get(&stamps, at, 5, &3), None);
}
