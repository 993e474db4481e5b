//! The report as one self-contained page.

use std::fmt::Write as _;

use super::report::{Errors, Report, Run};
use crate::size;

/// The smallest exponent on a logarithmic axis; smaller values are drawn at its end.
const LEAST: i32 = -9;
/// Size of a small plot, in its own units.
const PLOT: [f64; 2] = [240.0, 110.0];
/// Left, right, top and bottom of a small plot's area.
const MARGINS: [f64; 4] = [8.0, 8.0, 18.0, 18.0];

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fdfcf9; --ink: #1d2328; --soft: #667079; --line: #d9d8d2; --rms: #0b6e8f; --most: #c2571a; --good: #1d7a46; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e6e7e5; --soft: #98a1a8; --line: #363b40; --rms: #5cc0e0; --most: #f0955a; --good: #5fc98c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .2rem; } p { margin: .2rem 0 .8rem; color: var(--soft); }
.verdict { border-left: .35rem solid; padding: .4rem .8rem; margin: 0 0 1rem; color: var(--ink); } .good { border-color: var(--good); } .bad { border-color: var(--bad); } .verdict b { margin-right: .4rem; } .good b { color: var(--good); } .bad b { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; } dt { color: var(--soft); } dd { margin: 0; }
.rows { display: grid; grid-template-columns: minmax(6.5rem, 13rem) 1fr; gap: 0 .8rem; align-items: center; font-size: .85rem; } .rows > span { padding: .1rem 0; } .rows svg { display: block; width: 100%; height: 1.5rem; overflow: visible; } .rows small { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem; } figure { margin: 0; } figcaption { font-size: .85rem; } figure svg { display: block; width: 100%; height: auto; }
text { fill: var(--soft); font: 10px system-ui, sans-serif; } .grid { stroke: var(--line); } .axis { stroke: var(--soft); } .rms { stroke: var(--rms); fill: none; stroke-width: 1.8; } .most { stroke: var(--most); fill: none; stroke-width: 1.4; stroke-dasharray: 4 2; }
circle { fill: var(--rms); fill-opacity: .6; } .bound { stroke: var(--bad); stroke-width: 1.5; } .key i { display: inline-block; width: 1.4rem; border-top: 2px solid var(--rms); vertical-align: middle; margin: 0 .3rem 0 .8rem; } .key i.dashed { border-top: 2px dashed var(--most); }
@media (max-width: 34rem) { .rows { grid-template-columns: 1fr; } .rows > span { padding: .3rem 0 0; } .rows svg { height: 1.1rem; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; } th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; } th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; } summary { cursor: pointer; margin-top: 1rem; }
";

/// The page.
pub(super) fn page(r: &Report) -> String {
    let mut out = String::new();
    let class = if r.passed { "good" } else { "bad" };
    let verdict = r.verdict();
    let (word, rest) = verdict.split_once(": ").unwrap_or((&verdict, ""));
    let share = 100.0 * r.packed.weight_bytes as f64 / r.reference.weight_bytes.max(1) as f64;
    let mut say = |text: String| out.push_str(&text);
    say(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Quantisation report: {scheme}</title><style>{STYLE}</style>\n<h1>What packing as {scheme} costs</h1>\n\
         <p class=\"verdict {class}\"><b>{word}</b> {rest}</p>\n",
        scheme = escape(&r.scheme),
        rest = escape(rest),
    ));
    let facts = [
        (
            "Reference",
            format!("{} ({}), in f32 by {} kernels", r.reference.directory, r.reference.family, r.reference.kernels),
        ),
        ("Packed", format!("{}, by {} kernels", r.packed.directory, r.packed.kernels)),
        ("Weights", format!("{} of {}: {share:.0} %", size(r.packed.weight_bytes), size(r.reference.weight_bytes))),
        ("Runs", r.count()),
        ("Adapter", format!("{}{}", r.adapter, if r.software { ": a software driver" } else { "" })),
    ];
    say("<dl>".to_owned());
    for (term, fact) in facts {
        say(format!("<dt>{term}</dt><dd>{}</dd>\n", escape(&fact)));
    }
    say("</dl>\n".to_owned());
    let what = if r.joints.is_empty() { "depth map" } else { "actions" };
    say(format!(
        "<h2>Run by run: 1 − cosine of the {what}</h2><p>A dot is a run, a row an observation; the line is the threshold.</p>\n{}",
        runs(r)
    ));
    say(format!(
        "<h2>Stage by stage: relative error</h2><p>|packed − reference| / |reference|, worst observation. Stages in the order of the \
         data's way; a dot is a layer or a flow step.</p>\n{}",
        stages(r)
    ));
    if !r.joints.is_empty() {
        say(format!(
            "<h2>Joint by joint: error along the horizon</h2><p class=\"key\">Each joint in its own unit, over all runs.\
             <i></i>rms <i class=\"dashed\"></i>largest</p>\n{}",
            joints(r)
        ));
    }
    say(tables(r));
    out
}

/// A logarithmic axis of whole decades, for rows of dots.
struct Axis {
    from: i32,
    to: i32,
}

impl Axis {
    /// An axis for all of `values`, with at least three decades.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Axis {
        let exponents = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10);
        let to = exponents.clone().fold(-1.0, f64::max).ceil() as i32;
        let from = (exponents.fold(f64::INFINITY, f64::min).floor() as i32).max(LEAST);
        Axis { from: from.min(to - 3), to }
    }

    /// A value's place, in percent.
    fn percent(&self, value: f64) -> f64 {
        let (from, to) = (f64::from(self.from), f64::from(self.to));
        let x = 100.0 * (value.max(1e-30).log10() - from) / (to - from);
        if x.is_nan() { 100.0 } else { x.clamp(0.0, 100.0) }
    }

    /// Each decade's place and exponent.
    fn decades(&self) -> impl Iterator<Item = (f64, i32)> {
        (self.from..=self.to).map(|decade| (self.percent(10.0_f64.powi(decade)), decade))
    }

    /// A row of dots, and a line at `bound`.
    fn row(&self, out: &mut String, label: &str, values: impl Iterator<Item = f64>, bound: Option<f64>) {
        let _ = write!(out, "<span>{label}</span><svg role=\"img\">");
        let mut line = |class: &str, x: f64| {
            let _ = write!(out, "<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>");
        };
        self.decades().for_each(|(x, _)| line("grid", x));
        bound.into_iter().for_each(|bound| line("bound", self.percent(bound)));
        for value in values {
            let x = self.percent(value);
            let _ = write!(out, "<circle cx=\"{x:.2}%\" cy=\"50%\" r=\"4\"><title>{value:.2e}</title></circle>");
        }
        out.push_str("</svg>\n");
    }

    /// The decades' numbers.
    fn numbers(&self, out: &mut String) {
        out.push_str("<span></span><svg aria-hidden=\"true\">");
        for (x, decade) in self.decades() {
            let anchor = match decade {
                d if d == self.from => "start",
                d if d == self.to => "end",
                _ => "middle",
            };
            let text = if decade == 0 { "1".to_owned() } else { format!("1e{decade}") };
            let _ = write!(out, "<text x=\"{x:.2}%\" y=\"12\" text-anchor=\"{anchor}\">{text}</text>");
        }
        out.push_str("</svg>\n");
    }
}

fn runs(r: &Report) -> String {
    let (angle, bound) = (|run: &Run| 1.0 - run.actions.cosine, 1.0 - r.threshold);
    let axis = Axis::of(r.runs.iter().map(angle).chain([bound]));
    let mut out = "<div class=\"rows\">\n".to_owned();
    for observation in &r.observations {
        let name = observation.rsplit('/').next().unwrap_or(observation);
        let of = r.runs.iter().filter(|run| run.observation == *observation);
        axis.row(&mut out, &escape(name), of.map(angle), Some(bound));
    }
    axis.numbers(&mut out);
    out + "</div>\n"
}

fn stages(r: &Report) -> String {
    let axis = Axis::of(r.stages.iter().map(|s| s.relative_error_worst));
    let mut out = "<div class=\"rows\">\n".to_owned();
    for group in r.groups() {
        let count = group.stages.len();
        let many = if count > 1 { format!(" <small>× {count}</small>") } else { String::new() };
        let errors = group.stages.iter().map(|s| s.relative_error_worst);
        axis.row(&mut out, &(escape(&group.name) + &many), errors, None);
    }
    axis.numbers(&mut out);
    out + "</div>\n"
}

fn joints(r: &Report) -> String {
    let mut out = "<div class=\"tiles\">\n".to_owned();
    plot(&mut out, "all joints, normalised", &r.steps);
    for joint in &r.joints {
        plot(&mut out, &joint.name, &joint.steps);
    }
    out + "</div>\n"
}

/// RMS and largest error along the horizon.
fn plot(out: &mut String, name: &str, steps: &[Errors]) {
    let [left, right, top, bottom] = MARGINS;
    let [width, height] = PLOT;
    let most = steps.iter().map(|s| s.largest).fold(f64::MIN_POSITIVE, f64::max);
    let x = |i: usize| left + (width - left - right) * i as f64 / (steps.len().max(2) - 1) as f64;
    let y = |value: f64| height - bottom - (height - top - bottom) * value / most;
    let line = |of: fn(&Errors) -> f64| {
        let points = steps.iter().enumerate().map(|(i, s)| format!("{:.1},{:.1}", x(i), y(of(s))));
        points.collect::<Vec<_>>().join(" ")
    };
    let (name, low, high) = (escape(name), height - bottom, top);
    let _ = writeln!(
        out,
        "<figure><figcaption>{name}</figcaption><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"error of {name}\">\
         <line class=\"axis\" x1=\"{left}\" x2=\"{end}\" y1=\"{low}\" y2=\"{low}\"/>\
         <line class=\"grid\" x1=\"{left}\" x2=\"{end}\" y1=\"{high}\" y2=\"{high}\"/>\
         <text x=\"{left}\" y=\"{label}\">{most:.2e}</text>\
         <text x=\"{left}\" y=\"{under}\">step 1</text><text x=\"{end}\" y=\"{under}\" text-anchor=\"end\">{count}</text>\
         <polyline class=\"most\" points=\"{largest}\"/><polyline class=\"rms\" points=\"{rms}\"/></svg></figure>",
        end = width - right,
        label = high - 5.0,
        under = low + 13.0,
        count = steps.len(),
        largest = line(|s| s.largest),
        rms = line(|s| s.rms),
    );
}

fn tables(r: &Report) -> String {
    let mut out = String::new();
    if !r.joints.is_empty() {
        out += "<h2>Joints</h2>\n<div class=\"wide\"><table><tr><th>joint<th>reference from<th>to<th>rms<th>95 %<th>largest</tr>\n";
        for j in &r.joints {
            let _ = writeln!(
                out,
                "<tr><td>{}<td>{:.3}<td>{:.3}<td>{:.2e}<td>{:.2e}<td>{:.2e}</tr>",
                escape(&j.name),
                j.reference[0],
                j.reference[1],
                j.all.rms,
                j.p95,
                j.all.largest
            );
        }
        out += "</table></div>\n";
    }
    out += "<details><summary>Every stage</summary>\n<div class=\"wide\"><table><tr><th>stage<th>worst cosine<th>mean<th>worst relative \
            error<th>mean</tr>\n";
    for s in &r.stages {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{:.6}<td>{:.6}<td>{:.2e}<td>{:.2e}</tr>",
            escape(&s.name),
            s.cosine_worst,
            s.cosine_mean,
            s.relative_error_worst,
            s.relative_error_mean
        );
    }
    out + "</table></div></details>\n</html>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
