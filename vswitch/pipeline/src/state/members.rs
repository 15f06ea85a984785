//! Which groups a port's stations, or those behind a peer's endpoint, listen to.

/// The groups of one port or endpoint: sorted, and never more than the room that it began with.
#[derive(Debug)]
pub(crate) struct Members {
    list: Vec<Member>,
    max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    group: u128,
    until_ns: u64,
    /// The VID of the tag with which it was reported.
    vid: Option<u16>,
    /// How often it is still to be asked whether anybody listens, and when.
    asks: u8,
    ask_ns: u64,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It is a new member.
    New,
    /// It was one.
    Known,
    /// There was no room.
    Full,
}

impl Members {
    pub(crate) fn with_room(max: usize) -> Self {
        Self {
            list: Vec::with_capacity(max),
            max,
        }
    }

    fn place(&self, group: u128) -> Result<usize, usize> {
        self.list
            .binary_search_by_key(&group, |member| member.group)
    }

    /// Whether there is a listener, and with which tag it reported.
    pub(crate) fn find(&self, group: u128, now_ns: u64) -> Option<Option<u16>> {
        let member = &self.list[self.place(group).ok()?];
        (now_ns < member.until_ns).then_some(member.vid)
    }

    /// Takes note of a listener until `until_ns`.
    pub(crate) fn join(
        &mut self,
        group: u128,
        vid: Option<u16>,
        (now_ns, until_ns): (u64, u64),
    ) -> Joined {
        let member = Member {
            group,
            until_ns,
            vid,
            asks: 0,
            ask_ns: 0,
        };
        if let Ok(place) = self.place(group) {
            let known = std::mem::replace(&mut self.list[place], member);
            return match now_ns < known.until_ns {
                true => Joined::Known,
                false => Joined::New,
            };
        }
        if self.list.len() == self.max {
            self.expire(now_ns);
        }
        match self.place(group) {
            Err(place) if self.list.len() < self.max => {
                self.list.insert(place, member);
                Joined::New
            }
            _ => Joined::Full,
        }
    }

    /// Ends a membership at `until_ns`, if it would last longer. Returns whether it would.
    pub(crate) fn shorten(&mut self, group: u128, until_ns: u64) -> bool {
        let Ok(place) = self.place(group) else {
            return false;
        };
        let member = &mut self.list[place];
        let lasts = until_ns < member.until_ns;
        member.until_ns = member.until_ns.min(until_ns);
        lasts
    }

    /// Asks that often whether anybody still listens, from `now_ns` on.
    pub(crate) fn ask(&mut self, group: u128, times: u8, now_ns: u64) {
        if let Ok(place) = self.place(group) {
            let member = &mut self.list[place];
            (member.asks, member.ask_ns) = (times, now_ns);
        }
    }

    /// Calls `each` with the group and the tag of every question that is due; the next is due
    /// `after_ns` later. Returns whether more are to come.
    pub(crate) fn due(
        &mut self,
        (now_ns, after_ns): (u64, u64),
        mut each: impl FnMut(u128, Option<u16>),
    ) -> bool {
        let mut more = false;
        for member in self.list.iter_mut().filter(|member| member.asks > 0) {
            if now_ns >= member.ask_ns {
                member.asks -= 1;
                member.ask_ns = now_ns.saturating_add(after_ns);
                each(member.group, member.vid);
            }
            more |= member.asks > 0;
        }
        more
    }

    /// Forgets those that have ended; returns whether there were any.
    pub(crate) fn expire(&mut self, now_ns: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|member| now_ns < member.until_ns);
        self.list.len() < before
    }

    /// Forgets groups that are not allowed any more, and tags that are not.
    pub(crate) fn retain(&mut self, mut allows: impl FnMut(u128) -> bool, trunk: &[u16]) {
        self.list.retain(|member| {
            let has_tag = member.vid.is_none_or(|vid| trunk.contains(&vid));
            has_tag && allows(member.group)
        });
    }

    /// The groups that have not ended, each with the tag of its report.
    pub(crate) fn groups(&self, now_ns: u64) -> impl Iterator<Item = (u128, Option<u16>)> {
        let all = self.list.iter();
        let fresh = all.filter(move |member| now_ns < member.until_ns);
        fresh.map(|member| (member.group, member.vid))
    }

    /// How many there are, those that have ended since the last expiry included.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_that_of_ended_members_used_again() {
        let mut members = Members::with_room(2);
        assert_eq!(members.join(7, None, (0, 10)), Joined::New);
        assert_eq!(members.join(5, Some(9), (0, 20)), Joined::New);
        assert_eq!(members.join(7, None, (1, 11)), Joined::Known);
        assert_eq!(members.join(6, None, (1, 11)), Joined::Full);
        assert_eq!(members.find(5, 19), Some(Some(9)));
        assert_eq!(members.find(7, 11), None);
        assert_eq!(members.join(6, None, (11, 30)), Joined::New);
        assert_eq!(members.find(7, 0), None, "its room was used");
        assert!(members.shorten(6, 15));
        assert!(!members.shorten(6, 16));
        assert!(!members.shorten(8, 0));
        assert_eq!(
            members.groups(14).map(|it| it.0).collect::<Vec<_>>(),
            [5, 6]
        );
        assert!(members.expire(15));
        assert!(!members.expire(15));
        assert_eq!(members.len(), 1);
    }
}
