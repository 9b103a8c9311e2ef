//! The commands besides sending.

pub(crate) mod digest;
mod floor;
pub(crate) mod info;
pub(crate) mod manifest;
pub(crate) mod map;
mod output;
pub(crate) mod pair;
mod sums;
pub(crate) mod verify;
mod watched;
