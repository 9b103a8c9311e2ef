//! Owner and mode of a target, as the user requested them.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::unistd::{Group, User};

/// An owner by number. IDs that are `None` are not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User ID.
    pub user: Option<u32>,
    /// Group ID.
    pub group: Option<u32>,
}

/// Parses `USER`, `USER:GROUP` or `:GROUP`. Digits are an ID; anything else is a name on this machine.
///
/// # Errors
///
/// A message if the text has another form or the name is unknown.
pub fn parse_owner(text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        None => (Some(text), None),
        Some(("", group)) => (None, Some(group)),
        Some((user, group)) => (Some(user), Some(group)),
    };
    let by_name = |name: &str| User::from_name(name).map(|user| user.map(|user| user.uid.as_raw()));
    let user = user.map(|user| id(user, "user", by_name)).transpose()?;
    let by_name = |name: &str| Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw()));
    let group = group.map(|group| id(group, "group", by_name)).transpose()?;
    Ok(Owner { user, group })
}

fn id(text: &str, what: &str, by_name: impl Fn(&str) -> nix::Result<Option<u32>>) -> Result<u32, String> {
    if text.is_empty() {
        return Err(format!("expected USER, USER:GROUP or :GROUP, but the {what} is empty"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // In system calls the largest number means "leave unchanged".
        let number = text.parse().ok().filter(|&number| number != u32::MAX);
        return number.ok_or_else(|| format!("{text} is too large for a {what}'s number"));
    }
    match by_name(text) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(format!("there is no {what} \"{}\" here", text.escape_debug())),
        Err(error) => Err(format!("cannot look up the {what} \"{}\": {}", text.escape_debug(), error.desc())),
    }
}

/// Parses a mode in octal, as chmod takes it: `640`, `0640`, up to `7777`.
///
/// # Errors
///
/// A message if the text is no such number.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = if octal { u32::from_str_radix(text, 8).ok() } else { None };
    mode.filter(|&mode| mode <= 0o7777).ok_or_else(|| "expected permissions in octal, such as 640".to_owned())
}

/// The permissions that the user requested.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilePermissions {
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
}

impl FilePermissions {
    /// Sets the requested permissions. The owner is set first, since that clears set-id bits.
    pub(crate) fn give(self, file: &File) -> Result<(), (&'static str, io::Error)> {
        self.give_owner(file)?;
        let Some(mode) = self.mode else { return Ok(()) };
        file.set_permissions(Permissions::from_mode(mode)).map_err(|source| ("cannot set the mode", source))
    }

    pub(crate) fn give_owner(self, file: &File) -> Result<(), (&'static str, io::Error)> {
        let Some(Owner { user, group }) = self.owner else { return Ok(()) };
        fchown(file, user, group).map_err(|source| ("cannot set the owner", source))
    }

    /// Checks whether the owner may be set, before the transfer takes time: sets the owner of a new file and restores
    /// it.
    pub(crate) fn try_owner(self, file: &File) -> Result<(), (&'static str, io::Error)> {
        if self.owner.is_none() {
            return Ok(());
        }
        let failed = |source| ("cannot set the owner", source);
        let stat = file.metadata().map_err(failed)?;
        self.give_owner(file)?;
        fchown(file, Some(stat.uid()), Some(stat.gid())).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_or_names_of_this_machine() {
        let owner = |user, group| Ok(Owner { user, group });
        assert_eq!(parse_owner("0"), owner(Some(0), None));
        assert_eq!(parse_owner("root"), owner(Some(0), None));
        assert_eq!(parse_owner("root:root"), owner(Some(0), Some(0)));
        assert_eq!(parse_owner(":7"), owner(None, Some(7)));
        assert_eq!(parse_owner("1000:0100"), owner(Some(1000), Some(100)));
        for text in ["", ":", "0:", "root:", "no such user", "0:0:0", "4294967295", "-1", "+1", "99999999999", "a\0b"] {
            assert!(parse_owner(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("640", 0o640), ("0640", 0o640), ("0", 0), ("7777", 0o7777), ("000644", 0o644)] {
            assert_eq!(parse_mode(text), Ok(mode), "{text}");
        }
        for text in ["", "648", "10000", "u+x", "-1", "+644", "0o644", "rw-r--r--", " 644", "77777777777777777"] {
            assert!(parse_mode(text).is_err(), "{text:?}");
        }
    }
}
