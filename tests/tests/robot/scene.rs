//! The simulated scene: what is drawn is where geometry says, and nothing else than the seed and the
//! joints decides it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::f32::consts::FRAC_PI_2;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fathom::camera::{Camera, CameraError, Image, PixelFormat, StampSource};
use fathom::scene::math::{Vec3, vec3};
use fathom::scene::{FixedJoints, Renderer, Scene, SceneCamera, SceneError};

const SECOND: Duration = Duration::from_secs(1);

/// A camera 1 m above the table's middle that looks straight down on three solids.
const DOWN: &str = r#"
name = "down"
table = { center = [0.0, 0.0], size = [2.0, 2.0], thickness = 0.1, color = [0.5, 0.5, 0.5], checker_color = [0.5, 0.5, 0.5], checker_size = 0.1, floor = -0.5, floor_color = [0.2, 0.2, 0.2] }
light = { position = [0.0, 0.0, 3.0], ambient = 0.5, sky_color = [1.0, 1.0, 1.0] }
joints = [{ name = "turn", axis = [0.0, 0.0, 2.0], origin = [0.0, -0.4, 0.0], limits_rad = [-2.0, 2.0], initial_rad = 0.0, velocity_limit_rad_s = 1.0 }]
tool = { joint = "turn", offset = [0.1, 0.0, 0.0] }
objects = [
  { name = "white ball", shape = { sphere = { radius = 0.1 } }, color = [1.0, 1.0, 1.0], position = [0.0, 0.0] },
  { name = "red box", shape = { box = { size = [0.1, 0.1, 0.3] } }, color = [1.0, 0.0, 0.0], position = [0.0, 0.3] },
  { name = "green can", shape = { cylinder = { radius = 0.05, height = 0.2 } }, color = [0.0, 1.0, 0.0], position = [0.3, 0.0] },
]

[[cameras]]
name = "above"
position = [0.0, 0.0, 1.0]
look_at = [0.0, 0.0, 0.0]
up = [1.0, 0.0, 0.0]
vertical_fov_rad = 1.5707964
width = 101
height = 101
"#;

fn down() -> Arc<Scene> {
    Arc::new(Scene::from_toml(DOWN, "down.toml", 0).unwrap())
}

fn built_in(seed: u64) -> Arc<Scene> {
    Arc::new(Scene::built_in(seed).unwrap())
}

/// Pixels and depth of one camera, with the joints at their initial positions where none are given.
fn draw(scene: &Arc<Scene>, camera: &str, positions: Option<&[f32]>) -> (Vec<u8>, Vec<f32>) {
    let camera = scene.camera_index(camera).unwrap();
    let initial: Vec<f32> = scene.initial_positions().collect();
    let mut renderer = Renderer::new(Arc::clone(scene), camera).unwrap();
    let (width, height) = renderer.size();
    let mut rgb = vec![0; (width * height * 3) as usize];
    let mut depth = vec![0.0; (width * height) as usize];
    renderer.render(positions.unwrap_or(&initial), &mut rgb, &mut depth).unwrap();
    (rgb, depth)
}

fn close(found: Vec3, expected: Vec3) -> bool {
    (found - expected).length() < 1e-5
}

#[test]
fn depth_is_the_distance_along_the_optical_axis() {
    let scene = down();
    let view = scene.view(0, &[0.0]).unwrap();
    assert!((view.focal - 50.5).abs() < 1e-4, "a right angle sees as far as it is wide");
    let (rgb, depth) = draw(&scene, "above", None);
    let at = |x: usize, y: usize| depth[y * 101 + x];
    // The middle pixel's ray is the optical axis: 1 m less the ball's 0.2 m.
    assert!((at(50, 50) - 0.8).abs() < 1e-5, "{}", at(50, 50));
    // Image up is x, so image right is -y: the box's top, 0.7 m away, is left of the middle.
    let box_top = view.project(vec3(0.0, 0.3, 0.3)).unwrap();
    assert!((box_top.x - (50.5 - 50.5 * 0.3 / 0.7)).abs() < 1e-3 && (box_top.y - 50.5).abs() < 1e-3);
    let (x, y) = (box_top.x as usize, box_top.y as usize);
    assert!((at(x, y) - 0.7).abs() < 1e-5 && (box_top.depth - 0.7).abs() < 1e-5);
    let [red, green, blue] = [0, 1, 2].map(|part| rgb[(y * 101 + x) * 3 + part]);
    assert!(red > 150 && green < 60 && blue < 60, "{red} {green} {blue}");
    // The can's top is above the middle.
    let can_top = view.project(vec3(0.3, 0.0, 0.2)).unwrap();
    assert!(can_top.y < 50.0);
    assert!((at(can_top.x as usize, can_top.y as usize) - 0.8).abs() < 1e-5);
    // The table's depth is the same under every ray, however slant.
    for (x, y) in [(0, 0), (100, 0), (3, 98), (60, 90)] {
        assert!((at(x, y) - 1.0).abs() < 1e-5, "({x}, {y}): {}", at(x, y));
    }
    assert_eq!(view.project(vec3(0.0, 0.0, 1.5)), None, "behind the camera");
}

#[test]
fn a_slant_ray_meets_the_table_where_geometry_says() {
    let scene = built_in(1);
    let initial: Vec<f32> = scene.initial_positions().collect();
    let view = scene.view(0, &initial).unwrap();
    let (_, depth) = draw(&scene, "base", None);
    // The lower right corner of the image shows bare table.
    let (x, y) = (215_usize, 215_usize);
    let ray = view.ray(x as f32 + 0.5, y as f32 + 0.5);
    let expected = -view.pose.position.z / ray.z;
    let found = depth[y * 224 + x];
    assert!((found - expected).abs() < 1e-4, "{found} m, not {expected} m");
}

#[test]
fn objects_appear_where_they_project_to() {
    let mut visible = 0;
    for seed in 0..8 {
        let scene = built_in(seed);
        let initial: Vec<f32> = scene.initial_positions().collect();
        let view = scene.view(0, &initial).unwrap();
        let (rgb, depth) = draw(&scene, "base", None);
        for (name, part) in [("red block", 0), ("green cylinder", 1), ("blue block", 2)] {
            // The upper third of an object is seldom hidden.
            let object = scene.find(name).unwrap();
            let seen = view.project(object.pose.position + vec3(0.0, 0.0, 0.01)).unwrap();
            let index = seen.y as usize * 224 + seen.x as usize;
            let pixel = &rgb[index * 3..index * 3 + 3];
            let strongest = (0..3).max_by_key(|part| pixel[*part]).unwrap();
            // The arm, or another object, may stand before this one.
            let hidden = depth[index] < seen.depth - 0.04;
            assert!(hidden || strongest == part, "seed {seed}, {name}: {pixel:?}");
            visible += u32::from(!hidden);
        }
    }
    assert!(visible >= 20, "{visible} of 24");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for camera in ["base", "wrist"] {
        let (rgb, depth) = draw(&built_in(7), camera, None);
        assert_eq!((rgb.clone(), depth), draw(&built_in(7), camera, None));
        assert_ne!(rgb, draw(&built_in(8), camera, None).0, "another seed, other places");
    }
    let place = |seed| built_in(seed).objects()[0].pose.position;
    assert!((place(7) - place(8)).length() > 1e-3);
}

#[test]
fn objects_stay_on_the_table_and_apart() {
    for seed in 0..200 {
        let scene = built_in(seed);
        for (index, object) in scene.objects().iter().enumerate() {
            let at = object.pose.position;
            let table = scene.table();
            assert!((at.x - table.center[0]).abs() < table.size[0] / 2.0);
            assert!((at.y - table.center[1]).abs() < table.size[1] / 2.0);
            for other in &scene.objects()[index + 1..] {
                let apart = (at - other.pose.position).length();
                assert!(apart > 0.04, "seed {seed}: {apart} m between two objects");
            }
        }
    }
}

#[test]
fn another_pose_of_the_arm_gives_another_image_and_depth() {
    let scene = built_in(0);
    let mut positions: Vec<f32> = scene.initial_positions().collect();
    for camera in ["base", "wrist"] {
        let before = draw(&scene, camera, Some(&positions));
        for joint in 0..positions.len() {
            positions[joint] += 0.2;
            let after = draw(&scene, camera, Some(&positions));
            assert_ne!(before.0, after.0, "joint {joint} moved, {camera} saw nothing");
            assert_ne!(before.1, after.1, "joint {joint} moved, {camera} saw nothing");
            positions[joint] -= 0.2;
        }
    }
}

#[test]
fn the_tool_is_where_the_joints_put_it() {
    let scene = built_in(0);
    let tool = |positions: [f32; 6]| scene.end_effector(&positions).unwrap();
    // Straight up: the joints' origins and the tool's offset add up.
    assert!(close(tool([0.0; 6]), vec3(0.0, 0.0, 0.522)));
    // The shoulder, 0.12 m above the table, laid forwards; then the whole turned to the left.
    assert!(close(tool([0.0, FRAC_PI_2, 0.0, 0.0, 0.0, 0.0]), vec3(0.402, 0.0, 0.12)));
    assert!(close(tool([FRAC_PI_2, FRAC_PI_2, 0.0, 0.0, 0.0, 0.0]), vec3(0.0, 0.402, 0.12)));
    // Upper arm up (0.15 m), elbow forwards: 0.14 + 0.04 + 0.072 m from 0.27 m above the table.
    assert!(close(tool([0.0, 0.0, FRAC_PI_2, 0.0, 1.0, 0.5]), vec3(0.252, 0.0, 0.27)));
    let mut links = Vec::new();
    scene.link_poses(&[0.0, 0.0, FRAC_PI_2, 0.0, 0.0, 0.0], &mut links).unwrap();
    assert_eq!(links.len(), 6);
    assert!(close(links[3].position, vec3(0.14, 0.0, 0.27)));
    assert!(close(links[3].apply(vec3(0.0, 0.0, 1.0)), vec3(1.14, 0.0, 0.27)));
}

#[test]
fn joints_that_make_no_sense_are_errors() {
    let scene = built_in(0);
    let error = scene.end_effector(&[0.0; 5]).unwrap_err();
    assert_eq!(error.to_string(), "5 joint positions for an arm of 6 joints");
    let error = scene.end_effector(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0]).unwrap_err();
    assert_eq!(error.to_string(), "the position of joint \"elbow_flex\" is NaN rad");
    let error = scene.camera_index("ceiling").unwrap_err();
    assert_eq!(error.to_string(), "the scene has no camera \"ceiling\"; its cameras are base, wrist");
    assert!(Renderer::new(Arc::clone(&scene), 2).is_err());
    let mut renderer = Renderer::new(scene, 0).unwrap();
    let error = renderer.render(&[0.0; 6], &mut [0; 3], &mut []).unwrap_err();
    assert!(matches!(error, SceneError::Buffer { what: "pixels", found: 3, .. }), "{error}");
}

#[test]
fn prompts_name_objects() {
    let scene = built_in(0);
    let find = |prompt| scene.find(prompt).map(|object| object.name.as_str());
    assert_eq!(find("reach for the red block"), Some("red block"));
    assert_eq!(find("Touch the BLUE block, please."), Some("blue block"));
    assert_eq!(find("green"), Some("green cylinder"));
    assert_eq!(find("the red one"), Some("red block"));
    assert_eq!(find("pick up the block"), None, "there are two");
    assert_eq!(find("wave"), None);
    assert_eq!(find(""), None);
}

#[test]
fn bad_scene_files_are_errors_that_name_the_key() {
    let cases = [
        ("name = \"down\"", "name = \"down\"\ncolour = 1", "colour"),
        ("ambient = 0.5", "ambient = 1.5", "light.ambient is 1.5; expected 0 to 1"),
        ("ambient = 0.5, ", "", "ambient"),
        ("thickness = 0.1", "thickness = -0.1", "table.thickness is -0.1"),
        ("checker_size = 0.1", "checker_size = 0.0", "table.checker_size"),
        ("floor = -0.5", "floor = 0.5", "table.floor is 0.5"),
        (
            "initial_rad = 0.0",
            "initial_rad = 2.5",
            "joints[0].initial_rad is 2.5; expected a position within limits_rad, -2 to 2",
        ),
        ("limits_rad = [-2.0, 2.0]", "limits_rad = [2.0, -2.0]", "joints[0].limits_rad"),
        ("limits_rad = [-2.0, 2.0]", "limits_rad = [2.0]", "limits_rad"),
        ("axis = [0.0, 0.0, 2.0]", "axis = [0.0, 0.0, 0.0]", "joints[0].axis"),
        ("velocity_limit_rad_s = 1.0", "velocity_limit_rad_s = inf", "joints[0].velocity_limit_rad_s"),
        ("offset = [0.1, 0.0, 0.0]", "offset = [nan, 0.0, 0.0]", "tool.offset"),
        ("joint = \"turn\"", "joint = \"hand\"", "tool.joint is \"hand\"; expected the name of a joint: turn"),
        ("radius = 0.1", "radius = 0.0", "objects[0].shape.sphere.radius is 0.0"),
        ("sphere =", "cone =", "cone"),
        ("color = [1.0, 0.0, 0.0]", "color = [255.0, 0.0, 0.0]", "objects[1].color"),
        ("name = \"red box\"", "name = \"white ball\"", "objects[1].name is \"white ball\""),
        ("position = [0.3, 0.0]", "position = [0.3, 1.1]", "objects[2].position[1] is 1.1"),
        ("position = [0.3, 0.0]", "position = [0.3, 0.0], random = [0.8, 0.0]", "objects[2].position[0]"),
        ("position = [0.3, 0.0]", "position = [0.3, 0.0], random = [-0.1, 0.0]", "objects[2].random[0]"),
        (", position = [0.3, 0.0]", "", "objects[2].position is \"absent\"; expected a place, or `sector`"),
        (
            "position = [0.3, 0.0]",
            "sector = { radius_m = [0.3, 0.2], angle_rad = [0.0, 1.0] }",
            "objects[2].sector.radius_m",
        ),
        (
            "position = [0.3, 0.0]",
            "sector = { radius_m = [0.2, 1.2], angle_rad = [0.0, 1.0] }",
            "a ring sector on the table",
        ),
        (
            "position = [0.3, 0.0]",
            "sector = { radius_m = [0.2, 0.3], angle_rad = [0.0, 9.0] }",
            "objects[2].sector.angle_rad[1]",
        ),
        (
            "position = [0.3, 0.0]",
            "position = [0.3, 0.0], random_size = [0.0, 1.0]",
            "objects[2].random_size[0] is 0.0",
        ),
        ("position = [0.3, 0.0]", "position = [0.3, 0.0], random_color = 2.0", "objects[2].random_color"),
        (
            "position = [0.3, 0.0]",
            "position = [0.3, 0.0], pedestal = { probability = 1.5, height_m = [0.0, 0.1], color = [0.0, 0.0, 0.0] }",
            "objects[2].pedestal.probability is 1.5; expected 0 to 1",
        ),
        (
            "width = 101",
            "width = 101\nrandom_position_mm = -1.0",
            "cameras[0].random_position_mm is -1.0; expected 0 to 10000 mm",
        ),
        ("width = 101", "width = 101\nrandom_turn_deg = 200.0", "cameras[0].random_turn_deg"),
        ("name = \"down\"", "name = \"down\"\nrandom_light = { ambient = 2.0 }", "random_light.ambient is 2.0"),
        (
            "name = \"down\"",
            "name = \"down\"\ntasks = [{ kind = \"pick\", prompt = \"pick\", objects = [\"red box\"] }]",
            "tasks[0].prompt is \"pick\"; expected an instruction with {object} in it",
        ),
        (
            "name = \"down\"",
            "name = \"down\"\ntasks = [{ kind = \"pick\", prompt = \"pick {object}\", objects = [\"cup\"] }]",
            "tasks[0].objects[0] is \"cup\"; expected the name of an object: white ball, red box, green can",
        ),
        (
            "name = \"down\"",
            "name = \"down\"\ngripper = { joint = \"turn\", fixed_face = 0.0, moving_face = 0.0, half_width = 0.1, depth = [0.0, 0.1], open_rad = 0.0, closed_rad = 1.0 }",
            "gripper.joint is \"turn\"; expected a joint after the first that turns about its x axis",
        ),
        ("look_at = [0.0, 0.0, 0.0]", "look_at = [0.0, 0.0, 1.0]", "cameras[0].look_at"),
        ("up = [1.0, 0.0, 0.0]", "up = [0.0, 0.0, 1.0]", "cameras[0].look_at"),
        ("vertical_fov_rad = 1.5707964", "vertical_fov_rad = 4.0", "cameras[0].vertical_fov_rad"),
        ("width = 101", "width = 0", "cameras[0].width is 0; expected 1 to 4096 pixels"),
        ("height = 101", "height = 101\nmount = \"hand\"", "cameras[0].mount is \"hand\""),
        ("height = 101", "height = 101\nfps = 3", "fps"),
    ];
    for (right, wrong, expected) in cases {
        assert!(DOWN.contains(right), "{right}");
        let error = Scene::from_toml(&DOWN.replacen(right, wrong, 1), "lab.toml", 0).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("lab.toml: ") && message.contains(expected), "{wrong}: {message}");
    }
    let error = Scene::load(std::path::Path::new("nowhere/lab.toml"), 0).unwrap_err();
    assert!(error.to_string().starts_with("nowhere/lab.toml: cannot read"), "{error}");
}

#[test]
fn the_scenes_camera_sees_the_joints_move_without_allocating() {
    let scene = built_in(3);
    let pan = Arc::new(AtomicU32::new(0));
    let source = {
        let pan = Arc::clone(&pan);
        move |into: &mut [f32]| {
            if let Some(first) = into.first_mut() {
                *first = f32::from_bits(pan.load(Ordering::Relaxed));
            }
        }
    };
    let mut camera = SceneCamera::new(Arc::clone(&scene), "base", Arc::new(source), 0.0).unwrap();
    let described = "camera \"base\" of scene \"tabletop\": RGB24 224×224 with true depth, on request";
    assert_eq!(camera.describe(), described);
    let mut image = Image::default();
    camera.capture(&mut image, SECOND).unwrap();
    image.check("scene").unwrap();
    assert_eq!((image.format, image.width, image.height), (PixelFormat::Rgb24, 224, 224));
    assert_eq!((image.stamp, image.sequence), (StampSource::Host, 0));
    assert!(image.stamp_ns <= image.dequeued_ns);
    let (before, depth) = (image.data.clone(), camera.true_depth().unwrap().to_vec());
    pan.store(0.8_f32.to_bits(), Ordering::Relaxed);
    let allocations = crate::counting::allocations(|| camera.capture(&mut image, SECOND).unwrap());
    assert_eq!(allocations, 0);
    assert_eq!(image.sequence, 1);
    assert_eq!(camera.positions()[0], 0.8);
    assert_ne!(image.data, before);
    assert_ne!(camera.true_depth().unwrap(), depth);
    let expected: Vec<f32> = [0.8].into_iter().chain(scene.initial_positions().skip(1)).collect();
    assert_eq!(draw(&scene, "base", Some(&expected)).0, image.data);
}

#[test]
fn the_scenes_camera_keeps_its_rate_and_refuses_nonsense() {
    fathom_contention::timed!();
    let scene = built_in(0);
    let still = Arc::new(FixedJoints::default());
    let mut camera = SceneCamera::new(Arc::clone(&scene), "wrist", still, 10.0).unwrap();
    let mut image = Image::default();
    camera.capture(&mut image, SECOND).unwrap();
    let first_ns = image.stamp_ns;
    camera.capture(&mut image, SECOND).unwrap();
    let waited_ms = (image.stamp_ns - first_ns) / 1_000_000;
    assert!(waited_ms >= 60, "{waited_ms} ms between images at 10 Hz");
    // Drawing may take as long as a period on a loaded machine; this wait then needs none.
    if let Err(error) = camera.capture(&mut image, Duration::ZERO) {
        assert!(matches!(error, CameraError::Silent { .. }), "{error}");
    }
    let broken = Arc::new(FixedJoints(vec![f32::INFINITY]));
    let mut camera = SceneCamera::new(scene, "wrist", broken, 0.0).unwrap();
    let error = camera.capture(&mut image, SECOND).unwrap_err();
    assert_eq!(
        error.to_string(),
        "camera \"wrist\" of scene \"tabletop\": the position of joint \"shoulder_pan\" is inf rad"
    );
}
