//! Episodes on several threads, each with a policy of its own.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use fathom::config::RobotConfig;
use fathom::control::{Conditions, DepthErrors, RunError, Simulator};
use fathom::gpu::AdapterKind;
use fathom::scene::{Expert, Random, Scene, SceneError, Task, TaskKind, World};

use crate::result::Trial;

/// Stream of the seed that draws an episode's start.
const START_STREAM: u64 = 0x5747;

/// The adapter of the policies: its name, whether it is a software driver, and its kernels.
pub(crate) type Adapter = (String, bool, String);

/// One episode to run.
pub(crate) struct Job {
    pub(crate) scene: Arc<Scene>,
    pub(crate) task: Task,
    pub(crate) kind: TaskKind,
    pub(crate) seed: u64,
}

/// The result of one episode: its figures, and the errors of its depth maps.
pub(crate) type Done = (Trial, [DepthErrors; 2]);

/// What one thread tells.
enum Message {
    Opened(Option<Adapter>),
    Done(usize, Box<Done>),
    Failed(Failure),
}

/// Why the episodes ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// An episode without task or result: a bug.
    #[error("episode {0} did not run")]
    Missing(usize),
}

/// How episodes are run.
pub(crate) struct Workers<'a> {
    pub(crate) config: &'a RobotConfig,
    /// Steps of the expert's chunks, where it acts in the policy's place.
    pub(crate) expert: Option<usize>,
    pub(crate) conditions: &'a Conditions,
    pub(crate) threads: usize,
}

impl Workers<'_> {
    /// Runs the episodes that `job` gives for 0 to `count`, and calls `note` after each, in the order in which they end. The
    /// results are in the order of the numbers and do not depend on `threads`.
    pub(crate) fn run(
        &self,
        count: usize,
        job: impl Fn(usize) -> Result<Job, Failure> + Sync,
        mut note: impl FnMut(&Trial),
    ) -> Result<(Option<Adapter>, Vec<Done>), Box<dyn Error>> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = channel();
        let mut results: Vec<Option<Done>> = (0..count).map(|_| None).collect();
        let (mut adapter, mut failure) = (None, None);
        thread::scope(|scope| {
            for _ in 0..self.threads.min(count) {
                let (sender, next, job) = (sender.clone(), &next, &job);
                scope.spawn(move || {
                    if let Err(error) = self.work(next, count, job, &sender) {
                        // The others end with their present episode.
                        next.store(count, Ordering::Relaxed);
                        // The receiver lives as long as the scope.
                        let _ = sender.send(Message::Failed(error));
                    }
                });
            }
            drop(sender);
            for message in receiver {
                match message {
                    Message::Opened(opened) => adapter = adapter.take().or(opened),
                    Message::Done(number, done) => {
                        note(&done.0);
                        if let Some(place) = results.get_mut(number) {
                            *place = Some(*done);
                        }
                    }
                    Message::Failed(error) => failure = failure.take().or(Some(error)),
                }
            }
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        let results = results.into_iter().enumerate().map(|(number, done)| done.ok_or(Failure::Missing(number)));
        Ok((adapter, results.collect::<Result<_, _>>()?))
    }

    /// Takes episodes until there are no more.
    fn work(
        &self,
        next: &AtomicUsize,
        count: usize,
        job: &(impl Fn(usize) -> Result<Job, Failure> + Sync),
        sender: &Sender<Message>,
    ) -> Result<(), Failure> {
        let mut simulator = match self.expert {
            Some(horizon) => Simulator::expert(self.config.clone(), horizon)?,
            None => Simulator::open(self.config.clone())?,
        };
        let adapter = simulator.policy().map(|policy| {
            let info = policy.adapter();
            (info.to_string(), info.kind == AdapterKind::Software, policy.choice().to_string())
        });
        // The receiver lives as long as the scope.
        let _ = sender.send(Message::Opened(adapter));
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let job = job(number)?;
            let mut world = World::new(Arc::clone(&job.scene));
            let expert = Expert::new(Arc::clone(&job.scene))?;
            world.place(&expert.random_start(&mut Random::stream(job.seed, START_STREAM)))?;
            let conditions = Conditions { seed: job.seed, ..self.conditions.clone() };
            let episode = simulator.episode(world, &job.task, &conditions)?;
            let done = (Trial::of(&job, &episode), episode.depth);
            let _ = sender.send(Message::Done(number, Box::new(done)));
        }
    }
}
