//! The JSON Schema of the catalog file, for editors.
//!
//! The schema describes the shape: keys, types and bounds. References between parts of the file,
//! cycles and ambiguous paths need the parser: see [`super::file::CatalogFile::parse`]. Tests
//! compare the keys and bounds of the schema with those of the parser.

/// The schema as JSON, draft 2020-12.
pub const JSON_SCHEMA: &str = include_str!("schema.json");
