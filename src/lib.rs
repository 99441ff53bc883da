//! scopegate

pub mod authority;
pub mod grpc;
pub mod policy;
pub mod store;

/// The wire contract, generated from `proto/scopegate/v1`, whose comments describe it.
pub mod proto {
    tonic::include_proto!("scopegate.v1");

    /// The contract's descriptors, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/scopegate.v1.bin"));
}
