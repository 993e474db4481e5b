//! Compares results: lists changes that exceed their noise.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::output::{comparison_markdown, print, write};
use crate::result::{Measured, Row, ms};

/// A change must exceed the noise by this factor.
const NOISE_TIMES: f64 = 3.0;

pub(crate) struct Options {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) floor_percent: f64,
    pub(crate) force: bool,
    pub(crate) markdown: Option<PathBuf>,
}

/// The verdict on a stage or kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    Slower,
    Faster,
    Gone,
    New,
    /// A result has fewer than three rounds, so its noise is unknown.
    Unjudged,
}

/// A stage or kernel in all results.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    name: String,
    /// Medians in nanoseconds, for the results that have it.
    p50_ns: Vec<Option<u64>>,
    /// Relative change from the first to the last result that has it.
    change: f64,
    /// Relative change that counts.
    threshold: f64,
    verdict: Verdict,
}

/// A comparison of the last result with the first.
#[derive(Debug)]
pub(crate) struct Comparison {
    names: Vec<String>,
    changes: Vec<Change>,
    unlike: Vec<String>,
    software: bool,
}

/// Compares; returns whether nothing is slower.
pub(crate) fn run(o: &Options) -> Result<bool, Failure> {
    let results = o.files.iter().map(|p| Measured::read(p)).collect::<Result<Vec<_>, _>>()?;
    let names = o.files.iter().map(|p| label(p)).collect();
    let comparison = Comparison::of(names, &results, o.floor_percent / 100.0)?;
    if !comparison.unlike.is_empty() && !o.force {
        let list = comparison.unlike.join("\n  ");
        return Err(format!("these results are not comparable (--force compares them anyway):\n  {list}").into());
    }
    if let Some(path) = &o.markdown {
        write(path, &comparison_markdown(&comparison))?;
    }
    print(&comparison.text());
    Ok(!comparison.changes.iter().any(|c| c.verdict == Verdict::Slower))
}

fn label(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Properties that must be equal for a meaningful comparison, with their values in each result. The commit may differ:
/// a comparison is usually between commits.
fn identity(m: &Measured) -> [(&'static str, String); 15] {
    let (h, machine) = (&m.header, &m.machine);
    [
        ("mode", m.mode.clone()),
        ("board", machine.board.clone()),
        ("cpu", machine.cpu.clone()),
        ("os", machine.os.clone()),
        ("adapter", h.adapter.clone()),
        ("adapter type", h.adapter_type.clone()),
        ("driver", h.driver.clone()),
        ("power mode", machine.power_mode.clone()),
        ("governors", machine.governors.join(", ")),
        ("model hash", m.model_hash.clone()),
        ("scheme", h.scheme.clone()),
        ("kernels", h.kernels.clone()),
        (
            "shapes",
            format!(
                "{}; {} tokens; horizon {}; {} flow steps",
                h.shapes.images.join(", "),
                h.shapes.prompt_tokens,
                h.shapes.horizon,
                h.shapes.flow_steps
            ),
        ),
        ("seed", h.seed.to_string()),
        (
            "highest clocks",
            machine.clocks.iter().map(|c| format!("{} {:.0} MHz", c.name, c.max_mhz)).collect::<Vec<_>>().join(", "),
        ),
    ]
}

/// Standard deviation of the rounds' medians, relative to their mean; `None` with fewer than three rounds.
pub(crate) fn noise(rounds: &[u64]) -> Option<f64> {
    if rounds.len() < 3 {
        return None;
    }
    let count = rounds.len() as f64;
    let mean = rounds.iter().sum::<u64>() as f64 / count;
    let variance = rounds.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some(variance.sqrt() / mean.max(1.0))
}

impl Comparison {
    fn of(names: Vec<String>, results: &[Measured], floor: f64) -> Result<Comparison, Failure> {
        let [first, .., last] = results else { return Err("compare: expected at least two results".into()) };
        let mut unlike = Vec::new();
        for (name, other) in names.iter().zip(results).skip(1) {
            for ((what, a), (_, b)) in identity(first).into_iter().zip(identity(other)) {
                if a != b {
                    unlike.push(format!(
                        "{what}: {a:?} in {}, {b:?} in {name}",
                        names.first().map_or("", String::as_str)
                    ));
                }
            }
        }
        let keys = |m: &Measured| m.rows().map(|(s, n, _)| (s.to_owned(), n.to_owned())).collect::<Vec<_>>();
        let mut all = keys(first);
        for key in results.iter().skip(1).flat_map(keys) {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        let find = |m: &Measured, key: &(String, String)| -> Option<Row> {
            m.rows().find(|(s, n, _)| *s == key.0 && *n == key.1).map(|(_, _, row)| row.clone())
        };
        let mut changes = Vec::new();
        for key in &all {
            let rows: Vec<Option<Row>> = results.iter().map(|m| find(m, key)).collect();
            let p50_ns: Vec<Option<u64>> = rows.iter().map(|r| r.as_ref().map(|r| r.stage.p50_ns)).collect();
            let name = format!("{}: {}", key.0, key.1);
            let (a, b) = (find(first, key), find(last, key));
            let (change, threshold, verdict) = match (&a, &b) {
                (Some(a), Some(b)) => judge(a, b, floor),
                (Some(_), None) => (0.0, 0.0, Verdict::Gone),
                _ => (0.0, 0.0, Verdict::New),
            };
            changes.push(Change { name, p50_ns, change, threshold, verdict });
        }
        let software = results.iter().any(|m| m.header.is_software());
        Ok(Comparison { names, changes, unlike, software })
    }

    pub(crate) fn is_software(&self) -> bool {
        self.software
    }

    pub(crate) fn verdict(&self) -> String {
        let count = |v: Verdict| self.changes.iter().filter(|c| c.verdict == v).count();
        let (slower, faster, same) = (count(Verdict::Slower), count(Verdict::Faster), count(Verdict::Same));
        let rest = match count(Verdict::Unjudged) {
            0 => String::new(),
            few => format!(", {few} not judged: fewer than three rounds"),
        };
        format!("{slower} slower, {faster} faster, {same} unchanged within their noise{rest}")
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        let files = self.names.iter().map(|n| format!("{n} p50 ms"));
        let rest = ["change %", "counts from %", "verdict"].map(str::to_owned);
        ["stage".to_owned()].into_iter().chain(files).chain(rest).collect()
    }

    pub(crate) fn cells(&self) -> Vec<Vec<String>> {
        let row = |c: &Change| {
            let times = c.p50_ns.iter().map(|ns| ns.map_or("–".to_owned(), ms));
            let both = !matches!(c.verdict, Verdict::Gone | Verdict::New);
            let judged = both && c.verdict != Verdict::Unjudged;
            let threshold = if judged { format!("{:.1}", c.threshold * 100.0) } else { String::new() };
            let change = if both { format!("{:+.1}", c.change * 100.0) } else { String::new() };
            let verdict = match c.verdict {
                Verdict::Same => "",
                Verdict::Slower => "SLOWER",
                Verdict::Faster => "faster",
                Verdict::Gone => "gone",
                Verdict::New => "new",
                Verdict::Unjudged => "too few rounds",
            };
            let rest = [change, threshold, verdict.to_owned()];
            [c.name.clone()].into_iter().chain(times).chain(rest).collect()
        };
        self.changes.iter().map(row).collect()
    }

    fn text(&self) -> String {
        let heads = self.heads();
        let cells = self.cells();
        let width = |i: usize| {
            let all = std::iter::once(&heads).chain(&cells);
            all.filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(i, cell)| {
                let pad = " ".repeat(width(i).saturating_sub(cell.chars().count()));
                if i == 0 { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        let mut out = line(&heads);
        cells.iter().for_each(|row| out += &format!("\n{}", line(row)));
        out += &format!("\n\n{}", self.verdict());
        if self.names.len() > 2 {
            out += &format!(" (the last, {}, against the first)", self.names.last().map_or("", String::as_str));
        }
        for unlike in &self.unlike {
            out += &format!("\nnot the same: {unlike}");
        }
        if self.software {
            out += &format!("\n{}", fathom::telemetry::SOFTWARE);
        }
        out
    }
}

/// Change of the median, the change that counts, and the verdict. Without noise from three rounds on both sides there
/// is no verdict.
fn judge(a: &Row, b: &Row, floor: f64) -> (f64, f64, Verdict) {
    let change = b.stage.p50_ns as f64 / a.stage.p50_ns.max(1) as f64 - 1.0;
    let (Some(na), Some(nb)) = (noise(&a.rounds_p50_ns), noise(&b.rounds_p50_ns)) else {
        return (change, 0.0, Verdict::Unjudged);
    };
    let threshold = floor.max(NOISE_TIMES * na.max(nb));
    let verdict = match change {
        c if c > threshold => Verdict::Slower,
        c if c < -threshold => Verdict::Faster,
        _ => Verdict::Same,
    };
    (change, threshold, verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{SCHEMA, Section};
    use fathom::telemetry::Stage;

    fn result(rows: &[(&str, u64, &[u64])]) -> Measured {
        let row = |(name, p50_ns, rounds): &(&str, u64, &[u64])| Row {
            stage: Stage { name: (*name).to_owned(), p50_ns: *p50_ns, ..Stage::default() },
            rounds_p50_ns: rounds.to_vec(),
            ..Row::default()
        };
        let stages = rows.iter().map(row).collect();
        let section = Section { name: "inference".to_owned(), stages, ..Section::default() };
        Measured { schema: SCHEMA, sections: vec![section], ..Measured::default() }
    }

    fn verdicts(results: &[Measured]) -> Vec<Verdict> {
        let names = results.iter().enumerate().map(|(i, _)| i.to_string()).collect();
        Comparison::of(names, results, 0.05).unwrap().changes.iter().map(|c| c.verdict).collect()
    }

    #[test]
    fn only_what_passes_floor_and_noise_is_flagged() {
        let (steady, noisy): (&[u64], &[u64]) = (&[1000, 1001, 999, 1000], &[800, 1000, 1200, 1000]);
        let a =
            result(&[("steady", 1000, steady), ("noisy", 1000, noisy), ("faster", 1000, steady), ("gone", 9, steady)]);
        let b =
            result(&[("steady", 1060, steady), ("noisy", 1400, noisy), ("faster", 900, steady), ("new", 9, steady)]);
        use Verdict as V;
        assert_eq!(verdicts(&[a.clone(), b]), [V::Slower, V::Same, V::Faster, V::Gone, V::New]);
        let little = result(&[("steady", 1040, steady), ("noisy", 1700, noisy)]);
        assert_eq!(verdicts(&[a, little])[..2], [V::Same, V::Slower], "below the floor; beyond its own noise");
    }

    #[test]
    fn without_three_rounds_there_is_no_noise_to_judge_by() {
        let few: &[u64] = &[1000, 1000];
        assert_eq!(verdicts(&[result(&[("a", 1000, few)]), result(&[("a", 3000, few)])]), [Verdict::Unjudged]);
    }

    #[test]
    fn a_trend_judges_the_last_against_the_first() {
        let steady: &[u64] = &[1000, 1000, 1000];
        let results: Vec<Measured> = [1000, 1500, 1010].map(|ns| result(&[("a", ns, steady)])).into();
        let c = Comparison::of(vec!["x".into(), "y".into(), "z".into()], &results, 0.05).unwrap();
        assert_eq!(c.changes[0].verdict, Verdict::Same);
        assert_eq!(c.cells()[0][1..4], ["0.001", "0.002", "0.001"]);
        assert!(c.text().contains("the last, z, against the first"));
    }

    #[test]
    fn unlike_headers_are_listed() {
        let a = result(&[]);
        let mut b = a.clone();
        b.header.adapter = "another".to_owned();
        b.header.scheme = "w4".to_owned();
        b.commit = "another commit is what a comparison is for".to_owned();
        let c = Comparison::of(vec!["a".into(), "b".into()], &[a, b], 0.05).unwrap();
        assert_eq!(c.unlike.len(), 2, "{:?}", c.unlike);
    }
}
