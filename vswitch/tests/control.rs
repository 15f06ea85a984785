//! The control API over a worker whose ports have no frames: its answers, its limits for clients,
//! and new configurations. Needs no root and no hugepages.
//!
//! DPDK starts once per process, so all of it is one test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dpdk::{Eal, EalOptions, Mempool, Port, PortOptions};
use pipeline::Generation;
use serde_json::{Value, json};
use tenant_config::{Memory, SwitchConfig, Tenant};
use vswitch::control::{Control, Socket, SocketError};
use vswitch::worker::{Link, PollMode, Worker};
use vswitch_api::Endpoint;

const TENANT: &str = r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
[[port]]
name = "red-vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
[[port]]
name = "red-vm2"
mac = "52:54:00:aa:00:02"
addresses = ["10.0.0.12"]
"#;

fn config() -> SwitchConfig {
    Tenant::parse("red.toml", TENANT)
        .expect("a tenant")
        .offline_config()
}

/// The same with a limit.
fn limited() -> Value {
    let mut config = serde_json::to_value(config()).expect("JSON");
    config["ports"][0]["limits"] = json!({ "pps": 1000 });
    config
}

/// Sends `request` unchanged; returns the status and the body that arrive until the other side
/// closes.
fn raw(socket: &Path, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("a listener");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time-out");
    // The answer may come, and the connection be closed, before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("UTF-8");
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return (0, answer);
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

fn request(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let (status, body) = raw(socket, request.as_bytes());
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// A running control server, and the worker that it is for, which does not run yet.
struct Bed {
    socket: Socket,
    link: Arc<Link>,
    worker: Worker,
    stop: tokio::sync::oneshot::Sender<()>,
    server: std::thread::JoinHandle<std::io::Result<()>>,
    _directory: tempfile::TempDir,
}

fn bed() -> (Bed, PathBuf) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("control.sock");
    let socket = Socket::bind(&path).expect("a socket");
    assert!(matches!(Socket::bind(&path), Err(SocketError::InUse(_))));

    let eal = Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: "control-test".into(),
        pci: Vec::new(),
        one_file: false,
    })
    .expect("DPDK starts");
    let options = PortOptions::default();
    let pool = Mempool::new(&eal, 512, options.mtu).expect("memory");
    let ports: Vec<ports::Port> = (0..2)
        .map(|number| {
            let device = format!("net_null{number}");
            let port = Port::open_virtual(&eal, &device, "no-rx=1", &pool, &options);
            ports::Port::from(port.expect("a port"))
        })
        .collect();
    let generation = Generation::build(&config(), None);
    let views = (generation.counters(), generation.tables());
    let link = Link::new(ports.len()).expect("a link");
    let worker = Worker::new(&eal, ports, pool, generation, Arc::clone(&link)).expect("a worker");

    let (listener, control) = (socket.listener().expect("a listener"), Arc::clone(&link));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let control = Control::new(config(), views, control);
        let end = async { drop(stopped.await) };
        runtime
            .expect("a runtime")
            .block_on(control.serve(listener, end))
    });
    let bed = Bed {
        socket,
        link,
        worker,
        stop,
        server,
        _directory: directory,
    };
    (bed, path)
}

#[test]
fn control_api_answers_installs_and_limits() {
    let (mut bed, path) = bed();
    worker_that_does_not_run_is_not_ready(&path);
    let (client_path, link) = (path.clone(), Arc::clone(&bed.link));
    let client = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(|| {
            let path = &client_path;
            counters_and_tables_are_shown(path);
            every_endpoint_is_served(path);
            let config = new_configuration_is_shown_at_once(path);
            slow_body_delays_no_other_client(path, &config);
            difference_that_takes_a_restart_is_refused(path, &config);
            bad_requests_have_their_status(path);
            idle_clients_are_disconnected(path);
            assert_eq!(request(path, "GET", "/v1/worker", "").1["generation"], 4);
        });
        link.stop();
        result
    });
    bed.worker.run(PollMode::Adaptive);
    drop(bed.worker);
    if let Err(panic) = client.join().expect("it is caught") {
        std::panic::resume_unwind(panic);
    }
    bed.stop.send(()).expect("the server waits");
    bed.server.join().expect("no panic").expect("no error");
    assert!(path.exists());
    drop(bed.socket);
    assert!(!path.exists());
}

/// The switch is alive, and holds one configuration until its worker runs.
fn worker_that_does_not_run_is_not_ready(path: &Path) {
    assert_eq!(
        request(path, "GET", "/healthz", ""),
        (200, json!({ "status": "ok" }))
    );
    let not_ready = json!({ "error": "the worker does not go round" });
    assert_eq!(request(path, "GET", "/readyz", ""), (503, not_ready));
    let limited = limited().to_string();
    let held = "the worker does not go round; the configuration will be in use when it does";
    assert_eq!(
        request(path, "PUT", "/v1/config", &limited),
        (503, json!({ "error": held }))
    );
    let full = "the worker has not taken the configuration before this one";
    assert_eq!(
        request(path, "PUT", "/v1/config", &limited),
        (503, json!({ "error": full }))
    );
}

fn counters_and_tables_are_shown(path: &Path) {
    assert_eq!(
        request(path, "GET", "/readyz", ""),
        (200, json!({ "status": "ready" }))
    );

    let port = |name: &str| {
        json!({
            "name": name, "device": "offline", "link_up": true, "state": "running", "resets": 0,
            "reset_failures": 0, "rx_missed": 0, "rx_frames": 0,
            "rx_bytes": 0, "forwarded": 0, "replies": 0, "icmp_errors": 0, "dropped": 0,
            "tx_frames": 0, "tx_bytes": 0, "unsent": 0,
        })
    };
    let (status, ports) = request(path, "GET", "/v1/ports", "");
    assert_eq!((status, &ports["tenant"]), (200, &json!("red")));
    assert_eq!(ports["ports"], json!([port("red-vm1"), port("red-vm2")]));
    assert_eq!(request(path, "GET", "/v1/drops", ""), (200, json!([])));
    let (_, all) = request(path, "GET", "/v1/drops?all=1", "");
    assert_eq!(
        all.as_array().map(Vec::len),
        Some(2 * pipeline::DropReason::COUNT)
    );
    let (_, routes) = request(path, "GET", "/v1/routes", "");
    assert!(
        routes
            .as_array()
            .expect("an array")
            .contains(&json!({ "prefix": "10.0.0.11/32", "kind": "port", "port": "red-vm1" })),
        "{routes}"
    );
    let (_, neighbours) = request(path, "GET", "/v1/neighbours", "");
    assert_eq!(
        neighbours[0],
        json!({
            "address": "10.0.0.11", "port": "red-vm1", "mac": "52:54:00:aa:00:01",
            "state": "static",
        })
    );
    // The configuration that was held is in use.
    assert_eq!(request(path, "GET", "/v1/worker", "").1["generation"], 2);
    let (_, mut switch) = request(path, "GET", "/v1/switch", "");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let uptime_s = switch["uptime_s"].take().as_u64().expect("a number");
    let started_at = switch["started_at"].take().as_u64().expect("a number");
    let age_s = now.as_secs() - started_at;
    assert!(
        (uptime_s..=uptime_s + 2).contains(&age_s) && age_s < 60,
        "{age_s} {uptime_s}"
    );
    assert_eq!(
        switch,
        json!({
            "tenant": "red", "version": env!("CARGO_PKG_VERSION"), "started_at": null,
            "uptime_s": null, "generation": 2, "packet_buffers": { "total": 512, "in_use": 0 },
        })
    );
    assert_eq!(request(path, "GET", "/v1/config", ""), (200, limited()));
}

fn every_endpoint_is_served(path: &Path) {
    for endpoint in Endpoint::ALL {
        let get = format!("GET {}", endpoint.spec().path);
        let request = format!("{get} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(path, request.as_bytes()).0, 200, "{get}");
    }
}

/// Returns the new configuration.
fn new_configuration_is_shown_at_once(path: &Path) -> Value {
    let mut wider = limited();
    wider["ports"][1]["addresses"] = json!(["10.0.0.12/32", "10.0.0.22/32"]);
    let taken = request(path, "PUT", "/v1/config", &wider.to_string());
    assert_eq!(taken, (200, json!({ "generation": 3 })));
    assert_eq!(request(path, "GET", "/v1/config", ""), (200, wider.clone()));
    let (_, routes) = request(path, "GET", "/v1/routes", "");
    assert!(
        routes
            .as_array()
            .expect("an array")
            .contains(&json!({ "prefix": "10.0.0.22/32", "kind": "port", "port": "red-vm2" })),
        "{routes}"
    );
    wider
}

fn slow_body_delays_no_other_client(path: &Path, config: &Value) {
    let mut slow = UnixStream::connect(path).expect("a place");
    slow.write_all(b"PUT /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .expect("it is read");
    assert_eq!(request(path, "GET", "/healthz", "").0, 200);
    let begun = Instant::now();
    let taken = request(path, "PUT", "/v1/config", &config.to_string());
    assert_eq!(taken, (200, json!({ "generation": 4 })));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    drop(slow);
}

fn difference_that_takes_a_restart_is_refused(path: &Path, config: &Value) {
    let restart = |change: &dyn Fn(&mut Value), difference: &str| {
        let mut other = config.clone();
        change(&mut other);
        let (status, answer) = request(path, "PUT", "/v1/config", &other.to_string());
        let sentence = format!("{difference}: that takes a restart of the switch");
        assert_eq!((status, answer), (409, json!({ "error": sentence })));
    };
    restart(
        &|other| other["tenant"] = json!("blue"),
        "the tenant is red, not blue",
    );
    restart(
        &|other| other["memory"]["mib"] = json!(64),
        "memory is another",
    );
    restart(
        &|other| other["control_socket"] = json!("/run/x"),
        "control_socket is another",
    );
    restart(
        &|other| other["ports"][0]["mtu"] = json!(9000),
        "port red-vm1 has another mtu",
    );
    restart(
        &|other| other["ports"][0]["name"] = json!("red-vm9"),
        "port red-vm1 is now red-vm9",
    );
    restart(
        &|other| drop(other["ports"].as_array_mut().expect("ports").pop()),
        "there are 1 ports instead of 2",
    );
}

fn bad_requests_have_their_status(path: &Path) {
    assert_eq!(request(path, "PUT", "/v1/config", "{").0, 422);
    assert_eq!(
        request(
            path,
            "PUT",
            "/v1/config",
            &json!({ "tenant": "red" }).to_string()
        )
        .0,
        422
    );
    let put =
        b"PUT /v1/config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(raw(path, &[put, b"\xff\xff".as_slice()].concat()).0, 422);
    let huge = " ".repeat((8 << 20) + 1);
    assert_eq!(
        request(path, "PUT", "/v1/config", &huge),
        (
            413,
            json!({ "error": "the body is larger than 8388608 bytes" })
        )
    );
    assert_eq!(request(path, "DELETE", "/v1/ports", "").0, 405);
    assert_eq!(request(path, "GET", "/v2/ports", "").0, 404);
    assert_eq!(request(path, "POST", "/v2/ports", "").0, 404);
    assert_eq!(raw(path, b"no HTTP at all\r\n\r\n").0, 400);
    let long_head = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(200 << 10));
    assert!(matches!(raw(path, long_head.as_bytes()).0, 414 | 431));
}

/// More silent clients than are served at a time delay the others until their time-out only.
fn idle_clients_are_disconnected(path: &Path) {
    let begun = Instant::now();
    let idle: Vec<UnixStream> = (0..20)
        .map(|_| UnixStream::connect(path).expect("a place"))
        .collect();
    assert_eq!(request(path, "GET", "/healthz", "").0, 200);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    drop(idle);
}
