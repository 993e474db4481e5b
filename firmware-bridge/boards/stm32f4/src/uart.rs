//! Interrupt-driven serial lines.

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use firmware_bridge::ring::{Ring, RingSerial};

use crate::register::{RCC_APB1ENR, RCC_APB2ENR, Register};

/// Bytes received between two ticks: 200 at 1 Mbaud in a tick of 2 ms.
const RECEIVED: usize = 1024;
/// Bytes waiting to be sent.
const SENDING: usize = 2048;

/// The main loop's end of a [`Uart`].
pub type HostSerial = RingSerial<'static, RECEIVED, SENDING>;

const RXNE: u32 = 1 << 5;
const TXE: u32 = 1 << 7;
const OVERRUN: u32 = 1 << 3;

#[derive(Clone, Copy)]
struct Irq(u16);

// SAFETY: the numbers are those of USART1 and USART2 in the series' vector table.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.0
    }
}

/// One serial line: a static, because its interrupt uses it.
#[derive(Debug)]
pub struct Uart {
    base: usize,
    irq: u16,
    received: Ring<RECEIVED>,
    sending: Ring<SENDING>,
}

impl Uart {
    /// USART1; its interrupt is 37.
    pub const fn usart1() -> Self {
        Self { base: 0x4001_1000, irq: 37, received: Ring::new(), sending: Ring::new() }
    }

    /// USART2; its interrupt is 38.
    pub const fn usart2() -> Self {
        Self { base: 0x4000_4400, irq: 38, received: Ring::new(), sending: Ring::new() }
    }

    const fn status(&self) -> Register {
        Register::at(self.base, 0x00)
    }

    const fn data(&self) -> Register {
        Register::at(self.base, 0x04)
    }

    const fn control(&self) -> Register {
        Register::at(self.base, 0x0C)
    }

    /// Number of its interrupt.
    pub fn irq(&self) -> i16 {
        self.irq as i16
    }

    /// Enables it: 8 data bits, no parity, one stop bit. `begin` is `|| THIS.begin()`.
    pub fn start(&'static self, peripheral_hz: u32, baud: u32, begin: fn()) -> HostSerial {
        const ENABLED: u32 = 1 << 13 | RXNE | 1 << 3 | 1 << 2;
        if self.irq == 37 {
            RCC_APB2ENR.modify(0, 1 << 4);
        } else {
            RCC_APB1ENR.modify(0, 1 << 17);
        }
        let divider = peripheral_hz.saturating_add(baud / 2).checked_div(baud).unwrap_or(0);
        Register::at(self.base, 0x08).write(divider);
        self.control().write(ENABLED);
        self.resume();
        RingSerial::new(&self.received, &self.sending, begin)
    }

    /// Makes the interrupt send the queued bytes.
    pub fn begin(&self) {
        NVIC::pend(Irq(self.irq));
    }

    /// Receives again after [`Uart::on_interrupt`] found the ring full; call it each tick.
    pub fn resume(&self) {
        // SAFETY: the interrupt needs no protection from the main loop: see `Ring`.
        unsafe { NVIC::unmask(Irq(self.irq)) };
    }

    /// The interrupt handler.
    pub fn on_interrupt(&self) {
        // A full ring leaves the bytes in the peripheral until the next tick: the work of a tick is bounded.
        while self.status().read() & (RXNE | OVERRUN) != 0 {
            if self.received.len() >= RECEIVED {
                NVIC::mask(Irq(self.irq));
                break;
            }
            // Reading the data clears both conditions.
            self.received.push(self.data().read() as u8);
        }
        while self.status().read() & TXE != 0
            && let Some(byte) = self.sending.pop()
        {
            self.data().write(byte.into());
        }
        let more = if self.sending.is_empty() { 0 } else { TXE };
        self.control().modify(TXE, more);
    }
}
