//! What the emulator has no part for: a register whose value the outside decides, put in by its debugger's protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Number of the program counter.
const PC: u32 = 15;

/// A debugger on a halted processor. Dropping it lets the processor go on without one.
#[derive(Debug)]
pub struct Debugger {
    line: UnixStream,
}

impl Debugger {
    /// Halts the processor behind QEMU's `-gdb` socket.
    pub(crate) fn attach(line: UnixStream) -> Self {
        let _ = line.set_read_timeout(Some(Duration::from_secs(30)));
        let mut debugger = Self { line };
        // QEMU gives single registers only to who has asked which there are.
        let _ = debugger.ask("qXfer:features:read:target.xml:0,fff");
        debugger
    }

    /// The next `reads` reads of the word at `address` give `value`; the processor goes on in between, and is halted after
    /// them.
    ///
    /// # Panics
    /// When the firmware does not read it, or by an instruction that is no plain load of a register.
    #[allow(clippy::panic, reason = "for tests")]
    pub fn answer_reads(&mut self, address: u32, value: u32, reads: usize) {
        for _ in 0..reads {
            self.expect(&format!("Z3,{address:x},4"), "OK");
            let stop = self.ask("c");
            assert!(stop.contains("rwatch"), "halted for another reason: {stop}");
            // Halted before the load.
            self.expect(&format!("z3,{address:x},4"), "OK");
            let pc = word(&self.ask(&format!("p{PC:x}")));
            let code = word(&self.ask(&format!("m{pc:x},4")));
            let register = match [code & 0xFFFF, code >> 16] {
                // LDR Rt, [Rn, Rm], and LDR Rt, [Rn, #imm5].
                [short, _] if short & 0xFE00 == 0x5800 || short & 0xF800 == 0x6800 => short & 7,
                // LDR.W Rt, [Rn, #imm12], and LDR.W Rt, [Rn, Rm].
                [wide, rest] if wide & 0xFF70 == 0xF850 => rest >> 12,
                _ => panic!("no load that is known at {pc:#x}: {code:08x}"),
            };
            self.ask("s");
            self.expect(&format!("P{register:x}={:08x}", value.swap_bytes()), "OK");
        }
    }

    /// Writes the word at `address`; the processor stays halted.
    ///
    /// # Panics
    /// When the address is none.
    pub fn write_word(&mut self, address: u32, value: u32) {
        self.expect(&format!("M{address:x},4:{:08x}", value.swap_bytes()), "OK");
    }

    #[allow(clippy::panic, reason = "for tests")]
    fn expect(&mut self, command: &str, expected: &str) {
        let answer = self.ask(command);
        assert_eq!(answer, expected, "the answer to {command}");
    }

    /// Sends a command; its answer.
    #[allow(clippy::expect_used, reason = "for tests")]
    fn ask(&mut self, command: &str) -> String {
        let sum = command.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.line, "${command}#{sum:02x}").expect("the debugger's line");
        loop {
            // That the processor halted when it was attached is told without a question.
            let answer = self.receive();
            if answer.starts_with('T') == ["c", "s"].contains(&command) {
                return answer;
            }
        }
    }

    /// The next packet, without its frame.
    #[allow(clippy::expect_used, reason = "for tests")]
    fn receive(&mut self) -> String {
        let mut answer = String::new();
        let mut next = || {
            let mut byte = [0];
            self.line.read_exact(&mut byte).expect("an answer of the debugger");
            char::from(byte[0])
        };
        while next() != '$' {}
        loop {
            match next() {
                '#' => break,
                other => answer.push(other),
            }
        }
        next();
        next();
        write!(self.line, "+").expect("the debugger's line");
        answer
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        // Detach; who does not answer is gone.
        let _ = self.line.write_all(b"$D#44");
        let _ = self.line.read(&mut [0; 64]);
    }
}

/// A word as it lies in memory, in hexadecimal.
#[allow(clippy::expect_used, reason = "for tests")]
fn word(text: &str) -> u32 {
    u32::from_str_radix(text.get(..8).unwrap_or(text), 16).expect("hexadecimal").swap_bytes()
}
