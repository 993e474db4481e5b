//! What the values of a scene file must be.

use std::f32::consts::{PI, TAU};
use std::fmt::Debug;

use super::error::SceneError;
use super::file::{CameraEntry, ObjectEntry};
use super::math::{Pose, Rotation, Vec3, vec3};
use super::scene::{Joint, Light, Part, SceneCamera, Shape, Table};

/// Largest width and height of a camera's image, in pixels.
const MAX_PIXELS: u32 = 4096;

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

    pub(super) fn finite(&self, key: &str, v: Vec3) -> Result<(), SceneError> {
        self.that(v.is_finite(), key, v, "finite numbers")
    }

    fn length(&self, key: &str, metres: f32) -> Result<(), SceneError> {
        let right = metres.is_finite() && metres > 0.0;
        self.that(right, key, metres, "a length above 0, in metres")
    }

    fn color(&self, key: &str, color: Vec3) -> Result<(), SceneError> {
        let right = [color.x, color.y, color.z].iter().all(|part| (0.0..=1.0).contains(part));
        self.that(right, key, color, "red, green and blue, each from 0 to 1")
    }

    pub(super) fn names<'n>(&self, key: &str, names: impl Iterator<Item = &'n str>) -> Result<(), SceneError> {
        let mut seen = Vec::new();
        for (index, name) in names.enumerate() {
            let key = format!("{key}[{index}].name");
            self.that(!name.trim().is_empty(), &key, name, "a name")?;
            self.that(!seen.contains(&name), &key, name, "a name that no other one has")?;
            seen.push(name);
        }
        Ok(())
    }

    fn shape(&self, key: &str, shape: &Shape) -> Result<(), SceneError> {
        match *shape {
            Shape::Box { size } => {
                let right = size.is_finite() && size.x > 0.0 && size.y > 0.0 && size.z > 0.0;
                self.that(right, &format!("{key}.box.size"), size, "three lengths above 0")
            }
            Shape::Cylinder { radius, height } => {
                self.length(&format!("{key}.cylinder.radius"), radius)?;
                self.length(&format!("{key}.cylinder.height"), height)
            }
            Shape::Sphere { radius } => self.length(&format!("{key}.sphere.radius"), radius),
            Shape::Capsule { from, to, radius } => {
                self.finite(&format!("{key}.capsule.from"), from)?;
                self.finite(&format!("{key}.capsule.to"), to)?;
                self.length(&format!("{key}.capsule.radius"), radius)
            }
        }
    }

    pub(super) fn table(&self, table: &Table) -> Result<(), SceneError> {
        let [x, y] = table.center;
        self.finite("table.center", vec3(x, y, 0.0))?;
        self.length("table.size[0]", table.size[0])?;
        self.length("table.size[1]", table.size[1])?;
        self.length("table.thickness", table.thickness)?;
        self.length("table.checker_size", table.checker_size)?;
        let below = table.floor.is_finite() && table.floor <= -table.thickness;
        let expected = "a height below the table's underside, in metres";
        self.that(below, "table.floor", table.floor, expected)?;
        self.color("table.color", table.color)?;
        self.color("table.checker_color", table.checker_color)?;
        self.color("table.floor_color", table.floor_color)
    }

    pub(super) fn light(&self, light: &Light) -> Result<(), SceneError> {
        self.finite("light.position", light.position)?;
        let part = (0.0..=1.0).contains(&light.ambient);
        self.that(part, "light.ambient", light.ambient, "0 to 1")?;
        self.color("light.sky_color", light.sky_color)
    }

    pub(super) fn part(&self, key: &str, part: &Part) -> Result<(), SceneError> {
        self.shape(&format!("{key}.shape"), &part.shape)?;
        self.finite(&format!("{key}.position"), part.position)?;
        self.color(&format!("{key}.color"), part.color)
    }

    pub(super) fn joint(&self, key: &str, joint: &Joint) -> Result<(), SceneError> {
        let axis = joint.axis.is_finite() && joint.axis.length() > 1e-6;
        self.that(axis, &format!("{key}.axis"), joint.axis, "a direction")?;
        self.finite(&format!("{key}.origin"), joint.origin)?;
        let [low, high] = joint.limits_rad;
        let limits = low.is_finite() && high.is_finite() && low < high;
        let expected = "the least position, then the greatest";
        self.that(limits, &format!("{key}.limits_rad"), joint.limits_rad, expected)?;
        let inside = (low..=high).contains(&joint.initial_rad);
        let expected = format!("a position within limits_rad, {low} to {high}");
        self.that(inside, &format!("{key}.initial_rad"), joint.initial_rad, &expected)?;
        let speed = joint.velocity_limit_rad_s;
        let right = speed.is_finite() && speed > 0.0;
        self.that(right, &format!("{key}.velocity_limit_rad_s"), speed, "a speed above 0")?;
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
            let right = random.is_finite() && random >= 0.0;
            self.that(right, &format!("{key}.random[{axis}]"), random, "0 or a length, in metres")?;
            let right = (at - center).abs() + random <= size / 2.0;
            let expected = "a place which, moved by `random`, is still on the table";
            self.that(right, &format!("{key}.position[{axis}]"), *at, expected)?;
        }
        self.that(entry.yaw_rad.is_finite(), &format!("{key}.yaw_rad"), entry.yaw_rad, "an angle")?;
        let right = (0.0..=TAU).contains(&entry.random_yaw_rad);
        let key = format!("{key}.random_yaw_rad");
        self.that(right, &key, entry.random_yaw_rad, "0 to one turn, in radians")
    }

    pub(super) fn camera(
        &self,
        key: &str,
        entry: &CameraEntry,
        mount: Option<usize>,
    ) -> Result<SceneCamera, SceneError> {
        let CameraEntry { position, look_at, up, vertical_fov_rad, width, height, .. } = *entry;
        self.finite(&format!("{key}.position"), position)?;
        self.finite(&format!("{key}.look_at"), look_at)?;
        self.finite(&format!("{key}.up"), up)?;
        let right = vertical_fov_rad > 0.0 && vertical_fov_rad < PI;
        let expected = "an angle above 0 and below half a turn, in radians";
        self.that(right, &format!("{key}.vertical_fov_rad"), vertical_fov_rad, expected)?;
        for (side, pixels) in [("width", width), ("height", height)] {
            let right = (1..=MAX_PIXELS).contains(&pixels);
            let expected = format!("1 to {MAX_PIXELS} pixels");
            self.that(right, &format!("{key}.{side}"), pixels, &expected)?;
        }
        let expected = "a point other than `position`, and not straight along `up` from it";
        let rotation = Rotation::looking(look_at - position, up)
            .ok_or_else(|| self.wrong(&format!("{key}.look_at"), &look_at, expected))?;
        let pose = Pose { rotation, position };
        let name = entry.name.clone();
        Ok(SceneCamera { name, mount, pose, vertical_fov_rad, width, height })
    }
}
