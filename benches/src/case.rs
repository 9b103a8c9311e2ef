//! What is measured together, in turns: one disk, moved one way, to one place.

use crate::disk::Kind;

/// How a disk is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On this machine, by a pipe or as a copy.
    Local,
    /// Over ssh on the loopback interface.
    Ssh,
    /// The same, to where an old state is, of which one interval in a hundred has changed.
    Delta,
    /// The same, over a link of 100 Mbit/s.
    DeltaSlow,
    /// Over ssh on the loopback interface, to where the same disk is already.
    DeltaSame,
    /// The same, to where a transfer was cut at half of the data.
    Resume,
    /// Not at all: it is only said what lies where.
    Map,
}

impl Way {
    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Delta => "delta",
            Self::DeltaSlow => "delta-100mbit",
            Self::DeltaSame => "delta-same",
            Self::Resume => "resume",
            Self::Map => "map",
        }
    }

    /// Whether something is at the target before, to be brought up to date.
    #[must_use]
    pub fn renews(self) -> bool {
        matches!(self, Self::Delta | Self::DeltaSlow | Self::DeltaSame | Self::Resume)
    }
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The folder that `--where` names; ext4, by rights.
    Disk,
    /// The folder that `--tmpfs` names.
    Tmpfs,
}

/// One disk, one way, one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The disk.
    pub kind: Kind,
    /// How it is moved.
    pub way: Way,
    /// Where to.
    pub on: On,
    /// Whether it has to be on stable storage before the time is over.
    pub sync: bool,
}

impl Case {
    /// All that there are, disk by disk.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for kind in Kind::ALL {
            let case = |way, on, sync| Self { kind, way, on, sync };
            if kind != Kind::LongRaw {
                // ext4 has no files of 16 TiB.
                if !kind.is_vast() {
                    cases.push(case(Way::Local, On::Disk, false));
                }
                cases.push(case(Way::Local, On::Tmpfs, false));
            }
            if matches!(kind, Kind::ScatteredRaw | Kind::GuestQcow2) {
                cases.push(case(Way::Local, On::Disk, true));
            }
            if matches!(kind, Kind::ScatteredRaw | Kind::LongRaw | Kind::GuestQcow2) {
                cases.push(case(Way::Ssh, On::Disk, false));
            }
            if kind == Kind::LongRaw {
                cases.push(case(Way::Ssh, On::Tmpfs, false));
            }
            if matches!(kind, Kind::GuestRaw | Kind::Fragments) {
                cases.push(case(Way::Delta, On::Disk, false));
            }
            if kind == Kind::GuestRaw {
                let ways = [Way::DeltaSame, Way::Resume, Way::DeltaSlow];
                cases.extend(ways.map(|way| case(way, On::Disk, false)));
            }
            if kind == Kind::Empty16tQcow2 {
                cases.push(case(Way::Map, On::Tmpfs, false));
            }
        }
        cases
    }

    /// `scattered-raw/local/disk`, and `/sync` where it is synced.
    #[must_use]
    pub fn name(&self) -> String {
        let way = self.way.name();
        let on = match self.on {
            On::Disk => "disk",
            On::Tmpfs => "tmpfs",
        };
        format!("{}/{way}/{on}{}", self.kind.name(), if self.sync { "/sync" } else { "" })
    }

    /// Whether these words name it: disk, way and place as a whole, or one or two parts, between slashes, that its name has.
    #[must_use]
    pub fn is_named(&self, words: &str) -> bool {
        let name = self.name();
        if words.matches('/').count() > 1 {
            return name == words;
        }
        words.split('/').all(|word| name.split('/').any(|part| part == word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_is_named_by_it() {
        let all = Case::all();
        for case in &all {
            assert_eq!(all.iter().filter(|other| other.name() == case.name()).count(), 1, "{}", case.name());
            assert!(case.is_named(&case.name()));
        }
    }

    #[test]
    fn a_part_of_the_name_names_all_that_have_it() {
        let named = |words: &str| Case::all().iter().filter(|case| case.is_named(words)).count();
        assert_eq!(named("scattered-raw"), 4);
        assert_eq!(named("scattered-raw/sync"), 1);
        assert_eq!(named("scattered-raw/local/disk"), 1);
        assert_eq!(named("map"), 1);
        assert_eq!([named("delta"), named("guest-raw/delta/disk"), named("resume")], [2, 1, 1]);
        assert_eq!(named("scattered"), 0);
        assert_eq!(named(""), 0);
    }
}
