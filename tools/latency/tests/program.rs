//! The tool as its user runs it: what is measured, compared and reported, and what bad input gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{fail, measured, row, run, succeed, write};

#[test]
fn the_whole_path_is_measured_and_its_stages_sum_up() {
    fathom_contention::timed!();
    let m = measured();
    let path = [
        "exposure to dequeue",
        "dequeue to request",
        "request to inference",
        "inputs",
        "upload",
        "encode and submit",
        "decode and resize",
        "vision tower",
        "depth encoder",
        "VLM prefix",
        "depth prefix",
        "flow step 1",
        "flow step 10",
        "readback",
        "un-normalise",
        "inference to control thread",
        "chunk merge and limits",
        "serial write",
        "line and controller",
        "acknowledgement returns",
        "= observation age at actuation",
    ];
    for name in path {
        assert!(row(&m.json, "control loop", name)["count"].as_u64().unwrap() > 0, "{name}");
        assert!(m.printed.contains(name), "{name} is printed");
    }
    for section in m.json["sections"].as_array().unwrap() {
        let b = &section["balance"];
        let [total, sum, rest] =
            [&b["total_mean_ns"], &b["sum_mean_ns"], &b["unexplained"]["mean_ns"]].map(|v| v.as_f64().unwrap());
        // Stages of one path hardly overlap: what they cover and what is left is all there is.
        assert!((sum + rest - total).abs() <= 0.02 * total, "{} {sum} + {rest} of {total}", section["name"]);
        assert!(rest < 0.3 * total, "{}: {rest} of {total} is explained by nothing", section["name"]);
        assert!(section["cold"].as_array().unwrap().iter().any(|s| s["name"] == "cold: first inference"));
    }
    let inference = row(&m.json, "inference", "= inference");
    assert_eq!(inference["rounds_p50_ns"].as_array().unwrap().len(), 3);
    assert_eq!(inference["count"], 9, "cold ones are not among the warm");
    assert_eq!(m.json["sections"][0]["deadlines"][0]["of"], "control tick: lateness");
    assert!(m.json["sections"][0]["starvation"]["samples"].as_u64().unwrap() > 0);
    assert!(
        m.printed.lines().last().unwrap().starts_with("observation age at actuation: p50 "),
        "the headline ends it"
    );
}

#[test]
fn every_output_labels_a_software_driver() {
    let m = measured();
    for (what, text) in [("text", m.printed.clone()), ("page", m.read("html")), ("Markdown", m.read("md"))] {
        assert!(text.contains("A SOFTWARE DRIVER ran this"), "{what}");
    }
    assert_eq!(m.json["header"]["adapter_type"], "software");
    assert!(m.printed.lines().last().unwrap().ends_with("(a software driver's, not a GPU's)"), "the headline itself");
}

#[test]
fn the_page_needs_nothing_else_and_comes_again_from_the_json() {
    let m = measured();
    let page = m.read("html");
    for outside in ["http://", "https://", "<script", "<link", "url(", "@import", " src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    let folder = tempfile::tempdir().unwrap();
    let [again, markdown] = ["again.html", "again.md"].map(|f| folder.path().join(f).to_str().unwrap().to_owned());
    let printed = succeed(&["report", &m.path("json"), "--html", &again, "--markdown", &markdown]);
    assert_eq!(printed, m.printed);
    assert!(
        std::fs::read_to_string(again).unwrap() == page && std::fs::read_to_string(markdown).unwrap() == m.read("md")
    );
}

/// `SCHEMA.md` has every key of a result in backticks.
#[test]
fn the_schema_documents_every_key() {
    fn keys(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                into.insert(key.clone());
                keys(value, into);
            }),
            Value::Array(list) => list.iter().for_each(|v| keys(v, into)),
            _ => {}
        }
    }
    let schema = include_str!("../SCHEMA.md");
    let mut found = BTreeSet::new();
    keys(&measured().json, &mut found);
    let missing: Vec<_> = found.iter().filter(|key| !schema.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty() && found.len() > 60, "not in SCHEMA.md: {missing:?}");
}

#[test]
fn kernels_are_held_against_measured_roofs() {
    let m = measured();
    let kernels = &m.json["kernels"];
    let table = kernels["table"].as_array().unwrap();
    let calls: u64 = table.iter().map(|r| r["calls"].as_u64().unwrap()).sum();
    assert_eq!(calls, m.json["header"]["dispatches"].as_u64().unwrap(), "every dispatch is in the table");
    for name in ["memory", "f32"] {
        let roof = kernels["roofs"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap();
        assert!(roof["per_second"].as_f64().unwrap() > 1e8, "{roof}");
    }
    let linear = table.iter().find(|r| r["kernel"].as_str().unwrap().starts_with("linear")).unwrap();
    assert!(linear["flops"].as_u64().unwrap() > 100_000_000, "{linear}");
    // The model's caches may serve bytes faster than memory does; arithmetic has no such way around.
    let share =
        |r: &Value| r["flops_per_second"].as_f64().unwrap() / kernels["roofs"][1]["per_second"].as_f64().unwrap();
    assert!(table.iter().all(|r| share(r) < 1.5), "faster than the fastest: the roof is none");
}

/// Stamps stay on in the product: at most 0.5 % of a control tick. A hundred times less is usual.
#[test]
fn what_measuring_costs_is_measured() {
    let cost = &measured().json["cost"];
    assert!(cost["percent_of_tick"].as_f64().unwrap() <= 0.5, "{cost}");
    assert!(cost["events_per_inference"].as_u64().unwrap() > 30, "{cost}");
    assert!(cost["inference_off_ns"].as_u64().unwrap() > 0 && cost["inference_on_ns"].as_u64().unwrap() > 0);
}

#[test]
fn a_comparison_judges_by_noise_and_ends_accordingly() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, json: &Value| write(&folder.path().join(format!("{name}.json")), json);
    // Rounds of a quiet machine, so that the verdict is the comparison's and not this machine's.
    let steady = |factor: f64| {
        let mut json = measured().json.clone();
        for section in json["sections"].as_array_mut().unwrap() {
            for row in section["stages"].as_array_mut().unwrap() {
                let p50 = (row["p50_ns"].as_f64().unwrap() * factor) as u64;
                row["p50_ns"] = json!(p50);
                row["rounds_p50_ns"] = json!([p50, p50 + p50 / 200, p50 - p50 / 200]);
            }
        }
        json["kernels"] = Value::Null;
        json
    };
    let (a, same, slow) = (file("a", &steady(1.0)), file("same", &steady(1.02)), file("slow", &steady(1.3)));
    assert!(succeed(&["compare", &a, &same]).contains("0 slower"));
    assert!(succeed(&["compare", &slow, &a]).contains(" faster"), "faster is no failure");
    let (code, printed, _) = run(&["compare", &a, &slow]);
    assert_eq!(code, 1, "something is slower");
    assert!(printed.contains("SLOWER") && printed.contains("SOFTWARE DRIVER"));
    assert!(succeed(&["compare", "--floor", "40", &a, &slow]).contains("0 slower"), "below the floor");
    let markdown = folder.path().join("c.md");
    let (code, printed, _) = run(&["compare", &a, &same, &slow, "--markdown", markdown.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(printed.contains("the last, slow, against the first"), "a trend");
    assert!(std::fs::read_to_string(markdown).unwrap().contains("| SLOWER |"));

    let mut other = steady(1.0);
    other["header"]["adapter"] = json!("another adapter");
    let other = file("other", &other);
    let said = fail(2, &["compare", &a, &other]);
    assert!(said.contains("not comparable") && said.contains("another adapter"), "{said}");
    assert!(succeed(&["compare", "--force", &a, &other]).contains("not the same: adapter"));
}

#[test]
fn results_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = measured().read("json");
    let other = file("other.json", &text.replacen("\"schema\": 2", "\"schema\": 3", 1));
    let said = fail(1, &["report", &other]);
    assert!(said.contains("other.json: expected schema version 2, found 3"), "{said}");
    let cut = file("cut.json", &text[..text.len() / 2]);
    assert!(fail(1, &["report", &cut]).contains("it is truncated"));
    assert!(fail(2, &["compare", &cut, &cut]).contains("it is truncated"));
    let none = file("none.json", "{\"stages\": []}");
    assert!(fail(1, &["report", &none]).contains("expected a number \"schema\", found none"));
    let form = file("form.json", "{\"schema\": 2, \"mode\": 7}");
    assert!(fail(1, &["report", &form]).contains("not a result: invalid type"));
    assert!(fail(1, &["report", "/nowhere/x.json"]).contains("/nowhere/x.json: No such file"));
}

#[test]
fn a_run_that_is_shorter_than_its_warm_up_is_refused() {
    for command in [
        &["bench", "--loop-seconds", "1", "--loop-warm-up", "2"][..],
        &["cycle", "--software", "--seconds", "1", "--warm-up", "2"],
    ] {
        let said = fail(1, command);
        assert!(said.contains("of 1 s is not longer than its warm-up of 2 s"), "{said}");
    }
}

/// The trace is lost, the measurement is not.
#[test]
fn a_trace_that_does_not_fit_ends_early_with_a_note() {
    let short =
        ["bench", "--software", "--warm-up", "0", "--rounds", "3", "--count", "1", "--loop-seconds", "0", "--no-cost"];
    let printed = succeed(&[&short[..], &["--trace", "/dev/full"]].concat());
    assert!(printed.contains("the trace /dev/full ends early, after 0 bytes: No space left on device"), "{printed}");
    assert!(printed.contains("= inference"), "the figures are there");
    let said = fail(1, &[&short[..], &["--trace", "/nowhere/x.pftrace"]].concat());
    assert!(said.contains("/nowhere/x.pftrace: No such file"), "{said}");
}

/// A run that is recorded, inferred again and timed: the robot's own images.
#[test]
fn a_recorded_run_is_timed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (model, record) = (folder.path().join("model"), folder.path().join("record"));
    let scene = fathom::scene::Scene::built_in(0).unwrap();
    fathom::untrained::write(&model, &fathom_models::nets::presets::small(), &scene, 0).unwrap();
    let scene_camera = r#"source = { kind = "scene", rate_hz = 10.0 }"#;
    let robot = folder.path().join("robot.toml");
    let text = format!(
        "[model]\npath = {model:?}\nprompt = \"reach\"\n[control]\naction_rate_hz = 1.0\nmax_image_age_ms = 60000\n\
         max_image_skew_ms = 60000\n[chunks]\nvalidity_ms = 60000\n[record]\nfolder = {record:?}\n[link]\n\
         device = \"simulated\"\n[[camera]]\nview = \"base\"\n{scene_camera}\n[[camera]]\nview = \"wrist\"\n{scene_camera}\n"
    );
    std::fs::write(&robot, text).unwrap();
    // Longer on a machine that does much else.
    let recorded = ["4", "16", "64"].iter().any(|seconds| {
        let robot = robot.to_str().unwrap();
        run(&["cycle", "--software", "--robot", robot, "--warm-up", "0.1", "--progress", "0", "--seconds", seconds]).0
            == 0
    });
    assert!(recorded, "a run of 64 s");
    let (file, record) = (folder.path().join("replay.json"), record.to_str().unwrap());
    let printed = succeed(&["replay", "--software", "--rounds", "3", record, "--json", file.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let inference = row(&json, "inference", "= inference");
    let count = inference["count"].as_u64().unwrap();
    assert!(count >= 3 && count.is_multiple_of(3), "each of three rounds has every observation: {count}");
    assert_eq!(inference["rounds_p50_ns"].as_array().unwrap().len(), 3);
    assert!(json["header"]["shapes"]["images"][0].as_str().unwrap().contains("base 224×224"), "the robot's own images");
    assert!(printed.contains("recorded on llvmpipe") && printed.contains("SOFTWARE DRIVER"), "{printed}");
    let said = fail(1, &["replay", "--software", "/nowhere"]);
    assert!(said.contains("/nowhere"), "{said}");
}
