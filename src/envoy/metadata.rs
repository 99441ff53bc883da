//! Metadata: the description of a decision for Envoy's access log and for its later filters.
//!
//! Not here: what it describes; see [`crate::gateway::response::Description`].

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::authority::ProvenClient;
use crate::gateway::response::Description;
use crate::wire::names::reason_name;

/// The most scopes that are named: a log of Envoy has the description in a line.
const MAX_SCOPES: usize = 100;

/// The description in Envoy's form. A revision is text: a number of 64 bits has no place in it.
pub(super) fn metadata(described: Description) -> Struct {
    let Description { reason, is_allowed, revision, client, missing, status } = described;
    let mut fields = BTreeMap::new();
    let mut set = |name: &str, kind| {
        fields.insert(name.to_owned(), Value { kind: Some(kind) });
    };
    let text = |text: &str| Kind::StringValue(text.to_owned());
    set("decision", text(if is_allowed { "ALLOWED" } else { "DENIED" }));
    match (reason, is_allowed) {
        (Some(reason), _) => set("reason", text(reason_name(reason))),
        (None, true) => set("reason", text("ALLOWED")),
        (None, false) => {}
    }
    if let Some(revision) = revision {
        set("revision", Kind::StringValue(revision.0.to_string()));
    }
    if let Some(ProvenClient { company, credential, user }) = client {
        set("company_id", Kind::StringValue(company.into()));
        set("credential_id", Kind::StringValue(credential.into()));
        if let Some(user) = user {
            set("user_id", Kind::StringValue(user.into()));
        }
    }
    if !missing.is_empty() {
        let names = missing.iter().take(MAX_SCOPES).map(|scope| text(scope.as_str()));
        let values = names.map(|name| Value { kind: Some(name) }).collect();
        set("missing_scopes", Kind::ListValue(ListValue { values }));
    }
    set("http_status", Kind::NumberValue(status.into()));
    Struct { fields }
}
