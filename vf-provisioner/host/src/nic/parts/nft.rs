//! The part of nftables' JSON (libnftables-json(5)) that the port locks need, as types.
//!
//! A rule is kept and compared as the JSON that `nft -j` prints, because rules that are read back
//! may have other statements.

use std::io::Write;
use std::process::{Command as Program, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::HostError;

const FAMILY: &str = "bridge";

/// The value that a statement reads.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expression {
    Meta {
        key: &'static str,
    },
    #[serde(rename = "payload")]
    Field {
        protocol: &'static str,
        field: &'static str,
    },
    #[serde(rename = "payload")]
    Bytes {
        base: &'static str,
        offset: u16,
        len: u16,
    },
}

const fn field(protocol: &'static str, field: &'static str) -> Expression {
    Expression::Field { protocol, field }
}

pub(super) const INTERFACE: Expression = Expression::Meta { key: "iifname" };
pub(super) const ETHER_SOURCE: Expression = field("ether", "saddr");
pub(super) const ETHER_TYPE: Expression = field("ether", "type");
pub(super) const ARP_SENDER_MAC: Expression = field("arp", "saddr ether");
pub(super) const ARP_SENDER_IP: Expression = field("arp", "saddr ip");
pub(super) const IPV4_SOURCE: Expression = field("ip", "saddr");
pub(super) const IPV6_SOURCE: Expression = field("ip6", "saddr");
pub(super) const ICMPV6_TYPE: Expression = field("icmpv6", "type");
/// The target of a Neighbour Advertisement.
pub(super) const ND_TARGET: Expression = Expression::Bytes {
    base: "th",
    offset: 64,
    len: 128,
};

/// How two values are compared.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) enum Operator {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    Unequal,
}

/// The value that an expression is compared with.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Operand {
    Text(String),
    Prefix { prefix: Prefix },
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Prefix {
    pub(super) addr: String,
    pub(super) len: u8,
}

/// One statement of a rule.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Statement {
    Match {
        op: Operator,
        left: Expression,
        right: Operand,
    },
    Vmap {
        key: Expression,
        data: String,
    },
    Counter(()),
    Accept(()),
    Drop(()),
}

pub(super) const COUNT: Statement = Statement::Counter(());
pub(super) const ACCEPT: Statement = Statement::Accept(());
pub(super) const DROP: Statement = Statement::Drop(());

/// `left` equals the text of `right`.
pub(super) fn is(left: Expression, right: impl ToString) -> Statement {
    Statement::Match {
        op: Operator::Equal,
        left,
        right: Operand::Text(right.to_string()),
    }
}

/// A rule as it is kept.
pub(super) fn rule(statements: impl IntoIterator<Item = Statement>) -> Value {
    let statements: Vec<Statement> = statements.into_iter().collect();
    json!(statements)
}

/// An object of a table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Object<'a> {
    Table(Named<'a>),
    Chain(Chain<'a>),
    Map {
        #[serde(flatten)]
        at: InTable<'a>,
        #[serde(rename = "type")]
        of: &'static str,
        map: &'static str,
    },
    Rule {
        family: &'static str,
        table: &'a str,
        chain: &'a str,
        expr: &'a Value,
    },
    Element {
        #[serde(flatten)]
        at: InTable<'a>,
        elem: Vec<Value>,
    },
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Named<'a> {
    family: &'static str,
    name: &'a str,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct InTable<'a> {
    family: &'static str,
    table: &'a str,
    name: &'a str,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Chain<'a> {
    #[serde(flatten)]
    at: InTable<'a>,
    #[serde(flatten)]
    hook: Option<Hook>,
}

/// Where a base chain is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hook {
    #[serde(rename = "type")]
    kind: String,
    hook: String,
    prio: i32,
    policy: String,
}

impl Hook {
    /// For every frame received on a bridge port, before the kernel's own filters.
    pub(super) fn ingress() -> Self {
        Self {
            kind: "filter".to_owned(),
            hook: "prerouting".to_owned(),
            prio: -300,
            policy: "accept".to_owned(),
        }
    }
}

impl<'a> Object<'a> {
    pub(super) fn table(name: &'a str) -> Self {
        Self::Table(Named {
            family: FAMILY,
            name,
        })
    }

    pub(super) fn chain(table: &'a str, name: &'a str, hook: Option<Hook>) -> Self {
        let at = in_table(table, name);
        Self::Chain(Chain { at, hook })
    }

    /// A map from interfaces to verdicts.
    pub(super) fn port_map(table: &'a str, name: &'a str) -> Self {
        Self::Map {
            at: in_table(table, name),
            of: "ifname",
            map: "verdict",
        }
    }

    /// An element of such a map that leads to a chain.
    pub(super) fn port(table: &'a str, map: &'a str, interface: &str, chain: &str) -> Self {
        Self::Element {
            at: in_table(table, map),
            elem: vec![jump(interface, chain)],
        }
    }

    pub(super) fn rule(table: &'a str, chain: &'a str, expr: &'a Value) -> Self {
        Self::Rule {
            family: FAMILY,
            table,
            chain,
            expr,
        }
    }
}

fn in_table<'a>(table: &'a str, name: &'a str) -> InTable<'a> {
    InTable {
        family: FAMILY,
        table,
        name,
    }
}

fn jump(interface: &str, chain: &str) -> Value {
    json!([interface, {"jump": {"target": chain}}])
}

/// One change of a transaction.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command<'a> {
    Add(Object<'a>),
    Flush(Object<'a>),
    Delete(Object<'a>),
}

/// A table as `nft -j list` shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    nftables: Vec<Listed>,
}

/// One object of a listing; other kinds are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    chain: Option<ListedChain>,
    map: Option<ListedMap>,
    rule: Option<ListedRule>,
}

#[derive(Debug, Deserialize)]
struct ListedChain {
    name: String,
    #[serde(flatten)]
    hook: Option<Hook>,
}

#[derive(Debug, Deserialize)]
struct ListedMap {
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct ListedRule {
    chain: String,
    expr: Value,
}

impl Listing {
    fn chain(&self, name: &str) -> Option<&ListedChain> {
        let mut chains = self.nftables.iter().filter_map(|it| it.chain.as_ref());
        chains.find(|chain| chain.name == name)
    }

    pub(super) fn has_chain(&self, name: &str) -> bool {
        self.chain(name).is_some()
    }

    /// Whether the chain is called where it should be.
    pub(super) fn is_hooked(&self, chain: &str, at: &Hook) -> bool {
        let place = |hook: &Hook| (hook.kind.clone(), hook.hook.clone(), hook.prio);
        let hook = self.chain(chain).and_then(|chain| chain.hook.as_ref());
        hook.is_some_and(|hook| place(hook) == place(at))
    }

    /// Whether the map leads from the interface to the chain.
    pub(super) fn leads_to(&self, map: &str, interface: &str, chain: &str) -> bool {
        let wanted = jump(interface, chain);
        let mut maps = self.nftables.iter().filter_map(|it| it.map.as_ref());
        maps.any(|it| it.name == map && it.elem.contains(&wanted))
    }

    /// The expressions of a chain's rules, with counters reset.
    pub(super) fn rules(&self, chain: &str) -> Vec<Value> {
        let rules = self.nftables.iter().filter_map(|it| it.rule.as_ref());
        rules
            .filter(|rule| rule.chain == chain)
            .map(|rule| {
                let mut expr = rule.expr.clone();
                for statement in expr.as_array_mut().into_iter().flatten() {
                    if let Some(counter) = statement.get_mut("counter") {
                        *counter = Value::Null;
                    }
                }
                expr
            })
            .collect()
    }
}

fn failed(message: impl ToString) -> HostError {
    HostError::Program {
        program: "nft",
        message: message.to_string(),
    }
}

/// Reads a table; `None` if it does not exist.
pub(super) fn list(table: &str) -> Result<Option<Listing>, HostError> {
    let output = Program::new("nft")
        .args(["-j", "list", "table", FAMILY, table])
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return if message.contains("No such file or directory") {
            Ok(None)
        } else {
            Err(failed(message.trim()))
        };
    }
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(failed)
}

/// Makes all changes in one transaction.
pub(super) fn run(commands: &[Command<'_>]) -> Result<(), HostError> {
    let mut child = Program::new("nft")
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let text = json!({"nftables": commands}).to_string();
    if let Some(mut input) = child.stdin.take() {
        // A program that ends early writes the reason to its standard error.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_is_written_as_nft_prints_it() {
        let prefix = Prefix {
            addr: "10.0.0.0".to_owned(),
            len: 24,
        };
        let unequal = Statement::Match {
            op: Operator::Unequal,
            left: IPV4_SOURCE,
            right: Operand::Prefix { prefix },
        };
        let rule = rule([is(ND_TARGET, "0x01"), unequal, COUNT, DROP]);
        let wanted = concat!(
            r#"[{"match":{"op":"==","#,
            r#""left":{"payload":{"base":"th","offset":64,"len":128}},"right":"0x01"}},"#,
            r#"{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"saddr"}},"#,
            r#""right":{"prefix":{"addr":"10.0.0.0","len":24}}}},{"counter":null},{"drop":null}]"#,
        );
        assert_eq!(rule.to_string(), wanted);
    }

    #[test]
    fn listing_shows_hook_map_and_rules() {
        let text = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "bridge", "name": "t", "handle": 1}},
            {"map": {"family": "bridge", "name": "ports", "table": "t", "type": "ifname",
                "map": "verdict", "elem": [["io1", {"jump": {"target": "lock-io1"}}]]}},
            {"chain": {"family": "bridge", "table": "t", "name": "guard", "handle": 2,
                "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}},
            {"chain": {"family": "bridge", "table": "t", "name": "lock-io1", "handle": 3}},
            {"rule": {"family": "bridge", "table": "t", "chain": "lock-io1", "handle": 4,
                "expr": [{"counter": {"packets": 7, "bytes": 9}}, {"drop": null}]}}]}"#;
        let listing: Listing = serde_json::from_str(text).expect("a listing");
        assert!(listing.is_hooked("guard", &Hook::ingress()));
        assert!(!listing.is_hooked("lock-io1", &Hook::ingress()));
        assert!(listing.has_chain("lock-io1") && !listing.has_chain("lock-io2"));
        assert!(listing.leads_to("ports", "io1", "lock-io1"));
        assert!(!listing.leads_to("ports", "io2", "lock-io2"));
        assert_eq!(listing.rules("lock-io1"), [rule([COUNT, DROP])]);
    }
}
