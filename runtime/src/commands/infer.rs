use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use fathom::engine::{DEVICES, Kernels, Session, log_model, stage_of};
use fathom::gpu::GpuTimes;
use fathom::telemetry::Memory;
use fathom::{bounds, within};
use fathom_models::checkpoint::save::write_safetensors;
use fathom_models::families::{self, Family};
use fathom_models::io::output_file;
use fathom_models::outln;
use fathom_models::processing::observation::Observation;
use fathom_models::processing::tokenizer::Tokenizer;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::gpu::GpuArguments;

/// Run one inference: an observation in, actions out.
#[derive(Args)]
pub(crate) struct Infer {
    /// Checkpoint directory.
    #[arg(long)]
    model: PathBuf,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// View to drop because the robot has no camera for it; no placeholder image. Repeatable.
    #[arg(long)]
    skip_view: Vec<String>,
    /// Input: safetensors with `image.<view>` (u8), `state` (f32), `tokens` (i32, or `prompt` in the metadata), optionally
    /// `noise` (f32).
    #[arg(long)]
    observation: PathBuf,
    /// Output: safetensors with `actions`, `actions.normalized`, `depth.<view>`.
    #[arg(long)]
    output: PathBuf,
    /// Also write the tensors of every stage.
    #[arg(long)]
    taps: bool,
    /// Seed of the noise, if the observation has none.
    #[arg(long, default_value_t = 0, value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Print the time of each stage, and the main memory that the process held after it.
    #[arg(long)]
    times: bool,
    #[command(flatten)]
    gpu: GpuArguments,
}

impl Infer {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        output_file::check(&self.output)?;
        let mut report = Report { wanted: self.times, last: Instant::now() };
        let mut loaded = families::load_as(&self.model, self.family)?;
        loaded.skip_views(&self.skip_view)?;
        log_model(&loaded);
        let (format, vocab) = (loaded.model.config.prompt, loaded.model.config.vocab);
        let tokenize = |text: &str| Tokenizer::open_for(&self.model, vocab)?.text(format, text);
        let observation = Observation::read(&self.observation, &loaded, self.seed, tokenize)?;
        report.done("checkpoint read and checked");
        let wanted = self.gpu.wanted();
        let gpu = self.gpu.open(self.times)?;
        let config = loaded.model.config.clone();
        let action_dim = loaded.action_dim;
        let mut session = Session::open_with(gpu, loaded, wanted)?;
        report.done("weights on the GPU");
        let once = session.infer_once(&observation, self.taps)?;
        report.done("prepared and inferred");
        if self.times {
            print_stages(&session, &once.times);
        }

        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for output in once.outputs {
            if output.name != "actions" {
                tensors.insert(output.name, (output.shape.to_vec(), output.values));
            }
        }
        tensors.insert("actions".to_owned(), (vec![config.horizon, action_dim], once.actions));
        tensors.insert("actions.normalized".to_owned(), (vec![config.horizon, config.action_dim], once.normalized));
        let views = tensors
            .iter()
            .map(|(name, (shape, values))| {
                Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        write_safetensors(&self.output, views, None)?;
        tracing::info!(file = %self.output.display(), tensors = tensors.len(), "written");
        Ok(())
    }
}

/// Prints each stage's time, its work, and its lower bound on a GPU with matrix units.
fn print_stages(session: &Session, times: &GpuTimes) {
    let [device, ..] = DEVICES;
    let at_least = format!("{} ≥ ms", device.name);
    outln!(
        "  {:<20} {:>9} {:>10} {:>9} {:>12} {:>20}",
        "stage",
        "seconds",
        "dispatches",
        "GFLOP",
        "weights MiB",
        at_least
    );
    for stage in session.stages() {
        let ns: u64 = times.stages.iter().filter(|t| stage_of(&t.stage) == stage.name).map(|t| t.ns).sum();
        let bound = device.at_least_ms(Kernels::Coop16, stage.flops, stage.weight_bytes);
        outln!(
            "  {:<20} {:>9.3} {:>10} {:>9.2} {:>12.1} {:>20.2}",
            stage.name,
            ns as f64 / 1e9,
            stage.dispatches,
            stage.flops as f64 / 1e9,
            stage.weight_bytes as f64 / f64::from(1 << 20),
            bound
        );
    }
    let (weights, rest) = session.gpu_bytes();
    outln!("on the GPU: {} MiB of weights, {} MiB of activations", weights >> 20, rest >> 20);
    let counts = session.gpu().counts();
    outln!("pipelines: {}, {} of them from the cache on disk", counts.pipelines, counts.cached_pipelines);
    outln!("adapter: {}; the last column is a bound, by f16 matrix units and memory", session.gpu().info());
}

/// The output of `--times`.
struct Report {
    wanted: bool,
    last: Instant,
}

impl Report {
    /// Prints the time since the last call.
    fn done(&mut self, stage: &str) {
        if self.wanted {
            outln!("{stage:<30} {:>9.3} s; {}", self.last.elapsed().as_secs_f64(), Memory::now());
        }
        self.last = Instant::now();
    }
}
