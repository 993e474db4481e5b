//! No path of the controller panics: the linked firmware does not refer to a panic handler.
#![expect(clippy::expect_used, reason = "a test's helpers fail the test as its body does")]

use std::path::Path;
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_firmware_has_no_panic_path() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-check");
    run(Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(crate_root.join("panic-check/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS"));
    let linked = target.join("firmware.o");
    run(Command::new("ld")
        .args(["-r", "--gc-sections", "-u", "firmware_main", "-o"])
        .args([&linked, &target.join("release/libpanic_check.a")]));
    let symbols = run(Command::new("nm").arg(&linked));
    assert!(symbols.contains("serial_read"), "not the firmware: {symbols}");
    assert!(!symbols.contains("panic"), "{symbols}");
}
