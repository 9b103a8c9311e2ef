//! Ends the process when any thread panics, so that no thread continues without another.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;

use crate::Failure;

/// Installs a panic hook: a panic in any thread prints one line that begins with `name` and ends the process with status 2.
///
/// No file gets its final name after a panic.
pub fn exit_on_panic(name: &'static str) {
    panic::set_hook(Box::new(move |info| {
        // One write without taking locks, because the panicking thread may hold them. A progress bar stays visible above.
        let _said = io::stderr().write_all(line(name, info).as_bytes());
        process::exit(i32::from(Failure::Permanent.status()));
    }));
}

fn line(name: &str, info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
    format!("{name}: internal error: {}{place}\n", what(info.payload()).escape_debug())
}

fn what(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a thread panicked")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::*;

    /// The environment variable that is set in the process that panics.
    const CHILD: &str = "XFER_HOLE_TEST_PANIC";

    #[test]
    fn a_panic_in_any_thread_is_one_line_and_status_2() {
        if std::env::var_os(CHILD).is_some() {
            exit_on_panic("program");
            let ended = thread::spawn(|| panic!("a count of {}\nis wrong", 7)).join();
            unreachable!("the process goes on: {ended:?}");
        }
        let this = std::env::current_exe().unwrap();
        let test = "panics::tests::a_panic_in_any_thread_is_one_line_and_status_2";
        let child = Command::new(this).args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        assert_eq!(child.status.code(), Some(2), "{said}");
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("program: ")).collect();
        assert!(
            lines.len() == 1
                && lines[0].starts_with(r"program: internal error: a count of 7\nis wrong (ui/src/panics.rs:"),
            "{said}"
        );
        assert!(!said.contains("the process goes on"), "{said}");
    }
}
