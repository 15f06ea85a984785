//! Tenant files as an operator keeps them: files, directories, and several tenants on one host.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tenant_config::{HostTenant, Tenant, check_host, load_all};

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

/// A `[tunnel]` to one peer, to be put before the ports.
fn tunnel(vtep: &str, prefixes: &str, only: bool) -> String {
    format!(
        "[tunnel]\nkind = \"geneve\"\nonly = {only}\n[[tunnel.peer]]\nname = \"b\"\n\
         vtep = \"{vtep}\"\nprefixes = [{prefixes}]\n[[port]]"
    )
}

#[test]
fn inner_subnet_with_uplink_address_of_other_tenant_refused() {
    let expected = "DIR/b.toml:4:8: gateway.ipv4: 192.0.2.0/25 overlaps 192.0.2.0/24 on the \
                    underlay of DIR/a.toml (uplink.address): a VM there could speak as a station \
                    of that tenant's tunnel; choose inner addresses apart from the underlay";
    // The tenant's own uplink is elsewhere, or missing.
    let inside = tenant(2)
        .replace("10.2.0.1/24", "192.0.2.9/25")
        .replace("10.2.0.11", "192.0.2.11")
        .replace("\"192.0.2.2/24\"", "\"198.51.100.2/24\"")
        .replace("192.0.2.254", "198.51.100.254");
    assert_eq!(refusal_beside_one(&inside), expected);
    let (head, tail) = inside.split_once("[uplink]").unwrap();
    let isolated = format!("{head}{}", &tail[tail.find("[[port]]").unwrap()..]);
    assert_eq!(refusal_beside_one(&isolated), expected);
}

#[test]
fn inner_subnet_with_peer_of_other_tenant_refused() {
    let directory = directory(&[
        tenant(1).replace("[[port]]", &tunnel("10.2.0.66", "\"10.1.0.71\"", false)),
        tenant(2),
    ]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/b.toml:4:8: gateway.ipv4: 10.2.0.0/24 overlaps 10.2.0.66 on the underlay of \
         DIR/a.toml (tunnel.peer[0].vtep): a VM there could speak as a station of that tenant's \
         tunnel; choose inner addresses apart from the underlay"
    );
}

#[test]
fn peer_inside_inner_prefixes_of_other_tenant_refused() {
    let wide = tunnel("192.0.2.66", "\"10.1.0.71\", \"198.51.100.0/24\"", true);
    let directory = directory(&[
        tenant(1).replace("[[port]]", &wide),
        tenant(2).replace("[[port]]", &tunnel("198.51.100.7", "\"10.2.0.71\"", false)),
    ]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/b.toml:13:8: tunnel.peer[0].vtep: 198.51.100.7 on the underlay overlaps \
         198.51.100.0/24, inner addresses of DIR/a.toml (tunnel.peer[0].prefixes[1]): a VM there \
         could speak as a station of this tenant's tunnel; choose inner addresses apart from the \
         underlay"
    );
}

#[test]
fn station_that_is_switch_of_other_tenant_refused() {
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("192.0.2.254", "192.0.2.1")),
        "DIR/b.toml:7:12: uplink.next_hop: 192.0.2.1 is the switch of DIR/a.toml \
         (uplink.address), which would speak for this station; write the underlay's router, or a \
         peer on another host"
    );
    let peer = tunnel("192.0.2.1", "\"10.2.0.71\"", false);
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("[[port]]", &peer)),
        "DIR/b.toml:13:8: tunnel.peer[0].vtep: 192.0.2.1 is the switch of DIR/a.toml \
         (uplink.address), which would speak for this station; write the underlay's router, or a \
         peer on another host"
    );
    let peer = tunnel("192.0.2.66", "\"10.2.0.71\"", false);
    let peer = peer.replace(
        "prefixes",
        "sources = [\"203.0.113.1\", \"192.0.2.1\"]\nprefixes",
    );
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("[[port]]", &peer)),
        "DIR/b.toml:14:11: tunnel.peer[0].sources: 192.0.2.1 is the switch of DIR/a.toml \
         (uplink.address), which would speak for this station; write the underlay's router, or a \
         peer on another host"
    );
    // A VM of the other tenant could speak as the peer.
    let inside = peer.replace("203.0.113.1\", \"192.0.2.1", "10.1.0.77");
    assert_eq!(
        refusal_beside_one(&tenant(2).replace("[[port]]", &inside)),
        "DIR/b.toml:14:11: tunnel.peer[0].sources: 10.1.0.77 on the underlay overlaps \
         10.1.0.0/24, inner addresses of DIR/a.toml (gateway.ipv4): a VM there could speak as a \
         station of this tenant's tunnel; choose inner addresses apart from the underlay"
    );
    // The error is at the second file, whichever has the station.
    let directory = directory(&[tenant(1).replace("192.0.2.254", "192.0.2.2"), tenant(2)]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/b.toml:6:11: uplink.address: 192.0.2.2 is a station to which DIR/a.toml sends \
         (uplink.next_hop), and this switch would speak for it; choose another address"
    );
}

#[test]
fn equal_inout_macs_refused() {
    // The digests of these two pairs of VNI and address begin with the same five bytes.
    let with = |n: u8, vni: u32, own: u8| {
        tenant(n)
            .replace(&format!("vni = {n}"), &format!("vni = {vni}"))
            .replace(&format!("192.0.2.{n}/24"), &format!("192.0.2.{own}/24"))
    };
    let directory = directory(&[with(1, 3185, 59), with(2, 4287, 86)]);
    assert_eq!(
        refusal(&directory, &[directory.path().to_owned()]),
        "DIR/b.toml:2:7: vni: 0a:92:1d:d6:19:01, the MAC of the In/Out side, is also that of \
         DIR/a.toml; it is a digest of the VNI and the uplink's address: change one of these"
    );
}

#[test]
fn same_inner_and_same_peer_of_isolated_tenants_accepted() {
    let both = [1, 2].map(|n| {
        tenant(n)
            .replace(&format!("10.{n}."), "10.9.")
            .replace("[[port]]", &tunnel("192.0.2.66", "\"0.0.0.0/0\"", true))
    });
    let directory = directory(&both);
    let tenants =
        load_all(&[directory.path().to_owned()]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(tenants[0].gateway(), tenants[1].gateway());
}

#[test]
fn new_tenant_compared_with_those_present() {
    let config = |text: &str| {
        Tenant::parse("test", text)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .offline_config()
    };
    let (blue, green) = (config(&tenant(1)), config(&tenant(3)));
    let red = config(
        &tenant(2)
            .replace("10.2.0.1/24", "192.0.2.9/25")
            .replace("10.2.0.11", "192.0.2.11")
            .replace("\"192.0.2.2/24\"", "\"198.51.100.2/24\"")
            .replace("192.0.2.254", "198.51.100.254"),
    );
    let named = |source, config| HostTenant { source, config };
    let (blue, green) = (named("tenant blue", &blue), named("tenant green", &green));
    let red = named("tenant red", &red);
    let refused = check_host(&[blue], &[red]).expect_err("red may speak as blue");
    assert_eq!(
        refused.to_string(),
        "tenant red: gateway.ipv4: 192.0.2.0/25 overlaps 192.0.2.0/24 on the underlay of tenant \
         blue (uplink.address): a VM there could speak as a station of that tenant's tunnel; \
         choose inner addresses apart from the underlay"
    );
    let refused = check_host(&[red], &[blue]).expect_err("red may speak as blue");
    assert_eq!(
        refused.to_string(),
        "tenant blue: uplink.address: 192.0.2.0/24 on the underlay overlaps 192.0.2.0/25, inner \
         addresses of tenant red (gateway.ipv4): a VM there could speak as a station of this \
         tenant's tunnel; choose inner addresses apart from the underlay"
    );
    // What is there already keeps no unrelated tenant from the host.
    let unrelated = config(
        &tenant(4)
            .replace("\"192.0.2.4/24\"", "\"203.0.113.4/24\"")
            .replace("192.0.2.254", "203.0.113.254"),
    );
    assert_eq!(
        check_host(&[red, blue], &[named("tenant new", &unrelated)]),
        Ok(())
    );
    assert_eq!(check_host(&[blue], &[green]), Ok(()));
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
