//! The part of nftables' JSON (libnftables-json(5)) that the port locks need, as types.
//!
//! A rule is kept and compared as the JSON that `nft -j` prints, because rules that are read back
//! may have other statements.

use std::collections::BTreeMap;
use std::process::Command as Program;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::child;
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

/// What `nft list` shows of a table, found by the chain's name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// By name, in the order of the names.
    chains: BTreeMap<String, Chain>,
    maps: Vec<String>,
    is_dormant: bool,
}

#[derive(Debug, Default)]
struct Chain {
    hook: Option<Hook>,
    /// The first line of its text, which names its device: `nft` 1.0.6 prints that only there.
    first_line: String,
    /// The rules' expressions, with counters reset.
    rules: Vec<Value>,
}

/// The same as `nft -j` prints it.
#[derive(Debug, Default, Deserialize)]
struct Document {
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
}

#[derive(Debug, Deserialize)]
struct ListedRule {
    chain: String,
    expr: Value,
}

impl Listing {
    fn new(document: Document, text: &str) -> Self {
        let mut listing = Self::default();
        for listed in document.nftables {
            if let Some(ListedChain { name, hook }) = listed.chain {
                listing.chains.entry(name).or_default().hook = hook;
            }
            listing.maps.extend(listed.map.map(|map| map.name));
            if let Some(ListedRule { chain, mut expr }) = listed.rule {
                for statement in expr.as_array_mut().into_iter().flatten() {
                    if let Some(counter) = statement.get_mut("counter") {
                        *counter = Value::Null;
                    }
                }
                listing.chains.entry(chain).or_default().rules.push(expr);
            }
        }
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            listing.is_dormant |= line.starts_with("flags") && line.contains("dormant");
            if let Some(chain) = chain_of_line(line).and_then(|it| listing.chains.get_mut(it)) {
                chain.first_line = lines.next().unwrap_or_default().to_owned();
            }
        }
        listing
    }

    /// Whether there is a chain of this name.
    pub(super) fn has(&self, chain: &str) -> bool {
        self.chains.contains_key(chain)
    }

    /// The names of all chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// The names of all maps.
    pub(super) fn maps(&self) -> impl Iterator<Item = &str> {
        self.maps.iter().map(String::as_str)
    }

    /// The chains of a dormant table are not called.
    pub(super) fn is_dormant(&self) -> bool {
        self.is_dormant
    }

    /// Whether the chain is called where it should be.
    pub(super) fn is_hooked(&self, chain: &str, at: &Hook) -> bool {
        let Some(chain) = self.chains.get(chain) else {
            return false;
        };
        let device = at.device.as_deref();
        let at = Hook {
            device: None,
            ..at.clone()
        };
        chain.hook.as_ref() == Some(&at)
            && !self.is_dormant
            && device.is_none_or(|device| chain.is_on_device(device))
    }

    /// The expressions of a chain's rules, with counters reset.
    pub(super) fn rules(&self, chain: &str) -> Vec<Value> {
        let chain = self.chains.get(chain);
        chain.map(|chain| chain.rules.clone()).unwrap_or_default()
    }
}

impl Chain {
    fn is_on_device(&self, interface: &str) -> bool {
        let hook = &self.first_line;
        hook.contains(" hook ") && hook.contains(&format!("\"{interface}\""))
    }
}

/// The name of the chain that begins with this line.
fn chain_of_line(line: &str) -> Option<&str> {
    line.trim().strip_prefix("chain ")?.strip_suffix(" {")
}

fn failed(message: impl ToString) -> HostError {
    HostError::Program {
        program: "nft",
        message: message.to_string(),
    }
}

/// What `nft list` prints; `None` if it does not exist.
fn listed(arguments: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
    let output = child::output(Program::new("nft").args(arguments), &[]).map_err(failed)?;
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
    let (json, text) = both(&what);
    let Some(text) = text? else {
        return Ok(None);
    };
    if let Ok(document) = serde_json::from_slice(&json.ok().flatten().unwrap_or_default()) {
        return Ok(Some(Listing::new(document, &text)));
    }
    // For the flags of a table `nft` 1.0.6 prints garbage or crashes, but not with its chains.
    let mut whole = Document::default();
    for name in text.lines().filter_map(chain_of_line) {
        let chain = ["list", "chain", family.name(), table, name];
        let json = as_json(&chain)?.unwrap_or_default();
        let document: Document = serde_json::from_slice(&json).map_err(failed)?;
        whole.nftables.extend(document.nftables);
    }
    Ok(Some(Listing::new(whole, &text)))
}

/// Reads a chain; `None` if it does not exist.
pub(super) fn list_chain(at: Place<'_>) -> Result<Option<Listing>, HostError> {
    let (json, text) = both(&["list", "chain", at.family.name(), at.table, at.name]);
    let (Some(json), Some(text)) = (json?, text?) else {
        return Ok(None);
    };
    let document = serde_json::from_slice(&json).map_err(failed)?;
    Ok(Some(Listing::new(document, &text)))
}

/// What `nft` prints, if the object exists.
type Printed<T> = Result<Option<T>, HostError>;

/// The same as JSON and as text, at the same time.
fn both(what: &[&str]) -> (Printed<Vec<u8>>, Printed<String>) {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new();
        let json = builder.spawn_scoped(scope, || as_json(what));
        let text = as_text(what);
        let json = match json.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(json)) => json,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // No thread can be started.
            Err(_) => as_json(what),
        };
        (json, text)
    })
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
    let text = json!({"nftables": commands}).to_string();
    let program = &mut Program::new("nft");
    let program = program.args(["-j", "-f", "-"]);
    let output = child::output(program, text.as_bytes()).map_err(failed)?;
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
        let listing =
            |shown: &str| Listing::new(serde_json::from_str(text).expect("a listing"), shown);
        assert!(!listing("").is_hooked("lock-io1", &Hook::device("io1")));
        let mut shown = "table netdev t {\n\tchain pass {\n\t\tcounter drop\n\t}\n\n\
            \tchain lock-io1 {\n\t\ttype filter hook ingress device \"io1\" priority -500; policy \
            drop;\n\t\tether saddr 1 drop\n\t}\n}\n"
            .to_owned();
        let seen = listing(&shown);
        assert!(seen.is_hooked("lock-io1", &Hook::device("io1")));
        assert!(!seen.is_hooked("lock-io1", &Hook::device("io")));
        assert!(!seen.is_hooked("lock-io1", &Hook::bridge_ports()));
        assert!(!seen.is_hooked("pass", &Hook::device("io1")));
        assert_eq!(seen.chains().collect::<Vec<_>>(), ["lock-io1", "pass"]);
        assert_eq!(seen.rules("pass"), [rule([COUNT, DROP])]);
        assert!(seen.has("pass") && !seen.has("lock"));
        shown.insert_str(18, "\tflags dormant\n\n");
        assert!(!listing(&shown).is_hooked("lock-io1", &Hook::device("io1")));
    }
}
