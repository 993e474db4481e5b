//! A controller on the host: the firmware's own code on a thread, behind a pseudo-terminal, with simulated joints.
//!
//! Open [`Sim::path`] like any serial device. [`SimConfig`] describes the joints; [`Joints`] reads their positions.

use std::io;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::bridge::Bridge;
use crate::controller::{Config, Controller};
use crate::frame::Counters;
use crate::joint::{JointError, JointSpec, JointTable, Name, StopBehaviour, TemperatureLimit, Unit};
use crate::message::{ControllerState, Mode};
use crate::output::SimulatedJoints;
use crate::{MAX_NAME, PROTOCOL_VERSION};

mod plant;
mod pty;

use plant::{EstopLine, Plant, PlantOutput};
use pty::Pty;

/// One simulated joint; see [`JointSpec`] for the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct SimJoint {
    /// Name, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// Unit of every other field.
    pub unit: Unit,
    /// Lowest position.
    pub min: f32,
    /// Highest position.
    pub max: f32,
    /// Highest speed per second.
    pub velocity: f32,
    /// Highest acceleration per second squared.
    pub acceleration: f32,
    /// Largest distance of command and measured pose.
    pub jump: f32,
    /// Position at power-on.
    pub initial: f32,
}

impl SimJoint {
    /// A revolute joint of ±2.5 rad, 3 rad/s, 20 rad/s² and a jump of 0.5 rad, at 0 rad.
    pub fn revolute(name: &str) -> Self {
        Self {
            name: name.into(),
            unit: Unit::Radian,
            min: -2.5,
            max: 2.5,
            velocity: 3.0,
            acceleration: 20.0,
            jump: 0.5,
            initial: 0.0,
        }
    }

    fn spec(&self) -> Result<JointSpec, SimError> {
        let name = Name::new(&self.name).ok_or_else(|| SimError::Name(self.name.clone()))?;
        let spec = JointSpec::new(name, self.unit, [self.min, self.max], self.velocity).with_jump(self.jump);
        let temperature = Some(TemperatureLimit { stop_c: 70, release_c: 80 });
        Ok(JointSpec { acceleration: self.acceleration, temperature, ..spec })
    }
}

/// The simulated controller's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// The controller's identity, at most [`MAX_NAME`] bytes.
    pub identity: String,
    /// The joints in order.
    pub joints: Vec<SimJoint>,
    /// Their behaviour at a fault.
    pub stop: StopBehaviour,
    /// Control tick in microseconds.
    pub tick_us: u32,
    /// Telemetry period in microseconds.
    pub telemetry_us: u32,
    /// Deadman time in microseconds, see [`Config::deadman_us`].
    pub deadman_us: u32,
    /// Time constant of the joints' lag behind their command, in seconds.
    pub lag_s: f32,
    /// The protocol version in its frames.
    pub version: u8,
}

impl SimConfig {
    /// 500 Hz, 100 Hz telemetry, deadman 150 ms, lag 30 ms, identity `simulated`.
    pub fn new(joints: Vec<SimJoint>) -> Self {
        Self {
            identity: "simulated".into(),
            joints,
            stop: StopBehaviour::RampThenHold,
            tick_us: 2_000,
            telemetry_us: 10_000,
            deadman_us: 150_000,
            lag_s: 0.03,
            version: PROTOCOL_VERSION,
        }
    }

    /// The controller's own configuration.
    ///
    /// # Errors
    /// [`SimError::Name`] or [`SimError::Joint`] for a joint that no controller takes.
    pub fn controller(&self) -> Result<Config, SimError> {
        let mut joints = JointTable::new();
        joints.stop = self.stop;
        for joint in &self.joints {
            joints.push(joint.spec()?).map_err(|source| SimError::Joint(joint.name.clone(), source))?;
        }
        Ok(Config {
            identity: Name::new(&self.identity).ok_or_else(|| SimError::Name(self.identity.clone()))?,
            tick_us: self.tick_us.max(1),
            telemetry_us: self.telemetry_us,
            deadman_us: self.deadman_us,
            ..Config::new(joints)
        })
    }
}

/// The reason why a simulated controller did not start.
#[derive(Debug)]
pub enum SimError {
    /// The name is longer than [`MAX_NAME`] bytes.
    Name(String),
    /// The joint is one too many, or its limits are invalid.
    Joint(String, JointError),
    /// The system gave no pseudo-terminal or thread.
    Io(io::Error),
}

impl core::fmt::Display for SimError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name {name:?} is longer than {MAX_NAME} bytes"),
            Self::Joint(name, source) => write!(f, "joint {name:?}: {source}"),
            Self::Io(source) => write!(f, "simulated controller: {source}"),
        }
    }
}

impl core::error::Error for SimError {}

impl From<io::Error> for SimError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// The controller's state in a tick, independent of the line's telemetry.
#[derive(Debug, Clone)]
pub struct Tick {
    /// Time of the tick.
    pub at: Instant,
    /// As in telemetry, without the line's counters.
    pub state: ControllerState,
}

/// Defects of the simulated joints.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Defects {
    /// The joint's index; all joints if absent.
    pub joint: Option<usize>,
    /// The sensor's reading in place of the position.
    pub reading: Option<f32>,
    /// Whether it is blocked.
    pub stalled: bool,
    /// Temperature of its motor in degrees Celsius.
    pub temperature_c: Option<f32>,
}

impl Defects {
    fn is_of(&self, joint: usize) -> bool {
        self.joint.is_none_or(|of| of == joint)
    }
}

/// The simulated joints, shared with the controller's thread.
#[derive(Debug, Clone)]
pub struct Joints {
    plant: Arc<Mutex<Plant>>,
    subscriber: Arc<Mutex<Option<Sender<Tick>>>>,
}

impl Joints {
    /// Measured positions in joint order.
    pub fn positions(&self) -> Vec<f32> {
        lock(&self.plant).joints.positions().into()
    }

    /// Copies the measured positions into `out`, as many as both have.
    pub fn read(&self, out: &mut [f32]) {
        for (to, from) in out.iter_mut().zip(lock(&self.plant).joints.positions()) {
            *to = *from;
        }
    }

    /// Moves the joints by hand to `positions`.
    pub fn place(&self, positions: &[f32]) {
        lock(&self.plant).joints.place(positions);
    }

    /// Stops a joint at a position that it cannot exceed, as an object between the jaws does; `None` lets every joint go.
    pub fn stop(&self, stop: Option<(usize, f32)>) {
        lock(&self.plant).stop = stop;
    }

    /// Every tick from now on, until the controller is unplugged; one subscriber at a time.
    pub fn ticks(&self) -> Receiver<Tick> {
        let (sender, ticks) = mpsc::channel();
        *lock(&self.subscriber) = Some(sender);
        ticks
    }

    fn publish(&self, at: Instant, state: ControllerState) {
        let mut subscriber = lock(&self.subscriber);
        if subscriber.as_ref().is_some_and(|l| l.send(Tick { at, state }).is_err()) {
            *subscriber = None;
        }
    }
}

/// Switches of the controller's thread, in addition to the line.
#[derive(Debug, Default)]
struct Switches {
    exit: AtomicBool,
    frozen: AtomicBool,
    reset: AtomicBool,
    estop: AtomicBool,
    /// 0 disarmed, 1 holding, 2 active, 3 stopping, 4 faulted.
    mode: AtomicU8,
}

/// A running simulated controller. Dropping it unplugs it.
#[derive(Debug)]
pub struct Sim {
    path: PathBuf,
    joints: Joints,
    switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

impl Sim {
    /// Powers on a controller.
    ///
    /// # Errors
    /// [`SimError`] if a joint is invalid or the system gives no pseudo-terminal.
    pub fn start(config: SimConfig) -> Result<Self, SimError> {
        let controller = config.controller()?;
        let initial: Vec<f32> = config.joints.iter().map(|joint| joint.initial).collect();
        let plant = Plant::new(SimulatedJoints::new(&controller.joints, &initial, config.lag_s));
        let plant = Arc::new(Mutex::new(plant));
        let pty = Pty::open()?;
        let path = pty.path().to_path_buf();
        let switches = Arc::new(Switches::default());
        let joints = Joints { plant, subscriber: Arc::default() };
        let thread = ControllerThread {
            joints: joints.clone(),
            switches: Arc::clone(&switches),
            config: controller,
            version: config.version,
        };
        let thread = thread::Builder::new().name("sim-controller".into()).spawn(move || thread.run(pty))?;
        Ok(Self { path, joints, switches, thread: Some(thread) })
    }

    /// The device to open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle on the joints.
    pub fn joints(&self) -> Joints {
        self.joints.clone()
    }

    /// Measured positions in joint order.
    pub fn positions(&self) -> Vec<f32> {
        self.joints.positions()
    }

    /// Whether the controller is in [`Mode::Faulted`].
    pub fn is_faulted(&self) -> bool {
        self.switches.mode.load(Ordering::Relaxed) == 4
    }

    /// Freezes (`true`) or resumes the controller: a frozen one neither reads, moves nor answers.
    pub fn freeze(&self, frozen: bool) {
        self.switches.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Restarts the controller as a power cycle does: session and permission are lost.
    pub fn reset(&self) {
        self.switches.reset.store(true, Ordering::Relaxed);
    }

    /// Opens (`true`) or closes the emergency stop line.
    pub fn set_estop(&self, open: bool) {
        self.switches.estop.store(open, Ordering::Relaxed);
    }

    /// Sets or removes defects of the joints.
    pub fn set_defects(&self, defects: Defects) {
        lock(&self.joints.plant).defects = defects;
    }

    /// Makes the sensor of `joint`, or of all joints, read `position` for one tick.
    pub fn misread_once(&self, joint: Option<usize>, position: f32) {
        lock(&self.joints.plant).misread = Some((joint, position));
    }

    /// Unplugs the controller: its thread ends and the device is gone when this returns.
    pub fn unplug(&mut self) {
        self.switches.exit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.unplug();
    }
}

struct ControllerThread {
    joints: Joints,
    switches: Arc<Switches>,
    config: Config,
    version: u8,
}

impl ControllerThread {
    fn run(self, mut pty: Pty) {
        let origin = Instant::now();
        while !self.switches.exit.load(Ordering::Relaxed) {
            pty = self.run_until_reset(pty, origin);
        }
        *lock(&self.joints.subscriber) = None;
    }

    /// One power cycle; returns the line.
    fn run_until_reset(&self, pty: Pty, origin: Instant) -> Pty {
        let output = PlantOutput::new(Arc::clone(&self.joints.plant));
        let line = EstopLine::new(Arc::clone(&self.switches));
        let mut bridge = Bridge::new(pty, Controller::new(self.config, output, line));
        bridge.set_version(self.version);
        let tick = Duration::from_micros(u64::from(self.config.tick_us));
        let mut due = Instant::now();
        let mut last = due;
        while !self.switches.exit.load(Ordering::Relaxed) && !self.switches.reset.swap(false, Ordering::Relaxed) {
            let now = Instant::now();
            lock(&self.joints.plant).step(now.saturating_duration_since(last).as_secs_f32());
            last = now;
            if !self.switches.frozen.load(Ordering::Relaxed) {
                let now_us = now.saturating_duration_since(origin).as_micros();
                bridge.poll(u64::try_from(now_us).unwrap_or(u64::MAX));
                let mode = match bridge.controller().mode() {
                    Mode::Disarmed => 0,
                    Mode::Holding => 1,
                    Mode::Active => 2,
                    Mode::Stopping => 3,
                    Mode::Faulted(_) => 4,
                };
                self.switches.mode.store(mode, Ordering::Relaxed);
                self.joints.publish(now, bridge.controller().state(&Counters::default(), 0));
            }
            // Missed ticks are not made up.
            due = due.checked_add(tick).unwrap_or(now).max(now);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        bridge.into_serial()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
