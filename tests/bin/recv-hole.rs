//! `recv-hole`, for the tests to run.
fn main() -> std::process::ExitCode {
    recv_hole::run(std::env::args_os())
}
