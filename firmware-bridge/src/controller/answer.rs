//! The controller's answers to frames.

use super::Controller;
use super::monitor::JointMonitor;
use crate::MAX_CHUNK_STEPS;
use crate::frame::{Frame, FrameError, Header};
use crate::joint::JointSpec;
use crate::message::{Ack, Chunk, HeartbeatReply, HelloReply, Message, Mode, Reason, SCHEMA_HASH, START_NOW};
use crate::output::{JointOutput, StopCircuit};

impl<J: JointOutput, E: StopCircuit> Controller<J, E> {
    /// Handles a good frame; returns the answer, if any.
    pub fn handle(&mut self, frame: &Frame<'_>, now_us: u64) -> Option<Message<'static>> {
        let Frame { header, message } = frame;
        let mut ack =
            Ack { sequence: header.sequence, kind: message.kind(), reason: Reason::Ok, first_step: 0, start_us: 0 };
        match message {
            Message::Hello { .. } if header.session != 0 => {
                return Some(Message::HelloReply(self.hello(header, now_us)));
            }
            Message::Hello { .. } => ack.reason = Reason::WrongSession,
            Message::Stop => {
                let _ = self.admit(header, now_us);
                self.stop(Mode::Holding);
            }
            Message::Chunk(_) | Message::Heartbeat | Message::Arm | Message::Disarm | Message::ClearFault => {
                ack.reason = self.admit(header, now_us)
            }
            // The controller's own messages, echoed by the line; answering them would never end.
            Message::HelloReply(_) | Message::State(_) | Message::Ack(_) | Message::HeartbeatReply(_) => return None,
        }
        if ack.reason == Reason::Ok {
            match message {
                Message::Heartbeat => {
                    return Some(Message::HeartbeatReply(HeartbeatReply {
                        sequence: header.sequence,
                        host_time_us: header.time_us,
                        received_us: now_us,
                    }));
                }
                Message::Chunk(chunk) => match self.accept(chunk, now_us) {
                    Ok((start_us, first_step)) => {
                        ack.start_us = start_us;
                        ack.first_step = first_step;
                    }
                    Err(reason) => ack.reason = reason,
                },
                Message::Arm => ack.reason = self.arm(),
                Message::Disarm => {
                    self.stop(Mode::Disarmed);
                    self.release_at_rest = true;
                }
                Message::ClearFault => ack.reason = self.clear_fault(),
                _ => {}
            }
        }
        Some(Message::Ack(ack))
    }

    /// The answer to a broken frame, if its header has a session.
    pub fn handle_error(&self, error: &FrameError) -> Option<Message<'static>> {
        let (header, kind, reason) = match error {
            FrameError::Version { header, .. } => (header, 0, Reason::WrongVersion),
            FrameError::UnknownType { header, kind } if *kind < 0x80 => (header, *kind, Reason::UnknownType),
            FrameError::Malformed { header, kind } if *kind < 0x80 => (header, *kind, Reason::Malformed),
            _ => return None,
        };
        Some(Message::Ack(Ack { sequence: header.sequence, kind, reason, first_step: 0, start_us: 0 }))
    }

    fn hello(&mut self, header: &Header, now_us: u64) -> HelloReply {
        if header.session != self.session {
            self.session = header.session;
            self.last_sequence = header.sequence;
            self.received_us = now_us;
            self.stop(Mode::Disarmed);
        } else {
            let _ = self.admit(header, now_us);
        }
        HelloReply {
            schema: SCHEMA_HASH,
            identity: self.config.identity,
            buffer_depth: MAX_CHUNK_STEPS as u16,
            tick_us: self.config.tick_us,
            telemetry_us: self.config.telemetry_us,
            deadman_us: self.config.deadman_us,
            joints: self.config.joints,
        }
    }

    /// Whether the frame is a new one of the session; if so, it resets the deadman time.
    fn admit(&mut self, header: &Header, now_us: u64) -> Reason {
        if header.session != self.session || self.session == 0 {
            return Reason::WrongSession;
        }
        let ahead = header.sequence.wrapping_sub(self.last_sequence);
        if ahead == 0 || ahead > u32::MAX / 2 {
            return Reason::Stale;
        }
        self.last_sequence = header.sequence;
        self.received_us = now_us;
        Reason::Ok
    }

    fn accept(&mut self, chunk: &Chunk<'_>, now_us: u64) -> Result<(u64, u16), Reason> {
        match self.mode {
            Mode::Holding | Mode::Active => {}
            Mode::Disarmed => return Err(Reason::NotArmed),
            Mode::Stopping => return Err(Reason::Stopping),
            Mode::Faulted(_) => return Err(Reason::Faulted),
        }
        let joints = self.config.joints.as_slice();
        if chunk.joints != self.config.joints.len() {
            return Err(Reason::WrongJointCount);
        }
        if chunk.steps == 0 || usize::from(chunk.steps) > MAX_CHUNK_STEPS || chunk.period_us == 0 {
            return Err(Reason::BadShape);
        }
        for (value, joint) in chunk.positions.iter().zip(joints.iter().cycle()) {
            let margin = (joint.max - joint.min) * self.config.reject_ranges;
            if !value.is_finite() {
                return Err(Reason::NonFinite);
            }
            if value < joint.min - margin || value > joint.max + margin {
                return Err(Reason::OutOfLimits);
            }
        }
        let start_us = if chunk.start_us == START_NOW { now_us } else { chunk.start_us };
        if start_us > now_us.saturating_add(u64::from(self.config.ahead_us)) {
            return Err(Reason::TooFarAhead);
        }
        let late_us = now_us.saturating_sub(start_us);
        let first_step = late_us
            .checked_div(u64::from(chunk.period_us))
            .and_then(|step| u16::try_from(step).ok())
            .filter(|step| *step < chunk.steps && late_us <= u64::from(chunk.validity_us))
            .ok_or(Reason::Expired)?;
        let clamped = self.next.store(chunk, start_us, joints);
        self.clamps = self.clamps.wrapping_add(clamped);
        Ok((start_us, first_step))
    }

    fn arm(&mut self) -> Reason {
        match self.mode {
            Mode::Holding | Mode::Active => return Reason::Ok,
            Mode::Stopping => return Reason::Stopping,
            Mode::Faulted(_) => return Reason::Faulted,
            Mode::Disarmed => {}
        }
        let joints = self.config.joints.as_slice();
        if self.monitors.iter().zip(joints).any(|(monitor, _)| monitor.position().is_none()) {
            return Reason::NotMeasured;
        }
        // Driven joints already have goals within their limits.
        if !self.energised {
            let outside = |(monitor, joint): (&JointMonitor, &JointSpec)| {
                let at = monitor.measured();
                at < joint.min || at > joint.max
            };
            if self.monitors.iter().zip(joints).any(outside) {
                return Reason::OutsideLimits;
            }
            self.adopt_measured();
        }
        self.mode = Mode::Holding;
        self.energised = true;
        self.release_at_rest = false;
        Reason::Ok
    }

    fn clear_fault(&mut self) -> Reason {
        if !matches!(self.mode, Mode::Faulted(_)) {
            return Reason::Ok;
        }
        let measured = self.monitors.iter().zip(self.config.joints.as_slice()).all(|(m, _)| m.position().is_some());
        if self.estop_open || !self.stop_proved || !measured {
            return Reason::Faulted;
        }
        if !self.is_at_rest() {
            return Reason::Stopping;
        }
        self.mode = Mode::Disarmed;
        Reason::Ok
    }
}
