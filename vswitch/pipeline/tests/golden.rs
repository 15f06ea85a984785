//! Captures made with scapy, played into a switch: what each port is given, what each frame got and
//! the whole counter state are compared with what is kept beside them. `golden/make.py` says how
//! they are made and renewed.

mod oracle;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oracle::trial::{Switch, Tally};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pipeline::Verdict;
use serde::{Deserialize, Serialize};
use tenant_config::SwitchConfig;

/// What `counters.json` holds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Result {
    /// What each frame got, in the order of time: `vm1: forward to vm2`.
    frames: Vec<String>,
    /// All that was counted, by port.
    counters: BTreeMap<String, Tally>,
}

/// A frame and when it is sent or received.
type Timed = (Duration, Vec<u8>);

/// One scenario's folder.
struct Scenario {
    folder: PathBuf,
    config: SwitchConfig,
    /// The ports' names, the uplink's last.
    names: Vec<String>,
}

impl Scenario {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        let text = fs::read_to_string(folder.join("config.json")).expect("a configuration");
        let config = SwitchConfig::from_json(name, &text).expect("a valid configuration");
        Self {
            names: config.devices().map(|side| side.name.to_owned()).collect(),
            folder,
            config,
        }
    }

    /// The frames of `in-PORT.pcap` or `out-PORT.pcap`; none where there is no such file.
    fn read(&self, direction: &str, port: &str) -> Vec<Timed> {
        let path = self.folder.join(format!("{direction}-{port}.pcap"));
        let Ok(file) = File::open(&path) else {
            return Vec::new();
        };
        let mut reader = PcapReader::new(file).expect("a pcap file");
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole packet");
            frames.push((packet.timestamp, packet.data.into_owned()));
        }
        frames
    }

    fn write(&self, port: &str, frames: &[Timed]) {
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ..PcapHeader::default()
        };
        let path = self.folder.join(format!("out-{port}.pcap"));
        let file = File::create(path).expect("a file to write");
        let mut writer = PcapWriter::with_header(file, header).expect("a header written");
        for (time, bytes) in frames {
            let packet = PcapPacket::new(*time, bytes.len() as u32, bytes);
            writer.write_packet(&packet).expect("a packet written");
        }
    }

    /// Plays all that is sent, in the order of time, and hands back what each port was given.
    fn play(&self) -> (Result, Vec<Vec<Timed>>) {
        let mut sent: Vec<(Duration, usize, Vec<u8>)> = Vec::new();
        for (port, name) in self.names.iter().enumerate() {
            let frames = self.read("in", name);
            sent.extend(frames.into_iter().map(|(time, bytes)| (time, port, bytes)));
        }
        sent.sort_by_key(|(time, port, _)| (*time, *port));
        assert!(!sent.is_empty(), "nothing is sent");

        let mut switch = Switch::new(&self.config, 0xee);
        let mut given = vec![Vec::new(); self.names.len()];
        let mut frames = Vec::new();
        for (time, from, bytes) in sent {
            let now_ns = u64::try_from(time.as_nanos()).expect("a time of this century");
            let (verdict, left) = switch.process(now_ns, from, &bytes, None);
            let got = match verdict {
                Verdict::Forward(to) => {
                    given[to.index()].push((time, left));
                    format!("forward to {}", self.names[to.index()])
                }
                Verdict::Copies => {
                    for (to, copy) in switch.copies() {
                        given[*to].push((time, copy.clone()));
                    }
                    format!("forward to {}", switch.copies().len())
                }
                Verdict::Reply => {
                    given[from].push((time, left));
                    "reply".to_owned()
                }
                Verdict::Drop(reason) => format!("drop {reason}"),
                Verdict::DropWithError(reason) => {
                    given[from].push((time, left));
                    format!("drop {reason} with an ICMP error")
                }
            };
            frames.push(format!("{}: {got}", self.names[from]));
        }
        let counters = self.names.iter().cloned().zip(switch.counted()).collect();
        (Result { frames, counters }, given)
    }

    fn check(&self) {
        let (result, given) = self.play();
        let path = self.folder.join("counters.json");
        if std::env::var_os("GOLDEN_UPDATE").is_some() {
            let text = serde_json::to_string_pretty(&result).expect("plain values");
            fs::write(&path, text + "\n").expect("a file to write");
            for (port, frames) in self.names.iter().zip(&given) {
                self.write(port, frames);
            }
        }
        let text = fs::read_to_string(&path).expect("what was counted");
        let kept: Result = serde_json::from_str(&text).expect("what was counted");
        assert_eq!(result, kept, "verdicts and counters");
        for (port, frames) in self.names.iter().zip(&given) {
            assert_eq!(*frames, self.read("out", port), "what {port} is given");
        }
    }
}

#[test]
fn valid_traffic_is_forwarded() {
    Scenario::open("conversation").check();
}

#[test]
fn attacks_are_dropped_for_their_reasons() {
    Scenario::open("attacks").check();
}

#[test]
fn storm_affects_its_own_port_only() {
    Scenario::open("storm").check();
}

#[test]
fn geneve_traffic_matches_capture() {
    Scenario::open("geneve").check();
}

#[test]
fn vxlan_traffic_matches_capture() {
    Scenario::open("vxlan").check();
}
