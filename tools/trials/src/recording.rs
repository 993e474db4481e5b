//! A recording during which the wall clock is set back: no message is lost, and the runs keep their order.

use std::error::Error;
use std::path::Path;

use fathom::config::{RecordSection, RobotConfig};
use fathom::events::LoopEvent;
use fathom::record::{Moment, Recording};

use crate::rig::{Keep, Watched, watch};

/// The ring of the second run, in megabytes: less than both runs record.
const RING_MB: u64 = 8;
/// Duration of the second run, in seconds.
const AGAIN_S: f64 = 3.0;

/// Failures in the recording of a run in which the clock was set, `seen`, and in the ring after another run that starts
/// with the present clock.
pub(crate) fn check(
    config: &RobotConfig,
    folder: &Path,
    seen: &Watched,
    loud: bool,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut wrong = Vec::new();
    let first = read(folder)?;
    wrong.extend(first.damage.clone());
    if first.reports != reports(seen) {
        let (found, came) = (first.reports.len(), reports(seen).len());
        wrong.push(format!("{found} of {came} reports of the controller are recorded"));
    }
    if !first.said.iter().any(|line| line.contains("the wall clock was set")) {
        wrong.push("the recording does not say that the clock was set".to_owned());
    }
    if !first.times.is_sorted() {
        wrong.push("times in the recording go back".to_owned());
    }
    let mut config = config.clone();
    config.record = Some(RecordSection { folder: folder.to_owned(), limit_mb: RING_MB });
    let after = watch(&config, AGAIN_S, Vec::new(), Keep { loud, all: true }, |_, _| {}, |_| {})?;
    if let Err(error) = &after.outcome {
        wrong.push(format!("the run after it ended: {error}"));
    }
    let ring = read(folder)?;
    wrong.extend(ring.damage.clone());
    let came = reports(&after);
    // The ring may have deleted this run's oldest file, but never the newest.
    let newest = ring.of_last_run();
    if newest.is_empty() || !came.ends_with(newest) {
        wrong.push(format!("the newest run was deleted: {} of its {} reports are left", newest.len(), came.len()));
    }
    let room = (RING_MB + RING_MB / 8) << 20;
    if ring.bytes > room {
        wrong.push(format!("the ring takes {} bytes, more than {room}", ring.bytes));
    }
    Ok(wrong)
}

/// Controller times of the received reports.
fn reports(seen: &Watched) -> Vec<u64> {
    let report = |event: &LoopEvent| match event {
        LoopEvent::Report { made, .. } => Some(made.0),
        _ => None,
    };
    seen.events.iter().filter_map(|(_, event)| report(event)).collect()
}

/// The content of a folder of recordings.
#[derive(Default)]
struct Read {
    /// Controller times of the reports.
    reports: Vec<u64>,
    /// Index of the last run's first report.
    last: usize,
    /// Logged lines, with the file's times.
    said: Vec<String>,
    times: Vec<(u64, u32)>,
    damage: Vec<String>,
    bytes: u64,
}

impl Read {
    fn of_last_run(&self) -> &[u64] {
        self.reports.get(self.last..).unwrap_or_default()
    }
}

fn read(folder: &Path) -> Result<Read, Box<dyn Error>> {
    let recording = Recording::open(folder)?;
    let mut read = Read::default();
    let mut run = None;
    let incomplete = recording.each(|moment| {
        match moment {
            Moment::Run(note) if run.as_ref() != Some(&note) => {
                run = Some(note);
                read.last = read.reports.len();
            }
            Moment::State(state) => read.reports.push(state.controller_us),
            Moment::Log(log) => {
                read.said.push(log.message);
                read.times.push((log.timestamp.sec, log.timestamp.nsec));
            }
            _ => {}
        }
        Ok::<_, Box<dyn Error>>(true)
    })?;
    read.damage = incomplete.iter().map(ToString::to_string).collect();
    read.bytes = recording.files().iter().filter_map(|file| file.metadata().ok()).map(|m| m.len()).sum();
    Ok(read)
}
