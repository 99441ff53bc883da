//! Paths: the catalog finds the same endpoint as a simple reference matcher (D20). A server that
//! reads the path differently does not run the handler of another endpoint.
//!
//! The input is lines: `/a/{x}` adds an endpoint, `/a/{x}|x` adds one whose `x` may contain a
//! colon, `?/a/b` requests a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scopegate::policy::catalog::endpoint::{Endpoint, EndpointTree, RequestPath, Template};
use scopegate::policy::scope::Scope;

/// How a server reads a segment: how often it decodes, whether it cuts the segment at a `;` before
/// and after decoding, and whether it ignores case.
#[derive(Clone, Copy)]
struct Reading {
    decodes: usize,
    cuts: [bool; 2],
    ignores_case: bool,
    ignores_slash: bool,
}

impl Reading {
    fn segment(self, segment: &str) -> Vec<u8> {
        let cut = |bytes: Vec<u8>| bytes.split(|b| *b == b';').next().unwrap_or_default().to_vec();
        let mut bytes = segment.as_bytes().to_vec();
        if self.cuts[0] {
            bytes = cut(bytes);
        }
        for _ in 0..self.decodes {
            bytes = decoded(&bytes);
        }
        if self.cuts[1] {
            bytes = cut(bytes);
        }
        if self.ignores_case {
            bytes.make_ascii_lowercase();
        }
        bytes
    }

    /// The kinds of the template's segments, if the template matches: 0 is a literal, 1 a verb,
    /// 2 a parameter, 3 the rest.
    fn kinds(self, template: &str, path: &str) -> Option<Vec<u8>> {
        let (mut parts, mut own) = (segments(template), segments(path));
        if self.ignores_slash {
            parts.pop_if(|last| last.is_empty());
            own.pop_if(|last| last.is_empty());
        }
        let mut kinds = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let segment = self.segment(own.get(at)?);
            kinds.push(match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
                None if self.segment(part) == segment => 0,
                None => return None,
                Some(_) if segment.is_empty() => return None,
                Some((name, "")) if name.ends_with('+') => {
                    let is_whole = own.last().is_some_and(|last| !last.is_empty());
                    kinds.push(3);
                    return is_whole.then_some(kinds);
                }
                Some((_, "")) => 2,
                Some((_, verb)) => {
                    let name = segment.strip_suffix(&self.segment(verb)[..])?;
                    (!name.is_empty()).then_some(1)?
                }
            });
        }
        (parts.len() == own.len()).then_some(kinds)
    }

    /// The best of the matching templates: literals win from left to right.
    fn best<'a>(self, templates: &[&'a str], path: &str) -> Option<&'a str> {
        let matching = templates.iter().filter_map(|template| {
            // Two templates may differ only by a trailing slash. The path's own form wins.
            let slash = template.ends_with('/') != path.ends_with('/');
            Some((self.kinds(template, path)?, slash, *template))
        });
        matching.min().map(|(_, _, template)| template)
    }
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

fuzz_target!(|text: &str| {
    let mut endpoints = EndpointTree::default();
    let mut templates: Vec<&str> = Vec::new();
    let mut with_colons: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('?')).take(12) {
        let (path, names) = line.split_once('|').unwrap_or((line, ""));
        let Ok(mut template) = Template::parse(path) else { continue };
        let permitted = names.split(',').filter(|name| template.allow_colon(name)).count();
        let scope = Scope::parse(format!("n{}", templates.len())).expect("a scope");
        let endpoint = Endpoint { scopes: vec![scope], ..Endpoint::default() };
        let mut with = endpoints.clone();
        // One rejected template rejects the whole catalog.
        if with.insert("GET", &template, endpoint).is_ok() {
            endpoints = with;
            templates.push(path);
            if permitted > 0 {
                with_colons.push(path);
            }
        }
    }
    for asked in text.lines().filter_map(|line| line.strip_prefix('?')).take(8) {
        let Ok(path) = RequestPath::parse(asked) else { continue };
        let bits = |n: usize, at: usize| n >> at & 1 == 1;
        let readings: Vec<_> = (0..48)
            .map(|n| Reading {
                decodes: n / 16,
                cuts: [bits(n, 0), bits(n, 1)],
                ignores_case: bits(n, 2),
                ignores_slash: bits(n, 3),
            })
            .collect();
        for part in segments(asked) {
            let harmless = |reading: &Reading| !matches!(&reading.segment(part)[..], b"." | b"..");
            assert!(readings.iter().all(harmless), "{asked} goes elsewhere for some");
        }
        assert_eq!(endpoints.find("POST", &path), None, "methods match exactly");
        let found = endpoints.find("GET", &path).map(|endpoint| {
            let name = endpoint.scopes[0].as_str();
            templates[name[1..].parse::<usize>().expect("a number")]
        });
        let head = endpoints.find("HEAD", &path).map(|endpoint| endpoint.scopes[0].as_str());
        let get = endpoints.find("GET", &path).map(|endpoint| endpoint.scopes[0].as_str());
        assert_eq!(head, get, "GET answers for HEAD");
        let Some(found) = found else {
            // If all servers read a path in the same way, it is unknown only if no template
            // matches.
            let strict = readings[0].best(&templates, asked);
            let all_agree =
                readings.iter().all(|reading| reading.best(&templates, asked) == strict);
            let is_plain = asked.bytes().all(|b| b.is_ascii_lowercase() || b == b'/');
            let plain = |t: &&str| t.bytes().all(|b| b.is_ascii_lowercase() || b"/{}".contains(&b));
            if is_plain && all_agree && templates.iter().all(plain) && !asked.ends_with('/') {
                assert_eq!(strict, None, "{asked} among {templates:?}");
            }
            continue;
        };
        let has_colon = asked.contains(':') && found.contains('{');
        let explained = with_colons.contains(&found) || found.contains(':');
        assert!(!has_colon || explained, "{asked} is {found}, which permits no colon");
        for reading in readings {
            let other = reading.best(&templates, asked);
            let same = |other: &str| other.trim_end_matches('/') == found.trim_end_matches('/');
            assert!(
                other.is_none_or(same),
                "{asked} is {found}, and to some servers {other:?} among {templates:?}"
            );
        }
    }
});
