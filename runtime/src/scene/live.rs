//! A world that follows an arm in real time.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::camera::JointSource;
use super::math::Pose;
use super::world::World;

/// Between two readings of the arm.
const TICK: Duration = Duration::from_millis(5);

/// What follows the world: it is told where the moving jaw is stopped by an object, in radians.
pub type Stop = Box<dyn Fn(Option<f32>) + Send>;

/// A [`World`] whose joints are read from an arm every few milliseconds, on a thread of its own, so that no grasp is missed
/// between two images. It ends with the last handle.
#[derive(Debug, Clone)]
pub struct LiveWorld {
    shared: Arc<Shared>,
}

struct Shared {
    world: Arc<Mutex<World>>,
    joints: Arc<dyn JointSource>,
    ended: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl LiveWorld {
    /// The world, following `joints` from now on. `stop` hears at each reading where the moving jaw is stopped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut world: World, joints: Arc<dyn JointSource>, stop: Stop) -> std::io::Result<Self> {
        let mut positions = world.joints().to_vec();
        joints.positions(&mut positions);
        // A position that is no number is refused by the cameras, which name it; the world stays as it is.
        let _ = world.place(&positions);
        let (world, ended) = (Arc::new(Mutex::new(world)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (world, ended, joints) = (Arc::clone(&world), Arc::clone(&ended), Arc::clone(&joints));
            thread::Builder::new().name("scene-world".to_owned()).spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    joints.positions(&mut positions);
                    let stopped = {
                        let mut world = lock(&world);
                        let _ = world.advance(&positions);
                        world.held().map(|held| held.stop_rad)
                    };
                    stop(stopped);
                    thread::sleep(TICK);
                }
            })?
        };
        Ok(Self { shared: Arc::new(Shared { world, joints, ended, thread: Mutex::new(Some(thread)) }) })
    }

    /// The world as it is now.
    #[must_use]
    pub fn now(&self) -> World {
        lock(&self.shared.world).clone()
    }
}

impl JointSource for LiveWorld {
    fn positions(&self, into: &mut [f32]) {
        into.iter_mut().zip(lock(&self.shared.world).joints()).for_each(|(to, from)| *to = *from);
    }

    fn snapshot(&self, into: &mut [f32], objects: &mut [Pose]) {
        let mut world = lock(&self.shared.world);
        // The arm as it is at this instant, not as it was at the last reading.
        self.shared.joints.positions(into);
        if world.advance(into).is_err() {
            // The camera names the position that is no number.
            return;
        }
        into.iter_mut().zip(world.joints()).for_each(|(to, from)| *to = *from);
        objects.iter_mut().zip(world.objects()).for_each(|(to, from)| *to = *from);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
