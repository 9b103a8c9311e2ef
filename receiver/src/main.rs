//! `recv-hole`: see the library.
fn main() -> std::process::ExitCode {
    recv_hole::run(std::env::args_os())
}
