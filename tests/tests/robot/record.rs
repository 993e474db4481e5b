//! Recordings, read by others' code: the crate `mcap` of Foxglove's makers, and protobuf by the descriptor in the file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fathom::config::{CameraSection, CameraSource, RecordSection, RobotConfig, SceneCameraConfig};
use fathom::control::{Robot, RunOptions};
use fathom::fault::Faults;
use fathom::gpu::GpuOptions;
use fathom::record::{Moment, Recording, Replay};
use fathom::scene::Scene;
use fathom::untrained;
use fathom_models::nets::config::{ModelConfig, PromptFormat};
use fathom_models::nets::presets;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tempfile::TempDir;

/// A recording of some seconds of the simulated scene with real-time chunking, made once.
fn recording() -> &'static (TempDir, PathBuf, PathBuf) {
    static MADE: OnceLock<(TempDir, PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (model, runs) = (folder.path().join("model"), folder.path().join("runs"));
        untrained::write(&model, &presets::small(), &Scene::built_in(0).unwrap(), 0).unwrap();
        record(&model, &runs, "", 128, &[], 4.0);
        (folder, model, runs)
    })
}

/// Runs the loop on the simulated scene for some seconds.
fn record(model: &Path, runs: &Path, more: &str, limit_mb: u64, faults: &[&str], seconds: f64) -> u64 {
    let path = runs.with_extension("toml");
    let scene = r#"{ kind = "scene", rate_hz = 10.0 }"#;
    let text = format!(
        "[model]\npath = {model:?}\ntokens = [2, 5, 9]\n[gpu]\nsoftware = true\n[control]\nmax_image_age_ms = 5000\n\
         max_image_skew_ms = 5000\naction_rate_hz = 4.0\n{more}\n[chunks]\nvalidity_ms = 20000\npolicy = {{ kind = \"rtc\" }}\n[link]\n\
         device = \"simulated\"\n[[camera]]\nview = \"base\"\nsource = {scene}\n[[camera]]\nview = \"wrist\"\nsource = {scene}\n"
    );
    std::fs::write(&path, text).unwrap();
    let mut config = RobotConfig::load(&path).unwrap();
    config.record = Some(RecordSection { folder: runs.to_owned(), limit_mb });
    let faults = Faults::new(faults.iter().map(|f| f.parse().unwrap()).collect());
    let robot = Robot::builder(config).faults(faults).open().unwrap();
    robot.run(&RunOptions { seconds: Some(seconds), ..RunOptions::default() }).unwrap().chunks
}

fn replay() -> Replay {
    Replay { gpu: GpuOptions { allow_software: true, ..GpuOptions::default() }, ..Replay::default() }
}

/// Reads a file as the format's library does with all checksums: of chunks, of the data and of the index.
fn checksums(bytes: &[u8]) -> mcap::McapResult<()> {
    use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
    let options = LinearReaderOptions::default()
        .with_prevalidate_chunk_crcs(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true);
    let (mut reader, mut rest) = (LinearReader::new_with_options(options), bytes);
    while let Some(event) = reader.next_event() {
        if let LinearReadEvent::ReadRequest(need) = event? {
            let (now, after) = rest.split_at(need.min(rest.len()));
            reader.insert(need)[..now.len()].copy_from_slice(now);
            reader.notify_read(now.len());
            rest = after;
        }
    }
    Ok(())
}

/// The index, checksums and schemas are what the format's own library expects, and images are what Foxglove's schema says.
#[test]
fn others_read_what_is_written() {
    fathom_contention::timed!();
    let (_, _, runs) = recording();
    let file = &Recording::open(runs).unwrap().files()[0].clone();
    let bytes = std::fs::read(file).unwrap();
    let summary = mcap::Summary::read(&bytes).unwrap().expect("an index at the end");
    checksums(&bytes).expect("every checksum is right");
    let counts = summary.stats.clone().expect("statistics").channel_message_counts;
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let (mut image, mut joint) = (None, None);
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        let schema = message.channel.schema.clone().expect("a schema");
        *found.entry(message.channel.topic.clone()).or_default() += 1;
        match schema.encoding.as_str() {
            "jsonschema" => {
                let schema: serde_json::Value = serde_json::from_slice(&schema.data).unwrap();
                let value: serde_json::Value = serde_json::from_slice(&message.data).unwrap();
                for key in value.as_object().unwrap().keys() {
                    assert!(schema["properties"][key].is_object(), "{}: {key} is documented", message.channel.topic);
                }
            }
            "protobuf" => {
                let pool = DescriptorPool::decode(schema.data.as_ref()).unwrap();
                let descriptor = pool.get_message_by_name(&schema.name).expect("the descriptor has the schema");
                let found = DynamicMessage::decode(descriptor, message.data.as_ref()).unwrap();
                if schema.name == "fathom.Joint" { joint = Some(found) } else { image = Some(found) }
            }
            other => panic!("{other}"),
        }
    }
    for topic in ["/camera/base", "/camera/wrist", "/fathom/observation", "/fathom/inference", "/fathom/chunk"] {
        assert!(found[topic] >= 2, "{topic}: {found:?}");
    }
    assert!(found["/fathom/state"] > 100 && found["/fathom/ack"] > 1 && found["/fathom/log"] > 2, "{found:?}");
    assert_eq!(counts.values().sum::<u64>(), found.values().sum::<u64>(), "the statistics count every message");
    assert_eq!(found["/joint/wrist_roll"], found["/fathom/state"], "a joint's part of each report");
    let joint = joint.expect("a joint");
    let (measured, commanded) = (joint.get_field_by_name("measured"), joint.get_field_by_name("commanded"));
    let apart = measured.unwrap().as_f32().unwrap() - commanded.unwrap().as_f32().unwrap();
    assert!(apart.abs() < 0.5, "the joint is near its command: {apart}");
    let image = image.expect("an image");
    let field = |name: &str| image.get_field_by_name(name).expect("a field").into_owned();
    assert_eq!(field("encoding").as_str(), Some("rgb8"));
    assert_eq!((field("width").as_u32(), field("step").as_u32()), (Some(224), Some(672)));
    assert_eq!(field("data").as_bytes().unwrap().len(), 224 * 672);
}

/// Guided inferences, too: what they were drawn towards is in the recording.
#[test]
fn a_replay_gives_the_same_bits() {
    fathom_contention::timed!();
    let (_, _, runs) = recording();
    let replayed = replay().run(runs).unwrap();
    assert!(replayed.differences.len() >= 2, "{:?}", replayed.differences);
    assert!(replayed.differences.iter().all(|d| d.identical), "{:?}", replayed.differences);
    let guided = Recording::open(runs).unwrap().moments().unwrap();
    let guided = guided.iter().filter(|m| matches!(m, Moment::Observation(o) if o.guide.is_some())).count();
    assert!(guided > 0, "some were guided");
    let number = replayed.differences[0].number;
    let staged = Replay { number: Some(number), stages: true, ..replay() }.run(runs).unwrap();
    let (twins, (_, stages)) = (staged.twins.expect("a small model"), staged.stages.expect("asked for"));
    let errors = fathom::record::stages_of(&twins, &stages);
    assert!(errors.len() > 20 && errors.iter().all(|(_, e)| *e < 1e-3), "{errors:?}");
}

/// Where the state is part of the prompt, each inference has tokens of its own.
#[test]
fn a_prompt_with_the_state_is_replayed_to_the_same_bits() {
    fathom_contention::timed!();
    let folder = tempfile::tempdir().unwrap();
    let (model, runs) = (folder.path().join("model"), folder.path().join("runs"));
    let small = ModelConfig { prompt: PromptFormat::TaskAndState, max_tokens: 128, ..presets::small() };
    untrained::write(&model, &small, &Scene::built_in(0).unwrap(), 0).unwrap();
    let mut config = RobotConfig::new(&model);
    config.model.prompt = Some("go".to_owned());
    config.gpu.software = true;
    (config.control.max_image_age_ms, config.control.max_image_skew_ms) = (5000, 5000);
    config.control.action_rate_hz = 4.0;
    config.chunks.validity_ms = 20_000;
    for view in ["base", "wrist"] {
        let source = CameraSource::Scene(SceneCameraConfig { camera: None, rate_hz: 10.0 });
        config.cameras.push(CameraSection { view: view.to_owned(), source });
    }
    config.record = Some(RecordSection { folder: runs.clone(), limit_mb: 128 });
    let robot = Robot::open(config).unwrap();
    robot.run(&RunOptions { seconds: Some(4.0), ..RunOptions::default() }).unwrap();
    let prompts: BTreeSet<Vec<i32>> = Recording::open(&runs)
        .unwrap()
        .moments()
        .unwrap()
        .into_iter()
        .filter_map(
            |moment| {
                if let Moment::Observation(observation) = moment { Some(observation.tokens) } else { None }
            },
        )
        .collect();
    assert!(prompts.len() >= 2, "the state changed, and the prompt with it: {prompts:?}");
    let replayed = replay().run(&runs).unwrap();
    assert!(replayed.differences.len() >= 2, "{:?}", replayed.differences);
    assert!(replayed.differences.iter().all(|d| d.identical), "{:?}", replayed.differences);
}

/// Another model, something that is no recording, and nothing at all.
#[test]
fn a_failure_to_replay_is_reported() {
    let (folder, _, runs) = recording();
    let other = folder.path().join("other");
    untrained::write(&other, &presets::small(), &Scene::built_in(0).unwrap(), 1).unwrap();
    let said = Replay { model: Some(other), ..replay() }.run(runs).unwrap_err().to_string();
    assert!(said.contains("fingerprint"), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let said = replay().run(empty.path()).unwrap_err().to_string();
    assert!(said.contains("*.mcap"), "{said}");
    let text = empty.path().join("notes.mcap");
    std::fs::write(&text, "not MCAP").unwrap();
    let said = replay().run(&text).unwrap_err().to_string();
    assert!(said.contains("not an MCAP file"), "{said}");
    let said = replay().run(&empty.path().join("none.mcap")).unwrap_err().to_string();
    assert!(said.contains("none.mcap"), "{said}");
}

/// Whatever lies in the folder besides, and whatever became of the newest file, the rest is replayed, and each file is named.
#[test]
fn what_is_whole_is_replayed_and_the_rest_is_named() {
    let (folder, model, runs) = recording();
    let damaged = folder.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    let good = Recording::open(runs).unwrap().files()[0].clone();
    let all = replay().run(runs).unwrap().differences.len();
    let at = |name: &str| damaged.join(name);
    std::fs::write(at("fathom-0000000001-00000.mcap"), "").unwrap();
    std::fs::create_dir(at("fathom-0000000002-00000.mcap")).unwrap();
    std::fs::copy(&good, at("fathom-run000001-000000.mcap")).unwrap();
    let mut bytes = std::fs::read(&good).unwrap();
    bytes.truncate(bytes.len() * 2 / 3);
    std::fs::write(at("fathom-run000002-000000.mcap"), &bytes).unwrap();
    std::fs::write(at("pointer.mcap"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let replayed = replay().run(&damaged).unwrap();
    let count = replayed.differences.len();
    assert!(count > all && count < 2 * all, "{count} of {all} and the two thirds of {all}");
    assert!(replayed.differences.iter().all(|d| d.identical), "{:?}", replayed.differences);
    let named: Vec<String> = replayed.incomplete.iter().map(ToString::to_string).collect();
    for (name, cause) in [
        ("fathom-0000000001-00000.mcap", "an empty file"),
        ("fathom-0000000002-00000.mcap", "a folder"),
        ("fathom-run000002-000000.mcap", "truncated"),
        ("pointer.mcap", "Git LFS"),
    ] {
        assert!(named.iter().any(|n| n.contains(name) && n.contains(cause)), "{name}: {named:#?}");
    }
    assert_eq!(named.len(), 4, "{named:#?}");
    // A run of a model that is not at hand is left out, in whichever order.
    let (other, elsewhere) = (folder.path().join("moved"), folder.path().join("gone"));
    untrained::write(&other, &presets::small(), &Scene::built_in(0).unwrap(), 2).unwrap();
    let both = folder.path().join("both");
    record(&other, &both, "", 128, &[], 3.0);
    std::fs::rename(&other, elsewhere).unwrap();
    std::fs::copy(&good, both.join("fathom-run000002-000000.mcap")).unwrap();
    let replayed = replay().run(&both).unwrap();
    assert_eq!((replayed.differences.len(), &replayed.note.model), (all, &model.display().to_string()));
    let said = replayed.incomplete[0].to_string();
    assert!(said.contains("fathom-run000001-000000.mcap") && said.contains("moved"), "{said}");
}

/// The ring keeps to its size, the oldest files go, and what is left can still be replayed.
#[test]
fn the_ring_keeps_to_its_size() {
    fathom_contention::timed!();
    let (folder, model, _) = recording();
    let runs = folder.path().join("ring");
    record(model, &runs, "", 8, &[], 8.0);
    let files = Recording::open(&runs).unwrap().files().to_vec();
    let total: u64 = files.iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(files.len() > 1 && total <= 9 << 20, "{total} bytes in {files:?}");
    let replayed = replay().run(&runs).unwrap();
    assert!(replayed.differences.iter().all(|d| d.identical) && !replayed.differences.is_empty());
}

/// The recording ends, the robot goes on.
#[test]
fn a_full_disk_stops_the_recording_only() {
    fathom_contention::timed!();
    let (folder, model, _) = recording();
    let runs = folder.path().join("full");
    let chunks = record(model, &runs, "", 8, &["disk-full@0.5"], 4.0);
    assert!(chunks >= 2, "{chunks} chunks were accepted");
    let moments = Recording::open(&runs).unwrap().moments().unwrap();
    let states = moments.iter().filter(|m| matches!(m, Moment::State(_))).count();
    assert!((1..300).contains(&states), "{states} reports: it ended early, and what was written can be read");
}
