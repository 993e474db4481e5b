//! Asking the model, and sending what it answers.

use super::inference::InferenceNews;
use super::mode::{Event, State};
use super::robot::RunError;
use super::run::{Line, Loop, LoopEvent};
use crate::action::Planned;
use crate::camera::Image;
use crate::clock::{NS_PER_S, monotonic_ns};
use crate::link::{ActionChunk, ClockOffset, Start};
use crate::policy::Reply;
use crate::telemetry::{Track, counter, stage};

/// A chunk without a verdict is sent again after this long, and after twice its time on the line. Of 6 steps of 6 joints one
/// in eight comes through where every hundredth byte is damaged, and so one of ten thousand takes 0.35 s.
const AGAIN_NS: u64 = 5_000_000;

/// A chunk on its way to the controller.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) id: u32,
    /// Of each time that it was sent.
    pub(super) sequences: Vec<u32>,
    /// Number of its observation.
    pub(super) number: u32,
    /// Exposure of the oldest image.
    pub(super) stamp_ns: u64,
    /// When it was sent first, and last.
    pub(super) sent_ns: u64,
    pub(super) again_ns: u64,
}

impl Loop {
    pub(super) fn clock(&self) -> Option<ClockOffset> {
        match &self.line {
            Line::Open(link) => link.clock(),
            Line::Opening(_) | Line::Gone => None,
        }
    }

    /// Whether a camera has an image that the model was not shown.
    pub(super) fn anything_new(&self) -> bool {
        self.image_status.iter().map(|g| g.stamp_ns).ne(self.shown.iter().copied())
    }

    /// Shows the model what there is, if it is free.
    pub(super) fn ask(&mut self, now: u64) {
        let Some(mut request) = self.spare.take() else { return };
        request.images.resize_with(self.cameras.len(), Image::default);
        for (camera, image) in self.cameras.iter().zip(&mut request.images) {
            camera.newest(image);
        }
        let stamp_ns = request.images.iter().map(|i| i.stamp_ns).min().unwrap_or(now);
        // Without the controller's clock there is no telling which step the images show.
        self.start = self.clock().map(|clock| self.planner.start_at(clock.to_controller_us(stamp_ns)));
        request.guide = self.start.as_ref().and_then(|look| look.guide.clone());
        request.state.clone_from(&self.controller.measured);
        request.seed = self.next_seed;
        self.shown.clear();
        self.shown.extend(request.images.iter().map(|i| i.stamp_ns));
        let newest_ns = request.images.iter().map(|i| i.dequeued_ns).max().unwrap_or(now);
        request.due_ns = self.due_ns.max(newest_ns).min(now);
        request.asked_ns = now;
        self.next_seed = self.next_seed.wrapping_add(1);
        self.asked += 1;
        request.number = self.asked;
        // A inference that is gone shows in the next poll.
        self.inference.ask(request);
    }

    /// Takes what the model says, if it says something.
    pub(super) fn infer(&mut self) -> Result<(), RunError> {
        loop {
            match self.inference.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(InferenceNews::Done(reply))) => self.replied(*reply)?,
                Ok(Some(InferenceNews::Lost { detail, request })) => {
                    self.spare = Some(*request);
                    self.model_lost = true;
                    tracing::warn!(detail, "the GPU is lost: it is opened again");
                    self.failed(Event::ModelLost, detail)?;
                }
                Ok(Some(InferenceNews::Back)) => {
                    self.model_lost = false;
                    self.due_ns = monotonic_ns();
                    tracing::info!("the model is on a GPU again");
                }
                Ok(Some(InferenceNews::Failed(error))) => return self.failed(Event::InferenceFailed, error),
                Err(()) => {
                    return self.failed(Event::InferenceFailed, "the inference thread ended".to_owned());
                }
            }
        }
    }

    fn replied(&mut self, mut reply: Reply) -> Result<(), RunError> {
        let warming = self.state == State::Warm;
        match warming {
            true => self.events.span(Track::Path, stage::COLD, 0, reply.started_ns, reply.inferred_ns),
            false => self.record(&reply),
        }
        if let Some(recording) = &self.recording {
            recording.inference(&reply);
        }
        if self.state == State::Active && !self.config.control.dry_run {
            self.plan(&reply)?;
        }
        self.scene.depth = std::mem::take(&mut reply.depth);
        self.due_ns = self.due_ns.max(reply.finished_ns);
        self.spare = Some(reply.request);
        if warming { self.happened(Event::Warmed) } else { Ok(()) }
    }

    fn plan(&mut self, reply: &Reply) -> Result<(), RunError> {
        let began_ns = monotonic_ns();
        let (Some(look), Some(clock)) = (self.start.take(), self.clock()) else { return Ok(()) };
        let planned = match self.planner.plan(&look, &reply.actions, clock.to_controller_us(began_ns)) {
            Ok(planned) => planned,
            Err(late) => {
                self.late += 1;
                tracing::warn!(number = reply.request.number, reason = %late, "a chunk is not sent");
                return Ok(());
            }
        };
        let mut positions = planned.positions;
        for (value, joint) in positions.iter_mut().zip(self.controller.limits.as_slice().iter().cycle()) {
            *value = value.clamp(joint.min, joint.max);
        }
        self.planner.limited(&positions);
        let planned = Planned { positions, ..planned };
        let limited_ns = monotonic_ns();
        let number = reply.request.number;
        let stamp_ns = reply.request.images.iter().map(|i| i.stamp_ns).min().unwrap_or(began_ns);
        let sequence = self.send(&planned)?;
        let sent_ns = monotonic_ns();
        if let Some(recording) = &self.recording {
            recording.chunk(&planned, number, stamp_ns, sent_ns);
        }
        let until_us = planned.start_us + u64::from(planned.validity_us);
        self.show(|| LoopEvent::Sent { id: planned.id, positions: planned.positions.clone(), until_us });
        let r = &mut self.events;
        r.span(Track::Control, stage::MERGE, number, began_ns, limited_ns);
        r.span(Track::Control, stage::WRITE, number, limited_ns, sent_ns);
        r.span(Track::Path, stage::SENT, number, reply.gpu.host.done_ns, sent_ns);
        if let Some(last_ns) = self.last_chunk_ns.replace(sent_ns) {
            r.span(Track::Path, stage::PERIOD, 0, last_ns, sent_ns);
        }
        if self.state == State::Active {
            let sequences = sequence.into_iter().collect();
            self.outgoing = Some(Outgoing { id: planned.id, sequences, number, stamp_ns, sent_ns, again_ns: sent_ns });
        }
        Ok(())
    }

    fn send(&mut self, planned: &Planned) -> Result<Option<u32>, RunError> {
        let period_us = self.config.control.period_us();
        let chunk = ActionChunk {
            id: planned.id,
            start: Start::ControllerUs(planned.start_us),
            period_us,
            validity_us: planned.validity_us,
            interpolation: self.config.chunks.interpolation,
            positions: &planned.positions,
        };
        self.tell(|link| link.send_chunk(&chunk))
    }

    /// When the chunk on its way is to be sent again.
    pub(super) fn again_ns(&self) -> Option<u64> {
        let bits = self.planner.pending().map_or(0, |p| (p.positions.len() as u64 * 4 + 64) * 10);
        let on_line_ns = bits * NS_PER_S / u64::from(self.config.link.baud.max(1));
        self.outgoing.as_ref().map(|o| o.again_ns.saturating_add(AGAIN_NS.max(2 * on_line_ns)))
    }

    /// Sends a chunk again that has no verdict yet, until its time is over: the line may have lost it, or the verdict.
    pub(super) fn send_again(&mut self, now: u64) -> Result<(), RunError> {
        let is_due = self.again_ns().is_some_and(|at| now >= at);
        let Some(mut outgoing) = self.outgoing.take_if(|_| is_due) else { return Ok(()) };
        let Some(planned) = self.planner.pending().filter(|p| p.id == outgoing.id).cloned() else {
            // A report stood for its verdict.
            self.chunks += 1;
            self.first_action_ns.get_or_insert(now.saturating_sub(self.started_ns));
            return Ok(());
        };
        let over_us = planned.start_us + u64::from(planned.validity_us);
        if self.clock().is_some_and(|clock| clock.to_controller_us(now) >= over_us) {
            tracing::warn!(number = outgoing.number, tries = outgoing.sequences.len(), "a chunk never arrived");
            self.planner.refused();
            return Ok(());
        }
        outgoing.again_ns = now;
        let sequence = self.send(&planned)?;
        outgoing.sequences.extend(sequence);
        if self.state == State::Active {
            self.outgoing = Some(outgoing);
        }
        Ok(())
    }

    fn record(&mut self, reply: &Reply) {
        let request = &reply.request;
        let (r, n) = (&mut self.events, request.number);
        let oldest = request.images.iter().enumerate().min_by_key(|(_, i)| i.stamp_ns);
        let Some((index, oldest)) = oldest else { return };
        for (view, image) in request.images.iter().enumerate() {
            r.mark(Track::Camera(view as u8), counter::STAMP, n, image.stamp_ns, image.stamp as u64);
        }
        for (view, image) in request.images.iter().enumerate().filter(|(view, _)| *view != index) {
            r.detail(Track::Camera(view as u8), stage::CAPTURE, n, image.stamp_ns, image.dequeued_ns);
        }
        r.span(Track::Camera(index as u8), stage::CAPTURE, n, oldest.stamp_ns, oldest.dequeued_ns);
        r.span(Track::Control, stage::WAIT, n, oldest.dequeued_ns, request.asked_ns);
        r.span(Track::Inference, stage::HANDOVER, n, request.asked_ns, reply.started_ns);
        r.span(Track::Path, stage::SUBMITTED, n, request.due_ns, reply.gpu.host.submitted_ns);
        r.inference(&reply.gpu, n, reply.started_ns, reply.inferred_ns);
        r.span(Track::Inference, stage::UNNORMALISE, n, reply.inferred_ns, reply.finished_ns);
        r.span(Track::Control, stage::COLLECT, n, reply.finished_ns, monotonic_ns());
    }
}
