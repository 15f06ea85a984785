//! Collects the metrics that are declared beside the counters.

use std::net::IpAddr;

use pipeline::ipsec::{EndpointCounters, Rules};
use pipeline::{
    Counters, DropReason, NextHopView, PeerCounters, PortCounters, ReportCounters, ReportRejection,
    Trouble,
};
use tenant_config::SwitchConfig;
use vswitch_api::metrics::{Metric, Reading, Unit, Writer};

use super::Control;
use crate::worker::{DeviceState, WAKE_BOUNDS_NS, WorkerStats, load};

const BUILD_INFO: Metric<2> = Metric::gauge(
    "vswitch_build_info",
    Unit::Number,
    ["tenant", "version"],
    "The running version.",
);

const START_TIME: Metric<1> = Metric::gauge(
    "vswitch_start_time_seconds",
    Unit::Seconds,
    ["tenant"],
    "When the switch started, since the Unix epoch.",
);

/// The reference of all metrics, in Markdown.
pub(crate) fn reference() -> String {
    let mut text = "# Metrics of a switch

`GET /metrics` on the control socket answers with these, as Prometheus text. The list is generated:
`vswitch metrics > docs/reference/metrics.md`.

| name | type | unit | labels | meaning |
|---|---|---|---|---|
"
    .to_owned();
    text += &BUILD_INFO.markdown_row();
    text += &START_TIME.markdown_row();
    text.extend(rows(PortCounters::METRICS));
    text.extend(rows(DeviceState::METRICS));
    text += &PortCounters::DROPS.markdown_row();
    text.extend(rows(PeerCounters::METRICS));
    text += &NextHopView::PEER_REACHABLE.markdown_row();
    text += &Counters::PEER_MTU.markdown_row();
    text += &PeerCounters::LAST_SEEN.markdown_row();
    text += &Counters::PEER_TROUBLE.markdown_row();
    text += &ReportCounters::PATH_MTU_BELIEVED.markdown_row();
    text += &ReportCounters::PATH_MTU_REJECTED.markdown_row();
    text += &ReportCounters::UNREACHABLE_BELIEVED.markdown_row();
    text += &ReportCounters::UNREACHABLE_REJECTED.markdown_row();
    text += &Counters::VTEP_CONFLICTS.markdown_row();
    text += &Counters::CONTESTED.markdown_row();
    text += &Counters::HOLDER_CHANGES.markdown_row();
    text.extend(rows(EndpointCounters::METRICS));
    text += &EndpointCounters::AGE.markdown_row();
    text.extend(rows(WorkerStats::METRICS));
    text + &WorkerStats::WAKE.markdown_row()
}

fn rows<T, const LABELS: usize>(metrics: &[Reading<T, LABELS>]) -> impl Iterator<Item = String> {
    metrics.iter().map(|(metric, _)| metric.markdown_row())
}

impl Control {
    /// All metrics. `vswitch_drops_total` has a sample for each reason with frames;
    /// `vswitch_dropped_frames_total` is there from the start.
    pub(super) fn metrics(&self) -> String {
        let config = self.config.borrow();
        let counters = self.counters.borrow();
        let tenant = config.tenant.as_str();
        let mut out = Writer::default();
        out.single(&BUILD_INFO, [tenant, env!("CARGO_PKG_VERSION")], 1);
        out.single(&START_TIME, [tenant], self.started_at());
        let ports = counters
            .ports()
            .map(|port| ([tenant, port.name.as_str()], port));
        out.readings(PortCounters::METRICS, ports.clone());
        let devices = ports
            .zip(self.link.devices())
            .map(|((labels, _), device)| (labels, device));
        out.readings(DeviceState::METRICS, devices);
        let mut drops = out.family(&PortCounters::DROPS);
        for port in counters.ports() {
            for reason in DropReason::ALL {
                let frames = port.drops(*reason).get();
                if frames > 0 {
                    drops.sample([tenant, &port.name, reason.name()], frames);
                }
            }
        }
        if config.tunnel.is_some() {
            self.peer_metrics(&config, &mut out);
        }
        let contested = counters.contested_next_hops.get();
        out.single(&Counters::CONTESTED, [tenant], contested);
        let moved = counters.holder_changes.get();
        out.single(&Counters::HOLDER_CHANGES, [tenant], moved);
        if config.tunnel.is_some() {
            let endpoints = Rules::of(&config).map_or_else(Vec::new, |rules| rules.endpoints);
            ipsec_metrics(&endpoints, &counters, tenant, &mut out);
        }
        let stats = self.link.stats();
        out.readings(WorkerStats::METRICS, [([tenant], stats)]);
        let bounds = WAKE_BOUNDS_NS.iter().map(|bound| Some(*bound as f64 / 1e9));
        let buckets = bounds
            .chain([None])
            .zip(stats.wake_buckets.iter().map(load));
        let sum = load(&stats.wake_sum_ns) as f64 / 1e9;
        out.family(&WorkerStats::WAKE)
            .buckets([tenant], buckets, sum);
        out.finish()
    }

    fn peer_metrics(&self, config: &SwitchConfig, out: &mut Writer) {
        let tenant = config.tenant.as_str();
        let (counters, tables) = (self.counters.borrow(), self.tables.borrow());
        let peers = counters
            .peers()
            .map(|peer| ([tenant, peer.name.as_str()], peer));
        out.readings(PeerCounters::METRICS, peers.clone());
        let mut reachable = out.family(&NextHopView::PEER_REACHABLE);
        for ((labels, _), (_, next_hop)) in peers.clone().zip(tables.peers()) {
            reachable.sample(labels, counters.next_hops[next_hop].mac().is_some());
        }
        let mut mtu = out.family(&Counters::PEER_MTU);
        for ((labels, _), (vtep, _)) in peers.clone().zip(tables.peers()) {
            mtu.sample(labels, counters.inner_mtu[vtep].get());
        }
        let mut last_seen = out.family(&PeerCounters::LAST_SEEN);
        for (labels, peer) in peers.clone() {
            if let Some(seconds) = counters.last_seen_s(peer) {
                last_seen.sample(labels, seconds);
            }
        }
        let configured = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        let mut troubles = out.family(&Counters::PEER_TROUBLE);
        for (((labels, peer), places), config) in peers.zip(tables.peers()).zip(configured) {
            for trouble in Trouble::ALL {
                let peer = (peer, config.mac.octets());
                let has_it = counters.has_trouble(trouble, peer, places);
                let [tenant, name] = labels;
                troubles.sample([tenant, name, trouble.name()], has_it);
            }
        }
        for (reports, believed, rejected) in [
            (
                &counters.path_mtu,
                &ReportCounters::PATH_MTU_BELIEVED,
                &ReportCounters::PATH_MTU_REJECTED,
            ),
            (
                &counters.unreachable,
                &ReportCounters::UNREACHABLE_BELIEVED,
                &ReportCounters::UNREACHABLE_REJECTED,
            ),
        ] {
            out.single(believed, [tenant], reports.believed.get());
            let mut rejected = out.family(rejected);
            for why in ReportRejection::ALL {
                rejected.sample([tenant, why.name()], reports.rejected(*why).get());
            }
        }
        let conflicts = counters.vtep_conflicts.get();
        out.single(&Counters::VTEP_CONFLICTS, [tenant], conflicts);
    }
}

/// `required` are the endpoints of peers that require IPsec.
fn ipsec_metrics(required: &[IpAddr], counters: &Counters, tenant: &str, out: &mut Writer) {
    let required = |it: &&EndpointCounters| {
        let endpoint = it.endpoint.parse();
        endpoint.is_ok_and(|endpoint| required.contains(&endpoint))
    };
    let endpoints = counters.endpoints().filter(required);
    let endpoints = endpoints.map(|it| ([tenant, it.endpoint.as_str()], it));
    out.readings(EndpointCounters::METRICS, endpoints.clone());
    let mut ages = out.family(&EndpointCounters::AGE);
    for (labels, it) in endpoints {
        if let Some(sa) = it.outbound.get() {
            let age_ns = counters.polled_ns.get().saturating_sub(sa.since_ns);
            ages.sample(labels, age_ns / 1_000_000_000);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use etherparse::PacketBuilder;
    use packet::Frame;
    use pipeline::{Generation, Pipeline, PortId};
    use tenant_config::Tenant;

    use super::*;
    use crate::worker::Link;

    /// The control API of `examples/red.toml` after its first VM sent 5 frames to a tunnel peer and
    /// 2 from another MAC, and the worker woke 4 times.
    fn control() -> Control {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/red.toml");
        let tenant = Tenant::load(file.as_ref()).expect("a tenant");
        let config = tenant.offline_config();
        let port = &config.ports[0];
        let generation = Generation::build(&config, None);
        let views = (generation.counters(), generation.tables());
        let mut pipeline = Pipeline::new(generation);
        let uplink = config.uplink.as_ref().expect("an uplink");
        pipeline.assume_next_hops(0, uplink.mac);
        let foreign = [0x52, 0x54, 0, 0xaa, 0, 9];
        for mac in [[port.mac.octets(); 5].as_slice(), &[foreign; 2]].concat() {
            let mut buffer = vec![0; Frame::HEADROOM];
            PacketBuilder::ethernet2(mac, port.gateway_mac.octets())
                .ipv4([10, 0, 0, 11], [10, 0, 0, 13], 64)
                .udp(1000, 2000)
                .write(&mut buffer, b"hello")
                .expect("a Vec has room");
            let len = buffer.len() - Frame::HEADROOM;
            buffer.resize(buffer.len() + 2048, 0);
            let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, len, None);
            let _ = pipeline.process(0, PortId(0), &mut frame);
        }
        let link = Link::new(config.devices().count()).expect("a link");
        let stats = link.stats();
        stats.wake_buckets[3].store(3, Ordering::Relaxed);
        stats.wake_buckets[WAKE_BOUNDS_NS.len()].store(1, Ordering::Relaxed);
        stats.wake_sum_ns.store(1_500_000, Ordering::Relaxed);
        Control::new(config, views, link)
    }

    #[test]
    fn metrics_have_the_counters_values() {
        let text = control().metrics();
        for line in [
            r#"vswitch_rx_frames_total{tenant="red",port="red-vm1"} 7"#,
            r#"vswitch_dropped_frames_total{tenant="red",port="red-vm1"} 2"#,
            r#"vswitch_drops_total{tenant="red",port="red-vm1",reason="src-mac"} 2"#,
            r#"vswitch_link_up{tenant="red",port="uplink"} 0"#,
            r#"vswitch_peer_tx_frames_total{tenant="red",peer="host-b"} 5"#,
            r#"vswitch_peer_tx_frames_total{tenant="red",peer="host-c"} 0"#,
            r#"vswitch_peer_next_hop_reachable{tenant="red",peer="host-b"} 0"#,
            r#"vswitch_peer_trouble{tenant="red",peer="host-b",trouble="mac"} 0"#,
            r#"vswitch_vtep_conflicts_total{tenant="red"} 0"#,
            r#"vswitch_worker_wake_seconds_bucket{tenant="red",le="0.00005"} 3"#,
            r#"vswitch_worker_wake_seconds_bucket{tenant="red",le="+Inf"} 4"#,
            r#"vswitch_worker_wake_seconds_count{tenant="red"} 4"#,
            r#"vswitch_worker_wake_seconds_sum{tenant="red"} 0.0015"#,
        ] {
            assert!(
                text.lines().any(|is| is == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("llc"), "a reason that was never counted");
        assert!(
            !text.contains("last_seen_seconds{"),
            "no peer has sent a frame"
        );
    }

    #[test]
    fn families_are_declared_once_and_listed_in_the_reference() {
        let text = control().metrics();
        // Every sample belongs to the family declared last before it, and none is declared twice.
        let mut declared: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().expect("a name");
                assert!(!declared.contains(&name), "{name} twice");
                declared.push(name);
            } else if !line.starts_with('#') {
                let name = line.split('{').next().expect("a name");
                let suffix = declared.last().and_then(|family| name.strip_prefix(family));
                assert!(
                    matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                    "{name} under {declared:?}"
                );
            }
        }
        let reference = reference();
        let listed: Vec<&str> = reference
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(listed, declared);
    }
}
