//! Whether the newest images may be acted on, by their stamps.

use crate::clock::HostNs;
use crate::events::ImageProblem;

/// The state of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageStatus {
    /// When the newest image was taken.
    pub(crate) taken: HostNs,
    /// Whether the camera is gone: its last image does not count, however young it is.
    pub(crate) gone: bool,
}

/// How old images may be, and how far apart.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// The cameras' views.
    pub(crate) views: Vec<String>,
    pub(crate) most_age_ns: u64,
    pub(crate) most_skew_ns: u64,
}

impl Freshness {
    /// The problem of the newest images, one a view; `None` when they may be acted on.
    pub(super) fn problem(&self, now: HostNs, images: &[ImageStatus]) -> Option<ImageProblem> {
        let ms = |ns: u64| ns / 1_000_000;
        let mut named = self.views.iter().zip(images);
        if let Some((view, _)) = named.clone().find(|(_, image)| image.gone) {
            return Some(ImageProblem::Gone { view: view.clone() });
        }
        if let Some((view, image)) = named.find(|(_, image)| now.since(image.taken) > self.most_age_ns) {
            let (age_ms, most_ms) = (ms(now.since(image.taken)), ms(self.most_age_ns));
            return Some(ImageProblem::Old { view: view.clone(), age_ms, most_ms });
        }
        let (older, oldest) = self.views.iter().zip(images).min_by_key(|(_, image)| image.taken)?;
        let (newer, newest) = self.views.iter().zip(images).max_by_key(|(_, image)| image.taken)?;
        let apart_ns = newest.taken.since(oldest.taken);
        (apart_ns > self.most_skew_ns).then(|| {
            let (older, newer) = (older.clone(), newer.clone());
            ImageProblem::Apart { older, newer, apart_ms: ms(apart_ns), most_ms: ms(self.most_skew_ns) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn old_images_distant_images_and_missing_cameras_are_problems() {
        let views = vec!["base".to_owned(), "wrist".to_owned()];
        let freshness = Freshness { views, most_age_ns: 400 * MS, most_skew_ns: 150 * MS };
        let seen = |base, wrist| [base, wrist].map(|ms| ImageStatus { taken: HostNs(ms * MS), gone: false });
        let gone = |mut images: [ImageStatus; 2]| {
            images[1].gone = true;
            images
        };
        for (images, expected) in [
            (seen(900, 800), ""),
            (seen(600, 600), ""),
            (seen(599, 600), "camera base: the newest image is 401 ms old, at most 400 ms allowed"),
            (seen(960, 800), "cameras wrist and base: 160 ms apart, at most 150 ms allowed"),
            (gone(seen(990, 990)), "camera wrist gives no image"),
        ] {
            let problem = freshness.problem(HostNs(1000 * MS), &images);
            assert_eq!(problem.map(|p| p.to_string()).unwrap_or_default(), expected);
        }
        assert_eq!(freshness.problem(HostNs(1000 * MS), &[]), None);
    }
}
