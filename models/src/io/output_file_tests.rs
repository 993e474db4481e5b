use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The mode of an ordinary new file.
fn usual_mode(folder: &Path) -> u32 {
    let path = folder.join("usual");
    fs::write(&path, "").unwrap();
    let mode = mode(&path);
    fs::remove_file(&path).unwrap();
    mode
}

#[test]
fn a_new_file_has_the_mode_of_any_new_file_and_a_replaced_one_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("actions.safetensors");
    write(&path, "one").unwrap();
    assert_eq!(mode(&path), usual_mode(folder.path()));
    for kept in [0o600, 0o640, 0o755] {
        fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
        write(&path, format!("{kept:o}")).unwrap();
        assert_eq!((mode(&path), fs::read_to_string(&path).unwrap()), (kept, format!("{kept:o}")));
    }
    assert_eq!(names(folder.path()), ["actions.safetensors"], "nothing is left beside it");
}

#[test]
fn a_reader_of_the_old_file_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    write(&path, "old").unwrap();
    let mut old = File::open(&path).unwrap();
    write(&path, "new").unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), fs::read_to_string(&path).unwrap().as_str()), ("old", "new"));
}

#[test]
fn files_of_others_beside_it_stay() {
    let folder = tempfile::tempdir().unwrap();
    for foreign in ["actions.part", "actions.safetensors.part", ".actions.part", ".fathom-1-0-00000000.part"] {
        fs::write(folder.path().join(foreign), foreign).unwrap();
    }
    let before = names(folder.path());
    write(&folder.path().join("actions.safetensors"), "new").unwrap();
    for foreign in &before {
        assert_eq!(fs::read_to_string(folder.path().join(foreign)).unwrap(), *foreign);
    }
    assert_eq!(names(folder.path()).len(), before.len() + 1);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    write(&path, "old").unwrap();
    let mut file = OutputFile::create(&path).unwrap();
    file.write_all(&[7; 1 << 18]).unwrap();
    assert_eq!(names(folder.path()).len(), 2, "the new file is under construction");
    drop(file);
    assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap()), (vec!["out".to_owned()], "old".to_owned()));
    check(&path).unwrap();
    check(&folder.path().join("other")).unwrap();
    assert_eq!(names(folder.path()), ["out"], "a check makes nothing");
}

#[test]
fn links_are_followed_and_stay_links() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let (first, second, target) = (folder.path().join("first"), below.join("second"), below.join("target"));
    symlink("below/second", &first).unwrap();
    symlink("target", &second).unwrap();
    // It leads to nothing yet.
    for text in ["one", "two"] {
        write(&first, text).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), text);
        assert!(first.is_symlink() && second.is_symlink() && !target.is_symlink());
    }
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    symlink("b", &a).unwrap();
    symlink("a", &b).unwrap();
    let error = write(&a, "circle").unwrap_err();
    assert!(matches!(&error, OutputError::Io { step: Step::Find, .. }), "{error}");
}

#[test]
fn pipes_and_sockets_are_written_to_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    check(&fifo).unwrap();
    write(&fifo, "through the pipe").unwrap();
    assert_eq!(reader.join().unwrap(), "through the pipe");
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());

    let path = folder.path().join("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        socket.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    write(&path, "through the socket").unwrap();
    assert_eq!(reader.join().unwrap(), "through the socket");
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(names(folder.path()), ["fifo", "socket"]);
}

/// A node of this test's own like `/dev/null` (minor 3) or `/dev/full` (7), as root; the system's own from others, who
/// could not replace it; none where root's nodes may not be opened.
fn node(folder: &Path, name: &str, minor: &str) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return Some(Path::new("/dev").join(name));
    }
    let path = folder.join(name);
    let made = Command::new("mknod").arg(&path).args(["c", "1", minor]).status().is_ok_and(|s| s.success());
    (made && File::options().write(true).open(&path).is_ok()).then_some(path)
}

#[test]
fn device_nodes_are_written_to_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let Some(null) = node(folder.path(), "null", "3") else { return };
    write(&null, "gone").unwrap();
    assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device());
    let Some(full) = node(folder.path(), "full", "7") else { return };
    let error = write(&full, "no room").unwrap_err();
    assert!(
        matches!(&error, OutputError::Io { step: Step::Write, source, .. } if source.kind() == ErrorKind::StorageFull)
    );
    assert!(error.to_string().starts_with(&format!("{}: cannot be written: ", full.display())), "{error}");
    assert!(fs::symlink_metadata(&full).unwrap().file_type().is_char_device());
}

/// `/dev/stdout` and its like: what the process has open is written to, behind what is there already.
#[test]
fn a_file_that_a_process_has_open_is_written_to() {
    use std::os::fd::AsRawFd as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut open = File::create(&path).unwrap();
    open.write_all(b"before\n").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    write(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())), "after\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "the same file");
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("new/"), PathBuf::from("/")] {
        let error = write(&path, "x").unwrap_err();
        assert!(matches!(&error, OutputError::Directory { path: named } if *named == path), "{error}");
    }
    let missing = folder.path().join("missing/out.json");
    for error in [write(&missing, "x").unwrap_err(), check(&missing).unwrap_err()] {
        assert!(
            matches!(&error, OutputError::Io { step: Step::Create(in_folder), .. } if in_folder.ends_with("missing"))
        );
        assert!(error.to_string().contains("missing/out.json: cannot be created in"), "{error}");
    }
    // /proc takes no new files, not even from root.
    let error = write(Path::new("/proc/actions.safetensors"), "x").unwrap_err();
    assert!(matches!(&error, OutputError::Io { step: Step::Create(_), .. }), "{error}");
    let error = write(Path::new(""), "x").unwrap_err();
    assert!(matches!(&error, OutputError::Io { .. }), "{error}");
    let file = folder.path().join("file");
    write(&file, "x").unwrap();
    let error = write(&file.join("below"), "x").unwrap_err();
    assert!(matches!(&error, OutputError::Io { step: Step::Find, .. }), "{error}");
    assert_eq!(names(folder.path()), ["file"]);
}

/// Many at once, under one name: one of them is there, whole, and nothing beside it.
#[test]
fn writers_of_one_file_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    thread::scope(|scope| {
        for writer in 0..8_u8 {
            let path = &path;
            scope.spawn(move || (0..20).for_each(|_| write(path, vec![writer; 300_000]).unwrap()));
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 300_000);
    assert!(bytes.iter().all(|b| b == &bytes[0]), "of one writer");
    assert_eq!(names(folder.path()), ["out"]);
}
