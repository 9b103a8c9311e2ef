//! A man page of section 1: from a command line's definition, and from what no definition has.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What a page says besides its command's definition.
pub(crate) struct Page {
    /// The words that call the command.
    pub(crate) words: &'static [&'static str],
    /// Paragraphs behind the first of the description.
    pub(crate) description: &'static [&'static str],
    /// Files that are made, kept or looked for.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Variables that are read, besides those that all read.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) see_also: &'static str,
}

/// What stands behind the flags in a help text, taken apart.
struct AfterHelp {
    /// Lines of examples.
    examples: Vec<String>,
    /// Paragraphs; lines that begin with a space stand as they are.
    notes: Vec<String>,
    exit_status: String,
}

impl AfterHelp {
    fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (before, exit_status) =
            text.split_once("\nExit status is ").expect("a help text ends with the exit status");
        let (examples, notes) = before.split_once("\n\n").unwrap_or((before, ""));
        let examples = examples.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect();
        let notes = notes.split("\n\n").filter(|note| !note.trim().is_empty()).map(str::to_owned).collect();
        Self { examples, notes, exit_status: format!("Exit status is {exit_status}") }
    }
}

impl Page {
    /// The page.
    pub(crate) fn text(&self, command: Command) -> String {
        let mut page = Vec::new();
        let (help, has_commands) = (AfterHelp::of(&command), command.has_subcommands());
        let man = Man::new(command).section("1").manual("xfer-hole").date("");
        man.render_title(&mut page).unwrap();
        man.render_name_section(&mut page).unwrap();
        man.render_synopsis_section(&mut page).unwrap();
        man.render_description_section(&mut page).unwrap();
        let mut roff = Roff::new();
        for text in self.description {
            roff.control("PP", []).text([roman(*text)]);
        }
        for note in &help.notes {
            roff.control("PP", []);
            for line in note.lines() {
                if line.starts_with(' ') {
                    roff.control("br", []);
                }
                roff.text([roman(line)]);
            }
        }
        roff.to_writer(&mut page).unwrap();
        man.render_options_section(&mut page).unwrap();
        if has_commands {
            man.render_subcommands_section(&mut page).unwrap();
        }
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in &help.examples {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
        list(&mut roff, "FILES", self.files);
        list(&mut roff, "ENVIRONMENT", &[self.environment, EVERYWHERE].concat());
        roff.control("SH", ["EXIT STATUS"]).text([roman(help.exit_status.replace('\n', " "))]);
        roff.control("SH", ["SEE ALSO"]).text([roman(self.see_also)]);
        roff.to_writer(&mut page).unwrap();
        String::from_utf8(page).unwrap()
    }
}

fn list(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, text) in entries {
        roff.control("TP", []).text([bold(*name)]).text([roman(*text)]);
    }
}

const EVERYWHERE: &[(&str, &str)] = &[("NO_COLOR", "If it is set, the help text has no colours.")];
const TERM: (&str, &str) =
    ("TERM", "The progress bar is redrawn by escape sequences, unless this is \"dumb\" or not set.");
const TMPDIR: (&str, &str) = (
    "TMPDIR",
    "Where records of a manifest wait that are too many for memory, in a file without a name; /var/tmp if it is not set.",
);
const CACHE: (&str, &str) = (
    "XDG_CACHE_HOME, HOME",
    "Fingerprints are noted in xfer-hole below the first, else in .cache/xfer-hole below the second.",
);
const IMAGE: (&str, &str) = (
    "IMAGE",
    "The image, and the files that it names: backing files and an external data file. They are opened below the image's own directory and those of --allow only. Nothing is written to them.",
);
const NOTES: (&str, &str) = (
    "~/.cache/xfer-hole/",
    "Notes of fingerprints, one file for each IMAGE and DEST of a transfer with digests. They may be removed at any time.",
);
const PART: (&str, &str) = (
    "DEST.part",
    "The new file while it is written, readable by its owner only. It is renamed to DEST when the whole disk is stored. What an interrupted transfer leaves is gone on with by the next one to the same DEST; it may be removed.",
);
const LINES: (&str, &str) = (
    "DEST.part.lines, DEST.part.next",
    "What recv-hole.sh has written down of DEST.part, to go on from it; or only the mark by which DEST.part is known as a transfer's, where the file system has no extended attributes. They go when DEST.part does.",
);
const ASKS: (&str, &str) = (
    "SSH_ASKPASS, DISPLAY",
    "If one of them is set, ssh may ask for a password without a terminal, and --timeout counts from the far end's first answer on.",
);
const SSH: (&str, &str) =
    ("~/.ssh/config", "Read by ssh(1), which knows hosts, keys and ports; --ssh-config names another file.");

/// The pages, in the order of [`rig::commands`].
pub(crate) const PAGES: [Page; 9] = [
    Page {
        words: &["xfer-hole"],
        description: &[
            "IMAGE is a raw or qcow2 image, with its backing files, or a block device. DEST becomes a raw image or is a block device. Only what the disk holds is moved: data as it is, and holes as their lengths. In a new file a hole takes no space.",
            "Without DEST the disk goes to standard output, as a stream for recv-hole(1) or recv-hole.sh. With HOST:PATH it goes to another machine over one ssh connection. There recv-hole receives it, if it is installed, and else recv-hole.sh, which is sent along and needs nothing but a POSIX shell. A push is a success only when the receiver has said that the whole disk is stored under its final name. With a PATH on this machine the image is copied.",
            "A new file is written as DEST.part, and renamed to DEST when all of it is stored: until then DEST is as it was. A push or pull that was interrupted goes on from DEST.part when it is run again.",
        ],
        files: &[IMAGE, PART, LINES, NOTES, SSH],
        environment: &[ASKS, TMPDIR, CACHE, TERM],
        see_also: "recv-hole(1), xfer-hole-map(1), xfer-hole-info(1), xfer-hole-manifest(1), xfer-hole-digest(1), xfer-hole-verify(1), xfer-hole-fold(1), xfer-hole-prune(1), xfer-hole-progress(7), xfer-hole-restrict(7), xfer-hole-stream(7)",
    },
    Page {
        words: &["xfer-hole", "map"],
        description: &[
            "Each line is an extent: where it begins on the disk, its length, its status, the image of the chain that it is in (0 is the top), and where its data lies in that image's file.",
        ],
        files: &[IMAGE],
        environment: &[],
        see_also: "xfer-hole(1), xfer-hole-info(1)",
    },
    Page {
        words: &["xfer-hole", "info"],
        description: &[
            "It tells the format, the sizes, the features, the backing chain, the snapshots and the dirty bitmaps of an image. No data is read.",
        ],
        files: &[IMAGE],
        environment: &[],
        see_also: "xfer-hole(1), xfer-hole-map(1)",
    },
    Page {
        words: &["xfer-hole", "fold"],
        description: &[
            "CHILD and PARENT are neighbours in a chain of sparse raw files, in which a hole means that the file below is asked. Afterwards PARENT alone reads as both together did, and CHILD is not needed any more.",
        ],
        files: &[
            ("CHILD", "It is read, and locked meanwhile."),
            ("PARENT", "It is written in place, and locked meanwhile."),
        ],
        environment: &[TERM],
        see_also: "xfer-hole(1), xfer-hole-prune(1), xfer-hole-progress(7)",
    },
    Page {
        words: &["xfer-hole", "prune"],
        description: &[
            "PARENT and CHILD are neighbours in a chain of sparse raw files, in which a hole means that the file below is asked. Space of PARENT that CHILD hides is given back to the file system.",
        ],
        files: &[
            ("PARENT", "It is written in place, and locked meanwhile."),
            ("CHILD", "It is read, and locked meanwhile."),
        ],
        environment: &[TERM],
        see_also: "xfer-hole(1), xfer-hole-fold(1), xfer-hole-progress(7)",
    },
    Page {
        words: &["xfer-hole", "manifest"],
        description: &[
            "A manifest tells what is in a disk without its bytes: it can be kept, sent and compared. Its last line is the digest of the disk's fingerprint.",
        ],
        files: &[IMAGE, ("FILE.part", "FILE while it is written: it has its name when it is whole and stored.")],
        environment: &[TERM],
        see_also: "xfer-hole(1), recv-hole(1), xfer-hole-digest(1), xfer-hole-verify(1), xfer-hole-stream(7)",
    },
    Page {
        words: &["xfer-hole", "digest"],
        description: &[
            "Two disks with the same fingerprint have the same content, whatever formats they are stored in. The whole disk is read, but for its holes.",
        ],
        files: &[IMAGE],
        environment: &[TERM],
        see_also: "xfer-hole(1), xfer-hole-manifest(1), xfer-hole-stream(7)",
    },
    Page {
        words: &["xfer-hole", "verify"],
        description: &[
            "The disk is read and compared with a manifest, interval by interval. To compare two images, have the manifest of one made and compared with the other.",
        ],
        files: &[IMAGE, ("MANIFEST", "What xfer-hole manifest has written.")],
        environment: &[TERM],
        see_also: "xfer-hole(1), recv-hole(1), xfer-hole-manifest(1), xfer-hole-stream(7)",
    },
    Page {
        words: &["recv-hole"],
        description: &[
            "With one word, DEST, the stream of xfer-hole(1) comes on standard input. With HOST:IMAGE and DEST it is fetched from another machine over one ssh connection; xfer-hole has to be installed there. With --verify nothing is written: DEST is compared with the manifest on standard input.",
            "A new file is written as DEST.part, and renamed to DEST when all of it is stored: until then DEST is as it was. In a new file a hole takes no space; on a device, and with --in-place, what was there is zeroed where the disk has a hole. A file that is made of an image that not everybody may read is for its owner only, if the image comes from HOST, or by a push.",
            "xfer-hole starts recv-hole at the other side of a push by --request. With --restrict it serves such requests beneath one directory only, for a key in authorized_keys.",
        ],
        files: &[PART, LINES, NOTES, SSH],
        environment: &[
            ("SSH_ORIGINAL_COMMAND", "With --restrict: the request, as sshd(8) gives it to the command of a key."),
            ASKS,
            TMPDIR,
            CACHE,
            TERM,
        ],
        see_also: "xfer-hole(1), xfer-hole-progress(7), xfer-hole-restrict(7), xfer-hole-stream(7)",
    },
];
