//! Rules over the whole tree that no compiler checks. Each failure names the file and the line.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome = Result<(), Box<dyn Error>>;

const TOP_LEVEL: [&str; 17] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "firmware-bridge",
    "models",
    "runtime",
    ".rustfmt.toml",
    "shaders",
    "tests",
    "tools",
];
const MAX_LINES: usize = 500;

/// One text file that git tracks or would track.
struct File {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = self.path.rsplit_once('.').map(|(_, extension)| extension);
        extension.is_some_and(|extension| extensions.contains(&extension))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// What is wrong with the tree, one line each.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, file: &str, line: usize, what: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{file}:{line}: {what}");
    }

    fn none(self) -> Outcome {
        assert!(self.0.is_empty(), "the tree is not tidy\n{}", self.0);
        Ok(())
    }
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The paths that git tracks or would track.
fn paths() -> Result<Vec<String>, Box<dyn Error>> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("git lists the files of this test: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let listing = String::from_utf8(output.stdout)?;
    let mut paths: Vec<String> = listing.split_terminator('\0').map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Err("git lists no file".into());
    }
    Ok(paths)
}

/// All text files; what is not UTF-8 or has been removed is left out.
fn files() -> Result<Vec<File>, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in paths()? {
        if let Ok(text) = std::fs::read_to_string(root().join(&path))
            && !text.contains('\0')
        {
            files.push(File { path, text });
        }
    }
    Ok(files)
}

/// Whether `word` occurs in `line` with neither end inside a longer word of the characters `inside` accepts.
fn has_word(line: &str, word: &str, inside: fn(char) -> bool) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let glued = |end: char, beyond: Option<char>| inside(end) && beyond.is_some_and(inside);
        !glued(word.chars().next().unwrap_or(' '), before) && !glued(word.chars().next_back().unwrap_or(' '), after)
    })
}

fn in_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `line` holds an absolute path that only exists on the machine it was written on.
fn has_machine_path(line: &str) -> bool {
    // Put together here, so that this file passes its own test.
    let starts = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/bash", "_jobs")];
    starts.iter().any(|start| {
        line.match_indices(start).any(|(at, _)| {
            // After these the path goes on from something else, like `$tree` or a host.
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| in_identifier(c) || ".-}~*)]".contains(c))
        })
    })
}

/// Whether `line` names a host that packages are fetched from: those come from the machine's own settings.
fn has_mirror_host(line: &str) -> bool {
    let hosts = [
        concat!("deb.de", "bian.org"),
        concat!("security.de", "bian.org"),
        concat!("snapshot.de", "bian.org"),
        concat!("archive.ub", "untu.com"),
        concat!("ports.ub", "untu.com"),
        concat!(":", "//mirror"),
        concat!(":", "//ftp."),
        concat!(":", "//10."),
        concat!(":", "//192.168."),
    ];
    hosts.iter().any(|host| line.contains(host))
}

#[test]
fn top_level_holds_only_the_known_names() -> Outcome {
    let mut findings = Findings::default();
    let names: BTreeSet<String> =
        paths()?.iter().filter_map(|path| path.split('/').next().map(str::to_owned)).collect();
    for name in names.iter().filter(|name| !TOP_LEVEL.contains(&name.as_str())) {
        findings.add(name, 1, "not one of the top-level names (TOP_LEVEL in tests/tests/tree/tidy.rs)");
    }
    findings.none()
}

#[test]
fn source_files_are_short() -> Outcome {
    let mut findings = Findings::default();
    for file in files()?.iter().filter(|file| file.has_extension(&["rs", "wgsl", "py"])) {
        let count = file.text.lines().count();
        if count > MAX_LINES {
            findings.add(&file.path, count, &format!("{count} lines, at most {MAX_LINES}"));
        }
    }
    findings.none()
}

#[test]
fn no_machine_paths_and_no_mirror_hosts() -> Outcome {
    let mut findings = Findings::default();
    for file in &files()? {
        for (number, line) in file.lines() {
            if has_machine_path(line) {
                findings.add(&file.path, number, "a path of one machine");
            }
            if has_mirror_host(line) {
                findings.add(&file.path, number, "the host of a package mirror");
            }
        }
    }
    findings.none()
}

#[test]
fn nothing_is_left_undone() -> Outcome {
    let everywhere = [concat!("FIX", "ME"), concat!("XX", "X")];
    let in_rust = [concat!("to", "do!"), concat!("un", "implemented!")];
    let mut findings = Findings::default();
    for file in files()?.iter().filter(|file| file.path != "Cargo.lock") {
        let rust = file.has_extension(&["rs"]);
        for (number, line) in file.lines() {
            let mut words: Vec<&str> = everywhere.to_vec();
            words.extend(in_rust.iter().filter(|_| rust));
            for word in words.into_iter().filter(|word| has_word(line, word, in_identifier)) {
                findings.add(&file.path, number, &format!("`{word}`: do it, or write an issue"));
            }
        }
    }
    findings.none()
}

#[test]
fn ignored_tests_say_why() -> Outcome {
    let mut findings = Findings::default();
    for file in files()?.iter().filter(|file| file.has_extension(&["rs"])) {
        for (number, line) in file.lines() {
            if line.trim_start().starts_with("#[ignore]") {
                findings.add(&file.path, number, "#[ignore] needs a reason: #[ignore = \"…\"]");
            }
        }
    }
    findings.none()
}

/// Every kernel has a file, a line in variants.txt and a CPU twin, all three of the same name.
#[test]
fn kernels_are_listed_and_have_twins() -> Outcome {
    const FOLDER: &str = "shaders/wgsl";
    const LIST: &str = "shaders/wgsl/variants.txt";
    let files = files()?;
    let exists = |path: &str| files.iter().any(|file| file.path == path);
    let kernel = |file: &File| {
        let name = file.path.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".wgsl")?;
        (!name.contains('/')).then(|| name.to_owned())
    };
    let kernels: Vec<String> = files.iter().filter_map(kernel).collect();
    let Some(list) = files.iter().find(|file| file.path == LIST) else {
        return Err(format!("{LIST} is missing").into());
    };
    // A kernel's line is its name, or "- name" when only the variants below it exist; theirs start with "+".
    let listed: Vec<(usize, &str)> = list
        .lines()
        .map(|(number, line)| (number, line.strip_prefix("- ").unwrap_or(line)))
        .filter(|(_, line)| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|(number, line)| Some((number, line.split(|c| !in_identifier(c)).next()?)))
        .collect();

    let mut findings = Findings::default();
    for name in &kernels {
        let path = format!("{FOLDER}/{name}.wgsl");
        if !listed.iter().any(|(_, known)| known == name) {
            findings.add(&path, 1, &format!("not listed in {LIST}"));
        }
        let twin = format!("shaders/src/cpu/{name}.rs");
        if !exists(&twin) {
            findings.add(&path, 1, &format!("has no CPU twin {twin}"));
        }
    }
    for (number, name) in listed {
        if !kernels.iter().any(|known| known == name) {
            findings.add(LIST, number, &format!("`{name}` has no file {FOLDER}/{name}.wgsl"));
        }
    }
    findings.none()
}

#[test]
fn only_the_gpu_layer_knows_wgpu() -> Outcome {
    let names = [concat!("wg", "pu::"), concat!("use wg", "pu"), concat!("extern crate wg", "pu")];
    let mut findings = Findings::default();
    // Peers are other people's engines, which bring their own.
    for file in files()?.iter().filter(|file| !file.path.starts_with("tools/peers/")) {
        let in_layer = file.path.starts_with("runtime/src/gpu/") || file.path == "runtime/src/gpu.rs";
        let manifest =
            file.path.ends_with("Cargo.toml") && !["Cargo.toml", "runtime/Cargo.toml"].contains(&&*file.path);
        for (number, line) in file.lines() {
            let comment = line.trim_start().starts_with("//");
            let code = file.has_extension(&["rs"]) && !in_layer && !comment;
            if code && names.iter().any(|name| has_word(line, name, in_identifier)) {
                findings.add(&file.path, number, "wgpu is named outside runtime/src/gpu");
            }
            if manifest && has_word(line, "wgpu", |c| in_identifier(c) || c == '-') {
                findings.add(&file.path, number, "only the runtime depends on wgpu");
            }
        }
    }
    findings.none()
}

/// What prints ends the program where nobody reads it. Programs print through models/src/io/console.rs.
#[test]
fn programs_print_through_the_console_alone() -> Outcome {
    let names = [
        concat!("print", "!("),
        concat!("println", "!("),
        concat!("eprint", "!("),
        concat!("eprintln", "!("),
        concat!("dbg", "!("),
        concat!("io::std", "err()"),
    ];
    let mut findings = Findings::default();
    for file in files()? {
        let path = file.path.as_str();
        let of_tests = path.starts_with("tests/")
            || path.contains("/tests/")
            || path.starts_with("tools/peers/")
            || path.starts_with("tools/contention/")
            || path.starts_with("tools/xtask/")
            || path.contains("/examples/");
        let exempt = of_tests || path.ends_with("build.rs") || path == "models/src/io/console.rs";
        if exempt || !file.has_extension(&["rs"]) {
            continue;
        }
        for (number, line) in file.lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if names.iter().any(|name| has_word(line, name, in_identifier)) {
                findings.add(path, number, "prints by itself: outln!, errln! and print_result never end a program");
            }
        }
    }
    findings.none()
}

/// The folders of models/src, each of which imports only from those before it.
const ROOMS: [&str; 8] = ["io", "error", "graph", "checkpoint", "nets", "processing", "families", "quantize"];

#[test]
fn rooms_of_the_models_import_downward() -> Outcome {
    let mut findings = Findings::default();
    for file in files()?.iter().filter(|file| file.has_extension(&["rs"])) {
        let Some(inside) = file.path.strip_prefix("models/src/").filter(|inside| *inside != "lib.rs") else { continue };
        let room = inside.split_once('/').map(|(room, _)| room);
        let Some(floor) = ROOMS.iter().position(|known| Some(*known) == room) else {
            findings.add(&file.path, 1, "in none of the folders of ROOMS in tests/tests/tidy.rs");
            continue;
        };
        for (number, line) in file.lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for name in imported_modules(line) {
                if ROOMS.iter().position(|room| *room == name).is_some_and(|other| other > floor) {
                    findings.add(&file.path, number, &format!("imports from {name}, which is above {}", ROOMS[floor]));
                }
            }
            if line.contains("crate::{") {
                findings.add(&file.path, number, "write one `use` for each folder");
            }
        }
    }
    findings.none()
}

/// The first names of paths that begin at the crate, or above a module.
fn imported_modules(line: &str) -> impl Iterator<Item = &str> {
    let paths = ["crate::", "super::"].into_iter().flat_map(|start| line.split(start).skip(1));
    paths.map(|rest| rest.split(|c| !in_identifier(c)).next().unwrap_or_default())
}

/// Lints and the versions of dependencies are said once, in the root manifest.
#[test]
fn manifests_follow_the_workspace() -> Outcome {
    let files = files()?;
    let manifest = |path: &str| files.iter().find(|file| file.path == path);
    let root = manifest("Cargo.toml").ok_or("Cargo.toml is missing")?;
    let members = root.text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let (members, _) = members.ok_or("Cargo.toml names no members")?;
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();

    let mut findings = Findings::default();
    for member in members {
        let path = format!("{member}/Cargo.toml");
        let Some(file) = manifest(&path) else {
            findings.add("Cargo.toml", 1, &format!("{path} is missing"));
            continue;
        };
        check_manifest(file, &mut findings);
    }
    findings.none()
}

fn check_manifest(file: &File, findings: &mut Findings) {
    let mut section = "";
    let mut lints = false;
    for (number, line) in file.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            if section.contains("dependencies.") {
                findings.add(&file.path, number, "write a dependency in one line, with `workspace = true`");
            }
            continue;
        }
        let from_workspace = line.contains("workspace = true");
        lints |= (section == "lints" && from_workspace) || line == "lints.workspace = true";
        if section.ends_with("dependencies") && line.contains('=') && !line.starts_with('#') && !from_workspace {
            findings.add(&file.path, number, "a dependency without `workspace = true`");
        }
    }
    if !lints {
        findings.add(&file.path, 1, "does not take the workspace's lints ([lints] workspace = true)");
    }
}

#[test]
fn the_patterns_find_what_they_are_for() {
    let cases = [
        concat!("cd /wo", "rk/x"),
        concat!("\"/ro", "ot/.cache\""),
        concat!("D=/ho", "me/me/x"),
        concat!("(/wo", "rk/)"),
    ];
    for line in cases {
        assert!(has_machine_path(line), "{line}");
    }
    for line in
        ["$tree/root/usr", "${tree}/root/usr", concat!("https://example.org/ho", "me/"), concat!("target/wo", "rk/x")]
    {
        assert!(!has_machine_path(line), "{line}");
    }
    let paths = "use crate::graph::Graph; let x = super::super::nets::flow(crate::io);";
    assert_eq!(imported_modules(paths).collect::<Vec<_>>(), ["graph", "io", "", "nets"]);
    assert!(has_mirror_host(concat!("deb http://deb.de", "bian.org/debian trixie main")));
    assert!(!has_mirror_host("https://www.debian.org/"));
    assert!(has_word("a dbg!()", "dbg!", in_identifier));
    assert!(!has_word("my_dbg!()", "dbg!", in_identifier));
    assert!(has_word(concat!("// XX", "X: later"), concat!("XX", "X"), in_identifier));
    assert!(!has_word(concat!("mktemp -d x.XX", "XXXX"), concat!("XX", "X"), in_identifier));
}
