//! Tensors that do not fit because another program quantised them, or because their names have extra levels: reported
//! as that, instead of as hundreds of missing and unexpected tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::Dtype;

use super::{Checkpoint, Entry, float_format, scales_of, unwrapped};
use crate::error::TensorProblem;

/// How a quantiser stores a matrix that was `….weight`.
struct Quantiser {
    name: &'static str,
    /// The name of its numbers instead of `weight`.
    numbers: &'static str,
    /// Endings of the names of its other tensors, one of which has to be there; `*` stands for any.
    beside: &'static [&'static str],
}

/// The first that fits is it.
const QUANTISERS: [Quantiser; 13] = [
    Quantiser {
        name: "bitsandbytes (4 bits)",
        numbers: "weight",
        beside: &[
            "weight.absmax",
            "weight.quant_map",
            "weight.nested_absmax",
            "weight.nested_quant_map",
            "weight.quant_state.bitsandbytes__nf4",
            "weight.quant_state.bitsandbytes__fp4",
        ],
    },
    Quantiser { name: "bitsandbytes (8 bits)", numbers: "weight", beside: &["SCB", "weight_format"] },
    Quantiser { name: "GPTQ", numbers: "qweight", beside: &["g_idx"] },
    Quantiser { name: "AWQ", numbers: "qweight", beside: &["qzeros"] },
    Quantiser {
        name: "compressed-tensors",
        numbers: "weight_packed",
        beside: &["weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx", "weight_global_scale"],
    },
    Quantiser { name: "FP8 with scales of blocks", numbers: "weight", beside: &["weight_scale_inv"] },
    Quantiser {
        name: "compressed-tensors",
        numbers: "weight",
        beside: &["weight_scale", "weight_zero_point", "input_scale", "input_global_scale"],
    },
    Quantiser { name: "HQQ", numbers: "W_q", beside: &["meta", "scale", "zero"] },
    Quantiser { name: "quanto", numbers: "weight._data", beside: &["weight._scale", "weight._shift"] },
    Quantiser { name: "torchao", numbers: "weight_qdata", beside: &["weight_scale", "weight_zero_point"] },
    Quantiser { name: "MLX", numbers: "weight", beside: &["biases"] },
    Quantiser { name: "EETQ", numbers: "weight", beside: &["weight_scales"] },
    Quantiser { name: "AQLM", numbers: "codes", beside: &["codebooks"] },
];

/// Endings that any of them may have besides.
const ALSO: [&str; 8] =
    ["qzeros", "scales", "g_idx", "input_scale", "output_scale", "input_scale_ub", "input_offset", "deq_scale"];

/// A matrix that another program quantised.
struct Quantised<'a> {
    by: &'static str,
    /// Name in the checkpoint of its numbers.
    numbers: &'a str,
    entry: &'a Entry,
}

/// By the names that the matrices had before, those that other programs quantised, and the names of all their tensors.
fn quantised(checkpoint: &Checkpoint) -> (BTreeMap<String, Quantised<'_>>, BTreeSet<&str>) {
    let entries = checkpoint.entries();
    let (mut found, mut theirs) = (BTreeMap::new(), BTreeSet::new());
    for (name, entry) in entries {
        for quantiser in &QUANTISERS {
            let Some(root) = name.strip_suffix(quantiser.numbers).filter(|root| root.ends_with('.')) else { continue };
            let beside = |end: &&&str| entries.contains_key(&format!("{root}{end}"));
            let float = float_format(entry.dtype).is_some() || entries.contains_key(&scales_of(name));
            if float || !quantiser.beside.iter().any(|end| beside(&end)) {
                continue;
            }
            theirs.insert(name.as_str());
            let all = quantiser.beside.iter().chain(&ALSO).map(|end| format!("{root}{end}"));
            theirs.extend(all.filter_map(|name| Some(entries.get_key_value(&name)?.0.as_str())));
            found.entry(format!("{root}weight")).or_insert(Quantised { by: quantiser.name, numbers: name, entry });
            break;
        }
        let eight = matches!(entry.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2);
        if eight && name.ends_with(".weight") && theirs.insert(name) {
            found.insert(name.clone(), Quantised { by: "a converter to FP8", numbers: name, entry });
        }
    }
    (found, theirs)
}

/// The names that a checkpoint's tensors had before they were quantised, without the levels of wrappers.
pub(crate) fn plain_names(checkpoint: &Checkpoint) -> Vec<String> {
    let (found, theirs) = quantised(checkpoint);
    let others = checkpoint.names().filter(|name| !theirs.contains(name)).map(str::to_owned);
    others.chain(found.into_keys()).map(|name| unwrapped(&name).into_owned()).collect()
}

/// Whether there are tensors of another quantiser, or with numbers that no weight has; `ignored` says of which names that
/// does not matter.
pub(crate) fn present(checkpoint: &Checkpoint, ignored: impl Fn(&str) -> bool) -> bool {
    let packed = |name: &str| {
        let weight = name.strip_suffix(".scales").unwrap_or(name);
        checkpoint.entries().contains_key(&scales_of(weight)) && checkpoint.entries().contains_key(weight)
    };
    let odd = |(name, entry): (&String, &Entry)| float_format(entry.dtype).is_none() && !packed(name);
    checkpoint.entries().iter().any(|(name, entry)| odd((name, entry)) && !ignored(&unwrapped(name)))
}

/// Problems of a checkpoint by their cause: tensors of another quantiser as such, and extra levels of many names once. All
/// others stay in the list. `known` decides which names may be there.
pub(crate) fn explained(
    checkpoint: &Checkpoint,
    problems: Vec<TensorProblem>,
    known: impl Fn(&str) -> bool,
) -> Vec<TensorProblem> {
    without_levels(with_quantisers(checkpoint, problems), known)
}

fn with_quantisers(checkpoint: &Checkpoint, problems: Vec<TensorProblem>) -> Vec<TensorProblem> {
    let (found, theirs) = quantised(checkpoint);
    if found.is_empty() {
        return problems;
    }
    let weights: BTreeSet<Cow<'_, str>> = found.keys().map(|name| unwrapped(name)).collect();
    let explained = |problem: &TensorProblem| match problem {
        TensorProblem::Missing { name, .. } => weights.contains(unwrapped(name).as_ref()),
        TensorProblem::Unexpected { name, .. }
        | TensorProblem::Misshapen { name, .. }
        | TensorProblem::Dtype { name, .. } => theirs.contains(name.as_str()),
        _ => false,
    };
    let quantised = found.values().map(|q| TensorProblem::Quantised {
        name: q.numbers.to_owned(),
        found: format!("{:?} {:?}", q.entry.dtype, q.entry.shape),
        by: q.by,
    });
    quantised.chain(problems.iter().filter(|p| !explained(p)).cloned()).collect()
}

/// The name that a matrix had before it was quantised, by that of its numbers.
fn weight_of(numbers: &str) -> String {
    let root = QUANTISERS.iter().find_map(|q| numbers.strip_suffix(q.numbers).filter(|root| root.ends_with('.')));
    root.map_or_else(|| numbers.to_owned(), |root| format!("{root}weight"))
}

/// Most levels that are one prefix.
const MAX_LEVELS: usize = 3;

/// A name with levels too many, the name without, and the shape, if it is that of the numbers.
type Renamed<'a> = (&'a str, String, Option<&'a Vec<usize>>);

/// Fewest names with the same levels too many that are no coincidence.
const FEWEST: usize = 3;

/// Where the names of at least half of the missing tensors are there with the same levels too many, outside or in the
/// middle: that once, and the rest.
fn without_levels(problems: Vec<TensorProblem>, known: impl Fn(&str) -> bool) -> Vec<TensorProblem> {
    let missing: HashMap<&str, &Vec<usize>> = problems
        .iter()
        .filter_map(
            |p| if let TensorProblem::Missing { name, shape } = p { Some((name.as_str(), shape)) } else { None },
        )
        .collect();
    // By the levels: the names that have them.
    let mut extra: BTreeMap<String, Vec<Renamed<'_>>> = BTreeMap::new();
    for problem in &problems {
        let (name, shape, weight) = match problem {
            TensorProblem::Unexpected { name, shape } => (name, Some(shape), name.clone()),
            TensorProblem::Quantised { name, .. } => (name, None, weight_of(name)),
            _ => continue,
        };
        let levels: Vec<&str> = weight.split('.').collect();
        let mut seen = BTreeSet::new();
        for (from, count) in (0..levels.len()).flat_map(|from| (1..=MAX_LEVELS).map(move |count| (from, count))) {
            let Some(removed) = levels.get(from..from + count).filter(|_| from + count < levels.len()) else {
                continue;
            };
            let kept = levels.iter().take(from).chain(levels.iter().skip(from + count));
            let plain = kept.copied().collect::<Vec<_>>().join(".");
            let removed = format!("{}.", removed.join("."));
            if missing.contains_key(plain.as_str()) && seen.insert(removed.clone()) {
                extra.entry(removed).or_default().push((name, plain, shape));
            }
        }
    }
    let Some((levels, names)) = extra.into_iter().max_by_key(|(_, names)| names.len()) else { return problems };
    let enough = names.len() >= FEWEST && names.len() * 2 >= missing.len();
    let Some((stored, plain, _)) = names.first().filter(|_| enough) else { return problems };
    let mut gone: BTreeSet<&str> = names.iter().flat_map(|(stored, plain, _)| [*stored, plain.as_str()]).collect();
    // And optional tensors that are there.
    let mut count = names.len();
    for problem in &problems {
        let TensorProblem::Unexpected { name, .. } = problem else { continue };
        let plain = |at: usize| Some(format!("{}{}", name.get(..at)?, name.get(at + levels.len()..)?));
        let level = |at: &usize| *at == 0 || name.as_bytes().get(at - 1) == Some(&b'.');
        let mut places = name.match_indices(&levels).map(|(at, _)| at).filter(level);
        if places.any(|at| plain(at).is_some_and(|name| known(&name))) && gone.insert(name) {
            count += 1;
        }
    }
    let (expected, found) = (plain.clone(), (*stored).to_owned());
    let prefix = TensorProblem::Prefix { extra: levels, count, expected, found };
    let misshapen = names.iter().filter_map(|(stored, plain, found)| {
        let (expected, found) = (missing.get(plain.as_str())?, (*found)?);
        // 0 is an unknown dimension.
        let fits = expected.is_empty()
            || expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| *e == 0 || e == f);
        let (name, expected, found) = ((*stored).to_owned(), (*expected).clone(), found.clone());
        (!fits).then_some(TensorProblem::Misshapen { name, expected, found })
    });
    let rest = problems.iter().filter(|p| match p {
        TensorProblem::Missing { name, .. } | TensorProblem::Unexpected { name, .. } => !gone.contains(name.as_str()),
        _ => true,
    });
    std::iter::once(prefix).chain(misshapen).chain(rest.cloned()).collect()
}
