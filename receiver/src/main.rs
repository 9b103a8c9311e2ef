//! The executable `recv-hole`. The library of the same name has the program.
fn main() -> std::process::ExitCode {
    recv_hole::run(std::env::args_os())
}
