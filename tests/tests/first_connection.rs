//! Questions that ssh asks on the terminal stay there: no progress bar is drawn over them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rig::{FarEnd, TestDisk, Tmux, Toolbox, assert_same, tools};

const MIB: u64 = 1 << 20;
const QUESTION: &str = "continue connecting";
/// Many times as long as the bar needs to be drawn again.
const STAYS: Duration = Duration::from_secs(1);

#[test]
fn the_question_about_a_host_key_stays_until_it_is_answered() {
    let toolbox = Toolbox::new().with("recv-hole", &tools!().recv_hole).with("xfer-hole", &tools!().xfer_hole);
    let path = toolbox.path();
    let far = FarEnd::with(tools!(), "dash", rig::Setup { path: Some(&path), ..rig::Setup::default() });
    let image = far.image("disk.img", &TestDisk::empty(8 * MIB).with(MIB, MIB, 1));
    let there = far.account.home("disk.img");
    fs::copy(&image, &there).unwrap();
    let run = |number: usize| {
        let (known, config) = (far.near(&format!("known{number}")), far.sshd.config());
        let (known, config) = (known.display(), config.display());
        let options = format!(
            "-F '{config}' -o UserKnownHostsFile='{known}' -o StrictHostKeyChecking=ask -o BatchMode=no --progress bar"
        );
        let (push, copy) = (number.is_multiple_of(2), format!("copy{number}"));
        let (tool, from, to) = if push {
            (tools!().xfer_hole, image.clone().into_os_string(), far.place(&copy))
        } else {
            (tools!().recv_hole, far.place("disk.img"), far.near(&copy).into_os_string())
        };
        let line = format!("exec '{}' {options} '{}' '{}'", tool.display(), from.display(), to.display());
        let terminal = Tmux::start(100, 12, &line);
        terminal.wait_for(QUESTION);
        let asked = Instant::now();
        while asked.elapsed() < STAYS {
            let screen = terminal.screen();
            assert!(screen.last().is_some_and(|last| last.contains(QUESTION)), "{number}: {screen:#?}");
        }
        for key in ["y", "e", "s", "Enter"] {
            terminal.press(key);
        }
        assert_eq!(terminal.exit(), 0, "{:#?}", terminal.screen());
        assert_same(&image, &if push { far.account.home(&copy) } else { far.near(&copy) });
    };
    // Two at a time.
    for first in [0, 2, 4, 6] {
        thread::scope(|scope| {
            scope.spawn(|| run(first));
            run(first + 1);
        });
    }
}
