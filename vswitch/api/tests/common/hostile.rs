//! Switches that were taken over: servers on a control socket that attack their clients.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// A way to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hostile {
    /// What is wrong with the answer.
    pub(crate) name: &'static str,
    answer: fn(&mut UnixStream) -> io::Result<()>,
}

/// All that a client must survive. Each answer would be one to `GET /v1/ports`.
pub(crate) const ALL: &[Hostile] = &[
    Hostile {
        name: "64 MiB in one piece",
        answer: |stream| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20);
            stream.write_all(head.as_bytes())?;
            fill(stream, b"[0,[0],[[0]],{\"\":0},", 64 << 20)
        },
    },
    Hostile {
        name: "64 MiB of unknown length",
        answer: |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            fill(stream, b"[0,[0],[[0]],{\"\":0},", 64 << 20)
        },
    },
    Hostile {
        name: "a million chunks of one byte",
        answer: |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            fill(stream, b"1\r\n[\r\n", 6 << 20)
        },
    },
    Hostile {
        name: "1 MiB of small lists",
        answer: |stream| whole(stream, &array("[0]", (1 << 20) / 4 - 1)),
    },
    Hostile {
        name: "a list of 60,000 small ports",
        answer: |stream| whole(stream, &ports(&array("{\"name\":\"\"}", 60_000))),
    },
    Hostile {
        name: "a million numbers for ports",
        answer: |stream| whole(stream, &ports(&array("0", (1 << 19) - 400))),
    },
    Hostile {
        name: "6000 ports",
        answer: |stream| whole(stream, &ports(&array(&port("a", "7"), 6000))),
    },
    Hostile {
        name: "an unknown key with half a million lists",
        answer: |stream| {
            let more = array("[]", 300_000);
            whole(stream, &format!("{{\"more\":{more},\"tenant\":\"\"}}"))
        },
    },
    Hostile {
        name: "deep nesting",
        answer: |stream| whole(stream, &"[".repeat(1 << 20)),
    },
    Hostile {
        name: "deep nesting in an unknown key",
        answer: |stream| whole(stream, &format!("{{\"a\":{}", "{\"a\":".repeat(200_000))),
    },
    Hostile {
        name: "a number of a million digits",
        answer: |stream| whole(stream, &ports(&format!("[{}]", "9".repeat(1 << 19)))),
    },
    Hostile {
        name: "a number with a huge exponent",
        answer: |stream| whole(stream, &ports(&array(&port("a", "1e999999999"), 1))),
    },
    Hostile {
        name: "a negative number",
        answer: |stream| whole(stream, &ports(&array(&port("a", "-1"), 1))),
    },
    Hostile {
        name: "an endless header",
        answer: |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
            fill(stream, b"aaaaaaaaaaaaaaaa", 64 << 20)
        },
    },
    Hostile {
        name: "endless headers",
        answer: |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            fill(stream, b"X: a\r\n", 64 << 20)
        },
    },
    Hostile {
        name: "endless informational answers",
        answer: |stream| fill(stream, b"HTTP/1.1 100 Continue\r\n\r\n", usize::MAX),
    },
    Hostile {
        name: "a head that drips",
        answer: |stream| drip(stream, b"HTTP/1.1 200 OK\r\nX: ", b'a'),
    },
    Hostile {
        name: "a body that drips",
        answer: |stream| {
            drip(
                stream,
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
                b' ',
            )
        },
    },
    Hostile {
        name: "silence",
        answer: |stream| stream.read_to_end(&mut Vec::new()).map(drop),
    },
    Hostile {
        name: "a closed connection",
        answer: |_| Ok(()),
    },
    Hostile {
        name: "half an answer",
        answer: |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ports\":[")
        },
    },
    Hostile {
        name: "the wrong type",
        answer: |stream| whole(stream, "\"\\u001b[2J\\u009b2J\u{9b}2J\u{202e}\""),
    },
    Hostile {
        name: "a long key that a message might quote",
        answer: |stream| {
            let key = "\u{9b}2J\\u001b[2J".repeat(10_000);
            whole(stream, &ports(&array(&port("a", &format!("\"{key}\"")), 1)))
        },
    },
    Hostile {
        name: "a refusal that commands the terminal",
        answer: |stream| {
            let sentence = "\\u001b[2J\u{9b}2J\\r\\n\u{202e}".repeat(20_000);
            let body = format!("{{\"error\":\"{sentence}\"}}");
            let length = body.len();
            let head = format!("HTTP/1.1 409 \u{9b}2J\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all((head + &body).as_bytes())
        },
    },
    Hostile {
        name: "no HTTP",
        answer: |stream| stream.write_all("\u{1b}[2J\u{9b}2J\r\n\r\n".as_bytes()),
    },
];

/// Serves `socket` for good, each connection by its own thread.
pub(crate) fn serve(socket: &Path, hostile: Hostile) {
    serve_with(socket, hostile.answer);
}

/// The same with any answer.
pub(crate) fn serve_with(
    socket: &Path,
    answer: impl Fn(&mut UnixStream) -> io::Result<()> + Send + Clone + 'static,
) {
    // The one before it at the same place.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                // The client may be gone at any time.
                let _ = stream.read(&mut request).and_then(|_| answer(&mut stream));
            });
        }
    });
}

/// An answer as a switch gives it.
pub(crate) fn whole(stream: &mut UnixStream, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())
}

/// The answer of `GET /v1/ports` with that list.
pub(crate) fn ports(ports: &str) -> String {
    let worker = "{\"generation\":1,\"rounds\":1,\"busy_rounds\":1,\"busy_frames\":1,\
        \"busy_cycles\":1,\"cycles_per_second\":1,\"cycles_per_frame\":null,\"sleeps\":1,\
        \"wakes\":1,\"wake_sum_ns\":1,\"wake_max_ns\":1,\"wake_histogram\":[]}";
    format!("{{\"tenant\":\"blue\",\"ports\":{ports},\"worker\":{worker}}}")
}

/// A port whose counters are all `count`.
pub(crate) fn port(name: &str, count: &str) -> String {
    let mut port = format!(
        "{{\"name\":\"{name}\",\"device\":\"\\u001b[2J\",\"link_up\":true,\"state\":\"{name}\""
    );
    for counter in [
        "resets",
        "reset_failures",
        "rx_missed",
        "rx_frames",
        "rx_bytes",
        "forwarded",
        "replies",
        "icmp_errors",
        "dropped",
        "tx_frames",
        "tx_bytes",
        "unsent",
    ] {
        port += &format!(",\"{counter}\":{count}");
    }
    port + "}"
}

pub(crate) fn array(element: &str, count: usize) -> String {
    let mut text = String::with_capacity(count * (element.len() + 1) + 2);
    text.push('[');
    for number in 0..count {
        if number > 0 {
            text.push(',');
        }
        text += element;
    }
    text + "]"
}

fn fill(stream: &mut UnixStream, unit: &[u8], length: usize) -> io::Result<()> {
    let block = unit.repeat((64 << 10) / unit.len());
    let mut sent = 0;
    while sent < length {
        stream.write_all(&block)?;
        sent += block.len();
    }
    Ok(())
}

fn drip(stream: &mut UnixStream, begin: &[u8], byte: u8) -> io::Result<()> {
    stream.write_all(begin)?;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(&[byte])?;
    }
}
