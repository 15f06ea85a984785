//! A port's network stack and its connections.

use std::fmt;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use crate::connection::{Connection, PORT};
use crate::documents::Documents;
use crate::http::HEAD_MAX;
use crate::token::Secret;
use crate::{PACKET_MAX, Station};

/// The addresses.
const IPV4: Ipv4Address = Ipv4Address::new(169, 254, 169, 254);
const IPV6: Ipv6Address = Ipv6Address::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// Connections of a port at a time; a further one is reset.
pub const CONNECTIONS: usize = 8;
/// Bytes that wait to be read, and to be taken, of one connection.
const RECEIVED: usize = 1024;
const SENT: usize = 4096;

/// The bytes that a port's connections take, beside its documents and what TCP needs for itself: a
/// few kilobytes.
pub const MEMORY_PER_PORT: usize = CONNECTIONS * (RECEIVED + SENT + HEAD_MAX);

/// The metadata of one port.
pub(crate) struct Port {
    station: Station,
    documents: Documents,
    mtu: u16,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<(SocketHandle, Connection)>,
    next: Option<Duration>,
}

/// Without the stack.
impl fmt::Debug for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Port")
            .field("station", &self.station)
            .finish_non_exhaustive()
    }
}

impl Port {
    pub(crate) fn new(station: Station, documents: Documents, mtu: u16, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire {
            mtu,
            received: None,
            out: &mut |_| (),
        };
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(IPV4), 32));
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv6(IPV6), 128));
        });
        // All answers go the same way; there is no router.
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(IPV4);
        let _ = routes.add_default_ipv6_route(IPV6);
        let mut sockets = SocketSet::new(Vec::with_capacity(CONNECTIONS));
        let connections = (0..CONNECTIONS)
            .map(|_| {
                let buffer = |len| SocketBuffer::new(vec![0; len]);
                let mut socket = Socket::new(buffer(RECEIVED), buffer(SENT));
                socket.set_ack_delay(None);
                socket.set_nagle_enabled(false);
                let _ = socket.listen(PORT);
                (sockets.add(socket), Connection::new())
            })
            .collect();
        Self {
            station,
            documents,
            mtu,
            interface,
            sockets,
            connections,
            next: None,
        }
    }

    /// When it has something to do by the clock.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    pub(crate) fn is_same(&self, documents: &Documents, mtu: u16) -> bool {
        self.documents == *documents && self.mtu == mtu
    }

    /// Takes a packet, if there is one, and does what is to be done.
    pub(crate) fn turn(
        &mut self,
        secret: &Secret,
        packet: Option<&[u8]>,
        now: Duration,
        out: &mut dyn FnMut(&[u8]),
    ) {
        let Self {
            interface, sockets, ..
        } = self;
        let at = Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        let mut wire = Wire {
            mtu: self.mtu,
            received: packet,
            out,
        };
        interface.poll_ingress_single(at, &mut wire, sockets);
        for (handle, connection) in &mut self.connections {
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            connection.serve(socket, (&self.documents, secret, self.station), now);
        }
        // A packet of each connection at most: the rest follows in the next turns. So one port's
        // answers leave room for those of others.
        interface.poll_egress(at, &mut wire, sockets);
        for (handle, connection) in &mut self.connections {
            connection.renew(sockets.get_mut(*handle));
        }
        let timer = interface.poll_at(at, sockets);
        let timer = timer.map(|at| Duration::from_micros(at.total_micros().max(0) as u64));
        let ends = self.connections.iter().filter_map(|(_, it)| it.until());
        self.next = ends.chain(timer).min();
    }
}

/// What is between a port's stack and its VM: one packet that came, and whatever is sent.
struct Wire<'w> {
    mtu: u16,
    received: Option<&'w [u8]>,
    out: &'w mut dyn FnMut(&[u8]),
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sent<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Sent(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        // Guests on veth pairs leave TCP's checksum to the device; the filter has verified IPv4's.
        let mut checksum = ChecksumCapabilities::default();
        checksum.tcp = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Received<'t>(&'t [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct Sent<'t>(&'t mut dyn FnMut(&[u8]));

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = [0; PACKET_MAX as usize];
        match packet.get_mut(..len) {
            Some(room) => {
                let written = write(room);
                (self.0)(room);
                written
            }
            // Longer than the MTU that the stack was told: it is not sent.
            None => write(&mut vec![0; len]),
        }
    }
}
