//! The commands besides sending: what looks at an image and prints what is there.

mod floor;
pub(crate) mod info;
pub(crate) mod map;
mod output;
