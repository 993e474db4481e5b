//! The machine of a measurement: its parts, clocks and temperatures.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine. Unknown values are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) board: String,
    pub(crate) cpu: String,
    pub(crate) os: String,
    pub(crate) kernel: String,
    /// NVIDIA's power mode on a Jetson; the platform's profile elsewhere.
    pub(crate) power_mode: String,
    /// Governors of the processors and of the GPU.
    pub(crate) governors: Vec<String>,
    pub(crate) clocks: Vec<Clock>,
    pub(crate) temperatures: Vec<Temperature>,
    /// Causes of throttling between start and end.
    pub(crate) throttling: Vec<String>,
    /// Whether the machine reports throttling.
    pub(crate) throttling_known: bool,
}

/// A clock at start and end, in MHz.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clock {
    pub(crate) name: String,
    pub(crate) start_mhz: f64,
    pub(crate) end_mhz: f64,
    pub(crate) max_mhz: f64,
}

/// A temperature at start and end, in degrees Celsius.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Temperature {
    pub(crate) zone: String,
    pub(crate) start_c: f64,
    pub(crate) end_c: f64,
}

/// A reading of the machine before a measurement, to be completed after it.
pub(crate) struct Watched {
    root: PathBuf,
    machine: Machine,
    throttles: BTreeMap<String, u64>,
}

impl Watched {
    /// Reads this machine.
    pub(crate) fn begin() -> Watched {
        Watched::begin_at(Path::new("/"))
    }

    /// Reads the files below `root`.
    pub(crate) fn begin_at(root: &Path) -> Watched {
        let read = |path: &str| text(&root.join(path));
        let line = |file: String, key: &str| {
            let found = file.lines().find_map(|l| l.strip_prefix(key).map(str::to_owned));
            found.unwrap_or_default().trim_matches(['"', ' ', '\t', ':', '=']).to_owned()
        };
        let board = [read("proc/device-tree/model"), dmi(root)].into_iter().find(|b| !b.is_empty());
        let os = line(read("etc/os-release"), "PRETTY_NAME");
        // L4T's release: `# R36 (release), REVISION: 4.3, …`.
        let l4t = read("etc/nv_tegra_release");
        let l4t = l4t.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        let l4t: Vec<&str> = l4t.split(',').take(2).map(str::trim).filter(|part| !part.is_empty()).collect();
        let os = if l4t.is_empty() { os } else { format!("{os}; L4T {}", l4t.join(", ")) };
        let machine = Machine {
            board: board.unwrap_or_default(),
            cpu: line(read("proc/cpuinfo"), "model name"),
            os,
            kernel: read("proc/sys/kernel/osrelease"),
            power_mode: power_mode(root),
            governors: governors(root),
            clocks: clocks(root)
                .into_iter()
                .map(|(name, [now, max])| Clock { name, start_mhz: now, end_mhz: now, max_mhz: max })
                .collect(),
            temperatures: temperatures(root)
                .into_iter()
                .map(|(zone, c)| Temperature { zone, start_c: c, end_c: c })
                .collect(),
            throttling: Vec::new(),
            throttling_known: false,
        };
        Watched { root: root.to_owned(), machine, throttles: throttles(root) }
    }

    /// Reads again.
    pub(crate) fn end(self) -> Machine {
        let Watched { root, mut machine, throttles: before } = self;
        let (now, hot) = (clocks(&root), temperatures(&root));
        for clock in &mut machine.clocks {
            clock.end_mhz = now.get(&clock.name).map_or(clock.end_mhz, |c| c[0]);
        }
        for zone in &mut machine.temperatures {
            zone.end_c = hot.iter().find(|(name, _)| *name == zone.zone).map_or(zone.end_c, |(_, c)| *c);
        }
        let after = throttles(&root);
        machine.throttling_known = !after.is_empty();
        let more = |(name, count): (&String, &u64)| {
            let events = count.saturating_sub(before.get(name).copied().unwrap_or(0));
            (events > 0).then(|| format!("{name}: {events}"))
        };
        machine.throttling = after.iter().filter_map(more).collect();
        machine
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        writeln!(f, "machine: {} ({}); {}, Linux {}", or(&self.board), or(&self.cpu), or(&self.os), or(&self.kernel))?;
        let clocks: Vec<String> = self
            .clocks
            .iter()
            .map(|c| format!("{} {:.0} → {:.0} of {:.0} MHz", c.name, c.start_mhz, c.end_mhz, c.max_mhz))
            .collect();
        let hot: Vec<String> =
            self.temperatures.iter().map(|t| format!("{} {:.1} → {:.1} °C", t.zone, t.start_c, t.end_c)).collect();
        let throttled = match (self.throttling_known, self.throttling.is_empty()) {
            (false, _) => "unknown".to_owned(),
            (true, true) => "none".to_owned(),
            (true, false) => self.throttling.join(", "),
        };
        write!(f, "power mode: {}; governor: {}; ", or(&self.power_mode), or(&self.governors.join(", ")))?;
        write!(f, "clocks: {}; temperatures: {}; ", or(&clocks.join(", ")), or(&hot.join(", ")))?;
        write!(f, "throttling: {throttled}")
    }
}

/// A file's trimmed text; empty if it cannot be read.
fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned()
}

fn number(path: &Path) -> Option<f64> {
    text(path).parse().ok()
}

/// The entries of `folder`, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn dmi(root: &Path) -> String {
    let id = root.join("sys/class/dmi/id");
    let parts = ["sys_vendor", "product_name"].map(|part| text(&id.join(part)));
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

fn power_mode(root: &Path) -> String {
    // `nvpmodel -q` needs no root; without it, its state file has the number.
    if root == Path::new("/")
        && let Ok(output) = Command::new("nvpmodel").arg("-q").output()
        && output.status.success()
    {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(mode) = said.lines().find_map(|l| l.strip_prefix("NV Power Mode:")) {
            return mode.trim().to_owned();
        }
    }
    let status = text(&root.join("var/lib/nvpmodel/status"));
    if !status.is_empty() {
        return format!("nvpmodel {}", status.trim_start_matches("pmode:"));
    }
    text(&root.join("sys/firmware/acpi/platform_profile"))
}

fn cpus(root: &Path) -> Vec<PathBuf> {
    entries(&root.join("sys/devices/system/cpu/cpufreq"))
}

fn gpus(root: &Path) -> Vec<PathBuf> {
    let found = entries(&root.join("sys/class/devfreq"));
    found.into_iter().filter(|p| ["gpu", "gv11b", "ga10b", "gb10b"].iter().any(|g| name(p).contains(g))).collect()
}

fn governors(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (what, path) in cpus(root)
        .iter()
        .map(|p| ("CPU", p.join("scaling_governor")))
        .chain(gpus(root).iter().map(|p| ("GPU", p.join("governor"))))
    {
        let governor = text(&path);
        let entry = format!("{what} {governor}");
        if !governor.is_empty() && !found.contains(&entry) {
            found.push(entry);
        }
    }
    found
}

/// Current and highest clock of each, in MHz.
fn clocks(root: &Path) -> BTreeMap<String, [f64; 2]> {
    let cpus = cpus(root)
        .into_iter()
        .map(|p| (name(&p).replace("policy", "CPU "), p.join("scaling_cur_freq"), p.join("cpuinfo_max_freq"), 1e3));
    let gpus =
        gpus(root).into_iter().map(|p| (format!("GPU {}", name(&p)), p.join("cur_freq"), p.join("max_freq"), 1e6));
    let amd = entries(&root.join("sys/class/hwmon")).into_iter().filter(|p| text(&p.join("name")) == "amdgpu");
    let amd = amd.map(|p| ("GPU amdgpu".to_owned(), p.join("freq1_input"), p.join("freq1_max"), 1e6));
    let found = cpus.chain(gpus).chain(amd).filter_map(|(name, now, max, unit)| {
        let now = number(&now)? / unit;
        Some((name, [now, number(&max).map_or(0.0, |m| m / unit)]))
    });
    found.collect()
}

fn temperatures(root: &Path) -> Vec<(String, f64)> {
    let zones = entries(&root.join("sys/class/thermal")).into_iter().filter(|p| name(p).starts_with("thermal_zone"));
    let mut found: Vec<(String, f64)> =
        zones.filter_map(|p| Some((text(&p.join("type")), number(&p.join("temp"))? / 1e3))).collect();
    if found.is_empty() {
        let sensors = entries(&root.join("sys/class/hwmon")).into_iter();
        found = sensors.filter_map(|p| Some((text(&p.join("name")), number(&p.join("temp1_input"))? / 1e3))).collect();
    }
    found
}

/// Counts of throttling since the machine started.
fn throttles(root: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for cpu in entries(&root.join("sys/devices/system/cpu")) {
        for kind in ["core_throttle_count", "package_throttle_count"] {
            if let Some(count) = number(&cpu.join("thermal_throttle").join(kind)) {
                *found.entry(format!("CPU {}", kind.trim_end_matches("_count").replace('_', " "))).or_insert(0) +=
                    count as u64;
            }
        }
    }
    // A Jetson's over-current events.
    for sensor in entries(&root.join("sys/class/hwmon")) {
        for file in entries(&sensor).iter().filter(|f| name(f).starts_with("oc") && name(f).ends_with("_event_cnt")) {
            if let Some(count) = number(file) {
                found.insert(format!("over-current {}", name(file).trim_end_matches("_event_cnt")), count as u64);
            }
        }
    }
    // Cooling that limits a clock counts as one event.
    for device in entries(&root.join("sys/class/thermal")).iter().filter(|p| name(p).starts_with("cooling_device")) {
        let kind = text(&device.join("type"));
        if let Some(state) =
            number(&device.join("cur_state")).filter(|_| kind.contains("cpufreq") || kind.contains("devfreq"))
        {
            found.insert(format!("cooling by {kind}"), state as u64);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as an Orin with JetPack 6 has them.
    #[test]
    fn a_jetson_is_described_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0");
        write("etc/os-release", "NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\n");
        write("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n");
        write("var/lib/nvpmodel/status", "pmode:0002");
        write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "schedutil\n");
        write("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "729600\n");
        write("sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "2201600\n");
        write("sys/class/devfreq/17000000.gpu/governor", "nvhost_podgov\n");
        write("sys/class/devfreq/17000000.gpu/cur_freq", "306000000\n");
        write("sys/class/devfreq/17000000.gpu/max_freq", "1300500000\n");
        write("sys/class/thermal/thermal_zone0/type", "gpu-thermal\n");
        write("sys/class/thermal/thermal_zone0/temp", "47250\n");
        write("sys/class/hwmon/hwmon3/oc3_event_cnt", "4\n");
        let watched = Watched::begin_at(folder.path());
        write("sys/class/devfreq/17000000.gpu/cur_freq", "1300500000\n");
        write("sys/class/thermal/thermal_zone0/temp", "61500\n");
        write("sys/class/hwmon/hwmon3/oc3_event_cnt", "7\n");
        let said = watched.end().to_string();
        for part in [
            "NVIDIA Jetson AGX Orin Developer Kit",
            "Ubuntu 22.04.5 LTS; L4T R36 (release), REVISION: 4.3",
            "nvpmodel 0002",
            "CPU schedutil, GPU nvhost_podgov",
            "CPU 0 730 → 730 of 2202 MHz, GPU 17000000.gpu 306 → 1300 of 1300 MHz",
            "gpu-thermal 47.2 → 61.5 °C",
            "throttling: over-current oc3: 3",
        ] {
            assert!(said.contains(part), "{part:?} is not in\n{said}");
        }
    }

    #[test]
    fn an_unknown_machine_is_described_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let said = Watched::begin_at(folder.path()).end().to_string();
        assert!(said.contains("machine: unknown") && said.contains("throttling: unknown"), "{said}");
    }
}
