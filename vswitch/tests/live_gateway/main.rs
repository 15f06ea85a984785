//! The tunnel gateway of `vswitch run`, live against software that is not ours: Linux and Open vSwitch at the far
//! end, Wireshark as the reader and scapy as the attacker. Everything is a network namespace on veth pairs; the
//! underlay is a bridge. Needs root; a test that lacks a tool or a kernel's module says so and passes.

mod attacks;
#[path = "../common/bed.rs"]
mod bed;
mod capture;
mod linux;
mod mtu;
mod neighbours;
mod ovs;
mod reload;
mod site;
mod udp;
mod wire;
