//! The binary `xfer-hole`; all code is in the library.
fn main() -> std::process::ExitCode {
    xfer_hole::run(std::env::args_os())
}
