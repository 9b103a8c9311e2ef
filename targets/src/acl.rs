//! A POSIX ACL as the extended attribute that it is: a version, and entries of eight bytes.

use std::ffi::CStr;

/// The attribute's name.
pub(crate) const ACL: &CStr = c"system.posix_acl_access";
const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY: usize = 8;
/// Tags of entries: users and groups by number, the owning group, and the mask of what all but the owner and others may get.
const NAMED_USER: u16 = 0x02;
const NAMED_GROUP: u16 = 0x08;
const GROUP: u16 = 0x04;
const MASK: u16 = 0x10;

/// An ACL of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<u8>);

impl Acl {
    pub(crate) fn parse(value: Vec<u8>) -> Option<Self> {
        let entries = value.strip_prefix(&VERSION)?;
        (entries.len() % ENTRY == 0 && !entries.is_empty()).then_some(Self(value))
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0
    }

    /// What the owning group gets: its entry, as far as the mask lets it.
    pub(crate) fn group_rights(&self) -> u32 {
        let group = self.entries().find(|(tag, _)| *tag == GROUP).map(|(_, rights)| rights);
        u32::from(group.unwrap_or(0) & self.mask())
    }

    /// What each of the users and groups that it names gets: without the ACL, they may get what the owning group and others get.
    pub(crate) fn named_rights(&self) -> u32 {
        let named = self.entries().filter(|(tag, _)| [NAMED_USER, NAMED_GROUP].contains(tag));
        u32::from(named.fold(7, |all, (_, rights)| all & rights & self.mask()))
    }

    fn mask(&self) -> u16 {
        self.entries().find(|(tag, _)| *tag == MASK).map_or(7, |(_, rights)| rights & 7)
    }

    /// The ACL with no rights for the owning group, which is another one.
    pub(crate) fn without_group(mut self) -> Self {
        for entry in self.0[VERSION.len()..].chunks_exact_mut(ENTRY) {
            if number(entry) == GROUP {
                entry[2..4].fill(0);
            }
        }
        self
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0[VERSION.len()..].chunks_exact(ENTRY).map(|entry| (number(entry), number(&entry[2..])))
    }
}

/// The number of two bytes, the lower first.
fn number(bytes: &[u8]) -> u16 {
    u16::from(bytes[0]) | u16::from(bytes[1]) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        let entries = entries.iter().flat_map(|(tag, rights)| {
            let (tag, rights) = (u8::try_from(*tag).unwrap(), u8::try_from(*rights).unwrap());
            [tag, 0, rights, 0, 0xff, 0xff, 0xff, 0xff]
        });
        Acl::parse(VERSION.into_iter().chain(entries).collect()).unwrap()
    }

    #[test]
    fn the_owning_group_gets_its_entry_within_the_mask() {
        // user::rw- user:1:rw- group::--- mask::rw- other::---
        let libvirt = acl(&[(1, 6), (2, 6), (4, 0), (16, 6), (32, 0)]);
        assert_eq!(libvirt.group_rights(), 0);
        assert_eq!(acl(&[(1, 6), (4, 7), (16, 4), (32, 0)]).group_rights(), 4);
        assert_eq!(acl(&[(1, 6), (4, 5), (32, 7)]).group_rights(), 5);
        // What is left to all of the named ones.
        for (expected, entries) in
            [(6, &[(2, 6), (16, 7)][..]), (0, &[(2, 6), (8, 0), (16, 7)]), (4, &[(8, 7), (16, 4)]), (7, &[])]
        {
            assert_eq!(acl(&[&[(1, 6), (4, 4)], entries, &[(32, 4)]].concat()).named_rights(), expected);
        }
        let narrowed = acl(&[(1, 6), (2, 6), (4, 6), (16, 6), (32, 4)]).without_group();
        assert_eq!(narrowed, acl(&[(1, 6), (2, 6), (4, 0), (16, 6), (32, 4)]));
    }

    #[test]
    fn what_is_no_acl_is_none() {
        for wrong in [&b""[..], &VERSION, &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0]] {
            assert_eq!(Acl::parse(wrong.to_vec()), None, "{wrong:?}");
        }
    }
}
