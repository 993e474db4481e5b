//! Received messages: events, verdicts and the controller's clock.

use std::time::{Duration, Instant};

use firmware_bridge::message::{Ack, FaultReport, Reason};

use super::clock::{ClockOffset, Exchange, host_now_ns};
use super::line::{Body, Inbound};
use super::{BACKLOG, Link, LinkError, LinkEvent};

impl Link {
    /// The next event, or `None`; never waits. Call it until it returns `None`.
    pub fn poll(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.waiting.pop_front() {
            return Some(event);
        }
        while let Some(inbound) = self.line.try_recv() {
            if let Some(event) = self.take(inbound) {
                return Some(event);
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
        }
        let silent_ns = host_now_ns().saturating_sub(self.last_received_ns);
        if !self.is_silent
            && self.lost.is_none()
            && self.controller.is_some()
            && u128::from(silent_ns) > self.silence.as_nanos()
        {
            self.is_silent = true;
            return Some(LinkEvent::Silent { last_received_ns: self.last_received_ns });
        }
        None
    }

    /// Waits for the verdict on one frame, without heartbeats: while the joints move, `timeout` must be shorter than
    /// the controller's deadman time. Other events wait for [`Link::poll`].
    ///
    /// # Errors
    /// [`LinkError::NoReply`], [`LinkError::Lost`].
    pub fn wait_ack(&mut self, sequence: u32, timeout: Duration) -> Result<Ack, LinkError> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(inbound) = self.line.recv_until(deadline) else {
                return Err(LinkError::NoReply { device: self.device.clone(), what: "a frame", waited: timeout });
            };
            let event = self.take(inbound);
            match event {
                Some(LinkEvent::Ack { ack, .. }) if ack.sequence == sequence => return Ok(ack),
                Some(LinkEvent::Lost { kind }) => return Err(self.lost_error(kind)),
                Some(event) => self.keep(event),
                None => {}
            }
        }
    }

    /// The controller's latched fault, from its next report; waits at most `timeout`.
    ///
    /// # Errors
    /// [`LinkError::NoReply`], [`LinkError::Lost`].
    pub fn latched(&mut self, timeout: Duration) -> Result<Option<FaultReport>, LinkError> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(inbound) = self.line.recv_until(deadline) else {
                return Err(LinkError::NoReply { device: self.device.clone(), what: "a report", waited: timeout });
            };
            match self.take(inbound) {
                Some(LinkEvent::State { state, .. }) => return Ok(state.fault),
                Some(LinkEvent::Lost { kind }) => return Err(self.lost_error(kind)),
                Some(event) => self.keep(event),
                None => {}
            }
        }
    }

    /// Clears a latched fault after a person has removed its cause. Waits for the controller's answer, at most
    /// `timeout`, while the joints still ramp to rest. No fault is latched afterwards.
    ///
    /// # Errors
    /// [`LinkError::CauseLasts`], [`LinkError::NotCleared`], [`LinkError::NoReply`], [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn clear_latched(&mut self, timeout: Duration) -> Result<(), LinkError> {
        let deadline = Instant::now() + timeout;
        loop {
            let sequence = self.clear_fault()?;
            match self.wait_ack(sequence, timeout)?.reason {
                Reason::Ok => return Ok(()),
                Reason::Stopping if Instant::now() < deadline => {}
                Reason::Faulted => return Err(LinkError::CauseLasts { device: self.device.clone() }),
                reason => return Err(LinkError::NotCleared { device: self.device.clone(), reason }),
            }
        }
    }

    pub(super) fn keep(&mut self, event: LinkEvent) {
        if self.waiting.len() >= BACKLOG {
            self.waiting.pop_front();
        }
        self.waiting.push_back(event);
    }

    /// Processes a message; returns its event.
    pub(super) fn take(&mut self, inbound: Inbound) -> Option<LinkEvent> {
        let (header, body, received_ns) = match inbound {
            Inbound::Message { header, body, received_ns } => (header, body, received_ns),
            Inbound::Version { found } => return Some(LinkEvent::WrongVersion { found }),
            Inbound::Closed { kind } => {
                self.lost = Some(kind);
                return Some(LinkEvent::Lost { kind });
            }
        };
        let controller_us = header.time_us;
        if let Body::Ack(Ack { reason: Reason::WrongSession, .. }) = body
            && self.controller.take().is_some()
        {
            return Some(LinkEvent::ControllerReset);
        }
        if header.session != self.session {
            return None;
        }
        self.last_received_ns = received_ns;
        if std::mem::take(&mut self.is_silent) {
            self.keep(LinkEvent::Restored);
        }
        match body {
            Body::Ack(ack) => Some(LinkEvent::Ack { ack, controller_us, received_ns }),
            Body::State(state) => Some(LinkEvent::State { state, controller_us, received_ns }),
            Body::Heartbeat(reply) => {
                let exchange = Exchange {
                    sent_us: reply.host_time_us,
                    received_us: reply.received_us,
                    replied_us: controller_us,
                    returned_us: received_ns / 1_000,
                };
                let fresh = ClockOffset::from_exchange(&exchange);
                self.clock = match (self.clock, fresh) {
                    (Some(known), Some(fresh)) => Some(known.best(fresh)),
                    (known, fresh) => fresh.or(known),
                };
                None
            }
            // Answers to repeated hellos.
            Body::Hello(_) => None,
        }
    }
}
