//! The parts of a `robot.toml`, opened one after the other; the computer needs none.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fathom_models::checkpoint::WeightFormat;
use fathom_models::checkpoint::manifest;
use fathom_models::families::Loaded;
use fathom_models::messages;
use fathom_models::nets::image::ImageSpec;
use firmware_bridge::sim::Sim;

use super::{Finding, Level, System};
use crate::camera::{Camera, Image};
use crate::clock::monotonic_ns;
use crate::config::{CameraSource, RobotConfig};
use crate::control::{check_fit, connector, gpu_options, open_camera, open_policy, read_policy, sim_config};
use crate::engine::{Choice, Wanted};
use crate::events::Events;
use crate::fault::Faults;
use crate::gpu::{AdapterInfo, AdapterKind, Gpu, GpuError, GpuOptions, cache_folder};
use crate::policy::{Policy, PolicyFiles};
use crate::scene::Scene;

/// Time limit of a camera's image.
const IMAGE: Duration = Duration::from_secs(5);
/// Time for which a camera is watched after its first image.
const WATCH: Duration = Duration::from_secs(3);
/// Images of each camera, from which its rate is measured.
const IMAGES: u32 = 10;
/// A camera this much slower than configured is a warning.
const SLOW: f64 = 0.8;
/// Time limit of a controller's report.
const REPORT: Duration = Duration::from_secs(5);
/// Form of the images that a model is prepared for whose cameras do not open.
const PLANNED: (usize, usize) = (640, 480);

/// What to examine.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The robot's configuration (`robot.toml`); without one only the computer and its GPU are examined.
    pub config: Option<PathBuf>,
    /// Checkpoint directory, in place of the configuration's.
    pub model: Option<PathBuf>,
    /// Allows a software driver.
    pub software: bool,
}

/// Examines the computer, and the robot if there is a configuration. Opens GPU, cameras and line, so nothing else may use them.
pub fn examine(options: &Options) -> Vec<Finding> {
    let system = System::default();
    let mut findings = system.findings(SystemTime::now());
    let Some(file) = &options.config else {
        findings.extend(adapter(&system, &GpuOptions::default(), options.software));
        return findings;
    };
    let config = match RobotConfig::load(file) {
        Ok(config) => config,
        Err(error) => {
            findings.push(Finding::failure("configuration", text(&error), None));
            findings.extend(adapter(&system, &GpuOptions::default(), options.software));
            return findings;
        }
    };
    findings.push(Finding::ok("configuration", file.display().to_string()));
    Examination { system, config: changed(config, options), findings }.run()
}

fn changed(mut config: RobotConfig, options: &Options) -> RobotConfig {
    if let Some(model) = &options.model {
        config.model.path.clone_from(model);
    }
    config.gpu.software |= options.software;
    config
}

struct Examination {
    system: System,
    config: RobotConfig,
    findings: Vec<Finding>,
}

impl Examination {
    fn run(mut self) -> Vec<Finding> {
        self.disks();
        let files = self.model();
        let gpu = gpu_options(&self.config);
        let found = adapter(&self.system, &gpu, self.config.gpu.software);
        let serves = found.iter().all(|finding| finding.level < Level::Failure);
        self.findings.extend(found);
        let scene = self.scene();
        let images = self.cameras(scene.as_ref());
        self.controller(scene.as_ref(), files.as_ref().map(|files| &files.loaded));
        if let Some(files) = files.filter(|_| serves) {
            self.inference(files, images);
        }
        self.findings
    }

    fn disks(&mut self) {
        if let Some(record) = &self.config.record {
            self.findings.push(System::space("recordings", &record.folder, record.limit_mb << 20));
        }
        if let Some(folder) = self.config.gpu.cache.clone().or_else(cache_folder) {
            self.findings.push(System::space("cache", &folder, 0));
        }
    }

    /// The checkpoint's files, if they are what the robot needs.
    fn model(&mut self) -> Option<PolicyFiles> {
        let path = self.config.model.path.clone();
        let files = match read_policy(&self.config, std::iter::empty()) {
            Ok(files) => files,
            Err(error) => {
                self.findings.push(Finding::failure("model", text(&error), None));
                return None;
            }
        };
        let loaded = &files.loaded;
        let views = loaded.model.config.views.join(", ");
        let line = format!(
            "{}: {}, views {views}, {} joints, chunks of {}{}",
            path.display(),
            loaded.family,
            loaded.action_dim,
            loaded.model.config.horizon,
            hashes(&path)
        );
        self.findings.push(Finding::ok("model", line));
        Some(files)
    }

    fn scene(&mut self) -> Option<Arc<Scene>> {
        match self.config.scene.load(self.config.scene.seed) {
            Ok(scene) => Some(Arc::new(scene)),
            Err(error) => {
                self.findings.push(Finding::failure("scene", text(&error), None));
                None
            }
        }
    }

    /// Takes images of each camera. The form of each, in the configuration's order, or `None`.
    fn cameras(&mut self, scene: Option<&Arc<Scene>>) -> Vec<(String, Option<ImageSpec>)> {
        let sections = self.config.cameras.clone();
        let mut forms = Vec::new();
        for section in &sections {
            let part = format!("camera {}", section.view);
            let Some(scene) = scene else { continue };
            let opened = open_camera(section, scene, None).map_err(|error| text(&error));
            let (finding, form) = match opened.and_then(watch) {
                Err(found) => (Finding::failure(part, found, None), None),
                Ok(Watched { description, form, rate_hz }) => {
                    let line = format!("{description}; {rate_hz:.1} images a second were seen");
                    let wanted = match &section.source {
                        #[cfg(feature = "v4l")]
                        CameraSource::V4l(config) => config.rate_hz.map(f64::from),
                        CameraSource::Folder(_) | CameraSource::Scene(_) => None,
                    };
                    let finding = match wanted.filter(|wanted| rate_hz < wanted * SLOW) {
                        Some(wanted) => Finding::warning(
                            part,
                            line,
                            format!(
                                "{wanted:.0} a second are configured: more light or a fixed exposure time, a port of its own on \
                                 USB 3, or Motion-JPEG"
                            ),
                        ),
                        None => Finding::ok(part, line),
                    };
                    (finding, Some(form))
                }
            };
            self.findings.push(finding);
            forms.push((section.view.clone(), form));
        }
        forms
    }

    /// Greets the controller. It is not armed; an armed one stops.
    fn controller<W>(&mut self, scene: Option<&Arc<Scene>>, loaded: Option<&Loaded<W>>) {
        let part = "controller";
        let Some(scene) = scene else { return };
        let sim = match self.config.link.is_simulated().then(|| Sim::start(sim_config(scene))).transpose() {
            Ok(sim) => sim,
            Err(error) => return self.findings.push(Finding::failure(part, text(&error), None)),
        };
        let connector = connector(&self.config, sim.as_ref(), None, scene, Faults::default(), Events::default());
        let mut link = match connector.open() {
            Ok(link) => link,
            Err(error) => return self.findings.push(Finding::failure(part, text(&error), None)),
        };
        let Some(hello) = link.controller().cloned() else { return };
        let round_us = link.clock().map_or(0, |clock| 2 * clock.error_us(monotonic_ns() / 1000));
        let names: Vec<String> = hello.joints.as_slice().iter().map(|joint| joint.name.as_str().to_owned()).collect();
        let line = format!(
            "{}{} on {}: {}, reports every {} ms, at rest {} ms after the host's last frame, round trip {:.1} ms",
            if sim.is_some() { "simulated, " } else { "" },
            hello.identity.as_str(),
            link.device(),
            names.join(", "),
            hello.telemetry_us / 1000,
            hello.deadman_us / 1000,
            round_us as f64 / 1e3,
        );
        let finding = match link.latched(REPORT) {
            Err(error) => Finding::failure(part, text(&error), None),
            Ok(Some(report)) => Finding::failure(
                part,
                format!("{line}\na fault is latched: {}", report.describe(&hello.joints)),
                Some("remove its cause, then run fathom clear-fault".to_owned()),
            ),
            Ok(None) => match loaded.map(|loaded| check_fit(&self.config, &link, loaded)) {
                Some(Err(error)) => Finding::failure(part, format!("{line}\n{}", text(&error)), None),
                Some(Ok(())) | None => Finding::ok(part, line),
            },
        };
        self.findings.push(finding);
    }

    /// Puts the model on the GPU and prepares it for the cameras' images.
    fn inference(&mut self, files: PolicyFiles, forms: Vec<(String, Option<ImageSpec>)>) {
        let views = files.loaded.model.config.views.clone();
        let form = |view: &String| forms.iter().find(|(name, _)| name == view).and_then(|(_, form)| *form);
        let images: Vec<ImageSpec> =
            views.iter().map(|view| form(view).unwrap_or(ImageSpec::rgb(PLANNED.0, PLANNED.1))).collect();
        let began = Instant::now();
        let prepared = open_policy(&self.config, files).map_err(|error| text(&error)).and_then(|mut policy| {
            policy.prepare(images).map_err(|error| text(&error))?;
            Ok(policy)
        });
        match prepared {
            Ok(policy) => self.prepared(&policy, began.elapsed()),
            Err(error) => self.findings.push(Finding::failure("inference", error, None)),
        }
    }

    fn prepared(&mut self, policy: &Policy, took: Duration) {
        let (weights, arena) = policy.session.gpu_bytes();
        let info = policy.adapter();
        let line = format!(
            "{} for weights and {} besides, of {}{}",
            size(weights),
            size(arena),
            size(info.memory_bytes),
            if info.unified { " that GPU and processor share" } else { "" }
        );
        self.findings.push(Finding::ok("memory", line));
        let line = format!(
            "{}, self-test passed; {} dispatches, ready after {:.1} s",
            policy.choice(),
            policy.session.dispatches(),
            took.as_secs_f64()
        );
        self.findings.push(Finding::ok("inference", line));
    }
}

/// Sizes and hashes of the weights' files.
fn hashes(path: &Path) -> String {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|file| file.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    let mut text = String::new();
    for (file, hashed) in files.iter().zip(manifest::hash(&files)) {
        let name = file.file_name().unwrap_or_default().display();
        text += &match hashed {
            Ok(hashed) => format!("\n{name}: {}, SHA-256 {}", size(hashed.bytes), hashed.sha256),
            Err(error) => format!("\n{name}: {error}"),
        };
    }
    text
}

/// The error with its causes.
fn text(error: &dyn Error) -> String {
    messages(error).join(": ")
}

fn size(bytes: u64) -> String {
    match bytes {
        u64::MAX => "an unknown amount".to_owned(),
        _ if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// The adapter that would be opened, and whether its kernels agree with the processor. `software` allows a software driver.
fn adapter(system: &System, options: &GpuOptions, software: bool) -> Vec<Finding> {
    let part = "GPU";
    let named = std::env::var("VK_DRIVER_FILES").or_else(|_| std::env::var("VK_ICD_FILENAMES")).ok();
    let mut gpu = match Gpu::open(&GpuOptions { allow_software: true, ..options.clone() }) {
        Ok(gpu) => gpu,
        Err(error) => {
            let mut findings = vec![Finding::failure(part, text(&error), None)];
            if matches!(error, GpuError::NoAdapter { .. }) {
                findings.extend(system.drivers(named.as_deref()));
            }
            return findings;
        }
    };
    let info = gpu.info().clone();
    let line = format!("{info}\n{}", features(&info));
    if info.kind == AdapterKind::Software {
        let found = format!("{line}\nthis driver computes on the processor");
        let mut findings = match software {
            true => vec![Finding::warning(part, found, "for tests only: expect a small part of a GPU's speed")],
            false => {
                let remedy = "install the GPU's Vulkan driver; --software or gpu.software = true allow this one";
                vec![Finding::failure(part, found, Some(remedy.to_owned()))]
            }
        };
        // Drivers of hardware whose library is missing. Whoever names the drivers knows which these are.
        if named.is_none() {
            let level = if software { Level::Warning } else { Level::Failure };
            findings.extend(system.drivers(None).into_iter().map(|finding| Finding { level, ..finding }));
        }
        return findings;
    }
    match Choice::make(&mut gpu, &BTreeSet::from([WeightFormat::Bf16]), Wanted::default()) {
        Ok(choice) => vec![Finding::ok(part, format!("{line}\nkernels {choice}: self-test passed"))],
        Err(error) => vec![Finding::failure(part, format!("{line}\n{}", text(&error)), None)],
    }
}

fn features(info: &AdapterInfo) -> String {
    let has = |name: &str, has: bool| if has { name.to_owned() } else { format!("no {name}") };
    let matrices = match info.matrices.as_slice() {
        [] => "no matrix units".to_owned(),
        sides => {
            let sides: Vec<String> = sides.iter().map(|side| format!("{side}×{side}")).collect();
            format!("matrix units {}", sides.join(", "))
        }
    };
    let [smallest, largest] = info.subgroup_size;
    format!(
        "{}, {matrices}, {} of {smallest} to {largest}, {}, {} of memory",
        has("f16", info.f16),
        has("subgroups", info.subgroups),
        has("time stamps", info.timestamps),
        size(info.memory_bytes)
    )
}

/// A camera that gave images.
struct Watched {
    description: String,
    form: ImageSpec,
    rate_hz: f64,
}

fn watch(mut camera: Box<dyn Camera>) -> Result<Watched, String> {
    let mut image = Image::default();
    let take =
        |camera: &mut Box<dyn Camera>, image: &mut Image| camera.capture(image, IMAGE).map_err(|error| text(&error));
    take(&mut camera, &mut image)?;
    let (first, mut count) = (Instant::now(), 0);
    // A folder may hold fewer pictures, and a slow source takes too long.
    while count + 1 < IMAGES && first.elapsed() < WATCH && take(&mut camera, &mut image).is_ok() {
        count += 1;
    }
    let rate_hz = f64::from(count) / first.elapsed().as_secs_f64().max(1e-6);
    Ok(Watched { description: camera.describe(), form: image.spec(), rate_hz })
}
