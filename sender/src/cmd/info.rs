//! `xfer-hole info`: prints the properties of an image and of its chain. A layer that can't be opened is reported and
//! is not a failure, so that the command helps to diagnose a broken chain.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::{Serialize, Serializer};
use xfer_hole_image::{BackingFiles, BackingRef, Info, SnapshotInfo};
use xfer_hole_os::shown;
use xfer_hole_ui::Messages;

use crate::cmd::info_json::{BitmapJson, ImageInfo};
use crate::cmd::output::{Output, OutputKind, failed};
use crate::error::SendError;
use crate::image_args::{ImageArgs, no_pipe};

const STATUS: &str = "\
Examples:
  xfer-hole info disk.qcow2
  xfer-hole info --output json --allow /srv/golden overlay.qcow2

A backing file that can't be opened causes a warning.

Exit status is 0 if IMAGE itself was read, 2 for every failure.";

/// The arguments of `info`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct InfoArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    /// Set the output format
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub(crate) output: OutputKind,

    #[command(flatten)]
    pub(crate) source: ImageArgs,
}

/// Runs `info`.
pub(crate) fn info(args: &InfoArgs, messages: Messages) -> Result<(), SendError> {
    let how = args.source.opening()?;
    let info = Info::read(&args.image, &how).map_err(|error| no_pipe(&args.image, error))?;
    messages.verbose(format_args!("format {}", info.format));
    warn(&info, messages);
    let mut out = Output::stdout()?;
    let layers = info.layers();
    let printed = match args.output {
        OutputKind::Human => human(&mut out, &info, layers, messages),
        OutputKind::Json => json(&mut out, &info, layers, messages),
    };
    printed.and_then(|()| out.flush()).map_err(failed)
}

fn warn(info: &Info, messages: Messages) {
    for warning in &info.warnings {
        messages.warn(format_args!("{}: {warning}", shown(&info.path)));
    }
}

/// The top image with the layers below it in `chain`.
#[derive(Serialize)]
struct WithChain<'a> {
    #[serde(flatten)]
    layer: ImageInfo<'a>,
    chain: BackingLayers,
}

/// The layers below the top image. They are opened one by one during serialization, since there may be many layers
/// and each may have many snapshots.
struct BackingLayers {
    layers: Cell<Option<BackingFiles>>,
    messages: Messages,
}

/// The entry for a layer that can't be opened. It ends the chain.
#[derive(Serialize)]
struct UnopenedLayer {
    error: String,
}

impl Serialize for BackingLayers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut list = serializer.serialize_seq(None)?;
        for layer in self.layers.take().into_iter().flatten() {
            match layer {
                Ok(info) => {
                    warn(&info, self.messages);
                    list.serialize_element(&ImageInfo::of(&info))?;
                }
                Err(error) => {
                    warn_unopened(&error, self.messages);
                    list.serialize_element(&UnopenedLayer { error: error.to_string() })?;
                }
            }
        }
        list.end()
    }
}

/// Prints JSON.
fn json(out: &mut dyn Write, info: &Info, layers: BackingFiles, messages: Messages) -> io::Result<()> {
    let chain = BackingLayers { layers: Cell::new(Some(layers)), messages };
    // Indentation is that of qemu-img.
    let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut json = serde_json::Serializer::with_formatter(&mut *out, pretty);
    WithChain { layer: ImageInfo::of(info), chain }.serialize(&mut json)?;
    writeln!(out)
}

fn warn_unopened(error: &xfer_hole_os::DiskError, messages: Messages) {
    messages.warn(error);
    if let Some(hint) = error.hint_text() {
        messages.hint(hint);
    }
}

/// Prints one paragraph per layer.
fn human(out: &mut dyn Write, info: &Info, layers: BackingFiles, messages: Messages) -> io::Result<()> {
    paragraph(out, info)?;
    for layer in layers {
        match layer {
            Ok(info) => {
                // Standard output is flushed first, so that a warning appears after the previous layer on a terminal.
                out.flush()?;
                warn(&info, messages);
                writeln!(out)?;
                paragraph(out, &info)?;
            }
            Err(error) => {
                out.flush()?;
                warn_unopened(&error, messages);
            }
        }
    }
    Ok(())
}

fn paragraph(out: &mut dyn Write, info: &Info) -> io::Result<()> {
    let mut line = |name: &str, value: &dyn std::fmt::Display| writeln!(out, "{:<15} {value}", format!("{name}:"));
    let yes = |is| if is { "yes" } else { "no" };
    line("image", &shown(&info.path))?;
    match &info.qcow2 {
        Some(qcow2) => line("format", &format_args!("{}, version {}", info.format, qcow2.version))?,
        None => line("format", &info.format)?,
    }
    line("virtual size", &bytes(info.virtual_size))?;
    line("file size", &bytes(info.file_size))?;
    line("allocated", &bytes(info.actual_size))?;
    if let Some(qcow2) = &info.qcow2 {
        line("cluster size", &bytes(qcow2.cluster_size))?;
        line("compression", &qcow2.compression)?;
        line("refcount bits", &qcow2.refcount_bits)?;
        line("lazy refcounts", &yes(qcow2.lazy_refcounts))?;
        line("extended L2", &yes(qcow2.extended_l2))?;
        line("dirty", &yes(qcow2.dirty))?;
        line("corrupt", &yes(qcow2.corrupt))?;
        if let Some(file) = &qcow2.data_file {
            let raw = if file.raw { ", raw" } else { "" };
            line("data file", &format_args!("{}{raw}", shown(&file.name)))?;
        }
    }
    if let Some(BackingRef { name, format }) = &info.backing {
        line("backing file", &shown(name.as_ref()))?;
        line("backing format", &shown(format.as_deref().unwrap_or("not declared").as_ref()))?;
    }
    if !info.snapshots.is_empty() {
        snapshots(out, &info.snapshots)?;
    }
    let bitmaps = info.qcow2.as_ref().map_or(&[][..], |qcow2| &qcow2.bitmaps);
    if !bitmaps.is_empty() {
        writeln!(out, "bitmaps:")?;
        for bitmap in bitmaps {
            let BitmapJson { name, granularity, flags } = BitmapJson::of(bitmap);
            let flags: String = flags.iter().map(|flag| format!(", {flag}")).collect();
            writeln!(out, "  {}: granularity {granularity}{flags}", shown(name.as_ref()))?;
        }
    }
    Ok(())
}

fn snapshots(out: &mut dyn Write, snapshots: &[SnapshotInfo]) -> io::Result<()> {
    let name = |snapshot: &SnapshotInfo| shown(snapshot.name.as_ref());
    let id = |snapshot: &SnapshotInfo| shown(snapshot.id.as_ref());
    // The column width is limited, so that one long name does not widen all rows.
    let wide = |names: &dyn Fn(&SnapshotInfo) -> String| {
        snapshots.iter().map(|snapshot| names(snapshot).chars().count()).max().unwrap_or_default().clamp(4, 32)
    };
    let (ids, names) = (wide(&id), wide(&name));
    writeln!(out, "snapshots:")?;
    let (date, size) = ("date (UTC)", "virtual size");
    writeln!(out, "  {:<ids$}  {:<names$}  {date:<19}  {size:>19}  vm state", "id", "name")?;
    for snapshot in snapshots {
        let date = date_of(snapshot.date_sec);
        let (size, state) = (snapshot.virtual_size, snapshot.vm_state_size);
        let (id, name) = (id(snapshot), name(snapshot));
        writeln!(out, "  {id:<ids$}  {name:<names$}  {date:<19}  {size:>19}  {state}")?;
    }
    Ok(())
}

/// Formats a size as in `1572864 bytes (1.5 MiB)`.
fn bytes(bytes: u64) -> String {
    let power = bytes.checked_ilog2().unwrap_or_default() / 10;
    if power == 0 {
        return format!("{bytes} bytes");
    }
    let unit = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][power as usize - 1];
    // Tenths are rounded down, so that a size is never overstated.
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    match tenths % 10 {
        0 => format!("{bytes} bytes ({} {unit})", tenths / 10),
        tenth => format!("{bytes} bytes ({}.{tenth} {unit})", tenths / 10),
    }
}

/// Formats seconds since 1970 as date and time in UTC.
fn date_of(seconds: u32) -> String {
    let (mut day, second) = (seconds / 86400, seconds % 86400);
    let is_leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u32::from(is_leap(year)) {
        day -= 365 + u32::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u32::from(is_leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use xfer_hole_image::{BitmapInfo, DataFileInfo, DiskOptions, Qcow2Info};

    use super::*;

    /// An image with made-up qcow2 properties, in the file `name` of `dir`.
    fn image(dir: &tempfile::TempDir, name: &str, how: &DiskOptions) -> Info {
        let path = dir.path().join(name);
        fs::write(&path, [0; 512]).unwrap();
        let mut info = Info::read(&path, how).unwrap();
        info.path = name.into();
        info.actual_size = 4096;
        info.qcow2 = Some(Qcow2Info {
            version: 3,
            cluster_size: 65536,
            refcount_bits: 16,
            compression: "zlib",
            lazy_refcounts: false,
            dirty: true,
            corrupt: false,
            extended_l2: false,
            data_file: Some(DataFileInfo { name: "d\n.raw".into(), raw: true }),
            bitmaps: vec![BitmapInfo { name: "b".into(), granularity: 65536, auto: true, in_use: true }],
        });
        info.snapshots.push(SnapshotInfo {
            id: "1".into(),
            name: "be\nfore".into(),
            virtual_size: 1024,
            vm_state_size: 0,
            date_sec: 1_795_268_997,
            date_nsec: 427_161_000,
            vm_clock_nsec: 1_500_000_000,
            icount: Some(0),
        });
        info
    }

    fn printed(info: &Info) -> (serde_json::Value, String) {
        let messages = Messages::new("xfer-hole", 0);
        let (mut text, mut table) = (Vec::new(), Vec::new());
        json(&mut text, info, info.layers(), messages).unwrap();
        human(&mut table, info, info.layers(), messages).unwrap();
        (serde_json::from_slice(&text).unwrap(), String::from_utf8(table).unwrap())
    }

    #[test]
    fn fields_have_the_names_of_qemu_img() {
        let (dir, how) = (tempfile::tempdir().unwrap(), DiskOptions::default());
        let (json, table) = printed(&image(&dir, "o.qcow2", &how));
        assert_eq!(
            json,
            serde_json::json!({
                "filename": "o.qcow2", "format": "raw", "virtual-size": 512, "actual-size": 4096, "cluster-size": 65536,
                "dirty-flag": true,
                "snapshots": [{
                    "id": "1", "name": "be\nfore", "vm-state-size": 0, "date-sec": 1_795_268_997, "date-nsec": 427_161_000,
                    "vm-clock-sec": 1, "vm-clock-nsec": 500_000_000, "icount": 0, "virtual-size": 1024,
                }],
                "format-specific": { "type": "qcow2", "data": {
                    "compat": "1.1", "compression-type": "zlib", "lazy-refcounts": false, "refcount-bits": 16,
                    "corrupt": false, "extended-l2": false, "data-file": "d\n.raw", "data-file-raw": true,
                    "bitmaps": [{ "name": "b", "granularity": 65536, "flags": ["in-use", "auto"] }],
                }},
                "chain": [],
            })
        );
        assert_eq!(
            table,
            r"image:          o.qcow2
format:         raw, version 3
virtual size:   512 bytes
file size:      512 bytes
allocated:      4096 bytes (4 KiB)
cluster size:   65536 bytes (64 KiB)
compression:    zlib
refcount bits:  16
lazy refcounts: no
extended L2:    no
dirty:          yes
corrupt:        no
data file:      d\n.raw, raw
snapshots:
  id    name      date (UTC)                  virtual size  vm state
  1     be\nfore  2026-11-21 13:49:57                 1024  0
bitmaps:
  b: granularity 65536, in-use, auto
"
        );
    }

    #[test]
    fn layers_below_are_listed_or_their_error() {
        let (dir, how) = (tempfile::tempdir().unwrap(), DiskOptions::default());
        let mut info = image(&dir, "o.qcow2", &how);
        info.path = dir.path().join("o.qcow2");
        fs::write(dir.path().join("base"), [0; 1024]).unwrap();
        info.backing = Some(BackingRef { name: "base".into(), format: Some("raw".into()) });
        let (json, table) = printed(&info);
        let base = dir.path().join("base").to_str().unwrap().to_owned();
        assert_eq!(json["backing-filename"], "base");
        assert_eq!(json["backing-filename-format"], "raw");
        assert_eq!(json["full-backing-filename"], *base);
        assert_eq!(json["chain"][0]["filename"], *base);
        assert_eq!((&json["chain"][0]["virtual-size"], json["chain"].as_array().unwrap().len()), (&1024.into(), 1));
        assert!(table.contains("backing file:   base\nbacking format: raw\n"), "{table}");
        assert!(table.contains(&format!("\n\nimage:          {base}\nformat:         raw\n")), "{table}");

        info.backing = Some(BackingRef { name: "gone".into(), format: Some("raw".into()) });
        let (json, table) = printed(&info);
        let error = json["chain"][0]["error"].as_str().unwrap();
        assert!(error.ends_with("o.qcow2: backing file \"gone\": no such file or directory"), "{error}");
        assert!(!table.contains("\n\n"), "{table}");

        info.backing = Some(BackingRef { name: "o.qcow2".into(), format: Some("raw".into()) });
        let (json, _) = printed(&info);
        let error = json["chain"][0]["error"].as_str().unwrap();
        assert!(error.ends_with("is below itself: its backing files go in a circle"), "{error}");
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (978_307_199, "2000-12-31 23:59:59"),
            (1_795_268_997, "2026-11-21 13:49:57"),
            (u32::MAX, "2106-02-07 06:28:15"),
        ] {
            assert_eq!(date_of(seconds), date);
        }
    }

    #[test]
    fn sizes_are_exact_and_readable() {
        for (size, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1024 bytes (1 KiB)"),
            (1_572_864, "1572864 bytes (1.5 MiB)"),
            ((1 << 30) - 1, "1073741823 bytes (1023.9 MiB)"),
            (1 << 40, "1099511627776 bytes (1 TiB)"),
            (u64::MAX, "18446744073709551615 bytes (15.9 EiB)"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
