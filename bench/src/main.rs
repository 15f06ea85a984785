//! `bench`: the switch beside its peers.

use std::process::ExitCode;
use std::time::Duration;

use bench::network::Topology;
use bench::scenarios::{Settings, Throughput};
use bench::site::Cpus;
use bench::switches::Peer;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a scenario
    Run(Run),
    /// The load of a run; told on standard input what to do
    #[command(hide = true)]
    Load,
}

#[derive(Debug, clap::Args)]
struct Run {
    scenario: Topology,
    #[arg(long, value_delimiter = ',', default_value = "testpmd")]
    against: Vec<Peer>,
    #[arg(long)]
    json: bool,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Load => {
            bench::load::serve();
            ExitCode::SUCCESS
        }
        Command::Run(run) => {
            let settings = Settings {
                cpus: Cpus { switch: 1, load: 0 },
                rounds: run.rounds,
                warm_up: Duration::from_millis(500),
                measure: Duration::from_secs_f64(run.seconds),
                seed: 1,
            };
            let throughput = Throughput {
                topology: run.scenario,
                peers: run.against,
                variants: Throughput::ALL.to_vec(),
            };
            match throughput.run(&settings, |what| eprintln!("bench: {what}")) {
                Ok(pairs) => {
                    println!("{}", serde_json::to_string_pretty(&pairs).expect("json"));
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("bench: {error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
