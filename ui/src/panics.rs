//! A panic ends the process, in release and in development builds alike: no thread goes on without another.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;

use crate::Failure;

/// From now on a panic in any thread prints one line under this name and ends the process with status 2. Nothing gets its final name
/// afterwards.
pub fn exit_on_panic(name: &'static str) {
    panic::set_hook(Box::new(move |info| {
        // One write, without locks: the thread that panicked may hold them. The line of a bar stays above.
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

    /// Set in the process that is to panic.
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
                && lines[0].starts_with(r"program: internal error: a count of 7\nis wrong (link/src/panics.rs:"),
            "{said}"
        );
        assert!(!said.contains("the process goes on"), "{said}");
    }
}
