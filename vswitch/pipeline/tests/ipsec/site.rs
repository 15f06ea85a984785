//! Two switches, one at each end of a tunnel that requires IPsec, and whoever negotiates for them.

use std::net::IpAddr;
use std::sync::Arc;

use packet::{DropReason, Frame};
use pipeline::ipsec::{
    Channel, Direction, InboundSa, Keys, Lifetime, Mode, Notice, Order, OutboundSa, Request,
    Retired, Rules, SaCounters, Suite, UdpPorts,
};
use pipeline::{Generation, Pipeline, PortId, Verdict};
use serde_json::{Value, json};
use tenant_config::{MacAddr, SwitchConfig, Vni};

pub(crate) const VM: PortId = PortId(0);
pub(crate) const UPLINK: PortId = PortId(1);
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// The time of what happens in a test that does not care.
pub(crate) const NOW_NS: u64 = 1_000_000_000;
/// The number on the underlay of a peer without IPsec.
pub(crate) const PLAIN_PEER: u8 = 9;

/// How a tunnel is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) kind: &'static str,
    pub(crate) ipv6: bool,
    pub(crate) suite: Suite,
    pub(crate) mode: Mode,
    pub(crate) esn: bool,
    pub(crate) in_udp: bool,
    pub(crate) mtu: u16,
}

impl Style {
    pub(crate) const USUAL: Self = Self {
        kind: "geneve",
        ipv6: false,
        suite: Suite::Aes256Gcm16,
        mode: Mode::Transport,
        esn: true,
        in_udp: false,
        mtu: 1600,
    };

    pub(crate) fn address(&self, host: u8) -> IpAddr {
        let text = match self.ipv6 {
            false => format!("192.0.2.{host}"),
            true => format!("2001:db8::{host}"),
        };
        text.parse().expect("an address")
    }

    pub(crate) fn port(&self) -> u16 {
        if self.kind == "geneve" { 6081 } else { 4789 }
    }

    fn peer(&self, name: &str, host: u8, ipsec: &str) -> Value {
        json!({
            "name": name,
            "vtep": self.address(host),
            "mac": MacAddr::of_vtep(Vni::new(5001).expect("a VNI"), self.address(host)),
            "next_hop": self.address(host),
            "prefixes": [format!("10.0.0.{host}/32")],
            "ipsec": ipsec,
        })
    }

    /// The configuration of a host's switch; the other host is its peer.
    pub(crate) fn config(&self, own: u8, other: u8) -> Value {
        let (family, len) = if self.ipv6 {
            ("ipv6", 64)
        } else {
            ("ipv4", 24)
        };
        let suite = self.suite.name();
        json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24" },
            "ports": [{
                "name": "vm1",
                "device": { "driver": "offline" },
                "gateway_mac": format!("02:00:13:89:00:{own:02x}"),
                "mac": format!("52:54:00:00:00:{own:02x}"),
                "addresses": [format!("10.0.0.{own}/32")],
                "mtu": 1500,
            }],
            "uplink": {
                "device": { "driver": "offline" },
                "mac": format!("02:00:00:00:00:{own:02x}"),
                family: format!("{}/{len}", self.address(own)),
                "mtu": self.mtu,
            },
            "tunnel": {
                "kind": self.kind,
                "vtep": self.address(own),
                "port": self.port(),
                "mac": MacAddr::of_vtep(Vni::new(5001).expect("a VNI"), self.address(own)),
                "udp_checksum": true,
                "ipsec": { "suites": [suite], "esn": true, "replay_window": 1024 },
                "peers": [
                    self.peer("other", other, "required"),
                    self.peer("plain", PLAIN_PEER, "off"),
                ],
            },
        })
    }
}

/// The configuration in that JSON.
pub(crate) fn read(config: &Value) -> SwitchConfig {
    SwitchConfig::from_json("test", &config.to_string()).expect("a configuration")
}

/// Keys that differ with `seed`.
pub(crate) fn keys(suite: Suite, seed: u8) -> Keys {
    let encryption = vec![seed; suite.encryption_key_len()];
    let integrity = vec![seed ^ 0xff; suite.integrity_key_len()];
    Keys::new(suite, &encryption, &integrity).expect("keys")
}

/// A switch, and who negotiates for it.
pub(crate) struct End {
    pub(crate) style: Style,
    pub(crate) own: u8,
    pub(crate) other: u8,
    pub(crate) pipeline: Pipeline,
    pub(crate) channel: Arc<Channel>,
    pub(crate) rules: Rules,
}

impl End {
    pub(crate) fn new(style: Style, own: u8, other: u8) -> Self {
        let config = read(&style.config(own, other));
        let mut pipeline = Pipeline::new(Generation::build(&config, None));
        pipeline.assume_next_hops(0, MacAddr::new(ROUTER).expect("a MAC"));
        let channel = Arc::new(Channel::default());
        pipeline.join_ipsec(Arc::clone(&channel));
        Self {
            style,
            own,
            other,
            pipeline,
            channel,
            rules: Rules::of(&config).expect("rules"),
        }
    }

    /// A switch of that configuration, for which nobody negotiates.
    pub(crate) fn plain(style: Style, own: u8, other: u8, config: &Value) -> Self {
        let mut pipeline = Pipeline::new(Generation::build(&read(config), None));
        pipeline.assume_next_hops(0, MacAddr::new(ROUTER).expect("a MAC"));
        Self {
            style,
            own,
            other,
            pipeline,
            channel: Arc::default(),
            rules: Rules::of(&read(&style.config(7, 8))).expect("rules"),
        }
    }

    /// What is negotiated here of the SA `spi`, if nothing is unusual.
    pub(crate) fn request(&self, spi: u32) -> Request {
        let port = 4500;
        Request {
            spi,
            own: self.style.address(self.own),
            peer: self.style.address(self.other),
            mode: self.style.mode,
            esn: self.style.esn,
            encapsulation: self.style.in_udp.then_some(UdpPorts {
                own: port,
                peer: port,
            }),
            own_port: None,
            peer_port: None,
            lifetime: Lifetime::UNBOUNDED,
        }
    }

    pub(crate) fn order(&mut self, now_ns: u64, order: Order) {
        self.channel.order(order).expect("room for an order");
        self.pipeline.obey_ipsec(now_ns, &mut |_, _| {});
    }

    /// Installs an SA that opens what comes to the tunnel's port.
    pub(crate) fn install_in(&mut self, request: Request, seed: u8) -> Arc<SaCounters> {
        let request = Request {
            own_port: Some(self.style.port()),
            ..request
        };
        let keys = keys(self.style.suite, seed);
        let sa = InboundSa::new(&self.rules, request, &keys).expect("an SA");
        let counters = sa.counters();
        self.order(NOW_NS, Order::InstallIn(sa));
        counters
    }

    /// Installs an SA, and uses it for what goes to the peer's port.
    pub(crate) fn install_out(&mut self, request: Request, seed: u8) -> Arc<SaCounters> {
        let request = Request {
            peer_port: Some(self.style.port()),
            ..request
        };
        let keys = keys(self.style.suite, seed);
        let sa = OutboundSa::new(&self.rules, request, &keys).expect("an SA");
        let counters = sa.counters();
        self.order(NOW_NS, Order::InstallOut(sa));
        let (peer, spi) = (request.peer, request.spi);
        self.order(NOW_NS, Order::Use { peer, spi });
        counters
    }

    pub(crate) fn process(
        &mut self,
        now_ns: u64,
        port: PortId,
        bytes: &[u8],
    ) -> (Verdict, Vec<u8>) {
        let mut buffer = buffer(bytes);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let verdict = self.pipeline.process(now_ns, port, &mut frame);
        (verdict, frame.bytes().to_vec())
    }

    /// What a frame of this end's VM becomes on the wire, addressed to the other end.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (verdict, mut sent) = self.process(NOW_NS, VM, bytes);
        assert_eq!(verdict, Verdict::Forward(UPLINK));
        assert_eq!(sent[..6], ROUTER);
        sent[..6].copy_from_slice(&[2, 0, 0, 0, 0, self.other]);
        sent
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        self.process(NOW_NS, UPLINK, bytes)
    }

    /// As [`Self::receive`], by the general path, which explains itself.
    pub(crate) fn receive_traced(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = buffer(bytes);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let pipeline = &mut self.pipeline;
        let verdict = pipeline.process_traced(NOW_NS, UPLINK, &mut frame, &mut |_, _| {});
        (verdict, frame.bytes().to_vec())
    }

    /// The counts of the uplink: frames, bytes, forwarded, and the drops.
    pub(crate) fn counts(&self) -> (u64, u64, u64, Vec<(DropReason, u64)>) {
        let counters = self.pipeline.counters();
        let port = counters.port(UPLINK.index());
        let (frames, bytes) = (port.rx_frames.get(), port.rx_bytes.get());
        (frames, bytes, port.forwarded.get(), self.drops(UPLINK))
    }

    /// The reason for which a frame from the uplink is dropped.
    pub(crate) fn refused(&mut self, bytes: &[u8]) -> DropReason {
        match self.receive(bytes).0 {
            Verdict::Drop(reason) => reason,
            verdict => panic!("{verdict:?}"),
        }
    }

    /// Frames dropped so far, with the reasons, at a port.
    pub(crate) fn drops(&self, port: PortId) -> Vec<(DropReason, u64)> {
        let counters = self.pipeline.counters();
        let port = counters.port(port.index());
        let all = DropReason::ALL.iter();
        let all = all.map(|reason| (*reason, port.drops(*reason).get()));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        std::iter::from_fn(|| self.channel.notice()).collect()
    }

    /// The SAs that were handed back.
    pub(crate) fn retired(&self) -> Vec<(Direction, u32)> {
        let all = std::iter::from_fn(|| self.channel.retired());
        all.filter_map(|retired| match retired {
            Retired::In(sa) => Some((Direction::In, sa.request().spi)),
            Retired::Out(sa) => Some((Direction::Out, sa.request().spi)),
            Retired::Datagram(_) => None,
        })
        .collect()
    }
}

/// A frame with the room around it that a device leaves.
pub(crate) fn buffer(frame: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xee; Frame::HEADROOM + frame.len() + 64];
    buffer[Frame::HEADROOM..][..frame.len()].copy_from_slice(frame);
    buffer
}

/// Two ends with one SA each way: SPI 0x1000 + the receiver's number.
pub(crate) fn pair(style: Style) -> (End, End) {
    let (mut here, mut there) = (End::new(style, 7, 8), End::new(style, 8, 7));
    there.install_in(there.request(0x1008), 1);
    here.install_out(here.request(0x1008), 1);
    here.install_in(here.request(0x1007), 2);
    there.install_out(there.request(0x1007), 2);
    (here, there)
}

/// Makes the header checksum of an IPv4 frame right.
pub(crate) fn resum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = packet::wire::ipv4::plain_checksum(frame[14..].first_chunk().expect("a header"));
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
}

/// A UDP packet of `len` bytes from one host's VM to another's.
pub(crate) fn packet(own: u8, other: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0x13, 0x89, 0, own, 0x52, 0x54, 0, 0, 0, own, 8, 0];
    bytes.extend([0x45, 0]);
    bytes.extend((len as u16).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, own, 10, 0, 0, other]);
    resum(&mut bytes);
    bytes.extend([0x10, 0, 0x20, 0]);
    bytes.extend((len as u16 - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend((28..len).map(|at| at as u8));
    bytes
}
