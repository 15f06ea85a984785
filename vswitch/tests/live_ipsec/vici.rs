//! A client of VICI, charon's configuration protocol, as far as the tests need it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

/// Packets.
const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const EVENT_REGISTER: u8 = 3;
const EVENT_CONFIRM: u8 = 5;
const EVENT: u8 = 7;
/// Elements of a message.
const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

pub(crate) struct Vici(UnixStream);

impl Vici {
    /// `None` while nobody answers.
    pub(crate) fn connect(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).ok()?;
        Some(Self(stream))
    }

    /// A command that must succeed.
    #[track_caller]
    pub(crate) fn done(&mut self, command: &str, arguments: &Value) {
        let answer = self.call(command, arguments);
        assert_eq!(answer["success"], "yes", "{command}: {answer}");
    }

    /// The answer to a command.
    #[track_caller]
    pub(crate) fn call(&mut self, command: &str, arguments: &Value) -> Value {
        self.send(CMD_REQUEST, command, arguments);
        let (kind, message) = self.receive();
        assert_eq!(kind, CMD_RESPONSE, "{command}");
        message
    }

    /// The same; `None` if charon ends meanwhile.
    pub(crate) fn try_call(&mut self, command: &str, arguments: &Value) -> Option<Value> {
        self.try_send(CMD_REQUEST, command, arguments).ok()?;
        self.try_receive().ok().map(|(_, message)| message)
    }

    /// The events of a command that streams them.
    #[track_caller]
    pub(crate) fn events(&mut self, command: &str, event: &str) -> Vec<Value> {
        self.send(EVENT_REGISTER, event, &Value::Null);
        assert_eq!(self.receive().0, EVENT_CONFIRM, "{event}");
        self.send(CMD_REQUEST, command, &Value::Null);
        let mut events = Vec::new();
        loop {
            match self.receive() {
                (EVENT, message) => events.push(message),
                (kind, _) => {
                    assert_eq!(kind, CMD_RESPONSE, "{command}");
                    return events;
                }
            }
        }
    }

    fn send(&mut self, kind: u8, name: &str, arguments: &Value) {
        let sent = self.try_send(kind, name, arguments);
        sent.expect("charon takes it");
    }

    fn receive(&mut self) -> (u8, Value) {
        self.try_receive().expect("charon answers")
    }

    fn try_send(&mut self, kind: u8, name: &str, arguments: &Value) -> io::Result<()> {
        let mut packet = vec![kind, name.len() as u8];
        packet.extend(name.as_bytes());
        if let Value::Object(arguments) = arguments {
            section(&mut packet, arguments);
        }
        let length = (packet.len() as u32).to_be_bytes();
        self.0.write_all(&length)?;
        self.0.write_all(&packet)
    }

    fn try_receive(&mut self) -> io::Result<(u8, Value)> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut packet)?;
        let kind = packet[0];
        let mut rest = &packet[1..];
        if kind == EVENT {
            let name = usize::from(rest[0]);
            rest = &rest[1 + name..];
        }
        Ok((kind, Value::Object(parse(&mut rest))))
    }
}

fn section(packet: &mut Vec<u8>, values: &Map<String, Value>) {
    let text = |packet: &mut Vec<u8>, text: &str| {
        packet.extend((text.len() as u16).to_be_bytes());
        packet.extend(text.as_bytes());
    };
    for (key, value) in values {
        let kind = match value {
            Value::Object(_) => SECTION_START,
            Value::Array(_) => LIST_START,
            _ => KEY_VALUE,
        };
        packet.extend([kind, key.len() as u8]);
        packet.extend(key.as_bytes());
        match value {
            Value::Object(values) => {
                section(packet, values);
                packet.push(SECTION_END);
            }
            Value::Array(items) => {
                for item in items {
                    packet.push(LIST_ITEM);
                    text(packet, item.as_str().expect("text"));
                }
                packet.push(LIST_END);
            }
            value => text(packet, value.as_str().expect("text")),
        }
    }
}

fn take<'p>(rest: &mut &'p [u8], length: usize) -> &'p [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}

fn parse(rest: &mut &[u8]) -> Map<String, Value> {
    let name = |rest: &mut &[u8]| {
        let length = usize::from(take(rest, 1)[0]);
        String::from_utf8_lossy(take(rest, length)).into_owned()
    };
    let text = |rest: &mut &[u8]| {
        let length = take(rest, 2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        Value::from(String::from_utf8_lossy(take(rest, length)))
    };
    let mut values = Map::new();
    while !rest.is_empty() {
        match take(rest, 1)[0] {
            SECTION_START => {
                let key = name(rest);
                values.insert(key, Value::Object(parse(rest)));
            }
            KEY_VALUE => {
                let key = name(rest);
                values.insert(key, text(rest));
            }
            LIST_START => {
                let key = name(rest);
                let mut items = Vec::new();
                while take(rest, 1)[0] == LIST_ITEM {
                    items.push(text(rest));
                }
                values.insert(key, Value::Array(items));
            }
            _ => return values,
        }
    }
    values
}
