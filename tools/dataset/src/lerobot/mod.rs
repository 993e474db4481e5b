//! Writes data sets of LeRobot's format v3.0.
//!
//! ```text
//! meta/info.json  meta/stats.json  meta/tasks.parquet
//! meta/episodes/chunk-000/file-000.parquet
//! data/chunk-000/file-000.parquet          100 MB each, one row group an episode
//! ```
//!
//! Pictures lie in the tables as PNG, depth maps as PNG of 16 bits in millimetres.

mod stats;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use serde_json::{Map, Value, json};
pub(crate) use stats::PictureCounts;
use table::{ColumnType, Table, Values};
use thiserror::Error;

/// A data file is ended once it has this many bytes, as lerobot's own are.
const FILE_BYTES: usize = 100 << 20;
/// Files in a folder.
const FOLDER_FILES: usize = 1000;
/// Columns that every data set has beside its features.
const OWN: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];

/// A data set could not be written.
#[derive(Debug, Error)]
pub(crate) enum DatasetError {
    /// The directory is there already.
    #[error("{}: exists already; expected a directory that does not exist yet", .0.display())]
    Exists(PathBuf),
    /// The system refuses a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A table cannot be written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// An episode does not have the features of the data set.
    #[error("feature \"{feature}\" of episode {episode} has {found} values; expected {expected}")]
    Shape {
        /// The feature's name.
        feature: String,
        /// The episode.
        episode: usize,
        /// Values that it needs.
        expected: usize,
        /// Values that it has.
        found: usize,
    },
    /// Two or more features, or a feature and a column of the format, have one name.
    #[error("the features have the name \"{0}\" twice")]
    Name(String),
}

impl DatasetError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> DatasetError {
        move |source| DatasetError::Io { path: path.to_owned(), source }
    }

    fn parquet(path: &Path) -> impl FnOnce(ParquetError) -> DatasetError {
        move |source| DatasetError::Parquet { path: path.to_owned(), source }
    }
}

/// The type of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FeatureType {
    /// An RGB picture `(height, width, 3)`, PNG.
    Image {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A depth map `(height, width, 1)` in millimetres, PNG of 16 bits; 0 where there is none.
    Depth {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// f32 numbers.
    Numbers {
        /// Their shape.
        shape: Vec<usize>,
        /// Names of the last dimension's entries; may be empty.
        names: Vec<String>,
    },
}

/// A feature of every frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feature {
    /// Its name, such as `observation.state`.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: FeatureType,
}

/// One feature's values in an episode, frame after frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Track {
    /// Encoded pictures or depth maps, and the counts of their values.
    Pictures {
        /// The files' bytes, one a frame.
        files: Vec<Vec<u8>>,
        /// Counts over all of them.
        counts: PictureCounts,
    },
    /// Numbers, those of a frame together.
    Numbers(Vec<f32>),
}

/// An episode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Episode {
    /// The instruction.
    pub(crate) task: String,
    /// Number of frames.
    pub(crate) frames: usize,
    /// One for each feature of the data set, in its order.
    pub(crate) tracks: Vec<Track>,
}

/// The shape of a data set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Form {
    /// Frames a second.
    pub(crate) fps: u32,
    /// The robot's name.
    pub(crate) robot: String,
    /// The features.
    pub(crate) features: Vec<Feature>,
    /// What `meta/fathom.json` says of the data set's origin; may be empty.
    pub(crate) notes: Map<String, Value>,
}

/// What is counted of a feature.
enum Sum {
    Pictures(PictureCounts),
    Numbers(Vec<f64>),
}

/// An episode that has been written.
struct Written {
    task: String,
    frames: usize,
    /// Index of its first frame in the data set.
    first: usize,
    /// Number of its data file.
    file: usize,
}

/// A data set under construction. It appears in its place only with [`Writer::finish`]; otherwise nothing of it is left.
pub(crate) struct Writer {
    output: PathBuf,
    part: PartialDirectory,
    form: Form,
    data: Option<Table>,
    file: usize,
    tasks: Vec<String>,
    sums: Vec<Sum>,
    own: BTreeMap<&'static str, Vec<f64>>,
    episodes: Vec<Written>,
    frames: usize,
}

impl Writer {
    /// Begins the data set `output`.
    ///
    /// # Errors
    /// [`DatasetError::Exists`], [`DatasetError::Name`] and [`DatasetError::Io`].
    pub(crate) fn create(output: &Path, form: Form) -> Result<Writer, DatasetError> {
        if fs::symlink_metadata(output).is_ok() {
            return Err(DatasetError::Exists(output.to_owned()));
        }
        let mut names: Vec<&str> = form.features.iter().map(|feature| feature.name.as_str()).chain(OWN).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
            return Err(DatasetError::Name((*name).to_owned()));
        }
        let sum = |feature: &Feature| match &feature.kind {
            FeatureType::Image { .. } => Sum::Pictures(PictureCounts::new(3, 256)),
            FeatureType::Depth { .. } => Sum::Pictures(PictureCounts::new(1, 1 << 16)),
            FeatureType::Numbers { .. } => Sum::Numbers(Vec::new()),
        };
        let sums = form.features.iter().map(sum).collect();
        Ok(Writer {
            output: output.to_owned(),
            part: PartialDirectory::create(output)?,
            form,
            data: None,
            file: 0,
            tasks: Vec::new(),
            sums,
            own: BTreeMap::new(),
            episodes: Vec::new(),
            frames: 0,
        })
    }

    /// Frames so far.
    #[must_use]
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Appends an episode; one without frames is left out.
    ///
    /// # Errors
    /// [`DatasetError::Shape`] for other features than the data set's, [`DatasetError::Io`] and [`DatasetError::Parquet`].
    pub(crate) fn append(&mut self, episode: Episode) -> Result<(), DatasetError> {
        self.check(&episode)?;
        let (index, first, count) = (self.episodes.len(), self.frames, episode.frames);
        if count == 0 {
            return Ok(());
        }
        let task = self.tasks.iter().position(|task| *task == episode.task).unwrap_or(self.tasks.len());
        if task == self.tasks.len() {
            self.tasks.push(episode.task.clone());
        }
        for (sum, track) in self.sums.iter_mut().zip(&episode.tracks) {
            match (sum, track) {
                (Sum::Pictures(sum), Track::Pictures { counts, .. }) => sum.merge(counts),
                (Sum::Numbers(sum), Track::Numbers(values)) => sum.extend(values.iter().map(|value| f64::from(*value))),
                _ => {}
            }
        }
        let mut columns: Vec<Values> = episode
            .tracks
            .into_iter()
            .map(|track| match track {
                Track::Pictures { files, .. } => Values::Pictures(files),
                Track::Numbers(values) => Values::Floats(values),
            })
            .collect();
        let times: Vec<f32> = (0..count).map(|frame| frame as f32 / self.form.fps as f32).collect();
        let same = |value: usize| vec![value as i64; count];
        let ints = [
            ("frame_index", (0..count as i64).collect()),
            ("episode_index", same(index)),
            ("index", (first as i64..).take(count).collect()),
            ("task_index", same(task)),
        ];
        self.own.entry("timestamp").or_default().extend(times.iter().map(|time| f64::from(*time)));
        columns.push(Values::Floats(times));
        for (name, values) in ints {
            self.own.entry(name).or_default().extend(values.iter().map(|value| *value as f64));
            columns.push(Values::Ints(values));
        }
        let columns: Vec<&Values> = columns.iter().collect();
        self.data()?.append(&columns)?;
        self.episodes.push(Written { task: episode.task, frames: count, first, file: self.file });
        self.frames += count;
        if self.data.as_ref().is_some_and(|data| data.bytes() >= FILE_BYTES) {
            self.end_file()?;
        }
        Ok(())
    }

    /// Writes the rest, and puts the data set into its place.
    ///
    /// # Errors
    /// [`DatasetError::Io`] and [`DatasetError::Parquet`].
    pub(crate) fn finish(mut self) -> Result<(), DatasetError> {
        self.end_file()?;
        self.write_episodes()?;
        let tasks = Values::Texts(self.tasks.clone());
        let numbers = Values::Ints((0..self.tasks.len() as i64).collect());
        let columns = [("task_index", ColumnType::Int), ("task", ColumnType::Text)];
        let mut table = Table::create(&self.part.0.join("meta/tasks.parquet"), &columns, &[("pandas", pandas())])?;
        table.append(&[&numbers, &tasks])?;
        table.close()?;
        self.write_json("meta/info.json", &self.info())?;
        self.write_json("meta/stats.json", &self.stats())?;
        if !self.form.notes.is_empty() {
            self.write_json("meta/fathom.json", &Value::Object(self.form.notes.clone()))?;
        }
        let Writer { output, part, .. } = self;
        if fs::symlink_metadata(&output).is_ok() {
            return Err(DatasetError::Exists(output));
        }
        fs::rename(&part.0, &output).map_err(DatasetError::io(&output))
    }

    fn check(&self, episode: &Episode) -> Result<(), DatasetError> {
        let wrong = |feature: &str, expected, found| DatasetError::Shape {
            feature: feature.to_owned(),
            episode: self.episodes.len(),
            expected,
            found,
        };
        if episode.tracks.len() != self.form.features.len() {
            return Err(wrong("(all)", self.form.features.len(), episode.tracks.len()));
        }
        for (feature, track) in self.form.features.iter().zip(&episode.tracks) {
            let (expected, found) = match (&feature.kind, track) {
                (FeatureType::Numbers { shape, .. }, Track::Numbers(values)) => {
                    (shape.iter().product::<usize>() * episode.frames, values.len())
                }
                (FeatureType::Numbers { .. }, Track::Pictures { files, .. }) => (0, files.len()),
                (_, Track::Pictures { files, .. }) => (episode.frames, files.len()),
                (_, Track::Numbers(values)) => (0, values.len()),
            };
            if expected != found {
                return Err(wrong(&feature.name, expected, found));
            }
        }
        Ok(())
    }

    /// The data file that is being written.
    fn data(&mut self) -> Result<&mut Table, DatasetError> {
        let table = match self.data.take() {
            Some(table) => table,
            None => {
                let column = |feature: &Feature| match &feature.kind {
                    FeatureType::Numbers { shape, .. } if shape.as_slice() == [1] => ColumnType::Floats(Vec::new()),
                    FeatureType::Numbers { shape, .. } => ColumnType::Floats(shape.clone()),
                    FeatureType::Image { .. } | FeatureType::Depth { .. } => ColumnType::Picture,
                };
                let mut columns: Vec<(&str, ColumnType)> =
                    self.form.features.iter().map(|feature| (feature.name.as_str(), column(feature))).collect();
                for name in OWN {
                    let kind = if name == "timestamp" { ColumnType::Floats(Vec::new()) } else { ColumnType::Int };
                    columns.push((name, kind));
                }
                Table::create(&self.part.0.join(numbered("data", self.file)), &columns, &[])?
            }
        };
        Ok(self.data.insert(table))
    }

    fn end_file(&mut self) -> Result<(), DatasetError> {
        if let Some(table) = self.data.take() {
            table.close()?;
            self.file += 1;
        }
        Ok(())
    }

    fn write_episodes(&self) -> Result<(), DatasetError> {
        let each = |of: &dyn Fn(usize, &Written) -> usize| {
            Values::Ints(self.episodes.iter().enumerate().map(|(index, episode)| of(index, episode) as i64).collect())
        };
        let columns = [
            ("episode_index", ColumnType::Int, each(&|index, _| index)),
            (
                "tasks",
                ColumnType::TextList,
                Values::Texts(self.episodes.iter().map(|episode| episode.task.clone()).collect()),
            ),
            ("length", ColumnType::Int, each(&|_, episode| episode.frames)),
            ("data/chunk_index", ColumnType::Int, each(&|_, episode| episode.file / FOLDER_FILES)),
            ("data/file_index", ColumnType::Int, each(&|_, episode| episode.file % FOLDER_FILES)),
            ("dataset_from_index", ColumnType::Int, each(&|_, episode| episode.first)),
            ("dataset_to_index", ColumnType::Int, each(&|_, episode| episode.first + episode.frames)),
            ("meta/episodes/chunk_index", ColumnType::Int, each(&|_, _| 0)),
            ("meta/episodes/file_index", ColumnType::Int, each(&|_, _| 0)),
        ];
        let types: Vec<(&str, ColumnType)> = columns.iter().map(|(name, kind, _)| (*name, kind.clone())).collect();
        let values: Vec<&Values> = columns.iter().map(|(.., values)| values).collect();
        let mut table = Table::create(&self.part.0.join(numbered("meta/episodes", 0)), &types, &[])?;
        table.append(&values)?;
        table.close()
    }

    fn info(&self) -> Value {
        let mut features = Map::new();
        for feature in &self.form.features {
            let entry = match &feature.kind {
                FeatureType::Image { height, width } => {
                    json!({"dtype": "image", "shape": [height, width, 3], "names": ["height", "width", "channels"]})
                }
                FeatureType::Depth { height, width } => json!({
                    "dtype": "image",
                    "shape": [height, width, 1],
                    "names": ["height", "width", "channels"],
                    "info": {"is_depth_map": true, "depth_unit": "mm"},
                }),
                FeatureType::Numbers { shape, names } => {
                    let names = if names.is_empty() { Value::Null } else { json!(names) };
                    json!({"dtype": "float32", "shape": shape, "names": names})
                }
            };
            features.insert(feature.name.clone(), entry);
        }
        for name in OWN {
            let kind = if name == "timestamp" { "float32" } else { "int64" };
            features.insert(name.to_owned(), json!({"dtype": kind, "shape": [1], "names": null}));
        }
        json!({
            "codebase_version": "v3.0",
            "robot_type": self.form.robot,
            "total_episodes": self.episodes.len(),
            "total_frames": self.frames,
            "total_tasks": self.tasks.len(),
            "chunks_size": FOLDER_FILES,
            "data_files_size_in_mb": FILE_BYTES >> 20,
            "video_files_size_in_mb": 200,
            "fps": self.form.fps,
            "splits": {"train": format!("0:{}", self.episodes.len())},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": null,
            "features": features,
        })
    }

    fn stats(&self) -> Value {
        let mut stats = Map::new();
        for (feature, sum) in self.form.features.iter().zip(&self.sums) {
            let of = match (sum, &feature.kind) {
                (Sum::Pictures(counts), FeatureType::Depth { .. }) => counts.statistics(1.0, self.frames),
                (Sum::Pictures(counts), _) => counts.statistics(1.0 / 255.0, self.frames),
                (Sum::Numbers(values), FeatureType::Numbers { shape, .. }) => stats::of_numbers(values, shape),
                (Sum::Numbers(values), _) => stats::of_numbers(values, &[1]),
            };
            stats.insert(feature.name.clone(), of);
        }
        for (name, values) in &self.own {
            stats.insert((*name).to_owned(), stats::of_numbers(values, &[1]));
        }
        Value::Object(stats)
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<(), DatasetError> {
        let path = self.part.0.join(name);
        fs::write(&path, format!("{value:#}\n")).map_err(DatasetError::io(&path))
    }
}

/// Path of a numbered table.
fn numbered(folder: &str, number: usize) -> String {
    format!("{folder}/chunk-{:03}/file-{:03}.parquet", number / FOLDER_FILES, number % FOLDER_FILES)
}

/// What makes `task` the index of the tasks' table: without it lerobot reads numbers in place of texts.
fn pandas() -> String {
    let column = |name: &str, pandas: &str, numpy: &str| json!({"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": null});
    json!({
        "index_columns": ["task"],
        "column_indexes": [{"name": null, "field_name": null, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "fathom-dataset", "version": env!("CARGO_PKG_VERSION")},
        "pandas_version": "2.2.0",
    })
    .to_string()
}

/// The directory that becomes the output, and is removed if it does not.
struct PartialDirectory(PathBuf);

impl PartialDirectory {
    /// Makes it beside `output`, and removes those that killed processes left.
    fn create(output: &Path) -> Result<PartialDirectory, DatasetError> {
        let name = output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(DatasetError::io(parent))?;
        let prefix = format!(".{name}.part-");
        for entry in fs::read_dir(parent).map_err(DatasetError::io(parent))?.flatten() {
            let of = entry.file_name().to_string_lossy().strip_prefix(&prefix).and_then(|id| id.parse::<u32>().ok());
            if of.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
                fs::remove_dir_all(entry.path()).map_err(DatasetError::io(&entry.path()))?;
            }
        }
        let path = parent.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&path).map_err(DatasetError::io(&path))?;
        Ok(PartialDirectory(path))
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        // It is not there any more when it became the output.
        drop(fs::remove_dir_all(&self.0));
    }
}
