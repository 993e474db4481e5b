//! The bench scene: a small arm over a table with a few objects, drawn in pure Rust.
//!
//! It stands in for robot and camera where there are none: joints, limits, cameras and objects
//! come from a scene file, the joint positions from whoever moves the arm, and the images change
//! because the joints moved. The same scene file, seed and joint positions give the same bytes.

mod camera;
mod check;
mod error;
mod file;
mod kinematics;
mod layout;
pub mod math;
mod render;
mod scene;
mod shapes;
mod trace;
mod untrained;

pub use camera::{BenchCamera, FixedJoints, JointSource};
pub use error::SceneError;
pub use kinematics::{Projection, View};
pub use render::Renderer;
pub use scene::{Joint, Light, Object, Part, Scene, SceneCamera, Shape, Table, Tool};
pub use untrained::write_untrained;
