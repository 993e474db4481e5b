//! The simulated scene's arm without motors: six simulated joints, each at its goal one tick later, behind USART1 (PA9,
//! PA10; 1 Mbaud) of an STM32F405.
//!
//! It runs in QEMU's machine `netduinoplus2` and on a board with a 25 MHz crystal. Emergency stop: PC1 and PC2, each a
//! normally closed contact to ground; QEMU has no ports and reads them as closed.
#![no_std]
#![no_main]

use cortex_m_rt::{entry, exception};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::output::{SimulatedJoints, TwoChannels};
use stm32f4::clock::{Clock, Tree};
use stm32f4::identity::identity;
use stm32f4::pin::Pin;
use stm32f4::uart::Uart;

/// 168 MHz; 42 and 84 MHz for the peripherals.
const TREE: Tree = Tree { crystal_mhz: 25, multiply: 336, wait_states: 5, slow_shift: 2, fast_shift: 1 };
const BAUD: u32 = 1_000_000;
/// 200 Hz.
const TELEMETRY_US: u32 = 5_000;

static HOST: Uart = Uart::usart1();

/// Name, lowest, highest, speed and initial position: as in `runtime/src/scene/scene.toml`.
const JOINTS: [(&str, f32, f32, f32, f32); 6] = [
    ("shoulder_pan", -1.9, 1.9, 2.0, 0.0),
    ("shoulder_lift", -1.7, 1.7, 2.0, 0.05),
    ("elbow_flex", -0.3, 2.6, 2.5, 1.45),
    ("wrist_flex", -1.8, 1.8, 3.0, 1.35),
    ("wrist_roll", -2.8, 2.8, 3.5, 0.0),
    ("gripper", -0.6, 0.75, 4.0, 0.0),
];

#[entry]
fn main() -> ! {
    let Some(core) = cortex_m::Peripherals::take() else { stm32f4::give_up() };
    let mut joints = JointTable::new();
    for (name, min, max, velocity, _) in JOINTS {
        let Some(name) = Name::new(name) else { stm32f4::give_up() };
        if joints.push(JointSpec::new(name, Unit::Radian, [min, max], velocity).with_jump(0.5)).is_err() {
            stm32f4::give_up();
        }
    }
    if !TREE.start() {
        stm32f4::give_up();
    }
    Pin::new(b'A', 9).alternate(7);
    Pin::new(b'A', 10).alternate(7);
    let config = Config { identity: identity("netduinoplus2"), telemetry_us: TELEMETRY_US, ..Config::new(joints) };
    let arm = SimulatedJoints::new(&joints, &JOINTS.map(|(.., initial)| initial), 0.0);
    let stop = TwoChannels(Pin::new(b'C', 1).stop_line(), Pin::new(b'C', 2).stop_line());
    let controller = Controller::new(config, arm, stop);
    let serial = HOST.start(TREE.fast_hz(), BAUD, || HOST.begin());
    let mut bridge = Bridge::new(serial, controller);
    let mut clock = Clock::start(core.SYST, &TREE, config.tick_us);
    let tick_s = config.tick_us as f32 * 1e-6;
    stm32f4::run(&mut clock, &[&HOST], &mut bridge, |bridge| bridge.controller_mut().output_mut().step(tick_s))
}

/// The other interrupts are off.
#[exception]
unsafe fn DefaultHandler(irq: i16) {
    if irq == HOST.irq() {
        HOST.on_interrupt();
    }
}

/// Unreferenced: `tools/firmware` checks that the firmware has no panic path.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    stm32f4::give_up()
}
