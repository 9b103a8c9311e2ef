//! A directory of programs for the remote PATH, which record how they are called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::{requires, tool};

/// A directory of programs.
#[derive(Debug)]
pub struct Toolbox {
    folder: TempDir,
    others: &'static str,
}

impl Toolbox {
    /// Creates a toolbox that adds nothing to the system's programs.
    pub fn new() -> Self {
        Self::beside("/usr/local/bin:/usr/bin:/bin")
    }

    /// Creates a toolbox of busybox alone, under all its names, as on a small appliance.
    pub fn busybox() -> Self {
        requires(&["busybox"]);
        let toolbox = Self::beside("");
        tool("busybox", &["--install", "-s", toolbox.folder.path().to_str().unwrap()]);
        toolbox
    }

    /// Creates a toolbox without programs.
    pub fn bare() -> Self {
        Self::beside("")
    }

    fn beside(others: &'static str) -> Self {
        let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let calls = folder.path().join(".calls");
        fs::write(&calls, "").unwrap();
        fs::set_permissions(&calls, fs::Permissions::from_mode(0o666)).unwrap();
        Self { folder, others }
    }

    /// Installs a program under this name.
    #[must_use]
    pub fn with(self, name: &str, program: &Path) -> Self {
        // The program is copied, since other users may not have access to the original.
        let copy = self.folder.path().join(format!(".{name}"));
        fs::copy(program, &copy).unwrap();
        self.script(name, &format!("exec '{}' \"$@\"", copy.display()))
    }

    /// Installs a shell script under this name.
    #[must_use]
    pub fn script(self, name: &str, text: &str) -> Self {
        let (path, calls) = (self.folder.path().join(name), self.folder.path().join(".calls"));
        let script = format!("#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >>'{}'\n{text}\n", calls.display());
        let _other = fs::remove_file(&path);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// The value for PATH.
    pub fn path(&self) -> String {
        format!("{}:{}", self.folder.path().display(), self.others).trim_end_matches(':').to_owned()
    }

    /// The path of a program in the toolbox.
    pub fn program(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// All calls so far: the program's name and its arguments.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read(self.folder.path().join(".calls")).unwrap();
        String::from_utf8_lossy(&calls).lines().map(str::to_owned).collect()
    }
}

impl Default for Toolbox {
    fn default() -> Self {
        Self::new()
    }
}
