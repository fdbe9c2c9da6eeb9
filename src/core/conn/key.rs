//! By what connections are found and made. Ports are in host byte order, addresses in network byte order.

use ripvs_arch::FlowHash;

use super::flags::Flags;
use super::record::Control;
use crate::family::Family;
use crate::spec::Forward;
use crate::types::{DestId, ServiceId, WorkerId};

/// A packet from client to service, or a persistence template (whose addresses stand for more than themselves: the client
/// is masked, and with `proto` 0 the first four bytes of `vaddr` are a firewall mark).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key<F: Family> {
    /// IP protocol number.
    pub proto: u8,
    /// The client's address.
    pub caddr: F::Addr,
    /// The client's port.
    pub cport: u16,
    /// The virtual address.
    pub vaddr: F::Addr,
    /// The virtual port.
    pub vport: u16,
}

/// A packet from server to client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OutKey<F: Family> {
    /// IP protocol number.
    pub proto: u8,
    /// Its source: the dest's address under NAT, otherwise the virtual address.
    pub saddr: F::Addr,
    /// Its source port.
    pub sport: u16,
    /// The client's address.
    pub caddr: F::Addr,
    /// The client's port.
    pub cport: u16,
}

impl<F: Family> Key<F> {
    /// The same as words.
    #[inline(always)]
    pub(crate) fn tuple(&self) -> Tuple<F> {
        let ports = (self.cport, self.vport);
        Tuple::new(self.caddr, self.vaddr, Ports::of(ports), self.proto)
    }
}

impl<F: Family> OutKey<F> {
    /// The same as words.
    #[inline(always)]
    pub(crate) fn tuple(&self) -> Tuple<F> {
        let ports = (self.cport, self.sport);
        Tuple::new(self.caddr, self.saddr, Ports::of(ports), self.proto)
    }
}

/// The ports of a client's and of a server's side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports(u32);

impl Ports {
    #[inline(always)]
    pub fn of((client, server): (u16, u16)) -> Ports {
        Ports(u32::from(client) | u32::from(server) << 16)
    }

    /// Those of a packet's header, that of its source first.
    #[inline(always)]
    pub fn of_header(bytes: [u8; 4], from_client: bool) -> Ports {
        let both = u32::from_be_bytes(bytes);
        Ports(if from_client {
            both.rotate_left(16)
        } else {
            both
        })
    }
}

/// Both sides of a packet as words: what connections are found and compared by. The client's side and the server's are the
/// same in both directions: what is not NAT has the same tuple in both, and one entry in the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuple<F: Family>(F::Tuple);

impl<F: Family> Tuple<F> {
    #[inline(always)]
    pub fn new(client: F::Addr, server: F::Addr, ports: Ports, proto: u8) -> Tuple<F> {
        let rest = u64::from(ports.0) | u64::from(proto) << 32;
        Tuple(F::tuple(client, server, rest))
    }

    #[inline(always)]
    pub(super) fn hash(&self, hash: &FlowHash) -> u64 {
        F::hash_tuple(hash, &self.0)
    }
}

impl<F: Family> PartialEq for Tuple<F> {
    #[inline(always)]
    fn eq(&self, other: &Tuple<F>) -> bool {
        F::same_tuple(&self.0, &other.0)
    }
}

/// What a connection is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConn<F: Family> {
    /// Client and service.
    pub key: Key<F>,
    /// The real server's address; zeros where it is of the other family (a tunnel's), where the dest tells it.
    pub daddr: F::Addr,
    /// The real server's port.
    pub dport: u16,
    /// Forwarding method and the rest.
    pub flags: Flags,
    /// The dest, if there is one.
    pub dest: Option<DestId>,
    /// The service, if it is known.
    pub service: Option<ServiceId>,
    /// State, by the protocol's numbers (see `state`).
    pub state: u8,
    /// Timeout in ticks.
    pub timeout: u32,
    /// What controls it. Not for templates.
    pub control: Option<Control>,
    /// The worker that counts it for schedulers and thresholds, where nothing controls it or it is a data connection.
    pub chooser: WorkerId,
    /// The hash of what a persistence engine goes by ([`super::ConnTable::hash_data`]), where flags have PE: such a
    /// template is found by this and not by its key.
    pub pe_hash: u64,
    /// What the datapath begins with in [`super::Record::hop_in`]. Not for templates.
    pub hop_in: u32,
}

impl<F: Family> NewConn<F> {
    /// A connection without state as the kernel makes them, to be changed as needed.
    pub fn new(key: Key<F>, daddr: F::Addr, dport: u16, flags: Flags) -> NewConn<F> {
        NewConn {
            key,
            daddr,
            dport,
            flags,
            dest: None,
            service: None,
            state: 0,
            timeout: super::INITIAL_TIMEOUT,
            control: None,
            chooser: WorkerId(0),
            pe_hash: 0,
            hop_in: 0,
        }
    }
}

/// The part of a connection that [`super::ConnTable::rekey`] may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints<F: Family> {
    /// The client's port. Setting it to another than 0 ends NO_CPORT.
    pub cport: u16,
    /// The virtual port.
    pub vport: u16,
    /// The real server's address.
    pub daddr: F::Addr,
    /// The real server's port.
    pub dport: u16,
    /// The forwarding method.
    pub forward: Forward,
    /// The dest.
    pub dest: Option<DestId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};

    #[test]
    fn every_part_of_the_tuple_counts_and_sides_are_told_apart() {
        fn check<F: Family>(a: F::Addr, b: F::Addr) {
            let hash = FlowHash::new([1, 2]);
            let key = Key::<F> {
                proto: 6,
                caddr: a,
                cport: 5,
                vaddr: b,
                vport: 10,
            };
            let others = [
                Key { proto: 17, ..key },
                Key { caddr: b, ..key },
                Key { cport: 6, ..key },
                Key { vaddr: a, ..key },
                Key { vport: 11, ..key },
                Key {
                    caddr: b,
                    vaddr: a,
                    ..key
                },
                Key {
                    cport: 10,
                    vport: 5,
                    ..key
                },
            ];
            for other in others {
                assert_ne!(
                    key.tuple().hash(&hash),
                    other.tuple().hash(&hash),
                    "{other:?}"
                );
                assert!(key.tuple() != other.tuple(), "{other:?}");
            }
            let out = OutKey::<F> {
                proto: 6,
                saddr: b,
                sport: 10,
                caddr: a,
                cport: 5,
            };
            assert_eq!(key.tuple().hash(&hash), out.tuple().hash(&hash));
            assert!(key.tuple() == out.tuple());
        }
        check::<V4>([1, 2, 3, 4], [6, 7, 8, 9]);
        check::<V6>([1; 16], [2; 16]);
    }
}
