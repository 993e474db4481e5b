//! GPU tests and inferences under Khronos' validation layer. `tools/validate` finds or installs the layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::Error;
use crate::process::{self, build, cargo_test_on, command, driver_run, tee, words};

const LISTED: &str = "tools/lib/validation-messages.txt";
const CHECKS: &str = "khronos_validation.validate_core = true\nkhronos_validation.validate_sync = true\n";
const ASSISTED: &str = "khronos_validation.validate_core = false\nkhronos_validation.validate_sync = false\n\
                        khronos_validation.gpuav_enable = true\n";

/// The kernel families, each with the schemes to infer with.
const FAMILIES: [&str; 5] = ["coop16", "coop8", "tiled", "dot8", "lanes"];
const SCHEMES: [&str; 3] = ["f32", "w8", "w4"];

/// Runs the checks; `assisted` instruments the shaders instead, and runs a small graph of every family.
///
/// # Errors
/// [`Error::Check`] if the layer does not report misuse, or a check fails, lacks the layer, or has a message that is not listed.
pub(crate) fn run(assisted: bool) -> Result<(), Error> {
    let mut layer = Layer::new(assisted)?;
    let misuse = build("misuse")?;
    if assisted {
        layer.control(&misuse, "bounds", "VUID-vkCmdDispatch-storageBuffers-06936")?;
        let tests = cargo_test_on(Some(layer.starter()), "--test gpu kernels::drawn::")?;
        layer.check("a small graph of every family", tests, |_, succeeded| succeeded)?;
    } else {
        layer.control(&misuse, "core", "VUID-vkCmdDispatch-None-08606")?;
        layer.control(&misuse, "sync", "SYNC-HAZARD-WRITE-AFTER-WRITE")?;
        for (name, selection) in
            [("GPU layer and every kernel", "--test gpu"), ("whole models", "--test models golden::")]
        {
            let tests = cargo_test_on(Some(layer.starter()), selection)?;
            layer.check(name, tests, |_, succeeded| succeeded)?;
        }
        layer.infer_with_every_family()?;
    }
    if layer.failed {
        return Err(Error::Check("the validation failed".to_owned()));
    }
    println!("no message that is not listed");
    Ok(())
}

/// What a message of the layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It reports that the layer is active, with the wanted validation.
    Active,
    /// The list has it, with a reason.
    Listed,
    /// The layer reports its own set-up.
    SetUp,
    /// A finding.
    Message,
}

/// The validation layer, as programs get it.
struct Layer {
    folder: tempfile::TempDir,
    assisted: bool,
    /// ID and words of each message that may pass.
    listed: Vec<(String, String)>,
    failed: bool,
}

impl Layer {
    fn new(assisted: bool) -> Result<Layer, Error> {
        let folder = tempfile::tempdir().map_err(|source| Error::file(&std::env::temp_dir(), source))?;
        let list = fs::read_to_string(LISTED).map_err(|source| Error::file(Path::new(LISTED), source))?;
        let entry = |line: &str| {
            let mut parts = line.split(" | ");
            Some((parts.next()?.to_owned(), parts.next()?.to_owned())).filter(|_| parts.next().is_some())
        };
        let listed = list.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect();
        let layer = Layer { folder, assisted, listed, failed: false };
        // A file the layer would begin anew with each Vulkan instance of a process; a pipe keeps all.
        let mut pipe = words("mkfifo");
        pipe.arg(layer.path("pipe"));
        process::run(pipe)?;
        let settings = format!(
            "khronos_validation.log_filename = {}\nkhronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG\n\
             khronos_validation.report_flags = error,warn,perf,info\nkhronos_validation.enable_message_limit = false\n{}",
            layer.path("pipe").display(),
            if assisted { ASSISTED } else { CHECKS }
        );
        layer.write("vk_layer_settings.txt", &settings)?;
        let folder = std::env::var("FATHOM_VALIDATION_LAYER").unwrap_or_default();
        let place = if folder.is_empty() { String::new() } else { format!("export VK_LAYER_PATH='{folder}'\n") };
        let driver = driver_run().map(|driver| format!("'{driver}' ")).unwrap_or_default();
        let script = format!(
            "#!/bin/sh\nexport VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation\n{place}\
             export VK_LAYER_SETTINGS_PATH='{}'\nexec {driver}\"$@\"\n",
            layer.path("vk_layer_settings.txt").display()
        );
        layer.write("run", &script)?;
        let starter = layer.path("run");
        fs::set_permissions(&starter, Permissions::from_mode(0o755)).map_err(|error| Error::file(&starter, error))?;
        Ok(layer)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        fs::write(&path, text).map_err(|source| Error::file(&path, source))
    }

    /// The program that starts others on the driver, under the layer.
    fn starter(&self) -> String {
        self.path("run").display().to_string()
    }

    /// A program under the layer.
    fn program(&self, path: &str) -> Command {
        command(&self.starter(), [path])
    }

    /// Runs it; gives its lines, whether it succeeded, and the layer's messages.
    fn run(&self, command: &mut Command) -> Result<(Vec<String>, bool, String), Error> {
        let pipe = self.path("pipe");
        let failed = |source| Error::file(&pipe, source);
        let reader = {
            let pipe = pipe.clone();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                File::open(pipe).and_then(|mut file| file.read_to_end(&mut bytes)).map(|_| bytes)
            })
        };
        // The pipe stays open from the first program to the last.
        let open = File::options().write(true).open(&pipe).map_err(failed)?;
        let ran = tee(command);
        drop(open);
        let bytes = reader.join().unwrap_or_else(|_| Err(std::io::Error::other("the reader ended"))).map_err(failed)?;
        let (lines, status) = ran?;
        Ok((lines, status == 0, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The messages of a log, each with its ID.
    fn messages<'a>(&self, log: &'a str) -> Vec<(&'a str, Kind, &'a str)> {
        blocks(log).map(|block| (id(block), self.kind(block), block)).collect()
    }

    fn kind(&self, block: &str) -> Kind {
        let id = id(block);
        let active = match self.assisted {
            true => "VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT",
            false => "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT",
        };
        if id == "WARNING-CreateInstance-status-message" && block.contains(active) {
            Kind::Active
        } else if self.assisted && id == "WARNING-GPU-Assisted-Validation" {
            Kind::SetUp
        } else if self.listed.iter().any(|(listed, words)| listed == id && block.contains(words)) {
            Kind::Listed
        } else {
            Kind::Message
        }
    }

    /// The layer has to report this misuse of Vulkan.
    fn control(&self, misuse: &str, kind: &str, expected: &str) -> Result<(), Error> {
        let mut program = self.program(misuse);
        program.arg(kind).stdout(Stdio::null());
        let (_, _, log) = self.run(&mut program)?;
        if !self.messages(&log).iter().any(|(id, ..)| *id == expected) {
            return Err(Error::Check(format!("the layer does not report {kind} misuse: expected {expected}\n{log}")));
        }
        println!("control: {kind} misuse is reported ({expected})");
        Ok(())
    }

    /// Runs it under the layer. It has to be `fine`, by its lines and its success, with the layer active and without a
    /// message that is not listed.
    fn check(
        &mut self,
        name: &str,
        mut command: Command,
        fine: impl FnOnce(&[String], bool) -> bool,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let (lines, succeeded, log) = self.run(&mut command)?;
        let messages = self.messages(&log);
        let count = |wanted: Kind| messages.iter().filter(|(_, kind, _)| *kind == wanted).count();
        let (active, listed, found) = (count(Kind::Active), count(Kind::Listed), count(Kind::Message));
        println!(
            "{name:40} {:4} s: layer active in {active} instances, {found} messages, {listed} more that are listed",
            began.elapsed().as_secs()
        );
        let mut failed = Vec::new();
        if !fine(&lines, succeeded) {
            failed.push("failed".to_owned());
        }
        if active == 0 {
            failed.push("ran without the layer".to_owned());
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, _, block) in messages.iter().filter(|(_, kind, _)| *kind == Kind::Message) {
            let seen = counts.entry(id).or_default();
            *seen += 1;
            if *seen == 1 {
                eprintln!("{block}");
            }
        }
        failed.extend(
            counts.iter().map(|(id, count)| format!("has {count} messages {id}, which {LISTED} does not list")),
        );
        failed.iter().for_each(|what| println!("FAILED: {name} {what}"));
        self.failed |= !failed.is_empty();
        Ok(())
    }

    /// An inference with every family that the adapter has, in every format.
    fn infer_with_every_family(&mut self) -> Result<(), Error> {
        let (fathom, pack) = (build("fathom")?, build("fathom-pack")?);
        let model = self.path("f32");
        let mut init = command(&fathom, ["init", "--preset", "small", "--output"]);
        init.arg(&model).stdout(Stdio::null());
        process::run(init)?;
        for scheme in SCHEMES.into_iter().filter(|scheme| *scheme != "f32") {
            let mut write = command(&pack, ["--scheme", scheme, "--model"]);
            write.arg(&model).arg("--output").arg(self.path(scheme)).stdout(Stdio::null());
            process::run(write)?;
        }
        let mut ran = BTreeSet::new();
        for family in FAMILIES {
            for scheme in SCHEMES {
                let mut infer = self.program(&fathom);
                infer.args(["infer", "--software", "--kernels", family, "--model"]).arg(self.path(scheme));
                infer.arg("--observation").arg(model.join("observation.safetensors"));
                infer.arg("--output").arg(self.path("actions.safetensors"));
                // An adapter may lack what the family needs.
                let lacks = |line: &String| {
                    line.contains("expected ") && line.contains(", which ") && line.contains(" does not have")
                };
                self.check(&format!("inference, {family}, {scheme}"), infer, |lines, succeeded| {
                    if succeeded {
                        ran.insert(family);
                    }
                    succeeded || lines.iter().any(lacks)
                })?;
            }
        }
        // Every adapter has two.
        if ran.len() < 2 {
            println!("FAILED: too few families ran: {ran:?}");
            self.failed = true;
        }
        Ok(())
    }
}

/// The blocks of a log, each a message with its lines.
fn blocks(log: &str) -> impl Iterator<Item = &str> {
    let begins = |line: &str| {
        ["UNASSIGNED", "WARNING", "ERROR"].iter().any(|word| line.starts_with(word))
            || line.strip_prefix("Validation ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in log.split_inclusive('\n') {
        if begins(line) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([log.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(from, to)| log.get(from..to)).map(str::trim_end)
}

/// The ID of a message: the first word in brackets.
fn id(block: &str) -> &str {
    let rest = block.split_once('[').map_or(block, |(_, rest)| rest).trim_start();
    rest.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_split_into_messages_with_their_ids() {
        let log = "Validation Error: [ VUID-a ] first\n  more\nWARNING: [ WARNING-b ] | second\nValidation layers\n";
        let ids: Vec<&str> = blocks(log).map(id).collect();
        assert_eq!(ids, ["VUID-a", "WARNING-b"]);
        assert_eq!(blocks(log).next(), Some("Validation Error: [ VUID-a ] first\n  more"));
    }
}
