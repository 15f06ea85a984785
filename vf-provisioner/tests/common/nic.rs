//! A site in the emulated machine: a state directory, and the NICs as they were found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::emulated::is_emulated;
use crate::output::written;
use crate::shell::sh;

pub(crate) const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");
pub(crate) const ON_PF0: [&str; 6] = ["apply", "--no-prove", "--nic", "sriov", "--pf", "pf0"];
pub(crate) const PF: &str = "/sys/class/net/pf0/device";

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) switch: PathBuf,
    pub(crate) libvirt: Option<String>,
    pub(crate) before: Value,
}

impl Site {
    pub(crate) fn new() -> Option<Self> {
        if !is_emulated() {
            return None;
        }
        let mut site = Self {
            dir: tempfile::tempdir_in("/dev/shm").expect("a temporary directory"),
            switch: Path::new(PROVISIONER).with_file_name("examples/fake_switch"),
            libvirt: None,
            before: Value::Null,
        };
        site.before = site.nics();
        Some(site)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROVISIONER);
        command
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--switch-binary")
            .arg(&self.switch)
            .envs(self.libvirt.iter().map(|uri| ("LIBVIRT_DEFAULT_URI", uri)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command().args(arguments).output();
        output.expect("the provisioner starts")
    }

    #[track_caller]
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        written(&self.run(arguments), arguments)
    }

    /// The message of a refusal with this exit code.
    #[track_caller]
    pub(crate) fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    #[track_caller]
    pub(crate) fn drift(&self) -> Vec<String> {
        let output = self.run(&["--json", "verify"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        let drift = json["drift"].as_array().unwrap_or_else(|| {
            panic!("{json} {}", String::from_utf8_lossy(&output.stderr));
        });
        let lines = drift.iter().filter_map(Value::as_str);
        lines.map(str::to_owned).collect()
    }

    /// Applies a tenant's file on the first NIC, without the mediation probe.
    #[track_caller]
    pub(crate) fn onboard(&self, file: &str) -> String {
        self.good(&[&ON_PF0[..], &[file]].concat())
    }

    pub(crate) fn nics(&self) -> Value {
        let text = self.good(&["--json", "nic"]);
        serde_json::from_str(&text).expect("it is JSON")
    }

    #[track_caller]
    pub(crate) fn assert_as_found(&self) {
        assert_eq!(self.nics(), self.before);
        assert!(!self.dir.path().join("state/state.json").exists());
    }

    pub(crate) fn tenant(&self, number: u8, ports: u8, uplink: bool) -> String {
        self.tenant_with(number, ports, uplink, "", "")
    }

    pub(crate) fn tenant_with(
        &self,
        number: u8,
        ports: u8,
        uplink: bool,
        top: &str,
        port_keys: &str,
    ) -> String {
        let mut text = format!(
            "name = \"t{number}\"\nvni = 500{number}\n[gateway]\nipv4 = \"10.{number}.0.1/24\"\n"
        );
        if uplink {
            text += &format!(
                "[uplink]\naddress = \"192.0.2.1{number}/24\"\nnext_hop = \"192.0.2.1\"\n"
            );
        }
        text += top;
        for port in 1..=ports {
            text += &format!(
                "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \"52:54:00:00:0{number}:0{port}\"\n\
                 addresses = [\"10.{number}.0.1{port}\"]\n{port_keys}"
            );
        }
        let path: PathBuf = self.dir.path().join(format!("t{number}.toml"));
        fs::write(&path, text).expect("the file is written");
        path.display().to_string()
    }
}

/// MAC, VLAN, spoof check, trust.
pub(crate) type Settings = (String, u64, bool, bool);

pub(crate) fn set(mac: &str, vlan: u64) -> Settings {
    (mac.to_owned(), vlan, true, false)
}

/// The functions of a NIC, as iproute2 shows them.
pub(crate) fn functions(pf: &str) -> Vec<Settings> {
    let text = sh(&format!("ip -j -d link show {pf}"));
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    let list = json[0]["vfinfo_list"].as_array().cloned();
    let vfs = list.unwrap_or_default().into_iter().map(|vf| {
        let vlan = &vf["vlan_list"][0]["vlan"];
        (
            vf["mac"]
                .as_str()
                .or(vf["address"].as_str())
                .unwrap_or_default()
                .to_owned(),
            vlan.as_u64().unwrap_or(0),
            vf["spoofchk"].as_bool().unwrap_or(false),
            vf["trust"].as_bool().unwrap_or(true),
        )
    });
    vfs.collect()
}

pub(crate) fn driver(index: u32) -> String {
    sh(&format!(
        "basename $(readlink {PF}/virtfn{index}/driver || echo none)"
    ))
    .trim()
    .to_owned()
}

pub(crate) const ZERO: &str = "00:00:00:00:00:00";
