//! Sets of UDP and TCP ports that a frame's ports are looked up in.

const PLACES: usize = 256;

/// A set of ports, made at compile time. A look-up is a multiplication and one comparison. With the
/// factor, which [`factor_of`] finds, every port of the set has a place of its own.
#[derive(Debug, PartialEq)]
pub struct PortSet<const FACTOR: u32> {
    /// By place: the port of the set that belongs there, or one that belongs elsewhere.
    ports: [u16; PLACES],
}

/// A factor with which each of these ports, and so each of a part of them, has a place of its own.
///
/// # Panics
/// If there is none for so many. It is a constant, so that is an error of the build.
pub const fn factor_of(list: &[u16]) -> u32 {
    // Odd, and so large that the ports 0 and 1, which fill the empty places, are apart.
    let mut factor = 0x9e37_79b9;
    while places(list, factor).is_none() {
        assert!(factor < u32::MAX - 0x1_0000, "too many ports");
        factor += 0x1_0002;
    }
    factor
}

/// The ports by their places; `None` if two have the same.
const fn places(list: &[u16], factor: u32) -> Option<[u16; PLACES]> {
    // 0 belongs to place 0.
    let mut ports = [0; PLACES];
    ports[0] = 1;
    let mut taken = [false; PLACES];
    let mut at = 0;
    while at < list.len() {
        let place = place(list[at], factor);
        if taken[place] && ports[place] != list[at] {
            return None;
        }
        ports[place] = list[at];
        taken[place] = true;
        at += 1;
    }
    Some(ports)
}

#[inline(always)]
const fn place(port: u16, factor: u32) -> usize {
    ((port as u32).wrapping_mul(factor) >> 24) as usize
}

impl<const FACTOR: u32> PortSet<FACTOR> {
    /// The set of these ports.
    ///
    /// # Panics
    /// If the factor is not right for them.
    pub const fn new(list: &[u16]) -> Self {
        match places(list, FACTOR) {
            Some(ports) => Self { ports },
            None => panic!("the factor is another list's"),
        }
    }

    /// Whether the set has the port.
    #[inline(always)]
    pub const fn has(&self, port: u16) -> bool {
        self.ports[place(port, FACTOR)] == port
    }

    /// Whether the set has one of the ports.
    #[inline(always)]
    pub const fn has_any(&self, (from, to): (u16, u16)) -> bool {
        self.has(from) | self.has(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: [u16; 5] = [67, 68, 546, 547, 67];
    const ENDS: [u16; 4] = [65535, 0, 256, 1];

    fn check<const FACTOR: u32>(list: &[u16]) {
        let set = PortSet::<FACTOR>::new(list);
        for port in 0..=u16::MAX {
            assert_eq!(set.has(port), list.contains(&port), "{port} in {list:?}");
        }
    }

    #[test]
    fn set_has_its_ports_and_no_others() {
        check::<{ factor_of(&[]) }>(&[]);
        check::<{ factor_of(&MANY) }>(&MANY);
        check::<{ factor_of(&MANY) }>(&MANY[1..3]);
        check::<{ factor_of(&ENDS) }>(&ENDS);
        check::<{ factor_of(&ENDS) }>(&ENDS[1..2]);
        check::<{ factor_of(&ENDS) }>(&ENDS[3..]);
    }
}
