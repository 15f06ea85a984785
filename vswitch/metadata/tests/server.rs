//! A client's TCP against the server, without a wire: smoltcp is at both ends.

mod client;

use std::time::Duration;

use client::{Client, GATEWAY4, GATEWAY6, TOKEN, Wire, config, served, with};
use metadata::{CONNECTIONS, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, REQUESTS_MAX};

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: m\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n")
}

/// The status and the body of one answer.
fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (&head["HTTP/1.1 ".len()..][..3], body)
}

fn token(wire: &mut Wire, port: u16) -> String {
    let answer = wire.ask(port, TOKEN);
    let (status, token) = parts(&answer);
    assert_eq!(status, "200", "{answer}");
    token.to_owned()
}

#[test]
fn ec2_tree_has_its_documents() {
    let mut wire = Wire::new(&config());
    let token = token(&mut wire, 0);
    let interface = "/latest/meta-data/network/interfaces/macs/52:54:00:aa:00:01";
    let subnet = format!("{interface}/subnet-ipv4-cidr-block");
    let vpc = format!("{interface}/vpc-id");
    for (path, expected) in [
        ("/", "2009-04-04\n2021-03-23\nlatest"),
        ("/latest", "dynamic\nmeta-data\nuser-data"),
        (
            "/2021-03-23/meta-data/",
            "hostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\npublic-keys/",
        ),
        ("/2009-04-04/meta-data/instance-id", "i-web"),
        ("/latest/meta-data/hostname", "web.example"),
        ("/latest/meta-data/local-hostname?x=1", "web.example"),
        ("/latest/meta-data/local-ipv4", "10.0.0.11"),
        ("/latest/meta-data/mac", "52:54:00:aa:00:01"),
        ("/latest/meta-data/network/", "interfaces/"),
        ("/latest/meta-data/network/interfaces/", "macs/"),
        (
            "/latest/meta-data/network/interfaces/macs/",
            "52:54:00:aa:00:01/",
        ),
        (
            interface,
            "device-number\nlocal-hostname\nlocal-ipv4s\nmac\nsubnet-ipv4-cidr-block\nvpc-id",
        ),
        (&subnet, "10.0.0.0/24"),
        (&vpc, "vpc-00001389"),
        ("/latest/meta-data/public-keys/", "0=key-0\n1=key-1"),
        ("/latest/meta-data/public-keys/1/", "openssh-key"),
        (
            "/latest/meta-data/public-keys/1/openssh-key",
            "ssh-rsa BBBB",
        ),
        ("/latest/dynamic/instance-identity/", "document"),
        (
            "/latest/dynamic/instance-identity/document",
            r#"{"version":"2017-09-30","instanceId":"i-web","privateIp":"10.0.0.11"}"#,
        ),
    ] {
        let answer = wire.ask(0, &get(path, &token));
        assert_eq!(parts(&answer), ("200", expected), "{path}");
    }
}

#[test]
fn openstack_tree_has_its_documents() {
    let mut wire = Wire::new(&config());
    let meta_data = concat!(
        r#"{"uuid":"i-web","name":"web","hostname":"web.example","launch_index":0,"#,
        r#""public_keys":{"key-0":"ssh-ed25519 AAAA me","key-1":"ssh-rsa BBBB"}}"#
    );
    for (path, expected) in [
        ("/openstack", "2018-08-27\nlatest"),
        (
            "/openstack/latest/",
            "meta_data.json\nuser_data\nvendor_data.json",
        ),
        ("/openstack/2018-08-27/meta_data.json", meta_data),
        (
            "/openstack/latest/vendor_data.json",
            r##"{"cloud-init":"#cloud-config\n"}"##,
        ),
    ] {
        let answer = wire.ask(0, &format!("GET {path} HTTP/1.1\r\n\r\n"));
        assert_eq!(parts(&answer), ("200", expected), "{path}");
    }
    let answer = wire.ask(0, "GET /openstack/latest/none HTTP/1.1\r\n\r\n");
    assert_eq!(parts(&answer).0, "404");
    // Off, it is a path of EC2's like any.
    let mut wire = Wire::new(&with(|metadata| metadata.openstack = false));
    let answer = wire.ask(0, "GET /openstack/latest/meta_data.json HTTP/1.1\r\n\r\n");
    assert_eq!(parts(&answer).0, "401");
    let token = token(&mut wire, 0);
    let answer = wire.ask(0, &get("/openstack/latest/meta_data.json", &token));
    assert_eq!(parts(&answer).0, "404");
}

#[test]
fn longest_user_data_arrives_whole() {
    let request = b"GET /openstack/latest/user_data HTTP/1.0\r\n\r\n";
    let mut wire = Wire::new(&config());
    let answer = wire.ask_bytes(0, request);
    let mut heads = answer.windows(4);
    let head = heads.position(|it| it == b"\r\n\r\n").expect("a head") + 4;
    assert!(answer[head..] == client::user_data()[..]);
    // By IPv6, in small packets.
    let mut small = config();
    small.ports[0].mtu = 1280;
    let mut wire = Wire::new(&small);
    wire.source = client::VM6.into();
    wire.to = GATEWAY6.into();
    let answer = wire.ask_bytes(0, request);
    assert!(answer[answer.len() - 16_384..] == client::user_data()[..]);
    assert!(wire.seen.iter().all(|packet| packet.len() <= 1280));
}

#[test]
fn only_answers_with_tokens_have_one_hop() {
    let with_payload = |packet: &&Vec<u8>| packet.len() > 60;
    let hops = |wire: &mut Wire| -> Vec<u8> {
        let seen = std::mem::take(&mut wire.seen);
        seen.iter().filter(with_payload).map(|it| it[8]).collect()
    };
    let mut wire = Wire::new(&config());
    let token = token(&mut wire, 0);
    assert_eq!(hops(&mut wire), [1]);
    wire.ask(0, &get("/latest/meta-data/", &token));
    assert!(wire.seen.iter().all(|packet| packet[8] == 64));
    wire.seen.clear();
    // The next answer of the same connection is as any.
    let mut client = Client::new(&mut wire, 0, 40_001);
    client.send(&mut wire, TOKEN.as_bytes());
    client.send(&mut wire, get("/latest/meta-data/", &token).as_bytes());
    assert_eq!(client.received(&mut wire).matches("200 OK").count(), 2);
    assert_eq!(hops(&mut wire), [1, 64]);
}

#[test]
fn requests_that_may_not_are_refused() {
    let mut wire = Wire::new(&config());
    let token = token(&mut wire, 0);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2_100));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(33));
    let proxied = get("/latest/meta-data/", &token);
    let proxied = proxied.replace("Host: m", "x-forwarded-FOR: 10.0.0.99");
    let proxied_token = TOKEN.replace("Host: m", "X-Forwarded-For: 10.0.0.99");
    let proxied_openstack = "GET /openstack HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    for (request, status) in [
        ("GET /latest/meta-data/ HTTP/1.1\r\n\r\n", "401"),
        ("GET / HTTP/1.1\r\n\r\n", "401"),
        ("GET /none HTTP/1.1\r\n\r\n", "401"),
        (&get("/latest/meta-data/", "x"), "401"),
        (&get("/latest/meta-data/none", &token), "404"),
        (&get("/latest//meta-data", &token), "404"),
        (&get("/latest/../latest/meta-data", &token), "404"),
        (&get("/1.0/meta-data/", &token), "404"),
        (&proxied, "403"),
        (&proxied_token, "403"),
        (proxied_openstack, "403"),
        (&TOKEN.replace("60", "0"), "400"),
        (&TOKEN.replace("60", "21601"), "400"),
        (&TOKEN.replace("60", "+60"), "400"),
        (&TOKEN.replace("60", ""), "400"),
        (&TOKEN.replace("60", "99999999999999999999999"), "400"),
        ("PUT /latest/api/token HTTP/1.1\r\n\r\n", "400"),
        (&TOKEN.replace("PUT", "GET"), "405"),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
        ("DELETE /openstack HTTP/1.1\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "413"),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "413",
        ),
        (&long, "431"),
        (&many, "431"),
        ("nonsense\r\n\r\n", "400"),
        (
            "GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n",
            "400",
        ),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\0", "400"),
    ] {
        let answer = wire.ask(0, request);
        assert_eq!(parts(&answer).0, status, "{request}: {answer}");
    }
}

#[test]
fn head_has_no_body() {
    let mut wire = Wire::new(&config());
    let answer = wire.ask(0, "HEAD /openstack HTTP/1.1\r\n\r\n");
    assert_eq!(parts(&answer), ("200", ""));
    assert!(answer.contains("Content-Length: 17\r\n"), "{answer}");
}

#[test]
fn each_port_has_its_own() {
    let mut wire = Wire::new(&config());
    let (first, second) = (token(&mut wire, 0), token(&mut wire, 1));
    let id = |wire: &mut Wire, port, token: &str| {
        let answer = wire.ask(port, &get("/latest/meta-data/instance-id", token));
        let (status, body) = parts(&answer);
        (status.to_owned(), body.to_owned())
    };
    let own = |id: &str| ("200".to_owned(), id.to_owned());
    assert_eq!(id(&mut wire, 0, &first), own("i-web"));
    assert_eq!(id(&mut wire, 1, &second), own("i-db"));
    // Another's token is none, and the address says nothing: both have the same here.
    assert_eq!(id(&mut wire, 1, &first).0, "401");
    assert_eq!(id(&mut wire, 0, &second).0, "401");
    // The third has none, and there is no tenth.
    assert!(wire.silent(2) && wire.silent(9));
}

#[test]
fn tokens_end() {
    let mut wire = Wire::new(&config());
    let token = token(&mut wire, 0);
    let request = get("/latest/meta-data/", &token);
    wire.now += Duration::from_secs(58);
    assert_eq!(parts(&wire.ask(0, &request)).0, "200");
    wire.now += Duration::from_secs(3);
    assert_eq!(parts(&wire.ask(0, &request)).0, "401");
}

#[test]
fn one_connection_takes_many_requests_one_after_the_other() {
    let mut wire = Wire::new(&config());
    let mut client = Client::new(&mut wire, 0, 40_001);
    for _ in 0..REQUESTS_MAX + 5 {
        client.send(&mut wire, b"GET /openstack HTTP/1.1\r\n\r\n");
        wire.now += Duration::from_millis(10);
    }
    let answers = client.received(&mut wire);
    assert_eq!(answers.matches("200 OK").count(), REQUESTS_MAX as usize);
    assert_eq!(answers.matches("Connection: close").count(), 1);
    assert!(client.is_closed(&mut wire));
    // And if all come at once.
    let mut client = Client::new(&mut wire, 0, 40_002);
    let requests = b"GET /openstack HTTP/1.1\r\n\r\n".repeat(20);
    client.send(&mut wire, &requests);
    let answers = client.received(&mut wire);
    assert_eq!(answers.matches("200 OK").count(), 20);
}

#[test]
fn further_connection_is_reset() {
    let mut wire = Wire::new(&config());
    let mut open: Vec<Client> = (0..CONNECTIONS as u16)
        .map(|number| Client::new(&mut wire, 0, 40_000 + number))
        .collect();
    assert!(open.iter_mut().all(|client| client.is_open(&mut wire)));
    let mut further = Client::new(&mut wire, 0, 50_000);
    assert!(further.is_closed(&mut wire));
    // Another port's are not concerned, and one that ends makes room.
    assert!(Client::new(&mut wire, 1, 40_000).is_open(&mut wire));
    open[3].close(&mut wire);
    assert!(Client::new(&mut wire, 0, 50_001).is_open(&mut wire));
}

#[test]
fn slow_request_is_reset() {
    let mut wire = Wire::new(&config());
    let mut client = Client::new(&mut wire, 0, 40_000);
    let began = wire.now;
    while client.is_open(&mut wire) && wire.now < began + 2 * HEAD_TIMEOUT {
        client.send(&mut wire, b"x");
        wire.now += Duration::from_millis(200);
    }
    let lasted = wire.now - began;
    let most = HEAD_TIMEOUT + Duration::from_secs(1);
    assert!((HEAD_TIMEOUT..most).contains(&lasted), "{lasted:?}");
    assert_eq!(client.received(&mut wire), "");
}

#[test]
fn half_open_connections_end() {
    let mut wire = Wire::new(&config());
    for number in 0..100 {
        wire.syn(0, 30_000 + number);
    }
    assert!(Client::new(&mut wire, 0, 40_000).is_closed(&mut wire));
    wire.now += HANDSHAKE_TIMEOUT + Duration::from_millis(1);
    wire.poll();
    wire.poll();
    assert!(Client::new(&mut wire, 0, 40_001).is_open(&mut wire));
}

#[test]
fn answer_that_is_not_taken_is_reset() {
    let mut wire = Wire::new(&config());
    let mut client = Client::new(&mut wire, 0, 40_000);
    client.stall(
        &mut wire,
        b"GET /openstack/latest/user_data HTTP/1.1\r\n\r\n",
    );
    for _ in 0..200 {
        wire.now += Duration::from_millis(100);
        wire.poll();
        client.turn(&mut wire);
    }
    assert!(client.is_closed(&mut wire));
    assert_eq!(wire.server.next(), None);
}

#[test]
fn idle_server_has_nothing_to_do() {
    let mut wire = Wire::new(&config());
    assert_eq!(wire.server.next(), None);
    wire.ask(0, "GET /openstack HTTP/1.0\r\n\r\n");
    assert_eq!(wire.server.next(), None);
}

#[test]
fn other_metadata_ends_connections_and_the_same_does_not() {
    let mut wire = Wire::new(&config());
    let mut client = Client::new(&mut wire, 0, 40_000);
    wire.server.configure(served(&config()));
    client.send(&mut wire, b"GET /openstack HTTP/1.1\r\n\r\n");
    assert_eq!(client.received(&mut wire).matches("200 OK").count(), 1);
    let token = token(&mut wire, 0);
    let other = with(|metadata| metadata.instance_id = "i-2".parse().expect("an id"));
    wire.server.configure(served(&other));
    client.send(&mut wire, b"GET /openstack HTTP/1.1\r\n\r\n");
    assert!(client.is_closed(&mut wire));
    // A token is of the port, and the port is the same.
    let answer = wire.ask(0, &get("/latest/meta-data/instance-id", &token));
    assert_eq!(parts(&answer), ("200", "i-2"));
    let mut none = config();
    none.ports[0].metadata = None;
    wire.server.configure(served(&none));
    assert!(wire.silent(0));
}

/// A port's number may become another's while packets are under way; its VM's MAC does not.
#[test]
fn port_that_moves_up_keeps_what_is_its_own() {
    let mut wire = Wire::new(&config());
    let token = token(&mut wire, 1);
    let mut fewer = config();
    fewer.ports.remove(0);
    wire.server.configure(served(&fewer));
    assert!(wire.silent(0), "the port is gone");
    let answer = wire.ask(1, &get("/latest/meta-data/hostname", &token));
    assert_eq!(parts(&answer), ("200", "db"));
}

#[test]
fn only_its_addresses_and_port_are_served() {
    let mut wire = Wire::new(&config());
    wire.to = "169.254.169.253".parse().expect("an address");
    assert!(wire.silent(0));
    wire.to = GATEWAY4.into();
    wire.to_port = 81;
    assert!(Client::new(&mut wire, 0, 40_000).is_closed(&mut wire));
}
