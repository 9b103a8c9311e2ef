//! Copies attributes from the file that is replaced to the new file: owner, mode, ACL, labels and other extended
//! attributes.
//!
//! Rights are never extended. With an ACL, the group bits of the mode are the ACL's mask, which limits the named users
//! and groups. A file without the ACL therefore gets the ACL's rights of the owning group as its group bits. Users who
//! are no longer the owner, in the group or named get the rights of others, which are limited to the rights that those
//! users had.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use xfer_hole_os::{DiskError, Result, reason, shown, sys};

use crate::acl::{ACL, Acl};
use crate::permissions::FilePermissions;

/// Attributes that describe the old content or are invalid on another file. Attributes of xfer-hole are set anew.
const NOT_KEPT: [&[u8]; 7] = [
    b"user.xfer-hole.",
    b"security.capability",
    b"security.ima",
    b"security.evm",
    b"trusted.overlay.",
    b"user.overlay.",
    // A copy of the ACL that XFS shows to root.
    b"trusted.SGI_",
];
/// Prefixes of attributes that are kept.
const KEPT: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"system.nfs4_acl"];

/// A new file that has no final name yet, and the attributes that the user requested for it.
pub(crate) struct NewFile<'a> {
    pub file: &'a File,
    /// Path for messages.
    pub path: &'a Path,
    pub rights: FilePermissions,
    /// True if the caller may not learn what was there: only plain permissions are kept.
    pub confined: bool,
}

/// Which of the old owner's IDs the new file has, or was explicitly given other ones.
struct Kept {
    user: bool,
    group: bool,
}

/// Limits of the new file's mode.
struct Limits {
    /// Group bits, if they have to differ from the old ones.
    group: Option<u32>,
    /// Maximum bits of others.
    others: u32,
}

impl NewFile<'_> {
    /// Sets the requested attributes of the new file, and otherwise those of the old file. `old` describes the file at
    /// `dest`, if there is one; without it, the file gets `fresh_mode`. Returns half a sentence if something can't be
    /// kept.
    pub(crate) fn give(&self, dest: &Path, old: Option<&Metadata>, fresh_mode: u32) -> Result<Option<String>> {
        let mut lost = Vec::new();
        let mode = match old {
            Some(old) => self.take_over(dest, old, &mut lost)?,
            // The directory's default ACL applies; this mode limits it.
            None => fresh_mode,
        };
        // The mode is set last: changing the owner clears set-id bits, and setting an ACL may do so.
        let rights = FilePermissions { mode: Some(self.rights.mode.unwrap_or(mode)), ..self.rights };
        rights.give(self.file).map_err(|(what, source)| self.failed(what, source))?;
        let note = || format!("cannot keep what the old file had: {}", lost.join(", "));
        Ok((!lost.is_empty() && !self.confined).then(note))
    }

    /// Sets everything but the mode, and returns the mode.
    fn take_over(&self, dest: &Path, old: &Metadata, lost: &mut Vec<String>) -> Result<u32> {
        let kept = self.take_owner(old, lost)?;
        let mut mode = old.mode() & 0o7777;
        if self.confined || self.rights.owner.is_some() || !lost.is_empty() {
            // Set-id bits apply only to the old bytes and the old owner.
            mode &= 0o777;
        }
        let limits = self.take_acl(dest, old, kept.group, lost);
        if old.is_file() && !self.confined {
            self.take_others(dest, lost);
            if nocow(dest) && !sys::is_nocow(self.file).unwrap_or(false) {
                lost.push("no copy on write (chattr +C)".to_owned());
            }
        }
        mode = limits.group.map_or(mode, |bits| mode & !0o070 | bits << 3) & !0o007 | mode & limits.others;
        // The old owner now has the rights of the group or of others.
        let most = if kept.user { 7 } else { mode >> 6 & 7 };
        Ok(mode & (0o7700 | most << 3 | most))
    }

    /// Sets the old owner, unless the user requested another one.
    fn take_owner(&self, old: &Metadata, lost: &mut Vec<String>) -> Result<Kept> {
        let wanted = self.rights.owner.unwrap_or_default();
        let new = self.file.metadata().map_err(|source| self.failed("cannot look at it", source))?;
        let (uid, gid) = (old.uid(), old.gid());
        let user = (wanted.user.is_none() && uid != new.uid()).then_some(uid);
        let group = (wanted.group.is_none() && gid != new.gid()).then_some(gid);
        let Err(error) = (if user.is_some() || group.is_some() { fchown(self.file, user, group) } else { Ok(()) })
        else {
            return Ok(Kept { user: true, group: true });
        };
        // If the group can't be kept, its rights must not go to another group.
        let group_kept = group.is_none() || fchown(self.file, None, group).is_ok();
        let rights = if group_kept { "" } else { ", so its group gets no rights" };
        lost.push(format!("its owner {uid}:{gid}{rights} ({})", reason(&error)));
        Ok(Kept { user: user.is_none(), group: group_kept })
    }

    /// Sets the old ACL. Removes the directory's default ACL if the old file had none.
    fn take_acl(&self, dest: &Path, old: &Metadata, group_kept: bool, lost: &mut Vec<String>) -> Limits {
        let found = if old.is_file() { sys::xattr_of(dest, ACL) } else { Ok(None) };
        let acl = match found {
            Ok(value) => value.map(|value| Acl::parse(value).ok_or_else(|| io::ErrorKind::InvalidData.into())),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
            Err(error) => Some(Err(error)),
        };
        let Some(acl) = acl else {
            let removed = self.remove_acl();
            let others = if group_kept { 7 } else { old.mode() >> 3 & 7 };
            return Limits { group: (!removed || !group_kept).then_some(0), others };
        };
        // An ACL that can't be read may have named any user.
        let (group, named) = acl.as_ref().map_or((0, 0), |acl| (acl.group_rights(), acl.named_rights()));
        let others = if group_kept { 7 } else { group };
        let given = match acl {
            // Only plain permissions are kept.
            Ok(_) if self.confined => Err(None),
            Ok(acl) => {
                let acl = if group_kept { acl } else { acl.without_group() };
                sys::set_xattr(self.file, ACL, acl.value()).map_err(Some)
            }
            Err(error) => Err(Some(error)),
        };
        let Err(error) = given else { return Limits { group: None, others } };
        lost.extend(error.map(|error| format!("its ACL ({})", reason(&error))));
        let removed = self.remove_acl();
        Limits { group: Some(if removed && group_kept { group & named } else { 0 }), others: others & named }
    }

    /// Removes the ACL. Returns false if an ACL from the directory's default may be left.
    fn remove_acl(&self) -> bool {
        match sys::remove_xattr(self.file, ACL) {
            Ok(()) => true,
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)),
        }
    }

    fn take_others(&self, dest: &Path, lost: &mut Vec<String>) {
        let names = match sys::list_xattrs(dest) {
            Ok(names) => names,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            Err(error) => return lost.push(format!("its extended attributes ({})", reason(&error))),
        };
        for name in names.iter().filter(|name| is_kept(name)) {
            if let Err(error) = self.take_other(dest, name) {
                lost.push(format!("{} ({})", shown(Path::new(&*name.to_string_lossy())), reason(&error)));
            }
        }
    }

    fn take_other(&self, dest: &Path, name: &CStr) -> io::Result<()> {
        let Some(value) = sys::xattr_of(dest, name)? else { return Ok(()) };
        // Setting a label that the directory sets anyway may not be permitted.
        if sys::xattr(self.file, name).is_ok_and(|has| has.as_deref() == Some(&*value)) {
            return Ok(());
        }
        sys::set_xattr(self.file, name, &value)
    }

    fn failed(&self, what: &str, source: io::Error) -> DiskError {
        DiskError::io(self.path, what, source)
    }
}

fn is_kept(name: &CString) -> bool {
    let name = name.as_bytes();
    KEPT.iter().any(|kind| name.starts_with(kind)) && !NOT_KEPT.iter().any(|kind| name.starts_with(kind))
}

/// Returns true if the old file has copy-on-write turned off. Returns false if that can't be found out.
fn nocow(dest: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest);
    opened.and_then(|old| sys::is_nocow(&old)).unwrap_or(false)
}

/// Turns copy-on-write off for a new, empty file if it is off for the old one. [`NewFile::give`] reports if that was
/// not possible.
pub(crate) fn keep_nocow(file: &File, dest: &Path) {
    if nocow(dest) {
        let _said_later = sys::set_nocow(file);
    }
}
