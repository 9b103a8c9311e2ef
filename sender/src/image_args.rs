//! The options of all commands that read an image, and the opening of the image.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use xfer_hole_image::{
    BackingChain, ConfinedDir, Disk, DiskOptions, ExtentMethod, Format as Is, ImplicitOpenGate, IncrementalBase,
};
use xfer_hole_os::{DiskError as ImageError, shown};
use xfer_hole_pipeline::{Action, Plan};
use xfer_hole_ui::Messages;

use crate::error::SendError;

/// The options for reading an image.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Source")]
pub(crate) struct ImageArgs {
    /// Set the format of the image
    ///
    /// A backing file or data file is opened only if the format is declared with this option, or the image's name
    /// ends in .qcow2.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: FormatArg,

    /// Set the format of backing files that declare none (default: refuse them)
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) backing_format: Option<BackingFormatArg>,

    /// Read an internal snapshot, in its own size, instead of the current state
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) snapshot: Option<String>,

    /// Allow backing files and data files below DIR (repeatable)
    ///
    /// Files below the image's own directory are always allowed.
    #[arg(long, value_name = "DIR")]
    pub(crate) allow: Vec<PathBuf>,

    /// Refuse an image that needs a backing file or data file
    #[arg(long, conflicts_with = "allow")]
    pub(crate) no_backing: bool,

    /// Read an image even if another program, such as a running QEMU, has it open for writing
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,

    /// Find the data of raw images by this method (default: seek, or scan where that is unsupported)
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) extents: Option<ExtentsArg>,

    /// Print each step; given twice, each record sent too
    #[arg(short, long, action = ArgAction::Count, help_heading = "Messages")]
    pub(crate) verbose: u8,

    /// The directory that confines the image's name, for a restricted key.
    #[arg(skip)]
    pub(crate) bounds: Option<ConfinedDir>,
}

/// What an image is opened for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadPurpose {
    /// The older state that the changes are relative to.
    pub(crate) since: Option<IncrementalBase>,
    /// Data is read with O_DIRECT, past the page cache.
    pub(crate) direct: bool,
    /// Dirty data is flushed on opening, since the fingerprint will be cached.
    pub(crate) flush: bool,
}

/// The argument of `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Raw for a block device; detected from the content for a file
    #[default]
    Auto,
    /// The file or device is the disk itself, whatever its content
    Raw,
    /// QEMU's qcow2
    Qcow2,
}

/// The argument of `--backing-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackingFormatArg {
    /// Raw: the file is the disk
    Raw,
    /// QEMU's qcow2
    Qcow2,
}

/// The argument of `--extents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExtentsArg {
    /// Use SEEK_DATA and SEEK_HOLE
    Seek,
    /// Use FIEMAP
    Fiemap,
    /// Read all data
    Scan,
}

impl ImageArgs {
    /// Derives the options for opening a disk. Fails if an allowed directory does not exist.
    pub(crate) fn opening(&self) -> Result<DiskOptions, SendError> {
        Ok(DiskOptions {
            format: match self.format {
                FormatArg::Auto => None,
                FormatArg::Raw => Some(Is::Raw),
                FormatArg::Qcow2 => Some(Is::Qcow2),
            },
            backing_format: self.backing_format.map(|format| match format {
                BackingFormatArg::Raw => Is::Raw,
                BackingFormatArg::Qcow2 => Is::Qcow2,
            }),
            gate: ImplicitOpenGate::new(&self.allow, self.no_backing)?.within(self.bounds.clone()),
            force_share: self.force_share,
            snapshot: self.snapshot.clone(),
            since: None,
            method: self.extents.map(|extents| match extents {
                ExtentsArg::Seek => ExtentMethod::Seek,
                ExtentsArg::Fiemap => ExtentMethod::Fiemap,
                ExtentsArg::Scan => ExtentMethod::Scan,
            }),
            direct: false,
            flush: false,
        })
    }

    /// Opens the image with its chain, prints its warnings, and warns if the content is not a disk. With `direct`,
    /// data is read with O_DIRECT.
    pub(crate) fn open(&self, image: &Path, direct: bool, messages: Messages) -> Result<BackingChain, SendError> {
        let chain = self.open_as(image, ReadPurpose { direct, ..ReadPurpose::default() }, messages)?;
        check_content(&chain, false, messages)?;
        Ok(chain)
    }

    /// Opens the image with its chain and prints its warnings. The caller must call [`check_content`] once the
    /// destination is known.
    pub(crate) fn open_as(
        &self,
        image: &Path,
        how: ReadPurpose,
        messages: Messages,
    ) -> Result<BackingChain, SendError> {
        let ReadPurpose { since, direct, flush } = how;
        let how = DiskOptions { direct, since, flush, ..self.opening()? };
        let chain = BackingChain::open(image, &how).map_err(|error| no_pipe(image, error))?;
        for warning in chain.warnings() {
            messages.warn(warning);
        }
        if self.format == FormatArg::Auto
            && chain.content().is_none()
            && chain.format() == Is::Raw
            && is_named_as_image(image)
        {
            messages.warn(format_args!("{}: is read as a raw disk, which its name doesn't say", shown(image)));
        }
        let layers = chain.layers();
        match layers {
            1 => messages.verbose(format_args!("format {}", chain.format())),
            _ => messages.verbose(format_args!("format {}, a chain of {layers} images", chain.format())),
        }
        if let Some(method) = chain.method() {
            messages.verbose(format_args!("extents by {}", method.word()));
        }
        Ok(chain)
    }
}

/// Counts, by extents alone, the bytes of data and the bytes that are unchanged since the older state. Changed ranges
/// are rounded to multiples of `align` bytes.
pub(crate) fn data_of(disk: &BackingChain, align: u64) -> Result<(u64, u64), SendError> {
    let (mut data, mut kept) = (0, 0);
    for step in Plan::changed(disk, align) {
        let step = step?;
        match step.want {
            Action::Copy => data += step.extent.len,
            Action::Keep => kept += step.extent.len,
            Action::Zero => {}
        }
    }
    Ok((data, kept))
}

/// Warns if the image's content is not a disk. Fails instead if the destination is a block device.
pub(crate) fn check_content(disk: &BackingChain, to_device: bool, messages: Messages) -> Result<(), SendError> {
    let Some((content, host)) = disk.content().zip(disk.host(0)) else { return Ok(()) };
    if to_device {
        return Err(content.refusal(host.path()).into());
    }
    messages.warn(format_args!("{}: {}", shown(host.path()), content.warning(host.path())));
    Ok(())
}

/// True if the file name's extension means another format or a compressed file.
fn is_named_as_image(image: &Path) -> bool {
    const NAMES: [&str; 13] =
        ["qcow", "qcow2", "qed", "vmdk", "vdi", "vhd", "vhdx", "vpc", "gz", "xz", "bz2", "zst", "zip"];
    image.extension().is_some_and(|extension| NAMES.iter().any(|name| extension.eq_ignore_ascii_case(name)))
}

/// Adds a hint if the image's name is `-`, which is not supported.
pub(crate) fn no_pipe(image: &Path, error: ImageError) -> ImageError {
    match image.to_str() {
        Some("-") => error.hint("a disk can't be read from a pipe: name the file or device"),
        _ => error,
    }
}
