//! GPIO pins.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, InputPin};

use crate::register::{RCC_AHB1ENR, Register};

/// One pin.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    port: u8,
    number: u8,
}

impl Pin {
    /// Pin `number`, 0 to 15, of the port called `port`, `b'A'` to `b'E'`.
    pub const fn new(port: u8, number: u8) -> Self {
        assert!(port >= b'A' && port <= b'E' && number < 16);
        Self { port: port - b'A', number }
    }

    fn register(self, offset: usize) -> Register {
        Register::at(0x4002_0000 + usize::from(self.port) * 0x400, offset)
    }

    fn set_field(self, offset: usize, value: u32) {
        let shift = u32::from(self.number) * 2;
        self.register(offset).modify(0b11 << shift, value << shift);
    }

    /// Connects the pin, with a pull-up, to a peripheral: alternate function `function`.
    pub fn alternate(self, function: u32) {
        RCC_AHB1ENR.modify(0, 1 << self.port);
        let half = usize::from(self.number / 8) * 4;
        let shift = u32::from(self.number % 8) * 4;
        self.register(0x20 + half).modify(0b1111 << shift, function << shift);
        self.set_field(0x08, 0b10);
        self.set_field(0x0C, 0b01);
        self.set_field(0x00, 0b10);
    }

    /// Makes the pin the stop line.
    pub fn stop_line(self) -> StopLine {
        RCC_AHB1ENR.modify(0, 1 << self.port);
        self.set_field(0x0C, 0b01);
        self.set_field(0x00, 0b00);
        StopLine { pin: self }
    }
}

/// An emergency stop: a normally closed contact to ground on a pin with a pull-up. A pressed button, a cut wire and an
/// unplugged wire all stop.
///
/// As an [`InputPin`] it is high while the contact is closed, as the controller expects.
#[derive(Debug)]
pub struct StopLine {
    pin: Pin,
}

impl ErrorType for StopLine {
    type Error = Infallible;
}

impl InputPin for StopLine {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.pin.register(0x10).read() & (1 << self.pin.number) == 0)
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        self.is_high().map(|closed| !closed)
    }
}
