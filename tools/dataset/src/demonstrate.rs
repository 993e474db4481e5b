use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use clap::Args;
use fathom::bounds::{self, Bounds};
use fathom::scene::math::Pose;
use fathom::scene::{Expert, Random, Renderer, Scene, Task, View, World};
use fathom::within;
use fathom_models::outln;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::lerobot::{Episode, Feature, FeatureType, Form, PictureCounts, Track, Writer};
use crate::rollout::{Disturbance, RATE_HZ, Rollout, STEP_S};

const EPISODES: Bounds<usize> = Bounds::new(1, 10_000_000, "episodes");
const SIDE: Bounds<u32> = Bounds::new(8, 1024, "pixels");
const THREADS: Bounds<usize> = Bounds::new(1, 1024, "threads");
const RATE: Bounds<u32> = Bounds::new(1, 15, "Hz");
/// Steps of `action.plan`.
const HORIZON: usize = 16;
/// Steps after success.
const AFTERWARDS: u32 = 8;
/// Steps after which an episode is given up.
const LIMIT: u32 = 20 * 15;
/// Tries at an episode, each with other disturbances, before it is kept as it is.
const TRIES: u64 = 8;
/// Depth beyond this is written as none, in metres.
const FAR_M: f32 = 3.0;
/// A point counts as hidden if something is nearer than it by more than its object's size and this, in metres.
const HIDDEN_M: f32 = 0.005;

type Failure = Box<dyn Error + Send + Sync>;

/// Write demonstrations of the scene's tasks as a LeRobot data set: the expert's, from random starts and under
/// disturbances, in scenes that the seed lays out.
#[derive(Args)]
pub(crate) struct Demonstrate {
    /// Scene file. Default: the built-in scene.
    #[arg(long)]
    scene: Option<PathBuf>,
    /// Number of episodes. The scene's tasks take turns.
    #[arg(long, value_parser = within!(EPISODES))]
    episodes: usize,
    /// Seed of all draws.
    #[arg(long, default_value = "0", value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Frames a second: 15, 5, 3 or 1. Fewer give frames further apart of the same episodes.
    #[arg(long, default_value = "15", value_parser = within!(RATE), value_name = "HZ")]
    rate: u32,
    /// Width and height at which every camera is drawn.
    #[arg(long, default_value = "112", value_parser = within!(SIDE), value_name = "PX")]
    image_size: u32,
    /// Output directory. It must not exist, and appears only when it is complete.
    #[arg(long)]
    output: PathBuf,
    /// Threads. Default: one for each core. The data set does not depend on it.
    #[arg(long, value_parser = within!(THREADS))]
    threads: Option<usize>,
}

impl Demonstrate {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let whole = RATE_HZ as u32;
        if !whole.is_multiple_of(self.rate) {
            return Err(format!(
                "--rate {}: expected 15, 5, 3 or 1 Hz, which divide the expert's {whole} Hz",
                self.rate
            )
            .into());
        }
        let cancel = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancel))?;
        }
        let plan = Plan::new(&self)?;
        let mut writer = Writer::create(&self.output, plan.form(&self))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores).min(self.episodes);
        let bar = ProgressBar::new(self.episodes as u64);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} episodes, {msg}, {elapsed}, {eta} to go")?);
        let unsuccessful = write_all(&plan, &mut writer, threads, &cancel, |writer| {
            bar.inc(1);
            bar.set_message(format!("{:.0} frames/s", writer.frames() as f64 / start.elapsed().as_secs_f64()));
        });
        bar.finish_and_clear();
        let unsuccessful = unsuccessful.map_err(|error| -> Box<dyn Error> { error })?;
        let frames = writer.frames();
        writer.finish()?;
        let seconds = start.elapsed().as_secs_f64();
        outln!(
            "{}: {} episodes, {frames} frames, {unsuccessful} episodes that do not end in success, in {seconds:.1} s with \
             {threads} threads: {:.0} frames/s",
            self.output.display(),
            self.episodes,
            frames as f64 / seconds
        );
        Ok(())
    }
}

/// Makes the episodes on `threads` threads and appends them in their order; the number of those without success.
fn write_all(
    plan: &Plan,
    writer: &mut Writer,
    threads: usize,
    cancel: &AtomicBool,
    mut done: impl FnMut(&Writer),
) -> Result<usize, Failure> {
    let next = AtomicUsize::new(0);
    let ended = AtomicBool::new(false);
    let (sender, receiver) = sync_channel::<(usize, Result<Made, Failure>)>(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, ended) = (sender.clone(), &next, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) && !cancel.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.episodes || sender.send((number, plan.episode(number))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut write = || -> Result<usize, Failure> {
            let (mut waiting, mut written, mut unsuccessful) = (BTreeMap::new(), 0, 0);
            for (number, made) in &receiver {
                waiting.insert(number, made?);
                while let Some(made) = waiting.remove(&written) {
                    unsuccessful += usize::from(!made.success);
                    writer.append(made.episode)?;
                    written += 1;
                    done(writer);
                }
            }
            if written < plan.episodes { Err("interrupted; nothing was written".into()) } else { Ok(unsuccessful) }
        };
        let result = write();
        ended.store(true, Ordering::Relaxed);
        // A thread that waits to hand over its episode ends.
        drop(receiver);
        result
    })
}

/// An episode, and whether it ends in success.
struct Made {
    episode: Episode,
    success: bool,
}

/// What every episode is made from.
struct Plan {
    text: String,
    file: String,
    cameras: Vec<String>,
    joints: Vec<String>,
    episodes: usize,
    seed: u64,
    /// Steps of the expert between two frames.
    every: u32,
    side: u32,
}

impl Plan {
    fn new(options: &Demonstrate) -> Result<Plan, Box<dyn Error>> {
        let (text, file) = match &options.scene {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                (text, path.display().to_string())
            }
            None => (Scene::built_in_text().to_owned(), "built-in scene".to_owned()),
        };
        let scene = Arc::new(Scene::from_toml(&text, &file, 0)?);
        Expert::new(Arc::clone(&scene))?;
        if scene.tasks().is_empty() {
            return Err(format!("{file}: tasks is empty; expected at least one task to demonstrate").into());
        }
        Ok(Plan {
            text,
            file,
            cameras: scene.cameras().iter().map(|camera| camera.name.clone()).collect(),
            joints: scene.joints().iter().map(|joint| joint.name.clone()).collect(),
            episodes: options.episodes,
            seed: options.seed,
            every: RATE_HZ as u32 / options.rate,
            side: options.image_size,
        })
    }

    /// The data set's features: see `README.md`.
    fn form(&self, options: &Demonstrate) -> Form {
        let side = self.side as usize;
        let joints = self.joints.len();
        let picture = |name: &str| Feature {
            name: format!("observation.images.{name}"),
            kind: FeatureType::Image { height: side, width: side },
        };
        let numbers = |name: &str, shape: Vec<usize>, names: &[String]| Feature {
            name: name.to_owned(),
            kind: FeatureType::Numbers { shape, names: names.to_vec() },
        };
        let mut features: Vec<Feature> = self.cameras.iter().map(|name| picture(name)).collect();
        features.extend(self.cameras.first().map(|name| Feature {
            name: format!("observation.depth.{name}"),
            kind: FeatureType::Depth { height: side, width: side },
        }));
        features.push(numbers("observation.state", vec![joints], &self.joints));
        features.push(numbers("action", vec![joints], &self.joints));
        features.push(numbers("action.plan", vec![HORIZON, joints], &self.joints));
        features.push(numbers("annotation.pixel", vec![self.cameras.len(), 2, 2], &[]));
        let mut notes = Map::new();
        notes.insert("program".to_owned(), json!(concat!("fathom-dataset ", env!("CARGO_PKG_VERSION"))));
        notes.insert("scene".to_owned(), json!(self.file));
        notes.insert("seed".to_owned(), json!(options.seed));
        notes.insert("views".to_owned(), json!(self.cameras));
        notes.insert("plan_fps".to_owned(), json!(RATE_HZ as u32));
        Form { fps: options.rate, robot: "fathom_scene".to_owned(), features, notes }
    }

    /// The episode of this number. It depends on nothing else than the scene, the options and the number.
    fn episode(&self, number: usize) -> Result<Made, Failure> {
        // The range of seeds in files and options.
        let seed = Random::stream(self.seed, number as u64).bits() >> 1;
        let scene = Scene::from_toml(&self.text, &self.file, seed)?.with_image_side(self.side);
        let scene = Arc::new(scene);
        let expert = Expert::new(Arc::clone(&scene))?;
        let tasks = scene.tasks();
        let task = tasks.get(number % tasks.len().max(1)).ok_or("the scene has no task")?;
        let mut attempt = 0;
        loop {
            let states = run(&expert, &scene, task, seed.wrapping_add(attempt))?;
            let success = states.success;
            attempt += 1;
            if success || attempt == TRIES {
                return Ok(Made { episode: self.draw(&expert, &scene, task, &states)?, success });
            }
        }
    }

    /// Draws the frames of an episode that has been run.
    fn draw(&self, expert: &Expert, scene: &Arc<Scene>, task: &Task, run: &Run) -> Result<Episode, Failure> {
        let pixels = self.side as usize * self.side as usize;
        let mut cameras: Vec<CameraFrames> = Vec::new();
        for index in 0..scene.cameras().len() {
            cameras.push(CameraFrames {
                renderer: Renderer::new(Arc::clone(scene), index)?,
                rgb: vec![0; pixels * 3],
                depth: vec![0.0; pixels],
                files: Vec::new(),
                counts: PictureCounts::new(3, 256),
            });
        }
        let mut depth_maps = (Vec::new(), PictureCounts::new(1, 1 << 16));
        let [mut states, mut actions, mut plans, mut annotated] = [const { Vec::new() }; 4];
        let mut frames = 0;
        for (world, commanded) in run.states.iter().step_by(self.every as usize) {
            frames += 1;
            for (index, camera) in cameras.iter_mut().enumerate() {
                camera.draw(world, self.side)?;
                if index == 0 {
                    let millimetres = millimetres(&camera.depth);
                    depth_maps.1.add(&millimetres);
                    let bytes: Vec<u8> = millimetres.iter().flat_map(|depth| depth.to_be_bytes()).collect();
                    depth_maps.0.push(encode(&bytes, self.side, png::ColorType::Grayscale, png::BitDepth::Sixteen)?);
                }
                let view = scene.view(index, world.joints())?;
                for object in [Some(task.object), task.target] {
                    annotated.extend(seen(world, &view, &camera.depth, object));
                }
            }
            states.extend_from_slice(world.joints());
            actions.extend_from_slice(commanded);
            plans.extend(expert.plan(world, task, STEP_S, HORIZON)?.into_iter().flatten());
        }
        let mut tracks: Vec<Track> =
            cameras.into_iter().map(|camera| Track::Pictures { files: camera.files, counts: camera.counts }).collect();
        tracks.push(Track::Pictures { files: depth_maps.0, counts: depth_maps.1 });
        tracks.extend([states, actions, plans, annotated].map(Track::Numbers));
        Ok(Episode { task: task.prompt.clone(), frames, tracks })
    }
}

/// The states of an episode, each with the targets that were commanded in it.
struct Run {
    states: Vec<(World, Vec<f32>)>,
    success: bool,
}

fn run(expert: &Expert, scene: &Arc<Scene>, task: &Task, seed: u64) -> Result<Run, Failure> {
    let mut rollout = Rollout::begin(expert, scene, task, Disturbance::drawn(seed))?;
    let mut states = Vec::new();
    let mut afterwards = 0;
    let mut success = false;
    while states.len() < LIMIT as usize && afterwards < AFTERWARDS {
        let before = rollout.world.clone();
        let step = rollout.step()?;
        states.push((before, step.commanded));
        success = step.after.success;
        // A disturbance may undo it.
        afterwards = if success { afterwards + 1 } else { 0 };
    }
    Ok(Run { states, success })
}

/// A camera and its pictures of an episode.
struct CameraFrames {
    renderer: Renderer,
    rgb: Vec<u8>,
    depth: Vec<f32>,
    files: Vec<Vec<u8>>,
    counts: PictureCounts,
}

impl CameraFrames {
    fn draw(&mut self, world: &World, side: u32) -> Result<(), Failure> {
        self.renderer.render_with(world.joints(), world.objects(), &mut self.rgb, &mut self.depth)?;
        self.counts.add(&self.rgb);
        self.files.push(encode(&self.rgb, side, png::ColorType::Rgb, png::BitDepth::Eight)?);
        Ok(())
    }
}

/// A square PNG.
fn encode(bytes: &[u8], side: u32, color: png::ColorType, depth: png::BitDepth) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::with_capacity(bytes.len() / 2);
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(file)
}

/// Depth in whole millimetres; 0 for none, and for what is too far.
fn millimetres(depth: &[f32]) -> Vec<u16> {
    let cut = |depth: &f32| if *depth <= FAR_M { (depth * 1000.0).round() as u16 } else { 0 };
    depth.iter().map(cut).collect()
}

/// Where the middle of an object appears, as shares of the image's width and height; -1 if it does not.
fn seen(world: &World, view: &View, depth: &[f32], object: Option<usize>) -> [f32; 2] {
    let find = || {
        let index = object?;
        let (pose, shape): (&Pose, _) = (world.objects().get(index)?, &world.scene().objects().get(index)?.shape);
        let at = view.project(pose.position)?;
        let (width, height) = (view.width as f32, view.height as f32);
        let inside = (0.0..width).contains(&at.x) && (0.0..height).contains(&at.y);
        let nearest = depth.get(at.y.max(0.0) as usize * view.width as usize + at.x.max(0.0) as usize)?;
        let size = shape.reach().hypot(shape.lift());
        (inside && *nearest >= at.depth - size - HIDDEN_M).then_some([at.x / width, at.y / height])
    };
    find().unwrap_or([-1.0; 2])
}
