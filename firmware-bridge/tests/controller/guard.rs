//! The controller's guard: whatever the joints' driver answers, whatever arrives and whenever it ticks, no goal lies
//! outside a joint's limits or further from the last goal than speed and acceleration allow.
//!
//! Random cases of 2,000 ticks; `FATHOM_TICKS=10000000 cargo test --release -p firmware-bridge --test controller guard`
//! runs ten million.

use std::cell::RefCell;
use std::rc::Rc;

use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Frame, Header};
use firmware_bridge::joint::{
    FollowingLimit, JointSpec, JointTable, Name, OverloadLimit, StallLimit, StopBehaviour, TemperatureLimit, Unit,
};
use firmware_bridge::message::{Ack, Alarms, Chunk, Interpolation, Message, Mode, Positions, Reason, SCHEMA_HASH};
use firmware_bridge::output::{JointOutput, OutputError, Reading, StopChannels, StopCircuit};
use proptest::prelude::*;
use proptest::test_runner::{Config as TestConfig, TestRng, TestRunner};

const TICK_US: u64 = 2_000;
const CASE_TICKS: u64 = 2_000;

/// Random numbers of a case: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something happens that happens once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// A number such as a broken sensor gives.
    fn any_number(&mut self) -> f32 {
        match self.below(6) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::from_bits(self.next() as u32),
            3 => 0.0,
            _ => self.between(-4.0, 4.0),
        }
    }
}

/// A driver that answers as it likes, and what it was commanded.
struct Driver {
    dice: Dice,
    joints: usize,
    /// Where the joints are.
    at: Vec<f32>,
    goals: Option<Vec<f32>>,
    commands: u64,
    /// How the sensors of this time are: 0 right, 1 now and then wrong, 2 stuck, 3 silent, 4 nothing right.
    sensors: u64,
    fails: bool,
    open: [bool; 2],
    two_channels: bool,
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Driver>>);

impl JointOutput for Shared {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        let mut driver = self.0.borrow_mut();
        assert_eq!(readings.len(), driver.joints);
        let Driver { dice, at, sensors, .. } = &mut *driver;
        for (reading, here) in readings.iter_mut().zip(at) {
            let here = *here;
            let wrong = dice.any_number();
            let seldom = dice.once_in(20);
            let health = dice.once_in(16);
            let any = [dice.any_number(), dice.between(20.0, 90.0), dice.between(4.0, 9.0)];
            let alarms = Alarms(if dice.once_in(500) { dice.next() as u8 } else { 0 });
            *reading = Reading {
                position: match *sensors {
                    1 if seldom => Some(wrong),
                    2 => Some(0.25),
                    3 => None,
                    4 => Some(wrong),
                    _ => Some(here),
                },
                current_a: health.then_some(any[0]),
                temperature_c: (health && seldom).then_some(any[1]),
                voltage_v: (health && seldom).then_some(any[2]),
                alarms: Some(alarms),
            };
        }
        if driver.fails && driver.dice.once_in(50) { Err(OutputError::All) } else { Ok(()) }
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        let mut driver = self.0.borrow_mut();
        driver.commands += 1;
        driver.goals = Some(positions.to_vec());
        // A servo that follows, more or less.
        let share = driver.dice.between(0.0, 1.0);
        for (at, goal) in driver.at.iter_mut().zip(positions) {
            *at += (goal - *at) * share;
        }
        if driver.fails && driver.dice.once_in(50) { Err(OutputError::Joint(0)) } else { Ok(()) }
    }

    fn release(&mut self) -> Result<(), OutputError> {
        let mut driver = self.0.borrow_mut();
        driver.goals = None;
        if driver.fails && driver.dice.once_in(3) { Err(OutputError::All) } else { Ok(()) }
    }
}

impl StopCircuit for Shared {
    fn read(&mut self) -> StopChannels {
        let driver = self.0.borrow();
        let [first, second] = driver.open.map(|open| !open);
        StopChannels { first_closed: first, second_closed: driver.two_channels.then_some(second) }
    }
}

fn table(dice: &mut Dice) -> JointTable {
    let mut joints = JointTable::new();
    for name in ["a", "b", "c"] {
        let name = Name::new(name).expect("short");
        let (min, max) = (dice.between(-3.0, -0.1), dice.between(0.1, 3.0));
        let velocity = dice.between(0.2, 6.0);
        let joint = JointSpec::new(name, Unit::Radian, [min, max], velocity).with_jump(dice.between(0.05, 1.0));
        let joint = JointSpec {
            acceleration: dice.between(1.0, 100.0),
            following: joint.following.filter(|_| dice.once_in(2)).map(|l| FollowingLimit { time_ms: 100, ..l }),
            stall: joint.stall.filter(|_| dice.once_in(2)).map(|l| StallLimit { time_ms: 200, ..l }),
            overload: dice.once_in(2).then_some(OverloadLimit { current_a: 3.0, time_ms: 100 }),
            temperature: dice.once_in(2).then_some(TemperatureLimit { stop_c: 80, release_c: 85 }),
            voltage: dice.once_in(2).then_some([4.2, 8.8]),
            ..joint
        };
        joints.push(joint).expect("valid");
    }
    joints.stop = match dice.below(3) {
        0 => StopBehaviour::Hold,
        1 => StopBehaviour::RampThenHold,
        _ => StopBehaviour::RampThenLimp,
    };
    joints
}

struct Case {
    controller: Controller<Shared, Shared>,
    driver: Rc<RefCell<Driver>>,
    joints: JointTable,
    now_us: u64,
    sequence: u32,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let joints = table(&mut dice);
        let driver = Rc::new(RefCell::new(Driver {
            at: joints.as_slice().iter().map(|joint| dice.between(joint.min, joint.max)).collect(),
            joints: joints.as_slice().len(),
            goals: None,
            commands: 0,
            sensors: 0,
            fails: false,
            open: [false; 2],
            two_channels: dice.once_in(2),
            dice,
        }));
        let shared = Shared(Rc::clone(&driver));
        let controller = Controller::new(Config::new(joints), shared.clone(), shared);
        Self { controller, driver, joints, now_us: 1_000_000, sequence: 0 }
    }

    fn send(&mut self, message: Message<'_>) -> Option<Reason> {
        self.sequence += 1;
        let frame = Frame { header: Header::new(self.sequence, 7, 0), message };
        match self.controller.handle(&frame, self.now_us) {
            Some(Message::Ack(Ack { reason, .. })) => Some(reason),
            _ => None,
        }
    }

    /// Sends something, most often a chunk: near where the joints are, or anywhere.
    fn talk(&mut self, dice: &mut Dice) {
        match dice.below(24) {
            0 => self.send(Message::Stop),
            1 => self.send(Message::Disarm),
            2 => self.send(Message::Hello { schema: SCHEMA_HASH }),
            3..=7 => self.send(Message::ClearFault),
            8..=13 => self.send(Message::Arm),
            _ => {
                let steps = 1 + dice.below(20);
                let wide = dice.between(0.0, 2.0);
                let joints: Vec<JointSpec> = self.joints.as_slice().to_vec();
                let path: Vec<f32> = (0..steps)
                    .flat_map(|_| joints.iter().map(|j| dice.between(j.min * wide, j.max * wide)).collect::<Vec<_>>())
                    .collect();
                let chunk = Chunk {
                    id: dice.next() as u32,
                    start_us: self.now_us.saturating_add_signed(dice.below(100_000) as i64 - 50_000),
                    period_us: 1 + dice.below(60_000) as u32,
                    validity_us: dice.below(1_000_000) as u32,
                    interpolation: if dice.once_in(2) { Interpolation::Linear } else { Interpolation::Hermite },
                    joints: 3,
                    steps: steps as u16,
                    positions: Positions::Native(&path),
                };
                self.send(Message::Chunk(chunk))
            }
        };
    }
}

/// A joint's last goal, and the step that led to it where the tick before was punctual.
#[derive(Clone, Copy)]
struct Last {
    goal: f32,
    step: Option<f32>,
}

/// Runs `ticks` ticks; counts of commands and of faults that were seen.
fn run(seed: u64, ticks: u64) -> Result<(u64, u64), TestCaseError> {
    let mut case = Case::new(seed);
    let mut dice = Dice(seed ^ 0xA5A5);
    let mut last: Option<Vec<Last>> = None;
    let mut faults = 0;
    case.send(Message::Hello { schema: SCHEMA_HASH });
    for tick in 0..ticks {
        if dice.once_in(15) {
            case.talk(&mut dice);
        } else if dice.once_in(8) {
            case.send(Message::Heartbeat);
        }
        {
            let mut driver = case.driver.borrow_mut();
            if dice.once_in(60) {
                driver.sensors = if dice.once_in(2) { 0 } else { dice.below(5) };
            }
            if dice.once_in(300) {
                driver.fails = dice.once_in(4);
            }
            if dice.once_in(200) {
                driver.open = [dice.once_in(6), dice.once_in(6)];
            }
            // Pushed by hand.
            if dice.once_in(100) {
                let joint = dice.below(3) as usize;
                driver.at[joint] += dice.between(-0.5, 0.5);
            }
        }
        let before = case.controller.state(&Default::default(), 0);
        let commands = case.driver.borrow().commands;
        // Early, late, and very late ticks.
        let wait_us = match dice.below(20) {
            0 => 1 + dice.below(TICK_US),
            1 => TICK_US + dice.below(8_000),
            2 if dice.once_in(20) => dice.below(400_000),
            _ => TICK_US,
        };
        case.now_us += wait_us;
        let _ = case.controller.tick(case.now_us);
        let after = case.controller.state(&Default::default(), 0);
        faults += u64::from(after.mode != before.mode && matches!(after.mode, Mode::Faulted(_)));
        let driver = case.driver.borrow();
        if driver.commands == commands {
            // Released, or not armed: the next goals are the first again.
            prop_assert!(!after.energised || wait_us == 0);
            last = None;
            continue;
        }
        let Some(goals) = driver.goals.clone() else {
            // Commanded and then released for a command that failed.
            last = None;
            continue;
        };
        // A punctual tick is one step, any other at most what it stands for, rounded, and at most four.
        let punctual = wait_us == TICK_US;
        let steps = if punctual { 1.0 } else { (wait_us / TICK_US + 2).min(4) as f32 };
        let mut next = Vec::new();
        for (index, (goal, joint)) in goals.iter().zip(case.joints.as_slice()).enumerate() {
            prop_assert!(
                joint.min <= *goal && *goal <= joint.max,
                "seed {seed} tick {tick}: goal {goal} is outside {} to {}",
                joint.min,
                joint.max
            );
            let dt = TICK_US as f32 * 1e-6;
            // Goals of up to 3 rad have a rounding of 2.4e-7, and a step is the difference of two.
            let slack = 1e-6;
            let most = joint.velocity * dt;
            let gain = joint.acceleration * dt * dt;
            let (from, (low, high)) = match last.as_ref().map(|last| last[index]) {
                // The first goal after arming is where the joint was measured. It may follow a chunk from there at once.
                None => (before.measured.as_slice()[index], (-gain, gain)),
                Some(Last { goal, step: Some(by) }) => (goal, ((by - gain).min(0.0), (by + gain).max(0.0))),
                Some(Last { goal, step: None }) => (goal, (-most, most)),
            };
            let (low, high) = if punctual { (low.max(-most), high.min(most)) } else { (-most, most) };
            let step = goal - from;
            prop_assert!(
                low * steps - slack <= step && step <= high * steps + slack,
                "seed {seed} tick {tick}: goal {from} to {goal} in {steps} steps, allowed {low} to {high} each; {after:?}"
            );
            next.push(Last { goal: *goal, step: punctual.then_some(step) });
        }
        last = Some(next);
    }
    let commands = case.driver.borrow().commands;
    Ok((commands, faults))
}

#[test]
fn no_goal_is_outside_the_limits_or_too_far_from_the_last() {
    let ticks = std::env::var("FATHOM_TICKS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000_u64);
    let cases = u32::try_from(ticks / CASE_TICKS).expect("fewer").max(1);
    let config = TestConfig { cases, failure_persistence: None, ..TestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    let (commands, faults) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    // A case that this test found: a goal that had been stopped by its limit turned round too fast.
    if let Err(error) = run(5_836_482_358_431_859_326, CASE_TICKS) {
        panic!("{error}");
    }
    let outcome = runner.run(&any::<u64>(), |seed| {
        let (more, latched) = run(seed, CASE_TICKS)?;
        commands.set(commands.get() + more);
        faults.set(faults.get() + latched);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{ticks} ticks, {} with goals, {} faults", commands.get(), faults.get());
    // A guard that never meets a goal guards nothing.
    assert!(commands.get() > ticks / 20, "{} of {ticks} ticks had goals", commands.get());
    assert!(faults.get() > ticks / 1_000, "{} faults in {ticks} ticks", faults.get());
}
