//! A camera on its own thread: it always has the newest image and never blocks the loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::core::ImageStatus;
use crate::camera::{Camera, CameraError, Image};
use crate::clock::HostNs;
use crate::events::{Events, LoopEvent};
use crate::waker::Waker;

/// A camera without an image for this long is an error.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an error, so that a missing camera does not use a whole core.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Latest {
    image: Image,
    depth: Vec<f32>,
    count: u64,
    error: Option<Arc<CameraError>>,
}

/// A running camera.
#[derive(Debug)]
pub(super) struct CameraThread {
    shared: Arc<(Mutex<Latest>, Condvar)>,
    exit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn lock(latest: &Mutex<Latest>) -> MutexGuard<'_, Latest> {
    // The lock's holder only swaps and copies: the image is whole even after a panic.
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image with all its pixels.
fn capture(camera: &mut dyn Camera, view: &str, image: &mut Image) -> Result<(), CameraError> {
    camera.capture(image, TIMEOUT)?;
    image.check(view)
}

impl CameraThread {
    /// Starts capturing; `waker` is woken by each image and each failure.
    pub(super) fn start(
        view: &str,
        mut camera: Box<dyn Camera>,
        waker: Waker,
        events: Events,
    ) -> std::io::Result<CameraThread> {
        let shared = Arc::new((Mutex::new(Latest::default()), Condvar::new()));
        let exit = Arc::new(AtomicBool::new(false));
        let (theirs, stop) = (Arc::clone(&shared), Arc::clone(&exit));
        let view = view.to_owned();
        let thread = thread::Builder::new().name(format!("camera {view}")).spawn(move || {
            let mut image = Image::default();
            let mut failing = false;
            // Unusable images that the source did not count itself.
            let mut uncounted = 0;
            while !stop.load(Ordering::Relaxed) {
                let counted = camera.refused();
                match capture(&mut *camera, &view, &mut image) {
                    Ok(()) => {
                        let mut latest = lock(&theirs.0);
                        std::mem::swap(&mut latest.image, &mut image);
                        if let Some(depth) = camera.true_depth() {
                            latest.depth.clear();
                            latest.depth.extend_from_slice(depth);
                        }
                        latest.count += 1;
                        latest.error = None;
                        drop(latest);
                        theirs.1.notify_all();
                        waker.wake();
                        if failing {
                            events.emit(LoopEvent::ImagesAgain { view: view.clone() });
                        }
                        failing = false;
                    }
                    Err(error) => {
                        let error = Arc::new(error);
                        if !failing {
                            events.emit(LoopEvent::NoImage { view: view.clone(), error: Arc::clone(&error) });
                        }
                        failing = true;
                        if error.is_of_an_image() && camera.refused() == counted {
                            uncounted += 1;
                        }
                        // Retry a working camera at once, a missing one after a pause.
                        let pause = !error.is_of_an_image();
                        lock(&theirs.0).error = Some(error);
                        theirs.1.notify_all();
                        waker.wake();
                        if pause {
                            thread::sleep(PAUSE);
                        }
                    }
                }
            }
            let images = lock(&theirs.0).count;
            tracing::info!(view, images, not_used = camera.refused() + uncounted, "camera closed");
        })?;
        Ok(CameraThread { shared, exit, thread: Some(thread) })
    }

    /// Waits for the first image.
    pub(super) fn first(&self, into: &mut Image, timeout: Duration) -> Result<(), Option<Arc<CameraError>>> {
        let (latest, changed) = &*self.shared;
        let waiting = |l: &mut Latest| l.count == 0 && l.error.is_none();
        let guard = changed.wait_timeout_while(lock(latest), timeout, waiting);
        let mut latest = guard.unwrap_or_else(PoisonError::into_inner).0;
        if latest.count == 0 {
            return Err(latest.error.take());
        }
        into.clone_from(&latest.image);
        Ok(())
    }

    /// Copies the newest image into `into`, whose memory is reused.
    pub(super) fn newest(&self, into: &mut Image) {
        let latest = lock(&self.shared.0);
        let mut data = std::mem::take(&mut into.data);
        data.clear();
        data.extend_from_slice(&latest.image.data);
        let Image { format, width, height, stride, stamp_ns, stamp, dequeued_ns, sequence, .. } = latest.image;
        *into = Image { format, width, height, stride, data, stamp_ns, stamp, dequeued_ns, sequence };
    }

    /// The camera's state.
    pub(super) fn status(&self) -> ImageStatus {
        let latest = lock(&self.shared.0);
        // After a time-out or a broken image, the age of the last good one decides.
        let gone = latest.error.as_ref().is_some_and(|error| !error.is_passing());
        ImageStatus { taken: HostNs(latest.image.stamp_ns), gone }
    }

    /// True depth of the newest image in metres, if the source has it.
    pub(super) fn depth(&self) -> Vec<f32> {
        lock(&self.shared.0).depth.clone()
    }
}

impl Drop for CameraThread {
    fn drop(&mut self) {
        self.exit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within one capture's time-out; a panic has already been printed.
            let _ = thread.join();
        }
    }
}
