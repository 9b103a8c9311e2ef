//! The receivers: the binary, and the script under each shell.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xfer_hole_transport::quoted_for_sh;

use crate::run::Tools;

/// The shells that the script must run under, as command lines.
pub const SHELLS: [&[&str]; 7] = [
    &["dash"],
    &["bash", "--posix"],
    &["busybox", "ash"],
    &["mksh"],
    &["ksh93"],
    &["yash", "-o", "posixly-correct"],
    &["zsh", "--emulate", "sh"],
];

/// A receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The binary `recv-hole`.
    Binary,
    /// The script `recv-hole.sh` under this shell.
    Script(&'static [&'static str]),
}

impl Receiver {
    /// The binary and the script under every shell.
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::Binary).chain(SHELLS.map(Self::Script)).collect()
    }

    /// The binary and the script under dash.
    pub fn both() -> [Self; 2] {
        [Self::Binary, Self::Script(SHELLS[0])]
    }

    /// The command that receives into `dest`; `in_place` and `no_sync` add options that both receivers have.
    pub fn command(self, tools: &Tools, dest: &Path, in_place: bool, no_sync: bool) -> Command {
        let mut args: Vec<OsString> = Vec::new();
        let mut command = match self {
            Self::Binary => Command::new(&tools.recv_hole),
            Self::Script(shell) => {
                let mut command = Command::new(shell[0]);
                command.args(&shell[1..]).arg(script());
                command
            }
        };
        args.extend(in_place.then(|| "--in-place".into()));
        args.extend(no_sync.then(|| "--no-sync".into()));
        args.push("--".into());
        args.push(dest.into());
        command.args(args);
        command
    }
}

/// The path of `recv-hole.sh` in the repository.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recv-hole.sh")
}

/// The shell text that precedes a pushed stream.
pub fn preamble() -> String {
    let text = |path: &str| fs::read_to_string(script().with_file_name(path)).unwrap();
    let script = quoted_for_sh(&text("recv-hole.sh"));
    format!("script={script}\n{}{}", text("sender/resume.sh"), text("sender/far-end.sh"))
}
