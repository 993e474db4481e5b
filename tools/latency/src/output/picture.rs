//! Drawings of a result as SVG: the waterfall, histograms, the age over time.

use crate::result::{Bar, Row, Section, ms};

/// Width of a drawing in its own units; a page scales it.
const WIDTH: f64 = 720.0;
/// Width of the waterfall's names.
const NAMES: f64 = 190.0;
const ROW: f64 = 20.0;

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A step of 1, 2 or 5 times a power of ten, so that at most `most` of them fill `span`.
fn step(span: f64, most: f64) -> f64 {
    let least = (span / most).max(1e-9);
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= least).unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The class of a track's colour.
fn class(track: &str) -> &'static str {
    match track {
        "GPU" => "gpu",
        "inference thread" => "inference",
        "control thread" => "control",
        "serial line" | "controller" => "link",
        _ => "camera",
    }
}

/// The average place of each stage.
pub(super) fn waterfall(section: &Section) -> String {
    let bars = &section.waterfall;
    let end = |b: &Bar| b.begin_ns as f64 + b.length_ns as f64;
    let last = bars.iter().map(end).fold(1.0, f64::max) / 1e6;
    let first = bars.iter().map(|b| b.begin_ns as f64).fold(0.0, f64::min) / 1e6;
    let scale = (WIDTH - NAMES - 70.0) / (last - first);
    let x = |at_ms: f64| NAMES + (at_ms - first) * scale;
    let height = bars.len() as f64 * ROW + 30.0;
    let mut out = format!(
        "<svg class=\"waterfall\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>Stages on one clock, means of {} paths</title>",
        section.chunks
    );
    let step = step(last - first, 8.0);
    let mut tick = (first / step).ceil() * step;
    while tick <= last {
        out += &format!(
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"16\" y2=\"{1:.1}\"/>",
            x(tick),
            height - 6.0
        );
        out += &format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"11\" text-anchor=\"middle\">{}</text>",
            x(tick),
            number(tick)
        );
        tick += step;
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = 20.0 + i as f64 * ROW;
        let (from, length) = (bar.begin_ns as f64 / 1e6, bar.length_ns as f64 / 1e6);
        let (name, track) = (escape(&bar.name), escape(&bar.track));
        out += &format!(
            "<g><title>{name} ({track}): from {from:.3} ms, {length:.3} ms long</title>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            NAMES - 8.0,
            y + 13.0,
            class(&bar.track),
            x(from),
            y + 2.0,
            (length * scale).max(1.0),
            ROW - 5.0,
            x(from + length).min(WIDTH - 62.0) + 5.0,
            y + 13.0,
            ms(bar.length_ns),
        );
    }
    out + "</svg>"
}

/// A stage's histogram: bars of equal width on a logarithmic axis.
pub(super) fn histogram(row: &Row) -> String {
    let (width, height) = (240.0, 74.0);
    let most = row.histogram.iter().map(|b| b.1).max().unwrap_or(1).max(1) as f64;
    let step = width / row.histogram.len().max(1) as f64;
    let (name, stage) = (escape(&row.stage.name), &row.stage);
    let mut out = format!(
        "<svg class=\"histogram\" viewBox=\"0 0 {width} {}\" role=\"img\"><title>{name}: {} samples</title>",
        height + 16.0,
        stage.count
    );
    for (i, (upto_ns, count)) in row.histogram.iter().enumerate().filter(|(_, b)| b.1 > 0) {
        // A single sample is visible, too: rare samples matter most.
        let h = (*count as f64 / most * height).max(2.0);
        out += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{h:.1}\"><title>{count} up to {} ms</title></rect>",
            i as f64 * step,
            height - h,
            (step - 0.6).max(0.6),
            ms(*upto_ns)
        );
    }
    let low = row.histogram.first().map_or(0, |b| b.0);
    out += &format!("<line class=\"axis\" x1=\"0\" x2=\"{width}\" y1=\"{height}\" y2=\"{height}\"/>");
    out += &format!(
        "<text class=\"tick\" x=\"0\" y=\"{0}\">{1}</text><text class=\"tick\" x=\"{width}\" y=\"{0}\" text-anchor=\"end\">{2} ms</text>",
        height + 13.0,
        ms(low),
        ms(stage.max_ns)
    );
    out + "</svg>"
}

/// The headline over time.
pub(super) fn age(section: &Section) -> String {
    let height = 200.0;
    let (left, bottom) = (46.0, 24.0);
    let most = section.age.iter().map(|p| p.1).fold(1.0, f64::max) * 1.05;
    let last = section.age.iter().map(|p| p.0).fold(1e-3, f64::max);
    let x = |s: f64| left + s / last * (WIDTH - left - 8.0);
    let y = |v: f64| 6.0 + (1.0 - v / most) * (height - bottom - 6.0);
    let headline = escape(section.headline.trim_start_matches("= "));
    let mut out =
        format!("<svg class=\"age\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{headline} over time</title>");
    let mut grid = |step: f64, limit: f64, draw: &dyn Fn(f64) -> String| {
        let mut at = 0.0;
        while at <= limit {
            out += &draw(at);
            at += step;
        }
    };
    grid(step(most, 5.0), most, &|v| {
        format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text class=\"tick\" x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
            y(v),
            left - 5.0,
            y(v) + 4.0,
            number(v)
        )
    });
    grid(step(last, 8.0), last, &|s| {
        format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(s),
            height - 8.0,
            number(s)
        )
    });
    let points: Vec<String> = section.age.iter().map(|(s, v)| format!("{:.1},{:.1}", x(*s), y(*v))).collect();
    out += &format!("<polyline class=\"line\" points=\"{}\"/>", points.join(" "));
    for (s, v) in section.age.iter().filter(|_| section.age.len() <= 150) {
        out += &format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"><title>{v:.1} ms at {s:.2} s</title></circle>",
            x(*s),
            y(*v)
        );
    }
    if let Some(d) = section.deadlines.iter().find(|d| d.of == section.headline) {
        let at = y((d.deadline_ns as f64 / 1e6).min(most));
        out += &format!("<line class=\"deadline\" x1=\"{left}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        let steps = [(0.9, 0.2), (152.0, 20.0), (7.3, 1.0), (80.0, 10.0)];
        steps.iter().for_each(|(span, expected)| assert!((step(*span, 8.0) - expected).abs() < 1e-9, "{span}"));
        assert_eq!([number(0.0), number(0.25), number(150.0)], ["0", "0.25", "150"]);
    }
}
