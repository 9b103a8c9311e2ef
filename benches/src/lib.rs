//! What is timed, against whom, and how it grows: the runner behind `./bench`, and the floor that it measures against.
//!
//! A [`case`](case::Case) is a disk and a way to move it; its [`contenders`](contender::contenders) are run in turns by a
//! [`Session`], and what they come to is [reported](mod@report) and held against what is [asked].

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl::set_child_subreaper;

pub mod asked;
pub mod case;
pub mod chart;
pub mod cli;
pub mod contender;
pub mod disk;
pub mod error;
pub mod figures;
pub mod floor;
pub mod growth;
pub mod guest;
pub mod line;
pub mod link;
pub mod measure;
pub mod micro;
pub mod past;
pub mod picture;
pub mod ranges;
pub mod report;
pub mod room;
pub mod seeded;
pub mod session;
pub mod speed;
pub mod sshd;
pub mod stats;
pub mod tables;
pub mod tool;
pub mod tree;
pub mod work;

use case::Way;
use cli::Cli;
use contender::{Side, Tools};
use disk::Maker;
use error::{Error, Result, Told};
use growth::{Growth, Panel};
use link::Link;
use measure::Measure;
use session::{Session, Table};
use sshd::Sshd;
use work::Folder;

/// What a run needs on disk where sizes aren't divided, in bytes: the guest's five forms, a result, and some room.
const ON_DISK: u64 = 12 << 30;
/// And in memory: a result.
const IN_MEMORY: u64 = 3 << 30;

/// The runner: does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if cli.worker {
        // What was asked and isn't met is no failure to measure it.
        let exit = |all_met| if all_met { ExitCode::SUCCESS } else { ExitCode::from(1) };
        work::heed_signals().and_then(|()| run(&cli)).map(exit)
    } else {
        work::supervise("--worker", [cli.place, cli.tmpfs])
    };
    done.unwrap_or_else(|why| {
        eprintln!("bench: {why}");
        ExitCode::from(2)
    })
}

/// Runs what is asked for, prints the report, and writes it where it is to be kept: true if all lines of what is asked that were
/// measured are met.
///
/// # Errors
/// If there is too little room, a tool that can't be done without is missing, or one of our commands fails or makes another disk.
pub fn run(cli: &Cli) -> Result<bool> {
    let (cases, growth) = cli.cases()?;
    if cli.list {
        cases.iter().for_each(|case| say(case.name()));
        if growth {
            say(cli::GROWTH);
        }
        return Ok(true);
    }
    // What a command leaves behind is then ours to wait for, and its processor time is told.
    set_child_subreaper(true).told("prctl")?;
    enough_room(cli)?;
    let (here, memory) = (Folder::make(&cli.place)?, Folder::make(&cli.tmpfs)?);
    let tools = tools(cli)?;
    let over = |far: &dyn Fn(Way) -> bool| cases.iter().any(|case| far(case.way)) && tool::find("sshd").is_some();
    let near = |way: Way| way == Way::Ssh || (way.renews() && way != Way::DeltaSlow);
    let server = over(&near).then(|| Sshd::start(here.path(), &tools.folder, None)).transpose()?;
    let slow = over(&|way| way == Way::DeltaSlow).then(|| slow_end(here.path(), &tools.folder)).flatten();
    let config = |server: &Sshd| server.config.clone();
    let tools =
        Tools { ssh: server.as_ref().map(config), slow: slow.as_ref().map(|(server, _)| config(server)), ..tools };
    let servers = server.iter().chain(slow.iter().map(|(server, _)| server)).map(Sshd::pid).collect();
    let kept = if cli.keep {
        cli.place.join(format!("xfer-hole-bench-disks-{}", cli.scale()))
    } else {
        here.path().join("disks")
    };
    fs::create_dir_all(&kept).told(kept.display())?;
    let kept = kept.canonicalize().told(kept.display())?;
    let session = Session {
        maker: Maker { folder: kept, vast: memory.path().to_owned(), scale: cli.scale() },
        places: [here.path().to_owned(), memory.path().to_owned()],
        tools,
        measure: Measure { said: here.path().join("said"), servers },
        runs: cli.runs(),
    };
    let machine = session::machine(&session.places);
    let keep = |folder: &Path, tables: &[Table], panels: &[Panel]| {
        let text = report::whole(&machine, session.runs, tables, &asked::verdicts(tables), panels);
        let drawing = (!panels.is_empty()).then(|| chart::draw(panels));
        report::write(folder, &text, tables, drawing.as_deref())
    };
    let mut tables = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let table = session.run(case)?;
        say(report::table(&table));
        tables.push(table);
        if let Some(folder) = &cli.report {
            // A run that ends early leaves what it has measured.
            keep(folder, &tables, &[])?;
        }
        let next = cases.get(at + 1).map(|case| case.kind.family());
        if !cli.keep && next != Some(case.kind.family()) {
            empty(&session.maker.folder)?;
        }
    }
    let panels = if growth {
        let (folder, vast) = (here.path(), memory.path());
        let runs = session.runs.min(3);
        Growth { folder, vast, tools: &session.tools, measure: &session.measure, runs, scale: cli.scale() }.panels()?
    } else {
        Vec::new()
    };
    let asked = asked::verdicts(&tables);
    say(report::growth(&panels));
    if !asked.is_empty() {
        say(report::verdicts(&asked));
    }
    if let Some(folder) = cli.report() {
        keep(folder, &tables, &panels)?;
    }
    let wrong = tables.iter().flat_map(|table| &table.failed).filter(|(side, _)| *side == Side::Ours).count();
    if wrong > 0 {
        return Err(Error::new(format!("{wrong} of our own commands failed or made another disk")));
    }
    Ok(asked.iter().all(|verdict| verdict.met != Some(false)))
}

/// Prints. That nobody reads it is no failure of what was measured.
fn say(text: impl Display) {
    let _said = writeln!(io::stdout(), "{text}");
}

/// A far end behind a slow link, if this machine has the means for one.
fn slow_end(folder: &Path, tools: &Path) -> Option<(Sshd, Link)> {
    let laid = Link::lay().and_then(|link| Ok((Sshd::start(folder, tools, Some(&link))?, link)));
    laid.inspect_err(|why| eprintln!("bench: without a slow link: {why}")).ok()
}

/// The commands, and what of the others is missing: one line on standard error.
fn tools(cli: &Cli) -> Result<Tools> {
    let beside = || std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let folder = cli.tools.clone().or_else(beside).ok_or_else(|| Error::new("it isn't known where xfer-hole is"))?;
    for program in ["xfer-hole", "recv-hole"] {
        if !folder.join(program).is_file() {
            return Err(Error::new(format!("{}: no {program} there: build it first", folder.display())));
        }
    }
    for program in ["qemu-img", "qemu-io", "mkfs.ext4"] {
        tool::find(program).ok_or_else(|| Error::new(format!("{program} isn't installed, and makes the disks")))?;
    }
    let peers = ["qemu-nbd", "nbdcopy", "nbdkit", "rsync", "bmaptool", "sshd", "ssh", "zstd", "ip", "tc"];
    let missing: Vec<_> = peers.into_iter().filter(|program| tool::find(program).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("bench: without {}, which aren't installed", missing.join(", "));
    }
    let absolute = |path: PathBuf| path.canonicalize().told(path.display());
    Ok(Tools { folder: absolute(folder)?, script: absolute(cli.checkout.join("recv-hole.sh"))?, ssh: None, slow: None })
}

/// Refuses to begin what would fill the disk.
fn enough_room(cli: &Cli) -> Result<()> {
    for (folder, needed) in [(&cli.place, ON_DISK), (&cli.tmpfs, IN_MEMORY)] {
        fs::create_dir_all(folder).told(folder.display())?;
        let (room, needed) = (work::room(folder)?, needed / cli.scale());
        if room < needed {
            let (room, needed) = (report::bytes(room), report::bytes(needed));
            return Err(Error::new(format!("{}: {needed} are needed there, and {room} are free", folder.display())));
        }
    }
    if cli.place.canonicalize().ok() == cli.tmpfs.canonicalize().ok() {
        return Err(Error::new(format!("{}: --where and --tmpfs have to be two folders", cli.place.display())));
    }
    let there = work::file_system(&cli.place);
    if there != "ext4" {
        eprintln!("bench: {}: a file system that isn't ext4: figures of others don't compare", cli.place.display());
    }
    Ok(())
}

/// Removes the disks that no case needs any more.
fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).told(folder.display())? {
        let path = entry.told(folder.display())?.path();
        fs::remove_file(&path).told(path.display())?;
    }
    Ok(())
}
