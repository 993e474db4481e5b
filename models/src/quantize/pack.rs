//! Packs a checkpoint: the same directory with its weights in a scheme's formats, and a manifest. Tensors keep their names,
//! and every other file is copied, so that the packed directory is read by the family's own code.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use safetensors::Dtype;

use crate::checkpoint::save::{TensorFile, TensorLayout, dtype};
use crate::checkpoint::{Checkpoint, WeightFormat, Weights, manifest, not_finite, scales_of};
use crate::error::ModelError;
use crate::families::{self, FAMILY, Family, Loaded, depth_anything};
use crate::graph::params::{ParamId, Role};
use crate::nets::depth_anything::DepthAnything;
use crate::quantize::calibration::{Calibration, Layer};
use crate::quantize::error::PackError;
use crate::quantize::scheme::Scheme;
use crate::quantize::{Manifest, encode, encode_for};

/// Metadata of a packed checkpoint: the scheme, as JSON.
pub const SCHEME: &str = "fathom.scheme";
/// Most bytes of weights in a file; if there are more, there are several files, which are checked side by side.
pub const SHARD_BYTES: u64 = 512 << 20;
/// Bytes of the source that a thread takes at a time.
const PIECE_BYTES: usize = 4 << 20;
/// Files beside the weights that are larger are not copied.
const MAX_COPY_BYTES: u64 = 64 << 20;
/// How deep folders are copied.
const MAX_DEPTH: usize = 4;
/// Extensions of files with weights in other formats.
const OTHER_WEIGHTS: [&str; 9] = ["bin", "pt", "pth", "ckpt", "gguf", "msgpack", "h5", "onnx", "npz"];

/// A checkpoint that can be packed.
#[derive(Debug)]
pub enum Source {
    /// A policy, or the base of one.
    Policy(Box<Loaded>),
    /// A Depth Anything.
    Depth(Box<DepthAnything>, Box<Weights>),
}

impl Source {
    /// Loads the directory `dir`, of the given family or of that which its files say.
    ///
    /// # Errors
    /// As [`families::load_base`] and [`depth_anything::load`].
    pub fn open(dir: &Path, family: Option<&'static Family>) -> Result<Source, ModelError> {
        if family.or_else(|| families::detect(dir)) == Some(&depth_anything::FAMILY) {
            let (model, weights) = depth_anything::load(dir)?;
            return Ok(Source::Depth(Box::new(model), Box::new(weights)));
        }
        Ok(Source::Policy(Box::new(families::load_base(dir, family)?)))
    }

    /// Its family.
    pub fn family(&self) -> &'static str {
        match self {
            Source::Policy(loaded) => loaded.family,
            Source::Depth(..) => depth_anything::FAMILY.name,
        }
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        match self {
            Source::Policy(loaded) => &loaded.weights,
            Source::Depth(_, weights) => weights,
        }
    }

    /// The first difference from `other` apart from the weights' values and the folder.
    pub fn difference(&self, other: &Source) -> Option<&'static str> {
        match (self, other) {
            (Source::Policy(a), Source::Policy(b)) => {
                let numbers = |l: &Loaded| {
                    let n = l.normalization.clone();
                    (n.state, n.action, n.steps, n.relative, n.source.is_some())
                };
                let parts = [
                    ("their families", a.family == b.family),
                    ("their configurations", a.model.config == b.model.config),
                    ("their statistics", numbers(a) == numbers(b)),
                    ("lengths of state or actions", (&a.state_dims, a.action_dim) == (&b.state_dims, b.action_dim)),
                    ("their views", a.skipped_views == b.skipped_views),
                ];
                parts.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
            }
            (Source::Depth(a, _), Source::Depth(b, _)) => (a.config != b.config).then_some("their configurations"),
            _ => Some("their families"),
        }
    }
}

/// How a directory is packed.
pub struct Options<'a> {
    /// Formats.
    pub scheme: &'a Scheme,
    /// Statistics of the layers' inputs, if known.
    pub calibration: Option<&'a Calibration>,
    /// Name and version of the program, for the manifest.
    pub program: &'a str,
    /// Most bytes of weights in a file; [`SHARD_BYTES`].
    pub shard_bytes: u64,
    /// Set to stop packing.
    pub cancel: &'a AtomicBool,
    /// Called with the number of source bytes that are done.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// A report of the files written.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// Bytes of tensors in the source that inference reads.
    pub source_bytes: u64,
    /// Bytes of tensors by format.
    pub bytes: BTreeMap<String, u64>,
    /// Weights that the scheme would have in W4 and whose rows no group divides: they are W8.
    pub fallbacks: Vec<String>,
    /// Tensors that inference does not read.
    pub dropped: Vec<String>,
    /// Files beside the weights that were not copied.
    pub left_out: Vec<PathBuf>,
}

/// One tensor of the packed checkpoint.
struct Tensor {
    name: String,
    own: Own,
    source: WeightFormat,
    target: WeightFormat,
    /// Rows and values of a row.
    n: usize,
    k: usize,
    /// File, place of its numbers there, and of its scales.
    shard: usize,
    index: usize,
    scales: Option<usize>,
}

impl Tensor {
    /// Statistics of the inputs of the layer that reads it, if it is quantised.
    fn layer(&self, weights: &Weights, options: &Options<'_>) -> Option<Layer> {
        match self.own {
            Own::Param(id) if !self.target.is_float() => options.calibration?.layer(weights, id),
            _ => None,
        }
    }
}

/// Where a tensor's bytes come from.
enum Own {
    Param(ParamId),
    /// A tensor that is no parameter, and copied.
    Raw,
}

/// Rows of one tensor.
struct Piece {
    tensor: usize,
    rows: std::ops::Range<usize>,
}

/// Writes the directory `output` with the weights of `source`, which was loaded from `dir`. It appears whole or not at all:
/// until then all lies in a hidden directory beside it, which goes when packing fails or is stopped.
///
/// # Errors
/// [`PackError`].
pub fn pack(dir: &Path, source: &Source, output: &Path, options: &Options<'_>) -> Result<Packed, PackError> {
    let weights = source.weights();
    let assignment = options.scheme.assign(&weights.table())?;
    let mut packed = Packed::default();
    let params = weights.table().params;
    packed.fallbacks =
        assignment.fallbacks.iter().filter_map(|id| params.get(id.0 as usize)).map(|p| p.name.clone()).collect();
    let mut tensors = Vec::new();
    for (i, (param, target)) in params.iter().zip(&assignment.targets).enumerate() {
        let id = ParamId(i as u32);
        let (Some(name), true) = (weights.name(id), param.role != Role::Unused) else { continue };
        let (format, bytes, _) = weights.encoded(id)?;
        if !format.is_float() {
            return Err(PackError::Packed { tensor: name.to_owned(), found: format });
        }
        packed.source_bytes += bytes.len() as u64;
        let (n, k) = weights.rows_and_columns(id);
        let target = target.format(format);
        let (own, name) = (Own::Param(id), name.to_owned());
        tensors.push(Tensor { name, own, source: format, target, n, k, shard: 0, index: 0, scales: None });
    }
    let checkpoint = weights.checkpoint();
    for name in weights.skipped() {
        match checkpoint.tensor(name) {
            Some((Dtype::F32, bytes)) if families::is_statistics(name) => {
                let (n, f32) = (bytes.len() / 4, WeightFormat::F32);
                let (own, name) = (Own::Raw, name.clone());
                tensors.push(Tensor { name, own, source: f32, target: f32, n, k: 1, shard: 0, index: 0, scales: None });
            }
            _ => packed.dropped.push(name.clone()),
        }
    }

    if fs::read_dir(output).map_or(output.exists(), |mut entries| entries.next().is_some()) {
        return Err(PackError::Exists { path: output.to_owned() });
    }
    let part = PartialDirectory::create(output)?;
    let files = write(&part.0, weights, &mut tensors, source.family(), options)?;
    for tensor in &tensors {
        let bytes = tensor.n * (tensor.target.row_bytes(tensor.k) + tensor.target.scale_bytes(tensor.k));
        *packed.bytes.entry(tensor.target.to_string()).or_default() += bytes as u64;
    }
    let weights_of_source = Checkpoint::files(dir)?;
    let mut others = Vec::new();
    copy(dir, &part.0, Path::new(""), &weights_of_source, &mut others, &mut packed.left_out)?;
    let names: Vec<PathBuf> = files.into_iter().map(PathBuf::from).chain(others).collect();
    let manifest = Manifest {
        fathom_pack: manifest::VERSION,
        program: options.program.to_owned(),
        scheme: options.scheme.clone(),
        calibrated: options.calibration.is_some(),
        source: manifest::Source {
            family: source.family().to_owned(),
            files: hashes(dir, weights_of_source.iter().filter_map(|f| f.strip_prefix(dir).ok()))?,
        },
        files: hashes(&part.0, names.iter().map(PathBuf::as_path))?,
    };
    let path = part.0.join(manifest::FILE);
    let text = serde_json::to_string_pretty(&manifest).map_err(ModelError::json(&path))?;
    fs::write(&path, text + "\n").map_err(ModelError::io(&path))?;
    if options.cancel.load(Ordering::Relaxed) {
        return Err(PackError::Interrupted);
    }
    // A packed directory that is another model than its source is never left.
    if let Some(what) = Source::open(&part.0, source.family().parse().ok())?.difference(source) {
        return Err(PackError::Differs { path: dir.to_owned(), what });
    }
    part.becomes(output)?;
    Ok(packed)
}

/// Writes the files of weights and gives their names.
fn write(
    dir: &Path,
    weights: &Weights,
    tensors: &mut [Tensor],
    family: &str,
    options: &Options<'_>,
) -> Result<Vec<String>, PackError> {
    let checkpoint = weights.checkpoint();
    let mut shards: Vec<Vec<TensorLayout>> = Vec::new();
    let mut filled = u64::MAX;
    for tensor in tensors.iter_mut() {
        let (n, k, target) = (tensor.n, tensor.k, tensor.target);
        let [bytes, of_scales] = [target.row_bytes(k), target.scale_bytes(k)].map(|row| (n * row) as u64);
        if filled.saturating_add(bytes + of_scales) > options.shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes + of_scales;
        tensor.shard = shards.len() - 1;
        let Some(shard) = shards.last_mut() else { continue };
        let shape = match target {
            WeightFormat::W8 => vec![n, k],
            WeightFormat::W4 { .. } => vec![n, k / 2],
            _ => checkpoint.shape(&tensor.name).map_or_else(|| vec![n, k], <[usize]>::to_vec),
        };
        tensor.index = shard.len();
        shard.push((tensor.name.clone(), dtype(target), shape, bytes));
        let scales = match target {
            WeightFormat::W8 => Some((Dtype::F32, vec![n])),
            WeightFormat::W4 { group, minima: false } => Some((Dtype::F16, vec![n, k / group as usize])),
            WeightFormat::W4 { group, minima: true } => Some((Dtype::F16, vec![n, k / group as usize, 2])),
            _ => None,
        };
        tensor.scales = scales.map(|(dtype, shape)| {
            shard.push((scales_of(&tensor.name), dtype, shape, of_scales));
            shard.len() - 1
        });
    }
    let scheme = serde_json::to_string(options.scheme).map_err(ModelError::json(dir))?;
    let metadata = [(FAMILY, family), (SCHEME, &scheme), ("format", "pt")];
    let metadata: BTreeMap<String, String> = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let names: Vec<String> = match shards.len() {
        1 => vec!["model.safetensors".to_owned()],
        count => (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect(),
    };
    let files =
        names.iter().zip(&shards).map(|(name, layouts)| TensorFile::create(&dir.join(name), layouts, &metadata));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    fill(weights, tensors, &files, options)?;
    files.into_iter().try_for_each(TensorFile::finish)?;
    if names.len() == 1 {
        return Ok(names);
    }
    let map: BTreeMap<&str, &str> =
        names.iter().zip(&shards).flat_map(|(file, s)| s.iter().map(|t| (t.0.as_str(), file.as_str()))).collect();
    let total: u64 = shards.iter().flatten().map(|layout| layout.3).sum();
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    let name = "model.safetensors.index.json";
    let path = dir.join(name);
    fs::write(&path, format!("{index:#}\n")).map_err(ModelError::io(&path))?;
    Ok(names.into_iter().chain([name.to_owned()]).collect())
}

/// Encodes every tensor on all cores, some rows at a time.
fn fill(weights: &Weights, tensors: &[Tensor], files: &[TensorFile], options: &Options<'_>) -> Result<(), PackError> {
    let mut pieces = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        let rows = (PIECE_BYTES / tensor.source.row_bytes(tensor.k).max(1)).max(1);
        pieces.extend((0..tensor.n).step_by(rows).map(|r| Piece { tensor: i, rows: r..(r + rows).min(tensor.n) }));
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let layers: Vec<OnceLock<Option<Layer>>> = tensors.iter().map(|_| OnceLock::new()).collect();
    let work = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = match (options.cancel.load(Ordering::Relaxed), tensors.get(piece.tensor)) {
                (true, _) => Err(PackError::Interrupted),
                (false, Some(tensor)) => {
                    // Made by the first of a tensor's pieces; there are some of them at a time.
                    let layer = layers
                        .get(piece.tensor)
                        .and_then(|l| l.get_or_init(|| tensor.layer(weights, options)).as_ref());
                    encode_rows(weights, tensor, piece.rows.clone(), layer, files, options)
                }
                (false, None) => Ok(()),
            };
            if let Err(error) = done {
                next.store(pieces.len(), Ordering::Relaxed);
                let mut first = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..cores {
            scope.spawn(work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

fn encode_rows(
    weights: &Weights,
    tensor: &Tensor,
    rows: std::ops::Range<usize>,
    layer: Option<&Layer>,
    files: &[TensorFile],
    options: &Options<'_>,
) -> Result<(), PackError> {
    let Some(file) = files.get(tensor.shard) else { return Ok(()) };
    let (k, source, target) = (tensor.k, tensor.source, tensor.target);
    let all = match tensor.own {
        Own::Param(id) => weights.encoded(id)?.1,
        Own::Raw => weights.checkpoint().tensor(&tensor.name).map_or(&[][..], |(_, bytes)| bytes),
    };
    let row = source.row_bytes(k);
    let read = rows.start * row..rows.end * row;
    let bytes = all.get(read.clone()).unwrap_or_default();
    if source == target {
        file.write(tensor.index, read.start as u64, bytes)?;
    } else {
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        for row in bytes.chunks_exact(row.max(1)) {
            let row = source.decode(row, &[]);
            let (own, of_row) = match layer {
                Some(layer) => encode_for(target, &row, layer),
                None => encode(target, &row, &[]),
            };
            numbers.extend(own);
            scales.extend(of_row);
        }
        let halves = if target == WeightFormat::F16 { &numbers } else { &scales };
        let narrow = matches!(target, WeightFormat::F16 | WeightFormat::W4 { .. });
        if narrow && not_finite(WeightFormat::F16, halves).is_some() {
            return Err(PackError::Overflow { tensor: tensor.name.clone() });
        }
        file.write(tensor.index, (rows.start * target.row_bytes(k)) as u64, &numbers)?;
        if let Some(index) = tensor.scales {
            file.write(index, (rows.start * target.scale_bytes(k)) as u64, &scales)?;
        }
    }
    if let Own::Param(id) = tensor.own {
        weights.release_part(id, read.clone());
    }
    (options.progress)(read.len() as u64);
    Ok(())
}

/// Copies the files beside the weights, and lists those copied and those left out, relative to `from`.
fn copy(
    from: &Path,
    to: &Path,
    below: &Path,
    weights: &std::collections::BTreeSet<PathBuf>,
    copied: &mut Vec<PathBuf>,
    left_out: &mut Vec<PathBuf>,
) -> Result<(), ModelError> {
    let folder = from.join(below);
    let io = ModelError::io;
    for entry in fs::read_dir(&folder).map_err(io(&folder))? {
        let name = entry.map_err(io(&folder))?.file_name();
        let (path, text) = (below.join(&name), name.to_string_lossy().into_owned());
        let full = from.join(&path);
        let metadata = fs::metadata(&full).map_err(io(&full))?;
        let ours = path == Path::new(manifest::FILE) || path == Path::new("model.safetensors.index.json");
        if text.starts_with('.') || ours || weights.contains(&full) {
            continue;
        }
        let other = full.extension().is_some_and(|e| OTHER_WEIGHTS.iter().any(|o| e.eq_ignore_ascii_case(o)));
        if metadata.is_dir() && path.components().count() <= MAX_DEPTH {
            copy(from, to, &path, weights, copied, left_out)?;
        } else if metadata.is_file() && metadata.len() <= MAX_COPY_BYTES && !other {
            let target = to.join(&path);
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).map_err(io(folder))?;
            }
            fs::copy(&full, &target).map_err(io(&full))?;
            copied.push(path);
        } else {
            left_out.push(path);
        }
    }
    Ok(())
}

/// Hashes of files of `dir`, by their paths there.
fn hashes<'a>(
    dir: &Path,
    files: impl Iterator<Item = &'a Path>,
) -> Result<BTreeMap<String, manifest::Hashed>, ModelError> {
    let files: Vec<&Path> = files.collect();
    let paths: Vec<PathBuf> = files.iter().map(|file| dir.join(file)).collect();
    let hashed = manifest::hash(&paths).into_iter().zip(&paths).zip(&files);
    let named = |((hashed, path), file): ((io::Result<_>, &PathBuf), &&Path)| {
        Ok((file.to_string_lossy().into_owned(), hashed.map_err(ModelError::io(path))?))
    };
    hashed.map(named).collect()
}

/// The directory that becomes the output, and is removed if it does not.
struct PartialDirectory(PathBuf);

impl PartialDirectory {
    /// Makes it beside `output`, and removes those that killed processes left.
    fn create(output: &Path) -> Result<PartialDirectory, ModelError> {
        let io = ModelError::io;
        let name = output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(io(parent))?;
        let prefix = format!(".{name}.part-");
        for entry in fs::read_dir(parent).map_err(io(parent))?.flatten() {
            let of = entry.file_name().to_string_lossy().strip_prefix(&prefix).and_then(|id| id.parse::<u32>().ok());
            if of.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
                fs::remove_dir_all(entry.path()).map_err(io(&entry.path()))?;
            }
        }
        let path = parent.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&path).map_err(io(&path))?;
        Ok(PartialDirectory(path))
    }

    fn becomes(self, output: &Path) -> Result<(), ModelError> {
        fs::rename(&self.0, output).map_err(ModelError::io(output))
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        // It is not there any more when it became the output.
        drop(fs::remove_dir_all(&self.0));
    }
}
