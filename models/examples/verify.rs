//! How long the one pass over a packed directory's weights takes, beside `sha256sum` on the same files in the same run.
//!
//! ```sh
//! cargo run --release --example verify -- DIR
//! ```
//!
//! Each reads the files once before, so that both find them in the page cache, and then five times in turn.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fathom_models::{families, outln, quantize};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: verify DIR")?;
    let manifest = quantize::Manifest::read(&dir)?.ok_or("expected a directory that fathom-pack wrote")?;
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let files: Vec<PathBuf> = manifest.files.keys().map(|file| dir.join(file)).collect();
    let mut best = [Duration::MAX; 2];
    for round in 0..=ROUNDS {
        for (best, took) in best.iter_mut().zip([verify(&dir)?, sha256sum(&files)?]) {
            *best = if round == 0 { *best } else { took.min(*best) };
        }
    }
    for (name, took) in ["verified by Fathom", "sha256sum"].iter().zip(best) {
        outln!("{name:<20} {:>8.1} ms {:>8.0} MB/s", took.as_secs_f64() * 1e3, bytes as f64 / took.as_secs_f64() / 1e6);
    }
    let [own, other] = best.map(|took| took.as_secs_f64());
    outln!("ratio {:.2}: {} files of {} MB, best of {ROUNDS}", own / other, files.len(), bytes / 1_000_000);
    Ok(())
}

/// Opens the model, and verifies hashes and numbers.
fn verify(dir: &Path) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    families::load_base(dir, None)?;
    Ok(began.elapsed())
}

fn sha256sum(files: &[PathBuf]) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    let status = Command::new("sha256sum").args(files).stdout(Stdio::null()).status()?;
    if status.success() { Ok(began.elapsed()) } else { Err("sha256sum failed".into()) }
}
