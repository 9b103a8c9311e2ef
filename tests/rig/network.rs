//! Two network namespaces, joined by a link that can be slowed and cut.

use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::run::find;
use crate::{requires, requires_root, tool};

/// The addresses of the near and the far end. They are the same in every network, since namespaces are separate.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// A pair of network namespaces with a link, removed when dropped.
#[derive(Debug)]
pub struct Network {
    names: [String; 2],
}

impl Network {
    /// Creates the namespaces and the link.
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

    /// Returns the command that runs `command` in the near namespace.
    pub fn near(&self, command: &Command) -> Command {
        within(&self.names[0], command)
    }

    /// Returns the command that runs `command` in the far namespace.
    pub fn far(&self, command: &Command) -> Command {
        within(&self.names[1], command)
    }

    /// Drops all packets in both directions, silently.
    pub fn cut(&self) {
        self.queue(&["blackhole"]);
    }

    /// Limits the rate in each direction, in the notation of tc, such as `20mbit`.
    pub fn slow(&self, rate: &str) {
        self.queue(&["tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]);
    }

    /// Removes the limits.
    pub fn restore(&self) {
        self.queue(&["pfifo"]);
    }

    /// The number of bytes sent by the near end so far, including headers.
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
            // The link is deleted with the first namespace.
            let _deleted = Command::new(find("ip").unwrap()).args(["netns", "del", name]).status();
        }
    }
}

fn within(name: &str, command: &Command) -> Command {
    let mut inside = Command::new(find("ip").unwrap());
    inside.args(["netns", "exec", name]).arg(command.get_program()).args(command.get_args());
    inside
}
