//! Instructions of a packet's whole way through a worker, counted by callgrind: the same on every machine for the same
//! compiler, so that a change that makes the way longer shows, however noisy the machine.

mod budgets;
mod callgrind;
pub mod cases;
mod steps;

use std::path::{Path, PathBuf};
use std::process::Command;

use ripvs_core::Time;

use crate::memory::PoolFrame;
use crate::worker::Bench;
use budgets::{Budgets, Counted};
use callgrind::Dump;
use cases::Case;

/// What is counted, and what for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The file of budgets.
    #[arg(long, default_value = "bench/budgets.toml")]
    budgets: PathBuf,
    /// Write the file anew: what is counted now is the budget from now on.
    #[arg(long)]
    record: bool,
    /// Show where the instructions are spent, by step (needs binutils' addr2line, and takes a while).
    #[arg(long)]
    steps: bool,
    /// Write that as CSV, too.
    #[arg(long, requires = "steps")]
    csv: Option<PathBuf>,
    /// Only cases with this in their name.
    #[arg(long, value_name = "PATTERN")]
    case: Option<String>,
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| {
            let pattern = self.case.as_deref().unwrap_or("");
            case.name().contains(pattern)
        };
        Case::all().into_iter().filter(wanted).collect()
    }
}

/// The cases themselves, as they run under callgrind: a dump follows each.
///
/// # Errors
/// A worker does not do what it is measured for.
pub fn run_counted(options: &Options) -> Result<(), String> {
    for case in options.cases() {
        let mut prepared = case.prepare()?;
        prepared.run(&mut |bench, now, frames| counted(bench, now, frames))?;
        println!("{}", prepared.count());
        end_of_case();
    }
    Ok(())
}

/// What is counted: callgrind looks for this function by its name.
#[inline(never)]
fn counted(bench: &mut Bench, now: Time, frames: &mut Vec<PoolFrame>) -> usize {
    if frames.is_empty() {
        bench.tick(now);
    } else {
        bench.workers[0].burst(now, ripvs_packet::PortId(0), frames, &mut bench.pool);
        bench.flush(now);
    }
    bench.pool.recycle()
}

/// Callgrind writes a dump when this returns.
#[inline(never)]
fn end_of_case() {
    std::hint::black_box(());
}

/// Runs this program under callgrind.
fn callgrind(options: &Options, program: &Path) -> Result<Vec<(Case, usize, Dump)>, String> {
    let dir = std::env::temp_dir().join(format!("ripvs-count-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let done = callgrind_in(options, program, &dir);
    // What cannot be removed is a temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn callgrind_in(
    options: &Options,
    program: &Path,
    dir: &Path,
) -> Result<Vec<(Case, usize, Dump)>, String> {
    let mut command = Command::new("valgrind");
    command.args([
        "--tool=callgrind",
        "--quiet",
        "--collect-atstart=no",
        "--toggle-collect=ripvs_bench::count::counted",
        "--dump-after=ripvs_bench::count::end_of_case",
        "--dump-instr=yes",
        "--compress-pos=no",
    ]);
    command.arg(format!(
        "--callgrind-out-file={}",
        dir.join("dump").display()
    ));
    command.arg(program).arg("counted");
    if let Some(pattern) = &options.case {
        command.args(["--case", pattern]);
    }
    // The C library picks the same functions on every machine.
    command.env(
        "GLIBC_TUNABLES",
        "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM",
    );
    let output = command
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("under callgrind: {said}"));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<usize> = said.lines().filter_map(|line| line.parse().ok()).collect();
    let cases = options.cases();
    if counts.len() != cases.len() {
        return Err(format!(
            "{} of {} cases were run",
            counts.len(),
            cases.len()
        ));
    }
    let name = program.to_string_lossy();
    let mut dumps = Vec::new();
    for (index, (case, count)) in cases.into_iter().zip(counts).enumerate() {
        let path = dir.join(format!("dump.{}", index + 1));
        dumps.push((case, count, callgrind::read(&path, &name)?));
    }
    Ok(dumps)
}

/// The compiler's name and version.
fn rustc() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Counts all cases, shows them beside their budgets, and says which are above.
///
/// # Errors
/// Counting does not work, or a budget is exceeded.
pub fn run(options: &Options) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let rustc = rustc()?;
    let dumps = callgrind(options, &program)?;
    let counted: Counted = dumps
        .iter()
        .map(|(case, count, dump)| (case.name(), dump.total() as f64 / *count as f64))
        .collect();
    if options.steps {
        show_steps(options, &dumps, &program)?;
    }
    if options.record {
        if options.case.is_some() {
            return Err("budgets are recorded all together".into());
        }
        return Budgets::write(&options.budgets, &rustc, &counted);
    }
    let mut known = Budgets::read(&options.budgets)?;
    if let Some(pattern) = &options.case {
        known.instructions.retain(|name, _| name.contains(pattern));
    }
    println!("{:28} {:>12} {:>8}", "instructions", "counted", "budget");
    for (name, count) in &counted {
        let budget = known.of(name).unwrap_or(0.0);
        println!("{name:28} {count:>12.1} {budget:>8.1}");
    }
    if known.rustc != rustc {
        return Err(format!(
            "the budgets are for {}, this is {rustc}: use that one, or record them anew",
            known.rustc
        ));
    }
    match known.complaints(&counted) {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(format!("over budget\n  {}", wrong.join("\n  "))),
    }
}

/// Prints, and writes, where the instructions of each case are spent.
fn show_steps(
    options: &Options,
    dumps: &[(Case, usize, Dump)],
    program: &Path,
) -> Result<(), String> {
    print!("{:28}", "instructions by step");
    let names = || steps::STEPS.iter().copied().chain(["copying"]);
    names().for_each(|name| print!(" {name:>8}"));
    println!(" {:>8}", "all");
    let mut csv = format!("case,{},all\n", names().collect::<Vec<_>>().join(","));
    for (case, count, dump) in dumps {
        print!("{:28}", case.name());
        csv += &format!("\"{}\"", case.name());
        for sum in steps::share(dump, program)? {
            let each = sum as f64 / *count as f64;
            print!(" {each:>8.1}");
            csv += &format!(",{each:.1}");
        }
        let all = dump.total() as f64 / *count as f64;
        println!(" {all:>8.1}");
        csv += &format!(",{all:.1}\n");
    }
    match &options.csv {
        Some(path) => {
            std::fs::write(path, csv).map_err(|error| format!("{}: {error}", path.display()))
        }
        None => Ok(()),
    }
}
