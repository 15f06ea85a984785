//! What tenants' switches are and what they have used: for people, for programs, and for whoever bills them.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::{Value, json};
use tenant_config::{Name, NicAttribute};

use crate::host::HostError;
use crate::launcher::{Accounts, Launcher, Running};
use crate::resource::{Manager, Resource};
use crate::state::{Record, State};

const MIB: f64 = 1048576.0;

/// One tenant's.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    tenant: Name,
    state: &'static str,
    launcher: &'static str,
    uid: u32,
    control_socket: std::path::PathBuf,
    log: std::path::PathBuf,
    running: Option<Running>,
    accounts: Option<Accounts>,
    /// What the switch says of its ports, if it answers.
    ports: Option<Value>,
    /// Its virtual functions.
    functions: Vec<Value>,
    /// What its file lets the NIC lack.
    accepted: BTreeSet<NicAttribute>,
}

/// Looks at all tenants, or at one.
pub fn look(
    launcher: &dyn Launcher,
    state: &State,
    only: Option<&Name>,
) -> Result<Vec<Status>, HostError> {
    let tenants = state.tenants.iter();
    tenants
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .map(|(name, record)| {
            let running = launcher.running(name)?;
            let switch = record.switch();
            Ok(Status {
                tenant: name.clone(),
                state: word(record, running.is_some()),
                launcher: launched_by(record),
                uid: record.uid,
                control_socket: launcher.control_socket(name),
                log: launcher.log(name),
                functions: functions(record),
                accepted: record.accepted(),
                accounts: switch.and_then(|switch| launcher.accounts(switch)),
                ports: switch
                    .filter(|_| running.is_some())
                    .and_then(|switch| launcher.ports(switch)),
                running,
            })
        })
        .collect()
}

fn functions(record: &Record) -> Vec<Value> {
    let vfs = record.resources.iter().filter_map(|it| match it {
        Resource::Vf(vf) => Some(json!({
            "for": vf.owner.to_string(), "pf": vf.pf, "vf": vf.index, "address": vf.address,
            "mac": vf.set.mac, "vlan": vf.set.vlan,
        })),
        _ => None,
    });
    vfs.collect()
}

fn word(record: &Record, running: bool) -> &'static str {
    match (record.complete, running) {
        (true, true) => "up",
        (true, false) => "down",
        (false, _) => "interrupted",
    }
}

fn launched_by(record: &Record) -> &'static str {
    let machine = record.switch().and_then(|switch| switch.machine.as_ref());
    match machine.map(|machine| machine.manager) {
        None => "process",
        Some(Manager::Qemu) => "vm",
        Some(Manager::Libvirt) => "libvirt",
    }
}

/// A port's counters, of those that the switch tells.
#[derive(Debug, Serialize)]
struct Traffic {
    port: String,
    from_frames: u64,
    from_bytes: u64,
    to_frames: u64,
    to_bytes: u64,
    dropped: u64,
}

impl Status {
    fn traffic(&self) -> Vec<Traffic> {
        let ports = self
            .ports
            .as_ref()
            .and_then(|ports| ports["ports"].as_array());
        let traffic = |port: &Value| {
            let count = |name: &str| port[name].as_u64().unwrap_or(0);
            Traffic {
                port: port["name"].as_str().unwrap_or_default().to_owned(),
                from_frames: count("rx_frames"),
                from_bytes: count("rx_bytes"),
                to_frames: count("tx_frames"),
                to_bytes: count("tx_bytes"),
                dropped: count("dropped"),
            }
        };
        ports.into_iter().flatten().map(traffic).collect()
    }
}

/// As `status --json` prints it.
pub fn document(all: &[Status]) -> Value {
    let tenants: Vec<Value> = all
        .iter()
        .map(|it| {
            json!({
                "tenant": it.tenant,
                "state": it.state,
                "launcher": it.launcher,
                "uid": it.uid,
                "control_socket": it.control_socket,
                "log": it.log,
                "switch": it.running,
                "accounts": it.accounts,
                "ports": it.ports,
                "functions": it.functions,
                "accepted": it.accepted,
            })
        })
        .collect();
    json!({ "tenants": tenants })
}

/// A table for people.
pub fn table(all: &[Status]) -> String {
    let mut text = format!(
        "{:<16} {:<11} {:<8} {:>8} {:>6} {:>10} {:>8} {:>9} {:>9} {:>9} {:>12} {:>12}\n",
        "TENANT",
        "STATE",
        "LAUNCHER",
        "PID",
        "UID",
        "UPTIME s",
        "RESTARTS",
        "CPU s",
        "MEM MiB",
        "PEAK MiB",
        "FRAMES",
        "BYTES"
    );
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for it in all {
        let running = it.running.as_ref();
        let accounts = it.accounts.as_ref();
        let traffic = it.traffic();
        let sum = |count: fn(&Traffic) -> u64| {
            let sum = traffic.iter().map(count).sum::<u64>().to_string();
            or_dash(it.ports.as_ref().map(|_| sum))
        };
        // Every write to a string succeeds.
        let _ = writeln!(
            text,
            "{:<16} {:<11} {:<8} {:>8} {:>6} {:>10} {:>8} {:>9} {:>9} {:>9} {:>12} {:>12}",
            it.tenant,
            it.state,
            it.launcher,
            or_dash(running.map(|it| it.pid.to_string())),
            it.uid,
            or_dash(running.map(|it| format!("{:.1}", it.uptime_s))),
            or_dash(running.map(|it| it.restarts.to_string())),
            or_dash(accounts.map(|it| format!("{:.2}", it.cpu_s))),
            or_dash(accounts.map(|it| format!("{:.1}", it.memory_bytes as f64 / MIB))),
            or_dash(accounts.map(|it| format!("{:.1}", it.memory_peak_bytes as f64 / MIB))),
            sum(|port| port.from_frames),
            sum(|port| port.from_bytes),
        );
    }
    text
}

/// Prometheus' text format, version 0.0.4.
pub fn metrics(all: &[Status]) -> String {
    let mut out = Metrics::default();
    out.family("up", "gauge", "Whether the tenant's switch runs.");
    for it in all {
        out.sample(it, "", i32::from(it.running.is_some()));
    }
    out.family(
        "restarts_total",
        "counter",
        "How often the supervisor started it again.",
    );
    for (it, running) in all.iter().filter_map(|it| Some((it, it.running.as_ref()?))) {
        out.sample(it, "", running.restarts);
    }
    let accounts = || {
        all.iter()
            .filter_map(|it| Some((it, it.accounts.as_ref()?)))
    };
    out.family(
        "cpu_seconds_total",
        "counter",
        "Processor time of all that runs for the tenant's switch.",
    );
    for (it, accounts) in accounts() {
        out.sample(it, "", accounts.cpu_s);
    }
    out.family("memory_bytes", "gauge", "Memory that it has now.");
    for (it, accounts) in accounts() {
        out.sample(it, "", accounts.memory_bytes);
    }
    out.family("memory_peak_bytes", "gauge", "The most memory that it had.");
    for (it, accounts) in accounts() {
        out.sample(it, "", accounts.memory_peak_bytes);
    }
    type Count = fn(&Traffic) -> u64;
    type Family = (&'static str, &'static str, [(&'static str, Count); 2]);
    let families: [Family; 2] = [
        (
            "port_frames_total",
            "Frames from and to a VM, or the underlay where the port is `uplink`, since the switch started.",
            [("from", |it| it.from_frames), ("to", |it| it.to_frames)],
        ),
        (
            "port_bytes_total",
            "Their bytes, from the destination MAC on, without FCS.",
            [("from", |it| it.from_bytes), ("to", |it| it.to_bytes)],
        ),
    ];
    let traffic: Vec<(&Status, Vec<Traffic>)> = all.iter().map(|it| (it, it.traffic())).collect();
    for (name, help, directions) in families {
        out.family(name, "counter", help);
        for (it, ports) in &traffic {
            for port in ports {
                for (direction, count) in directions {
                    let labels =
                        format!(",port=\"{}\",direction=\"{direction}\"", label(&port.port));
                    out.sample(it, &labels, count(port));
                }
            }
        }
    }
    out.family(
        "port_dropped_frames_total",
        "counter",
        "Frames that the switch dropped; `vswitch show drops` has the reasons.",
    );
    for (it, ports) in &traffic {
        for port in ports {
            out.sample(
                it,
                &format!(",port=\"{}\"", label(&port.port)),
                port.dropped,
            );
        }
    }
    out.text
}

/// The switch says the port's name, so it may be anything.
fn label(text: &str) -> String {
    let escaped = text.chars().flat_map(|at| match at {
        '\\' => vec!['\\', '\\'],
        '"' => vec!['\\', '"'],
        '\n' => vec!['\\', 'n'],
        at => vec![at],
    });
    escaped.take(256).collect()
}

#[derive(Default)]
struct Metrics {
    text: String,
    name: String,
}

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.name = format!("vf_provisioner_tenant_{name}");
        let name = &self.name;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, of: &Status, labels: &str, value: impl fmt::Display) {
        let (name, tenant, launcher) = (&self.name, &of.tenant, of.launcher);
        let _ = writeln!(
            self.text,
            "{name}{{tenant=\"{tenant}\",launcher=\"{launcher}\"{labels}}} {value}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_say_what_a_tenant_has_used() {
        let status = Status {
            tenant: "red".parse().expect("a name"),
            state: "up",
            launcher: "vm",
            uid: 64000,
            control_socket: "control.sock".into(),
            log: "log".into(),
            running: None,
            accounts: Some(Accounts {
                cpu_s: 1.5,
                memory_bytes: 3,
                memory_peak_bytes: 4,
            }),
            functions: Vec::new(),
            accepted: BTreeSet::new(),
            ports: Some(json!({"ports": [{
                "name": "vm\"1", "rx_frames": 5, "rx_bytes": 6, "tx_frames": 7, "tx_bytes": 8, "dropped": 9,
            }]})),
        };
        let text = metrics(&[status]);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let of = "{tenant=\"red\",launcher=\"vm\"";
        let port = "port=\"vm\\\"1\"";
        assert_eq!(
            samples,
            [
                format!("vf_provisioner_tenant_up{of}}} 0"),
                format!("vf_provisioner_tenant_cpu_seconds_total{of}}} 1.5"),
                format!("vf_provisioner_tenant_memory_bytes{of}}} 3"),
                format!("vf_provisioner_tenant_memory_peak_bytes{of}}} 4"),
                format!(
                    "vf_provisioner_tenant_port_frames_total{of},{port},direction=\"from\"}} 5"
                ),
                format!("vf_provisioner_tenant_port_frames_total{of},{port},direction=\"to\"}} 7"),
                format!("vf_provisioner_tenant_port_bytes_total{of},{port},direction=\"from\"}} 6"),
                format!("vf_provisioner_tenant_port_bytes_total{of},{port},direction=\"to\"}} 8"),
                format!("vf_provisioner_tenant_port_dropped_frames_total{of},{port}}} 9"),
            ]
        );
    }
}
