//! Verification of tokens, as a law: form, header, keys, signature and claims (T11 to T17), the list of
//! RFC 8725, and the examples of the RFCs. No server is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use scopegate::policy::catalog::issuer::{
    Algorithm, ClaimValue, Companies, Issuer, KeySource, PartySource, UserSource,
};
use scopegate::policy::catalog::{Audience, ResolvedAudience};
use scopegate::policy::cause::DenialCause::{self, *};
use scopegate::policy::id::{CompanyId, CredentialId, Name, UserId};
use scopegate::policy::token::key_set::KeySet;
use scopegate::policy::token::unverified_token::{UnverifiedToken, VerifyError};
use scopegate::policy::token::{TokenAudience, VerifiedToken};
use serde_json::{Value, json};

use crate::harness::jwt::{self, ALGORITHMS, Signer, encode};

const ISSUER: &str = "https://id.example.org/";

fn issuer() -> Issuer {
    let claim = |name: &str| vec![name.into()];
    Issuer {
        name: ISSUER.into(),
        aliases: BTreeSet::from(["https://old.example.org".into()]),
        keys: KeySource::Url("https://id.example.org/jwks.json".into()),
        algorithms: Algorithm::ALL.into(),
        audiences: None,
        require: BTreeMap::new(),
        without_aud: None,
        company: PartySource::Claim { claims: claim("tid"), prefix: "".into() },
        companies: Companies::Only(BTreeSet::from([CompanyId::parse("acme").expect("an id")])),
        credential: PartySource::Claim {
            claims: vec!["client_id".into(), "azp".into()],
            prefix: "".into(),
        },
        user: UserSource::Claim { claim: "sub".into(), prefix: "".into(), unless: BTreeMap::new() },
        scope_claims: ["scope", "scp", "scopes", "permissions"].map(Into::into).into(),
        types: None,
        clock_skew: 30,
        refresh: 300,
        refetch_after: 10,
        usable_for: 86400,
        confirmed_by_caller: false,
    }
}

/// The claims of a good token, with these changes.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "api", "exp": 2_000_000_000, "iat": 1_900_000_000, "sub": "ada",
        "client_id": "app", "tid": "acme", "scope": "read write", "jti": "7f",
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims(json!({}));
    claims.as_object_mut().expect("an object").remove(name).expect("a claim");
    claims
}

fn keys<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> KeySet {
    let set = KeySet::parse(jwt::key_set(signers).as_bytes()).expect("a set");
    assert_eq!(set.skipped, []);
    set.keys
}

fn verify(text: &str, issuer: &Issuer, keys: &KeySet) -> Result<VerifiedToken, VerifyError> {
    UnverifiedToken::parse(text)?.verify(&Arc::new(issuer.clone()), keys)
}

/// An issuer with one key.
struct Idp {
    issuer: Issuer,
    signer: Signer,
    keys: KeySet,
}

impl Idp {
    fn new() -> Self {
        let signer = Signer::new("ES256", "1");
        let keys = keys([&signer]);
        Self { issuer: issuer(), signer, keys }
    }

    fn with(change: impl FnOnce(&mut Issuer)) -> Self {
        let mut idp = Self::new();
        change(&mut idp.issuer);
        idp
    }

    fn verify(&self, text: &str) -> Result<VerifiedToken, VerifyError> {
        verify(text, &self.issuer, &self.keys)
    }

    /// The token with these claims.
    #[track_caller]
    fn good(&self, claims: &Value) -> VerifiedToken {
        self.verify(&self.signer.token(claims)).expect("a good token")
    }

    /// Why a token with these claims is invalid.
    #[track_caller]
    fn fault(&self, claims: &Value) -> DenialCause {
        invalid(self.verify(&self.signer.token(claims)))
    }

    /// What becomes of a good token with these parameters in its header.
    fn with_header(&self, changes: Value) -> Result<VerifiedToken, VerifyError> {
        let mut header = self.signer.header();
        for (name, value) in changes.as_object().expect("an object") {
            header[name] = value.clone();
        }
        self.verify(&self.signer.sign(header.to_string(), claims(json!({})).to_string()))
    }
}

#[track_caller]
fn invalid(result: Result<VerifiedToken, VerifyError>) -> DenialCause {
    match result {
        Err(VerifyError::Invalid(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn string(text: &str) -> ClaimValue {
    ClaimValue::String(text.into())
}

fn is_for(verified: &VerifiedToken, name: &str, audience: &Audience) -> Option<DenialCause> {
    let name = Name::parse(name).expect("a name");
    let resolved = ResolvedAudience { name: Some(&name), audience };
    verified.facts.fault(resolved, None, second(1_950_000_000))
}

#[test]
fn good_token_has_the_facts_of_its_claims() {
    for algorithm in ALGORITHMS {
        let signer = Signer::new(algorithm, "1");
        let issuer = Arc::new(issuer());
        let text = signer.token(&claims(json!({ "nbf": 1_900_000_001 })));
        let token = UnverifiedToken::parse(&text).expect("a token");
        assert_eq!(token.issuer(), Some(ISSUER));
        let keys = keys([&signer]);
        let verified = token.verify(&issuer, &keys).expect(algorithm);
        assert!(keys.has(&verified.key), "{algorithm}");
        assert_eq!(verified.id.as_deref(), Some("7f"));
        assert_eq!(verified.company, CompanyId::parse("acme").ok());
        assert_eq!(verified.credential, CredentialId::parse("app").ok());
        assert_eq!(verified.client_subject, None);
        let facts = &verified.facts;
        assert_eq!(facts.user, UserId::parse("ada").ok());
        assert_eq!(facts.expires_at, Some(second(2_000_000_000)));
        assert_eq!(facts.issued_at, Some(second(1_900_000_000)));
        assert_eq!(facts.not_before, Some(second(1_900_000_001)));
        assert_eq!(facts.clock_skew, Some(30));
        assert_eq!(facts.scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>(), ["read", "write"]);
        let TokenAudience::Claim { issuer: of, values } = &facts.audience else { panic!() };
        assert!(Arc::ptr_eq(of, &issuer) && Arc::ptr_eq(&verified.issuer, &issuer));
        assert_eq!(values.as_deref(), Some(&["api".into()][..]));
        assert!((300..1500).contains(&verified.bytes()), "{}", verified.bytes());
    }
}

/// T11.
#[test]
fn form_of_a_token_is_exact() {
    let idp = Idp::new();
    let good = idp.signer.token(&claims(json!({})));
    assert!(idp.verify(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!() };
    let object = encode("{}");
    let padded = |text: &str| format!("{text}=");
    let mut texts = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "Bearer".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}.."),
        format!("{header}.{object}.{object}.{object}.{object}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{}.{payload}.{signature}", padded(header)),
        format!("{header}.{}.{signature}", padded(payload)),
        format!("{header}.{payload}.{}+", &signature[..signature.len() - 1]),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}.{payload}\0.{signature}"),
        format!("{header}.{payload}.é"),
        json!({ "payload": payload, "protected": header, "signature": signature }).to_string(),
    ];
    // The last letter of a signature of 64 bytes has four bits that are no byte's.
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        let other = format!("{}{last}", &good[..good.len() - 1]);
        if !"AQgw".contains(last) {
            texts.push(other);
        } else if other != good {
            assert_eq!(invalid(idp.verify(&other)), SignatureWrong);
        }
    }
    for text in texts {
        assert_eq!(invalid(idp.verify(&text)), MalformedToken, "{text}");
    }
    let good_header = idp.signer.header().to_string();
    let good_claims = claims(json!({})).to_string();
    let deep = |n: usize| {
        claims(json!({})).to_string().replacen(
            '{',
            &format!(r#"{{"x":{}{},"#, "[".repeat(n), "]".repeat(n)),
            1,
        )
    };
    assert!(idp.verify(&idp.signer.sign(&good_header, deep(31))).is_ok());
    let more = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let objects: Vec<(Vec<u8>, Vec<u8>)> = [
        (good_header.clone(), deep(32)),
        (good_header.clone(), deep(8000)),
        (good_header.clone(), "[]".to_owned()),
        (good_header.clone(), "1".to_owned()),
        (good_header.clone(), String::new()),
        (good_header.clone(), format!("{good_claims} {{}}")),
        (good_header.clone(), format!("\u{feff}{good_claims}")),
        (good_header.clone(), more(&good_claims, r#""sub":"ada""#)),
        (good_header.clone(), more(&good_claims, r#""\u0073ub":"ada""#)),
        (good_header.clone(), more(&good_claims, r#""x":"\ud800""#)),
        (good_header.clone(), more(&good_claims, r#""x":1e400"#)),
        (good_header.clone(), more(&good_claims, r#""x":NaN"#)),
        (more(&good_header, r#""alg":"ES256""#), good_claims.clone()),
        (more(&good_header, r#""\u0061lg":"none""#), good_claims.clone()),
        (more(&good_header, r#""x":1,"x":1"#), good_claims.clone()),
        (format!("[{good_header}]"), good_claims.clone()),
        (String::new(), good_claims.clone()),
        ("\"alg\"".to_owned(), good_claims.clone()),
    ]
    .map(|(header, claims)| (header.into_bytes(), claims.into_bytes()))
    .into();
    let latin = [&good_claims.as_bytes()[..good_claims.len() - 1], b",\"x\":\"\xe9\"}"].concat();
    let latin = (good_header.clone().into_bytes(), latin);
    // UTF-16 and UTF-32 are JSON of RFC 4627, and not of RFC 7519.
    let wide: Vec<u8> = good_claims.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = (good_header.clone().into_bytes(), wide);
    for (header, claims) in objects.into_iter().chain([latin, wide]) {
        let text = idp.signer.sign(&header, &claims);
        assert_eq!(invalid(idp.verify(&text)), MalformedToken, "{header:?} {claims:?}");
    }
    // A member below the top may be there twice: no rule reads it.
    let nested = more(&good_claims, r#""x":{"y":1,"y":2}"#);
    assert!(idp.verify(&idp.signer.sign(&good_header, nested)).is_ok());
}

/// T11.
#[test]
fn token_has_at_most_16_kib() {
    let idp = Idp::new();
    let token = |n: usize| idp.signer.token(&claims(json!({ "x": "x".repeat(n) })));
    let base = token(0).len();
    // Three bytes become four letters.
    let most = (16384 - base) / 4 * 3;
    let (fits, not) = (token(most), token(most + 4));
    assert!(fits.len() <= 16384 && not.len() > 16384, "{} {}", fits.len(), not.len());
    assert!(idp.verify(&fits).is_ok());
    assert_eq!(invalid(idp.verify(&not)), MalformedToken);
}

/// T12.
#[test]
fn header_chooses_among_the_algorithms_of_the_issuer() {
    let idp = Idp::with(|issuer| issuer.algorithms = [Algorithm::Es256, Algorithm::EdDsa].into());
    for alg in [
        json!("none"),
        json!("None"),
        json!("HS256"),
        json!("HS512"),
        json!("RS256"),
        json!("ES384"),
        json!("es256"),
        json!("ES256 "),
        json!("ES256K"),
        json!(""),
        json!(null),
        json!(["ES256"]),
        json!(7),
    ] {
        let result = idp.with_header(json!({ "alg": alg }));
        assert_eq!(invalid(result), AlgorithmNotAllowed, "{alg}");
    }
    let text = idp.signer.sign(r#"{"kid":"1","typ":"JWT"}"#, claims(json!({})).to_string());
    assert_eq!(invalid(idp.verify(&text)), AlgorithmNotAllowed);
    // It is told before the keys are looked at.
    let result = idp.with_header(json!({ "alg": "RS256", "kid": "2" }));
    assert_eq!(invalid(result), AlgorithmNotAllowed);
    // RFC 9864.
    let signer = Signer::new("EdDSA", "1");
    let text = signer.sign(r#"{"alg":"Ed25519","kid":"1"}"#, claims(json!({})).to_string());
    assert!(verify(&text, &idp.issuer, &keys([&signer])).is_ok());
}

/// T12.
#[test]
fn header_that_changes_how_a_token_is_read_is_refused() {
    let idp = Idp::new();
    for unsupported in [
        json!({ "crit": ["exp"] }),
        json!({ "crit": [] }),
        json!({ "crit": null }),
        json!({ "b64": true }),
        json!({ "b64": false, "crit": ["b64"] }),
        json!({ "zip": "DEF" }),
        json!({ "enc": "A256GCM" }),
    ] {
        let result = idp.with_header(unsupported.clone());
        assert_eq!(invalid(result), UnsupportedHeader, "{unsupported}");
    }
    for ignored in [
        json!({ "cty": "JWT" }),
        json!({ "x": 1 }),
        json!({ "x5t": "A" }),
        json!({ "jku": 1 }),
        json!({ "jwk": {}, "x5u": "http://127.0.0.1:1/", "x5c": ["MII"], "CRIT": ["x"] }),
    ] {
        assert!(idp.with_header(ignored.clone()).is_ok(), "{ignored}");
    }
}

/// T12.
#[test]
fn key_is_found_by_kid_byte_for_byte() {
    let idp = Idp::new();
    for kid in ["2", "", "1 ", "01", "１", "1\0", &"k".repeat(256), "../1", "1' OR '1'='1"] {
        let result = idp.with_header(json!({ "kid": kid }));
        assert_eq!(result.expect_err("no key"), VerifyError::UnknownKey, "{kid:?}");
    }
    // No set has such a key, so none is fetched for it.
    for kid in [json!("k".repeat(257)), json!(1), json!(null), json!(["1"])] {
        assert_eq!(invalid(idp.with_header(json!({ "kid": kid }))), KeyUnknown, "{kid}");
    }
    let text = idp.signer.token(&claims(json!({})));
    assert_eq!(verify(&text, &idp.issuer, &KeySet::default()), Err(VerifyError::UnknownKey));
    // The set has the key of this `kid`, and it is for something else: a fetch would not help.
    assert_eq!(invalid(idp.with_header(json!({ "alg": "ES384" }))), KeyUnknown);
    let mut key = idp.signer.public_key();
    key["alg"] = json!("ES256");
    let set = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).expect("a set");
    assert!(verify(&text, &idp.issuer, &set.keys).is_ok());
    let signer = Signer::new("RS256", "1");
    let mut key = signer.public_key();
    key["alg"] = json!("PS256");
    let set = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).expect("a set");
    let text = signer.token(&claims(json!({})));
    assert_eq!(invalid(verify(&text, &idp.issuer, &set.keys)), KeyUnknown);
}

/// T12.
#[test]
fn at_most_two_keys_are_tried() {
    let issuer = issuer();
    for (id, asked) in [("", ""), ("same", "same"), ("other", "")] {
        let signers = [0; 3].map(|_| Signer::new("ES256", id));
        let rsa = Signer::new("RS256", id);
        let token = |signer: &Signer| {
            let mut header = json!({ "alg": "ES256" });
            if !asked.is_empty() {
                header["kid"] = json!(asked);
            }
            signer.sign(header.to_string(), claims(json!({})).to_string())
        };
        // A key of another type does not count.
        let [a, b, c] = &signers;
        let two = keys([a, &rsa, b]);
        assert!(verify(&token(a), &issuer, &two).is_ok());
        assert!(verify(&token(b), &issuer, &two).is_ok());
        // Without `kid`, a newer set may have the key.
        match asked {
            "" => assert_eq!(verify(&token(c), &issuer, &two), Err(VerifyError::UnknownKey)),
            _ => assert_eq!(invalid(verify(&token(c), &issuer, &two)), SignatureWrong),
        }
        assert_eq!(invalid(verify(&token(a), &issuer, &keys([a, b, c]))), KeyUnknown);
    }
    // Without `kid`, a set without a key for the algorithm may be too old.
    let signer = Signer::new("ES256", "");
    let text = signer.token(&claims(json!({})));
    let rsa = Signer::new("RS256", "1");
    assert_eq!(verify(&text, &issuer, &keys([&rsa])), Err(VerifyError::UnknownKey));
}

/// T12: a key belongs to its issuer.
#[test]
fn token_is_of_the_issuer_that_it_names() {
    let idp = Idp::new();
    assert_eq!(
        idp.good(&claims(json!({ "iss": "https://old.example.org" }))).issuer.name,
        ISSUER.into()
    );
    for iss in [
        json!("https://id.example.org"),
        json!("https://ID.example.org/"),
        json!(""),
        json!(null),
        json!([ISSUER]),
        json!(1),
        json!("https://other.example.org/"),
    ] {
        assert_eq!(idp.fault(&claims(json!({ "iss": iss }))), IssuerUnknown, "{iss}");
    }
    assert_eq!(idp.fault(&without("iss")), IssuerUnknown);
    let token = UnverifiedToken::parse(&idp.signer.token(&without("iss"))).expect("a token");
    assert_eq!(token.issuer(), None);
}

/// T13.
#[test]
fn signature_is_of_the_key_and_over_the_text() {
    for algorithm in ALGORITHMS {
        let (signer, other) = (Signer::new(algorithm, "1"), Signer::other(algorithm, "1"));
        let (issuer, keys) = (issuer(), keys([&signer]));
        let good = signer.token(&claims(json!({})));
        assert!(verify(&good, &issuer, &keys).is_ok(), "{algorithm}");
        let foreign = other.token(&claims(json!({})));
        assert_eq!(invalid(verify(&foreign, &issuer, &keys)), SignatureWrong, "{algorithm}");
        let (signed, signature) = good.rsplit_once('.').expect("parts");
        let (header, _) = signed.split_once('.').expect("parts");
        let wider = encode(claims(json!({ "scope": "admin" })).to_string());
        for text in [
            format!("{signed}."),
            format!("{header}.{wider}.{signature}"),
            format!("{signed}.{}", encode([0; 64])),
            format!("{signed}.{}", encode([0xff; 256])),
            format!("{signed}.{}", encode(signer.signature(header.as_bytes()))),
        ] {
            assert_eq!(
                invalid(verify(&text, &issuer, &keys)),
                SignatureWrong,
                "{algorithm}: {text}"
            );
        }
    }
    // Each algorithm's signature is nothing to another one of the same key.
    for (own, other) in
        [("RS256", "PS256"), ("PS384", "RS384"), ("RS256", "RS512"), ("PS512", "PS256")]
    {
        let signer = Signer::new(own, "1");
        let header = json!({ "alg": other, "kid": "1" }).to_string();
        let text = signer.sign(header, claims(json!({})).to_string());
        assert_eq!(invalid(verify(&text, &issuer(), &keys([&signer]))), SignatureWrong, "{own}");
    }
}

/// T14.
#[test]
fn times_are_numbers_from_0_to_the_year_9999() {
    let idp = Idp::new();
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            json!("2000000000"),
            json!(""),
            json!(null),
            json!(true),
            json!([]),
            json!([2_000_000_000]),
            json!({}),
            json!(-1),
            json!(-0.5),
            json!(253_402_300_800_i64),
            json!(253_402_300_800.5),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
            json!(i64::MIN),
        ] {
            assert_eq!(idp.fault(&claims(json!({ name: bad }))), MalformedClaim, "{name} {bad}");
        }
    }
    assert_eq!(idp.fault(&without("exp")), MalformedClaim);
    let facts = idp.good(&without("iat")).facts;
    assert_eq!((facts.issued_at, facts.not_before), (None, None));
    let times = |time: Value| {
        let facts = idp.good(&claims(json!({ "exp": time, "nbf": time, "iat": time }))).facts;
        [facts.expires_at, facts.not_before, facts.issued_at].map(|time| time.expect("a time"))
    };
    assert_eq!(times(json!(0)), [second(0); 3]);
    assert_eq!(times(json!(-0.0)), [second(0); 3]);
    assert_eq!(times(json!(1_900_000_000.0)), [second(1_900_000_000); 3]);
    assert_eq!(times(json!(1.9e9)), [second(1_900_000_000); 3]);
    // The end is rounded down, the beginning up.
    let [end, start, issued] = times(json!(1_900_000_000.75));
    assert_eq!([end, start], [second(1_900_000_000), second(1_900_000_001)]);
    assert_eq!(issued, Timestamp::new(1_900_000_000, 750_000_000).expect("a time"));
    assert_eq!(times(json!(253_402_300_799_i64)), [Timestamp::MAX; 3]);
    assert_eq!(times(json!(253_402_300_799.5)), [Timestamp::MAX; 3]);
}

/// T8: `types`.
#[test]
fn type_is_one_of_the_issuers() {
    let idp = Idp::new();
    for good in ["at+jwt", "AT+JWT", "JWT", "jwt", "application/at+jwt", "Application/JWT"] {
        assert!(idp.with_header(json!({ "typ": good })).is_ok(), "{good}");
    }
    for bad in [
        json!("id+jwt"),
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("JOSE"),
        json!(""),
        json!(null),
        json!("application/application/jwt"),
        json!("jwt "),
        json!("text/jwt"),
        json!(["JWT"]),
        json!("secevent+jwt"),
        json!("at+jwt;v=1"),
    ] {
        assert_eq!(invalid(idp.with_header(json!({ "typ": bad }))), TypeNotAllowed, "{bad}");
    }
    let bare = |idp: &Idp| {
        let text = idp.signer.sign(r#"{"alg":"ES256","kid":"1"}"#, claims(json!({})).to_string());
        idp.verify(&text)
    };
    assert!(bare(&idp).is_ok());
    let idp = Idp::with(|issuer| issuer.types = Some(["at+jwt".into()].into()));
    assert!(idp.with_header(json!({ "typ": "AT+jwt" })).is_ok());
    assert_eq!(invalid(idp.with_header(json!({ "typ": "JWT" }))), TypeNotAllowed);
    assert_eq!(invalid(bare(&idp)), TypeNotAllowed);
}

/// T8: `require`.
#[test]
fn required_claims_are_there_and_equal() {
    let idp = Idp::with(|issuer| {
        issuer.require = BTreeMap::from([
            ("token_use".into(), string("access")),
            ("ver".into(), ClaimValue::Number(2)),
            ("mfa".into(), ClaimValue::Boolean(true)),
        ]);
    });
    let good = json!({ "token_use": "access", "ver": 2, "mfa": true });
    idp.good(&claims(good.clone()));
    for (name, value) in [
        ("token_use", json!("id")),
        ("token_use", json!("Access")),
        ("token_use", json!(["access"])),
        ("token_use", json!(null)),
        ("ver", json!("2")),
        ("ver", json!(2.0)),
        ("ver", json!(3)),
        ("ver", json!(true)),
        ("mfa", json!(false)),
        ("mfa", json!(1)),
        ("mfa", json!("true")),
    ] {
        let mut changed = good.clone();
        changed[name] = value.clone();
        assert_eq!(idp.fault(&claims(changed)), RequiredClaim, "{name} {value}");
    }
    assert_eq!(idp.fault(&claims(json!({ "token_use": "access", "ver": 2 }))), RequiredClaim);
}

/// T15.
#[test]
fn aud_is_a_string_or_an_array_of_strings() {
    let idp = Idp::new();
    let values = |claims: &Value| match idp.good(claims).facts.audience {
        TokenAudience::Claim { values, .. } => {
            values.map(|values| values.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        TokenAudience::Own { .. } | TokenAudience::Stated(_) => panic!("of no issuer"),
    };
    let aud = |value: Value| values(&claims(json!({ "aud": value }))).expect("values");
    assert_eq!(aud(json!("a b")), ["a b"]);
    assert_eq!(aud(json!(["a", "b", "a"])), ["a", "b", "a"]);
    let empty: [&str; 0] = [];
    assert_eq!(aud(json!("")), empty);
    assert_eq!(aud(json!([])), empty);
    assert_eq!(aud(json!([""])), empty);
    assert_eq!(values(&without("aud")), None);
    for bad in [json!(null), json!(1), json!({}), json!(["a", 1]), json!([["a"]]), json!(true)] {
        assert_eq!(idp.fault(&claims(json!({ "aud": bad }))), MalformedClaim, "{bad}");
    }
    // Which audience the values are for is of the decision.
    let api = Audience::default();
    let fault = |value: Value| is_for(&idp.good(&claims(json!({ "aud": value }))), "api", &api);
    assert_eq!(fault(json!(["x", "api"])), None);
    assert_eq!(fault(json!("API")), Some(OtherAudience));
    assert_eq!(fault(json!("")), Some(AudienceMissing));
    let idp = Idp::with(|issuer| issuer.without_aud = Name::parse("api").ok());
    assert_eq!(is_for(&idp.good(&without("aud")), "api", &api), None);
    let empty = idp.good(&claims(json!({ "aud": "" })));
    assert_eq!(is_for(&empty, "api", &api), Some(AudienceMissing));
}

/// T16.
#[test]
fn scopes_are_of_the_first_claim_that_is_there() {
    let idp = Idp::new();
    let scopes = |changes: Value| {
        let mut claims = without("scope");
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let scopes = idp.good(&claims).facts.scopes;
        scopes.iter().map(|scope| scope.as_str().to_owned()).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    for (claims, expected) in [
        (json!({}), &none[..]),
        (json!({ "scope": "" }), &none),
        (json!({ "scope": " a  b " }), &["a", "b"]),
        (json!({ "scope": "a\tb \"c\" d\\ é" }), &none),
        (json!({ "scope": ["a", "b"] }), &["a", "b"]),
        (json!({ "scope": ["a b", "", "c"] }), &["c"]),
        (json!({ "scope": [] }), &none),
        (json!({ "scp": "a", "permissions": ["b"] }), &["a"]),
        (json!({ "permissions": ["b"], "roles": ["c"] }), &["b"]),
        // The first claim is taken also if it has no scope, and the next is not read.
        (json!({ "scope": "", "scp": "a" }), &none),
        (json!({ "scope": "a", "scp": 7 }), &["a"]),
    ] {
        assert_eq!(scopes(claims.clone()), expected, "{claims}");
    }
    for bad in
        [json!(null), json!(1), json!({ "a": 1 }), json!([1]), json!(["a", null]), json!(true)]
    {
        assert_eq!(idp.fault(&claims(json!({ "scope": bad }))), MalformedClaim, "{bad}");
    }
    let idp = Idp::with(|issuer| issuer.scope_claims = vec!["https://x/scopes".into()]);
    let token = idp.good(&claims(json!({ "https://x/scopes": "a" })));
    assert_eq!(token.facts.scopes.len(), 1);
}

/// T2, T8, T16.
#[test]
fn company_and_credential_are_those_of_the_claims() {
    let idp = Idp::new();
    for bad in [
        json!(null),
        json!(1),
        json!(["acme"]),
        json!(""),
        json!("a/b"),
        json!("a b"),
        json!({}),
        json!("x".repeat(129)),
        json!("é"),
        json!("acme\0"),
    ] {
        for name in ["tid", "client_id"] {
            assert_eq!(idp.fault(&claims(json!({ name: bad }))), MalformedClaim, "{name} {bad}");
        }
    }
    assert_eq!(idp.fault(&without("tid")), MalformedClaim);
    assert_eq!(idp.fault(&without("client_id")), MalformedClaim);
    assert_eq!(idp.fault(&claims(json!({ "tid": "globex" }))), CompanyNotAllowed);
    assert_eq!(idp.fault(&claims(json!({ "tid": "ACME" }))), CompanyNotAllowed);
    // The first claim that is there; a second one must be the same.
    let mut by_azp = without("client_id");
    by_azp["azp"] = json!("app");
    assert_eq!(idp.good(&by_azp).credential, CredentialId::parse("app").ok());
    idp.good(&claims(json!({ "azp": "app" })));
    for other in [json!("other"), json!("App"), json!(null), json!(1), json!("")] {
        assert_eq!(idp.fault(&claims(json!({ "azp": other }))), AmbiguousClient, "{other}");
    }
    let idp = Idp::with(|issuer| {
        issuer.companies = Companies::Any;
        issuer.credential =
            PartySource::Claim { claims: vec!["client_id".into()], prefix: "idp:".into() };
        issuer.user =
            UserSource::Claim { claim: "sub".into(), prefix: "u|".into(), unless: BTreeMap::new() };
    });
    let token = idp.good(&claims(json!({ "tid": "globex", "azp": "not read" })));
    assert_eq!(token.company, CompanyId::parse("globex").ok());
    assert_eq!(token.credential, CredentialId::parse("idp:app").ok());
    assert_eq!(token.facts.user, UserId::parse("u|ada").ok());
    assert_eq!(idp.fault(&claims(json!({ "client_id": "x".repeat(125) }))), MalformedClaim);
    for name in ["client_id", "sub"] {
        let fault = idp.fault(&claims(json!({ name: "" })));
        assert_eq!(fault, MalformedClaim, "`{name}`: a prefix alone is no id");
    }
    let idp = Idp::with(|issuer| {
        issuer.company = PartySource::Is(CompanyId::parse("globex").expect("an id"));
        issuer.credential = PartySource::Is(CredentialId::parse("one").expect("an id"));
    });
    let token = idp.good(&claims(json!({ "tid": "acme", "client_id": 7 })));
    assert_eq!(token.company, CompanyId::parse("globex").ok());
    assert_eq!(token.credential, CredentialId::parse("one").ok());
    let idp = Idp::with(|issuer| {
        issuer.company = PartySource::Request;
        issuer.credential = PartySource::Request;
    });
    let token = idp.good(&claims(json!({ "tid": "globex" })));
    assert_eq!((token.company, token.credential), (None, None));
}

/// T16.
#[test]
fn user_is_the_one_of_the_claim() {
    let idp = Idp::new();
    let user = |idp: &Idp, changes: Value| {
        let token = idp.good(&claims(changes));
        let text = |user: Option<UserId>| user.map(|user| user.to_string());
        (text(token.facts.user), text(token.client_subject))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(user(&idp, json!({ "sub": "auth0|5f7c" })), (some("auth0|5f7c"), None));
    // RFC 9068 section 2.2: the client itself.
    assert_eq!(user(&idp, json!({ "sub": "app" })), (None, some("app")));
    assert_eq!(user(&idp, json!({ "sub": "App" })), (some("App"), None));
    for bad in
        [json!(null), json!(1), json!(""), json!("a b"), json!(["ada"]), json!("x".repeat(256))]
    {
        assert_eq!(idp.fault(&claims(json!({ "sub": bad }))), MalformedClaim, "{bad}");
    }
    assert_eq!(idp.fault(&without("sub")), MalformedClaim);
    let source = |claim: &str, prefix: &str| UserSource::Claim {
        claim: claim.into(),
        prefix: prefix.into(),
        unless: BTreeMap::from([
            ("gty".into(), string("client-credentials")),
            ("machine".into(), ClaimValue::Boolean(true)),
        ]),
    };
    let idp = Idp::with(|issuer| issuer.user = source("sub", "y:"));
    assert_eq!(user(&idp, json!({})), (some("y:ada"), None));
    // The comparison is of the claims, and the user is the one that the company would have.
    assert_eq!(user(&idp, json!({ "sub": "app" })), (None, some("y:app")));
    for machine in [json!({ "gty": "client-credentials" }), json!({ "machine": true, "sub": 7 })] {
        assert_eq!(user(&idp, machine.clone()), (None, None), "{machine}");
    }
    for person in [json!({ "gty": "password" }), json!({ "gty": ["client-credentials"] })] {
        assert_eq!(user(&idp, person.clone()), (some("y:ada"), None), "{person}");
    }
    // Another claim than `sub` never names the client.
    let idp = Idp::with(|issuer| issuer.user = source("uid", ""));
    assert_eq!(user(&idp, json!({ "uid": "app", "sub": "app" })), (some("app"), None));
    assert_eq!(idp.fault(&claims(json!({}))), MalformedClaim);
    // Without a claim for the credential there is no value to compare with.
    let idp = Idp::with(|issuer| issuer.credential = PartySource::Request);
    assert_eq!(user(&idp, json!({ "sub": "app" })), (some("app"), None));
    let idp = Idp::with(|issuer| issuer.user = UserSource::None);
    assert_eq!(user(&idp, json!({ "sub": 7 })), (None, None));
}

/// T17.
#[test]
fn token_that_is_bound_to_a_key_is_invalid_unless_the_caller_confirms() {
    let idp = Idp::new();
    let caller = Idp::with(|issuer| issuer.confirmed_by_caller = true);
    for cnf in [json!({ "jkt": "0ZcOCORZNYy" }), json!({ "x5t#S256": "A" }), json!({}), json!(null)]
    {
        assert_eq!(idp.fault(&claims(json!({ "cnf": cnf }))), BoundToken, "{cnf}");
        caller.good(&claims(json!({ "cnf": cnf })));
    }
}

#[test]
fn jti_is_for_logs_only() {
    let idp = Idp::new();
    let id = |value: Value| idp.good(&claims(json!({ "jti": value }))).id;
    assert_eq!(id(json!("x".repeat(256))).map(|id| id.len()), Some(256));
    for other in [json!("x".repeat(257)), json!(7), json!(null)] {
        assert_eq!(id(other), None);
    }
}

/// T5: nothing of the claims is told of a token whose signature is wrong.
#[test]
fn claims_are_read_after_the_signature() {
    let idp = Idp::new();
    let forger = Signer::new("ES256", "1");
    for bad in
        [json!({ "exp": 1 }), json!({ "exp": "x" }), json!({ "cnf": {} }), json!({ "tid": 1 })]
    {
        assert_eq!(
            invalid(idp.verify(&forger.token(&claims(bad.clone())))),
            SignatureWrong,
            "{bad}"
        );
    }
    // An expired token is verified: its end is of the decision.
    idp.good(&claims(json!({ "exp": 1 })));
}

/// T7.
#[test]
fn output_for_developers_has_no_text_of_a_token() {
    let idp = Idp::new();
    let text = idp.signer.token(&claims(json!({ "secret": "SECRET" })));
    let unverified = UnverifiedToken::parse(&text).expect("a token");
    assert_eq!(format!("{unverified:?}"), "UnverifiedToken(…)");
    let verified = format!("{:?}", idp.good(&claims(json!({ "secret": "SECRET" }))));
    for part in text.split('.').chain(["SECRET"]) {
        assert!(!verified.contains(part), "{part}");
    }
    let point = idp.signer.public_key();
    let keys = format!("{:?}", idp.keys);
    for member in ["x", "y"] {
        assert!(!keys.contains(point[member].as_str().expect("a coordinate")));
    }
}

/// RFC 7515 appendices A.2 and A.3.
#[test]
fn examples_of_rfc_7515_are_verified() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rsa = json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" });
    let rsa_signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let ec = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let ec_signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let mut joe = issuer();
    joe.name = "joe".into();
    joe.company = PartySource::Is(CompanyId::parse("acme").expect("an id"));
    joe.credential = PartySource::Is(CredentialId::parse("app").expect("an id"));
    joe.user = UserSource::None;
    for (alg, key, signature) in [("RS256", rsa, rsa_signature), ("ES256", ec, ec_signature)] {
        let set = json!({ "keys": [key] }).to_string();
        let keys = KeySet::parse(set.as_bytes()).expect("a set").keys;
        let header = encode(format!(r#"{{"alg":"{alg}"}}"#));
        let text = format!("{header}.{payload}.{signature}");
        let token = verify(&text, &joe, &keys).expect(alg);
        assert_eq!(token.facts.expires_at, Some(second(1_300_819_380)));
    }
}

/// The list of RFC 8725, "JSON Web Token Best Current Practices": a test for each practice of its
/// section 3. The threats of its section 2 are named where they are met.
mod rfc_8725 {
    use super::*;

    #[test]
    fn s3_1_algorithm_is_the_issuers_and_the_keys() {
        // Section 2.1: a key of RSA is no secret of HMAC, and `none` is nothing.
        let signer = Signer::new("RS256", "1");
        let idp = Idp { issuer: issuer(), keys: keys([&signer]), signer };
        let modulus = idp.signer.public_key()["n"].to_string();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, modulus.as_bytes());
        let signed = format!(
            "{}.{}",
            encode(r#"{"alg":"HS256","kid":"1"}"#),
            encode(claims(json!({})).to_string())
        );
        let text = format!("{signed}.{}", encode(ring::hmac::sign(&key, signed.as_bytes())));
        assert_eq!(invalid(idp.verify(&text)), AlgorithmNotAllowed);
        let none =
            format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims(json!({})).to_string()));
        assert_eq!(invalid(idp.verify(&none)), AlgorithmNotAllowed);
        // A key is for one algorithm where it says so.
        let mut key = idp.signer.public_key();
        key["alg"] = json!("RS512");
        let set = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).expect("a set");
        let text = idp.signer.token(&claims(json!({})));
        assert_eq!(invalid(verify(&text, &idp.issuer, &set.keys)), KeyUnknown);
    }

    #[test]
    fn s3_2_weak_algorithms_do_not_exist() {
        for name in
            ["none", "HS256", "HS384", "HS512", "RS1", "RSA1_5", "ES256K", "RSA-OAEP", "dir"]
        {
            assert_eq!(Algorithm::parse(name), None, "{name}");
        }
    }

    #[test]
    fn s3_3_every_signature_is_verified() {
        // Section 2.3: a signed token within a signed token is no token.
        let idp = Idp::new();
        let inner = idp.signer.token(&claims(json!({})));
        let outer = idp.signer.sign(r#"{"alg":"ES256","kid":"1","cty":"JWT"}"#, &inner);
        assert_eq!(invalid(idp.verify(&outer)), MalformedToken);
        let unsigned = inner.rsplit_once('.').expect("parts").0;
        assert_eq!(invalid(idp.verify(&format!("{unsigned}."))), SignatureWrong);
    }

    #[test]
    fn s3_4_points_are_on_their_curve() {
        // Section 2.5: invalid curve attacks. Other faults of keys are in `policy::token::key_set`.
        for algorithm in ["ES256", "ES384"] {
            let key = Signer::new(algorithm, "1").public_key();
            let mut swapped = key.clone();
            swapped["x"] = key["y"].clone();
            swapped["y"] = key["x"].clone();
            let mut zero = key.clone();
            let len = key["x"].as_str().expect("a coordinate").len();
            zero["x"] = json!("A".repeat(len));
            zero["y"] = json!("A".repeat(len));
            let text = json!({ "keys": [swapped, zero] }).to_string();
            let set = KeySet::parse(text.as_bytes()).expect("a set");
            assert_eq!((set.keys.is_empty(), set.skipped.len()), (true, 2), "{algorithm}");
        }
    }

    #[test]
    fn s3_5_secrets_are_no_keys() {
        // Section 2.2: a weak secret can be guessed, so no secret is accepted.
        let text =
            json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }] }).to_string();
        let set = KeySet::parse(text.as_bytes()).expect("a set");
        assert_eq!((set.keys.is_empty(), set.skipped.len()), (true, 1));
    }

    #[test]
    fn s3_6_compression_is_refused() {
        // Section 2.4 is of encryption, which is refused, too.
        let idp = Idp::new();
        for header in [json!({ "zip": "DEF" }), json!({ "enc": "A128GCM", "alg": "dir" })] {
            assert_eq!(invalid(idp.with_header(header)), UnsupportedHeader);
        }
    }

    #[test]
    fn s3_7_json_is_utf_8() {
        // Section 2.6: other encodings of JSON.
        let idp = Idp::new();
        let text = claims(json!({})).to_string();
        let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let utf_32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for bytes in [utf_16, utf_32, [b"\xef\xbb\xbf", text.as_bytes()].concat()] {
            let token = idp.signer.sign(idp.signer.header().to_string(), bytes);
            assert_eq!(invalid(idp.verify(&token)), MalformedToken);
        }
    }

    #[test]
    fn s3_8_keys_belong_to_the_issuer() {
        // Section 2.7: a token of one issuer is not one of another, whoever asks.
        let (one, other) = (Idp::new(), Idp::with(|issuer| issuer.name = "https://other/".into()));
        let text = one.signer.token(&claims(json!({})));
        assert_eq!(invalid(verify(&text, &other.issuer, &one.keys)), IssuerUnknown);
        assert_eq!(invalid(verify(&text, &one.issuer, &other.keys)), SignatureWrong);
        // The subject is one that the issuer may name: T8's `companies`.
        assert_eq!(one.fault(&claims(json!({ "tid": "globex" }))), CompanyNotAllowed);
    }

    #[test]
    fn s3_9_audience_is_the_calls() {
        let idp = Idp::new();
        let api = Audience { aud: vec!["https://api.example.org".into()], ..Audience::default() };
        let good = idp.good(&claims(json!({ "aud": ["x", "https://api.example.org"] })));
        assert_eq!(is_for(&good, "api", &api), None);
        for aud in
            [json!("api"), json!("https://api.example.org/"), json!("HTTPS://api.example.org")]
        {
            let token = idp.good(&claims(json!({ "aud": aud })));
            assert_eq!(is_for(&token, "api", &api), Some(OtherAudience), "{aud}");
        }
        assert_eq!(is_for(&idp.good(&without("aud")), "api", &api), Some(AudienceMissing));
    }

    #[test]
    fn s3_10_header_is_not_trusted() {
        // Section 2.9: no address of a token is fetched, and its own key verifies nothing.
        let idp = Idp::new();
        let forger = Signer::new("ES256", "1");
        let url = "http://127.0.0.1:1/jwks.json";
        for own in [
            json!({ "jwk": forger.public_key() }),
            json!({ "jku": url }),
            json!({ "x5u": url }),
            json!({ "x5c": [encode([0x30; 64])] }),
        ] {
            let mut header = forger.header();
            for (name, value) in own.as_object().expect("an object") {
                header[name] = value.clone();
            }
            let text = forger.sign(header.to_string(), claims(json!({})).to_string());
            assert_eq!(invalid(idp.verify(&text)), SignatureWrong, "{own}");
        }
        for kid in ["../../etc/passwd", "' UNION SELECT 1--", "1|id", "https://x/keys"] {
            let result = idp.with_header(json!({ "kid": kid }));
            assert_eq!(result.expect_err("no key"), VerifyError::UnknownKey, "{kid}");
        }
    }

    #[test]
    fn s3_11_type_is_explicit_where_the_issuer_asks() {
        // Section 2.8: a token of another kind.
        let idp = Idp::with(|issuer| issuer.types = Some(["at+jwt".into()].into()));
        assert!(idp.with_header(json!({ "typ": "at+jwt" })).is_ok());
        for typ in ["JWT", "id+jwt", "secevent+jwt"] {
            assert_eq!(invalid(idp.with_header(json!({ "typ": typ }))), TypeNotAllowed);
        }
    }

    #[test]
    fn s3_12_kinds_of_tokens_exclude_each_other() {
        // An ID token names its client by `aud` and has no claim that an access token must have.
        let idp = Idp::with(|issuer| {
            issuer.require = BTreeMap::from([("token_use".into(), string("access"))]);
        });
        let id_token = json!({ "token_use": "id", "nonce": "n", "aud": "app" });
        assert_eq!(idp.fault(&claims(id_token)), RequiredClaim);
        let token = Idp::new().good(&claims(json!({ "aud": "app" })));
        assert_eq!(is_for(&token, "api", &Audience::default()), Some(OtherAudience));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// T13.
    #[test]
    fn changed_token_never_verifies(algorithm in 0..ALGORITHMS.len(), at: prop::sample::Index, byte: u8) {
        let signer = Signer::new(ALGORITHMS[algorithm], "1");
        let mut bytes = signer.token(&claims(json!({}))).into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert!(verify(&text, &issuer(), &keys([&signer])).is_err());
        }
    }

    #[test]
    fn any_texts_are_read_without_a_panic(header in ".{0,40}", claims in ".{0,80}", text in ".{0,80}") {
        let signer = Signer::new("ES256", "1");
        let keys = keys([&signer]);
        for text in [signer.sign(header, claims), text] {
            prop_assert!(verify(&text, &issuer(), &keys).is_err());
        }
    }
}
