//! The way to another machine: the user's OpenSSH, or whatever else runs a command there.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;
use xfer_hole_proto::SILENCE_SECONDS;
use xfer_hole_ui::{parse_seconds, parse_size};

use crate::Remote;

/// Seconds after which ssh asks whether the other side still lives, and after which it gives up connecting, where the user's
/// configuration doesn't say. It asks three times.
const ALIVE: u32 = 15;
const CONNECT: u32 = 30;

/// How the other side is reached.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How the other side is reached")]
pub struct SshArgs {
    /// Run this program at the other side, recv-hole or xfer-hole, where it isn't found by itself: on PATH there, in ~/.cargo/bin,
    /// ~/.local/bin or /usr/local/bin. ~/ is the home directory there
    #[arg(long, value_name = "PROGRAM", value_parser = clap::builder::NonEmptyStringValueParser::new().map(OsString::from))]
    pub remote_path: Option<OsString>,

    /// Run this instead of ssh: a program and its words, to which the options below, the host and the command are added. The options
    /// are for OpenSSH
    #[arg(short = 'e', long, value_name = "COMMAND")]
    pub rsh: Option<String>,

    /// Connect to this port
    #[arg(short = 'P', long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,

    /// Log in with the private key in this file
    #[arg(short = 'i', long, value_name = "KEY")]
    pub identity: Option<OsString>,

    /// Connect through this host, or through several, with commas between them
    #[arg(short = 'J', long, value_name = "JUMP")]
    pub jump: Option<String>,

    /// Give ssh this option, as in its configuration file; can be repeated
    #[arg(short = 'o', long, value_name = "OPTION")]
    pub ssh_option: Vec<String>,

    /// Let ssh read this configuration file
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<OsString>,

    /// Let ssh compress what it carries
    #[arg(short = 'C', long)]
    pub compress: bool,

    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Give up when nothing has moved for so long: seconds, or with m or h behind them minutes or hours; 60 if not given. It counts from
    /// the far end's first answer on where ssh may ask for a password before, and from the start, if it was given, where ssh can't:
    /// with -o BatchMode=yes, or without a terminal, SSH_ASKPASS and DISPLAY
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub timeout: Option<u32>,

    /// Limit bandwidth, in bytes per second: with K, M or G behind the number, or B
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub bwlimit: Option<u64>,
}

/// A rate in bytes a second, as sizes are written, but never without a unit: rsync takes a bare number for KiB.
fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a rate of nothing moves nothing".into()),
        _ if text.bytes().all(|c| c.is_ascii_digit()) => {
            Err(format!("say {text}K for KiB per second, as rsync takes it, or {text}B for bytes per second"))
        }
        rate => Ok(rate),
    }
}

/// A version of the conversation.
pub fn parse_version(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a version's number, such as 1".to_owned())
}

/// A port's number.
fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port > 0);
    port.ok_or_else(|| "expected a number from 1 to 65535".to_owned())
}

impl SshArgs {
    /// True if silence counts before the other side has said anything: a time was given, and no ssh may be asking for a password then.
    #[must_use]
    pub fn counts_from_the_start(&self) -> bool {
        self.timeout.is_some() && !self.may_ask()
    }

    /// True if ssh may ask the user something, as far as can be told: it has a terminal or a program for it, and wasn't forbidden to.
    fn may_ask(&self) -> bool {
        let words = self.rsh.as_deref().map_or(Ok(vec!["ssh".into()]), words).unwrap_or_default();
        let Some((program, rest)) = words.split_first() else { return true };
        let forbidden = rest.iter().chain(&self.ssh_option).any(|word| is_batch_mode(word));
        let graphical = || std::env::var_os("SSH_ASKPASS").or_else(|| std::env::var_os("DISPLAY")).is_some();
        is_ssh(program) && !forbidden && (File::open("/dev/tty").is_ok() || graphical())
    }

    /// The silence that is taken for a dead link.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.map_or(SILENCE_SECONDS, u64::from))
    }

    /// The first of the flags that only make sense with another machine, as it is typed.
    #[must_use]
    pub fn first_given(&self) -> Option<&'static str> {
        let own = [(self.rsh.is_some(), "--rsh"), (self.remote_path.is_some(), "--remote-path")];
        own.into_iter().find_map(|(given, flag)| given.then_some(flag)).or_else(|| self.first_of_ssh())
    }

    /// The first of those that are for OpenSSH alone.
    fn first_of_ssh(&self) -> Option<&'static str> {
        let given = [
            (self.port.is_some(), "--port"),
            (self.identity.is_some(), "--identity"),
            (self.jump.is_some(), "--jump"),
            (!self.ssh_option.is_empty(), "--ssh-option"),
            (self.ssh_config.is_some(), "--ssh-config"),
            (self.compress, "--compress"),
            (self.ipv4, "--ipv4"),
            (self.ipv6, "--ipv6"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    /// The command that runs `script` at the other side. The error is one line.
    pub fn command(&self, remote: &Remote, script: &str) -> Result<Command, String> {
        let words = match &self.rsh {
            Some(rsh) => words(rsh)?,
            None => vec!["ssh".into()],
        };
        let (program, rest) = words.split_first().ok_or("--rsh names no program")?;
        let mut args: Vec<OsString> = rest.iter().map(Into::into).collect();
        if is_ssh(program) {
            args.extend(self.ssh_words(remote));
            args.extend(alive_words(program, &args, remote));
            // What a configuration may ask for besides: none of it belongs to a transfer.
            for option in ["RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes"] {
                args.push("-o".into());
                args.push(option.into());
            }
            // A terminal would change what is sent: -T takes back a -tt that stands before it, and what -o asks for.
            args.extend(["-T", "-x", "-a", "--"].map(Into::into));
        } else if let Some(flag) = self.first_of_ssh() {
            return Err(format!("{flag} is for ssh, and --rsh names another program"));
        } else if let Some(port) = remote.port {
            return Err(format!("port {port} is for ssh, and --rsh names another program"));
        }
        let mut command = Command::new(program);
        command.args(args).arg(remote.destination()).arg(script);
        Ok(command)
    }

    fn ssh_words(&self, remote: &Remote) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        if let Some(file) = &self.ssh_config {
            add("-F", file.clone());
        }
        if let Some(port) = remote.port.or(self.port) {
            add("-p", port.to_string().into());
        }
        if let Some(key) = &self.identity {
            add("-i", key.clone());
        }
        if let Some(jump) = &self.jump {
            add("-J", jump.into());
        }
        for option in &self.ssh_option {
            add("-o", option.into());
        }
        let flags = [(self.compress, "-C"), (self.ipv4, "-4"), (self.ipv6, "-6")];
        args.extend(flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.into()));
        args
    }
}

/// True if this word of ssh's options forbids it to ask for anything.
fn is_batch_mode(word: &str) -> bool {
    let option = word.strip_prefix("-o").unwrap_or(word).trim_start();
    let (name, value) = option.split_once(['=', ' ']).unwrap_or((option, ""));
    let value = value.trim_start_matches(['=', ' ']);
    name.eq_ignore_ascii_case("batchmode") && ["yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn is_ssh(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "ssh")
}

/// The options that the user's configuration leaves to us, chiefly those that end a dead connection: ssh itself is asked what it would do.
fn alive_words(program: &str, args: &[OsString], remote: &Remote) -> Vec<OsString> {
    let asked = Command::new(program)
        .arg("-G")
        // Debian's ssh takes BatchMode for a wish to wait a quarter of an hour for a dead link; the first to say so wins.
        .args(["-o", "BatchMode=no"])
        .args(args)
        .arg("--")
        .arg(remote.destination())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let said = asked.map(|asked| asked.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let has = |line: &str| said.lines().any(|said| said == line);
    let mut words: Vec<OsString> = Vec::new();
    if has("serveraliveinterval 0") {
        words.extend(["-o".into(), format!("ServerAliveInterval={ALIVE}").into()]);
    }
    // A master that ends with us takes with it all who ride on it. One that is there already is used nevertheless.
    if has("controlpersist no") {
        words.extend(["-o".into(), "ControlMaster=no".into()]);
    }
    if has("connecttimeout none") {
        words.extend(["-o".into(), format!("ConnectTimeout={CONNECT}").into()]);
    }
    words
}

/// The words of a command line, by blanks and quotes as in a shell; nothing else of a shell is in it.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or("--rsh has a quote without its end")? {
                        end if end == letter => break,
                        '\\' if letter == '"' => word.extend(letters.next()),
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        Remote { user: Some("me".into()), host: "host".into(), port: None, path: "x".into() }
    }

    fn line(command: &Command) -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn another_program_gets_the_host_and_the_command_and_nothing_else() {
        let args = SshArgs { rsh: Some("lxc-run 'a b' \"c\\\"d\" e\\ f".into()), ..SshArgs::default() };
        let command = args.command(&remote(), "true").unwrap();
        assert_eq!(line(&command), ["lxc-run", "a b", "c\"d", "e f", "me@host", "true"]);
        let args = SshArgs { rsh: Some("other".into()), compress: true, ..SshArgs::default() };
        assert!(args.command(&remote(), "true").unwrap_err().contains("--compress"));
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn batch_mode_is_known_however_it_is_written() {
        for word in ["BatchMode=yes", "batchmode yes", "BatchMode = true", "-oBatchMode=yes", "-o BatchMode=YES"] {
            assert!(is_batch_mode(word), "{word}");
        }
        for word in ["BatchMode=no", "BatchMode", "User=batchmode", "-v", ""] {
            assert!(!is_batch_mode(word), "{word}");
        }
    }

    #[test]
    fn ssh_gets_its_options_before_the_host_and_the_port_of_the_url_first() {
        let args = SshArgs { port: Some(1), ssh_option: vec!["User=you".into()], ipv4: true, ..SshArgs::default() };
        let command = args.command(&Remote { port: Some(2222), ..remote() }, "true").unwrap();
        let line = line(&command);
        assert_eq!(line[..6], ["ssh", "-p", "2222", "-o", "User=you", "-4"]);
        assert_eq!(line[line.len() - 3..], ["--", "me@host", "true"]);
    }
}
