//! Repeats and times the inferences of a recorded run, with its images, states and prompts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use fathom::camera::Image;
use fathom::clock::monotonic_ns;
use fathom::engine::{Inputs, Session};
use fathom::gpu::{Gpu, GpuOptions};
use fathom::record::{Moment, Observation, Recording, RunNote};
use fathom::telemetry::{EventWriter, Header, RingReader, RingWriter, StageTable, stage};
use fathom::{bounds, within};
use fathom_models::checkpoint::random;
use fathom_models::families;
use fathom_models::nets::depthvla::ForwardOptions;

use crate::Failure;
use crate::bench::ns;
use crate::collect::Watch;
use crate::machine::Watched;
use crate::model::{AdapterOptions, hash};
use crate::output::Outputs;
use crate::result::Measured;
use crate::watch::{Pump, TraceFile};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Recording of `fathom run --record`: a file, or a folder of them.
    recording: PathBuf,
    /// Checkpoint directory. Default: the one of the recorded run.
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// Rounds through the recording; the spread of their medians is the noise for `compare`.
    #[arg(long, default_value_t = 3, value_parser = within!(bounds::REPEATS))]
    rounds: u32,
    /// Count an inference as missed if it takes longer than this, in milliseconds. Default: no deadline.
    #[arg(long, value_parser = within!(bounds::DEADLINE_MS))]
    deadline_ms: Option<f64>,
    /// Output: a trace for ui.perfetto.dev.
    #[arg(long)]
    trace: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

/// The model of a recording, prepared for the last request.
struct Player {
    session: Session,
    note: RunNote,
    model: PathBuf,
    forward: ForwardOptions,
    tokens: Vec<i32>,
}

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    o.outputs.check()?;
    let machine = Watched::begin();
    let recording = Recording::open(&o.recording)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ring");
    let mut writer = EventWriter::over(RingWriter::create_at(&path, "{}", 1 << 12)?);
    let deadline_ns = o.deadline_ms.map(ns);
    let watch = Watch { name: "inference", path: stage::INFERENCE, deadline_ns, ..Watch::default() };
    let mut pump = Pump::new(RingReader::open(&path)?, watch, None);
    let mut player = None;
    let mut cold = StageTable::default();
    let mut number = 0;
    let (mut incomplete, mut others) = (Vec::new(), 0);
    for _ in 0..o.rounds {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        let mut of_another = false;
        others = 0;
        incomplete = recording.each(|moment| -> Result<bool, Failure> {
            match moment {
                Moment::Run(note) if player.is_none() => {
                    let opened = Player::open(o, note)?;
                    let title = crate::title(&Header::of(&opened.session, String::new(), 0));
                    let trace = o.trace.as_ref().map(|p| TraceFile::create(p, std::process::id(), &title));
                    pump.trace_into(trace.transpose()?);
                    player = Some(opened);
                }
                // The times of two models do not belong in one figure.
                Moment::Run(note) => {
                    of_another = player.as_ref().is_some_and(|p| !p.note.is_of_the_same_model(&note));
                    others += usize::from(of_another);
                }
                Moment::Image { view, image } => {
                    images.insert(view, image);
                }
                Moment::Observation(observation) => {
                    let mut images = std::mem::take(&mut images);
                    let Some(player) = player.as_mut().filter(|_| !of_another) else { return Ok(true) };
                    let seen = player.note.views.iter().map(|v| images.remove(v)).collect::<Option<Vec<Image>>>();
                    let Some(seen) = seen else { return Ok(true) };
                    let prepared = player.prepare(&seen, &observation)?;
                    if prepared {
                        // The first inference of a form compiles; it is not timed with the others.
                        let (began_ns, ended_ns, _) = player.infer(&seen, &observation)?;
                        cold.record(stage::COLD, ended_ns - began_ns);
                    }
                    let (began_ns, ended_ns, times) = player.infer(&seen, &observation)?;
                    number += 1;
                    writer.inference(&times, number, began_ns, ended_ns);
                    pump.pump();
                }
                _ => {}
            }
            Ok(true)
        })?;
        pump.collector.end_round();
    }
    let Some(player) = player.filter(|_| number > 0) else {
        let said = incomplete.iter().map(|file| format!("; {file}")).collect::<String>();
        let path = o.recording.display();
        return Err(format!("{path}: expected a run with observations and their images, found none{said}").into());
    };
    let header = Header::of(&player.session, player.model.display().to_string(), 0);
    let section = pump.section(cold.stages());
    let said = format!("recorded on {} ({}), kernels {}", player.note.adapter, player.note.driver, player.note.kernels);
    let left_out = (others > 0).then(|| format!("{others} files of runs with another model were skipped"));
    let incomplete = incomplete.iter().map(|file| format!("incomplete: {file}"));
    let notes = std::iter::once(said).chain(left_out).chain(incomplete).chain(pump.end()).collect();
    let measured = crate::measured("replay", header, machine.end(), notes);
    crate::finish(&Measured { model_hash: hash(&player.model), sections: vec![section], ..measured }, &o.outputs)
}

impl Player {
    fn open(o: &Options, note: RunNote) -> Result<Player, Failure> {
        let model = o.model.clone().unwrap_or_else(|| PathBuf::from(&note.model));
        let mut loaded = families::load_as(&model, note.family.parse().ok())?;
        loaded.skip_views(&note.skip_views)?;
        let options = GpuOptions {
            adapter: o.adapter.adapter.clone(),
            allow_software: o.adapter.software,
            timestamps: true,
            ..GpuOptions::default()
        };
        let session = Session::open_with(Gpu::open(&options)?, loaded, o.adapter.kernels)?;
        let forward =
            ForwardOptions { images: Vec::new(), prompt_tokens: 0, depth_map: false, guided: false, taps: false };
        Ok(Player { session, note, model, forward, tokens: Vec::new() })
    }

    /// Prepares the session for these images and this prompt; returns whether that was necessary.
    fn prepare(&mut self, images: &[Image], observation: &Observation) -> Result<bool, Failure> {
        let specs: Vec<_> = images.iter().map(Image::spec).collect();
        // A graph prepared for guidance also works without it.
        let guided = self.forward.guided || observation.guide.is_some();
        let same = self.forward.images == specs
            && self.forward.guided == guided
            && self.tokens.len() == observation.tokens.len();
        let reworded = self.tokens != observation.tokens;
        self.tokens.clone_from(&observation.tokens);
        if same {
            if reworded {
                self.session.reword(&self.tokens)?;
            }
            return Ok(false);
        }
        self.forward =
            ForwardOptions { images: specs, prompt_tokens: self.tokens.len(), guided, ..self.forward.clone() };
        self.session.prepare(&self.forward, &self.tokens)?;
        Ok(true)
    }

    fn infer(
        &mut self,
        images: &[Image],
        observation: &Observation,
    ) -> Result<(u64, u64, fathom::gpu::GpuTimes), Failure> {
        let config = &self.session.loaded().model.config;
        let count = config.horizon * config.action_dim;
        let bytes: Vec<&[u8]> = images.iter().map(|i| i.data.get(..i.spec().bytes()).unwrap_or(&i.data)).collect();
        let began_ns = monotonic_ns();
        let noise = random::normal(observation.seed, count);
        let inputs = Inputs { images: &bytes, state: &observation.state, noise: &noise };
        let (_, times) = self.session.infer_guided(&inputs, observation.guide.as_ref(), false)?;
        Ok((began_ns, monotonic_ns(), times))
    }
}
