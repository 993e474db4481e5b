//! Tensors and files that are not those of a model, and how a list of them reads.

use std::collections::BTreeSet;

/// One tensor that does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorProblem {
    /// The model needs it; the checkpoint lacks it.
    #[error("missing     {name} {}", dimensions(shape))]
    Missing {
        /// Name in the checkpoint.
        name: String,
        /// Needed shape; 0 for a dimension that only this tensor gives.
        shape: Vec<usize>,
    },
    /// The checkpoint has it; the model has no place for it.
    #[error("unexpected  {name} {shape:?}")]
    Unexpected {
        /// Name in the checkpoint.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// It has another shape.
    #[error("misshapen   {name}: expected {}, found {found:?}", dimensions(expected))]
    Misshapen {
        /// Name in the checkpoint.
        name: String,
        /// Needed shape; 0 for a dimension that only this tensor gives.
        expected: Vec<usize>,
        /// Found shape.
        found: Vec<usize>,
    },
    /// It has a number format that weights cannot have.
    #[error("wrong dtype {name}: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// Name in the checkpoint.
        name: String,
        /// Found dtype.
        found: String,
    },
    /// Another program than `fathom-pack` quantised it.
    #[error("quantised   {name}: expected F32, F16 or BF16, found {found} by {by}")]
    Quantised {
        /// Name in the checkpoint.
        name: String,
        /// Dtype and shape.
        found: String,
        /// The program or format.
        by: &'static str,
    },
    /// Names have levels that they should not have.
    #[error("prefix      {extra:?} in the names of {count} tensors: expected {expected}, found {found}")]
    Prefix {
        /// The levels, with a dot behind them.
        extra: String,
        /// How many tensors have them.
        count: usize,
        /// A name as the model has it.
        expected: String,
        /// The same name as the checkpoint has it.
        found: String,
    },
    /// It is a copy, and differs from its original.
    #[error("not a copy  {name}: expected the tensor of {with} of the same name")]
    Untied {
        /// Name in the checkpoint.
        name: String,
        /// Where its original is.
        with: String,
    },
    /// It contains NaN or infinity.
    #[error("not finite  {name}: element {index} is {value}")]
    NotFinite {
        /// Name in the checkpoint.
        name: String,
        /// First such element, row-major.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// A way in which the files of a checkpoint contradict their index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardProblem {
    /// A file that is not beside the index.
    #[error("no file     {file}")]
    NoFile {
        /// As the index names it.
        file: String,
    },
    /// A file that is no safetensors file.
    #[error("unreadable  {file}: {reason}")]
    Unreadable {
        /// As the index names it.
        file: String,
        /// Its kind, or how it is damaged.
        reason: String,
    },
    /// A tensor that is not in the file that the index names.
    #[error("not in file {name}: expected in {file}")]
    Absent {
        /// The tensor.
        name: String,
        /// The file.
        file: String,
    },
    /// A tensor that two files have.
    #[error("twice       {name}: in {} and {}", files[0], files[1])]
    Twice {
        /// The tensor.
        name: String,
        /// The files.
        files: [String; 2],
    },
}

/// A shape as it is written, with `_` for a dimension that is not known.
fn dimensions(shape: &[usize]) -> String {
    let dimension = |d: &usize| if *d == 0 { "_".to_owned() } else { d.to_string() };
    format!("[{}]", shape.iter().map(dimension).collect::<Vec<_>>().join(", "))
}

/// A way in which a file is not as a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It is not there, or cannot be read.
    #[error("unreadable  {file}: {reason}")]
    Unreadable {
        /// As the manifest names it.
        file: String,
        /// Why.
        reason: String,
    },
    /// It has another size.
    #[error("size        {file}: expected {expected} bytes, found {found}")]
    Size {
        /// As the manifest names it.
        file: String,
        /// As the manifest says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// It has other bytes.
    #[error("SHA-256     {file}: expected {expected}, found {found}")]
    Hash {
        /// As the manifest names it.
        file: String,
        /// As the manifest says.
        expected: String,
        /// As it is.
        found: String,
    },
}

pub(super) fn list<T: std::fmt::Display>(problems: &[T]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

/// The number of tensors that problems are about.
pub(super) fn count(problems: &[TensorProblem]) -> usize {
    problems.iter().map(|p| if let TensorProblem::Prefix { count, .. } = p { *count } else { 1 }).sum()
}

/// As [`list`], with one line for problems that differ only in layer numbers, and advice.
pub(super) fn tensors(problems: &[TensorProblem]) -> String {
    let mut groups: Vec<(Vec<&str>, Vec<Vec<&str>>)> = Vec::new();
    let texts: Vec<String> = problems.iter().map(TensorProblem::to_string).collect();
    let mut at = std::collections::HashMap::new();
    for text in &texts {
        let (form, numbers) = split(text);
        let i = *at.entry(form.clone()).or_insert(groups.len());
        match groups.get_mut(i) {
            Some((_, members)) => members.push(numbers),
            None => groups.push((form, vec![numbers])),
        }
    }
    let mut lines: Vec<String> = groups.iter().map(|(form, members)| format!("  {}", joined(form, members))).collect();
    let programs: BTreeSet<&str> = problems
        .iter()
        .filter_map(|p| if let TensorProblem::Quantised { by, .. } = p { Some(*by) } else { None })
        .collect();
    if !programs.is_empty() {
        lines.push(format!(
            "quantised by {}, which Fathom does not read: take the weights before that, and quantise them with fathom-pack",
            programs.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some(TensorProblem::Prefix { extra, .. }) =
        problems.iter().find(|p| matches!(p, TensorProblem::Prefix { .. }))
    {
        lines.push(format!("save the weights again without {extra:?} in their names"));
    }
    lines.join("\n")
}

/// A text without the numbers that stand between the dots of a name, and those numbers.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut form, mut numbers, mut begun) = (Vec::new(), Vec::new(), 0);
    for (dot, _) in text.match_indices('.') {
        let rest = text.get(dot + 1..).unwrap_or_default();
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        if length > 0 && rest.as_bytes().get(length) == Some(&b'.') {
            form.push(text.get(begun..=dot).unwrap_or_default());
            numbers.push(rest.get(..length).unwrap_or_default());
            begun = dot + 1 + length;
        }
    }
    form.push(text.get(begun..).unwrap_or_default());
    (form, numbers)
}

/// The text of `form` with the numbers of all `members`, as ranges if there are several.
fn joined(form: &[&str], members: &[Vec<&str>]) -> String {
    let mut text = String::new();
    for (i, part) in form.iter().enumerate() {
        text += part;
        let numbers: BTreeSet<u64> =
            members.iter().filter_map(|numbers| numbers.get(i)).filter_map(|n| n.parse().ok()).collect();
        match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) if last - first + 1 == numbers.len() as u64 && first < last => {
                text += &format!("{{{first}..{last}}}");
            }
            (Some(first), Some(last)) if first == last => text += &first.to_string(),
            (Some(_), Some(_)) => {
                text += &format!("{{{}}}", numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
            }
            _ => {}
        }
    }
    if members.len() > 1 {
        text += &format!(" ({} tensors)", members.len());
    }
    text
}
