//! A client whose TCP is smoltcp's too, and the server that it is joined with.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use metadata::{Secret, Served, Server};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use tenant_config::{MetadataConfig, SwitchConfig};

pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
pub(crate) const VM4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub(crate) const VM6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0x11);

/// A request for a token.
pub(crate) const TOKEN: &str = "PUT /latest/api/token HTTP/1.1\r\nHost: m\r\n\
                                X-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";

/// `bytes` with every `from` replaced.
pub(crate) fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|it| it == from) {
        replaced.extend(&rest[..at]);
        replaced.extend(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend(rest);
    replaced
}

/// Makes the checksum of an IPv4 header of 20 bytes right.
pub(crate) fn set_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let words = packet[..20].chunks(2);
    let sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The longest there may be, and no text.
pub(crate) fn user_data() -> Vec<u8> {
    (0..16_384_u32).map(|at| (at * 7 % 251) as u8).collect()
}

/// Two ports with metadata, and one without.
pub(crate) fn config() -> SwitchConfig {
    let port = |name: &str, number: u8, metadata: Option<serde_json::Value>| {
        serde_json::json!({
            "name": name,
            "device": { "driver": "offline" },
            "mac": format!("52:54:00:aa:00:{number:02x}"),
            "gateway_mac": format!("02:00:13:89:00:{number:02x}"),
            "addresses": [format!("10.0.0.1{number}/32")],
            "metadata": metadata,
        })
    };
    let web = serde_json::json!({
        "instance_id": "i-web",
        "hostname": "web.example",
        "public_keys": ["ssh-ed25519 AAAA me", "ssh-rsa BBBB"],
        "user_data": base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            user_data(),
        ),
        "vendor_data": "I2Nsb3VkLWNvbmZpZwo=",
    });
    let db = serde_json::json!({ "instance_id": "i-db", "hostname": "db" });
    let config = serde_json::json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd01::1/64" },
        "ports": [port("web", 1, Some(web)), port("db", 2, Some(db)), port("none", 3, None)],
    });
    SwitchConfig::from_json("a test", &config.to_string()).expect("a configuration")
}

/// The same with other metadata of the first port.
pub(crate) fn with(change: impl FnOnce(&mut MetadataConfig)) -> SwitchConfig {
    let mut config = config();
    change(config.ports[0].metadata.as_mut().expect("metadata"));
    config
}

pub(crate) fn served(config: &SwitchConfig) -> Served {
    Served::of(config)
}

/// The MAC of the VM of a port, counted from 0.
pub(crate) fn station(port: u16) -> [u8; 6] {
    [0x52, 0x54, 0, 0xaa, 0, port as u8 + 1]
}

/// The server, and the clock.
pub(crate) struct Wire {
    pub(crate) server: Server,
    pub(crate) now: Duration,
    /// The client's address, and where it connects to.
    pub(crate) source: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) to_port: u16,
    /// What the server has sent.
    pub(crate) seen: Vec<Vec<u8>>,
    /// The same, for each client's port, until it takes it.
    waiting: VecDeque<Vec<u8>>,
    next_port: u16,
}

impl Wire {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        let mut server = Server::new(Secret::new([7; 32]));
        server.configure(Served::of(config));
        Self {
            server,
            now: Duration::from_secs(1_000),
            source: VM4.into(),
            to: GATEWAY4.into(),
            to_port: 80,
            seen: Vec::new(),
            waiting: VecDeque::new(),
            next_port: 20_000,
        }
    }

    /// Sends a packet from the VM of a port, and takes what is answered.
    pub(crate) fn send(&mut self, port: u16, packet: &[u8]) {
        let Self {
            server,
            seen,
            waiting,
            ..
        } = self;
        server.receive(station(port), packet, self.now, &mut |answer| {
            seen.push(answer.to_vec());
            waiting.push_back(answer.to_vec());
        });
    }

    pub(crate) fn poll(&mut self) {
        let Self {
            server,
            seen,
            waiting,
            ..
        } = self;
        server.poll(self.now, &mut |_, answer| {
            seen.push(answer.to_vec());
            waiting.push_back(answer.to_vec());
        });
    }

    /// One connection with one request; the whole answer.
    pub(crate) fn ask(&mut self, port: u16, request: &str) -> String {
        String::from_utf8(self.ask_bytes(port, request.as_bytes())).expect("UTF-8")
    }

    pub(crate) fn ask_bytes(&mut self, port: u16, request: &[u8]) -> Vec<u8> {
        self.next_port += 1;
        let mut client = Client::new(self, port, self.next_port);
        client.send(self, request);
        let answer = client.received_bytes(self);
        client.close(self);
        answer
    }

    /// Whether nothing is said to somebody who connects from there.
    pub(crate) fn silent(&mut self, port: u16) -> bool {
        self.seen.clear();
        self.next_port += 1;
        let _ = Client::new(self, port, self.next_port);
        self.seen.is_empty()
    }

    /// Begins a handshake, and forgets it.
    pub(crate) fn syn(&mut self, port: u16, from: u16) {
        let mut client = Client::bare(self, port, from);
        client.poll(self.now);
        for packet in std::mem::take(&mut client.device.sent) {
            self.send(port, &packet);
        }
        self.waiting.clear();
    }
}

/// One connection.
pub(crate) struct Client {
    port: u16,
    device: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    got: Vec<u8>,
    reads: bool,
}

impl Client {
    /// Connects.
    pub(crate) fn new(wire: &mut Wire, port: u16, from: u16) -> Self {
        let mut client = Self::bare(wire, port, from);
        client.turn(wire);
        client
    }

    fn bare(wire: &Wire, port: u16, from: u16) -> Self {
        let mut device = Queues::default();
        let config = Config::new(HardwareAddress::Ip);
        let at = Instant::from_micros(wire.now.as_micros() as i64);
        let mut interface = Interface::new(config, &mut device, at);
        let source = IpAddress::from(wire.source);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(source, 8)).expect("room");
        });
        let routes = interface.routes_mut();
        routes.add_default_ipv4_route(VM4).expect("room");
        routes.add_default_ipv6_route(VM6).expect("room");
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(4096), buffer(4096));
        let to = IpEndpoint::new(wire.to.into(), wire.to_port);
        let local = IpEndpoint::new(source, from);
        socket.set_ack_delay(None);
        socket
            .connect(interface.context(), to, local)
            .expect("it is not open");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            port,
            device,
            interface,
            sockets,
            handle,
            got: Vec::new(),
            reads: true,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn poll(&mut self, now: Duration) {
        let at = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(at, &mut self.device, &mut self.sockets);
    }

    /// Sends and takes until nothing moves.
    pub(crate) fn turn(&mut self, wire: &mut Wire) {
        for _ in 0..200 {
            self.poll(wire.now);
            let sent = std::mem::take(&mut self.device.sent);
            for packet in &sent {
                wire.send(self.port, packet);
            }
            self.device.received.append(&mut wire.waiting);
            if self.reads {
                let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
                while socket.can_recv() {
                    let got = &mut self.got;
                    let took = socket.recv(|bytes| {
                        got.extend_from_slice(bytes);
                        (bytes.len(), ())
                    });
                    took.expect("it is open");
                }
            }
            if sent.is_empty() && self.device.received.is_empty() {
                break;
            }
        }
        wire.poll();
    }

    pub(crate) fn send(&mut self, wire: &mut Wire, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket().send_slice(rest) {
                Ok(0) | Err(_) => break,
                Ok(len) => rest = &rest[len..],
            }
            self.turn(wire);
        }
        self.turn(wire);
    }

    /// Sends, and takes nothing of the answer.
    pub(crate) fn stall(&mut self, wire: &mut Wire, bytes: &[u8]) {
        self.reads = false;
        self.send(wire, bytes);
    }

    pub(crate) fn received_bytes(&mut self, wire: &mut Wire) -> Vec<u8> {
        self.turn(wire);
        std::mem::take(&mut self.got)
    }

    pub(crate) fn received(&mut self, wire: &mut Wire) -> String {
        String::from_utf8(self.received_bytes(wire)).expect("UTF-8")
    }

    pub(crate) fn is_open(&mut self, wire: &mut Wire) -> bool {
        self.turn(wire);
        self.socket().state() == State::Established
    }

    pub(crate) fn is_closed(&mut self, wire: &mut Wire) -> bool {
        self.turn(wire);
        matches!(self.socket().state(), State::Closed | State::CloseWait)
    }

    pub(crate) fn close(&mut self, wire: &mut Wire) {
        self.socket().close();
        self.turn(wire);
    }
}

/// The client's end of the wire.
#[derive(Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'t> = Came;
    type TxToken<'t> = Goes<'t>;

    fn receive(&mut self, _: Instant) -> Option<(Came, Goes<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Came(packet), Goes(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Goes<'_>> {
        Some(Goes(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

struct Came(Vec<u8>);

impl RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Goes<'t>(&'t mut Vec<Vec<u8>>);

impl TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let written = write(&mut packet);
        self.0.push(packet);
        written
    }
}
