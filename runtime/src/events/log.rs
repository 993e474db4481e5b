//! The log, a sink of the stream.

use super::{FaultPhase, LoopEvent};

impl LoopEvent {
    /// Writes the event to the log, if it has a log line.
    pub(super) fn log(&self) {
        match self {
            LoopEvent::Mode { from, to, event, detail, .. } => {
                let detail = detail.to_string();
                tracing::info!(target: "mode", %from, %to, ?event, detail, "state");
            }
            LoopEvent::ClockJumped { by_ms } => {
                tracing::warn!(target: "clock_jumped", by_ms, "the clock jumped, or the loop hung")
            }
            LoopEvent::AwaitsArming => tracing::info!(target: "awaits_arming", "ready; SIGUSR1 arms"),
            LoopEvent::NotRearmed => {
                tracing::warn!(target: "not_rearmed", "not armed again by itself (control.rearm); SIGUSR1 arms")
            }
            LoopEvent::NotArmed { why: detail } => tracing::warn!(target: "not_armed", detail, "not armed yet"),
            LoopEvent::NotSent { why: error } => tracing::warn!(target: "not_sent", %error, "not sent"),
            LoopEvent::NotPlanned { number, late: reason } => {
                tracing::warn!(target: "not_planned", number, %reason, "a chunk is not sent");
            }
            LoopEvent::Refused { reason, .. } => {
                tracing::warn!(target: "refused", ?reason, "the controller refused a chunk")
            }
            LoopEvent::NeverArrived { number, tries } => {
                tracing::warn!(target: "never_arrived", number, tries, "a chunk never arrived")
            }
            LoopEvent::GpuLost { why: detail } => {
                tracing::warn!(target: "gpu_lost", detail, "the GPU is lost: it is opened again")
            }
            LoopEvent::GpuBack => tracing::info!(target: "gpu_back", "the model is on a GPU again"),
            LoopEvent::NoImage { view, error } => tracing::warn!(target: "no_image", view, %error, "no image"),
            LoopEvent::ImagesAgain { view } => tracing::info!(target: "images_again", view, "images again"),
            LoopEvent::LineNotOpen { why: error } => {
                tracing::warn!(target: "line_not_open", error, "the line does not open yet")
            }
            LoopEvent::RecordingStopped { why: error } => {
                tracing::warn!(target: "recording_stopped", %error, "recording stopped; the run continues");
            }
            LoopEvent::WallClockSet { by_s } => {
                tracing::info!(target: "wall_clock_set", by_s, "the wall clock was set; the recording keeps its original time base");
            }
            LoopEvent::Injected { fault, phase } => match phase {
                FaultPhase::Begins => tracing::warn!(target: "injected", %fault, "fault begins"),
                FaultPhase::Happens => tracing::warn!(target: "injected", %fault, "fault happens"),
                FaultPhase::Ends => tracing::warn!(target: "injected", %fault, "fault ends"),
            },
            LoopEvent::Tick { .. }
            | LoopEvent::Report { .. }
            | LoopEvent::Ack { .. }
            | LoopEvent::ControllerFault { .. }
            | LoopEvent::Inferred { .. }
            | LoopEvent::Sent { .. }
            | LoopEvent::Obeyed { .. } => {}
        }
    }
}
