//! What is kept of one connection: one cache line for IPv4, two for IPv6. What must agree with the index (addresses, ports,
//! some flags) or the wheel (expiry) can be read here and is changed through the table only.

use ripvs_arch::{prefetch_read, zeroable};

use super::flags::Flags;
use super::wheel::{Links, Timed};
use super::{ConnId, Endpoints, Key, NewConn, Ports, Tuple};
use crate::family::{Family, V4, V6};
use crate::spec::Forward;
use crate::types::{DestId, ServiceId, Tick, WorkerId};

/// The connection that controls another: a persistence template its service's connections, an FTP control connection its
/// data connections. It may be in another worker's table; the family is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Whose table.
    pub worker: WorkerId,
    /// The place there.
    pub id: ConnId,
}

/// Stands for "none" where an id is kept as a number.
const NONE: u32 = u32::MAX;

zeroable! {
    /// A connection, or a persistence template.
    #[derive(Clone, Copy, Debug)]
    #[repr(C, align(64))]
    pub struct Record<F: Family> {
        caddr: F::Addr,
        vaddr: F::Addr,
        daddr: F::Addr,
        cport: u16,
        vport: u16,
        dport: u16,
        proto: u8,
        /// State by the protocol's numbers; of a template: bits of `state::template`.
        pub state: u8,
        flags: Flags,
        generation: u16,
        dest: u32,
        service: u32,
        expires: u32,
        /// By how many ticks a packet puts off the end. Takes effect with the next [`super::ConnTable::touch`].
        pub timeout: u32,
        pub(super) links: Links,
        keeper: u16,
        /// Connections controlled, by a connection that has an application helper; of an FTP data connection, who counts
        /// it; of any other that is no template, the first packets from its client.
        n_control: u16,
        /// The controlling record's place, or, in a template, which nothing controls, the number of connections controlled.
        control: u32,
        /// The datapath's to use as it likes, 0 at first unless it said otherwise; no use in a template, which keeps its
        /// hash there.
        pub hop_in: u32,
        /// As `hop_in`.
        pub hop_out: u32,
    }
}

const _: () = assert!(size_of::<Record<V4>>() == 64);
const _: () = assert!(size_of::<Record<V6>>() == 128);

impl<F: Family> Record<F> {
    /// A record of `new`, in the place that was last used by a connection of the generation before this.
    #[inline(always)]
    pub(super) fn of(new: &NewConn<F>, generation: u16, expires: Tick) -> Record<F> {
        let template = new.flags.has(Flags::TEMPLATE);
        let control = if template { None } else { new.control };
        Record {
            caddr: new.key.caddr,
            vaddr: new.key.vaddr,
            daddr: new.daddr,
            cport: new.key.cport,
            vport: new.key.vport,
            dport: new.dport,
            proto: new.key.proto,
            state: new.state,
            flags: new.flags.with(Flags::LIVE),
            generation,
            dest: new.dest.map_or(NONE, |id| id.0),
            service: new.service.map_or(NONE, |id| id.0),
            expires: expires.0,
            timeout: new.timeout,
            links: Links::default(),
            keeper: control.map_or(new.chooser.0, |c| c.worker.0),
            n_control: if new.flags.has(Flags::DATA) {
                new.chooser.0
            } else {
                0
            },
            control: if template {
                0
            } else {
                control.map_or(NONE, |c| c.id.0)
            },
            hop_in: if template {
                (new.pe_hash >> 32) as u32
            } else {
                new.hop_in
            },
            hop_out: if template { new.pe_hash as u32 } else { 0 },
        }
    }

    /// The client's address.
    #[inline]
    pub fn caddr(&self) -> F::Addr {
        self.caddr
    }

    /// The client's port, host byte order as all ports; 0 in most templates, and while NO_CPORT is set.
    #[inline]
    pub fn cport(&self) -> u16 {
        self.cport
    }

    /// The virtual address.
    #[inline]
    pub fn vaddr(&self) -> F::Addr {
        self.vaddr
    }

    /// The virtual port.
    #[inline]
    pub fn vport(&self) -> u16 {
        self.vport
    }

    /// The real server's address; zeros where it is of the other family, where the dest tells it.
    #[inline]
    pub fn daddr(&self) -> F::Addr {
        self.daddr
    }

    /// The real server's port.
    #[inline]
    pub fn dport(&self) -> u16 {
        self.dport
    }

    /// IP protocol number; 0 in the template of a mark.
    pub fn proto(&self) -> u8 {
        self.proto
    }

    /// All flags.
    #[inline]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Whether all of these flags are set.
    #[inline]
    pub fn has(&self, flags: Flags) -> bool {
        self.flags.has(flags)
    }

    /// Sets flags, as far as they are [`Flags::CHANGEABLE`].
    pub fn set(&mut self, flags: Flags) {
        self.flags.0 |= flags.0 & Flags::CHANGEABLE.0;
    }

    /// Clears flags, as far as they are [`Flags::CHANGEABLE`].
    pub fn clear(&mut self, flags: Flags) {
        self.flags.0 &= !(flags.0 & Flags::CHANGEABLE.0);
    }

    /// The forwarding method.
    #[inline]
    pub fn forward(&self) -> Forward {
        self.flags.forward()
    }

    /// Which of the connections that had this place one after the other it is. Wraps.
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// The dest.
    #[inline]
    pub fn dest(&self) -> Option<DestId> {
        (self.dest != NONE).then_some(DestId(self.dest))
    }

    /// The number of its dest; without one, a number that no dest has.
    #[inline(always)]
    pub(crate) fn dest_number(&self) -> DestId {
        DestId(self.dest)
    }

    /// Binds the connection to a dest, or to none.
    pub fn set_dest(&mut self, dest: Option<DestId>) {
        self.dest = dest.map_or(NONE, |id| id.0);
    }

    /// The service.
    pub fn service(&self) -> Option<ServiceId> {
        (self.service != NONE).then_some(ServiceId(self.service))
    }

    /// Sets the service.
    pub fn set_service(&mut self, service: Option<ServiceId>) {
        self.service = service.map_or(NONE, |id| id.0);
    }

    /// When the connection ends unless something puts it off.
    #[inline]
    pub fn expires(&self) -> Tick {
        Tick(self.expires)
    }

    pub(super) fn set_expires(&mut self, expires: Tick) {
        self.expires = expires.0;
    }

    /// What controls this connection.
    #[inline]
    pub fn control(&self) -> Option<Control> {
        let some = self.control != NONE && !self.has(Flags::TEMPLATE);
        some.then_some(Control {
            worker: WorkerId(self.keeper),
            id: ConnId(self.control),
        })
    }

    /// Sets what controls this connection; of no effect in a template. Counting it there is the caller's business.
    pub fn set_control(&mut self, control: Option<Control>) {
        if !self.has(Flags::TEMPLATE) {
            if let Some(control) = control {
                self.keeper = control.worker.0;
            }
            self.control = control.map_or(NONE, |c| c.id.0);
        }
    }

    /// The worker that counts it for schedulers and thresholds: that of the template that controls it, if one does.
    pub fn chooser(&self) -> WorkerId {
        WorkerId(if self.has(Flags::DATA) {
            self.n_control
        } else {
            self.keeper
        })
    }

    /// How many connections this one controls.
    pub fn n_control(&self) -> u32 {
        match self.flags {
            flags if flags.has(Flags::TEMPLATE) => self.control,
            flags if flags.has(Flags::APP) => u32::from(self.n_control),
            _ => 0,
        }
    }

    /// Counts one more connection that this one controls. Only templates control, and up to 65535 connections those that
    /// have an application helper: the answer is false, and it is not to be, for any other.
    #[must_use]
    pub fn add_controlled(&mut self) -> bool {
        if self.has(Flags::TEMPLATE) {
            self.control += 1;
            return true;
        }
        match self.n_control.checked_add(1) {
            Some(n) if self.has(Flags::APP) => {
                self.n_control = n;
                true
            }
            _ => false,
        }
    }

    /// Counts one connection less, and returns how many are left.
    pub fn drop_controlled(&mut self) -> u32 {
        if self.has(Flags::TEMPLATE) {
            self.control = self.control.saturating_sub(1);
        } else if self.has(Flags::APP) {
            self.n_control = self.n_control.saturating_sub(1);
        }
        self.n_control()
    }

    /// So many packets from a client are few.
    pub const FEW_PACKETS: u16 = 8;

    /// Counts a packet from the client, up to one more than a few.
    #[inline(always)]
    pub fn count_packet(&mut self) {
        if self.n_control <= Self::FEW_PACKETS {
            self.count_early_packet();
        }
    }

    #[cold]
    fn count_early_packet(&mut self) {
        if self.counts_packets() {
            self.n_control += 1;
        }
    }

    /// How many packets came from the client, if they are few. Not known of templates and of what belongs to FTP.
    pub fn packets(&self) -> Option<u16> {
        let few = self.counts_packets() && self.n_control <= Self::FEW_PACKETS;
        few.then_some(self.n_control)
    }

    fn counts_packets(&self) -> bool {
        let others = Flags::APP.with(Flags::DATA).with(Flags::TEMPLATE);
        self.flags.0 & others.0 == 0
    }

    /// Client and service.
    pub fn key(&self) -> Key<F> {
        Key {
            proto: self.proto,
            caddr: self.caddr,
            cport: self.cport,
            vaddr: self.vaddr,
            vport: self.vport,
        }
    }

    /// What a persistence engine's template is found by.
    pub(super) fn pe_hash(&self) -> u64 {
        u64::from(self.hop_in) << 32 | u64::from(self.hop_out)
    }

    pub(super) fn endpoints(&self) -> Endpoints<F> {
        Endpoints {
            cport: self.cport,
            vport: self.vport,
            daddr: self.daddr,
            dport: self.dport,
            forward: self.forward(),
            dest: self.dest(),
        }
    }

    pub(super) fn set_endpoints(&mut self, ends: &Endpoints<F>) {
        self.cport = ends.cport;
        self.vport = ends.vport;
        self.daddr = ends.daddr;
        self.dport = ends.dport;
        self.flags = self.flags.with_forward(ends.forward);
        self.set_dest(ends.dest);
        if !self.has(Flags::TEMPLATE) {
            // They may lead elsewhere now.
            self.hop_in = 0;
            self.hop_out = 0;
        }
        if ends.cport != 0 {
            self.flags = self.flags.without(Flags::NO_CPORT);
        }
    }

    /// Begins to fetch the record, of an IPv6 one the second line too.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_read(self);
        if size_of::<Self>() > 64 {
            prefetch_read(&self.hop_out);
        }
    }

    /// Makes the place free.
    pub(super) fn retire(&mut self) {
        self.flags = Flags::NONE;
    }

    /// Whether a connection is in this place.
    pub(super) fn is_live(&self) -> bool {
        self.has(Flags::LIVE)
    }

    /// Whether a client's packet is this connection's (`__ip_vs_conn_in_get`): a client's port 0 is found only where
    /// it stands for one that is not known yet.
    #[inline]
    pub(crate) fn is_in(&self, tuple: &Tuple<F>) -> bool {
        self.request() == *tuple
            && !self.has(Flags::TEMPLATE)
            && (self.cport != 0 || self.has(Flags::NO_CPORT))
    }

    /// Starts its time anew: it ends its `timeout` after `now`. False, and nothing done, where that is sooner than before:
    /// then the wheel must know ([`super::ConnTable::touch`]).
    #[inline(always)]
    pub(crate) fn renew(&mut self, now: Tick) -> bool {
        // Only a template's may be longer than what the wheel knows, which no packet renews.
        let expires = now.plus(self.timeout);
        let later = expires.reached(self.expires());
        if later {
            self.expires = expires.0;
        }
        later
    }

    /// Whether this is a live connection, found by its client's port, with none of these flags.
    #[inline(always)]
    pub(crate) fn is_usual(&self, unusual: Flags) -> bool {
        let unusual = unusual.with(Flags::TEMPLATE).with(Flags::NO_CPORT);
        self.flags.0 & (unusual.0 | Flags::LIVE.0) == Flags::LIVE.0 && self.cport != 0
    }

    /// What its client's packets are known by.
    #[inline(always)]
    pub(crate) fn request(&self) -> Tuple<F> {
        let ports = Ports::of((self.cport, self.vport));
        Tuple::new(self.caddr, self.vaddr, ports, self.proto)
    }

    /// What its server's packets are known by.
    #[inline(always)]
    pub(crate) fn answer(&self) -> Tuple<F> {
        let (saddr, sport) = match self.forward() {
            Forward::Masq => (self.daddr, self.dport),
            _ => (self.vaddr, self.vport),
        };
        let ports = Ports::of((self.cport, sport));
        Tuple::new(self.caddr, saddr, ports, self.proto)
    }

    /// Whether a server's packet is a reply of this connection's (`ip_vs_conn_out_get`).
    #[inline(always)]
    pub(crate) fn is_out(&self, tuple: &Tuple<F>) -> bool {
        self.answer() == *tuple && !self.has(Flags::TEMPLATE)
    }
}

impl<F: Family> Timed for Record<F> {
    fn expires(&self) -> Tick {
        Tick(self.expires)
    }

    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: Flags) -> Record<V4> {
        let key = Key {
            proto: 6,
            caddr: [198, 18, 0, 1],
            cport: 1000,
            vaddr: [192, 0, 2, 1],
            vport: 80,
        };
        let new = NewConn {
            control: Some(Control {
                worker: WorkerId(3),
                id: ConnId(7),
            }),
            chooser: WorkerId(9),
            pe_hash: 0x0123_4567_89ab_cdef,
            ..NewConn::new(key, [10, 0, 0, 1], 8080, flags)
        };
        Record::of(&new, 1, Tick(0))
    }

    #[test]
    fn a_template_counts_beyond_a_connections_limit_and_is_controlled_by_nothing() {
        let mut template = record(Flags::TEMPLATE);
        template.set_control(Some(Control {
            worker: WorkerId(1),
            id: ConnId(1),
        }));
        assert_eq!(template.control(), None);
        for _ in 0..70_000 {
            assert!(template.add_controlled());
        }
        assert_eq!(template.n_control(), 70_000);
        assert_eq!(template.drop_controlled(), 69_999);
        assert_eq!(template.pe_hash(), 0x0123_4567_89ab_cdef);
    }

    #[test]
    fn a_connection_is_controlled_and_controls_at_the_same_time() {
        let mut conn = record(Flags::of_forward(Forward::Masq).with(Flags::APP));
        for _ in 0..65_535 {
            assert!(conn.add_controlled());
        }
        assert!(!conn.add_controlled(), "the count is full");
        assert_eq!(conn.n_control(), 65_535);
        assert_eq!(
            conn.control(),
            Some(Control {
                worker: WorkerId(3),
                id: ConnId(7)
            })
        );
        conn.set_control(None);
        assert_eq!(conn.control(), None);
        assert_eq!(conn.drop_controlled(), 65_534);
        assert_eq!((conn.hop_in, conn.hop_out), (0, 0));
    }

    #[test]
    fn a_data_connection_is_controlled_at_one_worker_and_counted_at_another() {
        let mut data = record(Flags::of_forward(Forward::Masq).with(Flags::DATA));
        assert_eq!((data.chooser(), data.n_control()), (WorkerId(9), 0));
        assert_eq!(
            data.control().map(|control| control.worker),
            Some(WorkerId(3))
        );
        assert!(!data.add_controlled());
        assert_eq!(data.drop_controlled(), 0);
        assert_eq!(data.chooser(), WorkerId(9));
        let conn = record(Flags::of_forward(Forward::Masq));
        assert_eq!(conn.chooser(), WorkerId(3));
    }

    #[test]
    fn a_connection_s_first_packets_are_counted_where_it_controls_nothing() {
        let mut conn = record(Flags::of_forward(Forward::Route));
        assert_eq!(conn.packets(), Some(0));
        for n in 1..=8 {
            conn.count_packet();
            assert_eq!(conn.packets(), Some(n));
        }
        for _ in 0..100_000 {
            conn.count_packet();
        }
        assert_eq!((conn.packets(), conn.n_control()), (None, 0));
        assert!(!conn.add_controlled());
        for flags in [Flags::APP, Flags::DATA, Flags::TEMPLATE] {
            let mut other = record(flags);
            let chooser = other.chooser();
            other.count_packet();
            assert_eq!((other.packets(), other.n_control()), (None, 0));
            assert_eq!(other.chooser(), chooser);
        }
    }

    #[test]
    fn flags_that_the_index_depends_on_cannot_be_changed_in_passing() {
        let mut conn = record(Flags::of_forward(Forward::Route));
        conn.set(Flags(0xffff));
        assert_eq!(conn.forward(), Forward::Route);
        assert!(!conn.has(Flags::TEMPLATE) && !conn.has(Flags::NO_CPORT));
        assert!(conn.has(Flags::CHANGEABLE));
        conn.clear(Flags(0xffff));
        assert!(conn.is_live());
        assert_eq!(conn.forward(), Forward::Route);
    }

    #[test]
    fn forwarding_methods_have_the_kernels_numbers() {
        let methods = [
            Forward::Masq,
            Forward::Local,
            Forward::Tunnel,
            Forward::Route,
            Forward::Bypass,
        ];
        for (number, method) in methods.into_iter().enumerate() {
            let flags = Flags::of_forward(method);
            assert_eq!(flags.0 & 7, number as u16);
            assert_eq!(flags.forward(), method);
            assert!(flags.has(Flags::INACTIVE));
            assert_eq!(flags.has(Flags::NO_OUTPUT), method != Forward::Masq);
            assert_eq!(Flags(0xffff).with_forward(method).forward(), method);
        }
    }
}
