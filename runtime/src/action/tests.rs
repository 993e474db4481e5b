use super::*;

const PERIOD: u32 = 100_000;

fn rules(policy: ChunkPolicy) -> Rules {
    Rules {
        policy,
        joints: 1,
        horizon: 8,
        execution_horizon: 6,
        replan_steps: 2,
        period_us: PERIOD,
        validity_us: 2_000_000,
    }
}

/// Values that identify their chunk and step.
fn chunk(n: u16) -> Vec<f32> {
    (0..8).map(|step| f32::from(n * 100 + step)).collect()
}

fn at(chunk: u32, step: u16) -> Option<Progress> {
    Some(Progress { chunk, consumed: step, steps_left: 5_u16.saturating_sub(step) })
}

/// A planner whose first chunk is in progress from 1 s on, with `steps` of it consumed.
fn following(policy: ChunkPolicy, steps: u16) -> Planner {
    let mut planner = Planner::new(rules(policy));
    planner.reported(ControllerUs(900_000), false, None);
    let start = planner.start_at(ControllerUs(950_000));
    let planned = planner.plan(&start, &chunk(1), ControllerUs(1_000_000), |_| {}).expect("it is not late");
    assert_eq!((planned.base, planned.delay, planned.start.0), (0, 0, 1_000_000), "an arm at rest loses no step");
    planner.accepted(planned.id, 0);
    for step in 0..=steps {
        planner.reported(ControllerUs(1_000_000 + u64::from(step) * u64::from(PERIOD)), true, at(1, step));
    }
    planner
}

/// The second chunk is on the grid of the first, and the delay is the number of consumed steps: times do not matter.
#[test]
fn the_delay_is_the_controllers_count() {
    let mut planner = following(ChunkPolicy::Replace, 2);
    assert!(planner.wants(), "two steps are consumed");
    let start = planner.start_at(ControllerUs(1_210_000));
    assert_eq!((start.count, start.following), (2, true));
    planner.reported(ControllerUs(9_000_000), true, at(1, 4)); // the controller's clock does not matter
    let planned = planner.plan(&start, &chunk(2), ControllerUs(1_400_000), |_| {}).expect("it is not late");
    assert_eq!((planned.base, planned.delay, planned.start.0), (2, 2, 1_200_000));
    assert_eq!(planned.positions, [200.0, 201.0, 202.0, 203.0, 204.0, 205.0], "what may be executed");
    assert!(!planner.wants(), "one is on its way");
    planner.accepted(planned.id, 2);
    assert!(!planner.wants(), "none of its steps is consumed");
    planner.reported(ControllerUs(1_500_000), true, at(1, 5)); // a report in transit
    planner.reported(ControllerUs(1_500_000), true, at(2, 3));
    assert_eq!(planner.count(), 5);
    planner.reported(ControllerUs(1_600_000), true, at(2, 4));
    assert!(planner.wants());
}

/// The count of a controller without steps does not advance.
#[test]
fn an_arm_at_rest_consumes_nothing() {
    let mut planner = following(ChunkPolicy::Replace, 5);
    let start = planner.start_at(ControllerUs(1_450_000));
    planner.reported(ControllerUs(1_600_000), false, at(1, 6));
    planner.reported(ControllerUs(2_600_000), false, at(1, 6));
    assert_eq!((planner.count(), planner.following()), (6, false));
    let planned = planner.plan(&start, &chunk(2), ControllerUs(2_700_000), |_| {}).expect("it is not late");
    assert_eq!((planned.base, planned.delay, planned.start.0), (4, 2, 2_500_000), "step 2 is due now");
    planner.refused();
    let late = planner.plan(&InferenceStart { count: 0, ..start.clone() }, &chunk(3), ControllerUs(2_700_000), |_| {});
    assert_eq!(late, Err(Late::Over { delay: 6, steps: 6 }));
    let late = planner.plan(
        &InferenceStart { count: 6, taken: ControllerUs(600_000), ..start },
        &chunk(3),
        ControllerUs(2_700_000),
        |_| {},
    );
    assert_eq!(
        late,
        Err(Late::Old { age_ms: 2100, validity_ms: 2000 }),
        "an old start is not acted on, however still it was"
    );
}

/// Whatever the delay, no step is executed later than the validity after its images.
#[test]
fn steps_are_valid_from_their_images_on() {
    let mut planner = following(ChunkPolicy::Replace, 2);
    let start = InferenceStart { taken: ControllerUs(0), ..planner.start_at(ControllerUs(1_210_000)) };
    let planned = planner.plan(&start, &chunk(2), ControllerUs(1_300_000), |_| {}).expect("it is not late");
    assert_eq!(planned.start.0 + u64::from(planned.validity_us), 1_800_000.min(start.taken.0 + 2_000_000));
    let start = InferenceStart { taken: ControllerUs(0), ..planner.start_at(ControllerUs(1_210_000)) };
    planner.refused();
    planner.rules.validity_us = 1_400_000;
    let planned = planner.plan(&start, &chunk(2), ControllerUs(1_300_000), |_| {}).expect("it is not late");
    assert_eq!(planned.start.0 + u64::from(planned.validity_us), 1_400_000);
}

/// The controller's own report replaces a lost acknowledgement.
#[test]
fn a_report_stands_for_a_lost_acknowledgement() {
    let mut planner = following(ChunkPolicy::Replace, 2);
    let start = planner.start_at(ControllerUs(1_210_000));
    let planned = planner.plan(&start, &chunk(2), ControllerUs(1_300_000), |_| {}).expect("it is not late");
    planner.reported(ControllerUs(1_400_000), true, at(planned.id, 2));
    assert!(planner.pending().is_none());
    assert_eq!(planner.count(), 4);
}

/// The rest of the chunk, from the step of the images on; the delay is the longest one counted.
#[test]
fn guidance_is_what_is_left() {
    let policy = ChunkPolicy::Rtc { horizon: 4, schedule: Schedule::Linear, max_guidance: 10.0 };
    let mut planner = following(policy, 2);
    let start = planner.start_at(ControllerUs(1_210_000));
    let guide = start.guide.clone().expect("a chunk is followed");
    assert_eq!((guide.left.as_slice(), guide.delay, guide.horizon), ([102.0, 103.0, 104.0, 105.0].as_slice(), 3, 4));
    planner.reported(ControllerUs(1_400_000), true, at(1, 3));
    let planned = planner.plan(&start, &chunk(2), ControllerUs(1_400_000), |_| {}).expect("it is not late");
    planner.accepted(planned.id, 1);
    planner.reported(ControllerUs(1_500_000), true, at(2, 2));
    let guide = planner.start_at(ControllerUs(1_500_000)).guide.expect("a chunk is followed");
    assert_eq!(
        (guide.left.as_slice(), guide.delay),
        ([202.0, 203.0, 204.0, 205.0].as_slice(), 2),
        "1 consumed, 1 under way"
    );
    planner.forget();
    assert_eq!(planner.start_at(ControllerUs(1_600_000)).guide, None, "nothing is followed after a stop");
}
