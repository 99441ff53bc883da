//! Compiles the part of the wire contract that this client speaks.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../../proto/scopegate/v1");
    let files = ["scopegate/v1/authorization.proto", "scopegate/v1/directory.proto"];
    let descriptors = protox::compile(files, ["../../proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
