//! The controller's messages.

use firmware_bridge::message::{Ack, ControllerState, Fault, Mode, Reason, kind};

use super::ControlCore;
use super::arming::Answer;
use super::outbox::{Now, Outbox};
use crate::clock::{ControllerUs, HostNs};
use crate::events::{Detail, LoopEvent, LoopMode, ModeEvent};
use crate::link::LinkEvent;

impl ControlCore {
    pub(super) fn receive(&mut self, now: Now, event: LinkEvent, out: &mut Outbox) {
        let was_due = self.chunks.planner.wants();
        let received = event.received_ns().map_or(now.at, HostNs);
        match event {
            LinkEvent::Ack { ack, controller_us, .. } => {
                self.acked(now, &ack, ControllerUs(controller_us), received, out);
            }
            LinkEvent::State { state, controller_us, .. } => {
                self.reported(now, state, ControllerUs(controller_us), received, out);
            }
            LinkEvent::Silent { last_received_ns } => {
                let for_ms = now.at.since(HostNs(last_received_ns)) / 1_000_000;
                self.happened(now, ModeEvent::LinkSilent, Detail::ControllerSilent { for_ms }, out);
            }
            LinkEvent::Restored => self.happened(now, ModeEvent::LinkRestored, Detail::None, out),
            LinkEvent::ControllerReset => self.line_lost(now, Detail::ControllerRestarted, out),
            LinkEvent::WrongVersion { found } => {
                self.happened(now, ModeEvent::ControllerFault, Detail::WrongVersion { found }, out);
            }
            LinkEvent::Lost { kind } => {
                self.line_lost(now, Detail::LineLost(format!("{}: {kind}", self.settings.device)), out)
            }
        }
        if !was_due && self.chunks.planner.wants() {
            self.chunks.due_from(received);
        }
    }

    fn reported(&mut self, now: Now, report: ControllerState, made: ControllerUs, received: HostNs, out: &mut Outbox) {
        out.emit(LoopEvent::Report { report: Box::new(report), made, received });
        self.controller.measured.clear();
        self.controller.measured.extend_from_slice(report.measured.as_slice());
        let mode_before = self.controller.mode.replace(report.mode);
        if mode_before.is_none() {
            // Now there is a pose to act from.
            self.arming.ask_at_once();
        }
        if let Some(before) = self.controller.starved.replace(report.starved)
            && self.mode == LoopMode::Active
        {
            self.counts.starved += u64::from(report.starved.wrapping_sub(before));
        }
        self.chunks.planner.reported(made, report.mode == Mode::Active, report.progress);
        match report.mode {
            Mode::Faulted(Fault::HostSilent) if self.arming.was_given() => {
                self.arming.clear_first(true);
                if self.mode != LoopMode::Ready {
                    self.lost_permission(out);
                    self.happened(now, ModeEvent::HostLost, Detail::HostLost, out);
                }
            }
            Mode::Faulted(fault) => {
                if mode_before != Some(report.mode) {
                    let chunk = report.fault.and_then(|report| report.chunk).unwrap_or(0);
                    out.emit(LoopEvent::ControllerFault { fault, chunk, received });
                }
                if !self.mode.is_over() {
                    let cause = report.fault.map(|report| report.describe(self.limits.joints()).to_string());
                    let detail = Detail::Latched { fault, report: report.fault, cause: cause.unwrap_or_default() };
                    self.happened(now, ModeEvent::ControllerFault, detail, out);
                }
            }
            _ => self.arming.clear_first(false),
        }
    }

    fn acked(&mut self, now: Now, ack: &Ack, made: ControllerUs, received: HostNs, out: &mut Outbox) {
        out.emit(LoopEvent::Ack { ack: *ack, made, received });
        match self.arming.answered(ack, received) {
            Some(Answer::Armed) => self.happened(now, ModeEvent::Armed, Detail::None, out),
            Some(Answer::Later) => {}
            Some(Answer::NotYet) => {
                let why = match ack.reason {
                    Reason::OutsideLimits => {
                        let outside = self.limits.outside(&self.controller.measured);
                        format!("joints outside their limits, to be moved by hand: {outside}")
                    }
                    _ => "the joints' positions are not known".to_owned(),
                };
                if self.arming.explain(&why) {
                    out.emit(LoopEvent::NotArmed { why });
                }
            }
            Some(Answer::Refused) => {
                let detail = Detail::ArmingRefused { reason: ack.reason };
                self.happened(now, ModeEvent::ControllerFault, detail, out);
            }
            None if ack.kind == kind::CHUNK => self.chunk_acked(now, ack, made, received, out),
            None => {}
        }
    }

    fn chunk_acked(&mut self, now: Now, ack: &Ack, made: ControllerUs, received: HostNs, out: &mut Outbox) {
        let Some(on_way) = self.resend.answered(ack) else { return };
        let (number, times) = (on_way.number, on_way.times);
        match ack.reason {
            Reason::Ok => {
                self.chunks.planner.accepted(on_way.chunk.id, ack.first_step);
                self.accepted(received);
                // The controller follows the chunk from the tick in which it made the answer. By its clock, whose error is
                // bounded, but never before the chunk was sent or after the answer came.
                let applied = now.clock.map(|clock| {
                    let at = clock.to_host_ns(made.0).clamp(times.sent.0, received.0.max(times.sent.0));
                    (HostNs(at), clock.error_us(received.0 / 1000) * 1000)
                });
                out.emit(LoopEvent::Obeyed { number, taken: times.taken, sent: times.sent, received, applied });
            }
            // It ramps to rest after a stop: asked again a little later.
            Reason::Stopping => self.resend.begin(on_way),
            reason => {
                self.counts.refused += 1;
                self.chunks.planner.refused();
                out.emit(LoopEvent::Refused { number, reason, received });
                // The next report names a fault.
                if reason == Reason::NotArmed {
                    self.lost_permission(out);
                    self.happened(now, ModeEvent::HostLost, Detail::Disarmed, out);
                }
            }
        }
    }
}
