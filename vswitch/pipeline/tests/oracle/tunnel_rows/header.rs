//! The rows of "Out of the tunnel" about the tunnel's header.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    vxlan_headers(rows);
    geneve_headers(rows);
    geneve_options(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn vxlan_headers(rows: &mut Rows) {
    rows.row = "Out 4";
    let config = configs::vxlan();
    let good = from4(&config, B, &home());
    rows.on(config.clone(), OUT);
    let vxlan = |flags: u8| TunnelPacket { header: [&[flags], &good.header[1..]].concat(),
        ..good.clone() }.frame();
    for bit in 0..8 {
        if bit == 3 {
            rows.drop(TunnelMalformed, "flag I alone is clear", vxlan(!(1 << bit)));
        } else {
            rows.drop(TunnelMalformed, "another flag than I", vxlan(1 << bit));
            rows.forward(0, "another flag beside I", vxlan(8 | 1 << bit));
        }
    }
    rows.drop(TunnelMalformed, "no flag", vxlan(0));
    rows.drop(TunnelMalformed, "row 4 before row 5",
        TunnelPacket { header: vec![0; 8], ..good.clone() }.frame());
    rows.forward(0, "reserved bytes",
        TunnelPacket { header: [&[8, 1, 2, 3], &good.header[4..7], &[4]].concat(),
        ..good.clone() }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn geneve_headers(rows: &mut Rows) {
    rows.row = "Out 4";
    let config = configs::geneve();
    let vni = config.vni.get();
    let good = from4(&config, B, &home());
    rows.on(config.clone(), OUT);
    let with = |at: usize, value: u8| {
        let mut header = good.header.clone();
        header[at] = value;
        TunnelPacket { header, ..good.clone() }.frame()
    };
    for version in [0x40, 0x80, 0xc0] {
        rows.drop(TunnelMalformed, "another version", with(0, version));
    }
    rows.drop(TunnelMalformed, "a control packet", with(1, 0x80));
    rows.drop(TunnelMalformed, "a critical control packet", with(1, 0xc0));
    rows.forward(0, "reserved flags", with(1, 0x3f));
    for protocol in [[0x08, 0x00], [0x65, 0x59], [0x64, 0x58], [0x86, 0xdd], [0, 0]] {
        let header = [&good.header[..2], &protocol, &good.header[4..]].concat();
        rows.drop(TunnelMalformed, "another protocol",
            TunnelPacket { header, ..good.clone() }.frame());
    }
    rows.drop(TunnelVni, "row 5 before row 6",
        TunnelPacket { header: geneve_header(vni + 1, &geneve_option(0x80, 0)),
        ..good.clone() }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn geneve_options(rows: &mut Rows) {
    let config = configs::geneve();
    let vni = config.vni.get();
    let good = from4(&config, B, &home());
    rows.on(config, OUT);
    rows.row = "Out 6";
    let options = |options: &[Vec<u8>]| TunnelPacket { header: geneve_header(vni,
        &options.concat()), ..good.clone() };
    rows.drop(TunnelOption, "flag C without an option", {
        let mut header = good.header.clone();
        header[1] = 0x40;
        TunnelPacket { header, ..good.clone() }.frame()
    });
    for words in [0, 1, 31] {
        rows.forward(0, "an option", options(&[geneve_option(1, words)]).frame());
        rows.drop(TunnelOption, "a critical option",
            options(&[geneve_option(0x81, words)]).frame());
        rows.drop(TunnelOption, "a critical option behind another",
            options(&[geneve_option(1, words), geneve_option(0x80, 0)]).frame());
    }
    rows.forward(0, "252 bytes of options",
        options(&[geneve_option(1, 31), geneve_option(2, 30)]).frame());
    rows.forward(0, "63 options", options(&vec![geneve_option(0x7f, 0); 63]).frame());
    rows.drop(TunnelOption, "63 options, the last critical",
        options(&[vec![geneve_option(0x7f, 0); 62].concat(), geneve_option(0xff, 0)]).frame());
    rows.forward(0, "reserved bits of an option", {
        let mut option = geneve_option(1, 2);
        option[3] |= 0xe0;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "an option beyond the options", {
        let mut option = geneve_option(1, 2);
        option[3] = 3;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "a critical option beyond the options", {
        let mut option = geneve_option(0x81, 2);
        option[3] = 31;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "flag C and an option beyond the options", {
        let mut option = geneve_option(1, 0);
        option[3] = 1;
        let mut header = geneve_header(vni, &option);
        header[1] = 0x40;
        TunnelPacket { header, ..good.clone() }.frame()
    });
    for words in [1, 5, 63] {
        let mut header = geneve_header(vni, &[]);
        header[0] = words;
        rows.drop(TunnelTruncated, "options beyond the packet",
            TunnelPacket { header, inner: vec![], ..good.clone() }.frame());
    }
    rows.drop(Malformed, "options, and no inner frame",
        TunnelPacket { inner: vec![], ..options(&[geneve_option(1, 4)]) }.frame());
}
