//! The runner behind `./bench`.

fn main() -> std::process::ExitCode {
    xfer_hole_bench::main()
}
