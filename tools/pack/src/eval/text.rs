//! The report as text.

use std::fmt;

use super::report::{Errors, Report, Stage};

/// Stages of one kind: all layers of an expert's keys, or all velocities.
pub(super) struct Group<'a> {
    /// The stages' name with `*` for the number.
    pub(super) name: String,
    pub(super) stages: Vec<&'a Stage>,
}

impl Report {
    /// Groups stages whose names differ only in a number.
    pub(super) fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for stage in &self.stages {
            let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let parts = stage.name.split('.').map(|part| if number(part) { "*" } else { part });
            let name = parts.collect::<Vec<_>>().join(".");
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => group.stages.push(stage),
                None => groups.push(Group { name, stages: vec![stage] }),
            }
        }
        groups
    }

    /// The extent of the comparison.
    pub(super) fn count(&self) -> String {
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let observations = many(self.observations.len(), "observation");
        match self.joints.is_empty() {
            true => observations,
            false => format!("{observations}, {} of noise each", many(self.seeds as usize, "seed")),
        }
    }

    /// The verdict.
    pub(super) fn verdict(&self) -> String {
        let of = if self.joints.is_empty() { "depth maps" } else { "actions" };
        let cosine = format!("the worst cosine of {of} is {:.6}, expected at least {}", self.worst, self.threshold);
        let largest = self.runs.iter().map(|run| run.largest).fold(0.0, f64::max);
        let error = self.max_error.map(|most| format!("; the largest error is {largest:.4}, at most {most} allowed"));
        format!("{}: {cosine}{}", if self.passed { "PASS" } else { "FAIL" }, error.unwrap_or_default())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reference, packed) = (&self.reference, &self.packed);
        let share = 100.0 * packed.weight_bytes as f64 / reference.weight_bytes.max(1) as f64;
        writeln!(
            f,
            "reference  {} ({}), in f32 by {} kernels",
            reference.directory, reference.family, reference.kernels
        )?;
        writeln!(
            f,
            "packed     {} as {}, {share:.0} % of the bytes, by {} kernels",
            packed.directory, self.scheme, packed.kernels
        )?;
        writeln!(f, "adapter    {}", self.adapter)?;
        writeln!(f, "{}\n", self.count())?;
        writeln!(f, "{:<28} {:>12} {:>12} {:>16} {:>16}", "stage", "worst cosine", "mean", "worst rel. error", "mean")?;
        for group in self.groups() {
            let count = group.stages.len();
            let name = if count > 1 { format!("{} ({count})", group.name) } else { group.name.clone() };
            let mean = |of: fn(&Stage) -> f64| group.stages.iter().map(|s| of(s)).sum::<f64>() / count as f64;
            let worst = group.stages.iter().map(|s| s.cosine_worst).fold(f64::INFINITY, f64::min);
            let error = group.stages.iter().map(|s| s.relative_error_worst).fold(0.0, f64::max);
            let (cosine, relative) = (mean(|s| s.cosine_mean), mean(|s| s.relative_error_mean));
            writeln!(f, "{name:<28} {worst:>12.6} {cosine:>12.6} {error:>16.2e} {relative:>16.2e}")?;
        }
        if !self.joints.is_empty() {
            writeln!(f, "\nerrors of the robot's own actions, each joint in its own unit")?;
            writeln!(
                f,
                "{:<28} {:>24} {:>10} {:>10} {:>10}",
                "joint", "reference from … to", "rms", "95 %", "largest"
            )?;
            for joint in &self.joints {
                let [from, to] = joint.reference;
                let (Errors { rms, largest }, p95) = (joint.all, joint.p95);
                let range = format!("{from:.3} … {to:.3}");
                writeln!(f, "{:<28} {range:>24} {rms:>10.2e} {p95:>10.2e} {largest:>10.2e}", joint.name)?;
            }
            let rms: Vec<String> = self.steps.iter().map(|step| format!("{:.1e}", step.rms)).collect();
            writeln!(f, "\nrms by step of the horizon, normalised: {}", rms.join(" "))?;
        }
        if self.software {
            writeln!(f, "\nA SOFTWARE DRIVER ran this; accuracy is that of its kernels.")?;
        }
        writeln!(f, "\n{}", self.verdict())
    }
}
