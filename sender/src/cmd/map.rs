//! `xfer-hole map`: prints the extents of an image.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use xfer_hole_image::{BlockStatus, Disk, Extent};
use xfer_hole_os::{Result as ImageResult, shown};
use xfer_hole_ui::Messages;

use crate::cmd::output::{Output, OutputKind, failed};
use crate::error::SendError;
use crate::image_args::ImageArgs;

const STATUS: &str = "\
Examples:
  xfer-hole map disk.qcow2
  xfer-hole map --output json --snapshot monday disk.qcow2

The status of an extent is one of
  data          stored in the file
  compressed    stored in the file, compressed
  preallocated  space is reserved in the file; reads as zeros
  zero          marked as zeros in a layer of the chain
  hole          in no layer of the chain; reads as zeros

Exit status is 0 if the whole map was printed, 2 for every failure.";

/// The arguments of `map`.
#[derive(Clone, Debug, Args)]
#[command(after_help = STATUS, max_term_width = 100)]
pub(crate) struct MapArgs {
    /// The image or block device
    pub(crate) image: PathBuf,

    /// Set the output format
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub(crate) output: OutputKind,

    #[command(flatten)]
    pub(crate) source: ImageArgs,
}

/// Runs `map`.
pub(crate) fn map(args: &MapArgs, messages: Messages) -> Result<(), SendError> {
    let chain = args.source.open(&args.image, false, messages)?;
    let mut out = Output::stdout()?;
    match args.output {
        OutputKind::Human => human(&mut out, &chain, chain.mapped_size())?,
        OutputKind::Json => json(&mut out, &chain, chain.mapped_size())?,
    }
    chain.noticed().iter().for_each(|noticed| messages.warn(noticed));
    out.flush().map_err(failed)
}

/// Iterates over the extents of a disk, with adjacent extents of the same kind merged.
struct Merged<'a> {
    image: &'a dyn Disk,
    /// The end of the map in bytes: the disk's end, or the end of its last sector.
    end: u64,
    at: u64,
    /// The last extent found, which may grow.
    last: Option<Extent>,
    /// The rule that tells whether two adjacent extents are merged.
    goes_on: fn(&Extent, &Extent) -> bool,
}

impl<'a> Merged<'a> {
    fn new(image: &'a dyn Disk, end: u64, goes_on: fn(&Extent, &Extent) -> bool) -> Self {
        Self { image, end, at: 0, last: None, goes_on }
    }
}

impl Iterator for Merged<'_> {
    type Item = ImageResult<Extent>;

    fn next(&mut self) -> Option<ImageResult<Extent>> {
        while self.at < self.end {
            let extent = match self.image.extent(self.at, self.end - self.at) {
                Ok(extent) => extent,
                Err(error) => {
                    self.at = self.end;
                    self.last = None;
                    return Some(Err(error));
                }
            };
            self.at = extent.end();
            match &mut self.last {
                Some(last) if (self.goes_on)(last, &extent) => last.len += extent.len,
                last => {
                    if let Some(done) = last.replace(extent) {
                        return Some(Ok(done));
                    }
                }
            }
        }
        self.last.take().map(Ok)
    }
}

/// The rule of `qemu-img map` (its `entry_mergeable`): the kind is the same, and the offsets in the file adjoin.
fn as_qemu(one: &Extent, other: &Extent) -> bool {
    same_kind(one, other)
        && match (one.host, other.host) {
            (Some(at), Some(next)) => at.checked_add(one.len) == Some(next),
            (None, None) => true,
            _ => false,
        }
}

/// The rule of the human-readable table: the kind is the same. Offsets in the file are ignored.
fn same_kind(one: &Extent, other: &Extent) -> bool {
    let kind = |extent: &Extent| (extent.status, extent.depth, extent.present, extent.compressed);
    kind(one) == kind(other)
}

/// Prints the JSON of `qemu-img map --output=json`, with the same fields and line breaks.
fn json(out: &mut dyn Write, image: &dyn Disk, end: u64) -> Result<(), SendError> {
    write!(out, "[").map_err(failed)?;
    if end == 0 {
        // qemu-img prints one empty entry for an empty disk.
        let nothing = r#"{ "start": 0, "length": 0, "depth": 0, "present": false, "zero": false, "data": false, "compressed": false}"#;
        write!(out, "{nothing}").map_err(failed)?;
    }
    for (index, extent) in Merged::new(image, end, as_qemu).enumerate() {
        let Extent { start, len, depth, present, compressed, status, host } = extent?;
        let (zero, data) = (status != BlockStatus::Data, status != BlockStatus::Zero);
        let between = if index > 0 { ",\n" } else { "" };
        write!(
            out,
            "{between}{{ \"start\": {start}, \"length\": {len}, \"depth\": {depth}, \"present\": {present}, \
             \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}"
        )
        .map_err(failed)?;
        match host {
            Some(offset) => write!(out, ", \"offset\": {offset}}}"),
            None => write!(out, "}}"),
        }
        .map_err(failed)?;
    }
    writeln!(out, "]").map_err(failed)
}

/// The status words of the table, in the order of its totals.
const WORDS: [&str; 5] = ["data", "compressed", "preallocated", "zero", "hole"];

/// The index in [`WORDS`] of an extent's status.
fn word(extent: &Extent) -> usize {
    match extent.status {
        BlockStatus::Data if extent.compressed => 1,
        BlockStatus::Data => 0,
        BlockStatus::Unwritten => 2,
        BlockStatus::Zero if extent.present => 3,
        BlockStatus::Zero => 4,
    }
}

/// Prints a table of start, length, status, depth and file, with totals below.
fn human(out: &mut dyn Write, image: &dyn Disk, end: u64) -> Result<(), SendError> {
    let width = end.to_string().len().max("length".len());
    writeln!(out, "{:>width$}  {:>width$}  {:<12}  depth  file", "start", "length", "status").map_err(failed)?;
    let (mut extents, mut totals) = (0_u64, [0; WORDS.len()]);
    for extent in Merged::new(image, end, same_kind) {
        let extent = extent?;
        let word = word(&extent);
        extents += 1;
        totals[word] += extent.len;
        // An unallocated extent is in no file.
        let file = image.host(extent.depth).filter(|_| extent.present).map(|file| shown(file.path()));
        let (start, len, depth, word) = (extent.start, extent.len, extent.depth, WORDS[word]);
        let file = file.unwrap_or_else(|| "-".into());
        writeln!(out, "{start:>width$}  {len:>width$}  {word:<12}  {depth:>5}  {file}").map_err(failed)?;
    }
    let each = WORDS.iter().zip(totals).filter(|&(_, bytes)| bytes > 0);
    let each: String = each.map(|(word, bytes)| format!(", {bytes} {word}")).collect();
    writeln!(out, "total: {end} bytes in {extents} extents{each}").map_err(failed)
}

#[cfg(test)]
mod tests {
    use xfer_hole_image::ImageFile;

    use super::*;

    /// A disk with the listed extents and size.
    struct Listed(Vec<Extent>, u64);

    impl Disk for Listed {
        fn size(&self) -> u64 {
            self.1
        }

        fn extent(&self, at: u64, max: u64) -> ImageResult<Extent> {
            let whole = self.0.iter().find(|extent| extent.end() > at).unwrap();
            let host = whole.host.map(|offset| offset + (at - whole.start));
            Ok(Extent { start: at, len: (whole.end() - at).min(max), host, ..*whole })
        }

        fn read(&self, _: &Extent, _: u64, _: &mut [u8]) -> ImageResult<()> {
            unreachable!("a map reads nothing")
        }

        fn host(&self, _: u32) -> Option<&ImageFile> {
            None
        }

        fn check_unchanged(&self, _: bool) -> ImageResult<()> {
            Ok(())
        }
    }

    /// Builds extents of 4 KiB, one per letter. Their offsets in the file adjoin, except for `D`.
    fn listed(kinds: &str) -> Listed {
        let mut extents: Vec<Extent> = Vec::new();
        for letter in kinds.chars().filter(|&c| c != '+') {
            let start = extents.len() as u64 * 4096;
            let (status, depth, present, compressed, host) = match letter {
                'd' => (BlockStatus::Data, 0, true, false, Some(start + (1 << 20))),
                'D' => (BlockStatus::Data, 0, true, false, Some(start + (1 << 30))),
                'b' => (BlockStatus::Data, 1, true, false, Some(start + (1 << 20))),
                'c' => (BlockStatus::Data, 0, true, true, None),
                'u' => (BlockStatus::Unwritten, 0, true, false, Some(start + (1 << 20))),
                'z' => (BlockStatus::Zero, 0, true, false, None),
                'a' => (BlockStatus::Zero, 0, true, false, Some(start + (1 << 20))),
                _ => (BlockStatus::Zero, 1, false, false, None),
            };
            extents.push(Extent { start, len: 4096, status, depth, present, compressed, host });
        }
        let size = extents.len() as u64 * 4096;
        Listed(extents, size)
    }

    fn printed(print: impl FnOnce(&mut dyn Write) -> Result<(), SendError>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn extents_are_merged_as_qemu_img_does() {
        for (kinds, lens) in [
            ("ddd", vec![3]),
            ("dDd", vec![1, 1, 1]),
            ("cc", vec![2]),
            ("zzaazz", vec![2, 2, 2]),
            ("uudd", vec![2, 2]),
            ("hhzz", vec![2, 2]),
            ("ddbb", vec![2, 2]),
            ("", vec![]),
        ] {
            let image = listed(kinds);
            let merged = Merged::new(&image, image.1, as_qemu).map(|extent| extent.unwrap().len / 4096);
            assert_eq!(merged.collect::<Vec<_>>(), lens, "{kinds}");
        }
    }

    #[test]
    fn json_is_what_qemu_img_prints() {
        let image = listed("ddcuzh");
        assert_eq!(
            printed(|out| json(out, &image, image.1)),
            r#"[{ "start": 0, "length": 8192, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 1048576},
{ "start": 8192, "length": 4096, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true},
{ "start": 12288, "length": 4096, "depth": 0, "present": true, "zero": true, "data": true, "compressed": false, "offset": 1060864},
{ "start": 16384, "length": 4096, "depth": 0, "present": true, "zero": true, "data": false, "compressed": false},
{ "start": 20480, "length": 4096, "depth": 1, "present": false, "zero": true, "data": false, "compressed": false}]
"#
        );
        assert_eq!(
            printed(|out| json(out, &listed(""), 0)),
            "[{ \"start\": 0, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \"data\": false, \
             \"compressed\": false}]\n"
        );
    }

    #[test]
    fn the_table_for_people_has_totals() {
        let image = listed("dDczzhu");
        assert_eq!(
            printed(|out| human(out, &image, image.1)),
            " start  length  status        depth  file
     0    8192  data              0  -
  8192    4096  compressed        0  -
 12288    8192  zero              0  -
 20480    4096  hole              1  -
 24576    4096  preallocated      0  -
total: 28672 bytes in 5 extents, 8192 data, 4096 compressed, 4096 preallocated, 8192 zero, 4096 hole
"
        );
    }
}
