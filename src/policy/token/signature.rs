//! Signature: whether a signature over a text is of a key (RFC 7518 section 3, RFC 8037 section 3.1).
//!
//! `ring` has the rules of T13: ECDSA signatures are `r` and `s` of exact length, each from 1 to n-1;
//! the `s` of EdDSA is below the order; an RSA signature is as long as the modulus and below it. The
//! tests of this file prove it. Both signatures of ECDSA's malleability are right, so a token is never
//! identified by its text.
//!
//! Not here: which key and which algorithm a token may use; see [`super::unverified_token`].

use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

use super::key::{Key, PublicKey};
use crate::policy::catalog::issuer::Algorithm;

impl Key {
    /// Whether this is the key's signature over the text, by this algorithm. It is not if the key is
    /// not for the algorithm.
    pub(super) fn has_signed(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let (algorithm, point): (&dyn VerificationAlgorithm, _) = match &self.public {
            PublicKey::Rsa { modulus: n, exponent: e } => {
                let key = RsaPublicKeyComponents { n, e };
                return rsa(algorithm)
                    .is_some_and(|padding| key.verify(padding, text, signature).is_ok());
            }
            PublicKey::P256(point) => (&signature::ECDSA_P256_SHA256_FIXED, point),
            PublicKey::P384(point) => (&signature::ECDSA_P384_SHA384_FIXED, point),
            PublicKey::Ed25519(point) => (&signature::ED25519, point),
        };
        let (point, text, signature) = (&**point, text, signature);
        algorithm.verify(point.into(), text.into(), signature.into()).is_ok()
    }
}

/// The padding and the hash of an algorithm of RSA.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

    use super::*;
    use crate::policy::token::key_set::KeySet;

    fn key(members: &str) -> Key {
        let set = KeySet::parse(format!(r#"{{"keys":[{members}]}}"#).as_bytes()).expect("a set");
        assert_eq!(set.skipped, []);
        set.keys.iter().next().expect("a key").clone()
    }

    fn decode(text: &str) -> Vec<u8> {
        BASE64.decode(text).expect("base64url")
    }

    /// The sum of two numbers, the most significant byte first, in as many bytes as the first has.
    fn sum(number: &[u8], other: &[u8]) -> Vec<u8> {
        let (mut sum, mut carry) = (number.to_vec(), 0);
        let other = other.iter().rev().copied().chain(std::iter::repeat(0));
        for (byte, other) in sum.iter_mut().rev().zip(other) {
            let total = u16::from(*byte) + u16::from(other) + carry;
            (*byte, carry) = (total as u8, total >> 8);
        }
        assert_eq!(carry, 0, "the sum has more bytes");
        sum
    }

    /// `order - number`, for a number below 256.
    fn negative(order: &[u8], number: u8) -> Vec<u8> {
        let mut difference = order.to_vec();
        let last = difference.last_mut().expect("a byte");
        *last = last.checked_sub(number).expect("no borrow");
        difference
    }

    struct Curve {
        algorithm: Algorithm,
        key: Key,
        /// The order of the curve.
        order: Vec<u8>,
        /// `r` and `s` over "small r and s" are this `r` and 1. So `r + n` and `s + n` have no more
        /// bytes than `n`. The key was computed from these numbers.
        small_r: u8,
    }

    fn curves() -> [Curve; 2] {
        [
            Curve {
                algorithm: Algorithm::Es256,
                key: key(
                    r#"{"kty":"EC","crv":"P-256","x":"Y0k7x61kYgU3p5HkX46XHjv1iRWGqJCZvbSA45nusDU","y":"9uuM_DV7VhmP5Dh-UJi7Yv4K3OZjvRQEmX0CzO3Y6Xo"}"#,
                ),
                order: decode("_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE"),
                small_r: 5,
            },
            Curve {
                algorithm: Algorithm::Es384,
                key: key(
                    r#"{"kty":"EC","crv":"P-384","x":"NMK6N2JEZcDdokgx_EYQUNbRiK2IqtKJUtxVGoHVkzGNchsUAETPTmJlSqiYbr8D","y":"nYvG-arNM68c7Mzq_uXXjt3XgKq6OmlDevu9uJ7nOZA0vK5ixfj5schDKSqAlkdW"}"#,
                ),
                order: decode("________________________________x2NNgfQ3Ld9YGg2ySLCneuzsGWrMxSlz"),
                small_r: 2,
            },
        ]
    }

    #[test]
    fn ecdsa_numbers_are_from_1_to_the_order_and_of_exact_length() {
        for Curve { algorithm, key, order, small_r } in curves() {
            let number = |number: u8| sum(&vec![0; order.len()], &[number]);
            let (r, s, zero) = (number(small_r), number(1), number(0));
            let verifies =
                |parts: &[&[u8]]| key.has_signed(algorithm, b"small r and s", &parts.concat());
            assert!(verifies(&[&r, &s]));
            assert!(verifies(&[&r, &negative(&order, 1)]), "the other half of malleability");
            for (why, signature) in [
                ("r + n", &[&*sum(&r, &order), &*s][..]),
                ("s + n", &[&r, &sum(&s, &order)]),
                ("n - s + n, which has the same bytes as -s", &[&r, &negative(&order, 0)]),
                ("r = 0", &[&zero, &s]),
                ("s = 0", &[&r, &zero]),
                ("both 0", &[&zero, &zero]),
                ("r = n", &[&order, &s]),
                ("all ones", &[&vec![0xff; 2 * order.len()]]),
                ("swapped", &[&s, &r]),
                ("none", &[]),
                ("r alone", &[&r]),
                ("one byte less", &[&r, &s[1..]]),
                ("one byte more", &[&r, &s, b"\0"]),
                ("one byte more in front", &[b"\0", &r, &s]),
                ("minimal numbers", &[&[small_r], &[1]]),
                ("DER", &[&[0x30, 6, 2, 1, small_r, 2, 1, 1]]),
            ] {
                assert!(!verifies(signature), "{why}");
            }
            let signature = [&*r, &*s].concat();
            assert!(!key.has_signed(algorithm, b"small r and S", &signature));
            for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(!key.has_signed(other, b"small r and s", &signature), "{other}");
            }
        }
    }

    /// RFC 8037 appendix A.4.
    #[test]
    fn eddsa_scalar_is_below_the_order() {
        let key = key(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        );
        let text = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = decode(
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
        let verifies = |signature: &[u8]| key.has_signed(Algorithm::EdDsa, text, signature);
        assert!(verifies(&signature));
        let order = decode("EAAAAAAAAAAAAAAAAAAAABTe-d6i95zWWBJjGlz10-0");
        let (r, s) = signature.split_at(32);
        let mut s: Vec<_> = s.iter().rev().copied().collect();
        for times in 1..=14 {
            s = sum(&s, &order);
            let scalar: Vec<_> = s.iter().rev().copied().collect();
            assert!(!verifies(&[r, &scalar].concat()), "s + {times} L");
        }
        assert!(!verifies(&signature[..63]));
        assert!(!verifies(&[&signature[..], b"\0"].concat()));
        assert!(!verifies(&[]));
        assert!(!verifies(&[0; 64]));
    }

    /// RFC 7515 appendix A.2.
    #[test]
    fn rsa_signature_has_the_length_of_the_modulus() {
        let key = key(
            r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
        );
        let text = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = decode(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        let verifies = |signature: &[u8]| key.has_signed(Algorithm::Rs256, text, signature);
        assert!(verifies(&signature));
        assert!(!verifies(&[b"\0", &signature[..]].concat()));
        assert!(!verifies(&[&signature[..], b"\0"].concat()));
        assert!(!verifies(&signature[1..]));
        for bytes in [vec![], vec![0; 256], [&[0; 255][..], &[1]].concat(), vec![0xff; 256]] {
            assert!(!verifies(&bytes));
        }
        for other in Algorithm::ALL.into_iter().filter(|other| *other != Algorithm::Rs256) {
            assert!(!key.has_signed(other, text, &signature), "{other}");
        }
    }
}
