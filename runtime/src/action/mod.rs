//! Turns the model's chunks into the steps that the controller executes, as a pure function of the controller's own
//! count.
//!
//! The controller numbers each step that it consumes: the *count*. Step 0 of a chunk has the controller's count at the
//! time of the images, so all chunks lie on one grid whatever the model's delay is. The delay of an inference is the
//! number of steps consumed since then, not a time. While the controller consumes no step, the count stays the same.
//! All times are the controller's clock.

use std::collections::VecDeque;
use std::sync::Arc;

use fathom_models::processing::guidance::{Guide, Schedule};
use firmware_bridge::message::Progress;
use serde::Deserialize;

use crate::clock::ControllerUs;

mod ensemble;
pub mod smoothness;

use ensemble::Ensemble;

/// Number of past delays from which the next one is estimated.
const DELAYS: usize = 10;
/// Number of kept reports of the controller, 5 s of its fastest telemetry.
const REPORTS: usize = 1024;

/// The joining of a chunk with the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum ChunkPolicy {
    /// The newer chunk replaces the older one.
    #[default]
    Replace,
    /// Each step is the mean of all chunks that have it, weighted by `exp(−decay · n)`, the oldest having n = 0.
    Ensemble {
        /// 0: equal weights; negative: newer chunks weigh more.
        #[serde(default = "ensemble_decay")]
        decay: f32,
    },
    /// Real-time chunking: the flow is drawn towards the rest of the previous chunk.
    Rtc {
        /// Steps from the controller's current one to the first unconstrained one, lerobot's `execution_horizon`.
        #[serde(default = "rtc_horizon")]
        horizon: usize,
        /// Shape of the weights.
        #[serde(default)]
        schedule: Schedule,
        /// Bound on a flow step's share, lerobot's `max_guidance_weight`.
        #[serde(default = "rtc_most")]
        max_guidance: f32,
    },
}

fn ensemble_decay() -> f32 {
    0.01
}

fn rtc_horizon() -> usize {
    10
}

fn rtc_most() -> f32 {
    10.0
}

/// Parameters of a planner.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The joining of a chunk with the previous one.
    pub policy: ChunkPolicy,
    /// Joints of a step.
    pub joints: usize,
    /// Steps of the model's chunk.
    pub horizon: usize,
    /// Steps of a chunk that are sent, from its step 0; at most `horizon`.
    pub execution_horizon: usize,
    /// Consumed steps of a chunk before the next inference starts.
    pub replan_steps: u64,
    /// Time between steps.
    pub period_us: u32,
    /// No step is executed later than this after its images were taken.
    pub validity_us: u64,
}

/// The state from which an inference starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferenceStart {
    /// The count when the images were taken.
    pub count: u64,
    /// Time of the images.
    pub taken: ControllerUs,
    /// Whether a chunk was in progress.
    pub following: bool,
    /// The target of real-time chunking's guidance.
    pub guide: Option<Guide>,
}

/// A chunk to send.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planned {
    /// Its number.
    pub id: u32,
    /// Count of its step 0.
    pub base: u64,
    /// Consumed steps.
    pub delay: u64,
    /// Time of its step 0.
    pub start: ControllerUs,
    /// No step is executed later than this after the start.
    pub validity_us: u32,
    /// `(execution_horizon, joints)`
    pub positions: Vec<f32>,
}

/// The reason for not sending a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// The controller consumed as many steps as the chunk has.
    #[error("all {steps} steps of the chunk have passed: {delay} were executed since its images were taken")]
    Over {
        /// Steps consumed since the images were taken.
        delay: u64,
        /// Steps of the chunk.
        steps: u64,
    },
    /// Its images are too old.
    #[error("its images are {age_ms} ms old, and steps are valid for {validity_ms} ms")]
    Old {
        /// Age of the images.
        age_ms: u64,
        /// Time for which steps are valid after their images.
        validity_ms: u64,
    },
}

/// The chunk in progress.
#[derive(Debug)]
struct Followed {
    chunk: Arc<Planned>,
    /// Count at its first step.
    taken: u64,
    /// Whether the controller reported it.
    seen: bool,
}

/// Plans chunks.
#[derive(Debug)]
pub struct Planner {
    rules: Rules,
    next_id: u32,
    count: u64,
    followed: Option<Followed>,
    /// Number and base of the previous chunk: reports in transit may still refer to it.
    before: Option<(u32, u64)>,
    pending: Option<Arc<Planned>>,
    /// Counts by time, in order.
    reports: VecDeque<(ControllerUs, u64)>,
    delays: VecDeque<u64>,
    ensemble: Ensemble,
}

impl Planner {
    /// A planner without a chunk.
    pub fn new(rules: Rules) -> Planner {
        let decay = if let ChunkPolicy::Ensemble { decay } = rules.policy { decay } else { 0.0 };
        Planner {
            ensemble: Ensemble::new(rules.joints, decay),
            rules,
            next_id: 1,
            count: 0,
            followed: None,
            before: None,
            pending: None,
            reports: VecDeque::with_capacity(REPORTS),
            delays: VecDeque::with_capacity(DELAYS),
        }
    }

    /// Steps that the controller consumed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the controller follows a chunk.
    pub fn following(&self) -> bool {
        self.followed.is_some()
    }

    /// Takes a report: the controller's position at `made`, and whether a chunk is in progress.
    pub fn reported(&mut self, made: ControllerUs, active: bool, progress: Option<Progress>) {
        match (progress, &mut self.followed) {
            (Some(progress), _) if self.pending.as_ref().is_some_and(|p| p.id == progress.chunk) => {
                // The acknowledgement was lost.
                self.take_over(u64::from(progress.consumed));
                self.count = self.count.max(self.base_of(progress.chunk) + u64::from(progress.consumed));
            }
            (Some(progress), Some(followed)) if followed.chunk.id == progress.chunk => {
                followed.seen = true;
                self.count = self.count.max(followed.chunk.base + u64::from(progress.consumed));
                if !active {
                    self.rest();
                }
            }
            (Some(progress), _) if self.before.is_some_and(|(id, _)| id == progress.chunk) => {
                self.count = self.count.max(self.base_of(progress.chunk) + u64::from(progress.consumed));
            }
            // A chunk without a report may not have started.
            (None, Some(followed)) if followed.seen => self.rest(),
            _ => {}
        }
        if self.reports.len() == REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back((made, self.count));
    }

    fn rest(&mut self) {
        if let Some(Followed { chunk, .. }) = self.followed.take() {
            self.before = Some((chunk.id, chunk.base));
        }
    }

    fn base_of(&self, id: u32) -> u64 {
        match (&self.followed, self.before) {
            (Some(followed), _) if followed.chunk.id == id => followed.chunk.base,
            (_, Some((before, base))) if before == id => base,
            _ => self.count,
        }
    }

    fn steps(&self) -> u64 {
        self.rules.execution_horizon as u64
    }

    /// Whether the next inference is due.
    pub fn wants(&self) -> bool {
        let consumed = self.followed.as_ref().map(|f| self.count.saturating_sub(f.taken));
        self.pending.is_none() && consumed.is_none_or(|steps| steps >= self.rules.replan_steps)
    }

    /// The start of an inference whose images were taken at `taken`.
    pub fn start_at(&self, taken: ControllerUs) -> InferenceStart {
        let known = self.reports.partition_point(|(made, _)| *made <= taken);
        // If the images are older than every report, use the oldest report.
        let report = self.reports.get(known.saturating_sub(1)).or(self.reports.front());
        let count = report.map_or(self.count, |(_, count)| *count);
        let guide = match (self.rules.policy, &self.followed) {
            (ChunkPolicy::Rtc { horizon, schedule, max_guidance }, Some(followed)) => {
                let over = count.saturating_sub(followed.chunk.base) as usize * self.rules.joints;
                let left = followed.chunk.positions.get(over..).unwrap_or_default().to_vec();
                let guide = Guide { left, delay: self.expected_delay(), horizon, schedule, most: max_guidance };
                Some(guide).filter(|g| !g.left.is_empty())
            }
            _ => None,
        };
        InferenceStart { count, taken, following: self.followed.is_some(), guide }
    }

    /// Steps that can no longer change when the chunk of an inference that starts now arrives: the longest of the
    /// recent delays, plus the step in progress. Before the first delay is known, half of the steps that are sent.
    fn expected_delay(&self) -> usize {
        let longest = self.delays.iter().max().map(|d| *d as usize + 1);
        longest.unwrap_or(self.rules.execution_horizon.div_ceil(2))
    }

    /// The chunk to send at `now`, from an inference from `start`; `actions (horizon, joints)` are in the robot's
    /// units. `limit` keeps its positions within the joints' limits.
    ///
    /// # Errors
    /// [`Late`] if no step of it is still valid.
    pub fn plan(
        &mut self,
        start: &InferenceStart,
        actions: &[f32],
        now: ControllerUs,
        limit: impl FnOnce(&mut [f32]),
    ) -> Result<Arc<Planned>, Late> {
        let Rules { joints, period_us, validity_us, .. } = self.rules;
        let (steps, period) = (self.steps(), u64::from(period_us));
        let delay = self.count.saturating_sub(start.count);
        if start.following {
            if self.delays.len() == DELAYS {
                self.delays.pop_front();
            }
            self.delays.push_back(delay);
        }
        if self.followed.is_none() {
            // Predictions for steps that were never executed do not apply to later steps.
            self.ensemble.forget();
        }
        if delay >= steps {
            return Err(Late::Over { delay, steps });
        }
        // On the grid of the chunk in progress, or starting with the step that is due now.
        let begin = match &self.followed {
            Some(Followed { chunk, .. }) => {
                let ahead = start.count as i64 - chunk.base as i64;
                ControllerUs(chunk.start.0.saturating_add_signed(ahead.saturating_mul(period as i64)))
            }
            None => ControllerUs(now.0.saturating_sub(delay * period)),
        };
        let over = start.taken.after(validity_us);
        let rest_us = over.since(begin.max(ControllerUs(1))).min(steps * period);
        if begin.after(rest_us) <= now {
            let age_ms = now.since(start.taken) / 1000;
            return Err(Late::Old { age_ms, validity_ms: validity_us / 1000 });
        }
        let mut positions = actions.get(..steps as usize * joints).unwrap_or(actions).to_vec();
        if let ChunkPolicy::Ensemble { .. } = self.rules.policy {
            positions = self.ensemble.mean(start.count, actions, steps as usize);
        }
        limit(&mut positions);
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let validity_us = u32::try_from(rest_us).unwrap_or(u32::MAX);
        let planned = Arc::new(Planned { id, base: start.count, delay, start: begin, validity_us, positions });
        self.pending = Some(Arc::clone(&planned));
        Ok(planned)
    }

    /// The planned chunk that the controller has not yet accepted.
    pub fn pending(&self) -> Option<&Arc<Planned>> {
        self.pending.as_ref()
    }

    /// The controller accepted the chunk, and executes it from `first_step` on.
    pub fn accepted(&mut self, id: u32, first_step: u16) {
        if self.pending.as_ref().is_some_and(|p| p.id == id) {
            self.take_over(first_step.into());
        }
    }

    fn take_over(&mut self, first_step: u64) {
        let Some(chunk) = self.pending.take() else { return };
        self.rest();
        let taken = chunk.base + first_step;
        self.followed = Some(Followed { chunk, taken, seen: false });
    }

    /// The controller refused the planned chunk, or can no longer accept it.
    pub fn refused(&mut self) {
        self.pending = None;
    }

    /// The controller holds, or is another one: no chunk is in progress.
    pub fn forget(&mut self) {
        self.rest();
        self.pending = None;
        self.ensemble.forget();
    }
}

#[cfg(test)]
mod tests;
