//! A controller with two joints under a virtual clock.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_hal::digital::{ErrorKind, ErrorType, InputPin};
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Counters, Frame, Header};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::message::{Ack, Chunk, Interpolation, Message, Positions, Reason, SCHEMA_HASH, START_NOW, State};
use firmware_bridge::output::JointOutput;

pub(crate) const TICK_US: u64 = 2_000;
pub(crate) const MS: u64 = 1_000;

/// Two joints which are where they are told to be, unless they are stuck.
#[derive(Default)]
pub(crate) struct Rig {
    pub(crate) measured: [f32; 2],
    pub(crate) commanded: Option<[f32; 2]>,
    pub(crate) stuck: bool,
    pub(crate) broken: bool,
    pub(crate) line_open: bool,
    pub(crate) line_unreadable: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Shared(Rc<RefCell<Rig>>);

impl JointOutput for Shared {
    type Error = ();

    fn measure(&mut self, positions: &mut [f32]) -> Result<(), ()> {
        positions.copy_from_slice(&self.0.borrow().measured);
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), ()> {
        let mut rig = self.0.borrow_mut();
        let command = [positions[0], positions[1]];
        rig.commanded = Some(command);
        if !rig.stuck {
            rig.measured = command;
        }
        if rig.broken { Err(()) } else { Ok(()) }
    }

    fn release(&mut self) -> Result<(), ()> {
        self.0.borrow_mut().commanded = None;
        Ok(())
    }
}

impl ErrorType for Shared {
    type Error = ErrorKind;
}

impl InputPin for Shared {
    fn is_high(&mut self) -> Result<bool, ErrorKind> {
        let rig = self.0.borrow();
        if rig.line_unreadable {
            return Err(ErrorKind::Other);
        }
        Ok(!rig.line_open)
    }

    fn is_low(&mut self) -> Result<bool, ErrorKind> {
        self.is_high().map(|high| !high)
    }
}

pub(crate) struct Bench {
    controller: Controller<Shared, Shared>,
    pub(crate) rig: Rc<RefCell<Rig>>,
    pub(crate) now_us: u64,
    pub(crate) sequence: u32,
    pub(crate) session: u32,
    pub(crate) heartbeats: bool,
}

impl Bench {
    /// Joints of ±1 rad; speed and acceleration as given, jump 0.5 rad.
    pub(crate) fn new(velocity: f32, acceleration: f32) -> Self {
        let mut joints = JointTable::new();
        for name in ["base", "wrist"] {
            let joint = JointSpec {
                name: Name::new(name).expect("short"),
                unit: Unit::Radian,
                min: -1.0,
                max: 1.0,
                velocity,
                acceleration,
                jump: 0.5,
            };
            joints.push(joint).expect("valid");
        }
        let shared = Shared::default();
        let rig = Rc::clone(&shared.0);
        let mut bench = Self {
            controller: Controller::new(Config::new(joints), shared.clone(), shared),
            rig,
            now_us: 1_000_000,
            sequence: 0,
            session: 77,
            heartbeats: true,
        };
        bench.run(10 * MS);
        bench.hello();
        bench
    }

    /// Without limits that matter, armed.
    pub(crate) fn armed() -> Self {
        let mut bench = Self::new(1e3, 1e6);
        assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        bench
    }

    pub(crate) fn hello(&mut self) {
        let reply = self.handle(&Message::Hello { schema: SCHEMA_HASH });
        assert!(matches!(reply, Some(Message::HelloReply(reply)) if reply.joints.len() == 2));
    }

    pub(crate) fn handle(&mut self, message: &Message<'_>) -> Option<Message<'static>> {
        self.sequence = self.sequence.wrapping_add(1);
        let frame = Frame { header: Header::new(self.sequence, self.session, 0), message: *message };
        self.controller.handle(&frame, self.now_us)
    }

    pub(crate) fn ack(&mut self, message: &Message<'_>) -> Ack {
        match self.handle(message) {
            Some(Message::Ack(ack)) => ack,
            other => panic!("no ack but {other:?}"),
        }
    }

    pub(crate) fn send(&mut self, message: &Message<'_>) -> Reason {
        self.ack(message).reason
    }

    /// Sends a chunk of 10 ms steps which starts now and is valid for a second.
    pub(crate) fn chunk(&mut self, positions: &[f32]) -> Reason {
        self.send(&Message::Chunk(plan(positions)))
    }

    /// Ticks until `us` have passed.
    pub(crate) fn run(&mut self, us: u64) {
        let end = self.now_us + us;
        while self.now_us < end {
            self.now_us += TICK_US;
            if self.heartbeats && self.now_us.is_multiple_of(20 * MS) && self.controller.session() != 0 {
                let _ = self.handle(&Message::Heartbeat);
            }
            self.controller.tick(self.now_us);
        }
    }

    /// One tick that comes after `us`.
    pub(crate) fn tick_after(&mut self, us: u64) {
        self.now_us += us;
        self.controller.tick(self.now_us);
    }

    pub(crate) fn state(&self) -> State {
        self.controller.state(&Counters::default(), 0)
    }

    pub(crate) fn base(&self) -> f32 {
        self.state().commanded.as_slice()[0]
    }
}

pub(crate) fn plan(positions: &[f32]) -> Chunk<'_> {
    Chunk {
        id: 1,
        start_us: START_NOW,
        period_us: 10_000,
        validity_us: 1_000_000,
        interpolation: Interpolation::Linear,
        joints: 2,
        steps: (positions.len() / 2) as u16,
        positions: Positions::Native(positions),
    }
}
