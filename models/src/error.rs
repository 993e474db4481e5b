use std::path::PathBuf;

/// What can be wrong with a model, a checkpoint or an observation.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Output(#[from] crate::output_file::OutputError),
    /// A file is not valid safetensors.
    #[error("{}: not a complete safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A directory with a checkpoint of another format.
    #[error("{}: expected model.safetensors or model.safetensors.index.json, found {found}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What is there, and how it becomes safetensors.
        found: String,
    },
    /// A JSON file does not have the expected form.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: serde_json::Error,
    },
    /// A configuration that no model can have.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The checkpoint's tensors are not the model's; all that is wrong, in one list.
    #[error("{}: {} tensor(s) do not fit the model:\n{}", path.display(), problems.len(), list(problems))]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// One entry a tensor.
        problems: Vec<TensorProblem>,
    },
    /// As `problem`, and the names of the tensors are rather those of another family.
    #[error("{problem}\nnearest known family: {nearest}")]
    OtherFamily {
        /// What is wrong with the family that it was taken for.
        problem: Box<ModelError>,
        /// That family, and how many of the tensors have its names.
        nearest: String,
    },
    /// The files of a checkpoint contradict their index; all that is wrong, in one list.
    #[error("{}: {} contradiction(s) between the index and its files:\n{}", path.display(), problems.len(), list(problems))]
    Shards {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<ShardProblem>,
    },
    /// A packed directory's files are not as they were written; all that differ, in one list.
    #[error(
        "{}: {} file(s) are not as fathom-pack wrote them (pack again, or remove the manifest to load them all the same):\n{}",
        path.display(), problems.len(), list(problems)
    )]
    Altered {
        /// The manifest.
        path: PathBuf,
        /// What differs.
        problems: Vec<FileProblem>,
    },
    /// The forward definition was given shapes that do not fit each other.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Expected and found.
        detail: String,
    },
    /// An observation lacks a part or has it in the wrong form.
    #[error("observation: {name}: expected {expected}, found {found}")]
    Observation {
        /// The part.
        name: String,
        /// Expected form.
        expected: String,
        /// Found form.
        found: String,
    },
    /// A checkpoint that Fathom knows, and that gives no actions.
    #[error("{}: a {family} checkpoint is no action model: it is {purpose}", path.display())]
    NoActions {
        /// Its directory.
        path: PathBuf,
        /// What it is.
        family: crate::families::Family,
        /// What it is for.
        purpose: &'static str,
    },
    /// The prompt cannot become tokens.
    #[error("prompt: {0}")]
    Prompt(String),
    /// The normalisation statistics do not fit the model.
    #[error("{}: {detail}", path.display())]
    Statistics {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        detail: String,
    },
}

/// A configuration field with a value that no model can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ConfigError {
    /// Path of the field.
    pub field: String,
    /// What it has to be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

/// One tensor that does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorProblem {
    /// The model needs it; the checkpoint lacks it.
    #[error("missing     {name} {}", dimensions(shape))]
    Missing {
        /// Name in the checkpoint.
        name: String,
        /// Needed shape; 0 for a dimension that this tensor would tell.
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
        /// Needed shape; 0 for a dimension that this tensor would tell.
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

fn list<T: std::fmt::Display>(problems: &[T]) -> String {
    problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}
