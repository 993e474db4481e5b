//! What a loaded model is, in numbers: for `fathom inspect`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::config::ModelConfig;
use crate::families::Loaded;
use crate::params::{ParamId, Role};

/// One part of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Parameters that inference reads.
    pub parameters: u64,
    /// Their bytes in the checkpoint.
    pub bytes: u64,
}

/// A loaded model in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Where it came from.
    pub family: String,
    /// Parts in the order of the data's way.
    pub parts: Vec<Part>,
    /// Bytes of the checkpoint by number format.
    pub bytes_by_format: BTreeMap<String, u64>,
    /// Lengths that the robot's state may have.
    pub state_dims: [usize; 2],
    /// Length of the robot's action.
    pub action_dim: usize,
    /// File of the statistics; identity is used where there is none.
    pub statistics: Option<String>,
    /// What it is for, where it gives no actions.
    pub purpose: Option<&'static str>,
    /// Views that the checkpoint has and the robot lacks.
    pub skipped_views: Vec<String>,
    /// Tensors of the checkpoint that inference does not read.
    pub skipped: Vec<String>,
    /// All sizes and variants.
    pub config: ModelConfig,
}

const PARTS: [&str; 8] = [
    "text embedding",
    "vision tower",
    "projector",
    "VLM expert",
    "depth encoder",
    "depth expert",
    "depth head",
    "action expert",
];

fn part(name: &str) -> &'static str {
    let starts = |prefix: &str| name.starts_with(prefix);
    match () {
        () if starts("embed_tokens") => "text embedding",
        () if starts("vision_tower") => "vision tower",
        () if starts("multi_modal_projector") => "projector",
        () if starts("joint_model.mixtures.vlm") => "VLM expert",
        () if starts("depth_encoder") => "depth encoder",
        () if starts("depth_head") || name == "joint_model.mixtures.depth.norm.weight" => "depth head",
        () if starts("joint_model.mixtures.depth") || starts("depth_in_proj") => "depth expert",
        () => "action expert",
    }
}

impl Summary {
    /// Counts what `loaded` has.
    pub fn of(loaded: &Loaded) -> Summary {
        let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
        let mut bytes_by_format = BTreeMap::new();
        for (i, param) in loaded.model.params.params.iter().enumerate() {
            let Ok((format, bytes, scales)) = loaded.weights.encoded(ParamId(i as u32)) else { continue };
            let bytes = (bytes.len() + scales.len()) as u64;
            *bytes_by_format.entry(format.to_string()).or_default() += bytes;
            if param.role != Role::Unused {
                let name = part(&param.name);
                let part = parts.entry(name).or_insert(Part { name, ..Part::default() });
                part.parameters += param.shape.iter().product::<usize>() as u64;
                part.bytes += bytes;
            }
        }
        Summary {
            family: format!("{:?}", loaded.family),
            parts: PARTS.iter().filter_map(|name| parts.remove(name)).collect(),
            bytes_by_format,
            state_dims: [*loaded.state_dims.start(), *loaded.state_dims.end()],
            action_dim: loaded.action_dim,
            statistics: loaded.normalization.source.as_ref().map(|p| p.display().to_string()),
            purpose: loaded.family.purpose(),
            skipped_views: loaded.skipped_views.clone(),
            skipped: loaded.weights.skipped().to_vec(),
            config: loaded.model.config.clone(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "family       {}", self.family)?;
        if let Some(purpose) = self.purpose {
            writeln!(f, "             no action model: {purpose}; what is said of state and actions is the default")?;
        }
        writeln!(
            f,
            "views        {}, each {2}×{2}, {1} tokens",
            c.views.join(", "),
            c.vision.patches(),
            c.vision.image_size
        )?;
        if !self.skipped_views.is_empty() {
            writeln!(f, "skipped      {}: no such camera on the robot", self.skipped_views.join(", "))?;
        }
        match &c.depth {
            Some(d) => writeln!(
                f,
                "depth        of {}, each {2}×{2}, {1} tokens",
                d.views.join(", "),
                d.encoder.patches(),
                d.encoder.image_size
            )?,
            None => writeln!(f, "depth        none: this is a pi0")?,
        }
        writeln!(f, "prompt       at most {} tokens of {}", c.max_tokens, c.vocab)?;
        let [least, most] = self.state_dims;
        let state = if least == most { format!("{most} values") } else { format!("{least} to {most} values") };
        writeln!(f, "state        {state}, padded to {}", c.state_dim)?;
        writeln!(
            f,
            "actions      {} steps of {} values (the model's: {}), {} flow steps",
            c.horizon, self.action_dim, c.action_dim, c.flow.steps
        )?;
        writeln!(f, "statistics   {}", self.statistics.as_deref().unwrap_or("none: identity"))?;
        let a = &c.attention;
        writeln!(
            f,
            "layers       {}, {} heads of {}, {} for keys and values",
            c.layers, a.heads, a.head_dim, a.kv_heads
        )?;
        writeln!(f, "\n{:14}  {:>13}  {:>9}", "part", "parameters", "MiB")?;
        for part in &self.parts {
            writeln!(f, "{:14}  {:>13}  {:>9.1}", part.name, part.parameters, mib(part.bytes))?;
        }
        let sum = |of: fn(&Part) -> u64| self.parts.iter().map(of).sum::<u64>();
        write!(f, "{:14}  {:>13}  {:>9.1}", "together", sum(|p| p.parameters), mib(sum(|p| p.bytes)))?;
        if !self.skipped.is_empty() {
            write!(
                f,
                "\nnot read: {} tensors, such as {}",
                self.skipped.len(),
                self.skipped.first().map_or("", String::as_str)
            )?;
        }
        for (format, bytes) in &self.bytes_by_format {
            write!(f, "\n{format}: {:.1} MiB in the file", mib(*bytes))?;
        }
        Ok(())
    }
}
