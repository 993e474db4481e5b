//! Replaying command lists: uploads, compute passes and downloads of one submission.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::buffer::{BufferId, COPY_ALIGN};
use super::command_list::{CommandList, Step};
use super::context::Gpu;
use super::error::GpuError;
use super::times::{Detail, GpuTimes, HostTimes, PASS_BYTES, Queries};
use crate::clock::monotonic_ns;

/// Smallest staging buffer.
const MIN_STAGING_BYTES: u64 = 64 << 10;
/// Each upload and download begins at a multiple of this in its staging buffer.
const STAGING_ALIGN: u64 = wgpu::MAP_ALIGNMENT;

/// Bytes to write into a buffer before the command lists run.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte, a multiple of 4.
    pub offset: u64,
    /// The bytes; a last word that they fill only partly is completed with zeros.
    pub bytes: &'a [u8],
}

/// Bytes to fetch from a buffer after the command lists ran.
#[derive(Debug)]
pub struct Download<'a> {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte, a multiple of 4.
    pub offset: u64,
    /// The destination; its length is the number of bytes.
    pub into: &'a mut [u8],
}

/// The staging side of a submission.
struct Plan {
    /// Staging buffer with all uploads.
    upload: Option<wgpu::Buffer>,
    /// Staging buffer for all downloads, then the timestamps.
    download: Option<wgpu::Buffer>,
    /// Bytes of `download` in use.
    download_bytes: u64,
    /// Offset of the timestamps in `download`.
    times_at: u64,
    /// Number of compute passes that are timed.
    timed_passes: usize,
}

impl Gpu {
    /// Uploads, replays `lists` in order, and downloads, in one submission, and waits until it has finished. A command
    /// list may occur several times.
    ///
    /// # Errors
    /// [`GpuError::UnknownBuffer`], [`GpuError::OutOfBuffer`] and [`GpuError::Misaligned`] for an
    /// upload or download that does not fit; [`GpuError::ForeignCommandList`]; [`GpuError::Timeout`] and [`GpuError::DeviceLost`]
    /// where the GPU fails. No download is filled then.
    pub fn submit(
        &mut self,
        lists: &[&CommandList],
        uploads: &[Upload<'_>],
        downloads: &mut [Download<'_>],
    ) -> Result<GpuTimes, GpuError> {
        self.execute(lists, uploads, downloads, Detail::Stages)
    }

    /// Like [`Gpu::submit`], with a pass and a time for each single dispatch. Slower.
    ///
    /// # Errors
    /// As for [`Gpu::submit`].
    pub fn profile(
        &mut self,
        lists: &[&CommandList],
        uploads: &[Upload<'_>],
        downloads: &mut [Download<'_>],
    ) -> Result<GpuTimes, GpuError> {
        self.execute(lists, uploads, downloads, Detail::Kernels)
    }

    fn execute(
        &mut self,
        lists: &[&CommandList],
        uploads: &[Upload<'_>],
        downloads: &mut [Download<'_>],
        detail: Detail,
    ) -> Result<GpuTimes, GpuError> {
        self.check()?;
        let mut host = HostTimes { began_ns: monotonic_ns(), ..HostTimes::default() };
        if let Some(foreign) = lists.iter().find(|r| r.gpu != self.id) {
            return Err(GpuError::ForeignCommandList { label: foreign.label.clone() });
        }
        for (index, u) in uploads.iter().enumerate() {
            let what = format!("upload {index}");
            self.check_range(&what, u.buffer, u.offset, u.bytes.len() as u64, COPY_ALIGN)?;
        }
        for (index, d) in downloads.iter().enumerate() {
            let what = format!("download {index}");
            self.check_range(&what, d.buffer, d.offset, d.into.len() as u64, COPY_ALIGN)?;
        }
        let mut plan = self.plan(lists, uploads, downloads, detail)?;
        host.filled_ns = monotonic_ns();
        let commands = self.scoped(
            |device| {
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                self.encode(&mut encoder, &plan, lists, uploads, downloads, detail);
                encoder.finish()
            },
            |e| refused("submission", &e),
        )?;
        let mapped = Arc::new(AtomicUsize::new(0));
        let count = |mapped: &Arc<AtomicUsize>| {
            let mapped = Arc::clone(mapped);
            move |result: Result<(), _>| {
                mapped.fetch_add(usize::from(result.is_ok()), Ordering::Release);
            }
        };
        let submission = self.scoped(
            |_| {
                let submission = self.queue.submit([commands]);
                if let Some(buffer) = &plan.upload {
                    buffer.slice(..).map_async(wgpu::MapMode::Write, count(&mapped));
                }
                if let Some(buffer) = &plan.download {
                    let used = buffer.slice(..plan.download_bytes);
                    used.map_async(wgpu::MapMode::Read, count(&mapped));
                }
                submission
            },
            |e| refused("submission", &e),
        )?;
        host.submitted_ns = monotonic_ns();
        self.wait(submission)?;
        host.done_ns = monotonic_ns();
        let wanted = usize::from(plan.upload.is_some()) + usize::from(plan.download.is_some());
        if mapped.load(Ordering::Acquire) != wanted {
            return Err(unmapped("staging memory was not given back"));
        }
        self.staging.upload = plan.upload.take().or(self.staging.upload.take());
        let (mut times, first_tick) = self.read(&plan, lists, downloads, detail)?;
        self.staging.download = plan.download.take().or(self.staging.download.take());
        host.read_ns = monotonic_ns();
        times.host = host;
        times.origin = self.origin(&times, first_tick);
        Ok(times)
    }

    /// Lays out the staging buffers, makes them where those at hand are too small, and fills the
    /// one for uploads.
    fn plan(
        &mut self,
        lists: &[&CommandList],
        uploads: &[Upload<'_>],
        downloads: &[Download<'_>],
        detail: Detail,
    ) -> Result<Plan, GpuError> {
        let mut timed_passes = 0;
        if self.info.timestamps {
            timed_passes = match detail {
                Detail::Stages => lists.iter().map(|r| r.passes().count()).sum(),
                Detail::Kernels => lists.iter().map(|r| r.len()).sum(),
            };
            self.ensure_queries(timed_passes)?;
        }
        let times_at = layout(downloads.iter().map(|d| d.into.len())).last().map_or(0, |r| r.end);
        let download_bytes = times_at + (timed_passes * PASS_BYTES) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let download = match self.staging.download.take_if(|_| download_bytes > 0) {
            _ if download_bytes == 0 => None,
            Some(buffer) if buffer.size() >= download_bytes => Some(buffer),
            _ => Some(self.raw_buffer("downloads", self.capacity(download_bytes), usage, false)?),
        };
        let upload = self.fill_upload(uploads)?;
        Ok(Plan { upload, download, download_bytes, times_at, timed_passes })
    }

    /// The staging buffer with the bytes of all `uploads`, unmapped; none where there are none.
    fn fill_upload(&mut self, uploads: &[Upload<'_>]) -> Result<Option<wgpu::Buffer>, GpuError> {
        let ranges = || layout(uploads.iter().map(|u| u.bytes.len()));
        let Some(bytes) = ranges().last().map(|r| r.end).filter(|bytes| *bytes > 0) else {
            return Ok(None);
        };
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let staging = match self.staging.upload.take() {
            Some(buffer) if buffer.size() >= bytes => buffer,
            _ => self.raw_buffer("uploads", self.capacity(bytes), usage, true)?,
        };
        {
            let view = staging.slice(..bytes).get_mapped_range_mut();
            let mut view = view.map_err(|e| unmapped(&e.to_string()))?;
            for (range, upload) in ranges().zip(uploads) {
                let (start, len) = (range.start as usize, upload.bytes.len());
                let tail = (len as u64).next_multiple_of(COPY_ALIGN) as usize - len;
                view.slice(start..start + len).copy_from_slice(upload.bytes);
                let zeros = [0; COPY_ALIGN as usize];
                view.slice(start + len..start + len + tail).copy_from_slice(&zeros[..tail]);
            }
        }
        staging.unmap();
        Ok(Some(staging))
    }

    /// Size of a staging buffer for `bytes` bytes: with room to grow where the adapter allows it.
    fn capacity(&self, bytes: u64) -> u64 {
        let roomy = bytes.max(MIN_STAGING_BYTES).next_power_of_two();
        if roomy <= self.info.max_buffer_bytes { roomy } else { bytes }
    }

    fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        lists: &[&CommandList],
        uploads: &[Upload<'_>],
        downloads: &[Download<'_>],
        detail: Detail,
    ) {
        if let Some(staging) = &plan.upload {
            for (range, upload) in layout(uploads.iter().map(|u| u.bytes.len())).zip(uploads) {
                let bytes = (upload.bytes.len() as u64).next_multiple_of(COPY_ALIGN);
                if let Some((_, buffer)) = self.buffers.get(upload.buffer.index() as usize) {
                    encoder.copy_buffer_to_buffer(staging, range.start, buffer, upload.offset, bytes);
                }
            }
        }
        let mut pass_index = 0;
        for list in lists {
            for pass in list.passes() {
                let stage = list.stage_of(pass);
                let timed = if detail == Detail::Kernels { 1 } else { pass.len() };
                for steps in pass.chunks(timed) {
                    let writes = self.queries.writes(pass_index).filter(|_| plan.timed_passes > 0);
                    encode_pass(encoder, &stage, steps, writes);
                    pass_index += 1;
                }
            }
        }
        let Some(staging) = &plan.download else {
            return;
        };
        for (range, download) in layout(downloads.iter().map(|d| d.into.len())).zip(downloads) {
            let bytes = (download.into.len() as u64).next_multiple_of(COPY_ALIGN);
            if let Some((_, buffer)) = self.buffers.get(download.buffer.index() as usize) {
                encoder.copy_buffer_to_buffer(buffer, download.offset, staging, range.start, bytes);
            }
        }
        if plan.timed_passes > 0 {
            self.queries.resolve(encoder, plan.timed_passes, staging, plan.times_at);
        }
    }

    /// Copies the mapped downloads to where they go, and unmaps them. The times, and the first timestamp.
    fn read(
        &self,
        plan: &Plan,
        lists: &[&CommandList],
        downloads: &mut [Download<'_>],
        detail: Detail,
    ) -> Result<(GpuTimes, Option<u64>), GpuError> {
        let Some(staging) = &plan.download else {
            return Ok((GpuTimes::default(), None));
        };
        let view = staging.slice(..plan.download_bytes).get_mapped_range();
        let view = view.map_err(|e| unmapped(&e.to_string()))?;
        let lengths: Vec<_> = downloads.iter().map(|d| d.into.len()).collect();
        for (range, download) in layout(lengths.into_iter()).zip(downloads) {
            let start = range.start as usize;
            download.into.copy_from_slice(&view[start..start + download.into.len()]);
        }
        let raw = &view[plan.times_at as usize..];
        let times = self.queries.times(lists, detail, raw);
        let first_tick = Queries::first_tick(raw);
        drop(view);
        staging.unmap();
        Ok((times, first_tick))
    }

    /// Encodes `list` without running it, which makes wgpu check all of it.
    pub(super) fn rehearse(&self, list: &CommandList) -> Result<(), GpuError> {
        self.scoped(
            |device| {
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                for pass in list.passes() {
                    encode_pass(&mut encoder, &list.stage_of(pass), pass, None);
                }
                drop(encoder.finish());
            },
            |e| refused(&list.label, &e),
        )
    }
}

fn encode_pass(
    encoder: &mut wgpu::CommandEncoder,
    stage: &str,
    steps: &[Step],
    timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
) {
    let descriptor = wgpu::ComputePassDescriptor { label: Some(stage), timestamp_writes };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    let mut kernel = None;
    for step in steps {
        if kernel != Some(step.kernel) {
            pass.set_pipeline(&step.pipeline);
            kernel = Some(step.kernel);
        }
        pass.set_bind_group(0, &step.bind_group, &[]);
        let [x, y, z] = step.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Ranges of a staging buffer for pieces of these lengths, each rounded up to [`STAGING_ALIGN`].
fn layout(lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<u64>> {
    lengths.scan(0, |at, bytes| {
        let start = *at;
        *at += (bytes as u64).next_multiple_of(STAGING_ALIGN);
        Some(start..*at)
    })
}

fn refused(label: &str, error: &wgpu::Error) -> GpuError {
    GpuError::Validation { label: label.to_owned(), message: error.to_string() }
}

fn unmapped(message: &str) -> GpuError {
    GpuError::Validation { label: "staging memory".into(), message: message.to_owned() }
}
