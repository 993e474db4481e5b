#![no_std]
//! Drivers for firmware on an STM32F4, register by register: the clock ([`clock`]), serial lines ([`uart`]), pins
//! ([`pin`]), PWM ([`pwm`]), the watchdog ([`watchdog`]), the board's identity ([`identity`]), and the main loop
//! ([`run`]).
//!
//! All registers used have the same address in the whole series (reference manuals RM0090, RM0383). Nothing here panics
//! or waits for an external event.

use core::sync::atomic::{AtomicU32, Ordering};

use firmware_bridge::bridge::Bridge;
use firmware_bridge::message::Fault;
use firmware_bridge::output::{JointOutput, StopCircuit};

pub mod clock;
pub mod identity;
pub mod pin;
pub mod pwm;
mod register;
pub mod uart;
pub mod watchdog;

use clock::Clock;
use uart::{HostSerial, Uart};
use watchdog::Watchdog;

/// The longest iteration of [`run`]'s loop since power-on, in counts of the processor's clock, including interrupts. A
/// debugger or an emulator's monitor reads it by its name.
#[unsafe(no_mangle)]
pub static LONGEST_TURN_COUNTS: AtomicU32 = AtomicU32::new(0);

/// Runs the controller forever: one iteration each tick of the clock, asleep in between.
///
/// Each tick first calls `each_tick` with the controller. The watchdog is started here and fed after each complete
/// tick. After a watchdog reset the controller starts with a latched fault.
pub fn run<J: JointOutput, E: StopCircuit>(
    clock: &mut Clock,
    lines: &[&Uart],
    bridge: &mut Bridge<HostSerial, J, E>,
    mut each_tick: impl FnMut(&mut Bridge<HostSerial, J, E>),
) -> ! {
    if watchdog::has_reset() {
        bridge.controller_mut().latch(Fault::WatchdogReset);
    }
    let watchdog = Watchdog::start();
    loop {
        clock.wait_for_tick();
        let began = clock.counts();
        for line in lines {
            line.resume();
        }
        each_tick(bridge);
        if let Some(tick) = bridge.poll(clock.now_us()) {
            watchdog.feed(tick);
        }
        let turn = u32::try_from(clock.counts().wrapping_sub(began)).unwrap_or(u32::MAX);
        LONGEST_TURN_COUNTS.store(turn.max(LONGEST_TURN_COUNTS.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

/// Stops the board; the joints stay without torque, as at power-on.
pub fn give_up() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}
