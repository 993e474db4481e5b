//! `NaN`, `Infinity`, a byte-order mark, null, texts and decimals for integers: an error that names the key where the value
//! is read, and nothing where it is not.

use std::path::Path;

use fathom_models::families::depth_anything;
use fathom_models::families::{self, galaxea};
use fathom_models::nets::config::ModelConfig;
use fathom_models::nets::presets;
use fathom_models::processing::tokenizer::Tokenizer;
use fathom_models::{FileError, JsonError, ModelError};
use fathom_tests::path;
use fathom_tests::tensors::{Tensors, copy_golden};
use serde_json::{Value, json};

use super::{
    DEPTHVLA, INDEX, LEROBOT, POSTPROCESSOR, PREPROCESSOR, WEIGHTS, actions, edit, expected, load, names_all, read,
    refused, replace, write,
};

/// Puts keys with values that nobody can read at the beginning of a JSON object, and a byte-order mark before it.
fn with_unread_keys(file: &Path) {
    let text = read(file);
    let (_, rest) = text.split_once('{').expect("an object");
    let keys = r#""x_nan": NaN, "x_inf": [Infinity, -Infinity, 1e999], "x_null": null, "x_48": "48", "x_8": 8.0,
        "x_nested": {"a": {"b": NaN}, "c": [[], {}, "\ud800"]}, "x_twice": 1, "x_twice": "two", "#;
    write(file, format!("\u{feff}{{{keys}{rest}"));
}

#[test]
fn what_is_not_read_may_be_anything() {
    let dir = copy_golden(LEROBOT);
    let at = |name: &str| dir.path().join(name);
    let unread = [
        ("optimizer_lr", "NaN"),
        ("optimizer_eps", "Infinity"),
        ("scheduler_warmup_steps", "\"48\""),
        ("n_obs_steps", "8.0"),
        ("optimizer_betas", "null"),
        ("relative_exclude_joints", "{}"),
        ("tags", "-Infinity"),
    ];
    edit(&at("config.json"), |c| unread.iter().for_each(|(key, _)| c[*key] = "here".into()));
    for (key, value) in unread {
        replace(&at("config.json"), &format!("\"{key}\":\"here\""), &format!("\"{key}\":{value}"));
    }
    replace(&at(PREPROCESSOR), "\"max_length\": 12", "\"max_length\": NaN");
    replace(&at(PREPROCESSOR), "\"float_dtype\": null", "\"float_dtype\": Infinity");
    replace(&at(POSTPROCESSOR), "\"VISUAL\": \"IDENTITY\"", "\"VISUAL\": null");
    for file in ["config.json", PREPROCESSOR, POSTPROCESSOR] {
        with_unread_keys(&at(file));
    }
    write(&at("fathom.json"), format!("\u{feff}{}", read(&at("fathom.json"))));
    assert!(actions(dir.path(), &load(dir.path())) == expected(LEROBOT), "the same bits");
}

/// The error for the golden `case` with one text of a file replaced.
fn with(case: &str, file: &str, from: &str, to: &str) -> ModelError {
    let dir = copy_golden(case);
    replace(&dir.path().join(file), from, to);
    refused(dir.path())
}

#[test]
fn what_is_read_is_named_with_both_values() {
    const SIX: &str = "steps[6].config";
    const PAST: &str = "a number of at most";
    for (file, from, to, key, wanted, found) in [
        ("config.json", "\"chunk_size\": 8", "\"chunk_size\": 8.0", "chunk_size", "a whole number", "8.0"),
        (
            "config.json",
            "\"chunk_size\": 8",
            "\"chunk_size\": \"48\"",
            "chunk_size",
            "a whole number",
            "the text \"48\"",
        ),
        ("config.json", "\"chunk_size\": 8", "\"chunk_size\": null", "chunk_size", "a whole number", "null"),
        ("config.json", "\"chunk_size\": 8", "\"chunk_size\": -8", "chunk_size", "a whole number", "-8"),
        ("config.json", "\"chunk_size\": 8", "\"chunk_size\": Infinity", "chunk_size", "a whole number", "Infinity"),
        (
            "config.json",
            "\"chunk_size\": 8",
            "\"chunk_size\": 8, \"chunk_size\": 9",
            "chunk_size",
            "a whole number",
            "several different values",
        ),
        ("config.json", "\"chunk_size\": 8,", "", "chunk_size", "a value", "no such key"),
        ("config.json", "\"min_period\": 0.004", "\"min_period\": NaN", "min_period", PAST, "NaN"),
        ("config.json", "\"max_period\": 4.0", "\"max_period\": -Infinity", "max_period", PAST, "-Infinity"),
        ("config.json", "\"max_period\": 4.0", "\"max_period\": \"4.0\"", "max_period", "a number", "the text \"4.0\""),
        ("config.json", "\"empty_cameras\": 0", "\"empty_cameras\": null", "empty_cameras", "a whole number", "null"),
        (
            "config.json",
            "\"use_relative_actions\": false",
            "\"use_relative_actions\": 0",
            "use_relative_actions",
            "true or false",
            "0",
        ),
        ("config.json", "\"type\": \"pi0\"", "\"type\": 3", "type", "a text", "3"),
        (
            "config.json",
            "\"VISUAL\": \"IDENTITY\"",
            "\"VISUAL\": null",
            "normalization_mapping.VISUAL",
            "a text",
            "null",
        ),
        (
            "config.json",
            "\"paligemma_variant\": \"gemma_2b\"",
            "\"paligemma_variant\": 2",
            "paligemma_variant",
            "a text",
            "2",
        ),
        (PREPROCESSOR, "\"eps\": 1e-08", "\"eps\": NaN", &format!("{SIX}.eps"), PAST, "NaN"),
        (PREPROCESSOR, "\"eps\": 1e-08", "\"eps\": \"1e-8\"", &format!("{SIX}.eps"), "a number", "the text \"1e-8\""),
        (
            PREPROCESSOR,
            "\"STATE\": \"MEAN_STD\"",
            "\"STATE\": null",
            &format!("{SIX}.norm_map.STATE"),
            "a text",
            "null",
        ),
        (PREPROCESSOR, "\"rename_map\": {}", "\"rename_map\": null", "steps[0].config.rename_map", "an object", "null"),
        (
            PREPROCESSOR,
            "\"rename_map\": {}",
            "\"rename_map\": {\"a\": NaN}",
            "steps[0].config.rename_map.a",
            "a text",
            "NaN",
        ),
        (
            PREPROCESSOR,
            "\"enabled\": false",
            "\"enabled\": \"false\"",
            "steps[5].config.enabled",
            "true or false",
            "the text \"false\"",
        ),
        (PREPROCESSOR, "\"to_batch_processor\"", "NaN", "steps[1].registry_name", "a text", "NaN"),
        (PREPROCESSOR, "\"steps\"", "\"stages\"", "", "an object with the key steps", "an object"),
        (
            POSTPROCESSOR,
            "\"state_file\": \"policy_postprocessor_step_0_unnormalizer_processor.safetensors\"",
            "\"state_file\": 0",
            "steps[0].state_file",
            "a text",
            "0",
        ),
        ("fathom.json", "\"heads\": 8", "\"heads\": 8.0", "heads", "a whole number", "8.0"),
        ("fathom.json", "\"heads\": 8", "\"heads\": Infinity", "heads", "a whole number", "Infinity"),
    ] {
        let error = with(LEROBOT, file, from, to);
        assert!(
            matches!(error, ModelError::File(FileError::Json { source: JsonError::Value { .. }, .. })),
            "{to}: {error}"
        );
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        names_all(&error, &[&format!("{file}: {key}expected {wanted}"), &format!("found {found}")]);
    }
}

#[test]
fn a_mapping_that_is_null_or_no_mapping() {
    for (file, key, place) in [
        ("config.json", "/normalization_mapping", "normalization_mapping: expected an object"),
        (PREPROCESSOR, "/steps/6/config/norm_map", "steps[6].config.norm_map: expected an object"),
        (PREPROCESSOR, "/steps/6/config/features", "steps[6].config.features: expected an object"),
        (PREPROCESSOR, "/steps", "steps: expected a list"),
    ] {
        for value in [Value::Null, json!("x"), json!(8.0), json!(true)] {
            let dir = copy_golden(LEROBOT);
            edit(&dir.path().join(file), |v| *v.pointer_mut(key).expect("the key") = value.clone());
            names_all(&refused(dir.path()), &[file, place, "found"]);
        }
    }
    for key in ["input_features", "output_features"] {
        let dir = copy_golden(LEROBOT);
        edit(&dir.path().join("config.json"), |c| c[key] = json!([]));
        names_all(&refused(dir.path()), &[&format!("config.json: {key}: expected an object, found a list of 0")]);
    }
    // A policy that was made for no robot has null there, and its longest lengths.
    let dir = copy_golden(LEROBOT);
    edit(&dir.path().join("config.json"), |c| {
        (c["input_features"], c["output_features"]) = (Value::Null, Value::Null);
    });
    [PREPROCESSOR, POSTPROCESSOR].iter().for_each(|f| std::fs::remove_file(dir.path().join(f)).expect("removed"));
    edit(&dir.path().join("fathom.json"), |h| h["views"] = json!(["a"]));
    let loaded = load(dir.path());
    assert_eq!((loaded.state_dims, loaded.action_dim), (8..=8, 8));
}

#[test]
fn comments_and_commas_are_no_json() {
    for (from, to, parts) in [
        (
            "\"chunk_size\": 8,",
            "\"chunk_size\": 8, // steps",
            ["line 49, column 22", "a comment, which JSON does not have"],
        ),
        ("\"chunk_size\": 8,", "\"chunk_size\": True,", ["line 49, column 19", "found \"True\""]),
        ("\"chunk_size\": 8,", "'chunk_size': 8,", ["line 49, column 5", "a key in double quotes"]),
        ("\"tokenizer_max_length\": 12", "\"tokenizer_max_length\": 12,", ["a key in double quotes", "found '}'"]),
        (
            "\"tokenizer_max_length\": 12\n}",
            "\"tokenizer_max_length\": 12\n",
            ["a comma or the end", "the end of the file"],
        ),
    ] {
        let error = with(LEROBOT, "config.json", from, to);
        assert!(matches!(error, ModelError::File(FileError::Json { source: JsonError::Syntax { .. }, .. })), "{error}");
        names_all(&error, &["config.json: not JSON"]);
        names_all(&error, &parts);
    }
}

/// A small DepthVLA with these statistics.
fn with_norm_stats(text: &str) -> tempfile::TempDir {
    let dir = copy_golden(DEPTHVLA);
    write(&dir.path().join("norm_stats.json"), text);
    dir
}

#[test]
fn openpis_statistics() {
    let list = |value: &str| format!("[{}]", [value; 6].join(", "));
    let (half, two) = (list("0.5"), list("2"));
    let good = format!(
        "\u{feff}{{\"norm_stats\": {{\"state\": {{\"mean\": {half}, \"std\": {two}, \"q01\": {}, \"q99\": null, \"min\": NaN}},
          \"actions\": {{\"mean\": {half}, \"std\": {two}, \"q01\": \"none\"}}, \"velocity\": null, \"effort\": {{\"mean\": [NaN]}}}}, \"n\": NaN}}",
        list("NaN")
    );
    let normalization = load(with_norm_stats(&good).path()).normalization;
    let mut state = [2.5; 6];
    normalization.state.normalize(&mut state);
    assert!(state.iter().all(|v| (v - 1.0).abs() < 1e-5), "{state:?}");
    for (from, to, key, wanted, found) in [
        (half.as_str(), list("NaN"), "state.mean[0]", "a number of at most", "NaN"),
        (&two, "[2, 2, Infinity, 2, 2, 2]".to_owned(), "state.std[2]", "a number of at most", "Infinity"),
        (&two, "[2, 2, 1e39, 2, 2, 2]".to_owned(), "state.std[2]", "a number of at most", "1e39"),
        (&two, "[2, 2, null, 2, 2, 2]".to_owned(), "state.std[2]", "a number", "null"),
        (&two, "[2, 2, \"2\", 2, 2, 2]".to_owned(), "state.std[2]", "a number", "the text \"2\""),
        (&two, "2".to_owned(), "state.std", "a list", "2"),
    ] {
        let error = refused(with_norm_stats(&good.replacen(from, &to, 1)).path());
        names_all(
            &error,
            &["norm_stats.json", &format!("norm_stats.{key}: expected {wanted}"), &format!("found {found}")],
        );
    }
    for (text, part) in [
        ("{\"norm_stats\": null}", "norm_stats.json: norm_stats: expected an object, found null"),
        ("{\"norm_stats\": {\"state\": null}}", "norm_stats.state: expected an object, found null"),
        ("{\"state\": {}}", "expected an object with the key norm_stats"),
        ("[]", "expected an object with the key norm_stats, found a list of 0"),
    ] {
        names_all(&refused(with_norm_stats(text).path()), &[part]);
    }
    // A list that is null is one that is not there.
    let error = refused(with_norm_stats("{\"norm_stats\": {\"state\": {\"mean\": [0], \"std\": null}}}").path());
    names_all(&error, &["state: expected the lists [\"mean\", \"std\"], found not both"]);
}

#[test]
fn fathoms_own_configuration() {
    for (from, to, parts) in [
        ("\"rms_eps\": ", "\"rms_eps\": NaN, \"x\": ", ["rms_eps: expected a number of at most", "found NaN"]),
        (
            "\"rope_theta\": ",
            "\"rope_theta\": \"1\", \"x\": ",
            ["attention.rope_theta: expected a number", "the text \"1\""],
        ),
        ("\"depth\": {", "\"depth\": 3, \"x\": {", ["depth: expected an object", "found 3"]),
        (
            "\"max_period\": ",
            "\"max_period\": Infinity, \"x\": ",
            ["time_embedding.max_period: expected", "found Infinity"],
        ),
    ] {
        names_all(&with(DEPTHVLA, "config.json", from, to), &parts);
    }
}

#[test]
fn indexes_and_manifests() {
    let dir = copy_golden(LEROBOT);
    let at = |name: &str| dir.path().join(name);
    let tensors = Tensors::read(&at(WEIGHTS));
    std::fs::rename(at(WEIGHTS), at("part.safetensors")).expect("renamed");
    let map: serde_json::Map<String, Value> =
        tensors.0.keys().map(|name| (name.clone(), "part.safetensors".into())).collect();
    let map = Value::Object(map).to_string();
    write(
        &at(INDEX),
        format!("\u{feff}{{\"metadata\": {{\"total_size\": Infinity}}, \"weight_map\": {map}, \"x\": NaN}}"),
    );
    assert!(actions(dir.path(), &load(dir.path())) == expected(LEROBOT), "the same bits");
    replace(&at(INDEX), "\"part.safetensors\"", "NaN");
    names_all(&refused(dir.path()), &[INDEX, "weight_map[\"model.action_in_proj.bias\"]: expected a text, found NaN"]);
    write(&at(INDEX), "{\"weight_map\": null}");
    names_all(&refused(dir.path()), &[INDEX, "weight_map: expected an object, found null"]);

    let dir = copy_golden(LEROBOT);
    write(&dir.path().join("manifest.json"), "{\"name\": \"somebody else's\", \"size\": NaN}");
    load(dir.path());
    write(&dir.path().join("manifest.json"), "{\"fathom_pack\": 1.0}");
    names_all(&refused(dir.path()), &["manifest.json: fathom_pack: expected a whole number", "found 1.0"]);
}

#[test]
fn tokenizers_and_depth_models() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("tokenizer.json");
    std::fs::copy(path("golden/tokenizer/tokenizer.json"), &file).expect("copied");
    let tokens = |dir: &Path| Tokenizer::open(dir).expect("it opens").prompt("pick up the block").expect("tokens");
    let own = tokens(dir.path());
    with_unread_keys(&file);
    assert_eq!(tokens(dir.path()), own);
    for (text, part) in [
        (
            json!({"model": {"type": "BPE", "byte_fallback": true, "vocab": {"<bos>": 2.0}, "merges": []}}),
            "model.vocab.<bos>: expected a whole number from -2147483648 to 2147483647, found 2.0",
        ),
        (
            json!({"model": {"type": "BPE", "byte_fallback": true, "vocab": null, "merges": []}}),
            "model.vocab: expected an object, found null",
        ),
        (
            json!({"model": {"type": "BPE", "byte_fallback": true, "vocab": {"<bos>": 2}, "merges": [3]}}),
            "model.merges[0]: a pair of tokens",
        ),
    ] {
        write(&file, text.to_string());
        names_all(&Tokenizer::open(dir.path()).expect_err("no tokenizer"), &["tokenizer.json: ", part]);
    }

    let dir = copy_golden("depth_anything_relative");
    let own = depth_anything::read(dir.path()).expect("it is read");
    let at = |name: &str| dir.path().join(name);
    for file in ["config.json", "preprocessor_config.json"] {
        with_unread_keys(&at(file));
    }
    assert_eq!(depth_anything::read(dir.path()).expect("it is read"), own);
    for (file, key, value, part) in [
        (
            "config.json",
            "fusion_hidden_size",
            json!("64"),
            "fusion_hidden_size: expected a whole number, 0 or more, found the text \"64\"",
        ),
        ("config.json", "backbone_config", Value::Null, "backbone_config: expected an object, found null"),
        ("preprocessor_config.json", "size", json!(518), "size: expected an object, found 518"),
        (
            "preprocessor_config.json",
            "image_std",
            json!([1.0, "x", 1.0]),
            "image_std[1]: expected a number, found the text \"x\"",
        ),
    ] {
        let dir = copy_golden("depth_anything_relative");
        edit(&dir.path().join(file), |c| c[key] = value.clone());
        names_all(&depth_anything::read(dir.path()).expect_err(key), &[&format!("{file}: {part}")]);
    }
}

/// open-pi-zero's and Galaxea's statistics: lists that the mode does not use may hold anything.
#[test]
fn statistics_without_a_configuration() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = fathom_models::nets::presets::small();
    (config.depth, config.action_head_layers) = (None, 2);
    (config.state_dim, config.action_dim) = (2, 2);
    config.views.truncate(1);
    fathom_models::families::depthvla::write_random(dir.path(), &config, 1).expect("the checkpoint is written");
    std::fs::remove_file(dir.path().join("config.json")).expect("removed");
    write(&dir.path().join("fathom.json"), r#"{"heads": 2, "kv_heads": 1, "vision_heads": 2}"#);
    let stats = dir.path().join("dataset_stats.json");
    let lists = |mean: &str| {
        format!(
            r#"{{"arm": {{"global_mean": {mean}, "global_std": [2.0, 2.0], "global_q01": [NaN], "stepwise_mean": null}}}}"#
        )
    };
    let text =
        |mean: &str| format!("\u{feff}{{\"state\": {}, \"action\": {}, \"n\": NaN}}", lists(mean), lists("[1, 1]"));
    write(&stats, text("[1.0, 1.0]"));
    let load = || families::load_as(dir.path(), Some(&galaxea::FAMILY));
    let mut state = [3.0, 5.0];
    load().expect("it loads").normalization.state.normalize(&mut state);
    assert!((state[0] - 1.0).abs() < 1e-6 && (state[1] - 2.0).abs() < 1e-6, "{state:?}");
    for (mean, part) in [
        ("[1.0, -Infinity]", "state.arm.global_mean[1]: expected a number of at most"),
        ("null", "state.arm.global_mean: expected a list, found null"),
        ("\"1.0\"", "state.arm.global_mean: expected a list, found the text \"1.0\""),
    ] {
        write(&stats, text(mean));
        names_all(&load().expect_err(mean), &["dataset_stats.json", part]);
    }
    std::fs::remove_file(&stats).expect("removed");
    let bounds = |low: &str| format!(r#"{{"p01": [{low}, 0], "p99": [4, 4], "mean": NaN}}"#);
    let own = dir.path().join("bridge_statistics.json");
    write(&own, format!(r#"{{"proprio": {}, "action": {}, "num": Infinity}}"#, bounds("0"), bounds("0")));
    load().expect("it loads");
    write(&own, format!(r#"{{"proprio": {}, "action": {}}}"#, bounds("NaN"), bounds("0")));
    names_all(&load().expect_err("NaN"), &["bridge_statistics.json", "proprio.p01[0]: expected", "found NaN"]);
}

/// `fathom-latency --config` reads a file without a checkpoint around it.
#[test]
fn a_configuration_by_itself_is_read_like_a_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    let text = serde_json::to_string(&presets::small()).expect("it is JSON");
    write(&path, format!("\u{feff}{text}"));
    assert_eq!(ModelConfig::read(&path).expect("it reads").horizon, 16);
    for (value, found) in [("NaN", "NaN"), ("\"16\"", "16"), ("1e999", "inf")] {
        write(&path, text.replace(r#""horizon":16"#, &format!(r#""horizon":{value}"#)));
        let error = ModelConfig::read(&path).expect_err("no number").to_string();
        assert!(["config.json", "horizon"].iter().all(|part| error.contains(part)), "{error}");
        assert!(error.to_lowercase().contains(&found.to_lowercase()), "{error}");
    }
}
