//! A switch's VM, seen from its host: the image of `scripts/build-switch-image`, booted by QEMU.
//!
//! Skipped if no image is built. `scripts/test vm` builds it and runs this.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest wait, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// A machine with one network function at 0000:00:10.0. Dropping it kills it.
struct Vm {
    directory: tempfile::TempDir,
    qemu: Child,
}

impl Vm {
    fn boot() -> Option<Self> {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/switch-image");
        if !image.join("manifest.json").exists() {
            eprintln!("skipped: no image is built; scripts/build-switch-image builds one");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(
            "-nodefaults -no-user-config -display none -no-reboot -m 128 -cpu max".split(' '),
        )
        .args("-accel tcg -machine q35,kernel-irqchip=split -device virtio-serial-pci".split(' '))
        .args(
            "-device intel-iommu,intremap=on,caching-mode=on -netdev hubport,id=n0,hubid=0"
                .split(' '),
        )
        .args([
            "-device",
            "virtio-net-pci,netdev=n0,addr=0x10,mac=02:00:00:00:01:01,romfile=,iommu_platform=on,\
             disable-legacy=on",
        ])
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 intel_iommu=on no_timer_check",
        ])
        .arg("-kernel")
        .arg(image.join("vmlinuz"))
        .arg("-initrd")
        .arg(image.join("initramfs"))
        .args([
            "-chardev",
            &format!("file,id=console,path={}", at("console")),
        ])
        .args(["-serial", "chardev:console"]);
        for name in ["config", "control"] {
            let socket = format!("socket,id={name},path={},server=on,wait=off", at(name));
            let port = format!("virtserialport,chardev={name},name=org.vswitch.{name}.0");
            qemu.args(["-chardev", &socket, "-device", &port]);
        }
        let qemu = qemu
            .stdin(Stdio::null())
            .spawn()
            .expect("QEMU runs: scripts/setup --for emulated installs it");
        Some(Self { directory, qemu })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn connect(&self, name: &str) -> UnixStream {
        let connected = wait(|| UnixStream::connect(self.path(name)).ok());
        connected.unwrap_or_else(|| panic!("nobody listens on {name}"))
    }

    /// Sends a configuration; returns the connection, for later orders.
    fn configure(&self, config: &Value) -> UnixStream {
        let text = config.to_string();
        fs::write(self.path("config.json"), &text).expect("a file");
        let mut channel = self.connect("config");
        write!(channel, "{}\n{text}", text.len()).expect("room");
        channel
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console")).unwrap_or_default()).into_owned()
    }

    fn wait_until_console_has(&mut self, words: &str) {
        let found = wait(|| {
            let ended = self.qemu.try_wait().expect("a status").is_some();
            let found = self.console().contains(words);
            (found || ended).then_some(found)
        });
        assert_eq!(found, Some(true), "no {words:?} in:\n{}", self.console());
    }

    fn wait_until_it_is_off(&mut self) -> ExitStatus {
        let ended = wait(|| self.qemu.try_wait().expect("a status"));
        ended.unwrap_or_else(|| panic!("the machine is still on:\n{}", self.console()))
    }

    /// Runs a command of `vswitch` on the machine's control channel.
    fn vswitch(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vswitch"))
            .args(arguments)
            .arg("--control")
            .arg(self.path("control"))
            .current_dir(self.directory.path())
            .output()
            .expect("vswitch runs")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn wait<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(seen) = look() {
            return Some(seen);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

fn config(address: &str, mib: u32, hugepages: bool) -> Value {
    json!({
        "tenant": "red", "vni": 5001, "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [{
            "name": "red-vm1", "device": { "driver": "pci", "address": address },
            "gateway_mac": "02:00:00:00:01:01", "mac": "52:54:00:00:01:11",
            "addresses": ["10.0.0.11/32"],
        }],
        "memory": { "mib": mib, "hugepages": hugepages },
        "control_socket": "/run/of/the/host/control.sock",
    })
}

#[test]
fn switch_is_configured_queried_and_stopped_over_its_channels() {
    let Some(mut vm) = Vm::boot() else { return };
    // An incomplete configuration is ignored.
    let mut half = vm.connect("config");
    half.write_all(b"1000\n{\"tenant\":").expect("room");
    drop(half);
    let mut channel = vm.configure(&config("0000:00:10.0", 32, true));
    vm.wait_until_console_has("vm: kernel ");

    let shown = vm.vswitch(&["show", "ports", "--json"]);
    let ports: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(ports["ports"][0]["device"], "pci:0000:00:10.0", "{ports}");
    // Each is a client of its own, all at once.
    for _ in 0..10 {
        let shown = vm.vswitch(&["show", "drops"]);
        assert!(shown.status.success(), "{shown:?}");
    }
    let reloaded = vm.vswitch(&["reload", "--config", "config.json"]);
    assert_eq!(
        String::from_utf8_lossy(&reloaded.stdout),
        "generation 2 is in use\n",
        "{reloaded:?}"
    );

    let mut unread = [0; 16];
    for rude in [
        &b"GET /v1/po"[..],
        b"nonsense\r\n\r\n",
        b"GET /v1/ports HTTP/1.1\r\n\r\n",
        b"PUT /v1/config HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{",
        &[0; 200_000],
    ] {
        let mut client = vm.connect("control");
        client.write_all(rude).expect("room");
        drop(client);
        // The next client may have to retry, but it does not hang, and gets no other client's
        // answer.
        let shown = vm.vswitch(&["show", "ports"]);
        let said = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() || said.starts_with("vswitch: the switch refuses: "),
            "{said}"
        );
        let well = wait(|| {
            vm.vswitch(&["show", "ports"])
                .status
                .success()
                .then_some(())
        });
        assert!(well.is_some(), "after {:?}", &rude[..10]);
    }

    channel.write_all(b"hello\nstop\n").expect("room");
    assert!(vm.wait_until_it_is_off().success());
    assert_eq!(channel.read(&mut unread).expect("the end"), 0);
    let console = vm.console();
    assert!(console.contains("the host sends \"hello\""), "{console}");
    assert!(console.contains("SIGTERM: ending"), "{console}");
    assert!(
        console.contains("vm: the switch ended with exit status 0"),
        "{console}"
    );
}

#[test]
fn missing_function_is_named() {
    let Some(mut vm) = Vm::boot() else { return };
    let _channel = vm.configure(&config("0000:00:15.0", 32, true));
    vm.wait_until_it_is_off();
    let console = vm.console();
    let words = "vm: port red-vm1: the machine has no PCI function 0000:00:15.0";
    assert!(console.contains(words), "{console}");
}

#[test]
fn machine_without_memory_is_refused() {
    let Some(mut vm) = Vm::boot() else { return };
    let _channel = vm.configure(&config("0000:00:10.0", 100, true));
    vm.wait_until_it_is_off();
    let console = vm.console();
    let words = "vm: memory.mib = 100 takes 50 hugepages of 2 MiB, but the machine has room for ";
    assert!(console.contains(words), "{console}");
}

#[test]
fn killed_switch_ends_the_machine() {
    let Some(mut vm) = Vm::boot() else { return };
    // The kernel kills it when no ordinary pages are left.
    let _channel = vm.configure(&config("0000:00:10.0", 100, false));
    vm.wait_until_it_is_off();
    let console = vm.console();
    assert!(
        console.contains("vm: the switch was killed by SIGKILL"),
        "{console}"
    );
}
