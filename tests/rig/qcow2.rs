//! qcow2 test images, created by qemu-img and written by qemu-io.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::find;

/// The bytes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// One byte, repeated.
    Same(u8),
    /// Incompressible bytes, from a seed.
    Noise(u64),
    /// Bytes that compress to about a third, from a seed.
    Text(u64),
}

/// One operation of qemu-io on an image. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes.
    Write(u64, u64, Fill),
    /// Writes compressed clusters: offset and length are multiples of the cluster size.
    Compressed(u64, u64, Fill),
    /// Writes zeros and keeps the allocation.
    Zero(u64, u64),
    /// Writes zeros and frees the allocation.
    Unmap(u64, u64),
    /// Discards.
    Discard(u64, u64),
}

impl Op {
    /// The command of qemu-io, which reads its data from files in `folder`.
    fn command(self, folder: &Path) -> String {
        let filled = |fill: Fill, len| match fill {
            Fill::Same(byte) => format!("-P {byte}"),
            Fill::Noise(_) | Fill::Text(_) => format!("-s {}", fill.file(folder, len)),
        };
        match self {
            Self::Write(at, len, fill) => format!("write -q {} {at} {len}", filled(fill, len)),
            Self::Compressed(at, len, fill) => format!("write -q -c {} {at} {len}", filled(fill, len)),
            Self::Zero(at, len) => format!("write -q -z {at} {len}"),
            Self::Unmap(at, len) => format!("write -q -z -u {at} {len}"),
            Self::Discard(at, len) => format!("discard -q {at} {len}"),
        }
    }
}

/// The length in bytes after which a fill repeats.
const PERIOD: usize = (1 << 20) + 4096;

impl Fill {
    /// The path of a file with the fill's bytes, for qemu-io.
    fn file(self, folder: &Path, len: u64) -> String {
        let len = usize::try_from(len).unwrap().min(PERIOD);
        let path = folder.join(format!("{self:?}{len}"));
        if !path.exists() {
            fs::write(&path, self.bytes(len)).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    /// The first `len` bytes of the fill.
    pub fn bytes(self, len: usize) -> Vec<u8> {
        let (mut state, share) = match self {
            Self::Same(byte) => return vec![byte; len],
            Self::Noise(seed) => (seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15), 32),
            Self::Text(seed) => (seed.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9), 10),
        };
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u8::try_from(state >> 56).unwrap()
        };
        (0..len).map(|at| if at % 32 < share { next() } else { b'a' + u8::try_from(at % 32).unwrap() }).collect()
    }
}

/// A step in making an image.
#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    /// An internal snapshot of this name.
    Snapshot(String),
    /// A resize to this size in bytes.
    Resize(u64),
}

/// The description of an image.
#[derive(Clone, Debug)]
pub struct Qcow2 {
    size: Option<u64>,
    options: Vec<String>,
    backing: Option<(String, Option<String>)>,
    steps: Vec<Step>,
    forgiving: bool,
}

impl Qcow2 {
    /// An image of this virtual size in bytes.
    pub fn new(size: u64) -> Self {
        Self { size: Some(size), options: Vec::new(), backing: None, steps: Vec::new(), forgiving: false }
    }

    /// An image with a backing file in this format, of the same size.
    pub fn over(backing: &str, format: &str) -> Self {
        Self { size: None, ..Self::new(0) }.backing(backing, Some(format))
    }

    /// Adds an option of `qemu-img create -o`, such as "cluster_size=4k", or several with commas.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.extend((!option.is_empty()).then(|| option.to_owned()));
        self
    }

    /// Sets the backing file's name as written into the image, and its declared format, if any. The file need not
    /// exist.
    #[must_use]
    pub fn backing(mut self, name: &str, format: Option<&str>) -> Self {
        self.backing = Some((name.into(), format.map(Into::into)));
        self
    }

    /// Adds an operation of qemu-io.
    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.steps.push(Step::Op(op));
        self
    }

    /// Adds operations of qemu-io.
    #[must_use]
    pub fn ops(self, ops: impl IntoIterator<Item = Op>) -> Self {
        ops.into_iter().fold(self, Self::op)
    }

    /// Writes.
    #[must_use]
    pub fn write(self, at: u64, len: u64, fill: Fill) -> Self {
        self.op(Op::Write(at, len, fill))
    }

    /// Ignores errors of qemu-io, as for a compressed write to an allocated cluster.
    #[must_use]
    pub fn forgiving(self) -> Self {
        Self { forgiving: true, ..self }
    }

    /// Adds an internal snapshot.
    #[must_use]
    pub fn snapshot(mut self, name: &str) -> Self {
        self.steps.push(Step::Snapshot(name.into()));
        self
    }

    /// Adds a resize to this size in bytes.
    #[must_use]
    pub fn resize(mut self, size: u64) -> Self {
        self.steps.push(Step::Resize(size));
        self
    }

    /// Creates the image, replacing an existing file.
    #[track_caller]
    pub fn make(&self, path: &Path) {
        let _not_there = fs::remove_file(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut args: Vec<String> = ["create", "-q", "-f", "qcow2"].map(String::from).into();
        if !self.options.is_empty() {
            args.extend(["-o".into(), self.options.join(",")]);
        }
        if let Some((backing, _)) = &self.backing {
            // With -u, a backing file is not opened if the size is given.
            args.extend(["-b".into(), backing.clone()]);
            args.extend(self.size.is_some().then(|| "-u".into()));
        }
        if let Some((_, Some(format))) = &self.backing {
            args.extend(["-F".into(), format.clone()]);
        }
        // qemu-img does not accept a backing file without a format, so it is written into the image afterwards.
        let bare = self.backing.as_ref().is_some_and(|(_, format)| format.is_none());
        if bare {
            args.retain(|arg| arg != "-u");
            let at = args.iter().position(|arg| arg == "-b").unwrap();
            args.drain(at..at + 2);
        }
        args.push(name.into());
        args.extend(self.size.map(|size| size.to_string()));
        qemu("qemu-img", path, &args);
        self.live(path);
        if let (true, Some((backing, _))) = (bare, &self.backing) {
            crate::bytes::name_backing(path, backing);
        }
    }

    /// Applies the steps to an existing image.
    #[track_caller]
    pub fn live(&self, path: &Path) {
        let fills = tempfile::tempdir().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut batch: Vec<String> = Vec::new();
        let write = |batch: &mut Vec<String>| {
            if !batch.is_empty() {
                let commands = batch.drain(..).flat_map(|command| ["-c".into(), command]);
                let args: Vec<String> =
                    ["-f", "qcow2", "-d", "unmap"].map(String::from).into_iter().chain(commands).collect();
                let (done, text) = ran("qemu-io", path, &[&args[..], &[name.into()]].concat());
                assert!(self.forgiving || (done && text.is_empty()), "{args:?}: {text}");
            }
        };
        for step in &self.steps {
            match step {
                Step::Op(op) => batch.push(op.command(fills.path())),
                Step::Snapshot(snapshot) => {
                    write(&mut batch);
                    qemu("qemu-img", path, &["snapshot".into(), "-c".into(), snapshot.clone(), name.into()]);
                }
                Step::Resize(size) => {
                    write(&mut batch);
                    let args = ["resize", "-q", "--shrink", "-f", "qcow2", name, &size.to_string()].map(String::from);
                    qemu("qemu-img", path, &args);
                }
            }
        }
        write(&mut batch);
    }
}

/// Runs a QEMU program in the directory of an image, since it looks for data files there. Returns whether it
/// succeeded, and both of its outputs.
fn ran(program: &str, image: &Path, args: &[String]) -> (bool, String) {
    let found = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let folder = image.parent().unwrap();
    let output = Command::new(found).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), text.concat())
}

#[track_caller]
fn qemu(program: &str, image: &Path, args: &[String]) -> String {
    let (done, text) = ran(program, image, args);
    assert!(done, "{program} {args:?}: {text}");
    text
}

/// Runs `qemu-img ARGS IMAGE`, which must succeed, and returns its standard output.
#[track_caller]
pub fn qemu_img(args: &[&str], image: &Path) -> String {
    let name = image.file_name().unwrap().to_str().unwrap();
    qemu("qemu-img", image, &args.iter().chain(&[name]).map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
}
