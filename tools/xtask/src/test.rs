//! Runs the stages one after the other, tries those again that a busy machine kept from being judged, and sums up.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::process::{cargo_test, in_ci, tee};
use crate::stages::{STAGES, Stage};
use crate::{Error, NOT_JUDGED, SKIPPED};

/// How often a stage that was not judged is tried again.
const RETRIES: u32 = 2;
/// Time for further tries, of all stages together. One that is expected to take longer than the rest of it is not begun.
const RETRY_BUDGET: Duration = Duration::from_secs(600);
/// Tests and stages that CI may skip: a name a line, and the reason after `#`.
const ALLOWED_SKIPS: &str = "tools/lib/allowed-skips.txt";

/// Prints the names of the stages.
pub(crate) fn list() {
    for Stage { name, quick, .. } in STAGES {
        println!("{name}{}", if *quick { "  (quick)" } else { "" });
    }
}

/// Runs the named stages, or all, or the quick ones. Ends with 1 when one failed. Where none failed and one was not judged, it
/// ends with [`NOT_JUDGED`], and in CI with 0: other programs on CI's machine say nothing about a change.
pub(crate) fn run(quick: bool, names: &[String]) -> Result<ExitCode, Error> {
    if let Some(unknown) = names.iter().find(|name| !STAGES.iter().any(|stage| stage.name == *name)) {
        let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        return Err(Error::Check(format!("no stage is named {unknown}; there are: {}", known.join(", "))));
    }
    let scratch = tempfile::tempdir().map_err(|source| Error::file(&std::env::temp_dir(), source))?;
    let allowed = fs::read_to_string(ALLOWED_SKIPS).map_err(|source| Error::file(Path::new(ALLOWED_SKIPS), source))?;
    let mut session = Session {
        allowed: allowed.lines().filter_map(|line| line.split('#').next()).map(|name| name.trim().to_owned()).collect(),
        summary: Vec::new(),
        failed: false,
        not_judged: false,
        retried: Duration::ZERO,
    };
    let (skips, not_judged) = (scratch.path().join("skips"), scratch.path().join("not-judged"));
    for stage in STAGES
        .iter()
        .filter(|stage| names.is_empty() && (stage.quick || !quick) || names.iter().any(|n| n == stage.name))
    {
        let mut command =
            Command::new(std::env::current_exe().map_err(|source| Error::file(Path::new("xtask"), source))?);
        command.args(["stage", stage.name]).env("FATHOM_SKIPS", &skips).env("FATHOM_NOT_JUDGED", &not_judged);
        let lines = session.stage(stage.name, || tee(&mut command))?;
        for (name, why) in skipped(&lines, &read(&skips)) {
            session.skip(&name, &why);
        }
        remove(&skips);
        let again = read(&not_judged);
        if !again.is_empty() {
            session.stage(&format!("{}: tests that were not judged", stage.name), || judge_again(&not_judged))?;
            remove(&not_judged);
        }
    }
    println!("\n== summary");
    session.summary.iter().for_each(|line| println!("{line}"));
    Ok(match (session.failed, session.not_judged) {
        (true, _) => ExitCode::FAILURE,
        (false, true) if !in_ci() => ExitCode::from(NOT_JUDGED),
        (false, _) => ExitCode::SUCCESS,
    })
}

/// What the stages so far came to.
struct Session {
    allowed: Vec<String>,
    summary: Vec<String>,
    failed: bool,
    not_judged: bool,
    /// Time of further tries.
    retried: Duration,
}

impl Session {
    /// Runs a check, notes how it ended, and gives the lines of its last try.
    fn stage(
        &mut self,
        name: &str,
        mut check: impl FnMut() -> Result<(Vec<String>, u8), Error>,
    ) -> Result<Vec<String>, Error> {
        println!("\n== {name}");
        let began = Instant::now();
        let mut tries = 0;
        let (lines, status) = loop {
            let try_began = Instant::now();
            let (lines, status) = check()?;
            let took = try_began.elapsed();
            if tries > 0 {
                self.retried += took;
            }
            if status != NOT_JUDGED || tries >= RETRIES || self.retried + took >= RETRY_BUDGET {
                break (lines, status);
            }
            tries += 1;
            println!("\n-- {name} was not judged: the machine was busy. Try {} of {}", tries + 1, RETRIES + 1);
        };
        let seconds = began.elapsed().as_secs();
        match status {
            0 => self.summary.push(format!("ok         {seconds:4} s  {name}")),
            SKIPPED => self.skip(name, lines.iter().rev().find(|line| !line.is_empty()).map_or("", |line| line)),
            NOT_JUDGED => {
                self.not_judged = true;
                let tries = tries + 1;
                self.summary.push(format!("NOT JUDGED {seconds:4} s  {name}: the machine was busy, {tries} tries"));
            }
            _ => {
                self.failed = true;
                self.summary.push(format!("FAILED     {seconds:4} s  {name}"));
            }
        }
        Ok(lines)
    }

    /// Notes what did not run: an error in CI unless it is listed.
    fn skip(&mut self, name: &str, why: &str) {
        if in_ci() && !self.allowed.iter().any(|allowed| allowed == name) {
            self.failed = true;
            self.summary.push(format!("SKIPPED            {name}: {why} (an error in CI)"));
        } else {
            self.summary.push(format!("skipped            {name}: {why}"));
        }
    }
}

/// The tests that did not run, with the reason: those marked `#[ignore]`, and those that noted it themselves.
fn skipped(lines: &[String], noted: &str) -> Vec<(String, String)> {
    let ignored = lines.iter().filter_map(|line| {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
        Some((name.to_owned(), rest.trim_start_matches(", ").to_owned()))
    });
    let noted = noted.lines().filter_map(|line| line.split_once(": "));
    ignored.chain(noted.map(|(name, why)| (name.to_owned(), why.to_owned()))).collect()
}

/// Runs the tests again that were not judged, by themselves.
fn judge_again(list: &Path) -> Result<(Vec<String>, u8), Error> {
    let mut names: Vec<_> = read(list).lines().filter_map(|line| line.split(": ").next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    remove(list);
    let mut tests = cargo_test("--tests --no-fail-fast -- --exact")?;
    let (lines, status) = tee(tests.args(&names).env("FATHOM_NOT_JUDGED", list))?;
    if status != 0 {
        return Ok((lines, status));
    }
    let still = read(list);
    for name in &names {
        if !lines.iter().any(|line| *line == format!("test {name} ... ok")) {
            return Err(Error::Check(format!("{name} did not run")));
        }
        let why = still.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        println!("{name}: {}", why.unwrap_or("ok"));
    }
    Ok((lines, if still.is_empty() { 0 } else { NOT_JUDGED }))
}

/// The file's text; nothing where there is none.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn remove(path: &Path) {
    // There may be none.
    let _ = fs::remove_file(path);
}
