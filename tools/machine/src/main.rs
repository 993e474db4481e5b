//! `fathom-machine`: starts a guest with a camera and a USB serial line, a controller at the other end of the line, lets
//! things go wrong, and prints what became of it. `tools/vm` makes what it needs.

mod cable;
mod guest;
mod scenario;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fathom_models::{console, errln, outln};
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};

use cable::Cable;
use guest::Guest;
use scenario::{Check, QUICK, Robot, WHOLE};

/// A robot's computer in a virtual machine, and what happens to it.
#[derive(Parser)]
struct Arguments {
    /// Folder of the guest, as tools/lib/guest.sh makes it.
    #[arg(long)]
    guest: PathBuf,
    /// What this run puts over the guest's root: a squashfs with the program, its unit and its configuration.
    #[arg(long)]
    layer: PathBuf,
    /// Empty folder for sockets and logs.
    #[arg(long)]
    logs: PathBuf,
    /// The controller's firmware, run in QEMU; else the simulated controller.
    #[arg(long)]
    firmware: Option<PathBuf>,
    /// Fewer things go wrong.
    #[arg(long)]
    quick: bool,
}

/// Deadman time of the simulated controller. An emulated processor on a busy computer is late more often than a robot's.
const DEADMAN_US: u32 = 1_000_000;

/// What sits at the other end of the cable, running as long as this lives.
enum Controller {
    Emulated { qemu: Child, line: PathBuf },
    Simulated(Sim),
}

impl Controller {
    fn start(arguments: &Arguments) -> Result<Controller, Box<dyn Error>> {
        let Some(firmware) = &arguments.firmware else {
            let joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];
            let joints = joints.map(SimJoint::revolute).into();
            return Ok(Controller::Simulated(Sim::start(SimConfig {
                deadman_us: DEADMAN_US,
                ..SimConfig::new(joints)
            })?));
        };
        let line = arguments.logs.join("controller.sock");
        let mut qemu = Command::new("setpriv");
        qemu.args([
            "--pdeathsig",
            "KILL",
            "qemu-system-arm",
            "-M",
            "netduinoplus2",
            "-display",
            "none",
            "-monitor",
            "none",
            "-kernel",
        ])
        .arg(firmware);
        qemu.arg("-serial").arg(format!("unix:{},server=on,wait=off", line.display())).stdin(Stdio::null());
        let qemu = qemu.spawn().map_err(|error| format!("qemu-system-arm: {error}"))?;
        let since = Instant::now();
        while !line.exists() && since.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Controller::Emulated { qemu, line })
    }

    fn line(&self) -> &Path {
        match self {
            Controller::Emulated { line, .. } => line,
            Controller::Simulated(sim) => sim.path(),
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Controller::Emulated { .. } => "firmware in an emulated STM32F405",
            Controller::Simulated(_) => "simulated on this computer",
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Controller::Emulated { qemu, .. } = self {
            // It may have ended by itself.
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

/// Makes the checks in their order; after one that failed the others are not made. How many failed.
fn run(robot: &mut Robot, checks: &[Check]) -> usize {
    let mut failed = 0;
    for (name, check) in checks {
        if failed > 0 {
            outln!("not made  {name}");
            failed += 1;
            continue;
        }
        let since = Instant::now();
        let (word, found) = match check(robot) {
            Ok(found) => ("ok", found),
            Err(failure) => {
                failed += 1;
                ("FAILED", failure.to_string())
            }
        };
        outln!("{word:<8}  {name}\n          {found}  [{:.0} s]", since.elapsed().as_secs_f64());
    }
    failed
}

fn main() -> ExitCode {
    let _console = console::start();
    scenarios().unwrap_or_else(|error| {
        errln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn scenarios() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = Arguments::parse();
    for path in [&mut arguments.guest, &mut arguments.layer, &mut arguments.logs] {
        *path = std::path::absolute(&*path)?;
    }
    let controller = Controller::start(&arguments)?;
    outln!("controller: {}", controller.describe());
    let guest = Guest::start(&arguments.guest, &arguments.layer, &arguments.logs)?;
    let cable = Cable::lay(&guest.line(), controller.line())?;
    let mut robot = Robot { cable, guest };
    let checks: Vec<Check> = if arguments.quick { QUICK.to_vec() } else { [&QUICK[..], &WHOLE[..]].concat() };
    let failed = run(&mut robot, &checks);
    robot.cable.notes(|notes| notes.write(&arguments.logs.join("controller.csv")))?;
    outln!("\n{} passed, {failed} failed", checks.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
