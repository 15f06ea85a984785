//! Runs one pipeline scenario for a number of bursts: the workload whose instructions `bench
//! compare` and `bench instructions` count.
//!
//! `frame-cost` lists the scenarios; `frame-cost NAME BURSTS` runs one; `frame-cost NAME BURSTS
//! baseline` does only what the harness adds. Names that begin with `round/` are of a worker's
//! round, the others of the pipeline alone.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::ensure;
use bench::stages::{BURST, Round, Scenario, Wire, round_names, scenarios};

const USAGE: &str = "usage: frame-cost [NAME BURSTS [baseline]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, bursts, baseline) = match arguments.as_slice() {
        [] => {
            let names = scenarios().into_iter().map(|scenario| scenario.name);
            names
                .chain(round_names())
                .for_each(|name| println!("{name}"));
            return ExitCode::SUCCESS;
        }
        [name, bursts] => (name, bursts, false),
        [name, bursts, word] if word == "baseline" => (name, bursts, true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Ok(bursts) = bursts.parse::<usize>() else {
        eprintln!("frame-cost: {bursts:?} is not a number of bursts");
        return ExitCode::from(2);
    };
    let is_round = round_names().contains(name);
    let scenario = scenarios().into_iter().find(|one| one.name == *name);
    let outcome = match scenario {
        Some(scenario) => alone(&scenario, bursts, baseline),
        None if is_round && baseline => Wire::start(name).map(|mut wire| wire.run(bursts)),
        None if is_round => Round::start(name).and_then(|mut round| round.run(bursts)),
        None => {
            eprintln!(
                "frame-cost: unknown scenario {name:?}; without arguments, frame-cost lists all"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frame-cost: {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The pipeline alone.
fn alone(scenario: &Scenario, bursts: usize, baseline: bool) -> anyhow::Result<()> {
    let mut run = scenario.start();
    if baseline {
        (0..bursts).for_each(|_| {
            run.baseline();
        });
        return Ok(());
    }
    let right: usize = (0..bursts).map(|_| run.burst()).sum();
    let all = bursts * BURST;
    ensure!(right == all, "{right} of {all} verdicts were as expected");
    Ok(())
}
