//! The boards' firmware as ELF files: no panic path, and what each takes of flash and memory.

use std::fs;

use object::read::elf::{ElfFile32, ProgramHeader as _};
use object::{Object as _, ObjectSymbol as _, elf};

use crate::{Error, root};

/// The programs, and where cargo leaves their programs.
const BOARDS: [&str; 3] = ["netduinoplus2", "blackpill", "examples/pwm_arm"];
const BUILT: &str = "target/boards/thumbv7em-none-eabihf/release";
/// A symbol that every board has: without it the file was stripped, and nothing could be found.
const KNOWN: &str = "LONGEST_TURN_COUNTS";
/// What the names of functions on a panic path contain.
const PANICS: [&str; 3] = ["panic", "unwrap_failed", "expect_failed"];
/// Main memory of these processors begins here.
const MEMORY: u32 = 0x2000_0000;

/// Checks every board's program and prints a line for each.
///
/// # Errors
/// [`Error::Check`] with every symbol of a panic path.
pub(crate) fn check() -> Result<(), Error> {
    for board in BOARDS {
        let path = root().join(BUILT).join(board);
        let data = fs::read(&path).map_err(|source| Error::file(&path, source))?;
        let broken = |error: object::Error| Error::Check(format!("{}: {error}", path.display()));
        let file = ElfFile32::<object::Endianness>::parse(&*data).map_err(broken)?;
        let names: Vec<&str> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
        if !names.iter().any(|name| name.contains(KNOWN)) {
            return Err(Error::Check(format!("{} has no symbols", path.display())));
        }
        let panics: Vec<&str> =
            names.into_iter().filter(|name| PANICS.iter().any(|panic| name.to_lowercase().contains(panic))).collect();
        if !panics.is_empty() {
            return Err(Error::Check(format!("{board}: its firmware has a panic path: {}", panics.join(", "))));
        }
        let endian = file.endian();
        let (mut flash, mut memory) = (0, 0);
        for segment in file.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD) {
            flash += segment.p_filesz(endian);
            if segment.p_vaddr(endian) >= MEMORY {
                memory += segment.p_memsz(endian);
            }
        }
        println!("{board}: {flash} bytes of flash, {memory} of memory besides the stack, no panic path");
    }
    Ok(())
}
