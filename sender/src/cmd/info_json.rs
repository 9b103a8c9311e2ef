//! The JSON form of one image file, with the field names of `qemu-img info --output=json`. Fields that this program
//! does not know are omitted; `virtual-size` of a snapshot is an addition.

use std::path::PathBuf;

use serde::Serialize;
use xfer_hole_image::{BitmapInfo, Info, Qcow2Info, SnapshotInfo};

/// One layer of a chain.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ImageInfo<'a> {
    filename: String,
    format: &'static str,
    virtual_size: u64,
    actual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u64>,
    dirty_flag: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    snapshots: Vec<SnapshotJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<FormatSpecific<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SnapshotJson<'a> {
    id: &'a str,
    name: &'a str,
    vm_state_size: u64,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_sec: u64,
    vm_clock_nsec: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    icount: Option<u64>,
    virtual_size: u64,
}

#[derive(Serialize)]
struct FormatSpecific<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: Qcow2Json<'a>,
}

/// The qcow2 fields. Those that version 2 lacks are omitted for it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Qcow2Json<'a> {
    compat: &'static str,
    compression_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lazy_refcounts: Option<bool>,
    refcount_bits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extended_l2: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file_raw: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bitmaps: Vec<BitmapJson<'a>>,
}

#[derive(Serialize)]
pub(crate) struct BitmapJson<'a> {
    pub(crate) name: &'a str,
    pub(crate) granularity: u64,
    pub(crate) flags: Vec<&'static str>,
}

impl<'a> ImageInfo<'a> {
    pub(crate) fn of(info: &'a Info) -> Self {
        Self {
            filename: info.path.to_string_lossy().into(),
            format: info.format.name(),
            virtual_size: info.virtual_size,
            actual_size: info.actual_size,
            cluster_size: info.qcow2.as_ref().map(|qcow2| qcow2.cluster_size),
            dirty_flag: info.qcow2.as_ref().is_some_and(|qcow2| qcow2.dirty),
            backing_filename: info.backing.as_ref().map(|backing| backing.name.to_string_lossy().into()),
            full_backing_filename: full_name(info).map(|path| path.to_string_lossy().into()),
            backing_filename_format: info.backing.as_ref().and_then(|backing| backing.format.as_deref()),
            snapshots: info.snapshots.iter().map(SnapshotJson::of).collect(),
            format_specific: info
                .qcow2
                .as_ref()
                .map(|qcow2| FormatSpecific { kind: "qcow2", data: Qcow2Json::of(qcow2) }),
        }
    }
}

impl<'a> SnapshotJson<'a> {
    pub(crate) fn of(info: &'a SnapshotInfo) -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            id: &info.id,
            name: &info.name,
            vm_state_size: info.vm_state_size,
            date_sec: info.date_sec,
            date_nsec: info.date_nsec,
            vm_clock_sec: info.vm_clock_nsec / SECOND,
            vm_clock_nsec: info.vm_clock_nsec % SECOND,
            icount: info.icount,
            virtual_size: info.virtual_size,
        }
    }
}

impl<'a> Qcow2Json<'a> {
    pub(crate) fn of(info: &'a Qcow2Info) -> Self {
        let since_3 = |flag| (info.version >= 3).then_some(flag);
        let data_file = info.data_file.as_ref();
        Self {
            compat: compat(info),
            compression_type: info.compression,
            lazy_refcounts: since_3(info.lazy_refcounts),
            refcount_bits: info.refcount_bits,
            corrupt: since_3(info.corrupt),
            extended_l2: since_3(info.extended_l2),
            data_file: data_file.map(|file| file.name.to_string_lossy().into()),
            data_file_raw: data_file.map(|file| file.raw),
            bitmaps: info.bitmaps.iter().map(BitmapJson::of).collect(),
        }
    }
}

impl<'a> BitmapJson<'a> {
    pub(crate) fn of(info: &'a BitmapInfo) -> Self {
        let flags = [("in-use", info.in_use), ("auto", info.auto)];
        let flags = flags.into_iter().filter_map(|(word, is)| is.then_some(word)).collect();
        Self { name: &info.name, granularity: info.granularity, flags }
    }
}

fn full_name(info: &Info) -> Option<PathBuf> {
    info.backing.as_ref().and_then(|backing| backing.path(&info.path))
}

fn compat(info: &Qcow2Info) -> &'static str {
    if info.version >= 3 { "1.1" } else { "0.10" }
}
