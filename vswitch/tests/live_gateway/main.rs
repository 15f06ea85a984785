//! The tunnel gateway of `vswitch run` against third-party software: Linux and Open vSwitch as
//! peers, Wireshark as the dissector and scapy as the attacker. Stations are network namespaces on
//! veth pairs; the underlay is a bridge. Skipped without root, or without a tool or kernel module
//! that a test needs.

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
mod trouble;
mod udp;
mod wire;
