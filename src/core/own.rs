//! ICMP errors of our own that IPVS has a look at before they leave: those to an address of ours, which come in again (about
//! the outside of a tunnel; about a server's answer in a service's name), and those about what NAT had rewritten already.
//!
//! Follows what the kernel does at LOCAL_OUT and on the loopback interface.

use ripvs_packet::eth::ethertype;
use ripvs_packet::{parse, Frame, PortId};

use crate::family::{V4, V6};
use crate::message::Parcel;
use crate::net::{Ingress, MacKind, OwnError, LO};
use crate::types::{Af, Time};
use crate::worker::{Io, Worker};

impl<F: Frame> Worker<F> {
    /// Sends the errors on their way that the network layer made meanwhile.
    pub(crate) fn send_own_errors(&mut self, now: Time, io: &mut impl Io<F>) {
        while let Some(error) = self.net.take_own_error() {
            self.send_own_error(now, error, io);
        }
    }

    fn send_own_error(&mut self, now: Time, error: OwnError<F>, io: &mut impl Io<F>) {
        let OwnError { frame, hit } = error;
        let v6 = frame.head().first().is_some_and(|first| first >> 4 == 6);
        let rx = Ingress {
            // No port's: it never came in by one.
            port: PortId(u16::MAX),
            iface: LO,
            l3: 0,
            ethertype: if v6 { ethertype::IPV6 } else { ethertype::IPV4 },
            mac: MacKind::Host,
            companion: None,
        };
        let parcel = Parcel {
            frame,
            rx,
            pieces: None,
            routed: false,
        };
        let Some(pkt) = self.read(now, parcel, io) else {
            return;
        };
        if hit.local {
            self.input(now, pkt, true, io);
            return;
        }
        let passed = match pkt.info.family {
            parse::Family::V4 if self.services.enabled(Af::V4) => {
                self.related_out::<V4>(now, pkt, io)
            }
            parse::Family::V6 if self.services.enabled(Af::V6) => {
                self.related_out::<V6>(now, pkt, io)
            }
            _ => Some(pkt),
        };
        if let Some(pkt) = passed {
            self.output(now, pkt, hit, io);
        }
    }
}
