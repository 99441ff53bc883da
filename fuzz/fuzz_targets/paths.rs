//! Paths: the endpoint found is the one that a slow and plain matcher finds (D20), however a
//! server might read the path.
//!
//! The input is lines: `/a/{x}` adds an endpoint, `?/a/b` asks for one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::policy::catalog::endpoint::{Endpoint, Endpoints, Path};
use scopegate::policy::scope::Scope;

/// How a server may read a segment: as it stands, decoded, without what follows a `;`.
fn readings(segment: &str) -> Vec<Vec<u8>> {
    let cut = |bytes: &[u8]| bytes.split(|b| *b == b';').next().unwrap_or_default().to_vec();
    let whole = segment.as_bytes().to_vec();
    let plain = decoded(&whole);
    let mut all = vec![cut(&whole), cut(&plain), decoded(&cut(&whole)), plain, whole];
    all.sort();
    all.dedup();
    all
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(code) if *byte == b'%' => {
                plain.push(code);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
}

fn segments(path: &str) -> Vec<&str> {
    if path == "/" { vec![] } else { path[1..].split('/').collect() }
}

/// Of all templates that match, the one whose literals come first from left to right.
fn slow<'a>(
    templates: &[&'a str],
    path: &[Vec<u8>],
    is: fn(&str, &Vec<u8>) -> bool,
) -> Option<&'a str> {
    let kinds = |template: &str| {
        let parts = segments(template);
        (parts.len() == path.len()).then_some(())?;
        let kind = |(part, own): (&&str, &Vec<u8>)| match part.starts_with('{') {
            true => (!own.is_empty()).then_some(1),
            false => is(part, own).then_some(0),
        };
        parts.iter().zip(path).map(kind).collect::<Option<Vec<_>>>()
    };
    let matching = templates.iter().filter_map(|template| Some((kinds(template)?, *template)));
    matching.min_by_key(|(kinds, _)| kinds.clone()).map(|(_, template)| template)
}

fuzz_target!(|text: &str| {
    let mut endpoints = Endpoints::default();
    let mut templates: Vec<&str> = Vec::new();
    for template in text.lines().filter(|line| !line.starts_with('?')).take(12) {
        let mut with = endpoints.clone();
        let scope = Scope::parse(format!("n{}", templates.len())).expect("a scope");
        let endpoint = Endpoint { scopes: vec![scope], ..Endpoint::default() };
        // A catalog with a template that is refused is refused whole.
        if with.insert("GET", template, endpoint).is_ok() {
            endpoints = with;
            templates.push(template);
        }
    }
    for asked in text.lines().filter_map(|line| line.strip_prefix('?')).take(8) {
        let Ok(path) = Path::parse(asked) else { continue };
        let parts = segments(asked);
        for part in &parts {
            let harmless = |reading: &Vec<u8>| !matches!(&reading[..], b"." | b"..");
            assert!(readings(part).iter().all(harmless), "{asked} goes elsewhere for some");
        }
        assert_eq!(endpoints.find("POST", &path), None, "methods match exactly");
        let found = endpoints.find("GET", &path).map(|endpoint| {
            let name = endpoint.scopes[0].as_str();
            templates[name[1..].parse::<usize>().expect("a number")]
        });
        let exact: Vec<_> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        let expected = slow(&templates, &exact, |part, own| part.as_bytes() == own);
        let all: Vec<_> = parts.iter().map(|part| readings(part)).collect();
        if all.iter().all(|readings| readings.len() == 1) {
            // It can be read in one way only, unless a template's own literals are not so plain.
            let plain = |part: &&str| part.starts_with('{') || readings(part).len() == 1;
            if templates.iter().all(|template| segments(template).iter().all(plain)) {
                assert_eq!(found, expected, "{asked} among {templates:?}");
            }
        }
        let Some(found) = found else { continue };
        assert_eq!(Some(found), expected, "{asked} among {templates:?}");
        // Whoever reads it otherwise reads the same endpoint, or none.
        let ways: usize = all.iter().map(Vec::len).product();
        for mut way in 0..ways.min(1_000) {
            let read: Vec<_> = all
                .iter()
                .map(|readings| {
                    let own = readings[way % readings.len()].clone();
                    way /= readings.len();
                    own
                })
                .collect();
            // Its own literals it may read in any way too.
            let other = slow(&templates, &read, |part, own| readings(part).contains(own));
            assert!(
                other.is_none_or(|other| other == found),
                "{asked} is {found}, and to some servers {other:?}"
            );
        }
    }
});
