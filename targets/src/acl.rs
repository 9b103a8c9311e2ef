//! A POSIX ACL in the form of its extended attribute: a version, followed by entries of eight bytes.

use std::ffi::CStr;

/// Name of the attribute.
pub(crate) const ACL: &CStr = c"system.posix_acl_access";
const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY: usize = 8;
/// Tags of entries: named users and groups, the owning group, and the mask, which limits all entries except those of
/// the owner and of others.
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

    /// Returns the rights of the owning group: its entry, limited by the mask.
    pub(crate) fn group_rights(&self) -> u32 {
        let group = self.entries().find(|(tag, _)| *tag == GROUP).map(|(_, rights)| rights);
        u32::from(group.unwrap_or(0) & self.mask())
    }

    /// Returns the rights that every named user and group has. Without the ACL, these users and groups get the rights
    /// of the owning group or of others.
    pub(crate) fn named_rights(&self) -> u32 {
        let named = self.entries().filter(|(tag, _)| [NAMED_USER, NAMED_GROUP].contains(tag));
        u32::from(named.fold(7, |all, (_, rights)| all & rights & self.mask()))
    }

    fn mask(&self) -> u16 {
        self.entries().find(|(tag, _)| *tag == MASK).map_or(7, |(_, rights)| rights & 7)
    }

    /// Returns the ACL without rights for the owning group, for a file whose owning group is another one.
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

/// Decodes a little-endian number of two bytes.
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
        // The rights that all named entries have in common.
        for (expected, entries) in
            [(6, &[(2, 6), (16, 7)][..]), (0, &[(2, 6), (8, 0), (16, 7)]), (4, &[(8, 7), (16, 4)]), (7, &[])]
        {
            assert_eq!(acl(&[&[(1, 6), (4, 4)], entries, &[(32, 4)]].concat()).named_rights(), expected);
        }
        let narrowed = acl(&[(1, 6), (2, 6), (4, 6), (16, 6), (32, 4)]).without_group();
        assert_eq!(narrowed, acl(&[(1, 6), (2, 6), (4, 0), (16, 6), (32, 4)]));
    }

    #[test]
    fn invalid_acl_is_rejected() {
        for wrong in [&b""[..], &VERSION, &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0]] {
            assert_eq!(Acl::parse(wrong.to_vec()), None, "{wrong:?}");
        }
    }
}
