//! The motor controller's own firmware, on an emulated Cortex-M4F, driven by the host's own link.
//!
//! Its times are those of its own clock, which loses ticks where the emulator gets no processor: then
//! less time passes for it than for the host.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test as its body does")]

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fathom::link::{ActionChunk, Link, LinkError, LinkEvent, Start};
use fathom_tests::emulated::{ARM, Emulated, PATIENCE, REST, Seen, firmware, sweep};
use firmware_bridge::MAX_CHUNK_STEPS;
use firmware_bridge::message::{ControllerState, Fault, Interpolation, Mode, Reason};

const TICK_US: u64 = 2_000;
const DEADMAN_US: u64 = 150_000;

/// A board, or a note that there is none here. One at a time: each takes a processor.
fn board(test: &str, options: &[&str]) -> Option<(Emulated, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    match firmware() {
        Ok(firmware) => {
            let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
            Some((Emulated::start(&firmware, options), turn))
        }
        Err(reason) => {
            fathom_tests::skip(test, &reason);
            None
        }
    }
}

fn open(board: &Emulated) -> Link {
    let mut link = Link::open(board.path(), 1_000_000).expect("a pty");
    link.hello(&ARM, PATIENCE).expect("the scene's joints");
    link
}

/// Sends until the line takes it. The sequence.
fn send(link: &mut Link, what: impl Fn(&mut Link) -> Result<u32, LinkError>) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match what(link) {
            Ok(sequence) => return sequence,
            Err(LinkError::Backlog { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The verdict on a request, repeated while the joints ramp to rest.
fn settled(link: &mut Link, request: fn(&mut Link) -> Result<u32, LinkError>) -> Reason {
    loop {
        let sequence = send(link, request);
        match link.wait_ack(sequence, Duration::from_secs(5)) {
            Ok(ack) if ack.reason == Reason::Stopping => {}
            Ok(ack) => return ack.reason,
            Err(LinkError::NoReply { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn arm(link: &mut Link) {
    assert_eq!(settled(link, Link::clear_fault), Reason::Ok);
    assert_eq!(settled(link, Link::arm), Reason::Ok);
}

fn plan(positions: &[f32]) -> ActionChunk<'_> {
    ActionChunk {
        id: 7,
        start: Start::Now,
        period_us: 50_000,
        validity_us: 60_000_000,
        interpolation: Interpolation::Hermite,
        positions,
    }
}

/// Heartbeats and polls until `want` gives something.
fn until<T>(link: &mut Link, mut want: impl FnMut(&LinkEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut beat_at = Instant::now();
    while Instant::now() < deadline {
        if Instant::now() >= beat_at {
            send(link, Link::heartbeat);
            beat_at = Instant::now() + Duration::from_millis(20);
        }
        while let Some(event) = link.poll() {
            if let Some(found) = want(&event) {
                return found;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no such event, {:?}", link.counters());
}

/// Arms and sends the chunk until the telemetry is as wanted, again where this busy machine kept the host from its
/// heartbeats, and the controller stopped the joints.
fn accepted(link: &mut Link, chunk: &ActionChunk<'_>, wanted: impl Fn(&ControllerState) -> bool) -> ControllerState {
    for _ in 0..20 {
        arm(link);
        let sequence = send(link, |link| link.send_chunk(chunk));
        let state = until(link, |event| match event {
            // Telemetry of what was before the chunk says nothing.
            LinkEvent::State { state, .. } if state.last_sequence.wrapping_sub(sequence) < u32::MAX / 2 => {
                (wanted(state) || state.mode == Mode::Faulted(Fault::HostSilent)).then_some(*state)
            }
            _ => None,
        });
        if wanted(&state) {
            return state;
        }
    }
    panic!("the host is never heard for long enough");
}

#[test]
fn the_firmware_identifies_itself_and_moves() {
    fathom_contention::timed!();
    let Some((board, _turn)) = board("the_firmware_identifies_itself_and_moves", &[]) else { return };
    let mut link = open(&board);
    let hello = *link.controller().expect("said hello");
    assert_eq!((hello.buffer_depth, hello.tick_us, hello.telemetry_us, hello.deadman_us), (64, 2_000, 5_000, 150_000));
    assert_eq!((hello.joints.as_slice()[2].min, hello.joints.as_slice()[2].max), (-0.3, 2.6));
    let mut path = sweep(20);
    path.extend_from_slice(&path[19 * 6..].repeat(10));
    let end = path[path.len() - 6];
    let state = accepted(&mut link, &plan(&path), |state| state.mode == Mode::Holding && state.starved > 0);
    let progress = state.progress.expect("the count stays");
    assert_eq!((progress.chunk, progress.consumed, progress.steps_left), (7, 30, 0));
    assert!((state.measured.as_slice()[0] - end).abs() < 1e-3, "{state:?}");
    assert_eq!(state.measured.as_slice()[1..], REST[1..]);
    assert_eq!((state.crc_errors, state.frame_errors, state.frames_dropped), (0, 0, 0));
    let clock = link.clock().expect("heartbeats were answered");
    assert!(clock.error_us(fathom::link::host_now_ns() / 1_000) < 50_000);
}

/// Kills or stops its process when dropped.
struct Host(Child);

impl Host {
    fn start(board: &Emulated) -> Self {
        let program = env!("CARGO_BIN_EXE_drive");
        Self(Command::new(program).arg(board.path()).stdin(Stdio::null()).spawn().expect("the host"))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the fault, and checks that the joints are at rest within the deadman time and a tick after the last
/// frame that the controller took, and stay so. How fast the first joint was when the host was last heard, in rad/s.
fn assert_stopped(board: &Emulated) -> f32 {
    let faulted = board.wait_for("stopped", |seen| seen.state.mode == Mode::Faulted(Fault::HostSilent));
    board.wait_for("at rest for a while", |seen| seen.time_us > faulted.time_us + 300_000);
    let tap = board.tap();
    let received_us = tap.received_us;
    let since = |us: u64| tap.states.iter().filter(move |seen| seen.time_us >= received_us + us);
    let rest = since(DEADMAN_US + TICK_US).next().expect("telemetry after the deadman time");
    assert!(rest.time_us < received_us + DEADMAN_US + 20_000, "telemetry goes on");
    for seen in since(DEADMAN_US + TICK_US) {
        assert_eq!(seen.state.mode, Mode::Faulted(Fault::HostSilent), "{seen:?}");
        assert_eq!(seen.state.commanded, rest.state.commanded, "the command moves at {} us", seen.time_us);
    }
    // The simulated joints are one tick behind their command.
    for seen in since(DEADMAN_US + 2 * TICK_US) {
        assert_eq!(seen.state.measured, rest.state.commanded, "a joint moves at {} us", seen.time_us);
    }
    let before: Vec<_> = tap.states.iter().rev().skip_while(|seen| seen.time_us > received_us).take(2).collect();
    let [late, early] = before[..] else { panic!("no telemetry before") };
    let way = late.state.commanded.as_slice()[0] - early.state.commanded.as_slice()[0];
    way.abs() / ((late.time_us - early.time_us) as f32 * 1e-6)
}

/// The first joint has been on its way for 150 ms.
fn wait_until_it_moves(board: &Emulated) {
    board.wait_for("moving", |seen| {
        let tap = board.tap();
        let old = tap.states.iter().rev().find(|old| old.time_us + 150_000 < seen.time_us);
        old.is_some_and(|old| {
            let way = old.state.commanded.as_slice()[0] - seen.state.commanded.as_slice()[0];
            [old, seen].iter().all(|seen| seen.state.mode == Mode::Active) && way.abs() > 0.1
        })
    });
}

#[test]
fn a_host_that_is_silent_killed_or_hung_stops_the_joints() {
    fathom_contention::timed!();
    let Some((board, _turn)) = board("a_host_that_is_silent_killed_or_hung_stops_the_joints", &[]) else { return };
    let mut link = open(&board);
    accepted(&mut link, &plan(&sweep(60)), |state| state.measured.as_slice()[0] > 0.2);
    let speed = assert_stopped(&board);
    assert!(speed > 0.1, "silent at {speed} rad/s");
    drop(link);

    for killed in [true, false] {
        let host = Host::start(&board);
        wait_until_it_moves(&board);
        host.signal(if killed { rustix::process::Signal::KILL } else { rustix::process::Signal::STOP });
        let speed = assert_stopped(&board);
        assert!(speed > 0.1, "{speed} rad/s");
        println!("{} at {speed:.2} rad/s: at rest in time", if killed { "killed" } else { "hung" });
    }

    // What the hung host had on the line does not move anything when it goes on or another takes over.
    let mut link = open(&board);
    accepted(&mut link, &plan(&REST.repeat(60)), |state| state.measured.as_slice()[0].abs() < 1e-3);
}

#[test]
fn flipped_bits_move_nothing() {
    fathom_contention::timed!();
    let Some((board, _turn)) = board("flipped_bits_move_nothing", &[]) else { return };
    let mut link = open(&board);
    arm(&mut link);
    board.set_flips(1_000);
    let from = board.tap().states.len();
    let end = Instant::now() + Duration::from_secs(4);
    let mut id = 0;
    while Instant::now() < end {
        id += 1;
        let target = [if id % 2 == 0 { 0.2 } else { -0.2 }, 0.05, 1.45, 1.35, 0.0, 0.0];
        send(&mut link, |link| link.send_chunk(&ActionChunk { id, ..plan(&target.repeat(10)) }));
        send(&mut link, Link::heartbeat);
        while link.poll().is_some() {}
        std::thread::sleep(Duration::from_millis(10));
    }
    board.set_flips(0);
    {
        let tap = board.tap();
        assert!(tap.states.len() > from + 50);
        for seen in &tap.states[from..] {
            let at = seen.state.commanded.as_slice();
            // Steps of position add up with the rounding of f32.
            assert!((-0.20001..=0.20001).contains(&at[0]) && at[1..] == REST[1..], "{at:?} was not sent");
        }
        let last = tap.states.last().expect("telemetry").state;
        assert!(last.crc_errors > 10, "{last:?}");
    }
    link.hello(&ARM, PATIENCE).expect("the line is well again");
    accepted(&mut link, &plan(&sweep(10)), |state| state.measured.as_slice()[0] > 0.4);
}

#[test]
fn a_controller_that_is_reset_is_disarmed_and_recognised() {
    fathom_contention::timed!();
    let Some((mut board, _turn)) = board("a_controller_that_is_reset_is_disarmed_and_recognised", &[]) else { return };
    let mut link = open(&board);
    accepted(&mut link, &plan(&sweep(60)), |state| state.mode == Mode::Active);
    board.reset();
    until(&mut link, |event| matches!(event, LinkEvent::ControllerReset).then_some(()));
    assert!(matches!(link.send_chunk(&plan(&REST)), Err(LinkError::NoHello { .. })));
    link.hello(&ARM, PATIENCE).expect("it is back");
    let state = until(&mut link, |event| match event {
        LinkEvent::State { state, .. } => Some(*state),
        _ => None,
    });
    assert_eq!((state.mode, state.energised, state.progress), (Mode::Disarmed, false, None));
    assert_eq!(state.measured.as_slice(), REST);
}

/// The stop lines of the board, PC1 and PC2: contacts to ground, whose pins are pulled high when they open. QEMU has no
/// ports, so a debugger answers the firmware's own reads of port C, two a tick. Contacts that close again end no fault.
#[test]
fn an_open_stop_line_stops_the_joints_until_a_person_clears_it() {
    fathom_contention::timed!();
    const PORT_C_INPUTS: u32 = 0x4002_0810;
    let Some((board, _turn)) = board("an_open_stop_line_stops_the_joints_until_a_person_clears_it", &[]) else {
        return;
    };
    let mut link = open(&board);
    let moving = |state: &ControllerState| state.mode == Mode::Active && state.measured.as_slice()[0] > 0.1;
    let open_lines = |inputs| board.debugger().answer_reads(PORT_C_INPUTS, inputs, 20);
    // How the board is after ten ticks in which the port gave `inputs` while the arm moved, unless the busy host was too slow.
    let after = |link: &mut Link, inputs| {
        let tries = (0..20).map(|_| {
            accepted(link, &plan(&sweep(60)), moving);
            let from = board.tap().states.len();
            open_lines(inputs);
            let until_us = board.tap().states.last().expect("telemetry").time_us + 20_000;
            let seen = board.wait_for("later", |seen| seen.time_us > until_us);
            (seen, board.tap().states[from..].iter().any(|seen| seen.state.estop))
        });
        let heard = |(seen, _): &(Seen, bool)| seen.state.mode != Mode::Faulted(Fault::HostSilent);
        tries.into_iter().find(heard).expect("the host is heard for long enough")
    };
    let (seen, told) = after(&mut link, !(1 << 1 | 1 << 2));
    assert_eq!((seen.state.mode, told), (Mode::Active, false), "other lines of the port are no stop");

    let (seen, told) = after(&mut link, 1 << 2);
    let fault = (Mode::Faulted(Fault::EstopDiscrepancy), true);
    assert_eq!((seen.state.mode, told), fault, "one channel opened and closed again: does the other one work?");
    assert_eq!(settled(&mut link, Link::clear_fault), Reason::Faulted, "its cause lasts");
    open_lines(1 << 1 | 1 << 2);
    let until_us = board.tap().states.last().expect("telemetry").time_us + 20_000;
    board.wait_for("closed again", |seen| seen.time_us > until_us && !seen.state.estop);
    assert_eq!(settled(&mut link, Link::clear_fault), Reason::Ok, "both opened and closed");

    let (seen, told) = after(&mut link, 1 << 1 | 1 << 2);
    assert_eq!((seen.state.mode, told), (Mode::Faulted(Fault::Estop), true), "it was open, and that was told");
    let later = board.wait_for("later", |later| later.time_us > seen.time_us + 300_000);
    assert_eq!(
        (later.state.mode, later.state.estop),
        (Mode::Faulted(Fault::Estop), false),
        "closed again, still a fault"
    );
    assert_eq!(later.state.commanded, later.state.measured, "at rest");
    assert_eq!(settled(&mut link, Link::arm), Reason::Faulted);
    accepted(&mut link, &plan(&REST.repeat(60)), |state| state.measured.as_slice()[0].abs() < 1e-3);
}

/// The hardware watchdog's registers in the order in which the firmware writes them: it is started once, and then fed once
/// in each tick, after the emergency stop was read, and never by a processor whose clock stands still. QEMU has no such
/// watchdog; it notes the accesses.
#[test]
fn only_whole_ticks_feed_the_hardware_watchdog() {
    const SYSTICK_CONTROL: u32 = 0xE000_E010;
    let folder = tempfile::tempdir().expect("a folder");
    let notes = folder.path().join("accesses");
    let options = ["-d", "unimp", "-D", notes.to_str().expect("UTF-8")];
    let Some((board, _turn)) = board("only_whole_ticks_feed_the_hardware_watchdog", &options) else { return };
    // `r`: both stop lines were read; `offset=value`: the watchdog was written.
    let accesses = || {
        let text = std::fs::read_to_string(&notes).unwrap_or_default();
        // Whole lines only: the emulator is writing.
        let lines: Vec<String> =
            text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines().map(String::from).collect();
        let mut found: Vec<String> = Vec::new();
        for line in lines {
            let value = |text: &str| {
                text.rsplit_once("0x").map(|(_, hex)| hex.trim_end_matches(')').trim_start_matches('0').to_owned())
            };
            if line.starts_with("GPIOC: unimplemented device read") && line.contains("offset 0x010") {
                found.push("r".to_owned());
            } else if line.contains("write") && line.starts_with("I2S2ext") {
                let (offset, rest) = line.split_once(", value").map(|(a, b)| (value(a), value(b))).expect("a write");
                found.push(format!("{}={}", offset.expect("a number"), rest.expect("a number")));
            }
        }
        found
    };
    let mut link = open(&board);
    arm(&mut link);
    until(&mut link, |event| match event {
        LinkEvent::State { state, .. } if state.mode == Mode::Holding => Some(()),
        _ => None,
    });
    let seen = accesses();
    let start = ["=5555", "4=", "8=a0", "=cccc", "=aaaa"];
    assert_eq!(seen[..start.len()], start, "unlocked, its times set, started, fed");
    let ticks = seen[start.len()..].chunks_exact(3);
    assert!(ticks.len() > 10, "{} ticks", ticks.len());
    for (number, tick) in ticks.enumerate() {
        assert_eq!(tick, ["r", "r", "=aaaa"], "tick {number}");
    }
    // The processor goes on, its tick does not.
    board.debugger().write_word(SYSTICK_CONTROL, 0);
    std::thread::sleep(Duration::from_millis(50));
    let before = accesses().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(accesses().len(), before, "nothing feeds it any more");
}

/// The longest turn of the control loop, counted in instructions: a full receive buffer with the end of the longest
/// cubic chunk in it, an answer, telemetry, and interrupts. Each instruction takes 8 ns of the emulated time, of which
/// SysTick counts 168 a microsecond.
#[test]
fn the_longest_turn_is_counted() {
    let Some((mut board, _turn)) = board("the_longest_turn_is_counted", &["-icount", "shift=3"]) else { return };
    let firmware = firmware().expect("it runs");
    let output = Command::new("readelf").args(["--symbols", "--wide"]).arg(firmware).output().expect("readelf");
    let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
    let symbol = symbols.lines().find(|line| line.ends_with(" LONGEST_TURN_COUNTS")).expect("a symbol");
    let address = symbol.split_whitespace().nth(1).and_then(|text| u32::from_str_radix(text, 16).ok());
    let address = address.expect("an address");

    let mut link = open(&board);
    arm(&mut link);
    let longest = sweep(MAX_CHUNK_STEPS as u16);
    for _ in 0..50 {
        for _ in 0..3 {
            send(&mut link, |link| link.send_chunk(&plan(&longest)));
        }
        send(&mut link, Link::heartbeat);
        while link.poll().is_some() {}
        std::thread::sleep(Duration::from_millis(20));
    }
    accepted(&mut link, &plan(&longest), |state| state.mode == Mode::Active);
    let counts = board.read_word(address);
    let instructions = f64::from(counts) * 1000.0 / 168.0 / 8.0;
    println!("longest turn: {instructions:.0} instructions; a tick of 2 ms has 336000 cycles at 168 MHz");
    assert!((5_000.0..150_000.0).contains(&instructions), "{counts} counts");
}
