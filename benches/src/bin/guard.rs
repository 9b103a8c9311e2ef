//! Counts the instructions of small cases, and holds them against figures that are committed: a slip is seen without timing anything.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use xfer_hole_bench::figures::{BAND, Figures};
use xfer_hole_bench::micro::{Case, TURNS};

const USAGE: &str = "\
usage: guard check [--figures FILE] [--slow PERCENT] [CASE...]
       guard update [--figures FILE] [--slow PERCENT] [CASE...]
       guard case CASE [--slow PERCENT | --idle]
cases: extents, coalescer, codec; all of them if none is named
--slow does so much more of the work, to see whether that is noticed; --idle makes the disk and does none";

/// Where the figures are committed.
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// In memory, where each page is data or hole by itself whatever file systems there are.
const FOLDER: &str = "/dev/shm";
/// The C library copies by what the processor has, and callgrind counts each byte of its `rep movsb`. This makes it copy by the
/// same instructions everywhere.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM:glibc.cpu.x86_non_temporal_threshold=0x4000000";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some((word, wishes)) = words.split_first().and_then(|(word, rest)| Some((word, Wishes::of(rest)?))) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match (word.as_str(), &wishes.cases[..]) {
        ("check", _) => check(&wishes),
        ("update", _) => update(&wishes),
        ("case", [case]) => run(*case, &wishes),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was typed behind the first word.
struct Wishes {
    cases: Vec<Case>,
    figures: Option<PathBuf>,
    /// Percent of the work that is done on top of it.
    slow: u64,
    idle: bool,
}

impl Wishes {
    fn of(words: &[String]) -> Option<Self> {
        let mut wishes = Self { cases: Vec::new(), figures: None, slow: 0, idle: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--figures" => wishes.figures = Some(words.next()?.into()),
                "--slow" => wishes.slow = words.next()?.parse().ok()?,
                "--idle" => wishes.idle = true,
                name => wishes.cases.push(Case::named(name)?),
            }
        }
        Some(wishes)
    }

    /// Those that are to be counted.
    fn cases(&self) -> &[Case] {
        if self.cases.is_empty() { &Case::ALL } else { &self.cases }
    }

    /// The file with the figures.
    fn figures(&self) -> Result<&Path, Box<dyn Error>> {
        match &self.figures {
            Some(path) => Ok(path),
            None if cfg!(debug_assertions) => Err("the figures are of the release profile, which this isn't".into()),
            None => Ok(Path::new(FIGURES)),
        }
    }
}

/// Does the work of a case: what is counted.
fn run(case: Case, wishes: &Wishes) -> Result<(), Box<dyn Error>> {
    let turns = if wishes.idle { 0 } else { TURNS + (TURNS * wishes.slow).div_ceil(100) };
    let folder = tempfile::tempdir_in(FOLDER)?;
    case.run(&folder.path().join("disk"), turns).map_err(|error| format!("{}: {error}", case.name()).into())
}

fn check(wishes: &Wishes) -> Result<(), Box<dyn Error>> {
    let path = wishes.figures()?;
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let figures = Figures::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut red = 0;
    for &case in wishes.cases() {
        let judgement = figures.judge(case.name(), work(case, wishes.slow)?);
        println!("guard: {judgement}");
        red += usize::from(!judgement.is_green());
    }
    if red > 0 {
        let hint = "if that is meant, renew the figures: cargo guard update";
        return Err(format!("{red} of {} cases: more than {BAND} % off\n{hint}", wishes.cases().len()).into());
    }
    Ok(())
}

fn update(wishes: &Wishes) -> Result<(), Box<dyn Error>> {
    let path = wishes.figures()?;
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut figures = Figures::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    for &case in wishes.cases() {
        let instructions = work(case, wishes.slow)?;
        println!("guard: {}", figures.judge(case.name(), instructions));
        figures.set(case.name(), instructions);
    }
    Ok(fs::write(path, figures.to_string())?)
}

/// Instructions of a case's work, without what it takes to start and to make the disk.
fn work(case: Case, slow: u64) -> Result<u64, Box<dyn Error>> {
    let all = instructions(&["case", case.name(), "--slow", &slow.to_string()])?;
    let idle = instructions(&["case", case.name(), "--idle"])?;
    all.checked_sub(idle).ok_or_else(|| format!("{}: {all} instructions, and {idle} idle", case.name()).into())
}

/// Instructions of this program with these arguments, by callgrind.
fn instructions(args: &[&str]) -> Result<u64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let output = Command::new("valgrind")
        .args(["--command-line-only=yes", "--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe()?)
        .args(args)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind: {}: {}", args.join(" "), said.trim()).into());
    }
    let text = fs::read_to_string(&counts)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|total| total.parse().ok());
    total.ok_or_else(|| "valgrind: callgrind gives no total".into())
}
