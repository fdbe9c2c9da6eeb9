//! The commands that make a service and its dests again, as `-S` prints them. As in the original, thresholds are left out.

use std::fmt::Write;

use ripvs_api::ipvs::number::{flag, forward, tunnel};
use ripvs_api::ipvs::{Af, Dest, DestConfig, Service, ServiceKey};

use crate::list::{netmask, protocol_of};
use crate::meaning::TUNNELS;
use crate::names::Names;
use crate::sched_flags;

/// The lines of a service and its dests.
pub fn service(
    out: &mut String,
    service: &Service,
    dests: &[Dest],
    numeric: bool,
    names: &dyn Names,
) {
    let config = &service.config;
    let name = service_name(&service.key, numeric, names);
    let _ = write!(out, "-A {name} -s {}", config.sched);
    if config.flags & flag::PERSISTENT != 0 {
        let _ = write!(out, " -p {}", config.timeout);
        if let Some(mask) = netmask(service.key.af(), config.netmask) {
            let _ = write!(out, " -M {mask}");
        }
    }
    if let Some(pe) = &config.pe {
        let _ = write!(out, " --pe {pe}");
    }
    if config.flags & flag::ONE_PACKET != 0 {
        out.push_str(" -o");
    }
    if config.flags & sched_flags::ALL != 0 {
        let flags = sched_flags::show(&config.sched, config.flags);
        let _ = write!(out, " -b {flags}");
    }
    out.push('\n');
    let protocol = protocol_of(&service.key);
    for dest in dests {
        let config = &dest.config;
        let dest = names.show(config.key.addr, config.key.port, protocol, numeric);
        let (method, weight) = (method_option(config.forward), config.weight);
        let _ = write!(out, "-a {name} -r {dest} {method} -w {weight}");
        tunnel_options(out, config);
        out.push('\n');
    }
}

fn service_name(key: &ServiceKey, numeric: bool, names: &dyn Names) -> String {
    match *key {
        ServiceKey::Mark { mark, af } => {
            let family = if af == Af::V6 { " -6" } else { "" };
            // The original writes it as a signed number, which it then refuses to read.
            format!("-f {mark}{family}")
        }
        ServiceKey::Addr {
            protocol,
            addr,
            port,
        } => {
            let option = match protocol {
                6 => "-t",
                17 => "-u",
                _ => "--sctp-service",
            };
            format!("{option} {}", names.show(addr, port, protocol, numeric))
        }
    }
}

fn method_option(method: u32) -> &'static str {
    match method {
        forward::MASQ => "-m",
        forward::TUNNEL => "-i",
        _ => "-g",
    }
}

fn tunnel_options(out: &mut String, config: &DestConfig) {
    if config.forward != forward::TUNNEL {
        return;
    }
    let Some(kind) = TUNNELS.get(usize::from(config.tun_type)) else {
        return;
    };
    let _ = write!(out, " --tun-type {kind}");
    if config.tun_type == tunnel::GUE {
        let _ = write!(out, " --tun-port {}", config.tun_port);
    }
    if config.tun_type != tunnel::IPIP {
        out.push_str(match config.tun_flags {
            tunnel::NOCSUM => " --tun-nocsum",
            tunnel::CSUM => " --tun-csum",
            _ => " --tun-remcsum",
        });
    }
}
