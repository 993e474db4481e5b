//! Lower bound of an inference's time on a device, from its peak rate and memory bandwidth.

use super::Kernels;
use super::plan::{FLOW, Plan, StageWork};

/// A device's dense peaks and its memory, as NVIDIA states them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Module and power mode.
    pub name: &'static str,
    /// TFLOP/s of f16 on matrix units.
    pub matrix_tflops: f64,
    /// TFLOP/s of f32 on the other units.
    pub alu_tflops: f64,
    /// GB/s of memory.
    pub gigabytes: f64,
}

/// Jetson modules. For Thor, NVIDIA publishes only sparse FP4; f16 on matrix units is assumed to be an eighth of it,
/// f32 2560 cores at 1.57 GHz.
pub const DEVICES: [Device; 7] = [
    Device { name: "AGX Orin 64 GB", matrix_tflops: 42.5, alu_tflops: 5.3, gigabytes: 204.8 },
    Device { name: "AGX Orin 32 GB", matrix_tflops: 26.7, alu_tflops: 3.3, gigabytes: 204.8 },
    Device { name: "Orin NX 16 GB Super", matrix_tflops: 19.0, alu_tflops: 2.4, gigabytes: 102.4 },
    Device { name: "Orin NX 16 GB", matrix_tflops: 15.0, alu_tflops: 1.9, gigabytes: 102.4 },
    Device { name: "Orin Nano 8 GB Super", matrix_tflops: 16.7, alu_tflops: 2.1, gigabytes: 102.4 },
    Device { name: "Orin Nano 8 GB, 15 W", matrix_tflops: 10.2, alu_tflops: 1.3, gigabytes: 68.0 },
    Device { name: "Thor T5000", matrix_tflops: 258.0, alu_tflops: 8.0, gigabytes: 273.0 },
];

/// A lower bound in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Of the whole inference, counting only the weights' bytes.
    pub total_ms: f64,
    /// Of that, the flow steps.
    pub flow_ms: f64,
    /// As `total_ms`, with activations in memory as well.
    pub with_activations_ms: f64,
}

impl Device {
    /// The sum of the stages' lower bounds: operations at the peak rate, or bytes at the memory bandwidth.
    /// Operations count at the peak of the units that the plan's kernels use.
    pub fn bound(&self, plan: &Plan) -> Bound {
        let ms = |stage: &StageWork, bytes: u64| self.at_least_ms(plan.choice.kernels, stage.flops, bytes);
        let flow = plan.stages.iter().filter(|s| s.name == FLOW);
        Bound {
            total_ms: plan.stages.iter().map(|s| ms(s, s.weight_bytes)).sum(),
            flow_ms: flow.map(|s| ms(s, s.weight_bytes)).sum(),
            with_activations_ms: plan.stages.iter().map(|s| ms(s, s.weight_bytes + s.activation_bytes)).sum(),
        }
    }

    /// The longer of the lower bounds for operations and bytes, in milliseconds.
    pub fn at_least_ms(&self, kernels: Kernels, flops: u64, bytes: u64) -> f64 {
        let matrices = matches!(kernels, Kernels::Coop16 | Kernels::Coop8);
        let tflops = if matrices { self.matrix_tflops } else { self.alu_tflops };
        (flops as f64 / (tflops * 1e9)).max(bytes as f64 / (self.gigabytes * 1e6))
    }
}
