//! A switch that says what it must not, to the IKE daemon. Needs no root.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use rustix::net::{RecvFlags, SendFlags, accept, recv, send};
use serde_json::json;
use tempfile::TempDir;

use crate::bed::eventually;
use crate::charon::program;
use crate::vici::Vici;

/// What the daemon ends with when the switch is gone, or breaks the protocol.
const SWITCH_GONE: i32 = 4;

/// A daemon, and the ends of its connections.
struct Site {
    charon: Child,
    vici: PathBuf,
    ctl: OwnedFd,
    evt: OwnedFd,
    ike: OwnedFd,
    _listener: UnixListener,
    _directory: TempDir,
}

impl Site {
    fn new(test: &str) -> Option<Self> {
        let program = program(test)?;
        let directory = TempDir::new().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let (socket, vici) = (path("ike.sock"), path("vici.sock"));
        let listener = vswitch_api::channel::listener(&socket).expect("a socket");
        let charon = Command::new(program)
            .arg("--switch")
            .arg(&socket)
            .arg("--vici")
            .arg(&vici)
            .args(["--address", "192.0.2.1,2001:db8::1", "--log", "0"])
            .spawn()
            .expect("it starts");
        listener.set_nonblocking(false).expect("it is ours");
        let connection = |role: &str| {
            let connection = accept(&listener).expect("charon connects");
            assert_eq!(hear(&connection), role);
            connection
        };
        let (ctl, evt, ike) = (connection("ctl"), connection("evt"), connection("ike"));
        eventually("charon answers", || Vici::connect(&vici).is_some());
        Some(Self {
            charon,
            vici,
            ctl,
            evt,
            ike,
            _listener: listener,
            _directory: directory,
        })
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("charon ends", || {
            status = self.charon.try_wait().expect("it is ours");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.charon.kill();
        let _ = self.charon.wait();
    }
}

fn hear(connection: &OwnedFd) -> String {
    let mut message = [0; 8192];
    let (_, length) = recv(connection, &mut message[..], RecvFlags::empty()).expect("a message");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

fn say(connection: &OwnedFd, message: &[u8]) {
    send(connection, message, SendFlags::NOSIGNAL).expect("it is sent");
}

/// Which of the daemon's connections a message comes on.
enum On {
    Evt,
    Ike,
}

#[test]
fn malformed_messages_end_the_daemon_in_order() {
    let long = vec![b'a'; 9000];
    let messages: [(On, &[u8]); 9] = [
        (On::Evt, b"\0"),
        (On::Evt, b"acquire reqid=0"),
        (On::Evt, b"acquire reqid=4294967296"),
        (On::Evt, b"expire spi=c0000001 dst=192.0.2.300 kind=hard"),
        (On::Evt, b"expire spi=c0000001 dst=192.0.2.2 kind=hard "),
        (On::Evt, &long),
        (On::Ike, b"short"),
        (On::Ike, &[9; 100]),
        (On::Ike, &[4; 38]),
    ];
    for (connection, message) in messages {
        let Some(mut site) = Site::new("malformed messages") else {
            return;
        };
        match connection {
            On::Evt => say(&site.evt, message),
            On::Ike => say(&site.ike, message),
        }
        let status = site.end();
        assert_eq!(status.code(), Some(SWITCH_GONE), "{message:x?}: {status}");
    }
}

/// A connection whose installation asks the switch for something.
fn load(vici: &Path) -> bool {
    let child = json!({
        "local_ts": ["dynamic[17]"], "remote_ts": ["dynamic[17/6081]"], "mode": "transport",
        "esp_proposals": ["aes256gcm16"], "start_action": "trap",
    });
    let connection = json!({
        "peer": {
            "version": "2", "local_addrs": ["192.0.2.1"], "remote_addrs": ["192.0.2.2"],
            "local": { "auth": "psk" }, "remote": { "auth": "psk" },
            "children": { "out": child },
        },
    });
    let vici = Vici::connect(vici);
    vici.is_some_and(|mut vici| vici.try_call("load-conn", &connection).is_some())
}

#[test]
fn malformed_answer_ends_the_daemon_and_a_refusal_does_not() {
    for (answer, is_refusal) in [
        (&b"error not today"[..], true),
        (b"maybe", false),
        (b"ok\x07", false),
        (b"error \xff", false),
    ] {
        let Some(mut site) = Site::new("malformed answers") else {
            return;
        };
        let vici = site.vici.clone();
        let loading = std::thread::spawn(move || load(&vici));
        let request = hear(&site.ctl);
        assert!(request.starts_with("add_policy "), "{request}");
        say(&site.ctl, answer);
        // charon takes back what it has installed: that is refused too.
        while is_refusal && !loading.is_finished() {
            let mut message = [0; 8192];
            match recv(&site.ctl, &mut message[..], RecvFlags::DONTWAIT) {
                Ok(_) => say(&site.ctl, answer),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        let answered = loading.join().expect("it ends");
        if is_refusal {
            assert!(answered, "charon goes on");
            assert!(site.charon.try_wait().expect("it is ours").is_none());
        } else {
            assert_eq!(site.end().code(), Some(SWITCH_GONE), "{answer:x?}");
        }
    }
}

/// Datagrams that are no IKE, and some that begin like it: of the underlay, after all.
#[test]
fn random_datagrams_leave_the_daemon_running() {
    let Some(mut site) = Site::new("random datagrams") else {
        return;
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for number in 0..3000_u32 {
        let mut message = vec![4, 0, 1, 0xf4, 1, 0xf4, 192, 0, 2, 2];
        message.resize(22, 0);
        message.extend([192, 0, 2, 1]);
        message.resize(38, 0);
        let length = 1 + (random() % 400) as usize;
        message.extend((0..length).map(|_| random() as u8));
        // Every other one has the header of an IKE_SA_INIT request of its own length.
        if number % 2 == 0 && length > 28 {
            let header = &mut message[38..66];
            header[8..16].fill(0);
            header[17..24].copy_from_slice(&[0x20, 34, 8, 0, 0, 0, 0]);
            header[24..28].copy_from_slice(&(length as u32).to_be_bytes());
        }
        say(&site.ike, &message);
    }
    assert!(
        Vici::connect(&site.vici)
            .is_some_and(|mut vici| { vici.try_call("version", &json!({})).is_some() })
    );
    assert!(site.charon.try_wait().expect("it is ours").is_none());
}
