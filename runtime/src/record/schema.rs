//! The recorded topics: one struct a topic, and JSON schemas that document the fields for viewers and readers.
//!
//! Times with the suffix `_ns` are CLOCK_MONOTONIC of the host in nanoseconds, those with `_us` the controller's clock
//! in microseconds. A message's own time in the file is the host's CLOCK_REALTIME, by the offset in [`RunNote`].

use fathom_models::processing::guidance::Guide;
use firmware_bridge::joint::JointTable;
use firmware_bridge::message::FaultReport;
use serde::{Deserialize, Serialize};

use super::mcap::ChannelSpec;

/// `/fathom/run`, the first message of each file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunNote {
    /// Fathom's version.
    pub version: String,
    /// Directory of the checkpoint.
    pub model: String,
    /// The checkpoint's family.
    pub family: String,
    /// Fingerprint of the checkpoint's configuration and weights: names, shapes, and samples of the bytes.
    pub fingerprint: String,
    /// Dropped views.
    pub skip_views: Vec<String>,
    /// The model's views.
    pub views: Vec<String>,
    /// The task, if the prompt is text.
    pub prompt: Option<String>,
    /// Name of the GPU adapter.
    pub adapter: String,
    /// Its driver.
    pub driver: String,
    /// Kernels that were chosen for it.
    pub kernels: String,
    /// The controller's joints.
    pub joints: Vec<String>,
    /// Steps of a chunk per second.
    pub action_rate_hz: f64,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC at the start of the run, in nanoseconds; 0 if the wall clock was behind.
    pub realtime_offset_ns: u64,
}

impl RunNote {
    /// Whether two runs have the same model, read in the same way.
    pub fn is_of_the_same_model(&self, other: &RunNote) -> bool {
        let of = |note: &RunNote| (note.model.clone(), note.family.clone(), note.fingerprint.clone());
        of(self) == of(other) && self.skip_views == other.skip_views && self.views == other.views
    }
}

/// An image of an inference's inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The view.
    pub view: String,
    /// When it was taken; `stamp` names the clock.
    pub stamp_ns: u64,
    /// The event that the stamp marks.
    pub stamp: String,
    /// When the source received it.
    pub dequeued_ns: u64,
    /// The source's count.
    pub sequence: u64,
    /// Its age when the inference was requested, in milliseconds.
    pub age_ms: f64,
    /// `rgb24`, `yuyv` or `nv12`.
    pub format: String,
}

/// `/fathom/observation`: the inputs of an inference, besides its images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The inference's number.
    pub number: u32,
    /// Seed of its noise.
    pub seed: u64,
    /// The robot's own state.
    pub state: Vec<f32>,
    /// Tokens of the prompt.
    pub tokens: Vec<i32>,
    /// The target of its guidance.
    pub guide: Option<Guide>,
    /// Its images.
    pub views: Vec<View>,
    /// When it was requested.
    pub asked_ns: u64,
}

/// `/fathom/inference`: the outputs of an inference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// Its number.
    pub number: u32,
    /// `(horizon, action_dim)` in the robot's units, before limits.
    pub actions: Vec<f32>,
    /// When it started, when the GPU's results were read back, and when the actions were ready.
    pub started_ns: u64,
    /// See `started_ns`.
    pub inferred_ns: u64,
    /// See `started_ns`.
    pub finished_ns: u64,
    /// Time of each stage on the GPU, in nanoseconds.
    pub stages: Vec<(String, u64)>,
}

/// `/fathom/chunk`: a chunk that was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Number of its inference.
    pub number: u32,
    /// Its number on the wire.
    pub id: u32,
    /// The controller's count at its step 0.
    pub base: u64,
    /// Steps that the controller consumed since the images were taken.
    pub delay: u64,
    /// Controller time of its step 0.
    pub start_us: u64,
    /// No step is executed later than this after the start.
    pub validity_us: u32,
    /// When the oldest image was taken.
    pub stamp_ns: u64,
    /// When it was sent for the first time.
    pub sent_ns: u64,
    /// `(steps, joints)`, limited.
    pub positions: Vec<f32>,
}

/// `/fathom/ack`: the controller's verdict on a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The frame's sequence.
    pub sequence: u32,
    /// The frame's type byte.
    pub kind: u8,
    /// The verdict.
    pub reason: String,
    /// For a chunk: the first executed step.
    pub first_step: u16,
    /// For a chunk: controller time of its step 0.
    pub start_us: u64,
    /// When it was made.
    pub controller_us: u64,
    /// When it arrived.
    pub received_ns: u64,
}

/// `/fathom/state`: the controller's telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Its mode.
    pub mode: String,
    /// The chunk in progress, or the last one.
    pub chunk: Option<u32>,
    /// Consumed steps of it.
    pub consumed: u16,
    /// Remaining steps of it.
    pub steps_left: u16,
    /// Commands that a limit changed.
    pub clamps: u32,
    /// Ticks without a step to execute.
    pub starved: u32,
    /// Frames with a wrong CRC.
    pub crc_errors: u32,
    /// Measured positions.
    pub measured: Vec<f32>,
    /// Commanded positions.
    pub commanded: Vec<f32>,
    /// The latched fault.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// When it was made.
    pub controller_us: u64,
    /// When it arrived.
    pub received_ns: u64,
}

/// A fault that the controller latched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind.
    pub kind: String,
    /// The joint.
    pub joint: Option<String>,
    /// A servo's alarms, or the open channels of the emergency stop, as bits.
    pub cause: u8,
    /// The measured value; `null` if it is not finite.
    pub value: Option<f32>,
    /// The lowest allowed value.
    pub low: Option<f32>,
    /// The highest allowed value.
    pub high: Option<f32>,
    /// The chunk in progress.
    pub chunk: Option<u32>,
    /// All of it as text.
    pub text: String,
}

impl Fault {
    /// The fault of a controller with these joints.
    pub(super) fn of(report: &FaultReport, joints: &JointTable) -> Fault {
        let joint = report.joint.and_then(|joint| joints.as_slice().get(usize::from(joint)));
        let finite = |value: f32| value.is_finite().then_some(value);
        Fault {
            kind: format!("{:?}", report.fault),
            joint: joint.map(|joint| joint.name.as_str().to_owned()),
            cause: report.cause,
            value: finite(report.value),
            low: finite(report.low),
            high: finite(report.high),
            chunk: report.chunk,
            text: report.describe(joints).to_string(),
        }
    }
}

/// A time in the form of Foxglove's schemas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970.
    pub sec: u64,
    /// And nanoseconds.
    pub nsec: u32,
}

/// `/fathom/log`, a `foxglove.Log`: changes of the loop's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Time of the message.
    pub timestamp: Time,
    /// 2: information.
    pub level: u8,
    /// The message.
    pub message: String,
    /// The sender.
    pub name: String,
    /// Not used.
    pub file: String,
    /// Not used.
    pub line: u32,
}

/// Topics besides the cameras'.
pub(super) const RUN: &str = "/fathom/run";
pub(super) const OBSERVATION: &str = "/fathom/observation";
pub(super) const INFERENCE: &str = "/fathom/inference";
pub(super) const CHUNK: &str = "/fathom/chunk";
pub(super) const ACK: &str = "/fathom/ack";
pub(super) const STATE: &str = "/fathom/state";
pub(super) const LOG: &str = "/fathom/log";

/// Topic of a view's images.
pub(super) fn camera(view: &str) -> String {
    format!("/camera/{view}")
}

/// Topic of a joint: its part of each report, repeated for viewers that cannot plot JSON.
pub(super) fn joint(name: &str) -> String {
    format!("/joint/{name}")
}

/// The topics that every version declares in each file of a run, and that are read back.
pub(super) fn topics(note: &RunNote) -> impl Iterator<Item = String> {
    let fixed = CHANNELS.iter().map(|channel| channel.topic.to_owned());
    fixed.chain(note.views.iter().map(|view| camera(view)))
}

/// The channels besides the cameras' and joints', in the order of their numbers.
pub(super) const CHANNELS: [ChannelSpec<'static>; 7] = [
    json(RUN, "fathom.Run", include_str!("schema/run.json")),
    json(OBSERVATION, "fathom.Observation", include_str!("schema/observation.json")),
    json(INFERENCE, "fathom.Inference", include_str!("schema/inference.json")),
    json(CHUNK, "fathom.Chunk", include_str!("schema/chunk.json")),
    json(ACK, "fathom.Ack", include_str!("schema/ack.json")),
    json(STATE, "fathom.State", include_str!("schema/state.json")),
    json(LOG, "foxglove.Log", include_str!("schema/log.json")),
];

const fn json(topic: &'static str, schema: &'static str, data: &'static str) -> ChannelSpec<'static> {
    ChannelSpec { topic, schema, schema_encoding: "jsonschema", data: data.as_bytes(), encoding: "json" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of a struct is in its schema, and the schema has no others.
    #[test]
    fn schemas_have_the_fields() {
        fn fields<T: Serialize + Default>(channel: usize) {
            let schema: serde_json::Value = serde_json::from_slice(CHANNELS[channel].data).unwrap();
            let value = serde_json::to_value(T::default()).unwrap();
            let mut documented: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
            let mut written: Vec<&String> = value.as_object().unwrap().keys().collect();
            documented.sort();
            written.sort();
            assert_eq!(documented, written, "{}", CHANNELS[channel].topic);
        }
        fields::<RunNote>(0);
        fields::<Observation>(1);
        fields::<Inference>(2);
        fields::<Chunk>(3);
        fields::<Ack>(4);
        fields::<State>(5);
        fields::<Log>(6);
    }
}
