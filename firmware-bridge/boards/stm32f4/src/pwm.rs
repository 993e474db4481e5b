//! PWM for hobby servos: timers 3 and 4 (reference manuals RM0090 and RM0383, general-purpose timers).
//!
//! | channel | timer 3 | timer 4 |
//! |---|---|---|
//! | 1 | PA6 | PB6 |
//! | 2 | PA7 | PB7 |
//! | 3 | PB0 | PB8 |
//! | 4 | PB1 | PB9 |

use core::convert::Infallible;

use embedded_hal::pwm::{ErrorType, SetDutyCycle};

use crate::clock::Tree;
use crate::pin::Pin;
use crate::register::{RCC_APB1ENR, Register};

/// The period of all channels in microseconds: 50 Hz, for analogue servos.
pub const PERIOD_US: u16 = 20_000;

const CR1: usize = 0x00;
const EGR: usize = 0x14;
const CCMR1: usize = 0x18;
const CCER: usize = 0x20;
const PSC: usize = 0x28;
const ARR: usize = 0x2C;
const CCR1: usize = 0x34;

/// A timer that generates PWM.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    base: usize,
    /// Its bit among the slower peripherals' clocks.
    enable: u32,
    pins: [Pin; 4],
}

impl Timer {
    /// Timer 3.
    pub const fn tim3() -> Self {
        let pins = [Pin::new(b'A', 6), Pin::new(b'A', 7), Pin::new(b'B', 0), Pin::new(b'B', 1)];
        Self { base: 0x4000_0400, enable: 1 << 1, pins }
    }

    /// Timer 4.
    pub const fn tim4() -> Self {
        let pins = [Pin::new(b'B', 6), Pin::new(b'B', 7), Pin::new(b'B', 8), Pin::new(b'B', 9)];
        Self { base: 0x4000_0800, enable: 1 << 2, pins }
    }

    /// Starts the timer, with a count of 1 µs and every channel idle.
    pub fn start(self, tree: &Tree) -> RunningTimer {
        RCC_APB1ENR.modify(0, self.enable);
        // A timer's clock is twice its bus's if the bus clock is divided.
        let clock_hz = tree.slow_hz() << u32::from(tree.slow_shift > 0);
        self.register(PSC).write((clock_hz / 1_000_000).saturating_sub(1));
        self.register(ARR).write(u32::from(PERIOD_US) - 1);
        // An update event loads prescaler and period.
        self.register(EGR).write(1);
        self.register(CR1).write(1);
        RunningTimer { timer: self }
    }

    fn register(self, offset: usize) -> Register {
        Register::at(self.base, offset)
    }
}

/// A running timer.
#[derive(Debug, Clone, Copy)]
pub struct RunningTimer {
    timer: Timer,
}

impl RunningTimer {
    /// Connects the channel's pin to the timer. The line stays idle until the first duty cycle.
    pub fn channel(&self, number: Channel) -> PwmChannel {
        let index = number as usize;
        // PWM mode 1; a new pulse length applies at the period's end.
        let mode = self.timer.register(CCMR1 + index / 2 * 4);
        let shift = (index % 2 * 8) as u32;
        mode.modify(0xFF << shift, 0b110_1000 << shift);
        let pulse = self.timer.register(CCR1 + index * 4);
        pulse.write(0);
        self.timer.register(CCER).modify(0, 1 << (index * 4));
        if let Some(pin) = self.timer.pins.get(index) {
            pin.alternate(2);
        }
        PwmChannel { pulse }
    }
}

/// A channel of a timer.
#[derive(Debug, Clone, Copy)]
pub enum Channel {
    /// Channel 1.
    One,
    /// Channel 2.
    Two,
    /// Channel 3.
    Three,
    /// Channel 4.
    Four,
}

/// A pin with pulses of a length in microseconds: the largest duty cycle is [`PERIOD_US`].
#[derive(Debug)]
pub struct PwmChannel {
    pulse: Register,
}

impl ErrorType for PwmChannel {
    type Error = Infallible;
}

impl SetDutyCycle for PwmChannel {
    fn max_duty_cycle(&self) -> u16 {
        PERIOD_US
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), Infallible> {
        self.pulse.write(duty.into());
        Ok(())
    }
}
