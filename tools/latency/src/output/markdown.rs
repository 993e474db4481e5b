//! A result for a pull request.

use crate::compare::Comparison;
use crate::result::{Measured, ms};

use super::text;

/// The whole result.
pub(super) fn markdown(m: &Measured) -> String {
    let mut out = format!("### fathom-latency {}\n\n", m.mode);
    if let Some((_, age)) = m.headline() {
        let name = age.name.trim_start_matches("= ");
        out +=
            &format!("**{name}: p50 {} ms, p99 {} ms, max {} ms**\n\n", ms(age.p50_ns), ms(age.p99_ns), ms(age.max_ns));
    }
    if let Some(label) = text::label(m) {
        out += &format!("> **{label}**\n\n");
    }
    for line in text::header(m).lines().filter(|l| text::label(m) != Some(l)) {
        out += &format!("- {}\n", escape(line));
    }
    for s in &m.sections {
        out += &format!("\n#### {} ({:.1} s)\n\n", escape(&s.name), s.seconds);
        let stages = s.cold.iter().chain(s.stages.iter().map(|r| &r.stage));
        let rows = stages.map(|s| {
            let times = [s.p50_ns, s.p90_ns, s.p99_ns, s.p999_ns, s.max_ns].map(ms);
            [vec![escape(&s.name), s.count.to_string()], times.to_vec()].concat()
        });
        out += &table(&["stage", "count", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"], rows);
        out.push('\n');
        text::lines(s).iter().for_each(|line| out += &format!("- {}\n", escape(line)));
    }
    if let Some(k) = &m.kernels {
        out += "\n#### kernels\n\n";
        k.roofs.iter().for_each(|r| out += &format!("- roof: {} {:.2} G{}\n", r.name, r.per_second / 1e9, r.unit));
        out.push('\n');
        let rows = k.table.iter().map(|r| {
            vec![
                format!("`{}`", r.kernel),
                r.calls.to_string(),
                ms(r.row.stage.p50_ns),
                format!("{:.2}", r.flops_per_second / 1e9),
                format!("{:.2}", r.bytes_per_second / 1e9),
                format!("{:.1}", r.share_of_roof * 100.0),
            ]
        });
        out += &table(&["kernel", "calls", "p50 ms", "GFLOP/s", "GB/s", "% of the roof"], rows);
    }
    if let Some(cost) = &m.cost {
        out += &format!("\n{}\n", text::cost(cost).replace('\n', "; "));
    }
    m.notes.iter().for_each(|note| out += &format!("\nNote: {}\n", escape(note)));
    out
}

/// A comparison.
pub(crate) fn comparison(c: &Comparison) -> String {
    let mut out = format!("### fathom-latency compare\n\n{}\n\n", escape(&c.verdict()));
    if c.is_software() {
        out += &format!("> **{}**\n\n", fathom::telemetry::SOFTWARE);
    }
    let heads = c.heads();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    out + &table(&heads, c.cells().into_iter().map(|row| row.iter().map(|cell| escape(cell)).collect()))
}

/// A table; the first column is text, the others are numbers.
pub(crate) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
    let rule: Vec<String> = (0..heads.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    let mut out = line(&heads) + &line(&rule);
    rows.into_iter().for_each(|row| out += &line(&row));
    out
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}
