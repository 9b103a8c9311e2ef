//! A terminal of a given size, by tmux, whose screen can be read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{requires, tool, wait_until};

/// A program in a tmux window, which stays open after the program's end.
#[derive(Debug)]
pub struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// Runs `command`, a line for sh, in a window of this size.
    pub fn start(columns: u16, rows: u16, command: &str) -> Self {
        requires(&["tmux"]);
        let window = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(window.file("run"), format!("echo $$ > '{}'\n{command}\n", window.file("pid").display())).unwrap();
        fs::write(window.file("conf"), "set -g status off\n").unwrap();
        // The shell records the exit code, since tmux may miss the end of the program.
        let line = format!(
            "trap : INT; sh '{0}/run'; echo $? > '{0}/new'; mv '{0}/new' '{0}/exit'; exec sleep 1000",
            window.folder.path().display()
        );
        let (conf, columns, rows) = (window.file("conf"), columns.to_string(), rows.to_string());
        window.run(&["-f", conf.to_str().unwrap(), "new-session", "-d", "-x", &columns, "-y", &rows, &line]);
        window
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, words: &[&str]) -> String {
        tool("tmux", &[&["-S", self.file("socket").to_str().unwrap()], words].concat())
    }

    /// The process id of the program, if `command` executes it by exec.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.file("pid")).unwrap().trim().parse().unwrap()
    }

    /// The nonempty lines on the screen.
    pub fn screen(&self) -> Vec<String> {
        let screen = self.run(&["capture-pane", "-p"]);
        screen.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Waits until a text is on the screen, and returns the screen.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> Vec<String> {
        let mut screen = Vec::new();
        wait_until(what, || {
            screen = self.screen();
            screen.iter().any(|line| line.contains(what))
        });
        screen
    }

    /// Presses a key, named as in tmux.
    pub fn press(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    /// Resizes the window to this many columns.
    pub fn resize(&self, columns: u16) {
        self.run(&["resize-window", "-x", &columns.to_string()]);
    }

    /// The program's exit code, if it has ended.
    pub fn ended(&self) -> Option<i32> {
        fs::read_to_string(self.file("exit")).ok().map(|code| code.trim().parse().unwrap())
    }

    /// Waits for the program's end, and returns its exit code.
    #[track_caller]
    pub fn exit(&self) -> i32 {
        wait_until("the program in the window has ended", || self.ended().is_some());
        self.ended().unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _killed = Command::new("tmux").arg("-S").arg(self.file("socket")).arg("kill-server").status();
    }
}
