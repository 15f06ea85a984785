//! `GET /v1/ipsec`: the endpoints of peers that require IPsec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CONFIG_MAX, Operation, PEERS_MAX, Reply, Show, Spec, or_dash, schema_of, show};
use crate::bounded::list;
use crate::plain::cut;
use crate::table::{CELL_MAX, Table, left, right};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/ipsec",
    get: Operation {
        summary: "IPsec of the tunnel, by endpoint; `null` where no peer may require it",
        flags: &[],
        reply: Reply::Json(schema_of::<Option<Ipsec>>),
        answer_max: CONFIG_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "ipsec",
        help: "IPsec by endpoint: state, suites, age, packets, failures, next renewal",
        print: |answer, form| show(answer, form, text),
    }),
};

/// The most suites that an answer lists.
const SUITES_MAX: usize = 16;

/// The answer of `GET /v1/ipsec`. It has no keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ipsec {
    /// The suites that may be used.
    #[serde(deserialize_with = "list::<_, _, SUITES_MAX>")]
    pub suites: Vec<String>,
    /// Whether extended sequence numbers may be used.
    pub esn: bool,
    /// The replay window, in packets.
    pub replay_window: u32,
    /// The endpoints of peers that require IPsec.
    #[serde(deserialize_with = "list::<_, _, PEERS_MAX>")]
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint. Packets are the tunnel's, bytes those that ESP carries; both are sums over all
/// security associations (SAs) so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Its address.
    pub vtep: String,
    /// The names of the peers there.
    #[serde(deserialize_with = "list::<_, _, PEERS_MAX>")]
    pub peers: Vec<String>,
    /// `up` with SAs in both directions, `sending` or `receiving` with one, otherwise `down`.
    pub state: String,
    /// The SA that seals what is sent there.
    pub outbound: Option<Sa>,
    /// The newest SA that opens what comes from there.
    pub inbound: Option<Sa>,
    /// Packets sealed.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets opened.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets whose sequence number came before, or too late.
    pub replayed: u64,
    /// Packets with a wrong integrity check value.
    pub icv_failures: u64,
}

/// An SA in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sa {
    /// The SPI, in hexadecimal.
    pub spi: String,
    /// The suite.
    pub suite: String,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// `transport` or `tunnel`.
    pub mode: String,
    /// Whether ESP is carried in UDP.
    pub in_udp: bool,
    /// Seconds since it was installed.
    pub age_s: u64,
    /// Packets so far.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds until it is to be replaced, by its lifetime in seconds; `null` if that has none.
    pub rekey_in_s: Option<u64>,
}

/// What stands for the peers behind the first.
fn more(peers: usize) -> String {
    match peers {
        0 | 1 => String::new(),
        _ => format!(" and {} more", peers - 1),
    }
}

fn text(ipsec: &Option<Ipsec>) -> String {
    let Some(ipsec) = ipsec else {
        return "No peer of the tenant may require IPsec.\n".to_owned();
    };
    let mut table = Table::new([
        left("ENDPOINT"),
        left("PEERS"),
        left("STATE"),
        left("SUITE"),
        left("SPI OUT"),
        left("SPI IN"),
        right("AGE"),
        right("REKEY IN"),
        right("TX"),
        right("TX BYTES"),
        right("RX"),
        right("RX BYTES"),
        right("REPLAYED"),
        right("BAD ICV"),
    ]);
    for endpoint in &ipsec.endpoints {
        let spi = |sa: &Option<Sa>| or_dash(sa.as_ref().map(|sa| &sa.spi));
        let outbound = endpoint.outbound.as_ref();
        let seconds = |seconds: Option<u64>| seconds.map(|seconds| format!("{seconds} s"));
        table.row([
            endpoint.vtep.clone(),
            endpoint.peers.first().cloned().unwrap_or_default() + &more(endpoint.peers.len()),
            endpoint.state.clone(),
            or_dash(outbound.map(|sa| &sa.suite)),
            spi(&endpoint.outbound),
            spi(&endpoint.inbound),
            or_dash(seconds(outbound.map(|sa| sa.age_s)).as_ref()),
            or_dash(seconds(outbound.and_then(|sa| sa.rekey_in_s)).as_ref()),
            endpoint.tx_packets.to_string(),
            endpoint.tx_bytes.to_string(),
            endpoint.rx_packets.to_string(),
            endpoint.rx_bytes.to_string(),
            endpoint.replayed.to_string(),
            endpoint.icv_failures.to_string(),
        ]);
    }
    let suites = ipsec.suites.iter().map(|suite| cut(suite, CELL_MAX));
    let suites: Vec<_> = suites.collect();
    let esn = if ipsec.esn { "with" } else { "without" };
    let head = format!(
        "{} {esn} ESN, window of {}",
        suites.join(", "),
        ipsec.replay_window
    );
    format!("{head}\n\n{table}")
}
