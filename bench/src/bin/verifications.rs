//! Verifications: the least that a new access token costs. It verifies one ES256 signature over a text of
//! 900 bytes again and again, with the library that scopegate verifies with, and prints how often.

use std::error::Error;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};

const USAGE: &str = "usage: verifications MILLISECONDS";
/// The bytes of the text.
const TEXT: usize = 900;
/// Between two looks at the clock.
const RUN: u64 = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let milliseconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).ok_or(USAGE)?;
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no key was made")?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
    let pair = pair.map_err(|_| "the key is malformed")?;
    let text = [b'x'; TEXT];
    let signature = pair.sign(&random, &text).map_err(|_| "nothing was signed")?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(milliseconds) {
        for _ in 0..RUN {
            key.verify(&text, signature.as_ref()).map_err(|_| "the signature is wrong")?;
        }
        count += RUN;
    }
    println!("{count}");
    Ok(())
}
