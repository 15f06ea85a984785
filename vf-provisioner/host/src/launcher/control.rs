//! The control API of a running switch.

use std::time::Duration;

use tenant_config::SwitchConfig;
use vswitch_api::endpoint::ports::{Port, Ports};

use super::ask::{Answer, AskError, Asker, Question};
use super::files::TenantFiles;
use super::launched::Launched;
use super::ready::{self, Said};
use super::switch::Switch;
use crate::error::HostError;

/// How long a switch may take to answer, if its launcher does not say.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

fn ask(files: &TenantFiles, switch: &Switch, question: &Question) -> Result<Answer, AskError> {
    let asker = Asker {
        program: None,
        socket: &files.control_socket(),
        uid: switch.uid,
        within: switch.answers_within().unwrap_or(ANSWERS_WITHIN),
    };
    asker.ask(question)
}

/// Whether the switch's worker runs; if not, why.
pub(super) fn ready(files: &TenantFiles, switch: &Switch) -> Result<(), AskError> {
    match ask(files, switch, &Question::Ready)? {
        Answer::Ready => Ok(()),
        _ => Err(AskError::mixed_up()),
    }
}

/// What a switch says without a child. One in a VM shares its channel with others, so its answer
/// has to be read.
pub(super) fn said(files: &TenantFiles, switch: &Switch, within: Duration) -> Said {
    if switch.machine.is_some() {
        return Said::Other;
    }
    let said = ready::ask(&[files.control_socket()], within);
    said.first().copied().unwrap_or(Said::Other)
}

/// Why a switch does not say that it forwards frames, if it does not. The wait is bounded. If it
/// could not be asked, nothing is known.
pub(super) fn unready(files: &TenantFiles, switch: &Switch) -> Option<String> {
    match said(files, switch, ANSWERS_WITHIN) {
        Said::Ready => return None,
        Said::Silent => return Some(format!("it does not answer within {ANSWERS_WITHIN:.0?}")),
        Said::Other => {}
    }
    match ready(files, switch) {
        Ok(()) => None,
        Err(AskError::Switch(why)) => Some(why),
        Err(AskError::Client(why)) => {
            tracing::warn!(tenant = %switch.tenant, %why, "the switch could not be asked");
            None
        }
    }
}

/// The counters of the switch's ports. Which ports those are is not for the switch to say.
pub(super) fn ports(files: &TenantFiles, switch: &Switch) -> Result<Ports, String> {
    match ask(files, switch, &Question::Ports) {
        Ok(Answer::Ports(ports)) => recorded(ports, &switch.config),
        Ok(_) => Err(AskError::mixed_up().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The most characters of a version.
const VERSION_MAX: usize = 40;

/// The version that the switch says it is: a word, whatever the switch says.
pub(super) fn version(files: &TenantFiles, switch: &Switch) -> Result<String, String> {
    match ask(files, switch, &Question::Switch) {
        Ok(Answer::Switch(about)) => {
            let plain = |it: &char| it.is_ascii_alphanumeric() || "+-.~_".contains(*it);
            Ok(about
                .version
                .chars()
                .filter(plain)
                .take(VERSION_MAX)
                .collect())
        }
        Ok(_) => Err(AskError::mixed_up().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives a running switch another configuration without losing a frame. A switch that refuses it (a
/// new MTU, for example) returns the reason, and must be restarted.
pub(super) fn reload(
    files: &TenantFiles,
    switch: &Switch,
) -> Result<Result<(), String>, HostError> {
    let launched = files.launched()?;
    files.write_config(&switch.config, switch.uid)?;
    let reloaded = serde_json::to_string(&switch.config)
        .map_err(|error| error.to_string())
        .and_then(|config| {
            let asked = ask(files, switch, &Question::Reload(config));
            asked.map_err(|error| error.to_string())
        });
    match (reloaded, launched) {
        (Ok(Answer::Reload), Some(launched)) => {
            files.remember(&Launched {
                switch: switch.clone(),
                ..launched
            })?;
            Ok(Ok(()))
        }
        (Ok(Answer::Reload), None) => Ok(Err(String::new())),
        (Ok(_), _) => Ok(Err(AskError::mixed_up().to_string())),
        (Err(why), _) => Ok(Err(why)),
    }
}

/// The ports of the configuration, with the counters that the switch reports for their names. A
/// report may have crossed a change of the configuration, so another port is no error, and a port
/// that it lacks has counted nothing.
fn recorded(answer: Ports, config: &SwitchConfig) -> Result<Ports, String> {
    let most = config.devices().count();
    if answer.ports.len() > most {
        return Err(format!(
            "it reports on {} ports, and has {most}",
            answer.ports.len()
        ));
    }
    let port = |name: &str, device: String| {
        let reported = answer.ports.iter().find(|port| port.name == name);
        Port {
            name: name.to_owned(),
            device,
            ..reported.cloned().unwrap_or_default()
        }
    };
    Ok(Ports {
        tenant: config.tenant.to_string(),
        ports: config
            .devices()
            .map(|side| port(side.name, side.device.to_string()))
            .collect(),
        worker: answer.worker,
    })
}

#[cfg(test)]
mod tests {
    use tenant_config::Tenant;
    use vswitch_api::endpoint::worker::Worker;

    use super::*;

    const TENANT: &str = r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
[[port]]
name = "vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
[[port]]
name = "vm2"
mac = "52:54:00:aa:00:02"
addresses = ["10.0.0.12"]
"#;

    fn config() -> SwitchConfig {
        Tenant::parse("red.toml", TENANT)
            .expect("a tenant")
            .offline_config()
    }

    fn answer(ports: &[(&str, u64)]) -> Ports {
        let port = |(name, rx_frames): &(&str, u64)| Port {
            name: (*name).to_owned(),
            device: "\u{1b}[2J".to_owned(),
            rx_frames: *rx_frames,
            ..Port::default()
        };
        Ports {
            tenant: "blue".to_owned(),
            ports: ports.iter().map(port).collect(),
            worker: Worker::default(),
        }
    }

    #[test]
    fn names_and_devices_are_the_records() {
        let hostile = "vm2\"} 1\nvf_provisioner_tenant_up{tenant=\"blue";
        let answer = answer(&[(hostile, 5), ("vm2", 7)]);
        let ports = recorded(answer, &config()).expect("two ports");
        assert_eq!(ports.tenant, "red");
        let shown: Vec<_> = ports
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.device.as_str(), port.rx_frames))
            .collect();
        assert_eq!(shown, [("vm1", "offline", 0), ("vm2", "offline", 7)]);
    }

    #[test]
    fn more_ports_than_the_record_has_are_refused() {
        let answer = answer(&[("vm1", 0), ("vm1", 0), ("vm1", 0)]);
        let refused = recorded(answer, &config()).expect_err("three ports");
        assert_eq!(refused, "it reports on 3 ports, and has 2");
    }
}
