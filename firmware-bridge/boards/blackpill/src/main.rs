//! An SO-100 or SO-101 arm, six Feetech STS3215 servos, on a WeAct Black Pill (STM32F411CE).
//!
//! | pin | goes to |
//! |---|---|
//! | PA9, PA10 | TX and RX of the host's USB-serial adapter, 1 Mbaud |
//! | PA2, PA3 | TX and RX of a servo bus adapter (full duplex on its side), 1 Mbaud |
//! | PB0 | emergency stop: a normally closed contact to ground |
//!
//! The servos' addresses are 1 to 6 from the base to the gripper, and each is at 2048 counts in the
//! middle of its joint, as lerobot's calibration leaves them. Signs, limits and jump are to be
//! checked on the arm at hand with low speeds first.
#![no_std]
#![no_main]

use cortex_m_rt::{entry, exception};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::output::{BusServo, FeetechSts, JointOutput, ServoBus};
use stm32f4::clock::{Clock, Tree};
use stm32f4::pin::Pin;
use stm32f4::uart::Uart;

/// 100 MHz; 50 and 100 MHz for the peripherals.
const TREE: Tree = Tree { crystal_mhz: 25, multiply: 200, wait_states: 3, slow_shift: 1, fast_shift: 0 };
const BAUD: u32 = 1_000_000;
/// Ticks in which the servos may wake up: 2 s.
const WAKE_TICKS: u32 = 1_000;

static HOST: Uart = Uart::usart1();
static SERVOS: Uart = Uart::usart2();

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
        // Command and servo are apart by lag × speed, some 0.2 rad; the jump is beyond it.
        let joint = JointSpec { name, unit: Unit::Radian, min, max, velocity, acceleration: velocity * 8.0, jump: 0.5 };
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
    let config = Config::new(joints);
    let servos = [1, 2, 3, 4, 5, 6].map(|id| BusServo { id, zero: 2048, counts_per_unit: BusServo::PER_RADIAN });
    let line = SERVOS.start(TREE.slow_hz(), BAUD, || SERVOS.begin());
    let mut bus = ServoBus::new(line, FeetechSts, servos);
    let mut clock = Clock::start(core.SYST, &TREE, config.tick_us);
    // A servo that stays silent becomes the controller's fault, which the host can read.
    for _ in 0..WAKE_TICKS {
        clock.wait_for_tick();
        SERVOS.resume();
        if bus.measure(&mut [0.0; 6]).is_ok() {
            break;
        }
    }
    let controller = Controller::new(config, bus, Pin::new(b'B', 0).stop_line());
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

/// Nothing refers to it: `tools/firmware` checks that the firmware has no panic path.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stm32f4::give_up()
}
