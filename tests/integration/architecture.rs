//! The architecture of `docs/architecture.md`: the direction of imports, the place of each heavy
//! crate, the words that are used, and the form of the comments of the contract.
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

/// The layers of `src`, from the lowest. A module imports only from its own layer and from those
/// below it. A new module of `src` needs a place here and in `docs/architecture.md`.
const LAYERS: [&[&str]; 13] = [
    &["policy", "metrics"],
    &["store"],
    &["authority"],
    &["wire"],
    &["gateway"],
    &["envoy"],
    &["observe"],
    &["grpc"],
    &["web"],
    &["oauth", "authzen"],
    &["transport"],
    &["server"],
    &["cli", "main", "lib"],
];

/// The layer of a file, by the first part of its path.
fn layer(file: &str) -> usize {
    let module = file.trim_start_matches("src/").trim_end_matches(".rs");
    let module = module.split('/').next().expect("a module");
    LAYERS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("{module} has no layer: add it here and to the documentation"))
}

#[test]
fn modules_import_only_from_lower_layers() {
    for (file, text) in files("src", "rs") {
        let own = layer(&file);
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let module: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                // The generated messages and the macros of the crate are no modules of a layer.
                if !LAYERS.iter().any(|modules| modules.contains(&module.as_str())) {
                    continue;
                }
                let other = layer(&format!("src/{module}.rs"));
                assert!(other <= own, "{file} imports from a higher layer: {}", line.trim());
            }
        }
    }
}

/// An engine keeps bytes. What they mean is above it.
#[test]
fn engines_know_nothing_of_the_store() {
    for (file, text) in files("src/store", "rs") {
        if file.starts_with("src/store/engine") {
            let own = text.replace("pub(in crate::store)", "");
            assert!(!own.contains("crate::store") && !own.contains("crate::policy"), "{file}");
            assert!(file != "src/store/engine.rs" || !own.contains("super::"), "{file}");
        }
    }
}

#[test]
fn heavy_crates_are_named_in_one_place() {
    for (name, places) in [
        ("sled::", &["src/store/engine/sled"][..]),
        ("moka::", &["src/authority/fact_cache", "src/authority/token_cache.rs"]),
        (
            "tonic::",
            &[
                "src/store/replicated/etcd",
                "src/store/replicated/peer_client.rs",
                "src/wire",
                "src/grpc",
                "src/transport",
                "src/observe",
                "src/cli",
                "src/lib.rs",
            ],
        ),
        ("hyper::", &["src/transport", "src/observe/prometheus"]),
        (
            "prometheus_client::",
            &["src/observe/prometheus", "src/server/collector", "src/transport/collector"],
        ),
        (
            "tokio_rustls::",
            &[
                "src/transport/tls",
                "src/transport/jwks",
                "src/cli/diagnosis",
                "src/cli/pinned_certificate.rs",
                "src/transport/pem.rs",
            ],
        ),
        ("opentelemetry::", &["src/observe/otlp"]),
        ("opentelemetry_otlp::", &["src/observe/otlp"]),
        ("opentelemetry_sdk::", &["src/observe/otlp"]),
        // The provider of rustls, a module of this name, is the same crate.
        (
            "ring::",
            &[
                "src/policy/token",
                "src/transport/tls",
                "src/transport/jwks",
                "src/cli/diagnosis",
                "src/cli/pinned_certificate.rs",
            ],
        ),
        ("x509_cert::", &["src/transport/tls"]),
        ("serde_saphyr::", &["src/policy/catalog", "src/cli/context", "src/cli/catalog_test"]),
        ("sysinfo::", &["src/server/memory_share.rs"]),
        ("clap::", &["src/server", "src/observe/log.rs", "src/main.rs", "src/cli"]),
        (
            "prost::",
            &[
                "src/store/record",
                "src/store/backup",
                "src/store/replicated",
                "src/store/error.rs",
                "src/store/replicated/etcd",
                "src/wire",
                "src/envoy/raw_request.rs",
                "src/grpc",
                "src/cli/printer",
                "src/cli/failover",
            ],
        ),
        ("prost_reflect::", &["src/cli/printer", "src/cli/failover", "src/cli/field_words.rs"]),
        ("comfy_table::", &["src/cli/cell.rs", "src/cli/table.rs"]),
        // The span status of OpenTelemetry has the same name.
        ("Status::", &["src/grpc/status", "src/observe/otlp", "src/cli"]),
    ] {
        for (file, text) in files("src", "rs") {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.match_indices(name).any(|(at, _)| {
                    !code[..at]
                        .ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                })
            });
            let allowed = places.iter().any(|place| file.starts_with(place));
            assert!(!named || allowed, "{file} names `{name}`, which belongs to {places:?}");
        }
    }
}

/// The commands are clients of the wire contract. A few commands work without a server, and use
/// the domain directly.
#[test]
fn commands_are_clients() {
    for (file, text) in files("src/cli", "rs") {
        // A backup has the format of the store, and a restore runs without a server.
        // So does `replicas`, which asks etcd.
        let is_backup = [
            "/backup.rs",
            "/restore.rs",
            "/replicas.rs",
            "/replica_list.rs",
            "/replicas/verify.rs",
        ];
        let is_backup = is_backup.iter().any(|own| file.ends_with(own));
        // The root of the command line has the flags of `serve`, too.
        let is_root = [
            "cli/command.rs",
            "cli/keys.rs",
            "cli/replicas.rs",
            "cli/replica_list.rs",
            "cli/replicas/verify.rs",
        ];
        let is_root = is_root.iter().any(|own| file.ends_with(own));
        for inside in ["crate::store", "crate::authority", "crate::grpc", "crate::server"] {
            let own = is_backup && inside == "crate::store" || is_root && inside == "crate::server";
            assert!(own || !text.contains(inside), "{file} knows `{inside}`");
        }
        // Commands that evaluate or describe without a server, and names that the domain defines.
        let offline = [
            "/backup.rs",
            "/restore.rs",
            "/catalog.rs",
            "/catalog_change.rs",
            "/catalog_file.rs",
            "/catalog_schema.rs",
            "/catalog_test.rs",
            "/catalog_test/fixture.rs",
            "/explain_at.rs",
            "/explain_at/report.rs",
            "/history.rs",
            "/lookup.rs",
            "/scope.rs",
            "/suggestion.rs",
        ];
        let offline = offline.iter().any(|own| file.ends_with(own));
        // The escaping of text and the syntax of durations decide nothing.
        let text = text.replace("crate::policy::text", "");
        let text = text.replace("crate::policy::catalog::file::duration", "");
        assert!(offline || !text.contains("crate::policy"), "{file} knows what a server decides");
    }
}

/// Words that this project used for things that have a standard name, with that name.
const RETIRED: &[(&str, &str)] = &[
    ("anybody", "any client, any caller"),
    ("asleep", "dormant"),
    ("at hand", "cached"),
    ("desk", "per-core state, client"),
    ("doors", "API state"),
    ("hearing", "resolved audience"),
    ("housekeeping", "garbage collection"),
    ("nobody", "no client, no caller"),
    ("shelf", "cache map"),
    ("shelved", "cached"),
    ("whoever", "a client that, a caller that"),
    ("witness", "high-water mark"),
];

/// A stranger to the project knows the standard word, and must learn a private one.
#[test]
fn retired_words_are_not_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let mut all = vec![("README.md".to_owned(), readme)];
    all.extend(
        [("src", "rs"), ("proto", "proto"), ("docs", "md")].map(|(d, e)| files(d, e)).concat(),
    );
    let mut found = Vec::new();
    for (file, text) in &all {
        for (n, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (word, standard) in RETIRED {
                // The high-water mark is in a file of this name.
                let line = line.replace("`witness`", "").replace("\"witness", "");
                let used = line.match_indices(word).any(|(at, _)| {
                    let part = |c: char| c.is_ascii_alphanumeric();
                    !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part)
                });
                if used {
                    found.push(format!("{file}:{}: `{word}`: write: {standard}", n + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} retired words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn policy_has_no_io_and_no_clock() {
    for (file, text) in files("src/policy", "rs") {
        if file.ends_with("tests.rs") {
            continue;
        }
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

/// The pages for people, with the text of each.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let top = top.map(|name| (name.to_owned(), fs::read_to_string(root.join(name)).expect("text")));
    top.into_iter().chain(files("docs", "md")).collect()
}

#[test]
fn pages_link_to_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (page, text) in pages() {
        let dir = Path::new(&page).parent().expect("a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().expect("a part");
            if file.is_empty() || file.starts_with("http") || file.contains(' ') {
                continue;
            }
            links += 1;
            assert!(root.join(dir).join(file).exists(), "{page} links to {file}");
        }
        for name in text.split('`').filter(|name| name.ends_with(".rs")) {
            if name.starts_with("src/") || name.starts_with("tests/") {
                assert!(name.contains('*') || root.join(name).exists(), "{page} names {name}");
            }
        }
    }
    assert!(links > 100, "only {links} links");
}

/// Every rule that code, contract or pages cite is stated in `docs/rules.md`.
#[test]
fn cited_rules_are_defined() {
    let all = [("src", "rs"), ("proto", "proto"), ("docs", "md"), ("tests/integration", "rs")];
    let all = all.map(|(dir, ending)| files(dir, ending)).concat();
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md"));
    let rules = rules.expect("the rules");
    let mut cited = std::collections::BTreeSet::new();
    for (_, text) in &all {
        for (series, open) in [("d", "(D"), ("t", "(T")] {
            for (at, _) in text.match_indices(open) {
                let rest = text[at + open.len()..].chars();
                let digits: String = rest.take_while(char::is_ascii_digit).collect();
                cited.extend(digits.parse::<u32>().map(|rule| format!("{series}{rule}")));
            }
        }
    }
    assert!(cited.len() >= 30, "only {cited:?}");
    for rule in cited {
        assert!(rules.contains(&format!("<a id=\"{rule}\"></a>")), "{rule} is not defined");
    }
}
