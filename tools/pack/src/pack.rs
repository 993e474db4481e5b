use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use fathom::telemetry::Memory;
use fathom_models::families::Family;
use fathom_models::pack::{self, Options, Source};
use fathom_models::scheme::Scheme;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

#[derive(Args)]
pub(crate) struct Pack {
    /// Directory of the checkpoint, of any family.
    #[arg(long)]
    model: PathBuf,
    /// What the checkpoint is, where its files do not tell or tell otherwise.
    #[arg(long)]
    family: Option<Family>,
    /// f16, w8, w4 (the experts' MLPs in 4 bits, the rest in 8), w4-all, or a TOML file with rules.
    #[arg(long)]
    scheme: String,
    /// Directory to write. It appears when all of it is there.
    #[arg(long)]
    output: PathBuf,
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
        let bytes = bytes(&source)?;
        let bar = ProgressBar::new(bytes);
        bar.set_style(ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {elapsed}, {eta} to go")?);
        let options = Options {
            scheme: &scheme,
            importance: &BTreeMap::new(),
            calibration: "none",
            program: concat!("fathom-pack ", env!("CARGO_PKG_VERSION")),
            cancel: &cancel,
            progress: &|done| bar.inc(done),
        };
        let packed = pack::pack(&self.model, &source, &self.output, &options);
        bar.finish_and_clear();
        let packed = packed?;
        let total: u64 = packed.bytes.values().sum();
        println!(
            "{}: {} as {scheme}, {} of weights from {}, in {:.0} s; {}",
            self.output.display(),
            source.family(),
            size(total),
            size(packed.source_bytes),
            start.elapsed().as_secs_f64(),
            Memory::now()
        );
        for (format, bytes) in &packed.bytes {
            println!("  {format:<24} {:>10}", size(*bytes));
        }
        list("in W8, since no group divides their rows", &packed.fallbacks);
        list("not packed, since inference does not read them", &packed.dropped);
        let left_out: Vec<String> = packed.left_out.iter().map(|path| path.display().to_string()).collect();
        list("files that were not copied", &left_out);
        Ok(())
    }
}

/// Bytes of the weights that inference reads.
fn bytes(source: &Source) -> Result<u64, Box<dyn Error>> {
    let (weights, mut total) = (source.weights(), 0);
    for (i, param) in weights.table().params.iter().enumerate() {
        if param.role != fathom_models::params::Role::Unused {
            total += weights.encoded(fathom_models::params::ParamId(i as u32))?.1.len() as u64;
        }
    }
    Ok(total)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A count, and the first of them.
fn list(what: &str, names: &[String]) {
    if let Some(first) = names.first() {
        let rest = if names.len() > 1 { " and others" } else { "" };
        println!("  {} {what}: {first}{rest}", names.len());
    }
}
