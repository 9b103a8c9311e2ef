//! Inflating compressed clusters: one inflater a worker, used again and again.
//!
//! What is accepted is what QEMU accepts (`qcow2_zlib_decompress` and `qcow2_zstd_decompress`): the output must fill the cluster;
//! what stands behind the stream, up to the end of the last sector, is nobody's.

use std::sync::{Mutex, PoisonError};

use libdeflater::Decompressor;
use xfer_hole_os::Result;
use zlib_rs::{Inflate, InflateFlush};
use zstd_safe::DCtx;

use super::compressed::{CompressedEntry, Compression};
use super::field::unusable;
use super::geometry::Geometry;
use crate::ImageFile;

/// Bytes of a source buffer that are kept for the next cluster: more than a cluster is compressed to only by who means harm.
const SOURCE_KEPT: usize = (2 << 20) + 512;

/// Why a cluster couldn't be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// The stream breaks the rules of its format, or is cut off, or zstd that goes on behind the cluster's end.
    Damaged,
    /// It ended before the cluster was full.
    Short,
}

/// A compressed cluster of an image's file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompressedSource<'a> {
    /// The file.
    pub(crate) host: &'a ImageFile,
    /// A number that the file shares with no other that the same [`DecompressorPool`] read: its layer, say.
    pub(crate) layer: u32,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// For the cluster's size.
    pub(crate) geometry: Geometry,
    /// Where it lies.
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
        unusable(self.host, format!("compressed cluster at {at:#x}, in {len} bytes: {why}"))
    }
}

/// What an inflater's cluster is the content of.
type ClusterKey = (u32, CompressedEntry);

/// Inflates one cluster after the other. What it needs for a kind of compression, it makes when it meets it.
#[derive(Default)]
pub(crate) struct ClusterDecompressor {
    deflate: Option<Decompressor>,
    /// Judges what `deflate` refuses.
    zlib: Option<Inflate>,
    zstd: Option<DCtx<'static>>,
    source: Vec<u8>,
    /// The cluster that was inflated last, unless straight into a caller's buffer.
    cluster: Vec<u8>,
    /// Which one that is.
    key: Option<ClusterKey>,
}

impl ClusterDecompressor {
    /// Inflates `src` into `dst`, which is exactly one cluster.
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
            // libdeflate wants the stream to end with the cluster. QEMU also takes one that would go on, or lacks its end, as long as
            // the cluster is full: such a stream is left to a zlib, to accept what QEMU's accepts.
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

    /// Frame by frame, each at once into its place: so no window is needed, however large a one a frame declares.
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

    /// Reads bytes of a cluster, from the one at `at` in it.
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

    /// Reads a whole cluster from its file.
    fn fetch(&mut self, source: &CompressedSource<'_>, dst: &mut [u8]) -> Result<()> {
        let mut src = std::mem::take(&mut self.source);
        // What lies behind the end of the file belongs to no stream: zeros there could be decoded to bytes that were never written.
        let there = source.host.len().saturating_sub(source.entry.offset.0);
        let len = usize_of(source.entry.len().min(there));
        if src.len() < len {
            src.resize(len, 0);
        }
        let done = source
            .host
            .read_at(source.entry.offset.0, &mut src[..len])
            .and_then(|()| self.inflate(source.compression, &src[..len], dst).map_err(|why| source.unsound(why)));
        if src.len() <= SOURCE_KEPT {
            self.source = src;
        }
        done
    }
}

/// The inflaters of a chain: as many as there were ever readers at a time.
#[derive(Default)]
pub(crate) struct DecompressorPool(Mutex<Vec<ClusterDecompressor>>);

impl std::fmt::Debug for DecompressorPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflaters")
    }
}

impl DecompressorPool {
    /// Fills `buf` with bytes of a cluster, from the one at `at` in it. Whole clusters are inflated straight into it; of
    /// parts, the inflater remembers the whole, so that the next part costs nothing.
    pub(crate) fn read(&self, source: &CompressedSource<'_>, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut inflater = self.take(source.key());
        let done = inflater.read(source, usize_of(at), buf);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(inflater);
        done
    }

    /// The one that has this cluster, if it is free, else that which was given back last.
    fn take(&self, key: ClusterKey) -> ClusterDecompressor {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|inflater| inflater.key == Some(key)) {
            Some(index) => free.swap_remove(index),
            None => free.pop().unwrap_or_default(),
        }
    }
}

/// Of a number that is known to fit: it is at most two clusters.
fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
