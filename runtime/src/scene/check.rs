//! Checks of a scene file's values.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use super::error::SceneError;
use super::file::{CameraEntry, GripperEntry, ObjectEntry, PedestalEntry, RandomLight, Sector, TaskEntry};
use super::math::{Pose, Rotation, Vec3, vec3};
use super::tasks::TaskKind;
use super::{CameraSpec, Gripper, Joint, Light, Part, Shape, Table};
use crate::bounds::{self, Bounds};

/// A vector up to this length, in metres, has no direction.
const SHORT: f32 = 1e-6;

/// Checks of values; each failure names the file and the key.
pub(super) struct Check<'a> {
    pub(super) file: &'a str,
}

impl Check<'_> {
    pub(super) fn wrong(&self, key: &str, found: &impl Debug, expected: &str) -> SceneError {
        SceneError::Value {
            file: self.file.to_owned(),
            key: key.to_owned(),
            found: format!("{found:?}"),
            expected: expected.to_owned(),
        }
    }

    pub(super) fn that(&self, right: bool, key: &str, found: impl Debug, expected: &str) -> Result<(), SceneError> {
        if right { Ok(()) } else { Err(self.wrong(key, &found, expected)) }
    }

    fn within<T: Copy + Debug + Display + FromStr + PartialOrd>(
        &self,
        key: &str,
        bounds: &Bounds<T>,
        value: T,
    ) -> Result<(), SceneError> {
        bounds.check(value).map(drop).map_err(|e| self.wrong(key, &value, &e.expected))
    }

    fn each(&self, key: &str, bounds: &Bounds<f32>, v: Vec3) -> Result<(), SceneError> {
        [v.x, v.y, v.z].iter().enumerate().try_for_each(|(i, part)| self.within(&format!("{key}[{i}]"), bounds, *part))
    }

    pub(super) fn place(&self, key: &str, v: Vec3) -> Result<(), SceneError> {
        self.each(key, &bounds::SCENE_M, v)
    }

    fn length(&self, key: &str, metres: f32) -> Result<(), SceneError> {
        self.within(key, &bounds::SCENE_LENGTH_M, metres)
    }

    fn color(&self, key: &str, color: Vec3) -> Result<(), SceneError> {
        let right = [color.x, color.y, color.z].iter().all(|part| bounds::SCENE_SHARE.check(*part).is_ok());
        self.that(right, key, color, "red, green and blue, each from 0 to 1")
    }

    pub(super) fn names<'n>(&self, key: &str, names: impl Iterator<Item = &'n str>) -> Result<(), SceneError> {
        let mut seen = Vec::new();
        for (index, name) in names.enumerate() {
            let key = format!("{key}[{index}].name");
            self.that(!name.trim().is_empty(), &key, name, "a name")?;
            self.that(!seen.contains(&name), &key, name, "a unique name")?;
            seen.push(name);
        }
        Ok(())
    }

    fn shape(&self, key: &str, shape: &Shape) -> Result<(), SceneError> {
        match *shape {
            Shape::Box { size } => self.each(&format!("{key}.box.size"), &bounds::SCENE_LENGTH_M, size),
            Shape::Cylinder { radius, height } => {
                self.length(&format!("{key}.cylinder.radius"), radius)?;
                self.length(&format!("{key}.cylinder.height"), height)
            }
            Shape::Sphere { radius } => self.length(&format!("{key}.sphere.radius"), radius),
            Shape::Capsule { from, to, radius } => {
                self.place(&format!("{key}.capsule.from"), from)?;
                self.place(&format!("{key}.capsule.to"), to)?;
                self.length(&format!("{key}.capsule.radius"), radius)
            }
        }
    }

    pub(super) fn table(&self, table: &Table) -> Result<(), SceneError> {
        let [x, y] = table.center;
        self.place("table.center", vec3(x, y, 0.0))?;
        self.length("table.size[0]", table.size[0])?;
        self.length("table.size[1]", table.size[1])?;
        self.length("table.thickness", table.thickness)?;
        self.length("table.checker_size", table.checker_size)?;
        self.within("table.floor", &bounds::SCENE_M, table.floor)?;
        let below = table.floor <= -table.thickness;
        let expected = "a height below the table's underside, in metres";
        self.that(below, "table.floor", table.floor, expected)?;
        self.color("table.color", table.color)?;
        self.color("table.checker_color", table.checker_color)?;
        self.color("table.floor_color", table.floor_color)
    }

    pub(super) fn light(&self, light: &Light) -> Result<(), SceneError> {
        self.place("light.position", light.position)?;
        self.within("light.ambient", &bounds::SCENE_SHARE, light.ambient)?;
        self.color("light.sky_color", light.sky_color)
    }

    pub(super) fn part(&self, key: &str, part: &Part) -> Result<(), SceneError> {
        self.shape(&format!("{key}.shape"), &part.shape)?;
        self.place(&format!("{key}.position"), part.position)?;
        self.color(&format!("{key}.color"), part.color)
    }

    pub(super) fn joint(&self, key: &str, joint: &Joint) -> Result<(), SceneError> {
        self.each(&format!("{key}.axis"), &bounds::SCENE_DIRECTION, joint.axis)?;
        self.that(joint.axis.length() > SHORT, &format!("{key}.axis"), joint.axis, "a direction")?;
        self.place(&format!("{key}.origin"), joint.origin)?;
        let [low, high] = joint.limits_rad;
        for (index, limit) in [low, high].into_iter().enumerate() {
            self.within(&format!("{key}.limits_rad[{index}]"), &bounds::SCENE_ANGLE_RAD, limit)?;
        }
        let limits = low < high;
        let expected = "the least position, then the greatest";
        self.that(limits, &format!("{key}.limits_rad"), joint.limits_rad, expected)?;
        let inside = (low..=high).contains(&joint.initial_rad);
        let expected = format!("a position within limits_rad, {low} to {high}");
        self.that(inside, &format!("{key}.initial_rad"), joint.initial_rad, &expected)?;
        let speed = joint.velocity_limit_rad_s;
        self.within(&format!("{key}.velocity_limit_rad_s"), &bounds::SCENE_SPEED_RAD_S, speed)?;
        for (index, part) in joint.shapes.iter().enumerate() {
            self.part(&format!("{key}.shapes[{index}]"), part)?;
        }
        Ok(())
    }

    pub(super) fn object(&self, key: &str, entry: &ObjectEntry, table: &Table) -> Result<(), SceneError> {
        self.shape(&format!("{key}.shape"), &entry.shape)?;
        self.color(&format!("{key}.color"), entry.color)?;
        match (&entry.sector, entry.position) {
            (Some(sector), None) => self.sector(&format!("{key}.sector"), sector, table)?,
            (None, Some(_)) => {}
            (Some(_), Some(place)) => {
                return Err(self.wrong(&format!("{key}.position"), &place, "none beside `sector`"));
            }
            (None, None) => return Err(self.wrong(&format!("{key}.position"), &"absent", "a place, or `sector`")),
        }
        for (end, factor) in entry.random_size.iter().flatten().enumerate() {
            self.within(&format!("{key}.random_size[{end}]"), &bounds::SCENE_FACTOR, *factor)?;
        }
        self.rising(&format!("{key}.random_size"), entry.random_size.unwrap_or([1.0; 2]))?;
        self.within(&format!("{key}.random_color"), &bounds::SCENE_SHARE, entry.random_color)?;
        if let Some(pedestal) = &entry.pedestal {
            self.pedestal(&format!("{key}.pedestal"), pedestal)?;
        }
        for (axis, random) in entry.random.into_iter().enumerate() {
            self.within(&format!("{key}.random[{axis}]"), &bounds::SCENE_RANDOM_M, random)?;
        }
        for (axis, ((at, random), (center, size))) in
            entry.position.iter().flatten().zip(entry.random).zip(table.center.iter().zip(table.size)).enumerate()
        {
            let right = (at - center).abs() + random <= size / 2.0;
            let expected = "a place which, moved by `random`, is still on the table";
            self.that(right, &format!("{key}.position[{axis}]"), *at, expected)?;
        }
        self.within(&format!("{key}.yaw_rad"), &bounds::SCENE_ANGLE_RAD, entry.yaw_rad)?;
        self.within(&format!("{key}.random_yaw_rad"), &bounds::SCENE_TURN_RAD, entry.random_yaw_rad)
    }

    fn rising(&self, key: &str, ends: [f32; 2]) -> Result<(), SceneError> {
        self.that(ends[0] <= ends[1], key, ends, "the least, then the greatest")
    }

    fn sector(&self, key: &str, sector: &Sector, table: &Table) -> Result<(), SceneError> {
        for end in 0..2 {
            let (radius, angle) = (sector.radius_m.get(end), sector.angle_rad.get(end));
            self.within(&format!("{key}.radius_m[{end}]"), &bounds::SCENE_RANDOM_M, radius.copied().unwrap_or(0.0))?;
            self.within(&format!("{key}.angle_rad[{end}]"), &bounds::SCENE_AZIMUTH_RAD, angle.copied().unwrap_or(0.0))?;
        }
        self.rising(&format!("{key}.radius_m"), sector.radius_m)?;
        self.rising(&format!("{key}.angle_rad"), sector.angle_rad)?;
        let far = sector.radius_m[1];
        for (center, size) in table.center.iter().zip(table.size) {
            // The ring's corners and the points where it crosses the axes are its outermost.
            let [from, to] = sector.angle_rad;
            let quarters = (-4..=4).map(|quarter| quarter as f32 * std::f32::consts::FRAC_PI_2);
            let mut angles = quarters.filter(|angle| (from..=to).contains(angle)).chain([from, to]);
            let axis_x = std::ptr::eq(center, &table.center[0]);
            let along = |angle: f32| far * if axis_x { angle.cos() } else { angle.sin() };
            let on_table = angles.all(|angle| (along(angle) - center).abs() <= size / 2.0);
            self.that(on_table, &format!("{key}.radius_m"), sector.radius_m, "a ring sector on the table")?;
        }
        Ok(())
    }

    fn pedestal(&self, key: &str, pedestal: &PedestalEntry) -> Result<(), SceneError> {
        self.within(&format!("{key}.probability"), &bounds::SCENE_SHARE, pedestal.probability)?;
        for (end, height) in pedestal.height_m.into_iter().enumerate() {
            self.within(&format!("{key}.height_m[{end}]"), &bounds::SCENE_RANDOM_M, height)?;
        }
        self.rising(&format!("{key}.height_m"), pedestal.height_m)?;
        self.color(&format!("{key}.color"), pedestal.color)
    }

    pub(super) fn random_light(&self, range: &RandomLight) -> Result<(), SceneError> {
        self.each("random_light.position", &bounds::SCENE_RANDOM_M, range.position)?;
        self.within("random_light.ambient", &bounds::SCENE_SHARE, range.ambient)?;
        self.within("random_light.sky_color", &bounds::SCENE_SHARE, range.sky_color)
    }

    pub(super) fn gripper(&self, entry: &GripperEntry, joint: usize, joints: &[Joint]) -> Result<Gripper, SceneError> {
        let GripperEntry { fixed_face, moving_face, half_width, depth, open_rad, closed_rad, .. } = *entry;
        let about_x = joints.get(joint).is_some_and(|joint| (joint.axis - vec3(1.0, 0.0, 0.0)).length() < 1e-5);
        let expected = "a joint after the first that turns about its x axis";
        self.that(about_x && joint > 0, "gripper.joint", &entry.joint, expected)?;
        self.within("gripper.fixed_face", &bounds::SCENE_M, fixed_face)?;
        self.within("gripper.moving_face", &bounds::SCENE_M, moving_face)?;
        self.length("gripper.half_width", half_width)?;
        for (end, z) in depth.into_iter().enumerate() {
            self.within(&format!("gripper.depth[{end}]"), &bounds::SCENE_M, z)?;
        }
        self.rising("gripper.depth", depth)?;
        let [low, high] = joints.get(joint).map_or([0.0; 2], |joint| joint.limits_rad);
        for (key, angle) in [("gripper.open_rad", open_rad), ("gripper.closed_rad", closed_rad)] {
            let expected = format!("a position within the joint's limits_rad, {low} to {high}");
            self.that((low..=high).contains(&angle), key, angle, &expected)?;
        }
        self.that(open_rad < closed_rad, "gripper.open_rad", open_rad, "less than closed_rad")?;
        Ok(Gripper { joint, fixed_face, moving_face, half_width, depth, open_rad, closed_rad })
    }

    pub(super) fn task(&self, key: &str, entry: &TaskEntry) -> Result<(), SceneError> {
        let prompt = &entry.prompt;
        let expected = "an instruction with {object} in it";
        self.that(prompt.contains("{object}"), &format!("{key}.prompt"), prompt, expected)?;
        self.that(!entry.objects.is_empty(), &format!("{key}.objects"), "empty", "at least one object")?;
        let places = entry.kind == TaskKind::Place;
        let expected = if places { "an instruction with {target} in it" } else { "an instruction without {target}" };
        self.that(prompt.contains("{target}") == places, &format!("{key}.prompt"), prompt, expected)?;
        let expected = if places { "at least one object to place it on" } else { "none; only `place` has targets" };
        self.that(entry.targets.is_empty() != places, &format!("{key}.targets"), &entry.targets, expected)
    }

    pub(super) fn camera(
        &self,
        key: &str,
        entry: &CameraEntry,
        mount: Option<usize>,
    ) -> Result<CameraSpec, SceneError> {
        let CameraEntry { position, look_at, up, vertical_fov_rad, width, height, .. } = *entry;
        self.place(&format!("{key}.position"), position)?;
        self.place(&format!("{key}.look_at"), look_at)?;
        self.each(&format!("{key}.up"), &bounds::SCENE_DIRECTION, up)?;
        self.that(up.length() > SHORT, &format!("{key}.up"), up, "a direction")?;
        self.within(&format!("{key}.vertical_fov_rad"), &bounds::SCENE_VIEW_RAD, vertical_fov_rad)?;
        for (side, pixels) in [("width", width), ("height", height)] {
            self.within(&format!("{key}.{side}"), &bounds::SCENE_PIXELS, pixels)?;
        }
        self.within(&format!("{key}.random_position_mm"), &bounds::SCENE_TOLERANCE_MM, entry.random_position_mm)?;
        self.within(&format!("{key}.random_turn_deg"), &bounds::SCENE_TOLERANCE_DEG, entry.random_turn_deg)?;
        let expected = "a point other than `position`, and not straight along `up` from it";
        let forward = Some(look_at - position).filter(|forward| forward.length() > SHORT);
        let rotation = forward
            .and_then(|forward| Rotation::looking(forward, up))
            .ok_or_else(|| self.wrong(&format!("{key}.look_at"), &look_at, expected))?;
        let pose = Pose { rotation, position };
        let name = entry.name.clone();
        Ok(CameraSpec { name, mount, pose, vertical_fov_rad, width, height })
    }
}
