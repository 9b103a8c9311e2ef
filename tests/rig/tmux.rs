//! A real terminal of a given size, whose screen can be read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{requires, tool, wait_until};

/// A program in a window of its own, which stays when the program has ended.
#[derive(Debug)]
pub struct Tmux {
    folder: TempDir,
}

impl Tmux {
    /// Runs `command`, a line for sh, in a window of this size.
    pub fn start(columns: u16, rows: u16, command: &str) -> Self {
        requires(&["tmux"]);
        let started = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(started.file("run"), format!("echo $$ > '{}'\n{command}\n", started.file("pid").display())).unwrap();
        fs::write(started.file("conf"), "set -g status off\n").unwrap();
        // tmux itself may miss the end of what it started.
        let line = format!(
            "trap : INT; sh '{0}/run'; echo $? > '{0}/new'; mv '{0}/new' '{0}/exit'; exec sleep 1000",
            started.folder.path().display()
        );
        let (conf, columns, rows) = (started.file("conf"), columns.to_string(), rows.to_string());
        started.say(&["-f", conf.to_str().unwrap(), "new-session", "-d", "-x", &columns, "-y", &rows, &line]);
        started
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn say(&self, words: &[&str]) -> String {
        tool("tmux", &[&["-S", self.file("socket").to_str().unwrap()], words].concat())
    }

    /// The process that it runs, if `command` was an exec.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.file("pid")).unwrap().trim().parse().unwrap()
    }

    /// The lines that stand on the screen, but for empty ones.
    pub fn screen(&self) -> Vec<String> {
        let screen = self.say(&["capture-pane", "-p"]);
        screen.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Waits until this is on the screen, and gives the screen.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> Vec<String> {
        let mut screen = Vec::new();
        wait_until(what, || {
            screen = self.screen();
            screen.iter().any(|line| line.contains(what))
        });
        screen
    }

    /// Presses a key, as tmux calls it.
    pub fn press(&self, key: &str) {
        self.say(&["send-keys", key]);
    }

    /// Makes the window as wide as this.
    pub fn resize(&self, columns: u16) {
        self.say(&["resize-window", "-x", &columns.to_string()]);
    }

    /// The exit code of the program, if it has ended.
    pub fn ended(&self) -> Option<i32> {
        fs::read_to_string(self.file("exit")).ok().map(|code| code.trim().parse().unwrap())
    }

    /// Waits until the program has ended: its exit code.
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
