//! Addresses of ours that neighbours are to be told of, thrice each, in order of time. An address may be withdrawn at any
//! time, and thousands together, while thousands wait: that costs no look through those that wait.

use std::collections::LinkedList;
use std::net::IpAddr;

use crate::growing::GrowMap;
use crate::types::{IfaceId, Time};

/// How often an address is announced, a second apart: the second and third are for switches and hosts that missed one.
const TIMES: u8 = 3;

/// An address to be announced by gratuitous ARP or an unsolicited neighbour advertisement.
struct Announcement {
    due: Time,
    left: u8,
    iface: IfaceId,
    addr: IpAddr,
    /// When it was begun, in the order of what was begun and withdrawn.
    begun: u64,
}

/// An announcement whose time has come.
pub(super) enum Due {
    /// To be sent.
    Send(IfaceId, IpAddr),
    /// Withdrawn meanwhile.
    Void,
}

/// What is still to be announced.
#[derive(Default)]
pub(super) struct Announcements {
    /// Those that were not announced yet, and the others, both in order of time. Lists, because they grow without moving
    /// anything.
    new: LinkedList<Announcement>,
    again: LinkedList<Announcement>,
    /// What was begun for these addresses before is void.
    withdrawn: GrowMap<IpAddr, u64>,
    begun: u64,
}

impl Announcements {
    /// Announces an address on an interface from now on.
    pub fn begin(&mut self, now: Time, iface: IfaceId, addr: IpAddr) {
        self.begun += 1;
        self.new.push_back(Announcement {
            due: now,
            left: TIMES,
            iface,
            addr,
            begun: self.begun,
        });
    }

    /// Announces an address no more.
    pub fn withdraw(&mut self, addr: IpAddr) {
        if !self.is_empty() {
            self.withdrawn.insert(addr, self.begun);
        }
    }

    /// Announces nothing more on an interface.
    pub fn withdraw_all(&mut self, iface: IfaceId) {
        for queue in [&mut self.new, &mut self.again] {
            let all = std::mem::take(queue);
            *queue = all.into_iter().filter(|a| a.iface != iface).collect();
        }
    }

    /// The next that is due.
    pub fn next(&mut self, now: Time) -> Option<Due> {
        let queue = match self.new.is_empty() {
            false => &mut self.new,
            true => &mut self.again,
        };
        if queue.front()?.due > now {
            return None;
        }
        let mut next = queue.pop_front()?;
        let (iface, addr) = (next.iface, next.addr);
        let withdrawn = self.withdrawn.get(&addr);
        let void = withdrawn.is_some_and(|at| next.begun <= *at);
        next.left -= 1;
        if !void && next.left > 0 {
            next.due = Time(now.0 + Time::from_secs(1).0);
            self.again.push_back(next);
        }
        if self.is_empty() {
            self.withdrawn.clear();
        }
        Some(match void {
            true => Due::Void,
            false => Due::Send(iface, addr),
        })
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.again.is_empty()
    }

    /// Forgets all.
    #[cfg(test)]
    pub fn clear(&mut self) {
        *self = Announcements::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// What is sent up to then.
    fn sent(all: &mut Announcements, seconds: u64) -> Vec<(u16, IpAddr)> {
        let mut sent = Vec::new();
        while let Some(next) = all.next(Time::from_secs(seconds)) {
            if let Due::Send(iface, addr) = next {
                sent.push((iface.0, addr));
            }
        }
        sent
    }

    #[test]
    fn an_address_is_announced_three_times_a_second_apart() {
        let mut all = Announcements::default();
        all.begin(Time(0), IfaceId(1), A);
        let counts: Vec<usize> = (0..5).map(|second| sent(&mut all, second).len()).collect();
        assert_eq!(counts, [1, 1, 1, 0, 0]);
    }

    #[test]
    fn what_is_withdrawn_is_not_announced_and_may_be_begun_anew() {
        let mut all = Announcements::default();
        all.begin(Time(0), IfaceId(1), A);
        all.begin(Time(0), IfaceId(1), B);
        assert_eq!(sent(&mut all, 0), [(1, A), (1, B)]);
        all.withdraw(A);
        assert_eq!(sent(&mut all, 1), [(1, B)]);
        all.begin(Time::from_secs(1), IfaceId(2), A);
        assert_eq!(sent(&mut all, 1), [(2, A)]);
        assert_eq!(sent(&mut all, 2), [(1, B), (2, A)]);
        assert_eq!(sent(&mut all, 3), [(2, A)]);
        assert!(all.is_empty() && all.withdrawn.is_empty());
    }

    #[test]
    fn an_interface_that_goes_takes_its_own_with_it() {
        let mut all = Announcements::default();
        all.begin(Time(0), IfaceId(1), A);
        all.begin(Time(0), IfaceId(2), A);
        all.withdraw_all(IfaceId(1));
        assert_eq!(sent(&mut all, 0), [(2, A)]);
    }
}
