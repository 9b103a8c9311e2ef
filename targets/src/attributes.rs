//! What a new file takes over from the file that it replaces, besides its bytes: owner, mode, ACL, labels and other extended attributes.
//!
//! Rights only ever get narrower. With an ACL, the mode's group bits are the ACL's mask, which limits the users and groups that it names:
//! a file without the ACL gets what the ACL gives the owning group, instead. Users that are not the owner or in the group any more, or not named
//! any more, get what others get: that is limited to what they had.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use xfer_hole_os::{DiskError, Result, reason, shown, sys};

use crate::acl::{ACL, Acl};
use crate::permissions::FilePermissions;

/// Attributes that stand for the old content, or that another file can't have. Ours are made anew.
const NOT_KEPT: [&[u8]; 7] = [
    b"user.xfer-hole.",
    b"security.capability",
    b"security.ima",
    b"security.evm",
    b"trusted.overlay.",
    b"user.overlay.",
    // The ACL once more, as XFS shows it to root.
    b"trusted.SGI_",
];
/// Attributes of these kinds are kept.
const KEPT: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"system.nfs4_acl"];

/// A new file that has yet to get its name, and what it was asked to get.
pub(crate) struct NewFile<'a> {
    pub file: &'a File,
    /// As it stands in messages.
    pub path: &'a Path,
    pub rights: FilePermissions,
    /// The caller isn't told what was there: nothing but plain permissions is taken over.
    pub confined: bool,
}

/// Which of the old owner's numbers the new file has, or was to have other ones.
struct Kept {
    user: bool,
    group: bool,
}

/// What the mode of the new file is limited to.
struct Limits {
    /// The group's bits, if they have to be others than the old ones.
    group: Option<u32>,
    /// Bits that others may have, if they had them.
    others: u32,
}

impl NewFile<'_> {
    /// Gives the new file what was asked for, and what the old one has. `old` is what has the name, if anything has; a new file gets
    /// `fresh_mode`. Half a sentence if something can't be kept.
    pub(crate) fn give(&self, dest: &Path, old: Option<&Metadata>, fresh_mode: u32) -> Result<Option<String>> {
        let mut lost = Vec::new();
        let mode = match old {
            Some(old) => self.take_over(dest, old, &mut lost)?,
            // The directory's default ACL stands; this mode limits what it gives.
            None => fresh_mode,
        };
        // Last: an owner takes set-id bits away, and so may an ACL.
        let rights = FilePermissions { mode: Some(self.rights.mode.unwrap_or(mode)), ..self.rights };
        rights.give(self.file).map_err(|(what, source)| self.failed(what, source))?;
        let note = || format!("cannot keep what the old file had: {}", lost.join(", "));
        Ok((!lost.is_empty() && !self.confined).then(note))
    }

    /// Takes over all but the mode, which comes back.
    fn take_over(&self, dest: &Path, old: &Metadata, lost: &mut Vec<String>) -> Result<u32> {
        let kept = self.take_owner(old, lost)?;
        let mut mode = old.mode() & 0o7777;
        if self.confined || self.rights.owner.is_some() || !lost.is_empty() {
            // Set-id bits are for the bytes, and the owner, that had them.
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
        // The old owner is one of the group, or one of the others.
        let most = if kept.user { 7 } else { mode >> 6 & 7 };
        Ok(mode & (0o7700 | most << 3 | most))
    }

    /// The old owner, unless another was asked for.
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
        // What a group may is not another group's.
        let group_kept = group.is_none() || fchown(self.file, None, group).is_ok();
        let rights = if group_kept { "" } else { ", so its group gets no rights" };
        lost.push(format!("its owner {uid}:{gid}{rights} ({})", reason(&error)));
        Ok(Kept { user: user.is_none(), group: group_kept })
    }

    /// The old ACL, or none where the old file had none, whatever the directory's default is.
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
        // An ACL that can't be read may have named anybody.
        let (group, named) = acl.as_ref().map_or((0, 0), |acl| (acl.group_rights(), acl.named_rights()));
        let others = if group_kept { 7 } else { group };
        let given = match acl {
            // Permissions alone are taken over.
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

    /// False if an ACL may be left, as the directory's default gave it.
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
        // A label that the directory gives anyway need not be permitted.
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

/// True if the old file has no copy on write, as far as that is to be known.
fn nocow(dest: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(dest);
    opened.and_then(|old| sys::is_nocow(&old)).unwrap_or(false)
}

/// Has a new file written without copy on write if the old one is: it must be empty yet. Where that can't be, [`NewFile::give`] says so.
pub(crate) fn keep_nocow(file: &File, dest: &Path) {
    if nocow(dest) {
        let _said_later = sys::set_nocow(file);
    }
}
