//! The image that a command reads: the flags that all commands have for it, and its opening.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use xfer_hole_image::{
    BackingChain, ConfinedDir, Disk, DiskOptions, ExtentMethod, Format as Is, ImplicitOpenGate, IncrementalBase,
};
use xfer_hole_os::{DiskError as ImageError, shown};
use xfer_hole_pipeline::{Action, Plan};
use xfer_hole_ui::Messages;

use crate::error::SendError;

/// How the image is read, whatever is done with it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How it is read")]
pub(crate) struct ImageArgs {
    /// The image's format. auto: a block device is raw; a file is read as what its content says, but opens no backing file and no data file
    /// unless it is named *.qcow2, too. raw: the file as it is, whatever is in it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: FormatArg,

    /// The format of backing files that are not declared to have one; it is never looked for in them
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) backing_format: Option<BackingFormatArg>,

    /// Read this internal snapshot, in its own size, not the present state
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) snapshot: Option<String>,

    /// Files that an image names may lie below this directory, too, and not only below the image's own; can be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) allow: Vec<PathBuf>,

    /// Open no file that an image names: an image that needs another is refused
    #[arg(long, conflicts_with = "allow")]
    pub(crate) no_backing: bool,

    /// Read an image that another program, such as a running QEMU, may be writing to
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,

    /// How the extents of raw images are found; if not given, seek, and scan where that is not to be had
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) extents: Option<ExtentsArg>,

    /// Say what is done; twice, when a disk is sent: each record
    #[arg(short, long, action = ArgAction::Count, help_heading = "What is said")]
    pub(crate) verbose: u8,

    /// The image is looked up beneath this directory.
    #[arg(skip)]
    pub(crate) bounds: Option<ConfinedDir>,
}

/// What is done with an image besides reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadPurpose {
    /// It is compared with this older state.
    pub(crate) since: Option<IncrementalBase>,
    /// The disk's bytes are read past the page cache.
    pub(crate) direct: bool,
    /// Its fingerprint is to be noted.
    pub(crate) flush: bool,
}

/// What the image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Raw for a block device, by content for a file
    #[default]
    Auto,
    /// The disk itself
    Raw,
    /// QEMU's qcow2
    Qcow2,
}

/// What backing files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackingFormatArg {
    /// The disk itself
    Raw,
    /// QEMU's qcow2
    Qcow2,
}

/// How extents are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExtentsArg {
    /// By SEEK_DATA and SEEK_HOLE
    Seek,
    /// By FIEMAP
    Fiemap,
    /// By reading everything
    Scan,
}

impl ImageArgs {
    /// What was typed, for the image crate. The directories that are allowed must be there.
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

    /// Opens the image and all that it lies on, `direct` if its bytes are to be read past the page cache, and says what there is to
    /// know of it.
    pub(crate) fn open(&self, image: &Path, direct: bool, messages: Messages) -> Result<BackingChain, SendError> {
        let chain = self.open_as(image, ReadPurpose { direct, ..ReadPurpose::default() }, messages)?;
        check_content(&chain, false, messages)?;
        Ok(chain)
    }

    /// Opens it as [`Self::open`] does, to be read in this way. What it holds if that is no disk, is the caller's to check, who knows
    /// where it goes.
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

/// How many bytes of the disk are data by its extents, of which zeros may still be found; and how many an older state has, too. What changed
/// is counted by multiples of `align`.
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

/// Warns of bytes that are no disk, or refuses them where they would go to a block device.
pub(crate) fn check_content(disk: &BackingChain, to_device: bool, messages: Messages) -> Result<(), SendError> {
    let Some((content, host)) = disk.content().zip(disk.host(0)) else { return Ok(()) };
    if to_device {
        return Err(content.refusal(host.path()).into());
    }
    messages.warn(format_args!("{}: {}", shown(host.path()), content.warning(host.path())));
    Ok(())
}

/// True for names that promise something else than a raw disk: of other formats, or compressed.
fn is_named_as_image(image: &Path) -> bool {
    const NAMES: [&str; 13] =
        ["qcow", "qcow2", "qed", "vmdk", "vdi", "vhd", "vhdx", "vpc", "gz", "xz", "bz2", "zst", "zip"];
    image.extension().is_some_and(|extension| NAMES.iter().any(|name| extension.eq_ignore_ascii_case(name)))
}

/// Adds a hint for those who take `-` for standard input.
pub(crate) fn no_pipe(image: &Path, error: ImageError) -> ImageError {
    match image.to_str() {
        Some("-") => error.hint("a disk can't be read from a pipe: name the file or device"),
        _ => error,
    }
}
