//! `bench list`.

use bench::machine::{self, Machine, Needs};
use bench::network::Topology;
use bench::report::Table;
use bench::site::{Cpus, Wires};
use bench::stages::scenarios;
use bench::switches::{Peer, PollMode, Switch, Vswitch};
use clap::ValueEnum;
use serde_json::json;

use super::scenario::Scenario;
use super::{Failure, print, require_nothing, rules, run};

/// The aims, each a scenario and a ratio within one run.
const AIMS: [(&str, &str); 13] = [
    (
        "p2p",
        "64 B with the whole filter: at least 0.80 × testpmd in io mode",
    ),
    ("p2p", "64 B: at least 3 × OVS-DPDK with equal checks"),
    ("p2v, v2v", "at least 2.5 × OVS-DPDK with equal checks"),
    ("p2p, p2v, v2v", "10,000 flows within 5 % of 1 flow"),
    (
        "p2p, p2v, v2v",
        "no slower with a tenth of attacks than without",
    ),
    (
        "latency",
        "median and 99th percentile no worse than OVS-DPDK's, at a tenth of its capacity",
    ),
    (
        "tenants",
        "16 tenants on one CPU: at least 0.7 × one tenant's throughput",
    ),
    (
        "idle",
        "16 idle switches together take less than 5 % of a CPU",
    ),
    (
        "stages",
        "filter and route of an accepted frame: at most 80 cycles, in bursts of 32",
    ),
    ("compare", "no stage takes more instructions than before"),
    (
        "provisioner",
        "plan and verify of 500 tenants: less than 2 s each",
    ),
    (
        "provisioner",
        "first apply of 200 tenants: less than 150 ms a tenant",
    ),
    (
        "provisioner",
        "reload of one tenant beside any number of others: less than 100 ms",
    ),
];

/// Scenarios, peers and whether they can run here, port types, aims.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print the configuration of a switch instead: a peer, or vswitch
    #[arg(long, value_name = "SWITCH", value_parser = subject)]
    rules: Option<Subject>,
    /// The scenario of that configuration
    #[arg(long, default_value = "p2p", requires = "rules")]
    scenario: Scenario,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Ours,
    Theirs(Peer),
}

fn subject(name: &str) -> Result<Subject, String> {
    match name {
        "vswitch" => Ok(Subject::Ours),
        peer => Peer::from_str(peer, false)
            .map(Subject::Theirs)
            .map_err(|_| {
                let peers: Vec<String> =
                    Peer::value_variants().iter().map(Peer::to_string).collect();
                format!("known switches: vswitch, {}", peers.join(", "))
            }),
    }
}

impl List {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        if let Some(subject) = self.rules {
            return configuration(subject, self.scenario.topology());
        }
        let machine = Machine::inspect();
        let here = run::needs(CPUS, &[]);
        let peers: Vec<_> = Peer::value_variants()
            .iter()
            .map(|peer| {
                (
                    peer,
                    machine::missing(Needs::default(), peer.switch().programs()),
                )
            })
            .collect();
        if self.json {
            let named = |values: Vec<(String, String)>| -> Vec<_> {
                values
                    .into_iter()
                    .map(|(name, about)| json!({"name": name, "about": about}))
                    .collect()
            };
            let peers: Vec<_> = peers
                .iter()
                .map(|(peer, missing)| {
                    json!({"name": peer.to_string(), "about": about(*peer).1,
                        "wires": peer.switch().wires(), "checks": peer.switch().checks(),
                        "missing": missing})
                })
                .collect();
            let aims = AIMS.map(|(scenario, aim)| json!({"scenario": scenario, "aim": aim}));
            let stages: Vec<String> = scenarios().into_iter().map(|stage| stage.name).collect();
            let all = json!({"scenarios": named(abouts::<Scenario>()), "peers": peers,
                "wires": named(abouts::<Wires>()), "stages": stages, "aims": aims,
                "missing": here, "machine": machine});
            print(&all.to_string());
            return Ok(());
        }
        let mut tables = vec![described("Scenarios", abouts::<Scenario>())];
        let mut table = Table::new("Peers", ["name", "here", "what"]);
        for (peer, missing) in peers {
            let state = match missing.is_empty() {
                true => "ready".to_owned(),
                false => missing.join("; "),
            };
            let checks = if peer.switch().checks() {
                ""
            } else {
                " (checks nothing)"
            };
            let (name, about) = about(peer);
            table.rows.push(vec![name, state, about + checks]);
        }
        tables.push(table);
        tables.push(described("Port types", abouts::<Wires>()));
        let aims = AIMS.map(|(scenario, aim)| (scenario.to_owned(), aim.to_owned()));
        tables.push(described("Aims", aims.to_vec()));
        let mut stages = Table::new("Stages of run stages, instructions and compare", ["name"]);
        stages.rows = scenarios()
            .into_iter()
            .map(|stage| vec![stage.name])
            .collect();
        tables.push(stages);
        let tables: Vec<String> = tables.iter().map(Table::to_string).collect();
        let mut text = tables.join("\n");
        text.push_str(&format!("\nThis machine\n{machine}"));
        for missing in here {
            text.push_str(&format!("missing: {missing}\n"));
        }
        print(&text);
        Ok(())
    }
}

const CPUS: Cpus = Cpus { switch: 1, load: 0 };

fn configuration(subject: Subject, topology: Topology) -> Result<(), Failure> {
    let switch: Box<dyn Switch> = match subject {
        Subject::Theirs(peer) => peer.switch(),
        Subject::Ours => Box::new(Vswitch {
            wires: Wires::Memif,
            poll: PollMode::Busy,
        }),
    };
    if switch.wires() == Wires::Veth {
        let root = Needs {
            root: true,
            ..Needs::default()
        };
        require_nothing(machine::missing(root, &["ip"]))?;
    }
    print(&rules::of(topology, CPUS, switch.as_ref())?);
    Ok(())
}

fn described(title: &str, rows: Vec<(String, String)>) -> Table {
    let mut table = Table::new(title, ["name", "what"]);
    table.rows = rows
        .into_iter()
        .map(|(name, what)| vec![name, what])
        .collect();
    table
}

fn abouts<T: ValueEnum>() -> Vec<(String, String)> {
    T::value_variants().iter().map(about).collect()
}

/// The name on the command line, and the first paragraph of the documentation.
fn about<T: ValueEnum>(value: &T) -> (String, String) {
    let value = value.to_possible_value();
    let name = value.as_ref().map(|value| value.get_name().to_owned());
    let about = value
        .as_ref()
        .and_then(|value| value.get_help().map(ToString::to_string));
    (name.unwrap_or_default(), about.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_description() {
        let all = [abouts::<Scenario>(), abouts::<Wires>(), abouts::<Peer>()];
        for (name, about) in all.into_iter().flatten() {
            assert!(!name.is_empty() && !about.is_empty(), "{name}: {about}");
        }
    }

    #[test]
    fn subject_is_a_peer_or_ours() {
        assert_eq!(subject("vswitch"), Ok(Subject::Ours));
        assert_eq!(subject("testpmd"), Ok(Subject::Theirs(Peer::Testpmd)));
        let wrong = subject("nobody").expect_err("there is no such switch");
        assert!(
            wrong.starts_with("known switches: vswitch, testpmd"),
            "{wrong}"
        );
    }
}
