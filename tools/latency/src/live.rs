//! The running daemon through its ring: once, for some time, or as a view that refreshes.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fathom::telemetry::{RingReader, RunInfo, SOFTWARE, Stage};

use crate::Failure;
use crate::collect::Collector;
use crate::drive::{POLL, Progress, watch};
use crate::machine::Watched;
use crate::model::hash;
use crate::output::Outputs;
use crate::result::{Measured, Section, ms};
use crate::watch::{Pump, TraceFile};

/// Refresh interval of the view.
const REFRESH: Duration = Duration::from_millis(500);
/// Length of the interval in the view's right half.
const WINDOW: Duration = Duration::from_secs(5);
/// Paths of a round.
const ROUND: u64 = 20;

pub(crate) struct Options {
    pub(crate) pid: Option<u32>,
    pub(crate) seconds: Option<f64>,
    pub(crate) once: bool,
    pub(crate) deadline_ns: Option<u64>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) break_on_miss: Option<(Duration, PathBuf)>,
    pub(crate) progress: Option<Duration>,
    pub(crate) mode: &'static str,
}

/// Measures; returns the result, and whether it ended at a late tick.
pub(crate) fn run(o: &Options, outputs: &Outputs) -> Result<bool, Failure> {
    outputs.check()?;
    let mut reader = RingReader::attach(o.pid)?;
    let machine = Watched::begin();
    let info: RunInfo = serde_json::from_str(&reader.meta()).map_err(|e| format!("the ring's description: {e}"))?;
    let pid = reader.pid();
    let shown = std::io::stdout().is_terminal() && !o.once && o.progress.is_none();
    // `--once` reads the minute that the ring holds.
    let once = o.once || (!shown && o.seconds.is_none());
    if !once {
        reader.skip_to_end();
    }
    let title = crate::title(&info.header);
    let trace = o.trace.as_ref().map(|path| TraceFile::create(path, pid, &title)).transpose()?;
    let mut pump = Pump::new(reader, watch(&info, o.deadline_ns, ROUND), trace);
    if let Some((keep, _)) = &o.break_on_miss {
        pump = pump.break_on_miss(*keep);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let ended = follow(o, &mut pump, &info, &stop, shown, once)?;
    let section = pump.section(Vec::new());
    let mut notes = Vec::new();
    if let Some((_, path)) = o.break_on_miss.as_ref().filter(|_| ended == Ended::Missed) {
        notes.push(pump.write_recent(path, &title)?);
    }
    notes.extend(pump.end());
    if section.chunks == 0 {
        let ticks = section.deadlines.iter().map(|d| d.count).sum::<u64>();
        let gone = if ended == Ended::Gone { "; it ended" } else { "" };
        return Err(format!(
            "daemon {pid}: no chunk was accepted while it was watched ({ticks} control ticks): it warms up, holds, or runs \
             dry{gone}"
        )
        .into());
    }
    if ended == Ended::Gone {
        notes.push(format!("daemon {pid} ended while it was watched"));
    }
    let model = Path::new(&info.header.model);
    let measured =
        Measured { model_hash: hash(model), ..crate::measured(o.mode, info.header.clone(), machine.end(), notes) };
    let measured = Measured { sections: vec![section], ..measured };
    crate::finish(&measured, outputs)?;
    Ok(ended == Ended::Missed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The time limit, or the user's request.
    Done,
    /// The daemon has ended.
    Gone,
    /// A control tick was late.
    Missed,
}

fn follow(
    o: &Options,
    pump: &mut Pump,
    info: &RunInfo,
    stop: &AtomicBool,
    shown: bool,
    once: bool,
) -> Result<Ended, Failure> {
    let until = o.seconds.map(|s| Instant::now() + Duration::from_secs_f64(s.max(0.0)));
    let mut view = if shown { Some(View::open(pump, info)?) } else { None };
    let mut told = Progress::new(o.progress);
    loop {
        // Before the read, so that the last events are read, too.
        let live = pump.reader().is_live();
        if pump.pump() {
            return Ok(Ended::Missed);
        }
        if once || stop.load(Ordering::Acquire) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Ended::Done);
        }
        if !live {
            return Ok(Ended::Gone);
        }
        if let Some(shown) = &mut view
            && shown.refresh(pump).is_err()
        {
            // The terminal has closed. A given time still counts.
            view = None;
            if o.seconds.is_none() {
                return Ok(Ended::Done);
            }
        }
        told.tick(pump);
        std::thread::sleep(POLL);
    }
}

/// The terminal's alternate screen with the figures, until it is dropped.
struct View<'a> {
    info: &'a RunInfo,
    pid: u32,
    drawn: Instant,
    window: Instant,
    /// The previous interval, and the counts at its start.
    before: Option<Section>,
    recent: Collector,
    reader: RingReader,
}

impl View<'_> {
    fn open<'a>(pump: &Pump, info: &'a RunInfo) -> Result<View<'a>, Failure> {
        let pid = pump.reader().pid();
        let mut reader = RingReader::attach(Some(pid))?;
        reader.skip_to_end();
        let mut out = std::io::stdout();
        write!(out, "\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        let recent = Collector::new(watch(info, None, 0));
        let now = Instant::now();
        Ok(View { info, pid, drawn: now - REFRESH, window: now, before: None, recent, reader })
    }

    fn refresh(&mut self, pump: &Pump) -> Result<(), Failure> {
        let mut events = Vec::new();
        self.reader.read(&mut events);
        for event in &events {
            self.recent.event(self.reader.name(event.name), event);
        }
        if self.window.elapsed() >= WINDOW {
            self.window = Instant::now();
            self.before = Some(self.recent.section(Vec::new(), 0));
            self.recent = self.recent.fresh();
        }
        if self.drawn.elapsed() < REFRESH {
            return Ok(());
        }
        self.drawn = Instant::now();
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let (rows, columns) = size.map_or((24, 80), |s| (usize::from(s.ws_row).max(5), usize::from(s.ws_col).max(20)));
        let lines = lines(self.info, self.pid, &pump.section(Vec::new()), self.before.as_ref());
        let mut out = String::from("\x1b[H");
        for line in lines.iter().take(rows - 1) {
            out.extend(line.chars().take(columns));
            out += "\x1b[K\r\n";
        }
        let mut stdout = std::io::stdout();
        write!(stdout, "{out}\x1b[J")?;
        Ok(stdout.flush()?)
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        let _ = write!(out, "\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// The view's lines: the whole time, and the last complete interval.
fn lines(info: &RunInfo, pid: u32, all: &Section, recent: Option<&Section>) -> Vec<String> {
    let mut out = vec![format!("fathom {pid} on {} ({}); Ctrl-C ends", info.header.adapter, info.header.adapter_type)];
    if info.header.is_software() {
        out.push(SOFTWARE.to_owned());
    }
    out.push(String::new());
    let find = |s: &Section, name: &str| s.stages.iter().map(|r| r.stage.clone()).find(|s| s.name == name);
    let age = find(all, &all.headline).unwrap_or_default();
    let now = recent.and_then(|s| find(s, &s.headline)).unwrap_or_default();
    let three = |s: &Stage| [s.p50_ns, s.p99_ns, s.max_ns].map(ms).join(" / ");
    let name = all.headline.trim_start_matches("= ");
    out.push(format!(
        "{name}, ms (p50 / p99 / max): {} in the last {} s, {} in all",
        three(&now),
        WINDOW.as_secs(),
        three(&age)
    ));
    out.push(spark(all.age.iter().map(|p| p.1)));
    for d in &all.deadlines {
        out.push(format!(
            "{}: {} of {} over {} ms, longest run {}",
            d.of.trim_start_matches("= "),
            d.misses,
            d.count,
            ms(d.deadline_ns),
            d.longest_run
        ));
    }
    if let Some(s) = &all.starvation {
        out.push(format!(
            "starved: {} of {} samples, longest {} ms; {} ticks of the controller",
            s.starved,
            s.samples,
            ms(s.longest_ns),
            s.controller_ticks
        ));
    }
    let head = |s: &str| format!("{s:>9}");
    out.push(format!(
        "{} chunks, {} refused, {} events lost, {:.0} s",
        all.chunks, all.refused, all.lost_events, all.seconds
    ));
    out.push(String::new());
    out.push(format!(
        "{:28}{}{}{}{}{}",
        "stage, ms",
        head("now p50"),
        head("p50"),
        head("p99"),
        head("p99.9"),
        head("max")
    ));
    for row in &all.stages {
        let s = &row.stage;
        let now = recent.and_then(|r| find(r, &s.name)).map_or("–".to_owned(), |s| ms(s.p50_ns));
        let times = [s.p50_ns, s.p99_ns, s.p999_ns, s.max_ns].map(|ns| head(&ms(ns))).concat();
        let name: String = s.name.chars().take(28).collect();
        out.push(format!("{name:28}{}{times}", head(&now)));
    }
    out
}

/// Values as a line of blocks, the last at the right.
fn spark(values: impl Iterator<Item = f64>) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<f64> = values.collect();
    let shown = values.get(values.len().saturating_sub(72)..).unwrap_or_default();
    let most = shown.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    shown.iter().filter_map(|v| BLOCKS.get(((v / most * 7.0).round() as usize).min(7))).collect()
}
