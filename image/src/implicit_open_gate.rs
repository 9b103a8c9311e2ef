//! Opens the files that an image refers to: backing files and external data files. No other code opens them.
//!
//! An image comes from another party, and so do the names in it. The gate examines a file before it opens it. It opens
//! the file only if it is below the directory of the image that refers to it, or below a directory that the user
//! allows.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::{DiskError, DiskErrorKind, Result, named, quoted};

use crate::image_file::settled;
use crate::image_path::{path_of, proc_link};
use crate::{ConfinedDir, ImageFile};

/// The rules for opening files that images refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImplicitOpenGate {
    /// True paths of further directories whose files may be opened.
    allow: Vec<PathBuf>,
    /// The reason why no file may be opened, if that is so.
    closed: Option<GateClosed>,
    /// If set, only files in this directory may be opened, but all of them.
    bounds: Option<ConfinedDir>,
}

/// The reason why a gate opens no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateClosed {
    /// The user forbids it.
    Forbidden,
    /// Only the content of the image indicates its format, and a guest may have written it.
    Guessed,
}

impl ImplicitOpenGate {
    /// Allows files below the image's own directory and below `allow`. If `closed`, allows no file.
    ///
    /// # Errors
    ///
    /// A directory of `allow` doesn't exist or can't be examined.
    pub fn new(allow: &[PathBuf], closed: bool) -> Result<Self> {
        let true_path =
            |dir: &PathBuf| fs::canonicalize(dir).map_err(|source| DiskError::io(dir, "cannot be allowed", source));
        let closed = closed.then_some(GateClosed::Forbidden);
        Ok(Self { allow: allow.iter().map(true_path).collect::<Result<_>>()?, closed, bounds: None })
    }

    /// Restricts the gate to files in `bounds`, if it is set.
    #[must_use]
    pub fn within(self, bounds: Option<ConfinedDir>) -> Self {
        Self { bounds, ..self }
    }

    /// The directory that the gate is restricted to.
    pub fn bounds(&self) -> Option<&ConfinedDir> {
        self.bounds.as_ref()
    }

    /// The gate for an image whose format only its content indicates: it opens no file.
    pub fn of_guess(&self) -> Self {
        Self { closed: self.closed.or(Some(GateClosed::Guessed)), ..self.clone() }
    }

    /// Fails if the gate is closed. `named_by` refers to the file as `name`, and uses it as `what` ("backing file").
    ///
    /// # Errors
    ///
    /// [`DiskErrorKind::Refused`] if no file may be opened.
    pub fn check_open(&self, named_by: &Path, what: &str, name: &Path) -> Result<()> {
        let refused = |text| DiskError::new(DiskErrorKind::Refused, named_by, text);
        let name = named(name);
        match self.closed {
            None => Ok(()),
            Some(GateClosed::Forbidden) => {
                Err(refused(format!("has the {what} {name}, and --no-backing forbids to open it")))
            }
            Some(GateClosed::Guessed) => {
                let text = format!(
                    "is a qcow2 image by its content alone, which a guest can write, and its {what} {name} is not opened"
                );
                Err(refused(text).hint(
                    "--format qcow2 if it is a qcow2 image of yours, --format raw if it is the disk of a guest, as it is",
                ))
            }
        }
    }

    /// Opens a file that the image `named_by` (its path as given) refers to as `name`, and uses as `what` ("backing
    /// file"). A relative name is relative to the directory in the image's path; `dir` is that directory's true path
    /// from the time when the image was opened.
    ///
    /// # Errors
    ///
    /// The gate doesn't allow the file, or it can't be opened.
    pub fn open(&self, named_by: &Path, dir: Option<&Path>, what: &str, name: &Path) -> Result<ImageFile> {
        let refused =
            |why: String| DiskError::new(DiskErrorKind::Refused, named_by, format!("{what} {} {why}", named(name)));
        let failed = |source| DiskError::io(named_by, format!("{what} {}", named(name)), source);
        self.check_open(named_by, what, name)?;
        let bytes = name.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(refused("is no name of a file".into()));
        }
        let own = dir
            .ok_or_else(|| refused("is not looked for: the true path of the image's directory can't be told".into()))?;
        if let Some(bounds) = &self.bounds {
            let file = bounds.open_named(own, name, &path_of(named_by, name));
            return file.ok_or_else(|| {
                refused("is not there, or is no regular file within the directory allowed here".into())
            });
        }
        let (dir, entry) = settled(&own.join(name));
        // O_PATH finds the file without opening it, so a fifo or a device is not affected.
        let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(entry).map_err(failed)?;
        let link = proc_link(&found);
        let true_path = fs::read_link(&link).map_err(|source| no_proc(named_by, what, name, source))?;
        if !true_path.starts_with(own) && !self.allow.iter().any(|dir| true_path.starts_with(dir)) {
            return Err(self.outside(named_by, what, name, &true_path));
        }
        let kind = found.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let is = if kind.is_dir() { "is a directory" } else { "is neither a regular file nor a block device" };
            return Err(refused(is.into()));
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&link).map_err(failed)?;
        ImageFile::of(file, &path_of(named_by, name), dir)
    }

    /// The refusal of a file whose true path is `true_path`.
    fn outside(&self, named_by: &Path, what: &str, name: &Path, true_path: &Path) -> DiskError {
        let leads = if true_path == name { String::new() } else { format!(" leads to {}, which", named(true_path)) };
        let where_to = match self.allow[..] {
            [] => "is not below the image's directory",
            _ => "is neither below the image's directory nor below an allowed one",
        };
        let error =
            DiskError::new(DiskErrorKind::Refused, named_by, format!("{what} {}{leads} {where_to}", named(name)));
        // Pipes and sockets have no directory that the user could allow.
        match true_path.parent() {
            Some(dir) if true_path.is_absolute() => {
                error.hint(format!("if you trust this image, --allow {} lets it be read", quoted(dir)))
            }
            _ => error,
        }
    }
}

fn no_proc(named_by: &Path, what: &str, name: &Path, source: io::Error) -> DiskError {
    let text = format!("cannot tell where the {what} {} lies, for which /proc is needed", named(name));
    DiskError::io(named_by, text, source)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image_path::directory;

    /// A directory with images and files that they refer to.
    struct TestDir {
        dir: tempfile::TempDir,
    }

    impl TestDir {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            for name in ["images/sub", "images-2", "secret"] {
                fs::create_dir_all(at(name)).unwrap();
            }
            for name in ["images/base", "images/sub/base", "images-2/base", "secret/base"] {
                fs::write(at(name), name).unwrap();
            }
            symlink("base", at("images/inside")).unwrap();
            symlink("../secret/base", at("images/outside")).unwrap();
            symlink("../secret", at("images/door")).unwrap();
            symlink("images", at("link")).unwrap();
            symlink("images/overlay", at("linked-overlay")).unwrap();
            nix::unistd::mkfifo(&at("images/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            Self { dir }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn gate(&self, allow: &[&str]) -> ImplicitOpenGate {
            ImplicitOpenGate::new(&allow.iter().map(|name| self.at(name)).collect::<Vec<_>>(), false).unwrap()
        }

        /// The content of the file that `image` refers to, or the reason why it isn't opened.
        fn open(
            &self,
            gate: &ImplicitOpenGate,
            image: &str,
            name: &Path,
        ) -> std::result::Result<String, (DiskErrorKind, String, String)> {
            let dir = fs::canonicalize(directory(&self.at(image))).unwrap();
            let opened = gate.open(&self.at(image), Some(&dir), "backing file", name);
            let file = opened.map_err(|error| {
                let text =
                    |text: &str| text.replace(&self.dir.path().canonicalize().unwrap().display().to_string(), "DIR");
                (error.kind(), text(&error.to_string()), text(error.hint_text().unwrap_or_default()))
            })?;
            let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            Ok(String::from_utf8(bytes).unwrap())
        }
    }

    #[test]
    fn file_below_the_image_directory_is_opened() {
        let test_dir = TestDir::new();
        let gate = ImplicitOpenGate::default();
        for (image, name, is) in [
            ("images/overlay", "base", "images/base"),
            ("images/overlay", "./sub/../base", "images/base"),
            ("images/overlay", "sub/base", "images/sub/base"),
            ("images/overlay", "inside", "images/base"),
            ("images/overlay", "../images/base", "images/base"),
            ("images/overlay", "../link/base", "images/base"),
            // The path as given contains a link to the directory or to the image.
            ("link/overlay", "base", "images/base"),
            ("linked-overlay", "images/base", "images/base"),
        ] {
            assert_eq!(test_dir.open(&gate, image, Path::new(name)).as_deref(), Ok(is), "{image} {name}");
        }
        assert_eq!(test_dir.open(&gate, "link/overlay", &test_dir.at("images/base")).as_deref(), Ok("images/base"));
    }

    #[test]
    fn opened_file_has_the_path_of_the_image_directory() {
        let test_dir = TestDir::new();
        let dir = test_dir.at("images").canonicalize().unwrap();
        let image = test_dir.at("link/overlay");
        let file = ImplicitOpenGate::default().open(&image, Some(&dir), "backing file", Path::new("base")).unwrap();
        assert_eq!(file.path(), test_dir.at("link/base"));
        assert_eq!(path_of(Path::new("overlay"), Path::new("base")), Path::new("base"));
    }

    #[test]
    fn replaced_image_directory_is_not_searched() {
        let test_dir = TestDir::new();
        fs::write(test_dir.at("images/overlay"), "").unwrap();
        let image = ImageFile::open(&test_dir.at("link/overlay")).unwrap();
        fs::remove_file(test_dir.at("link")).unwrap();
        symlink("secret", test_dir.at("link")).unwrap();
        let base =
            ImplicitOpenGate::default().open(image.path(), image.dir(), "backing file", Path::new("base")).unwrap();
        let mut bytes = [0; 11];
        base.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"images/base");
        let dir = test_dir.at("images").canonicalize().unwrap();
        assert_eq!(base.dir(), Some(&*dir));
        // A directory that is renamed keeps its files.
        fs::rename(test_dir.at("images"), test_dir.at("away")).unwrap();
        assert!(
            ImplicitOpenGate::default().open(image.path(), image.dir(), "backing file", Path::new("base")).is_err()
        );
    }

    #[test]
    fn file_elsewhere_is_refused_with_a_hint_of_the_flag() {
        let test_dir = TestDir::new();
        for (name, why) in [
            (
                "outside",
                "backing file \"outside\" leads to \"DIR/secret/base\", which is not below the image's directory",
            ),
            (
                "door/base",
                "backing file \"door/base\" leads to \"DIR/secret/base\", which is not below the image's directory",
            ),
            (
                "../secret/base",
                "backing file \"../secret/base\" leads to \"DIR/secret/base\", which is not below the image's directory",
            ),
        ] {
            let (kind, text, hint) =
                test_dir.open(&ImplicitOpenGate::default(), "images/overlay", Path::new(name)).unwrap_err();
            assert_eq!(kind, DiskErrorKind::Refused);
            assert_eq!(text.split_once("overlay: ").unwrap().1, why);
            assert_eq!(hint, "if you trust this image, --allow DIR/secret lets it be read");
            assert!(test_dir.open(&test_dir.gate(&["secret"]), "images/overlay", Path::new(name)).is_ok(), "{name}");
            assert!(
                test_dir.open(&test_dir.gate(&["images-2", "."]), "images/overlay", Path::new(name)).is_ok(),
                "{name}"
            );
        }
        let (_, text, hint) =
            test_dir.open(&ImplicitOpenGate::default(), "images/overlay", Path::new("/etc/passwd")).unwrap_err();
        assert!(text.ends_with("overlay: backing file \"/etc/passwd\" is not below the image's directory"), "{text}");
        assert_eq!(hint, "if you trust this image, --allow /etc lets it be read");
    }

    #[test]
    fn directory_with_a_common_name_prefix_is_refused() {
        let test_dir = TestDir::new();
        let sibling = test_dir.at("images-2/base");
        let (kind, ..) = test_dir.open(&ImplicitOpenGate::default(), "images/overlay", &sibling).unwrap_err();
        assert_eq!(kind, DiskErrorKind::Refused);
        let (_, text, _) = test_dir.open(&test_dir.gate(&["secret"]), "images/overlay", &sibling).unwrap_err();
        assert!(text.ends_with("is neither below the image's directory nor below an allowed one"), "{text}");
    }

    #[test]
    fn fifos_devices_and_directories_are_refused_unopened() {
        let test_dir = TestDir::new();
        for (name, why) in [
            ("fifo", "is neither a regular file nor a block device"),
            ("sub", "is a directory"),
            (".", "is a directory"),
        ] {
            let (kind, text, _) =
                test_dir.open(&ImplicitOpenGate::default(), "images/overlay", Path::new(name)).unwrap_err();
            assert_eq!(
                (kind, text.ends_with(&format!("backing file \"{name}\" {why}"))),
                (DiskErrorKind::Refused, true),
                "{text}"
            );
        }
        for name in ["/dev/zero", "/dev/stdin", "/proc/self/fd/0"] {
            let gate = test_dir.gate(&["/dev"]);
            let (kind, ..) = test_dir.open(&gate, "images/overlay", Path::new(name)).unwrap_err();
            assert_eq!(kind, DiskErrorKind::Refused, "{name}");
        }
    }

    #[test]
    fn a_closed_gate_opens_nothing() {
        let test_dir = TestDir::new();
        let gate = ImplicitOpenGate::new(&[test_dir.at("images")], true).unwrap();
        let (kind, text, _) = test_dir.open(&gate, "images/overlay", Path::new("base")).unwrap_err();
        assert_eq!(kind, DiskErrorKind::Refused);
        assert!(
            text.ends_with("overlay: has the backing file \"base\", and --no-backing forbids to open it"),
            "{text}"
        );
    }

    #[test]
    fn missing_file_is_reported_with_the_image_and_escaped() {
        let test_dir = TestDir::new();
        let missing = |name: &Path| test_dir.open(&ImplicitOpenGate::default(), "images/overlay", name).unwrap_err().1;
        let text = missing(Path::new("no\nne\x1b"));
        assert!(text.ends_with("overlay: backing file \"no\\nne\\u{1b}\": no such file or directory"), "{text}");
        for name in ["", "a\0b"] {
            assert!(missing(Path::new(name)).ends_with("is no name of a file"), "{name}");
        }
        assert!(ImplicitOpenGate::new(&[test_dir.at("nowhere")], false).is_err());
    }
}
