use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use fathom::telemetry::Memory;
use fathom::{bounds, within};
use fathom_models::families::Family;
use fathom_models::outln;
use fathom_models::quantize::pack::{self, Options, Source};
use fathom_models::quantize::scheme::Scheme;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::gpu::GpuArguments;
use crate::{calibrate, size, weight_bytes};

#[derive(Args)]
pub(crate) struct Pack {
    /// Checkpoint directory, of any family.
    #[arg(long)]
    model: PathBuf,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// Scheme: f16, w8, w4 (the experts' MLPs in 4 bits, the rest in 8), w4-all, or a TOML file with rules.
    #[arg(long)]
    scheme: String,
    /// Output directory. It appears only when it is complete.
    #[arg(long)]
    output: PathBuf,
    /// Run the model on these observations first (photos for a Depth Anything), on the GPU, and quantise the weights so that
    /// each layer reproduces its outputs on them.
    #[arg(long, num_args = 1.., value_name = "OBSERVATION")]
    calibrate: Vec<PathBuf>,
    /// Allow a software driver for the calibration.
    #[arg(long)]
    software: bool,
    /// Part of the adapter's name. Default: any hardware adapter.
    #[arg(long)]
    adapter: Option<String>,
    /// Time limit of one submission, in seconds. Default: 10 on a GPU, 600 on a software driver.
    #[arg(long, value_parser = within!(bounds::TIMEOUT_S))]
    timeout: Option<u64>,
}

impl Pack {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let cancel = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancel))?;
        }
        let scheme = Scheme::open(&self.scheme)?;
        let source = Source::open(&self.model, self.family)?;
        // Not flattened: clap could then not distinguish arguments from a subcommand.
        let gpu = GpuArguments { software: self.software, adapter: self.adapter, timeout: self.timeout };
        let calibration = match self.calibrate.is_empty() {
            true => None,
            false => Some(calibrate::run(gpu.open()?, &self.model, &source, &scheme, &self.calibrate)?),
        };
        let bytes = weight_bytes(source.weights())?;
        let bar = ProgressBar::new(bytes);
        bar.set_style(ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {elapsed}, {eta} to go")?);
        let options = Options {
            scheme: &scheme,
            calibration: calibration.as_ref(),
            program: concat!("fathom-pack ", env!("CARGO_PKG_VERSION")),
            shard_bytes: pack::SHARD_BYTES,
            cancel: &cancel,
            progress: &|done| bar.inc(done),
        };
        let packed = pack::pack(&self.model, &source, &self.output, &options);
        bar.finish_and_clear();
        let packed = packed?;
        let total: u64 = packed.bytes.values().sum();
        outln!(
            "{}: {} as {scheme}, {} of weights from {}, in {:.0} s; {}",
            self.output.display(),
            source.family(),
            size(total),
            size(packed.source_bytes),
            start.elapsed().as_secs_f64(),
            Memory::now()
        );
        for (format, bytes) in &packed.bytes {
            outln!("  {format:<24} {:>10}", size(*bytes));
        }
        list("in W8, since no group divides their rows", &packed.fallbacks);
        list("not packed, since inference does not read them", &packed.dropped);
        let left_out: Vec<String> = packed.left_out.iter().map(|path| path.display().to_string()).collect();
        list("files that were not copied", &left_out);
        Ok(())
    }
}

/// Prints a count, and the first of the names.
fn list(what: &str, names: &[String]) {
    if let Some(first) = names.first() {
        let rest = if names.len() > 1 { " and others" } else { "" };
        outln!("  {} {what}: {first}{rest}", names.len());
    }
}
