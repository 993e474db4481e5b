//! Compares every case that `tests/oracle/generate.py` wrote into a folder with the CPU twins and the GPU, stage by stage.
//! `tests/oracle/check` calls it.

#![expect(clippy::expect_used, reason = "a set-up that fails is a comparison that fails")]

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fathom_tests::{Golden, depth};

fn compare(dir: &Path) {
    if dir.join("preprocessor_config.json").exists() {
        depth::compare_twins(dir);
        depth::compare_gpu(dir);
    } else if dir.join("paligemma").exists() {
        let composed = tempfile::tempdir().expect("a folder");
        Golden::compose(dir, composed.path()).compare_twins();
        Golden::compose(dir, composed.path()).compare_gpu();
    } else {
        Golden::open(dir).compare_twins();
        Golden::open(dir).compare_gpu();
    }
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: oracle_cases FOLDER");
        return ExitCode::FAILURE;
    };
    let mut cases: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.join("golden.safetensors").exists()).collect(),
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&folder).display());
            return ExitCode::FAILURE;
        }
    };
    cases.sort();
    // A comparison that fails has said so by its panic; the others go on.
    let failed: Vec<&PathBuf> = cases.iter().filter(|dir| catch_unwind(|| compare(dir)).is_err()).collect();
    for dir in &failed {
        println!("FAILED {}", dir.display());
    }
    println!("{} cases, {} failed", cases.len(), failed.len());
    if failed.is_empty() && !cases.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
