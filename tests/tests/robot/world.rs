//! The scene's world: jaws that carry what they close on, tasks, and the expert that does them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fathom::scene::math::{Vec3, vec3};
use fathom::scene::{Arm, Expert, LiveWorld, Random, Scene, SceneError, Task, TaskKind, World};

/// Time of a step of the expert in seconds.
const STEP_S: f32 = 1.0 / 15.0;

fn built_in(seed: u64) -> Arc<Scene> {
    Arc::new(Scene::built_in(seed).unwrap())
}

fn task(scene: &Scene, prompt: &str) -> Task {
    scene.task(prompt).unwrap().clone()
}

/// Lets the expert go on until the task is done; the steps that took, or `None` after 12 s.
fn run(expert: &Expert, world: &mut World, task: &Task) -> Option<u32> {
    for step in 0..180 {
        if world.progress(task).unwrap().success {
            return Some(step);
        }
        let next = expert.step(world, task, STEP_S).unwrap();
        world.advance(&next).unwrap();
    }
    None
}

/// A world with the red block in the gripper, lifted, and its expert.
fn holding(seed: u64) -> (World, Expert, Task) {
    let scene = built_in(seed);
    let expert = Expert::new(Arc::clone(&scene)).unwrap();
    let pick = task(&scene, "pick up the red block");
    let mut world = World::new(scene);
    run(&expert, &mut world, &pick).expect("the block is lifted");
    (world, expert, pick)
}

/// Moves one joint by `by` radians.
fn turn(world: &mut World, joint: usize, by: f32) {
    let mut positions = world.joints().to_vec();
    positions[joint] += by;
    world.advance(&positions).unwrap();
}

#[test]
fn jaws_that_close_round_an_object_carry_it_and_opened_let_it_fall() {
    let (mut world, _, pick) = holding(2);
    let before = world.objects()[pick.object].position;
    let progress = world.progress(&pick).unwrap();
    assert!(progress.success && progress.held == Some(pick.object) && !progress.wrong_object, "{progress:?}");
    let tool = world.tool().unwrap();
    turn(&mut world, 0, 0.3);
    let moved = world.objects()[pick.object].position;
    assert!((moved - before).length() > 0.05, "it rides on the hand");
    let apart = |object: Vec3, tool: Vec3| (object - tool).length();
    assert!((apart(moved, world.tool().unwrap()) - apart(before, tool)).abs() < 1e-4, "at the same place in it");
    let others: Vec<Vec3> = world.objects().iter().map(|pose| pose.position).collect();
    turn(&mut world, 5, -0.5);
    assert!(world.held().is_none());
    let fallen = world.objects()[pick.object].position;
    assert!((fallen - vec3(moved.x, moved.y, fallen.z)).length() < 1e-6, "straight down");
    let lift = world.scene().objects()[pick.object].shape.lift();
    let stands = (0..others.len()).any(|other| world.rests_on(pick.object, other));
    let pedestal = world
        .scene()
        .pedestals()
        .iter()
        .any(|under| (fallen.z - lift - (under.pose.position.z + under.shape.top())).abs() < 1e-5);
    assert!((fallen.z - lift).abs() < 1e-5 || stands || pedestal, "on the table, or on what is below: {fallen:?}");
    assert!(world.objects()[pick.object].rotation.z.z > 0.999_99, "upright");
}

#[test]
fn the_jaw_stops_at_the_objects_width() {
    let (mut world, ..) = holding(2);
    let held = *world.held().unwrap();
    let gripper = *world.scene().gripper().unwrap();
    turn(&mut world, gripper.joint, 0.3);
    assert_eq!(world.joints()[gripper.joint], held.stop_rad);
    let gap = gripper.gap(world.scene(), held.stop_rad, held.grasp.position.z);
    assert!((gap - held.width).abs() < 1e-4 && (0.028..0.040).contains(&held.width), "{gap} {held:?}");
    // A little play does not open it.
    let mut positions = world.joints().to_vec();
    positions[gripper.joint] = held.stop_rad - 0.03;
    world.advance(&positions).unwrap();
    assert!(world.held().is_some());
}

#[test]
fn jaws_that_were_closed_before_hold_nothing() {
    let (mut world, expert, pick) = holding(2);
    let gripper = *world.scene().gripper().unwrap();
    let positions = world.joints().to_vec();
    turn(&mut world, gripper.joint, -0.6);
    // The jaws, closed, come to where the block stands.
    let place = world.objects()[pick.object].position;
    let mut closed = positions.clone();
    closed[gripper.joint] = gripper.closed_rad;
    let mut world_closed = World::new(Arc::clone(world.scene()));
    world_closed.place(&closed).unwrap();
    let grasp = expert.goal(&world, &pick).unwrap();
    closed[..5].copy_from_slice(&grasp[..5]);
    world_closed.advance(&closed).unwrap();
    assert!(world_closed.held().is_none());
    assert!(place.is_finite());
}

#[test]
fn the_same_movements_give_the_same_world() {
    let (one, ..) = holding(5);
    let (other, ..) = holding(5);
    assert_eq!((one.joints(), one.objects(), one.held()), (other.joints(), other.objects(), other.held()));
}

#[test]
fn what_is_put_down_stands_on_what_is_below() {
    for seed in 0..20 {
        let scene = built_in(seed);
        let expert = Expert::new(Arc::clone(&scene)).unwrap();
        let place = task(&scene, "put the green cylinder on the white plate");
        let mut world = World::new(Arc::clone(&scene));
        run(&expert, &mut world, &place).unwrap_or_else(|| panic!("seed {seed}"));
        let target = place.target.unwrap();
        assert!(world.rests_on(place.object, target) && !world.rests_on(target, place.object));
        let top = world.top_of(target).unwrap();
        let bottom = world.objects()[place.object].position.z - scene.objects()[place.object].shape.lift();
        assert!((bottom - top.z).abs() < 1e-5);
        // The expert leaves it there.
        for _ in 0..30 {
            let next = expert.step(&world, &place, STEP_S).unwrap();
            world.advance(&next).unwrap();
            assert!(world.progress(&place).unwrap().success, "seed {seed}");
        }
        assert!(world.tool().unwrap().z > top.z + 0.08, "seed {seed}: the hand goes away");
    }
}

#[test]
fn every_seed_lays_out_a_table_on_which_every_task_can_be_done() {
    let (mut pedestals, mut reaches) = (0, (f32::MAX, 0.0_f32));
    for seed in 0..1000 {
        let scene = built_in(seed);
        let arm = Arm::of(scene.joints(), scene.tool()).unwrap();
        pedestals += scene.pedestals().len();
        for (index, object) in scene.objects().iter().enumerate() {
            let at = object.pose.position;
            let (radius, angle) = (at.x.hypot(at.y), at.y.atan2(at.x));
            assert!((0.19..0.321).contains(&radius) && angle.abs() < 0.86, "seed {seed}: {}", object.name);
            reaches = (reaches.0.min(radius), reaches.1.max(radius));
            for above in [0.0, 0.02, 0.09] {
                let point = at + vec3(0.0, 0.0, object.shape.top() + above);
                assert!(arm.solve(scene.joints(), point).is_some(), "seed {seed}: {}", object.name);
            }
            for other in &scene.objects()[index + 1..] {
                let apart = (at.x - other.pose.position.x).hypot(at.y - other.pose.position.y);
                assert!(apart >= object.shape.reach() + other.shape.reach(), "seed {seed}");
            }
        }
    }
    assert!((500..1500).contains(&pedestals), "{pedestals} pedestals of 3,000 objects");
    assert!(reaches.0 < 0.195 && reaches.1 > 0.315, "{reaches:?}");
}

#[test]
fn seeds_change_sizes_colours_light_and_cameras() {
    let (one, other) = (built_in(1), built_in(2));
    assert_ne!(one.objects()[0].shape, other.objects()[0].shape);
    assert_ne!(one.objects()[0].color, other.objects()[0].color);
    assert_ne!(one.light(), other.light());
    let [a, b] = [&one, &other].map(|scene| scene.cameras()[0].pose);
    let moved = (a.position - b.position).length();
    assert!(moved > 1e-4 && moved < 2.0 * 0.015 * 3.0_f32.sqrt(), "{moved}");
    assert!(a.rotation.z.dot(b.rotation.z) > 0.99 && a.rotation != b.rotation);
}

#[test]
fn the_expert_does_every_task_from_any_start() {
    for seed in 0..40 {
        let scene = built_in(seed);
        let expert = Expert::new(Arc::clone(&scene)).unwrap();
        for task in scene.tasks() {
            let mut world = World::new(Arc::clone(&scene));
            world.place(&expert.random_start(&mut Random::new(seed))).unwrap();
            let steps = run(&expert, &mut world, task);
            assert!(steps.is_some_and(|steps| steps < 120), "seed {seed}: {} took {steps:?} steps", task.prompt);
        }
    }
}

#[test]
fn the_expert_lets_another_object_go_and_does_its_task() {
    for seed in 0..10 {
        let (mut world, expert, _) = holding(seed);
        let scene = Arc::clone(world.scene());
        for prompt in ["reach for the red block", "pick up the blue block", "put the green cylinder on the white plate"]
        {
            let mut world = world.clone();
            let task = task(&scene, prompt);
            assert!(run(&expert, &mut world, &task).is_some(), "seed {seed}: {prompt}");
        }
        let blue = task(&scene, "pick up the blue block");
        assert!(world.progress(&blue).unwrap().wrong_object);
        turn(&mut world, 5, -0.6);
        assert!(!world.progress(&blue).unwrap().wrong_object);
    }
}

#[test]
fn a_plan_is_the_steps_that_the_expert_takes() {
    let scene = built_in(4);
    let expert = Expert::new(Arc::clone(&scene)).unwrap();
    let task = task(&scene, "put the red block on the white plate");
    let mut world = World::new(Arc::clone(&scene));
    for _ in 0..6 {
        let plan = expert.plan(&world, &task, STEP_S, 16).unwrap();
        assert_eq!(plan.len(), 16);
        for planned in plan {
            let step = expert.step(&world, &task, STEP_S).unwrap();
            assert_eq!(step, planned);
            for ((to, from), joint) in step.iter().zip(world.joints()).zip(scene.joints()) {
                assert!((to - from).abs() <= joint.velocity_limit_rad_s * STEP_S, "{}", joint.name);
            }
            world.advance(&step).unwrap();
        }
    }
}

#[test]
fn prompts_ask_for_tasks() {
    let scene = built_in(0);
    let asked = |prompt: &str| scene.task(prompt).map(|task| (task.kind, task.object, task.target)).ok();
    let index = |name: &str| scene.objects().iter().position(|object| object.name == name).unwrap();
    let [red, blue, green, plate] = ["red block", "blue block", "green cylinder", "white plate"].map(index);
    assert_eq!(asked("reach for the red block"), Some((TaskKind::Reach, red, None)));
    assert_eq!(asked("Pick up the BLUE block, please."), Some((TaskKind::Pick, blue, None)));
    assert_eq!(asked("put the green cylinder on the white plate"), Some((TaskKind::Place, green, Some(plate))));
    assert_eq!(asked("put the red one on the plate"), Some((TaskKind::Place, red, Some(plate))));
    assert_eq!(scene.tasks().len(), 9);
    let error = scene.task("wave").unwrap_err();
    assert!(
        error.to_string().starts_with("the prompt \"wave\" is none of the scene's tasks: reach for the red block; ")
    );
    let error = scene.task("pick up the block").unwrap_err();
    assert!(matches!(error, SceneError::AmbiguousPrompt { .. }), "{error}");
}

#[test]
fn a_live_world_misses_no_grasp_between_images() {
    let scene = built_in(3);
    let expert = Expert::new(Arc::clone(&scene)).unwrap();
    let pick = task(&scene, "pick up the green cylinder");
    let joints = Arc::new(Mutex::new(scene.initial_positions().collect::<Vec<f32>>()));
    let stopped = Arc::new(AtomicBool::new(false));
    let source = {
        let joints = Arc::clone(&joints);
        move |into: &mut [f32]| into.copy_from_slice(&joints.lock().unwrap())
    };
    let stop = {
        let stopped = Arc::clone(&stopped);
        move |angle: Option<f32>| stopped.store(angle.is_some(), Ordering::Relaxed)
    };
    let live = LiveWorld::start(World::new(Arc::clone(&scene)), Arc::new(source), Box::new(stop)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let world = live.now();
        if world.progress(&pick).unwrap().success {
            break;
        }
        assert!(Instant::now() < deadline, "the cylinder was not picked up");
        let next = expert.step(&world, &pick, STEP_S).unwrap();
        *joints.lock().unwrap() = next;
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(stopped.load(Ordering::Relaxed), "the jaw is told where it is stopped");
}

#[test]
fn an_arm_of_another_form_has_no_expert() {
    let text = Scene::built_in_text().replace("axis = [0.0, 1.0, 0.0]", "axis = [0.0, 1.0, 0.2]");
    let scene = Scene::from_toml(&text, "other.toml", 0).unwrap();
    let error = Expert::new(Arc::new(scene)).unwrap_err();
    assert!(error.to_string().starts_with("scene \"tabletop\": no expert for its arm; expected a gripper"), "{error}");
    let crowded = Scene::built_in_text().replace("radius_m = [0.19, 0.32]", "radius_m = [0.19, 0.20]");
    let crowded = crowded.replace("angle_rad = [-0.85, 0.85]", "angle_rad = [0.0, 0.05]");
    let error = Scene::from_toml(&crowded, "crowded.toml", 7).unwrap_err();
    assert!(error.to_string().starts_with("crowded.toml: seed 7: no place for \""), "{error}");
}

#[test]
fn an_object_between_the_jaws_stops_the_simulated_joint() {
    use firmware_bridge::joint::Unit;
    use firmware_bridge::sim::{Sim, SimConfig, SimJoint};
    let jaw = SimJoint {
        name: "gripper".to_owned(),
        unit: Unit::Radian,
        min: -0.6,
        max: 0.75,
        velocity: 4.0,
        acceleration: 32.0,
        jump: 2.0,
        initial: 0.0,
    };
    let sim = Sim::start(SimConfig::new(vec![jaw])).unwrap();
    let joints = sim.joints();
    let reaches = |expected: f32| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while joints.positions() != [expected] {
            assert!(Instant::now() < deadline, "{:?}, not {expected}", joints.positions());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    joints.stop(Some((0, 0.2)));
    joints.place(&[0.5]);
    reaches(0.2);
    joints.stop(None);
    joints.place(&[0.5]);
    reaches(0.5);
}
