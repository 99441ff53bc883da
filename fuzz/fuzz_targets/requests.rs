//! Requests: any bytes, parsed as any kind of request, are accepted or rejected with an error that
//! fits in the trailers. The first byte chooses the kind.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use scopegate::grpc::fuzz;
use scopegate::policy::query::Requirement;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, message)) = bytes.split_first() else { return };
    if let Some(Err(status)) = fuzz::request(*kind, message) {
        let code = status.code();
        let wrong = [tonic::Code::InvalidArgument, tonic::Code::ResourceExhausted];
        assert!(wrong.contains(&code), "{code:?}: {}", status.message());
        // Both are sent in headers, which peers limit to 8 KiB.
        assert!(status.details().len() < 4_096 && status.message().len() < 2_048, "{status:?}");
    }
    let Some(query) = fuzz::check(message) else { return };
    if let Requirement::Scopes(scopes) = &query.needs {
        let once: BTreeSet<_> = scopes.iter().collect();
        assert!(!scopes.is_empty() && scopes.len() == once.len(), "some, once each (D13)");
    }
});
