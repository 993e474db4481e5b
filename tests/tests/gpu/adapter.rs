//! Which adapter is taken, and what is said where none is.

use std::process::Command;

use fathom::gpu::{AdapterKind, Gpu, GpuError, GpuOptions};

use crate::open;

#[test]
fn a_software_adapter_needs_permission() {
    let gpu = open(false);
    if gpu.info().kind != AdapterKind::Software {
        return; // the choice itself is tested without an adapter, in the GPU layer
    }
    let error = Gpu::open(&GpuOptions::default()).expect_err("refused");
    assert!(matches!(&error, GpuError::SoftwareRefused { name } if *name == gpu.info().name), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("--software") && message.contains("robot.toml"), "{message}");
}

#[test]
fn an_unknown_name_lists_what_there_is() {
    let name = open(false).info().name.clone();
    let options = GpuOptions { adapter: Some("Voodoo 2".into()), allow_software: true, ..GpuOptions::default() };
    let message = Gpu::open(&options).expect_err("not found").to_string();
    assert!(message.contains("Voodoo 2") && message.contains(&name), "{message}");
}

#[test]
fn no_driver_is_an_error() {
    let child = Command::new(env!("CARGO_BIN_EXE_adapter"))
        .env("VK_DRIVER_FILES", "/nowhere/driver.json")
        .output()
        .expect("child runs");
    let message = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(1), "{message}");
    assert!(message.contains("no Vulkan adapter") && message.contains("/nowhere/driver.json"), "{message}");
}
