//! The part of nftables' JSON (libnftables-json(5)) that the port locks need, as types.
//!
//! A rule is kept and compared as the JSON that `nft -j` prints, because rules that are read back
//! may have other statements.

use std::io::Write;
use std::process::{Command as Program, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::HostError;

/// The families of tables that the locks use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    /// What one device receives, before anything of the host sees it.
    Netdev,
    /// What bridges forward or deliver to the host.
    Bridge,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Netdev, Self::Bridge];

    fn name(self) -> &'static str {
        match self {
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        }
    }

    /// A table of this family, as `nft list tables` prints it.
    pub(super) fn named(self, table: &str) -> String {
        format!("table {} {table}", self.name())
    }
}

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
    /// A field of an extension header of IPv6.
    #[serde(rename = "exthdr")]
    Extension {
        name: &'static str,
        field: &'static str,
    },
    /// Some bits of another value.
    #[serde(rename = "&")]
    Masked(&'static Expression, Mask),
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Mask {
    Text(&'static str),
    Number(u16),
}

const fn field(protocol: &'static str, field: &'static str) -> Expression {
    Expression::Field { protocol, field }
}

const fn transport(offset: u16, len: u16) -> Expression {
    let base = "th";
    Expression::Bytes { base, offset, len }
}

pub(super) const INTERFACE: Expression = Expression::Meta { key: "iifname" };
pub(super) const MARK: Expression = Expression::Meta { key: "mark" };
/// What follows the IP header, for IPv6 behind its extension headers. Unreadable, so neither equal
/// nor unequal to anything, if the kernel cannot follow these.
pub(super) const TRANSPORT: Expression = Expression::Meta { key: "l4proto" };
const ETHER_DESTINATION: Expression = field("ether", "daddr");
/// The group bit of the destination.
pub(super) const GROUP_BIT: Expression =
    Expression::Masked(&ETHER_DESTINATION, Mask::Text("01:00:00:00:00:00"));
/// The block of reserved groups that the destination is in.
pub(super) const GROUP_BLOCK: Expression =
    Expression::Masked(&ETHER_DESTINATION, Mask::Text("ff:ff:ff:ff:ff:f0"));
pub(super) const ETHER_SOURCE: Expression = field("ether", "saddr");
pub(super) const ETHER_TYPE: Expression = field("ether", "type");
pub(super) const ARP_HARDWARE: Expression = field("arp", "htype");
pub(super) const ARP_PROTOCOL: Expression = field("arp", "ptype");
pub(super) const ARP_HARDWARE_LEN: Expression = field("arp", "hlen");
pub(super) const ARP_PROTOCOL_LEN: Expression = field("arp", "plen");
pub(super) const ARP_OPERATION: Expression = field("arp", "operation");
pub(super) const ARP_SENDER_MAC: Expression = field("arp", "saddr ether");
pub(super) const ARP_SENDER_IP: Expression = field("arp", "saddr ip");
pub(super) const IPV4_SOURCE: Expression = field("ip", "saddr");
pub(super) const IPV4_OFFSET: Expression =
    Expression::Masked(&field("ip", "frag-off"), Mask::Number(0x1fff));
pub(super) const IPV6_SOURCE: Expression = field("ip6", "saddr");
pub(super) const IPV6_NEXT: Expression = field("ip6", "nexthdr");
pub(super) const IPV6_HOPS: Expression = field("ip6", "hoplimit");
pub(super) const IPV6_LENGTH: Expression = field("ip6", "length");
pub(super) const IPV6_OFFSET: Expression = Expression::Extension {
    name: "frag",
    field: "frag-off",
};
pub(super) const IPV6_FRAGMENT_NEXT: Expression = Expression::Extension {
    name: "frag",
    field: "nexthdr",
};
pub(super) const UDP_SOURCE: Expression = field("udp", "sport");
pub(super) const UDP_DESTINATION: Expression = field("udp", "dport");
pub(super) const ICMP_TYPE: Expression = field("icmp", "type");
pub(super) const ICMPV6_TYPE: Expression = field("icmpv6", "type");
/// The target of a Neighbour Advertisement.
pub(super) const ND_TARGET: Expression = transport(64, 128);
/// The first option of a Neighbour Solicitation or Advertisement, as far as a MAC's.
pub(super) const ND_OPTION: Expression = transport(192, 64);

/// How two values are compared.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) enum Operator {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    Unequal,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = ">")]
    Above,
}

/// The value that an expression is compared with.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Operand {
    Number(u64),
    Text(String),
    Prefix { prefix: Prefix },
    Set { set: Vec<Operand> },
}

impl From<u64> for Operand {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Operand {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Operand {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Operand {
    /// A set; `nft` prints it in ascending order.
    fn from(all: [T; N]) -> Self {
        Self::Set {
            set: all.map(Into::into).into(),
        }
    }
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
    /// Matches what exceeds a rate, if `inv`.
    Limit {
        rate: u64,
        burst: u64,
        per: &'static str,
        inv: bool,
    },
    /// Sets a value.
    Mangle {
        key: Expression,
        value: u64,
    },
    Goto {
        target: &'static str,
    },
    Counter(()),
    Accept(()),
    Drop(()),
}

pub(super) const COUNT: Statement = Statement::Counter(());
pub(super) const ACCEPT: Statement = Statement::Accept(());
pub(super) const DROP: Statement = Statement::Drop(());

/// `left` compared with `right`.
pub(super) fn compared(left: Expression, op: Operator, right: impl Into<Operand>) -> Statement {
    let right = right.into();
    Statement::Match { op, left, right }
}

/// `left` equals `right`.
pub(super) fn is(left: Expression, right: impl Into<Operand>) -> Statement {
    compared(left, Operator::Equal, right)
}

/// `left` can be read, and differs from `right`; from all of it, if that is a set.
pub(super) fn is_not(left: Expression, right: impl Into<Operand>) -> Statement {
    compared(left, Operator::Unequal, right)
}

/// A rule as it is kept.
pub(super) fn rule(statements: impl IntoIterator<Item = Statement>) -> Value {
    let statements: Vec<Statement> = statements.into_iter().collect();
    json!(statements)
}

/// A chain, as the commands name it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Place<'a> {
    pub(super) family: Family,
    pub(super) table: &'a str,
    pub(super) name: &'a str,
}

/// An object of a table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Object<'a> {
    Table {
        family: Family,
        name: &'a str,
    },
    Chain {
        #[serde(flatten)]
        at: Place<'a>,
        #[serde(flatten)]
        hook: Option<&'a Hook>,
    },
    Map {
        #[serde(flatten)]
        at: Place<'a>,
    },
    Rule {
        family: Family,
        table: &'a str,
        chain: &'a str,
        expr: &'a Value,
    },
}

/// Where a base chain is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hook {
    #[serde(rename = "type")]
    kind: String,
    hook: String,
    prio: i32,
    policy: String,
    /// `nft` 1.0.6 does not print it in JSON.
    #[serde(
        rename = "dev",
        skip_deserializing,
        skip_serializing_if = "Option::is_none"
    )]
    device: Option<String>,
}

impl Hook {
    fn new(hook: &str, prio: i32, policy: &str) -> Self {
        Self {
            kind: "filter".to_owned(),
            hook: hook.to_owned(),
            prio,
            policy: policy.to_owned(),
            device: None,
        }
    }

    /// For every frame that a device receives, before other chains; what no rule accepts is
    /// dropped.
    pub(super) fn device(interface: &str) -> Self {
        Self {
            device: Some(interface.to_owned()),
            ..Self::new("ingress", -500, "drop")
        }
    }

    /// For every frame received on a bridge port, before the kernel's own filters.
    pub(super) fn bridge_ports() -> Self {
        Self::new("prerouting", -300, "accept")
    }

    /// For every frame that a bridge delivers to the host.
    pub(super) fn bridge_host() -> Self {
        Self::new("input", -300, "accept")
    }
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
    /// The same as text: `nft` 1.0.6 prints some things only there.
    #[serde(skip)]
    text: String,
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

    /// The names of all chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        let chains = self.nftables.iter().filter_map(|it| it.chain.as_ref());
        chains.map(|chain| chain.name.as_str())
    }

    /// The names of all maps.
    pub(super) fn maps(&self) -> impl Iterator<Item = &str> {
        let maps = self.nftables.iter().filter_map(|it| it.map.as_ref());
        maps.map(|map| map.name.as_str())
    }

    /// The chains of a dormant table are not called.
    pub(super) fn is_dormant(&self) -> bool {
        let mut flags = self
            .text
            .lines()
            .filter(|line| line.trim().starts_with("flags"));
        flags.any(|line| line.contains("dormant"))
    }

    /// Whether the chain is called where it should be.
    pub(super) fn is_hooked(&self, chain: &str, at: &Hook) -> bool {
        let device = at.device.as_deref();
        let at = Hook {
            device: None,
            ..at.clone()
        };
        let hook = self.chain(chain).and_then(|chain| chain.hook.as_ref());
        hook == Some(&at)
            && !self.is_dormant()
            && device.is_none_or(|device| self.is_on_device(chain, device))
    }

    fn is_on_device(&self, chain: &str, interface: &str) -> bool {
        let begin = format!("chain {chain} {{");
        let mut lines = self.text.lines().skip_while(|line| line.trim() != begin);
        let hook = lines.nth(1).unwrap_or_default();
        hook.contains(" hook ") && hook.contains(&format!("\"{interface}\""))
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

/// What `nft list` prints; `None` if it does not exist.
fn listed(arguments: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
    let output = Program::new("nft")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("No such file or directory") {
        Ok(None)
    } else {
        Err(failed(message.trim()))
    }
}

/// All tables, as text.
pub(super) fn tables() -> Result<Vec<String>, HostError> {
    let text = as_text(&["list", "tables"])?.unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}

/// Reads a table; `None` if it does not exist.
pub(super) fn list(family: Family, table: &str) -> Result<Option<Listing>, HostError> {
    let what = ["list", "table", family.name(), table];
    let Some(text) = as_text(&what)? else {
        return Ok(None);
    };
    let json = as_json(&what).ok().flatten().unwrap_or_default();
    if let Ok(listing) = serde_json::from_slice(&json) {
        return Ok(Some(Listing { text, ..listing }));
    }
    // For the flags of a table `nft` 1.0.6 prints garbage or crashes, but not with its chains.
    let names = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("chain ")?;
        name.strip_suffix(" {")
    });
    let mut nftables = Vec::new();
    for name in names {
        let chain = ["list", "chain", family.name(), table, name];
        let json = as_json(&chain)?.unwrap_or_default();
        let listing: Listing = serde_json::from_slice(&json).map_err(failed)?;
        nftables.extend(listing.nftables);
    }
    Ok(Some(Listing { nftables, text }))
}

/// Reads a chain; `None` if it does not exist.
pub(super) fn list_chain(at: Place<'_>) -> Result<Option<Listing>, HostError> {
    let what = ["list", "chain", at.family.name(), at.table, at.name];
    let (Some(json), Some(text)) = (as_json(&what)?, as_text(&what)?) else {
        return Ok(None);
    };
    let listing = serde_json::from_slice(&json).map_err(failed)?;
    Ok(Some(Listing { text, ..listing }))
}

/// Protocols have numbers: their names are the host's to choose.
fn as_json(what: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
    listed(&[&["-j", "-p"], what].concat())
}

fn as_text(what: &[&str]) -> Result<Option<String>, HostError> {
    let text = listed(what)?;
    Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// Whether `nft` knows that this table persists. If not, it prints it in a way that it cannot read,
/// and as JSON garbage.
pub(super) fn knows_persistence(family: Family, table: &str) -> Result<bool, HostError> {
    let text = as_text(&["list", "table", family.name(), table])?;
    let text = text.unwrap_or_default();
    Ok(text.lines().any(|line| line.contains("persist")))
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
        let rule = rule([
            is(ND_TARGET, "0x01"),
            is_not(IPV4_SOURCE, Operand::Prefix { prefix }),
            is(GROUP_BIT, "01:00:00:00:00:00"),
            is_not(IPV6_OFFSET, 0),
            is_not(UDP_SOURCE, [67, 547]),
            Statement::Limit {
                rate: 9,
                burst: 8,
                per: "second",
                inv: true,
            },
            COUNT,
            DROP,
        ]);
        let wanted = json!([
            {"match": {"op": "==", "left": {"payload": {"base": "th", "offset": 64, "len": 128}},
                "right": "0x01"}},
            {"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                "right": {"prefix": {"addr": "10.0.0.0", "len": 24}}}},
            {"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "ether", "field":
                "daddr"}}, "01:00:00:00:00:00"]}, "right": "01:00:00:00:00:00"}},
            {"match": {"op": "!=", "left": {"exthdr": {"name": "frag", "field": "frag-off"}},
                "right": 0}},
            {"match": {"op": "!=", "left": {"payload": {"protocol": "udp", "field": "sport"}},
                "right": {"set": [67, 547]}}},
            {"limit": {"rate": 9, "burst": 8, "per": "second", "inv": true}},
            {"counter": null},
            {"drop": null}
        ]);
        assert_eq!(rule, wanted);
    }

    #[test]
    fn listing_shows_hooks_and_rules() {
        let text = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "netdev", "name": "t", "handle": 1}},
            {"chain": {"family": "netdev", "table": "t", "name": "lock-io1", "handle": 2,
                "type": "filter", "hook": "ingress", "prio": -500, "policy": "drop"}},
            {"chain": {"family": "netdev", "table": "t", "name": "pass", "handle": 3}},
            {"rule": {"family": "netdev", "table": "t", "chain": "pass", "handle": 4,
                "expr": [{"counter": {"packets": 7, "bytes": 9}}, {"drop": null}]}}]}"#;
        let mut listing: Listing = serde_json::from_str(text).expect("a listing");
        assert!(!listing.is_hooked("lock-io1", &Hook::device("io1")));
        listing.text = "table netdev t {\n\tchain pass {\n\t\tcounter drop\n\t}\n\n\
            \tchain lock-io1 {\n\t\ttype filter hook ingress device \"io1\" priority -500; policy \
            drop;\n\t\tether saddr 1 drop\n\t}\n}\n"
            .to_owned();
        assert!(listing.is_hooked("lock-io1", &Hook::device("io1")));
        assert!(!listing.is_hooked("lock-io1", &Hook::device("io")));
        assert!(!listing.is_hooked("lock-io1", &Hook::bridge_ports()));
        assert!(!listing.is_hooked("pass", &Hook::device("io1")));
        assert_eq!(listing.chains().collect::<Vec<_>>(), ["lock-io1", "pass"]);
        assert_eq!(listing.rules("pass"), [rule([COUNT, DROP])]);
        listing.text.insert_str(18, "\tflags dormant\n\n");
        assert!(!listing.is_hooked("lock-io1", &Hook::device("io1")));
    }
}
