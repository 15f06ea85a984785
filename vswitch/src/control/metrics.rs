//! The counters as Prometheus text, format 0.0.4.

use std::fmt::{self, Display, Write};

use super::view::{Drop, Peer, Port, Ports, Tunnel};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A label's value with the three characters escaped that the format reserves.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

struct Text {
    text: String,
    tenant: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{name}{{tenant=\"{}\"", Escaped(&self.tenant));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", Escaped(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// A counter of a port: its metric, its help, and where it is.
type PortMetric = (&'static str, &'static str, fn(&Port) -> u64);

const PORT_METRICS: [PortMetric; 9] = [
    (
        "vswitch_rx_frames_total",
        "Frames received from the port.",
        |port| port.rx_frames,
    ),
    (
        "vswitch_rx_bytes_total",
        "Bytes received from the port.",
        |port| port.rx_bytes,
    ),
    (
        "vswitch_tx_frames_total",
        "Frames sent to the port.",
        |port| port.tx_frames,
    ),
    (
        "vswitch_tx_bytes_total",
        "Bytes sent to the port.",
        |port| port.tx_bytes,
    ),
    (
        "vswitch_forwarded_frames_total",
        "Frames of the port that went to another port.",
        |port| port.forwarded,
    ),
    (
        "vswitch_icmp_errors_total",
        "ICMP errors returned to the port.",
        |port| port.icmp_errors,
    ),
    (
        "vswitch_replies_total",
        "Frames of the port that the gateway answered.",
        |port| port.replies,
    ),
    (
        "vswitch_dropped_frames_total",
        "Frames of the port dropped, for all reasons.",
        |port| port.dropped,
    ),
    (
        "vswitch_rx_missed_frames_total",
        "Frames that the device lost because its ring was full.",
        |port| port.rx_missed,
    ),
];

/// A number of a peer: its metric, its kind, its help, and where it is.
type PeerMetric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Peer) -> Option<u64>,
);

const PEER_METRICS: [PeerMetric; 7] = [
    (
        "vswitch_peer_rx_frames_total",
        "counter",
        "Frames that came from the peer through the tunnel and passed the filter.",
        |peer| Some(peer.rx_frames),
    ),
    (
        "vswitch_peer_rx_bytes_total",
        "counter",
        "Bytes of the frames from the peer.",
        |peer| Some(peer.rx_bytes),
    ),
    (
        "vswitch_peer_tx_frames_total",
        "counter",
        "Frames sent to the peer through the tunnel.",
        |peer| Some(peer.tx_frames),
    ),
    (
        "vswitch_peer_tx_bytes_total",
        "counter",
        "Bytes of the frames to the peer.",
        |peer| Some(peer.tx_bytes),
    ),
    (
        "vswitch_peer_next_hop_reachable",
        "gauge",
        "Whether the next hop towards the peer answers.",
        |peer| Some(peer.next_hop_mac.is_some().into()),
    ),
    (
        "vswitch_peer_mtu_bytes",
        "gauge",
        "The largest IP packet that gets to the peer.",
        |peer| Some(peer.mtu.into()),
    ),
    (
        "vswitch_peer_last_seen_seconds",
        "gauge",
        "Time since the last frame from the peer; absent if there was none.",
        |peer| peer.last_seen_s,
    ),
];

/// All counters. A reason appears in `vswitch_drops_total` once a frame was dropped for it;
/// `vswitch_dropped_frames_total` is there from the start.
pub fn render(ports: &Ports, drops: &[Drop], tunnel: Option<&Tunnel>) -> String {
    let mut out = Text {
        text: String::with_capacity(4096),
        tenant: ports.tenant.clone(),
    };
    out.family("vswitch_build_info", "gauge", "The running version.");
    out.sample(
        "vswitch_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    for (name, help, value) in PORT_METRICS {
        out.family(name, "counter", help);
        for port in &ports.ports {
            out.sample(name, &[("port", &port.name)], value(port));
        }
    }
    out.family(
        "vswitch_link_up",
        "gauge",
        "Whether the port's device has a link.",
    );
    for port in &ports.ports {
        out.sample(
            "vswitch_link_up",
            &[("port", &port.name)],
            u8::from(port.link_up),
        );
    }
    out.family(
        "vswitch_drops_total",
        "counter",
        "Frames dropped, by port and reason.",
    );
    for drop in drops.iter().filter(|drop| drop.frames > 0) {
        let labels = [
            ("port", drop.port.as_str()),
            ("reason", drop.reason.as_str()),
        ];
        out.sample("vswitch_drops_total", &labels, drop.frames);
    }
    if let Some(tunnel) = tunnel {
        for (name, kind, help, value) in PEER_METRICS {
            out.family(name, kind, help);
            for peer in &tunnel.peers {
                if let Some(value) = value(peer) {
                    out.sample(name, &[("peer", &peer.name)], value);
                }
            }
        }
    }
    let worker = &ports.worker;
    out.single(
        "vswitch_config_generation",
        "gauge",
        "The configuration's generation, from 1.",
        worker.generation,
    );
    for (name, help, value) in [
        (
            "vswitch_worker_rounds_total",
            "Rounds over all ports.",
            worker.rounds,
        ),
        (
            "vswitch_worker_busy_rounds_total",
            "Rounds that found frames.",
            worker.busy_rounds,
        ),
        (
            "vswitch_worker_busy_frames_total",
            "Frames received in busy rounds.",
            worker.busy_frames,
        ),
        (
            "vswitch_worker_sleeps_total",
            "Times the worker slept for want of frames.",
            worker.sleeps,
        ),
    ] {
        out.single(name, "counter", help, value);
    }
    out.single(
        "vswitch_worker_busy_cycles_total",
        "counter",
        "Cycles of busy rounds, sending included.",
        worker.busy_cycles,
    );
    out.single(
        "vswitch_worker_cycles_per_second",
        "gauge",
        "The rate of the cycles.",
        worker.cycles_per_second,
    );

    const WAKE: &str = "vswitch_worker_wake_seconds";
    out.family(
        WAKE,
        "histogram",
        "From a wake for frames to the last of its round being sent.",
    );
    let mut wakes = 0;
    for bucket in &worker.wake_histogram {
        wakes += bucket.wakes;
        let bound = match bucket.at_most_ns {
            Some(nanoseconds) => (nanoseconds as f64 / 1e9).to_string(),
            None => "+Inf".to_owned(),
        };
        out.sample(
            "vswitch_worker_wake_seconds_bucket",
            &[("le", &bound)],
            wakes,
        );
    }
    out.sample(
        "vswitch_worker_wake_seconds_sum",
        &[],
        worker.wake_sum_ns as f64 / 1e9,
    );
    out.sample("vswitch_worker_wake_seconds_count", &[], wakes);
    out.text
}

#[cfg(test)]
mod tests {
    use super::super::view::{WakeBucket, Worker};
    use super::*;

    #[test]
    fn every_family_is_declared_once_and_labels_are_escaped() {
        let ports = Ports {
            tenant: "r\"e\\d\n".to_owned(),
            ports: vec![Port {
                name: "red-vm1".to_owned(),
                rx_frames: 7,
                dropped: 2,
                ..Port::default()
            }],
            worker: Worker {
                wake_sum_ns: 1_500_000,
                wake_histogram: vec![
                    WakeBucket {
                        at_most_ns: Some(50_000),
                        wakes: 3,
                    },
                    WakeBucket {
                        at_most_ns: None,
                        wakes: 1,
                    },
                ],
                ..Worker::default()
            },
        };
        let tunnel = Tunnel {
            kind: "geneve".to_owned(),
            vni: 5001,
            vtep: "192.0.2.2".to_owned(),
            port: 6081,
            mac: "0e:00:00:00:00:01".to_owned(),
            mtu: 1450,
            peers: vec![Peer {
                name: "host-b".to_owned(),
                vtep: "192.0.2.66".to_owned(),
                mac: "0e:00:00:00:00:02".to_owned(),
                next_hop: "192.0.2.66".to_owned(),
                next_hop_mac: None,
                state: "unresolved".to_owned(),
                mtu: 1450,
                tx_frames: 5,
                tx_bytes: 300,
                rx_frames: 0,
                rx_bytes: 0,
                last_seen_s: None,
                prefixes: Vec::new(),
            }],
        };
        let drop = |reason: &str, frames| Drop {
            port: "red-vm1".to_owned(),
            reason: reason.to_owned(),
            number: 3,
            frames,
            help: String::new(),
        };
        let text = render(&ports, &[drop("src-mac", 2), drop("llc", 0)], Some(&tunnel));

        let tenant = r#"tenant="r\"e\\d\n""#;
        for line in [
            format!(r#"vswitch_rx_frames_total{{{tenant},port="red-vm1"}} 7"#),
            format!(r#"vswitch_drops_total{{{tenant},port="red-vm1",reason="src-mac"}} 2"#),
            format!(r#"vswitch_peer_tx_frames_total{{{tenant},peer="host-b"}} 5"#),
            format!(r#"vswitch_peer_next_hop_reachable{{{tenant},peer="host-b"}} 0"#),
            format!(r#"vswitch_worker_wake_seconds_bucket{{{tenant},le="0.00005"}} 3"#),
            format!(r#"vswitch_worker_wake_seconds_bucket{{{tenant},le="+Inf"}} 4"#),
            format!("vswitch_worker_wake_seconds_count{{{tenant}}} 4"),
            format!("vswitch_worker_wake_seconds_sum{{{tenant}}} 0.0015"),
        ] {
            assert!(
                text.lines().any(|is| is == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("llc"), "a reason that was never counted");

        // Every sample belongs to the family declared last before it, and none is declared twice.
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap().to_owned();
                assert!(!declared.contains(&name), "{name} twice");
                declared.push(name);
            } else if !line.starts_with('#') {
                let name = line.split('{').next().unwrap();
                let family = declared.last().unwrap();
                let suffix = name.strip_prefix(family.as_str());
                assert!(
                    matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                    "{name} under {family}"
                );
            }
        }
    }
}
