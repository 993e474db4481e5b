//! Header of a measurement: the model, the adapter and the settings.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ControlSection;
use crate::engine::Session;

/// The label of every output of a software driver.
pub const SOFTWARE: &str = "A SOFTWARE DRIVER ran this on the CPU: these are not a GPU's times.";

/// Sizes of the model's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shapes {
    /// Format of each view's image: its name, width × height, layout.
    pub images: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Actions of a chunk.
    pub horizon: usize,
    /// Flow steps of an inference.
    pub flow_steps: usize,
    /// Parameters of the model.
    pub parameters: u64,
}

/// The subject of a measurement: model, adapter and settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Adapter's name.
    pub adapter: String,
    /// `discrete`, `integrated`, `virtual`, `other`, or `software`.
    pub adapter_type: String,
    /// Driver and version.
    pub driver: String,
    /// The model: its directory, or a description.
    pub model: String,
    /// Formats of the weights.
    pub scheme: String,
    /// Family of kernels.
    pub kernels: String,
    /// Dispatches of an inference.
    pub dispatches: usize,
    /// Sizes.
    pub shapes: Shapes,
    /// Seed of the noise and of other random inputs.
    pub seed: u64,
}

impl Header {
    /// The header for the inference that `session` has prepared.
    pub fn of(session: &Session, model: String, seed: u64) -> Header {
        let adapter = session.gpu().info();
        let loaded = session.loaded();
        let config = &loaded.model.config;
        let formats = loaded.weights.formats().unwrap_or_default();
        let scheme: Vec<String> = formats.iter().map(ToString::to_string).collect();
        let images = config.views.iter().zip(session.images());
        let images = images.map(|(view, s)| format!("{view} {}×{} {:?}", s.width, s.height, s.layout)).collect();
        let parameters = loaded.model.params.params.iter().map(|p| p.shape.iter().product::<usize>() as u64).sum();
        Header {
            adapter: adapter.name.clone(),
            adapter_type: adapter.kind.to_string(),
            driver: adapter.driver.clone(),
            model,
            scheme: scheme.join(", "),
            kernels: session.choice().to_string(),
            dispatches: session.dispatches(),
            shapes: Shapes {
                images,
                prompt_tokens: session.prompt_tokens(),
                horizon: config.horizon,
                flow_steps: config.flow.steps,
                parameters,
            },
            seed,
        }
    }

    /// Whether a software driver ran on the processor, so that its times are not those of a GPU.
    pub fn is_software(&self) -> bool {
        self.adapter_type == "software"
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.shapes;
        writeln!(f, "adapter: {} ({}, {})", self.adapter, self.adapter_type, self.driver)?;
        writeln!(f, "model: {} ({:.1} M parameters, {})", self.model, s.parameters as f64 / 1e6, self.scheme)?;
        write!(f, "shapes: {}; {} tokens, {} actions, ", s.images.join(", "), s.prompt_tokens, s.horizon)?;
        write!(f, "{} flow steps; {} dispatches of {} kernels", s.flow_steps, self.dispatches, self.kernels)?;
        if self.is_software() {
            write!(f, "\n{SOFTWARE}")?;
        }
        Ok(())
    }
}

/// The daemon's description in its ring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Model, adapter and settings.
    pub header: Header,
    /// Period of the control ticks.
    pub tick_ns: u64,
    /// Time between the actions of a chunk.
    pub action_ns: u64,
}

impl RunInfo {
    /// The description of a run with these settings.
    pub fn new(header: Header, control: &ControlSection) -> RunInfo {
        let period = |rate_hz: f64| (1e9 / rate_hz) as u64;
        RunInfo { header, tick_ns: period(control.tick_rate_hz), action_ns: period(control.action_rate_hz) }
    }

    /// Its text in the ring.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
