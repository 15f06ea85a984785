//! Our switch: one process for each tenant.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use vswitch_api::endpoint::ports::Ports;

use super::{ChildGuard, Counters, Running, Switch, wait_for};
use crate::command::output;
use crate::site::{Site, Wires};

/// How our switch waits for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// As delivered: it sleeps when idle
    Adaptive,
    /// It never sleeps, like the peers on DPDK
    Busy,
}

/// Our switch.
#[derive(Debug)]
pub struct Vswitch {
    /// The wires that it is connected to.
    pub wires: Wires,
    /// How it waits for frames.
    pub poll: PollMode,
}

impl Vswitch {
    /// Our switch beside a peer: on the peer's wires, or the closest that we have a driver for.
    pub fn beside(peer: &dyn Switch, poll: PollMode) -> Self {
        Self {
            wires: peer.wires().ours(),
            poll,
        }
    }
}

impl Switch for Vswitch {
    fn wires(&self) -> Wires {
        self.wires
    }

    fn checks(&self) -> bool {
        true
    }

    fn rules(&self, site: &Site) -> String {
        site.tenants
            .iter()
            .map(|tenant| serde_json::to_string_pretty(tenant).expect("a configuration is JSON"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>> {
        let program = program()?;
        let mut switches = Vec::new();
        for tenant in &site.tenants {
            let file = |end: &str| site.directory().join(format!("{}.{end}", tenant.tenant));
            let (config, log, control) = (file("json"), file("log"), file("control"));
            serde_json::to_writer(File::create(&config)?, tenant)?;
            let child = site
                .command(&program)
                .arg("run")
                .arg("--config")
                .arg(&config)
                .arg("--control")
                .arg(&control)
                .args(["--cpu", &site.cpus.switch.to_string(), "--poll"])
                .arg(match self.poll {
                    PollMode::Adaptive => "adaptive",
                    PollMode::Busy => "busy",
                })
                .stdin(Stdio::null())
                .stderr(File::create(&log)?)
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?;
            switches.push(Process {
                process: ChildGuard(child),
                control,
                log,
            });
        }
        let mut running = Processes { program, switches };
        for index in 0..running.switches.len() {
            wait_for("vswitch is ready", || {
                running.counters_of(index).map(|_| ()).map_or_else(
                    |error| match running.switches[index].process.0.try_wait()? {
                        None => Ok(None),
                        Some(status) => {
                            let log = std::fs::read_to_string(&running.switches[index].log)?;
                            bail!("vswitch ended ({status}; {error}): {log}")
                        }
                    },
                    |()| Ok(Some(())),
                )
            })?;
        }
        Ok(Box::new(running))
    }
}

/// The switch's program, beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("vswitch");
    if !program.is_file() {
        bail!(
            "{} is missing: cargo build --release -p vswitch, or run scripts/bench",
            program.display()
        );
    }
    Ok(program)
}

struct Process {
    process: ChildGuard,
    control: PathBuf,
    log: PathBuf,
}

struct Processes {
    program: PathBuf,
    switches: Vec<Process>,
}

impl Processes {
    fn counters_of(&self, index: usize) -> anyhow::Result<Counters> {
        let answer = output(
            Command::new(&self.program)
                .args(["show", "ports", "--json", "--control"])
                .arg(&self.switches[index].control),
        )?;
        let ports: Ports = serde_json::from_str(&answer)?;
        Ok(Counters {
            frames: ports.worker.busy_frames,
            busy_cycles: ports.worker.busy_cycles as f64,
        })
    }
}

impl Running for Processes {
    fn processes(&self) -> Vec<u32> {
        self.switches.iter().map(|one| one.process.id()).collect()
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let mut all = Counters::default();
        for index in 0..self.switches.len() {
            let one = self.counters_of(index)?;
            all.frames += one.frames;
            all.busy_cycles += one.busy_cycles;
        }
        Ok(all)
    }
}
