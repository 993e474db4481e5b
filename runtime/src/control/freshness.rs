//! Whether the newest images may be acted on, as a pure function of their stamps.

use super::camera::ImageStatus;

/// What is wrong with the newest images, in words; `None` when they may be acted on.
///
/// `views` and `image_status` are in the same order; limits in nanoseconds.
pub(super) fn problem(
    views: &[String],
    image_status: &[ImageStatus],
    now_ns: u64,
    most_ns: u64,
    skew_ns: u64,
) -> Option<String> {
    let ms = |ns: u64| ns / 1_000_000;
    let mut named = views.iter().zip(image_status);
    if let Some((view, _)) = named.clone().find(|(_, g)| g.gone) {
        return Some(format!("camera {view} gives no image"));
    }
    if let Some((view, status)) = named.find(|(_, g)| now_ns.saturating_sub(g.stamp_ns) > most_ns) {
        let age = ms(now_ns.saturating_sub(status.stamp_ns));
        return Some(format!("camera {view}: the newest image is {age} ms old, at most {} ms allowed", ms(most_ns)));
    }
    let oldest = views.iter().zip(image_status).min_by_key(|(_, g)| g.stamp_ns)?;
    let newest = views.iter().zip(image_status).max_by_key(|(_, g)| g.stamp_ns)?;
    let apart_ns = newest.1.stamp_ns.saturating_sub(oldest.1.stamp_ns);
    (apart_ns > skew_ns).then(|| {
        let (apart, most) = (ms(apart_ns), ms(skew_ns));
        format!("cameras {} and {}: {apart} ms apart, at most {most} ms allowed", oldest.0, newest.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn old_images_distant_images_and_gone_cameras_are_problems() {
        let views = ["base".to_owned(), "wrist".to_owned()];
        let seen = |base, wrist| [base, wrist].map(|ms| ImageStatus { stamp_ns: ms * MS, gone: false });
        let of = |image_status: &[ImageStatus]| problem(&views, image_status, 1000 * MS, 400 * MS, 150 * MS);
        assert_eq!(of(&seen(900, 800)), None);
        assert_eq!(of(&seen(600, 600)), None);
        let said = of(&seen(599, 600)).unwrap();
        assert_eq!(said, "camera base: the newest image is 401 ms old, at most 400 ms allowed");
        let said = of(&seen(960, 800)).unwrap();
        assert_eq!(said, "cameras wrist and base: 160 ms apart, at most 150 ms allowed");
        let mut gone = seen(990, 990);
        gone[1].gone = true;
        assert_eq!(of(&gone).unwrap(), "camera wrist gives no image");
        assert_eq!(of(&[]), None);
    }
}
