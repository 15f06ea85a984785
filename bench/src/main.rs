//! `bench`: measures the switch beside its peers.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cli::{Failure, compare, list, report, run};

/// Measures the switch beside its peers, in turn on one CPU
#[derive(Debug, Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a scenario
    #[command(after_help = cli::EXIT_CODES)]
    Run(run::Run),
    /// List scenarios, peers, aims and stages
    List(list::List),
    /// Write one page from saved results
    Report(report::Report),
    /// Count the instructions per frame of the pipeline's stages in two commits
    #[command(after_help = cli::EXIT_CODES)]
    Compare(compare::Compare),
    /// Count the instructions per frame of the pipeline's stages in the working tree
    #[command(after_help = cli::EXIT_CODES)]
    Instructions(compare::Instructions),
    /// The load of a run; reads its plan from standard input
    #[command(hide = true)]
    Load,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Run(run) => run.carry_out(),
        Command::List(list) => list.carry_out(),
        Command::Report(report) => report.carry_out(),
        Command::Compare(compare) => compare.carry_out(),
        Command::Instructions(instructions) => instructions.carry_out(),
        Command::Load => {
            bench::load::serve();
            Ok(())
        }
    };
    done.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
