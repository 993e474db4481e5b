//! What the controller says, and what follows from it.

use firmware_bridge::message::{Ack, Fault, Mode, Reason, State as Report, kind};

use super::mode::{Event, State};
use super::robot::RunError;
use super::run::{Line, Loop, LoopEvent};
use crate::clock::monotonic_ns;
use crate::link::Event as LinkEvent;
use crate::telemetry::{Track, counter, stage};

impl Loop {
    /// Hears what the controller says, and takes over a line that is open again.
    pub(super) fn listen(&mut self) -> Result<(), RunError> {
        if let Line::Opening(reconnecting) = &self.line {
            match reconnecting.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(link)) => {
                    self.line = Line::Open(Box::new(link));
                    self.happened(Event::LinkOpened)?;
                }
                Err(()) => return self.failed(Event::InferenceFailed, "the line's thread ended".to_owned()),
            }
        }
        while let Some(event) = self.heard() {
            let was_due = self.planner.wants();
            let received_ns = event.received_ns();
            match event {
                LinkEvent::Ack { ack, controller_us, received_ns } => self.acked(&ack, controller_us, received_ns)?,
                LinkEvent::State { state, controller_us, received_ns } => {
                    self.reported(&state, controller_us, received_ns)?;
                }
                LinkEvent::Silent { last_heard_ns } => {
                    let silent_ms = monotonic_ns().saturating_sub(last_heard_ns) / 1_000_000;
                    self.failed(Event::LinkSilent, format!("nothing from the controller for {silent_ms} ms"))?;
                }
                LinkEvent::Heard => self.happened(Event::LinkHeard)?,
                LinkEvent::ControllerReset => {
                    self.failed(Event::LinkLost, "the controller restarted".to_owned())?;
                }
                LinkEvent::WrongVersion { found } => {
                    let detail = format!("the controller speaks protocol version {found}");
                    self.failed(Event::ControllerFault, detail)?;
                }
                LinkEvent::Lost { kind } => {
                    let detail = match &self.line {
                        Line::Open(link) => format!("{}: {kind}", link.device()),
                        _ => kind.to_string(),
                    };
                    self.failed(Event::LinkLost, detail)?;
                }
            }
            if !was_due && self.planner.wants() {
                self.due_ns = self.due_ns.max(received_ns.unwrap_or_else(monotonic_ns));
            }
        }
        Ok(())
    }

    fn heard(&mut self) -> Option<LinkEvent> {
        match &mut self.line {
            Line::Open(link) => link.poll(),
            Line::Opening(_) | Line::Gone => None,
        }
    }

    fn reported(&mut self, report: &Report, controller_us: u64, received_ns: u64) -> Result<(), RunError> {
        let left = report.progress.map_or(0, |p| p.steps_left);
        self.events.counter(Track::Controller, counter::STEPS_LEFT, received_ns, left.into());
        self.events.counter(Track::Controller, counter::STARVED, received_ns, report.starved.into());
        if let Some(recording) = &self.recording {
            recording.report(report, &self.controller.limits, controller_us, received_ns);
        }
        self.show(|| LoopEvent::Report { report: Box::new(*report), controller_us });
        self.controller.measured.clear();
        self.controller.measured.extend_from_slice(report.measured.as_slice());
        let mode_before = self.controller.mode.replace(report.mode);
        if mode_before.is_none() {
            // Now there is a pose to act from.
            self.arming.asked = None;
        }
        if let Some(before) = self.controller.starved.replace(report.starved)
            && self.state == State::Active
        {
            self.starved += u64::from(report.starved.wrapping_sub(before));
        }
        self.planner.heard(controller_us, report.mode == Mode::Active, report.progress);
        match report.mode {
            Mode::Faulted(Fault::HostSilent) if self.arming.given => {
                if self.state == State::Ready {
                    self.arming.clear = true;
                } else {
                    self.detail = "the controller stopped: it did not hear the host".to_owned();
                    self.lost_permission();
                    self.arming.clear = true;
                    self.happened(Event::HostLost)?;
                }
                Ok(())
            }
            Mode::Faulted(fault) => {
                if mode_before != Some(report.mode) {
                    let chunk = report.fault.and_then(|report| report.chunk).unwrap_or(0);
                    self.events.mark(Track::Controller, counter::FAULT, chunk, received_ns, fault as u64);
                }
                let cause = report.fault.map(|report| report.describe(&self.controller.limits).to_string());
                let cause = cause.unwrap_or_default();
                let detail = format!("the controller latched {fault:?}: {cause}; --clear-fault clears it");
                self.failed(Event::ControllerFault, detail)
            }
            _ => {
                self.arming.clear = false;
                Ok(())
            }
        }
    }

    /// Why joints that are not driven yet stay so.
    fn not_to_be_armed(&self, reason: Reason) -> String {
        let joints = self.controller.limits.as_slice().iter().zip(&self.controller.measured);
        let outside = joints.filter(|(joint, at)| **at < joint.min || **at > joint.max);
        let outside = outside.map(|(joint, at)| {
            format!("{} at {at:.3}, limits {:.3} to {:.3}", joint.name.as_str(), joint.min, joint.max)
        });
        match reason {
            Reason::OutsideLimits => {
                let outside: Vec<String> = outside.collect();
                format!("joints outside their limits, to be moved by hand: {}", outside.join("; "))
            }
            _ => "the joints' positions are not known".to_owned(),
        }
    }

    fn acked(&mut self, ack: &Ack, controller_us: u64, received_ns: u64) -> Result<(), RunError> {
        if let Some(recording) = &self.recording {
            recording.ack(ack, controller_us, received_ns);
        }
        if self.arming.asked.take_if(|(sequence, _)| *sequence == Some(ack.sequence)).is_some() {
            return match ack.reason {
                Reason::Ok => {
                    self.arming.given = true;
                    self.happened(Event::Armed)
                }
                // It ramps to rest after the hello that ended another session, or its fault is being cleared: asked again
                // a little later.
                Reason::Stopping => {
                    self.arming.asked = Some((None, received_ns));
                    Ok(())
                }
                // A person has to move the joint; servos may still be waking up.
                Reason::NotMeasured | Reason::OutsideLimits => {
                    let detail = self.not_to_be_armed(ack.reason);
                    if detail != self.arming.refused {
                        tracing::warn!(detail, "not armed yet");
                        self.arming.refused = detail;
                    }
                    self.arming.asked = Some((None, received_ns));
                    Ok(())
                }
                Reason::Faulted if self.arming.given => {
                    self.arming.asked = Some((None, received_ns));
                    Ok(())
                }
                reason => {
                    let hint = if reason == Reason::Faulted { "; --clear-fault clears a latched fault" } else { "" };
                    self.failed(Event::ControllerFault, format!("the controller refused to be armed: {reason:?}{hint}"))
                }
            };
        }
        if ack.kind != kind::CHUNK {
            return Ok(());
        }
        let Some(outgoing) = self.outgoing.take_if(|o| o.sequences.contains(&ack.sequence)) else { return Ok(()) };
        let (id, number, stamp_ns, sent_ns) = (outgoing.id, outgoing.number, outgoing.stamp_ns, outgoing.sent_ns);
        match ack.reason {
            Reason::Ok => {}
            // It ramps to rest after a stop: asked again a little later.
            Reason::Stopping => {
                self.outgoing = Some(outgoing);
                return Ok(());
            }
            reason => {
                self.refused += 1;
                self.planner.refused();
                self.events.mark(Track::Controller, counter::REFUSED, number, received_ns, reason as u64);
                tracing::warn!(?reason, "the controller refused a chunk");
                return match reason {
                    Reason::NotArmed => {
                        self.lost_permission();
                        self.failed(Event::HostLost, "the controller is disarmed".to_owned())
                    }
                    // Its next report says which fault.
                    _ => Ok(()),
                };
            }
        }
        self.planner.obeyed(id, ack.first_step);
        self.chunks += 1;
        self.first_action_ns.get_or_insert(received_ns.saturating_sub(self.started_ns));
        let r = &mut self.events;
        // The controller follows the chunk from the tick in which it made the verdict. By its clock, whose error is
        // bounded, but never before the chunk was sent or after the verdict came.
        if let Line::Open(link) = &self.line
            && let Some(clock) = link.clock()
        {
            let applied_ns = clock.to_host_ns(controller_us).clamp(sent_ns, received_ns.max(sent_ns));
            r.span(Track::Link, stage::APPLIED, number, sent_ns, applied_ns);
            r.span(Track::Controller, stage::ACK, number, applied_ns, received_ns);
            r.counter(Track::Controller, counter::CLOCK_ERROR, received_ns, clock.error_us(received_ns / 1000) * 1000);
            r.span(Track::Path, stage::AGE, number, stamp_ns, applied_ns);
        }
        r.span(Track::Path, stage::ROUND, number, stamp_ns, received_ns);
        Ok(())
    }
}
