//! Render: from values of the domain to messages.
//!
//! Not here: the responses to changes, which are made of these messages; each transport has them.

use jiff::Timestamp;

use crate::authority::api_keys::KeyView;
use crate::authority::consents::{ConsentId, ConsentView};
use crate::authority::impact::Affected;
use crate::authority::secrets::Verification;
use crate::authority::{Answer, ProvenClient};
use crate::policy::caller::Caller;
use crate::policy::catalog::Reach;
use crate::policy::cause::Cause;
use crate::policy::change::Change;
use crate::policy::company::CompanyView;
use crate::policy::credential::{CredentialView, GrantState};
use crate::policy::decision::{Explanation, Layer, Verdict};
use crate::policy::id::CompanyId;
use crate::policy::reason::Reason;
use crate::policy::role::Role;
use crate::policy::scope::Scope;
use crate::policy::token::signing_keys::{KeyState, SigningKey};
use crate::policy::user::User;
use crate::proto;

/// The response to a check.
#[must_use]
pub fn check(answer: Answer) -> proto::CheckResponse {
    let revision = answer.revision.0;
    let (company_id, credential_id, user_id) = match answer.client {
        None => Default::default(),
        Some(ProvenClient { company, credential, user }) => {
            (company.into(), credential.into(), user.map(String::from).unwrap_or_default())
        }
    };
    match answer.verdict {
        Verdict::Allowed { reach } => proto::CheckResponse {
            decision: proto::Decision::Allowed.into(),
            reason: proto::Reason::Allowed.into(),
            missing_scopes: vec![],
            reach: self::reach(reach).into(),
            http_status: 200,
            error: String::new(),
            message: String::new(),
            revision,
            company_id,
            credential_id,
            user_id,
        },
        Verdict::Denied { reason, fault, missing } => proto::CheckResponse {
            decision: proto::Decision::Denied.into(),
            reason: self::reason(reason).into(),
            missing_scopes: names(&missing),
            reach: proto::Reach::Unspecified.into(),
            http_status: reason.http_status().into(),
            error: reason.error().to_owned(),
            message: Cause { reason, fault }.message().to_owned(),
            revision,
            company_id,
            credential_id,
            user_id,
        },
    }
}

fn reach(reach: Reach) -> proto::Reach {
    match reach {
        Reach::All => proto::Reach::All,
        Reach::Own => proto::Reach::Own,
    }
}

pub(crate) fn explanation(explanation: Explanation) -> proto::ScopeExplanation {
    let layers = explanation.layers.into_iter().map(|(layer, verdict)| proto::LayerVerdict {
        layer: match layer {
            Layer::Company => proto::Layer::Company.into(),
            Layer::Credential => proto::Layer::Credential.into(),
            Layer::Token => proto::Layer::Token.into(),
            Layer::Consent => proto::Layer::Consent.into(),
            Layer::User => proto::Layer::User.into(),
        },
        passed: verdict.is_ok(),
        reason: verdict
            .map_or_else(|cause| reason(cause.reason), |_| proto::Reason::Allowed)
            .into(),
        detail: match verdict {
            Ok(Reach::All) => "This layer lets the scope through.".to_owned(),
            Ok(Reach::Own) => {
                "This layer lets the scope through for the user's own records.".to_owned()
            }
            Err(cause) => cause.detail().to_owned(),
        },
    });
    proto::ScopeExplanation { scope: explanation.scope.to_string(), layers: layers.collect() }
}

pub(crate) fn effective((scope, reach): (Scope, Reach)) -> proto::EffectiveScope {
    proto::EffectiveScope { scope: scope.to_string(), reach: self::reach(reach).into() }
}

pub(crate) fn user(user: User, company: &CompanyId, etag: String) -> proto::User {
    proto::User {
        company_id: company.to_string(),
        user_id: user.id.to_string(),
        roles: user.roles.iter().map(ToString::to_string).collect(),
        etag,
        revision: user.revision.0,
    }
}

pub(crate) fn consent(view: ConsentView, id: &ConsentId, etag: String) -> proto::Consent {
    proto::Consent {
        company_id: id.company.to_string(),
        credential_id: id.credential.to_string(),
        user_id: id.user.to_string(),
        scopes: names(&view.scopes),
        etag,
        revision: view.consent.revision.0,
    }
}

pub(crate) fn reason(reason: Reason) -> proto::Reason {
    match reason {
        Reason::EndpointUnknown => proto::Reason::EndpointUnknown,
        Reason::CompanyUnknown => proto::Reason::CompanyUnknown,
        Reason::CompanyDisabled => proto::Reason::CompanyDisabled,
        Reason::CredentialUnknown => proto::Reason::CredentialUnknown,
        Reason::CredentialDisabled => proto::Reason::CredentialDisabled,
        Reason::CredentialExpired => proto::Reason::CredentialExpired,
        Reason::TokenRequired => proto::Reason::TokenRequired,
        Reason::TokenUnverifiable => proto::Reason::TokenUnverifiable,
        Reason::TokenInvalid => proto::Reason::TokenInvalid,
        Reason::TokenExpired => proto::Reason::TokenExpired,
        Reason::TokenAudienceMismatch => proto::Reason::TokenAudienceMismatch,
        Reason::UserRequired => proto::Reason::UserRequired,
        Reason::UserUnknown => proto::Reason::UserUnknown,
        Reason::ScopeUnknown => proto::Reason::ScopeUnknown,
        Reason::ScopeNotInCompany => proto::Reason::ScopeNotInCompany,
        Reason::ScopeNotGranted => proto::Reason::ScopeNotGranted,
        Reason::GrantDormant => proto::Reason::GrantDormant,
        Reason::GrantExpired => proto::Reason::GrantExpired,
        Reason::ScopeNotInToken => proto::Reason::ScopeNotInToken,
        Reason::ScopeNotConsented => proto::Reason::ScopeNotConsented,
        Reason::UserLacksPermission => proto::Reason::UserLacksPermission,
        Reason::NotRecordOwner => proto::Reason::NotRecordOwner,
    }
}

pub(crate) fn names(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

pub(crate) fn company(view: CompanyView, etag: String) -> proto::Company {
    let CompanyView { company, ceiling } = view;
    proto::Company {
        company_id: company.id.to_string(),
        display_name: company.display_name,
        enabled: company.enabled,
        scopes: ceiling
            .into_iter()
            .map(|(scope, added_at)| proto::CeilingScope {
                scope: scope.to_string(),
                added_at_revision: added_at.0,
            })
            .collect(),
        etag,
        revision: company.revision.0,
        create_time: Some(stamp(company.create_time)),
        update_time: Some(stamp(company.update_time)),
    }
}

pub(crate) fn key(view: KeyView, etag: String) -> proto::Key {
    let KeyView { key, last_used, expired } = view;
    proto::Key {
        key_id: key.id.to_string(),
        name: key.name.to_string(),
        roles: key.roles.iter().map(|role| self::role(role).into()).collect(),
        company_ids: key.companies.iter().map(ToString::to_string).collect(),
        certificate: key.certificate.as_deref().unwrap_or_default().to_owned(),
        certificate_only: key.hash.is_none(),
        expires_at: key.expires_at.map(stamp),
        create_time: Some(stamp(key.create_time)),
        last_used_time: last_used.map(stamp),
        etag,
        revision: key.created_at.0,
        expired,
    }
}

pub(crate) fn caller(caller: &Caller) -> proto::WhoAmIResponse {
    match caller {
        Caller::Key(key) => proto::WhoAmIResponse {
            key_id: key.id.to_string(),
            name: key.name.to_string(),
            roles: key.roles.iter().map(|role| role.to_string()).collect(),
            company_ids: key.companies.iter().map(ToString::to_string).collect(),
            expires_at: key.expires_at.map(stamp),
        },
        Caller::Internal | Caller::Anonymous => proto::WhoAmIResponse {
            // It may do everything, and so may an operator.
            roles: vec![Role::Operator.to_string()],
            ..proto::WhoAmIResponse::default()
        },
    }
}

pub(super) fn role(role: Role) -> proto::Role {
    match role {
        Role::Service => proto::Role::Service,
        Role::CompanyAdmin => proto::Role::CompanyAdmin,
        Role::Identity => proto::Role::Identity,
        Role::Operator => proto::Role::Operator,
        Role::Auditor => proto::Role::Auditor,
        Role::Backup => proto::Role::Backup,
        Role::Restrictor => proto::Role::Restrictor,
        Role::KeyAdmin => proto::Role::KeyAdmin,
    }
}

pub(crate) fn credential(view: CredentialView, etag: String) -> proto::Credential {
    let CredentialView { credential, company, grants, last_seen, expired } = view;
    let active = grants.iter().filter(|(_, state, _)| *state == GrantState::Active);
    let effective_scopes = active.map(|(scope, ..)| scope.to_string()).collect();
    proto::Credential {
        company_id: company.to_string(),
        credential_id: credential.id.to_string(),
        label: credential.label,
        enabled: credential.enabled,
        expires_at: credential.expires_at.map(stamp),
        grants: grants
            .into_iter()
            .map(|(scope, state, grant)| proto::Grant {
                scope: scope.to_string(),
                state: match state {
                    GrantState::Active => proto::GrantState::Active.into(),
                    GrantState::Dormant => proto::GrantState::Dormant.into(),
                    GrantState::Expired => proto::GrantState::Expired.into(),
                },
                granted_at_revision: grant.granted_at.0,
                expires_at: grant.expires_at.map(stamp),
            })
            .collect(),
        effective_scopes,
        secret_ids: credential.secrets.iter().map(ToString::to_string).collect(),
        last_seen_time: last_seen.map(stamp),
        etag,
        revision: credential.revision.0,
        create_time: Some(stamp(credential.create_time)),
        update_time: Some(stamp(credential.update_time)),
        expired,
        redirect_uris: credential.redirect_uris.iter().map(ToString::to_string).collect(),
        tokens_valid_from: credential.revoked_tokens.issued_before.map(stamp),
    }
}

pub(crate) fn signing_key(key: &SigningKey, etag: String) -> proto::SigningKey {
    proto::SigningKey {
        key_id: key.id.to_string(),
        state: match key.state {
            KeyState::Next => proto::SigningKeyState::Next.into(),
            KeyState::Current => proto::SigningKeyState::Current.into(),
            KeyState::Previous => proto::SigningKeyState::Previous.into(),
        },
        jwk: key.jwk(),
        create_time: Some(stamp(key.create_time)),
        state_time: Some(stamp(key.state_time)),
        etag,
        revision: key.created_at.0,
    }
}

pub(crate) fn affected(affected: Affected) -> proto::AffectedCredential {
    proto::AffectedCredential {
        credential_id: affected.id.to_string(),
        label: affected.label,
        enabled: affected.enabled,
        scopes: names(&affected.scopes),
        last_seen_time: affected.last_seen.map(stamp),
        expired: affected.ended.is_some(),
    }
}

pub(crate) fn verification(verification: Verification) -> proto::VerifySecretResponse {
    match verification {
        Verification::Wrong => proto::VerifySecretResponse {
            verified: false,
            credential_id: String::new(),
            secret_id: String::new(),
            reason: proto::Reason::CredentialUnknown.into(),
            company_id: String::new(),
        },
        Verification::Right { company, credential, secret, against, .. } => {
            proto::VerifySecretResponse {
                verified: against.is_none(),
                credential_id: credential.to_string(),
                secret_id: secret.to_string(),
                reason: against.map_or(proto::Reason::Allowed, reason).into(),
                company_id: company.to_string(),
            }
        }
    }
}

pub(crate) fn change(change: Change) -> proto::Change {
    proto::Change {
        revision: change.revision.0,
        time: Some(stamp(change.time)),
        actor: change.author.actor,
        reason: change.author.reason,
        kind: change.kind.name().to_owned(),
        company_id: change.company.map(|id| id.to_string()).unwrap_or_default(),
        credential_id: change.credential.map(|id| id.to_string()).unwrap_or_default(),
        user_id: change.user.map(|id| id.to_string()).unwrap_or_default(),
        added_scopes: names(&change.added),
        removed_scopes: names(&change.removed),
        on_behalf_of: change.author.on_behalf_of,
        fields: change
            .fields
            .into_iter()
            .map(|f| proto::FieldChange { field: f.field, before: f.before, after: f.after })
            .collect(),
    }
}

pub(crate) fn stamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    prost_types::Timestamp { seconds, nanos }.normalized()
}
