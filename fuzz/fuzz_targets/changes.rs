//! Changes: after any sequence of them, what is allowed is what plain sets say. The bytes choose
//! the changes; the sets are those of `tests/integration/laws.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports, reason = "the laws are tests; only their sets are used here")]
#[path = "../../tests/integration/laws.rs"]
mod laws;

use laws::{Act, NAMES};

/// The change that the next three bytes choose.
fn act(bytes: &[u8; 3]) -> Act {
    let [kind, a, b] = bytes.map(usize::from);
    let some = || match a / NAMES.len() % 2 {
        0 => vec![a % NAMES.len()],
        _ => vec![a % NAMES.len(), b % NAMES.len()],
    };
    let end = i64::try_from(b / NAMES.len()).expect("small");
    match kind % 8 {
        0 => Act::Grant(some(), None),
        1 => Act::Grant(some(), Some(end)),
        2 => Act::Revoke(some()),
        3 => Act::Replace(some()),
        4 => {
            if a % 2 == 0 {
                Act::Reset
            } else {
                Act::Wait(end + 1)
            }
        }
        5 => Act::Restrict(some()),
        6 => Act::Add(some()),
        _ => Act::Undo(kind / 8 % 3, some()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (acts, _) = bytes.as_chunks::<3>();
    laws::what_stamps_say_is_what_plain_sets_say(acts.iter().take(60).map(act));
});
