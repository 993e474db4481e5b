//! Compares every kernel of an inference with the adapter's peak rates.

use std::collections::BTreeMap;

use clap::Args;
use fathom::engine::{Kernels as Family, Session};
use fathom::telemetry::{Header, Stage, StageTable};
use fathom::{bounds, within};
use fathom_shaders::Variant;

use crate::Failure;
use crate::inference::Synthetic;
use crate::machine::Watched;
use crate::model::{AdapterOptions, ModelOptions, hash};
use crate::output::Outputs;
use crate::result::{KernelRow, Kernels, Measured, Roof, Row};
use crate::roof;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// Rounds of inferences; the spread of their medians is the noise for `compare`.
    #[arg(long, default_value_t = 5, value_parser = within!(bounds::REPEATS))]
    rounds: u32,
    /// Inferences in each round.
    #[arg(long, default_value_t = 5, value_parser = within!(bounds::REPEATS))]
    count: u32,
    #[command(flatten)]
    outputs: Outputs,
}

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    o.outputs.check()?;
    let machine = Watched::begin();
    let dir = o.model.directory()?;
    let model_hash = hash(&dir.path);
    let (mut session, spec) = o.model.open(&dir.path, &o.adapter)?;
    let inputs = Synthetic::of(&session, spec, o.model.seed);
    let header = Header::of(&session, dir.name.clone(), o.model.seed);
    let kernels = measure(&mut session, &inputs, o.rounds, o.count)?;
    let measured = crate::measured("kernels", header, machine.end(), Vec::new());
    crate::finish(&Measured { model_hash, kernels: Some(kernels), ..measured }, &o.outputs)
}

/// Work of all dispatches of one kernel in an inference.
#[derive(Clone, Debug, Default)]
struct Sum {
    calls: u64,
    flops: u64,
    bytes: u64,
    stages: Vec<String>,
    rounds: Vec<u64>,
}

/// Times each dispatch in separate inferences, which are slower.
pub(crate) fn measure(session: &mut Session, inputs: &Synthetic, rounds: u32, count: u32) -> Result<Kernels, Failure> {
    let matrices = matches!(session.kernels(), Family::Coop16 | Family::Coop8);
    let roofs = roof::measure(session.gpu_mut(), matrices)?;
    let work = session.work().to_vec();
    let (mut table, mut sums) = (StageTable::default(), BTreeMap::<&'static str, Sum>::new());
    // The clocks ramp up, and pipelines compile at their first use.
    for n in 0..2 {
        inputs.infer(session, n, true)?;
    }
    for _ in 0..rounds {
        let mut round = StageTable::default();
        for n in 0..count {
            let (_, _, times) = inputs.infer(session, n.into(), true)?;
            let mut of_inference = BTreeMap::<&'static str, u64>::new();
            sums.values_mut().for_each(|sum| (sum.calls, sum.flops, sum.bytes) = (0, 0, 0));
            for (time, work) in times.kernels.iter().zip(&work) {
                *of_inference.entry(time.kernel).or_default() += time.ns;
                let sum = sums.entry(time.kernel).or_default();
                sum.calls += 1;
                sum.flops += work.flops;
                sum.bytes += work.weight_bytes + work.activation_bytes;
                if !sum.stages.iter().any(|s| **s == *time.stage) {
                    sum.stages.push(time.stage.to_string());
                }
            }
            for (kernel, ns) in of_inference {
                table.record(kernel, ns);
                round.record(kernel, ns);
            }
        }
        for stage in round.stages() {
            if let Some(sum) = sums.get_mut(stage.name.as_str()) {
                sum.rounds.push(stage.p50_ns);
            }
        }
    }
    let mut rows: Vec<KernelRow> = table
        .stages()
        .into_iter()
        .filter_map(|stage| {
            let sum = sums.get(stage.name.as_str())?.clone();
            Some(row(stage, sum, &roofs))
        })
        .collect();
    rows.sort_by_key(|r| std::cmp::Reverse(r.row.stage.p50_ns));
    Ok(Kernels { roofs, inferences: u64::from(rounds) * u64::from(count), table: rows })
}

fn row(stage: Stage, sum: Sum, roofs: &[Roof]) -> KernelRow {
    let seconds = stage.p50_ns.max(1) as f64 / 1e9;
    let peak = |name: &str| roofs.iter().find(|r| r.name == name).map(|r| r.per_second);
    let matrices = Variant::named(&stage.name).is_some_and(|v| v.key.matrix_side > 0);
    let arithmetic = if matrices && peak(roof::MATRIX).is_some() { roof::MATRIX } else { roof::SINGLE };
    let at_roof = |amount: u64, name: &str| peak(name).map_or(0.0, |peak| amount as f64 / peak);
    let (computing, moving) = (at_roof(sum.flops, arithmetic), at_roof(sum.bytes, roof::MEMORY));
    let (bound, roof) = if computing >= moving { (computing, arithmetic) } else { (moving, roof::MEMORY) };
    KernelRow {
        kernel: stage.name.clone(),
        stages: sum.stages,
        calls: sum.calls,
        flops: sum.flops,
        bytes: sum.bytes,
        flops_per_second: sum.flops as f64 / seconds,
        bytes_per_second: sum.bytes as f64 / seconds,
        share_of_roof: bound / seconds,
        roof: roof.to_owned(),
        row: Row { stage, rounds_p50_ns: sum.rounds, histogram: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofs() -> Vec<Roof> {
        let roof = |name: &str, per_second| Roof { name: name.to_owned(), unit: String::new(), per_second };
        vec![roof(roof::MEMORY, 100e9), roof(roof::SINGLE, 1e12), roof(roof::MATRIX, 10e12)]
    }

    /// A kernel that takes 10 ms: 5 GFLOP are half of the f32 roof and a twentieth of the matrices'; 0.8 GB are most of
    /// the memory's.
    #[test]
    fn a_kernel_is_held_against_the_roof_that_binds_it() {
        let stage = |name: &str| Stage { name: name.to_owned(), p50_ns: 10_000_000, ..Stage::default() };
        let of = |name: &str, flops, bytes| {
            let row = row(stage(name), Sum { flops, bytes, ..Sum::default() }, &roofs());
            (row.roof.clone(), (row.share_of_roof * 1000.0).round() / 1000.0)
        };
        assert_eq!(of("linear_f32", 5_000_000_000, 1_000_000), (roof::SINGLE.to_owned(), 0.5));
        assert_eq!(of("linear_coop16_f16", 5_000_000_000, 1_000_000), (roof::MATRIX.to_owned(), 0.05));
        assert_eq!(of("linear_skinny_f32", 1_000_000, 800_000_000), (roof::MEMORY.to_owned(), 0.8));
    }
}
