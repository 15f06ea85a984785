use super::*;

const OWN: &str = "192.0.2.1";
const PEER: &str = "192.0.2.2";
const OTHER: &str = "192.0.2.3";
const KEY: &str = "e5a859f306d8796b57de0ccf652b1eac32b58c82a0f4ae780f664947c31fa2ba84f00c5d";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn rules() -> Rules {
    Rules {
        own: ip(OWN),
        port: 6081,
        suites: vec![Suite::Aes256Gcm16],
        esn: true,
        replay_window: 1024,
        endpoints: vec![ip(PEER), ip(OTHER)],
    }
}

/// A book, and the SPIs that it gives next: 0x1001 and so on.
struct Desk {
    book: Book,
    spi: u32,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        Self {
            book: Book::new(Some(Arc::new(rules()))),
            spi: 0x1000,
            now: Instant::now(),
        }
    }

    /// The values, then the orders, of a request that is granted, or the refusal.
    fn ask(&mut self, text: &str) -> Result<Vec<String>, String> {
        let request = Request::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let spi = &mut self.spi;
        let random = || {
            *spi += 1;
            Some(*spi)
        };
        let reply = self.book.answer(request, self.now, 0, random);
        let reply = reply.map_err(|error| error.to_string())?;
        let orders = reply.orders.iter().map(brief);
        Ok(reply.values.into_iter().chain(orders).collect())
    }

    #[track_caller]
    fn granted(&mut self, text: &str) -> Vec<String> {
        self.ask(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[track_caller]
    fn refused(&mut self, text: &str) -> String {
        let before = self.counts();
        let error = self.ask(text).expect_err(text);
        assert_eq!(self.counts(), before, "{text}");
        error
    }

    fn counts(&self) -> [usize; 4] {
        let Book {
            sas,
            given,
            ways,
            in_use,
            ..
        } = &self.book;
        [sas.len(), given.len(), ways.len(), in_use.len()]
    }

    /// Negotiates both SAs of the connection by which we send to `peer`.
    fn negotiate(&mut self, peer: &str, out_spi: u32) -> String {
        let spi = self
            .granted(&format!("get_spi src={peer} dst={OWN}"))
            .remove(0);
        self.granted(&inbound(peer, &spi));
        self.granted(&outbound(peer, out_spi));
        spi
    }
}

fn brief(order: &Order) -> String {
    match order {
        Order::InstallIn(sa) => format!("in {:x}", sa.request().spi),
        Order::InstallOut(sa) => format!("out {:x}", sa.request().spi),
        Order::Use { peer, spi } => format!("use {peer} {spi:x}"),
        Order::Remove {
            direction,
            peer,
            spi,
        } => format!("remove {direction:?} {peer} {spi:x}"),
        Order::Encapsulate { spi, ports, .. } => format!("encapsulate {spi:x} {ports:?}"),
        Order::Wipe => "wipe".to_owned(),
        Order::Send(_) => "send".to_owned(),
    }
}

fn words(dir: &str, from: &str, to: &str, spi: &str) -> String {
    format!(
        "add_sa dir={dir} src={from} dst={to} spi={spi} reqid=2 mode=transport suite=aes256gcm16 \
         key={KEY} auth= esn=1 encap=0 sport=500 dport=500 soft_s=0 hard_s=0 soft_b=0 hard_b=0 \
         soft_p=0 hard_p=0"
    )
}

/// Of the connection by which we send: packets from the peer's tunnel port to any of ours.
fn inbound(peer: &str, spi: &str) -> String {
    let words = words("in", peer, OWN, spi);
    format!("{words} src_ts=17/{peer}-{peer}/6081-6081 dst_ts=17/{OWN}-{OWN}/0-65535")
}

fn outbound(peer: &str, spi: u32) -> String {
    let words = words("out", OWN, peer, &format!("{spi:08x}"));
    format!("{words} src_ts=17/{OWN}-{OWN}/0-65535 dst_ts=17/{peer}-{peer}/6081-6081")
}

fn policy(verb: &str, peer: &str, spi: u32) -> String {
    format!(
        "{verb} src_ts=17/{OWN}-{OWN}/0-65535 dst_ts=17/{peer}-{peer}/6081-6081 reqid=2 \
         spi={spi:08x}"
    )
}

#[test]
fn negotiation_installs_both_ways_and_then_seals() {
    let mut desk = Desk::new();
    desk.granted(&policy("add_policy", PEER, 0));
    let spi = desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
    assert_eq!(spi, ["00001001"]);
    assert_eq!(desk.granted(&inbound(PEER, "00001001")), ["in 1001"]);
    assert_eq!(desk.granted(&outbound(PEER, 0xa100)), ["out a100"]);
    let used = desk.granted(&policy("add_policy", PEER, 0xa100));
    assert_eq!(used, [format!("use {PEER} a100")]);
}

#[test]
fn rekey_seals_with_the_new_sa_when_its_policy_is_there() {
    let mut desk = Desk::new();
    desk.granted(&policy("add_policy", PEER, 0));
    desk.negotiate(PEER, 0xa100);
    let used = desk.granted(&policy("add_policy", PEER, 0xa100));
    assert_eq!(used, [format!("use {PEER} a100")]);
    let second = desk.negotiate(PEER, 0xa200);
    assert_eq!(second, "00001002");
    let used = desk.granted(&policy("add_policy", PEER, 0xa200));
    assert_eq!(used, [format!("use {PEER} a200")]);
    // The old one goes without another word about the new.
    assert!(desk.granted(&policy("del_policy", PEER, 0xa100)).is_empty());
    let removed = desk.granted(&format!("del_sa dst={PEER} spi=0000a100"));
    assert_eq!(removed, [format!("remove Out {PEER} a100")]);
    let removed = desk.granted(&format!("del_sa dst={OWN} spi=00001001"));
    assert_eq!(removed, [format!("remove In {PEER} 1001")]);
    assert_eq!(desk.counts(), [2, 0, 2, 1]);
}

#[test]
fn sa_that_goes_leaves_its_place_to_the_one_before() {
    let mut desk = Desk::new();
    for spi in [0xa100, 0xa200] {
        desk.negotiate(PEER, spi);
        desk.granted(&policy("add_policy", PEER, spi));
    }
    let removed = desk.granted(&format!("del_sa dst={PEER} spi=0000a200"));
    let wanted = [
        format!("use {PEER} a100"),
        format!("remove Out {PEER} a200"),
    ];
    assert_eq!(removed, wanted, "first the successor");
    desk.granted(&format!("del_sa dst={PEER} spi=0000a100"));
    assert_eq!(desk.counts(), [2, 0, 2, 0]);
}

#[test]
fn policy_of_the_other_connection_seals_nothing() {
    let mut desk = Desk::new();
    let selectors = format!("src_ts=17/{OWN}-{OWN}/6081-6081 dst_ts=17/{PEER}-{PEER}/0-65535");
    let words = words("out", OWN, PEER, "0000a100");
    desk.granted(&format!("{words} {selectors}"));
    let used = desk.granted(&format!("add_policy {selectors} reqid=1 spi=0000a100"));
    assert_eq!(used, Vec::<String>::new());
}

#[test]
fn what_the_configuration_does_not_allow_is_refused() {
    let mut desk = Desk::new();
    desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
    let good = inbound(PEER, "00001001");
    for (change, by, wanted) in [
        (" src=192.0.2.2", " src=192.0.2.9", "is not UDP between"),
        ("dst=192.0.2.1 ", "dst=192.0.2.9 ", "is not UDP between"),
        ("aes256gcm16", "aes128gcm16", "the encryption key"),
        ("spi=00001001", "spi=00001002", "was not given"),
        ("spi=00001001", "spi=000000ff", "is reserved"),
        ("auth=", "auth=00", "the integrity key"),
        ("src_ts=17/", "src_ts=0/", "is not UDP between"),
        ("src_ts=17/", "src_ts=6/", "is not UDP between"),
        ("/6081-6081", "/6081-6082", "is not UDP between"),
        ("/6081-6081", "/22-22", "are not those of the tunnel"),
        (
            "17/192.0.2.2-192.0.2.2",
            "17/0.0.0.0-255.255.255.255",
            "is not UDP between",
        ),
        (
            "17/192.0.2.2-192.0.2.2",
            "17/192.0.2.3-192.0.2.3",
            "is not UDP between",
        ),
        (
            "17/192.0.2.1-192.0.2.1",
            "17/192.0.2.0-192.0.2.255",
            "is not UDP between",
        ),
        ("encap=0", "encap=1", "takes UDP port 4500"),
    ] {
        let text = good.replacen(change, by, 1);
        assert_ne!(text, good);
        let error = desk.refused(&text);
        assert!(error.contains(wanted), "{change} to {by}: {error}");
    }
    // Everything in accord, but for another peer.
    let error = desk.refused(&inbound("192.0.2.9", "00001001"));
    assert_eq!(error, "no peer that requires IPsec is at 192.0.2.9");
    let error = desk.refused(&outbound("192.0.2.9", 0xa1000));
    assert_eq!(error, "no peer that requires IPsec is at 192.0.2.9");
    let error = desk.refused(&outbound(PEER, 0xa1000).replace(OWN, "192.0.2.7"));
    assert_eq!(error, "192.0.2.7 is not the tunnel's own endpoint");
    let error = desk.refused(&inbound(OTHER, "00001001"));
    assert!(error.contains("was not given"), "for another peer: {error}");
    for text in [
        format!("get_spi src=192.0.2.9 dst={OWN}"),
        policy("add_policy", "192.0.2.9", 0),
        format!("get_spi src={PEER} dst=192.0.2.9"),
    ] {
        assert!(desk.refused(&text).contains("192.0.2.9"), "{text}");
    }
    let error = desk.refused(&policy("add_policy", PEER, 0xa1000));
    assert_eq!(error, "there is no SA of SPI 0x000a1000");
    desk.granted(&good);
    assert_eq!(
        desk.refused(&good),
        "there is an SA of SPI 0x00001001 already"
    );
}

#[test]
fn esn_and_suites_are_the_configurations() {
    let mut desk = Desk::new();
    let strict = Rules {
        esn: false,
        suites: vec![Suite::Aes128Gcm16],
        ..rules()
    };
    desk.book = Book::new(Some(Arc::new(strict)));
    let error = desk.refused(&outbound(PEER, 0xa1000));
    assert_eq!(error, "the configuration does not allow aes256gcm16");
    let short = outbound(PEER, 0xa1000)
        .replace("aes256gcm16", "aes128gcm16")
        .replace(KEY, &KEY[..40]);
    let error = desk.refused(&short);
    assert_eq!(
        error,
        "the configuration does not allow extended sequence numbers"
    );
    desk.granted(&short.replace("esn=1", "esn=0"));
}

#[test]
fn without_rules_everything_is_refused() {
    let mut desk = Desk::new();
    desk.book = Book::new(None);
    for text in [
        format!("get_spi src={PEER} dst={OWN}"),
        outbound(PEER, 0xa1000),
        policy("add_policy", PEER, 0),
    ] {
        assert_eq!(desk.refused(&text), "the configuration has no IPsec");
    }
}

#[test]
fn everything_is_bounded() {
    let mut desk = Desk::new();
    for spi in 0..8 {
        desk.granted(&outbound(PEER, 0xa1000 + spi));
    }
    let error = desk.refused(&outbound(PEER, 0xa1009));
    assert_eq!(error, "192.0.2.2 has 8 SAs of that direction already");
    desk.granted(&outbound(OTHER, 0xa1009));
    for _ in 0..16 {
        desk.granted(&policy("add_policy", PEER, 0));
        desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
    }
    let error = desk.refused(&policy("add_policy", PEER, 0));
    assert_eq!(error, "192.0.2.2 has 16 policies already");
    let error = desk.refused(&format!("get_spi src={PEER} dst={OWN}"));
    assert_eq!(error, "192.0.2.2 has 16 SPIs without an SA already");
    // Negotiations that came to nothing leave their places.
    desk.now += SPI_TIMEOUT + Duration::from_secs(1);
    desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
    assert_eq!(desk.counts(), [9, 1, 16, 0]);
}

#[test]
fn spi_is_used_once() {
    let mut desk = Desk::new();
    let spi = desk.negotiate(PEER, 0xa1000);
    desk.granted(&format!("del_sa dst={OWN} spi={spi}"));
    let error = desk.refused(&inbound(PEER, &spi));
    assert_eq!(error, "SPI 0x00001001 was not given by get_spi");
}

#[test]
fn encapsulation_may_come_but_addresses_stay() {
    let mut desk = Desk::new();
    desk.granted(&outbound(PEER, 0xa1000));
    let update = |source: &str, words: &str| {
        format!("update_sa dst={PEER} spi=000a1000 new_src={source} new_dst={PEER} {words}")
    };
    let orders = desk.granted(&update(OWN, "encap=1 sport=4500 dport=31000"));
    assert_eq!(
        orders,
        ["encapsulate a1000 Some(UdpPorts { own: 4500, peer: 31000 })"]
    );
    let error = desk.refused(&update("192.0.2.9", "encap=0 sport=500 dport=500"));
    assert_eq!(error, "an SA keeps its addresses");
    let error = desk.refused(&update(OWN, "encap=1 sport=53 dport=4500"));
    assert_eq!(error, "encapsulation takes UDP port 4500 on our side");
}

#[test]
fn notices_become_events() {
    let mut desk = Desk::new();
    // The trap of the other connection comes first, and has another number.
    let selectors = format!("src_ts=17/{OWN}-{OWN}/6081-6081 dst_ts=17/{PEER}-{PEER}/0-65535");
    desk.granted(&format!("add_policy {selectors} reqid=1 spi=00000000"));
    desk.granted(&policy("add_policy", PEER, 0));
    let mut orders = Vec::new();
    let mut told = |desk: &mut Desk, notice| desk.book.notice(&notice, &mut orders);
    let acquire = |peer| Notice::Acquire { peer: ip(peer) };
    assert_eq!(
        told(&mut desk, acquire(PEER)),
        Some(Event::Acquire { reqid: 2 })
    );
    assert_eq!(told(&mut desk, acquire(OTHER)), None);
    for spi in [0xa1000, 0xa2000] {
        desk.granted(&outbound(PEER, spi));
        desk.granted(&policy("add_policy", PEER, spi));
    }
    let (direction, peer, spi) = (Direction::Out, ip(PEER), 0xa2000);
    let expired = |hard| {
        let destination = peer;
        let name = SaName { destination, spi };
        Some(Event::Expire { name, hard })
    };
    let soft = Notice::Soft {
        direction,
        peer,
        spi,
    };
    assert_eq!(told(&mut desk, soft), expired(false));
    let hard = || Notice::Hard {
        direction,
        peer,
        spi,
    };
    assert_eq!(told(&mut desk, hard()), expired(true));
    assert_eq!(told(&mut desk, hard()), None, "it is forgotten");
    let orders: Vec<String> = orders.iter().map(brief).collect();
    assert_eq!(orders, [format!("use {PEER} a1000")]);
}

#[test]
fn usage_is_told_of_sas_alone() {
    let mut desk = Desk::new();
    desk.granted(&outbound(PEER, 0xa1000));
    let query = format!("query_sa dst={PEER} spi=000a1000");
    assert_eq!(desk.granted(&query), ["0 0 0"]);
    let error = desk.refused(&format!("query_sa dst={OWN} spi=000a1000"));
    assert_eq!(error, "there is no SA of SPI 0x000a1000");
}

#[test]
fn new_rules_remove_what_they_do_not_allow() {
    let mut desk = Desk::new();
    for (peer, spi) in [(PEER, 0xa1000), (OTHER, 0xa2000)] {
        desk.negotiate(peer, spi);
        desk.granted(&policy("add_policy", peer, spi));
    }
    assert!(desk.book.set_rules(Some(Arc::new(rules()))).is_empty());
    let fewer = Rules {
        endpoints: vec![ip(PEER)],
        ..rules()
    };
    let orders = desk.book.set_rules(Some(Arc::new(fewer)));
    let orders: Vec<String> = orders.iter().map(brief).collect();
    let wanted = [
        format!("remove In {OTHER} 1002"),
        format!("remove Out {OTHER} a2000"),
    ];
    assert_eq!(orders, wanted);
    assert_eq!(desk.counts()[..3], [2, 0, 1]);
    assert_eq!(desk.book.set_rules(None).len(), 2);
    assert_eq!(desk.counts()[..3], [0, 0, 0]);
}

#[test]
fn end_of_charon_wipes_everything() {
    let mut desk = Desk::new();
    desk.negotiate(PEER, 0xa1000);
    desk.granted(&policy("add_policy", PEER, 0xa1000));
    desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
    assert_eq!(brief(&desk.book.wipe()), "wipe");
    assert_eq!(desk.counts(), [0; 4]);
    // The rules stay.
    desk.granted(&format!("get_spi src={PEER} dst={OWN}"));
}

/// A charon that sends anything stays within its bounds, and every order is about a peer.
#[test]
fn fuzz_requests() {
    bolero::check!().for_each(|input: &[u8]| {
        let mut desk = Desk::new();
        for line in input.split(|it| *it == b'\n').take(64) {
            let Ok(request) = Request::parse(line) else {
                continue;
            };
            let random = || {
                desk.spi += 1;
                Some(desk.spi)
            };
            let Ok(reply) = desk.book.answer(request, desk.now, 0, random) else {
                continue;
            };
            for order in &reply.orders {
                let peer = match order {
                    Order::InstallIn(sa) => sa.request().peer,
                    Order::InstallOut(sa) => sa.request().peer,
                    Order::Use { peer, .. }
                    | Order::Remove { peer, .. }
                    | Order::Encapsulate { peer, .. } => *peer,
                    Order::Wipe | Order::Send(_) => panic!("{order:?}"),
                };
                assert!(rules().endpoints.contains(&peer), "{order:?}");
            }
        }
        let [sas, given, ways, in_use] = desk.counts();
        let endpoints = rules().endpoints.len();
        assert!(sas <= endpoints * 2 * SAS_PER_ENDPOINT);
        assert!(given <= endpoints * SPIS_PER_ENDPOINT);
        assert!(ways <= endpoints * POLICIES_PER_ENDPOINT);
        assert!(in_use <= endpoints);
    });
}
