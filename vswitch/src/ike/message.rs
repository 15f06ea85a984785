//! The messages of charon's plugin, without any input or output. Whatever charon sends is parsed
//! as hostile. `docs/reference/ike-protocol.md` is the specification.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use pipeline::ipsec::{Bounds, Direction, Lifetime, Mode, Suite};
use zeroize::Zeroizing;

/// The largest message in either direction, in bytes.
pub(super) const MESSAGE_MAX: usize = 8192;
/// What precedes an IKE datagram: family, a zero, two ports, two addresses.
pub(super) const IKE_HEADER: usize = 38;
/// More `key=value` words than a message has.
const WORDS_MAX: usize = 32;
/// The longest key of a suite, in bytes, with some to spare.
const KEY_MAX: usize = 64;
/// RFC 3948: IKE datagrams there begin with four zero bytes, so that they are not ESP.
const NAT_T_PORT: u16 = 4500;
const MARKER: [u8; 4] = [0; 4];

/// What a connection is for, as its first message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Requests of charon, each with one answer.
    Ctl,
    /// Events from the switch.
    Evt,
    /// IKE datagrams both ways.
    Ike,
}

impl Role {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Ctl, Self::Evt, Self::Ike];

    /// The first message of such a connection.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ctl => "ctl",
            Self::Evt => "evt",
            Self::Ike => "ike",
        }
    }

    /// The role that a first message says.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.name().as_bytes() == message)
    }
}

/// Why a message is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// It is no text of printable characters.
    #[error("a message holds other bytes than printable ASCII")]
    Bytes,
    /// There is no such request.
    #[error("there is no request of that name")]
    Verb,
    /// It has too many words.
    #[error("a message has more than {WORDS_MAX} words")]
    Words,
    /// A word is no `key=value`.
    #[error("a word is no key=value")]
    Word,
    /// A key is missing, or is there twice.
    #[error("{0}= is missing")]
    Missing(&'static str),
    /// A key has a value that cannot be.
    #[error("{key}= is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// There are keys that the request does not have, or one of them twice.
    #[error("a key is unknown, or is there twice")]
    Unknown,
}

/// An SA among all of a switch: by the address that packets are sent to, and their SPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SaName {
    /// The destination address.
    pub(super) destination: IpAddr,
    /// The SPI.
    pub(super) spi: u32,
}

/// One side of the packets that an SA or a policy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// The protocol of IP; 0 is any.
    pub(super) protocol: u8,
    /// The addresses, first and last.
    pub(super) addresses: (IpAddr, IpAddr),
    /// The ports.
    pub(super) ports: RangeInclusive<u16>,
}

/// An SA that charon has negotiated.
#[derive(PartialEq, Eq)]
pub(super) struct AddSa {
    /// Whether it opens or seals packets.
    pub(super) direction: Direction,
    /// The address that packets come from.
    pub(super) source: IpAddr,
    /// Its name.
    pub(super) name: SaName,
    /// The number that charon gives to SAs and policies of one kind.
    pub(super) reqid: u32,
    /// Transport or tunnel mode.
    pub(super) mode: Mode,
    /// The transform.
    pub(super) suite: Suite,
    /// The key, with the salt of an AEAD.
    pub(super) key: Zeroizing<Vec<u8>>,
    /// The key of the integrity transform, if it has one.
    pub(super) integrity: Zeroizing<Vec<u8>>,
    /// Whether sequence numbers have 64 bits.
    pub(super) esn: bool,
    /// The UDP ports, source and destination, that ESP is encapsulated between.
    pub(super) encapsulation: Option<(u16, u16)>,
    /// When it is to be replaced, and when it ends.
    pub(super) lifetime: Lifetime,
    /// The sources that it is for.
    pub(super) source_selector: Selector,
    /// The destinations that it is for.
    pub(super) destination_selector: Selector,
}

/// Without the keys.
impl fmt::Debug for AddSa {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            source,
            name,
            suite,
            ..
        } = self;
        write!(out, "AddSa({direction:?} {source} {name:?} {suite:?})")
    }
}

/// A policy of outbound packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// The sources.
    pub(super) source: Selector,
    /// The destinations.
    pub(super) destination: Selector,
    /// charon's number.
    pub(super) reqid: u32,
    /// The SPI that packets get; 0 is a trap: the first packet asks for an SA.
    pub(super) spi: u32,
}

/// A request of charon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// An SPI for packets between two addresses.
    GetSpi {
        /// The peer's address.
        source: IpAddr,
        /// Ours.
        destination: IpAddr,
    },
    /// Use an SA.
    AddSa(Box<AddSa>),
    /// Addresses or encapsulation of an SA have changed.
    UpdateSa {
        /// The SA.
        name: SaName,
        /// The new source.
        source: IpAddr,
        /// The new destination.
        destination: IpAddr,
        /// The UDP ports that ESP is encapsulated between.
        encapsulation: Option<(u16, u16)>,
    },
    /// What an SA did.
    QuerySa(SaName),
    /// Forget an SA.
    DelSa(SaName),
    /// Forget all SAs.
    FlushSas,
    /// Forget all policies.
    FlushPolicies,
    /// Use a policy.
    AddPolicy(Policy),
    /// Forget a policy.
    DelPolicy(Policy),
}

/// The `key=value` words of a message, each to be taken once.
struct Words<'m>(Vec<(&'m str, &'m str)>);

impl<'m> Words<'m> {
    fn parse(words: impl Iterator<Item = &'m str>) -> Result<Self, Malformed> {
        let mut all = Vec::with_capacity(WORDS_MAX);
        for word in words {
            if all.len() == WORDS_MAX {
                return Err(Malformed::Words);
            }
            all.push(word.split_once('=').ok_or(Malformed::Word)?);
        }
        Ok(Self(all))
    }

    fn text(&mut self, key: &'static str) -> Result<&'m str, Malformed> {
        let at = self.0.iter().position(|(name, _)| *name == key);
        let at = at.ok_or(Malformed::Missing(key))?;
        Ok(self.0.swap_remove(at).1)
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Malformed> {
        let text = self.text(key)?;
        parse(text).ok_or(Malformed::Value { key, wanted })
    }

    fn number<T: FromStr>(&mut self, key: &'static str) -> Result<T, Malformed> {
        self.value(key, "a number in its range", number)
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, Malformed> {
        self.value(key, "0 or 1", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    fn address(&mut self, key: &'static str) -> Result<IpAddr, Malformed> {
        self.value(key, "an IP address", address)
    }

    fn spi(&mut self) -> Result<u32, Malformed> {
        self.value("spi", "eight hexadecimal digits", |text| {
            let digits = text.len() == 8 && text.bytes().all(|it| it.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
        })
    }

    fn key(&mut self, key: &'static str) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        self.value(key, "pairs of hexadecimal digits", bytes)
    }

    fn selector(&mut self, key: &'static str) -> Result<Selector, Malformed> {
        self.value(key, "one selector", Selector::parse)
    }

    fn name(&mut self) -> Result<SaName, Malformed> {
        Ok(SaName {
            destination: self.address("dst")?,
            spi: self.spi()?,
        })
    }

    fn encapsulation(&mut self) -> Result<Option<(u16, u16)>, Malformed> {
        let (encap, source, destination) = (
            self.flag("encap")?,
            self.number("sport")?,
            self.number("dport")?,
        );
        Ok(encap.then_some((source, destination)))
    }

    fn lifetime(&mut self) -> Result<Lifetime, Malformed> {
        const SECOND_NS: u64 = 1_000_000_000;
        // 0 is no limit.
        let limit = |number: u64| if number == 0 { u64::MAX } else { number };
        let mut bounds = |seconds, bytes, packets| {
            Ok(Bounds {
                age_ns: limit(self.number(seconds)?).saturating_mul(SECOND_NS),
                bytes: limit(self.number(bytes)?),
                packets: limit(self.number(packets)?),
            })
        };
        Ok(Lifetime {
            soft: bounds("soft_s", "soft_b", "soft_p")?,
            hard: bounds("hard_s", "hard_b", "hard_p")?,
        })
    }

    fn end(self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed::Unknown),
        }
    }
}

/// A decimal number without a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An address as itself: an IPv4 address in IPv6's clothes is none.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (address.to_canonical() == address).then_some(address)
}

fn bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |it: u8| char::from(it).to_digit(16).map(|it| it as u8);
    if !text.len().is_multiple_of(2) || text.len() > 2 * KEY_MAX {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_MAX));
    for pair in pairs {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

impl Selector {
    /// `PROTOCOL/FIRST-LAST/PORT-PORT`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (protocol, addresses, ports) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (first, last) = addresses.split_once('-')?;
        let (low, high) = ports.split_once('-')?;
        Some(Self {
            protocol: number(protocol)?,
            addresses: (address(first)?, address(last)?),
            ports: number(low)?..=number(high)?,
        })
    }

    /// The only address, if it is one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        (self.addresses.0 == self.addresses.1).then_some(self.addresses.0)
    }
}

impl Request {
    /// Parses a message of the connection `ctl`.
    ///
    /// # Errors
    /// What is not understood, in a sentence that quotes nothing of the message.
    pub(super) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        if !message.iter().all(|it| matches!(it, b' '..=b'~')) {
            return Err(Malformed::Bytes);
        }
        let text = std::str::from_utf8(message).map_err(|_| Malformed::Bytes)?;
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut words = Words::parse(words)?;
        let request = match verb {
            "get_spi" => Self::GetSpi {
                source: words.address("src")?,
                destination: words.address("dst")?,
            },
            "add_sa" => Self::AddSa(Box::new(AddSa::parse(&mut words)?)),
            "update_sa" => Self::UpdateSa {
                name: words.name()?,
                source: words.address("new_src")?,
                destination: words.address("new_dst")?,
                encapsulation: words.encapsulation()?,
            },
            "query_sa" => Self::QuerySa(words.name()?),
            "del_sa" => Self::DelSa(words.name()?),
            "flush" => words.value("what", "sas or policies", |text| match text {
                "sas" => Some(Self::FlushSas),
                "policies" => Some(Self::FlushPolicies),
                _ => None,
            })?,
            "add_policy" => Self::AddPolicy(Policy::parse(&mut words)?),
            "del_policy" => Self::DelPolicy(Policy::parse(&mut words)?),
            _ => return Err(Malformed::Verb),
        };
        words.end()?;
        Ok(request)
    }
}

impl AddSa {
    fn parse(words: &mut Words<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            direction: words.value("dir", "in or out", |text| match text {
                "in" => Some(Direction::In),
                "out" => Some(Direction::Out),
                _ => None,
            })?,
            source: words.address("src")?,
            name: words.name()?,
            reqid: words.number("reqid")?,
            mode: words.value("mode", "transport or tunnel", |text| match text {
                "transport" => Some(Mode::Transport),
                "tunnel" => Some(Mode::Tunnel),
                _ => None,
            })?,
            suite: words.value("suite", "the name of a suite", Suite::from_name)?,
            key: words.key("key")?,
            integrity: words.key("auth")?,
            esn: words.flag("esn")?,
            encapsulation: words.encapsulation()?,
            lifetime: words.lifetime()?,
            source_selector: words.selector("src_ts")?,
            destination_selector: words.selector("dst_ts")?,
        })
    }
}

impl Policy {
    fn parse(words: &mut Words<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            source: words.selector("src_ts")?,
            destination: words.selector("dst_ts")?,
            reqid: words.number("reqid")?,
            spi: words.spi()?,
        })
    }
}

/// Something that charon should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A packet waits for the trap of that number.
    Acquire {
        /// charon's number.
        reqid: u32,
    },
    /// An SA is to be replaced, or has ended (`hard`).
    Expire {
        /// The SA.
        name: SaName,
        /// Whether it has ended.
        hard: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire { reqid } => write!(out, "acquire reqid={reqid}"),
            Self::Expire { name, hard } => {
                let kind = if *hard { "hard" } else { "soft" };
                let SaName { destination, spi } = name;
                write!(out, "expire spi={spi:08x} dst={destination} kind={kind}")
            }
        }
    }
}

/// An IKE datagram, as the connection `ike` carries it: a header and the datagram, which at port
/// 4500 begins with four zero bytes.
pub(super) fn ike_message(from: SocketAddr, to: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    let family = if from.is_ipv6() { 6 } else { 4 };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    };
    let mut message = Vec::with_capacity(IKE_HEADER + MARKER.len() + datagram.len());
    message.extend([family, 0]);
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend(octets(from.ip()));
    message.extend(octets(to.ip()));
    if to.port() == NAT_T_PORT {
        message.extend(MARKER);
    }
    message.extend(datagram);
    message
}

/// An IKE datagram of charon: source, destination, and the datagram without its four zero bytes.
/// `None` if it is none, as a keep-alive of one byte is not.
pub(super) fn ike_datagram(message: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let (header, datagram) = message.split_first_chunk::<IKE_HEADER>()?;
    let &[family, 0, ports_and_addresses @ ..] = header else {
        return None;
    };
    let (ports, addresses) = ports_and_addresses.split_first_chunk::<4>()?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination = destination.first_chunk::<16>()?;
    let address = |octets: &[u8; 16]| match family {
        4 => {
            let (octets, rest) = octets.split_first_chunk::<4>()?;
            (rest == [0; 12]).then_some(IpAddr::from(*octets))
        }
        6 => Some(IpAddr::from(Ipv6Addr::from(*octets))),
        _ => None,
    };
    let &[source_high, source_low, destination_high, destination_low] = ports;
    let from = SocketAddr::new(
        address(source)?,
        u16::from_be_bytes([source_high, source_low]),
    );
    let to = SocketAddr::new(
        address(destination)?,
        u16::from_be_bytes([destination_high, destination_low]),
    );
    let datagram = match from.port() {
        NAT_T_PORT => datagram.strip_prefix(&MARKER)?,
        _ => datagram,
    };
    (!datagram.is_empty()).then_some((from, to, datagram))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SA: &str = "add_sa dir=in src=192.0.2.2 dst=192.0.2.1 spi=cb1cb9c9 reqid=2 \
                      mode=transport suite=aes256gcm16 \
                      key=e5a859f306d8796b57de0ccf652b1eac32b58c82a0f4ae780f664947c31fa2ba84f00c5d \
                      auth= esn=1 encap=1 sport=4500 dport=4501 soft_s=3274 hard_s=3960 soft_b=0 \
                      hard_b=0 soft_p=7 hard_p=9 src_ts=17/192.0.2.2-192.0.2.2/0-65535 \
                      dst_ts=17/192.0.2.1-192.0.2.1/6081-6081";

    fn parse(text: &str) -> Result<Request, Malformed> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn sa_is_parsed_whole() {
        let Ok(Request::AddSa(sa)) = parse(SA) else {
            panic!("no SA: {:?}", parse(SA));
        };
        let selector = |last: u8, ports| {
            let address = IpAddr::from([192, 0, 2, last]);
            Selector {
                protocol: 17,
                addresses: (address, address),
                ports,
            }
        };
        let wanted = AddSa {
            direction: Direction::In,
            source: IpAddr::from([192, 0, 2, 2]),
            name: SaName {
                destination: IpAddr::from([192, 0, 2, 1]),
                spi: 0xcb1c_b9c9,
            },
            reqid: 2,
            mode: Mode::Transport,
            suite: Suite::Aes256Gcm16,
            key: sa.key.clone(),
            integrity: Zeroizing::new(Vec::new()),
            esn: true,
            encapsulation: Some((4500, 4501)),
            lifetime: Lifetime {
                soft: Bounds {
                    packets: 7,
                    bytes: u64::MAX,
                    age_ns: 3274 * 1_000_000_000,
                },
                hard: Bounds {
                    packets: 9,
                    bytes: u64::MAX,
                    age_ns: 3960 * 1_000_000_000,
                },
            },
            source_selector: selector(2, 0..=65535),
            destination_selector: selector(1, 6081..=6081),
        };
        assert_eq!(*sa, wanted);
        assert_eq!(
            (sa.key.len(), sa.key[0], sa.key[35]),
            (36, 0xe5, 0x5d),
            "the key is what the digits say"
        );
    }

    #[test]
    fn sa_is_shown_without_its_keys() {
        let shown = format!("{:?}", parse(SA));
        assert!(shown.contains("Aes256Gcm16"), "{shown}");
        for key in ["e5a8", "229", "key"] {
            assert!(!shown.contains(key), "{shown}");
        }
    }

    #[test]
    fn short_requests_are_parsed() {
        let (peer, own) = (IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1]));
        let name = SaName {
            destination: own,
            spi: 0x100,
        };
        for (text, wanted) in [
            (
                "get_spi src=192.0.2.2 dst=192.0.2.1",
                Request::GetSpi {
                    source: peer,
                    destination: own,
                },
            ),
            (
                "query_sa spi=00000100 dst=192.0.2.1",
                Request::QuerySa(name),
            ),
            ("del_sa dst=192.0.2.1 spi=00000100", Request::DelSa(name)),
            ("flush what=sas", Request::FlushSas),
            ("flush what=policies", Request::FlushPolicies),
            (
                "update_sa dst=192.0.2.1 spi=00000100 new_src=192.0.2.2 new_dst=192.0.2.1 \
                 encap=0 sport=500 dport=500",
                Request::UpdateSa {
                    name,
                    source: peer,
                    destination: own,
                    encapsulation: None,
                },
            ),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn malformed_requests_are_refused_with_their_key() {
        let value = |key, wanted| Malformed::Value { key, wanted };
        let number = "a number in its range";
        for (change, by, wanted) in [
            ("add_sa", "add_s", Malformed::Verb),
            ("dir=in", "dir=up", value("dir", "in or out")),
            (" reqid=2", "", Malformed::Missing("reqid")),
            (" reqid=2", " reqid=-2", value("reqid", number)),
            (" reqid=2", " reqid=+2", value("reqid", number)),
            (" reqid=2", " reqid=4294967296", value("reqid", number)),
            (" reqid=2", " reqid=2 reqid=2", Malformed::Unknown),
            (" reqid=2", " reqid=2 more=2", Malformed::Unknown),
            (" reqid=2", " reqid=2 more", Malformed::Word),
            (" reqid=2", "  reqid=2", Malformed::Word),
            (" reqid=2", " reqid=2\0", Malformed::Bytes),
            (" reqid=2", " reqid=\u{e9}", Malformed::Bytes),
            (
                "spi=cb1cb9c9",
                "spi=b1cb9c9",
                value("spi", "eight hexadecimal digits"),
            ),
            (
                "spi=cb1cb9c9",
                "spi=+b1cb9c9",
                value("spi", "eight hexadecimal digits"),
            ),
            (
                "src=192.0.2.2",
                "src=192.0.2.256",
                value("src", "an IP address"),
            ),
            (
                "src=192.0.2.2",
                "src=::ffff:192.0.2.2",
                value("src", "an IP address"),
            ),
            ("aes256gcm16", "null", value("suite", "the name of a suite")),
            (
                "auth=",
                "auth=0",
                value("auth", "pairs of hexadecimal digits"),
            ),
            ("esn=1", "esn=2", value("esn", "0 or 1")),
            ("sport=4500", "sport=65536", value("sport", number)),
            ("/0-65535", "/0-65536", value("src_ts", "one selector")),
            ("/0-65535", "/0-65535/1", value("src_ts", "one selector")),
            (
                "17/192.0.2.2-",
                "256/192.0.2.2-",
                value("src_ts", "one selector"),
            ),
        ] {
            let text = SA.replacen(change, by, 1);
            assert_eq!(parse(&text), Err(wanted), "{text}");
        }
        let long = format!("auth={}", "00".repeat(65));
        let wanted = value("auth", "pairs of hexadecimal digits");
        assert_eq!(parse(&SA.replacen("auth=", &long, 1)), Err(wanted));
        let many = format!("{SA}{}", " a=b".repeat(32));
        assert_eq!(parse(&many), Err(Malformed::Words));
        assert_eq!(Request::parse(&[0xff]), Err(Malformed::Bytes));
        assert_eq!(parse(""), Err(Malformed::Verb));
    }

    #[test]
    fn events_are_written_as_the_page_says() {
        let name = SaName {
            destination: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
            spi: 0x100,
        };
        for (event, wanted) in [
            (Event::Acquire { reqid: 7 }, "acquire reqid=7"),
            (
                Event::Expire { name, hard: false },
                "expire spi=00000100 dst=2001:db8::1 kind=soft",
            ),
            (
                Event::Expire { name, hard: true },
                "expire spi=00000100 dst=2001:db8::1 kind=hard",
            ),
        ] {
            assert_eq!(event.to_string(), wanted);
        }
    }

    #[test]
    fn datagrams_keep_their_addresses_and_have_a_marker_at_4500() {
        for (from, to, marker) in [
            ("192.0.2.1:500", "192.0.2.2:500", 0),
            ("192.0.2.1:4500", "192.0.2.2:4500", 4),
            ("192.0.2.1:4500", "192.0.2.2:31000", 0),
            ("[2001:db8::1]:4500", "[2001:db8::2]:4500", 4),
        ] {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|it| it.parse().expect("an address"));
            let message = ike_message(from, to, b"IKE");
            assert_eq!(message.len(), IKE_HEADER + marker + 3, "{from} {to}");
            if from.port() == to.port() {
                let read = ike_datagram(&message);
                assert_eq!(read, Some((from, to, &b"IKE"[..])), "{from} {to}");
            }
        }
    }

    #[test]
    fn datagrams_without_marker_or_content_are_none() {
        let [own, peer]: [SocketAddr; 2] =
            ["192.0.2.1:4500", "192.0.2.2:4500"].map(|it| it.parse().expect("an address"));
        let good = ike_message(own, peer, b"IKE");
        let mut keep_alive = good[..IKE_HEADER].to_vec();
        keep_alive.push(0xff);
        let changed = |at: usize, to: u8| {
            let mut message = good.clone();
            message[at] = to;
            message
        };
        for message in [
            keep_alive,
            good[..IKE_HEADER].to_vec(),
            good[..IKE_HEADER + 4].to_vec(),
            good[..10].to_vec(),
            Vec::new(),
            changed(0, 5),
            changed(1, 1),
            changed(12, 1),
            changed(IKE_HEADER, 1),
        ] {
            assert_eq!(ike_datagram(&message), None, "{message:x?}");
        }
    }

    #[test]
    fn fuzz_messages() {
        bolero::check!().for_each(|message: &[u8]| {
            let _ = Request::parse(message);
            if let Some((from, to, datagram)) = ike_datagram(message)
                && from.port() == to.port()
            {
                assert_eq!(ike_message(from, to, datagram), message);
            }
        });
    }
}
