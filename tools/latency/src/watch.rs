//! Reads a ring into statistics and a trace.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fathom::clock::monotonic_ns;
use fathom::telemetry::{Event, RingReader, Stage};

use crate::Failure;
use crate::collect::{Collector, Watch};
use crate::output::perfetto::Trace;
use crate::result::Section;

/// A trace's file.
pub(crate) struct TraceFile {
    path: PathBuf,
    trace: Trace<File>,
}

impl TraceFile {
    /// Starts a trace of process `pid` at `path`.
    pub(crate) fn create(path: &Path, pid: u32, title: &str) -> Result<TraceFile, Failure> {
        let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(TraceFile { path: path.to_owned(), trace: Trace::begin(file, pid, title, monotonic_ns()) })
    }

    /// Adds an event with the name `name`.
    pub(crate) fn event(&mut self, name: &str, event: &Event) {
        self.trace.event(name, event);
    }

    /// Ends it; returns a note on it.
    pub(crate) fn end(self) -> String {
        let path = self.path.display();
        let ended = self.trace.end();
        let Some(error) = ended.error else { return format!("trace of {} events: {path}", ended.events) };
        // The last packet may be incomplete.
        if let Ok(file) = File::options().write(true).open(&self.path)
            && file.metadata().is_ok_and(|m| m.is_file())
        {
            let _ = file.set_len(ended.bytes);
        }
        format!("the trace {path} ends early, after {} bytes: {error}; the figures are complete", ended.bytes)
    }
}

/// The events of the last seconds.
#[derive(Debug)]
struct Recent {
    keep_ns: u64,
    events: VecDeque<Event>,
}

/// A reader with its statistics.
pub(crate) struct Pump {
    reader: RingReader,
    pub(crate) collector: Collector,
    trace: Option<TraceFile>,
    recent: Option<Recent>,
    events: Vec<Event>,
    stop_at_miss: bool,
}

impl Pump {
    pub(crate) fn new(reader: RingReader, watch: Watch, trace: Option<TraceFile>) -> Pump {
        let collector = Collector::new(watch);
        Pump { reader, collector, trace, recent: None, events: Vec::new(), stop_at_miss: false }
    }

    /// Keeps the events of the last `keep`, and stops at the first missed control tick.
    pub(crate) fn break_on_miss(mut self, keep: Duration) -> Pump {
        let keep_ns = keep.as_nanos() as u64;
        self.recent = Some(Recent { keep_ns, events: VecDeque::new() });
        self.stop_at_miss = true;
        self
    }

    /// Also writes the following events into `trace`.
    pub(crate) fn trace_into(&mut self, trace: Option<TraceFile>) {
        self.trace = trace;
    }

    pub(crate) fn reader(&self) -> &RingReader {
        &self.reader
    }

    /// Reads the events since the last call; returns whether a control tick was missed at which it has to stop.
    pub(crate) fn pump(&mut self) -> bool {
        self.events.clear();
        self.reader.read(&mut self.events);
        let mut missed = false;
        for event in &self.events {
            let name = self.reader.name(event.name);
            self.collector.event(name, event);
            missed |= self.collector.missed;
            if let Some(trace) = &mut self.trace {
                trace.event(name, event);
            }
            if let Some(recent) = &mut self.recent {
                recent.events.push_back(*event);
                let oldest_ns = event.begin_ns.saturating_sub(recent.keep_ns);
                while recent.events.front().is_some_and(|e| e.begin_ns < oldest_ns) {
                    recent.events.pop_front();
                }
            }
        }
        missed && self.stop_at_miss
    }

    /// Discards the counts of the warm-up.
    pub(crate) fn forget(&mut self) {
        self.collector = self.collector.fresh();
    }

    /// Writes the events of the last seconds as a trace; returns a note on it.
    pub(crate) fn write_recent(&self, path: &Path, title: &str) -> Result<String, Failure> {
        let mut trace = TraceFile::create(path, self.reader.pid(), title)?;
        for event in self.recent.iter().flat_map(|r| &r.events) {
            trace.event(self.reader.name(event.name), event);
        }
        Ok(trace.end())
    }

    /// The statistics up to now.
    pub(crate) fn section(&self, cold: Vec<Stage>) -> Section {
        self.collector.section(cold, self.reader.lost())
    }

    /// Ends the trace; returns a note on it.
    pub(crate) fn end(self) -> Option<String> {
        self.trace.map(TraceFile::end)
    }
}
