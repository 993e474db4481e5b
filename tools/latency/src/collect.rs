//! From events to statistics, in fixed memory for any duration.

use std::collections::VecDeque;

use fathom::camera::StampSource;
use fathom::telemetry::{Event, Kind, Stage, StageTable, Track, counter, stage};
use fathom_models::nets::flow;
use hdrhistogram::Histogram;

use crate::result::{Balance, Bar, Deadline, Period, Row, Section, Starvation};

/// Observations whose stages are kept until their path ends.
const OPEN: usize = 16;
/// Number of rounds whose medians are kept; beyond it, two neighbours are merged, and rounds become twice as long.
const ROUNDS: usize = 32;
/// Number of points of the age over time; beyond it, two neighbours are merged.
const POINTS: usize = 600;
/// Bars of a histogram.
const BARS: usize = 40;

/// A collector's settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// Name of the section.
    pub(crate) name: &'static str,
    /// The path whose stages are summed; it is the headline.
    pub(crate) path: &'static str,
    /// Largest lateness of a control tick; 0 without ticks.
    pub(crate) tick_ns: u64,
    /// Largest value of the headline.
    pub(crate) deadline_ns: Option<u64>,
    /// Paths of a round; 0 if the caller ends the rounds.
    pub(crate) round: u64,
}

/// Counts lateness during the run.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    count: u64,
    misses: u64,
    run: u64,
    longest: u64,
}

impl Late {
    fn add(&mut self, missed: bool) {
        self.count += 1;
        self.misses += u64::from(missed);
        self.run = if missed { self.run + 1 } else { 0 };
        self.longest = self.longest.max(self.run);
    }

    fn result(self, of: &str, deadline_ns: u64) -> Deadline {
        let Late { count, misses, longest, .. } = self;
        Deadline { of: of.to_owned(), deadline_ns, count, misses, longest_run: longest }
    }
}

/// A stage of an observation whose path has not ended.
#[derive(Clone, Copy, Debug)]
struct Part {
    name: usize,
    track: Track,
    begin_ns: u64,
    end_ns: u64,
}

/// Sums for a stage's place within its path.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: usize,
    track: Track,
    count: u64,
    begin_ns: i64,
    length_ns: u64,
}

/// Collects statistics from events.
#[derive(Debug)]
pub(crate) struct Collector {
    watch: Watch,
    names: Vec<String>,
    table: StageTable,
    round: StageTable,
    rounds: Vec<(String, Vec<u64>)>,
    round_paths: u64,
    round_length: u64,
    open: VecDeque<(u32, Vec<Part>)>,
    places: Vec<Place>,
    balances: StageTable,
    sum_ns: u64,
    total_ns: u64,
    paths: u64,
    ticks: Late,
    late: Late,
    last_period_ns: Option<u64>,
    age: Vec<(u64, u64)>,
    age_merge: u64,
    age_pending: (u64, u64, u64),
    active: bool,
    starvation: Starvation,
    starved_since_ns: Option<u64>,
    starved: Option<u64>,
    clock_error_ns: Option<u64>,
    gpu_clock_error_ns: Option<u64>,
    refused: u64,
    stamps: Vec<String>,
    first_ns: Option<u64>,
    last_ns: u64,
    /// Whether the last control tick was missed, for callers that stop then.
    pub(crate) missed: bool,
}

const UNEXPLAINED: &str = "unexplained";
const JITTER: &str = "jitter";
/// Sum of the flow steps, in the tool's tables.
const FLOW: &str = "= flow steps";

impl Collector {
    pub(crate) fn new(watch: Watch) -> Collector {
        Collector {
            round_length: watch.round,
            watch,
            names: Vec::new(),
            table: StageTable::default(),
            round: StageTable::default(),
            rounds: Vec::new(),
            round_paths: 0,
            open: VecDeque::new(),
            places: Vec::new(),
            balances: StageTable::default(),
            sum_ns: 0,
            total_ns: 0,
            paths: 0,
            ticks: Late::default(),
            late: Late::default(),
            last_period_ns: None,
            age: Vec::new(),
            age_merge: 1,
            age_pending: (0, 0, 0),
            active: false,
            starvation: Starvation::default(),
            starved_since_ns: None,
            starved: None,
            clock_error_ns: None,
            gpu_clock_error_ns: None,
            refused: 0,
            stamps: Vec::new(),
            first_ns: None,
            last_ns: 0,
            missed: false,
        }
    }

    /// A collector with the same names and no counts.
    pub(crate) fn fresh(&self) -> Collector {
        let (active, starved) = (self.active, self.starved);
        Collector { active, starved, ..Collector::new(self.watch.clone()) }
    }

    /// Whether chunks are being sent.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Number of paths that have ended.
    pub(crate) fn paths(&self) -> u64 {
        self.paths
    }

    /// Adds an event with the name `name`.
    pub(crate) fn event(&mut self, name: &str, event: &Event) {
        self.missed = false;
        if event.kind == Kind::Counter && name == counter::ACTIVE {
            self.active = event.value != 0;
        }
        self.first_ns.get_or_insert(event.begin_ns);
        self.last_ns = self.last_ns.max(event.begin_ns);
        match event.kind {
            Kind::Span => self.span(name, event),
            Kind::Counter if name == counter::STEPS_LEFT => self.steps_left(event),
            Kind::Counter if name == counter::STARVED => {
                let last = self.starved.replace(event.value).unwrap_or(event.value);
                // It wraps, and restarts with the controller.
                self.starvation.controller_ticks +=
                    u64::from((event.value as u32).wrapping_sub(last as u32).min(1 << 16));
            }
            Kind::Counter if name == counter::CLOCK_ERROR => {
                self.clock_error_ns = self.clock_error_ns.max(Some(event.value))
            }
            Kind::Counter if name == counter::GPU_CLOCK_ERROR => {
                self.gpu_clock_error_ns = self.gpu_clock_error_ns.max(Some(event.value));
            }
            Kind::Mark if name == counter::STAMP => {
                let source = StampSource::ALL.get(event.value as usize).map_or_else(String::new, ToString::to_string);
                let said = format!("{}: {source}", track(event.track));
                if !self.stamps.contains(&said) {
                    self.stamps.push(said);
                }
            }
            Kind::Mark if name == counter::REFUSED => self.refused += 1,
            _ => {}
        }
    }

    fn span(&mut self, name: &str, event: &Event) {
        let (length_ns, begin_ns) = (event.value, event.begin_ns);
        self.record(name, length_ns);
        match name {
            stage::LATENESS if self.watch.tick_ns > 0 => {
                self.missed = length_ns > self.watch.tick_ns;
                self.ticks.add(self.missed);
            }
            stage::PERIOD => {
                if let Some(last_ns) = self.last_period_ns.replace(length_ns) {
                    self.balances.record(JITTER, last_ns.abs_diff(length_ns));
                }
            }
            _ => {}
        }
        if event.chunk != 0 && !name.starts_with("= ") {
            let name = self.number(name);
            let part = Part { name, track: event.track, begin_ns, end_ns: begin_ns.saturating_add(length_ns) };
            match self.open.iter_mut().find(|(chunk, _)| *chunk == event.chunk) {
                Some((_, parts)) => parts.push(part),
                None => {
                    let mut parts = if self.open.len() < OPEN {
                        Vec::new()
                    } else {
                        self.open.pop_front().map(|(_, parts)| parts).unwrap_or_default()
                    };
                    parts.clear();
                    parts.push(part);
                    self.open.push_back((event.chunk, parts));
                }
            }
        }
        if name == self.watch.path {
            self.path(event);
        }
    }

    fn number(&mut self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    fn record(&mut self, name: &str, ns: u64) {
        self.table.record(name, ns);
        self.round.record(name, ns);
    }

    /// A path has ended: the part that its stages cover, and their places.
    fn path(&mut self, event: &Event) {
        let (begin_ns, end_ns) = (event.begin_ns, event.begin_ns.saturating_add(event.value));
        let at = self.open.iter().position(|(chunk, _)| *chunk == event.chunk);
        let Some((_, mut parts)) = at.and_then(|at| self.open.remove(at)) else { return };
        parts.sort_by_key(|p| (p.begin_ns, p.end_ns));
        let (mut covered_ns, mut sum_ns, mut upto_ns, mut flow_ns) = (0, 0, begin_ns, 0);
        for part in &parts {
            // Of several images the oldest counts: the path starts with it.
            let counts = !matches!(part.track, Track::Camera(_)) || part.begin_ns == begin_ns;
            let (from, to) = (part.begin_ns.clamp(begin_ns, end_ns), part.end_ns.clamp(begin_ns, end_ns));
            if counts {
                sum_ns += to - from;
                covered_ns += to.saturating_sub(from.max(upto_ns));
                upto_ns = upto_ns.max(to);
            }
            if self.names.get(part.name).is_some_and(|n| flow::is_stage(n)) {
                flow_ns += part.end_ns - part.begin_ns;
            }
            let same = |p: &&mut Place| (p.name, p.track) == (part.name, part.track);
            let (offset_ns, length_ns) = (part.begin_ns as i64 - begin_ns as i64, part.end_ns - part.begin_ns);
            match self.places.iter_mut().find(same) {
                Some(place) => {
                    place.count += 1;
                    place.begin_ns += offset_ns;
                    place.length_ns += length_ns;
                }
                None => self.places.push(Place {
                    name: part.name,
                    track: part.track,
                    count: 1,
                    begin_ns: offset_ns,
                    length_ns,
                }),
            }
        }
        if flow_ns > 0 {
            self.record(FLOW, flow_ns);
        }
        self.balances.record(UNEXPLAINED, (end_ns - begin_ns).saturating_sub(covered_ns));
        self.sum_ns += sum_ns;
        self.total_ns += end_ns - begin_ns;
        self.paths += 1;
        // A collector that started later has not seen its start.
        self.active = true;
        if let Some(deadline_ns) = self.watch.deadline_ns {
            self.late.add(event.value > deadline_ns);
        }
        self.point(end_ns, event.value);
        self.round_paths += 1;
        if self.round_length > 0 && self.round_paths >= self.round_length {
            self.end_round();
        }
    }

    fn point(&mut self, at_ns: u64, age_ns: u64) {
        let (time, most, count) = self.age_pending;
        self.age_pending = (time.max(at_ns), most.max(age_ns), count + 1);
        if self.age_pending.2 < self.age_merge {
            return;
        }
        self.age.push((self.age_pending.0, self.age_pending.1));
        self.age_pending = (0, 0, 0);
        if self.age.len() >= POINTS {
            let pairs = self.age.chunks(2);
            self.age = pairs.map(|p| p.iter().fold((0, 0), |m, v| (m.0.max(v.0), m.1.max(v.1)))).collect();
            self.age_merge *= 2;
        }
    }

    fn steps_left(&mut self, event: &Event) {
        // Without chunks there can be no starvation.
        if !self.active {
            self.starved_since_ns = None;
            return;
        }
        self.starvation.samples += 1;
        if event.value > 0 {
            self.starved_since_ns = None;
            return;
        }
        self.starvation.starved += 1;
        let since_ns = *self.starved_since_ns.get_or_insert(event.begin_ns);
        self.starvation.longest_ns = self.starvation.longest_ns.max(event.begin_ns.saturating_sub(since_ns));
    }

    /// Records the medians of the round that ends here.
    pub(crate) fn end_round(&mut self) {
        self.round_paths = 0;
        for (name, histogram) in self.round.histograms().filter(|(_, h)| !h.is_empty()) {
            let p50_ns = histogram.value_at_quantile(0.5);
            match self.rounds.iter_mut().find(|(n, _)| n == name) {
                Some((_, rounds)) => rounds.push(p50_ns),
                None => self.rounds.push((name.to_owned(), vec![p50_ns])),
            }
        }
        self.round.clear();
        if self.rounds.iter().any(|(_, r)| r.len() > ROUNDS) {
            for (_, rounds) in &mut self.rounds {
                *rounds = rounds.chunks(2).map(|p| p.iter().sum::<u64>() / p.len().max(1) as u64).collect();
            }
            self.round_length *= 2;
        }
    }

    /// The statistics so far.
    pub(crate) fn section(&self, cold: Vec<Stage>, lost_events: u64) -> Section {
        let w = &self.watch;
        let start_ns = self.first_ns.unwrap_or(0);
        let seconds = self.last_ns.saturating_sub(start_ns) as f64 / 1e9;
        let is_cold = |name: &str| name.starts_with("cold");
        let mut rows: Vec<Row> = self
            .table
            .histograms()
            .filter(|(name, _)| !is_cold(name))
            .map(|(name, h)| Row {
                stage: Stage::of(name, h),
                rounds_p50_ns: self.rounds.iter().find(|(n, _)| n == name).map(|(_, r)| r.clone()).unwrap_or_default(),
                histogram: bars(h),
            })
            .collect();
        let mut waterfall: Vec<Bar> = self.places.iter().map(|p| self.bar(p)).collect();
        waterfall.sort_by_key(|bar| (bar.begin_ns, bar.length_ns));
        // Stages in their order, then whole paths.
        let place = |name: &str| waterfall.iter().position(|bar| bar.name == name);
        rows.sort_by_key(|r| (r.stage.name.starts_with("= "), place(&r.stage.name).map_or(0, |at| at + 1)));
        let mut cold = cold;
        cold.extend(self.table.stages().into_iter().filter(|s| is_cold(&s.name)));
        let find = |name: &str| self.balances.stages().into_iter().find(|s| s.name == name);
        let balance = find(UNEXPLAINED).map(|unexplained| Balance {
            total: w.path.to_owned(),
            total_mean_ns: self.total_ns / self.paths.max(1),
            sum_mean_ns: self.sum_ns / self.paths.max(1),
            unexplained,
        });
        let period = rows
            .iter()
            .find(|r| r.stage.name == stage::PERIOD)
            .and_then(|r| Some(Period { of: stage::PERIOD.to_owned(), p50_ns: r.stage.p50_ns, jitter: find(JITTER)? }));
        let mut deadlines = Vec::new();
        if self.ticks.count > 0 {
            deadlines.push(self.ticks.result(stage::LATENESS, w.tick_ns));
        }
        deadlines.extend(w.deadline_ns.map(|deadline_ns| self.late.result(w.path, deadline_ns)));
        let point = |(at_ns, age_ns): &(u64, u64)| (at_ns.saturating_sub(start_ns) as f64 / 1e9, *age_ns as f64 / 1e6);
        Section {
            name: w.name.to_owned(),
            headline: w.path.to_owned(),
            seconds,
            cold,
            stages: rows,
            balance,
            waterfall,
            age: self.age.iter().map(point).collect(),
            period,
            deadlines,
            starvation: (self.starvation.samples > 0).then(|| self.starvation.clone()),
            clock_error_ns: self.clock_error_ns,
            gpu_clock_error_ns: self.gpu_clock_error_ns,
            chunks: self.paths,
            refused: self.refused,
            stamps: self.stamps.clone(),
            lost_events,
        }
    }

    fn bar(&self, place: &Place) -> Bar {
        let count = place.count.max(1);
        Bar {
            name: self.names.get(place.name).cloned().unwrap_or_default(),
            track: track(place.track),
            begin_ns: place.begin_ns / count as i64,
            length_ns: place.length_ns / count,
        }
    }
}

/// A track's name.
pub(crate) fn track(track: Track) -> String {
    match track {
        Track::Camera(view) => format!("camera {view}"),
        Track::Control => "control thread".to_owned(),
        Track::Inference => "inference thread".to_owned(),
        Track::Gpu => "GPU".to_owned(),
        Track::Link => "serial line".to_owned(),
        Track::Controller => "controller".to_owned(),
        Track::Path => "whole paths".to_owned(),
    }
}

/// The histogram's samples in bars between its ends, which grow by a constant factor.
fn bars(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let (low, high) = (histogram.min().max(1) as f64, histogram.max().max(1) as f64);
    let factor = (high / low).powf(1.0 / BARS as f64);
    if histogram.is_empty() || factor <= 1.0 {
        return vec![(histogram.max(), histogram.len())];
    }
    let end = |i: usize| if i + 1 == BARS { u64::MAX } else { (low * factor.powi(i as i32 + 1)) as u64 };
    let mut bars: Vec<(u64, u64)> = (0..BARS).map(|i| (end(i).min(histogram.max()), 0)).collect();
    let mut i = 0;
    for value in histogram.iter_recorded() {
        while value.value_iterated_to() > end(i) && i + 1 < BARS {
            i += 1;
        }
        if let Some(bar) = bars.get_mut(i) {
            bar.1 += value.count_since_last_iteration();
        }
    }
    bars
}

#[cfg(test)]
mod tests;
