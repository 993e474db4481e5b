//! lerobot takes the features that are named `observation.state` and `action`, and every `VISUAL` one in the file's order.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::{FileError, ModelError};
use fathom_tests::tensors::{Dtype, Tensors, copy_golden};
use serde_json::{Value, json};

use super::{
    LEROBOT, POSTPROCESSOR, PREPROCESSOR, STATISTICS, actions, edit, expected, load, names_all, refused, step,
};

/// The object with `first` before its own keys, and `last` behind them.
fn around(object: &mut Value, first: &[(&str, Value)], last: &[(&str, Value)]) {
    let own = object.as_object().expect("an object").clone();
    let more = |list: &[(&str, Value)]| list.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect::<Vec<_>>();
    *object = Value::Object(more(first).into_iter().chain(own).chain(more(last)).collect());
}

#[test]
fn other_features_of_the_same_types_do_not_matter() {
    let expected = expected(LEROBOT);
    let other = |kind: &str, n: usize| json!({"type": kind, "shape": [n]});
    let first = [
        ("observation.velocity", other("STATE", 4)),
        ("observation.environment_state", other("ENV", 9)),
        ("observation.touch", other("TACTILE", 16)),
        ("observation.nothing", Value::Null),
        ("observation.image_is_blurred", other("STATE", 1)),
        ("observation.untyped", json!({"shape": "?"})),
        ("observation.state_of_the_art", other("STATE", 0)),
    ];
    let last = [
        ("observation.effort", json!({"type": "STATE", "shape": [[6], "x"]})),
        ("observation.language", other("LANGUAGE", 1)),
        ("action", other("ACTION", 3)),
    ];
    let outputs = [
        [("action.gripper", other("ACTION", 1)), ("next.reward", json!({"type": "REWARD", "shape": []}))],
        [("action_of_the_left_arm", other("ACTION", 2)), ("next.done", Value::Null)],
    ];
    for processors in [true, false] {
        let dir = copy_golden(LEROBOT);
        let at = |name: &str| dir.path().join(name);
        edit(&at("config.json"), |c| {
            around(&mut c["input_features"], &first, &last);
            around(&mut c["output_features"], &outputs[0], &outputs[1]);
        });
        if processors {
            edit(&at(PREPROCESSOR), |p| around(&mut step(p, "normalizer_processor")["features"], &first[..2], &[]));
            let mut tensors = Tensors::read(&at(STATISTICS));
            tensors.put("observation.velocity.mean", WeightFormat::F32, &[4], &[f32::NAN; 4]);
            tensors.0.insert("observation.state.count".to_owned(), (Dtype::I64, vec![1], vec![9; 8]));
            tensors.0.insert("episode_index.mean".to_owned(), (Dtype::F64, vec![], vec![0; 8]));
            tensors.write(&at(STATISTICS));
        } else {
            [PREPROCESSOR, POSTPROCESSOR].iter().for_each(|f| std::fs::remove_file(at(f)).expect("removed"));
        }
        let loaded = load(dir.path());
        assert_eq!((loaded.state_dims.clone(), loaded.action_dim), (6..=6, 7), "with processors: {processors}");
        assert_eq!(loaded.model.config.views, ["top", "wrist"]);
        assert_eq!(actions(dir.path(), &loaded) == expected, processors, "the same bits where there are statistics");
    }
}

#[test]
fn views_are_the_visual_features_in_the_order_of_the_file() {
    let dir = copy_golden(LEROBOT);
    let config = dir.path().join("config.json");
    let visual = |name: &str| format!(r#""{name}": {{"type": "VISUAL", "shape": null}}"#);
    let (top, wrist) = (visual("observation.images.top"), visual("observation.images.wrist"));
    let state = r#""observation.state": {"shape": [6], "type": "STATE"}"#;
    for (features, views) in [
        (format!("{top}, {state}, {wrist}"), ["top", "wrist"]),
        (format!("{wrist}, {top}, {state}"), ["wrist", "top"]),
        (format!("{state}, {wrist}, {top}, {wrist}"), ["wrist", "top"]),
        (format!("{}, {state}, {top}", visual("observation.image")), ["observation.image", "top"]),
        (format!("{}, {state}, {top}", visual("pixels")), ["pixels", "top"]),
    ] {
        edit(&config, |c| c["input_features"] = Value::Null);
        super::replace(&config, r#""input_features":null"#, &format!(r#""input_features":{{{features}}}"#));
        assert_eq!(load(dir.path()).model.config.views, views, "{features}");
    }
}

#[test]
fn features_that_are_read_say_what_they_are() {
    let state = r#"input_features["observation.state"]"#;
    let top = r#"input_features["observation.images.top"]"#;
    for (list, name, feature, expected) in [
        (
            "input_features",
            "observation.state",
            json!({"type": "ENV", "shape": [6]}),
            format!("{state}.type: expected \"STATE\", found the text \"ENV\""),
        ),
        (
            "input_features",
            "observation.state",
            json!({"shape": [6]}),
            format!("{state}: expected a feature with the type \"STATE\""),
        ),
        (
            "input_features",
            "observation.state",
            Value::Null,
            format!("{state}: expected a feature with the type \"STATE\", found null"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE"}),
            format!("{state}: expected a feature with a shape"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": 6}),
            format!("{state}.shape: expected a list of one length, at most 8, found 6"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": []}),
            format!("{state}.shape: expected a list of one length, at most 8, found a list of 0"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": [1, 6]}),
            format!("{state}.shape: expected a list of one length, at most 8, found a list of 2"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": [6.0]}),
            format!("{state}.shape[0]: expected a whole number, 0 or more, found 6.0"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": ["6"]}),
            format!("{state}.shape[0]: expected a whole number, 0 or more, found the text \"6\""),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": [0]}),
            format!("{state}.shape[0]: expected 1 to 8 values, found 0"),
        ),
        (
            "input_features",
            "observation.state",
            json!({"type": "STATE", "shape": [9]}),
            format!("{state}.shape[0]: expected 1 to 8 values, found 9"),
        ),
        (
            "output_features",
            "action",
            json!({"type": "STATE", "shape": [7]}),
            "output_features.action.type: expected \"ACTION\", found the text \"STATE\"".to_owned(),
        ),
        (
            "output_features",
            "action",
            json!({"type": "ACTION", "shape": [2, 7]}),
            "output_features.action.shape: expected a list of one length, at most 8, found a list of 2".to_owned(),
        ),
        (
            "input_features",
            "observation.images.top",
            json!({"type": "DEPTH", "shape": [1, 48, 64]}),
            format!(
                "{top}.type: expected \"VISUAL\", for a feature with the name of a camera, found the text \"DEPTH\""
            ),
        ),
        (
            "input_features",
            "observation.images.top",
            json!(3),
            format!("{top}: expected a feature with the type \"VISUAL\", found 3"),
        ),
    ] {
        let dir = copy_golden(LEROBOT);
        edit(&dir.path().join("config.json"), |c| c[list][name] = feature.clone());
        let error = refused(dir.path());
        assert!(matches!(error, ModelError::File(FileError::Json { .. })), "{feature}: {error}");
        names_all(&error, &["config.json: ", &expected]);
    }
}

/// lerobot normalises an observation where the step's own features name it, by the type that they give it, and an action
/// always.
#[test]
fn a_normaliser_leaves_alone_what_it_does_not_name() {
    let with = |change: &dyn Fn(&mut Value)| {
        let dir = copy_golden(LEROBOT);
        edit(&dir.path().join(PREPROCESSOR), |p| change(step(p, "normalizer_processor")));
        load(dir.path()).normalization
    };
    let own = with(&|_| {});
    assert_eq!((own.state.offset.len(), own.action.offset.len()), (6, 7));
    for (what, change) in [
        ("no feature", &(|c: &mut Value| c["features"] = json!({})) as &dyn Fn(&mut Value)),
        ("another feature", &|c| c["features"] = json!({"observation.velocity": {"type": "STATE", "shape": [4]}})),
        ("another key", &|c| c["normalize_observation_keys"] = json!(["observation.velocity"])),
        ("a type without a mode", &|c| c["features"]["observation.state"]["type"] = "ENV".into()),
        ("no mode", &|c| c["norm_map"] = json!({"VISUAL": "IDENTITY"})),
    ] {
        let found = with(change);
        assert!(found.state.offset.is_empty(), "{what}: {found:?}");
        assert_eq!(found.action, own.action, "{what}");
    }
    let listed = with(&|c| c["normalize_observation_keys"] = json!(["observation.velocity", "observation.state"]));
    assert_eq!(listed.state, own.state);
    let env = with(&|c| {
        c["features"]["observation.state"]["type"] = "ENV".into();
        c["norm_map"] = json!({"ENV": "MEAN_STD", "STATE": "MIN_MAX"});
    });
    assert_eq!(env.state, own.state);
}
