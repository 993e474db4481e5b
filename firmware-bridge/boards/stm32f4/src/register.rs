//! One memory-mapped register.

/// A 32-bit register at a fixed address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Register(usize);

impl Register {
    /// The register at `base + offset` of a peripheral of the STM32F4.
    pub(crate) const fn at(base: usize, offset: usize) -> Self {
        Self(base + offset)
    }

    pub(crate) fn read(self) -> u32 {
        // SAFETY: the address is that of a peripheral's register, which is always mapped.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    pub(crate) fn write(self, value: u32) {
        // SAFETY: as above; none of these registers changes memory.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }

    /// Clears the bits of `mask`, then sets those of `value`.
    pub(crate) fn modify(self, mask: u32, value: u32) {
        self.write(self.read() & !mask | value);
    }
}

const RCC: usize = 0x4002_3800;

/// Clock control.
pub(crate) const RCC_CR: Register = Register::at(RCC, 0x00);
/// The PLL's factors.
pub(crate) const RCC_PLLCFGR: Register = Register::at(RCC, 0x04);
/// Source and dividers of the system's clock.
pub(crate) const RCC_CFGR: Register = Register::at(RCC, 0x08);
/// Clocks of the ports.
pub(crate) const RCC_AHB1ENR: Register = Register::at(RCC, 0x30);
/// Clocks of the slower peripherals.
pub(crate) const RCC_APB1ENR: Register = Register::at(RCC, 0x40);
/// Clocks of the faster peripherals.
pub(crate) const RCC_APB2ENR: Register = Register::at(RCC, 0x44);
/// Cause of the reset.
pub(crate) const RCC_CSR: Register = Register::at(RCC, 0x74);
/// Peripherals that stop while a debugger halts the core.
pub(crate) const DBGMCU_APB1_FZ: Register = Register::at(0xE004_2000, 0x08);
/// Wait states and caches of the flash memory.
pub(crate) const FLASH_ACR: Register = Register::at(0x4002_3C00, 0x00);
/// Power: the core's voltage.
pub(crate) const PWR_CR: Register = Register::at(0x4000_7000, 0x00);
