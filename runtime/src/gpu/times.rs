//! GPU times of one submission, and the timestamp queries they come from.

use std::sync::Arc;

use super::command_list::CommandList;
use super::context::Gpu;
use super::error::GpuError;

/// Passes whose two timestamps fit into one query set of wgpu.
const PASSES_PER_SET: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;
/// Bytes of the two timestamps of a pass.
pub(super) const PASS_BYTES: usize = 16;

/// Time of one stage, from the begin of its first dispatch to the end of its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTime {
    /// Name of the stage.
    pub stage: Arc<str>,
    /// Begin, in nanoseconds since the begin of the submission's first stage.
    pub start_ns: u64,
    /// Duration in nanoseconds of GPU time.
    pub ns: u64,
}

/// Time of one dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTime {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Stage that the dispatch belongs to.
    pub stage: Arc<str>,
    /// Begin, in nanoseconds since the begin of the submission's first dispatch.
    pub start_ns: u64,
    /// Duration in nanoseconds of GPU time.
    pub ns: u64,
}

/// When the host did its parts of a submission, in nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// The submission was asked for.
    pub began_ns: u64,
    /// The uploads were copied to where the GPU fetches them.
    pub filled_ns: u64,
    /// The commands were encoded and handed to the driver.
    pub submitted_ns: u64,
    /// The host saw the GPU's completion.
    pub done_ns: u64,
    /// The downloads were in main memory.
    pub read_ns: u64,
}

/// Relation of the GPU's clock to the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// Begin of the submission's first stage, in nanoseconds of CLOCK_MONOTONIC.
    pub ns: u64,
    /// Bound of its error in nanoseconds.
    pub error_ns: u64,
}

/// Times of one submission, in the order of execution. The GPU's are empty where the device has no
/// timestamps ([`AdapterInfo::timestamps`](super::AdapterInfo::timestamps)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuTimes {
    /// One entry per stage and command list; a stage that is interrupted has one entry per part.
    pub stages: Vec<StageTime>,
    /// One entry per dispatch; filled by [`Gpu::profile`] only.
    pub kernels: Vec<KernelTime>,
    /// The host's parts.
    pub host: HostTimes,
    /// Origin of the stages' `start_ns`.
    pub origin: Origin,
}

/// Units that get a compute pass, and with it a time, of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Stages,
    Kernels,
}

/// Timestamp queries, kept from one submission to the next.
#[derive(Debug)]
pub(super) struct Queries {
    sets: Vec<wgpu::QuerySet>,
    /// Destination of the resolved sets, one after the other.
    resolved: Option<wgpu::Buffer>,
    /// Nanoseconds per tick.
    period: f64,
}

impl Queries {
    pub(super) fn new(period: f32) -> Self {
        Self { sets: Vec::new(), resolved: None, period: period.into() }
    }

    /// The queries around pass number `pass`; none where there is no set for it.
    pub(super) fn writes(&self, pass: usize) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let first = u32::try_from(pass % PASSES_PER_SET * 2).ok()?;
        Some(wgpu::ComputePassTimestampWrites {
            query_set: self.sets.get(pass / PASSES_PER_SET)?,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }

    /// Copies the timestamps of the first `passes` passes to `target` at byte `offset`.
    pub(super) fn resolve(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        passes: usize,
        target: &wgpu::Buffer,
        offset: u64,
    ) {
        let Some(resolved) = &self.resolved else {
            return;
        };
        for (index, set) in self.sets.iter().enumerate() {
            let first = index * PASSES_PER_SET;
            let count = passes.saturating_sub(first).min(PASSES_PER_SET);
            if count > 0 {
                encoder.resolve_query_set(set, 0..count as u32 * 2, resolved, (first * PASS_BYTES) as u64);
            }
        }
        encoder.copy_buffer_to_buffer(resolved, 0, target, offset, (passes * PASS_BYTES) as u64);
    }

    /// The first timestamp, in the GPU's ticks.
    pub(super) fn first_tick(raw: &[u8]) -> Option<u64> {
        raw.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))
    }

    /// Nanoseconds per tick.
    pub(super) fn period(&self) -> f64 {
        self.period
    }

    /// Times from the resolved timestamps of all passes of `lists`.
    pub(super) fn times(&self, lists: &[&CommandList], detail: Detail, raw: &[u8]) -> GpuTimes {
        let ticks = raw.chunks_exact(8).map(|b| u64::from_le_bytes(std::array::from_fn(|i| b[i])));
        let ticks: Vec<u64> = ticks.collect();
        let origin = ticks.first().copied().unwrap_or_default();
        let ns = |from: u64, to: u64| (to.saturating_sub(from) as f64 * self.period) as u64;
        let mut spans = ticks.chunks_exact(2).map(|t| (t[0], t[1]));
        let mut times = GpuTimes::default();
        for list in lists {
            for pass in list.passes() {
                let stage = list.stage_of(pass);
                let mut whole: Option<(u64, u64)> = None;
                let timed = if detail == Detail::Kernels { pass } else { &pass[..1] };
                for (step, (begin, end)) in timed.iter().zip(&mut spans) {
                    whole = Some((whole.map_or(begin, |w| w.0), end));
                    if detail == Detail::Kernels {
                        let (kernel, stage) = (step.kernel, Arc::clone(&stage));
                        let (start_ns, ns) = (ns(origin, begin), ns(begin, end));
                        times.kernels.push(KernelTime { kernel, stage, start_ns, ns });
                    }
                }
                if let Some((begin, end)) = whole {
                    let (start_ns, ns) = (ns(origin, begin), ns(begin, end));
                    times.stages.push(StageTime { stage, start_ns, ns });
                }
            }
        }
        times
    }
}

impl Gpu {
    /// Makes sure that there are queries for `passes` passes.
    pub(super) fn ensure_queries(&mut self, passes: usize) -> Result<(), GpuError> {
        while self.queries.sets.len() * PASSES_PER_SET < passes {
            let descriptor = wgpu::QuerySetDescriptor {
                label: Some("times"),
                ty: wgpu::QueryType::Timestamp,
                count: wgpu::QUERY_SET_MAX_QUERIES,
            };
            let set = self.scoped(
                |device| device.create_query_set(&descriptor),
                |e| GpuError::Validation { label: "timestamp queries".into(), message: e.to_string() },
            )?;
            self.counts.query_sets += 1;
            self.queries.sets.push(set);
        }
        let bytes = (self.queries.sets.len() * PASSES_PER_SET * PASS_BYTES) as u64;
        if self.queries.resolved.as_ref().is_none_or(|buffer| buffer.size() < bytes) {
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            self.queries.resolved = Some(self.raw_buffer("times", bytes, usage, false)?);
        }
        Ok(())
    }
}
