//! Build script: compiles the `.proto` files of the API and of the store's records.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let wire = ["authorization", "backup", "catalog", "change", "directory", "key"]
        .map(|file| format!("scopegate/v1/{file}.proto"));
    let descriptors = protox::compile(&wire, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Server reflection returns these descriptors.
    fs::write(out.join("scopegate.v1.bin"), prost_bytes(&descriptors))?;
    // With its full name, a message type finds its descriptor.
    let mut messages = prost_build::Config::new();
    messages.enable_type_names();
    // The server counts the lists of a request before it decodes it.
    let codec = "crate::grpc::codec::CountingCodec";
    tonic_prost_build::configure()
        .codec_path(codec)
        .compile_fds_with_config(descriptors, messages)?;

    let records = protox::compile(["scopegate/store/v1/store.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(records)?;
    Ok(())
}

/// The encoded bytes of a message.
fn prost_bytes(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}
