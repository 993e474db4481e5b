//! The whole controller, with everything outside it unknown to the compiler.
#![no_std]

use core::convert::Infallible;

use embedded_hal::digital::{self, InputPin};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::output::JointOutput;

unsafe extern "C" {
    safe fn clock_us() -> u64;
    safe fn serial_read() -> i32;
    safe fn serial_write(byte: u8) -> bool;
    safe fn joint_limit(index: usize) -> f32;
    safe fn joint_read(index: usize) -> f32;
    safe fn joint_write(index: usize, position: f32) -> bool;
    safe fn line_is_closed() -> bool;
    /// Left undefined where some path panics.
    safe fn panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    panic_is_reachable()
}

struct Serial;

impl ErrorType for Serial {
    type Error = Infallible;
}

impl Read for Serial {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let mut count = 0;
        for place in out {
            let Ok(byte) = u8::try_from(serial_read()) else {
                break;
            };
            *place = byte;
            count += 1;
        }
        Ok(count)
    }
}

impl ReadReady for Serial {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(true)
    }
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.iter().take_while(|byte| serial_write(**byte)).count())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for Serial {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(true)
    }
}

struct Joints;

impl JointOutput for Joints {
    type Error = ();

    fn measure(&mut self, positions: &mut [f32]) -> Result<(), ()> {
        for (index, position) in positions.iter_mut().enumerate() {
            *position = joint_read(index);
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), ()> {
        for (index, position) in positions.iter().enumerate() {
            if !joint_write(index, *position) {
                return Err(());
            }
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), ()> {
        self.command(&[0.0])
    }
}

struct Line;

impl digital::ErrorType for Line {
    type Error = Infallible;
}

impl InputPin for Line {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(line_is_closed())
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(!line_is_closed())
    }
}

/// The firmware's main loop.
#[unsafe(no_mangle)]
pub extern "C" fn firmware_main() {
    let mut joints = JointTable::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let Some(name) = Name::new(name) else { return };
        let _ = joints.push(JointSpec {
            name,
            unit: Unit::Radian,
            min: joint_limit(0),
            max: joint_limit(1),
            velocity: joint_limit(2),
            acceleration: joint_limit(3),
            jump: joint_limit(4),
        });
    }
    let mut bridge = Bridge::new(Serial, Controller::new(Config::new(joints), Joints, Line));
    loop {
        bridge.poll(clock_us());
    }
}
