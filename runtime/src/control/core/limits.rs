//! The joints' limits from the controller's hello: the loop's only copy.

use firmware_bridge::joint::JointTable;

/// The joints with their limits, in the controller's order.
#[derive(Debug)]
pub(super) struct Limits(JointTable);

impl Limits {
    pub(super) fn new(joints: JointTable) -> Limits {
        Limits(joints)
    }

    /// The joints themselves.
    pub(super) fn joints(&self) -> &JointTable {
        &self.0
    }

    /// Positions to act from before the controller has reported any: the ones nearest to zero.
    pub(super) fn nearest_to_zero(&self) -> Vec<f32> {
        self.0.as_slice().iter().map(|joint| (0.0_f32).clamp(joint.min, joint.max)).collect()
    }

    /// Clamps rows of positions, one a joint.
    pub(super) fn clamp(&self, positions: &mut [f32]) {
        for (position, joint) in positions.iter_mut().zip(self.0.as_slice().iter().cycle()) {
            *position = position.clamp(joint.min, joint.max);
        }
    }

    /// The joints whose measured positions are outside, with their limits.
    pub(super) fn outside(&self, measured: &[f32]) -> String {
        let joints = self.0.as_slice().iter().zip(measured);
        let outside = joints.filter(|(joint, at)| **at < joint.min || **at > joint.max);
        let outside: Vec<String> = outside
            .map(|(joint, at)| {
                format!("{} at {at:.3}, limits {:.3} to {:.3}", joint.name.as_str(), joint.min, joint.max)
            })
            .collect();
        outside.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use firmware_bridge::joint::{JointSpec, Name, Unit};

    use super::*;

    fn limits() -> Limits {
        let mut joints = JointTable::new();
        for (name, low, high) in [("base", -1.0, 1.0), ("wrist", 0.5, 2.0)] {
            let name = Name::new(name).unwrap();
            joints.push(JointSpec::new(name, Unit::Radian, [low, high], 2.0)).unwrap();
        }
        Limits::new(joints)
    }

    #[test]
    fn each_row_is_clamped_joint_by_joint() {
        for (given, expected) in
            [(vec![0.0, 1.0], vec![0.0, 1.0]), (vec![-3.0, 0.0, 3.0, 3.0], vec![-1.0, 0.5, 1.0, 2.0]), (vec![], vec![])]
        {
            let mut positions = given;
            limits().clamp(&mut positions);
            assert_eq!(positions, expected);
        }
        assert_eq!(limits().nearest_to_zero(), [0.0, 0.5]);
    }

    #[test]
    fn joints_outside_are_named() {
        for (measured, expected) in [
            ([0.0, 1.0], ""),
            ([1.5, 1.0], "base at 1.500, limits -1.000 to 1.000"),
            ([-2.0, 0.25], "base at -2.000, limits -1.000 to 1.000; wrist at 0.250, limits 0.500 to 2.000"),
        ] {
            assert_eq!(limits().outside(&measured), expected);
        }
    }
}
