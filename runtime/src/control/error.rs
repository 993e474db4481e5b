//! Errors between reading `robot.toml` and the end of a run.

use std::sync::Arc;

use fathom_models::io::output_file::OutputError;
use firmware_bridge::sim::SimError;

use crate::camera::CameraError;
use crate::config::{RobotConfigError, ValueError};
use crate::events::{Detail, LoopMode};
use crate::link::LinkError;
use crate::policy::PolicyError;
use crate::record::RecordError;
use crate::scene::SceneError;

/// Errors of a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `robot.toml`.
    #[error(transparent)]
    Config(#[from] RobotConfigError),
    /// A value of a configuration made in code.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The policy: its checkpoint, or its GPU.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A camera.
    #[error("camera of view {view}: {source}")]
    Camera {
        /// The view.
        view: String,
        /// The error.
        source: Arc<CameraError>,
    },
    /// A camera gave no image in time.
    #[error("camera of view {view}: no image within {seconds} s")]
    NoImage {
        /// The view.
        view: String,
        /// The waiting time.
        seconds: u64,
    },
    /// The cameras are not the model's views.
    #[error(
        "cameras: expected one for each of the model's views {expected:?}, found {found:?}; a view without a camera is \
         named in model.skip_views"
    )]
    Views {
        /// The model's views.
        expected: Vec<String>,
        /// Views in `robot.toml`.
        found: Vec<String>,
    },
    /// A camera of an evaluation in simulated time is not the scene's.
    #[error(
        "camera of view {view}: an evaluation in simulated time expects a source of kind \"scene\", found {found:?}"
    )]
    NotSimulated {
        /// The view.
        view: String,
        /// The kind of its source.
        found: &'static str,
    },
    /// The scene.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// The simulated controller.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// The line to the controller.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Model and controller do not match.
    #[error("{what}: the model has {model}, the controller {controller} joints")]
    Joints {
        /// Actions or state.
        what: &'static str,
        /// The model's.
        model: String,
        /// The controller's.
        controller: usize,
    },
    /// A chunk is longer than the controller's buffer.
    #[error("chunks.execution_horizon: the controller takes {depth} steps, a chunk has {steps}")]
    Buffer {
        /// Steps that the controller's buffer holds.
        depth: usize,
        /// Steps to send.
        steps: usize,
    },
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The picture of the run.
    #[error(transparent)]
    Picture(#[from] OutputError),
    /// An injected fault that this robot cannot have.
    #[error("fault {fault}: needs {needs}")]
    Unfit {
        /// The fault.
        fault: &'static str,
        /// The missing requirement.
        needs: &'static str,
    },
    /// The loop ended in a fault.
    #[error("the loop ended in {mode}: {detail}")]
    Fault {
        /// The loop's last mode.
        mode: LoopMode,
        /// The reason.
        detail: Detail,
    },
    /// The run ended before the controller accepted a chunk.
    #[error(
        "the controller accepted no action chunk ({refused} refused): the model is too slow on this machine, or the run too short"
    )]
    Idle {
        /// Chunks that the controller refused.
        refused: u64,
    },
    /// A thread could not be started, or a signal handler not set.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
}

impl RunError {
    /// Whether the controller latched a fault that a person must clear.
    #[must_use]
    pub fn needs_clear_fault(&self) -> bool {
        match self {
            RunError::Fault { detail, .. } => matches!(detail, Detail::Latched { .. }),
            RunError::Link(error) => matches!(error, LinkError::Latched { .. }),
            _ => false,
        }
    }
}
