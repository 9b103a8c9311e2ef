//! `xfer-hole`: see the library.
fn main() -> std::process::ExitCode {
    xfer_hole::run(std::env::args_os())
}
