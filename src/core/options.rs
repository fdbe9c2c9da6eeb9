//! IPv4 options on their way through: read and filled in when a packet comes in, as the kernel does before IPVS sees it
//! (`ip_rcv_options`), and once more when it is routed on (`ip_forward_options`).

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ripvs_packet::{ipv4, ipv4_options, parse, Frame};

use crate::datapath::Passed;
use crate::family::V4;
use crate::net::{DstKind, IcmpKind, Offender, RouteHit};
use crate::packet::Packet;
use crate::rewrite::Ip;
use crate::types::Time;
use crate::verdict::Drop;
use crate::worker::{Io, Worker};

const MILLIS_A_DAY: u128 = 86_400_000;

/// Milliseconds since midnight UT, as timestamps count. Options are rare enough to ask the system.
fn millis() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_millis() % MILLIS_A_DAY) as u32
}

/// The options of the packet that begins `l3` bytes into the frame.
fn options_of<F: Frame>(frame: &mut F, l3: usize) -> &mut [u8] {
    let head = frame.head_mut();
    let end = head
        .get(l3)
        .map_or(l3, |first| l3 + usize::from(first & 15) * 4);
    head.get_mut(l3 + ipv4::HEADER_LEN..end).unwrap_or_default()
}

impl<F: Frame> Worker<F> {
    /// Reads a packet's options, if it has any; those of a datagram were read with its fragments.
    pub(crate) fn read_options(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let v4 = pkt.info.family == parse::Family::V4;
        if !v4 || !pkt.info.has(parse::flags::OPTIONS) {
            return Some(pkt);
        }
        if pkt.pieces.is_some() {
            pkt.options = ipv4_options::gathered(options_of(&mut pkt.frame, pkt.l3));
            return Some(pkt);
        }
        let (net, info) = (&self.net, pkt.info);
        let here = || match pkt.dst {
            DstKind::Local => info.dst4(),
            _ => source_to(net, info.src_ip()),
        };
        let elsewhere = |addr: [u8; 4]| !net.is_local(addr.into());
        let read = ipv4_options::receive(
            options_of(&mut pkt.frame, pkt.l3),
            here,
            elsewhere,
            millis(),
        );
        match read {
            Ok(options) if options.source_route => self.discard(pkt, Drop::BadOption),
            Ok(options) => {
                if options.changed {
                    V4::seal(pkt.ip_mut());
                }
                pkt.options = options;
                Some(pkt)
            }
            Err(problem) => {
                let kind = IcmpKind::ParamProblem {
                    code: 0,
                    pointer: u16::from(problem.pointer),
                };
                let about = Offender::new(&pkt.frame, pkt.l3).from(&pkt.rx);
                self.net.icmp_error(now, about, kind, io);
                self.discard(pkt, Drop::BadOption)
            }
        }
    }

    /// Notes in a routed packet's options by which address it leaves.
    pub(crate) fn forward_options(&self, pkt: &mut Packet<F>, hit: &RouteHit) {
        if pkt.carried || pkt.options == ipv4_options::Received::default() {
            return;
        }
        // A server's reply leaves as if the service had sent it (`ip_rt_get_source`).
        let source = V4::addr(pkt.ip(), V4::SRC).into();
        let by = if self.net.is_local(source) {
            Some(source)
        } else {
            self.net.source_for(V4::addr(pkt.ip(), V4::DST).into(), hit)
        };
        let Some(IpAddr::V4(by)) = by else {
            return;
        };
        if ipv4_options::forward(
            options_of(&mut pkt.frame, pkt.l3),
            &pkt.options,
            by.octets(),
        ) {
            V4::seal(pkt.ip_mut());
        }
    }
}

/// The address that a packet of ours to somebody would come from.
fn source_to<F: Frame>(net: &crate::net::Net<F>, to: IpAddr) -> [u8; 4] {
    let source = net.route(to, None).and_then(|hit| net.source_for(to, &hit));
    match source {
        Some(IpAddr::V4(addr)) => addr.octets(),
        _ => [0; 4],
    }
}
