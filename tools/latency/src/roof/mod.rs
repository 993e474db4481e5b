//! The adapter's measured peak rates: the roofs with which kernels are compared.

use fathom::clock::monotonic_ns;
use fathom::gpu::{AdapterInfo, AdapterKind, Commands, Dispatch, Gpu, Slot, Work};
use fathom_shaders::{BindingKind, Shader};

use crate::Failure;
use crate::result::Roof;

/// Duration of a run: long enough that its start does not matter, short enough that some of many runs are not
/// interrupted on a processor that does a GPU's work.
const TARGET_NS: u64 = 3_000_000;
/// Number of runs of which the best counts (least and most), and their total time.
const RUNS: [u32; 2] = [5, 100];
const RUNS_NS: u64 = 1_000_000_000;
/// Threads of the kernels.
const THREADS: u32 = 1 << 16;
/// Subgroups of the matrix kernels.
const GROUPS: u32 = 4096;

const WRITES: &[BindingKind] = &[BindingKind::Uniform, BindingKind::ReadWrite];
const READS: &[BindingKind] = &[BindingKind::Uniform, BindingKind::Read, BindingKind::ReadWrite];

static FLOPS: Shader =
    Shader { name: "roof_flops", wgsl: include_str!("flops.wgsl"), workgroup_size: [64, 1, 1], bindings: WRITES };
static BYTES: Shader =
    Shader { name: "roof_bytes", wgsl: include_str!("bytes.wgsl"), workgroup_size: [64, 1, 1], bindings: READS };
static MATRIX8: Shader =
    Shader { name: "roof_matrix8", wgsl: include_str!("matrix8.wgsl"), workgroup_size: [32, 1, 1], bindings: WRITES };
static MATRIX16: Shader =
    Shader { name: "roof_matrix16", wgsl: include_str!("matrix16.wgsl"), workgroup_size: [32, 1, 1], bindings: WRITES };

/// Name of the roof of memory.
pub(crate) const MEMORY: &str = "memory";
/// Name of the roof of arithmetic in f32.
pub(crate) const SINGLE: &str = "f32";
/// Name of the roof of cooperative matrices.
pub(crate) const MATRIX: &str = "f16 matrices";

/// Measures the roofs of `gpu`, which was opened with times; of matrices only if `matrices` are used.
pub(crate) fn measure(gpu: &mut Gpu, matrices: bool) -> Result<Vec<Roof>, Failure> {
    let info = gpu.info().clone();
    if !info.timestamps {
        return Err(format!("{}: expected an adapter with timestamps, found none", info.name).into());
    }
    // Far larger than the caches, within the binding limit.
    let size = if info.kind == AdapterKind::Software { 64 << 20 } else { 256_u64 << 20 };
    let size = size.min(info.max_binding_bytes).min(info.max_buffer_bytes) & !((u64::from(THREADS) * 64) - 1);
    let source = gpu.create_buffer("roof", size)?;
    let out = gpu.create_buffer("roof sums", u64::from(THREADS) * 16)?;
    let written = Slot { buffer: out, offset: 0, bytes: u64::from(THREADS) * 16 };
    let read = Slot { buffer: source, offset: 0, bytes: size };
    let each = (size / 16 / u64::from(THREADS)) as u32;
    let params = each.to_le_bytes().to_vec();
    let dispatch = Dispatch {
        shader: &BYTES,
        params,
        slots: vec![read, written],
        workgroups: [THREADS / 64, 1, 1],
        stage: 0,
        work: Work::default(),
    };
    let best_ns = best(gpu, dispatch)?;
    let roof = |name: &str, unit: &str, amount: f64, ns: u64| Roof {
        name: name.to_owned(),
        unit: unit.to_owned(),
        per_second: amount / (ns.max(1) as f64 / 1e9),
    };
    let mut roofs = vec![roof(MEMORY, "B/s", size as f64, best_ns)];
    gpu.release(source);

    let single = |rounds: u32| Dispatch {
        shader: &FLOPS,
        params: rounds.to_le_bytes().to_vec(),
        slots: vec![written],
        workgroups: [THREADS / 64, 1, 1],
        stage: 0,
        work: Work::default(),
    };
    // 16 iterations of 4 lanes, each a product and a sum.
    let (rounds, ns) = long_enough(gpu, single)?;
    roofs.push(roof(SINGLE, "FLOP/s", f64::from(rounds) * f64::from(THREADS) * 16.0 * 4.0 * 2.0, ns));
    if let Some((shader, side)) = matrix(&info).filter(|_| matrices) {
        let bytes = u64::from(GROUPS * side * side * 4);
        let sums = gpu.create_buffer("roof matrices", bytes)?;
        let slot = Slot { buffer: sums, offset: 0, bytes };
        let products = |rounds: u32| Dispatch {
            shader,
            params: rounds.to_le_bytes().to_vec(),
            slots: vec![slot],
            workgroups: [GROUPS, 1, 1],
            stage: 0,
            work: Work::default(),
        };
        let (rounds, ns) = long_enough(gpu, products)?;
        let flops = f64::from(rounds) * f64::from(GROUPS) * 4.0 * 2.0 * f64::from(side).powi(3);
        roofs.push(roof(MATRIX, "FLOP/s", flops, ns));
        gpu.release(sums);
    }
    gpu.release(out);
    Ok(roofs)
}

/// The kernel with the adapter's largest matrices. A software driver's 16 × 16 matrices are not advertised, and not
/// requested.
fn matrix(info: &AdapterInfo) -> Option<(&'static Shader, u32)> {
    let usable = info.f16 && info.subgroups && info.subgroup_size[1] <= 32;
    let has = |side| usable && info.matrices.contains(&side);
    match () {
        () if has(16) && info.kind != AdapterKind::Software => Some((&MATRIX16, 16)),
        () if has(8) => Some((&MATRIX8, 8)),
        () if has(16) => Some((&MATRIX16, 16)),
        () => None,
    }
}

/// Enough rounds for the duration, and their best time.
fn long_enough(gpu: &mut Gpu, dispatch: impl Fn(u32) -> Dispatch) -> Result<(u32, u64), Failure> {
    let mut rounds = 16;
    loop {
        let ns = best(gpu, dispatch(rounds))?;
        if ns >= TARGET_NS || rounds >= 1 << 20 {
            return Ok((rounds, ns));
        }
        let more = (TARGET_NS * 5 / 4 / ns.max(1)).clamp(2, 64) as u32;
        rounds = rounds.saturating_mul(more);
    }
}

/// The shortest time of several runs.
fn best(gpu: &mut Gpu, dispatch: Dispatch) -> Result<u64, Failure> {
    let commands = Commands { label: "roof".to_owned(), stages: vec!["roof".to_owned()], dispatches: vec![dispatch] };
    let list = gpu.prepare(&commands)?;
    let mut best = u64::MAX;
    let began_ns = monotonic_ns();
    for run in 0..RUNS[1] {
        if run >= RUNS[0] && monotonic_ns() - began_ns > RUNS_NS {
            break;
        }
        let times = gpu.submit(&[&list], &[], &mut [])?;
        best = best.min(times.stages.iter().map(|s| s.ns).sum());
    }
    Ok(best)
}
