//! Fathom's compute kernels: the WGSL of every variant (validated when this crate is built), the parameters each takes,
//! and a CPU twin of the same name that defines what the kernel computes.
//!
//! **Invariant:** this crate does not depend on wgpu.
#![doc = ""]
#![doc = include_str!("../README.md")]

use format::Encoding;

pub mod cpu;
pub mod format;
pub mod params;

pub use variants::Kernel;

/// WGSL that a GPU compiles.
#[derive(Clone, Copy, Debug)]
pub struct Shader {
    /// Its name; that of a kernel's variant is the one in `wgsl/variants.txt`.
    pub name: &'static str,
    /// Preprocessed WGSL; the entry point is `main`.
    pub wgsl: &'static str,
    /// Threads of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Bindings of group 0; the index is the binding's number.
    pub bindings: &'static [BindingKind],
}

/// One variant of one kernel.
#[derive(Debug)]
pub struct Variant {
    /// Its WGSL.
    pub shader: Shader,
    /// The choice that it is compiled for.
    pub key: Key,
    /// Rows and columns that a workgroup computes; 1 where the kernel has no tiles.
    pub tile: [u32; 2],
}

/// The choices that a kernel is compiled for. Image kernels have one variant for each layout or arithmetic besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The kernel.
    pub kernel: Kernel,
    /// Encoding of the weights, where it decodes any.
    pub weights: Option<Encoding>,
    /// Rows of a cooperative matrix; 0 where it uses none.
    pub matrix_side: u32,
    /// Widest head of an attention, where there is a variant for it; else 0.
    pub head_width: u32,
    /// Whether it sums up by subgroups.
    pub subgroups: bool,
    /// Whether it takes tensors in f16: of kernels without matrices, those that the parameters name; of `linear_coop` and
    /// `linear_skinny_coop` x; of `attention_coop` keys and values; of norms the output.
    pub f16: bool,
}

impl Kernel {
    /// The key of its plain variant.
    pub const fn key(self) -> Key {
        Key { kernel: self, weights: None, matrix_side: 0, head_width: 0, subgroups: false, f16: false }
    }
}

impl Variant {
    /// The variant for these choices, where there is one.
    pub fn of(key: Key) -> Option<&'static Variant> {
        variants::ALL.iter().copied().find(|v| v.key == key)
    }

    /// The variant of this name.
    pub fn named(name: &str) -> Option<&'static Variant> {
        variants::ALL.iter().copied().find(|v| v.shader.name == name)
    }
}

/// What a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// The parameters.
    Uniform,
    /// Weights: storage that the kernel only reads.
    Read,
    /// Activations: storage, also where the kernel only reads it, since they share one arena buffer.
    ReadWrite,
}

/// The variants and their kernels.
pub mod variants {
    use crate::format::Encoding;
    use crate::{BindingKind, Key, Shader, Variant};
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}
