//! Reading a recording back.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::mcap::{self, Broken, Message};
use super::{RecordError, files_of, image, schema};
use crate::camera::Image;

/// One message of a recording.
#[derive(Clone, Debug)]
pub enum Moment {
    /// What ran on what.
    Run(schema::RunNote),
    /// An image that the next observation has.
    Image {
        /// The view.
        view: String,
        /// Its pixels; stamps are in the observation.
        image: Image,
    },
    /// What an inference was given.
    Observation(schema::Observation),
    /// What the model made of it.
    Inference(schema::Inference),
    /// What was sent.
    Chunk(schema::Chunk),
    /// What the controller answered.
    Ack(schema::Ack),
    /// What the controller reported.
    State(schema::State),
    /// What happened to the loop.
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
        Ok(Recording { files: files_of(path)? })
    }

    /// The files in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Gives every message in order to `take`, until it says `false`.
    ///
    /// # Errors
    /// [`RecordError`] for a file that is not one, or a message that is not what its topic says; those of `take`.
    pub fn each<E: From<RecordError>>(&self, mut take: impl FnMut(Moment) -> Result<bool, E>) -> Result<(), E> {
        for path in &self.files {
            let broken = |problem: String| RecordError::Broken { path: path.clone(), problem };
            let bytes = std::fs::read(path).map_err(|source| RecordError::Io { path: path.clone(), source })?;
            let messages = mcap::read(&bytes).map_err(|problem| {
                broken(
                    match problem {
                        Broken::Magic => "something else than MCAP",
                        Broken::Compressed => "compressed chunks",
                        Broken::Checksum => "a chunk with a wrong checksum",
                    }
                    .to_owned(),
                )
            })?;
            for message in messages {
                let Some(moment) = moment(&message).map_err(broken)? else { continue };
                if !take(moment)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// All messages but the images.
    ///
    /// # Errors
    /// As [`each`](Self::each).
    pub fn moments(&self) -> Result<Vec<Moment>, RecordError> {
        let mut moments = Vec::new();
        self.each(|moment| {
            if !matches!(moment, Moment::Image { .. }) {
                moments.push(moment);
            }
            Ok::<_, RecordError>(true)
        })?;
        Ok(moments)
    }
}

/// `None` for a topic that is not Fathom's.
fn moment(message: &Message<'_>) -> Result<Option<Moment>, String> {
    fn json<T: DeserializeOwned>(message: &Message<'_>) -> Result<T, String> {
        serde_json::from_slice(message.data).map_err(|e| format!("in {}: {e}", message.topic))
    }
    Ok(Some(match message.topic {
        schema::RUN => Moment::Run(json(message)?),
        schema::OBSERVATION => Moment::Observation(json(message)?),
        schema::INFERENCE => Moment::Inference(json(message)?),
        schema::CHUNK => Moment::Chunk(json(message)?),
        schema::ACK => Moment::Ack(json(message)?),
        schema::STATE => Moment::State(json(message)?),
        schema::LOG => Moment::Log(json(message)?),
        topic => {
            let Some(view) = topic.strip_prefix("/camera/") else { return Ok(None) };
            let image = image::decode(message.data).ok_or_else(|| format!("no image in {topic}"))?;
            Moment::Image { view: view.to_owned(), image }
        }
    }))
}
