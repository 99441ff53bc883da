//! Tokens of issuers: no text makes the reader of key sets or of tokens panic, and none verifies but
//! those that a key has signed. What is verified says what its JSON says to another reader.
//!
//! The input is a key set, and a token, and the header and the claims of a token that is signed here:
//! its first line and the rest.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};
use scopegate::policy::catalog::issuer::{
    Algorithm, ClaimValue, Companies, Issuer, KeySource, PartySource, UserSource,
};
use scopegate::policy::cause::DenialCause;
use scopegate::policy::id::{CompanyId, CredentialId, UserId};
use scopegate::policy::token::key_set::{KeySet, MAX_KEYS};
use scopegate::policy::token::unverified_token::{UnverifiedToken, VerifyError};
use serde_json::Value;

/// The keys of RFC 7515 appendices A.2 and A.3, whose private halves are not used here.
const FOREIGN_KEYS: &str = include_str!("../corpus/jwt/keys");
/// The two tokens of these appendices.
const FOREIGN_TOKENS: [&str; 2] =
    [include_str!("../corpus/jwt/rsa"), include_str!("../corpus/jwt/ecdsa")];

struct Idp {
    pair: Ed25519KeyPair,
    keys: KeySet,
    foreign_keys: KeySet,
    issuer: Arc<Issuer>,
}

static IDP: LazyLock<Idp> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let point = BASE64.encode(pair.public_key());
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{point}"}}]}}"#);
    let keys = |text: &str| KeySet::parse(text.as_bytes()).expect("a set").keys;
    let party = |claim: &str| (vec![claim.into()], "".into());
    let ((company, no), (credential, prefix)) = (party("tid"), party("client_id"));
    let issuer = Issuer {
        name: "joe".into(),
        aliases: BTreeSet::new(),
        keys: KeySource::File("joe".into()),
        algorithms: Algorithm::ALL.into(),
        audiences: None,
        require: BTreeMap::new(),
        without_aud: None,
        company: PartySource::Claim { claims: company, prefix: no },
        companies: Companies::Any,
        credential: PartySource::Claim { claims: credential, prefix },
        user: UserSource::Claim {
            claim: "sub".into(),
            prefix: "u|".into(),
            unless: BTreeMap::from([("gty".into(), ClaimValue::Number(1))]),
        },
        scope_claims: vec!["scope".into(), "scp".into()],
        types: None,
        clock_skew: 30,
        refresh: 300,
        refetch_after: 10,
        usable_for: 86400,
        confirmed_by_caller: false,
    };
    Idp { pair, keys: keys(&set), foreign_keys: keys(FOREIGN_KEYS), issuer: Arc::new(issuer) }
});

/// A set that is read has the keys that it counts.
fn key_set(bytes: &[u8]) {
    let Ok(set) = KeySet::parse(bytes) else { return };
    assert!(set.keys.iter().len() + set.skipped.len() <= MAX_KEYS);
    for key in set.keys.iter() {
        assert!(set.keys.has(&key.thumbprint));
        assert!(set.keys.with_id(key.id.as_deref()).any(|own| own == key));
        assert!(Algorithm::ALL.into_iter().any(|algorithm| key.is_for(algorithm)));
    }
    assert!(set.keys == KeySet::parse(bytes).expect("a set").keys);
}

/// The signature of no text but the known ones is right. Those have no company, which is told only after
/// the signature.
fn forged(text: &str) {
    use DenialCause::{
        AlgorithmNotAllowed, IssuerUnknown, KeyUnknown, MalformedClaim, SignatureWrong,
    };
    let Ok(token) = UnverifiedToken::parse(text) else { return };
    assert!(text.matches('.').count() == 2, "not of three parts");
    let error = token.verify(&IDP.issuer, &IDP.foreign_keys).expect_err("without a company");
    let is_known = FOREIGN_TOKENS.iter().any(|known| known.trim_end() == text);
    match error {
        VerifyError::Invalid(MalformedClaim) => assert!(is_known, "forged"),
        VerifyError::UnknownKey
        | VerifyError::Invalid(IssuerUnknown | AlgorithmNotAllowed | KeyUnknown | SignatureWrong) =>
        {
            assert!(!is_known, "{error:?}");
        }
        VerifyError::Invalid(other) => panic!("{other:?} is told before the signature"),
    }
}

/// A token with a right signature is valid only if another reader sees the same in it.
fn signed(header: &str, claims: &str) {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = IDP.pair.sign(signed.as_bytes());
    let text = format!("{signed}.{}", BASE64.encode(signature));
    let Ok(token) = UnverifiedToken::parse(&text) else { return };
    let verified = match token.verify(&IDP.issuer, &IDP.keys) {
        Ok(verified) => verified,
        Err(VerifyError::UnknownKey | VerifyError::Invalid(_)) => return,
    };
    let header: Value = serde_json::from_str(header).expect("JSON");
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    let text = |name: &str| claims[name].as_str().expect("a string");
    assert!(matches!(header["alg"].as_str(), Some("EdDSA" | "Ed25519")));
    assert!(["crit", "b64", "zip", "enc"].iter().all(|name| header.get(name).is_none()));
    assert!(claims.get("cnf").is_none());
    assert_eq!(text("iss"), "joe");
    assert_eq!(verified.company.as_ref().map(CompanyId::as_str), Some(text("tid")));
    assert_eq!(verified.credential.as_ref().map(CredentialId::as_str), Some(text("client_id")));
    let end = verified.facts.expires_at.expect("an end").as_second();
    assert!(end >= 0 && end as f64 <= claims["exp"].as_f64().expect("a number"));
    if let Some(start) = verified.facts.not_before {
        assert!(start.as_second() >= 0, "of {}", claims["nbf"]);
    }
    assert!(verified.facts.user.is_none() || verified.client_subject.is_none());
    match verified.facts.user.as_ref().or(verified.client_subject.as_ref()) {
        Some(user) => assert_eq!(UserId::as_str(user), format!("u|{}", text("sub"))),
        None => assert_eq!(claims["gty"], 1),
    }
    for scope in &verified.facts.scopes {
        let claim = claims.get("scope").or(claims.get("scp")).expect("a claim").to_string();
        assert!(claim.contains(scope.as_str()), "{} is not in {claim}", scope.as_str());
    }
    assert!(verified.bytes() < 1 << 20);
    assert_eq!(
        token.verify(&IDP.issuer, &IDP.foreign_keys).expect_err("of no such key"),
        VerifyError::UnknownKey
    );
}

fuzz_target!(|bytes: &[u8]| {
    key_set(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    forged(text.trim_end_matches('\n'));
    let (header, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"EdDSA"}"#, text));
    signed(header, claims);
});
