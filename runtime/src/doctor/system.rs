//! The computer: its clock, the processor's frequencies, a Jetson's power mode, free space, and limits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Finding;

/// A clock before this (2024-01-01) was never set: seconds since 1970.
const SET: u64 = 1_704_067_200;
/// Free space below which a disk counts as full, in bytes.
const LITTLE: u64 = 200 << 20;

/// A computer, read through the files below a root directory.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    /// This computer.
    fn default() -> System {
        System::at("/")
    }
}

impl System {
    /// The computer whose files lie below `root`.
    pub fn at(root: impl Into<PathBuf>) -> System {
        System { root: root.into() }
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn read(&self, below: &str) -> Option<String> {
        Some(fs::read_to_string(self.path(below)).ok()?.trim_matches(['\0', '\n', ' ']).to_owned())
    }

    /// The computer's findings; `now` is the time of its clock.
    #[must_use]
    pub fn findings(&self, now: SystemTime) -> Vec<Finding> {
        let mut findings = vec![self.computer(), self.clock(now)];
        findings.extend(self.governors());
        findings.extend(self.power_mode());
        findings.push(self.real_time());
        findings
    }

    fn computer(&self) -> Finding {
        let model = self.read("proc/device-tree/model").or_else(|| self.read("sys/class/dmi/id/product_name"));
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
        let l4t = self.read("etc/nv_tegra_release").and_then(|text| {
            // "# R36 (release), REVISION: 4.3, …"
            let major = text.strip_prefix("# ")?.split_whitespace().next()?.to_owned();
            let revision = text.split("REVISION: ").nth(1)?.split(',').next()?;
            Some(format!(", L4T {major}.{revision}"))
        });
        let memory = self.read("proc/meminfo").and_then(|text| {
            let line =
                text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.to_owned();
            line.trim().parse::<u64>().ok()
        });
        let memory =
            memory.map_or(String::new(), |kib| format!(", {:.1} GiB of memory", kib as f64 / f64::from(1 << 20)));
        let model = model.unwrap_or_else(|| "a computer without a name".to_owned());
        Finding::ok("computer", format!("{model}, Linux {release}{}{memory}", l4t.unwrap_or_default()))
    }

    fn clock(&self, now: SystemTime) -> Finding {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        if seconds < SET {
            return Finding::warning(
                "clock",
                "the clock was never set",
                "the loop does not need it; recordings and logs get wrong dates until it is set (timedatectl set-ntp true)",
            );
        }
        if self.path("run/systemd/timesync/synchronized").exists() {
            return Finding::ok("clock", "synchronised by systemd-timesyncd");
        }
        Finding::ok("clock", "set; whether it is synchronised is not known")
    }

    /// The frequency governors of the processor, where it has them.
    fn governors(&self) -> Option<Finding> {
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for entry in fs::read_dir(self.path("sys/devices/system/cpu")).ok()?.flatten() {
            let name = entry.file_name();
            let is_core =
                name.to_str().and_then(|name| name.strip_prefix("cpu")).is_some_and(|n| n.parse::<u32>().is_ok());
            let governor = fs::read_to_string(entry.path().join("cpufreq/scaling_governor")).ok();
            if let Some(governor) = governor.filter(|_| is_core) {
                *found.entry(governor.trim().to_owned()).or_default() += 1;
            }
        }
        let text: Vec<String> = found.iter().map(|(name, cores)| format!("{name} on {cores} cores")).collect();
        let text = format!("frequency governor {}", text.join(", "));
        match found.keys().all(|governor| governor == "performance") {
            _ if found.is_empty() => None,
            true => Some(Finding::ok("processor", text)),
            false => Some(Finding::warning(
                "processor",
                text,
                "clocks that rise only under load delay single inferences: set performance (Jetson: jetson_clocks; elsewhere: \
                 cpupower frequency-set -g performance)",
            )),
        }
    }

    /// A Jetson's power mode: its number in `/var/lib/nvpmodel/status`, its name in `/etc/nvpmodel.conf`.
    fn power_mode(&self) -> Option<Finding> {
        let status = self.read("var/lib/nvpmodel/status")?;
        let number: u32 = status.split(':').nth(1)?.trim().parse().ok()?;
        let conf = self.read("etc/nvpmodel.conf").unwrap_or_default();
        // "< POWER_MODEL ID=0 NAME=MAXN >"
        let modes: Vec<(u32, String)> = conf.lines().filter_map(power_model).collect();
        let name = |id: u32| modes.iter().find(|(n, _)| *n == id).map_or("?", |(_, name)| name.as_str());
        let text = format!("power mode {number} ({})", name(number));
        let best = modes.iter().find(|(_, name)| name.starts_with("MAXN"));
        Some(match best {
            Some((id, best)) if *id != number => Finding::warning(
                "power mode",
                text,
                format!("{best} is faster: nvpmodel -m {id} (see that supply and cooling bear it)"),
            ),
            _ => Finding::ok("power mode", text),
        })
    }

    /// Whether this process may ask for real-time priority and lock its memory.
    fn real_time(&self) -> Finding {
        let limit = |name: &str| {
            let text = self.read("proc/self/limits")?;
            let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
            line.get(name.len()..)?.split_whitespace().next().map(str::to_owned)
        };
        let priority = limit("Max realtime priority").unwrap_or_else(|| "0".to_owned());
        let locked = limit("Max locked memory").unwrap_or_else(|| "0".to_owned());
        let locked = locked.parse().map_or(locked, |bytes: u64| format!("{} MiB", bytes >> 20));
        Finding::ok("limits", format!("real-time priority up to {priority}, locked memory up to {locked}"))
    }

    /// Free space for `folder`, or for the nearest folder above it that exists. `wanted` bytes are expected.
    pub(super) fn space(part: &str, folder: &Path, wanted: u64) -> Finding {
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let shown = folder.display();
        match rustix::fs::statvfs(there) {
            Err(error) => Finding::failure(part, format!("{shown}: {error}"), None),
            Ok(found) => {
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                let text = format!("{shown}: {} MiB free", free >> 20);
                if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
                    let remedy = format!("let the service's user write to {}", there.display());
                    return Finding::failure(part, format!("{shown} is not writable"), Some(remedy));
                }
                if free < LITTLE {
                    return Finding::failure(part, text, Some("delete what is not needed".to_owned()));
                }
                if free < wanted {
                    let remedy =
                        format!("{} MiB are configured: the oldest files will be deleted earlier", wanted >> 20);
                    return Finding::warning(part, text, remedy);
                }
                Finding::ok(part, text)
            }
        }
    }
}

/// Number and name of a line `< POWER_MODEL ID=0 NAME=MAXN >`.
fn power_model(line: &str) -> Option<(u32, String)> {
    let inner = line.trim().strip_prefix('<')?.trim().strip_prefix("POWER_MODEL")?;
    let value = |key: &str| inner.split_whitespace().find_map(|word| word.strip_prefix(key));
    Some((value("ID=")?.parse().ok()?, value("NAME=")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Level;

    /// The findings of a computer with these files, at a time in 2026.
    fn findings(files: &[(&str, &str)], since_1970: u64) -> Vec<Finding> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        System::at(root.path()).findings(UNIX_EPOCH + Duration::from_secs(since_1970))
    }

    fn of<'a>(findings: &'a [Finding], part: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.part == part).unwrap_or_else(|| panic!("{part}: {findings:?}"))
    }

    #[test]
    fn a_jetson_is_described_and_its_brakes_are_named() {
        let found = findings(
            &[
                ("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0"),
                ("proc/sys/kernel/osrelease", "5.15.148-tegra\n"),
                ("proc/meminfo", "MemTotal:        7802860 kB\nMemFree: 1 kB\n"),
                ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n"),
                ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n"),
                ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil\n"),
                ("sys/devices/system/cpu/cpufreq/scaling_governor", "none of a core\n"),
                ("var/lib/nvpmodel/status", "pmode:0001\n"),
                (
                    "etc/nvpmodel.conf",
                    "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
                ),
                (
                    "proc/self/limits",
                    "Limit   Soft  Hard\nMax locked memory         8388608   8388608   bytes\nMax realtime priority     0   0\n",
                ),
            ],
            1_790_000_000,
        );
        let computer = &of(&found, "computer").found;
        assert_eq!(
            computer,
            "NVIDIA Jetson Orin Nano Developer Kit, Linux 5.15.148-tegra, L4T R36.4.3, 7.4 GiB of memory"
        );
        let processor = of(&found, "processor");
        assert_eq!(
            (processor.level, processor.found.as_str()),
            (Level::Warning, "frequency governor schedutil on 2 cores")
        );
        let mode = of(&found, "power mode");
        assert!(mode.remedy.as_ref().is_some_and(|remedy| remedy.contains("nvpmodel -m 2")), "{mode}");
        assert_eq!(of(&found, "limits").found, "real-time priority up to 0, locked memory up to 8 MiB");
        assert_eq!(of(&found, "clock").level, Level::Ok);
    }

    #[test]
    fn a_clock_that_was_never_set_is_a_warning() {
        assert_eq!(of(&findings(&[], 60), "clock").level, Level::Warning);
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_has_its_parents_space() {
        let root = tempfile::tempdir().expect("a folder");
        let found = System::space("recordings", &root.path().join("runs/of/today"), u64::MAX);
        assert!(found.level == Level::Warning && found.found.contains("MiB free"), "{found}");
    }
}
