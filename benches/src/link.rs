//! A slow link to a far end of its own: a network namespace, and a cable to it that carries so much and no more.

use std::path::Path;
use std::process::{self, Command, Stdio};

use crate::error::{Error, Result};
use crate::tool;

/// What it carries each way, in bits a second.
pub const RATE: u64 = 100_000_000;

/// The cable, gone when dropped.
#[derive(Debug)]
pub struct Link(());

impl Link {
    /// Lays it.
    ///
    /// # Errors
    /// If this machine, or our account, has no network namespaces, or no `tc` with tbf.
    pub fn lay() -> Result<Self> {
        let id = process::id();
        let (far, near) = (name(id), format!("xhb{id}"));
        system("ip", &["netns", "add", &far])?;
        let link = Self(());
        system("ip", &["link", "add", &near, "type", "veth", "peer", "name", "cable", "netns", &far])?;
        let addresses = addresses(id);
        let ends: [(&str, &str, &[&str]); 2] = [(&near, &addresses[0], &[]), ("cable", &addresses[1], &["-n", &far])];
        let rate = format!("{RATE}bit");
        for (end, address, place) in ends {
            let there = |program, words: &[&str]| system(program, &[place, words].concat());
            there("ip", &["address", "add", &format!("{address}/31"), "dev", end])?;
            there("ip", &["link", "set", end, "up"])?;
            let queue = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", "100ms"];
            there("tc", &[&["qdisc", "replace", "dev", end][..], &queue].concat())?;
        }
        Ok(link)
    }

    /// The far end's address.
    #[must_use]
    pub fn address(&self) -> String {
        let [_, far] = addresses(process::id());
        far
    }

    /// The words in front of a command that is to run at the far end.
    #[must_use]
    pub fn far(&self) -> Vec<String> {
        let ip = tool::find("ip").map_or("ip".to_owned(), |ip| ip.display().to_string());
        [&ip, "netns", "exec", &name(process::id())].map(str::to_owned).into()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        remove(process::id());
    }
}

/// Removes what a process of this number has laid. The cable goes with its far end.
pub fn remove(pid: u32) {
    let name = name(pid);
    if Path::new("/run/netns").join(&name).exists() {
        let ip = tool::find("ip").unwrap_or_else(|| "ip".into());
        let _left = Command::new(ip).args(["netns", "del", &name]).stdin(Stdio::null()).status();
    }
}

fn name(pid: u32) -> String {
    format!("xfer-hole-bench.{pid}")
}

/// The near and the far end's, out of 198.18.0.0/15, which is kept free for benchmarks (RFC 2544).
fn addresses(pid: u32) -> [String; 2] {
    let at = (pid & 0xffff) << 1;
    [at, at + 1].map(|at| format!("198.{}.{}.{}", 18 + (at >> 16), at >> 8 & 0xff, at & 0xff))
}

fn system(program: &str, words: &[&str]) -> Result<()> {
    let found = tool::find(program).ok_or_else(|| Error::new(format!("{program} isn't installed")))?;
    tool::run(tool::text(&found)?, words).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_lie_in_the_range_for_benchmarks() {
        assert_eq!(addresses(1), ["198.18.0.2", "198.18.0.3"]);
        assert_eq!(addresses(0x3f_ffff), ["198.19.255.254", "198.19.255.255"]);
    }
}
