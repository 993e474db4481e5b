//! The result of an evaluation, as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use fathom::control::{DepthErrors, Episode};
use fathom::scene::TaskKind;
use fathom::scene::math::{Vec3, vec3};
use serde::{Deserialize, Serialize};

use crate::statistics::{quantile, wilson};
use crate::workers::Job;

/// Format of the JSON.
pub(crate) const FORMAT: u32 = 1;

/// A whole evaluation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Directory of the checkpoint.
    pub(crate) model: String,
    /// The adapter with its driver.
    pub(crate) adapter: String,
    /// Whether that is a software driver.
    pub(crate) software: bool,
    /// Kernels and number formats.
    pub(crate) kernels: String,
    /// The scene file, or the built-in scene.
    pub(crate) scene: String,
    /// The joining of chunks.
    pub(crate) chunks: String,
    /// Simulated duration of an inference in milliseconds.
    pub(crate) inference_ms: u64,
    /// Standard deviation of the images' noise, of 255.
    pub(crate) image_noise: f32,
    /// Share of images that are lost.
    pub(crate) lost_images: f32,
    /// Time limit of an episode in seconds.
    pub(crate) limit_s: f64,
    /// In the order in which they ran.
    pub(crate) episodes: Vec<Trial>,
    /// Errors of the depth maps over all pixels, and over those of the arm and of objects.
    pub(crate) depth: [Depth; 2],
}

/// One episode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// Kind of its task.
    pub(crate) kind: String,
    /// Its prompt.
    pub(crate) prompt: String,
    /// Seed of the scene.
    pub(crate) seed: u64,
    /// The task was done at the end.
    pub(crate) success: bool,
    /// The task was done at some time.
    pub(crate) ever: bool,
    /// When it was done, in seconds.
    pub(crate) done_s: Option<f64>,
    /// What was missing at the end, in metres.
    pub(crate) distance_m: f32,
    /// Of a reach's missing distance, the part along the first camera's ray to the goal, and the part across it, in metres: an error
    /// of depth, and one of direction.
    #[serde(default)]
    pub(crate) ray_m: Option<[f32; 2]>,
    /// The least that was missing, in metres.
    pub(crate) nearest_m: f32,
    /// Another object was held, or nearest at the end of a reach.
    pub(crate) wrong_object: bool,
    /// The tool was below the table's top.
    pub(crate) below_table: bool,
    /// The greatest acceleration of a joint, in rad/s².
    pub(crate) peak_acceleration: f32,
    /// Inferences.
    pub(crate) inferences: u32,
    /// Chunks that were late or refused.
    pub(crate) lost_chunks: u64,
    /// The loop's fault, if it ended in one.
    pub(crate) fault: Option<String>,
}

/// Errors of depth maps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Depth {
    /// Pixels compared.
    pub(crate) pixels: u64,
    /// Mean of `|map − truth| / truth`.
    pub(crate) abs_rel: f64,
    /// Share of pixels within a factor of 1.25.
    pub(crate) delta1: f64,
}

impl Depth {
    pub(crate) fn of(errors: &DepthErrors) -> Depth {
        let count = errors.pixels.max(1) as f64;
        Depth {
            pixels: errors.pixels,
            abs_rel: errors.relative / count,
            delta1: errors.within_25_percent as f64 / count,
        }
    }
}

impl Trial {
    pub(crate) fn of(job: &Job, episode: &Episode) -> Trial {
        Trial {
            kind: job.kind.to_string(),
            prompt: job.task.prompt.clone(),
            seed: job.seed,
            ray_m: along_and_across(job, episode),
            success: episode.success,
            ever: episode.ever,
            done_s: episode.done_s,
            distance_m: episode.distance_m,
            nearest_m: episode.nearest_m,
            wrong_object: episode.wrong_object,
            below_table: episode.below_table,
            peak_acceleration: episode.peak_acceleration,
            inferences: episode.inferences,
            lost_chunks: episode.lost_chunks,
            fault: episode.fault.clone(),
        }
    }
}

/// Figures of some episodes.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) count: usize,
    pub(crate) successes: usize,
    pub(crate) interval: [f64; 2],
    pub(crate) wrong: usize,
    pub(crate) below_table: usize,
    pub(crate) faults: usize,
    /// Median time to success in seconds.
    pub(crate) done_s: Option<f64>,
    /// Median and 90th percentile of the missing distance at the end, in millimetres.
    pub(crate) distance_mm: [f64; 2],
    /// Of reaches: the medians of what was missing along the first camera's ray, and across it, in millimetres.
    pub(crate) ray_mm: Option<[f64; 2]>,
    /// Median of the greatest acceleration, in rad/s².
    pub(crate) acceleration: f64,
}

/// What is missing of a reach along the first camera's ray to the goal, and across it.
fn along_and_across(job: &Job, episode: &Episode) -> Option<[f32; 2]> {
    let [x, y, z] = *episode.path.last()?;
    let (tool, offset) = (vec3(x, y, z), Vec3::from(episode.offset));
    let positions: Vec<f32> = job.scene.initial_positions().collect();
    let view = job.scene.view(0, &positions).ok().filter(|_| job.kind == TaskKind::Reach)?;
    let ray = (tool + offset - view.pose.position).normalized();
    let along = offset.dot(ray);
    Some([along.abs(), (offset - ray * along).length()])
}

impl Row {
    fn of(name: &str, trials: &[&Trial]) -> Row {
        let count = |wanted: fn(&Trial) -> bool| trials.iter().filter(|trial| wanted(trial)).count();
        let successes = count(|trial| trial.success);
        let ray = |part: usize| {
            let parts = trials.iter().filter_map(|trial| Some(f64::from(*trial.ray_m?.get(part)?) * 1e3));
            quantile(&mut parts.collect::<Vec<f64>>(), 0.5)
        };
        let (along, across) = (ray(0), ray(1));
        let mut done: Vec<f64> = trials.iter().filter_map(|trial| trial.done_s).collect();
        let mut distances: Vec<f64> = trials.iter().map(|trial| f64::from(trial.distance_m) * 1e3).collect();
        let mut accelerations: Vec<f64> = trials.iter().map(|trial| trial.peak_acceleration.into()).collect();
        Row {
            name: name.to_owned(),
            count: trials.len(),
            successes,
            interval: wilson(successes, trials.len()),
            wrong: count(|trial| trial.wrong_object),
            below_table: count(|trial| trial.below_table),
            faults: count(|trial| trial.fault.is_some()),
            done_s: quantile(&mut done, 0.5),
            distance_mm: [0.5, 0.9].map(|share| quantile(&mut distances, share).unwrap_or(f64::NAN)),
            ray_mm: along.zip(across).map(|(along, across)| [along, across]),
            acceleration: quantile(&mut accelerations, 0.5).unwrap_or(f64::NAN),
        }
    }
}

impl Evaluation {
    /// Reads the JSON of an evaluation.
    ///
    /// # Errors
    /// [`ReadError`], which names the file.
    pub(crate) fn read(path: &Path) -> Result<Evaluation, ReadError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ReadError::File { file: file.clone(), source })?;
        let format =
            serde_json::from_str::<Format>(&text).map_err(|source| ReadError::Json { file: file.clone(), source })?;
        if format.format != FORMAT {
            return Err(ReadError::Format { file, found: format.format });
        }
        serde_json::from_str(&text).map_err(|source| ReadError::Json { file, source })
    }

    /// A row for each kind of task, and one for each prompt.
    pub(crate) fn rows(&self) -> [Vec<Row>; 2] {
        let by = |name: fn(&Trial) -> &str| {
            let mut groups: Vec<(&str, Vec<&Trial>)> = Vec::new();
            for trial in &self.episodes {
                match groups.iter_mut().find(|(known, _)| *known == name(trial)) {
                    Some((_, trials)) => trials.push(trial),
                    None => groups.push((name(trial), vec![trial])),
                }
            }
            groups.iter().map(|(name, trials)| Row::of(name, trials)).collect()
        };
        [by(|trial| &trial.kind), by(|trial| &trial.prompt)]
    }

    /// The success of every episode, by prompt and seed.
    pub(crate) fn outcomes(&self) -> BTreeMap<(&str, &str, u64), bool> {
        let trials = self.episodes.iter();
        trials.map(|t| ((t.kind.as_str(), t.prompt.as_str(), t.seed), t.success)).collect()
    }

    /// The conditions in one line.
    pub(crate) fn conditions(&self) -> String {
        let mut line = format!(
            "scene {}, chunks {}, an inference takes {} ms, at most {} s",
            self.scene, self.chunks, self.inference_ms, self.limit_s
        );
        if self.image_noise > 0.0 {
            let _ = write!(line, ", noise of {} in every colour", self.image_noise);
        }
        if self.lost_images > 0.0 {
            let _ = write!(line, ", {:.0} % of the images lost", self.lost_images * 100.0);
        }
        line
    }

    /// The tables as text.
    pub(crate) fn text(&self) -> String {
        let software = if self.software { ": a software driver" } else { "" };
        // The expert needs no adapter.
        let on = match self.adapter.is_empty() {
            true => String::new(),
            false => format!(" on {}{software}, {}", self.adapter, self.kernels),
        };
        let mut out = format!("{}{on}\n{}\n", self.model, self.conditions());
        for rows in self.rows() {
            let _ = writeln!(
                out,
                "\n{:40} {:>11} {:>8} {:>14} {:>6} {:>6} {:>8} {:>15} {:>15} {:>8}",
                "task", "success", "", "95 %", "wrong", "table", "median s", "missing mm", "along + across", "rad/s²"
            );
            for row in rows {
                let [low, high] = row.interval.map(|share| share * 100.0);
                let [median, p90] = row.distance_mm;
                let _ = writeln!(
                    out,
                    "{:40} {:>5}/{:<5} {:>6.1} % [{:>4.1}, {:>5.1}] {:>6} {:>6} {:>8} {:>6.1} p90 {:>4.0} {:>15} {:>8.0}{}",
                    row.name,
                    row.successes,
                    row.count,
                    100.0 * row.successes as f64 / row.count.max(1) as f64,
                    low,
                    high,
                    row.wrong,
                    row.below_table,
                    row.done_s.map_or("-".to_owned(), |s| format!("{s:.1}")),
                    median,
                    p90,
                    row.ray_mm.map_or("-".to_owned(), |[along, across]| format!("{along:.1} + {across:.1}")),
                    row.acceleration,
                    if row.faults > 0 { format!("  {} ended in a fault", row.faults) } else { String::new() },
                );
            }
        }
        for (depth, of) in self.depth.iter().zip(["all pixels", "arm and objects"]) {
            if depth.pixels > 0 {
                let _ = writeln!(out, "depth, {of}: AbsRel {:.4}, δ1 {:.4}", depth.abs_rel, depth.delta1);
            }
        }
        out
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why an evaluation could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file.
    #[error("{file}: {source}")]
    File { file: String, source: std::io::Error },
    /// It is not the JSON of an evaluation.
    #[error("{file}: expected the JSON of fathom-eval: {source}")]
    Json { file: String, source: serde_json::Error },
    /// It is of another version.
    #[error("{file}: expected format {FORMAT}, found {found}")]
    Format { file: String, found: u32 },
}
