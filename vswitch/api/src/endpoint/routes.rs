//! `GET /v1/routes`: the route table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ADDRESSES_MAX, ANSWER_MAX, Operation, Reply, Show, Spec, or_dash, schema_of, show};
use crate::bounded::List;
use crate::table::{Table, left};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/routes",
    get: Operation {
        summary: "The route table, longest prefix first",
        flags: &[],
        reply: Reply::Json(schema_of::<Vec<Route>>),
        answer_max: 16 * ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "routes",
        help: "Where each destination leads",
        print: |answer, form| show(answer, form, text),
    }),
};

/// An element of the answer of `GET /v1/routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// The destination.
    pub prefix: String,
    /// The kind of target: `port`, `peer`, `gateway`, `unreachable`, `broadcast`, `uplink`,
    /// `underlay` or `uplink-self`.
    pub kind: String,
    /// The port that the route leads to, if it leads to one.
    pub port: Option<String>,
    /// The tunnel peer that the route leads to; absent if it leads to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

fn text(routes: &List<Route, ADDRESSES_MAX>) -> String {
    let mut table = Table::new([left("PREFIX"), left("KIND"), left("TO")]);
    for route in routes.iter() {
        let to = or_dash(route.port.as_ref().or(route.peer.as_ref()));
        table.row([route.prefix.clone(), route.kind.clone(), to]);
    }
    table.to_string()
}
