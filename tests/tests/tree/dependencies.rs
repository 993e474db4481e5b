//! The packages that the workspace is built from: each direct dependency is listed with its reason, and licences, sources and
//! duplicates are those of `tools/deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::tidy::root;

type Outcome = Result<(), Box<dyn Error>>;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn metadata() -> Result<Value, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(["--filter-platform", "aarch64-unknown-linux-gnu"])
        .current_dir(root())
        .output()?;
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The packages that are compiled, without the workspace's own.
fn packages(metadata: &Value) -> Vec<&Value> {
    let members: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let nodes: BTreeSet<&str> = list(&metadata["resolve"], "nodes").iter().map(|node| text(node, "id")).collect();
    let compiled = |package: &&Value| nodes.contains(text(package, "id")) && !members.contains(text(package, "id"));
    list(metadata, "packages").iter().filter(compiled).collect()
}

fn table(file: &str) -> Result<toml::Table, Box<dyn Error>> {
    Ok(fs::read_to_string(root().join(file))?.parse()?)
}

/// The strings at `key` of every table in the array `name`.
fn entries(table: &toml::Value, name: &str, key: &str) -> BTreeSet<String> {
    let entries = table.get(name).and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    entries.iter().filter_map(|entry| Some(entry.get(key)?.as_str()?.to_owned())).collect()
}

#[test]
fn every_direct_dependency_is_listed_with_its_reason() -> Outcome {
    let metadata = metadata()?;
    let members: BTreeSet<&str> = list(&metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let own = list(&metadata, "packages").iter().filter(|package| members.contains(text(package, "id")));
    let direct: BTreeSet<&str> = own
        .flat_map(|package| list(package, "dependencies"))
        .filter(|dependency| dependency["path"].is_null())
        .map(|dependency| text(dependency, "name"))
        .collect();
    let mut listed = BTreeMap::new();
    for (group, entries) in table("tools/dependencies.toml")? {
        for (name, reason) in entries.as_table().into_iter().flatten() {
            let reason = reason.as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "tools/dependencies.toml: {name} has no reason");
            assert!(
                listed.insert(name.clone(), group.clone()).is_none(),
                "tools/dependencies.toml: {name} is there twice"
            );
        }
    }
    let mut wrong = String::new();
    for name in direct.iter().filter(|name| !listed.contains_key(**name)) {
        writeln!(wrong, "{name} is not in tools/dependencies.toml: list it with the reason for it")?;
    }
    for name in listed.keys().filter(|name| !direct.contains(name.as_str())) {
        writeln!(wrong, "tools/dependencies.toml lists {name}, which nothing depends on")?;
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// Whether an SPDX expression can be met with licences of `allowed`.
fn allows(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // No package here has an AND inside an OR without parentheses around the OR.
    expression.split(" AND ").all(|all| all.split(" OR ").any(|any| allowed.contains(any.trim())))
}

#[test]
fn licences_sources_and_duplicates_are_those_of_deny_toml() -> Outcome {
    let metadata = metadata()?;
    let deny = table("tools/deny.toml")?;
    let (licenses, bans) = (&deny["licenses"], &deny["bans"]);
    let allowed = licenses["allow"].as_array().into_iter().flatten();
    let allowed: BTreeSet<String> = allowed.filter_map(toml::Value::as_str).map(str::to_owned).collect();
    let excepted = entries(licenses, "exceptions", "crate");
    let skipped = entries(bans, "skip", "crate");
    let mut wrong = String::new();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in packages(&metadata) {
        let (name, version, license) = (text(package, "name"), text(package, "version"), text(package, "license"));
        if text(package, "source") != CRATES_IO {
            writeln!(wrong, "{name} {version} does not come from crates.io")?;
        }
        if !allows(license, &allowed) && !excepted.contains(name) {
            writeln!(wrong, "{name} {version} has the licence {license}")?;
        }
        versions.entry(name).or_default().insert(format!("{name}@{version}"));
    }
    let all: BTreeSet<String> = versions.values().flatten().cloned().collect();
    for (name, versions) in &versions {
        let kept: Vec<_> = versions.iter().filter(|version| !skipped.contains(*version)).collect();
        if kept.len() > 1 {
            writeln!(
                wrong,
                "{name} is there more than once: {kept:?}; list the older ones in tools/deny.toml, with the reason"
            )?;
        }
    }
    for version in skipped.difference(&all) {
        writeln!(wrong, "tools/deny.toml skips {version}, which is not there")?;
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

#[test]
fn licences_that_are_not_allowed_are_found() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]);
    for (expression, fine) in [
        ("MIT OR Apache-2.0", true),
        ("Apache-2.0/MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("GPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(allows(expression, &allowed), fine, "{expression}");
    }
}

#[test]
fn inference_alone_links_no_serial_line_no_camera_and_no_command_line() -> Outcome {
    let tree = |options: &[&str]| -> Result<String, Box<dyn Error>> {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--package", "fathom", "--edges", "normal", "--prefix", "none"])
            .args(options)
            .current_dir(root())
            .output()?;
        assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let (whole, alone) = (tree(&[])?, tree(&["--no-default-features"])?);
    for name in ["serialport", "firmware-bridge", "v4l", "clap", "tracing-subscriber", "sd-notify", "signal-hook"] {
        let has = |tree: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
        assert!(has(&whole), "the program has no {name}");
        assert!(!has(&alone), "inference alone has {name}");
    }
    Ok(())
}
