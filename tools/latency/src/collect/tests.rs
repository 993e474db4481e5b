use super::*;

const MS: u64 = 1_000_000;

fn span(track: Track, chunk: u32, begin_ms: u64, length_ms: u64) -> Event {
    Event { kind: Kind::Span, track, name: 0, chunk, begin_ns: begin_ms * MS, value: length_ms * MS }
}

fn row<'a>(section: &'a Section, name: &str) -> &'a Row {
    section.stages.iter().find(|r| r.stage.name == name).unwrap_or_else(|| panic!("no row {name}"))
}

/// Stages of 10 + 20 + 5 ms, of which the last two overlap by 2, in a path of 40: 7 are explained by nothing.
#[test]
fn the_rest_is_what_no_stage_covers() {
    let mut c =
        Collector::new(Watch { name: "loop", path: stage::AGE, deadline_ns: Some(39 * MS), ..Watch::default() });
    for chunk in 1..=4_u32 {
        let at = u64::from(chunk) * 1000;
        c.event("capture", &span(Track::Camera(0), chunk, at, 10));
        // A younger image beside it is no part of the sum.
        c.event("capture", &span(Track::Camera(1), chunk, at + 4, 6));
        c.event("model", &span(Track::Gpu, chunk, at + 12, 20));
        c.event("write", &span(Track::Control, chunk, at + 30, 5));
        // It ends after the path.
        c.event("reply", &span(Track::Controller, chunk, at + 40, 3));
        c.event(stage::AGE, &span(Track::Path, chunk, at, 40));
    }
    let section = c.section(Vec::new(), 0);
    let balance = section.balance.clone().unwrap();
    let near = |ns: u64, ms: u64| ns.abs_diff(ms * MS) <= ms * MS / 500;
    assert!(near(balance.unexplained.p50_ns, 7), "{balance:?}");
    assert!(near(balance.sum_mean_ns, 35) && near(balance.total_mean_ns, 40), "{balance:?}");
    let bars: Vec<_> = section.waterfall.iter().map(|b| (b.name.as_str(), b.begin_ns / MS as i64)).collect();
    assert_eq!(bars, [("capture", 0), ("capture", 4), ("model", 12), ("write", 30), ("reply", 40)]);
    assert_eq!((section.deadlines[0].misses, section.deadlines[0].longest_run), (4, 4));
    assert!(near(row(&section, "model").stage.p50_ns, 20));
    assert_eq!(section.age.len(), 4);
}

#[test]
fn late_ticks_and_empty_controllers_are_counted_with_their_longest_run() {
    let mut c = Collector::new(Watch { path: stage::AGE, tick_ns: 10 * MS, ..Watch::default() });
    for (n, late) in [0, 12, 11, 1, 30, 2].into_iter().enumerate() {
        c.event(stage::LATENESS, &span(Track::Control, 0, n as u64 * 10, late));
        assert_eq!(c.missed, late > 10);
    }
    let mut tell = |name: &str, at_ms: u64, value: u64| {
        let event =
            Event { kind: Kind::Counter, track: Track::Controller, name: 0, chunk: 0, begin_ns: at_ms * MS, value };
        c.event(name, &event);
    };
    tell(counter::STEPS_LEFT, 90, 0);
    tell(counter::ACTIVE, 95, 1);
    c.event("capture", &span(Track::Camera(0), 1, 100, 1));
    c.event(stage::AGE, &span(Track::Path, 1, 100, 5));
    let mut tell = |name: &str, at_ms: u64, value: u64| {
        let event =
            Event { kind: Kind::Counter, track: Track::Controller, name: 0, chunk: 0, begin_ns: at_ms * MS, value };
        c.event(name, &event);
    };
    for (at_ms, left) in [(110, 3), (120, 0), (130, 0), (150, 0), (160, 4), (170, 0)] {
        tell(counter::STEPS_LEFT, at_ms, left);
    }
    tell(counter::ACTIVE, 175, 0);
    tell(counter::STEPS_LEFT, 180, 0);
    let section = c.section(Vec::new(), 0);
    let ticks = &section.deadlines[0];
    assert_eq!((ticks.count, ticks.misses, ticks.longest_run), (6, 3, 2));
    let starved = section.starvation.unwrap();
    assert_eq!((starved.samples, starved.starved, starved.longest_ns), (6, 4, 30 * MS));
}

/// A hundred thousand paths keep the memory of a few.
#[test]
fn hours_fit_into_fixed_memory() {
    let mut c = Collector::new(Watch { path: stage::AGE, round: 10, ..Watch::default() });
    for n in 1..=100_000_u32 {
        c.event("model", &span(Track::Gpu, n, u64::from(n) * 100, 30));
        // Every third never ends.
        if n % 3 != 0 {
            c.event(stage::AGE, &span(Track::Path, n, u64::from(n) * 100, 40));
        }
    }
    assert!(c.open.len() <= OPEN && c.age.len() <= POINTS);
    let section = c.section(Vec::new(), 0);
    assert!((2..=ROUNDS).contains(&row(&section, "model").rounds_p50_ns.len()));
    assert_eq!(section.chunks, 66_667);
    let counted: u64 = row(&section, "model").histogram.iter().map(|b| b.1).sum();
    assert_eq!(counted, 100_000);
}
