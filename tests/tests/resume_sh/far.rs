//! What a push goes to that is cut: an image here, and a far end that is sh, without ssh between them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use rig::{Outcome, TestDisk, Toolbox, assert_same, part_of, preamble, requires, run, tool, tools};
use serde_json::Value;
use tempfile::TempDir;
use xfer_hole_transport::PushRequest;

/// What the digests are of.
pub(crate) const INTERVAL: u64 = 128 << 10;
pub(crate) const CUT_SO: [&str; 4] = ["--hash-interval", "128K", "--min-hole", "4K"];
/// A line of the stream, and how many an interval of these disks has at most.
pub(crate) const LINES: u64 = 90 * 4;

/// An image at this end, and another machine, which is this one, without ssh.
pub(crate) struct Far {
    pub(crate) folder: TempDir,
    pub(crate) toolbox: Toolbox,
    pub(crate) image: PathBuf,
    pub(crate) dest: PathBuf,
}

impl Far {
    pub(crate) fn new(sh: &str, disk: &TestDisk) -> Self {
        requires(&[sh]);
        let folder = TempDir::new().unwrap();
        let (image, dest, cut) =
            (folder.path().join("disk.img"), folder.path().join("out.img"), folder.path().join("cut"));
        disk.make(&image);
        fs::create_dir(folder.path().join("bin")).unwrap();
        let sh = tool("sh", &["-c", &format!("command -v {sh}")]);
        symlink(sh.trim_end(), folder.path().join("bin/sh")).unwrap();
        // The command is the last word. Of the stream as many bytes come through as the file says, or all.
        let text = format!(
            "for command; do :; done\nPATH='{}':$PATH\nn=${{command#*recv-hole 1 }}\n[ -e '{1}' ] || exec sh -c \"$command\"\n\
             stdbuf -o0 head -c $((${{n%% *}} + $(cat '{1}'))) | sh -c \"$command\"",
            folder.path().join("bin").display(),
            cut.display()
        );
        let toolbox = Toolbox::new().script("rsh", &text);
        Self { folder, toolbox, image, dest }
    }

    /// `xfer-hole ARGS IMAGE there:DEST`
    pub(crate) fn sender(&self, args: &[&str]) -> Command {
        let mut sender = Command::new(tools!().xfer_hole);
        sender.args(["-e", &self.toolbox.program("rsh"), "--progress", "json"]).args(args).arg(&self.image);
        if !args.contains(&"--receiver") {
            sender.args(["--receiver", "sh"]);
        }
        let mut place = std::ffi::OsString::from("there:");
        place.push(&self.dest);
        sender.arg(place);
        sender
    }

    pub(crate) fn push(&self, args: &[&str]) -> Outcome {
        run(&mut self.sender(&[&CUT_SO, args].concat()), b"")
    }

    /// A push that nothing stands in the way of: how many bytes of stream it took.
    #[track_caller]
    pub(crate) fn finish(&self, args: &[&str]) -> u64 {
        let wire = wire(&self.push(args).ok());
        assert_same(&self.image, &self.dest);
        assert!(!part_of(&self.dest).exists() && !self.lines().exists(), "nothing is left beside it");
        wire
    }

    /// A push whose link ends behind so many bytes of the stream.
    #[track_caller]
    pub(crate) fn cut(&self, bytes: u64) -> Outcome {
        let cut = self.folder.path().join("cut");
        fs::write(&cut, bytes.to_string()).unwrap();
        let outcome = self.push(&[]);
        fs::remove_file(cut).unwrap();
        assert_eq!(outcome.code, Some(2), "cut behind {bytes}: {}", outcome.err);
        outcome
    }

    pub(crate) fn part(&self) -> PathBuf {
        part_of(&self.dest)
    }

    pub(crate) fn lines(&self) -> PathBuf {
        self.dest.with_extension("img.part.lines")
    }

    /// Bytes of data in the intervals in which `.part` isn't as the image.
    pub(crate) fn missing(&self) -> u64 {
        let image = fs::read(&self.image).unwrap();
        let mut part = fs::read(self.part()).unwrap_or_default();
        part.resize(image.len(), 0);
        let full = |grain: &&[u8]| grain.iter().any(|&byte| byte != 0);
        let data = |bytes: &[u8]| bytes.chunks(4096).filter(full).map(|grain| grain.len() as u64).sum::<u64>();
        let each = usize::try_from(INTERVAL).unwrap();
        image
            .chunks(each)
            .zip(part.chunks(each))
            .filter(|(image, part)| image != part)
            .map(|(image, _)| data(image))
            .sum()
    }

    /// What may flow where so much is missing, each of the disk's records a line.
    pub(crate) fn allowed(&self, missing: u64) -> u64 {
        missing + 2 * INTERVAL + self.image.metadata().unwrap().len() / INTERVAL * LINES
    }

    /// What is said to a stream of one's own making.
    pub(crate) fn answers(&self, stream: &str) -> (Option<i32>, String) {
        let options = vec!["receiver=sh".into()];
        let request =
            PushRequest { options, dest: self.dest.clone().into(), name: "x".into(), ..PushRequest::default() };
        let mut command = Command::new("sh");
        command.arg("-c").arg(request.command(preamble().len()));
        let outcome = run(&mut command, &[preamble().as_bytes(), stream.as_bytes()].concat());
        (outcome.code, String::from_utf8(outcome.out).unwrap())
    }
}

/// Bytes of the stream, as the sender tells at its end.
#[track_caller]
pub(crate) fn wire(outcome: &Outcome) -> u64 {
    let last = outcome.err.lines().last().unwrap_or_default();
    let end: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", outcome.err));
    end["wire"].as_u64().unwrap()
}
