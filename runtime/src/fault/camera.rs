//! A camera that fails.

use std::thread;
use std::time::Duration;

use super::{Dice, Faults, Kind};
use crate::camera::{Camera, CameraError, Image, JpegReader, Refused};
use crate::clock::{duration_ns, monotonic_ns};

/// A whole JPEG picture, of which a cut camera gives a part. It ends with its end marker.
const PICTURE: &[u8] = include_bytes!("picture.jpg");
/// Bytes before its scan's data.
const HEADER: usize = 94;
const END: [u8; 2] = [0xff, 0xd9];

/// Any camera, with the faults of its view.
pub(crate) struct FaultyCamera {
    inner: Box<dyn Camera>,
    view: String,
    faults: Faults,
    dice: Dice,
    unplugged: bool,
    jpeg: JpegReader,
    refused: Refused,
}

impl FaultyCamera {
    pub(crate) fn new(inner: Box<dyn Camera>, view: &str, faults: Faults) -> FaultyCamera {
        FaultyCamera {
            inner,
            dice: Dice::new(view),
            view: view.to_owned(),
            faults,
            unplugged: false,
            jpeg: JpegReader::default(),
            refused: Refused::new(format!("view {view}")),
        }
    }

    fn now(&self, kind: Kind) -> Option<f64> {
        self.faults.now(kind, Some(&self.view))
    }

    fn device(&self) -> String {
        format!("view {}", self.view)
    }

    /// Whether a fault of this kind, which has a share, hits the present image.
    fn hits(&mut self, kind: Kind) -> bool {
        self.now(kind).is_some_and(|share| self.dice.hits(share))
    }

    /// Cuts a picture within its data and adds an end marker.
    fn cut(&mut self) -> Result<(), CameraError> {
        let data = PICTURE.len() - HEADER - END.len();
        let kept = HEADER + (self.dice.roll() % data as u64) as usize;
        let cut = [PICTURE.get(..kept).unwrap_or_default(), END.as_slice()].concat();
        self.jpeg.read(&cut, &self.device(), None, &mut Image::default())
    }
}

impl Camera for FaultyCamera {
    fn describe(&self) -> String {
        format!("{}, with faults", self.inner.describe())
    }

    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError> {
        let deadline_ns = monotonic_ns().saturating_add(duration_ns(timeout));
        // The failure of the latest image that came but could not be used, as cameras have it.
        let mut unusable = None;
        loop {
            if self.now(Kind::CameraUnplug).is_some() {
                let device = self.device();
                return Err(match std::mem::replace(&mut self.unplugged, true) {
                    false => CameraError::Unplugged { device },
                    true => CameraError::Absent { device },
                });
            }
            self.unplugged = false;
            if monotonic_ns() >= deadline_ns {
                return Err(unusable.unwrap_or(CameraError::Silent { device: self.device(), timeout }));
            }
            if self.now(Kind::CameraStall).is_some() {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.inner.capture(into, timeout)?;
            // Faults that happened during the capture.
            if self.now(Kind::CameraUnplug).is_some() || self.now(Kind::CameraStall).is_some() {
                continue;
            }
            if self.hits(Kind::CameraDrop) {
                continue;
            }
            if self.hits(Kind::CameraCorrupt) {
                into.data.truncate(into.data.len() / 2);
            }
            let arrived = match () {
                () if self.hits(Kind::CameraEmpty) => Err(CameraError::NoBytes { device: self.device() }),
                () if self.hits(Kind::CameraCut) => self.cut(),
                () => Ok(()),
            };
            if let Err(error) = arrived {
                self.refused.note(&error, monotonic_ns());
                unusable = Some(error);
                continue;
            }
            return Ok(());
        }
    }

    fn refused(&self) -> u64 {
        self.inner.refused() + self.refused.count()
    }

    fn true_depth(&self) -> Option<&[f32]> {
        self.inner.true_depth()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::PixelFormat;

    /// A camera with an image whenever it is asked.
    struct Steady;

    impl Camera for Steady {
        fn describe(&self) -> String {
            "steady".to_owned()
        }

        fn capture(&mut self, into: &mut Image, _: Duration) -> Result<(), CameraError> {
            thread::sleep(Duration::from_millis(1));
            into.reshape(PixelFormat::Rgb24, 2, 2);
            Ok(())
        }
    }

    fn captured(fault: &str) -> (Result<(), CameraError>, u64) {
        let faults = Faults::new(vec![fault.parse().unwrap()]);
        faults.begin();
        let mut camera = FaultyCamera::new(Box::new(Steady), "wrist", faults);
        let captured = camera.capture(&mut Image::default(), Duration::from_millis(100));
        (captured, camera.refused())
    }

    #[test]
    fn empty_buffers_and_cut_pictures_are_no_images_and_are_counted() {
        let (empty, count) = captured("camera-empty:wrist");
        assert!(matches!(empty, Err(CameraError::NoBytes { .. })) && count > 0, "{empty:?} {count}");
        let (cut, count) = captured("camera-cut");
        assert!(matches!(cut, Err(CameraError::Decode { .. })) && count > 0, "{cut:?} {count}");
        assert!(matches!(captured("camera-empty:base"), (Ok(()), 0)));
        assert!(matches!(captured("camera-cut=0"), (Ok(()), 0)));
    }

    #[test]
    fn the_picture_is_whole_and_none_of_its_cuts_is() {
        let mut reader = JpegReader::default();
        let mut image = Image::default();
        reader.read(PICTURE, "whole", None, &mut image).unwrap();
        assert_eq!((image.width, image.height), (24, 16));
        for kept in HEADER..PICTURE.len() - END.len() {
            let cut = [&PICTURE[..kept], &END].concat();
            reader.read(&cut, "cut", None, &mut image).unwrap_err();
        }
    }
}
