//! A result as one self-contained page: no network, no script.

use fathom::telemetry::Stage;

use super::{picture, text};
use crate::result::{KernelRow, Measured, Section, ms};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(m: &Measured) -> String {
    let esc = picture::escape;
    let title = format!("fathom-latency {}: {}", m.mode, m.header.adapter);
    let mut body = format!(
        "<header><h1>fathom-latency <b>{}</b></h1><p>{}, commit {}</p></header>",
        esc(&m.mode),
        esc(&m.taken_at),
        esc(&m.commit)
    );
    if let Some(label) = text::label(m) {
        body += &format!("<p class=\"software\">{}</p>", esc(label));
    }
    if let Some((section, age)) = m.headline() {
        let name = esc(age.name.trim_start_matches("= "));
        body += &format!("<section class=\"headline\"><h2>{name}</h2><dl>");
        let times = [("p50", age.p50_ns), ("p99", age.p99_ns), ("p99.9", age.p999_ns), ("max", age.max_ns)];
        times
            .iter()
            .for_each(|(p, ns)| body += &format!("<div><dt>{p}</dt><dd>{} <small>ms</small></dd></div>", ms(*ns)));
        for d in &section.deadlines {
            let of = esc(d.of.trim_start_matches("= "));
            let class = if d.misses > 0 { " class=\"bad\"" } else { "" };
            body += &format!(
                "<div{class}><dt>{of} over {} ms</dt><dd>{} <small>of {}</small></dd></div>",
                ms(d.deadline_ns),
                d.misses,
                d.count
            );
        }
        body += "</dl></section>";
    }
    m.sections.iter().for_each(|s| body += &self::section(s));
    body += &kernels(m);
    body += "<section><h2>What ran on what</h2><table class=\"facts\">";
    facts(m).iter().for_each(|(key, value)| body += &format!("<tr><th>{key}</th><td>{}</td></tr>", esc(value)));
    body += "</table>";
    if let Some(cost) = &m.cost {
        body += &format!("<p>{}</p>", esc(&text::cost(cost)).replace('\n', "<br>"));
    }
    m.notes.iter().for_each(|note| body += &format!("<p>Note: {}</p>", esc(note)));
    body += "</section>";
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>\n",
        esc(&title)
    )
}

fn section(s: &Section) -> String {
    let esc = picture::escape;
    let mut out = format!("<section><h2>{} <small>{:.1} s</small></h2>", esc(&s.name), s.seconds);
    if !s.waterfall.is_empty() {
        out += "<h3>Where the time goes <small>mean begin and length, ms; one clock</small></h3>";
        out += "<p class=\"key\"><i class=\"camera\"></i>camera <i class=\"control\"></i>control thread <i class=\"inference\"></i>inference thread <i class=\"gpu\"></i>GPU <i class=\"link\"></i>line and controller</p>";
        out += &format!("<div class=\"wide\">{}</div>", picture::waterfall(s));
    }
    if s.age.len() > 1 {
        let headline = esc(s.headline.trim_start_matches("= "));
        out +=
            &format!("<h3>{headline} over time <small>ms; s</small></h3><div class=\"wide\">{}</div>", picture::age(s));
    }
    out += "<h3>Percentiles <small>ms</small></h3><div class=\"wide\"><table class=\"numbers\"><tr><th>stage</th>";
    ["count", "p50", "p90", "p99", "p99.9", "max"].iter().for_each(|h| out += &format!("<th>{h}</th>"));
    out += "</tr>";
    s.cold.iter().for_each(|stage| out += &row(stage, "cold"));
    for r in &s.stages {
        out += &row(&r.stage, if r.stage.name.starts_with("= ") { "whole" } else { "" });
    }
    out += "</table></div><ul>";
    text::lines(s).iter().for_each(|line| out += &format!("<li>{}</li>", esc(line)));
    out += "</ul><h3>Histograms <small>samples; logarithmic in time</small></h3><div class=\"histograms\">";
    for r in s.stages.iter().filter(|r| r.stage.count > 1) {
        let name = esc(r.stage.name.trim_start_matches("= "));
        out += &format!("<figure><figcaption>{name}</figcaption>{}</figure>", picture::histogram(r));
    }
    out + "</div></section>"
}

fn row(s: &Stage, class: &str) -> String {
    let times = [s.p50_ns, s.p90_ns, s.p99_ns, s.p999_ns, s.max_ns].map(|ns| format!("<td>{}</td>", ms(ns)));
    let name = picture::escape(s.name.trim_start_matches("= "));
    format!("<tr class=\"{class}\"><th>{name}</th><td>{}</td>{}</tr>", s.count, times.concat())
}

fn kernels(m: &Measured) -> String {
    let Some(k) = &m.kernels else { return String::new() };
    let mut out = "<section><h2>Kernels <small>all dispatches of an inference together</small></h2><ul>".to_owned();
    for roof in &k.roofs {
        let (name, unit) = (picture::escape(&roof.name), picture::escape(&roof.unit));
        out += &format!("<li>roof: {name} {:.2} G{unit}</li>", roof.per_second / 1e9);
    }
    out += "</ul><div class=\"wide\"><table class=\"numbers\"><tr>";
    ["kernel", "calls", "p50 ms", "GFLOP/s", "GB/s", "of the roof"]
        .iter()
        .for_each(|h| out += &format!("<th>{h}</th>"));
    out += "</tr>";
    let line = |r: &KernelRow| {
        let share = (r.share_of_roof * 100.0).clamp(0.0, 100.0);
        format!(
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td>\
             <td class=\"share\"><span style=\"width:{share:.0}%\"></span>{:.1} %</td></tr>",
            picture::escape(&r.kernel),
            r.calls,
            ms(r.row.stage.p50_ns),
            r.flops_per_second / 1e9,
            r.bytes_per_second / 1e9,
            r.share_of_roof * 100.0
        )
    };
    k.table.iter().for_each(|r| out += &line(r));
    out + "</table></div></section>"
}

/// The header, one entry per line.
fn facts(m: &Measured) -> Vec<(&'static str, String)> {
    let (h, machine) = (&m.header, &m.machine);
    let or = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let clocks = machine
        .clocks
        .iter()
        .map(|c| format!("{} {:.0} → {:.0} of {:.0} MHz", c.name, c.start_mhz, c.end_mhz, c.max_mhz));
    let hot = machine.temperatures.iter().map(|t| format!("{} {:.1} → {:.1} °C", t.zone, t.start_c, t.end_c));
    let throttling = match (machine.throttling_known, machine.throttling.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "none".to_owned(),
        (true, false) => machine.throttling.join(", "),
    };
    let join = |items: &mut dyn Iterator<Item = String>| or(items.collect::<Vec<_>>().join(", "));
    vec![
        ("adapter", format!("{} ({})", h.adapter, h.adapter_type)),
        ("driver", or(h.driver.clone())),
        ("board", or(format!("{} {}", machine.board, machine.cpu).trim().to_owned())),
        ("system", format!("{}, Linux {}", or(machine.os.clone()), or(machine.kernel.clone()))),
        ("power mode", or(machine.power_mode.clone())),
        ("governor", or(machine.governors.join(", "))),
        ("clocks", join(&mut clocks.into_iter())),
        ("temperatures", join(&mut hot.into_iter())),
        ("throttling", or(throttling)),
        ("model", format!("{} ({:.1} M parameters, {})", h.model, h.shapes.parameters as f64 / 1e6, h.scheme)),
        ("model hash", or(m.model_hash.clone())),
        (
            "shapes",
            format!(
                "{}; {} tokens; horizon {}; {} flow steps",
                h.shapes.images.join(", "),
                h.shapes.prompt_tokens,
                h.shapes.horizon,
                h.shapes.flow_steps
            ),
        ),
        ("kernels", format!("{}, {} dispatches an inference", h.kernels, h.dispatches)),
        ("seed", h.seed.to_string()),
    ]
}
