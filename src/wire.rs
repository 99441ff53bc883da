//! Wire: conversion between protobuf messages and values of the domain, for every transport and for the
//! CLI; and the public names and rules of the API that do not depend on a transport.
//!
//! Not here: decisions; see [`crate::policy`]. Nor sending and receiving messages.

pub mod access;
pub mod convert;
pub mod names;
pub(crate) mod pagination;
pub mod parse;
pub mod render;
pub mod validate;
