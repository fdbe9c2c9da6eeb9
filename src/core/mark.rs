//! Marks: what a firewall would have written on a packet for a service by mark, given here by rules of the balancer's own.
//!
//! Rules are matched as netfilter would set marks one after the other: the last one that matches counts. The cost of a
//! look-up grows with the number of different shapes of rules (which fields they name, with which prefix lengths), not with
//! the number of rules: within a shape addresses are hashed, and ports found by bisection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::types::{Af, IfaceId};

/// A rule. What is `None` or empty matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark it gives, not 0.
    pub mark: u32,
    /// Of which packets; `None` for either family where no prefix says.
    pub af: Option<Af>,
    /// IP protocol number.
    pub proto: Option<u8>,
    /// Network of the source and its prefix length.
    pub source: Option<(IpAddr, u8)>,
    /// Network of the destination and its prefix length.
    pub destination: Option<(IpAddr, u8)>,
    /// Source ports, inclusive ranges.
    pub source_ports: Vec<(u16, u16)>,
    /// Destination ports, inclusive ranges.
    pub destination_ports: Vec<(u16, u16)>,
    /// The interface it came in by.
    pub iface: Option<IfaceId>,
    /// Whether what gets the mark is the balancer's to deal with, whatever its address.
    pub divert: bool,
}

/// What of a packet the rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The interface it came in by.
    pub iface: IfaceId,
    /// IP protocol number.
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, 0 for none.
    pub sport: u16,
    /// Destination port, 0 for none.
    pub dport: u16,
}

/// Which fields the rules of one group name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    af: Af,
    proto: bool,
    iface: bool,
    src_len: u8,
    dst_len: u8,
}

/// What a rule of a shape asks of those fields; what the shape does not name is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fields {
    proto: u8,
    iface: u16,
    src: u128,
    dst: u128,
}

/// The rules with the same fields, by the destination ports that they take: each port range from its first port on, with
/// the numbers of its rules, the last one first.
#[derive(Clone, Debug, Default)]
struct Ranges {
    from: Vec<(u16, Vec<u32>)>,
}

/// Rules made ready for look-up.
#[derive(Clone, Debug, Default)]
pub struct MarkTable {
    rules: Vec<MarkRule>,
    shapes: Vec<(Shape, HashMap<Fields, Ranges>)>,
}

/// The leading `len` bits of an address, which counts from the top of its own family's width.
fn masked(addr: IpAddr, len: u8) -> u128 {
    let (bits, width) = match addr {
        IpAddr::V4(addr) => (u128::from(u32::from(addr)), 32),
        IpAddr::V6(addr) => (u128::from(addr), 128),
    };
    match width - u32::from(len).min(width) {
        128 => 0,
        low => bits >> low << low,
    }
}

impl MarkTable {
    /// Makes rules ready.
    pub fn new(rules: Vec<MarkRule>) -> MarkTable {
        let mut groups: HashMap<Shape, HashMap<Fields, Vec<u32>>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            for af in [Af::V4, Af::V6] {
                let Some((shape, fields)) = rule.place(af) else {
                    continue;
                };
                groups
                    .entry(shape)
                    .or_default()
                    .entry(fields)
                    .or_default()
                    .push(number as u32);
            }
        }
        let shapes = groups
            .into_iter()
            .map(|(shape, fields)| {
                let ranges = fields
                    .into_iter()
                    .map(|(fields, numbers)| (fields, Ranges::new(&rules, &numbers)));
                (shape, ranges.collect())
            })
            .collect();
        MarkTable { rules, shapes }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[MarkRule] {
        &self.rules
    }

    /// The last rule that matches.
    pub fn lookup(&self, probe: &Probe) -> Option<&MarkRule> {
        let af = Af::of(probe.dst);
        let mut best = None;
        for (shape, fields) in self.shapes.iter().filter(|(shape, _)| shape.af == af) {
            let fields_of = Fields {
                proto: if shape.proto { probe.proto } else { 0 },
                iface: if shape.iface { probe.iface.0 } else { 0 },
                src: masked(probe.src, shape.src_len),
                dst: masked(probe.dst, shape.dst_len),
            };
            let Some(ranges) = fields.get(&fields_of) else {
                continue;
            };
            let found = ranges.at(probe.dport).iter().find(|number| {
                self.rules
                    .get(**number as usize)
                    .is_some_and(|rule| within(&rule.source_ports, probe.sport))
            });
            best = best.max(found.copied());
        }
        self.rules.get(best? as usize)
    }
}

fn within(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.is_empty()
        || ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&port))
}

impl MarkRule {
    /// Where the rule goes for packets of a family; `None` where it is not for them.
    fn place(&self, af: Af) -> Option<(Shape, Fields)> {
        let families = [
            self.af,
            self.source.map(|(a, _)| Af::of(a)),
            self.destination.map(|(a, _)| Af::of(a)),
        ];
        if families.into_iter().flatten().any(|family| family != af) {
            return None;
        }
        let any = match af {
            Af::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Af::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (src, src_len) = self.source.unwrap_or((any, 0));
        let (dst, dst_len) = self.destination.unwrap_or((any, 0));
        let shape = Shape {
            af,
            proto: self.proto.is_some(),
            iface: self.iface.is_some(),
            src_len,
            dst_len,
        };
        let fields = Fields {
            proto: self.proto.unwrap_or(0),
            iface: self.iface.map_or(0, |iface| iface.0),
            src: masked(src, src_len),
            dst: masked(dst, dst_len),
        };
        Some((shape, fields))
    }
}

impl Ranges {
    fn new(rules: &[MarkRule], numbers: &[u32]) -> Ranges {
        let ports = |number: u32| match rules[number as usize].destination_ports.as_slice() {
            [] => &[(0, u16::MAX)][..],
            ranges => ranges,
        };
        let mut starts = vec![0u16];
        for number in numbers {
            for (low, high) in ports(*number) {
                starts.push(*low);
                starts.extend(high.checked_add(1));
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let from = starts
            .into_iter()
            .map(|start| {
                let takes = |number: &&u32| {
                    ports(**number)
                        .iter()
                        .any(|(low, high)| (*low..=*high).contains(&start))
                };
                (start, numbers.iter().rev().filter(takes).copied().collect())
            })
            .collect();
        Ranges { from }
    }

    fn at(&self, port: u16) -> &[u32] {
        let after = self.from.partition_point(|(start, _)| *start <= port);
        after.checked_sub(1).map_or(&[], |at| &self.from[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(mark: u32) -> MarkRule {
        MarkRule {
            mark,
            af: None,
            proto: None,
            source: None,
            destination: None,
            source_ports: vec![],
            destination_ports: vec![],
            iface: None,
            divert: false,
        }
    }

    /// The definition: every rule in turn, the last one that matches counts.
    fn slow(rules: &[MarkRule], probe: &Probe) -> Option<u32> {
        let inside = |net: &Option<(IpAddr, u8)>, addr: IpAddr| {
            net.is_none_or(|(a, len)| {
                Af::of(a) == Af::of(addr) && masked(a, len) == masked(addr, len)
            })
        };
        let mut matching = rules.iter().rev().filter(|r| {
            r.af.is_none_or(|af| af == Af::of(probe.dst))
                && r.proto.is_none_or(|p| p == probe.proto)
                && r.iface.is_none_or(|i| i == probe.iface)
                && inside(&r.source, probe.src)
                && inside(&r.destination, probe.dst)
                && within(&r.source_ports, probe.sport)
                && within(&r.destination_ports, probe.dport)
        });
        matching.next().map(|r| r.mark)
    }

    #[test]
    fn the_table_answers_as_the_rules_one_after_the_other() {
        let mut seed = 7u32;
        let mut draw = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % n
        };
        let addr = |n: u32| match n % 2 {
            0 => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n / 2)),
            _ => IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n / 2))),
        };
        for _ in 0..200 {
            let rules: Vec<MarkRule> = (0..draw(30))
                .map(|n| {
                    let mut r = rule(n + 1);
                    let (net, len) = (addr(draw(16)), [0, 24, 30, 32][draw(4) as usize]);
                    let len = if net.is_ipv6() { len + 96 } else { len };
                    match draw(4) {
                        0 => r.source = Some((net, len)),
                        1 | 2 => r.destination = Some((net, len)),
                        _ => {}
                    }
                    r.proto = [None, Some(6), Some(17)][draw(3) as usize];
                    r.iface = [None, Some(IfaceId(1))][draw(2) as usize];
                    for _ in 0..draw(3) {
                        let low = draw(20) as u16;
                        r.destination_ports.push((low, low + draw(5) as u16));
                    }
                    if draw(4) == 0 {
                        r.source_ports.push((3, 9));
                    }
                    r
                })
                .collect();
            let table = MarkTable::new(rules.clone());
            for _ in 0..100 {
                let family = draw(2);
                let probe = Probe {
                    iface: IfaceId(draw(2) as u16),
                    proto: [6, 17][draw(2) as usize],
                    src: addr(draw(8) * 2 + family),
                    dst: addr(draw(8) * 2 + family),
                    sport: draw(12) as u16,
                    dport: draw(26) as u16,
                };
                assert_eq!(
                    table.lookup(&probe).map(|r| r.mark),
                    slow(&rules, &probe),
                    "{probe:?} {rules:?}"
                );
            }
        }
    }

    #[test]
    fn a_thousand_rules_of_one_shape_are_one_look_up() {
        let rules = (0..1000).map(|n| MarkRule {
            destination: Some((IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 32)),
            proto: Some(6),
            destination_ports: vec![(80, 80)],
            ..rule(n + 1)
        });
        assert_eq!(MarkTable::new(rules.collect()).shapes.len(), 1);
    }
}
