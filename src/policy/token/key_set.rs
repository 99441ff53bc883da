//! Key set: the public keys of an issuer (RFC 7517 section 5).
//!
//! Not here: where a set comes from, how old it may be (T18 to T20), and what makes a key usable, which
//! is in `key`.

use std::fmt;
use std::sync::Arc;

use super::json::{self, Value};
use super::key::MAX_ID_LEN;
pub use super::key::{Key, KeyFault, Thumbprint};

/// The most bytes of the text of a set (T9).
pub const MAX_BYTES: usize = 256 * 1024;
/// The most keys of a set, those that are skipped included (T9).
pub const MAX_KEYS: usize = 64;

/// The usable keys of a set (T10), in its order. A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Arc<[Key]>);

/// What the text of a set says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedKeySet {
    /// The usable keys.
    pub keys: KeySet,
    /// The keys that are not usable, for a warning.
    pub skipped: Vec<SkippedKey>,
}

/// A key that is not usable, and why. Neither has key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Its `kid`, unless that is malformed.
    pub id: Option<Box<str>>,
    /// Why it is not usable.
    pub fault: KeyFault,
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, id, fault } = self;
        match id {
            Some(id) => write!(f, "`keys[{index}]` with the `kid` {id:?} {fault}"),
            None => write!(f, "`keys[{index}]` {fault}"),
        }
    }
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is longer than [`MAX_BYTES`].
    #[error("has {0} bytes, the limit is {MAX_BYTES}")]
    TooLong(usize),
    /// It is not JSON.
    #[error("is not a JSON object of at most 32 levels: see line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 if the line is not begun.
        column: usize,
    },
    /// It has no array of keys.
    #[error("must have exactly one member `keys`, an array of objects (RFC 7517 section 5)")]
    Keys,
    /// It has more than [`MAX_KEYS`] keys.
    #[error("has {0} keys, the limit is {MAX_KEYS}")]
    TooManyKeys(usize),
}

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl KeySet {
    /// Reads a key set. A set without keys is a set. A key that is not usable is skipped, also one that
    /// repeats a member.
    ///
    /// # Errors
    /// The text is not a key set.
    pub fn parse(text: &[u8]) -> Result<ParsedKeySet, KeySetError> {
        if text.len() > MAX_BYTES {
            return Err(KeySetError::TooLong(text.len()));
        }
        let set = json::parse(text)
            .map_err(|error| KeySetError::Json { line: error.line(), column: error.column() })?;
        let Some(Value::Array(members)) = set.get("keys").filter(|_| !set.has_repeats) else {
            return Err(KeySetError::Keys);
        };
        if members.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys(members.len()));
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, value) in members.iter().enumerate() {
            let Value::Object(members) = value else { return Err(KeySetError::Keys) };
            match Key::parse(members) {
                Ok(key) => keys.push(key),
                Err(fault) => {
                    let id = members.get("kid").and_then(Value::as_str);
                    let id = id.filter(|id| id.len() <= MAX_ID_LEN).map(Into::into);
                    skipped.push(SkippedKey { index, id, fault });
                }
            }
        }
        Ok(ParsedKeySet { keys: Self(keys.into()), skipped })
    }

    /// Whether the set has the key with this thumbprint.
    #[must_use]
    pub fn has(&self, key: &Thumbprint) -> bool {
        self.0.iter().any(|own| own.thumbprint == *key)
    }

    /// The keys, in the order of the set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.0.iter()
    }

    /// Whether the set has no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys with this `kid`; all keys if it is none (T12).
    pub fn with_id(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#""kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw""#;
    const P256: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
    const ED25519: &str =
        r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    /// The usable keys and the faults of the others.
    fn parse(keys: &[&str]) -> (Vec<Key>, Vec<KeyFault>) {
        let keys: Vec<_> = keys.iter().map(|members| format!("{{{members}}}")).collect();
        let text = format!(r#"{{"keys":[{}],"other":1}}"#, keys.join(","));
        let set = KeySet::parse(text.as_bytes()).expect(&text);
        let keys = set.keys.iter().cloned().collect();
        (keys, set.skipped.iter().map(|skipped| skipped.fault).collect())
    }

    fn usable(members: &str) -> Key {
        let (mut keys, faults) = parse(&[members]);
        assert_eq!(faults, [], "{members}");
        keys.remove(0)
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (members, thumbprint) in [
            // RFC 7638 section 3.1.
            (RSA, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            // RFC 8037 appendix A.3.
            (ED25519, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            // The key of RFC 7515 appendix A.3; the hash is of another implementation.
            (P256, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"),
        ] {
            assert_eq!(usable(members).thumbprint.to_string(), thumbprint, "{members}");
            // What is not of the key itself is not in it.
            let named = usable(&format!(r#"{members},"kid":"a","use":"sig","x5t":"b""#));
            assert_eq!(named.thumbprint.to_string(), thumbprint, "{members}");
            assert!(!format!("{named:?}").contains("kty"));
        }
    }

    #[test]
    fn leading_zeros_do_not_make_another_key() {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
        let padded = |number: &str| {
            let bytes = BASE64.decode(number).expect("base64url");
            BASE64.encode([&[0, 0], &bytes[..]].concat())
        };
        let modulus = RSA.rsplit('"').nth(1).expect("a modulus");
        let zeros = RSA.replace(modulus, &padded(modulus)).replace("AQAB", &padded("AQAB"));
        assert_eq!(usable(&zeros), usable(RSA));
    }

    #[test]
    fn keys_that_are_not_usable_are_skipped_with_a_reason() {
        use KeyFault::*;
        let with = |members: &str, more: &str| format!("{members},{more}");
        let rsa = |n: usize, e: &str| {
            use base64::Engine;
            let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(vec![0xff; n]);
            format!(r#""kty":"RSA","n":"{n}","e":"{e}""#)
        };
        let ed = |x: &str| format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#);
        for (members, fault) in [
            (with(P256, r#""kid":"a","kid":"a""#), RepeatedMember),
            (with(P256, r#""\u006bid":"a","kid":"b""#), RepeatedMember),
            (r#""kty":"oct","k":"AAAA""#.to_owned(), Private),
            (r#""kty":"oct""#.to_owned(), Private),
            (with(RSA, r#""d":"AQAB""#), Private),
            (with(RSA, r#""oth":[]"#), Private),
            (with(P256, r#""d":null"#), Private),
            (with(ED25519, r#""k":"AA""#), Private),
            (with(P256, r#""use":"enc""#), Use),
            (with(P256, r#""use":1"#), Use),
            (with(P256, r#""key_ops":["sign"]"#), Use),
            (with(P256, r#""key_ops":[]"#), Use),
            (with(P256, r#""key_ops":"verify""#), Use),
            (with(P256, r#""use":"sig","key_ops":["encrypt"]"#), Use),
            (with(P256, r#""alg":"ES384""#), Algorithm),
            (with(P256, r#""alg":"ES256K""#), Algorithm),
            (with(P256, r#""alg":"none""#), Algorithm),
            (with(P256, r#""alg":null"#), Algorithm),
            (with(RSA, r#""alg":"RSA-OAEP""#), Algorithm),
            (with(RSA, r#""alg":"HS256""#), Algorithm),
            (with(RSA, r#""alg":"ES256""#), Algorithm),
            (with(ED25519, r#""alg":"RS256""#), Algorithm),
            (with(P256, r#""kid":1"#), Id),
            (with(P256, &format!(r#""kid":"{}""#, "k".repeat(257))), Id),
            (String::new(), KeyType),
            (P256.replace("EC", "ec"), KeyType),
            (P256.replace("P-256", "P-521"), Curve),
            (P256.replace("P-256", "secp256k1"), Curve),
            (P256.replace("P-256", "P-384"), Number("x")),
            (ED25519.replace("Ed25519", "X25519"), Curve),
            (ED25519.replace("Ed25519", "Ed448"), Curve),
            (ED25519.replace("OKP", "EC"), Curve),
            (P256.replace(r#""x""#, r#""z""#), Number("x")),
            (P256.replace("x_FE", "AAAA"), Point),
            (P256.replace("f83O", ""), Number("x")),
            (P256.replace("f83O", "AAAAf83O"), Number("x")),
            (P256.replace("x_FE", "x/FE"), Number("y")),
            (P256.replace("IWI5a0", "IWI5a0="), Number("y")),
            // The last letter has bits that are no byte's.
            (P256.replace("IWI5a0", "IWI5a1"), Number("y")),
            (ED25519.replace("aaPcHURo", ""), Number("x")),
            (ed(&"A".repeat(43)), Point),
            (ed(&format!("AQ{}", "A".repeat(41))), Point),
            (ed(&format!("AQ{}IA", "A".repeat(39))), Point),
            (ed("7P________________________________________8"), Point),
            (ed("7P_______________________________________38"), Point),
            (ed("7f_______________________________________38"), Point),
            (ed("7v_______________________________________38"), Point),
            (ed("xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA_o"), Point),
            (ed("JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU"), Point),
            (rsa(255, "AQAB"), Modulus(2040)),
            (rsa(128, "AQAB"), Modulus(1024)),
            (rsa(1025, "AQAB"), Modulus(8200)),
            (rsa(0, "AQAB"), Modulus(0)),
            (RSA.replace("qDKgw", "qDKgA"), Modulus(2048)),
            (rsa(256, "AQ"), Exponent),
            (rsa(256, "Aw"), Exponent),
            (rsa(256, "AQAA"), Exponent),
            (rsa(256, "__8"), Exponent),
            (rsa(256, ""), Exponent),
            (rsa(256, "AgAAAAE"), Exponent),
            (rsa(256, "AQAB="), Number("e")),
        ] {
            let (keys, faults) = parse(&[&members, ED25519]);
            assert_eq!((keys.len(), &*faults), (1, &[fault][..]), "{members}");
        }
        for good in [
            rsa(256, "AQAB"),
            rsa(1024, "AQAB"),
            rsa(256, "Af____8"),
            with(RSA, r#""alg":"PS512","use":"sig","key_ops":["verify"],"x5u":"http://x""#),
            with(P256, r#""alg":"ES256""#),
            with(ED25519, r#""alg":"Ed25519""#),
            with(P256, &format!(r#""kid":"{}""#, "k".repeat(256))),
            with(P256, r#""kid":"""#),
        ] {
            usable(&good);
        }
    }

    #[test]
    fn warning_names_the_key_and_no_key_material() {
        let text =
            r#"{"keys":[{"kty":"oct","kid":"a`\n","k":"SECRET"},{"kty":"oct","k":"SECRET"}]}"#;
        let set = KeySet::parse(text.as_bytes()).expect("a set");
        assert!(set.keys.is_empty());
        let warnings: Vec<_> = set.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                r#"`keys[0]` with the `kid` "a`\n" is symmetric or has private members: publish public keys only"#,
                "`keys[1]` is symmetric or has private members: publish public keys only",
            ]
        );
        assert!(!format!("{set:?}").contains("SECRET"));
    }

    #[test]
    fn set_is_an_object_with_an_array_of_objects() {
        assert_eq!(KeySet::parse(br#"{"keys":[]}"#).map(|set| set.keys), Ok(KeySet::default()));
        for bad in [
            "{}",
            r#"{"keys":null}"#,
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":[[]]}"#,
            r#"{"keys":[],"keys":[]}"#,
            r#"{"keys":[],"\u006beys":[]}"#,
            r#"{"keys":[],"a":1,"a":2}"#,
        ] {
            assert_eq!(KeySet::parse(bad.as_bytes()), Err(KeySetError::Keys), "{bad}");
        }
        for (bad, line, column) in
            [("", 1, 0), ("[]", 1, 0), ("{\"keys\":\n[}", 2, 2), (r#"{"keys":[]}x"#, 1, 12)]
        {
            let error = KeySetError::Json { line, column };
            assert_eq!(KeySet::parse(bad.as_bytes()), Err(error), "{bad}");
        }
        let deep = format!(r#"{{"keys":[{{"a":{}{}}}]}}"#, "[".repeat(30), "]".repeat(30));
        assert!(matches!(KeySet::parse(deep.as_bytes()), Err(KeySetError::Json { .. })));
    }

    #[test]
    fn size_of_a_set_is_bounded() {
        let keys = |n: usize| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; n].join(","));
        assert_eq!(KeySet::parse(keys(64).as_bytes()).map(|set| set.skipped.len()), Ok(64));
        assert_eq!(KeySet::parse(keys(65).as_bytes()), Err(KeySetError::TooManyKeys(65)));
        let long = |len: usize| format!(r#"{{"keys":[]{}}}"#, " ".repeat(len - 11));
        assert!(KeySet::parse(long(MAX_BYTES).as_bytes()).is_ok());
        let error = KeySetError::TooLong(MAX_BYTES + 1);
        assert_eq!(KeySet::parse(long(MAX_BYTES + 1).as_bytes()), Err(error));
    }

    #[test]
    fn keys_are_found_by_thumbprint_and_kid() {
        let one = format!(r#"{{{P256},"kid":"1"}}"#);
        let text = format!(r#"{{"keys":[{one},{{{ED25519},"kid":"1"}},{{{RSA}}}]}}"#);
        let keys = KeySet::parse(text.as_bytes()).expect("a set").keys;
        let found = |id| keys.with_id(id).count();
        assert_eq!((found(None), found(Some("1")), found(Some(""))), (3, 2, 0));
        let other = KeySet::parse(format!(r#"{{"keys":[{one}]}}"#).as_bytes()).expect("a set").keys;
        let thumbprints: Vec<_> = keys.iter().map(|key| other.has(&key.thumbprint)).collect();
        assert_eq!(thumbprints, [true, false, false]);
        assert!(keys != other);
    }
}
