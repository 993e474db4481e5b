//! Stage stamps stay on in the product: they allocate nothing, and take next to nothing of a control tick.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;

use fathom::gpu::{GpuTimes, HostTimes, Origin, StageTime};
use fathom::telemetry::{Recorder, RingReader, RingWriter, Track, counter, stage};

/// A control tick in which an inference is taken and its chunk sent and acknowledged: all that a tick can tell.
fn busy_tick(r: &mut Recorder, times: &GpuTimes, number: u32) {
    let at = u64::from(number) * 1_000_000;
    r.span(Track::Control, stage::LATENESS, 0, at, at + 70_000);
    r.span(Track::Camera(0), stage::CAPTURE, number, at, at + 10_000_000);
    r.span(Track::Control, stage::WAIT, number, at, at + 20_000_000);
    r.span(Track::Inference, stage::HANDOVER, number, at, at + 50_000);
    r.inference(times, number, at, at + 160_000_000);
    r.span(Track::Inference, stage::UNNORMALISE, number, at, at + 4000);
    r.span(Track::Control, stage::COLLECT, number, at, at + 5_000_000);
    r.span(Track::Control, stage::MERGE, number, at, at + 2000);
    r.span(Track::Control, stage::WRITE, number, at, at + 40_000);
    r.span(Track::Path, stage::PERIOD, 0, at, at + 100_000_000);
    r.span(Track::Link, stage::APPLIED, number, at, at + 1_500_000);
    r.span(Track::Controller, stage::ACK, number, at, at + 80_000);
    r.span(Track::Path, stage::SUBMITTED, number, at, at + 600_000);
    r.span(Track::Path, stage::SENT, number, at, at + 200_000);
    r.span(Track::Path, stage::AGE, number, at, at + 160_000_000);
    r.span(Track::Path, stage::ROUND, number, at, at + 161_000_000);
    r.counter(Track::Controller, counter::STEPS_LEFT, at, 9);
    r.counter(Track::Controller, counter::STARVED, at, 0);
    r.counter(Track::Controller, counter::CLOCK_ERROR, at, 200_000);
}

fn times() -> GpuTimes {
    let names = ["decode and resize", "vision tower", "VLM prefix", "depth encoder", "depth prefix", "state", "time"];
    let steps: Vec<String> = (1..=10).map(|n| format!("flow step {n}")).collect();
    let names = names.into_iter().chain(steps.iter().map(String::as_str)).enumerate();
    let stage = |(i, name): (usize, &str)| StageTime { stage: Arc::from(name), start_ns: i as u64 * 1000, ns: 900 };
    let host = HostTimes { began_ns: 1, filled_ns: 2, submitted_ns: 3, done_ns: 100_000, read_ns: 110_000 };
    GpuTimes { stages: names.map(stage).collect(), host, origin: Origin { ns: 10, error_ns: 1 }, ..GpuTimes::default() }
}

#[test]
fn stage_stamps_allocate_nothing_and_take_less_than_half_a_percent_of_a_tick() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let mut recorder = Recorder::over(RingWriter::create_at(&path, "{}", 1 << 10).unwrap());
    let times = times();
    // Names and histograms are made when they first come.
    busy_tick(&mut recorder, &times, 1);
    let ticks = 20_000;
    let began = thread_cpu_ns();
    let allocations = crate::counting::allocations(|| (2..2 + ticks).for_each(|n| busy_tick(&mut recorder, &times, n)));
    let each_ns = (thread_cpu_ns() - began) / u64::from(ticks);
    println!("a busy tick's events take {each_ns} ns: {:.3} % of 10 ms", each_ns as f64 / 1e5);
    assert_eq!(allocations, 0);
    assert!(each_ns <= 50_000, "0.5 % of a tick of 10 ms are 50 µs, found {each_ns} ns");

    let mut reader = RingReader::open(&path).unwrap();
    let mut events = Vec::new();
    reader.read(&mut events);
    assert_eq!(events.len(), 1 << 10, "the ring is full of them");
    let named = events.iter().filter(|e| reader.name(e.name) == "flow step 7").count();
    assert!(named > 10, "{named}");
}

/// Processor time of this thread: other programs' work does not count.
fn thread_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}
