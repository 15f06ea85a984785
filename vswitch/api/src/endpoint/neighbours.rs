//! `GET /v1/neighbours`: known MACs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ADDRESSES_MAX, ANSWER_MAX, Operation, Reply, Show, Spec, or_dash, schema_of, show};
use crate::bounded::List;
use crate::table::{Table, left};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/neighbours",
    get: Operation {
        summary: "The tenant's VMs and the underlay's next hops, with their MACs",
        flags: &[],
        reply: Reply::Json(schema_of::<Vec<Neighbour>>),
        answer_max: 16 * ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "neighbours",
        help: "Whose MACs are known",
        print: |answer, form| show(answer, form, text),
    }),
};

/// An element of the answer of `GET /v1/neighbours`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Neighbour {
    /// Its address.
    pub address: String,
    /// The port on whose link it is.
    pub port: String,
    /// Its MAC; `null` while the switch solicits it.
    pub mac: Option<String>,
    /// `static` (configured), `leased` (by DHCP), `claimed` (by Duplicate Address Detection),
    /// `held` (a shared address, by this port now), `sought` (a shared address that this port may
    /// hold, and none is known to), or for a next hop `reachable` or `unresolved`.
    pub state: String,
}

fn text(neighbours: &List<Neighbour, ADDRESSES_MAX>) -> String {
    let mut table = Table::new([left("ADDRESS"), left("PORT"), left("MAC"), left("STATE")]);
    for neighbour in neighbours.iter() {
        table.row([
            neighbour.address.clone(),
            neighbour.port.clone(),
            or_dash(neighbour.mac.as_ref()),
            neighbour.state.clone(),
        ]);
    }
    table.to_string()
}
