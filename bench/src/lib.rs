//! The contract, for the programs that measure it.

#![allow(missing_docs, reason = "the contract's own files describe it")]

tonic::include_proto!("scopegate.v1");
