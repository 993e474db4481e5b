//! From images to chunks: when to infer, from what, and which chunk comes of it.

use std::sync::Arc;

use super::limits::Limits;
use super::outbox::Now;
use crate::action::{Late, Planned, Planner};
use crate::clock::HostNs;
use crate::events::{ImageStamp, Inference, InferenceRequest};

/// The planner, and the inference under way.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) planner: Planner,
    next_seed: u64,
    /// Inferences so far.
    count: u32,
    /// Whether one is under way.
    busy: bool,
    /// Whether the chunk of the one under way must not be sent any more.
    void: bool,
    /// When the images of the last one were taken.
    shown: Vec<HostNs>,
    /// Since when only a new image is missing for the next one.
    due: HostNs,
}

impl Chunks {
    pub(super) fn new(planner: Planner, seed: u64) -> Chunks {
        let (shown, due) = (Vec::new(), HostNs::default());
        Chunks { planner, next_seed: seed, count: 0, busy: false, void: true, shown, due }
    }

    /// Whether to infer from images that were taken at these times: the model is free, a chunk is due, and one of them is new.
    pub(super) fn wants(&self, taken: impl Iterator<Item = HostNs>) -> bool {
        !self.busy && self.planner.wants() && taken.ne(self.shown.iter().copied())
    }

    /// The next inference waits for nothing but a new image from `at` on, if it did not before.
    pub(super) fn due_from(&mut self, at: HostNs) {
        self.due = self.due.max(at);
    }

    /// Begins an inference: its images are taken over. `false` when one is under way.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// The inference to start from these images and the joints' positions.
    pub(super) fn request(&mut self, now: Now, images: Vec<ImageStamp>, state: &[f32]) -> InferenceRequest {
        let newest = images.iter().map(|image| image.dequeued).max().unwrap_or(now.at);
        let oldest = images.iter().map(|image| image.taken).min().unwrap_or(now.at);
        // Without the controller's clock nobody knows which step the images show.
        let start = now.controller(oldest).map(|taken| self.planner.start_at(taken));
        self.void = false;
        self.shown.clear();
        self.shown.extend(images.iter().map(|image| image.taken));
        self.count += 1;
        let (number, seed, due) = (self.count, self.next_seed, self.due.max(newest).min(now.at));
        self.next_seed = self.next_seed.wrapping_add(1);
        InferenceRequest { number, seed, state: state.to_vec(), images, start, due, asked: now.at }
    }

    /// The inference under way is over.
    pub(super) fn end(&mut self) {
        self.busy = false;
    }

    /// The chunk of an inference, within the joints' limits; `None` where it must not be sent.
    pub(super) fn plan(
        &mut self,
        now: Now,
        inference: &Inference,
        limits: &Limits,
    ) -> Option<Result<Arc<Planned>, Late>> {
        let void = std::mem::replace(&mut self.void, true);
        let start = inference.request.start.as_ref().filter(|_| !void)?;
        let time = now.controller(now.at)?;
        Some(self.planner.plan(start, &inference.output.actions, time, |positions| limits.clamp(positions)))
    }

    /// Nothing that was planned before may follow from here on.
    pub(super) fn forget(&mut self) {
        self.planner.forget();
        self.void = true;
    }
}

#[cfg(test)]
mod tests {
    use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};

    use super::*;
    use crate::action::{ChunkPolicy, Rules};
    use crate::link::{ClockOffset, Exchange};

    const MS: u64 = 1_000_000;

    /// A clock of the controller that is 500 ms ahead.
    fn at(ms: u64, is_known: bool) -> Now {
        let exchange = Exchange { sent_us: 0, received_us: 500_000, replied_us: 500_000, returned_us: 0 };
        Now { at: HostNs(ms * MS), clock: ClockOffset::from_exchange(&exchange).filter(|_| is_known) }
    }

    fn images(taken_ms: [u64; 2]) -> Vec<ImageStamp> {
        let stamp =
            |ms| ImageStamp { taken: HostNs(ms * MS), source: Default::default(), dequeued: HostNs((ms + 8) * MS) };
        taken_ms.map(stamp).to_vec()
    }

    fn chunks() -> Chunks {
        let rules = Rules {
            policy: ChunkPolicy::Replace,
            joints: 1,
            horizon: 4,
            execution_horizon: 4,
            replan_steps: 1,
            period_us: 100_000,
            validity_us: 1_000_000,
        };
        Chunks::new(Planner::new(rules), 40)
    }

    fn limits() -> Limits {
        let mut joints = JointTable::new();
        joints.push(JointSpec::new(Name::new("base").unwrap(), Unit::Radian, [-1.0, 1.0], 2.0)).unwrap();
        Limits::new(joints)
    }

    /// The chunk of an inference that is done at 1.1 s.
    fn plan(chunks: &mut Chunks, request: InferenceRequest, is_known: bool) -> Option<Result<Arc<Planned>, Late>> {
        let mut inference = Inference { request, ..Inference::default() };
        inference.output.actions = vec![0.5, 1.5, -1.5, 0.0];
        chunks.plan(at(1100, is_known), &inference, &limits())
    }

    #[test]
    fn a_request_starts_where_its_oldest_image_was_taken() {
        let mut chunks = chunks();
        chunks.due_from(HostNs(900 * MS));
        for (n, (taken_ms, is_known, due_ms)) in
            [([990, 980], true, 998), ([870, 880], true, 900), ([870, 880], false, 900)].into_iter().enumerate()
        {
            let request = chunks.request(at(1000, is_known), images(taken_ms), &[0.1]);
            assert_eq!((request.number, request.seed), (n as u32 + 1, n as u64 + 40));
            assert_eq!((request.asked, request.due), (HostNs(1000 * MS), HostNs(due_ms * MS)), "{n}");
            let oldest_us = taken_ms.into_iter().min().unwrap() * 1000 + 500_000;
            assert_eq!(request.start.map(|start| start.taken.0), is_known.then_some(oldest_us), "{n}");
        }
    }

    #[test]
    fn when_to_infer() {
        let taken = |ms: [u64; 2]| ms.map(|ms| HostNs(ms * MS)).into_iter();
        let mut chunks = chunks();
        assert!(chunks.wants(taken([10, 10])), "nothing was inferred yet");
        assert!(chunks.begin() && !chunks.begin(), "one at a time");
        let request = chunks.request(at(20, true), images([10, 10]), &[0.0]);
        assert!(!chunks.wants(taken([40, 40])), "the model is busy");
        chunks.end();
        assert!(!chunks.wants(taken([10, 10])), "no image is new");
        assert!(chunks.wants(taken([10, 40])), "one image is new");
        let planned = plan(&mut chunks, request, true).unwrap();
        assert!(planned.is_err(), "its images are 1.09 s old");
        assert!(chunks.wants(taken([10, 40])), "a late chunk is followed by another");
        let request = chunks.request(at(1000, true), images([990, 990]), &[0.0]);
        plan(&mut chunks, request, true).unwrap().unwrap();
        assert!(!chunks.wants(taken([1200, 1200])), "a chunk is on its way");
    }

    #[test]
    fn which_chunks_are_sent() {
        for (forgets, known_before, known_after, is_sent) in [
            (false, true, true, true),
            (true, true, true, false),
            (false, false, true, false),
            (false, true, false, false),
        ] {
            let mut chunks = chunks();
            let request = chunks.request(at(1000, known_before), images([990, 990]), &[0.0]);
            if forgets {
                chunks.forget();
            }
            let planned = plan(&mut chunks, request.clone(), known_after);
            assert_eq!(planned.is_some(), is_sent, "{forgets} {known_before} {known_after}");
            if let Some(planned) = planned {
                assert_eq!(planned.unwrap().positions, [0.5, 1.0, -1.0, 0.0], "within the limits");
                let pending = chunks.planner.pending().unwrap();
                assert_eq!(pending.positions, [0.5, 1.0, -1.0, 0.0], "the planner has the same");
            }
            assert!(plan(&mut chunks, request, true).is_none(), "an inference has one chunk");
        }
    }
}
