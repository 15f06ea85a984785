//! `bench run`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bench::hosts;
use bench::interrupt;
use bench::machine::{self, Needs};
use bench::network::Topology;
use bench::report::Outcome;
use bench::scenarios::provisioner::Provisioner;
use bench::scenarios::stages::{self, Stages};
use bench::scenarios::{
    Settings, Task, Throughput, Traffic, Variant, apps, encrypted, idle, ike, latency, noisy,
    scale, tenants,
};
use bench::site::Cpus;
use bench::switches::{Peer, PollMode};

use clap::ValueEnum;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::scenario::Scenario;
use super::{Failure, Measured, Progress, Show, require_nothing, rules};

/// A scenario that measures one peer after the other.
type ByPeer = fn(Task<'_>) -> anyhow::Result<Outcome>;

/// Our switch and its peers take turns on one CPU. Progress and warnings are on standard error,
/// results on standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    scenario: Scenario,
    /// The peers, separated by commas; by default all that can run here
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    against: Vec<Peer>,
    /// Sizes of frames in bytes, with the check sequence, for p2p, p2v and v2v [default:
    /// 64,512,1500]
    #[arg(long, value_delimiter = ',', value_name = "BYTES,…")]
    #[arg(value_parser = clap::value_parser!(u16).range(64..=1514))]
    frames: Vec<u16>,
    /// Numbers of flows for p2p, p2v and v2v [default: 1,10000]
    #[arg(long, value_delimiter = ',', value_name = "NUMBER,…")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=131_072))]
    flows: Vec<u32>,
    /// Skip the traffic with a tenth of attacks
    #[arg(long)]
    no_attacks: bool,
    /// Only the traffic with attacks, by default with 64 bytes and 1 flow
    #[arg(long, conflicts_with = "no_attacks")]
    attacks_only: bool,
    /// Measurements of each pair [default: 3; for stages 41]
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Duration of each measurement [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// The CPU of the switch under test, and that of the load
    #[arg(long, value_name = "SWITCH,LOAD", default_value = "1,0", value_parser = cpus)]
    cpus: Cpus,
    /// Seed of the flows and their order
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How our switch waits for frames in latency, tenants and noisy [default: adaptive]. In p2p,
    /// p2v and v2v it never sleeps
    #[arg(long, value_name = "HOW")]
    poll: Option<PollMode>,
    /// A first impression: 64 bytes, 1 flow, 1 round of half a second, unless other options say
    /// otherwise
    #[arg(long)]
    quick: bool,
    /// Print the configuration of each switch too
    #[arg(long)]
    rules: bool,
    /// For stages: only those whose names begin with one of these
    #[arg(long, value_delimiter = ',', value_name = "PREFIX,…")]
    only: Vec<String>,
    /// For provisioner and ike: the numbers of tenants [default: 20,50,100,200, of ike 20,100; with
    /// --quick 20]
    #[arg(long, value_delimiter = ',', value_name = "NUMBER,…")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    tenants: Vec<u16>,
    /// For provisioner: the switch's executable [default: vswitch beside this program]
    #[arg(long, value_name = "FILE")]
    switch_binary: Option<PathBuf>,
    #[command(flatten)]
    show: Show,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0.05 to 3600".to_owned()),
    }
}

fn cpus(text: &str) -> Result<Cpus, String> {
    let numbers = text.split_once(',').and_then(|(switch, load)| {
        Some(Cpus {
            switch: switch.trim().parse().ok()?,
            load: load.trim().parse().ok()?,
        })
    });
    numbers.ok_or_else(|| "two CPUs such as 1,0: the switch's and the load's".to_owned())
}

impl Run {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        let settings = self.settings();
        let has_switches = self.scenario.has_switches();
        if self.scenario != Scenario::Stages && !self.only.is_empty() {
            return Err(Failure::Usage(
                "--only is for the scenario stages".to_owned(),
            ));
        }
        if self.poll.is_some() && !self.scenario.takes_poll_mode() {
            return Err(Failure::Usage(
                "--poll is for the scenarios latency, tenants and noisy".to_owned(),
            ));
        }
        let is_provisioner = self.scenario == Scenario::Provisioner;
        if self.switch_binary.is_some() && !is_provisioner {
            return Err(Failure::Usage(
                "--switch-binary is for the scenario provisioner".to_owned(),
            ));
        }
        if !self.tenants.is_empty() && !is_provisioner && self.scenario != Scenario::Ike {
            return Err(Failure::Usage(
                "--tenants is for the scenarios provisioner and ike".to_owned(),
            ));
        }
        let peers = if has_switches {
            self.peers()?
        } else {
            Vec::new()
        };
        if has_switches {
            require_nothing(needs(self.cpus, self.scenario.programs()))?;
        } else if self.scenario.has_hosts() {
            require_nothing(host_needs(self.scenario))?;
        } else {
            self.stages_chosen()
                .chosen()
                .map_err(|error| Failure::Usage(format!("{error:#}")))?;
        }
        let used = match has_switches {
            true => vec![self.cpus.switch, self.cpus.load],
            false => vec![self.cpus.switch],
        };
        self.show.around(&used, || {
            let (mut outcome, done) = self.measure(&settings, &peers);
            if let Some(outcome) = outcome
                .as_mut()
                .filter(|outcome| has_switches && outcome.rules.is_empty())
            {
                outcome.rules = rules::all(self.scenario.topology(), self.cpus, &peers);
            }
            if let Some(outcome) = outcome.as_ref().filter(|_| self.rules && !self.show.json) {
                for (name, rules) in &outcome.rules {
                    super::print(&format!("Configuration of {name}:\n{rules}\n"));
                }
            }
            (outcome, done)
        })
    }

    /// Measures the scenario. A new scenario is a variant of [`Scenario`] and a line here.
    fn measure(&self, settings: &Settings, peers: &[Peer]) -> Measured {
        let by_peer = |run: ByPeer, steps: u32| self.by_peer(settings, peers, run, steps);
        let rounds = settings.rounds;
        match self.scenario {
            Scenario::P2p => self.throughput(Topology::P2p, settings, peers),
            Scenario::P2v => self.throughput(Topology::P2v, settings, peers),
            Scenario::V2v => self.throughput(Topology::V2v, settings, peers),
            Scenario::Latency => by_peer(latency::run, 2 * (1 + rounds)),
            Scenario::Tenants => by_peer(tenants::run, 5 * rounds),
            Scenario::Noisy => by_peer(noisy::run, rounds),
            Scenario::Apps => by_peer(apps::run, 16 * rounds),
            Scenario::Idle => {
                let mut progress = self.progress(rounds * (2 + peers.len() as u32), settings);
                let mut step = |what: &str| progress.step(what);
                whole(idle::run(Task(settings, peers, &mut step)))
            }
            Scenario::Scale => {
                let mut progress = self.progress(0, settings);
                let done = self.pin();
                whole(done.and_then(|()| scale::run(settings, &mut |what| progress.step(what))))
            }
            Scenario::Stages => self.stages(),
            Scenario::Encrypted => {
                let time = settings.measure;
                let guess = time + Duration::from_secs(3);
                let mut progress = Progress::new("encrypted", encrypted::steps(rounds), guess);
                whole(encrypted::run(rounds, time, &mut |what| {
                    progress.step(what)
                }))
            }
            Scenario::Ike => {
                let numbers = self.numbers_of_tenants(&[20, 100]);
                let guess = Duration::from_secs(20);
                let mut progress = Progress::new("ike", 3 * numbers.len(), guess);
                whole(ike::run(&numbers, &mut |what| progress.step(what)))
            }
            Scenario::Provisioner => {
                let provisioner = self.provisioner();
                let steps = provisioner.tenants.len() * (2 + provisioner.rounds as usize);
                let mut progress = Progress::new("provisioner", steps, Duration::from_secs(10));
                provisioner.run(&mut |what| progress.step(what))
            }
        }
    }

    fn provisioner(&self) -> Provisioner {
        Provisioner {
            tenants: self.numbers_of_tenants(&[20, 50, 100, 200]),
            rounds: self.settings().rounds,
            switch: self.switch_binary.clone(),
        }
    }

    /// Ascending. Without a choice those that are usual, or the first of them for an impression.
    fn numbers_of_tenants(&self, usual: &[u16]) -> Vec<usize> {
        let chosen = match &self.tenants[..] {
            [] if self.quick => &usual[..1],
            [] => usual,
            chosen => chosen,
        };
        let ascending: BTreeSet<u16> = chosen.iter().copied().collect();
        ascending.into_iter().map(usize::from).collect()
    }

    fn settings(&self) -> Settings {
        let (rounds, seconds, warm_up) = match self.quick {
            true => (1, 0.5, 250),
            false => (3, 2.0, 500),
        };
        Settings {
            cpus: self.cpus,
            rounds: self.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(warm_up),
            measure: Duration::from_secs_f64(self.seconds.unwrap_or(seconds)),
            seed: self.seed,
            poll: self.poll.unwrap_or(PollMode::Adaptive),
        }
    }

    /// The named peers, or all that can run here.
    fn peers(&self) -> Result<Vec<Peer>, Failure> {
        if let Some(peer) = self
            .against
            .iter()
            .find(|peer| !self.scenario.suits(**peer))
        {
            return Err(Failure::Usage(format!(
                "apps cannot run with {peer}, which does not route"
            )));
        }
        if !self.against.is_empty() {
            let programs: BTreeSet<&str> = self
                .against
                .iter()
                .flat_map(|peer| peer.switch().programs())
                .copied()
                .collect();
            let programs: Vec<&str> = programs.into_iter().collect();
            require_nothing(machine::missing(Needs::default(), &programs))?;
            let mut peers: Vec<Peer> = Vec::new();
            for peer in &self.against {
                if !peers.contains(peer) {
                    peers.push(*peer);
                }
            }
            return Ok(peers);
        }
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        let suitable = |peer: &&Peer| self.scenario.suits(**peer);
        for &peer in Peer::value_variants().iter().filter(suitable) {
            let lacks = machine::missing(Needs::default(), peer.switch().programs());
            if lacks.is_empty() {
                peers.push(peer);
            } else {
                missing.extend(lacks.iter().map(|what| format!("without {peer}: {what}")));
            }
        }
        if peers.is_empty() {
            return Err(Failure::Unable(missing));
        }
        super::warn(&missing);
        Ok(peers)
    }

    fn variants(&self) -> Vec<Variant> {
        let short = self.quick || self.attacks_only;
        let frames = match &self.frames[..] {
            [] if short => &[64][..],
            [] => &[64, 512, 1500],
            chosen => chosen,
        };
        let flows = match &self.flows[..] {
            [] if short => &[1][..],
            [] => &[1, 10_000],
            chosen => chosen,
        };
        let traffic = match (self.no_attacks || self.quick, self.attacks_only) {
            (_, true) => Traffic::Attacks,
            (true, false) => Traffic::Clean,
            (false, false) => Traffic::Both,
        };
        Variant::all(frames, flows, traffic)
    }

    fn throughput(&self, topology: Topology, settings: &Settings, peers: &[Peer]) -> Measured {
        let throughput = Throughput {
            topology,
            peers: peers.to_vec(),
            variants: self.variants(),
        };
        let guess = settings.warm_up + settings.measure + Duration::from_millis(1500);
        let mut progress = Progress::new(topology.to_string(), throughput.runs(settings), guess);
        let mut pairs = Vec::new();
        let done = throughput.run(settings, &mut |what| progress.step(what), &mut pairs);
        match throughput.outcome(&pairs) {
            Ok(outcome) => ((!pairs.is_empty()).then_some(outcome), done),
            Err(error) => (None, done.and(Err(error))),
        }
    }

    fn stages_chosen(&self) -> Stages {
        Stages {
            only: self.only.clone(),
            rounds: self.rounds.map_or(41, |rounds| rounds as usize),
        }
    }

    fn stages(&self) -> Measured {
        let stages = self.stages_chosen();
        let steps = stages.chosen().map_or(0, |chosen| chosen.len());
        let mut progress = Progress::new("stages", steps, Duration::from_millis(300));
        let mut costs = Vec::new();
        let done = self
            .pin()
            .and_then(|()| stages.run(|what| progress.step(what), &mut costs));
        ((!costs.is_empty()).then(|| stages::outcome(&costs)), done)
    }

    /// Keeps this thread on the CPU of the switch under test.
    fn pin(&self) -> anyhow::Result<()> {
        let mut cpus = CpuSet::new();
        cpus.set(self.cpus.switch)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
            .with_context(|| {
                format!(
                    "cannot run on CPU {}: choose another with --cpus",
                    self.cpus.switch
                )
            })
    }

    /// Measures one peer after the other, so that a failure keeps the results before it.
    fn by_peer(&self, settings: &Settings, peers: &[Peer], run: ByPeer, steps: u32) -> Measured {
        let mut progress = self.progress(steps * peers.len() as u32, settings);
        let mut all: Option<Outcome> = None;
        for &peer in peers {
            let mut step = |what: &str| progress.step(what);
            let one = interrupt::check().and_then(|()| run(Task(settings, &[peer], &mut step)));
            match (one, &mut all) {
                (Ok(one), Some(all)) => all.append(one),
                (Ok(one), none) => *none = Some(one),
                (Err(error), _) => return (all, Err(error)),
            }
        }
        (all, Ok(()))
    }

    /// The progress of `steps` steps, each of which runs two switches.
    fn progress(&self, steps: u32, settings: &Settings) -> Progress {
        let guess = 2 * (settings.warm_up + settings.measure + Duration::from_millis(1500));
        let name = self
            .scenario
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        Progress::new(name.unwrap_or_default(), steps as usize, guess)
    }
}

/// The result of a scenario without partial results.
fn whole(outcome: anyhow::Result<Outcome>) -> Measured {
    match outcome {
        Ok(outcome) => (Some(outcome), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

/// What is missing to run any switch.
pub(super) fn needs(cpus: Cpus, programs: &[&str]) -> Vec<String> {
    let mut missing = machine::missing(
        Needs {
            cpus: Some(cpus),
            root: true,
            hugepages: true,
        },
        &[&["ip"], programs].concat(),
    );
    missing.extend(not_beside_us("vswitch"));
    missing
}

/// What is missing to run hosts that the provisioner looks after.
fn host_needs(scenario: Scenario) -> Vec<String> {
    let root = Needs {
        root: true,
        ..Needs::default()
    };
    let mut missing = machine::missing(root, &[&hosts::PROGRAMS, scenario.programs()].concat());
    if scenario.has_ike() && !ike_daemon().is_file() {
        missing.push("there is no IKE daemon: run scripts/bench, or scripts/build-ike".to_owned());
    }
    missing.extend(
        ["vswitch", "vf-provisioner"]
            .into_iter()
            .filter_map(not_beside_us),
    );
    missing
}

/// Where the provisioner looks for it.
fn ike_daemon() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("../ike/vswitch-charon")
}

fn not_beside_us(program: &str) -> Option<String> {
    let own = std::env::current_exe().unwrap_or_default();
    let is_there = own.with_file_name(program).is_file();
    (!is_there).then(|| {
        format!(
            "{program} is not beside this program: run scripts/bench, or cargo build --release \
             -p {program}"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parse(line: &str) -> Run {
        let line = format!("run {line}");
        Line::try_parse_from(line.split(' '))
            .expect("it is a command line")
            .run
    }

    fn variants(line: &str) -> Vec<(u16, u32, bool)> {
        let variants = parse(line).variants();
        variants
            .iter()
            .map(|variant| (variant.frame, variant.flows, variant.attacks))
            .collect()
    }

    #[test]
    fn options_choose_the_traffic() {
        assert_eq!(
            variants("p2p"),
            [
                (64, 1, false),
                (64, 10_000, false),
                (512, 1, false),
                (512, 10_000, false),
                (1500, 1, false),
                (1500, 10_000, false),
                (64, 1, true),
            ]
        );
        assert_eq!(
            variants("p2v --frames 64 --flows 1,5"),
            [(64, 1, false), (64, 5, false), (64, 1, true)]
        );
        assert_eq!(variants("v2v --quick"), [(64, 1, false)]);
        assert_eq!(variants("v2v --attacks-only"), [(64, 1, true)]);
        assert_eq!(
            variants("v2v --no-attacks --frames 512 --flows 1"),
            [(512, 1, false)]
        );
    }

    #[test]
    fn quick_yields_to_explicit_options() {
        let settings = parse("p2p --quick --rounds 5 --cpus 3,2 --seed 9").settings();
        assert_eq!(
            (settings.rounds, settings.measure),
            (5, Duration::from_millis(500))
        );
        assert_eq!(
            (settings.cpus.switch, settings.cpus.load, settings.seed),
            (3, 2, 9)
        );
        let settings = parse("p2p --seconds 0.25").settings();
        assert_eq!(
            (settings.rounds, settings.measure),
            (3, Duration::from_millis(250))
        );
    }

    #[test]
    fn tenants_are_measured_once_each_in_ascending_order() {
        let tenants = |line: &str| parse(line).provisioner().tenants;
        assert_eq!(tenants("provisioner"), [20, 50, 100, 200]);
        assert_eq!(tenants("provisioner --quick"), [20]);
        assert_eq!(tenants("provisioner --quick --tenants 7,3,7"), [3, 7]);
    }

    #[test]
    fn wrong_value_is_refused() {
        for line in [
            "p2q",
            "p2p --against nobody",
            "p2p --frames 63",
            "p2p --flows 0",
            "p2p --cpus 1",
            "p2p --seconds 0",
            "p2p --rounds 0",
            "p2p --no-attacks --attacks-only",
            "provisioner --tenants 0",
            "provisioner --tenants 1001",
        ] {
            let line = format!("run {line}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
