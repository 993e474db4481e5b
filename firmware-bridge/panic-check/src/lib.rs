//! The whole controller, with its surroundings opaque to the compiler.
#![no_std]

use core::convert::Infallible;

use embedded_hal::digital::{self, InputPin};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::joint::{
    FollowingLimit, JointSpec, JointTable, Name, OverloadLimit, StallLimit, StopBehaviour, TemperatureLimit, Unit,
};
use firmware_bridge::message::Alarms;
use firmware_bridge::output::{JointOutput, OutputError, Reading, TwoChannels};

unsafe extern "C" {
    safe fn clock_us() -> u64;
    safe fn serial_read() -> i32;
    safe fn serial_write(byte: u8) -> bool;
    safe fn joint_limit(index: usize) -> f32;
    safe fn joint_read(index: usize) -> f32;
    safe fn joint_write(index: usize, position: f32) -> bool;
    safe fn line_is_closed() -> bool;
    /// An undefined symbol, linked only if some path panics.
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
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        for (index, reading) in readings.iter_mut().enumerate() {
            let read = |what: usize| Some(joint_read(index * 8 + what)).filter(|value| *value != 0.0);
            *reading = Reading {
                position: read(0),
                current_a: read(1),
                temperature_c: read(2),
                voltage_v: read(3),
                alarms: read(4).map(|value| Alarms(value as u8)),
            };
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        for (index, position) in positions.iter().enumerate() {
            if !joint_write(index, *position) {
                return Err(OutputError::Joint(index as u8));
            }
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), OutputError> {
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
        let limit = |number| Some(joint_limit(number)).filter(|limit| *limit > 0.0);
        let time_ms = joint_limit(5) as u16;
        let _ = joints.push(JointSpec {
            acceleration: joint_limit(3),
            reach: joint_limit(4),
            following: limit(6).map(|error| FollowingLimit { error, time_ms }),
            stall: limit(7).map(|error| StallLimit { error, motion: error, current_a: error, time_ms }),
            overload: limit(8).map(|current_a| OverloadLimit { current_a, time_ms }),
            temperature: limit(9).map(|celsius| TemperatureLimit { stop_c: celsius as u8, release_c: 90 }),
            voltage: limit(10).map(|volts| [volts, 2.0 * volts]),
            ..JointSpec::new(name, Unit::Radian, [joint_limit(0), joint_limit(1)], joint_limit(2))
        });
    }
    joints.stop = match joint_limit(11) as u8 {
        0 => StopBehaviour::Hold,
        1 => StopBehaviour::RampThenHold,
        _ => StopBehaviour::RampThenLimp,
    };
    let mut bridge = Bridge::new(Serial, Controller::new(Config::new(joints), Joints, TwoChannels(Line, Line)));
    loop {
        bridge.poll(clock_us());
    }
}
