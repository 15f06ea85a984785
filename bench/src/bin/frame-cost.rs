//! Runs one pipeline scenario for a number of bursts: the workload whose instructions `bench
//! compare` and `bench instructions` count.
//!
//! `frame-cost` lists the scenarios; `frame-cost NAME BURSTS` runs one; `frame-cost NAME BURSTS
//! baseline` only fills its buffers.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use bench::stages::{BURST, scenarios};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, bursts, baseline) = match arguments.as_slice() {
        [] => {
            scenarios()
                .iter()
                .for_each(|scenario| println!("{}", scenario.name));
            return ExitCode::SUCCESS;
        }
        [name, bursts] => (name, bursts, false),
        [name, bursts, word] if word == "baseline" => (name, bursts, true),
        _ => {
            eprintln!("usage: frame-cost [NAME BURSTS [baseline]]");
            return ExitCode::from(2);
        }
    };
    let Ok(bursts) = bursts.parse::<usize>() else {
        eprintln!("frame-cost: {bursts:?} is not a number of bursts");
        return ExitCode::from(2);
    };
    let Some(scenario) = scenarios()
        .into_iter()
        .find(|scenario| scenario.name == *name)
    else {
        eprintln!("frame-cost: unknown scenario {name:?}; without arguments, frame-cost lists all");
        return ExitCode::from(2);
    };
    let mut run = scenario.start();
    let mut right = 0;
    for _ in 0..bursts {
        right += if baseline {
            run.baseline()
        } else {
            run.burst()
        };
    }
    if !baseline && right != bursts * BURST {
        eprintln!(
            "frame-cost: {name}: {right} of {} verdicts were as expected",
            bursts * BURST
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
