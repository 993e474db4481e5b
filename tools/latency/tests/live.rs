//! Watching a process that runs the loop, from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fathom::telemetry::RingWriter;
use serde_json::Value;
use support::{fail, latency, run, succeed};

/// A process with the loop in it, which ends with the test.
struct Looping(Child);

impl Looping {
    fn start(arguments: &[&str]) -> Looping {
        // A chunk lasts long enough for an inference on a machine that does much else.
        let slow = ["--action-rate", "1", "--seconds", "900", "--warm-up", "0.1", "--progress", "0"];
        let mut command = latency(&[&["cycle", "--software"][..], &slow].concat());
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ring = format!("/dev/shm/fathom-{}.ring", child.id());
        let mut looping = Looping(child);
        let until = Instant::now() + Duration::from_secs(60);
        while !std::path::Path::new(&ring).exists() {
            assert!(Instant::now() < until && looping.0.try_wait().unwrap().is_none(), "it makes its ring");
            std::thread::sleep(Duration::from_millis(20));
        }
        looping
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Waits until the controller accepted so many chunks; `false` when it ended before.
    fn accepted(&mut self, chunks: u64) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("live.json");
        let until = Instant::now() + Duration::from_secs(300);
        while self.0.try_wait().unwrap().is_none() {
            let pid = self.pid();
            let look = latency(&["live", "--once", "--pid", &pid, "--json", file.to_str().unwrap()]).output().unwrap();
            if look.status.success() {
                let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
                if json["sections"][0]["chunks"].as_u64().unwrap() >= chunks {
                    return true;
                }
            }
            assert!(Instant::now() < until, "{chunks} chunks in 300 s: {}", String::from_utf8_lossy(&look.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Waits for its end: its code, and what it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let mut printed = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (self.0.wait().unwrap().code(), printed)
    }
}

impl Drop for Looping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Loops of several tests at once would be late for each other's sake.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(child: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.to_string()]).status().unwrap().success());
}

#[test]
fn a_daemon_is_watched_for_a_time_and_as_a_view() {
    fathom_contention::timed!();
    let _alone = alone();
    let mut looping = Looping::start(&[]);
    assert!(looping.accepted(2));
    let pid = looping.pid();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.json");
    // For a time, which is longer on a machine that does much else: until there is a chunk in it.
    let (seconds, printed) = [2, 8, 32, 128]
        .into_iter()
        .find_map(|s: u32| {
            let (code, printed, _) =
                run(&["live", "--pid", &pid, "--seconds", &s.to_string(), "--json", file.to_str().unwrap()]);
            (code == 0).then_some((f64::from(s), printed))
        })
        .expect("a chunk in 128 s");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((json["mode"].as_str(), json["header"]["adapter_type"].as_str()), (Some("live"), Some("software")));
    assert!(json["model_hash"].as_str().unwrap().starts_with("xxh3:"), "of the daemon's own model");
    // An observation's events come when it was accepted, and begin with its exposure.
    let seen = json["sections"][0]["seconds"].as_f64().unwrap();
    let age = json["sections"][0]["age"][0][1].as_f64().unwrap() / 1e3;
    assert!(seen <= seconds + age + 2.0, "what was there before it looked is left out: {seen} s of {seconds} s");
    assert!(printed.contains("SOFTWARE DRIVER"));
    // Once: what the ring has, the minute before.
    let printed = succeed(&["live", "--once", "--pid", &pid]);
    assert!(
        printed.contains("= observation age at actuation") && printed.contains("cold: first inference"),
        "{printed}"
    );

    // On a terminal: a view that is drawn again and again, and goes.
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let mut command = latency(&["live", "--pid", &pid, "--seconds", "3"]);
    let mut child = command.stdout(terminal.try_clone().unwrap()).spawn().unwrap();
    drop((terminal, command));
    let mut shown = Vec::new();
    // A terminal that all have closed ends with an error.
    let _ = File::from(master).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    let shown = String::from_utf8_lossy(&shown);
    let frames = shown.matches("\x1b[H").count();
    assert!(frames >= 3, "{frames} frames in 3 s");
    let view = shown.split("\x1b[H").nth(frames - 1).unwrap();
    let view = view.split("\x1b[J").next().unwrap();
    for part in ["observation age at actuation", "vision tower", "SOFTWARE DRIVER", "chunks", "now p50"] {
        assert!(view.contains(part), "{part:?} is not in the view\n{view}");
    }
    assert!(
        view.lines().count() <= 40 && view.lines().all(|l| l.chars().count() <= 104),
        "it fits the terminal\n{view}"
    );
    assert!(shown.contains("\x1b[?1049h") && shown.contains("\x1b[?1049l"), "the terminal is given back");
}

/// A reader that hangs, and one that dies, are nothing to the daemon; a reader outlives a daemon that dies.
#[test]
fn a_reader_that_hangs_does_not_hold_the_loop() {
    let _alone = alone();
    let mut looping = Looping::start(&[]);
    let pid = looping.pid();
    let watch =
        || latency(&["live", "--pid", &pid, "--seconds", "900"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (mut hangs, mut dies) = (watch().unwrap(), watch().unwrap());
    assert!(looping.accepted(2));
    signal(hangs.id(), "STOP");
    dies.kill().unwrap();
    dies.wait().unwrap();
    assert!(looping.accepted(5), "the loop goes on");
    signal(looping.0.id(), "INT");
    let (code, printed) = looping.end();
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("= observation age at actuation"), "it ended as it should: {printed}");
    signal(hangs.id(), "CONT");
    let mut said = String::new();
    hangs.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(hangs.wait().unwrap().success());
    assert!(said.contains(&format!("daemon {pid} ended while it was watched")), "{said}");
}

#[test]
fn the_first_late_tick_ends_a_cycle_and_leaves_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("late.pftrace");
    // The tick of a loop of its own is as late as the process is held up. It may be late by itself before that.
    let _alone = alone();
    let mut looping = Looping::start(&["--break-on-miss", "--keep", "2", "--trace", trace.to_str().unwrap()]);
    let began = Instant::now();
    while looping.accepted(1) {
        let child = looping.pid();
        // It may end at any time.
        let tell = |what: &str| Command::new("kill").args([what, &child]).stderr(Stdio::null()).status().unwrap();
        tell("-STOP");
        std::thread::sleep(Duration::from_millis(60));
        tell("-CONT");
        std::thread::sleep(Duration::from_millis(500));
    }
    let (code, printed) = looping.end();
    assert_eq!(code, Some(1), "{printed}");
    assert!(began.elapsed() < Duration::from_secs(800), "it did not go on for its 900 s");
    assert!(printed.contains("trace of ") && std::fs::metadata(&trace).unwrap().len() > 1000, "{printed}");
}

#[test]
fn without_a_daemon_there_is_nothing_to_watch() {
    let said = fail(1, &["live", "--pid", "4194304", "--once"]);
    assert!(said.contains("no running fathom daemon") && said.contains("/dev/shm"), "{said}");
    let said = fail(1, &["cycle", "--attach", "--pid", "4194304", "--seconds", "5"]);
    assert!(said.contains("no running fathom daemon"), "{said}");
}

#[test]
fn a_ring_of_another_version_is_refused() {
    let ring = RingWriter::create("{}").unwrap();
    let mut file = File::options().write(true).open(ring.path()).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(8)).unwrap();
    std::io::Write::write_all(&mut file, &7_u64.to_ne_bytes()).unwrap();
    let said = fail(1, &["live", "--once", "--pid", &std::process::id().to_string()]);
    assert!(said.contains("expected version 1, found version 7"), "{said}");
}

/// A daemon that obeys no chunk has no age to tell of.
#[test]
fn a_daemon_that_sends_nothing_is_reported() {
    let info = r#"{"header":{"adapter":"x","adapter_type":"discrete","driver":"","model":"","scheme":"","kernels":"","dispatches":0,"shapes":{"images":[],"prompt_tokens":0,"horizon":0,"flow_steps":0,"parameters":0},"seed":0},"tick_ns":1,"action_ns":1}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = std::path::PathBuf::from(format!("/dev/shm/fathom-{}.ring", 4_000_000 + std::process::id()));
    let _ring = RingWriter::create_at(&path, info, 16).unwrap();
    let pid = (4_000_000 + std::process::id()).to_string();
    let said = fail(1, &["live", "--once", "--pid", &pid, "--json", folder.path().join("x").to_str().unwrap()]);
    assert!(said.contains("no chunk was accepted while it was watched (0 control ticks)"), "{said}");
}
