//! Tests with time bounds, each in a process of its own.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::{Denial, Meter, Processes};

/// Set in the test's own process: a file that records the test's start.
const ALONE: &str = "FATHOM_ALONE";
/// Number of attempts while the machine is busy.
const TRIES: u32 = 3;

/// The result of the attempts.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    NotJudged(String),
}

/// Runs a test with time bounds in a process of its own, so that other tests of its program count as other work; up to
/// three times if it fails while other work holds the processors. Returns whether the test is finished: `false` in the
/// test's own process, which must run the rest of the test. `here` is the type name of a function in the test, see
/// [`timed!`](crate::timed).
///
/// A test that was not judged adds a line "NAME: reason" to the file `FATHOM_NOT_JUDGED`, for `tools/test`, which tries
/// again later. Without that file it panics, because it did not pass.
///
/// # Panics
/// If the test failed, did not run, or was not judged and there is no file for that.
#[allow(clippy::panic, reason = "it fails a test")]
pub fn ran_alone(here: &str) -> bool {
    if let Some(begun) = env::var_os(ALONE) {
        if let Err(error) = File::create(&begun) {
            panic!("{}: {error}", Path::new(&begun).display());
        }
        return false;
    }
    // One at a time: they would delay each other.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name(here);
    match tried(TRIES, || once(name)) {
        Outcome::Passed => true,
        Outcome::Failed(why) => panic!("{name}: {why}"),
        Outcome::NotJudged(why) => {
            let why = format!("the machine was busy: {why}, in the last of {TRIES} tries");
            println!("{name}: not judged: {why}");
            let Some(list) = env::var_os("FATHOM_NOT_JUDGED").filter(|list| !list.is_empty()) else {
                panic!("not judged: {why}");
            };
            let noted = OpenOptions::new().create(true).append(true).open(&list);
            if let Err(error) = noted.and_then(|mut file| file.write_all(format!("{name}: {why}\n").as_bytes())) {
                panic!("{}: {error}", Path::new(&list).display());
            }
            true
        }
    }
}

/// `module::test` from `program::module::test::here`.
fn name(here: &str) -> &str {
    let test = here.rsplit_once("::").map_or(here, |(test, _)| test);
    test.split_once("::").map_or(test, |(_, name)| name)
}

/// Tries until the test passes, or fails without denied time.
fn tried(tries: u32, mut once: impl FnMut() -> (Result<(), String>, Denial)) -> Outcome {
    let mut outcome = Outcome::Passed;
    for _ in 0..tries {
        outcome = match once() {
            (Ok(()), _) => return Outcome::Passed,
            (Err(why), denial) if !denial.is_busy() => return Outcome::Failed(format!("{why}\n({denial})")),
            (Err(why), denial) => {
                println!("{why}");
                Outcome::NotJudged(denial.to_string())
            }
        };
    }
    outcome
}

/// Runs the test once and measures it.
#[allow(clippy::panic, reason = "it fails a test")]
fn once(name: &str) -> (Result<(), String>, Denial) {
    let program = env::args().next().unwrap_or_default();
    let begun = marker(name);
    let mut command = match env::var_os("FATHOM_RUN").filter(|wrapper| !wrapper.is_empty()) {
        Some(wrapper) => {
            let mut command = Command::new(wrapper);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, &begun);
    let from = Instant::now();
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (output, denial) = match started {
        Ok(child) => {
            let meter = Meter::start(Processes::Tree(child.id()));
            let output = child.wait_with_output();
            (output, meter.between(from, Instant::now()))
        }
        Err(error) => (Err(error), Denial::default()),
    };
    let ran = std::fs::remove_file(&begun).is_ok();
    match output {
        Ok(output) if ran && output.status.success() => {
            println!("{}", said(&output));
            (Ok(()), denial)
        }
        // Independent of the machine's load.
        Ok(output) if !ran => panic!("the test did not run in its own process: {}", said(&output)),
        Ok(output) => (Err(said(&output)), denial),
        Err(error) => panic!("the test's own process: {error}"),
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A file for this process and test only.
fn marker(name: &str) -> PathBuf {
    env::temp_dir().join(format!("fathom-alone-{}-{}", std::process::id(), name.replace("::", "-")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_test_is_tried_again_only_where_it_was_denied_the_processor() {
        let (quiet, busy) =
            (Denial::default(), Denial { denied: Duration::from_secs(1), span: Duration::from_secs(2) });
        let late = || Err("late".to_owned());
        let mut tries = [(late(), busy), (late(), busy), (late(), busy)].into_iter();
        let outcome = tried(3, || tries.next().expect("a try"));
        assert_eq!(outcome, Outcome::NotJudged(busy.to_string()), "never a pass");
        let mut tries = [(late(), busy), (Ok(()), busy)].into_iter();
        assert_eq!(tried(3, || tries.next().expect("a try")), Outcome::Passed, "all was well in spite of it");
        let mut tries = [(late(), busy), (late(), quiet)].into_iter();
        assert!(matches!(tried(3, || tries.next().expect("a try")), Outcome::Failed(why) if why.starts_with("late")));
        assert_eq!(name("link::noise::a_noisy_link_recovers::here"), "noise::a_noisy_link_recovers");
        assert_eq!(name("camera::images_arrive::here"), "images_arrive");
    }

    #[test]
    fn the_rest_of_a_test_runs_in_a_process_of_its_own() {
        let outer = env::var_os(ALONE).is_none();
        crate::timed!();
        assert!(!outer);
    }

    /// Fails in a process of its own, and only there.
    #[test]
    fn fails_alone() {
        if env::var_os(ALONE).is_some() {
            assert!(!ran_alone("program::alone::tests::fails_alone::here"));
            panic!("a fault of the product");
        }
    }

    #[test]
    fn what_fails_in_a_process_of_its_own_fails() {
        let (result, _) = once("alone::tests::fails_alone");
        assert!(result.is_err_and(|said| said.contains("a fault of the product")));
    }

    #[test]
    #[should_panic(expected = "did not run")]
    fn a_name_that_is_no_test_does_not_pass() {
        let _ = once("alone::tests::no_such_test");
    }
}
