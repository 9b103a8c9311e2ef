//! The test rig: file systems, disks, servers, networks and terminals, and the tools as processes.
//!
//! Nothing is mocked: disks are files on mounted file systems and loop devices, receivers are processes, and results
//! are checked with the system's own tools. A test names what it needs with [`requires`], which fails if the machine
//! lacks it.

#![allow(clippy::unwrap_used, reason = "in a test's rig a panic is the message")]

mod account;
mod bytes;
mod commands;
mod compare_qemu;
mod completion;
mod disk;
mod estimates;
mod far_end;
mod filesystem;
mod layers;
mod machine;
mod network;
mod notes;
mod pairs;
mod process;
mod qcow2;
mod receiver;
mod relay;
mod run;
mod running;
mod sshd;
mod stream;
mod tmux;
mod vectors;

pub use commands::{assert_kept, checkout, commands, files_below, flags, flags_named, programs, rust_files};
pub use completion::{Shell, completion};
pub use disk::{Hole, TestDisk, extents, holes, holes_within};
pub use filesystem::{Filesystem, Frozen, Fs, LoopDevice};
mod toolbox;
pub use account::{Account, Belongings};
pub use bytes::{Field, l1_entry, l2_entry, peek, poke, stretch_header, write_at};
pub use compare_qemu::{
    Mapped, assert_as, assert_as_qemu, assert_refused, by_tables, gone_back, merged, our_map, qemu_disk, qemu_map,
};
pub use estimates::foretold;
pub use far_end::FarEnd;
pub use layers::Layers;
pub use machine::{Machine, RECIPE_DOCUMENTS, recipes};
pub use network::Network;
pub use notes::{note_in, note_of};
pub use pairs::{pairs, pairwise, product};
pub use process::Process;
pub use qcow2::{Fill, Op, Qcow2, qemu_img};
pub use receiver::{Receiver, SHELLS, preamble, script};
pub use relay::{Cut, Flowed, Wiretap, converse, differing, held};
pub use run::{Outcome, Tools, assert_same, pour, run, send_to, tool};
pub use running::{Before, Running, mark_part, mode, part_of, wait_until};
pub use sshd::{HOST, Setup, Sshd};
pub use stream::{assert_holes_within, holes_of, items, records};
pub use tmux::Tmux;
pub use toolbox::Toolbox;
pub use vectors::{Bad, Dest, Dialects, Good, Index, vector};

/// Fails with a list of missing programs unless all of these are installed.
pub fn requires(programs: &[&str]) {
    let missing: Vec<_> = programs.iter().filter(|program| run::find(program).is_none()).collect();
    assert!(missing.is_empty(), "these programs are required and not installed: {missing:?}; ./check installs them");
}

/// Fails unless the test runs as root, which mounts and loop devices need.
pub fn requires_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts file systems and must run as root");
}
