use std::error::Error;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use fathom::action::ChunkPolicy;
use fathom::bounds::{self, Bounds};
use fathom::config::RobotConfig;
use fathom::control::{Conditions, DepthErrors};
use fathom::engine::Kernels;
use fathom::scene::{Scene, SceneError, Task, TaskKind};
use fathom::within;
use fathom_models::io::output_file;
use fathom_models::{errln, outln};
use indicatif::{ProgressBar, ProgressStyle};

use crate::page::page;
use crate::result::{Depth, Evaluation, FORMAT, Trial};
use crate::workers::{Failure, Job, Workers};

const EPISODES: Bounds<usize> = Bounds::new(1, 1_000_000, "episodes");
const DEPTH: Bounds<f32> = Bounds::new(0.01, 1000.0, "m");
const THREADS: Bounds<usize> = Bounds::new(1, 1024, "threads");
const SECONDS: Bounds<f64> = Bounds::new(1.0, 1000.0, "s");
const DELAY: Bounds<u64> = Bounds::new(0, 60_000, "ms");
const NOISE: Bounds<f32> = Bounds::new(0.0, 255.0, "of 255");
/// Steps of the expert's chunks.
const EXPERT_HORIZON: usize = 16;
/// Seeds of demonstrations begin at 0; these are of scenes that no training has seen.
const FIRST_SEED: u64 = 1_000_000;

/// Let a policy do the tasks of a scene in simulated time, through the whole loop, and print how often it succeeds.
///
/// The policy really infers, on the adapter that `robot.toml` names; a simulated clock gives each inference the same duration.
#[derive(Args)]
pub(crate) struct Run {
    /// The robot's configuration (robot.toml), with cameras of kind "scene".
    #[arg(long)]
    config: PathBuf,
    /// Checkpoint directory; overrides the configuration.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Episodes of each kind of task; its prompts take turns.
    #[arg(long, default_value = "100", value_parser = within!(EPISODES))]
    episodes: usize,
    /// Kind of task: reach, pick or place. Repeatable. Default: every kind of the scene.
    #[arg(long, value_name = "KIND")]
    task: Vec<Kind>,
    /// Only tasks with this prompt.
    #[arg(long)]
    prompt: Option<String>,
    /// Seed of the first scene; the next ones follow.
    #[arg(long, default_value_t = FIRST_SEED, value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Time limit of an episode, in simulated seconds.
    #[arg(long, default_value = "10", value_parser = within!(SECONDS))]
    seconds: f64,
    /// Simulated duration of an inference, in milliseconds.
    #[arg(long, default_value = "100", value_parser = within!(DELAY))]
    inference_ms: u64,
    /// The joining of chunks: replace, ensemble or rtc; overrides the configuration.
    #[arg(long)]
    chunks: Option<Chunks>,
    /// Standard deviation of noise in the images, of 255.
    #[arg(long, default_value = "0", value_parser = within!(NOISE))]
    image_noise: f32,
    /// Share of the cameras' images that are lost.
    #[arg(long, default_value = "0", value_parser = within!(bounds::SCENE_SHARE))]
    lost_images: f32,
    /// Let the scene's expert act in place of the policy: what the loop makes of perfect actions.
    #[arg(long, conflicts_with_all = ["depth", "model"])]
    expert: bool,
    /// Compare the depth maps with the scene's true depth.
    #[arg(long)]
    depth: bool,
    /// Compare only pixels whose true depth is at most this, in metres: the demo's model knows no greater ones.
    #[arg(long, default_value = "3", value_parser = within!(DEPTH))]
    depth_within: f32,
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
    /// Threads, each with a policy of its own. Default: one for each core where a software driver is allowed or the expert acts, else
    /// 1. The result does not depend on it.
    #[arg(long, value_parser = within!(THREADS))]
    threads: Option<usize>,
    /// Kernel family; overrides the automatic choice.
    #[arg(long)]
    kernels: Option<Kernels>,
    /// Fail if a kind of task succeeds in a smaller share of its episodes: KIND=SHARE, SHARE from 0 to 1. Repeatable.
    #[arg(long, value_name = "KIND=SHARE")]
    least: Vec<Least>,
    /// Output: the result as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Output: the result as one page.
    #[arg(long)]
    html: Option<PathBuf>,
}

/// A kind of task as an argument.
#[derive(Clone, Copy, PartialEq)]
struct Kind(TaskKind);

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = TaskKind::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.map(Kind).ok_or_else(|| "expected reach, pick or place".to_owned())
    }
}

/// A joining of chunks as an argument, with its default parameters.
#[derive(Clone, Copy)]
struct Chunks(ChunkPolicy);

impl FromStr for Chunks {
    type Err = String;

    fn from_str(text: &str) -> Result<Chunks, String> {
        let policy = serde_json::from_value(serde_json::json!({ "kind": text }));
        policy.map(Chunks).map_err(|_| "expected replace, ensemble or rtc".to_owned())
    }
}

/// The smallest share of successes of a kind.
#[derive(Clone, Copy)]
struct Least(Kind, f64);

impl FromStr for Least {
    type Err = String;

    fn from_str(text: &str) -> Result<Least, String> {
        let expected = || "expected KIND=SHARE, such as reach=0.9".to_owned();
        let (kind, share) = text.split_once('=').ok_or_else(expected)?;
        let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(expected)?;
        Ok(Least(kind.parse()?, share))
    }
}

/// Why an evaluation does not begin.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// The scene has no task that was asked for.
    #[error("scene {scene}: no task of {wanted}; it has {known}")]
    NoTask { scene: String, wanted: String, known: String },
}

impl Run {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let outputs = [&self.json, &self.html];
        outputs.into_iter().flatten().try_for_each(|path| output_file::check(path))?;
        let mut config = RobotConfig::load(&self.config)?;
        if let Some(model) = &self.model {
            config.model.path.clone_from(model);
        }
        config.gpu.software |= self.software;
        config.gpu.kernels = self.kernels.or(config.gpu.kernels);
        config.model.depth_map = self.depth;
        if let Some(Chunks(policy)) = self.chunks {
            config.chunks.policy = policy;
        }
        let file = config.scene.file.clone();
        let section = config.scene.clone();
        let scene = |seed: u64| section.load(seed);
        let kinds = self.kinds(&scene(self.seed)?)?;
        let mut result = Evaluation {
            format: FORMAT,
            model: if self.expert { "the scene's expert".to_owned() } else { config.model.path.display().to_string() },
            adapter: String::new(),
            software: false,
            kernels: String::new(),
            scene: file.as_ref().map_or("built-in".to_owned(), |path| path.display().to_string()),
            chunks: format!("{:?}", config.chunks.policy).to_lowercase(),
            inference_ms: self.inference_ms,
            image_noise: self.image_noise,
            lost_images: self.lost_images,
            limit_s: self.seconds,
            episodes: Vec::new(),
            depth: Default::default(),
        };
        let conditions = Conditions {
            limit: Duration::from_secs_f64(self.seconds),
            inference: Duration::from_millis(self.inference_ms),
            image_noise: self.image_noise,
            lost_images: self.lost_images,
            depth: self.depth,
            depth_within_m: self.depth_within,
            moments: None,
            seed: self.seed,
        };
        let workers = Workers {
            config: &config,
            expert: self.expert.then_some(EXPERT_HORIZON),
            conditions: &conditions,
            threads: self.threads.unwrap_or_else(|| match self.expert || config.gpu.software {
                true => thread::available_parallelism().map_or(1, NonZero::get),
                false => 1,
            }),
        };
        let count = kinds.len() * self.episodes;
        let bar = ProgressBar::new(count as u64);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} episodes, {msg}, {elapsed}, {eta} to go")?);
        let mut successes = 0;
        let note = |trial: &Trial| {
            successes += usize::from(trial.success);
            bar.inc(1);
            bar.set_message(format!("{successes} succeeded"));
        };
        let (adapter, done) = workers.run(count, |number| self.job(number, &kinds, scene), note)?;
        if let Some((name, software, kernels)) = adapter {
            (result.adapter, result.software, result.kernels) = (name, software, kernels);
        }
        let mut depth = [DepthErrors::default(); 2];
        for (trial, errors) in done {
            depth.iter_mut().zip(&errors).for_each(|(sum, errors)| sum.merge(errors));
            result.episodes.push(trial);
        }
        bar.finish_and_clear();
        result.depth = [Depth::of(&depth[0]), Depth::of(&depth[1])];
        if let Some(path) = &self.json {
            output_file::write(path, serde_json::to_string_pretty(&result)? + "\n")?;
        }
        if let Some(path) = &self.html {
            output_file::write(path, page(&result))?;
        }
        outln!("{}", result.text().trim_end());
        Ok(if self.is_enough(&result) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The episode of this number: `episodes` of the first kind, then of the next.
    fn job(
        &self,
        number: usize,
        kinds: &[TaskKind],
        scene: impl Fn(u64) -> Result<Scene, SceneError>,
    ) -> Result<Job, Failure> {
        let missing = || Failure::Missing(number);
        let (kind, turn) = (number / self.episodes, number % self.episodes);
        let seed = self.seed.saturating_add(turn as u64);
        let scene = Arc::new(scene(seed)?);
        let kind = *kinds.get(kind).ok_or_else(missing)?;
        let tasks: Vec<&Task> = self.tasks(&scene, kind).collect();
        let task = (*tasks.get(turn % tasks.len().max(1)).ok_or_else(missing)?).clone();
        Ok(Job { scene, task, kind, seed })
    }

    /// The tasks of a kind that were asked for.
    fn tasks<'a>(&'a self, scene: &'a Scene, kind: TaskKind) -> impl Iterator<Item = &'a Task> {
        let wanted = move |task: &&Task| self.prompt.as_ref().is_none_or(|prompt| *prompt == task.prompt);
        scene.tasks().iter().filter(move |task| task.kind == kind).filter(wanted)
    }

    /// The kinds that were asked for.
    fn kinds(&self, scene: &Scene) -> Result<Vec<TaskKind>, RunError> {
        let asked = |kind: &TaskKind| self.task.is_empty() || self.task.contains(&Kind(*kind));
        let has = |kind: &TaskKind| self.tasks(scene, *kind).next().is_some();
        let kinds: Vec<TaskKind> = TaskKind::ALL.into_iter().filter(asked).collect();
        let found: Vec<TaskKind> = kinds.iter().copied().filter(has).collect();
        if found.is_empty() || (!self.task.is_empty() && found.len() < kinds.len()) {
            let list = |all: Vec<String>| all.join(", ");
            let mut wanted = list(kinds.iter().map(ToString::to_string).collect());
            if let Some(prompt) = &self.prompt {
                wanted.push_str(&format!(" with the prompt {prompt:?}"));
            }
            let known = list(scene.tasks().iter().map(|task| format!("{:?}", task.prompt)).collect());
            return Err(RunError::NoTask { scene: scene.name().to_owned(), wanted, known });
        }
        Ok(found)
    }

    /// Whether every kind reached its least share.
    fn is_enough(&self, result: &Evaluation) -> bool {
        let [rows, _] = result.rows();
        let mut enough = true;
        for Least(Kind(kind), least) in &self.least {
            let row = rows.iter().find(|row| row.name == kind.to_string());
            let share = row.map_or(0.0, |row| row.successes as f64 / row.count.max(1) as f64);
            if share < *least {
                errln!("{kind}: expected at least {:.1} % success, found {:.1} %", least * 100.0, share * 100.0);
                enough = false;
            }
        }
        enough
    }
}
