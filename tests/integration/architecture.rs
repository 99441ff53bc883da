//! The house stands as its picture says: imports point down, and each heavy crate is named in
//! one room. And the contract's comments follow its rule.
use std::fs;
use std::path::{Path, PathBuf};

fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(dir), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .map(|path| {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

/// A file's floor: that of the first part of its name.
fn floor(file: &str) -> usize {
    let room = file.trim_start_matches("src/").trim_end_matches(".rs");
    match room.split('/').next().expect("a room") {
        "policy" | "measure" => 0,
        "store" => 1,
        "authority" => 2,
        "grpc" => 3,
        "config" | "telemetry" | "server" | "cli" | "main" | "lib" => 4,
        other => panic!("{other} stands on no floor: give it one here and in the picture"),
    }
}

#[test]
fn imports_point_down() {
    for (file, text) in files("src", "rs") {
        let own = floor(&file);
        for line in text.lines() {
            let mut rest = line;
            while let Some(at) = rest.find("crate::") {
                rest = &rest[at + "crate::".len()..];
                let room: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                // The generated messages are no room.
                if !["policy", "measure", "store", "authority", "grpc", "config", "server"]
                    .contains(&room.as_str())
                {
                    continue;
                }
                let other = floor(&format!("src/{room}.rs"));
                assert!(other <= own, "{file} imports from a floor above its own: {}", line.trim());
            }
        }
    }
}

#[test]
fn each_heavy_crate_is_named_in_one_room() {
    for (name, rooms) in [
        ("sled::", &["src/store/sled", "src/server.rs"][..]),
        ("moka::", &["src/authority/facts.rs"]),
        (
            "tonic::",
            &[
                "src/grpc",
                "src/server/calls.rs",
                "src/server/frame.rs",
                "src/server/health.rs",
                "src/server/interruption.rs",
                "src/server/places.rs",
                "src/server/service.rs",
                "src/cli",
                "src/lib.rs",
            ],
        ),
        (
            "hyper::",
            &[
                "src/server/connection.rs",
                "src/server/metrics.rs",
                "src/server/service.rs",
                "src/server/turn.rs",
            ],
        ),
        ("prometheus_client::", &["src/server/metrics.rs"]),
        ("tokio_rustls::", &["src/server/tls.rs", "src/cli/diagnosis.rs", "src/config/pem.rs"]),
        ("opentelemetry::", &["src/server/traces.rs"]),
        ("opentelemetry_otlp::", &["src/server/traces.rs"]),
        ("opentelemetry_sdk::", &["src/server/traces.rs"]),
        ("x509_cert::", &["src/server/tls.rs"]),
        (
            "serde_saphyr::",
            &[
                "src/policy/catalog/file.rs",
                "src/policy/catalog/needs.rs",
                "src/cli/context.rs",
                "src/cli/trial.rs",
            ],
        ),
        ("sysinfo::", &["src/config/memory.rs"]),
        ("clap::", &["src/config", "src/main.rs", "src/cli"]),
        (
            "prost::",
            &[
                "src/store/record.rs",
                "src/store/backup.rs",
                "src/store.rs",
                "src/grpc",
                "src/cli/printer.rs",
            ],
        ),
        ("prost_reflect::", &["src/cli/printer.rs", "src/cli/field_words.rs"]),
        ("comfy_table::", &["src/cli/printer.rs"]),
        ("Status::", &["src/grpc/status", "src/server", "src/cli"]),
    ] {
        for (file, text) in files("src", "rs") {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.match_indices(name).any(|(at, _)| {
                    !code[..at]
                        .ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                })
            });
            let at_home = rooms.iter().any(|room| file.starts_with(room));
            assert!(!named || at_home, "{file} names `{name}`, which belongs to {rooms:?}");
        }
    }
}

/// The commands are clients: what they know of a server's inside is the catalog file, of which
/// they say offline what a server would say, and its words.
#[test]
fn commands_are_clients() {
    for (file, text) in files("src/cli", "rs") {
        // A backup is of the store's own form, and a restore has no server to ask.
        let is_backup = ["/backup.rs", "/restore.rs"].iter().any(|own| file.ends_with(own));
        for inside in ["crate::store", "crate::authority", "crate::grpc", "crate::server"] {
            let own = is_backup && inside == "crate::store";
            assert!(own || !text.contains(inside), "{file} knows `{inside}`");
        }
        // The past is replayed by whoever asks for it.
        // So is what one catalog text has otherwise than another.
        let offline = [
            "catalog.rs",
            "catalog_change.rs",
            "trial.rs",
            "town.rs",
            "moment.rs",
            "past.rs",
            "report.rs",
            "typed.rs",
        ];
        let offline = offline.iter().any(|own| file.ends_with(own));
        // Scopes are shown from the catalog's file, and changes by the names of their kinds.
        let words = ["scope.rs", "lookup.rs", "history.rs", "meant.rs"];
        let offline = offline || words.iter().any(|own| file.ends_with(own));
        let offline = offline || is_backup;
        // How a text is shown is nobody's decision.
        let text = text.replace("crate::policy::text", "");
        assert!(offline || !text.contains("crate::policy"), "{file} knows what a server decides");
    }
}

#[test]
fn layer_0_is_pure() {
    for (file, text) in files("src/policy", "rs") {
        for impure in ["async ", "std::fs", "std::net", "SystemTime", "Instant", "tracing", "tokio"]
        {
            assert!(!text.contains(impure), "{file} has `{impure}`");
        }
    }
}

#[test]
fn every_fields_comment_begins_with_its_name() {
    for (file, text) in files("proto", "proto") {
        let lines: Vec<_> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let Some((declaration, number)) = line.trim().split_once(" = ") else { continue };
            let is_enum_value = !declaration.contains(' ');
            if !line.starts_with("  ") || !number.ends_with(';') || is_enum_value {
                continue;
            }
            let name = declaration.rsplit(' ').next().expect("a name");
            let comment = lines[..n].iter().rev().take_while(|l| l.trim().starts_with("//")).last();
            let comment = comment.map_or("", |l| l.trim());
            let rest = comment.strip_prefix("// ").and_then(|c| c.strip_prefix(name));
            let named = rest.is_some_and(|rest| rest.starts_with([' ', ',']));
            assert!(named, "{file}: {}", line.trim());
        }
    }
}
