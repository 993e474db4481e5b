//! Six hobby servos on PWM pins of a WeAct Black Pill (STM32F411CE): a template for a custom arm.
//!
//! | pin | goes to |
//! |---|---|
//! | PA9, PA10 | TX and RX of the host's USB-serial adapter, 1 Mbaud |
//! | PA6, PA7, PB6, PB7, PB8, PB9 | signal of the servos, from the base to the gripper |
//! | PB0 | emergency stop, first channel: a normally closed contact to ground |
//! | PB1 | emergency stop, second channel: a normally closed contact to ground |
//!
//! These servos have no position feedback, so the arm's position is unknown when it is armed: place it in its rest pose
//! first, and test limits and directions at low speed. At a fault the pulses end; most servos then release.
#![no_std]
#![no_main]

use cortex_m_rt::{entry, exception};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{JointSpec, JointTable, Name, StopBehaviour, Unit};
use firmware_bridge::output::{PulseRange, PwmServos, TwoChannels};
use stm32f4::clock::{Clock, Tree};
use stm32f4::identity::identity;
use stm32f4::pin::Pin;
use stm32f4::pwm::{Channel, PERIOD_US, Timer};
use stm32f4::uart::Uart;

/// 100 MHz; 50 and 100 MHz for the peripherals.
const TREE: Tree = Tree { crystal_mhz: 25, multiply: 200, wait_states: 3, slow_shift: 1, fast_shift: 0 };
const BAUD: u32 = 1_000_000;

static HOST: Uart = Uart::usart1();

/// Name, lowest and highest position, and speed, in radians.
const JOINTS: [(&str, f32, f32, f32); 6] = [
    ("base", -1.5, 1.5, 1.0),
    ("shoulder", -1.2, 1.2, 1.0),
    ("elbow", -1.2, 1.2, 1.0),
    ("wrist_pitch", -1.2, 1.2, 1.5),
    ("wrist_roll", -1.5, 1.5, 1.5),
    ("gripper", -0.6, 0.6, 1.5),
];

/// Most servos turn by 180 degrees from 500 to 2500 µs.
const PULSE: PulseRange = PulseRange {
    low: -core::f32::consts::FRAC_PI_2,
    high: core::f32::consts::FRAC_PI_2,
    low_us: 500.0,
    high_us: 2500.0,
};

#[entry]
fn main() -> ! {
    let Some(core) = cortex_m::Peripherals::take() else { stm32f4::give_up() };
    let mut joints = JointTable::new();
    for (name, min, max, velocity) in JOINTS {
        let Some(name) = Name::new(name) else { stm32f4::give_up() };
        if joints.push(JointSpec::new(name, Unit::Radian, [min, max], velocity)).is_err() {
            stm32f4::give_up();
        }
    }
    joints.stop = StopBehaviour::RampThenLimp;
    if !TREE.start() {
        stm32f4::give_up();
    }
    for number in [9, 10] {
        Pin::new(b'A', number).alternate(7);
    }
    let (first, second) = (Timer::tim3().start(&TREE), Timer::tim4().start(&TREE));
    let channels = [
        first.channel(Channel::One),
        first.channel(Channel::Two),
        second.channel(Channel::One),
        second.channel(Channel::Two),
        second.channel(Channel::Three),
        second.channel(Channel::Four),
    ];
    let servos = PwmServos::new(channels, [PULSE; 6], f32::from(PERIOD_US), [0.0; 6]);
    let config = Config { identity: identity("pwm_arm"), ..Config::new(joints) };
    let stop = TwoChannels(Pin::new(b'B', 0).stop_line(), Pin::new(b'B', 1).stop_line());
    let controller = Controller::new(config, servos, stop);
    let mut clock = Clock::start(core.SYST, &TREE, config.tick_us);
    let serial = HOST.start(TREE.fast_hz(), BAUD, || HOST.begin());
    let mut bridge = Bridge::new(serial, controller);
    stm32f4::run(&mut clock, &[&HOST], &mut bridge, |_| {})
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
