//! Opening a session: hello, checks and the first exchange of clocks.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use firmware_bridge::joint::JointSpec;
use firmware_bridge::message::{HelloReply, Message, SCHEMA_HASH};

use super::clock::host_now_ns;
use super::line::{Body, Inbound};
use super::{Link, LinkError, READ_TIMEOUT};

/// Time between two hellos without an answer.
const HELLO_RETRY: Duration = Duration::from_millis(100);

/// Number of heartbeats during the hello that measure the controller's clock.
const CLOCK_ROUNDS: usize = 4;

impl Link {
    /// Opens a session with the controller and checks that it is the configured one, with `joints` in this order. Waits
    /// at most `timeout`. An armed controller stops and disarms.
    ///
    /// # Errors
    /// [`LinkError::NoReply`], [`LinkError::ProtocolVersion`], [`LinkError::Schema`], [`LinkError::Identity`],
    /// [`LinkError::JointCount`], [`LinkError::JointNames`], [`LinkError::Lost`].
    pub fn hello<S: AsRef<str>>(&mut self, joints: &[S], timeout: Duration) -> Result<HelloReply, LinkError> {
        self.controller = None;
        self.clock = None;
        self.waiting.clear();
        // Not 0, which means no session.
        self.session = (RandomState::new().hash_one(host_now_ns()) as u32).max(1);
        let deadline = Instant::now() + timeout;
        let reply = loop {
            if Instant::now() >= deadline {
                return Err(LinkError::NoReply { device: self.device.clone(), what: "hello", waited: timeout });
            }
            let message = Message::Hello { schema: SCHEMA_HASH };
            match self.send(&message) {
                // Queued frames are sent or expire before the next attempt.
                Ok(_) | Err(LinkError::Backlog { .. }) => {}
                Err(error) => return Err(error),
            }
            let retry = deadline.min(Instant::now() + HELLO_RETRY);
            if let Some(reply) = self.wait_hello(retry)? {
                break reply;
            }
        };
        self.check(&reply, joints)?;
        let answer = *reply;
        self.controller = Some(reply);
        self.begin_clock(deadline)?;
        Ok(answer)
    }

    fn wait_hello(&mut self, deadline: Instant) -> Result<Option<Box<HelloReply>>, LinkError> {
        while let Some(inbound) = self.line.recv_until(deadline) {
            match inbound {
                Inbound::Message { header, body: Body::Hello(reply), received_ns }
                    if header.session == self.session =>
                {
                    self.last_received_ns = received_ns;
                    self.is_silent = false;
                    return Ok(Some(reply));
                }
                Inbound::Version { found } => return Err(self.version_error(found)),
                Inbound::Closed { kind } => {
                    self.lost = Some(kind);
                    return Err(self.lost_error(kind));
                }
                Inbound::Message { .. } => {}
            }
        }
        Ok(None)
    }

    fn check<S: AsRef<str>>(&self, reply: &HelloReply, joints: &[S]) -> Result<(), LinkError> {
        let device = self.device.clone();
        if reply.schema != SCHEMA_HASH {
            return Err(LinkError::Schema { device, expected: SCHEMA_HASH, found: reply.schema });
        }
        let found = reply.identity.as_str();
        if let Some(expected) = self.identity.clone().filter(|expected| expected != found) {
            return Err(LinkError::Identity { device, expected, found: found.to_owned() });
        }
        let found = reply.joints.as_slice();
        if found.len() != joints.len() {
            return Err(LinkError::JointCount { device, expected: joints.len(), found: found.len() });
        }
        let differs = |(found, expected): (&JointSpec, &S)| found.name.as_str() != expected.as_ref();
        if found.iter().zip(joints).any(differs) {
            return Err(LinkError::JointNames {
                device,
                expected: joints.iter().map(|name| name.as_ref().to_owned()).collect(),
                found: found.iter().map(|joint| joint.name.as_str().to_owned()).collect(),
            });
        }
        Ok(())
    }

    /// Sends heartbeats until the clock is known or the time limit; after that, later heartbeats give the clock.
    fn begin_clock(&mut self, deadline: Instant) -> Result<(), LinkError> {
        for _ in 0..CLOCK_ROUNDS {
            match self.heartbeat() {
                Ok(_) | Err(LinkError::Backlog { .. }) => {}
                Err(error) => return Err(error),
            }
            let before = self.clock;
            let round = deadline.min(Instant::now() + READ_TIMEOUT);
            while let Some(inbound) = self.line.recv_until(round) {
                let answered = matches!(&inbound, Inbound::Message { body: Body::Heartbeat(_), .. });
                if let Some(event) = self.take(inbound) {
                    self.keep(event);
                }
                if answered || self.clock != before {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The link's error for a device that did not open.
pub(super) fn open_error(device: &str, error: serialport::Error) -> LinkError {
    let name = device.to_owned();
    match error.kind() {
        serialport::ErrorKind::Io(io::ErrorKind::NotFound) => LinkError::Absent { device: name },
        serialport::ErrorKind::Io(io::ErrorKind::PermissionDenied) => LinkError::Permission { device: name },
        serialport::ErrorKind::NoDevice if Path::new(device).exists() => LinkError::Busy { device: name },
        serialport::ErrorKind::NoDevice => LinkError::Absent { device: name },
        _ => LinkError::Open { device: name, source: error.into() },
    }
}
