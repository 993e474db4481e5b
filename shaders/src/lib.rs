//! Fathom's compute kernels: the WGSL of every variant (validated when this crate is built), the parameters each takes,
//! and a CPU twin of the same name that defines what the kernel computes.
//!
//! **Invariant:** this crate does not depend on wgpu.

pub mod cpu;
pub mod format;
pub mod params;

/// One variant of one kernel.
#[derive(Clone, Copy, Debug)]
pub struct Shader {
    /// Name of the variant, as in `wgsl/variants.txt`.
    pub name: &'static str,
    /// Preprocessed WGSL; the entry point is `main`.
    pub wgsl: &'static str,
    /// Threads of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Bindings of group 0; the index is the binding's number.
    pub bindings: &'static [BindingKind],
    /// The variant for tensors in f16: of kernels without matrices, those whose parameters say so; of `linear_coop` and
    /// `linear_skinny_coop` x; of `attention_coop` keys and values; of norms the output.
    pub half: Option<&'static Shader>,
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

/// The variants, one constant each.
pub mod variants {
    use crate::{BindingKind, Shader};
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}
