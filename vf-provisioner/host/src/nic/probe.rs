//! Asks a gateway from a guest's end, with frames as the guest would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use smoltcp::phy::{ChecksumCapabilities, Device, Medium, RawSocket, RxToken, TxToken};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscRepr,
};
use tenant_config::{Gateway, MacAddr, Name, PortConfig};

use super::parts::netns;
use crate::error::HostError;

/// How long a switch may take to answer, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until the question is asked again, first and later: a switch that is slow is not to have more to do.
const REPEAT: Duration = Duration::from_millis(200);
const REPEAT_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
const NOW: smoltcp::time::Instant = smoltcp::time::Instant::ZERO;

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
/// Solicitation where there is only IPv6. The switch must answer the second with its own MAC, and
/// the first not at all; it answers in order, so once the second is answered the first was judged.
pub(crate) fn ask(probe: &Probe) -> Result<(), HostError> {
    let said = |message: String| HostError::Probe {
        port: probe.port.clone(),
        message,
    };
    let gateway = match (probe.ipv4, probe.ipv6) {
        (Some(ipv4), _) => IpAddr::V4(ipv4),
        (None, Some(ipv6)) => IpAddr::V6(ipv6),
        (None, None) => return Err(said("it has no gateway to ask".to_owned())),
    };
    let own = probe.mac;
    let mut octets = own.octets();
    octets[5] ^= 0x55;
    let forged = MacAddr::new(octets).map_err(|error| said(error.to_string()))?;
    netns::inside(Some(&probe.namespace), || {
        let mut socket = RawSocket::new(&probe.interface, Medium::Ethernet).map_err(
            HostError::io(format!("cannot open {} for a probe", probe.interface)),
        )?;
        let patience = probe.patience_s.map_or(PATIENCE, Duration::from_secs);
        let started = Instant::now();
        while started.elapsed() < patience {
            for source in [forged, own] {
                let question = question(source, gateway);
                if let Some(token) = socket.transmit(NOW) {
                    token.consume(question.len(), |frame| frame.copy_from_slice(&question));
                }
            }
            let sent = Instant::now();
            // A guest may send without end, so the clock is looked at for each frame.
            let repeat = (started.elapsed() / 2).clamp(REPEAT, REPEAT_MAX);
            while sent.elapsed() < repeat {
                if let Some((token, _)) = socket.receive(NOW) {
                    match token.consume(|frame| answer(frame, gateway)) {
                        Some((to, _)) if to.0 == forged.octets() => {
                            return Err(said(format!(
                                "the switch answered a frame with the forged source {forged}"
                            )));
                        }
                        Some((to, from)) if to.0 == own.octets() => {
                            if from.0 != probe.gateway_mac.octets() {
                                return Err(said(format!(
                                    "{gateway} is answered for by {from} and not by {}",
                                    probe.gateway_mac
                                )));
                            }
                            return Ok(());
                        }
                        _ => {}
                    }
                } else {
                    std::thread::sleep(LOOK);
                }
            }
        }
        Err(said(format!(
            "the switch did not answer for {gateway} within {} s",
            patience.as_secs()
        )))
    })
}

/// A frame from `source` that asks who has `gateway`.
fn question(source: MacAddr, gateway: IpAddr) -> Vec<u8> {
    let hardware = EthernetAddress(source.octets());
    match gateway {
        IpAddr::V4(gateway) => {
            let arp = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: hardware,
                source_protocol_addr: std::net::Ipv4Addr::UNSPECIFIED,
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: gateway,
            };
            let ethernet = EthernetRepr {
                src_addr: hardware,
                dst_addr: EthernetAddress::BROADCAST,
                ethertype: EthernetProtocol::Arp,
            };
            framed(ethernet, arp.buffer_len(), |payload| {
                arp.emit(&mut ArpPacket::new_unchecked(payload));
            })
        }
        IpAddr::V6(gateway) => {
            let [.., a, b, c] = gateway.octets();
            // The solicited-node group (RFC 4291, 2.7.1), and its MAC (RFC 2464, 7).
            let group = std::net::Ipv6Addr::from(
                0xff02_0000_0000_0000_0000_0001_ff00_0000_u128
                    | u128::from(u32::from_be_bytes([0, a, b, c])),
            );
            let icmp = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr: gateway,
                lladdr: Some(hardware.into()),
            });
            let ip = Ipv6Repr {
                src_addr: source.link_local(),
                dst_addr: group,
                next_header: IpProtocol::Icmpv6,
                payload_len: icmp.buffer_len(),
                hop_limit: 255,
            };
            let ethernet = EthernetRepr {
                src_addr: hardware,
                dst_addr: EthernetAddress([0x33, 0x33, 0xff, a, b, c]),
                ethertype: EthernetProtocol::Ipv6,
            };
            let length = ip.buffer_len() + icmp.buffer_len();
            framed(ethernet, length, |payload| {
                let mut packet = Ipv6Packet::new_unchecked(payload);
                ip.emit(&mut packet);
                icmp.emit(
                    &ip.src_addr,
                    &ip.dst_addr,
                    &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
                    &ChecksumCapabilities::default(),
                );
            })
        }
    }
}

fn framed(ethernet: EthernetRepr, length: usize, emit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; ethernet.buffer_len() + length];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    emit(frame.payload_mut());
    bytes
}

/// Of an answer for `gateway`: to whom it is sent, and which MAC it gives.
fn answer(frame: &[u8], gateway: IpAddr) -> Option<(EthernetAddress, EthernetAddress)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    match (frame.ethertype(), gateway) {
        (EthernetProtocol::Arp, IpAddr::V4(gateway)) => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            match ArpRepr::parse(&packet).ok()? {
                ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr,
                    source_protocol_addr,
                    target_hardware_addr,
                    ..
                } if source_protocol_addr == gateway => {
                    Some((target_hardware_addr, source_hardware_addr))
                }
                _ => None,
            }
        }
        (EthernetProtocol::Ipv6, IpAddr::V6(gateway)) => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            let ip = Ipv6Repr::parse(&packet).ok()?;
            if ip.next_header != IpProtocol::Icmpv6 {
                return None;
            }
            let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
            let checksums = ChecksumCapabilities::default();
            match Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &icmp, &checksums).ok()? {
                Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                    target_addr,
                    lladdr: Some(given),
                    ..
                }) if target_addr == gateway => {
                    let given = given.as_bytes().try_into().ok().map(EthernetAddress)?;
                    Some((frame.dst_addr(), given))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([0x52, 0x54, 0, 0xaa, 0, last]).expect("a unicast MAC")
    }

    #[test]
    fn the_questions_are_what_a_guest_would_send() {
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
    fn only_an_answer_for_the_gateway_is_one() {
        let gateway = "10.0.0.1".parse().expect("an address");
        let mut reply = question(mac(1), gateway);
        assert_eq!(answer(&reply, gateway), None);
        // A reply from the gateway at mac(2) to mac(1).
        reply[21] = 2;
        reply[22..28].copy_from_slice(&mac(2).octets());
        reply[28..32].copy_from_slice(&[10, 0, 0, 1]);
        reply[32..38].copy_from_slice(&mac(1).octets());
        let both = (
            EthernetAddress(mac(1).octets()),
            EthernetAddress(mac(2).octets()),
        );
        assert_eq!(answer(&reply, gateway), Some(both));
        assert_eq!(answer(&reply[..30], gateway), None);
        assert_eq!(
            answer(&reply, "10.0.0.2".parse().expect("an address")),
            None
        );
    }
}
