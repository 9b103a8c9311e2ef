//! How the user wants an image opened, and what follows from it for its top file.

use std::path::Path;

use crate::guard::guard;
use crate::{Error, Format, Gate, Host, Kind, Method, Result, Since};

/// What is known, allowed and asked for, before an image is opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The top image's format; looked for if not given.
    pub format: Option<Format>,
    /// The format of backing files that are not declared to have one. It is never looked for in them.
    pub backing_format: Option<Format>,
    /// Which of the files that images name may be opened.
    pub gate: Gate,
    /// Images that another program may be writing to are read all the same.
    pub force_share: bool,
    /// The internal snapshot to be read, by its ID or name.
    pub snapshot: Option<String>,
    /// The older state of the disk that it is to be compared with ([`crate::Image::older`]).
    pub since: Option<Since>,
    /// How the extents of raw images are found.
    pub method: Option<Method>,
    /// The disk's octets are read past the page cache, as far as that can be.
    pub direct: bool,
}

impl Opening {
    /// Opens the top file, and tells its format, which is one that we read.
    pub(crate) fn top(&self, path: &Path) -> Result<(Host, Format)> {
        let host = Host::open(path)?;
        self.guard(&host)?;
        let format = self.format.map_or_else(|| Format::probe(&host), Ok)?;
        if !format.is_read() {
            return Err(format.refusal(path));
        }
        if format == Format::Raw && self.snapshot.is_some() {
            return Err(host.error(Kind::Unsupported, "is a raw image, which has no snapshots"));
        }
        let has_none = match &self.since {
            Some(_) if format != Format::Raw => None,
            Some(Since::Snapshot(_)) => Some("is a raw image, which has no snapshots"),
            Some(Since::Base(_)) => Some("is a raw image, which has no backing files"),
            Some(Since::Bitmap(_)) => Some("is a raw image, which has no bitmaps"),
            None => None,
        };
        has_none.map_or(Ok((host, format)), |what| Err(Error::new(Kind::Unsupported, path, what)))
    }

    /// Refuses a file that another program may be writing to, unless that is accepted.
    pub(crate) fn guard(&self, host: &Host) -> Result<()> {
        if self.force_share { Ok(()) } else { guard(host) }
    }
}
