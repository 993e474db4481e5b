//! The result as one self-contained page.

use std::fmt::Write as _;

use crate::result::{Evaluation, Row};

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fdfcf9; --ink: #1d2328; --soft: #667079; --line: #d9d8d2; --bar: #0b6e8f; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e6e7e5; --soft: #98a1a8; --line: #363b40; --bar: #5cc0e0; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; } p { color: var(--soft); margin: .2rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; } th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
svg { width: 12rem; height: 1rem; vertical-align: middle; } rect { fill: var(--bar); } line { stroke: var(--ink); stroke-width: 2; }
";

/// The page.
pub(crate) fn page(evaluation: &Evaluation) -> String {
    let software = if evaluation.software { ": a software driver" } else { "" };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><title>Success of {model}</title><style>{STYLE}</style>\n<h1>How often {model} does its task</h1>\n\
         <p>{adapter}{software}, {kernels}</p>\n<p>{conditions}</p>\n",
        model = escape(&evaluation.model),
        adapter = escape(&evaluation.adapter),
        kernels = escape(&evaluation.kernels),
        conditions = escape(&evaluation.conditions()),
    );
    for (rows, title) in evaluation.rows().iter().zip(["By kind of task", "By prompt"]) {
        table(&mut out, title, rows);
    }
    for (depth, of) in evaluation.depth.iter().zip(["all pixels", "pixels of the arm and of objects"]) {
        if depth.pixels > 0 {
            let _ = writeln!(out, "<p>Depth, {of}: AbsRel {:.4}, δ1 {:.4}</p>", depth.abs_rel, depth.delta1);
        }
    }
    out
}

fn table(out: &mut String, title: &str, rows: &[Row]) {
    let _ = writeln!(
        out,
        "<h2>{title}</h2>\n<div class=\"wide\"><table><tr><th>Task<th>Success<th>95 % interval<th><th>Wrong object<th>In the table\
         <th>Median time<th>Missing, median<th>p90<th>Faults</tr>"
    );
    for row in rows {
        let [low, high] = row.interval.map(|share| share * 100.0);
        let share = 100.0 * row.successes as f64 / row.count.max(1) as f64;
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{} of {}<td>{low:.1} to {high:.1} %<td><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"{share:.0} %\"><rect width=\"{share:.1}\" height=\"10\" opacity=\".45\"/>\
             <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"5\" y2=\"5\"/></svg><td>{}<td>{}<td>{}<td>{:.1} mm<td>{:.0} mm<td>{}</tr>",
            escape(&row.name),
            row.successes,
            row.count,
            row.wrong,
            row.below_table,
            row.done_s.map_or("–".to_owned(), |s| format!("{s:.1} s")),
            row.distance_mm[0],
            row.distance_mm[1],
            row.faults,
        );
    }
    out.push_str("</table></div>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
