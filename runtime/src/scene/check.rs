//! Checks of a scene file's values.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use super::error::SceneError;
use super::file::{CameraEntry, ObjectEntry};
use super::math::{Pose, Rotation, Vec3, vec3};
use super::{CameraSpec, Joint, Light, Part, Shape, Table};
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
        for (axis, ((at, random), (center, size))) in
            entry.position.iter().zip(entry.random).zip(table.center.iter().zip(table.size)).enumerate()
        {
            self.within(&format!("{key}.random[{axis}]"), &bounds::SCENE_RANDOM_M, random)?;
            let right = (at - center).abs() + random <= size / 2.0;
            let expected = "a place which, moved by `random`, is still on the table";
            self.that(right, &format!("{key}.position[{axis}]"), *at, expected)?;
        }
        self.within(&format!("{key}.yaw_rad"), &bounds::SCENE_ANGLE_RAD, entry.yaw_rad)?;
        self.within(&format!("{key}.random_yaw_rad"), &bounds::SCENE_TURN_RAD, entry.random_yaw_rad)
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
