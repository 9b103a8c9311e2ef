//! A link that is cut in silence, or slow: both ends notice, what was there stays, and the next run works.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rig::{
    Before, FarEnd, HOST, Network, Outcome, Running, Setup, TestDisk, Toolbox, assert_same, part_of, run, tools,
    wait_until,
};

const MIB: u64 = 1 << 20;
/// Silence is to be noticed by then.
const NOTICED: Duration = Duration::from_secs(90);

/// Who receives, or that the image comes instead of going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Binary,
    Sh,
    Pull,
}

/// Two machines of their own, and an image at one of them.
struct Link {
    network: Network,
    far: FarEnd,
    way: Way,
    image: PathBuf,
    dest: PathBuf,
    _toolbox: Toolbox,
}

impl Link {
    fn new(way: Way, disk: &TestDisk) -> Self {
        let network = Network::new();
        let tools = tools!();
        let toolbox = Toolbox::new().with("recv-hole", &tools.recv_hole).with("xfer-hole", &tools.xfer_hole);
        let path = toolbox.path();
        let setup = Setup { path: Some(&path), network: Some(&network), ..Setup::default() };
        let far = FarEnd::with(tools, "dash", setup);
        let (near, there) = (far.near("disk.img"), far.account.home("disk.img"));
        let (image, dest) = if way == Way::Pull { (there, near) } else { (near, there) };
        let image = image.with_file_name("image.img");
        disk.make(&image);
        Self { network, far, way, image, dest, _toolbox: toolbox }
    }

    /// The transfer, as it is run at the near end.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = if self.way == Way::Pull { self.far.receiver() } else { self.far.sender() };
        command.args(args);
        match self.way {
            Way::Pull => command.arg(self.far.place(&self.image)).arg(&self.dest),
            Way::Binary => command.args(["--receiver", "binary"]).arg(&self.image).arg(self.far.place(&self.dest)),
            Way::Sh => command.args(["--receiver", "sh"]).arg(&self.image).arg(self.far.place(&self.dest)),
        };
        self.network.near(&command)
    }

    fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args), b"")
    }

    /// Puts an old disk there, starts a transfer over it, cuts the link when bytes have arrived, and waits until both ends are gone.
    fn cut(&self, args: &[&str], within: Duration) -> Outcome {
        fs::write(&self.dest, "the old disk").unwrap();
        chown(&self.dest, Some(self.far.account.uid()), None).unwrap();
        let before = Before::of(&self.dest);
        self.network.slow("40mbit");
        let mut runs = Running::between(Stdio::null(), &mut self.command(args), Stdio::null());
        let part = part_of(&self.dest);
        let arrived = |part: &Path| fs::metadata(part).is_ok_and(|stat| stat.blocks() * 512 > 8 * MIB);
        wait_until("bytes arrive", || arrived(&part) || !runs.lives());
        assert!(runs.lives(), "{:?}: {:?}", self.way, runs.end());
        self.network.cut();
        let (start, mut near, mut far) = (Instant::now(), None, None);
        while near.is_none() || far.is_none() {
            let now = start.elapsed();
            let what =
                format!("{:?} {args:?}: near end gone after {near:?}, far end after {far:?}, now {now:?}", self.way);
            assert!(now < within, "{what}; there: {:?}", self.far.account.processes());
            near = near.or_else(|| (!runs.lives()).then_some(now));
            far = far
                .or_else(|| self.far.account.processes().iter().all(|it| it.argv.starts_with("sshd")).then_some(now));
            thread::sleep(Duration::from_millis(50));
        }
        let outcome = runs.end();
        before.untouched("the link was cut");
        assert!(part.exists(), "{:?}", self.way);
        self.network.restore();
        outcome.blamed_for_now(HOST, &[])
    }
}

/// Data enough to be cut in the middle of it.
fn disk() -> TestDisk {
    TestDisk::empty(64 * MIB).with(0, 40 * MIB, 1)
}

/// Both ends end, with what is left as it should be; then the same command works.
fn cut_and_again(way: Way, args: &[&str], within: Duration) {
    let link = Link::new(way, &disk());
    link.cut(args, within);
    link.run(args).ok();
    assert_same(&link.image, &link.dest);
    assert!(!part_of(&link.dest).exists(), "{way:?}");
}

#[test]
fn both_ends_of_a_link_that_was_cut_are_gone_within_90_seconds_and_the_next_run_works() {
    thread::scope(|scope| {
        for way in [Way::Binary, Way::Sh, Way::Pull] {
            scope.spawn(move || cut_and_again(way, &[], NOTICED));
        }
    });
}

#[test]
fn a_link_that_is_cut_before_the_receiver_is_ready_is_noticed_too() {
    let network = Network::new();
    // It never comes to speak.
    let toolbox = Toolbox::new().script("recv-hole", "exec sleep 300");
    let path = toolbox.path();
    let setup = Setup { path: Some(&path), network: Some(&network), ..Setup::default() };
    let far = FarEnd::with(tools!(), "dash", setup);
    let mut sender = far.sender();
    sender.arg(far.image("disk.img", &disk())).arg(far.place("out.img"));
    let mut sends = Running::between(Stdio::null(), &mut network.near(&sender), Stdio::null());
    wait_until("the receiver is asked", || !toolbox.calls().is_empty());
    network.cut();
    let start = Instant::now();
    while sends.lives() {
        assert!(start.elapsed() < NOTICED, "the near end has not noticed");
        thread::sleep(Duration::from_millis(50));
    }
    sends.end().blamed_for_now(HOST, &[]);
    assert!(!far.account.home("out.img").exists());
}

#[test]
fn a_timeout_of_the_users_is_kept_to() {
    thread::scope(|scope| {
        for way in [Way::Binary, Way::Sh, Way::Pull] {
            // Soon, however long a busy machine takes.
            scope.spawn(move || cut_and_again(way, &["--timeout", "3"], Duration::from_secs(30)));
        }
    });
}

#[test]
fn a_slow_link_is_no_dead_one() {
    thread::scope(|scope| {
        for way in [Way::Binary, Way::Sh, Way::Pull] {
            scope.spawn(move || {
                // Half a minute and more, at the pace of a modem; patience is for less.
                let link = Link::new(way, &TestDisk::empty(64 * MIB).with(0, 3 * MIB, 1).with(63 * MIB, MIB, 2));
                link.network.slow("1mbit");
                link.run(&["--timeout", "20"]).ok();
                assert_same(&link.image, &link.dest);
            });
        }
    });
}

#[test]
fn a_short_interruption_is_sat_out() {
    let link = Link::new(Way::Sh, &disk());
    link.network.slow("40mbit");
    let mut runs = Running::between(Stdio::null(), &mut link.command(&[]), Stdio::null());
    wait_until("bytes arrive", || part_of(&link.dest).exists() || !runs.lives());
    link.network.cut();
    thread::sleep(Duration::from_secs(5));
    assert!(runs.lives(), "{:?}", runs.end());
    link.network.restore();
    runs.end().ok();
    assert_same(&link.image, &link.dest);
}
