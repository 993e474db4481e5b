//! Repeats the inferences of a recorded run: bit-identical on the same adapter, with the differences by stage on
//! another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fathom_models::checkpoint::random;
use fathom_models::nets::reference::Reference;
use fathom_models::processing::observation::{check_state, finish_actions};

use super::damage::{self, Cause, Causes, Incomplete};
use super::note::fingerprint;
use super::read::{Moment, Recording};
use super::{RecordError, RunNote, schema};
use crate::camera::Image;
use crate::engine::{EngineError, Wanted};
use crate::gpu::GpuOptions;
use crate::policy::{Observation, Policy, PolicyError, PolicyFiles, PolicyOptions};

/// Errors of a replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The policy: its checkpoint, or its GPU.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// How to replay.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Directory of the checkpoint, if it is not the recorded one.
    pub model: Option<PathBuf>,
    /// How to open the GPU.
    pub gpu: GpuOptions,
    /// Requested kernels and formats; default: chosen for the adapter.
    pub wanted: Wanted,
    /// Only this inference.
    pub number: Option<u32>,
    /// Keep every stage's tensors of the first replayed inference.
    pub stages: bool,
}

/// One repeated inference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its number.
    pub number: u32,
    /// Whether all actions are bit-identical.
    pub identical: bool,
    /// The largest difference of an action, in the robot's units.
    pub largest: f32,
}

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The note of the run; of several runs, the first.
    pub note: RunNote,
    /// Adapter and driver here.
    pub adapter: String,
    /// Kernels here.
    pub kernels: String,
    /// Every inference whose result was recorded.
    pub differences: Vec<Difference>,
    /// With [`Replay::stages`]: the inference and its stages, `(name, values)` in the graph's order.
    pub stages: Option<(u32, Stages)>,
    /// The CPU twins' results for the same stages, if they differ and the model is small enough.
    pub twins: Option<Stages>,
    /// Files that were not replayed completely, with the causes.
    pub incomplete: Vec<Incomplete>,
}

/// The run being read, and its model, if available.
struct Playing {
    note: RunNote,
    policy: Result<Policy, String>,
}

/// Values of every stage by its name, in the graph's order.
pub type Stages = Vec<(String, Vec<f32>)>;

/// Models with more parameters are not run on the CPU twins: it would take hours.
const TWINS: usize = 20_000_000;

impl Replay {
    /// Repeats the inferences of recorded runs: the intact ones whose model is available.
    ///
    /// # Errors
    /// [`ReplayError`]: an error of the recording, of the model or of the GPU.
    pub fn run(&self, path: &Path) -> Result<Replayed, ReplayError> {
        let recording = Recording::open(path)?;
        let mut replayed = Replayed::default();
        let mut playing: Option<Playing> = None;
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        let mut again: Option<(u32, Vec<f32>)> = None;
        let mut refused: Vec<(PathBuf, String)> = Vec::new();
        let mut refusal = None;
        let mut at = path.to_owned();
        let mut incomplete = recording.each(|moment| {
            match moment {
                Moment::File(path) => at = path,
                // Each file begins with one.
                Moment::Run(note) => {
                    if playing.as_ref().is_none_or(|playing| playing.note != note) {
                        // A message of another run, with the same numbers.
                        again = None;
                    }
                    let policy = match playing.take() {
                        Some(playing) if playing.note.is_of_the_same_model(&note) => playing.policy,
                        _ => match self.open(&at, &note) {
                            Ok(opened) => Ok(opened),
                            // Another run's model may be available.
                            Err(error @ (ReplayError::Policy(PolicyError::Model(_)) | ReplayError::Record(_))) => {
                                let said = error.to_string();
                                refusal.get_or_insert(error);
                                Err(said)
                            }
                            Err(error) => return Err(error),
                        },
                    };
                    match &policy {
                        Ok(policy) if replayed.adapter.is_empty() => {
                            let info = policy.session.gpu().info();
                            replayed.adapter = format!("{} ({})", info.name, info.driver);
                            replayed.kernels = policy.session.choice().to_string();
                            replayed.note = note.clone();
                        }
                        Ok(_) => {}
                        Err(said) => refused.push((at.clone(), said.clone())),
                    }
                    playing = Some(Playing { note, policy });
                }
                Moment::Image { view, image } => {
                    images.insert(view, image);
                }
                Moment::Observation(observation) => {
                    let mut images = std::mem::take(&mut images);
                    let number = observation.number;
                    if self.number.is_none_or(|n| n == number)
                        && let Some(Playing { note, policy: Ok(policy) }) = &mut playing
                        && let Some(recorded) = Recorded::new(note, observation, &mut images)
                    {
                        let stages = self.stages && replayed.stages.is_none();
                        let (actions, outputs) = match infer(policy, &recorded, stages) {
                            Ok(inferred) => inferred,
                            Err(error) if error.is_of_input() => {
                                refused.push((at.clone(), format!("inference {}: {error}", number)));
                                return Ok(true);
                            }
                            Err(error) => return Err(error.into()),
                        };
                        if stages {
                            replayed.stages = Some((number, outputs));
                        }
                        if stages && parameters(policy) <= TWINS {
                            replayed.twins = Some(twins(policy, &recorded)?);
                        }
                        again = Some((number, actions));
                    }
                }
                Moment::Inference(inference) => {
                    if let Some((number, actions)) = again.take_if(|(number, _)| *number == inference.number) {
                        replayed.differences.push(difference(number, &inference.actions, &actions));
                    }
                }
                _ => {}
            }
            Ok::<_, ReplayError>(true)
        })?;
        for (path, said) in refused {
            let known = incomplete.iter_mut().find(|file| file.path == path);
            match known {
                Some(file) => file.causes.add(Cause::Model(said)),
                None => incomplete.push(Incomplete { path, causes: Causes::from(Cause::Model(said)) }),
            }
        }
        if replayed.adapter.is_empty() {
            return Err(refusal.unwrap_or_else(|| RecordError::Unreadable(damage::list(&incomplete)).into()));
        }
        replayed.incomplete = incomplete;
        Ok(replayed)
    }

    fn open(&self, path: &Path, note: &RunNote) -> Result<Policy, ReplayError> {
        let model = self.model.clone().unwrap_or_else(|| PathBuf::from(&note.model));
        let options = PolicyOptions {
            family: note.family.parse().ok(),
            skip_views: note.skip_views.clone(),
            gpu: self.gpu.clone(),
            wanted: self.wanted,
            depth_map: false,
            guided: true,
        };
        let files = PolicyFiles::read(&model, options)?.verify()?;
        let found = fingerprint(&files.loaded);
        if found != note.fingerprint {
            let (path, expected) = (path.to_owned(), note.fingerprint.clone());
            return Err(RecordError::Model { path, model, expected, found }.into());
        }
        Ok(files.open()?)
    }
}

/// A recorded observation with its images.
struct Recorded {
    images: Vec<Image>,
    observation: schema::Observation,
}

impl Recorded {
    /// `None` if the recording lacks some of its images.
    fn new(note: &RunNote, observation: schema::Observation, images: &mut BTreeMap<String, Image>) -> Option<Recorded> {
        let images = note.views.iter().map(|view| images.remove(view)).collect::<Option<Vec<Image>>>()?;
        Some(Recorded { images, observation })
    }

    fn observation(&self) -> Observation<'_> {
        let schema::Observation { state, seed, guide, .. } = &self.observation;
        Observation::default().ordered(&self.images).state(state).seed(*seed).guide(guide.as_ref())
    }
}

fn infer(policy: &mut Policy, recorded: &Recorded, stages: bool) -> Result<(Vec<f32>, Stages), PolicyError> {
    policy.set_taps(stages);
    policy.set_tokens(&recorded.observation.tokens);
    let (outputs, _) = policy.outputs(&recorded.observation())?;
    let outputs: Stages = outputs.iter().map(|o| (o.name.clone(), o.values.clone())).collect();
    let raw = outputs.iter().find(|(name, _)| name == "actions").map(|(_, v)| v.clone()).unwrap_or_default();
    let (_, actions) = finish_actions(policy.loaded(), &recorded.observation.state, raw)?;
    Ok((actions, if stages { outputs } else { Vec::new() }))
}

fn difference(number: u32, recorded: &[f32], again: &[f32]) -> Difference {
    let same_length = recorded.len() == again.len();
    let pairs = || recorded.iter().zip(again);
    let identical = same_length && pairs().all(|(a, b)| a.to_bits() == b.to_bits());
    let largest = if same_length { pairs().fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) } else { f32::INFINITY };
    Difference { number, identical, largest }
}

fn parameters(policy: &Policy) -> usize {
    policy.loaded().model.params.params.iter().map(|p| p.shape.iter().product::<usize>()).sum()
}

/// Computes every stage on the CPU twins.
fn twins(policy: &Policy, recorded: &Recorded) -> Result<Stages, PolicyError> {
    let schema::Observation { state, seed, guide, .. } = &recorded.observation;
    let loaded = policy.loaded();
    let (model, config) = (&loaded.model, &loaded.model.config);
    check_state(loaded, state)?;
    let forward = policy.prepared().ok_or(EngineError::Unprepared)?;
    let graph = model.forward(&loaded.weights, forward)?;
    let mut normalized = state.to_vec();
    loaded.normalization.state.normalize(&mut normalized);
    normalized.resize(config.state_dim, 0.0);
    let text = loaded.weights.rows(model.embed_tokens, config.vlm.width, policy.tokens())?;
    let noise = random::normal(*seed, config.horizon * config.action_dim);
    let guided = guide.as_ref().map(|guide| guide.inputs(loaded, state)).transpose()?;
    let mut reference = Reference::new(&graph, &loaded.weights);
    let mut give = |name: &str, bytes: &[u8]| {
        if let Some(tensor) = graph.input(name) {
            reference.write(tensor.id, bytes);
        }
    };
    give("text", bytemuck::cast_slice(&text));
    give("state", bytemuck::cast_slice(&normalized));
    give("noise", bytemuck::cast_slice(&noise));
    if let Some((goal, gains)) = &guided {
        give("goal", bytemuck::cast_slice(goal));
        give("gains", bytemuck::cast_slice(gains));
    }
    for (view, image) in config.views.iter().zip(&recorded.images) {
        give(&format!("image.{view}"), image.pixels());
    }
    reference.run()?;
    Ok(graph.outputs.iter().map(|o| (o.name.clone(), reference.read(o.tensor))).collect())
}

/// The largest difference of each stage that both have, relative to the largest magnitude of `expected`, in the order
/// of `found`.
pub fn stages_of(expected: &[(String, Vec<f32>)], found: &[(String, Vec<f32>)]) -> Vec<(String, f32)> {
    let known: BTreeMap<&str, &[f32]> = expected.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let error = |expected: &[f32], found: &[f32]| {
        if expected.len() != found.len() {
            return f32::INFINITY;
        }
        let magnitude = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let apart = expected.iter().zip(found).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        if apart == 0.0 { 0.0 } else { apart / magnitude }
    };
    found.iter().filter_map(|(name, values)| Some((name.clone(), error(known.get(name.as_str())?, values)))).collect()
}
