use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use fathom::bounds;
use fathom::record::{Replay as Player, Replayed, Stages, stages_of};
use fathom::within;
use fathom_models::checkpoint::save::write_safetensors;
use fathom_models::io::output_file;
use fathom_models::outln;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::gpu::GpuArguments;

/// Infer a recorded run again: bit-identical on the same adapter, otherwise print the differences, stage by stage.
///
/// Replays the undamaged part of the recording, and lists damaged files and messages. The exit status is 0 if at least one
/// inference was replayed and none differed.
#[derive(Args)]
pub(crate) struct Replay {
    /// Recording of `fathom run --record`: a file, or a folder of them.
    recording: PathBuf,
    /// Checkpoint directory. Default: the one of the recorded run.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Replay only the inference with this number.
    #[arg(long)]
    number: Option<u32>,
    /// Output: safetensors with all stages of the first replayed inference, for `--against` on another machine.
    #[arg(long)]
    stages: Option<PathBuf>,
    /// Compare the stages with a file that `--stages` wrote on another adapter or by another build.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Largest accepted difference of an action, in the robot's units.
    #[arg(long, default_value_t = 0.0, value_parser = within!(bounds::TOLERANCE))]
    tolerance: f32,
    #[command(flatten)]
    gpu: GpuArguments,
}

impl Replay {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        self.stages.as_deref().map_or(Ok(()), output_file::check)?;
        let player = Player {
            model: self.model.clone(),
            gpu: self.gpu.options(false),
            wanted: self.gpu.wanted(),
            number: self.number,
            stages: self.stages.is_some() || self.against.is_some(),
        };
        let mut replayed = player.run(&self.recording)?;
        for file in &replayed.incomplete {
            outln!("incomplete: {file}");
        }
        let note = &replayed.note;
        outln!("recorded on {} ({}), kernels {}", note.adapter, note.driver, note.kernels);
        outln!("replayed on {}, kernels {}", replayed.adapter, replayed.kernels);
        let different: Vec<_> = replayed.differences.iter().filter(|d| !d.identical).collect();
        for d in &different {
            outln!("inference {}: differs, an action by at most {:e}", d.number, d.largest);
        }
        let (count, same) = (replayed.differences.len(), replayed.differences.len() - different.len());
        outln!("{count} inferences, {same} bit-identical");
        let worst = different.iter().map(|d| d.largest).fold(0.0, f32::max);
        if replayed.stages.is_none()
            && let Some(first) = different.first()
        {
            let again = Player { number: Some(first.number), stages: true, ..player };
            replayed = Replayed { differences: Vec::new(), ..again.run(&self.recording)? };
        }
        self.write_stages(&replayed)?;
        if count == 0 {
            return Err("the recording has no inference with its images and its result".into());
        }
        if worst > self.tolerance || (self.tolerance == 0.0 && same < count) {
            return Err(format!("{} of {count} inferences differ, an action by up to {worst:e}", count - same).into());
        }
        Ok(())
    }

    fn write_stages(&self, replayed: &Replayed) -> Result<(), Box<dyn Error>> {
        let Some((number, stages)) = &replayed.stages else { return Ok(()) };
        if let Some(path) = &self.stages {
            let named = |(name, values): &(String, Vec<f32>)| (format!("{number}/{name}"), values.clone());
            let tensors: BTreeMap<String, Vec<f32>> = stages.iter().map(named).collect();
            let views = tensors
                .iter()
                .map(|(name, values)| {
                    Ok((name, TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values))?))
                })
                .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
            write_safetensors(path, views, None)?;
            outln!("{} stages of inference {number} written to {}", stages.len(), path.display());
        }
        let (expected, place) = match &self.against {
            Some(path) => (read(path, *number)?, path.display().to_string()),
            None => match &replayed.twins {
                Some(twins) => (twins.clone(), "the CPU twins".to_owned()),
                None => return Ok(()),
            },
        };
        outln!("inference {number}, difference of each stage from {place}, relative to its largest value:");
        for (name, error) in stages_of(&expected, stages) {
            outln!("  {name:32} {error:9.2e}");
        }
        Ok(())
    }
}

fn read(path: &Path, number: u32) -> Result<Stages, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let of_it = |name: &str| name.strip_prefix(&format!("{number}/")).map(str::to_owned);
    let stages: Stages = file
        .tensors()
        .iter()
        .filter_map(|(name, view)| Some((of_it(name)?, bytemuck::pod_collect_to_vec(view.data()))))
        .collect();
    if stages.is_empty() {
        return Err(format!("{}: expected stages of inference {number}, found none", path.display()).into());
    }
    Ok(stages)
}
