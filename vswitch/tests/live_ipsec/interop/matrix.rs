//! Linux at the far end: proofs, suites, families and kinds of tunnel.
//!
//! The cases that every run tries have each family with each kind of tunnel, each proof and each
//! suite. `scripts/test interop` tries them all: four suites in each test.

use super::Site;
use crate::charon::Proof;
use crate::pair::{TERMS, Terms};

/// A suite as the configuration names it, and as the daemons propose it.
type Suite = (&'static str, &'static str);

const AES256: Suite = ("aes256gcm16", "aes256gcm16-x25519-esn");
const AES128: Suite = ("aes128gcm16", "aes128gcm16-ecp256");
const CHACHA: Suite = ("chacha20poly1305", "chacha20poly1305-x25519");
const CBC: Suite = ("aes256-sha256", "aes256-sha256-x25519-esn");
const SUITES: [Suite; 4] = [AES256, AES128, CHACHA, CBC];

const GENEVE: (&str, u16) = ("geneve", 6081);
const VXLAN: (&str, u16) = ("vxlan", 4789);

fn terms((kind, port): (&'static str, u16), v6: bool, (suite, esp): Suite) -> Terms {
    Terms {
        kind,
        port,
        v6,
        suite,
        esp,
        ..TERMS
    }
}

/// What every run tries.
fn once(test: &str, terms: Terms, proof: Proof) {
    if let Some(site) = Site::with_linux(test, terms, proof) {
        site.carries_traffic(0);
    }
}

#[test]
fn shared_key_over_geneve() {
    once(
        "Linux, a shared key",
        terms(GENEVE, false, AES256),
        Proof::Psk,
    );
}

#[test]
fn authority_over_vxlan_and_ipv6() {
    once(
        "Linux, an authority",
        terms(VXLAN, true, AES128),
        Proof::Authority,
    );
}

#[test]
fn pinned_certificates_and_cbc_over_vxlan() {
    once("Linux, CBC", terms(VXLAN, false, CBC), Proof::Pinned);
}

#[test]
fn shared_key_and_chacha_over_geneve_and_ipv6() {
    once("Linux, ChaCha20", terms(GENEVE, true, CHACHA), Proof::Psk);
}

/// All suites with the rest alike, and a stream through each while keys are renewed.
fn all_suites(kind: (&'static str, u16), v6: bool, proof: Proof) {
    for suite in SUITES {
        let test = format!("all: {}, {}, IPv6 {v6}, {proof:?}", suite.0, kind.0);
        println!("{test}");
        let Some(site) = Site::with_linux(&test, terms(kind, v6, suite), proof) else {
            return;
        };
        site.carries_traffic(0);
        site.carries_a_stream();
    }
}

/// A test for each.
macro_rules! whole {
    ($($name:ident: $kind:ident, $v6:literal, $proof:ident;)*) => {
        mod whole {
            use super::*;
            $(
                #[test]
                #[ignore = "scripts/test interop runs it"]
                fn $name() {
                    all_suites($kind, $v6, Proof::$proof);
                }
            )*
        }
    };
}

whole! {
    shared_key_geneve_ipv4: GENEVE, false, Psk;
    shared_key_geneve_ipv6: GENEVE, true, Psk;
    shared_key_vxlan_ipv4: VXLAN, false, Psk;
    shared_key_vxlan_ipv6: VXLAN, true, Psk;
    pinned_geneve_ipv4: GENEVE, false, Pinned;
    pinned_geneve_ipv6: GENEVE, true, Pinned;
    pinned_vxlan_ipv4: VXLAN, false, Pinned;
    pinned_vxlan_ipv6: VXLAN, true, Pinned;
    authority_geneve_ipv4: GENEVE, false, Authority;
    authority_geneve_ipv6: GENEVE, true, Authority;
    authority_vxlan_ipv4: VXLAN, false, Authority;
    authority_vxlan_ipv6: VXLAN, true, Authority;
}
