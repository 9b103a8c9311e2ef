//! `xfer-hole`, for the tests to run.
fn main() -> std::process::ExitCode {
    xfer_hole::run(std::env::args_os())
}
