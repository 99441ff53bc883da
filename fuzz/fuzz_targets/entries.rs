//! Entries: bytes from the log of the replicas are rejected, or decode to an entry, a head or a record
//! that encodes to an equal one. The first byte chooses which of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::store::replicated::entry::Entry;
use scopegate::store::replicated::head::Head;
use scopegate::store::replicated::member_record::MemberRecord;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(entry) = Entry::decode(bytes) else { return };
            let written = entry.encode();
            let again = Entry::decode(&written).expect("what is written reads");
            assert_eq!(again.encode(), written);
            let mut named = again;
            let Some(content) = named.move_to_parts() else { return };
            let named = Entry::decode(&named.encode());
            // Only a later format has parts.
            let Ok(named) = named else { return };
            assert_eq!(named.with_parts(&content).expect("it reads").encode(), written);
        }
        1 => {
            let Ok(head) = Head::decode(bytes) else { return };
            assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
        _ => {
            let Ok(record) = MemberRecord::decode(bytes) else { return };
            assert_eq!(MemberRecord::decode(&record.encode()), Ok(record));
        }
    }
});
