//! Security associations from a file, for captures: `trace` and `replay`. A running switch reads no
//! such file.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use pipeline::Pipeline;
use pipeline::ipsec::{
    Channel, Direction, InboundSa, Keys, Lifetime, Mode, Order, OutboundSa, Request, Rules, Suite,
    UdpPorts,
};
use serde::Deserialize;
use tenant_config::SwitchConfig;

use super::CliError;

/// The longest file: some thousand SAs.
const FILE_MAX: u64 = 1 << 20;
/// RFC 3948.
const NAT_T_PORT: u16 = 4500;

/// An SA of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    direction: Way,
    peer: IpAddr,
    /// In hexadecimal.
    spi: String,
    suite: String,
    encryption_key: String,
    #[serde(default)]
    integrity_key: String,
    #[serde(default)]
    mode: Carried,
    #[serde(default)]
    esn: bool,
    #[serde(default)]
    in_udp: bool,
    /// The sequence number of the last packet before the capture.
    #[serde(default)]
    sequence: u64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    In,
    Out,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Carried {
    #[default]
    Transport,
    Tunnel,
}

/// An SA of the file, checked.
pub(super) struct Sa {
    pub(super) direction: Direction,
    pub(super) request: Request,
    pub(super) keys: Keys,
    sequence: u64,
    #[cfg(feature = "export-keys")]
    pub(super) hex: [String; 2],
}

impl Entry {
    fn check(self, rules: &Rules) -> Result<Sa, String> {
        let spi = u32::from_str_radix(&self.spi, 16);
        let spi = spi.map_err(|_| format!("spi: {:?} is no hexadecimal number", self.spi))?;
        let suite = Suite::from_name(&self.suite)
            .ok_or_else(|| format!("suite: {:?} is none of the suites", self.suite))?;
        let bytes = |key: &str, text: &str| {
            super::offline::parse_hex(text).map_err(|_| format!("{key}: it is not hexadecimal"))
        };
        let encryption = bytes("encryption_key", &self.encryption_key)?;
        let integrity = bytes("integrity_key", &self.integrity_key)?;
        let keys = Keys::new(suite, &encryption, &integrity).map_err(|error| error.to_string())?;
        let (direction, mode) = match (self.direction, self.mode) {
            (Way::In, Carried::Transport) => (Direction::In, Mode::Transport),
            (Way::In, Carried::Tunnel) => (Direction::In, Mode::Tunnel),
            (Way::Out, Carried::Transport) => (Direction::Out, Mode::Transport),
            (Way::Out, Carried::Tunnel) => (Direction::Out, Mode::Tunnel),
        };
        let request = Request {
            spi,
            own: rules.own,
            peer: self.peer,
            mode,
            esn: self.esn,
            encapsulation: self.in_udp.then_some(UdpPorts {
                own: NAT_T_PORT,
                peer: NAT_T_PORT,
            }),
            own_port: None,
            peer_port: None,
            lifetime: Lifetime::UNBOUNDED,
        };
        rules
            .check(&request, &keys)
            .map_err(|why| why.to_string())?;
        Ok(Sa {
            direction,
            request,
            keys,
            sequence: self.sequence,
            #[cfg(feature = "export-keys")]
            hex: [self.encryption_key, self.integrity_key],
        })
    }
}

/// Reads the SAs of a file, which the switch's configuration must allow.
pub(super) fn load(path: &Path, config: &SwitchConfig) -> Result<Vec<Sa>, CliError> {
    let failed = |why: String| CliError::Config(format!("{}: {why}", path.display()));
    let rules = Rules::of(config);
    let rules = rules.ok_or_else(|| failed("the tunnel has no [tunnel.ipsec]".to_owned()))?;
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(FILE_MAX).read_to_string(&mut text);
    read.map_err(|error| failed(error.to_string()))?;
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| {
        // The message of a value of another type would quote it, which may be a key.
        let (line, column) = (error.line(), error.column());
        failed(format!("line {line}, column {column}: no list of SAs"))
    })?;
    let checked = entries.into_iter().enumerate();
    let checked = checked.map(|(at, entry)| {
        let entry = entry.check(&rules);
        entry.map_err(|why| failed(format!("[{at}]: {why}")))
    });
    checked.collect()
}

/// Gives a pipeline without a worker these SAs.
pub(super) fn install(pipeline: &mut Pipeline, config: &SwitchConfig, sas: &[Sa]) {
    let Some(rules) = Rules::of(config) else {
        return;
    };
    let channel = Arc::new(Channel::default());
    pipeline.join_ipsec(Arc::clone(&channel));
    for sa in sas {
        let (peer, spi) = (sa.request.peer, sa.request.spi);
        let orders = match sa.direction {
            Direction::In => {
                let made = InboundSa::new(&rules, sa.request, &sa.keys).map(|mut made| {
                    made.skip_to(sa.sequence);
                    Order::InstallIn(made)
                });
                [made.ok(), None]
            }
            Direction::Out => {
                let made = OutboundSa::new(&rules, sa.request, &sa.keys).map(|mut made| {
                    made.skip_to(sa.sequence);
                    Order::InstallOut(made)
                });
                [made.ok(), Some(Order::Use { peer, spi })]
            }
        };
        for order in orders.into_iter().flatten() {
            // One at a time, so there is room.
            drop(channel.order(order));
            pipeline.obey_ipsec(0, &mut |_, _| {});
        }
        while channel.retired().is_some() {}
    }
}

/// The SAs as lines of Wireshark's file `esp_sa`, in the format of version 4.0, which knows neither
/// ChaCha20-Poly1305 nor ESN: it decrypts packets with ESN, and calls their ICV wrong.
#[cfg(feature = "export-keys")]
pub(super) fn wireshark(sas: &[Sa]) -> String {
    let line = |sa: &Sa| {
        let (cipher, mac) = match sa.keys.suite() {
            Suite::Aes128Gcm16 | Suite::Aes256Gcm16 => {
                ("AES-GCM with 16 octet ICV [RFC4106]", "NULL")
            }
            Suite::Aes256CbcSha256 => ("AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
            Suite::ChaCha20Poly1305 => return None,
        };
        let family = match sa.request.own {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        };
        let (from, to) = match sa.direction {
            Direction::In => (sa.request.peer, sa.request.own),
            Direction::Out => (sa.request.own, sa.request.peer),
        };
        let [key, integrity] = &sa.hex;
        let integrity = match integrity.is_empty() {
            true => String::new(),
            false => format!("0x{integrity}"),
        };
        let spi = sa.request.spi;
        Some(format!(
            "\"{family}\",\"{from}\",\"{to}\",\"0x{spi:08x}\",\"{cipher}\",\"0x{key}\",\
             \"{mac}\",\"{integrity}\"\n"
        ))
    };
    sas.iter().filter_map(line).collect()
}
