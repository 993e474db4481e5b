//! Device buffers, uploads of weights, and the staging memory of submissions.

use super::context::Gpu;
use super::error::GpuError;

/// Bytes of uploads that are submitted at once, and limit of one copy. Up to twice as many can collect before a
/// submission, and two submissions are in flight at a time.
const FLUSH_BYTES: usize = 8 << 20;
/// Sizes and offsets of copies are multiples of this.
pub(super) const COPY_ALIGN: u64 = 4;

/// A buffer of a [`Gpu`]. Buffers are numbered from 0 in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(u32);

impl BufferId {
    /// The `index`-th buffer of a GPU.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Host-visible buffers of submissions, kept from one to the next.
///
/// A submission takes a buffer out and returns it on success, so that all buffers in here are in their resting state.
#[derive(Debug, Default)]
pub(super) struct Staging {
    /// Mapped for writing while it rests.
    pub(super) upload: Option<wgpu::Buffer>,
    /// Unmapped while it rests.
    pub(super) download: Option<wgpu::Buffer>,
    /// Bytes of uploads that are not submitted yet.
    pending: usize,
    /// The last submission of uploads.
    in_flight: Option<wgpu::SubmissionIndex>,
    /// Buffers into which uploads write directly.
    mapped: Vec<BufferId>,
}

impl Gpu {
    /// Makes a buffer of at least `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// [`GpuError::Limit`] beyond the adapter's largest buffer, [`GpuError::OutOfMemory`].
    pub fn create_buffer(&mut self, label: &str, bytes: u64) -> Result<BufferId, GpuError> {
        self.create(label, bytes, false)
    }

    /// As [`create_buffer`](Self::create_buffer), for a buffer that is filled first of all. If the processor shares its
    /// memory with the GPU, the buffer is mapped until the next [`flush`](Self::flush), and uploads write directly into
    /// it.
    ///
    /// # Errors
    /// As [`create_buffer`](Self::create_buffer).
    pub fn create_weights(&mut self, label: &str, bytes: u64) -> Result<BufferId, GpuError> {
        self.create(label, bytes, self.info.unified)
    }

    fn create(&mut self, label: &str, bytes: u64, mapped: bool) -> Result<BufferId, GpuError> {
        let mut usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        usage.set(wgpu::BufferUsages::MAP_WRITE, mapped);
        if bytes <= self.info.max_buffer_bytes {
            self.check_room(&format!("buffer {label}"), bytes)?;
        }
        let buffer = self.raw_buffer(label, bytes, usage, mapped)?;
        let index = u32::try_from(self.buffers.len()).map_err(|_| GpuError::Limit {
            what: "number of buffers".into(),
            asked: self.buffers.len() as u64,
            limit: u32::MAX.into(),
        })?;
        self.held += buffer.size();
        self.buffers.push((label.to_owned(), buffer));
        if mapped {
            self.staging.mapped.push(BufferId(index));
        }
        Ok(BufferId(index))
    }

    /// Bytes that the adapter can hold in addition to the existing buffers.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.info.memory_bytes.saturating_sub(self.held)
    }

    /// Fails if `bytes`, which `what` needs, do not fit.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn check_room(&self, what: &str, bytes: u64) -> Result<(), GpuError> {
        if bytes > self.room() {
            return Err(GpuError::OutOfMemory { what: what.to_owned(), bytes });
        }
        Ok(())
    }

    /// Frees a buffer's memory. A command list that binds it can no longer be replayed.
    pub fn release(&mut self, buffer: BufferId) {
        if let Some((_, buffer)) = self.buffers.get(buffer.0 as usize) {
            self.held = self.held.saturating_sub(buffer.size());
            buffer.destroy();
        }
    }

    /// Copies `bytes` into a buffer at `offset`, which must be a multiple of 4.
    ///
    /// A partial last word is completed with zeros. `bytes` may be a mapped file of any size: at most 32 MiB of them
    /// are in staging memory at a time. The copy has finished when a later submission, or [`Gpu::flush`], has finished.
    ///
    /// # Errors
    /// [`GpuError::Misaligned`] and [`GpuError::OutOfBuffer`] for a range that does not fit,
    /// [`GpuError::OutOfMemory`] if staging memory is short.
    pub fn upload(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        self.check_range("upload", buffer, offset, bytes.len() as u64, COPY_ALIGN)?;
        if self.staging.mapped.contains(&buffer) {
            return self.write(buffer, offset, bytes);
        }
        let mut at = offset;
        for chunk in bytes.chunks(FLUSH_BYTES) {
            self.upload_chunk(buffer, at, chunk)?;
            at += chunk.len() as u64;
            self.staging.pending += chunk.len();
            if self.staging.pending >= FLUSH_BYTES {
                self.staging.pending = 0;
                let submitted = self.queue.submit([]);
                if let Some(previous) = self.staging.in_flight.replace(submitted) {
                    self.wait(previous)?;
                }
            }
        }
        Ok(())
    }

    /// Writes into a mapped buffer.
    fn write(&self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        let (label, target) = self.buffer("upload", buffer)?;
        let unmapped =
            |e: wgpu::MapRangeError| GpuError::Validation { label: label.to_owned(), message: e.to_string() };
        let mut view = target.slice(..).get_mapped_range_mut().map_err(unmapped)?;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        view.slice(start..end).copy_from_slice(bytes);
        let tail = end.next_multiple_of(COPY_ALIGN as usize) - end;
        view.slice(end..end + tail).copy_from_slice(&[0; COPY_ALIGN as usize][..tail]);
        Ok(())
    }

    fn upload_chunk(&self, buffer: BufferId, at: u64, chunk: &[u8]) -> Result<(), GpuError> {
        let (label, target) = self.buffer("upload", buffer)?;
        let whole = chunk.len() - chunk.len() % COPY_ALIGN as usize;
        let (words, rest) = chunk.split_at(whole);
        self.scoped(
            |_| {
                if !words.is_empty() {
                    self.queue.write_buffer(target, at, words);
                }
                if !rest.is_empty() {
                    let mut last = [0; COPY_ALIGN as usize];
                    last[..rest.len()].copy_from_slice(rest);
                    self.queue.write_buffer(target, at + whole as u64, &last);
                }
            },
            |e| creation_error(&format!("staging of {label}"), chunk.len() as u64, e),
        )
    }

    /// Waits until all uploads have finished, and frees their staging memory. Mapped buffers now belong to the GPU.
    ///
    /// # Errors
    /// [`GpuError::DeviceLost`] and [`GpuError::Timeout`].
    pub fn flush(&mut self) -> Result<(), GpuError> {
        self.check()?;
        for mapped in std::mem::take(&mut self.staging.mapped) {
            self.buffer("flush", mapped)?.1.unmap();
        }
        self.staging.pending = 0;
        self.staging.in_flight = None;
        let submitted = self.queue.submit([]);
        self.wait(submitted)
    }

    /// Makes a wgpu buffer, with its size rounded up to whole vectors of four words.
    pub(super) fn raw_buffer(
        &mut self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let limit = self.info.max_buffer_bytes;
        let size = bytes.max(1).checked_next_multiple_of(16).filter(|size| *size <= limit);
        let Some(size) = size else {
            return Err(GpuError::Limit { what: format!("size of buffer {label} in bytes"), asked: bytes, limit });
        };
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: mapped };
        let buffer = self.scoped(
            |device| device.create_buffer(&descriptor),
            |e| creation_error(&format!("buffer {label}"), size, e),
        )?;
        self.counts.buffers += 1;
        Ok(buffer)
    }

    /// The label and the wgpu buffer of `id`; `what` names the caller in errors.
    pub(super) fn buffer(&self, what: &str, id: BufferId) -> Result<(&str, &wgpu::Buffer), GpuError> {
        match self.buffers.get(id.0 as usize) {
            Some((label, buffer)) => Ok((label, buffer)),
            None => Err(GpuError::UnknownBuffer { what: what.to_owned(), index: id.0 }),
        }
    }

    /// Checks that a range, rounded up to whole words, is aligned and within its buffer.
    pub(super) fn check_range(
        &self,
        what: &str,
        id: BufferId,
        offset: u64,
        bytes: u64,
        align: u64,
    ) -> Result<(), GpuError> {
        let (label, buffer) = self.buffer(what, id)?;
        let what = || format!("{what} in buffer {label}");
        if !offset.is_multiple_of(align) {
            return Err(GpuError::Misaligned { what: what(), offset, align });
        }
        let end = bytes.checked_next_multiple_of(COPY_ALIGN).and_then(|b| offset.checked_add(b));
        if end.is_none_or(|end| end > buffer.size()) {
            return Err(GpuError::OutOfBuffer { what: what(), offset, bytes, size: buffer.size() });
        }
        Ok(())
    }
}

/// The typed form of an error that wgpu reports for an object of `bytes` bytes.
pub(super) fn creation_error(what: &str, bytes: u64, error: wgpu::Error) -> GpuError {
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { what: what.to_owned(), bytes },
        other => GpuError::Validation { label: what.to_owned(), message: other.to_string() },
    }
}
