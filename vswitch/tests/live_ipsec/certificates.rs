//! Certificates: pinned, of an authority, and those that must not be accepted.

use std::process::Command;

use crate::bed::{Bed, run};
use crate::charon::Proof;
use crate::pair::{A, B, BOTH, Pair, Side, text};

fn openssl(bed: &Bed, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    run(command.current_dir(bed.path("")).args(arguments));
}

/// What a certificate is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// How `openssl req` makes its key.
    key: &'static [&'static str],
    /// What its subject has before the name.
    before_name: &'static str,
}

pub(crate) const PLAIN: Form = Form {
    key: &[
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
    ],
    before_name: "",
};

/// Open vSwitch's monitor says that keys are of RSA, and finds no name that is alone.
pub(crate) const OPEN_VSWITCH: Form = Form {
    key: &["-newkey", "rsa:2048", "-noenc"],
    before_name: "/O=test",
};

impl Form {
    fn subject(&self, side: Side) -> String {
        format!("{}/CN={}", self.before_name, side.identity())
    }
}

/// A new key, and a certificate with these names that it has signed itself.
fn signed_by_own_key(bed: &Bed, form: Form, file: &str, names: &[&str]) {
    let (key, certificate) = (format!("{file}.key"), format!("{file}.pem"));
    let request = [
        "req",
        "-x509",
        "-days",
        "30",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    openssl(bed, &[&request[..], form.key, names].concat());
}

/// The certificate of a side that no authority knows.
pub(crate) fn self_signed(bed: &Bed, form: Form, side: Side) {
    let subject = form.subject(side);
    let name = format!("subjectAltName=DNS:{}", side.identity());
    signed_by_own_key(bed, form, side.name, &["-subj", &subject, "-addext", &name]);
}

pub(crate) fn authority(bed: &Bed, file: &str) {
    signed_by_own_key(bed, PLAIN, file, &["-subj", "/CN=test CA"]);
}

/// A certificate that an authority has signed, valid for so many days.
pub(crate) fn signed(bed: &Bed, form: Form, side: Side, authority: &str, days: &str) {
    let name = side.name;
    let (key, request, certificate) = (
        format!("{name}.key"),
        format!("{name}.csr"),
        format!("{name}.pem"),
    );
    let subject = form.subject(side);
    let ask = [
        "req", "-new", "-keyout", &key, "-out", &request, "-subj", &subject,
    ];
    openssl(bed, &[&ask[..], form.key].concat());
    let extensions = bed.path(&format!("{name}.ext"));
    let names = format!("subjectAltName=DNS:{}\n", side.identity());
    std::fs::write(&extensions, names).expect("a file");
    let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}.key"));
    let sign = [
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        days,
        "-extfile",
        text(&extensions),
        "-out",
        &certificate,
    ];
    openssl(bed, &sign);
}

#[test]
fn pinned_certificates_are_accepted() {
    let Some(mut pair) = Pair::new("pinned certificates") else {
        return;
    };
    for side in BOTH {
        self_signed(&pair.bed, PLAIN, side);
    }
    for side in BOTH {
        pair.start_charon(side, Proof::Pinned);
    }
    let watched = pair.watched(|| {
        pair.reaches(A);
        pair.reaches(B);
    });
    watched.assert_no_plaintext();
}

#[test]
fn certificates_of_an_authority_are_accepted_and_of_another_refused() {
    let Some(mut pair) = Pair::new("an authority") else {
        return;
    };
    authority(&pair.bed, "ca");
    for side in BOTH {
        signed(&pair.bed, PLAIN, side, "ca", "30");
    }
    for side in BOTH {
        pair.start_charon(side, Proof::Authority);
    }
    pair.reaches(A);
    // The other side comes back with the same name, but not signed by this authority.
    authority(&pair.bed, "other");
    signed(&pair.bed, PLAIN, B, "other", "30");
    pair.take_charon(B).kill();
    pair.start_charon(B, Proof::Authority);
    let watched = pair.watched(|| {
        for _ in 0..3 {
            assert!(!pair.pings(B), "a certificate of another authority");
        }
    });
    watched.assert_no_plaintext();
    assert_eq!(watched.esp(), 0);
}

#[test]
fn expired_certificate_is_refused() {
    let Some(mut pair) = Pair::new("an expired certificate") else {
        return;
    };
    authority(&pair.bed, "ca");
    signed(&pair.bed, PLAIN, A, "ca", "30");
    // It ends before it begins.
    signed(&pair.bed, PLAIN, B, "ca", "-1");
    for side in BOTH {
        pair.start_charon(side, Proof::Authority);
    }
    let watched = pair.watched(|| {
        for side in BOTH {
            assert!(!pair.pings(side), "{side:?}");
        }
    });
    watched.assert_no_plaintext();
    assert_eq!(watched.esp(), 0);
}

/// What `openssl ca` needs to revoke.
const AUTHORITY: &str = "\
[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\ncrlnumber = crlnumber\n\
default_md = sha256\ndefault_crl_days = 30\ncrl_extensions = ext\n\
[ext]\nauthorityKeyIdentifier = keyid\n";

#[test]
fn revoked_certificate_is_refused() {
    let Some(mut pair) = Pair::new("a revoked certificate") else {
        return;
    };
    let bed = &pair.bed;
    authority(bed, "ca");
    for side in BOTH {
        signed(bed, PLAIN, side, "ca", "30");
    }
    for (file, content) in [
        ("ca.cnf", AUTHORITY),
        ("index.txt", ""),
        ("crlnumber", "01\n"),
    ] {
        std::fs::write(bed.path(file), content).expect("a file");
    }
    let ca = [
        "ca", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key",
    ];
    openssl(bed, &[&ca[..], &["-gencrl", "-out", "ca.crl"]].concat());
    for side in BOTH {
        pair.start_charon(side, Proof::Authority);
    }
    // With a list on which nobody is.
    pair.reaches(A);
    let revoke = ["-revoke", "b.pem"];
    openssl(&pair.bed, &[&ca[..], &revoke].concat());
    openssl(
        &pair.bed,
        &[&ca[..], &["-gencrl", "-out", "ca.crl"]].concat(),
    );
    for side in BOTH {
        pair.take_charon(side).kill();
        pair.start_charon(side, Proof::Authority);
    }
    let watched = pair.watched(|| {
        for side in BOTH {
            assert!(!pair.pings(side), "{side:?}");
        }
    });
    watched.assert_no_plaintext();
    assert_eq!(watched.esp(), 0);
}
