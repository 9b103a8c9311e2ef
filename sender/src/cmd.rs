//! The subcommands.

pub(crate) mod digest;
mod disk_args;
pub(crate) mod fold_prune;
pub(crate) mod hash_args;
pub(crate) mod info;
mod info_json;
pub(crate) mod manifest;
pub(crate) mod map;
pub(crate) mod output;
pub(crate) mod verify;
