//! `[port.metadata]`: what is read from the file and beside it, and what the switch is told.

use std::fs;
use std::path::PathBuf;

use tenant_config::{MAX_METADATA, MAX_USER_DATA, SwitchConfig, Tenant};

const GREEN: &str = r#"name = "green"
vni = 7
[gateway]
ipv4 = "10.9.0.1/24"
ipv6 = "fd00:9::1/64"
[[port]]
name = "one"
mac = "52:54:00:cc:00:01"
addresses = ["10.9.0.11"]
hostname = "web"
"#;

/// A tenant's file with that table, in a directory of its own with these files.
struct Files {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Files {
    fn new(table: &str, files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).expect("a file");
        }
        let file = dir.path().join("green.toml");
        fs::write(&file, format!("{GREEN}{table}\n")).expect("a file");
        Self { dir, file }
    }

    fn load(&self) -> Tenant {
        Tenant::load(&self.file).expect("a tenant")
    }

    /// The errors, without the directory's name.
    fn errors(&self) -> String {
        let errors = Tenant::load(&self.file).expect_err("errors").to_string();
        errors.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn told(tenant: &Tenant) -> serde_json::Value {
    let config = tenant.offline_config();
    serde_json::to_value(&config.ports[0].metadata).expect("it is JSON")
}

#[test]
fn empty_table_has_defaults() {
    let tenant = Files::new("[port.metadata]", &[]).load();
    let told = told(&tenant);
    assert_eq!(told["hostname"], "web");
    assert_eq!(told["openstack"], true);
    assert_eq!(told.as_object().expect("an object").len(), 3, "{told}");
    let made = told["instance_id"].as_str().expect("text");
    assert!(made.starts_with("i-") && made.len() == 19, "{made}");
    // The same for the same names, and another for others.
    let again = self::told(&Files::new("[port.metadata]", &[]).load());
    assert_eq!(again["instance_id"], made);
    let other = GREEN.replace("\"one\"", "\"two\"") + "[port.metadata]\n";
    let other = self::told(&Tenant::parse("green.toml", &other).expect("a tenant"));
    assert_ne!(other["instance_id"], made);
    let without = GREEN.replace("hostname = \"web\"\n", "") + "[port.metadata]\n";
    let without = self::told(&Tenant::parse("green.toml", &without).expect("a tenant"));
    assert_eq!(without["hostname"], "green-one");
    let none = Tenant::parse("green.toml", GREEN).expect("a tenant");
    assert_eq!(self::told(&none), serde_json::Value::Null);
}

#[test]
fn longest_names_make_a_label() {
    let long = "x".repeat(31) + "-";
    let text = GREEN.replace("hostname = \"web\"\n", "");
    let text = text.replace("\"green\"", &format!("{long:?}"));
    let text = text.replace("\"one\"", &format!("{long:?}")) + "[port.metadata]\n";
    let told = told(&Tenant::parse("green.toml", &text).expect("a tenant"));
    let hostname = told["hostname"].as_str().expect("text");
    assert_eq!(hostname.len(), 63);
    // No name of a domain ends in a number.
    let digits = GREEN.replace("\"web\"", "\"17\"") + "[port.metadata]\n";
    let told = self::told(&Tenant::parse("green.toml", &digits).expect("a tenant"));
    assert_eq!(told["hostname"], "green-one");
}

#[test]
fn files_beside_the_tenants_are_read() {
    let table = r#"[port.metadata]
instance_id = "i-1"
hostname = "web.example"
public_keys = ["ssh-ed25519 AAAA me"]
user_data = "data"
vendor_data = "vendor"
openstack = false"#;
    let binary = [0, 159, 146, 150];
    let files = Files::new(table, &[("data", &binary), ("vendor", b"#cloud-config\n")]);
    let tenant = files.load();
    let told = told(&tenant);
    assert_eq!(
        told,
        serde_json::json!({
            "instance_id": "i-1",
            "hostname": "web.example",
            "public_keys": ["ssh-ed25519 AAAA me"],
            "user_data": "AJ+Slg==",
            "vendor_data": "I2Nsb3VkLWNvbmZpZwo=",
            "openstack": false,
        })
    );
    let config = tenant.offline_config();
    let json = serde_json::to_string(&config).expect("it is JSON");
    assert_eq!(SwitchConfig::from_json("it", &json).expect("valid"), config);
    // The file's form has the path, and what is shown of the content is its length.
    let written = serde_json::to_value(&tenant).expect("it is JSON");
    assert_eq!(written["port"][0]["metadata"]["user_data"], "data");
    let shown = format!("{config:?}");
    assert!(
        shown.contains("UserData(4 bytes)") && !shown.contains("159"),
        "{shown}"
    );
    // A changed file is a changed configuration.
    fs::write(files.dir.path().join("data"), b"other").expect("a file");
    let other = files.load().offline_config();
    assert_ne!(other, config);
    assert_eq!(config.needs_restart(&other), None);
    // An absolute path, and the longest file.
    let longest = vec![b'x'; MAX_USER_DATA];
    let elsewhere = Files::new("", &[("longest", &longest)]);
    let path = elsewhere.dir.path().join("longest");
    let table = format!("[port.metadata]\nuser_data = {path:?}");
    let config = Files::new(&table, &[]).load().offline_config();
    let metadata = config.ports[0].metadata.as_ref().expect("metadata");
    let data = metadata.user_data.as_ref().expect("data");
    assert_eq!(data.bytes().len(), MAX_USER_DATA);
}

#[test]
fn wrong_values_are_named() {
    let too_long = vec![b'x'; MAX_USER_DATA + 1];
    for (table, error) in [
        (
            "instance_id = \"a b\"",
            "12:15: port[0].metadata.instance_id (port \"one\"): \"a b\" is not an identifier of 1 \
             to 64 letters, digits, hyphens, dots and underscores",
        ),
        (
            "hostname = \"-\"",
            "12:12: port[0].metadata.hostname (port \"one\"): \"-\" is not a DNS name without a \
             dot at its end, as in red.example",
        ),
        (
            "public_keys = [\"ssh-rsa\"]",
            "12:16: port[0].metadata.public_keys[0] (port \"one\"): \"ssh-rsa\" is not one line \
             of authorized_keys, as in \"ssh-ed25519 AAAA… user@host\", of at most 4096 ASCII \
             characters",
        ),
        (
            "user_data = \"none\"",
            "12:13: port[0].metadata.user_data (port \"one\"): cannot be read: none: No such file \
             or directory (os error 2)",
        ),
        (
            "user_data = \".\"",
            "12:13: port[0].metadata.user_data (port \"one\"): cannot be read: .: no regular file",
        ),
        (
            "user_data = \"long\"",
            "12:13: port[0].metadata.user_data (port \"one\"): \"long\" is not of at most 16384 \
             bytes",
        ),
        (
            "user_data = \"\"",
            "12:13: port[0].metadata.user_data (port \"one\"): \"\" is not the path of a file",
        ),
        (
            "vendor_data = \"binary\"",
            "12:15: port[0].metadata.vendor_data (port \"one\"): \"binary\" is not a file of text \
             (UTF-8)",
        ),
        (
            "token = true",
            "12:1: port[0].metadata.token (port \"one\"): no such key; the keys here are \
             instance_id, hostname, public_keys, user_data, vendor_data, openstack",
        ),
    ] {
        let files: [(&str, &[u8]); 2] = [("long", &too_long), ("binary", &[0xff])];
        let errors = Files::new(&format!("[port.metadata]\n{table}"), &files).errors();
        assert_eq!(errors, format!("green.toml:{error}"));
    }
    let keys = "\"ssh-rsa AAAA\", ".repeat(17);
    let errors = Files::new(&format!("[port.metadata]\npublic_keys = [{keys}]"), &[]).errors();
    assert!(
        errors.contains("there are 17 of them, and a switch takes at most 16"),
        "{errors}"
    );
    // A text alone has no files beside it.
    let text = format!("{GREEN}[port.metadata]\nuser_data = \"data\"\n");
    let errors = Tenant::parse("green.toml", &text).expect_err("an error");
    assert!(errors.to_string().contains("has no directory"), "{errors}");
}

/// Reading waits for nobody, and reads no secret of others. Needs root to give a file away.
#[test]
fn pipes_and_others_secrets_are_refused() {
    let files = Files::new("[port.metadata]\nuser_data = \"pipe\"", &[]);
    let pipe = files.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo starts").success());
    let errors = files.errors();
    assert!(errors.contains("no regular file"), "{errors}");

    let files = Files::new("[port.metadata]\nuser_data = \"data\"", &[("data", b"#!")]);
    files.load();
    let give = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(12_345), None);
    if give(&files.file).is_err() {
        eprintln!("not tried: a file of another user, without root");
        return;
    }
    // Also where everybody could read it, if he reached it.
    let refused = "it belongs to another user than the tenant's file";
    assert!(files.errors().contains(refused), "{}", files.errors());
    // By a link too, which is his.
    let (data, theirs) = (
        files.dir.path().join("data"),
        files.dir.path().join("theirs"),
    );
    fs::rename(&data, &theirs).expect("it is there");
    std::os::unix::fs::symlink(&theirs, &data).expect("a link");
    std::os::unix::fs::lchown(&data, Some(12_345), None).expect("root may");
    assert!(files.errors().contains(refused), "{}", files.errors());
    give(&theirs).expect("root may");
    files.load();
}

#[test]
fn address_of_metadata_is_nobodys() {
    let taken = |text: String| {
        let errors = Tenant::parse("green.toml", &text).expect_err("an error");
        errors.to_string()
    };
    let gateway = GREEN.replace("fd00:9::1/64", "fd00:ec2::1/64");
    assert!(Tenant::parse("green.toml", &gateway).is_ok());
    let error = "fd00:ec2::/64 contains fd00:ec2::254, where the switch serves metadata; choose \
                 other addresses";
    assert_eq!(
        taken(format!("{gateway}[port.metadata]\n")),
        format!("green.toml:5:8: gateway.ipv6: {error}")
    );
    let routes = format!("{GREEN}routes = [\"fd00:ec2::/32\"]\n[port.metadata]\n");
    assert!(taken(routes).contains("port[0].routes[0] (port \"one\"): fd00:ec2::/32 contains"));
}

#[test]
fn all_together_are_bounded() {
    let port = |number: usize| {
        format!(
            "[[port]]\nname = \"p{number}\"\nmac = \"52:54:00:cc:01:{number:02x}\"\n\
             addresses = [\"10.9.0.{}\"]\n[port.metadata]\nuser_data = \"data\"\n",
            100 + number
        )
    };
    let most = MAX_METADATA / MAX_USER_DATA;
    let ports = |count: usize| (0..count).map(port).collect::<String>();
    let data = vec![b'x'; MAX_USER_DATA];
    let head = "[port.limits]\n";
    let good = Files::new(&format!("{head}{}", ports(most)), &[("data", &data)]);
    let mut config = good.load().offline_config();
    let files = Files::new(&format!("{head}{}", ports(most + 1)), &[("data", &data)]);
    let error = "with this port, the tenant's user data, vendor data and keys have 2113536 bytes, \
                 and 2097152 is the most; have VMs fetch the rest";
    assert!(files.errors().ends_with(error), "{}", files.errors());
    // So is a switch's configuration.
    config.ports[0].metadata = config.ports[1].metadata.clone();
    let errors = config.validate("it").expect_err("an error").to_string();
    assert!(errors.ends_with(error), "{errors}");
}
