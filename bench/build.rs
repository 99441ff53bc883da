//! Compiles the contract that both servers speak.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../proto/scopegate/v1");
    let files = ["scopegate/v1/authorization.proto", "scopegate/v1/directory.proto"];
    let descriptors = protox::compile(files, ["../proto"])?;
    // The yardstick answers one call; the stubs are for the others.
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;
    Ok(())
}
