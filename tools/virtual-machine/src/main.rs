//! `fathom-virtual-machine`: starts a guest with a camera and a USB serial line, connects a controller to the line,
//! causes failures, and prints the results. `tools/vm` prepares its inputs. Exit status 0: passed; 1: a check failed;
//! 98: a check was not judged because the machine was busy.

mod cable;
mod guest;
mod scenario;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fathom_contention::{Denial, Failure, Meter, NOT_JUDGED, Processes, Readings, Totals, Verdict, judge_by};
use fathom_models::io::console;
use fathom_models::{errln, outln};
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};

use cable::Cable;
use guest::Guest;
use scenario::{Check, QUICK, Robot, WHOLE};

/// Test a robot's computer in a virtual machine: unplug, kill and restart its parts.
#[derive(Parser)]
struct Arguments {
    /// Folder of the guest, made by tools/lib/guest.sh.
    #[arg(long)]
    guest: PathBuf,
    /// Squashfs layer over the guest's root, with the program, its unit and its configuration.
    #[arg(long)]
    layer: PathBuf,
    /// Empty folder for sockets and logs.
    #[arg(long)]
    logs: PathBuf,
    /// Firmware of the controller, run in QEMU. Default: the simulated controller.
    #[arg(long)]
    firmware: Option<PathBuf>,
    /// Run fewer checks.
    #[arg(long)]
    quick: bool,
}

/// Deadman time of the simulated controller. An emulated processor on a busy computer is late more often than a
/// robot's.
const DEADMAN_US: u32 = 1_000_000;

/// The controller at the other end of the cable, running while this value lives.
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

    /// The emulator's process. The simulated controller runs in this process.
    fn id(&self) -> Option<u32> {
        match self {
            Controller::Emulated { qemu, .. } => Some(qemu.id()),
            Controller::Simulated(_) => None,
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
            // It may have ended already.
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

/// Numbers of checks by result.
#[derive(Default)]
struct Counts {
    failed: usize,
    not_judged: usize,
    not_made: usize,
}

/// The time that other processes in the guest denied to its threads since an earlier reading.
struct GuestMeter {
    readings: Readings,
    before: Option<(Totals, Duration)>,
}

impl GuestMeter {
    fn begin(&mut self, guest: &mut Guest) {
        self.before = guest.read_contention(&mut self.readings).ok().map(|at| (self.readings.totals(), at));
    }

    /// Zero if the guest does not answer.
    fn end(&mut self, guest: &mut Guest) -> Denial {
        let Some((before, from)) = self.before.take() else { return Denial::default() };
        let Ok(to) = guest.read_contention(&mut self.readings) else { return Denial::default() };
        Denial { denied: self.readings.totals().denied_since(&before), span: to.saturating_sub(from) }
    }
}

/// Runs the checks in order, until one does not pass. A check that misses a time limit is not judged if other work on
/// this computer held the emulators' processors, or other processes in the guest held the service's.
fn run(robot: &mut Robot, checks: &[Check], meter: &Meter) -> Counts {
    let mut counts = Counts::default();
    let mut inside = GuestMeter { readings: Readings::default(), before: None };
    for (n, (name, check)) in checks.iter().enumerate() {
        if counts.failed + counts.not_judged > 0 {
            outln!("not made  {name}");
            counts.not_made += 1;
            continue;
        }
        // The first check is that the guest boots: before that it cannot answer.
        if n > 0 {
            inside.begin(&mut robot.guest);
        }
        let since = Instant::now();
        let (word, found) = match check(robot) {
            Ok(found) => ("ok", found),
            Err(failure) => {
                let (until, what) = (Instant::now(), failure.to_string());
                let failure =
                    if failure.is_late() { Failure::within(since, until, what) } else { Failure::always(what) };
                let own = inside.end(&mut robot.guest);
                let denied = |from, to| Some(meter.between(from, to)).filter(Denial::is_busy).unwrap_or(own);
                match judge_by(&[failure], denied) {
                    Verdict::NotJudged(why) => {
                        counts.not_judged += 1;
                        ("NOT JUDGED", format!("the machine was busy: {}", why.join("; ")))
                    }
                    Verdict::Failed(why) => {
                        counts.failed += 1;
                        ("FAILED", why.join("; "))
                    }
                    Verdict::Passed => ("ok", String::new()),
                }
            }
        };
        outln!("{word:<8}  {name}\n          {found}  [{:.0} s]", since.elapsed().as_secs_f64());
    }
    counts
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
    let processes = [Some(std::process::id()), Some(guest.id()), controller.id()];
    let meter = Meter::start(Processes::Only(processes.into_iter().flatten().collect()));
    let cable = Cable::lay(&guest.line(), controller.line())?;
    let mut robot = Robot { cable, guest };
    let checks: Vec<Check> = if arguments.quick { QUICK.to_vec() } else { [&QUICK[..], &WHOLE[..]].concat() };
    let Counts { failed, not_judged, not_made } = run(&mut robot, &checks, &meter);
    robot.cable.notes(|notes| notes.write(&arguments.logs.join("controller.csv")))?;
    let passed = checks.len() - failed - not_judged - not_made;
    outln!("\n{passed} passed, {failed} failed, {not_judged} not judged, {not_made} not made");
    Ok(match (failed, not_judged) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(NOT_JUDGED),
        _ => ExitCode::FAILURE,
    })
}
