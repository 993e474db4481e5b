//! The controller's end of a pseudo-terminal as an `embedded-io` serial line.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Limit on the bytes in the line; above it, the line is not ready to write.
const WAITING: usize = 4096;

pub(super) struct Pty {
    master: OwnedFd,
    /// Kept open, so that the line survives a host that closes the device.
    _device: OwnedFd,
    path: PathBuf,
    received: Vec<u8>,
    waiting: Vec<u8>,
}

impl Pty {
    pub(super) fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        fcntl_setfl(&master, OFlags::NONBLOCK)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let device = open(name.as_c_str(), flags, Mode::empty())?;
        let mut attributes = tcgetattr(&device)?;
        attributes.make_raw();
        tcsetattr(&device, OptionalActions::Now, &attributes)?;
        Ok(Self {
            master,
            _device: device,
            path: OsString::from_vec(name.into_bytes()).into(),
            received: Vec::new(),
            waiting: Vec::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn send_waiting(&mut self) -> Result<(), ErrorKind> {
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.master, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(_) => return Err(ErrorKind::Other),
            }
        }
        Ok(())
    }
}

impl ErrorType for Pty {
    type Error = ErrorKind;
}

impl ReadReady for Pty {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        if self.received.is_empty() {
            let mut bytes = [0; 1024];
            match rustix::io::read(&self.master, &mut bytes) {
                Ok(count) => self.received.extend(bytes.iter().take(count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(ErrorKind::Other),
            }
        }
        Ok(!self.received.is_empty())
    }
}

impl Read for Pty {
    /// Reads after [`ReadReady::read_ready`]; 0 if there are no bytes.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        let count = out.len().min(self.received.len());
        for (to, from) in out.iter_mut().zip(self.received.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl WriteReady for Pty {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        self.send_waiting()?;
        Ok(self.waiting.len() < WAITING)
    }
}

impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.waiting.extend_from_slice(bytes);
        self.send_waiting()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.send_waiting()
    }
}
