use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fathom_models::outln;

use crate::result::Evaluation;
use crate::statistics::{fisher, mcnemar, wilson};

/// Compare two evaluations, with a test of whether they differ: McNemar's exact test if both ran the same episodes, else Fisher's.
#[derive(Args)]
pub(crate) struct Compare {
    /// JSON of the first.
    first: PathBuf,
    /// JSON of the second.
    second: PathBuf,
}

impl Compare {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let (first, second) = (Evaluation::read(&self.first)?, Evaluation::read(&self.second)?);
        outln!("first:  {}, {}\nsecond: {}, {}", first.model, first.conditions(), second.model, second.conditions());
        let (a, b) = (first.outcomes(), second.outcomes());
        let kinds: BTreeSet<&str> = a.keys().chain(b.keys()).map(|(kind, ..)| *kind).collect();
        outln!("\n{:8} {:>22} {:>22} {:>12} {:>20}", "task", "first", "second", "difference", "p");
        for kind in kinds {
            let of = |all: &std::collections::BTreeMap<(&str, &str, u64), bool>| -> [usize; 2] {
                let of_kind = all.iter().filter(|((of, ..), _)| *of == kind);
                [of_kind.clone().filter(|(_, success)| **success).count(), of_kind.count()]
            };
            let ([a_done, of_a], [b_done, of_b]) = (of(&a), of(&b));
            let keys = |all: &std::collections::BTreeMap<(&str, &str, u64), bool>| -> Vec<(String, u64)> {
                let of_kind = all.keys().filter(|(of, ..)| *of == kind);
                of_kind.map(|(_, prompt, seed)| ((*prompt).to_owned(), *seed)).collect()
            };
            let (p, test) = if keys(&a) == keys(&b) {
                let only = |one: bool| {
                    let of_kind = a.iter().filter(|((of, ..), _)| *of == kind);
                    of_kind.filter(|(key, success)| **success == one && b.get(*key) == Some(&!one)).count()
                };
                (mcnemar(only(true), only(false)), "McNemar, paired")
            } else {
                (fisher(a_done, of_a, b_done, of_b), "Fisher")
            };
            let share = |done: usize, of: usize| 100.0 * done as f64 / of.max(1) as f64;
            let shown = |done: usize, of: usize| {
                let [low, high] = wilson(done, of).map(|share| share * 100.0);
                format!("{:.1} % [{low:.1}, {high:.1}]", share(done, of))
            };
            outln!(
                "{kind:8} {:>22} {:>22} {:>+9.1} pt {p:>8.4} {test}",
                shown(a_done, of_a),
                shown(b_done, of_b),
                share(b_done, of_b) - share(a_done, of_a),
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
