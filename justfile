# The commands of a day's work. `just` lists them; `.ci/run` calls them, and more.
# `just` is on PyPI (`pip install rust-just`), on crates.io, and in most distributions.

_list:
    @just --list --unsorted

# Format, lints, API docs, the contract and its reference, licences. Changes nothing.
check:
    cargo fmt --check
    cargo fmt --manifest-path bench/Cargo.toml --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
    cargo clippy --quiet --all-targets -- -D warnings
    # The entry points of fuzz/, which no other build has.
    cargo rustc --quiet --lib --profile check -- --cfg fuzzing -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
    .ci/contract
    if command -v cargo-deny >/dev/null; then cargo deny --log-level error check licenses bans sources; fi

# All tests, by the command that the README gives.
test:
    bash -euc "$(sed -n '/^Run the tests:/,/^```$/p' README.md | grep '^cargo')"

# The tests of one subject, such as `just subject tls`.
subject name:
    cargo test --test integration -- {{name}}::

# The long forms, which take hours; or some: `just heavy crash power_loss`.
heavy *parts:
    .ci/long {{parts}}

# Speed against an empty handler, with the words of `bench/run --help`.
bench *words:
    bench/run {{words}}

# The API docs, in a browser.
doc:
    cargo doc --no-deps --open

# A server with demo data on 127.0.0.1:50051.
demo:
    cargo run --release -- serve --demo

# What a release publishes, in target/dist: a static binary, the chart, an SBOM, checksums.
dist:
    .ci/dist
