//! Replay of a folder of pictures, or of a video as its numbered pictures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::picture::PictureReader;
use super::{Camera, CameraError, Image, StampSource};
use crate::clock::{Pace, monotonic_ns};

/// The pictures to replay, and the rate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderConfig {
    /// Folder with `*.png`, `*.jpg` and `*.jpeg` files.
    pub folder: PathBuf,
    /// Pictures per second, as if the folder were a camera: a late caller gets the current picture and misses earlier
    /// ones. At 0 every capture gets the next picture at once.
    #[serde(default)]
    pub rate_hz: f32,
    /// Whether to start again after the last picture.
    #[serde(default)]
    pub repeat: bool,
}

/// Replays the pictures of a folder in the order of their names.
///
/// Numbers in names sort by value, so `image-9.png` comes before `image-10.png`.
#[derive(Debug)]
pub struct FolderCamera {
    name: String,
    pictures: Vec<PathBuf>,
    repeat: bool,
    rate_hz: f32,
    pace: Pace,
    reader: PictureReader,
}

impl FolderCamera {
    /// Lists the folder's pictures without reading them.
    ///
    /// # Errors
    /// [`CameraError::Absent`] if the folder does not exist, [`CameraError::NoPictures`] if it has no picture,
    /// [`CameraError::Io`] if it cannot be read.
    pub fn open(config: &FolderConfig) -> Result<Self, CameraError> {
        let name = config.folder.display().to_string();
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => CameraError::Absent { device: name.clone() },
            _ => CameraError::Io { device: name.clone(), doing: "listing the folder", source },
        };
        let mut pictures = Vec::new();
        for entry in std::fs::read_dir(&config.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if PictureReader::reads(&path) && path.is_file() {
                pictures.push(path);
            }
        }
        if pictures.is_empty() {
            return Err(CameraError::NoPictures { folder: config.folder.clone() });
        }
        pictures.sort_by_cached_key(|path| sort_key(path));
        Ok(Self {
            name,
            pictures,
            repeat: config.repeat,
            rate_hz: config.rate_hz,
            pace: Pace::new(config.rate_hz),
            reader: PictureReader::default(),
        })
    }

    /// The files in the order of replay.
    #[must_use]
    pub fn pictures(&self) -> &[PathBuf] {
        &self.pictures
    }
}

impl Camera for FolderCamera {
    fn describe(&self) -> String {
        let count = self.pictures.len();
        let end = if self.repeat { "repeated" } else { "once" };
        if self.rate_hz > 0.0 {
            format!("replay of {}: {count} pictures at {} Hz, {end}", self.name, self.rate_hz)
        } else {
            format!("replay of {}: {count} pictures, one for each capture, {end}", self.name)
        }
    }

    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError> {
        let Some(sequence) = self.pace.wait(timeout) else {
            return Err(CameraError::Silent { device: self.name.clone(), timeout });
        };
        let count = self.pictures.len();
        let number = usize::try_from(sequence).unwrap_or(usize::MAX);
        let index = if self.repeat { number % count.max(1) } else { number };
        let Some(path) = self.pictures.get(index) else {
            return Err(CameraError::Ended { device: self.name.clone(), pictures: count });
        };
        let stamp_ns = monotonic_ns();
        self.reader.read(path, into)?;
        into.stamp_ns = stamp_ns;
        into.stamp = StampSource::Host;
        into.dequeued_ns = monotonic_ns();
        into.sequence = sequence;
        Ok(())
    }
}

/// A part of a file name; numbers compare by value and come before text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NamePart {
    Number(u128),
    Text(String),
}

/// The name split into numbers and text, and the whole name, which decides between `1` and `01`.
fn sort_key(path: &Path) -> (Vec<NamePart>, PathBuf) {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut parts = Vec::new();
    let mut rest = name.as_ref();
    while let Some(first) = rest.chars().next() {
        let number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != number).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        parts.push(match part.parse() {
            Ok(value) if number => NamePart::Number(value),
            _ => NamePart::Text(part.to_owned()),
        });
        rest = after;
    }
    (parts, path.to_owned())
}
