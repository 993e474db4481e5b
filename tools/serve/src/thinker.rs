//! The thread that owns the policy: one inference after the other, in the order in which they were asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use fathom::policy::{Observation, Policy, PolicyOutput};
use rustix::fd::OwnedFd;

use crate::request::Observed;

/// An inference that a client waits for.
pub(crate) struct Job {
    pub(crate) observed: Observed,
    /// The client is gone.
    pub(crate) gone: Arc<AtomicBool>,
    pub(crate) answer: Sender<Result<Thought, String>>,
    /// Written when the answer is there.
    pub(crate) ready: Arc<OwnedFd>,
}

/// An inference's result.
pub(crate) struct Thought {
    pub(crate) output: PolicyOutput,
    pub(crate) milliseconds: f64,
}

/// Answers jobs until there are no more senders. `seed` is that of the first inference; each takes the next.
pub(crate) fn think(mut policy: Policy, jobs: &Receiver<Job>, mut seed: u64) {
    while let Ok(job) = jobs.recv() {
        if job.gone.load(Ordering::Relaxed) {
            continue;
        }
        let began = Instant::now();
        let inferred = infer(&mut policy, &job.observed, seed);
        let milliseconds = began.elapsed().as_secs_f64() * 1e3;
        seed = seed.wrapping_add(1);
        if let Err(error) = &inferred {
            tracing::warn!(error, "an inference failed");
        }
        // A client that is gone needs no answer.
        let _ = job.answer.send(inferred.map(|output| Thought { output, milliseconds }));
        let _ = rustix::io::write(&*job.ready, &1_u64.to_ne_bytes());
    }
}

pub(crate) fn infer(policy: &mut Policy, observed: &Observed, seed: u64) -> Result<PolicyOutput, String> {
    let mut observation = Observation::new(&observed.prompt).state(&observed.state).seed(seed);
    for (view, image) in &observed.images {
        observation = observation.image(view, image);
    }
    policy.infer(&observation).map_err(|error| fathom_models::messages(&error).join(": "))
}
