//! An SO-100 or SO-101 arm, six Feetech STS3215 servos, on a WeAct Black Pill (STM32F411CE).
//!
//! | pin | goes to |
//! |---|---|
//! | PA9, PA10 | TX and RX of the host's USB-serial adapter, 1 Mbaud |
//! | PA2, PA3 | TX and RX of a servo bus adapter (full duplex on its side), 1 Mbaud |
//! | PB0 | emergency stop, first channel: a normally closed contact to ground |
//! | PB1 | emergency stop, second channel: a normally closed contact to ground |
//!
//! Connect a button with one contact to both PB0 and PB1; the channels are then always equal.
//!
//! The servos' addresses are 1 to 6 from the base to the gripper, and each is at 2048 counts in the middle of its
//! joint, as after lerobot's calibration. Check signs, limits and jump on your arm at low speed first.
//!
//! At a fault the arm ramps to rest and holds under torque, so that it does not drop its load. A servo that heats up
//! beyond 65 °C while holding keeps the fault latched; at 69 °C all servos are released, and the arm drops.
#![no_std]
#![no_main]

use cortex_m_rt::{entry, exception};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{JointSpec, JointTable, Name, OverloadLimit, TemperatureLimit, Unit};
use firmware_bridge::output::{BusServo, FeetechSts, JointOutput, Reading, ServoBus, TwoChannels};
use stm32f4::clock::{Clock, Tree};
use stm32f4::identity::identity;
use stm32f4::pin::Pin;
use stm32f4::uart::Uart;

/// 100 MHz; 50 and 100 MHz for the peripherals.
const TREE: Tree = Tree { crystal_mhz: 25, multiply: 200, wait_states: 3, slow_shift: 1, fast_shift: 0 };
const BAUD: u32 = 1_000_000;
/// Time limit for the servos to answer after power-on, in ticks: 2 s.
const WAKE_TICKS: u32 = 1_000;

static HOST: Uart = Uart::usart1();
static SERVOS: Uart = Uart::usart2();

/// At 70 °C an STS3215 cuts its own torque.
const TEMPERATURE: TemperatureLimit = TemperatureLimit { stop_c: 65, release_c: 69 };
/// For a supply of 7.4 or 12 V: detects an empty battery and a loose plug.
const VOLTAGE: [f32; 2] = [5.0, 13.5];
/// An STS3215 blocked at 12 V draws 2.7 A.
const OVERLOAD: OverloadLimit = OverloadLimit { current_a: 2.0, time_ms: 1_000 };

/// Name, lowest, highest and speed, in radians.
const JOINTS: [(&str, f32, f32, f32); 6] = [
    ("shoulder_pan", -1.9, 1.9, 2.0),
    ("shoulder_lift", -1.7, 1.7, 2.0),
    ("elbow_flex", -1.6, 1.6, 2.0),
    ("wrist_flex", -1.6, 1.6, 3.0),
    ("wrist_roll", -2.7, 2.7, 3.0),
    ("gripper", -0.1, 1.7, 3.0),
];

#[entry]
fn main() -> ! {
    let Some(core) = cortex_m::Peripherals::take() else { stm32f4::give_up() };
    let mut joints = JointTable::new();
    for (name, min, max, velocity) in JOINTS {
        let Some(name) = Name::new(name) else { stm32f4::give_up() };
        // Goal and servo differ by lag × speed, about 0.2 rad; the jump is larger.
        let joint = JointSpec::new(name, Unit::Radian, [min, max], velocity).with_jump(0.5);
        let joint = JointSpec {
            // The servo turns at up to 6 rad/s; a hand or the arm's weight moves it faster.
            reach: 15.0,
            // A gripper stalls on its object.
            stall: joint.stall.filter(|_| name.as_str() != "gripper"),
            following: joint.following.filter(|_| name.as_str() != "gripper"),
            overload: Some(OVERLOAD),
            temperature: Some(TEMPERATURE),
            voltage: Some(VOLTAGE),
            ..joint
        };
        if joints.push(joint).is_err() {
            stm32f4::give_up();
        }
    }
    if !TREE.start() {
        stm32f4::give_up();
    }
    for number in [2, 3, 9, 10] {
        Pin::new(b'A', number).alternate(7);
    }
    let config = Config { identity: identity("blackpill"), ..Config::new(joints) };
    let servos = [1, 2, 3, 4, 5, 6].map(|id| BusServo { id, zero: 2048, counts_per_unit: BusServo::PER_RADIAN });
    let line = SERVOS.start(TREE.slow_hz(), BAUD, || SERVOS.begin());
    let mut bus = ServoBus::new(line, FeetechSts, servos);
    let mut clock = Clock::start(core.SYST, &TREE, config.tick_us);
    // A silent servo becomes a fault of the controller, which the host can read.
    for _ in 0..WAKE_TICKS {
        clock.wait_for_tick();
        SERVOS.resume();
        if bus.measure(&mut [Reading::default(); 6]).is_ok() && bus.is_known() {
            break;
        }
    }
    let stop = TwoChannels(Pin::new(b'B', 0).stop_line(), Pin::new(b'B', 1).stop_line());
    let controller = Controller::new(config, bus, stop);
    let serial = HOST.start(TREE.fast_hz(), BAUD, || HOST.begin());
    let mut bridge = Bridge::new(serial, controller);
    stm32f4::run(&mut clock, &[&HOST, &SERVOS], &mut bridge, |_| {})
}

/// The other interrupts are off.
#[exception]
unsafe fn DefaultHandler(irq: i16) {
    for line in [&HOST, &SERVOS] {
        if irq == line.irq() {
            line.on_interrupt();
        }
    }
}

/// Unreferenced: `tools/firmware` checks that the firmware has no panic path.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stm32f4::give_up()
}
