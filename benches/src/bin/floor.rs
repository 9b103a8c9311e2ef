//! `floor`: the bytes of a disk, moved by the cheapest system calls.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match xfer_hole_bench::floor::run(&words) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("floor: {why}");
            ExitCode::from(2)
        }
    }
}
