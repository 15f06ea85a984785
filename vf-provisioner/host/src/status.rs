//! The state and usage of tenants' switches: as a table, as JSON, and as metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tenant_config::{Name, NicAttribute};
use vswitch_api::endpoint::ports::{Port, Ports};
use vswitch_api::metrics::{Metric, Unit, Value, Writer};
use vswitch_api::table::{Table, left, right};

use crate::error::HostError;
use crate::history;
use crate::launcher::ike::Ike;
use crate::launcher::registry;
use crate::launcher::switches::Switches;
use crate::launcher::usage::{Accounts, Running};
use crate::parallel;
use crate::resource::Resource;
use crate::state::{Record, State};
use crate::supervise::{Trouble, Troubles};

const MIB: f64 = 1048576.0;

/// The status of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    tenant: Name,
    state: &'static str,
    launcher: String,
    uid: u32,
    control_socket: std::path::PathBuf,
    log: std::path::PathBuf,
    running: Option<Running>,
    /// Why it forwards nothing although it runs.
    stuck: Option<String>,
    /// A sentence for each peer that requires IPsec and has none.
    unprotected: Vec<String>,
    accounts: Option<Accounts>,
    /// The version that its switch says it is.
    version: Option<String>,
    /// The executable of its switch, if another file has its name now.
    replaced: Option<std::path::PathBuf>,
    /// The record's ports with the counters that the switch reports, if it answers.
    ports: Option<Ports>,
    /// Its virtual functions.
    functions: Vec<serde_json::Value>,
    /// The settings that its file allows the NIC to lack.
    accepted: BTreeSet<NicAttribute>,
    /// What the supervisor cannot set right.
    trouble: Option<Trouble>,
}

/// Reads the status of all tenants, or of one.
pub fn look(
    switches: &Switches,
    state: &State,
    only: Option<&Name>,
) -> Result<Vec<Status>, HostError> {
    let tenants = state.tenants.iter();
    let mut all = tenants
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .map(|(name, record)| {
            let running = switches.running(name)?;
            let switch = record.switch();
            Ok(Status {
                tenant: name.clone(),
                state: word(record, running.is_some()),
                launcher: switch.map(registry::name).unwrap_or_default(),
                uid: record.uid,
                control_socket: switches.control_socket(name),
                log: switches.log(name),
                functions: record
                    .resources
                    .iter()
                    .filter_map(Resource::status)
                    .collect(),
                accepted: record.accepted(),
                accounts: switch.and_then(|switch| switches.accounts(switch)),
                version: None,
                replaced: switches.replaced(name),
                ports: None,
                stuck: None,
                unprotected: Vec::new(),
                trouble: None,
                running,
            })
        })
        .collect::<Result<Vec<Status>, HostError>>()?;
    // One that does not answer delays no other.
    let answers = parallel::map(&all, |it| {
        it.running.as_ref()?;
        let switch = state.tenants.get(&it.tenant)?.switch()?;
        let ports = switches.ports(switch);
        // One that did not answer is not asked twice.
        let version = ports.is_ok().then(|| switches.version(switch).ok());
        let deaf = ports.as_ref().ok().and_then(|_| switches.deaf(switch));
        Some((ports, version.flatten(), deaf))
    });
    for (it, answer) in all.iter_mut().zip(answers) {
        match answer {
            Some((Ok(ports), version, deaf)) => {
                (it.ports, it.version, it.stuck) = (Some(ports), version, deaf);
            }
            Some((Err(why), ..)) => it.stuck = Some(why),
            None => {}
        }
        if it.stuck.is_some() && it.state == UP_WORD {
            it.state = "stuck";
        }
    }
    let mut unprotected = not_in_force(switches, state, only);
    for it in &mut all {
        it.unprotected = unprotected.remove(&it.tenant).unwrap_or_default();
    }
    Ok(all)
}

/// By tenant, a sentence for each peer that requires IPsec and has none, of all tenants or one;
/// tenants without such a peer are not there. The daemons are asked at the same time.
pub fn not_in_force(
    switches: &Switches,
    state: &State,
    only: Option<&Name>,
) -> BTreeMap<Name, Vec<String>> {
    let asked = |name: &Name| only.is_none_or(|only| only == name);
    let tenants = state.tenants.iter().filter(|(name, _)| asked(name));
    let ikes: Vec<(&Name, &Ike)> = tenants
        .filter_map(|(name, record)| Some((name, record.running_ike()?)))
        .collect();
    let sentences = parallel::map(&ikes, |(name, ike)| {
        ike.not_in_force(&switches.associations(name))
    });
    let all = ikes.into_iter().map(|(name, _)| name.clone());
    let all = all.zip(sentences);
    all.filter(|(_, found)| !found.is_empty()).collect()
}

/// Adds what the supervisor cannot set right.
pub fn add_troubles(all: &mut [Status], mut troubles: Troubles) {
    for it in all {
        it.trouble = troubles.remove(&it.tenant);
    }
}

/// A line for each tenant that the supervisor cannot set right.
pub fn trouble_lines(all: &[Status]) -> String {
    let line = |it: &Status| {
        let trouble = it.trouble.as_ref()?;
        let since = history::shown(trouble.since);
        Some(format!(
            "tenant {} {} since {since}: {}\n",
            it.tenant, trouble.state, trouble.why
        ))
    };
    all.iter().filter_map(line).collect()
}

/// A line about a switch whose executable was replaced.
pub fn replaced(tenant: &Name, path: &std::path::Path, version: Option<&str>) -> String {
    let version = version.map(|version| format!(" ({version})"));
    format!(
        "tenant {tenant}: {} was replaced: the switch runs the former one{} until \
         `restart {tenant}`",
        path.display(),
        version.unwrap_or_default()
    )
}

const UP_WORD: &str = "up";

fn word(record: &Record, running: bool) -> &'static str {
    if let Some(paused) = record.paused.as_ref().filter(|_| record.complete) {
        return paused.mode.word();
    }
    match (record.complete, running) {
        (true, true) => UP_WORD,
        (true, false) => "down",
        (false, _) => "interrupted",
    }
}

impl Status {
    /// The values of the labels [`TENANT`].
    fn labels(&self) -> [&str; 2] {
        [self.tenant.as_str(), &self.launcher]
    }

    /// Whether its switch runs as it should.
    pub fn is_up(&self) -> bool {
        self.state == UP_WORD
    }

    /// A sentence for each peer that requires IPsec and has none.
    pub fn unprotected(&self) -> &[String] {
        &self.unprotected
    }

    /// A line about its executable, if that was replaced.
    pub fn replaced(&self) -> Option<String> {
        let path = self.replaced.as_ref()?;
        Some(replaced(&self.tenant, path, self.version.as_deref()))
    }

    fn ports(&self) -> &[Port] {
        self.ports.as_ref().map_or(&[], |ports| &ports.ports)
    }
}

/// The output of `status --json`.
pub fn document(all: &[Status]) -> serde_json::Value {
    let tenants: Vec<serde_json::Value> = all
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
                "stuck": it.stuck,
                "ipsec": it.unprotected,
                "version": it.version,
                "replaced": it.replaced,
                "accounts": it.accounts,
                "ports": it.ports,
                "functions": it.functions,
                "accepted": it.accepted,
                "trouble": it.trouble,
            })
        })
        .collect();
    json!({ "tenants": tenants })
}

/// The output of `status`.
pub fn table(all: &[Status]) -> String {
    let mut table = Table::new([
        left("TENANT"),
        left("STATE"),
        left("LAUNCHER"),
        left("VERSION"),
        right("PID"),
        right("UID"),
        right("UPTIME s"),
        right("RESTARTS"),
        right("CPU s"),
        right("MEM MiB"),
        right("PEAK MiB"),
        right("FRAMES"),
        right("BYTES"),
    ]);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for it in all {
        let running = it.running.as_ref();
        let accounts = it.accounts.as_ref();
        // A switch may report any number.
        let sum = |count: fn(&Port) -> u64| {
            let sum = it.ports().iter().map(count).fold(0, u64::saturating_add);
            or_dash(it.ports.as_ref().map(|_| sum.to_string()))
        };
        table.row([
            it.tenant.to_string(),
            it.state.to_owned(),
            it.launcher.to_owned(),
            or_dash(it.version.clone()),
            or_dash(running.map(|it| it.pid.to_string())),
            it.uid.to_string(),
            or_dash(running.map(|it| format!("{:.1}", it.uptime_s))),
            or_dash(running.map(|it| it.restarts.to_string())),
            or_dash(accounts.map(|it| format!("{:.2}", it.cpu_s))),
            or_dash(accounts.map(|it| format!("{:.1}", it.memory_bytes as f64 / MIB))),
            or_dash(accounts.map(|it| format!("{:.1}", it.memory_peak_bytes as f64 / MIB))),
            sum(|port| port.rx_frames),
            sum(|port| port.rx_bytes),
        ]);
    }
    table.to_string()
}

const TENANT: [&str; 2] = ["tenant", "launcher"];
const PORT: [&str; 3] = ["tenant", "launcher", "port"];
const DIRECTION: [&str; 4] = ["tenant", "launcher", "port", "direction"];

const UP: Metric<2> = Metric::gauge(
    "vf_provisioner_tenant_up",
    Unit::Bool,
    TENANT,
    "Whether the tenant's switch runs, answers, and receives the frames that its NIC sends it.",
);
const RESTARTS: Metric<2> = Metric::counter(
    "vf_provisioner_tenant_restarts_total",
    Unit::Number,
    TENANT,
    "Restarts by the supervisor.",
);
const CPU: Metric<2> = Metric::counter(
    "vf_provisioner_tenant_cpu_seconds_total",
    Unit::Seconds,
    TENANT,
    "Processor time of all processes of the tenant's switch.",
);
const MEMORY: Metric<2> = Metric::gauge(
    "vf_provisioner_tenant_memory_bytes",
    Unit::Bytes,
    TENANT,
    "Current memory.",
);
const MEMORY_PEAK: Metric<2> = Metric::gauge(
    "vf_provisioner_tenant_memory_peak_bytes",
    Unit::Bytes,
    TENANT,
    "Peak memory.",
);
const PORT_FRAMES: Metric<4> = Metric::counter(
    "vf_provisioner_tenant_port_frames_total",
    Unit::Frames,
    DIRECTION,
    "Frames from and to a VM, or the underlay if the port is `uplink`, since the switch started.",
);
const PORT_BYTES: Metric<4> = Metric::counter(
    "vf_provisioner_tenant_port_bytes_total",
    Unit::Bytes,
    DIRECTION,
    "Their bytes, from the destination MAC on, without FCS.",
);
const PORT_DROPPED: Metric<3> = Metric::counter(
    "vf_provisioner_tenant_port_dropped_frames_total",
    Unit::Frames,
    PORT,
    "Frames that the switch dropped; `vswitch show drops` has the reasons.",
);

/// Prometheus' text format, version 0.0.4.
pub fn metrics(all: &[Status]) -> String {
    let mut out = Writer::default();
    let mut up = out.family(&UP);
    for it in all {
        up.sample(it.labels(), it.running.is_some() && it.stuck.is_none());
    }
    let mut restarts = out.family(&RESTARTS);
    for (it, running) in all.iter().filter_map(|it| Some((it, it.running.as_ref()?))) {
        restarts.sample(it.labels(), running.restarts);
    }
    let mut accounts = |metric, value: fn(&Accounts) -> Value| {
        let mut family = out.family(metric);
        for (it, accounts) in all
            .iter()
            .filter_map(|it| Some((it, it.accounts.as_ref()?)))
        {
            family.sample(it.labels(), value(accounts));
        }
    };
    accounts(&CPU, |it| it.cpu_s.into());
    accounts(&MEMORY, |it| it.memory_bytes.into());
    accounts(&MEMORY_PEAK, |it| it.memory_peak_bytes.into());
    let traffic: Vec<(&Status, &Port)> = all
        .iter()
        .flat_map(|it| it.ports().iter().map(move |port| (it, port)))
        .collect();
    let mut directions = |metric, from: fn(&Port) -> u64, to: fn(&Port) -> u64| {
        let mut family = out.family(metric);
        for (it, port) in &traffic {
            let [tenant, launcher] = it.labels();
            family.sample([tenant, launcher, &port.name, "from"], from(port));
            family.sample([tenant, launcher, &port.name, "to"], to(port));
        }
    };
    directions(&PORT_FRAMES, |it| it.rx_frames, |it| it.tx_frames);
    directions(&PORT_BYTES, |it| it.rx_bytes, |it| it.tx_bytes);
    let mut dropped = out.family(&PORT_DROPPED);
    for (it, port) in &traffic {
        let [tenant, launcher] = it.labels();
        dropped.sample([tenant, launcher, &port.name], port.dropped);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use vswitch_api::endpoint::worker::Worker;

    use super::*;
    use crate::supervise;

    #[test]
    fn metrics_show_a_tenants_usage() {
        let status = Status {
            tenant: "red".parse().expect("a name"),
            state: "up",
            launcher: "vm".to_owned(),
            uid: 64000,
            control_socket: "control.sock".into(),
            log: "log".into(),
            running: None,
            stuck: None,
            unprotected: Vec::new(),
            version: None,
            replaced: None,
            accounts: Some(Accounts {
                cpu_s: 1.5,
                memory_bytes: 3,
                memory_peak_bytes: 4,
            }),
            functions: Vec::new(),
            accepted: BTreeSet::new(),
            trouble: None,
            ports: Some(Ports {
                tenant: "red".to_owned(),
                ports: vec![Port {
                    name: "vm\"1".to_owned(),
                    rx_frames: 5,
                    rx_bytes: 6,
                    tx_frames: 7,
                    tx_bytes: 8,
                    dropped: 9,
                    ..Port::default()
                }],
                worker: Worker::default(),
            }),
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

    /// `UPDATE_REFERENCE=1` writes the page instead of comparing it.
    #[test]
    fn metrics_reference_is_current() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/reference/host-metrics.md"
        );
        let head = "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n";
        let status = [
            UP.markdown_row(),
            RESTARTS.markdown_row(),
            CPU.markdown_row(),
            MEMORY.markdown_row(),
            MEMORY_PEAK.markdown_row(),
            PORT_FRAMES.markdown_row(),
            PORT_BYTES.markdown_row(),
            PORT_DROPPED.markdown_row(),
        ];
        let page = format!(
            "# Metrics of the host\n\nGenerated by `UPDATE_REFERENCE=1 cargo test -p vf-host \
             metrics_reference`. The metrics of a\nswitch itself are in \
             [metrics.md](metrics.md).\n\n\
             ## vf-provisioner status --metrics\n\n{head}{}\n\
             ## vf-provisioner supervise --metrics FILE\n\n{head}{}",
            status.concat(),
            supervise::metrics_rows().concat(),
        );
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, &page).expect("a writable page");
        }
        assert_eq!(
            std::fs::read_to_string(path).expect("a page"),
            page,
            "run UPDATE_REFERENCE=1 cargo test -p vf-host metrics_reference"
        );
    }
}
