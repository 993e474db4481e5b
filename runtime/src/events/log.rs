//! The log, a sink of the stream.

use super::{FaultPhase, LoopEvent};

impl LoopEvent {
    /// Writes the event to the log, if it has a log line.
    pub(super) fn log(&self) {
        match self {
            LoopEvent::Mode { from, to, event, detail, .. } => {
                let detail = detail.to_string();
                tracing::info!(%from, %to, ?event, detail, "state");
            }
            LoopEvent::ClockJumped { by_ms } => tracing::warn!(by_ms, "the clock jumped, or the loop hung"),
            LoopEvent::AwaitsArming => tracing::info!("ready; SIGUSR1 arms"),
            LoopEvent::NotRearmed => tracing::warn!("not armed again by itself (control.rearm); SIGUSR1 arms"),
            LoopEvent::NotArmed { why: detail } => tracing::warn!(detail, "not armed yet"),
            LoopEvent::NotSent { why: error } => tracing::warn!(%error, "not sent"),
            LoopEvent::NotPlanned { number, late: reason } => {
                tracing::warn!(number, %reason, "a chunk is not sent");
            }
            LoopEvent::Refused { reason, .. } => tracing::warn!(?reason, "the controller refused a chunk"),
            LoopEvent::NeverArrived { number, tries } => tracing::warn!(number, tries, "a chunk never arrived"),
            LoopEvent::GpuLost { why: detail } => tracing::warn!(detail, "the GPU is lost: it is opened again"),
            LoopEvent::GpuBack => tracing::info!("the model is on a GPU again"),
            LoopEvent::NoImage { view, error } => tracing::warn!(view, %error, "no image"),
            LoopEvent::ImagesAgain { view } => tracing::info!(view, "images again"),
            LoopEvent::LineNotOpen { why: error } => tracing::warn!(error, "the line does not open yet"),
            LoopEvent::RecordingStopped { why: error } => {
                tracing::warn!(%error, "recording stopped; the run continues");
            }
            LoopEvent::WallClockSet { by_s } => {
                tracing::info!(by_s, "the wall clock was set; the recording keeps its original time base");
            }
            LoopEvent::Injected { fault, phase } => match phase {
                FaultPhase::Begins => tracing::warn!(%fault, "fault begins"),
                FaultPhase::Happens => tracing::warn!(%fault, "fault happens"),
                FaultPhase::Ends => tracing::warn!(%fault, "fault ends"),
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
