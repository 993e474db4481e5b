//! Compiled pipelines on disk: a second start compiles nothing.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fathom_models::io::output_file::{OutputError, OutputFile, Step};
use fathom_shaders::variants;

use super::adapter::AdapterInfo;

/// First line of a file.
const MAGIC: &str = "fathom pipelines 1";

/// The folder for caches of this user or service: `$CACHE_DIRECTORY` (systemd's), otherwise `fathom` in
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let service = env::var("CACHE_DIRECTORY").ok().and_then(|list| Some(PathBuf::from(list.split(':').next()?)));
    let user = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
    service.filter(|p| p.is_absolute()).or_else(|| Some(user()?.join("fathom")))
}

/// The first lines of a file; a file is valid only if they match exactly.
fn key(info: &AdapterInfo) -> String {
    let shaders = variants::ALL
        .iter()
        .map(|v| &v.shader)
        .fold(FNV, |hash, s| fnv(fnv(hash, s.name.as_bytes()), s.wgsl.as_bytes()));
    format!(
        "{MAGIC}\nadapter {}\ndriver {}\nchecked {}\nshaders {shaders:016x}\n",
        info.name, info.driver, info.checked
    )
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, continued.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// The driver's cache, and its file.
#[derive(Debug)]
pub(super) struct PipelineCache {
    pub(super) raw: wgpu::PipelineCache,
    path: PathBuf,
    key: String,
    /// Kernels whose pipelines are in the file.
    known: BTreeSet<String>,
    /// Further kernels whose pipelines are in the driver's cache.
    fresh: BTreeSet<String>,
}

impl PipelineCache {
    /// The cache of the adapter in `folder`. A file that is missing, damaged, or of another adapter, driver or shaders
    /// counts as empty.
    pub(super) fn open(device: &wgpu::Device, name: &str, info: &AdapterInfo, folder: &Path) -> PipelineCache {
        let checked = if info.checked { "-checked" } else { "" };
        let path = folder.join(format!("{name}{checked}.pipelines"));
        let key = key(info);
        let (known, data) = match fs::read(&path) {
            Ok(bytes) => parse(&bytes, &key).unwrap_or_else(|reason| {
                tracing::warn!(file = %path.display(), reason, "starting a new pipeline cache");
                Default::default()
            }),
            Err(_) => Default::default(),
        };
        let data = (!data.is_empty()).then_some(data);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("fathom"), data: data.as_deref(), fallback: true };
        // SAFETY: the data, if any, are `get_data`'s for the same adapter and driver: the file's key and checksum prove
        // it, and wgpu compares its own header with the device.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        PipelineCache { raw, path, key, known, fresh: BTreeSet::new() }
    }

    /// Whether the file has the pipeline of this kernel; if not, the kernel is added to those to write.
    pub(super) fn knows(&mut self, kernel: &str) -> bool {
        let known = self.known.contains(kernel);
        if !known {
            self.fresh.insert(kernel.to_owned());
        }
        known
    }

    /// Writes the file anew if there are new pipelines. After a failure the pipelines are compiled again at the next
    /// start.
    pub(super) fn save(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        self.known.append(&mut self.fresh);
        let Some(data) = self.raw.get_data() else { return };
        let names: Vec<&str> = self.known.iter().map(String::as_str).collect();
        let mut bytes =
            format!("{}kernels {}\ndata {:016x}\n", self.key, names.join(" "), fnv(FNV, &data)).into_bytes();
        bytes.extend(data);
        let written = (|| -> Result<(), OutputError> {
            if let Some(folder) = self.path.parent() {
                let step = Step::Create(folder.to_owned());
                fs::create_dir_all(folder).map_err(|source| OutputError::Io {
                    path: self.path.clone(),
                    step,
                    source,
                })?;
            }
            // The reader checks the file: no flush is needed.
            let mut file = OutputFile::create(&self.path)?;
            file.write_all(&bytes).map_err(|source| file.failed(source))?;
            file.commit_unsynced()
        })();
        match written {
            Ok(()) => tracing::debug!(file = %self.path.display(), kernels = names.len(), "pipeline cache written"),
            Err(error) => {
                tracing::warn!(%error, "the pipeline cache cannot be written: the next start compiles again");
            }
        }
    }
}

/// Kernels and data of a file with this key, or the error in it.
fn parse(bytes: &[u8], key: &str) -> Result<(BTreeSet<String>, Vec<u8>), &'static str> {
    if !bytes.starts_with(MAGIC.as_bytes()) {
        return Err("not a pipeline cache");
    }
    let rest = bytes.strip_prefix(key.as_bytes()).ok_or("of another adapter, driver or shaders")?;
    let damaged = "damaged";
    let line = |bytes: &[u8], name: &str| {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let text = std::str::from_utf8(bytes.get(..end)?).ok()?.strip_prefix(name)?.trim().to_owned();
        Some((text, end + 1))
    };
    let (names, at) = line(rest, "kernels").ok_or(damaged)?;
    let rest = rest.get(at..).ok_or(damaged)?;
    let (sum, at) = line(rest, "data").ok_or(damaged)?;
    let data = rest.get(at..).ok_or(damaged)?;
    if sum != format!("{:016x}", fnv(FNV, data)) {
        return Err(damaged);
    }
    Ok((names.split_whitespace().map(str::to_owned).collect(), data.to_vec()))
}
