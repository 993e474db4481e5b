//! Fathom's compute kernels: the WGSL of every variant (validated when this crate is built), its parameters, and a CPU
//! twin of the same name that defines the kernel's function.
//!
//! **Invariant:** this crate does not depend on wgpu.
#![doc = ""]
#![doc = include_str!("../README.md")]

use format::Encoding;

pub mod cpu;
pub mod format;
pub mod params;

pub use variants::Kernel;

/// A kernel's WGSL and its interface.
#[derive(Clone, Copy, Debug)]
pub struct Shader {
    /// Its name; a variant's is the one in `wgsl/variants.txt`.
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
    /// The key that selects it.
    pub key: Key,
    /// Rows and columns that a workgroup computes; 1 for kernels without tiles.
    pub tile: [u32; 2],
}

/// The properties for which a kernel is compiled. Image kernels also have one variant for each layout or arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The kernel.
    pub kernel: Kernel,
    /// Encoding of the weights, if it decodes any.
    pub weights: Option<Encoding>,
    /// Rows of a cooperative matrix; 0 without matrices.
    pub matrix_side: u32,
    /// Widest head of an attention, for kernels with variants for it; otherwise 0.
    pub head_width: u32,
    /// Whether it sums by subgroups.
    pub subgroups: bool,
    /// Whether it accepts tensors in f16: for kernels without matrices, those that the parameters name; for
    /// `linear_coop` and `linear_skinny_coop` x; for `attention_coop` keys and values; for norms the output.
    pub f16: bool,
}

impl Kernel {
    /// The key of its plain variant.
    pub const fn key(self) -> Key {
        Key { kernel: self, weights: None, matrix_side: 0, head_width: 0, subgroups: false, f16: false }
    }
}

impl Variant {
    /// The variant with this key, if there is one.
    pub fn of(key: Key) -> Option<&'static Variant> {
        variants::ALL.iter().copied().find(|v| v.key == key)
    }

    /// The variant of this name.
    pub fn named(name: &str) -> Option<&'static Variant> {
        variants::ALL.iter().copied().find(|v| v.shader.name == name)
    }
}

/// The kind of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// The parameters.
    Uniform,
    /// Weights: storage that the kernel only reads.
    Read,
    /// Activations: storage, even if the kernel only reads it, since they share one arena buffer.
    ReadWrite,
}

/// The variants and their kernels.
pub mod variants {
    use crate::format::Encoding;
    use crate::{BindingKind, Key, Shader, Variant};
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}
