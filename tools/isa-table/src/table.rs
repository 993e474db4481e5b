//! A line for each kernel, and the rules for the lines.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use fathom_shaders::{Kernel, Variant};

use crate::assembly::{Assembly, Loop};
use crate::{Failure, NAME};

/// Begins the line that names the driver.
pub(crate) const DRIVER: &str = "# driver: ";
/// Marks the last listing of a kernel, which is the encoded one, and its end.
const LISTING: [&str; 2] = ["NAK IR after calc_instr_deps", "Stage:"];
/// Begins the line that names the columns.
const COLUMNS: &str = "kernel\tinstructions\tcycles\tregisters\tspilled\tlocal\twarps\tbounds\tmatrix\tloop\tloop matrix\tper matrix\tper MAC";
/// Instructions that the loop of `linear_coop16` may have for each one that multiplies matrices.
const PER_MATRIX: f64 = 6.0;

/// NVK's statistics of a kernel, and counts from its listing.
#[derive(Debug, Default)]
struct Row {
    /// NVK's statistics by name.
    said: BTreeMap<String, u64>,
    listed: usize,
    bounds: usize,
    matrix: usize,
    hottest: Option<Loop>,
}

impl Row {
    fn said(&self, what: &str) -> u64 {
        self.said.get(what).copied().unwrap_or_default()
    }

    fn per_matrix(&self) -> Option<f64> {
        let l = self.hottest.as_ref().filter(|l| l.matrix > 0)?;
        Some(l.instructions as f64 / l.matrix as f64)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    driver: String,
    rows: Vec<(String, Row)>,
}

/// Reads the output of `fathom-isa-table compile` and NVK.
pub(crate) fn read(lines: impl Iterator<Item = io::Result<Vec<u8>>>) -> Result<Table, Failure> {
    let mut table = Table::default();
    let mut listing: Option<Assembly> = None;
    for line in lines {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(driver) = line.strip_prefix(DRIVER) {
            table.driver = driver.to_owned();
        } else if let Some(name) = line.strip_prefix(NAME) {
            table.rows.push((name.to_owned(), Row::default()));
        } else if line.starts_with(LISTING[0]) {
            listing = Some(Assembly::default());
        } else if line.starts_with(LISTING[1]) {
            if let (Some(done), Some((_, row))) = (listing.take(), table.rows.last_mut()) {
                (row.listed, row.bounds) = (done.instructions(), done.sizes());
                (row.matrix, row.hottest) = (done.matrix(), done.hottest());
            }
        } else if let Some(listing) = &mut listing {
            listing.line(&line);
        } else if let (Some((what, number)), Some((_, row))) = (line.split_once(": "), table.rows.last_mut())
            && let Ok(number) = number.trim().parse()
        {
            row.said.insert(what.to_owned(), number);
        }
    }
    table.rows.retain(|(_, row)| row.said.contains_key("Instruction count"));
    if table.rows.is_empty() { Err(Failure::Nothing) } else { Ok(table) }
}

impl Table {
    /// Compares with `baseline`, a printed table, and checks the rules for every kernel that runs on Orin. Under
    /// another driver than the baseline's, the numbers are not compared. Returns a summary.
    pub(crate) fn check(&self, baseline: &str) -> Result<String, String> {
        let mut wrong = String::new();
        for (name, row) in &self.rows {
            let (said, listed) = (row.said("Instruction count"), row.listed);
            if said != listed as u64 {
                wrong += &format!("{name}: {listed} instructions are listed, NVK reports {said}\n");
            }
            let Some(Variant { key, .. }) = Variant::named(name) else {
                wrong += &format!("{name}: no such variant\n");
                continue;
            };
            // Orin uses neither small matrices nor the kernels of software drivers.
            let lanes = matches!(key.kernel, Kernel::LinearLanes | Kernel::AttentionLanes);
            let serves = key.matrix_side != 8 && !lanes;
            let bounded = key.kernel == Kernel::LinearCoop && key.matrix_side == 16;
            let (local, spilled) = (row.said("SLM size"), row.said("Spills to mem"));
            if serves && local + spilled > 0 {
                wrong += &format!("{name}: {local} bytes of local memory and {spilled} spills, expected none\n");
            }
            if row.bounds > 0 {
                wrong += &format!("{name}: {} reads of a buffer's size, expected none without checks\n", row.bounds);
            }
            if let Some(found) = row.per_matrix().filter(|n| *n > PER_MATRIX && bounded) {
                wrong +=
                    &format!("{name}: {found:.2} instructions for each matrix instruction, at most {PER_MATRIX}\n");
            }
        }
        let known = baseline.lines().find_map(|line| line.strip_prefix(DRIVER)).unwrap_or_default();
        let same_driver = known == self.driver;
        if same_driver {
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            let (old, new) = (lines(baseline), lines(&self.to_string()));
            let only = |sign: &str, of: &[String], other: &[String]| {
                let lines = of.iter().filter(|line| !other.contains(line));
                lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
            };
            let difference = only("-", &old, &new) + &only("+", &new, &old);
            if !difference.is_empty() {
                wrong += &format!(
                    "  {COLUMNS}\n{difference}the table changed: if this is intended, run tools/isa --update\n"
                );
            }
        }
        match (wrong.is_empty(), same_driver) {
            (false, _) => Err(wrong),
            (true, true) => Ok(format!("{} kernels as in the table", self.rows.len())),
            (true, false) => Ok(format!(
                "{} kernels keep to the rules; the table is {known}'s, this driver is {}",
                self.rows.len(),
                self.driver
            )),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Cost of every kernel on Orin's instruction set (SM87) as NVK compiles it; written by tools/isa."
        )?;
        writeln!(f, "{DRIVER}{}\n{COLUMNS}", self.driver)?;
        for (name, row) in &self.rows {
            let said =
                ["Instruction count", "Static cycle count", "Num GPRs", "Spills to mem", "SLM size", "Max warps/SM"];
            write!(f, "{name}")?;
            for what in said {
                write!(f, "\t{}", row.said(what))?;
            }
            write!(f, "\t{}\t{}", row.bounds, row.matrix)?;
            match &row.hottest {
                None => writeln!(f, "\t\t\t\t")?,
                Some(l) => {
                    let per_matrix = row.per_matrix().map_or(String::new(), |n| format!("{n:.2}"));
                    let per_mac = l.instructions as f64 / l.macs as f64;
                    writeln!(f, "\t{}\t{}\t{per_matrix}\t{per_mac:.3}", l.instructions, l.matrix)?;
                }
            }
        }
        Ok(())
    }
}
