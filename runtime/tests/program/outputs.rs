//! The files that `fathom` writes: their mode, what lies beside them, and places that are no files.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use super::support::model;

/// `fathom` with this mask of the modes of new files.
fn fathom(mask: &str, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_fathom");
    let wrapper = std::env::var("FATHOM_RUN").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {mask}; exec {wrapper} \"$@\""), "sh", program]).args(arguments);
    command
}

/// Writes the actions of an inference to `output`.
fn infer(mask: &str, output: &Path) -> Output {
    let observation = model().join("observation.safetensors");
    let [model, observation, output] = [model(), &observation, output].map(|p| p.to_str().unwrap());
    let arguments = ["infer", "--software", "--model", model, "--observation", observation, "--output", output];
    fathom(mask, &arguments).output().unwrap()
}

fn wrote(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn outputs_have_the_mode_of_any_new_file_and_leave_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for foreign in ["actions.part", "actions.safetensors.part"] {
        fs::write(at(foreign), "of somebody else").unwrap();
    }
    wrote(infer("027", &at("actions.safetensors")));
    assert_eq!(mode(&at("actions.safetensors")), 0o640);
    fs::set_permissions(at("actions.safetensors"), fs::Permissions::from_mode(0o664)).unwrap();
    wrote(infer("077", &at("actions.safetensors")));
    assert_eq!(mode(&at("actions.safetensors")), 0o664, "as it was");
    for foreign in ["actions.part", "actions.safetensors.part"] {
        assert_eq!(fs::read_to_string(at(foreign)).unwrap(), "of somebody else");
    }
    assert_eq!(names(folder.path()), ["actions.part", "actions.safetensors", "actions.safetensors.part"]);

    let new = at("model");
    wrote(fathom("022", &["init", "--output", new.to_str().unwrap()]).output().unwrap());
    let expected = ["config.json", "model.safetensors", "norm_stats.json", "observation.safetensors", "tokenizer.json"];
    assert_eq!(names(&new), expected);
    for name in names(&new) {
        assert_eq!(mode(&new.join(&name)), 0o644, "{name}");
    }
}

#[test]
fn outputs_go_through_links_and_into_pipes_and_devices() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink("target", at("link")).unwrap();
    wrote(infer("022", &at("link")));
    assert!(at("link").is_symlink() && at("target").is_file());

    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let reader = thread::spawn({
        let fifo = at("fifo");
        move || fs::read(fifo).unwrap()
    });
    wrote(infer("022", &at("fifo")));
    assert!(reader.join().unwrap() == fs::read(at("target")).unwrap(), "the same bytes through the pipe");
    assert!(fs::symlink_metadata(at("fifo")).unwrap().file_type().is_fifo());

    // As root, a node of this test's own, where it may be opened; from others `/dev/null`, which they could not replace.
    let null = if rustix::process::geteuid().is_root() {
        let made = Command::new("mknod").arg(at("null")).args(["c", "1", "3"]).status().unwrap().success();
        if !made || fs::OpenOptions::new().write(true).open(at("null")).is_err() {
            return;
        }
        at("null")
    } else {
        PathBuf::from("/dev/null")
    };
    wrote(infer("022", &null));
    assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device(), "it is no file now");
}

/// Said before the model is loaded: this one is none.
#[test]
fn outputs_that_cannot_be_written_are_reported_first() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("robot.toml"), "[model]\npath = \"/nowhere\"\nprompt = \"x\"\n[link]\ndevice = \"simulated\"\n[[camera]]\nview = \"a\"\nsource = { kind = \"scene\", rate_hz = 1 }\n").unwrap();
    let config = at("robot.toml");
    for (path, expected) in [
        (at("folder"), format!("{}: expected a file to write, found a directory", at("folder"))),
        (at("none/out"), format!("{}: cannot be created in {}: No such file or directory", at("none/out"), at("none"))),
        ("/proc/out".to_owned(), "/proc/out: cannot be created in /proc: ".to_owned()),
    ] {
        for arguments in [
            &["infer", "--model", "/nowhere", "--observation", "/nowhere", "--output", &path][..],
            &["depth", "--model", "/nowhere", "--image", "/nowhere", "--output", &path],
            &["run", "--config", &config, "--json", &path],
            &["run", "--config", &config, "--picture", &path],
            &["replay", "/nowhere", "--stages", &path],
        ] {
            let output = fathom("022", arguments).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&expected), "{arguments:?}: {said}");
        }
    }
    assert_eq!(names(folder.path()), ["folder", "robot.toml"], "nothing is left");
}
