//! What the pages show is code that runs.

const EXAMPLE: &str = include_str!("../../examples/axum.rs");
const PAGE: &str = include_str!("../../README.md");
const FRONT: &str = include_str!("../../../../README.md");

/// The first block in Rust after a heading, without its indentation.
fn block(page: &str, heading: &str) -> String {
    let (_, section) = page.split_once(heading).expect("the heading");
    let (_, block) = section.split_once("```rust").expect("a block");
    let (_, block) = block.split_once('\n').expect("a line");
    flat(block.split_once("```").expect("its end").0)
}

fn flat(code: &str) -> String {
    code.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[test]
fn readme_shows_the_example() {
    let (_, code) = EXAMPLE.split_once("\n\n").expect("what it is, then the code");
    assert_eq!(block(PAGE, "# scopegate-client"), flat(code));
    assert!(EXAMPLE.lines().count() < 40);
}

#[test]
fn main_readme_shows_an_excerpt() {
    let shown = block(FRONT, "## Guard an endpoint");
    assert!(flat(EXAMPLE).contains(&shown), "{shown}");
}
