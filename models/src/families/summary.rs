//! A loaded model in numbers, for `fathom inspect`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::dinov2::Encoder;
use super::{Family, Origin, depth_anything, detect, load_base};
use crate::checkpoint::Weights;
use crate::error::ModelError;
use crate::graph::params::{ParamId, ParamTable, Role};
use crate::nets::config::{ModelConfig, Vit};
use crate::nets::depth_anything::DepthKind;

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

/// A directory in numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Summary {
    /// A policy.
    Policy(Box<PolicySummary>),
    /// Depth Anything.
    Depth(DepthSummary),
    /// A DINOv2 alone.
    Encoder(EncoderSummary),
}

impl Summary {
    /// Of the model in `dir`, of the given family or of that which its files say.
    ///
    /// # Errors
    /// As [`load_base`] and [`depth_anything::load`].
    pub fn read(dir: &Path, family: Option<&'static Family>) -> Result<Summary, ModelError> {
        let read = family.or_else(|| detect(dir)).map_or(Family::POLICY.summary, |f| f.summary);
        read(dir, family)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Summary::Policy(policy) => policy.fmt(f),
            Summary::Depth(depth) => depth.fmt(f),
            Summary::Encoder(encoder) => encoder.fmt(f),
        }
    }
}

/// A loaded policy in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySummary {
    /// Where it came from.
    pub family: String,
    /// Parts in the order of the data flow.
    pub parts: Vec<Part>,
    /// Bytes of the checkpoint by number format.
    pub bytes_by_format: BTreeMap<String, u64>,
    /// Lengths that the robot's state may have.
    pub state_dims: [usize; 2],
    /// Length of the robot's action.
    pub action_dim: usize,
    /// Names, modes, and views that are left out.
    #[serde(flatten)]
    pub origin: Origin,
    /// File of the statistics; identity is used if there is none.
    pub statistics: Option<String>,
    /// Its purpose, if it gives no actions.
    pub purpose: Option<&'static str>,
    /// Tensors of the checkpoint that inference does not read.
    pub skipped: Vec<String>,
    /// All sizes and variants.
    pub config: ModelConfig,
}

/// A Depth Anything in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct DepthSummary {
    /// `depth-anything`.
    pub family: &'static str,
    /// Parts in the order of the data flow.
    pub parts: Vec<Part>,
    /// Bytes of the checkpoint by number format.
    pub bytes_by_format: BTreeMap<String, u64>,
    /// `metric` or `relative`.
    pub kind: &'static str,
    /// The largest depth in metres of a metric model.
    pub max_depth: Option<f32>,
    /// The backbone's sizes.
    pub backbone: Vit,
    /// After how many of its layers features are taken.
    pub taps: Vec<usize>,
    /// Width and height of the map of a photo of 640 × 480.
    pub map_of_vga: (usize, usize),
    /// Tensors of the checkpoint that inference does not read.
    pub skipped: Vec<String>,
}

/// A DINOv2 in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct EncoderSummary {
    /// `dinov2`.
    pub family: &'static str,
    /// Its purpose.
    pub purpose: Option<&'static str>,
    /// The one part.
    pub parts: Vec<Part>,
    /// Bytes of the checkpoint by number format.
    pub bytes_by_format: BTreeMap<String, u64>,
    /// Its sizes.
    pub tower: Vit,
    /// Tensors of the checkpoint that inference does not read.
    pub skipped: Vec<String>,
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

/// Parts in the order of `order`, and bytes by number format.
fn count(
    table: &ParamTable,
    weights: &Weights,
    order: &[&'static str],
    part: fn(&str) -> &'static str,
) -> (Vec<Part>, BTreeMap<String, u64>) {
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    let mut bytes_by_format = BTreeMap::new();
    for (i, param) in table.params.iter().enumerate() {
        let Ok((format, bytes, scales)) = weights.encoded(ParamId(i as u32)) else { continue };
        let bytes = (bytes.len() + scales.len()) as u64;
        *bytes_by_format.entry(format.to_string()).or_default() += bytes;
        if param.role != Role::Unused {
            let name = part(&param.name);
            let part = parts.entry(name).or_insert(Part { name, ..Part::default() });
            part.parameters += param.shape.iter().product::<usize>() as u64;
            part.bytes += bytes;
        }
    }
    (order.iter().filter_map(|name| parts.remove(name)).collect(), bytes_by_format)
}

impl DepthSummary {
    pub(super) fn read(dir: &Path, _: Option<&'static Family>) -> Result<Summary, ModelError> {
        let (model, weights) = depth_anything::load(dir)?;
        let part = |name: &str| match name.split('.').next() {
            Some("backbone") => "DINOv2",
            Some("neck") => "neck",
            _ => "head",
        };
        let (parts, bytes_by_format) = count(&model.params, &weights, &["DINOv2", "neck", "head"], part);
        let metric = model.config.kind == DepthKind::Metric;
        Ok(Summary::Depth(DepthSummary {
            family: depth_anything::FAMILY.name,
            parts,
            bytes_by_format,
            kind: if metric { "metric" } else { "relative" },
            max_depth: metric.then_some(model.config.max_depth),
            map_of_vga: model.map_size(640, 480)?,
            skipped: weights.skipped().to_vec(),
            backbone: model.config.backbone,
            taps: model.config.taps,
        }))
    }
}

impl fmt::Display for DepthSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.backbone;
        writeln!(f, "family       {}", self.family)?;
        match self.max_depth {
            Some(metres) => writeln!(f, "depth        metric, up to {metres} m")?,
            None => writeln!(f, "depth        relative: larger is nearer")?,
        }
        let (width, height) = self.map_of_vga;
        writeln!(f, "map          {width}×{height} of a photo of 640×480")?;
        writeln!(f, "layers       {}, {} heads, width {}, taps after {:?}", b.layers, b.heads, b.width, self.taps)?;
        write_counts(f, &self.parts, &self.skipped, &self.bytes_by_format)
    }
}

impl EncoderSummary {
    pub(super) fn read(dir: &Path, _: Option<&'static Family>) -> Result<Summary, ModelError> {
        let encoder = Encoder::load(dir)?;
        let (parts, bytes_by_format) = count(&encoder.params, &encoder.weights, &["DINOv2"], |_| "DINOv2");
        Ok(Summary::Encoder(EncoderSummary {
            family: encoder.family.name,
            purpose: encoder.family.purpose,
            parts,
            bytes_by_format,
            tower: encoder.tower,
            skipped: encoder.weights.skipped().to_vec(),
        }))
    }
}

impl fmt::Display for EncoderSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.tower;
        writeln!(f, "family       {}: {}", self.family, self.purpose.unwrap_or_default())?;
        writeln!(f, "positions    {0}×{0}, patches of {1}×{1}", t.grid(), t.patch)?;
        writeln!(f, "layers       {}, {} heads, width {}", t.layers, t.heads, t.width)?;
        write_counts(f, &self.parts, &self.skipped, &self.bytes_by_format)
    }
}

impl PolicySummary {
    pub(super) fn read(dir: &Path, family: Option<&'static Family>) -> Result<Summary, ModelError> {
        let loaded = load_base(dir, family)?;
        let (parts, bytes_by_format) = count(&loaded.model.params, &loaded.weights, &PARTS, part);
        Ok(Summary::Policy(Box::new(PolicySummary {
            family: loaded.family.to_owned(),
            parts,
            bytes_by_format,
            origin: Origin::read(dir, &loaded)?,
            state_dims: [*loaded.state_dims.start(), *loaded.state_dims.end()],
            action_dim: loaded.action_dim,
            statistics: loaded.normalization.source.as_ref().map(|p| p.display().to_string()),
            purpose: loaded.family.parse::<&Family>()?.purpose,
            skipped: loaded.weights.skipped().to_vec(),
            config: loaded.model.config.clone(),
        })))
    }
}

impl fmt::Display for PolicySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (c, o) = (&self.config, &self.origin);
        let names = |names: &Option<Vec<String>>| {
            names.as_ref().map_or("the checkpoint has no names".to_owned(), |list| list.join(", "))
        };
        writeln!(f, "family       {}", self.family)?;
        if let Some(purpose) = self.purpose {
            writeln!(f, "             no action model: {purpose}; state and actions below are defaults")?;
        }
        writeln!(
            f,
            "views        {}, each {2}×{2}, {1} tokens",
            c.views.join(", "),
            c.vision.patches(),
            c.vision.image_size
        )?;
        for (camera, view) in &o.cameras {
            writeln!(f, "             {camera} is the checkpoint's {view}")?;
        }
        if !o.skipped_views.is_empty() {
            writeln!(f, "left out     {}", o.skipped_views.join(", "))?;
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
        writeln!(f, "state        {state}, padded to {}: {}", c.state_dim, names(&o.state_names))?;
        writeln!(
            f,
            "actions      {} steps of {} values (the model's: {}), {} flow steps: {}",
            c.horizon,
            self.action_dim,
            c.action_dim,
            c.flow.steps,
            names(&o.action_names)
        )?;
        writeln!(f, "normalised   state {}, actions {}", o.state_normalization, o.action_normalization)?;
        writeln!(f, "statistics   {}", self.statistics.as_deref().unwrap_or("none: identity"))?;
        let a = &c.attention;
        writeln!(
            f,
            "layers       {}, {} heads of {}, {} for keys and values; vision tower {}, {} heads",
            c.layers, a.heads, a.head_dim, a.kv_heads, c.vision.layers, c.vision.heads
        )?;
        write!(f, "widths       vision {}, VLM {}, action expert {}", c.vision.width, c.vlm.width, c.action.width)?;
        let depth =
            c.depth.as_ref().map(|d| format!(", depth encoder {}, depth expert {}", d.encoder.width, d.expert.width));
        writeln!(f, "{}", depth.unwrap_or_default())?;
        write_counts(f, &self.parts, &self.skipped, &self.bytes_by_format)
    }
}

/// Tables of parts and formats, and the unread tensors.
fn write_counts(
    f: &mut fmt::Formatter<'_>,
    parts: &[Part],
    skipped: &[String],
    bytes_by_format: &BTreeMap<String, u64>,
) -> fmt::Result {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(f, "\n{:14}  {:>13}  {:>9}", "part", "parameters", "MiB")?;
    for part in parts {
        writeln!(f, "{:14}  {:>13}  {:>9.1}", part.name, part.parameters, mib(part.bytes))?;
    }
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
    write!(f, "{:14}  {:>13}  {:>9.1}", "together", sum(|p| p.parameters), mib(sum(|p| p.bytes)))?;
    if let Some(first) = skipped.first() {
        write!(f, "\nnot read: {} tensors, such as {first}", skipped.len())?;
    }
    for (format, bytes) in bytes_by_format {
        write!(f, "\n{format}: {:.1} MiB in the file", mib(*bytes))?;
    }
    Ok(())
}
