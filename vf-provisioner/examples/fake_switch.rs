//! Replaces the switch in the provisioner's tests: it has the same arguments, answers ARP for the
//! gateway as the filter allows, and says that it is ready. It forwards nothing. Files beside its
//! control socket change that: with `wait` it does not start, with `mute` it does not answer, and
//! with `hang` it says that its worker forwards nothing. It takes no configuration. Of its ports it
//! reports only those on functions: at each question one more frame, as if a NIC's had arrived.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use smoltcp::phy::{Device as _, Medium, RawSocket, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};
use tenant_config::{Device, PortConfig, SwitchConfig};
use vswitch_api::endpoint::ports::Port;
use vswitch_api::endpoint::worker::Worker;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    match arguments.first().map(String::as_str) {
        Some("--version") => println!("fake_switch 0"),
        Some("run") => run(value("--config").ok_or("no --config")?)?,
        _ => return Err("only run".into()),
    }
    Ok(())
}

fn run(config: &str) -> Result<(), Box<dyn Error>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let signal = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK)?;
    let config: SwitchConfig = serde_json::from_slice(&std::fs::read(config)?)?;
    let mut ports = Vec::new();
    for port in &config.ports {
        if let Device::AfPacket { interface } = &port.device {
            ports.push((port, RawSocket::new(interface, Medium::Ethernet)?));
        }
    }
    let socket = config.control_socket.as_ref().ok_or("no socket")?;
    while socket.with_file_name("wait").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    let (mut unanswered, mut asked) = (Vec::new(), 0);
    eprintln!("fake switch of {} runs", config.tenant);
    while signal.read_signal()?.is_none() {
        if let Ok((client, _)) = listener.accept() {
            match socket.with_file_name("mute").exists() {
                true => unanswered.push(client),
                // A client that has gone is no failure.
                false => {
                    asked += 1;
                    let hangs = socket.with_file_name("hang").exists();
                    drop(serve(client, hangs, &functions(&config, asked)));
                }
            }
        }
        for (port, socket) in &mut ports {
            while let Some((token, _)) = socket.receive(Instant::ZERO) {
                if let Some(reply) = token.consume(|frame| answer(&config, port, frame)) {
                    send(socket, port, &reply);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The ports on functions, which have received so many frames.
fn functions(config: &SwitchConfig, rx_frames: u64) -> Vec<Port> {
    let sides = config.devices();
    let functions = sides.filter(|side| matches!(side.device, Device::Pci { .. }));
    let port = |name: &str| Port {
        name: name.to_owned(),
        rx_frames,
        ..Port::default()
    };
    functions.map(|side| port(side.name)).collect()
}

/// Answers one request, of which the first line is enough to know.
fn serve(mut client: UnixStream, hangs: bool, ports: &[Port]) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = Vec::new();
    while !request.contains(&b'\n') {
        let mut part = [0; 512];
        match client.read(&mut part)? {
            0 => return Ok(()),
            length => request.extend(&part[..length]),
        }
    }
    let (status, body) = if hangs {
        let body = r#"{"error":"the worker does not go round"}"#;
        ("503 Service Unavailable", body.to_owned())
    } else if request.starts_with(b"GET /readyz ") {
        ("200 OK", r#"{"status":"ready"}"#.to_owned())
    } else if request.starts_with(b"GET /v1/ports ") {
        let worker = serde_json::to_string(&Worker::default())?;
        let ports = serde_json::to_string(ports)?;
        let body = format!(r#"{{"tenant":"","ports":{ports},"worker":{worker}}}"#);
        ("200 OK", body)
    } else if request.starts_with(b"GET /v1/switch ") {
        let buffers = r#"{"total":0,"in_use":0}"#;
        let about = r#""tenant":"","version":"0-fake","started_at":0,"uptime_s":0,"generation":1"#;
        (
            "200 OK",
            format!(r#"{{{about},"packet_buffers":{buffers}}}"#),
        )
    } else {
        ("409 Conflict", r#"{"error":"it is a fake"}"#.to_owned())
    };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn answer(config: &SwitchConfig, port: &PortConfig, frame: &[u8]) -> Option<ArpRepr> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp || frame.src_addr().0 != port.mac.octets() {
        return None;
    }
    match ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } if Some(target_protocol_addr) == config.gateway.ipv4.map(|net| net.addr()) => {
            Some(ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(port.gateway_mac.octets()),
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            })
        }
        _ => None,
    }
}

fn send(socket: &mut RawSocket, port: &PortConfig, arp: &ArpRepr) {
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(port.gateway_mac.octets()),
        dst_addr: EthernetAddress(port.mac.octets()),
        ethertype: EthernetProtocol::Arp,
    };
    if let Some(token) = socket.transmit(Instant::ZERO) {
        token.consume(ethernet.buffer_len() + arp.buffer_len(), |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            ethernet.emit(&mut frame);
            arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }
}
