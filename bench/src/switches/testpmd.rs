//! `dpdk-testpmd`: the cost of the ports alone.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, bail};

use super::{ChildGuard, Counters, Running, Switch};
use crate::site::{End, Site, Wires};

/// testpmd in one of its forwarding modes.
pub(super) struct Testpmd {
    pub(super) mode: &'static str,
}

impl Testpmd {
    fn arguments(&self, site: &Site) -> Vec<String> {
        let owned = |text: &str| text.to_owned();
        let mut arguments = vec![
            owned("--lcores"),
            // The first lcore only waits for commands, so it shares the load's CPU.
            format!("0@{},1@{}", site.cpus.load, site.cpus.switch),
            owned("--no-pci"),
            owned("--in-memory"),
            owned("--no-telemetry"),
            owned("-m"),
            owned("128"),
        ];
        for (number, end) in site.ends.iter().enumerate() {
            arguments.push(owned("--vdev"));
            arguments.push(match end {
                End::Memif(socket) => format!(
                    "net_memif{number},role=server,id=0,socket-abstract=no,socket={}",
                    socket.display()
                ),
                End::VhostUser(socket) => {
                    format!("net_vhost{number},iface={},queues=1", socket.display())
                }
                End::Veth(interface) => format!("net_af_packet{number},iface={interface}"),
            });
        }
        arguments.extend(["--", "--interactive", "--port-topology=chained"].map(owned));
        arguments.push(format!("--forward-mode={}", self.mode));
        arguments.push(owned("--total-num-mbufs=16384"));
        arguments
    }
}

const PROGRAM: &str = "dpdk-testpmd";

impl Switch for Testpmd {
    fn wires(&self) -> Wires {
        Wires::Memif
    }

    fn checks(&self) -> bool {
        false
    }

    fn programs(&self) -> &'static [&'static str] {
        &[PROGRAM, "stdbuf"]
    }

    fn rules(&self, site: &Site) -> String {
        format!("{PROGRAM} {}", self.arguments(site).join(" "))
    }

    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>> {
        // Statistics are buffered and answers to commands are not: line buffering keeps the order.
        let mut child = site
            .command("stdbuf")
            .args(["--output=L", PROGRAM])
            .args(self.arguments(site))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(site.directory().join("testpmd.log"))?)
            .spawn()
            .with_context(|| {
                format!("cannot start {PROGRAM}: scripts/setup --for bench installs it")
            })?;
        let to = child.stdin.take().context("no input")?;
        let from = child.stdout.take().context("no output")?;
        let mut running = Console {
            process: ChildGuard(child),
            to,
            from: BufReader::new(from),
        };
        running.ask("set record-core-cycles on")?;
        Ok(Box::new(running))
    }
}

struct Console {
    process: ChildGuard,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Console {
    /// Runs a command and returns the lines of its output.
    fn ask(&mut self, command: &str) -> anyhow::Result<Vec<String>> {
        // The prompt has no newline, but the answer to an unknown command has one.
        const END: &str = "bench-end";
        writeln!(self.to, "{command}\n{END}").context("testpmd has ended")?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                bail!("testpmd ended: {}", lines.join(" "));
            }
            if line.contains("Command not found") || line.contains("Bad arguments") {
                return Ok(lines);
            }
            lines.push(line.trim().to_owned());
        }
    }
}

impl Running for Console {
    fn processes(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    fn connected(&mut self) -> anyhow::Result<()> {
        self.ask("start").map(drop)
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let lines = self.ask("show fwd stats all")?;
        parse(&lines).with_context(|| format!("testpmd's statistics: {lines:?}"))
    }
}

/// `CPU cycles/packet=75.30 (total cycles=150600 / total io packets=2000) at 2000 MHz Clock`.
fn parse(lines: &[String]) -> Option<Counters> {
    let line = lines.iter().find(|line| line.contains("cycles/packet"))?;
    let number = |after: &str| -> Option<f64> {
        let rest = line.split_once(after)?.1;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        rest[..end].parse().ok()
    };
    Some(Counters {
        frames: number(" packets=")? as u64,
        busy_cycles: number("total cycles=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_parse_to_counters() {
        let lines = [
            "TX-packets: 2000   TX-dropped: 0   TX-total: 2000",
            "CPU cycles/packet=75.30 (total cycles=150600 / total io packets=2000) \
             at 2000 MHz Clock",
        ];
        let expected = Counters {
            frames: 2000,
            busy_cycles: 150_600.0,
        };
        assert_eq!(parse(&lines.map(str::to_owned)), Some(expected));
        assert_eq!(parse(&[]), None);
    }
}
