//! Decompresses compressed clusters. Each thread uses a decompressor of its own, which is reused.
//!
//! It accepts what QEMU accepts (`qcow2_zlib_decompress` and `qcow2_zstd_decompress`): the output must fill the
//! cluster. Bytes after the compressed stream, up to the end of the last sector, are ignored.

use std::sync::{Mutex, PoisonError};

use libdeflater::Decompressor;
use xfer_hole_os::Result;
use zlib_rs::{Inflate, InflateFlush};
use zstd_safe::DCtx;

use super::compressed::{CompressedEntry, Compression};
use super::field::unusable;
use super::geometry::Geometry;
use crate::ImageFile;

/// The maximum size in bytes of a source buffer that is kept for the next cluster. Only in malicious images is a
/// compressed cluster longer.
const SOURCE_KEPT: usize = (2 << 20) + 512;

/// The reason why a cluster couldn't be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// The stream is invalid or truncated, or a zstd stream continues beyond the end of the cluster.
    Damaged,
    /// The stream ended before the cluster was full.
    Short,
}

/// A compressed cluster in an image's file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompressedSource<'a> {
    /// The file.
    pub(crate) file: &'a ImageFile,
    /// A number that differs for each file whose clusters one [`DecompressorPool`] reads, such as the layer's number.
    pub(crate) layer: u32,
    /// The compression method.
    pub(crate) compression: Compression,
    /// The geometry of the image, for the size of a cluster.
    pub(crate) geometry: Geometry,
    /// The location of the cluster.
    pub(crate) entry: CompressedEntry,
}

impl CompressedSource<'_> {
    fn key(&self) -> ClusterKey {
        (self.layer, self.entry)
    }

    fn cluster_size(&self) -> usize {
        usize_of(self.geometry.cluster_size())
    }

    fn unsound(&self, why: DecompressError) -> xfer_hole_os::DiskError {
        let (kind, at, len) = (self.compression.name(), self.entry.offset.0, self.entry.len());
        let why = match why {
            DecompressError::Damaged => format!("is not sound {kind} of {} bytes", self.cluster_size()),
            DecompressError::Short => format!("ends before its cluster of {} bytes is full", self.cluster_size()),
        };
        unusable(self.file, format!("compressed cluster at {at:#x}, in {len} bytes: {why}"))
    }
}

/// Identifies the cluster in a decompressor's buffer.
type ClusterKey = (u32, CompressedEntry);

/// Decompresses clusters, one after the other. Creates the state of a compression method when it is first used.
#[derive(Default)]
pub(crate) struct ClusterDecompressor {
    deflate: Option<Decompressor>,
    /// Decides on the streams that `deflate` refuses.
    zlib: Option<Inflate>,
    zstd: Option<DCtx<'static>>,
    source: Vec<u8>,
    /// The content of the last decompressed cluster, unless it was written directly to a caller's buffer.
    cluster: Vec<u8>,
    /// Identifies that cluster.
    key: Option<ClusterKey>,
}

impl ClusterDecompressor {
    /// Decompresses `src` into `dst`, which is exactly one cluster.
    pub(crate) fn inflate(
        &mut self,
        compression: Compression,
        src: &[u8],
        dst: &mut [u8],
    ) -> std::result::Result<(), DecompressError> {
        match compression {
            Compression::Zlib => self.inflate_deflate(src, dst),
            Compression::Zstd => self.inflate_zstd(src, dst),
        }
    }

    fn inflate_deflate(&mut self, src: &[u8], dst: &mut [u8]) -> std::result::Result<(), DecompressError> {
        let quick = self.deflate.get_or_insert_default();
        match quick.deflate_decompress(src, dst) {
            Ok(len) if len == dst.len() => Ok(()),
            Ok(_) => Err(DecompressError::Short),
            // libdeflate requires that the stream ends with the cluster. QEMU also accepts a stream that would
            // continue, or has no end, if the cluster is full. So zlib decides on such streams, as in QEMU.
            Err(_) => {
                let zlib = self.zlib.get_or_insert_with(|| Inflate::new(false, 15));
                zlib.reset(false);
                let sound = zlib.decompress(src, dst, InflateFlush::Finish).is_ok();
                match zlib.total_out() == dst.len() as u64 {
                    true if sound => Ok(()),
                    _ if sound => Err(DecompressError::Short),
                    _ => Err(DecompressError::Damaged),
                }
            }
        }
    }

    /// Decompresses frame by frame, each directly into `dst`. That needs no window buffer, however large a window a
    /// frame declares.
    fn inflate_zstd(&mut self, mut src: &[u8], dst: &mut [u8]) -> std::result::Result<(), DecompressError> {
        let zstd = self.zstd.get_or_insert_with(DCtx::create);
        let mut filled = 0;
        while filled < dst.len() {
            if src.is_empty() {
                return Err(DecompressError::Short);
            }
            let Ok(len) = zstd_safe::find_frame_compressed_size(src) else { return Err(DecompressError::Damaged) };
            let Some((frame, rest)) = src.split_at_checked(len) else { return Err(DecompressError::Damaged) };
            filled += zstd.decompress(&mut dst[filled..], frame).map_err(|_| DecompressError::Damaged)?;
            src = rest;
        }
        Ok(())
    }

    /// Reads bytes of a cluster, from offset `at` in it.
    fn read(&mut self, source: &CompressedSource<'_>, at: usize, buf: &mut [u8]) -> Result<()> {
        let cluster_size = source.cluster_size();
        let known = self.key == Some(source.key());
        if !known && buf.len() == cluster_size {
            return self.fetch(source, buf);
        }
        if !known {
            self.key = None;
            let mut cluster = std::mem::take(&mut self.cluster);
            cluster.resize(cluster_size, 0);
            let fetched = self.fetch(source, &mut cluster);
            self.cluster = cluster;
            fetched?;
            self.key = Some(source.key());
        }
        buf.copy_from_slice(&self.cluster[at..][..buf.len()]);
        Ok(())
    }

    /// Reads and decompresses a whole cluster.
    fn fetch(&mut self, source: &CompressedSource<'_>, dst: &mut [u8]) -> Result<()> {
        let mut src = std::mem::take(&mut self.source);
        // The read ends at the end of the file: zeros beyond it could be decoded to bytes that were never written.
        let there = source.file.len().saturating_sub(source.entry.offset.0);
        let len = usize_of(source.entry.len().min(there));
        if src.len() < len {
            src.resize(len, 0);
        }
        let done = source
            .file
            .read_at(source.entry.offset.0, &mut src[..len])
            .and_then(|()| self.inflate(source.compression, &src[..len], dst).map_err(|why| source.unsound(why)));
        if src.len() <= SOURCE_KEPT {
            self.source = src;
        }
        done
    }
}

/// The decompressors of a chain: as many as threads have used at the same time.
#[derive(Default)]
pub(crate) struct DecompressorPool(Mutex<Vec<ClusterDecompressor>>);

impl std::fmt::Debug for DecompressorPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflaters")
    }
}

impl DecompressorPool {
    /// Reads `buf.len()` bytes of a cluster, from offset `at` in it. A whole cluster is decompressed directly into
    /// `buf`. For a part, the decompressor keeps the whole cluster, so the next part needs no decompression.
    pub(crate) fn read(&self, source: &CompressedSource<'_>, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut decompressor = self.take(source.key());
        let done = decompressor.read(source, usize_of(at), buf);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(decompressor);
        done
    }

    /// Takes the decompressor that has this cluster in its buffer, if it is free, else the one that was returned last.
    fn take(&self, key: ClusterKey) -> ClusterDecompressor {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|decompressor| decompressor.key == Some(key)) {
            Some(index) => free.swap_remove(index),
            None => free.pop().unwrap_or_default(),
        }
    }
}

/// Converts a number that is at most two clusters, and so fits.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
