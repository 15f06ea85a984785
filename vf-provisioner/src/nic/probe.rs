//! Asks a gateway from a guest's end, with frames as the guest would send them.

use std::time::{Duration, Instant};

use smoltcp::phy::{Device, Medium, RawSocket, RxToken, TxToken};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

use super::netlink;
use crate::host::HostError;
use crate::state::Probe;

const PATIENCE: Duration = Duration::from_secs(5);
const REPEAT: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(2);

/// Sends, from the guest's end, an ARP probe (RFC 5227, so that no cache learns from it) for the
/// gateway with a forged source, and one with the guest's own. The switch must answer the second
/// with its own MAC, and the first not at all; it answers in order, so once the second is answered
/// the first has been judged. A tenant without IPv4 is not asked.
pub(crate) fn ask(probe: &Probe) -> Result<(), HostError> {
    let Some(gateway) = probe.ipv4 else {
        return Ok(());
    };
    let said = |message: String| HostError::Probe {
        port: probe.port.clone(),
        message,
    };
    netlink::inside(Some(&probe.namespace), || {
        let mut socket = RawSocket::new(&probe.interface, Medium::Ethernet).map_err(
            HostError::io(format!("cannot open {} for a probe", probe.interface)),
        )?;
        let own = EthernetAddress(probe.mac.octets());
        let mut forged = own;
        forged.0[5] ^= 0x55;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            send(&mut socket, forged, gateway);
            send(&mut socket, own, gateway);
            let sent = Instant::now();
            while sent.elapsed() < REPEAT {
                while let Some((token, _)) = socket.receive(smoltcp::time::Instant::ZERO) {
                    match token.consume(|frame| answer(frame, gateway)) {
                        Some((to, _)) if to == forged => {
                            return Err(said(format!(
                                "the switch answered a frame with the forged source {forged}"
                            )));
                        }
                        Some((to, from)) if to == own => {
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
                }
                std::thread::sleep(LOOK);
            }
        }
        Err(said(format!(
            "the switch did not answer ARP for {gateway} within {} s",
            PATIENCE.as_secs()
        )))
    })
}

fn send(socket: &mut RawSocket, source: EthernetAddress, gateway: std::net::Ipv4Addr) {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: source,
        source_protocol_addr: std::net::Ipv4Addr::UNSPECIFIED,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: gateway,
    };
    let ethernet = EthernetRepr {
        src_addr: source,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    if let Some(token) = socket.transmit(smoltcp::time::Instant::ZERO) {
        token.consume(ethernet.buffer_len() + arp.buffer_len(), |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            ethernet.emit(&mut frame);
            arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }
}

/// Of an ARP reply from `gateway`: to whom, and which MAC it gives.
fn answer(frame: &[u8], gateway: std::net::Ipv4Addr) -> Option<(EthernetAddress, EthernetAddress)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr,
            source_protocol_addr,
            target_hardware_addr,
            ..
        } if source_protocol_addr == gateway => Some((target_hardware_addr, source_hardware_addr)),
        _ => None,
    }
}
