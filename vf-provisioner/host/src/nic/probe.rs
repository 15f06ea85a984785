//! Asks a gateway from a guest's end, with frames as the guest would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use packet::addr::BROADCAST_MAC;
use packet::number::{ethertype, icmpv6};
use packet::wire::{ETHERNET_LEN, arp, be16, ipv6, mac_at, nd};
use serde::{Deserialize, Serialize};
use tenant_config::{Gateway, MacAddr, Name, PortConfig};

use super::parts::netns;
use super::parts::packet_socket::PacketSocket;
use crate::error::HostError;

/// How long a switch may take to answer, if the probe does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until the question is repeated, at first and at most: a slow switch must not get more
/// work.
const REPEAT: Duration = Duration::from_millis(200);
const MAX_REPEAT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// Longer than an ARP request and a Neighbour Solicitation.
const MAX_QUESTION: usize = 128;
/// Where an ARP packet has its target's MAC.
const ARP_TARGET_MAC: usize = 18;

/// A question from a guest's end to its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The port, for messages.
    pub port: Name,
    /// The namespace of the guest's end.
    pub namespace: String,
    /// The interface there.
    pub interface: String,
    /// The guest's MAC.
    pub mac: MacAddr,
    /// The gateway's IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The gateway's IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The MAC that must answer.
    pub gateway_mac: MacAddr,
    /// How many seconds it has for that, if not as many as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_s: Option<u64>,
}

impl Probe {
    /// Asks the gateway of `port` from `interface` in `namespace`.
    pub(crate) fn new(
        port: &PortConfig,
        gateway: &Gateway,
        namespace: &str,
        interface: &str,
    ) -> Self {
        Self {
            port: port.name.clone(),
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
            mac: port.mac,
            ipv4: gateway.ipv4.map(|net| net.addr()),
            ipv6: gateway.ipv6.map(|net| net.addr()),
            gateway_mac: port.gateway_mac,
            patience_s: None,
        }
    }
}

/// Asks for the gateway's MAC from the guest's end, once with a forged source and once with the
/// guest's own: by an ARP probe (RFC 5227, so that no cache learns from it), or by a Neighbour
/// Solicitation if there is only IPv6. The switch must answer the second with its own MAC, and the
/// first not at all; it answers in order, so once the second is answered the first was filtered.
pub(crate) fn ask(probe: &Probe) -> Result<(), HostError> {
    let failed = |message: String| HostError::Probe {
        port: probe.port.clone(),
        message,
    };
    let gateway = match (probe.ipv4, probe.ipv6) {
        (Some(ipv4), _) => IpAddr::V4(ipv4),
        (None, Some(ipv6)) => IpAddr::V6(ipv6),
        (None, None) => return Err(failed("it has no gateway to ask".to_owned())),
    };
    let own = probe.mac;
    let mut octets = own.octets();
    octets[5] ^= 0x55;
    let forged = MacAddr::new(octets).map_err(|error| failed(error.to_string()))?;
    netns::inside(Some(&probe.namespace), || {
        let cannot =
            |verb: &str| HostError::io(format!("cannot {verb} {} for a probe", probe.interface));
        let mut socket =
            PacketSocket::open(&probe.interface, false, &[]).map_err(cannot("open"))?;
        let patience = probe.patience_s.map_or(PATIENCE, Duration::from_secs);
        let started = Instant::now();
        while started.elapsed() < patience {
            for source in [forged, own] {
                socket
                    .send(&question(source, gateway))
                    .map_err(cannot("send on"))?;
            }
            let sent = Instant::now();
            // A guest may send without end, so the clock is read for each frame.
            let repeat = (started.elapsed() / 2).clamp(REPEAT, MAX_REPEAT);
            while sent.elapsed() < repeat {
                let Some(frame) = socket.receive().map_err(cannot("receive on"))? else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                match answer(frame.bytes, gateway) {
                    Some((to, _)) if to == forged.octets() => {
                        return Err(failed(format!(
                            "the switch answered a frame with the forged source {forged}"
                        )));
                    }
                    Some((to, from)) if to == own.octets() => {
                        if from == probe.gateway_mac.octets() {
                            return Ok(());
                        }
                        return Err(failed(format!(
                            "{gateway} is answered for by {} and not by {}",
                            shown(from),
                            probe.gateway_mac
                        )));
                    }
                    _ => {}
                }
            }
        }
        Err(failed(format!(
            "the switch did not answer for {gateway} within {} s",
            patience.as_secs()
        )))
    })
}

/// A frame from `source` that asks who has `gateway`.
fn question(source: MacAddr, gateway: IpAddr) -> Vec<u8> {
    let mut bytes = vec![0; MAX_QUESTION];
    let own = source.octets();
    let length = match gateway {
        IpAddr::V4(gateway) => arp::request(&mut bytes, BROADCAST_MAC, (own, 0), gateway.into()),
        IpAddr::V6(gateway) => nd::solicit(
            &mut bytes,
            (own, source.link_local().into()),
            gateway.into(),
        ),
    };
    bytes.truncate(length);
    bytes
}

/// Of an answer for `gateway`: the MAC that it is for, and the MAC that it gives.
fn answer(frame: &[u8], gateway: IpAddr) -> Option<([u8; 6], [u8; 6])> {
    let (head, packet) = frame.split_at_checked(ETHERNET_LEN)?;
    match (be16(head, 12), gateway) {
        (ethertype::ARP, IpAddr::V4(gateway)) => {
            let arp = arp::parse(packet).ok()?;
            let is_it = !arp.request && arp.sender_ip == u32::from(gateway);
            is_it.then(|| (mac_at(packet, ARP_TARGET_MAC), arp.sender_mac))
        }
        (ethertype::IPV6, IpAddr::V6(gateway)) => {
            let ip = ipv6::parse(packet).ok()?;
            if ip.icmp_type() != Some(icmpv6::NEIGHBOR_ADVERTISEMENT) {
                return None;
            }
            let message = nd::Message::parse(&ip, packet).ok()?;
            let given = message.link_layer(nd::TARGET_LINK_LAYER).next()?;
            (message.target() == u128::from(gateway)).then(|| (mac_at(head, 0), given))
        }
        _ => None,
    }
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{Icmpv6Packet, Ipv6Packet};

    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([0x52, 0x54, 0, 0xaa, 0, last]).expect("a unicast MAC")
    }

    #[test]
    fn question_is_what_a_guest_would_send() {
        let arp = question(mac(1), "10.0.0.1".parse().expect("an address"));
        let wanted = [
            &[0xff; 6][..],
            &[0x52, 0x54, 0, 0xaa, 0, 1, 8, 6],
            &[
                0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0xaa, 0, 1, 0, 0, 0, 0,
            ],
            &[0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
        ]
        .concat();
        assert_eq!(arp, wanted);

        let ns = question(mac(1), "fd00::12:3456".parse().expect("an address"));
        assert_eq!(ns[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let packet = Ipv6Packet::new_checked(&ns[14..]).expect("IPv6");
        assert_eq!(packet.src_addr(), mac(1).link_local());
        assert_eq!(packet.dst_addr().to_string(), "ff02::1:ff12:3456");
        assert_eq!((packet.hop_limit(), ns.len()), (255, 14 + 40 + 32));
        let icmp = Icmpv6Packet::new_checked(packet.payload()).expect("ICMPv6");
        assert!(icmp.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    }

    #[test]
    fn only_an_answer_for_the_gateway_counts() {
        let gateway = "10.0.0.1".parse().expect("an address");
        let mut reply = question(mac(1), gateway);
        assert_eq!(answer(&reply, gateway), None);
        // A reply from the gateway at mac(2) to mac(1).
        reply[21] = 2;
        reply[22..28].copy_from_slice(&mac(2).octets());
        reply[28..32].copy_from_slice(&[10, 0, 0, 1]);
        reply[32..38].copy_from_slice(&mac(1).octets());
        let both = (mac(1).octets(), mac(2).octets());
        assert_eq!(answer(&reply, gateway), Some(both));
        assert_eq!(answer(&reply[..30], gateway), None);
        assert_eq!(
            answer(&reply, "10.0.0.2".parse().expect("an address")),
            None
        );
    }
}
