//! Tenants that are onboarded in several commands: no VM of one can speak as an underlay station
//! of another.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::slice;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};
use tenant_config::{Memory, SwitchConfig, Tenant};
use vf_host::launcher::process::{Limits, Process};
use vf_host::nic::veth::Veth;
use vf_host::resource::Resource;
use vf_host::state::{Record, State};
use vf_host::tenants::{Placement, PlacementError, Site, records};

/// The addresses of one tenant.
#[derive(Debug, Clone)]
struct Spec {
    name: &'static str,
    vni: u32,
    inner: String,
    own: String,
    next_hop: String,
    peer: Option<String>,
}

impl Spec {
    fn new(name: &'static str, vni: u32, inner: &str, own: &str) -> Self {
        let net: IpNet = own.parse().expect("an address with its length");
        let next_hop = net.hosts().last().expect("a subnet").to_string();
        Self {
            name,
            vni,
            inner: inner.to_owned(),
            own: own.to_owned(),
            next_hop,
            peer: None,
        }
    }

    fn with_peer(self, vtep: &str) -> Self {
        let peer = Some(vtep.to_owned());
        Self { peer, ..self }
    }

    /// `None` if the addresses are wrong by themselves.
    fn tenant(&self) -> Option<Tenant> {
        let inner: IpNet = self.inner.parse().expect("an address with its length");
        let vm = inner.hosts().nth(10).expect("a subnet of 16 or more");
        let remote = inner.hosts().nth(11).expect("a subnet of 16 or more");
        let mut text = format!(
            "name = \"{}\"\nvni = {}\n[gateway]\nipv4 = \"{}\"\n[uplink]\naddress = \"{}\"\n\
             next_hop = \"{}\"\n[[port]]\nname = \"{}-vm\"\nmac = \"52:54:00:00:00:{:02x}\"\n\
             addresses = [\"{vm}\"]\n",
            self.name,
            self.vni,
            self.inner,
            self.own,
            self.next_hop,
            self.name,
            self.vni & 0xff,
        );
        if let Some(vtep) = &self.peer {
            text += &format!(
                "[tunnel]\nkind = \"geneve\"\n[[tunnel.peer]]\nname = \"b\"\nvtep = \"{vtep}\"\n\
                 prefixes = [\"{remote}\"]\n"
            );
        }
        Tenant::parse(self.name, &text).ok()
    }
}

/// Onboards one tenant beside those of `state`.
fn onboard(tenant: &Tenant, state: &mut State) -> Result<(), PlacementError> {
    let site = Site {
        placement: Placement::Shared(0),
        uid_base: 70000,
        uids_in_use: BTreeSet::new(),
        released_uids: Vec::new(),
        account_of: |_| Ok(None),
    };
    let process = Process {
        binary: PathBuf::from("/nowhere/vswitch"),
        ike_binary: "/usr/bin/vswitch-charon".into(),
        instance: "test".to_owned(),
        limits: Limits {
            cpu_percent: 100,
            memory_mib: 128,
            packet_memory: Memory::default(),
        },
    };
    let veth = Veth::new("test", "test-br0");
    let new = records(slice::from_ref(tenant), state, &site, &veth, &process)?;
    state.tenants.extend(new);
    Ok(())
}

/// Onboards all in order, each by a command of its own; the message of the first refusal.
fn onboard_all(specs: &[Spec]) -> Result<State, String> {
    let mut state = State::default();
    for spec in specs {
        let tenant = spec.tenant().expect("a tenant by itself");
        onboard(&tenant, &mut state).map_err(|error| error.to_string())?;
    }
    Ok(state)
}

#[test]
fn inner_subnet_with_recorded_vtep_is_refused() {
    let blue = Spec::new("blue", 2, "10.2.0.1/24", "192.0.2.2/24");
    let red = Spec::new("red", 1, "192.0.2.1/26", "198.51.100.1/24");
    assert_eq!(
        onboard_all(&[blue.clone(), red.clone()]),
        Err(
            "tenant red: gateway.ipv4: 192.0.2.0/26 overlaps 192.0.2.0/24 on the underlay of \
             tenant blue (uplink.address): a VM there could speak as a station of that tenant's \
             tunnel; choose inner addresses apart from the underlay"
                .to_owned()
        )
    );
    assert_eq!(
        onboard_all(&[red, blue]),
        Err(
            "tenant blue: uplink.address: 192.0.2.0/24 on the underlay overlaps 192.0.2.0/26, \
             inner addresses of tenant red (gateway.ipv4): a VM there could speak as a station of \
             this tenant's tunnel; choose inner addresses apart from the underlay"
                .to_owned()
        )
    );
}

#[test]
fn inner_subnet_with_recorded_peer_is_refused() {
    let blue = Spec::new("blue", 2, "10.2.0.1/24", "192.0.2.2/24").with_peer("203.0.113.7");
    let red = Spec::new("red", 1, "203.0.113.1/24", "198.51.100.1/24");
    assert_eq!(
        onboard_all(&[blue, red]),
        Err(
            "tenant red: gateway.ipv4: 203.0.113.0/24 overlaps 203.0.113.7 on the underlay of \
             tenant blue (tunnel.peer[0].vtep): a VM there could speak as a station of that \
             tenant's tunnel; choose inner addresses apart from the underlay"
                .to_owned()
        )
    );
}

#[test]
fn inner_subnet_of_recorded_plain_tenant_is_refused() {
    let blue = Spec::new("blue", 2, "10.9.0.1/24", "192.0.2.2/24");
    let red = Spec::new("red", 1, "10.9.0.1/24", "192.0.2.1/24");
    assert_eq!(
        onboard_all(&[blue, red]),
        Err(
            "tenant red: gateway.ipv4: 10.9.0.0/24 overlaps 10.9.0.0/24 of tenant blue: both \
             tenants route plainly to the underlay, so its routers could not tell whose address \
             is meant; change one subnet, leave out one [uplink], or set tunnel.only = true in \
             one file"
                .to_owned()
        )
    );
}

#[test]
fn equal_inout_mac_of_recorded_tenant_is_refused() {
    // The digests of these two pairs of VNI and address begin with the same five bytes.
    let blue = Spec::new("blue", 3185, "10.2.0.1/24", "192.0.2.59/24");
    let red = Spec::new("red", 4287, "10.1.0.1/24", "192.0.2.86/24");
    assert_eq!(
        onboard_all(&[blue, red]),
        Err(
            "tenant red: vni: 0a:92:1d:d6:19:01, the MAC of the In/Out side, is also that of \
             tenant blue; it is a digest of the VNI and the uplink's address: change one of these"
                .to_owned()
        )
    );
}

#[test]
fn changed_tenant_is_not_compared_with_its_own_record() {
    let mut state = State::default();
    let before = Spec::new("red", 1, "10.1.0.1/24", "192.0.2.1/24");
    onboard(&before.tenant().expect("a tenant"), &mut state).expect("the host is empty");
    // What was inner becomes the underlay.
    let after = Spec::new("red", 1, "10.3.0.1/24", "10.1.0.77/24");
    onboard(&after.tenant().expect("a tenant"), &mut state).expect("the old addresses are gone");
}

#[test]
fn conflict_of_recorded_tenants_keeps_no_other_away() {
    let blue = Spec::new("blue", 2, "10.2.0.1/24", "192.0.2.2/24");
    let red = Spec::new("red", 1, "192.0.2.1/26", "198.51.100.1/24");
    // As a version without this rule left it.
    let mut state = onboard_all(&[blue]).expect("the host is empty");
    let mut other = onboard_all(&[red]).expect("the host is empty");
    state.tenants.append(&mut other.tenants);
    let green = Spec::new("green", 3, "10.3.0.1/24", "172.16.0.1/24");
    onboard(&green.tenant().expect("a tenant"), &mut state).expect("green meets neither");
}

fn config(record: &Record) -> &SwitchConfig {
    &record.switch().expect("it has a switch").config
}

/// The rules of the tenant's In/Out lock.
fn lock(record: &Record) -> &[Value] {
    let locks = record
        .resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Lock(lock) => Some(&lock.rules[..]),
            _ => None,
        });
    let [rules] = locks.collect::<Vec<_>>()[..] else {
        panic!("it has one lock");
    };
    rules
}

/// Whether the lock accepts plain IPv4 packets with this source, the MAC apart.
fn lets_through(rules: &[Value], source: IpAddr) -> bool {
    let matching = rules.iter().find(|rule| {
        let statements = rule.as_array().expect("a rule is a list");
        statements.iter().all(|statement| {
            let Some(condition) = statement.get("match") else {
                return true;
            };
            let left = &condition["left"]["payload"];
            if (&left["protocol"], &left["field"]) != (&json!("ip"), &json!("saddr")) {
                // Of the MAC or another kind of packet: it does not apply.
                return false;
            }
            assert_eq!(condition["op"], "==");
            let right = &condition["right"];
            let net = match right.get("prefix") {
                None => right.as_str().expect("text").to_owned() + "/32",
                Some(prefix) => {
                    let address = prefix["addr"].as_str().expect("text");
                    format!("{address}/{}", prefix["len"])
                }
            };
            net.parse::<IpNet>().expect("a prefix").contains(&source)
        })
    });
    let rule = matching.expect("the last rule has no condition");
    rule.as_array()
        .expect("a rule is a list")
        .iter()
        .any(|it| it.get("accept").is_some() || it.get("goto").is_some())
}

#[test]
fn lock_allows_only_own_mac_and_own_sources() {
    let red = Spec::new("red", 1, "10.1.0.1/24", "192.0.2.1/24").with_peer("192.0.2.66");
    let state = onboard_all(&[red]).expect("the host is empty");
    let record = state.tenants.values().next().expect("one tenant");
    let rules = lock(record);
    let mac = config(record).uplink.as_ref().expect("an uplink").mac;
    let other_mac = json!({"match": {
        "op": "!=",
        "left": {"payload": {"protocol": "ether", "field": "saddr"}},
        "right": mac.to_string(),
    }});
    assert_eq!(rules[0][0], other_mac);
    assert!(
        rules[0]
            .as_array()
            .expect("a list")
            .iter()
            .any(|it| it.get("drop").is_some())
    );
    for (source, allowed) in [
        ("192.0.2.1", true),
        ("10.1.0.200", true),
        ("192.0.2.2", false),
        ("192.0.2.66", false),
        ("192.0.2.254", false),
        ("10.2.0.1", false),
    ] {
        assert_eq!(
            lets_through(rules, source.parse().expect("an address")),
            allowed,
            "{source}"
        );
    }
}

/// The underlay addresses of a tenant.
fn underlay(config: &SwitchConfig) -> Vec<IpAddr> {
    let uplink = config.uplink.as_ref().expect("an uplink");
    let hop = uplink.next_hops.ipv4.map(IpAddr::V4);
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let peers = peers.map(|peer| peer.vtep);
    uplink.own_addresses().chain(hop).chain(peers).collect()
}

fn spec(name: &'static str, vni: u32) -> impl Strategy<Value = Spec> {
    let net = || (0..4_u32, prop::sample::select(vec![22, 24, 26]));
    let address = |(third, len): (u32, u32), host: u32| format!("10.0.{third}.{host}/{len}");
    let peer = prop::option::of((0..4_u32, 1..62_u32));
    (net(), net(), 1..62_u32, 1..62_u32, peer).prop_map(move |(inner, own, gateway, host, peer)| {
        let spec = Spec::new(name, vni, &address(inner, gateway), &address(own, host));
        match peer {
            Some((third, host)) => spec.with_peer(&format!("10.0.{third}.{host}")),
            None => spec,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_lock_lets_out_a_source_of_another_tenants_underlay(
        red in spec("red", 1),
        blue in spec("blue", 2),
    ) {
        let mut state = State::default();
        for spec in [red, blue] {
            if let Some(tenant) = spec.tenant() {
                let _ = onboard(&tenant, &mut state);
            }
        }
        for (name, record) in &state.tenants {
            for (other, theirs) in &state.tenants {
                for address in underlay(config(theirs)) {
                    let own = config(record).uplink.as_ref().expect("an uplink");
                    let is_own = name == other && own.own_addresses().any(|own| own == address);
                    prop_assert!(
                        is_own || !lets_through(lock(record), address),
                        "{} may send as {} of {}", name, address, other
                    );
                }
            }
        }
    }
}
