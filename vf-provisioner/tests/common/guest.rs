//! Programs and frames of guests, which are namespaces of a [`Site`].

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::site::{self, Site, sh};

/// A program in a guest's namespace; it is killed when this is dropped.
#[allow(dead_code)] // Not every test's programs run on.
pub(crate) struct Guest(pub(crate) Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command in a guest's namespace.
pub(crate) fn command(site: &Site, guest: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    let namespace = format!("{}-{guest}", site.instance);
    command
        .args(["netns", "exec", &namespace])
        .args(arguments)
        .stdout(Stdio::null());
    command
}

/// Runs a command there; whether it succeeded.
pub(crate) fn run(site: &Site, guest: &str, arguments: &[&str]) -> bool {
    let status = command(site, guest, arguments).status();
    status.expect("ip starts").success()
}

/// Sends frames as they are.
#[allow(dead_code)] // Not every test's guests send frames of their own.
const SENDER: &str = "import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
for frame in sys.argv[1:]:
    wire.send(bytes.fromhex(frame))";

/// Sends frames, written in hexadecimal digits.
#[allow(dead_code)]
pub(crate) fn send(site: &Site, guest: &str, frames: &[String]) {
    let mut arguments = vec!["python3", "-c", SENDER];
    arguments.extend(frames.iter().map(String::as_str));
    assert!(run(site, guest, &arguments));
}

/// A client's message from the MAC that ends in `mac`: by broadcast, or from an address.
#[allow(dead_code)] // Not every test's guests speak DHCP.
pub(crate) fn dhcp(mac: u8, source: [u8; 4], ciaddr: [u8; 4], options: &[(u8, Vec<u8>)]) -> String {
    let mac = [0x52, 0x54, 0, 0, 1, mac];
    let mut message = vec![1, 1, 6, 0, 0, 0, 0, 7];
    message.resize(240, 0);
    message[12..16].copy_from_slice(&ciaddr);
    message[28..34].copy_from_slice(&mac);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    for (code, value) in options {
        message.extend([*code, value.len() as u8]);
        message.extend(value);
    }
    message.push(255);
    let (to, destination) = match source {
        [0, 0, 0, 0] => ([0xff; 4], [0xff; 6]),
        // Any unicast MAC: the gateway's is not known here.
        _ => ([10, 1, 0, 2], [2; 6]),
    };
    let udp_len = message.len() as u16 + 8;
    let mut ip = vec![0x45, 0];
    ip.extend((udp_len + 20).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(source);
    ip.extend(to);
    let words = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&destination[..], &mac, &[8, 0], &ip].concat();
    frame.extend([0, 68, 0, 67]);
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the switch shows of that.
#[allow(dead_code)] // Not every test asks otherwise.
pub(crate) fn shown(site: &Site, what: &str) -> Value {
    let switch = Path::new(site::PROVISIONER).with_file_name("vswitch");
    let socket = sh(&format!(
        "find {} -name control.sock",
        site.state_dir().display()
    ));
    let arguments = ["show", what, "--json", "--control", socket.trim()];
    let output = Command::new(switch).args(arguments).output();
    serde_json::from_slice(&output.expect("it starts").stdout).expect("it is JSON")
}

/// How many frames of the port the switch has dropped for that reason.
#[allow(dead_code)] // Not every test's frames are dropped.
pub(crate) fn dropped(site: &Site, port: &str, reason: &str) -> u64 {
    let drops = shown(site, "drops");
    let mut drops = drops.as_array().expect("a list").iter();
    let found = drops.find(|it| it["port"] == port && it["reason"] == reason);
    found.map_or(0, |it| it["frames"].as_u64().expect("a number"))
}

/// How many frames of the port the gateway has answered.
#[allow(dead_code)] // Not every test's gateway answers.
pub(crate) fn replies(site: &Site, port: &str) -> u64 {
    let ports = shown(site, "ports");
    let mut ports = ports["ports"].as_array().expect("a list").iter();
    let found = ports.find(|it| it["name"] == port).expect("the port");
    found["replies"].as_u64().expect("a number")
}
