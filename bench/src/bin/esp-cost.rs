//! Cycles of ESP: of the libraries alone, of an SA, and of the switch's whole path around it, in
//! one run.
//!
//! `esp-cost` prints the machine's load and two tables in Markdown: into the tunnel and out of it.
//! A packet's size is that of the IP packet that a VM sends; iMIX is seven of 64 bytes, four of 576
//! and one of 1,400, the largest of the other rows. What the libraries get is what ESP encrypts of
//! it: ring's AEAD, or for CBC the block mode and the MAC over all of the packet. Each figure is
//! the least of many bursts of 24, since a busy machine only adds. Gb/s are those of the VMs'
//! packets on one core, at the time stamp counter's rate.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aes::Aes256;
use bench::network::NEXT_HOP_MAC;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use dpdk::cycles;
use esp::{Inbound, Outbound};
use packet::Frame;
use pipeline::ipsec::{
    Channel, InboundSa, Keys, Lifetime, Mode, Order, OutboundSa, Request, Rules, Suite,
};
use pipeline::{Generation, Pipeline, PortId, Verdict};
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde_json::json;
use tenant_config::{MacAddr, SwitchConfig, Vni};

/// Packets of a burst: two of the mix.
const BURST: usize = 24;
const BURSTS: usize = 3_000;
const BUFFER: usize = 2048;
const VM: PortId = PortId(0);
const UPLINK: PortId = PortId(1);
/// UDP, the tunnel's header and an Ethernet header around a VM's packet.
const AROUND: usize = 8 + 8 + 14;

/// The packets of one burst, by their lengths.
struct Mix {
    name: &'static str,
    lens: [usize; BURST],
}

impl Mix {
    fn all() -> [Self; 4] {
        let same = |name, len| Self {
            name,
            lens: [len; BURST],
        };
        // Long ones between short ones, as they come.
        const TWELVE: [usize; 12] = [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64];
        let mixed = Self {
            name: "iMIX",
            lens: std::array::from_fn(|at| TWELVE[at % TWELVE.len()]),
        };
        [same("64", 64), same("512", 512), same("1400", 1400), mixed]
    }

    /// Bits of the VMs' packets, on average.
    fn bits(&self) -> f64 {
        (8 * self.lens.iter().sum::<usize>()) as f64 / BURST as f64
    }

    /// The lengths of the ESP packets.
    fn sealed(&self, suite: Suite) -> impl Iterator<Item = usize> {
        self.lens
            .iter()
            .map(move |len| suite.sealed_len(len + AROUND))
    }
}

fn keys(suite: Suite) -> Keys {
    let (encryption, integrity) = (suite.encryption_key_len(), suite.integrity_key_len());
    Keys::new(suite, &vec![7; encryption], &vec![9; integrity]).expect("keys")
}

fn config(own: u8, other: u8, ipsec: &str) -> SwitchConfig {
    let vtep = |host: u8| IpAddr::from([192, 0, 2, host]);
    let mac = |host: u8| MacAddr::of_vtep(Vni::new(5001).expect("a VNI"), vtep(host));
    let suites: Vec<&str> = Suite::ALL.iter().map(|suite| suite.name()).collect();
    let config = json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [{
            "name": "vm1",
            "device": { "driver": "offline" },
            "gateway_mac": format!("02:00:13:89:00:{own:02x}"),
            "mac": format!("52:54:00:00:00:{own:02x}"),
            "addresses": [format!("10.0.0.{own}/32")],
        }],
        "uplink": {
            "device": { "driver": "offline" },
            "mac": format!("02:00:00:00:00:{own:02x}"),
            "ipv4": format!("192.0.2.{own}/24"),
            "mtu": 1600,
        },
        "tunnel": {
            "kind": "geneve",
            "vtep": vtep(own),
            "port": 6081,
            "mac": mac(own),
            "udp_checksum": false,
            "ipsec": { "suites": suites, "esn": true, "replay_window": 1024 },
            "peers": [{
                "name": "other",
                "vtep": vtep(other),
                "mac": mac(other),
                "next_hop": vtep(other),
                "prefixes": [format!("10.0.0.{other}/32")],
                "ipsec": ipsec,
            }],
        },
    });
    SwitchConfig::from_json("esp-cost", &config.to_string()).expect("a configuration")
}

/// A switch whose SA in one direction has these keys; without, its peer does not require IPsec.
fn switch(own: u8, other: u8, suite: Option<Suite>, inbound: bool) -> Pipeline {
    let config = config(own, other, if suite.is_some() { "required" } else { "off" });
    let mut pipeline = Pipeline::new(Generation::build(&config, None));
    pipeline.assume_next_hops(0, MacAddr::new(NEXT_HOP_MAC).expect("a MAC"));
    let (Some(suite), Some(rules)) = (suite, Rules::of(&config)) else {
        return pipeline;
    };
    let channel = Arc::new(Channel::default());
    pipeline.join_ipsec(Arc::clone(&channel));
    let peer = IpAddr::from([192, 0, 2, other]);
    let request = Request {
        spi: 0x1234,
        own: rules.own,
        peer,
        mode: Mode::Transport,
        esn: true,
        encapsulation: None,
        own_port: None,
        peer_port: None,
        lifetime: Lifetime::UNBOUNDED,
    };
    let orders = match inbound {
        true => {
            let sa = InboundSa::new(&rules, request, &keys(suite)).expect("an SA");
            vec![Order::InstallIn(sa)]
        }
        false => {
            let sa = OutboundSa::new(&rules, request, &keys(suite)).expect("an SA");
            let chosen = Order::Use { peer, spi: 0x1234 };
            vec![Order::InstallOut(sa), chosen]
        }
    };
    for order in orders {
        channel.order(order).expect("room");
    }
    pipeline.obey_ipsec(1, &mut |_, _| {});
    pipeline
}

/// A UDP packet of `len` bytes from host 7's VM to host 8's.
fn frame(len: usize) -> Vec<u8> {
    let mut bytes = vec![
        2, 0, 0x13, 0x89, 0, 7, 0x52, 0x54, 0, 0, 0, 7, 8, 0, 0x45, 0,
    ];
    bytes.extend((len as u16).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 7, 10, 0, 0, 8]);
    let sum = packet::wire::ipv4::plain_checksum(bytes[14..].first_chunk().expect("a header"));
    bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
    bytes.extend([0x10, 0, 0x20, 0]);
    bytes.extend((len as u16 - 20).to_be_bytes());
    bytes.resize(14 + len, 0);
    bytes
}

/// The least cycles a packet of a step that handles a burst; `prepare` is not counted.
fn least(mut prepare: impl FnMut(), mut step: impl FnMut()) -> f64 {
    let spend = |_| {
        prepare();
        let begin = cycles();
        step();
        cycles().wrapping_sub(begin)
    };
    (0..BURSTS).map(spend).min().unwrap_or(0) as f64 / BURST as f64
}

/// Cycles to seal and to open.
struct Cost {
    seal: f64,
    open: f64,
}

impl Cost {
    /// Of two functions of a whole ESP packet, in place.
    fn of(
        suite: Suite,
        mix: &Mix,
        mut seal: impl FnMut(&mut [u8]),
        mut open: impl FnMut(&mut [u8]),
    ) -> Self {
        let mut packets: Vec<Vec<u8>> = mix.sealed(suite).map(|len| vec![0; len]).collect();
        let cost = least(|| {}, || packets.iter_mut().for_each(|packet| seal(packet)));
        let mut sealed: Vec<Vec<u8>> = mix.sealed(suite).map(|len| vec![0; len]).collect();
        sealed.iter_mut().for_each(|packet| seal(packet));
        let work = RefCell::new(packets);
        let open = least(
            || work.borrow_mut().clone_from(&sealed),
            || work.borrow_mut().iter_mut().for_each(|packet| open(packet)),
        );
        Self { seal: cost, open }
    }
}

/// What the libraries themselves take.
fn libraries(suite: Suite, mix: &Mix) -> Cost {
    let algorithm = match suite {
        Suite::Aes128Gcm16 => &ring::aead::AES_128_GCM,
        Suite::Aes256Gcm16 => &ring::aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
        Suite::Aes256CbcSha256 => return cbc_and_mac(suite, mix),
    };
    let key = UnboundKey::new(algorithm, &vec![7; algorithm.key_len()]).expect("a key");
    let key = LessSafeKey::new(key);
    let nonce = || Nonce::assume_unique_for_key([1; 12]);
    let text_at = suite.payload_at();
    let seal = |packet: &mut [u8]| {
        let (text, icv) = packet[text_at..]
            .split_last_chunk_mut::<16>()
            .expect("an ICV");
        let tag = key.seal_in_place_separate_tag(nonce(), Aad::from([2; 12]), text);
        icv.copy_from_slice(tag.expect("a tag").as_ref());
    };
    let open = |packet: &mut [u8]| {
        let opened = key.open_in_place(nonce(), Aad::from([2; 12]), &mut packet[text_at..]);
        black_box(opened.expect("a right tag"));
    };
    Cost::of(suite, mix, seal, open)
}

/// CBC's two libraries, one after the other, as their interfaces are.
fn cbc_and_mac(suite: Suite, mix: &Mix) -> Cost {
    let cipher = Aes256::new(&[7; 32].into());
    let mac = hmac::Key::new(hmac::HMAC_SHA256, &[9; 32]);
    let iv = Array::from([1; 16]);
    let text_at = suite.payload_at();
    let seal = |packet: &mut [u8]| {
        let (protected, icv) = packet.split_last_chunk_mut::<16>().expect("an ICV");
        let text = &mut protected[text_at..];
        let len = text.len();
        let encrypted = cbc::Encryptor::<&Aes256>::inner_iv_init(&cipher, &iv)
            .encrypt_padded::<NoPadding>(text, len);
        black_box(encrypted.expect("whole blocks"));
        icv.copy_from_slice(&hmac::sign(&mac, protected).as_ref()[..16]);
    };
    let open = |packet: &mut [u8]| {
        let (protected, icv) = packet.split_last_chunk_mut::<16>().expect("an ICV");
        assert_eq!(hmac::sign(&mac, protected).as_ref()[..16], *icv);
        let opened = cbc::Decryptor::<&Aes256>::inner_iv_init(&cipher, &iv)
            .decrypt_padded::<NoPadding>(&mut protected[text_at..]);
        black_box(opened.expect("whole blocks"));
    };
    Cost::of(suite, mix, seal, open)
}

/// An SA of each direction.
fn sa(suite: Suite, mix: &Mix) -> Cost {
    let payload = |packet: &[u8]| suite.max_payload(packet.len());
    let mut out = Outbound::new(1, &keys(suite), true);
    let packets = RefCell::new(
        mix.sealed(suite)
            .map(|len| vec![0; len])
            .collect::<Vec<_>>(),
    );
    let mut seal_all = || {
        for packet in packets.borrow_mut().iter_mut() {
            let payload = payload(packet);
            out.seal(packet, payload, 17).expect("a number");
        }
    };
    let seal = least(|| {}, &mut seal_all);
    let mut into = Inbound::new(1, &keys(suite), true, 1024);
    let open = least(seal_all, || {
        for packet in packets.borrow_mut().iter_mut() {
            black_box(into.open(packet).expect("a packet"));
        }
    });
    Cost { seal, open }
}

/// One burst of buffers.
struct Buffers(Vec<([u8; BUFFER], (usize, usize))>);

impl Buffers {
    fn new() -> Self {
        Self(vec![([0; BUFFER], (0, 0)); BURST])
    }

    fn fill(&mut self, frames: &[Vec<u8>]) {
        for ((buffer, position), frame) in self.0.iter_mut().zip(frames) {
            buffer[Frame::HEADROOM..][..frame.len()].copy_from_slice(frame);
            *position = (Frame::HEADROOM, frame.len());
        }
    }

    /// Puts the frames back to where a device would have written them.
    fn receive(&mut self, mac: [u8; 6]) {
        for (buffer, (start, len)) in &mut self.0 {
            buffer.copy_within(*start..*start + *len, Frame::HEADROOM);
            *start = Frame::HEADROOM;
            buffer[*start..*start + 6].copy_from_slice(&mac);
        }
    }

    fn process(&mut self, pipeline: &mut Pipeline, from: PortId, to: PortId) {
        let frames = self.0.iter_mut().map(|(buffer, (start, len))| {
            let frame = Frame::new(buffer, *start, *len, None);
            Placed { frame, start, len }
        });
        pipeline
            .burst(1_000, from)
            .process_all(frames, |placed, verdict| {
                assert_eq!(verdict, Verdict::Forward(to));
                (*placed.start, *placed.len) = placed.frame.position();
            });
    }
}

/// A frame that remembers where it lies.
struct Placed<'b> {
    frame: Frame<'b>,
    start: &'b mut usize,
    len: &'b mut usize,
}

impl packet::Buffer for Placed<'_> {
    fn plain(&mut self) -> Option<&mut [u8]> {
        self.frame.plain()
    }
    fn keep(&mut self, begin: usize, len: usize) {
        self.frame.keep(begin, len);
    }
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        Some(change(&mut self.frame))
    }
    fn frame_len(&self) -> usize {
        self.frame.frame_len()
    }
}

/// The switches' cycles into the tunnel and out of it.
fn switches(suite: Option<Suite>, mix: &Mix) -> Cost {
    let (mut here, mut there) = (switch(7, 8, suite, false), switch(8, 7, suite, true));
    let sent = mix.lens.map(frame);
    let buffers = RefCell::new(Buffers::new());
    let seal = least(
        || buffers.borrow_mut().fill(&sent),
        || buffers.borrow_mut().process(&mut here, VM, UPLINK),
    );
    let open = least(
        || {
            let mut buffers = buffers.borrow_mut();
            buffers.fill(&sent);
            buffers.process(&mut here, VM, UPLINK);
            buffers.receive([2, 0, 0, 0, 0, 8]);
        },
        || buffers.borrow_mut().process(&mut there, UPLINK, VM),
    );
    Cost { seal, open }
}

/// Cycles of the time stamp counter in a second.
fn rate() -> f64 {
    let (begin, from) = (Instant::now(), cycles());
    std::thread::sleep(Duration::from_millis(200));
    cycles().wrapping_sub(from) as f64 / begin.elapsed().as_secs_f64()
}

/// One row; `plain` is the tunnel without IPsec.
fn row(name: &str, mix: &Mix, rate: f64, [library, sa, whole, plain]: [f64; 4]) -> String {
    let gbit = mix.bits() * rate / whole / 1e9;
    format!(
        "| {name} | {} | {library:.0} | {sa:.0} | {whole:.0} | {gbit:.1} | {:.2} | {:.1} |",
        mix.name,
        library / whole,
        whole / plain
    )
}

fn main() {
    let rate = rate();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{:.2} GHz; load {}\n", rate / 1e9, load.trim());
    let (mut into, mut out_of) = (Vec::new(), Vec::new());
    for mix in Mix::all() {
        let plain = switches(None, &mix);
        for (rows, cost) in [(&mut into, plain.seal), (&mut out_of, plain.open)] {
            let gbit = mix.bits() * rate / cost / 1e9;
            rows.push(format!(
                "| none | {} | | | {cost:.0} | {gbit:.1} | | 1.0 |",
                mix.name
            ));
        }
        for suite in Suite::ALL {
            let (library, sa) = (libraries(suite, &mix), sa(suite, &mix));
            let whole = switches(Some(suite), &mix);
            let name = suite.name();
            into.push(row(
                name,
                &mix,
                rate,
                [library.seal, sa.seal, whole.seal, plain.seal],
            ));
            out_of.push(row(
                name,
                &mix,
                rate,
                [library.open, sa.open, whole.open, plain.open],
            ));
        }
    }
    for (title, rows) in [("into", into), ("out of", out_of)] {
        println!(
            "| suite | bytes | libraries | SA | {title} | Gb/s | libraries by {title} | {title} by \
             none |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|---:|");
        println!("{}\n", rows.join("\n"));
    }
}
