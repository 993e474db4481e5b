use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fathom::engine::{DEVICES, Kernels, Plan};
use fathom::{bounds, within};
use fathom_models::checkpoint::{WeightFormat, Weights};
use fathom_models::families::{self, Family, depth_anything};
use fathom_models::graph::precision::Precision;
use fathom_models::nets::config::ModelConfig;
use fathom_models::nets::depth_anything::{BAND_BYTES, DepthOptions};
use fathom_models::nets::depthvla::{ForwardOptions, Model};
use fathom_models::nets::image::ImageSpec;
use fathom_models::nets::presets;
use fathom_models::quantize::scheme::Scheme;

use super::gpu::PrecisionArguments;

/// Format of every view's image.
const IMAGE: (usize, usize) = (640, 480);

/// Options of `--plan`.
#[derive(Args)]
pub(crate) struct PlanArguments {
    /// Count dispatches, operations and bytes of each stage of an inference, and the least time that devices need. Needs no GPU.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Plan a full-size DepthVLA (3.85 billion parameters, bf16) instead of a checkpoint; reads and allocates no weights.
    #[arg(long, requires = "plan", conflicts_with = "model")]
    full_size: bool,
    /// Plan the model as packed by this scheme: f16, w8, w4, w4-all or a TOML file.
    #[arg(long, requires = "plan")]
    scheme: Option<String>,
    /// Number of views. Default: the model's; additional views get generated names.
    #[arg(long, requires = "plan", value_parser = within!(bounds::VIEWS))]
    views: Option<usize>,
    /// Number of flow steps. Default: the model's.
    #[arg(long, requires = "plan", value_parser = within!(bounds::FLOW_STEPS))]
    steps: Option<usize>,
    /// Number of tokens of the prompt.
    #[arg(long, requires = "plan", default_value_t = 20, value_parser = within!(bounds::PROMPT_TOKENS))]
    prompt_tokens: usize,
    /// Include the depth map.
    #[arg(long, requires = "plan")]
    depth_map: bool,
    /// Kernel family: tiled, coop16, coop8, dot8 or lanes.
    #[arg(long, requires = "plan", default_value = "coop16")]
    kernels: Kernels,
    #[command(flatten)]
    precision: PrecisionArguments,
}

impl PlanArguments {
    /// The plan as text, or as JSON.
    pub(crate) fn run(
        &self,
        model: Option<&PathBuf>,
        family: Option<&'static Family>,
        json: bool,
    ) -> Result<String, Box<dyn Error>> {
        let (what, plan) = match model {
            None => self.policy("DepthVLA, full size", Model::new(self.change(presets::depthvla()))?, None)?,
            Some(dir) if family.or_else(|| families::detect(dir)) == Some(&depth_anything::FAMILY) => {
                self.depth_anything(dir)?
            }
            Some(dir) => {
                let loaded = families::load_as(dir, family)?;
                let model = Model::new(self.change(loaded.model.config.clone()))?;
                self.policy(&dir.display().to_string(), model, Some(loaded.weights))?
            }
        };
        if json {
            let [action, other] = plan.dispatches();
            let devices = DEVICES.iter().map(|d| {
                let b = d.bound(&plan);
                serde_json::json!({ "device": d.name, "at_least_ms": b.total_ms, "of_it_flow_ms": b.flow_ms,
                    "with_activations_ms": b.with_activations_ms })
            });
            let value = serde_json::json!({
                "what": what, "kernels": plan.choice.kernels.name(),
                "precision": { "kv": plan.choice.precision.kv, "activations": plan.choice.precision.activations }, "stages": plan.stages,
                "dispatches": { "action": action, "other": other },
                "resident_bytes": { "weights": plan.weights, "rest": plan.arena, "kv": plan.kv },
                "roofline": devices.collect::<Vec<_>>(),
            });
            return Ok(serde_json::to_string_pretty(&value)?);
        }
        Ok(text(&what, &plan)?)
    }

    /// The configuration with the changes of the arguments.
    fn change(&self, mut config: ModelConfig) -> ModelConfig {
        config.flow.steps = self.steps.unwrap_or(config.flow.steps);
        if let Some(views) = self.views {
            let all = config.depth.as_ref().is_some_and(|d| d.views == config.views);
            config.views.truncate(views);
            config.views.extend((config.views.len()..views).map(|i| format!("view {}", i + 1)));
            if let Some(depth) = &mut config.depth {
                depth.views.retain(|v| config.views.contains(v));
                if all || depth.views.is_empty() {
                    depth.views.clone_from(&config.views);
                }
            }
        }
        config
    }

    fn policy(&self, name: &str, model: Model, weights: Option<Weights>) -> Result<(String, Plan), Box<dyn Error>> {
        let table = &model.params;
        let weights = match (weights, &self.scheme) {
            (Some(weights), None) => weights,
            (None, None) => Weights::planned(table, |_, _| WeightFormat::Bf16),
            (weights, Some(scheme)) => {
                let assignment = Scheme::open(scheme)?.assign(table)?;
                Weights::planned(table, |id, _| {
                    let own = weights.as_ref().and_then(|w| Some(w.encoded(id).ok()?.0)).unwrap_or(WeightFormat::Bf16);
                    assignment.targets.get(id.0 as usize).map_or(own, |target| target.format(own))
                })
            }
        };
        let c = &model.config;
        let prompt_tokens = self.prompt_tokens.min(c.max_tokens);
        let images = vec![ImageSpec::rgb(IMAGE.0, IMAGE.1); c.views.len()];
        let options = ForwardOptions { images, prompt_tokens, depth_map: self.depth_map, guided: false, taps: false };
        let graph = model.forward(&weights, &options)?;
        let plan = Plan::of(&graph, table, &weights, self.precision.wanted(None).with(self.kernels))?;
        let formats: Vec<String> = weights.formats()?.iter().map(ToString::to_string).collect();
        let what = format!(
            "{name}: {} view(s) of {}×{}, {prompt_tokens} tokens, horizon {}, {} flow steps, depth map {}, weights in {}",
            c.views.len(),
            IMAGE.0,
            IMAGE.1,
            c.horizon,
            c.flow.steps,
            if self.depth_map { "on" } else { "off" },
            formats.join(", "),
        );
        Ok((what, plan))
    }

    fn depth_anything(&self, dir: &Path) -> Result<(String, Plan), Box<dyn Error>> {
        let (model, weights) = depth_anything::load(dir)?;
        let image = ImageSpec::rgb(IMAGE.0, IMAGE.1);
        let options = DepthOptions { image, taps: false, band_bytes: BAND_BYTES };
        let graph = model.forward(&weights, &options)?;
        let plan = Plan::of(&graph, &model.params, &weights, self.precision.wanted(None).with(self.kernels))?;
        Ok((format!("{}: a photo of {}×{}", dir.display(), IMAGE.0, IMAGE.1), plan))
    }
}

fn text(what: &str, plan: &Plan) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(out, "{what}")?;
    let Precision { kv, activations } = plan.choice.precision;
    writeln!(
        out,
        "lowered to the {} kernels, keys and values in {kv}, activations in {activations} where kernels take them so;\n\
         every byte that a dispatch reads or writes counts once\n",
        plan.choice.kernels
    )?;
    let row = |out: &mut String, name: &str, dispatches: u64, flops: u64, weights: u64, activations: u64| {
        let (weights, activations) = (mib(weights), mib(activations));
        writeln!(out, "{name:20} {dispatches:>10} {:>10.2} {weights:>13.1} {activations:>16.1}", flops as f64 / 1e9)
    };
    writeln!(
        out,
        "{:20} {:>10} {:>10} {:>13} {:>16}",
        "stage", "dispatches", "GFLOP", "weights, MiB", "activations, MiB"
    )?;
    for s in &plan.stages {
        row(&mut out, &s.name, s.dispatches, s.flops, s.weight_bytes, s.activation_bytes)?;
    }
    let sum = |of: fn(&fathom::engine::StageWork) -> u64| plan.stages.iter().map(of).sum::<u64>();
    let totals = (sum(|s| s.dispatches), sum(|s| s.flops), sum(|s| s.weight_bytes), sum(|s| s.activation_bytes));
    row(&mut out, "together", totals.0, totals.1, totals.2, totals.3)?;
    let [action, other] = plan.dispatches();
    writeln!(out, "\ndispatches: {action} in the flow steps, {other} in all else")?;
    writeln!(
        out,
        "on the GPU: {:.0} MiB of weights, {:.1} MiB of activations, of them {:.1} MiB of keys and values",
        mib(plan.weights),
        mib(plan.arena),
        mib(plan.kv)
    )?;
    writeln!(out, "\nLower bound from peak rate and memory bandwidth (computed, not run):")?;
    writeln!(out, "{:24} {:>10} {:>18} {:>26}", "device", "ms", "flow steps, ms", "ms, activations in memory")?;
    for device in &DEVICES {
        let b = device.bound(plan);
        writeln!(out, "{:24} {:>10.1} {:>18.1} {:>26.1}", device.name, b.total_ms, b.flow_ms, b.with_activations_ms)?;
    }
    Ok(out.trim_end().to_owned())
}
