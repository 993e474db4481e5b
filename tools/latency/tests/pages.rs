//! The page as a browser shows it, and the trace as Perfetto's own schema reads it. `FATHOM_BROWSER` names a Chromium and
//! `FATHOM_PERFETTO` a Python with PyPI's `perfetto`; `tools/test` sets both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{measured, skip};

/// Measures the page where it is shown.
const PROBE: &str = r#"<script>
const box = e => e.getBoundingClientRect();
const texts = [...document.querySelectorAll("svg text")].map(t => box(t).height);
const wide = [...document.querySelectorAll("body *")].filter(e => box(e).right > innerWidth + 1 && !e.closest(".wide"));
document.body.innerHTML = "<pre id=probe>" + JSON.stringify({
  width: innerWidth,
  scroll: document.documentElement.scrollWidth,
  outside: wide.map(e => e.tagName + "." + e.className),
  label: box(document.querySelector(".software")),
  headline: [...document.querySelectorAll(".headline dd")].map(e => e.textContent.trim()),
  bars: document.querySelectorAll(".waterfall rect").length,
  histograms: document.querySelectorAll(".histogram").length,
  points: [...document.querySelectorAll(".age polyline")].map(p => p.getAttribute("points").split(" ").length),
  rows: document.querySelectorAll(".numbers tr").length,
  smallest: Math.min(...texts),
  fetched: performance.getEntriesByType("resource").length,
}) + "</pre>";
</script>"#;

fn shown(browser: &str, width: u32) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    std::fs::write(&page, measured().read("html").replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    let size = format!("--window-size={width},1000");
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]);
    let output = command.args([&size, &profile]).arg(format!("file://{}", page.display())).output().expect("it starts");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let probe = dom.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let probe = probe.unwrap_or_else(|| panic!("no probe in {dom}\n{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(probe).unwrap()
}

#[test]
fn the_page_fits_a_desktop_and_a_phone() {
    let Some(browser) = std::env::var("FATHOM_BROWSER").ok().filter(|b| !b.is_empty()) else {
        return skip("the_page_fits_a_desktop_and_a_phone", "FATHOM_BROWSER names no Chromium");
    };
    for width in [1280, 390] {
        let seen = shown(&browser, width);
        println!("{seen}");
        assert_eq!(seen["width"], width);
        assert!(seen["scroll"].as_u64().unwrap() <= u64::from(width), "{width}: the page scrolls sideways");
        assert_eq!(seen["outside"].as_array().unwrap().len(), 0, "{width}: {}", seen["outside"]);
        let label = &seen["label"];
        assert!(label["height"].as_f64().unwrap() > 20.0 && label["top"].as_f64().unwrap() < 250.0, "{width}: {label}");
        assert!(seen["headline"].as_array().unwrap().iter().all(|v| v.as_str().is_some_and(|v| !v.is_empty())));
        assert!(seen["bars"].as_u64().unwrap() > 50 && seen["rows"].as_u64().unwrap() > 70, "{width}: {seen}");
        assert!(seen["histograms"].as_u64().unwrap() > 40);
        assert!(seen["points"].as_array().unwrap().iter().all(|p| p.as_u64().unwrap() > 1));
        assert!(seen["smallest"].as_f64().unwrap() >= 7.0, "{width}: text that nobody can read: {seen}");
        assert_eq!(seen["fetched"], 0, "{width}: it fetches nothing");
    }
}

#[test]
fn perfettos_own_schema_reads_the_trace() {
    let Some(python) = std::env::var("FATHOM_PERFETTO").ok().filter(|p| !p.is_empty()) else {
        return skip("perfettos_own_schema_reads_the_trace", "FATHOM_PERFETTO names no Python with perfetto");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_trace.py");
    let output = Command::new(python).arg(script).arg(measured().path("pftrace")).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
    let slices = trace["slices"].as_array().unwrap();
    for (track, name) in [
        ("camera 0", "exposure to dequeue"),
        ("inference thread", "upload"),
        ("GPU", "vision tower"),
        ("GPU", "flow step 10"),
        ("control thread", "serial write"),
        ("serial line", "line and controller"),
        ("controller", "acknowledgement returns"),
        ("observation age at actuation", "= observation age at actuation"),
    ] {
        assert!(slices.iter().any(|s| s[0] == track && s[1] == name), "no slice {name} on {track}");
    }
    for counter in ["steps left", "starved ticks", "clock error", "GPU clock error", "active"] {
        assert!(trace["counters"][counter].as_u64().unwrap_or(0) > 0, "no counter {counter}");
    }
    let parent = trace["parents"]["GPU"].as_str().unwrap();
    assert!(parent.starts_with("fathom: ") && parent.contains("software"), "the software driver's label: {parent}");
    // An observation's arrows: image, GPU, write, acknowledgement.
    let flows = trace["flows"].as_array().unwrap();
    let whole = |flow: &&Value| {
        let steps: Vec<_> = flow.as_array().unwrap().iter().map(|s| s[0].as_str().unwrap()).collect();
        let order =
            ["exposure to dequeue", "upload", "GPU begins", "readback", "serial write", "acknowledgement returns"];
        let mut wanted = order.iter().peekable();
        steps.iter().for_each(|s| {
            wanted.next_if(|w| *w == s);
        });
        wanted.next().is_none()
    };
    let ended = flows.iter().filter(whole).count();
    assert!(ended >= 3, "{ended} of {} arrows go the whole way", flows.len());
    let acknowledged = row_count(slices, "acknowledgement returns");
    assert!(ended as u64 + 2 >= acknowledged, "{ended} whole arrows of {acknowledged} acknowledgements");
}

fn row_count(slices: &[Value], name: &str) -> u64 {
    slices.iter().filter(|s| s[1] == name).count() as u64
}
