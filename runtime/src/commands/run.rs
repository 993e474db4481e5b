use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom::bounds;
use fathom::config::{RecordSection, RobotConfig};
use fathom::control::{Robot, RunOptions};
use fathom::engine::Kernels;
use fathom::fault::{Faults, Spec};
use fathom::within;
use fathom_models::families::Family;
use fathom_models::io::output_file;
use fathom_models::outln;

use super::gpu::PrecisionArguments;

/// Run the control loop (capture, infer, send) until a signal ends it.
#[derive(Args)]
pub(crate) struct Run {
    /// The robot's configuration (robot.toml).
    #[arg(long)]
    config: PathBuf,
    /// Checkpoint directory; overrides the configuration.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// Task in plain language; overrides the configuration's prompt or tokens.
    #[arg(long)]
    prompt: Option<String>,
    /// End this many seconds after the arm may move. Default: run until a signal.
    #[arg(long, value_parser = within!(bounds::RUN_S))]
    seconds: Option<f64>,
    /// Output: PNG with the cameras' images, the arm's path and the depth map, written when the run ends.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Output: the stage table as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Allow a software driver; also `gpu.software = true` in the configuration.
    #[arg(long)]
    software: bool,
    /// Kernel family; overrides the automatic choice; also `gpu.kernels` in the configuration.
    #[arg(long)]
    kernels: Option<Kernels>,
    #[command(flatten)]
    precision: PrecisionArguments,
    /// Do everything except arming and sending.
    #[arg(long)]
    dry_run: bool,
    /// Clear a fault that the controller latched before this run.
    #[arg(long)]
    clear_fault: bool,
    /// Output: folder of the recording; also `record.folder` in the configuration.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Inject a fault: KIND[:VIEW][=VALUE][@AT][+FOR]; AT and FOR in seconds, AT from when the arm may move. Repeatable.
    /// Kinds: camera-stall, camera-drop, camera-corrupt, camera-unplug, camera-empty, camera-cut, serial-flip, serial-loss,
    /// serial-delay, serial-unplug, controller-reset, wrong-reading, stuck-reading, stalled-joint, hot-motor, slow-gpu, device-lost,
    /// clock-jump, wall-clock, disk-full, log-gone, log-stall.
    #[arg(long, value_name = "SPEC")]
    fault: Vec<Spec>,
}

impl Run {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let mut config = RobotConfig::load(&self.config)?;
        [&self.json, &self.picture].into_iter().flatten().try_for_each(|path| output_file::check(path))?;
        if let Some(model) = self.model {
            config.model.path = model;
        }
        config.model.family = self.family.or(config.model.family);
        if let Some(prompt) = self.prompt {
            (config.model.prompt, config.model.tokens) = (Some(prompt), None);
        }
        config.gpu.software |= self.software;
        let wanted = self.precision.wanted(self.kernels);
        config.gpu.kernels = wanted.kernels.or(config.gpu.kernels);
        config.gpu.kv = wanted.kv.or(config.gpu.kv);
        config.gpu.activations = wanted.activations.or(config.gpu.activations);
        config.control.dry_run |= self.dry_run;
        config.model.depth_map |= self.picture.is_some();
        if let Some(folder) = self.record {
            let limit_mb = config.record.as_ref().map_or(RecordSection::LIMIT_MB, |r| r.limit_mb);
            config.record = Some(RecordSection { folder, limit_mb });
        }
        let robot = Robot::builder(config).faults(Faults::new(self.fault)).clear_fault(self.clear_fault).open()?;
        let options = RunOptions { seconds: self.seconds, picture: self.picture, ..RunOptions::default() };
        let outcome = robot.run(&options)?;
        // Files first: the reader of the table may never read it.
        if let Some(path) = &self.json {
            let json = serde_json::json!({ "header": outcome.header, "stages": outcome.table.stages() });
            output_file::write(path, format!("{json:#}\n"))?;
        }
        outln!("{}\n\n{}\n", outcome.header, outcome.table);
        outln!("chunks: {} accepted, {} refused, {} too late", outcome.chunks, outcome.refused, outcome.late);
        outln!("controller ticks without a step to execute: {}", outcome.starved);
        if let Some(ns) = outcome.first_action_ns {
            outln!("first action: {:.2} s after the loop started", ns as f64 / 1e9);
        }
        if let Some(metres) = outcome.travelled {
            outln!("distance moved by the tool: {:.0} mm", metres * 1e3);
        }
        if let Some((object, metres)) = outcome.target {
            outln!("the prompt names the {object}: the tool came within {:.0} mm of it", metres * 1e3);
        }
        if let Some((task, progress)) = outcome.task {
            let state = match progress.success {
                true => "done".to_owned(),
                false => format!("{:.0} mm from its end", progress.distance_m * 1e3),
            };
            outln!("the task \"{task}\" is {state}");
        }
        if let Some(path) = outcome.picture {
            outln!("picture: {} (cameras with the arm's path, depth map, true depth)", path.display());
        }
        Ok(())
    }
}
