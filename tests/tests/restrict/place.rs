//! A directory that a key may write to, all that may lead out of it, and what is asked of the receiver.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::stat::Mode;
use rig::{Outcome, TestDisk, mark_part, pour, requires_root, run, tool, tools};
use tempfile::TempDir;

pub(crate) const ENV: &str = "SSH_ORIGINAL_COMMAND";
/// Bytes of shell text that a sender has for who asks for them.
pub(crate) const TEXT_LEN: usize = 33_333;

/// A word as a sender codes it.
pub(crate) fn coded(bytes: &[u8]) -> String {
    let code = |&byte: &u8| match byte.is_ascii_alphanumeric() || b"/._,+:@%=-".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("\\0{byte:03o}"),
    };
    format!("'{}'", bytes.iter().map(code).collect::<String>())
}

/// A request by these options, all words coded.
pub(crate) fn request(options: &[&str], dest: &[u8], name: &[u8]) -> String {
    let options: String = options.iter().map(|option| format!("{} ", coded(option.as_bytes()))).collect();
    let (dest, name) = (coded(dest), coded(name));
    format!(
        "exec sh -c 'touch never; eval \"$(dd ibs=1 count=$2 2>/dev/null)\"' recv-hole 1 {TEXT_LEN} {options}-- {dest} {name}"
    )
}

/// The directory that a key may write to, what is around it, and a disk to send there.
pub(crate) struct Place {
    pub(crate) outer: TempDir,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stream: Vec<u8>,
    pub(crate) keeping: Vec<u8>,
}

impl Place {
    pub(crate) fn new() -> Self {
        requires_root();
        let outer = tempfile::tempdir().unwrap();
        let at = |name: &str| outer.path().join(name);
        let image = at("disk.img");
        TestDisk::empty(40_000).with(8192, 9000, 1).make(&image);
        let (bytes, stream) = (fs::read(&image).unwrap(), pour(&tools!(), &["--hash"], &image));
        fs::remove_file(&image).unwrap();
        for dir in ["dir/sub/deep", "dir/empty", "outside", "dir-2"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["dir/old.img", "dir/sub/old.img", "outside/precious", "dir-2/precious"] {
            fs::write(at(file), "precious").unwrap();
        }
        symlink("../outside", at("dir/door")).unwrap();
        symlink("sub", at("dir/inner")).unwrap();
        symlink("../outside/precious", at("dir/window")).unwrap();
        symlink("../outside/new", at("dir/dangling")).unwrap();
        symlink("old.img", at("dir/alias")).unwrap();
        symlink("/proc/self/root", at("dir/root")).unwrap();
        symlink("/proc/self/cwd", at("dir/cwd")).unwrap();
        fs::write(at("dir/half.img.part"), "what somebody left").unwrap();
        mark_part(&at("dir/half.img.part"));
        symlink("../outside/precious", at("dir/trap.img.part")).unwrap();
        symlink("../outside/made", at("dir/trap2.img.part")).unwrap();
        fs::hard_link(at("outside/precious"), at("dir/linked.img")).unwrap();
        fs::create_dir(at("dir/folder.img.part")).unwrap();
        fs::create_dir(at("dir/empty/given.img")).unwrap();
        for fifo in ["dir/fifo", "dir/fifo.img.part"] {
            nix::unistd::mkfifo(&at(fifo), Mode::from_bits_truncate(0o666)).unwrap();
        }
        drop(UnixListener::bind(at("dir/socket")).unwrap());
        for device in ["dir/null", "dir/null.img.part"] {
            tool("mknod", &[at(device).to_str().unwrap(), "c", "1", "3"]);
        }
        tool("mknod", &[at("dir/loop").to_str().unwrap(), "b", "7", "200"]);
        let keeping = b"XFER-HOLE 1 8\nBASE 8\nKEEP 8\nEND\n".to_vec();
        Self { outer, bytes, stream, keeping }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str], request: Option<&OsStr>) -> Command {
        let mut command = Command::new(tools!().recv_hole);
        command.arg("--restrict").arg(self.at("dir")).args(args).current_dir(self.at("outside")).env_remove(ENV);
        if let Some(request) = request {
            command.env(ENV, request);
        }
        command
    }

    pub(crate) fn ask(&self, args: &[&str], request: &str) -> Outcome {
        self.ask_by(args, OsStr::new(request), &self.stream)
    }

    pub(crate) fn ask_by(&self, args: &[&str], request: &OsStr, input: &[u8]) -> Outcome {
        run(&mut self.command(args, Some(request)), input)
    }

    /// All that is there: kind, mode, links, and bytes or where a link leads.
    pub(crate) fn all(&self) -> BTreeMap<PathBuf, (u32, u64, u64, Vec<u8>)> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.outer.path().to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                let kind = stat.file_type();
                let bytes = match kind {
                    _ if kind.is_dir() => {
                        folders.push(path.clone());
                        Vec::new()
                    }
                    _ if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                    _ if kind.is_file() => fs::read(&path).unwrap(),
                    _ => Vec::new(),
                };
                let inode = if kind.is_dir() { 0 } else { stat.ino() };
                found.insert(path, (stat.mode(), stat.nlink(), inode, bytes));
            }
        }
        found
    }
}

/// One line of printable ASCII that says why, exit code 2, and nothing else.
#[track_caller]
pub(crate) fn failed(outcome: &Outcome, what: &str) -> String {
    let said = String::from_utf8(outcome.out.clone()).unwrap_or_else(|_| panic!("{what}: no text"));
    let code = if said.contains("FAIL (again") { 75 } else { 2 };
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(code), ""), "{what}: {said}");
    let last = said.lines().last().unwrap_or_else(|| panic!("{what}: nothing is said"));
    let why = last.strip_prefix("FAIL ").unwrap_or_else(|| panic!("{what}: {said}"));
    assert!(!why.is_empty() && why.len() <= 900, "{what}: {said}");
    assert!(why.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{what}: {said}");
    assert!(said.ends_with('\n') && !said.contains("DONE"), "{what}: {said}");
    why.to_owned()
}

#[track_caller]
pub(crate) fn done(outcome: &Outcome, what: &str) {
    let said = String::from_utf8_lossy(&outcome.out);
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{what}: {said}");
    assert!(said.starts_with("XFER-HOLE-READY 1 recv-hole") && said.contains("\nDONE"), "{what}: {said}");
}
