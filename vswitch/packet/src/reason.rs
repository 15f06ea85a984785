//! Why a frame was dropped. The reasons are API: a name or number never changes;
//! a retired reason keeps its number.

use std::fmt;

macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $help:literal;)*) => {
        /// Why a frame was dropped; exactly one per dropped frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $help] $variant = $number,)*
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable kebab-case name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One line for people.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)*
                }
            }
        }
    };
}

reasons! {
    1  Malformed "malformed"
       "Shorter than its Ethernet header, or longer than the port's MTU allows";
    2  SrcMacGroup "src-mac-group" "The source MAC is multicast, broadcast or zero";
    3  SrcMac "src-mac" "The source MAC is not one of the port's";
    4  VlanTag "vlan-tag" "A VLAN tag that the port may not use, or more than one";
    5  Llc "llc" "802.3, LLC or SNAP framing";
    6  LinkLocalL2 "link-local-l2" "Bridge protocols, LLDP or pause: not forwarded beyond one link";
    7  Rarp "rarp" "RARP other than an announcement that the port may send";
    8  EtherType "ethertype"
       "An EtherType other than ARP, IPv4 and IPv6, or IPv6 where the port denies it";
    9  ArpMalformed "arp-malformed" "ARP that is not a well-formed Ethernet/IPv4 request or reply";
    10 ArpSenderMac "arp-sender-mac"
       "ARP whose sender hardware address is not the frame's source, or no underlay station's";
    11 ArpSenderIp "arp-sender-ip" "ARP for a sender address that the port does not have";
    12 ArpUnknown "arp-unknown" "ARP for an address that this tenant cannot reach";
    13 Ipv4Malformed "ipv4-malformed"
       "IPv4 with a wrong version, length or header checksum, or a truncated transport header";
    14 Ipv4Source "ipv4-source" "An IPv4 source that the port does not have";
    15 DhcpClient "dhcp-client" "From 0.0.0.0 to broadcast, but no DHCP request of this port";
    16 Ipv4Martian "ipv4-martian" "An IPv4 source or destination that no packet on a wire may have";
    17 Ipv4SourceRoute "ipv4-source-route" "The loose or strict source route option";
    18 Ipv4Fragment "ipv4-fragment"
       "A first fragment without its whole transport header, or a TCP fragment at offset 1";
    19 DhcpServer "dhcp-server" "A DHCP server's message from a port that is no DHCP server";
    20 Encapsulation "encapsulation"
       "A packet in a packet, where the port denies encapsulation";
    21 Ipv6Malformed "ipv6-malformed" "IPv6 with a wrong version or length, or a truncated header";
    22 Ipv6Chain "ipv6-chain"
       "An extension header chain: too long, out of order, experimental or of routing type 0";
    23 Ipv6Fragment "ipv6-fragment" "A first fragment without its whole header chain (RFC 7112)";
    24 Ipv6Source "ipv6-source" "An IPv6 source that the port does not have";
    25 Dhcpv6Server "dhcpv6-server" "A DHCPv6 server's message from a port that is no DHCP server";
    26 NdMalformed "nd-malformed"
       "Neighbour Discovery that is fragmented, was routed, or is malformed";
    27 RouterAdvertisement "router-advertisement"
       "A Router Advertisement that is not the gateway's";
    28 Redirect "redirect" "An ICMPv6 Redirect";
    29 NdSpoof "nd-spoof"
       "Neighbour Discovery that claims an address or MAC that the port does not have";
    30 MldQuery "mld-query" "An MLD query that is not the gateway's";
    31 IngressSource "ingress-source" "From outside, with a source that belongs inside";
    32 RouteNone "route-none" "No route to the destination";
    33 Underlay "underlay" "A destination in the underlay's own network";
    34 Multicast "multicast" "To a group or broadcast that the tenant has not enabled";
    35 LinkLocalIp "link-local-ip" "To another station's link-local address";
    36 Ttl "ttl" "TTL or hop limit expired";
    37 RateBroadcast "rate-broadcast" "Over the port's limit of broadcast and multicast frames";
    38 RateArpNd "rate-arp-nd" "Over the port's limit of ARP and Neighbour Discovery";
    39 RateDhcp "rate-dhcp" "Over the port's limit of DHCP";
    40 RatePps "rate-pps" "Over the port's limit of frames";
    41 RateBps "rate-bps" "Over the port's limit of bits";
    42 NdUnknown "nd-unknown" "A solicitation for an address that this tenant cannot reach";
    43 Absorbed "absorbed" "Valid and consumed by the gateway, which sends no answer";
    44 DstMac "dst-mac" "Not for the MAC of this side, or an IP unicast in an Ethernet broadcast";
    45 GatewayService "gateway-service"
       "To the gateway's own address, for a service it does not offer";
    46 Mtu "mtu" "Larger than the next link carries";
    47 NeighbourUnresolved "neighbour-unresolved" "The MAC of the next hop is not known";
    48 DhcpNoServer "dhcp-no-server" "A DHCP message, but the tenant has no receiver for it";
    49 NoTransit "no-transit" "From outside to outside";
    50 TxFull "tx-full" "The outgoing device accepted no more frames";
    51 NoBuffer "no-buffer" "No packet buffer was free for an answer";
    52 TunnelFragment "tunnel-fragment" "A fragment of a tunnel packet";
    53 TunnelPeer "tunnel-peer" "A tunnel packet from an address that is no peer's endpoint";
    54 TunnelTruncated "tunnel-truncated"
       "A tunnel packet that is truncated, or whose lengths contradict each other";
    55 TunnelChecksum "tunnel-checksum"
       "A tunnel packet with a wrong UDP checksum, or without one where it is required";
    56 TunnelMalformed "tunnel-malformed"
       "A tunnel header of another version or protocol, or without a VNI";
    57 TunnelVni "tunnel-vni" "A tunnel packet of another virtual network";
    58 TunnelOption "tunnel-option" "A critical Geneve option, none of which is supported";
    59 TunnelEcn "tunnel-ecn" "A congestion mark on a packet that cannot carry it (RFC 6040)";
    60 TunnelNested "tunnel-nested" "A tunnel packet inside the tunnel";
    61 TunnelOnly "tunnel-only"
       "Plain traffic from the underlay, where the tenant accepts only its tunnel";
    62 SecondAddress "second-address"
       "A header or option that has, or may have, another source or destination";
    63 DhcpIdentity "dhcp-identity"
       "A DHCP client's message in the name of another port, or of more clients than one port has";
    64 Dhcpv6Client "dhcpv6-client" "To a DHCPv6 server, but no DHCPv6 client's message";
    65 IgmpQuery "igmp-query" "An IGMP query: the tenant has no multicast router";
    66 EmbeddedAddress "embedded-address"
       "To an IPv6 address that stands for an IPv4 address of the inside or the underlay";
    67 IpsecPlain "ipsec-plain" "A plain tunnel packet from a peer that requires IPsec";
    68 IpsecNoSa "ipsec-no-sa"
       "To a peer that requires IPsec, without a security association that may seal it";
    69 EspSpi "esp-spi" "ESP with an SPI of no security association";
    70 EspPeer "esp-peer" "ESP from an address that is not that of the security association's peer";
    71 EspFragment "esp-fragment" "A fragment of an ESP or IKE packet";
    72 EspMalformed "esp-malformed"
       "ESP that is cut off or not aligned, behind options, or with wrong padding";
    73 EspReplay "esp-replay" "ESP whose sequence number came before, or is too old";
    74 EspIcv "esp-icv" "ESP whose integrity check value is wrong";
    75 EspDummy "esp-dummy" "A dummy packet of ESP, which carries nothing (RFC 4303)";
    76 EspSelector "esp-selector" "Inside ESP, a packet that the security association is not for";
    77 EspExpired "esp-expired" "ESP of a security association that has reached a hard limit";
    78 IkePeer "ike-peer" "IKE from an address that is no endpoint of a peer that requires IPsec";
    79 IkeRate "ike-rate" "IKE over the limit of a peer, or with nobody there who takes it";
    80 IkeMalformed "ike-malformed" "IKE that is cut off, too long, or has a wrong UDP checksum";
    81 HolderUnknown "holder-unknown"
       "To an address in `shared` that none of its ports has announced yet";
    82 NdLimit "nd-limit" "Duplicate Address Detection of more addresses than a port may claim";
    83 RateMulticast "rate-multicast"
       "Over a port's limit of group frames: multicast_pps of the sender, or of every receiver";
    84 NoMember "no-member" "To a multicast group of which no other port or peer is a member";
    85 MetadataRate "metadata-rate"
       "To the metadata of a port, over its limit or faster than it is served";
    86 DnsRate "dns-rate"
       "A query for a resolver, over the port's limit or with too many of it unanswered";
    87 DnsMalformed "dns-malformed"
       "From a resolver's port, but no whole answer to one question";
    88 DnsUnsolicited "dns-unsolicited"
       "A DNS answer to no query that is unanswered: its resolver, port, ID or question is another";
    89 FragmentRate "fragment-rate"
       "Larger than the next link carries, and over the port's limit of packets to be fragmented";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The stable number, from 1.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The place in a table of [`Self::COUNT`] counters.
    pub const fn index(self) -> usize {
        self as usize - 1
    }

    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_numbers_are_dense_and_names_unique() {
        let mut names = std::collections::HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(names.insert(reason.name()), "{reason} is there twice");
            assert_eq!(DropReason::from_name(reason.name()), Some(*reason));
        }
    }
}
