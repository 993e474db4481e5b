//! Injected faults: failures of cameras, line, GPU, clock, disk and log, on request.
//!
//! The wrappers share [`Faults`]; without a fault nothing is wrapped. Times count from the first time that the loop is
//! active.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::clock::NS_PER_S;
use crate::events::{Events, FaultPhase, LoopEvent};

mod camera;
mod line;
mod log;
mod spec;

pub(crate) use camera::FaultyCamera;
pub(crate) use line::{FaultyReader, FaultyWriter};
pub(crate) use log::FaultyLog;
pub use spec::{Kind, Spec, SpecError};

/// Phases of a fault.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const OVER: u8 = 2;

#[derive(Debug, Default)]
struct Inner {
    /// With the phase of each that was emitted.
    specs: Vec<(Spec, Mutex<u8>)>,
    /// When the loop became active, CLOCK_MONOTONIC without jumps; 0 before.
    epoch_ns: AtomicU64,
    events: OnceLock<Events>,
}

/// The faults of a run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    inner: Arc<Inner>,
}

impl Faults {
    /// These faults.
    pub fn new(specs: Vec<Spec>) -> Faults {
        let specs = specs.into_iter().map(|spec| (spec, Mutex::new(WAITING))).collect();
        Faults { inner: Arc::new(Inner { specs, ..Inner::default() }) }
    }

    /// Faults that begin, happen and end are events of this stream.
    pub(crate) fn emit_to(&self, events: &Events) {
        // The first stream stays.
        let _ = self.inner.events.set(events.clone());
    }

    /// Whether there is one of these kinds at all.
    pub(crate) fn any(&self, kinds: impl Fn(Kind) -> bool) -> bool {
        self.inner.specs.iter().any(|(spec, _)| kinds(spec.kind))
    }

    /// The first of these kinds.
    pub(crate) fn first(&self, kinds: impl Fn(Kind) -> bool) -> Option<Kind> {
        self.inner.specs.iter().map(|(spec, _)| spec.kind).find(|kind| kinds(*kind))
    }

    /// Whether one is of a camera.
    pub(crate) fn any_of_camera(&self) -> bool {
        self.any(Kind::is_camera)
    }

    /// Whether one is of the line.
    pub(crate) fn any_of_line(&self) -> bool {
        self.any(|k| matches!(k, Kind::SerialFlip | Kind::SerialLoss | Kind::SerialDelay | Kind::SerialUnplug))
    }

    /// The loop became active: times count from here.
    pub(crate) fn begin(&self) {
        let _ = self.inner.epoch_ns.compare_exchange(0, real_ns().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Emits which faults begin and end.
    pub(crate) fn log_progress(&self) {
        let since_s = self.since_s();
        for (spec, emitted) in self.inner.specs.iter().filter(|(spec, _)| !spec.kind.is_instant()) {
            self.come_to(spec, emitted, phase(spec, since_s));
        }
    }

    /// Time since the loop began, in seconds; `None` before.
    fn since_s(&self) -> Option<f64> {
        let epoch_ns = self.inner.epoch_ns.load(Ordering::Relaxed);
        (epoch_ns != 0).then(|| real_ns().saturating_sub(epoch_ns) as f64 / NS_PER_S as f64)
    }

    /// The value of a fault of this kind, and this camera, that is going on.
    pub(crate) fn now(&self, kind: Kind, view: Option<&str>) -> Option<f64> {
        let since_s = self.since_s();
        let mut fitting = self.inner.specs.iter().filter(|(spec, _)| {
            let here = view.is_none() || spec.view.is_none() || spec.view.as_deref() == view;
            spec.kind == kind && here && phase(spec, since_s) == BEGUN
        });
        let (spec, emitted) = fitting.next()?;
        self.come_to(spec, emitted, BEGUN);
        Some(spec.value)
    }

    /// The value of a fault of this kind that happens now, once.
    pub(crate) fn once(&self, kind: Kind) -> Option<f64> {
        let since_s = self.since_s();
        let due = |(spec, emitted): &&(Spec, Mutex<u8>)| {
            spec.kind == kind && phase(spec, since_s) != WAITING && self.come_to(spec, emitted, OVER)
        };
        self.inner.specs.iter().find(due).map(|(spec, _)| spec.value)
    }

    /// Emits that a fault has come further than before; whether it has. The event comes before its consequences.
    fn come_to(&self, spec: &Spec, emitted: &Mutex<u8>, is: u8) -> bool {
        let mut emitted = emitted.lock().unwrap_or_else(PoisonError::into_inner);
        if is <= *emitted {
            return false;
        }
        *emitted = is;
        let phase = match is {
            BEGUN => FaultPhase::Begins,
            _ if spec.kind.is_instant() => FaultPhase::Happens,
            _ => FaultPhase::Ends,
        };
        let event = LoopEvent::Injected { fault: spec.to_string(), phase };
        self.inner.events.get_or_init(Events::default).emit(event);
        true
    }
}

/// The phase of a fault at this time after the loop became active.
fn phase(spec: &Spec, since_s: Option<f64>) -> u8 {
    let Some(since_s) = since_s else { return WAITING };
    match spec.for_s {
        _ if since_s < spec.at_s => WAITING,
        Some(for_s) if since_s >= spec.at_s + for_s => OVER,
        _ => BEGUN,
    }
}

/// CLOCK_MONOTONIC as the kernel has it: a fault of the clock does not move the faults themselves.
fn real_ns() -> u64 {
    crate::clock::kernel_ns()
}

/// Random numbers of a fault: xorshift, the same in each run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: &str) -> Dice {
        let hash =
            seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Dice(hash | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Whether something of this share happens.
    fn hits(&mut self, share: f64) -> bool {
        ((self.roll() >> 11) as f64 / (1_u64 << 53) as f64) < share
    }
}
