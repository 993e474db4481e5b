use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use fathom::bounds::{self, Bounds};
use fathom::scene::{Expert, Scene};
use fathom::within;
use fathom_models::outln;

use crate::rollout::{Disturbance, RATE_HZ, Rollout};

const EPISODES: Bounds<usize> = Bounds::new(1, 1_000_000, "episodes");
const SECONDS: Bounds<f32> = Bounds::new(1.0, 1000.0, "s");

/// Run the expert on every task in simulated time, and print how often it succeeds.
#[derive(Args)]
pub(crate) struct ExpertTrial {
    /// Scene file. Default: the built-in scene.
    #[arg(long)]
    scene: Option<PathBuf>,
    /// Episodes of each task.
    #[arg(long, default_value = "100", value_parser = within!(EPISODES))]
    episodes: usize,
    /// Seed of the first episode; the next ones follow.
    #[arg(long, default_value = "0", value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Time limit of an episode, in seconds.
    #[arg(long, default_value = "12", value_parser = within!(SECONDS))]
    seconds: f32,
    /// Disturb the arm as demonstrations do.
    #[arg(long)]
    disturbed: bool,
    /// Fail if a task succeeds in a smaller share of its episodes than this.
    #[arg(long, default_value = "0", value_parser = within!(bounds::FAULT_SHARE))]
    least: f64,
}

impl ExpertTrial {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let mut sums: Vec<Sum> = Vec::new();
        for number in 0..self.episodes as u64 {
            let seed = self.seed.saturating_add(number);
            let scene = Arc::new(match &self.scene {
                Some(path) => Scene::load(path, seed)?,
                None => Scene::built_in(seed)?,
            });
            let expert = Expert::new(Arc::clone(&scene))?;
            sums.resize_with(scene.tasks().len(), Sum::default);
            for (task, sum) in scene.tasks().iter().zip(&mut sums) {
                sum.prompt.clone_from(&task.prompt);
                let disturbance = if self.disturbed { Disturbance::drawn(seed) } else { Disturbance::none(seed) };
                let mut rollout = Rollout::begin(&expert, &scene, task, disturbance)?;
                let limit = (self.seconds * RATE_HZ) as u32;
                let mut steps = 0;
                let mut below = false;
                let mut done = rollout.progress()?.success;
                while !done && steps < limit {
                    let step = rollout.step()?;
                    done = step.after.success;
                    below |= step.after.below_table;
                    steps += 1;
                }
                sum.below += u32::from(below);
                match done {
                    true => sum.steps.push(steps),
                    false => sum.failed.push(seed),
                }
            }
        }
        let mut right = true;
        for sum in &mut sums {
            sum.steps.sort_unstable();
            let done = sum.steps.len();
            right &= done as f64 >= self.least * self.episodes as f64;
            let median = sum.steps.get(done / 2).map_or(0.0, |steps| *steps as f32 / RATE_HZ);
            outln!(
                "{:<44} {done} of {}, median {median:.1} s, {} with the hand in the table{}",
                sum.prompt,
                self.episodes,
                sum.below,
                failed(&sum.failed)
            );
        }
        Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[derive(Default)]
struct Sum {
    prompt: String,
    steps: Vec<u32>,
    failed: Vec<u64>,
    below: u32,
}

fn failed(seeds: &[u64]) -> String {
    let first: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
    if first.is_empty() { String::new() } else { format!("; failed at seeds {}", first.join(", ")) }
}
