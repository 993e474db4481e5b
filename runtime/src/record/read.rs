//! Reads a recording back: all of its intact messages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::damage::{self, Cause, Causes, Incomplete};
use super::mcap::{self, Channels, Message, Stopped};
use super::{RecordError, RunNote, folder, image, schema, wall_ns};
use crate::camera::Image;

/// One message of a recording.
#[derive(Clone, Debug)]
pub enum Moment {
    /// The start of a file.
    File(PathBuf),
    /// The model and the adapter of the run.
    Run(schema::RunNote),
    /// An image of the next observation.
    Image {
        /// The view.
        view: String,
        /// Its pixels; stamps are in the observation.
        image: Image,
    },
    /// The inputs of an inference, after all of its images.
    Observation(schema::Observation),
    /// The outputs of an inference.
    Inference(schema::Inference),
    /// A chunk that was sent.
    Chunk(schema::Chunk),
    /// The controller's verdict.
    Ack(schema::Ack),
    /// The controller's report.
    State(schema::State),
    /// An event of the loop.
    Log(schema::Log),
}

/// A recording: a file, or all files of a folder.
#[derive(Debug)]
pub struct Recording {
    files: Vec<PathBuf>,
}

impl Recording {
    /// Finds the files.
    ///
    /// # Errors
    /// [`RecordError::Io`], and [`RecordError::Broken`] for a folder without one.
    pub fn open(path: &Path) -> Result<Recording, RecordError> {
        if !path.is_dir() {
            return Ok(Recording { files: vec![path.to_owned()] });
        }
        let files = folder::recordings(path).map_err(|source| RecordError::Io { path: path.to_owned(), source })?;
        if files.is_empty() {
            let problem = "a folder without *.mcap".to_owned();
            return Err(RecordError::Broken { path: path.to_owned(), problem });
        }
        Ok(Recording { files })
    }

    /// The files in order: by the numbers of their runs, then files with other names.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Passes every message in order to `take`, until it returns `false`. Returns the files that were not read whole,
    /// with the causes; their intact messages were passed.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each<E>(&self, mut take: impl FnMut(Moment) -> Result<bool, E>) -> Result<Vec<Incomplete>, E> {
        let mut incomplete = Vec::new();
        let mut last = None;
        for path in &self.files {
            let mut causes = Causes::default();
            let mut reading = FileReader::of(path, last.take());
            let on = reading.file(path, &mut causes, &mut take)?;
            last = reading.run.zip(reading.note);
            if !causes.is_empty() {
                incomplete.push(Incomplete { path: path.clone(), causes });
            }
            if !on {
                break;
            }
        }
        Ok(incomplete)
    }

    /// All messages except the images.
    ///
    /// # Errors
    /// [`RecordError::Unreadable`] if the recording is unreadable.
    pub fn moments(&self) -> Result<Vec<Moment>, RecordError> {
        let mut moments = Vec::new();
        let incomplete = self.each(|moment| {
            if !matches!(moment, Moment::Image { .. } | Moment::File(_)) {
                moments.push(moment);
            }
            Ok::<_, RecordError>(true)
        })?;
        if moments.is_empty() && !incomplete.is_empty() {
            return Err(RecordError::Unreadable(damage::list(&incomplete)));
        }
        Ok(moments)
    }
}

/// State of reading one file.
struct FileReader {
    /// The number of its run, if its name has one.
    run: Option<folder::Run>,
    /// Its run, from this file, or from the previous file if the name shows the same run.
    note: Option<RunNote>,
    /// Images of the next observation, with their times in the file.
    images: BTreeMap<String, (u64, Image)>,
    /// Whether there are messages without a run note.
    orphans: bool,
}

impl FileReader {
    fn of(path: &Path, last: Option<(folder::Run, RunNote)>) -> FileReader {
        let run = folder::Name::of(path).map(|name| name.run);
        let note = last.filter(|(last, _)| Some(*last) == run).map(|(_, note)| note);
        FileReader { run, note, images: BTreeMap::new(), orphans: false }
    }

    /// Passes a file's messages to `take`; returns whether to continue.
    fn file<E>(
        &mut self,
        path: &Path,
        causes: &mut Causes,
        take: &mut impl FnMut(Moment) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let file = match open(path) {
            Ok(file) => file,
            Err(cause) => {
                causes.add(cause);
                return Ok(true);
            }
        };
        let mut on = take(Moment::File(path.to_owned()))?;
        let mut ours = false;
        if on {
            let done = mcap::read(BufReader::new(file), causes, &mut |message, channels, causes| {
                let Some(moment) = moment(&message, causes) else { return Ok(true) };
                ours = true;
                on = self.message(moment, message.log_ns, channels, causes, take)?;
                Ok(on)
            });
            match done {
                Ok(()) => {}
                Err(Stopped::Io(error)) => causes.add(error.into()),
                Err(Stopped::Taken(error)) => return Err(error),
            }
        }
        let foreign = !ours && !causes.first().iter().any(Cause::identifies_the_file);
        if on && (self.orphans || foreign) {
            causes.add(Cause::NoRun);
        }
        Ok(on)
    }

    fn message<E>(
        &mut self,
        moment: Moment,
        log_ns: u64,
        channels: &Channels,
        causes: &mut Causes,
        take: &mut impl FnMut(Moment) -> Result<bool, E>,
    ) -> Result<bool, E> {
        match moment {
            Moment::Run(note) => {
                for topic in schema::topics(&note).filter(|topic| !channels.values().any(|known| known == topic)) {
                    causes.add(Cause::NoTopic { topic });
                }
                self.note = Some(note.clone());
                take(Moment::Run(note))
            }
            _ if self.note.is_none() => {
                self.orphans = true;
                Ok(true)
            }
            Moment::Image { view, image } => {
                self.images.insert(view, (log_ns, image));
                Ok(true)
            }
            Moment::Observation(observation) => self.observation(observation, causes, take),
            other => take(other),
        }
    }

    /// Passes an observation and its images to `take`, if all images exist: an older image in place of a lost one would
    /// make a false observation.
    fn observation<E>(
        &mut self,
        observation: schema::Observation,
        causes: &mut Causes,
        take: &mut impl FnMut(Moment) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut images = std::mem::take(&mut self.images);
        let Some(note) = &self.note else { return Ok(true) };
        let lacks = |view: &&String| !observation.views.iter().any(|seen| seen.view == **view);
        if let Some(view) = note.views.iter().find(lacks) {
            causes.add(Cause::NoImage { view: view.clone() });
            return Ok(true);
        }
        let mut its = Vec::new();
        for view in &observation.views {
            match images.remove(&view.view) {
                Some((log_ns, image)) if log_ns == wall_ns(view.stamp_ns, note.realtime_offset_ns) => {
                    its.push(Moment::Image { view: view.view.clone(), image });
                }
                _ => {
                    causes.add(Cause::NoImage { view: view.view.clone() });
                    return Ok(true);
                }
            }
        }
        for image in its {
            if !take(image)? {
                return Ok(false);
            }
        }
        take(Moment::Observation(observation))
    }
}

/// Opens a regular file. Does not block on other files, such as a pipe without a writer.
fn open(path: &Path) -> Result<File, Cause> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() {
        return Ok(File::open(path)?);
    }
    Err(Cause::NoFile(if kind.is_dir() { "a folder" } else { "a device or pipe" }))
}

/// `None` for a topic that is not Fathom's, and for a message that does not match its topic.
fn moment(message: &Message<'_>, causes: &mut Causes) -> Option<Moment> {
    fn json<T: DeserializeOwned>(message: &Message<'_>) -> Result<T, String> {
        serde_json::from_slice(message.data).map_err(|e| e.to_string())
    }
    let found = match message.topic {
        schema::RUN => json(message).map(Moment::Run),
        schema::OBSERVATION => json(message).map(Moment::Observation),
        schema::INFERENCE => json(message).map(Moment::Inference),
        schema::CHUNK => json(message).map(Moment::Chunk),
        schema::ACK => json(message).map(Moment::Ack),
        schema::STATE => json(message).map(Moment::State),
        schema::LOG => json(message).map(Moment::Log),
        topic => {
            let view = topic.strip_prefix("/camera/")?;
            let image = image::decode(message.data).ok_or_else(|| "no image".to_owned());
            image.map(|image| Moment::Image { view: view.to_owned(), image })
        }
    };
    found.map_err(|problem| causes.add(Cause::Message { topic: message.topic.to_owned(), problem })).ok()
}
