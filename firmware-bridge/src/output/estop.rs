//! The contacts of an emergency stop.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, InputPin};

/// The closed contacts; all are closed in normal operation. An unreadable contact counts as open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopChannels {
    /// The first contact.
    pub first_closed: bool,
    /// The second contact, if there is one.
    pub second_closed: Option<bool>,
}

/// An emergency stop of one or two normally closed contacts. A pin is one contact: high is closed.
pub trait StopCircuit {
    /// Reads the contacts.
    fn read(&mut self) -> StopChannels;
}

impl<P: InputPin> StopCircuit for P {
    fn read(&mut self) -> StopChannels {
        StopChannels { first_closed: matches!(self.is_high(), Ok(true)), second_closed: None }
    }
}

/// Two normally closed contacts of one button, each on its own pin: high is closed. The controller compares them.
#[derive(Debug, Clone, Copy)]
pub struct TwoChannels<A, B>(pub A, pub B);

impl<A: InputPin, B: InputPin> StopCircuit for TwoChannels<A, B> {
    fn read(&mut self) -> StopChannels {
        StopChannels {
            first_closed: matches!(self.0.is_high(), Ok(true)),
            second_closed: Some(matches!(self.1.is_high(), Ok(true))),
        }
    }
}

/// An emergency stop line that is never open, for a robot without one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEstop;

impl ErrorType for NoEstop {
    type Error = Infallible;
}

impl InputPin for NoEstop {
    fn is_high(&mut self) -> Result<bool, Self::Error> {
        Ok(true)
    }

    fn is_low(&mut self) -> Result<bool, Self::Error> {
        Ok(false)
    }
}
