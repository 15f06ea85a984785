//! Tenant files as an operator keeps them: files, directories, and several tenants on one host.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tenant_config::{Tenant, load_all};

/// A tenant that has nothing in common with one of another `n`.
fn tenant(n: u8) -> String {
    format!(
        r#"name = "tenant{n}"
vni = {n}
[gateway]
ipv4 = "10.{n}.0.1/24"
[uplink]
address = "192.0.2.{n}/24"
next_hop = "192.0.2.254"
[[port]]
name = "vm"
mac = "52:54:00:00:00:{n:02x}"
addresses = ["10.{n}.0.11"]
"#
    )
}

/// A directory with the files `a.toml`, `b.toml` … of `texts`.
fn directory(texts: &[String]) -> TempDir {
    let directory = TempDir::new().expect("a directory for the test");
    for (text, letter) in texts.iter().zip('a'..) {
        fs::write(directory.path().join(format!("{letter}.toml")), text)
            .expect("a file for the test");
    }
    directory
}

/// The errors of the directory's files, without its path.
fn refusal(directory: &TempDir, paths: &[PathBuf]) -> String {
    let errors = load_all(paths).expect_err("these files were accepted");
    errors
        .to_string()
        .replace(&directory.path().display().to_string(), "DIR")
}

/// The errors of `a.toml`, which is [`tenant`] 1, and `b.toml`.
fn refusal_beside_one(b: &str) -> String {
    let directory = directory(&[tenant(1), b.to_owned()]);
    refusal(&directory, &[directory.path().to_owned()])
}

#[test]
fn directory_read_in_name_order_and_each_file_once() {
    let directory = directory(&[tenant(2), tenant(1)]);
    fs::write(directory.path().join("notes.txt"), "not a tenant").unwrap();
    let paths = [directory.path().join("b.toml"), directory.path().to_owned()];
    let tenants = load_all(&paths).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = tenants
        .iter()
        .map(|tenant| tenant.name().as_str())
        .collect();
    assert_eq!(names, ["tenant1", "tenant2"]);
}

#[test]
fn unreadable_paths_reported() {
    let directory = directory(&[]);
    let paths = [
        directory.path().to_owned(),
        directory.path().join("gone.toml"),
    ];
    assert_eq!(
        refusal(&directory, &paths),
        "DIR: no tenant file in this directory: put one NAME.toml per tenant there, or name a \
         file\n\
         DIR/gone.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn errors_of_all_files_reported() {
    let directory = directory(&[
        tenant(1).replace("vni = 1", "vni = 0"),
        tenant(2).replace("52:54", "53:54"),
    ]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/a.toml:2:7: vni: 0 is no VNI; choose one from 1 to 16777215 that no other tenant has\n\
         DIR/b.toml:10:7: port[0].mac (port \"vm\"): \"53:54:00:00:00:02\" is not a unicast MAC \
         address of six hexadecimal bytes, as in 52:54:00:aa:00:01"
    );
}

#[test]
fn duplicate_tenant() {
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("tenant2", "tenant1")),
        "DIR/b.toml:1:8: name: tenant1 is also the tenant of DIR/a.toml; names are unique on a host"
    );
}

#[test]
fn duplicate_vni() {
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("vni = 2", "vni = 1")),
        "DIR/b.toml:2:7: vni: 1 is also the VNI of DIR/a.toml; every tenant has its own"
    );
}

#[test]
fn duplicate_mac() {
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("00:02\"", "00:01\"")),
        "DIR/b.toml:10:7: port[0].mac (port \"vm\"): 52:54:00:00:00:01 is also port \"vm\" of \
         DIR/a.toml; every MAC names one port"
    );
}

#[test]
fn duplicate_uplink_address() {
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("192.0.2.2/", "192.0.2.1/")),
        "DIR/b.toml:6:11: uplink.address: 192.0.2.1 is also the uplink's address of DIR/a.toml; \
         every switch has its own"
    );
}

#[test]
fn duplicate_lone_ipv6_uplink_address() {
    let ipv6 = |n| {
        tenant(n)
            .replace(&format!("192.0.2.{n}/24"), "2001:db8::1/64")
            .replace("192.0.2.254", "2001:db8::fe")
    };
    let directory = directory(&[ipv6(1), ipv6(2)]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/b.toml:5:1: uplink: 2001:db8::1 is also the uplink's address of DIR/a.toml; every \
         switch has its own"
    );
}

#[test]
fn inner_overlap_on_one_underlay() {
    assert_eq!(
        refusal_beside_one(
            &tenant(2)
                .replace("10.2.0.1/24", "10.1.0.1/8")
                .replace("10.2.", "10.1.")
        ),
        "DIR/b.toml:4:8: gateway.ipv4: 10.0.0.0/8 overlaps 10.1.0.0/24 of DIR/a.toml: both tenants \
         route plainly to the underlay, so its routers could not tell whose address is meant; \
         change one subnet, leave out one [uplink], or set tunnel.only = true in one file"
    );
}

#[test]
fn inner_overlap_without_uplink_accepted() {
    let isolated = tenant(2).replace("10.2.", "10.1.").replace(
        "[uplink]\naddress = \"192.0.2.2/24\"\nnext_hop = \"192.0.2.254\"\n",
        "",
    );
    let directory = directory(&[tenant(1), isolated]);
    let tenants =
        load_all(&[directory.path().to_owned()]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(tenants[0].gateway(), tenants[1].gateway());
    assert_eq!(tenants[1].uplink(), None);
}

#[test]
fn inner_overlap_with_only_accepted() {
    let same = |only| {
        let tunnel = format!(
            "[tunnel]\nkind = \"geneve\"\nonly = {only}\n[[tunnel.peer]]\nname = \"b\"\n\
             vtep = \"192.0.2.66\"\nprefixes = [\"10.1.0.71\"]\n[[port]]"
        );
        tenant(2)
            .replace("10.2.", "10.1.")
            .replace("[[port]]", &tunnel)
    };
    for files in [[tenant(1), same(true)], [same(true), tenant(1)]] {
        let directory = directory(&files);
        let tenants =
            load_all(&[directory.path().to_owned()]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(tenants[0].gateway(), tenants[1].gateway());
    }
    // A tunnel alone does not keep a tenant from the underlay.
    assert_eq!(
        refusal_beside_one(&same(false)),
        "DIR/b.toml:4:8: gateway.ipv4: 10.1.0.0/24 overlaps 10.1.0.0/24 of DIR/a.toml: both \
         tenants route plainly to the underlay, so its routers could not tell whose address is \
         meant; change one subnet, leave out one [uplink], or set tunnel.only = true in one file"
    );
}

#[test]
fn tenant_serialises_to_its_own_text() {
    let text = r#"name = "green"
vni = 7
[gateway]
ipv6 = "fd00:9::1/64"
ipv4 = "10.9.0.1/24"
[uplink]
address = "2001:db8::9/64"
next_hop = "2001:db8::1"
allow = ["2001:db8::53", "2001:db8::100/120"]
mtu = 9000
[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11", "10.9.0.64/28", "fd00:9::11"]
extra_macs = ["00:00:5e:00:01:01"]
trunk = [1, 4094]
dhcp_server = true
announce = true
encapsulation = "deny"
mtu = 1280
[port.limits]
broadcast_pps = 1
arp_nd_pps = 2
dhcp_pps = 3
pps = 4294967295
bps = 9223372036854775807
[[port]]
name = "two"
mac = "52:54:00:cc:00:02"
extra_macs = ["00:00:5e:00:01:01"]
addresses = "learn-dhcp"
"#;
    let tenant = Tenant::parse("green.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    let again = toml::to_string(&tenant).unwrap();
    assert_eq!(
        Tenant::parse("again.toml", &again),
        Ok(tenant.clone()),
        "{again}"
    );
    let uplink = tenant.uplink().unwrap();
    assert_eq!((uplink.ipv4, uplink.ipv4_next_hop), (None, None));
    assert_eq!(uplink.ipv6.unwrap().to_string(), "2001:db8::9/64");
    assert_eq!(uplink.allow[0].to_string(), "2001:db8::53/128");
}
