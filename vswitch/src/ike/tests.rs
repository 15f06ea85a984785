use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use pipeline::ipsec::Suite;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use tempfile::TempDir;

use super::message::MESSAGE_MAX;
use super::*;

fn rules() -> Rules {
    Rules {
        own: IpAddr::from([192, 0, 2, 1]),
        port: 6081,
        suites: vec![Suite::Aes256Gcm16],
        esn: true,
        replay_window: 1024,
        endpoints: vec![IpAddr::from([192, 0, 2, 2])],
    }
}

/// A thread's state whose turns the test makes, and where to connect to it.
struct Site {
    ike: Ike,
    path: PathBuf,
    _directory: TempDir,
}

impl Site {
    /// It serves the user `uid`.
    fn new(uid: u32) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("ike.sock");
        let listener = vswitch_api::channel::listener(&path).expect("a socket");
        let link = Link::new(1).expect("descriptors");
        let shared = Shared::new(Some(rules()));
        let ike = Ike::new(listener, uid, link, shared).expect("a socket");
        Self {
            ike,
            path,
            _directory: directory,
        }
    }

    fn own() -> Self {
        Self::new(nix::unistd::geteuid().as_raw())
    }

    fn connect(&self) -> OwnedFd {
        let connection = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
        let connection = connection.expect("a descriptor");
        let address = SocketAddrUnix::new(&self.path).expect("a path");
        connect(&connection, &address).expect("it listens");
        connection
    }

    /// The three connections of a charon.
    fn charon(&mut self) -> [OwnedFd; 3] {
        let connections = Role::ALL.map(|role| {
            let connection = self.connect();
            say(&connection, role.name());
            connection
        });
        self.ike.turn();
        assert!(self.ike.shared.is_connected());
        connections
    }

    /// The answer to a request.
    fn ask(&mut self, ctl: &OwnedFd, request: &str) -> String {
        say(ctl, request);
        self.ike.turn();
        hear(ctl).unwrap_or_else(|end| panic!("{request}: {end:?}"))
    }
}

fn say(connection: &OwnedFd, message: &str) {
    send(connection, message.as_bytes(), SendFlags::NOSIGNAL).expect("it is sent");
}

/// The next message; empty at the end.
fn hear(connection: &OwnedFd) -> Result<String, Errno> {
    let mut message = [0; MESSAGE_MAX];
    let (_, length) = recv(connection, &mut message[..], RecvFlags::DONTWAIT)?;
    Ok(String::from_utf8_lossy(&message[..length]).into_owned())
}

fn is_closed(connection: &OwnedFd) -> bool {
    matches!(hear(connection).as_deref(), Ok("") | Err(&Errno::CONNRESET))
}

#[test]
fn requests_are_answered_in_order() {
    let mut site = Site::own();
    let [ctl, _evt, _ike] = site.charon();
    let spi = site.ask(&ctl, "get_spi src=192.0.2.2 dst=192.0.2.1");
    let digits = spi.strip_prefix("ok ").expect("an SPI");
    assert_eq!(digits.len(), 8, "{spi}");
    let refused = site.ask(&ctl, "get_spi src=192.0.2.9 dst=192.0.2.1");
    assert_eq!(refused, "error no peer that requires IPsec is at 192.0.2.9");
    assert_eq!(
        site.ask(&ctl, "nonsense"),
        "error there is no request of that name"
    );
    assert_eq!(site.ask(&ctl, "flush what=sas"), "ok");
}

#[test]
fn daemon_that_breaks_the_protocol_loses_its_session() {
    let long = "x".repeat(MESSAGE_MAX + 1);
    type Break<'b> = Box<dyn Fn(&[OwnedFd; 3]) + 'b>;
    let breaks: [Break<'_>; 3] = [
        Box::new(|[_, evt, _]| say(evt, "hello")),
        Box::new(|[ctl, ..]| say(ctl, &long)),
        Box::new(|[_, _, ike]| {
            rustix::net::shutdown(ike, rustix::net::Shutdown::Both).expect("it is open");
        }),
    ];
    for (number, breaks) in breaks.iter().enumerate() {
        let mut site = Site::own();
        let charon = site.charon();
        site.ask(&charon[0], "get_spi src=192.0.2.2 dst=192.0.2.1");
        breaks(&charon);
        site.ike.turn();
        assert!(site.ike.session.is_empty(), "{number}");
        assert!(!site.ike.shared.is_connected(), "{number}");
        assert!(is_closed(&charon[0]), "{number}");
        // The next one is served.
        let [ctl, _evt, _ike] = site.charon();
        assert_eq!(site.ask(&ctl, "flush what=policies"), "ok");
    }
}

#[test]
fn roles_are_given_once_and_nothing_else_is_one() {
    let mut site = Site::own();
    let [ctl, _evt, _ike] = site.charon();
    let second = site.connect();
    say(&second, "ctl");
    let other = site.connect();
    say(&other, "root");
    site.ike.turn();
    assert!(is_closed(&second) && is_closed(&other));
    assert_eq!(site.ask(&ctl, "flush what=sas"), "ok", "the first goes on");
}

#[test]
fn other_users_are_closed() {
    let mut site = Site::new(nix::unistd::geteuid().as_raw() + 1);
    let connection = site.connect();
    say(&connection, "ctl");
    site.ike.turn();
    assert!(is_closed(&connection));
    assert!(site.ike.session.is_empty());
}

#[test]
fn silent_connections_are_few() {
    let mut site = Site::own();
    let silent: Vec<OwnedFd> = (0..4).map(|_| site.connect()).collect();
    site.ike.turn();
    assert_eq!(site.ike.waiting.open().count(), 4);
    let late = site.connect();
    site.ike.turn();
    assert_eq!(site.ike.waiting.open().count(), 4);
    drop(silent);
    // The first turn sees their ends, the second has places.
    site.ike.turn();
    say(&late, "ctl");
    site.ike.turn();
    assert!(!site.ike.session.is_empty());
}

#[test]
fn datagrams_are_for_peers_only() {
    let rules = rules();
    let sent = |from: &str, to: &str, length: usize| {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|it| it.parse().expect("an address"));
        let message = message::ike_message(from, to, &vec![1; length]);
        datagram(Some(&rules), &message).map(|it| it.bytes().len())
    };
    assert_eq!(sent("192.0.2.1:500", "192.0.2.2:500", 300), Ok(300));
    assert_eq!(sent("192.0.2.1:4500", "192.0.2.2:4500", 300), Ok(300));
    let not_ours = Err("an IKE datagram is not from the tunnel's endpoint");
    assert_eq!(sent("192.0.2.1:53", "192.0.2.2:500", 300), not_ours);
    assert_eq!(sent("192.0.2.3:500", "192.0.2.2:500", 300), not_ours);
    let no_peer = Err("an IKE datagram is for no peer that requires IPsec");
    assert_eq!(sent("192.0.2.1:500", "192.0.2.9:500", 300), no_peer);
    assert_eq!(sent("192.0.2.1:500", "192.0.2.1:500", 300), no_peer);
    let long = Err("an IKE datagram is too long: IKE's fragmentation is off");
    assert_eq!(sent("192.0.2.1:500", "192.0.2.2:500", 2049), long);
    assert_eq!(
        datagram(Some(&rules), b"short").err(),
        Some("an IKE datagram is none")
    );
}

#[test]
fn new_rules_are_gone_by_at_once() {
    let mut site = Site::own();
    let [ctl, _evt, _ike] = site.charon();
    site.ike.shared.set_rules(None);
    let refused = site.ask(&ctl, "get_spi src=192.0.2.2 dst=192.0.2.1");
    assert_eq!(refused, "error the configuration has no IPsec");
}

#[test]
fn refusals_are_logged_a_few_times_a_second() {
    let mut refusals = Refusals::default();
    for _ in 0..100 {
        refusals.log("no");
    }
    assert_eq!(
        (refusals.logged, refusals.untold),
        (REFUSALS_PER_SECOND, 95)
    );
}
