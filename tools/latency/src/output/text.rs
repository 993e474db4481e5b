//! A result for the terminal.

use fathom::telemetry::{SOFTWARE, Stage, table};

use crate::result::{Cost, Deadline, Kernels, Measured, Section, ms};

/// The whole result.
pub(crate) fn text(m: &Measured) -> String {
    let mut out = header(m);
    for section in &m.sections {
        out += &format!("\n\n{}", self::section(section));
    }
    if let Some(kernels) = &m.kernels {
        out += &format!("\n\n{}", self::kernels(kernels));
    }
    if let Some(cost) = &m.cost {
        out += &format!("\n\n{}", self::cost(cost));
    }
    for note in &m.notes {
        out += &format!("\nnote: {note}");
    }
    if let Some((section, age)) = m.headline() {
        let mark = if m.header.is_software() { " (a software driver's, not a GPU's)" } else { "" };
        out += &format!(
            "\n\n{}: p50 {} ms, p99 {} ms, max {} ms over {}{mark}",
            age.name.trim_start_matches("= "),
            ms(age.p50_ns),
            ms(age.p99_ns),
            ms(age.max_ns),
            count(section.chunks, "path"),
        );
    }
    out
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The settings of the measurement.
pub(crate) fn header(m: &Measured) -> String {
    let hash = if m.model_hash.is_empty() { "unknown" } else { &m.model_hash };
    let mode = format!("fathom-latency {}, {}, commit {}", m.mode, m.taken_at, m.commit);
    format!("{mode}\n{}\nmodel hash: {hash}; seed {}\n{}", m.header, m.header.seed, m.machine)
}

/// One path.
pub(crate) fn section(s: &Section) -> String {
    let stages: Vec<Stage> = s.cold.iter().cloned().chain(s.stages.iter().map(|r| r.stage.clone())).collect();
    let mut out = format!("{} ({:.1} s)\n{}", s.name, s.seconds, table(&stages));
    for line in lines(s) {
        out += &format!("\n{line}");
    }
    out
}

/// A section's lines besides its table.
pub(crate) fn lines(s: &Section) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(b) = &s.balance {
        let share = b.unexplained.mean_ns as f64 / b.total_mean_ns.max(1) as f64 * 100.0;
        out.push(format!(
            "sum of the stages {} ms, whole path {} ms (means); not covered by any stage: mean {} ms ({share:.1} %), p99 {} ms",
            ms(b.sum_mean_ns),
            ms(b.total_mean_ns),
            ms(b.unexplained.mean_ns),
            ms(b.unexplained.p99_ns)
        ));
    }
    if let Some(p) = &s.period {
        let j = &p.jitter;
        let (p50, p99, max) = (ms(j.p50_ns), ms(j.p99_ns), ms(j.max_ns));
        out.push(format!(
            "period {} ms; from one to the next it changes by p50 {p50}, p99 {p99}, max {max} ms",
            ms(p.p50_ns)
        ));
    }
    out.extend(s.deadlines.iter().map(deadline));
    if let Some(v) = &s.starvation {
        out.push(match v.starved {
            0 if v.controller_ticks == 0 => format!("the controller never ran out of steps ({} samples)", v.samples),
            starved => format!(
                "the controller had no step left in {starved} of {} samples, for {} ms at the longest; by its own count in {} \
                 ticks",
                v.samples,
                ms(v.longest_ns),
                v.controller_ticks
            ),
        });
    }
    if let Some(error) = s.clock_error_ns {
        out.push(format!("the controller's clock is known within {:.0} µs", error as f64 / 1e3));
    }
    if let Some(error) = s.gpu_clock_error_ns {
        out.push(format!("the GPU's clock is known within {:.3} µs", error as f64 / 1e3));
    }
    if !s.stamps.is_empty() {
        out.push(format!("images are stamped by {}", s.stamps.join(", ")));
    }
    if s.refused > 0 {
        out.push(format!("{} refused by the controller", count(s.refused, "chunk")));
    }
    if s.lost_events > 0 {
        out.push(format!(
            "{} overwritten before they were read: the figures exclude them",
            count(s.lost_events, "event")
        ));
    }
    out
}

fn deadline(d: &Deadline) -> String {
    let of = d.of.trim_start_matches("= ");
    format!("{of}: {} of {} later than {} ms, at most {} in a row", d.misses, d.count, ms(d.deadline_ns), d.longest_run)
}

/// The kernels' table.
pub(crate) fn kernels(k: &Kernels) -> String {
    let mut out =
        format!("kernels, all dispatches of an inference together ({} inferences, each dispatch timed)", k.inferences);
    for roof in &k.roofs {
        out += &format!("\nroof: {} {:.2} G{}", roof.name, roof.per_second / 1e9, roof.unit);
    }
    let width = k.table.iter().map(|r| r.kernel.chars().count()).max().unwrap_or(0).max(6);
    out += &format!(
        "\n{:width$}  {:>6}  {:>9}  {:>7}  {:>9}  {:>8}  {:>7}  roof",
        "kernel", "calls", "p50 ms", "time %", "GFLOP/s", "GB/s", "% roof"
    );
    let whole: u64 = k.table.iter().map(|r| r.row.stage.p50_ns).sum();
    for r in &k.table {
        out += &format!(
            "\n{:width$}  {:>6}  {:>9.3}  {:>7.1}  {:>9.2}  {:>8.2}  {:>7.1}  {}",
            r.kernel,
            r.calls,
            r.row.stage.p50_ns as f64 / 1e6,
            r.row.stage.p50_ns as f64 / whole.max(1) as f64 * 100.0,
            r.flops_per_second / 1e9,
            r.bytes_per_second / 1e9,
            r.share_of_roof * 100.0,
            r.roof
        );
    }
    out
}

/// The cost of measuring.
pub(crate) fn cost(c: &Cost) -> String {
    format!(
        "cost of measuring: an inference of {} ms takes {:+.2} % with GPU time stamps (noise of this figure {:.2} %, {} \
         rounds by turns)\n{} events of an inference take {:.1} µs and those of a control tick {:.2} µs to write: together \
         {:.3} % of a tick",
        ms(c.inference_off_ns),
        c.percent,
        c.noise_percent,
        c.rounds,
        c.events_per_inference,
        c.inference_events_ns as f64 / 1e3,
        c.tick_events_ns as f64 / 1e3,
        c.percent_of_tick
    )
}

/// The software driver's label, if it applies.
pub(crate) fn label(m: &Measured) -> Option<&'static str> {
    m.header.is_software().then_some(SOFTWARE)
}
