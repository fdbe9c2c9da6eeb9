//! Choosing a dest for a new connection: persistence templates first, the scheduler next. Runs at the chooser of the
//! service, which counts what it chose; making the connection is its owner's part (`flow.rs`).
//!
//! Follows `ip_vs_schedule` and `ip_vs_sched_persist` (net/netfilter/ipvs/ip_vs_core.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripvs_packet::Frame;

use crate::conn::{ConnId, Flags, Key, NewConn};
use crate::message::{Ask, Choice, ConnRef, Load, Msg, Parcel};
use crate::service::{Service, FTP_PORT};
use crate::spec::ServiceKey;
use crate::types::{Af, DestId, Time, WorkerId};
use crate::verdict::Drop;
use crate::worker::{Tables, Worker};

/// The port of a template that was given up and only waits for its time.
const GIVEN_UP: u16 = 0xffff;

/// What a persistence template is known by. The client is masked; port 0 stands for all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// IP protocol number; 0 (IPPROTO_IP) for services by mark.
    pub proto: u8,
    /// The client's network.
    pub client: IpAddr,
    /// The virtual address, or the mark in its first four bytes.
    pub vaddr: IpAddr,
    /// The virtual port or 0.
    pub vport: u16,
}

/// What comes of looking for a dest.
pub(crate) enum Decision {
    /// This.
    Made(Choice),
    /// The dest is to be picked by that worker, which schedules for all.
    At(WorkerId),
}

impl TemplateKey {
    /// The template that the first packet of a connection to a persistent service goes by.
    pub fn of(service: &Service, ask: &Ask) -> TemplateKey {
        let client = mask(ask.client, service.spec.netmask);
        let (mut proto, mut vaddr, mut vport) = (ask.proto, ask.vaddr, 0);
        if ask.vport == service.port() {
            if service.port() != FTP_PORT {
                vport = ask.vport;
            }
        } else if let Some(mark) = service.mark() {
            proto = 0;
            vaddr = mark_address(mark, ask.vaddr);
        }
        TemplateKey {
            proto,
            client,
            vaddr,
            vport,
        }
    }
}

/// The network of a client. `netmask` as in [`crate::ServiceSpec`].
fn mask(client: IpAddr, netmask: u32) -> IpAddr {
    match client {
        IpAddr::V4(addr) => IpAddr::V4(Ipv4Addr::from(u32::from(addr) & netmask)),
        IpAddr::V6(addr) => {
            let bits = netmask.min(128);
            let mask = if bits == 0 {
                0
            } else {
                u128::MAX << (128 - bits)
            };
            IpAddr::V6(Ipv6Addr::from(u128::from(addr) & mask))
        }
    }
}

/// A mark in the place of a virtual address, as the kernel lists it.
fn mark_address(mark: u32, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(mark)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::from(mark) << 96)),
    }
}

impl<F: Frame> Worker<F> {
    /// The worker that chooses for this first packet.
    pub(crate) fn chooser_of(&self, service: &Service, ask: &Ask) -> WorkerId {
        if self.workers == 1 {
            return self.id;
        }
        // Templates are where they are however their service is scheduled, which may change.
        if service.persistent() {
            let key = TemplateKey::of(service, ask);
            return self.owners.of_template(&key, ask.call_id.as_deref());
        }
        service.counted_at.unwrap_or(self.id)
    }

    /// Chooses a dest, and charges it with the connection.
    pub(crate) fn choose(&mut self, now: Time, ask: &Ask) -> Decision {
        let Some(service) = self.asked_service(ask) else {
            return Decision::Made(Choice::Nobody);
        };
        if service.persistent() {
            return self.choose_by_template(now, ask, None);
        }
        if service.mark().is_none() && ask.vport != service.port() {
            return Decision::Made(Choice::Nobody);
        }
        let Some(id) = ask.server.or_else(|| self.pick(now, ask)) else {
            return Decision::Made(Choice::Nobody);
        };
        let port = self.services.dest(id).map_or(0, |dest| dest.spec.port);
        self.charge_new(id);
        Decision::Made(Choice::Dest {
            id,
            port: if port != 0 { port } else { ask.vport },
            chooser: self.id,
            control: None,
        })
    }

    /// The service that a packet is for, unless another has come into its place while the packet was under way.
    fn asked_service(&self, ask: &Ask) -> Option<&Service> {
        let service = self.services.get(ask.service)?;
        let same = match service.spec.key {
            ServiceKey::Addr { proto, addr, .. } => (proto, addr) == (ask.proto, ask.vaddr),
            ServiceKey::Mark { af, .. } => af == Af::of(ask.vaddr),
        };
        same.then_some(service)
    }

    /// Has the chooser of a service pick a dest for a packet that has no template here.
    pub(crate) fn have_picked(
        &mut self,
        chooser: WorkerId,
        ask: Ask,
        parcel: Parcel<F>,
        owner: WorkerId,
    ) {
        let pick = Msg::Pick {
            ask,
            parcel,
            owner,
            from: self.id,
        };
        self.post(chooser, pick);
    }

    /// Picks a dest for another worker, which keeps the templates, and charges it with the connection.
    pub(crate) fn pick_charged(&mut self, now: Time, ask: &Ask) -> Option<DestId> {
        self.asked_service(ask)?;
        let picked = self.pick(now, ask)?;
        self.charge_new(picked);
        Some(picked)
    }

    /// Makes a template for the dest that the service's chooser picked, and charged; unless another packet had one made
    /// meanwhile.
    pub(crate) fn choose_picked(
        &mut self,
        now: Time,
        ask: &Ask,
        picked: Option<DestId>,
        from: WorkerId,
    ) -> Choice {
        let Some(dest) = picked else {
            return Choice::Nobody;
        };
        let made = match self.asked_service(ask) {
            Some(_) => self.choose_by_template(now, ask, Some(dest)),
            None => Decision::Made(Choice::Nobody),
        };
        let choice = match made {
            Decision::Made(choice) => choice,
            Decision::At(_) => Choice::Nobody,
        };
        // The chooser is told of what is charged here, as of all; so its own charge goes. It comes to know of that first.
        let undo = Load {
            dest,
            active: 0,
            inactive: -1,
            bound: match choice {
                Choice::Dest { id, .. } if id == dest => None,
                _ => Some(false),
            },
        };
        self.post(from, Msg::Load(undo));
        choice
    }

    fn choose_by_template(&mut self, now: Time, ask: &Ask, picked: Option<DestId>) -> Decision {
        match ask.client {
            IpAddr::V4(_) => self.choose_persistent::<crate::family::V4>(now, ask, picked),
            IpAddr::V6(_) => self.choose_persistent::<crate::family::V6>(now, ask, picked),
        }
    }

    fn choose_persistent<A: Tables<F>>(
        &mut self,
        now: Time,
        ask: &Ask,
        picked: Option<DestId>,
    ) -> Decision {
        let Some(service) = self.services.get(ask.service) else {
            return Decision::Made(Choice::Nobody);
        };
        let elsewhere = service.counted_at;
        let own_port = service.port();
        let window = service.spec.timeout.saturating_mul(crate::types::Tick::HZ);
        let key = TemplateKey::of(service, ask);
        let (Some(client), Some(vaddr)) = (A::from_ip(key.client), A::from_ip(key.vaddr)) else {
            return Decision::Made(Choice::Nobody);
        };
        let lookup = Key {
            proto: key.proto,
            caddr: client,
            cport: 0,
            vaddr,
            vport: key.vport,
        };
        let found = match &ask.call_id {
            Some(call_id) => self.calls.find(&key, call_id),
            None => {
                let table = A::table(self);
                table.find_template(table.hash_in(&lookup), &lookup)
            }
        };
        let usable = found.and_then(|id| Some((id, self.template_dest::<A>(id, ask.server)?)));
        let (template, dest) = match usable {
            Some(template) => template,
            None => {
                let dest = match (ask.server.or(picked), elsewhere) {
                    (Some(dest), _) => Some(dest),
                    (None, Some(chooser)) => return Decision::At(chooser),
                    (None, None) => self.pick(now, ask),
                };
                let spec =
                    dest.and_then(|dest| Some((dest, self.services.dest(dest)?.spec.clone())));
                let Some((dest, spec)) = spec else {
                    return Decision::Made(Choice::Nobody);
                };
                let dport = if ask.vport == own_port && own_port != FTP_PORT {
                    spec.port
                } else {
                    0
                };
                let mut flags = Flags::of_forward(spec.forward).with(Flags::TEMPLATE);
                let mut pe_hash = 0;
                if let Some(call_id) = &ask.call_id {
                    flags = flags.with(Flags::PE);
                    pe_hash = A::table(self).hash_data(call_id);
                }
                // A tunnel's end may be of the other family: listings then take its address from the dest.
                let daddr = A::from_ip(spec.addr).unwrap_or_default();
                let new = NewConn {
                    dest: Some(dest),
                    service: Some(ask.service),
                    timeout: window,
                    pe_hash,
                    ..NewConn::new(lookup, daddr, dport, flags)
                };
                if self.conns_left() == 0 {
                    return Decision::Made(Choice::Refused(Drop::ConnTableFull));
                }
                let made = A::table_mut(self).insert(now.tick(), &new);
                let Ok(id) = made else {
                    return Decision::Made(Choice::Refused(Drop::ConnTableFull));
                };
                if let Some(call_id) = &ask.call_id {
                    self.calls.insert(&key, call_id, A::IS_V6, id);
                }
                if let Some(tally) = self.services.ledger().dest(dest) {
                    tally.persistent(1);
                    tally.refs(1);
                }
                (id, dest)
            }
        };
        A::table_mut(self).touch(template, now.tick());
        if !A::table_mut(self)
            .get_mut(template)
            .is_some_and(|record| record.add_controlled())
        {
            return Decision::Made(Choice::Refused(Drop::ConnTableFull));
        }
        let port = self.services.dest(dest).map_or(0, |dest| dest.spec.port);
        self.charge_new(dest);
        Decision::Made(Choice::Dest {
            id: dest,
            port: if ask.vport == own_port && port != 0 {
                port
            } else {
                ask.vport
            },
            chooser: self.id,
            control: Some(ConnRef {
                worker: self.id,
                id: template,
            }),
        })
    }

    /// The dest of a template, if it may still be had and is the one that is `wanted`, if any (`ip_vs_check_template`). A
    /// template whose dest is not is given up: it stays listed under a port that no packet asks for until its time is up.
    fn template_dest<A: Tables<F>>(
        &mut self,
        id: ConnId,
        wanted: Option<DestId>,
    ) -> Option<DestId> {
        let dest = A::table(self).get(id)?.dest();
        let quiescent_expires = self.settings.expire_quiescent_template != 0;
        let good = dest
            .and_then(|dest| self.services.dest(dest))
            .is_some_and(|dest| dest.available && !(quiescent_expires && dest.spec.weight == 0));
        if good && wanted.is_none_or(|wanted| dest == Some(wanted)) {
            return dest;
        }
        self.calls.give_up(A::IS_V6, id);
        if A::table(self)
            .get(id)
            .is_some_and(|record| record.vport() != GIVEN_UP)
        {
            A::table_mut(self).rekey(id, |ends| {
                ends.cport = 0;
                ends.vport = GIVEN_UP;
                ends.dport = GIVEN_UP;
            });
        }
        None
    }

    fn pick(&mut self, now: Time, ask: &Ask) -> Option<DestId> {
        let service = self.services.get_mut(ask.service)?;
        service
            .group
            .pick(&ask.pick_key(now))
            .map(|member| member.id)
    }

    /// A connection begins as an inactive one; its state says otherwise a moment later.
    fn charge_new(&mut self, dest: DestId) {
        self.services.charge(Load {
            dest,
            active: 0,
            inactive: 1,
            bound: Some(true),
        });
    }

    /// Takes back a choice that came to nothing: no record, or one that was there already.
    pub(crate) fn unchoose(&mut self, now: Time, choice: &Choice, v6: bool) {
        if let Choice::Dest {
            id,
            chooser,
            control,
            ..
        } = choice
        {
            self.report_load(*chooser, *id, 0, -1, true);
            if let Some(control) = control {
                self.uncontrol(now, *control, v6, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_masked_by_its_family_s_rule() {
        let v4: IpAddr = "198.18.7.9".parse().unwrap();
        assert_eq!(
            mask(v4, 0xffff_ff00),
            "198.18.7.0".parse::<IpAddr>().unwrap()
        );
        let v6: IpAddr = "2001:db8:1:2:3::9".parse().unwrap();
        assert_eq!(mask(v6, 64), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(mask(v6, 128), v6);
        assert_eq!(mask(v6, 0), "::".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_mark_stands_in_the_first_four_bytes_of_an_address() {
        assert_eq!(
            mark_address(7, "1.2.3.4".parse().unwrap()),
            "0.0.0.7".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            mark_address(7, "::1".parse().unwrap()),
            "0:7::".parse::<IpAddr>().unwrap()
        );
    }
}
