//! The command-line options for the connection to another machine, and the command that connects: OpenSSH or the program of `--rsh`.

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

/// Seconds of silence after which ssh probes the connection (`ServerAliveInterval`), if the user's configuration sets none. ssh gives
/// up after three probes without an answer.
const ALIVE: u32 = 15;
/// Seconds after which ssh gives up connecting (`ConnectTimeout`), if the user's configuration sets none.
const CONNECT: u32 = 30;

/// Options for the connection to another machine.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct SshArgs {
    /// Run PROGRAM on the remote machine as xfer-hole or recv-hole
    ///
    /// By default the program is searched for in the remote PATH, ~/.cargo/bin, ~/.local/bin and /usr/local/bin. A leading ~/ is
    /// the remote home directory.
    #[arg(long, value_name = "PROGRAM", value_parser = clap::builder::NonEmptyStringValueParser::new().map(OsString::from))]
    pub remote_path: Option<OsString>,

    /// Connect with COMMAND (default: ssh)
    ///
    /// COMMAND is a program and its arguments; the host and the remote command are appended. The ssh options below are valid only if
    /// the program is called ssh.
    #[arg(short = 'e', long, value_name = "COMMAND")]
    pub rsh: Option<String>,

    /// Connect to PORT (default: from the ssh configuration)
    #[arg(short = 'P', long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,

    /// Log in with the private key in file KEY
    #[arg(short = 'i', long, value_name = "KEY")]
    pub identity: Option<OsString>,

    /// Connect through the host JUMP, or several separated by commas
    #[arg(short = 'J', long, value_name = "JUMP")]
    pub jump: Option<String>,

    /// Pass OPTION to ssh, as in ssh_config (repeatable)
    #[arg(short = 'o', long, value_name = "OPTION")]
    pub ssh_option: Vec<String>,

    /// Read FILE as the ssh configuration (default: ~/.ssh/config)
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<OsString>,

    /// Compress the connection with ssh
    #[arg(short = 'C', long)]
    pub compress: bool,

    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Give up after TIME without data (seconds; m, h accepted; default: 60)
    ///
    /// The time counts from the first reply of the remote program, because ssh may ask for a password before. It counts from the start
    /// if TIME is given and ssh cannot ask: with -o BatchMode=yes, or without a terminal, SSH_ASKPASS and DISPLAY.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub timeout: Option<u32>,

    /// Limit bandwidth to RATE (bytes per second, with unit B, K, M or G)
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub bwlimit: Option<u64>,
}

/// Parses a rate in bytes per second, written as a size with a unit.
///
/// A number without a unit is refused, because rsync reads it as KiB per second.
fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a rate of nothing moves nothing".into()),
        _ if text.bytes().all(|c| c.is_ascii_digit()) => {
            Err(format!("say {text}K for KiB per second, as rsync takes it, or {text}B for bytes per second"))
        }
        rate => Ok(rate),
    }
}

/// Parses a version number of the conversation (SPEC.md, "The conversation").
///
/// # Errors
/// Returns a message of one line if `text` is not a number from 0 to 2^32-1.
pub fn parse_version(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a version's number, such as 1".to_owned())
}

/// Parses a port number, 1 to 65535.
fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port > 0);
    port.ok_or_else(|| "expected a number from 1 to 65535".to_owned())
}

impl SshArgs {
    /// Returns true if the timeout counts from the start instead of from the first reply of the other side.
    ///
    /// That is so if `--timeout` was given and ssh can't ask for a password.
    #[must_use]
    pub fn counts_from_the_start(&self) -> bool {
        self.timeout.is_some() && !self.may_ask()
    }

    /// Returns true if ssh may ask the user a question: it has a terminal or a graphical program to ask with, and BatchMode is off.
    fn may_ask(&self) -> bool {
        let words = self.rsh.as_deref().map_or(Ok(vec!["ssh".into()]), words).unwrap_or_default();
        let Some((program, rest)) = words.split_first() else { return true };
        let forbidden = rest.iter().chain(&self.ssh_option).any(|word| is_batch_mode(word));
        let graphical = || std::env::var_os("SSH_ASKPASS").or_else(|| std::env::var_os("DISPLAY")).is_some();
        is_ssh(program) && !forbidden && (File::open("/dev/tty").is_ok() || graphical())
    }

    /// Returns the longest time without data before the link counts as dead.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.map_or(SILENCE_SECONDS, u64::from))
    }

    /// Returns the first given flag that requires another machine, as it is typed.
    #[must_use]
    pub fn first_given(&self) -> Option<&'static str> {
        let own = [(self.rsh.is_some(), "--rsh"), (self.remote_path.is_some(), "--remote-path")];
        own.into_iter().find_map(|(given, flag)| given.then_some(flag)).or_else(|| self.first_ssh_flag())
    }

    /// Returns the first given flag that only OpenSSH understands.
    fn first_ssh_flag(&self) -> Option<&'static str> {
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

    /// Returns the local command that runs `script` on the machine of `remote`.
    ///
    /// # Errors
    /// Returns a message of one line if `--rsh` can't be split into words, or if it names a program other than ssh and a flag or port
    /// for ssh was given.
    pub fn command(&self, remote: &Remote, script: &str) -> Result<Command, String> {
        let words = match &self.rsh {
            Some(rsh) => words(rsh)?,
            None => vec!["ssh".into()],
        };
        let (program, rest) = words.split_first().ok_or("--rsh names no program")?;
        let mut args: Vec<OsString> = rest.iter().map(Into::into).collect();
        if is_ssh(program) {
            args.extend(self.ssh_words(remote));
            args.extend(default_options(program, &args, remote));
            // A configuration may set these for interactive sessions. A transfer must not use them.
            for option in ["RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes"] {
                args.push("-o".into());
                args.push(option.into());
            }
            // A terminal would alter the bytes of the stream. -T overrides an earlier -tt and an earlier -o RequestTTY.
            args.extend(["-T", "-x", "-a", "--"].map(Into::into));
        } else if let Some(flag) = self.first_ssh_flag() {
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

/// Returns true if `word`, an argument of ssh, turns BatchMode on.
fn is_batch_mode(word: &str) -> bool {
    let option = word.strip_prefix("-o").unwrap_or(word).trim_start();
    let (name, value) = option.split_once(['=', ' ']).unwrap_or((option, ""));
    let value = value.trim_start_matches(['=', ' ']);
    name.eq_ignore_ascii_case("batchmode") && ["yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn is_ssh(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "ssh")
}

/// Returns ssh options with defaults for what the user's configuration leaves unset, mainly the detection of a dead connection.
///
/// `ssh -G` prints the effective configuration.
fn default_options(program: &str, args: &[OsString], remote: &Remote) -> Vec<OsString> {
    let output = Command::new(program)
        .arg("-G")
        // With BatchMode=yes Debian's ssh sets ServerAliveInterval to 300 seconds itself. ssh uses the first value of an option.
        .args(["-o", "BatchMode=no"])
        .args(args)
        .arg("--")
        .arg(remote.destination())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let config = output.map(|output| output.stdout).unwrap_or_default();
    let config = String::from_utf8_lossy(&config);
    let has = |line: &str| config.lines().any(|other| other == line);
    let mut words: Vec<OsString> = Vec::new();
    if has("serveraliveinterval 0") {
        words.extend(["-o".into(), format!("ServerAliveInterval={ALIVE}").into()]);
    }
    // A control master started by this process would end with it and cut all sessions that share it. An existing master is still used.
    if has("controlpersist no") {
        words.extend(["-o".into(), "ControlMaster=no".into()]);
    }
    if has("connecttimeout none") {
        words.extend(["-o".into(), format!("ConnectTimeout={CONNECT}").into()]);
    }
    words
}

/// Splits a command line into words at blanks. Quotes and backslashes work as in a shell; expansions do not exist.
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
    fn another_program_gets_only_host_and_command() {
        let args = SshArgs { rsh: Some("lxc-run 'a b' \"c\\\"d\" e\\ f".into()), ..SshArgs::default() };
        let command = args.command(&remote(), "true").unwrap();
        assert_eq!(line(&command), ["lxc-run", "a b", "c\"d", "e f", "me@host", "true"]);
        let args = SshArgs { rsh: Some("other".into()), compress: true, ..SshArgs::default() };
        assert!(args.command(&remote(), "true").unwrap_err().contains("--compress"));
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn batch_mode_is_recognised_in_every_notation() {
        for word in ["BatchMode=yes", "batchmode yes", "BatchMode = true", "-oBatchMode=yes", "-o BatchMode=YES"] {
            assert!(is_batch_mode(word), "{word}");
        }
        for word in ["BatchMode=no", "BatchMode", "User=batchmode", "-v", ""] {
            assert!(!is_batch_mode(word), "{word}");
        }
    }

    #[test]
    fn ssh_gets_options_before_the_host_and_the_url_port_wins() {
        let args = SshArgs { port: Some(1), ssh_option: vec!["User=you".into()], ipv4: true, ..SshArgs::default() };
        let command = args.command(&Remote { port: Some(2222), ..remote() }, "true").unwrap();
        let line = line(&command);
        assert_eq!(line[..6], ["ssh", "-p", "2222", "-o", "User=you", "-4"]);
        assert_eq!(line[line.len() - 3..], ["--", "me@host", "true"]);
    }
}
