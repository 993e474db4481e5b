//! CPU twins: the function of each kernel, in plain loops over the same parameters and bindings in the same order. They
//! are for reading beside the WGSL, not for speed. Sums are in f32, in the order of the index.
//!
//! Slices are the whole bound tensors; offsets and strides of the parameters select the part, as in the kernel. A twin
//! panics if the parameters reach beyond a slice: the graph checks shapes when it makes operations.

mod ada_rms_norm;
mod attention;
mod attention_coop;
mod attention_lanes;
mod conv3x3;
mod conv_transpose;
mod gated_add;
mod guide;
mod image_pad;
mod image_unpack;
mod layer_norm;
mod linear;
mod linear_coop;
mod linear_dot8;
mod linear_lanes;
mod linear_skinny;
mod linear_skinny_coop;
mod patchify;
mod resize_axis;
mod resize_corners;
mod resize_torch;
mod rms_norm;
mod scale;
mod unpatchify;

pub use ada_rms_norm::ada_rms_norm;
pub use attention::attention;
pub use attention_coop::attention_coop;
pub use attention_lanes::attention_lanes;
pub use conv_transpose::conv_transpose;
pub use conv3x3::conv3x3;
pub use gated_add::gated_add;
pub use guide::guide;
pub use image_pad::image_pad;
pub use image_unpack::{Layout, image_unpack};
pub use layer_norm::layer_norm;
pub use linear::{LinearIn, linear};
pub use linear_coop::linear_coop;
pub use linear_dot8::linear_dot8;
pub use linear_lanes::linear_lanes;
pub use linear_skinny::linear_skinny;
pub use linear_skinny_coop::linear_skinny_coop;
pub use patchify::patchify;
pub use resize_axis::{Arithmetic, resize_axis};
pub use resize_corners::resize_corners;
pub use resize_torch::resize_torch;
pub use rms_norm::rms_norm;
pub use scale::scale;
pub use unpatchify::unpatchify;
