//! IPv6 addresses that ports have claimed: first come, first served (RFC 6620).

use packet::addr;

use crate::bucket::SECOND_NS;

/// Link-local addresses that a port may have claimed at one time.
const LINK_LOCAL: usize = 4;
/// Others.
const GLOBAL: usize = 8;
/// All together.
pub(super) const MAX: usize = LINK_LOCAL + GLOBAL;
/// For so long at least, a claim that is heard of does not make way for another of its port.
const KEPT_NS: u64 = 60 * SECOND_NS;
/// A station that is not heard of for so long is asked whether it still has the address.
const IDLE_NS: u64 = 300 * SECOND_NS;
/// So often; from one question to the next, and from the last one to the end of the claim, is
/// [`SECOND_NS`].
const QUESTIONS: u8 = 3;

/// From the first word of Duplicate Address Detection until the station uses its address: a second
/// (RFC 4862, 5.1) and some time of its own.
pub(super) const DETECTION_NS: u64 = SECOND_NS + SECOND_NS / 10;

/// A claimed address.
#[derive(Debug, Clone, Copy)]
struct Binding {
    address: u128,
    /// When the station that has it was last heard of.
    heard_ns: u64,
    /// Questions since then.
    asked: u8,
    /// When the next question is due, or the end.
    due_ns: u64,
    /// Whether it was restored, and no generation has been installed since.
    restored: bool,
}

impl Binding {
    fn new(address: u128, now_ns: u64) -> Self {
        Self {
            address,
            heard_ns: now_ns,
            asked: 0,
            due_ns: now_ns.saturating_add(IDLE_NS),
            restored: false,
        }
    }
}

/// Claims of one kind; those that are there come first.
type Slots = [Option<Binding>];

/// The place of one more: a free one, or that of the longest silence.
fn place(slots: &Slots, now_ns: u64) -> Option<usize> {
    let heard_ns = |(_, slot): &(usize, &Option<Binding>)| slot.map(|it| it.heard_ns);
    let (place, slot) = slots.iter().enumerate().min_by_key(heard_ns)?;
    let is_silent = |it: Binding| now_ns >= it.heard_ns.saturating_add(KEPT_NS);
    slot.is_none_or(is_silent).then_some(place)
}

fn retain(slots: &mut Slots, stays: impl Fn(&Binding) -> bool) {
    let mut kept = 0;
    for at in 0..slots.len() {
        let slot = slots[at].take().filter(&stays);
        if slot.is_some() {
            slots[kept] = slot;
            kept += 1;
        }
    }
}

/// The addresses that one port has claimed.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    link_local: [Option<Binding>; LINK_LOCAL],
    global: [Option<Binding>; GLOBAL],
    /// Differs from what it was if other addresses are claimed.
    pub(crate) version: u64,
    /// When a Router Advertisement is due because the station detects duplicates.
    pub(crate) advertise_at_ns: Option<u64>,
}

impl Bindings {
    fn like(&self, address: u128) -> &Slots {
        if addr::is_link_local6(address) {
            &self.link_local
        } else {
            &self.global
        }
    }

    fn like_mut(&mut self, address: u128) -> &mut Slots {
        if addr::is_link_local6(address) {
            &mut self.link_local
        } else {
            &mut self.global
        }
    }

    fn get_mut(&mut self, address: u128) -> Option<&mut Binding> {
        let mut all = self.like_mut(address).iter_mut().map_while(Option::as_mut);
        all.find(|it| it.address == address)
    }

    /// Whether there are none.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.link_local[0].is_none() && self.global[0].is_none()
    }

    /// Whether the address is among them.
    #[inline]
    pub(crate) fn has(&self, address: u128) -> bool {
        let mut all = self.like(address).iter().map_while(Option::as_ref);
        all.any(|it| it.address == address)
    }

    /// Whether the address may be claimed beside them.
    pub(crate) fn has_room(&self, address: u128, now_ns: u64) -> bool {
        place(self.like(address), now_ns).is_some()
    }

    /// The station that has the address has sent something.
    #[inline]
    pub(crate) fn heard(&mut self, address: u128, now_ns: u64) {
        if let Some(binding) = self.get_mut(address) {
            *binding = Binding::new(address, now_ns);
        }
    }

    /// Claims the address, or confirms that it is claimed. False if there is no room.
    pub(crate) fn claim(&mut self, address: u128, now_ns: u64) -> bool {
        let new = Binding::new(address, now_ns);
        if let Some(binding) = self.get_mut(address) {
            *binding = new;
            return true;
        }
        self.add(new, now_ns)
    }

    fn add(&mut self, new: Binding, now_ns: u64) -> bool {
        let slots = self.like_mut(new.address);
        let Some(place) = place(slots, now_ns) else {
            return false;
        };
        slots[place] = Some(new);
        self.version += 1;
        true
    }

    /// The addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u128> {
        let all = self.link_local.iter().chain(&self.global);
        all.flatten().map(|it| it.address)
    }

    /// Claims an address that the port had before a restart. False if there is no room.
    pub(super) fn restore(&mut self, address: u128, now_ns: u64) -> bool {
        let restored = Binding {
            restored: true,
            ..Binding::new(address, now_ns)
        };
        self.has(address) || self.add(restored, now_ns)
    }

    /// Adds what was restored to what was claimed meanwhile, as far as there is room.
    pub(super) fn add_restored(&mut self, restored: &Self) {
        let all = restored.link_local.iter().chain(&restored.global);
        for binding in all.flatten().filter(|it| it.restored) {
            match self.get_mut(binding.address) {
                Some(known) => known.restored = true,
                None => {
                    self.add(*binding, binding.heard_ns);
                }
            }
        }
    }

    /// The next address that was restored; from then on it is claimed like any other.
    pub(super) fn take_restored(&mut self) -> Option<u128> {
        let mut all = self.link_local.iter_mut().chain(&mut self.global).flatten();
        let next = all.find(|it| it.restored)?;
        next.restored = false;
        Some(next.address)
    }

    /// Another port had the address first.
    pub(super) fn disown(&mut self, address: u128) {
        if self.has(address) {
            self.retain(|it| it.address != address);
        }
    }

    /// Another port wants the address: the station that has it is asked at once.
    pub(crate) fn contest(&mut self, address: u128, now_ns: u64) {
        if let Some(binding) = self.get_mut(address).filter(|it| it.asked == 0) {
            binding.due_ns = now_ns;
        }
    }

    /// Ends the claims that were not confirmed, and gives the next address to ask for, if one is
    /// due.
    pub(crate) fn next_question(&mut self, now_ns: u64) -> Option<u128> {
        self.retain(|it| it.asked < QUESTIONS || now_ns < it.due_ns);
        let all = self.link_local.iter_mut().chain(&mut self.global);
        let due = all.flatten().find(|it| now_ns >= it.due_ns)?;
        due.asked += 1;
        due.due_ns = now_ns.saturating_add(SECOND_NS);
        Some(due.address)
    }

    /// Keeps the addresses that may still be claimed.
    pub(crate) fn keep_if(&mut self, may_be: impl Fn(u128) -> bool) {
        self.retain(|it| may_be(it.address));
    }

    fn retain(&mut self, stays: impl Fn(&Binding) -> bool) {
        let before = self.addresses().count();
        retain(&mut self.link_local, &stays);
        retain(&mut self.global, &stays);
        self.version += u64::from(self.addresses().count() != before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u128 = 0xfe80 << 112;

    #[test]
    fn fifth_claim_takes_the_place_of_the_longest_silence() {
        let mut bindings = Bindings::default();
        for number in 1..=4 {
            assert!(bindings.claim(FIRST | number, number as u64));
        }
        bindings.heard(FIRST | 1, 9);
        assert!(!bindings.claim(FIRST | 5, KEPT_NS + 1));
        assert!(bindings.claim(FIRST | 5, KEPT_NS + 2));
        let has = |number: u128| bindings.has(FIRST | number);
        assert!([1, 3, 4, 5].into_iter().all(has) && !has(2));
    }

    #[test]
    fn silent_station_is_asked_three_times() {
        let mut bindings = Bindings::default();
        assert!(bindings.claim(FIRST | 1, 0));
        assert_eq!(bindings.next_question(IDLE_NS - 1), None);
        for second in 0..3 {
            let now_ns = IDLE_NS + second * SECOND_NS;
            assert_eq!(bindings.next_question(now_ns), Some(FIRST | 1));
            assert_eq!(bindings.next_question(now_ns + SECOND_NS - 1), None);
        }
        assert!(bindings.has(FIRST | 1));
        assert_eq!(bindings.next_question(IDLE_NS + 3 * SECOND_NS), None);
        assert!(bindings.is_empty());
    }

    #[test]
    fn contested_address_stays_if_its_station_answers() {
        let mut bindings = Bindings::default();
        assert!(bindings.claim(FIRST | 1, 0) && bindings.claim(FIRST | 2, 0));
        bindings.contest(FIRST | 2, SECOND_NS);
        assert_eq!(bindings.next_question(SECOND_NS), Some(FIRST | 2));
        bindings.contest(FIRST | 2, SECOND_NS);
        assert_eq!(bindings.next_question(SECOND_NS), None);
        bindings.heard(FIRST | 2, 2 * SECOND_NS);
        assert_eq!(bindings.next_question(9 * SECOND_NS), None);
        assert!(bindings.has(FIRST | 1) && bindings.has(FIRST | 2));
    }
}
