//! A controller with two joints under a virtual clock.

use std::cell::RefCell;
use std::rc::Rc;

use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Counters, Frame, Header};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::message::{
    Ack, Chunk, ControllerState, Interpolation, Message, Positions, Reason, SCHEMA_HASH, START_NOW,
};
use firmware_bridge::output::{JointOutput, OutputError, Reading, StopChannels, StopCircuit};

pub(crate) const TICK_US: u64 = 2_000;
pub(crate) const MS: u64 = 1_000;

/// Two joints which are where they are told to be, unless they are stuck.
#[derive(Default)]
pub(crate) struct Rig {
    pub(crate) measured: [f32; 2],
    /// Which goals there were.
    pub(crate) commanded: Option<[f32; 2]>,
    pub(crate) stuck: bool,
    pub(crate) broken: bool,
    /// What the driver learns of the joints instead of their positions.
    pub(crate) readings: Option<[Reading; 2]>,
    /// The driver cannot measure.
    pub(crate) deaf: bool,
    /// Channels of the emergency stop that are open; the second is there where it is watched.
    pub(crate) open: [bool; 2],
    pub(crate) two_channels: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Shared(Rc<RefCell<Rig>>);

impl JointOutput for Shared {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        let rig = self.0.borrow();
        if rig.deaf {
            return Err(OutputError::All);
        }
        let measured = rig.measured.map(|position| Reading { position: Some(position), ..Reading::default() });
        readings.copy_from_slice(&rig.readings.unwrap_or(measured));
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        let mut rig = self.0.borrow_mut();
        let command = [positions[0], positions[1]];
        rig.commanded = Some(command);
        if !rig.stuck {
            rig.measured = command;
        }
        if rig.broken { Err(OutputError::Joint(1)) } else { Ok(()) }
    }

    fn release(&mut self) -> Result<(), OutputError> {
        self.0.borrow_mut().commanded = None;
        Ok(())
    }
}

impl StopCircuit for Shared {
    fn read(&mut self) -> StopChannels {
        let rig = self.0.borrow();
        let [first, second] = rig.open.map(|open| !open);
        StopChannels { first_closed: first, second_closed: rig.two_channels.then_some(second) }
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
    /// Joints of ±1 rad; speed and acceleration as given, jump 0.5 rad, no limits that lead to faults.
    pub(crate) fn new(velocity: f32, acceleration: f32) -> Self {
        Self::of(|joint| JointSpec { velocity, acceleration, reach: 4.0 * velocity, ..joint })
    }

    /// The same joints at 2 rad/s and 16 rad/s², changed.
    pub(crate) fn of(change: impl Fn(JointSpec) -> JointSpec) -> Self {
        Self::with(change, |config| config)
    }

    /// The same joints and the usual controller, changed.
    pub(crate) fn with(change: impl Fn(JointSpec) -> JointSpec, configure: impl FnOnce(Config) -> Config) -> Self {
        let mut joints = JointTable::new();
        for name in ["base", "wrist"] {
            let name = Name::new(name).expect("short");
            let joint = JointSpec::new(name, Unit::Radian, [-1.0, 1.0], 2.0).with_jump(0.5);
            joints.push(change(JointSpec { following: None, stall: None, ..joint })).expect("valid");
        }
        let shared = Shared::default();
        let rig = Rc::clone(&shared.0);
        let mut bench = Self {
            controller: Controller::new(configure(Config::new(joints)), shared.clone(), shared),
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
        Self::new(1e3, 1e6).arm()
    }

    /// Armed.
    pub(crate) fn arm(mut self) -> Self {
        assert_eq!(self.send(&Message::Arm), Reason::Ok);
        self
    }

    pub(crate) fn controller(&mut self) -> &mut Controller<Shared, Shared> {
        &mut self.controller
    }

    /// What the driver learns of the joints from now on, instead of their positions.
    pub(crate) fn read(&self, readings: [Reading; 2]) {
        self.rig.borrow_mut().readings = Some(readings);
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
            let _ = self.controller.tick(self.now_us);
        }
    }

    /// One tick that comes after `us`.
    pub(crate) fn tick_after(&mut self, us: u64) {
        self.now_us += us;
        let _ = self.controller.tick(self.now_us);
    }

    pub(crate) fn state(&self) -> ControllerState {
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
