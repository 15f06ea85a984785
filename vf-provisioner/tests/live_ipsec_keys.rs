//! Keys and certificates over their lives, between two hosts: rotation, revocation, expiry, and the
//! way from a plain tunnel to a protected one. Without root, or before `scripts/build-ike` has
//! built the daemon, each test prints that and passes.

#[path = "common/output.rs"]
mod output;
#[path = "common/pair.rs"]
mod pair;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

use pair::{
    Wire, answered, copy_key, daemon, eventually, join, key, make_key, part, tenant_with,
    two_hosts, with_key,
};
use site::Site;
use supervisor::Supervisor;

fn file(site: &Site, name: &str) -> PathBuf {
    site.dir.path().join(name)
}

fn path(site: &Site, name: &str) -> String {
    file(site, name).display().to_string()
}

/// Replaces a file as the page says: by a complete one.
fn put(site: &Site, name: &str, text: &str) {
    let new = file(site, "new");
    fs::write(&new, text).expect("it is written");
    fs::rename(new, file(site, name)).expect("it is renamed");
}

fn supervise(site: &Site) -> Supervisor {
    let patience = Duration::from_secs(30);
    Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience)
}

/// The daemons have tried, and nothing passes.
#[track_caller]
fn refused(a: &Site, wire: &Wire) {
    let before = wire.count("ike");
    assert!(!answered(a));
    eventually("the daemons talk", || wire.count("ike") >= before + 2);
    assert!(!answered(a));
    assert_eq!(a.run(&["verify"]).status.code(), Some(3));
}

fn restart(site: &Site) {
    site.good(&["restart", "t1"]);
}

/// Makes a host's key and its own certificate, in files of these names.
fn make_pair(site: &Site, host: &str, key: &str, certificate: &str) -> String {
    let (key, certificate) = (path(site, key), path(site, certificate));
    let made = [
        "ipsec",
        "keygen",
        "certificate",
        "--name",
        host,
        "--key",
        &key,
    ];
    site.good(&[&made[..], &["--certificate", &certificate]].concat());
    fs::read_to_string(certificate).expect("it was made")
}

fn own_pair(site: &Site) -> String {
    format!(
        "mode = \"required\"\ncertificate = \"{}\"\nkey = \"{}\"",
        path(site, "own.pem"),
        path(site, "own.key")
    )
}

/// The tenant's file where the peer's certificate is one of these.
fn pinning(site: &Site, own: u8, files: &[&str]) -> String {
    let files: Vec<String> = files.iter().map(|name| path(site, name)).collect();
    tenant_with(
        site,
        own,
        &own_pair(site),
        &format!("certificate = {files:?}"),
    )
}

#[test]
fn pinned_certificate_is_rotated_and_the_old_one_refused() {
    let Some([a, b]) = two_hosts(["tie", "tif"], 94400) else {
        return;
    };
    let own_a = make_pair(&a, "host-a.example", "own.key", "own.pem");
    let old = make_pair(&b, "host-b.example", "own.key", "own.pem");
    let new = make_pair(&b, "host-b.example", "new.key", "new.pem");
    put(&a, "old.pem", &old);
    put(&a, "new.pem", &new);
    put(&b, "a.pem", &own_a);
    let wire = join(
        &a,
        &b,
        &pinning(&a, 1, &["old.pem"]),
        &pinning(&b, 2, &["a.pem"]),
    );
    eventually("the VMs talk", || answered(&a));

    let mut supervisor = supervise(&b);
    a.good(&["apply", &pinning(&a, 1, &["new.pem", "old.pem"])]);
    assert!(answered(&a), "a running association stays");
    restart(&a);
    eventually("the old certificate is still accepted", || answered(&a));
    let old_key = fs::read_to_string(file(&b, "own.key")).expect("the old key");
    for name in ["key", "pem"] {
        let (new, own) = (format!("new.{name}"), format!("own.{name}"));
        fs::rename(file(&b, &new), file(&b, &own)).expect("it is replaced");
    }
    supervisor.wait_for("ike_reloaded", "t1");
    assert!(answered(&a), "a running association stays");
    restart(&a);
    eventually("the new certificate is accepted, too", || answered(&a));
    a.good(&["apply", &pinning(&a, 1, &["new.pem"])]);
    restart(&a);
    eventually("the VMs talk with the new one alone", || answered(&a));
    a.good(&["ipsec", "show"]);

    put_secret(&b, "own.key", &old_key);
    put(&b, "own.pem", &old);
    supervisor.wait_for("ike_reloaded", "t1");
    restart(&a);
    refused(&a, &wire);
    assert_eq!(wire.count("geneve"), 0);
    supervisor.stop();
    part(wire, &a, &b);
}

fn put_secret(site: &Site, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let new = file(site, "secret");
    fs::write(&new, text).expect("it is written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("its mode");
    fs::rename(new, file(site, name)).expect("it is renamed");
}

/// Signs requests and lists of revoked certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for what a host requests, valid until that year.
    fn sign(&self, site: &Site, serial: u64, until: i32) -> String {
        let request = fs::read_to_string(file(site, "own.csr")).expect("a request");
        let request = CertificateSigningRequestParams::from_pem(&request);
        let mut request = request.expect("it is one");
        request.params.serial_number = Some(SerialNumber::from(serial));
        request.params.not_before = date_time_ymd(2019, 1, 1);
        request.params.not_after = date_time_ymd(until, 1, 1);
        let certificate = request.signed_by(&self.issuer);
        certificate.expect("a certificate").pem()
    }

    /// The list of that number, with these serial numbers.
    fn revoke(&self, number: u64, revoked: &[u64]) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }
}

/// The tenant's file where an authority vouches for the peer.
fn trusting(site: &Site, own: u8, peer: &str) -> String {
    let ipsec = format!(
        "{}\nca = \"{}\"\ncrl = \"{}\"",
        own_pair(site),
        path(site, "ca.pem"),
        path(site, "ca.crl")
    );
    tenant_with(site, own, &ipsec, &format!("identity = \"{peer}\""))
}

#[test]
fn revoked_or_expired_certificate_is_refused_until_there_is_another() {
    let Some([a, b]) = two_hosts(["tig", "tih"], 94600) else {
        return;
    };
    let authority = Authority::new();
    for (site, name, serial) in [(&a, "host-a.example", 11), (&b, "host-b.example", 12)] {
        let (key, request) = (path(site, "own.key"), path(site, "own.csr"));
        site.good(&[
            "ipsec", "csr", "--name", name, "--key", &key, "--out", &request,
        ]);
        put(site, "own.pem", &authority.sign(site, serial, 2040));
        put(site, "ca.pem", &authority.certificate);
        put(site, "ca.crl", &authority.revoke(1, &[]));
    }
    let files = (
        trusting(&a, 1, "host-b.example"),
        trusting(&b, 2, "host-a.example"),
    );
    let wire = join(&a, &b, &files.0, &files.1);
    let (mut at_a, mut at_b) = (supervise(&a), supervise(&b));
    eventually("the VMs talk", || answered(&a));

    put(&a, "ca.crl", &authority.revoke(2, &[12]));
    at_a.wait_for("ike_reloaded", "t1");
    assert!(answered(&a), "a running association stays");
    restart(&a);
    refused(&a, &wire);
    put(&b, "own.pem", &authority.sign(&b, 13, 2040));
    at_b.wait_for("ike_reloaded", "t1");
    eventually("the VMs talk with another certificate", || answered(&a));

    put(&a, "own.pem", &authority.sign(&a, 14, 2020));
    at_a.wait_for("ike_reloaded", "t1");
    let ended = at_a.wait_for("expires", "t1");
    assert_eq!(
        (&ended["expired"], &ended["file"]),
        (&json!(true), &json!(path(&a, "own.pem")))
    );
    // Until then the other host remembers a valid one for the same key.
    restart(&b);
    restart(&a);
    refused(&a, &wire);
    put(&a, "own.pem", &authority.sign(&a, 15, 2040));
    at_a.wait_for("ike_reloaded", "t1");
    eventually("the VMs talk again", || answered(&a));
    assert_eq!(wire.count("geneve"), 0);
    at_a.stop();
    at_b.stop();
    part(wire, &a, &b);
}

#[test]
fn tunnel_becomes_protected_in_four_steps_and_outlives_a_new_name() {
    let Some([a, b]) = two_hosts(["tii", "tij"], 94800) else {
        return;
    };
    make_key(&a);
    copy_key(&a, &b);
    // Step 1.
    let step = |site: &Site, own, of_peer| tenant_with(site, own, &with_key(site, "off"), of_peer);
    let wire = join(&a, &b, &step(&a, 1, ""), &step(&b, 2, ""));
    eventually("the VMs talk", || answered(&a));
    assert!(wire.count("geneve") >= 2 && wire.count("esp") == 0);
    let switches = [a.pid("t1"), b.pid("t1")];

    let required = "ipsec = \"required\"";
    a.good(&["apply", &step(&a, 1, required)]);
    let (plain, sent) = (wire.count("geneve"), wire.count("ike"));
    assert!(!answered(&a) && !answered(&a));
    b.good(&["apply", &step(&b, 2, required)]);
    eventually("the VMs talk under ESP", || answered(&a));
    for site in [&a, &b] {
        site.good(&["ipsec", "show"]);
    }
    assert!(wire.count("esp") >= 2 && wire.count("ike") > sent);
    assert_eq!(wire.count("geneve"), plain);
    assert_eq!(
        [a.pid("t1"), b.pid("t1")],
        switches,
        "steps 2 and 3 are reloads"
    );

    let before = daemon(&a);
    let renamed = fs::read_to_string(file(&a, "t1.toml")).expect("the file");
    let renamed = renamed.replacen("name = \"t1\"", "name = \"t9\"", 1);
    fs::write(file(&a, "t9.toml"), renamed).expect("it is written");
    a.good(&["rename", "t1", &path(&a, "t9.toml")]);
    eventually("the VMs talk under the new name", || answered(&a));
    let shown: Value = a.json(&["ipsec", "show"]);
    assert_eq!(shown["tenants"][0]["tenant"], "t9");
    assert!(!a.state_dir().join("tenants/t1").exists());
    assert!(!fs::read(format!("/proc/{before}/cmdline")).is_ok_and(|it| !it.is_empty()));
    assert_eq!(wire.count("geneve"), plain);

    let (backup, key) = (path(&a, "backup"), key(&a));
    let said = a.good(&["backup", &backup]);
    let elsewhere = format!("not in it, keep a copy elsewhere: {}\n", key.display());
    assert_eq!(said, format!("{backup}: 1 tenants\n{elsewhere}"));
    fs::rename(&key, file(&a, "away")).expect("it is moved");
    let said = a.good(&["restore", "--dry-run", &backup]);
    let missing = format!("not there, put it back first: {}\n", key.display());
    assert!(said.contains(&missing), "{said}");
    fs::rename(file(&a, "away"), &key).expect("it is back");
    part(wire, &a, &b);
}
