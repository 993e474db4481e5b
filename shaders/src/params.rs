//! The kernels' parameters: the uniform structs of the WGSL, field by field. `tests/layout.rs` compares them with
//! naga's reflection of every shader.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            #[allow(missing_docs, reason = "the WGSL struct of the same name documents each field")]
            pub struct $name { $(pub $field: $type),* }
        )*
        /// `(struct, [(field, byte offset)], size)` of every parameter struct.
        pub fn layouts() -> Vec<(&'static str, Vec<(&'static str, usize)>, usize)> {
            vec![$((stringify!($name), vec![$((stringify!($field), std::mem::offset_of!($name, $field))),*], size_of::<$name>())),*]
        }
    };
}

params! {
    /// `image_unpack.wgsl`
    ImageUnpack { width: u32, height: u32, stride: u32 }
    /// `resize_axis.wgsl`
    ResizeAxis { in_width: u32, out_width: u32, out_height: u32, vertical: u32, taps: u32, wide: u32 }
    /// `resize_torch.wgsl`
    ResizeTorch { in_width: u32, in_height: u32, width: u32, height: u32, left: u32, top: u32, side: u32 }
    /// `image_pad.wgsl`
    ImagePad { width: u32, height: u32, left: u32, top: u32, out_width: u32, out_height: u32 }
    /// `patchify.wgsl`
    Patchify {
        width: u32, height: u32, patch_side: u32, y_offset: u32,
        mean_r: f32, mean_g: f32, mean_b: f32, std_r: f32, std_g: f32, std_b: f32,
    }
    /// `conv3x3.wgsl`
    Conv3x3 {
        width: u32, height: u32, channels: u32, x_first: u32, out_width: u32, out_channels: u32, rows: u32, y_first: u32,
        stride: u32, flags: u32,
    }
    /// `conv_transpose.wgsl`
    ConvTranspose { width: u32, height: u32, channels: u32, out_channels: u32, factor: u32, flags: u32 }
    /// `resize_corners.wgsl`
    ResizeCorners {
        width: u32, height: u32, channels: u32, out_width: u32, rows: u32, y_first: u32, scale_x: f32, scale_y: f32,
    }
    /// `linear.wgsl`, `linear_skinny.wgsl` and `linear_lanes.wgsl`
    Linear {
        m: u32, n: u32, k: u32, x_offset: u32, x_stride: u32, w_row: u32, w_stride: u32, group_shift: u32, first: u32,
        pair_distance: u32, y_offset: u32, y_stride: u32, split: u32, side_offset: u32, side_cols: u32, side_plane: u32,
        other_offset: u32, other_stride: u32, rope_columns: u32, table_offset: u32, flags: u32, activation: u32, eps: f32,
        scale: f32,
    }
    /// `rms_norm.wgsl`
    RmsNorm { rows: u32, cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, eps: f32 }
    /// `ada_rms_norm.wgsl`
    AdaRmsNorm {
        rows: u32, cols: u32, x_offset: u32, x_stride: u32, modulation_offset: u32, y_offset: u32, y_stride: u32,
        eps: f32,
    }
    /// `gated_add.wgsl`
    GatedAdd {
        rows: u32, cols: u32, f_offset: u32, f_stride: u32, gate_offset: u32, x_offset: u32, x_stride: u32,
    }
    /// `layer_norm.wgsl`
    LayerNorm { rows: u32, cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, eps: f32 }
    /// `attention.wgsl`, `attention_coop.wgsl` and `attention_lanes.wgsl`
    Attention {
        rows: u32, heads: u32, kv_heads: u32, head_dim: u32, q_offset: u32, q_stride: u32, k_offset: u32, v_offset: u32,
        kv_stride: u32, out_offset: u32, out_stride: u32, key_start: u32, key_count: u32, q_block: u32, k_block: u32,
        scale: f32, softcap: f32, flags: u32,
    }
    /// `scale.wgsl`
    Scale { rows: u32, cols: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, factor: f32 }
    /// `guide.wgsl`
    Guide { count: u32, cols: u32, gain_offset: u32, dt: f32, ahead: f32 }
    /// `unpatchify.wgsl`
    Unpatchify { side: u32, patch_side: u32, x_offset: u32, x_stride: u32, y_offset: u32, link: u32 }
}

/// Bits of [`Linear::flags`]; `prelude/epilogue.wgsl` applies them in this order.
pub mod epilogue {
    /// Add `bias[c]`.
    pub const BIAS: u32 = 1;
    /// Multiply by `layer_scale[c]`.
    pub const LAYER_SCALE: u32 = 2;
    /// Add `other[r, c]`, before the activation.
    pub const ADD: u32 = 4;
    /// Rows of the weight are pairs of a gate and its value.
    pub const GATE: u32 = 8;
    /// RMSNorm of x before the product.
    pub const NORM: u32 = 16;
    /// x is in f16.
    pub const X_F16: u32 = 32;
    /// y is in f16.
    pub const Y_F16: u32 = 64;
    /// The planes of keys and values are in f16.
    pub const SIDE_F16: u32 = 128;
}

/// Bits of [`Attention::flags`].
pub mod halves {
    /// The queries are in f16.
    pub const Q_F16: u32 = 1;
    /// Keys and values are in f16.
    pub const KV_F16: u32 = 2;
    /// The output is in f16.
    pub const OUT_F16: u32 = 4;
}

/// Bits of [`Conv3x3::flags`] and, of them, the first for [`ConvTranspose::flags`].
pub mod conv {
    /// Add `bias[o]`.
    pub const BIAS: u32 = 1;
    /// Take `max(x, 0)` for x.
    pub const RELU_IN: u32 = 2;
    /// Store `max(y, 0)` for y.
    pub const RELU_OUT: u32 = 4;
    /// Add the first addend.
    pub const ADD: u32 = 8;
    /// Add the second addend.
    pub const ADD_SECOND: u32 = 16;
}

/// Largest head width `attention.wgsl` holds.
pub const MAX_HEAD_DIM: usize = 256;
