//! Sets of UDP and TCP ports that a frame's ports are looked up in.

/// A set of ports, made at compile time. A look-up is a multiplication and one comparison.
#[derive(Debug, PartialEq)]
pub struct PortSet {
    /// With it every port of the set has a place of its own.
    factor: u16,
    /// By place: the port of the set that belongs there, or one that belongs elsewhere.
    ports: [u16; Self::PLACES],
}

impl PortSet {
    const PLACES: usize = 256;

    /// The set of these ports.
    ///
    /// # Panics
    /// If there is no factor for so many. The sets are constants, so that is an error of the build.
    pub const fn new(list: &[u16]) -> Self {
        // Odd, and so large that the ports 0 and 1, which fill the empty places, are apart.
        let mut factor = 257;
        loop {
            // 0 belongs to place 0.
            let mut ports = [0; Self::PLACES];
            ports[0] = 1;
            let mut taken = [false; Self::PLACES];
            let mut at = 0;
            while at < list.len() {
                let place = place(list[at], factor);
                if taken[place] && ports[place] != list[at] {
                    break;
                }
                ports[place] = list[at];
                taken[place] = true;
                at += 1;
            }
            if at == list.len() {
                return Self { factor, ports };
            }
            assert!(factor < u16::MAX - 1, "too many ports");
            factor += 2;
        }
    }

    /// Whether the set has the port.
    #[inline(always)]
    pub const fn has(&self, port: u16) -> bool {
        self.ports[place(port, self.factor)] == port
    }

    /// Whether the set has one of the ports.
    #[inline(always)]
    pub const fn has_any(&self, (from, to): (u16, u16)) -> bool {
        self.has(from) | self.has(to)
    }
}

#[inline(always)]
const fn place(port: u16, factor: u16) -> usize {
    (port.wrapping_mul(factor) >> 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_has_its_ports_and_no_others() {
        for list in [
            &[][..],
            &[0],
            &[1],
            &[67, 68, 546, 547, 67],
            &[65535, 0, 256],
        ] {
            let set = PortSet::new(list);
            for port in 0..=u16::MAX {
                assert_eq!(set.has(port), list.contains(&port), "{port} in {list:?}");
            }
        }
    }
}
