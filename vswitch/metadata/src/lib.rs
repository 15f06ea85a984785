//! Metadata for cloud images: what an image asks for at 169.254.169.254 and fd00:ec2::254, in the
//! forms of EC2 and OpenStack. `docs/reference/services.md` is the specification.
//!
//! There is no I/O here: a [`Server`] takes IP packets and a clock, and gives IP packets. TCP is
//! smoltcp's. Each port has a network stack, connections and documents of its own, so whose data a
//! VM gets is decided by the port that its packet came from, and by nothing in the packet.
//!
//! - `documents`: what is served, made when the configuration is
//! - `http`: requests, parsed as hostile, and the heads of answers
//! - `token`: the tokens of EC2's second version (IMDSv2)
//! - `connection`: one connection: its time, its request and its answer
//! - `port`: a port's network stack and connections
//!
//! Everything is bounded: [`MEMORY_PER_PORT`] beside a port's documents.

#![forbid(unsafe_code)]

mod connection;
mod documents;
mod http;
mod port;
mod token;

use std::collections::BTreeMap;
use std::time::Duration;

use tenant_config::SwitchConfig;

pub use self::connection::{
    ANSWER_TIMEOUT, CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, REQUESTS_MAX,
};
pub use self::documents::{Body, Documents, Form};
pub use self::http::HEAD_MAX;
pub use self::port::{CONNECTIONS, MEMORY_PER_PORT};
pub use self::token::{Secret, TTL_MAX, TokenError};

use self::port::Port;

/// The longest IP packet, either way.
const PACKET_MAX: u16 = 1500;

/// The MAC of a port's VM. It is the port's for good, while a port's number may become another's.
pub type Station = [u8; 6];

/// What is served to each port with metadata: its documents, and the longest packet that it takes.
#[derive(Debug)]
pub struct Served(Vec<(Station, Documents, u16)>);

impl Served {
    /// What that configuration says.
    pub fn of(config: &SwitchConfig) -> Self {
        let ports = config.ports.iter().filter_map(|port| {
            let documents = Documents::of(config, port)?;
            Some((port.mac.octets(), documents, port.mtu.min(PACKET_MAX)))
        });
        Self(ports.collect())
    }

    /// Whether any port has metadata.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The metadata of one switch's ports.
#[derive(Debug)]
pub struct Server {
    secret: Secret,
    ports: BTreeMap<Station, Box<Port>>,
}

impl Server {
    /// A server whose tokens are made with that secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            ports: BTreeMap::new(),
        }
    }

    /// Serves that from now on. Connections of ports whose metadata has not changed remain.
    pub fn configure(&mut self, served: Served) {
        let mut before = std::mem::take(&mut self.ports);
        let ports = served.0.into_iter().map(|(station, documents, mtu)| {
            let same = before.remove(&station);
            let same = same.filter(|it| it.is_same(&documents, mtu));
            let new = || {
                Box::new(Port::new(
                    station,
                    documents,
                    mtu,
                    self.secret.seed(station),
                ))
            };
            (station, same.unwrap_or_else(new))
        });
        self.ports = ports.collect();
    }

    /// Takes a packet that came from the VM of a port. `out` receives each packet to send to it.
    pub fn receive(
        &mut self,
        station: Station,
        packet: &[u8],
        now: Duration,
        out: &mut dyn FnMut(&[u8]),
    ) {
        if let Some(port) = self.ports.get_mut(&station) {
            port.turn(&self.secret, Some(packet), now, out);
        }
    }

    /// Does what is due by the clock. `out` receives each packet to send, and whom to.
    pub fn poll(&mut self, now: Duration, out: &mut dyn FnMut(Station, &[u8])) {
        for (station, port) in &mut self.ports {
            if port.next().is_some_and(|next| next <= now) {
                port.turn(&self.secret, None, now, &mut |packet| out(*station, packet));
            }
        }
    }

    /// When [`Self::poll`] has something to do next; never, without a connection.
    pub fn next(&self) -> Option<Duration> {
        let ports = self.ports.values();
        ports.filter_map(|port| port.next()).min()
    }
}
