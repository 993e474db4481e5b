//! The motor controller's own firmware in QEMU, behind a pseudo-terminal that can be faulty.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::debugger::Debugger;
use firmware_bridge::frame::Decoder;
use firmware_bridge::message::{ControllerState, Message};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// How long the emulator may take for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The emulated board's joints: those of the simulated scene.
pub const ARM: [&str; 6] = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];

/// Where the emulated arm begins, in radians.
pub const REST: [f32; 6] = [0.0, 0.05, 1.45, 1.35, 0.0, 0.0];

/// A path of all joints whose first one goes at up to 1.26 rad/s between ±0.8 rad, and the others stay.
pub fn sweep(steps: u16) -> Vec<f32> {
    let pose = |step| {
        let mut pose = REST;
        pose[0] = 0.8 * (f32::from(step) * std::f32::consts::TAU / 80.0).sin();
        pose
    };
    (0..steps).flat_map(pose).collect()
}

/// One telemetry frame as it left the controller.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The controller's clock in microseconds.
    pub time_us: u64,
    /// What it said.
    pub state: ControllerState,
}

/// What the controller said, read on its own end of the line.
#[derive(Debug, Default)]
pub struct Tap {
    /// Its telemetry in order.
    pub states: Vec<Seen>,
    /// When it last took a frame of the host, by its own clock in microseconds.
    pub received_us: u64,
}

#[derive(Default)]
struct Shared {
    tap: Mutex<Tap>,
    exit: AtomicBool,
    /// Of a million bits, how many are flipped in each direction.
    flips: AtomicU32,
}

impl Shared {
    fn tap(&self) -> MutexGuard<'_, Tap> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A board in QEMU. Dropping it ends the emulator.
pub struct Emulated {
    qemu: Child,
    path: PathBuf,
    shared: Arc<Shared>,
    monitor: UnixStream,
    /// Where QEMU waits for a debugger.
    debugger: PathBuf,
    threads: Vec<JoinHandle<()>>,
    /// Kept open, so that a host which closes the device does not end the line.
    _device: OwnedFd,
    _folder: tempfile::TempDir,
}

/// The firmware to emulate, or why this machine cannot.
pub fn firmware() -> Result<PathBuf, String> {
    let built =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/boards/thumbv7em-none-eabihf/release/netduinoplus2");
    if !built.exists() {
        return Err("the firmware is not built (tools/firmware)".to_owned());
    }
    Command::new("qemu-system-arm")
        .arg("--version")
        .output()
        .map_err(|_| "qemu-system-arm is not installed".to_owned())?;
    Ok(built)
}

impl Emulated {
    /// Powers a board on; `options` are QEMU's.
    ///
    /// # Panics
    /// Where the emulator does not start.
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn start(firmware: &Path, options: &[&str]) -> Self {
        // The emulator, the line and the host keep time beside whatever else this machine does, where it lets us:
        // what this thread starts from here on goes first.
        let _ = rustix::process::setpriority_process(None, -15);
        let folder = tempfile::tempdir().expect("a folder");
        let [serial, monitor, debugger] = ["serial", "monitor", "debugger"].map(|name| folder.path().join(name));
        let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        let qemu = Command::new("qemu-system-arm")
            .args(["-M", "netduinoplus2", "-display", "none"])
            .args(["-serial", &socket(&serial), "-monitor", &socket(&monitor), "-gdb", &socket(&debugger), "-kernel"])
            .arg(firmware)
            .args(options)
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-arm");
        let serial = connect(&serial);
        let monitor = connect(&monitor);
        let (master, device, path) = pseudo_terminal();
        let shared = Arc::new(Shared::default());
        let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
        let (from_board, to_board) = (serial.try_clone().expect("a clone"), serial);
        let (to_host, from_host) = (master.try_clone().expect("a clone"), master);
        let threads = vec![
            thread::spawn(move || relay_up(from_board, to_host, &up)),
            thread::spawn(move || relay_down(from_host, to_board, &down)),
        ];
        Self { qemu, path, shared, monitor, debugger, threads, _device: device, _folder: folder }
    }

    /// The device that a host opens.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or("")
    }

    /// What the controller said so far.
    pub fn tap(&self) -> MutexGuard<'_, Tap> {
        self.shared.tap()
    }

    /// Waits until the last telemetry is as wanted.
    ///
    /// # Panics
    /// When it does not come to that.
    #[allow(clippy::panic, reason = "for tests")]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.tap().states.last().copied();
            if let Some(seen) = last.filter(&wanted) {
                return seen;
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("not {what}, the last telemetry is {last:?}");
    }

    /// Flips so many of a million bits, both ways.
    pub fn set_flips(&self, per_million: u32) {
        self.shared.flips.store(per_million, Ordering::Relaxed);
    }

    /// Halts the processor, for a debugger to look at.
    pub fn debugger(&self) -> Debugger {
        Debugger::attach(connect(&self.debugger))
    }

    /// Resets the board, as its button does.
    pub fn reset(&mut self) {
        let _ = self.ask("system_reset");
    }

    /// The word at an address of the board's memory.
    ///
    /// # Panics
    /// When the monitor does not tell.
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn read_word(&mut self, address: u32) -> u32 {
        let answer = self.ask(&format!("xp /1wx {address:#x}"));
        let (_, word) = answer.rsplit_once(": 0x").expect("a word");
        u32::from_str_radix(word.get(..8).unwrap_or(word), 16).expect("hexadecimal")
    }

    fn ask(&mut self, command: &str) -> String {
        let mut answer = Vec::new();
        let mut bytes = [0; 1024];
        let _ = self.monitor.set_read_timeout(Some(Duration::from_millis(500)));
        // Whatever it said before, then the answer up to the next prompt.
        while let Ok(1024) = self.monitor.read(&mut bytes) {}
        let _ = writeln!(self.monitor, "{command}");
        while let Ok(count @ 1..) = self.monitor.read(&mut bytes) {
            answer.extend_from_slice(bytes.get(..count).unwrap_or(&[]));
        }
        String::from_utf8_lossy(&answer).trim_end_matches("(qemu) ").trim_end().to_owned()
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Relaxed);
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[allow(clippy::panic, reason = "for tests")]
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[allow(clippy::expect_used, reason = "for tests")]
fn pseudo_terminal() -> (File, OwnedFd, PathBuf) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
    grantpt(&master).expect("a pty");
    unlockpt(&master).expect("a pty");
    fcntl_setfl(&master, OFlags::NONBLOCK).expect("a pty");
    let name = ptsname(&master, Vec::new()).expect("a pty");
    let device = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("a pty");
    let mut attributes = tcgetattr(&device).expect("a pty");
    attributes.make_raw();
    tcsetattr(&device, OptionalActions::Now, &attributes).expect("a pty");
    (File::from(master), device, PathBuf::from(name.into_string().expect("ASCII")))
}

fn relay_up(mut board: UnixStream, mut host: File, shared: &Shared) {
    let mut decoder = Decoder::new();
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; 512];
    while let Ok(count @ 1..) = board.read(&mut bytes) {
        let bytes = bytes.get_mut(..count).unwrap_or(&mut []);
        for byte in &*bytes {
            let Some(Ok(frame)) = decoder.feed(*byte) else { continue };
            let mut tap = shared.tap();
            match frame.message {
                Message::State(state) => tap.states.push(Seen { time_us: frame.header.time_us, state }),
                Message::HeartbeatReply(reply) => tap.received_us = reply.received_us,
                Message::Ack(_) => tap.received_us = frame.header.time_us,
                _ => {}
            }
        }
        noise.flip(bytes, shared.flips.load(Ordering::Relaxed));
        // What a host that hangs does not take is lost, as on a wire.
        let _ = host.write(bytes);
    }
}

fn relay_down(mut host: File, mut board: UnixStream, shared: &Shared) {
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    let mut bytes = [0; 512];
    while !shared.exit.load(Ordering::Relaxed) {
        let Ok(count) = host.read(&mut bytes) else {
            thread::sleep(Duration::from_micros(300));
            continue;
        };
        let bytes = bytes.get_mut(..count).unwrap_or(&mut []);
        noise.flip(bytes, shared.flips.load(Ordering::Relaxed));
        if board.write_all(bytes).is_err() {
            return;
        }
    }
}

/// Flips bits, the same ones in each run.
struct Noise(u64);

impl Noise {
    fn draw(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn flip(&mut self, bytes: &mut [u8], per_million: u32) {
        if per_million == 0 {
            return;
        }
        for byte in bytes {
            for bit in 0..8 {
                if self.draw() % 1_000_000 < u64::from(per_million) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }
}
