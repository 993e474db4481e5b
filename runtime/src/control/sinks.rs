//! The sinks of the loop's events that run on the control thread.

use std::sync::Arc;

use super::scene::RunScene;
use crate::events::{Events, LoopEvent, LoopMode};
use crate::fault::Faults;
use crate::record::RecordingWriter;
use crate::telemetry::{EventWriter, Notify};

/// All sinks of the loop's events.
pub(super) struct Sinks {
    /// The log, and the user's channel.
    pub(super) events: Events,
    pub(super) telemetry: EventWriter,
    pub(super) recording: Option<Arc<RecordingWriter>>,
    pub(super) scene: RunScene,
    pub(super) notify: Notify,
    pub(super) faults: Faults,
}

impl Sinks {
    pub(super) fn emit(&mut self, event: LoopEvent) {
        self.telemetry.on(&event);
        if let Some(recording) = &self.recording {
            recording.on(&event);
        }
        self.scene.on(&event);
        self.notify.on(&event);
        if let LoopEvent::Mode { to: LoopMode::Active, .. } = event {
            self.faults.begin();
        }
        self.events.emit(event);
    }
}
