//! Record: encodes and decodes facts and changes, by the schema in `proto/scopegate/store/v1`.
//!
//! Not here: keys, and the division of long values into chunks. Bytes that do not decode are
//! corrupt.

mod write_result;

use jiff::Timestamp;
use prost::Message;
use prost_types::Timestamp as Stamp;
use uuid::Uuid;

use super::chain::Chain;
use super::error::Corrupt;
use super::{Fact, FactKey};
use crate::policy::catalog::{Catalog, ScopeIdMap};
use crate::policy::ceiling::{RemovedEntry, RestoredRange};
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::company::{Company, ImpactRevision};
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::{Credential, Grant};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::{ApiKey, Keyring};
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::revision::Revision;
use crate::policy::role::Role;
use crate::policy::scope::{Scope, ScopeId};
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::token::authorization_code::{AuthorizationCode, CodeChallenge, CodeState};
use crate::policy::token::revoked::{RevokedToken, RevokedTokens, RevokedUser, TokenId};
use crate::policy::token::signing_keys::{KeyState, SigningKey, SigningKeys};
use crate::policy::user::User;

use proto::{
    AuthorizationCodeRecord, CatalogRecord, ChangeRecord, CompanyRecord, ConsentRecord,
    CredentialRecord, FieldChangeRecord, GrantRecord, KeyRecord, KeyringRecord, PlaceRecord,
    RevokedTokenRecord, RevokedUserRecord, SecretOwnerRecord, SecretRecord, SigningKeyRecord,
    SigningKeysRecord, UserRecord,
};

pub(super) use self::write_result::{decode_result, encode_result};

pub(super) mod proto {
    include!(concat!(env!("OUT_DIR"), "/scopegate.store.v1.rs"));
}

/// Encodes a fact. Its key and its revision are stored next to it.
pub(super) fn encode(fact: &Fact) -> Vec<u8> {
    match fact {
        Fact::Catalog(catalog) => {
            let (ids, last) = catalog.scope_id_map();
            CatalogRecord {
                yaml: catalog.yaml.clone(),
                scope_names: ids.keys().map(ToString::to_string).collect(),
                scope_ids: ids.values().map(|id| id.0).collect(),
                last_scope_id: last,
                file_digest: catalog.file_digest.map(|d| d.to_vec()).unwrap_or_default(),
            }
            .encode_to_vec()
        }
        Fact::Keyring(keyring) => {
            let keys = keyring.after(None).map(|key| encode_key(key)).collect();
            KeyringRecord { keys }.encode_to_vec()
        }
        Fact::Company(company) => CompanyRecord {
            display_name: company.display_name.clone(),
            disabled: !company.enabled,
            created_at_revision: company.created_at.0,
            create_time: Some(stamp(company.create_time)),
            update_time: Some(stamp(company.update_time)),
            ceiling_scope_ids: company.ceiling.iter().map(|(scope, _)| scope.0).collect(),
            ceiling_added_at_revisions: company.ceiling.iter().map(|(_, at)| at.0).collect(),
            restored: company
                .restored
                .iter()
                .map(|(scope, ranges)| place(scope, Revision::ZERO, ranges))
                .collect(),
        }
        .encode_to_vec(),
        Fact::Credential(credential) => CredentialRecord {
            label: credential.label.clone(),
            disabled: !credential.enabled,
            expires_at: credential.expires_at.map(stamp),
            created_at_revision: credential.created_at.0,
            create_time: Some(stamp(credential.create_time)),
            update_time: Some(stamp(credential.update_time)),
            grants: credential
                .grants
                .iter()
                .map(|(scope, grant)| GrantRecord {
                    scope_id: scope.0,
                    granted_at_revision: grant.granted_at.0,
                    expires_at: grant.expires_at.map(stamp),
                })
                .collect(),
            secret_ids: credential.secrets.iter().map(ToString::to_string).collect(),
            tokens_valid_from: credential.revoked_tokens.issued_before.map(stamp),
            own_tokens_valid_from_revision: credential.revoked_tokens.own_before.0,
            revoked_tokens: credential.revoked_tokens.tokens.iter().map(revoked_token).collect(),
            revoked_users: credential.revoked_tokens.users.iter().map(revoked_user).collect(),
            redirect_uris: credential.redirect_uris.iter().map(ToString::to_string).collect(),
        }
        .encode_to_vec(),
        Fact::Impact(_) => Vec::new(),
        Fact::User(user) => UserRecord {
            roles: user.roles.iter().map(ToString::to_string).collect(),
            created_at_revision: user.created_at.0,
        }
        .encode_to_vec(),
        Fact::Secret(secret) => SecretRecord {
            credential_id: secret.credential.to_string(),
            credential_created_at_revision: secret.credential_created_at.0,
            hash: secret.hash.as_bytes().to_vec(),
        }
        .encode_to_vec(),
        Fact::SecretOwner(owner) => SecretOwnerRecord {
            company_id: owner.company.to_string(),
            company_created_at_revision: owner.company_created_at.0,
            credential_created_at_revision: owner.credential_created_at.0,
        }
        .encode_to_vec(),
        Fact::SigningKeys(keys) => {
            let keys = keys.iter().map(|key| SigningKeyRecord {
                point: key.point.to_vec(),
                state: key.state.name().to_owned(),
                created_at_revision: key.created_at.0,
                create_time: Some(stamp(key.create_time)),
                state_time: Some(stamp(key.state_time)),
            });
            SigningKeysRecord { keys: keys.collect() }.encode_to_vec()
        }
        Fact::AuthorizationCode(code) => encode_code(code).encode_to_vec(),
        Fact::Consent(consent) => {
            let scope_ids = consent.scopes.iter().map(|(scope, ())| scope.0).collect();
            ConsentRecord { scope_ids }.encode_to_vec()
        }
    }
}

/// Decodes the fact of this key, which this revision changed last.
pub(super) fn decode(key: &FactKey, revision: Revision, bytes: &[u8]) -> Result<Fact, Corrupt> {
    Ok(match key {
        FactKey::Catalog => {
            let record = CatalogRecord::decode(bytes)?;
            let mut ids = ScopeIdMap::default();
            for (name, id) in record.scope_names.into_iter().zip(record.scope_ids) {
                ids.insert(Scope::parse(name).map_err(|_| Corrupt)?, ScopeId(id));
            }
            let mut catalog =
                Catalog::from_stored(&record.yaml, ids, record.last_scope_id, revision)
                    .map_err(|_| Corrupt)?;
            catalog.file_digest = record.file_digest.try_into().ok();
            Fact::Catalog(catalog.into())
        }
        FactKey::Keyring => {
            let record = KeyringRecord::decode(bytes)?;
            let keys = record.keys.into_iter().map(decode_key);
            let keys: Vec<_> = keys.collect::<Result<_, Corrupt>>()?;
            Fact::Keyring(Keyring::new(keys, revision).into())
        }
        FactKey::Company(id) => {
            let record = CompanyRecord::decode(bytes)?;
            let stamps = record.ceiling_added_at_revisions;
            let ceiling = record.ceiling_scope_ids.into_iter().zip(stamps);
            let company = Company {
                id: id.clone(),
                display_name: record.display_name,
                enabled: !record.disabled,
                ceiling: ceiling.map(|(scope, at)| (ScopeId(scope), Revision(at))).collect(),
                restored: record
                    .restored
                    .into_iter()
                    .map(|place| (ScopeId(place.scope_id), ranges(&place)))
                    .collect(),
                created_at: Revision(record.created_at_revision),
                revision,
                create_time: moment(record.create_time)?,
                update_time: moment(record.update_time)?,
            };
            Fact::Company(company.into())
        }
        FactKey::Credential(company, id) => {
            let record = CredentialRecord::decode(bytes)?;
            let grants = record.grants.into_iter().map(|grant| {
                let granted_at = Revision(grant.granted_at_revision);
                let expires_at = grant.expires_at.map(|end| moment(Some(end))).transpose()?;
                Ok((ScopeId(grant.scope_id), Grant { granted_at, expires_at }))
            });
            let users = record.revoked_users.into_iter().map(decode_revoked_user);
            let tokens = record.revoked_tokens.into_iter().map(decode_revoked_token);
            let valid_from = record.tokens_valid_from;
            let revoked_tokens = RevokedTokens {
                issued_before: valid_from.map(|time| moment(Some(time))).transpose()?,
                own_before: Revision(record.own_tokens_valid_from_revision),
                tokens: tokens.collect::<Result<_, Corrupt>>()?,
                users: users.collect::<Result<_, Corrupt>>()?,
            };
            let credential = Credential {
                id: id.clone(),
                company: *company,
                label: record.label,
                enabled: !record.disabled,
                expires_at: record.expires_at.map(|end| moment(Some(end))).transpose()?,
                grants: grants.collect::<Result<_, Corrupt>>()?,
                secrets: names(record.secret_ids)?,
                redirect_uris: redirect_uris(&record.redirect_uris)?,
                revoked_tokens,
                created_at: Revision(record.created_at_revision),
                revision,
                create_time: moment(record.create_time)?,
                update_time: moment(record.update_time)?,
            };
            Fact::Credential(credential.into())
        }
        FactKey::Impact(company) => {
            Fact::Impact(ImpactRevision { company: *company, revision }.into())
        }
        FactKey::User(company, id) => {
            let record = UserRecord::decode(bytes)?;
            let user = User {
                id: id.clone(),
                company: *company,
                roles: names(record.roles)?,
                created_at: Revision(record.created_at_revision),
                revision,
            };
            Fact::User(user.into())
        }
        FactKey::Secret(company, id) => {
            let record = SecretRecord::decode(bytes)?;
            let secret = Secret {
                id: id.clone(),
                company: *company,
                credential: CredentialId::parse(record.credential_id).map_err(|_| Corrupt)?,
                credential_created_at: Revision(record.credential_created_at_revision),
                hash: blake3::Hash::from_slice(&record.hash).map_err(|_| Corrupt)?,
                revision,
            };
            Fact::Secret(secret.into())
        }
        FactKey::SecretOwner(id) => {
            let record = SecretOwnerRecord::decode(bytes)?;
            let owner = SecretOwner {
                secret: id.clone(),
                company: CompanyId::parse(record.company_id).map_err(|_| Corrupt)?,
                company_created_at: Revision(record.company_created_at_revision),
                credential_created_at: Revision(record.credential_created_at_revision),
                revision,
            };
            Fact::SecretOwner(owner.into())
        }
        FactKey::SigningKeys => {
            let record = SigningKeysRecord::decode(bytes)?;
            let keys = record.keys.into_iter().map(decode_signing_key);
            Fact::SigningKeys(SigningKeys::new(keys.collect::<Result<_, _>>()?, revision).into())
        }
        FactKey::AuthorizationCode(id) => {
            let record = AuthorizationCodeRecord::decode(bytes)?;
            Fact::AuthorizationCode(decode_code(id, revision, record)?.into())
        }
        FactKey::Consent(of) => {
            let record = ConsentRecord::decode(bytes)?;
            let scopes = record.scope_ids.into_iter().map(|scope| (ScopeId(scope), ())).collect();
            Fact::Consent(Consent { of: *of, scopes, revision }.into())
        }
    })
}

fn redirect_uris(texts: &[String]) -> Result<Box<[RedirectUri]>, Corrupt> {
    texts.iter().map(|uri| RedirectUri::parse(uri).map_err(|_| Corrupt)).collect()
}

fn encode_code(code: &AuthorizationCode) -> AuthorizationCodeRecord {
    let (token_id, token_expires_at) = match code.state {
        CodeState::Unused | CodeState::Refused => (vec![], None),
        CodeState::Redeemed(TokenId(id), end) => (id.to_vec(), Some(stamp(end))),
    };
    AuthorizationCodeRecord {
        hash: code.hash.as_bytes().to_vec(),
        company_created_at_revision: code.of.company.0,
        user_created_at_revision: code.of.user.0,
        credential_created_at_revision: code.of.credential.0,
        incarnation: code.incarnation.as_bytes().to_vec(),
        user_id: code.user.to_string(),
        audience: code.audience.as_ref().map(ToString::to_string).unwrap_or_default(),
        scope_ids: code.scopes.iter().map(|scope| scope.0).collect(),
        redirect_uri: code.redirect_uri.to_string(),
        code_challenge: code.challenge.0.to_vec(),
        expires_at: Some(stamp(code.expires_at)),
        used: code.state != CodeState::Unused,
        token_id,
        token_expires_at,
        created_at_revision: code.created_at.0,
    }
}

fn decode_code(
    id: &Name,
    revision: Revision,
    record: AuthorizationCodeRecord,
) -> Result<AuthorizationCode, Corrupt> {
    let state = match (record.used, record.token_expires_at) {
        (false, _) => CodeState::Unused,
        (true, None) => CodeState::Refused,
        (true, end) => {
            let token = record.token_id.try_into().map_err(|_| Corrupt)?;
            CodeState::Redeemed(TokenId(token), moment(end)?)
        }
    };
    let audience = match record.audience.as_str() {
        "" => None,
        name => Some(Name::parse(name).map_err(|_| Corrupt)?),
    };
    Ok(AuthorizationCode {
        id: id.clone(),
        hash: blake3::Hash::from_slice(&record.hash).map_err(|_| Corrupt)?,
        of: Parties {
            company: Revision(record.company_created_at_revision),
            user: Revision(record.user_created_at_revision),
            credential: Revision(record.credential_created_at_revision),
        },
        incarnation: Uuid::from_slice(&record.incarnation).map_err(|_| Corrupt)?,
        user: UserId::parse(record.user_id).map_err(|_| Corrupt)?,
        audience,
        scopes: record.scope_ids.into_iter().map(ScopeId).collect(),
        redirect_uri: RedirectUri::parse(&record.redirect_uri).map_err(|_| Corrupt)?,
        challenge: CodeChallenge(record.code_challenge.try_into().map_err(|_| Corrupt)?),
        expires_at: moment(record.expires_at)?,
        state,
        created_at: Revision(record.created_at_revision),
        revision,
    })
}

fn encode_key(key: &ApiKey) -> KeyRecord {
    KeyRecord {
        key_id: key.id.to_string(),
        name: key.name.to_string(),
        roles: key.roles.iter().map(|role| role.name().to_owned()).collect(),
        company_ids: key.companies.iter().map(ToString::to_string).collect(),
        certificate: key.certificate.as_deref().unwrap_or_default().to_owned(),
        hash: key.hash.map(|hash| hash.as_bytes().to_vec()).unwrap_or_default(),
        expires_at: key.expires_at.map(stamp),
        created_at_revision: key.created_at.0,
        create_time: Some(stamp(key.create_time)),
    }
}

fn decode_key(record: KeyRecord) -> Result<ApiKey, Corrupt> {
    // An unknown role permits nothing. Skipping it would change what the key permits, so it is an
    // error.
    let role = |name: String| Role::ALL.into_iter().find(|role| role.name() == name).ok_or(Corrupt);
    let hash = match record.hash.as_slice() {
        [] => None,
        hash => Some(blake3::Hash::from_slice(hash).map_err(|_| Corrupt)?),
    };
    let companies =
        record.company_ids.into_iter().map(|id| CompanyId::parse(id).map_err(|_| Corrupt));
    Ok(ApiKey {
        id: Name::parse(record.key_id).map_err(|_| Corrupt)?,
        name: Name::parse(record.name).map_err(|_| Corrupt)?,
        roles: record.roles.into_iter().map(role).collect::<Result<_, _>>()?,
        companies: companies.collect::<Result<_, _>>()?,
        certificate: (!record.certificate.is_empty()).then(|| record.certificate.into()),
        hash,
        expires_at: record.expires_at.map(|end| moment(Some(end))).transpose()?,
        created_at: Revision(record.created_at_revision),
        create_time: moment(record.create_time)?,
    })
}

fn revoked_token(token: &RevokedToken) -> RevokedTokenRecord {
    RevokedTokenRecord {
        token_id: token.id.0.to_vec(),
        expires_at: Some(stamp(token.expires_at)),
        user_created_at_revision: token.user.unwrap_or_default().0,
    }
}

fn decode_revoked_token(record: RevokedTokenRecord) -> Result<RevokedToken, Corrupt> {
    let user = Revision(record.user_created_at_revision);
    Ok(RevokedToken {
        id: TokenId(record.token_id.try_into().map_err(|_| Corrupt)?),
        expires_at: moment(record.expires_at)?,
        user: (user > Revision::ZERO).then_some(user),
    })
}

fn revoked_user(user: &RevokedUser) -> RevokedUserRecord {
    RevokedUserRecord {
        user_created_at_revision: user.user.0,
        before_revision: user.before.0,
        revoke_time: Some(stamp(user.revoked_at)),
    }
}

fn decode_revoked_user(record: RevokedUserRecord) -> Result<RevokedUser, Corrupt> {
    Ok(RevokedUser {
        user: Revision(record.user_created_at_revision),
        before: Revision(record.before_revision),
        revoked_at: moment(record.revoke_time)?,
    })
}

fn decode_signing_key(record: SigningKeyRecord) -> Result<SigningKey, Corrupt> {
    let point = record.point.try_into().map_err(|_| Corrupt)?;
    // An unknown state is an error: a key without its state could sign.
    let state = KeyState::parse(&record.state).ok_or(Corrupt)?;
    let create_time = moment(record.create_time)?;
    Ok(SigningKey {
        created_at: Revision(record.created_at_revision),
        create_time,
        state_time: moment(record.state_time)?,
        ..SigningKey::new(point, state, create_time)
    })
}

/// The record of a change, with the chain up to it. `chain` is the one before, and becomes that up
/// to it.
pub(super) fn chained(mut record: Vec<u8>, chain: &mut Chain) -> Vec<u8> {
    *chain = chain.next(&record);
    // The chain is at the end. The bytes before it are the record without its chain.
    let chain = ChangeRecord { chain: chain.bytes().to_vec(), ..ChangeRecord::default() };
    record.extend(chain.encode_to_vec());
    record
}

/// Encodes a change without its chain.
pub(super) fn encode_change(change: &Change) -> Vec<u8> {
    let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
    ChangeRecord {
        time: Some(stamp(change.time)),
        actor: change.author.actor.clone(),
        on_behalf_of: change.author.on_behalf_of.clone(),
        reason: change.author.reason.clone(),
        kind: change.kind.name().to_owned(),
        company_id: text(change.company.as_ref().map(CompanyId::as_str)),
        credential_id: text(change.credential.as_ref().map(CredentialId::as_str)),
        user_id: text(change.user.as_ref().map(UserId::as_str)),
        added_scopes: change.added.iter().map(ToString::to_string).collect(),
        removed_scopes: change.removed.iter().map(ToString::to_string).collect(),
        displaced: change
            .displaced
            .iter()
            .map(|removed| place(removed.scope, removed.added_at, &removed.restored))
            .collect(),
        fields: change
            .fields
            .iter()
            .map(|field| FieldChangeRecord {
                field: field.field.clone(),
                before: field.before.clone(),
                after: field.after.clone(),
            })
            .collect(),
        chain: Vec::new(),
    }
    .encode_to_vec()
}

/// Decodes a change.
pub(super) fn decode_change(revision: Revision, bytes: &[u8]) -> Result<Change, Corrupt> {
    fn id<T, E>(text: String, parse: fn(String) -> Result<T, E>) -> Result<Option<T>, Corrupt> {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some).map_err(|_| Corrupt) }
    }
    let record = ChangeRecord::decode(bytes)?;
    let scopes = |names: Vec<String>| {
        names
            .into_iter()
            .map(|name| Scope::parse(name).map_err(|_| Corrupt))
            .collect::<Result<_, _>>()
    };
    Ok(Change {
        revision,
        time: moment(record.time)?,
        author: Author {
            actor: record.actor,
            on_behalf_of: record.on_behalf_of,
            reason: record.reason,
        },
        kind: ChangeKind::of(&record.kind).ok_or(Corrupt)?,
        company: id(record.company_id, CompanyId::parse)?,
        credential: id(record.credential_id, CredentialId::parse)?,
        user: id(record.user_id, UserId::parse)?,
        added: scopes(record.added_scopes)?,
        removed: scopes(record.removed_scopes)?,
        displaced: record
            .displaced
            .iter()
            .map(|place| RemovedEntry {
                scope: ScopeId(place.scope_id),
                added_at: Revision(place.added_at_revision),
                restored: ranges(place),
            })
            .collect(),
        fields: record
            .fields
            .into_iter()
            .map(|f| FieldChange { field: f.field, before: f.before, after: f.after })
            .collect(),
    })
}

fn names(texts: Vec<String>) -> Result<Vec<Name>, Corrupt> {
    texts.into_iter().map(|text| Name::parse(text).map_err(|_| Corrupt)).collect()
}

fn place(scope: ScopeId, added_at: Revision, ranges: &[RestoredRange]) -> PlaceRecord {
    PlaceRecord {
        scope_id: scope.0,
        added_at_revision: added_at.0,
        from_revisions: ranges.iter().map(|range| range.from.0).collect(),
        to_revisions: ranges.iter().map(|range| range.to.0).collect(),
    }
}

fn ranges(place: &PlaceRecord) -> Vec<RestoredRange> {
    let ends = place.from_revisions.iter().zip(&place.to_revisions);
    ends.map(|(from, to)| RestoredRange { from: Revision(*from), to: Revision(*to) }).collect()
}

pub(super) fn stamp(time: Timestamp) -> Stamp {
    // A protobuf timestamp counts its nanoseconds forward, also before 1970.
    Stamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }.normalized()
}

pub(super) fn moment(stamp: Option<Stamp>) -> Result<Timestamp, Corrupt> {
    let stamp = stamp.ok_or(Corrupt)?;
    Timestamp::new(stamp.seconds, stamp.nanos).map_err(|_| Corrupt)
}
