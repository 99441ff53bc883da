//! Change: what one commit changed, who made it and why. The audit log and the change stream
//! consist of changes.
//!
//! Not here: the facts after the change; an [`Edit`](super::edit::Edit) holds them until the commit.

use std::fmt;

use jiff::Timestamp;

use super::ceiling::RemovedEntry;
use super::id::{CompanyId, CredentialId, UserId};
use super::revision::Revision;
use super::scope::Scope;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// The kind of a change: the name of the RPC that made it, if one did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ChangeKind {
            $($(#[$doc])* $kind,)*
        }

        impl ChangeKind {
            /// Its name, on the wire and on disk: that of the RPC.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The kind of this name.
            #[must_use]
            pub fn of(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

kinds! {
    /// A catalog was applied.
    ApplyCatalog,
    /// A company was created.
    CreateCompany,
    /// A company's fields changed.
    UpdateCompany,
    /// A company was deleted.
    DeleteCompany,
    /// A ceiling gained scopes.
    AddCompanyScopes,
    /// A ceiling lost scopes.
    RestrictCompanyScopes,
    /// A credential was created.
    CreateCredential,
    /// A credential's fields changed.
    UpdateCredential,
    /// A credential was deleted.
    DeleteCredential,
    /// A credential was given scopes.
    GrantScopes,
    /// A credential lost scopes.
    RevokeScopes,
    /// A credential's scopes were replaced.
    ReplaceScopes,
    /// A credential's scopes were set to the ceiling.
    ResetScopes,
    /// A user was created, or its roles replaced.
    PutUser,
    /// A user was deleted.
    DeleteUser,
    /// A consent was given, or replaced.
    PutConsent,
    /// A consent was given, or replaced, and an authorization code was created.
    CreateAuthorizationCode,
    /// A client redeemed an authorization code, or tried to, by no RPC.
    RedeemAuthorizationCode,
    /// A consent was withdrawn.
    DeleteConsent,
    /// Grants that a restriction had made dormant were reactivated.
    RestoreGrants,
    /// A secret was created.
    CreateSecret,
    /// A secret was deleted.
    DeleteSecret,
    /// A caller of scopegate was given a key.
    CreateKey,
    /// A caller's key was revoked.
    DeleteKey,
    /// A client revoked one of its tokens, by no RPC.
    RevokeToken,
    /// All tokens of a credential were revoked.
    RevokeTokens,
    /// The key that signs tokens was made, published or replaced.
    RotateSigningKey,
    /// A key that signs or has signed tokens was deleted.
    DeleteSigningKey,
    /// The store was restored from a backup, by no RPC. Changes after the backup are lost, and
    /// revisions jump to this one.
    RestoreBackup,
    /// An operator set the store's time back to the machine's clock, by no RPC. Grants and keys
    /// that had expired by the store's time may be valid again.
    AcceptClock,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The author of a change (D18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The caller of scopegate.
    pub actor: String,
    /// The person or system on whose behalf the caller says to act.
    pub on_behalf_of: String,
    /// The reason that the caller gives.
    pub reason: String,
}

/// A committed change (D18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that it made.
    pub revision: Revision,
    /// When it was committed.
    pub time: Timestamp,
    /// The author.
    pub author: Author,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The company that it concerns; none for the catalog.
    pub company: Option<CompanyId>,
    /// The credential that it concerns.
    pub credential: Option<CredentialId>,
    /// The user that it concerns.
    pub user: Option<UserId>,
    /// Scopes that entered the set, or became active in it, sorted.
    pub added: Vec<Scope>,
    /// Scopes that left the set, sorted.
    pub removed: Vec<Scope>,
    /// Entries that it removed from a ceiling.
    pub displaced: Vec<RemovedEntry>,
    /// Other fields that changed.
    pub fields: Vec<FieldChange>,
}

/// A field's value before and after, as JSON; empty if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// Its path in the resource.
    pub field: String,
    /// Its value before.
    pub before: String,
    /// Its value after.
    pub after: String,
}

impl FieldChange {
    fn if_changed(field: &str, before: String, after: String) -> Option<Self> {
        (before != after).then(|| Self { field: field.to_owned(), before, after })
    }

    /// A text of a new resource, if it has one.
    #[must_use]
    pub fn new_text(field: &str, after: &str) -> Option<Self> {
        let after = if after.is_empty() { String::new() } else { json(after) };
        Self::if_changed(field, String::new(), after)
    }

    /// Removed names, and new or changed names; `None` if there are neither.
    #[must_use]
    pub fn names(field: &str, removed: &str, now: &str) -> Option<Self> {
        let text = |names: &str| if names.is_empty() { String::new() } else { json(names) };
        Self::if_changed(field, text(removed), text(now))
    }

    /// A flag of a new resource that differs from the default.
    #[must_use]
    pub fn new_flag(field: &str, after: bool) -> Self {
        Self { field: field.to_owned(), before: String::new(), after: after.to_string() }
    }

    /// A text of a deleted resource, if it has one.
    #[must_use]
    pub fn gone_text(field: &str, before: &str) -> Option<Self> {
        let before = if before.is_empty() { String::new() } else { json(before) };
        Self::if_changed(field, before, String::new())
    }

    /// A flag of a deleted resource.
    #[must_use]
    pub fn gone_flag(field: &str, before: bool) -> Self {
        Self { field: field.to_owned(), before: before.to_string(), after: String::new() }
    }

    /// The change of a text, if it changed.
    #[must_use]
    pub fn text(field: &str, before: &str, after: &str) -> Option<Self> {
        Self::if_changed(field, json(before), json(after))
    }

    /// The change of a list, if it changed; a new resource has no list before.
    #[must_use]
    pub fn list<T: fmt::Display>(field: &str, before: Option<&[T]>, after: &[T]) -> Option<Self> {
        let json = |items: &[T]| {
            let items: Vec<_> = items.iter().map(|item| self::json(&item.to_string())).collect();
            format!("[{}]", items.join(","))
        };
        Self::if_changed(field, before.map(json).unwrap_or_default(), json(after))
    }

    /// The change of a flag, if it changed.
    #[must_use]
    pub fn flag(field: &str, before: bool, after: bool) -> Option<Self> {
        Self::if_changed(field, before.to_string(), after.to_string())
    }

    /// The change of a time, if it changed.
    #[must_use]
    pub fn time(field: &str, before: Option<Timestamp>, after: Option<Timestamp>) -> Option<Self> {
        Self::if_changed(field, Self::moment(before), Self::moment(after))
    }

    /// A time as JSON.
    #[must_use]
    pub fn moment(time: Option<Timestamp>) -> String {
        time.map(|time| format!("\"{time}\"")).unwrap_or_default()
    }
}

/// A text as JSON writes it (RFC 8259 section 7).
fn json(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::id::Name;

    #[test]
    fn texts_are_written_as_json() {
        let text = "a \"b\\c\u{1}\u{1f}e\u{301}\u{200b}";
        assert_eq!(json(text), "\"a \\\"b\\\\c\\u0001\\u001fe\u{301}\u{200b}\"");
    }

    #[test]
    fn d18_a_changed_field_has_its_value_before_and_after() {
        let values = |change: Option<FieldChange>| change.map(|c| (c.field, c.before, c.after));
        let change = |before: &str, after: &str| {
            Some(("label".to_owned(), before.to_owned(), after.to_owned()))
        };
        assert_eq!(values(FieldChange::text("label", "a", "")), change("\"a\"", "\"\""));
        assert_eq!(values(FieldChange::text("label", "a", "a")), None);
        assert_eq!(values(FieldChange::new_text("label", "a")), change("", "\"a\""));
        assert_eq!(values(FieldChange::new_text("label", "")), None);
        assert_eq!(values(FieldChange::gone_text("label", "a")), change("\"a\"", ""));
        assert_eq!(values(FieldChange::gone_text("label", "")), None);
        assert_eq!(values(FieldChange::flag("label", true, false)), change("true", "false"));
        assert_eq!(values(FieldChange::flag("label", true, true)), None);
        assert_eq!(values(Some(FieldChange::new_flag("label", false))), change("", "false"));
        assert_eq!(values(Some(FieldChange::gone_flag("label", true))), change("true", ""));
        let names = ["b", "a"].map(|name| Name::parse(name).expect("a name"));
        let listed = "[\"b\",\"a\"]";
        assert_eq!(values(FieldChange::list("label", None, &names)), change("", listed));
        assert_eq!(values(FieldChange::list("label", Some(&names), &[])), change(listed, "[]"));
        assert_eq!(values(FieldChange::list("label", Some(&names), &names)), None);
        let end = Some(Timestamp::UNIX_EPOCH);
        let written = "\"1970-01-01T00:00:00Z\"";
        assert_eq!(values(FieldChange::time("label", None, end)), change("", written));
        assert_eq!(values(FieldChange::time("label", end, end)), None);
    }
}
