//! Why a checkpoint cannot be quantised.

use std::path::PathBuf;

use super::scheme::{Named, Target};
use crate::checkpoint::WeightFormat;
use crate::error::ModelError;
use crate::io::FileError;

/// Why a scheme is invalid, or does not fit a model.
#[derive(Debug, thiserror::Error)]
pub enum SchemeError {
    /// Neither a name nor a file.
    #[error("scheme: expected one of {}, or a TOML file, found {found:?}", Named::ALL.map(Named::name).join(", "))]
    Unknown {
        /// The value given.
        found: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has another form.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A rule whose format is none.
    #[error("rule {rule}: {field}: expected {expected}, found {found}")]
    Format {
        /// The rule.
        rule: String,
        /// Which of its keys.
        field: &'static str,
        /// The allowed values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A pattern that fits no weight.
    #[error("rule {rule}: {pattern:?} names no weight of this model; its weights are such as {such_as}")]
    NoTensor {
        /// The rule.
        rule: String,
        /// The pattern.
        pattern: String,
        /// A name there is.
        such_as: String,
    },
    /// Two rules for one weight.
    #[error("{tensor}: two rules name it, {} and {}: leave it out of one with `except`", rules[0], rules[1])]
    TwoRules {
        /// The weight.
        tensor: String,
        /// The rules.
        rules: [String; 2],
    },
    /// A group that does not divide a row.
    #[error("rule {rule}: {tensor}: expected a group that divides its {columns} columns, found {group}")]
    Group {
        /// The rule.
        rule: String,
        /// The weight.
        tensor: String,
        /// Values of a row, or of the part of it that a layer reads.
        columns: usize,
        /// The group.
        group: u32,
    },
    /// A format that a weight cannot have.
    #[error("rule {rule}: {tensor}: expected f32, f16 or bf16 for {what}, found {found}")]
    Misfit {
        /// The rule.
        rule: String,
        /// The weight.
        tensor: String,
        /// The kind of weight.
        what: &'static str,
        /// The format.
        found: WeightFormat,
    },
    /// Weights that one layer reads at once, in two formats.
    #[error("{} is {}, {} {}: expected one format, since one layer reads both at once", first.0, first.1, second.0, second.1)]
    Apart {
        /// One weight.
        first: (String, Target),
        /// And one of another format.
        second: (String, Target),
    },
}

/// Why a directory cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The source, or a file that is written or copied.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The scheme, or it and the source.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// There is something at the place of the output.
    #[error("{}: expected nothing there, or an empty directory", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The source is packed.
    #[error(
        "{tensor}: expected f32, f16 or bf16 to pack, found {found}: pack the checkpoint that this one was made from"
    )]
    Packed {
        /// One of its weights.
        tensor: String,
        /// In this format.
        found: WeightFormat,
    },
    /// A value that f16 does not hold.
    #[error(
        "{tensor}: a weight or a scale of it is beyond what f16 holds, 65504: expected a rule that gives it bf16 or f32"
    )]
    Overflow {
        /// The weight.
        tensor: String,
    },
    /// The packed directory loads as another model than the source.
    #[error("{}: loads as another model than it was packed from: {what} differ", path.display())]
    Differs {
        /// The source.
        path: PathBuf,
        /// The parts that differ.
        what: &'static str,
    },
    /// Packing was cancelled.
    #[error("interrupted: nothing was left behind")]
    Interrupted,
}
