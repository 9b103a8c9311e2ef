//! Locations of images on the command line, in the syntax of scp: `-`, a local name, `HOST:PATH`, `ssh://HOST/PATH`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use xfer_hole_os::shown;

/// Extensions of image names. A copy is named with `.img` instead.
const IMAGES: [&str; 9] = ["img", "raw", "qcow2", "qcow", "vmdk", "vdi", "vhd", "vhdx", "qed"];

/// The location of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `-`: a standard stream.
    Stream,
    /// A name on this machine. A name with a colon before its first slash must be written as `./a:b`.
    Local(PathBuf),
    /// A name on another machine.
    Remote(Remote),
}

/// A name on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The user, if one was given.
    pub user: Option<String>,
    /// The host name for ssh.
    pub host: String,
    /// The port, 1 to 65535. Only a URL can have one.
    pub port: Option<u16>,
    /// The path on that machine, as it was typed. `~` and `~/NAME` are in the home directory; `.` is where a login begins.
    pub path: OsString,
}

/// Why a location is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadLocation {
    /// What is wrong: one line that does not repeat the location.
    pub what: String,
    /// What to type instead.
    pub hint: Option<String>,
}

impl From<&str> for BadLocation {
    fn from(what: &str) -> Self {
        Self { what: what.into(), hint: None }
    }
}

/// URL schemes that are refused, and whether `ssh://` can reach the same file.
const SCHEMES: [(&str, bool); 9] = [
    ("sftp", true),
    ("scp", true),
    ("rsync", true),
    ("http", false),
    ("https", false),
    ("ftp", false),
    ("file", false),
    ("nbd", false),
    ("smb", false),
];

impl Location {
    /// Parses a location from the command line.
    ///
    /// # Errors
    /// Returns the reason if the host, user, port, path or URL scheme is not valid or not supported.
    pub fn parse(word: &OsStr) -> Result<Self, BadLocation> {
        let bytes = word.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        if let Some(rest) = bytes.strip_prefix(b"ssh://") {
            return url(rest).map(Self::Remote);
        }
        let Some((host, path)) = split(bytes) else { return Ok(Self::Local(word.into())) };
        if let Some(rest) = path.strip_prefix(b"//") {
            check_scheme(host, rest)?;
        }
        let (user, host) = user_and_host(host)?;
        let path = if path.is_empty() { b"." } else { path };
        let path: OsString = OsStr::from_bytes(path).into();
        Remote { user, host, port: None, path }.checked().map(Self::Remote)
    }
}

impl Remote {
    /// Returns `[USER@]HOST`, the destination argument of ssh.
    #[must_use]
    pub fn destination(&self) -> String {
        self.user.as_ref().map_or_else(|| self.host.clone(), |user| format!("{user}@{}", self.host))
    }

    /// Returns true if the path is `~` or begins with `~/`.
    #[must_use]
    pub fn is_in_home(&self) -> bool {
        self.path == "~" || self.path.as_bytes().starts_with(b"~/")
    }

    /// Returns the path without a leading `~/`.
    #[must_use]
    pub fn path_there(&self) -> OsString {
        if !self.is_in_home() {
            return self.path.clone();
        }
        let path = &self.path.as_bytes()[1..];
        let rest = &path[path.iter().take_while(|&&byte| byte == b'/').count()..];
        if rest.is_empty() { ".".into() } else { OsStr::from_bytes(rest).into() }
    }

    /// Refuses a path in another user's home directory, `~USER`.
    fn checked(self) -> Result<Self, BadLocation> {
        let path = self.path.as_bytes();
        if !path.starts_with(b"~") || self.is_in_home() {
            return Ok(self);
        }
        let (there, path) = (self.destination(), shown(self.path.as_ref()));
        Err(BadLocation {
            what: "another user's home directory is not looked up".into(),
            hint: Some(format!(
                "give its whole path, {there}:/home/...; a file that is really called so is {there}:./{path}"
            )),
        })
    }
}

/// Returns the name of a copy of `image` in a directory: its own name, with an image extension replaced by `.img`.
#[must_use]
pub fn copy_name(image: &Path) -> OsString {
    let is_image = |end: &OsStr| IMAGES.iter().any(|image| end.eq_ignore_ascii_case(image));
    let Some(stem) = image.file_stem().filter(|_| image.extension().is_some_and(is_image)) else {
        return own_name(image);
    };
    let mut name = stem.to_owned();
    name.push(".img");
    name
}

/// Returns the name of `image` without its directory.
#[must_use]
pub fn own_name(image: &Path) -> OsString {
    image.file_name().unwrap_or(OsStr::new("disk")).to_owned()
}

/// Splits a word into host and path at the first colon before any slash.
///
/// A colon at the beginning belongs to a local name. A colon within brackets belongs to an IPv6 address.
fn split(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut bracketed = false;
    for (at, byte) in word.iter().enumerate() {
        match byte {
            b'[' if at == 0 || word[at - 1] == b'@' => bracketed = true,
            b']' if bracketed && word.get(at + 1) == Some(&b':') => bracketed = false,
            b':' if !bracketed && at > 0 => return Some((&word[..at], &word[at + 1..])),
            b':' if !bracketed => return None,
            b'/' => return None,
            _ => {}
        }
    }
    None
}

/// Refuses the URL `SCHEME://REST` if the scheme belongs to another protocol.
fn check_scheme(scheme: &[u8], rest: &[u8]) -> Result<(), BadLocation> {
    let Some(&(scheme, by_ssh)) = SCHEMES.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name.as_bytes())) else {
        return Ok(());
    };
    let rest = shown(OsStr::from_bytes(rest).as_ref());
    let hint = match scheme {
        _ if by_ssh => format!("ssh://{rest} goes by ssh, where PATH begins at /, or at home if it is ~/NAME"),
        "file" => "a file on this machine is named without a URL".into(),
        _ => "another machine is reached by ssh: HOST:PATH or ssh://HOST/PATH".into(),
    };
    Err(BadLocation { what: format!("{scheme}:// is not supported"), hint: Some(hint) })
}

/// Splits `[USER@]HOST` and removes the brackets of an IPv6 address.
fn user_and_host(text: &[u8]) -> Result<(Option<String>, String), BadLocation> {
    let text = str::from_utf8(text).map_err(|_| "the name of the host is no text")?;
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user.to_owned()), host));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let odd = |text: &str| text.is_empty() || text.starts_with('-') || text.chars().any(|c| c <= ' ' || c == '\x7f');
    if odd(host) || user.as_deref().is_some_and(odd) {
        return Err("there is no such name of a host or user (a local name with a colon is written ./NAME)".into());
    }
    Ok((user, host.to_owned()))
}

/// Parses what follows `ssh://` in a URL.
fn url(rest: &[u8]) -> Result<Remote, BadLocation> {
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let name_ends = authority.iter().rposition(|&byte| byte == b']').unwrap_or(0);
    let colon = authority[name_ends..].iter().position(|&byte| byte == b':').map(|at| at + name_ends);
    let (name, port) = match colon {
        Some(at) => (&authority[..at], Some(&authority[at + 1..])),
        None => (authority, None),
    };
    let port = port.map(|port| {
        let number = str::from_utf8(port).ok().filter(|port| port.bytes().all(|c| c.is_ascii_digit()));
        number.and_then(|port| port.parse().ok()).filter(|&port| port > 0).ok_or("there is no such port")
    });
    let (user, host) = user_and_host(name)?;
    let path = match path {
        b"" => b".".to_vec(),
        path => percent_decoded(path).ok_or("% stands before two hexadecimal digits, other than 00, in a URL")?,
    };
    // As in git: the path is absolute, except that /~ is the home directory.
    let path = if path.starts_with(b"/~") { path[1..].to_vec() } else { path };
    Remote { user, host, port: port.transpose()?, path: OsString::from_vec(path) }.checked()
}

/// Decodes `%XX` in a URL. Returns `None` if a `%` is not followed by two hexadecimal digits other than 00.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|&byte| byte != 0)?);
        rest = behind;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(word: &str) {
        assert_eq!(Location::parse(OsStr::new(word)), Ok(Location::Local(word.into())), "{word}");
    }

    #[track_caller]
    fn remote(word: &str, user: Option<&str>, host: &str, port: Option<u16>, path: &str) {
        let expected = Remote { user: user.map(Into::into), host: host.into(), port, path: path.into() };
        assert_eq!(Location::parse(OsStr::new(word)), Ok(Location::Remote(expected)), "{word}");
    }

    #[test]
    fn names_with_no_colon_before_a_slash_are_local() {
        for word in ["disk.img", "./a:b", "/dev/vg0/disk", "a/b:c", ":a", "", "[::1]", "ssh:/x/y".split_at(3).0] {
            local(word);
        }
        assert_eq!(Location::parse(OsStr::new("-")), Ok(Location::Stream));
    }

    #[test]
    fn a_colon_before_the_first_slash_makes_a_name_remote() {
        remote("host:disk.img", None, "host", None, "disk.img");
        remote("me@host:/a/b c", Some("me"), "host", None, "/a/b c");
        remote("host:", None, "host", None, ".");
        remote("[::1]:x", None, "::1", None, "x");
        remote("me@[fe80::1%eth0]:x:y", Some("me"), "fe80::1%eth0", None, "x:y");
        remote("host:-x", None, "host", None, "-x");
        remote("host:~/x", None, "host", None, "~/x");
        remote("me@home@host:x", Some("me@home"), "host", None, "x");
    }

    #[test]
    fn urls_have_absolute_paths_and_may_have_a_port() {
        remote("ssh://host/a/b%20c", None, "host", None, "/a/b c");
        remote("ssh://me@host:2222/x", Some("me"), "host", Some(2222), "/x");
        remote("ssh://[::1]:22/x", None, "::1", Some(22), "/x");
        remote("ssh://host", None, "host", None, ".");
    }

    #[test]
    fn a_tilde_is_home_and_that_of_another_user_is_refused() {
        let there = |word: &str| match Location::parse(OsStr::new(word)) {
            Ok(Location::Remote(remote)) => (remote.is_in_home(), remote.path_there()),
            other => panic!("{word}: {other:?}"),
        };
        for (word, in_home, path) in [
            ("host:~", true, "."),
            ("host:~/", true, "."),
            ("host:~/x.img", true, "x.img"),
            ("host:~///x/", true, "x/"),
            ("host:~/~/x", true, "~/x"),
            ("ssh://host/~/x", true, "x"),
            ("ssh://host/~", true, "."),
            ("host:./~", false, "./~"),
            ("host:./~/x", false, "./~/x"),
            ("host:x~", false, "x~"),
            ("host:/~/x", false, "/~/x"),
        ] {
            assert_eq!(there(word), (in_home, path.into()), "{word}");
        }
        for word in ["host:~root", "me@host:~bob/x.img", "host:~+", "ssh://host/~bob/x"] {
            let refused = Location::parse(OsStr::new(word)).unwrap_err();
            assert!(refused.hint.unwrap().contains("host:./~"), "{word}");
        }
    }

    #[test]
    fn urls_of_other_programs_are_refused_with_a_hint() {
        for (word, hint) in [
            ("sftp://me@host:2222/x", "ssh://me@host:2222/x "),
            ("SCP://host/x", "ssh://host/x "),
            ("rsync://host/x", "ssh://host/x "),
            ("https://host/x", "HOST:PATH"),
            ("file:///x", "without a URL"),
        ] {
            let refused = Location::parse(OsStr::new(word)).unwrap_err();
            assert!(refused.hint.as_ref().unwrap().contains(hint), "{word}: {refused:?}");
        }
        remote("sftp:/x", None, "sftp", None, "/x");
        remote("host://x", None, "host", None, "//x");
    }

    #[test]
    fn invalid_hosts_are_refused() {
        for word in [
            "-oProxyCommand=x:y",
            "me@:x",
            "@host:x",
            "a b:c",
            "ssh:///x",
            "ssh://host:0/x",
            "ssh://host:/x",
            "ssh://h:99999/x",
        ] {
            assert!(Location::parse(OsStr::new(word)).is_err(), "{word}");
        }
        for word in ["ssh://host/%", "ssh://host/%0", "ssh://host/%zz", "ssh://host/%00"] {
            assert!(Location::parse(OsStr::new(word)).is_err(), "{word}");
        }
    }

    #[test]
    fn a_copy_in_a_directory_is_named_after_its_image() {
        for (image, copy) in [
            ("/a/disk.qcow2", "disk.img"),
            ("disk.img", "disk.img"),
            ("disk.RAW", "disk.img"),
            ("disk", "disk"),
            ("/dev/vg0/root", "root"),
            ("disk-1.2", "disk-1.2"),
            (".img", ".img"),
        ] {
            assert_eq!(copy_name(Path::new(image)), copy, "{image}");
        }
    }
}
