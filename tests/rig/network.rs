//! Two machines and a cable between them: network namespaces, joined by a link that can be slowed and cut.

use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::run::find;
use crate::{requires, requires_root, tool};

/// The addresses of the near and of the far end, the same in every network: nobody else sees them.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Two ends and a link, gone when dropped.
#[derive(Debug)]
pub struct Network {
    names: [String; 2],
}

impl Network {
    /// Lays the cable.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        requires_root();
        requires(&["ip", "tc"]);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = Self { names: ["near", "far"].map(|end| format!("xfer-hole-{}-{count}-{end}", process::id())) };
        for name in &network.names {
            tool("ip", &["netns", "add", name]);
        }
        let [near, far] = &network.names;
        tool("ip", &["-n", near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far]);
        for (name, address) in network.names.iter().zip(ADDRESSES) {
            let cidr = format!("{address}/24");
            tool("ip", &["-n", name, "address", "add", &cidr, "dev", "cable"]);
            tool("ip", &["-n", name, "link", "set", "lo", "up"]);
            tool("ip", &["-n", name, "link", "set", "cable", "up"]);
        }
        network
    }

    /// The far end's address.
    pub fn address(&self) -> &'static str {
        ADDRESSES[1]
    }

    /// Runs a program at the near end.
    pub fn near(&self, command: &Command) -> Command {
        within(&self.names[0], command)
    }

    /// Runs a program at the far end.
    pub fn far(&self, command: &Command) -> Command {
        within(&self.names[1], command)
    }

    /// From now on nothing arrives, in either direction, and nobody is told.
    pub fn cut(&self) {
        self.queue(&["blackhole"]);
    }

    /// From now on it carries so much, in each direction: a rate as tc takes it, such as `20mbit`.
    pub fn slow(&self, rate: &str) {
        self.queue(&["tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]);
    }

    /// It is as it was at first.
    pub fn restore(&self) {
        self.queue(&["pfifo"]);
    }

    /// Bytes that have left the near end so far, headers included.
    pub fn carried(&self) -> u64 {
        let count = tool("ip", &["netns", "exec", &self.names[0], "cat", "/sys/class/net/cable/statistics/tx_bytes"]);
        count.trim().parse().unwrap()
    }

    fn queue(&self, discipline: &[&str]) {
        for name in &self.names {
            tool("tc", &[&["-n", name, "qdisc", "replace", "dev", "cable", "root"], discipline].concat());
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // The cable goes with the first end.
            let _deleted = Command::new(find("ip").unwrap()).args(["netns", "del", name]).status();
        }
    }
}

fn within(name: &str, command: &Command) -> Command {
    let mut inside = Command::new(find("ip").unwrap());
    inside.args(["netns", "exec", name]).arg(command.get_program()).args(command.get_args());
    inside
}
