//! The commands besides sending.

pub(crate) mod digest;
mod disk_args;
mod floor;
pub(crate) mod info;
pub(crate) mod manifest;
pub(crate) mod map;
pub(crate) mod output;
pub(crate) mod pair;
mod sums;
pub(crate) mod verify;
