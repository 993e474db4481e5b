use std::collections::BTreeMap;
use std::path::PathBuf;

use fathom::clock::monotonic_ns;
use fathom::engine::{Inputs, Kernels, Session};
use fathom::gpu::{Gpu, GpuOptions};
use fathom::telemetry::{Header, StageTable};
use fathom_models::depthvla::ForwardOptions;
use fathom_models::image::ImageSpec;
use fathom_models::{families, presets, random};

use crate::Failure;

/// Sides of the synthetic images, in pixels.
const IMAGE: [usize; 2] = [640, 480];
/// Tokens of the synthetic prompt.
const PROMPT: usize = 20;

pub(crate) struct Options {
    pub(crate) model: Option<PathBuf>,
    pub(crate) family: Option<families::Family>,
    pub(crate) count: u32,
    pub(crate) warm_up: u32,
    pub(crate) seed: u64,
    pub(crate) json: Option<PathBuf>,
    pub(crate) kernels: bool,
    pub(crate) with: Option<Kernels>,
    pub(crate) software: bool,
    pub(crate) adapter: Option<String>,
}

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    let scratch = o.model.is_none().then(tempfile::tempdir).transpose()?;
    let dir = match (&o.model, &scratch) {
        (Some(dir), _) => dir.clone(),
        (None, Some(scratch)) => {
            random::write_checkpoint(scratch.path(), &presets::small(), o.seed)?;
            scratch.path().to_owned()
        }
        (None, None) => return Err("no model".into()),
    };
    let loaded = families::load_as(&dir, o.family)?;
    let gpu_options = GpuOptions {
        adapter: o.adapter.clone(),
        allow_software: o.software,
        timestamps: true,
        ..GpuOptions::default()
    };
    let gpu = Gpu::open(&gpu_options)?;
    let mut session = Session::open_with(gpu, loaded, o.with)?;
    let config = session.loaded().model.config.clone();
    let prompt = PROMPT.min(config.max_tokens);
    let tokens: Vec<i32> = (0..prompt).map(|i| (i % config.vocab) as i32).collect();
    let spec = ImageSpec::rgb(IMAGE[0], IMAGE[1]);
    let images = vec![spec; config.views.len()];
    session.prepare(
        &ForwardOptions { images, prompt_tokens: prompt, depth_map: false, guided: false, taps: false },
        &tokens,
    )?;

    let bytes: Vec<u8> = random::normal(o.seed, spec.bytes()).iter().map(|v| (v * 64.0 + 128.0) as u8).collect();
    let images: Vec<&[u8]> = config.views.iter().map(|_| bytes.as_slice()).collect();
    let state = vec![0.0; *session.loaded().state_dims.start()];
    let mut table = StageTable::default();
    for i in 0..o.warm_up + o.count {
        let noise = random::normal(o.seed + u64::from(i), config.horizon * config.action_dim);
        let began = monotonic_ns();
        let (_, times) = session.infer(&Inputs { images: &images, state: &state, noise: &noise }, false)?;
        let total = monotonic_ns() - began;
        if i < o.warm_up {
            table.record("cold: inference before the measurement", total);
            continue;
        }
        let on_gpu: u64 = times.stages.iter().map(|s| s.ns).sum();
        times.stages.iter().for_each(|s| table.record(&s.stage, s.ns));
        table.record("upload, readback, driver", total.saturating_sub(on_gpu));
        table.record("= inference", total);
    }
    let name = o.model.as_ref().map_or("small, random weights".to_owned(), |d| d.display().to_string());
    let model = format!(
        "{name} ({} views of {}×{}, {prompt} tokens, horizon {})",
        config.views.len(),
        IMAGE[0],
        IMAGE[1],
        config.horizon
    );
    let header = Header::of(&session, model, o.seed);
    println!("{header}\n\n{table}");
    let mut kernels = StageTable::default();
    if o.kernels {
        let noise = random::normal(o.seed, config.horizon * config.action_dim);
        for _ in 0..o.count {
            let (_, times) = session.infer(&Inputs { images: &images, state: &state, noise: &noise }, true)?;
            let mut sums = BTreeMap::new();
            times.kernels.iter().for_each(|k| *sums.entry(k.kernel).or_insert(0) += k.ns);
            sums.into_iter().for_each(|(kernel, ns)| kernels.record(kernel, ns));
        }
        println!("\nkernels, all dispatches of an inference together:\n{kernels}");
    }
    if let Some(path) = &o.json {
        let json = serde_json::json!({ "schema": 1, "seed": o.seed, "header": header, "stages": table.stages(), "kernels": kernels.stages() });
        std::fs::write(path, format!("{json:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
