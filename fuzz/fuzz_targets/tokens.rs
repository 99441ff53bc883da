//! Page tokens and stream cursors: any text is rejected, or is a token that the server issued for
//! this list of this store.
//!
//! The input is lines: a token, the parameter of the list, and the position to continue after.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::grpc::fuzz::{place, token};
use uuid::Uuid;

fuzz_target!(|lines: &str| {
    let mut lines = lines.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (text, own, last) = (line(), line(), line());
    let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let list = |of, text: &str| place(of, "ListChanges", &[own, "0"], text);
    // A digest of 128 bits cannot be guessed, so an accepted token was issued.
    if let Ok(Some(found)) = list(here, text) {
        assert_eq!(token(here, "ListChanges", &[own, "0"], &found), text);
    }
    if last.len() > 128 {
        return;
    }
    let made = token(here, "ListChanges", &[own, "0"], last);
    assert_eq!(list(here, &made).expect("its own token"), Some(last.to_owned()));
    assert!(list(there, &made).is_err(), "of another store");
    assert!(place(here, "WatchChanges", &[own, "0"], &made).is_err(), "of another list");
    assert!(place(here, "ListChanges", &[own, "1"], &made).is_err(), "with other parameters");
    // Ids have no zero byte, so no parameter can end early.
    if !own.contains('\0') && !text.contains('\0') && text != own {
        assert!(place(here, "ListChanges", &[text, "0"], &made).is_err(), "of {text:?}");
    }
    let mut changed = made.into_bytes();
    for at in 0..changed.len() {
        let old = changed[at];
        changed[at] = if old == b'A' { b'B' } else { b'A' };
        let text = std::str::from_utf8(&changed).expect("ASCII");
        assert!(list(here, text).is_err(), "one letter is another");
        changed[at] = old;
    }
});
