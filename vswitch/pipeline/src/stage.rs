//! The names of the stages, and the notes that explain a decision.

use std::fmt;

macro_rules! stages {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal;)*) => {
        /// The stages of a decision, in the order in which `order.rs` runs them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Stage {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Stage {
            /// Every stage, in that order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in traces.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

stages! {
    /// Parse and spoof filter: may this source send this frame from here?
    Filter "filter";
    /// Storm control: is the frame within the port's limits?
    Storm "storm";
    /// IPsec: ESP is opened before the tunnel, and sealed behind it; IKE is passed on.
    Ipsec "ipsec";
    /// The tunnel: out of it before the services, where the inner frame passes the filter; into it
    /// after the route, in place of the rewrite.
    Tunnel "tunnel";
    /// The gateway's own services: ARP, ND, echo, and DHCP's relay.
    Service "service";
    /// Where does the destination lead, and may the packet go there?
    Route "route";
    /// The headers of the next link.
    Rewrite "rewrite";
}

/// The receiver of a decision's notes; `()` ignores them and costs nothing.
pub(crate) trait Notes {
    fn note(&mut self, stage: Stage, what: fmt::Arguments<'_>);
}

impl Notes for () {
    #[inline(always)]
    fn note(&mut self, _: Stage, _: fmt::Arguments<'_>) {}
}

impl Notes for &mut dyn FnMut(Stage, fmt::Arguments<'_>) {
    fn note(&mut self, stage: Stage, what: fmt::Arguments<'_>) {
        self(stage, what);
    }
}
