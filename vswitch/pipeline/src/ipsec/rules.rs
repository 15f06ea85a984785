//! What the configuration allows of IPsec.

use std::net::IpAddr;

use esp::{Keys, Suite};
use tenant_config::{IpsecSuite, Protection, SwitchConfig, TunnelConfig};

use super::request::Request;

/// What a switch's configuration allows. Whoever negotiates keys cannot exceed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The tunnel's own endpoint.
    pub own: IpAddr,
    /// The tunnel's UDP port.
    pub port: u16,
    /// The suites that may be used.
    pub suites: Vec<Suite>,
    /// Whether extended sequence numbers may be used.
    pub esn: bool,
    /// The anti-replay window of every inbound SA, in packets.
    pub replay_window: u32,
    /// The endpoints of the peers that require IPsec. Others have no SA.
    pub endpoints: Vec<IpAddr>,
}

/// Why an SA is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The SPI is one of 0 to 255, which are reserved (RFC 4303, section 2.1).
    Spi(u32),
    /// The suite is not allowed.
    Suite(Suite),
    /// Extended sequence numbers are not allowed.
    Esn,
    /// Our own address is another.
    Own(IpAddr),
    /// No peer that requires IPsec is there.
    Peer(IpAddr),
    /// The selectors do not fit the tunnel: one port of the two is the tunnel's, or both are any.
    Selectors,
    /// The UDP ports of the encapsulation are not 4500 on our side.
    Encapsulation,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spi(spi) => write!(out, "SPI {spi:#010x} is reserved"),
            Self::Suite(suite) => write!(out, "the configuration does not allow {suite}"),
            Self::Esn => write!(
                out,
                "the configuration does not allow extended sequence numbers"
            ),
            Self::Own(own) => write!(out, "{own} is not the tunnel's own endpoint"),
            Self::Peer(peer) => write!(out, "no peer that requires IPsec is at {peer}"),
            Self::Selectors => write!(out, "the selectors are not those of the tunnel"),
            Self::Encapsulation => write!(out, "encapsulation takes UDP port 4500 on our side"),
        }
    }
}

impl std::error::Error for Refused {}

/// RFC 3948: the port of ESP and IKE behind address translation.
pub(crate) const NAT_T_PORT: u16 = 4500;
/// RFC 7296: the port of IKE.
pub(crate) const IKE_PORT: u16 = 500;

impl Rules {
    /// The rules of that configuration; `None` where no SA may be.
    pub fn of(config: &SwitchConfig) -> Option<Self> {
        Self::of_tunnel(config.tunnel.as_ref()?)
    }

    pub(crate) fn of_tunnel(tunnel: &TunnelConfig) -> Option<Self> {
        let ipsec = tunnel.ipsec.as_ref()?;
        let suites = ipsec.suites.iter().map(|suite| match suite {
            IpsecSuite::Aes128Gcm16 => Suite::Aes128Gcm16,
            IpsecSuite::Aes256Gcm16 => Suite::Aes256Gcm16,
            IpsecSuite::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
            IpsecSuite::Aes256Sha256 => Suite::Aes256CbcSha256,
        });
        let protected = tunnel.peers.iter();
        let protected = protected.filter(|peer| peer.ipsec == Protection::Required);
        let mut endpoints: Vec<IpAddr> = protected.map(|peer| peer.vtep).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        Some(Self {
            own: tunnel.vtep,
            port: tunnel.port,
            suites: suites.collect(),
            esn: ipsec.esn,
            replay_window: ipsec.replay_window,
            endpoints,
        })
    }

    /// Whether an SA may be made.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, request: &Request, keys: &Keys) -> Result<(), Refused> {
        self.allow(request, keys.suite())
    }

    pub(crate) fn allow(&self, request: &Request, suite: Suite) -> Result<(), Refused> {
        let selectors = (request.own_port, request.peer_port);
        let tunnel = |port: Option<u16>| port.is_none_or(|port| port == self.port);
        if request.spi < 256 {
            Err(Refused::Spi(request.spi))
        } else if !self.suites.contains(&suite) {
            Err(Refused::Suite(suite))
        } else if request.esn && !self.esn {
            Err(Refused::Esn)
        } else if request.own != self.own {
            Err(Refused::Own(request.own))
        } else if !self.endpoints.contains(&request.peer) {
            Err(Refused::Peer(request.peer))
        } else if !tunnel(selectors.0) || !tunnel(selectors.1) {
            Err(Refused::Selectors)
        } else if request
            .encapsulation
            .is_some_and(|ports| ports.own != NAT_T_PORT)
        {
            Err(Refused::Encapsulation)
        } else {
            Ok(())
        }
    }
}
