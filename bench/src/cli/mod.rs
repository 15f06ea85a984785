//! The command line.

pub(crate) mod compare;
pub(crate) mod list;
mod progress;
pub(crate) mod report;
mod rules;
pub(crate) mod run;
mod scenario;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bench::interrupt;
use bench::machine::{Machine, Watch};
use bench::report::{Outcome, Record, svg};

pub(crate) use progress::Progress;

/// Printed below `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 measured; 1 failed or interrupted while measuring (the results so far are shown and \
marked as partial); 2 wrong usage; 3 not possible on this machine: not root, no hugepages, fewer \
than two CPUs, a program missing";

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// While measuring.
    Measuring(anyhow::Error),
    /// A wrong command line.
    Usage(String),
    /// What is missing on the machine: sentences that say what to do.
    Unable(Vec<String>),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Measuring(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measuring(error) => write!(out, "bench: {error:#}"),
            Self::Usage(what) => write!(out, "bench: {what}"),
            Self::Unable(missing) => {
                let lines: Vec<String> = missing
                    .iter()
                    .map(|what| format!("bench: {what}"))
                    .collect();
                out.write_str(&lines.join("\n"))
            }
        }
    }
}

impl Failure {
    /// Prints the failure and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(match self {
            Self::Measuring(_) => 1,
            Self::Usage(_) => 2,
            Self::Unable(_) => 3,
        })
    }
}

/// Fails if something is missing.
fn require_nothing(missing: Vec<String>) -> Result<(), Failure> {
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::Unable(missing)),
    }
}

/// The output of a result.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Write the charts as SVG into this directory
    #[arg(long, value_name = "DIRECTORY")]
    plot: Option<PathBuf>,
    /// Write the JSON object into this file too, for `bench report`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// The outcome so far, and whether the measurement is complete.
type Measured = (Option<Outcome>, anyhow::Result<()>);

impl Show {
    /// Measures while the machine is watched, and shows the outcome, even if it is partial.
    fn around(&self, cpus: &[usize], measure: impl FnOnce() -> Measured) -> Result<(), Failure> {
        self.check()?;
        interrupt::listen()?;
        let machine = Machine::inspect();
        let watch = Watch::begin(cpus);
        let known = watch.warnings().len();
        warn(watch.warnings());
        let (outcome, done) = measure();
        let warnings = watch.end();
        warn(&warnings[known..]);
        let done = done.map_err(|error| match interrupt::happened() {
            true => anyhow::anyhow!("interrupted"),
            false => error,
        });
        if let Some(outcome) = outcome {
            self.show(&Record {
                outcome,
                machine,
                warnings,
                partial: done.as_ref().err().map(|error| format!("{error:#}")),
            })?;
        }
        Ok(done?)
    }

    /// Finds wrong options before hours are spent.
    fn check(&self) -> Result<(), Failure> {
        if let Some(directory) = &self.plot {
            std::fs::create_dir_all(directory).map_err(|error| {
                Failure::Usage(format!("--plot {}: {error}", directory.display()))
            })?;
        }
        let parent = self.save.as_deref().and_then(Path::parent);
        match parent.filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
            Some(parent) => Err(Failure::Usage(format!(
                "--save: there is no directory {}",
                parent.display()
            ))),
            None => Ok(()),
        }
    }

    fn show(&self, record: &Record) -> anyhow::Result<()> {
        let json = record.to_json()?;
        if let Some(file) = &self.save {
            write(file, &format!("{json}\n"))?;
        }
        if let Some(directory) = &self.plot {
            for (index, chart) in record.outcome.charts.iter().enumerate() {
                let name = format!("{}-{}.svg", record.outcome.scenario, index + 1);
                write(&directory.join(name), &svg(chart))?;
            }
        }
        print(&match self.json {
            true => json,
            false => record.to_string(),
        });
        Ok(())
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("bench: warning: {warning}");
    }
}

/// Prints to standard output; a closed pipe is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
