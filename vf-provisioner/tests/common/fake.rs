//! Sites whose switches are fake ones.

use std::fs;
use std::path::Path;

use crate::site::{PROVISIONER, Site};

/// A site with fake switches, which start without DPDK. Without root it prints that and is `None`.
pub(crate) fn site(instance: &'static str, uid_base: u32) -> Option<Site> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: {instance} needs root");
        return None;
    }
    let switch = Path::new(PROVISIONER).with_file_name("examples/fake_switch");
    let options = ["--switch-binary", switch.to_str().expect("a path")];
    Some(Site::new(
        instance,
        uid_base,
        options.map(str::to_owned).into(),
    ))
}

impl Site {
    /// A tenant's file; `number` is 1 to 9.
    pub(crate) fn tenant(&self, number: u8, ports: u8) -> String {
        let instance = self.instance;
        let mut text = format!(
            "name = \"t{number}\"\nvni = 500{number}\n[gateway]\nipv4 = \"10.{number}.0.1/24\"\n\
             [uplink]\naddress = \"192.0.2.1{number}/24\"\nnext_hop = \"192.0.2.1\"\naddress6 = \
             \"2001:db8::1{number}/64\"\nnext_hop6 = \"2001:db8::1\"\n",
        );
        for port in 1..=ports {
            text += &format!(
                "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \"52:54:00:00:0{number}:0{port}\"\n\
                 addresses = [\"10.{number}.0.1{port}\"]\n",
            );
        }
        let path = self.dir.path().join(format!("{instance}-t{number}.toml"));
        fs::write(&path, text).expect("the file is written");
        path.display().to_string()
    }
}
