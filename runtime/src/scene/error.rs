//! Errors of a scene.

use thiserror::Error;

/// A failure to read, place or draw a scene.
#[derive(Debug, Error)]
pub enum SceneError {
    /// The scene file cannot be read.
    #[error("{file}: cannot read the scene: {source}")]
    Read {
        /// The scene file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The scene file is not TOML, or a key is missing, unknown or of the wrong type.
    #[error("{file}: {source}")]
    Parse {
        /// The scene file.
        file: String,
        /// Line, column and key.
        source: Box<toml::de::Error>,
    },
    /// A value is invalid.
    #[error("{file}: {key} is {found}; expected {expected}")]
    Value {
        /// The scene file.
        file: String,
        /// The key with its path, as `joints[2].limits_rad`.
        key: String,
        /// The value in the file.
        found: String,
        /// The valid values.
        expected: String,
    },
    /// The seed found no place for an object.
    #[error(
        "{file}: seed {seed}: no place for \"{object}\" in {layouts} layouts; expected room for every object, within reach \
             of the arm where a task names it"
    )]
    Layout {
        /// The scene file.
        file: String,
        /// The seed.
        seed: u64,
        /// Name of the object.
        object: String,
        /// Layouts that were tried.
        layouts: usize,
    },
    /// The prompt names no task of the scene.
    #[error("the prompt \"{prompt}\" is none of the scene's tasks: {known}")]
    Prompt {
        /// The prompt.
        prompt: String,
        /// The prompts of the scene's tasks.
        known: String,
    },
    /// The prompt fits several tasks.
    #[error("the prompt \"{prompt}\" fits \"{one}\" as well as \"{other}\"")]
    AmbiguousPrompt {
        /// The prompt.
        prompt: String,
        /// A task's prompt.
        one: String,
        /// Another task's.
        other: String,
    },
    /// A task names an object that the scene does not have.
    #[error("the task names object {index} of a scene with {count} objects")]
    NoObject {
        /// Index that the task names.
        index: usize,
        /// Objects of the scene.
        count: usize,
    },
    /// No expert knows the scene's arm.
    #[error(
        "scene \"{scene}\": no expert for its arm; expected a gripper, and joints in the order pan, lift, elbow, wrist and roll"
    )]
    NoExpert {
        /// Name of the scene.
        scene: String,
    },
    /// There is no camera of this name.
    #[error("the scene has no camera \"{name}\"; its cameras are {known}")]
    Camera {
        /// The name asked for.
        name: String,
        /// The names of the scene's cameras.
        known: String,
    },
    /// There are more or fewer joint positions than joints.
    #[error("{found} joint positions for an arm of {expected} joints")]
    JointCount {
        /// Joints of the arm.
        expected: usize,
        /// Positions given.
        found: usize,
    },
    /// A joint position is infinite or not a number.
    #[error("the position of joint \"{joint}\" is {value} rad")]
    JointPosition {
        /// The joint's name.
        joint: String,
        /// Its position.
        value: f32,
    },
    /// A pixel buffer has the wrong length.
    #[error("the buffer for {what} has {found} elements; a {width}×{height} image needs {expected}")]
    Buffer {
        /// The buffer's purpose.
        what: &'static str,
        /// Elements that the image needs.
        expected: usize,
        /// Elements that the buffer has.
        found: usize,
        /// Width of the camera's image in pixels.
        width: u32,
        /// Height of the camera's image in pixels.
        height: u32,
    },
}
