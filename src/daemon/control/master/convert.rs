//! Between the words of the IPVS family (numbers as the kernel keeps them) and the core's (checked types).

use ripvs_api::ipvs::number::{flag, forward, tunnel};
use ripvs_api::ipvs::{self, DestConfig, ServiceConfig};
use ripvs_api::Errno;
use ripvs_core::{
    Af, DestSpec, Forward, SchedKind, ServiceKey, ServiceSpec, TunnelCsum, TunnelKind,
};

/// The core's key of a service.
///
/// # Errors
/// EINVAL for a protocol that no IP packet can have.
pub fn service_key(key: &ipvs::ServiceKey) -> Result<ServiceKey, Errno> {
    Ok(match *key {
        ipvs::ServiceKey::Addr {
            protocol,
            addr,
            port,
        } => ServiceKey::Addr {
            proto: u8::try_from(protocol).map_err(|_| Errno::INVAL)?,
            addr,
            port,
        },
        ipvs::ServiceKey::Mark { mark, af } => ServiceKey::Mark {
            mark,
            af: match af {
                ipvs::Af::V4 => Af::V4,
                ipvs::Af::V6 => Af::V6,
            },
        },
    })
}

/// The scheduler of that name; `none` stands for none at all.
///
/// # Errors
/// ENOENT where there is none of that name.
fn scheduler(name: &str) -> Result<Option<SchedKind>, Errno> {
    match name {
        "none" => Ok(None),
        name => SchedKind::from_name(name).map(Some).ok_or(Errno::NOENT),
    }
}

/// What a service is to be. `flags` are those that come of the request's flags and mask.
///
/// # Errors
/// ENOENT for an unknown scheduler or persistence engine, EINVAL for an IPv6 prefix length out of range; in that order,
/// which is the kernel's (`ip_vs_add_service`, `ip_vs_edit_service`).
pub fn service_spec(
    key: ServiceKey,
    config: &ServiceConfig,
    flags: u32,
    exact: bool,
) -> Result<ServiceSpec, Errno> {
    let sched = scheduler(&config.sched)?;
    let pe_sip = match config.pe.as_deref() {
        None | Some("") => false,
        Some("sip") => true,
        Some(_) => return Err(Errno::NOENT),
    };
    if key.af() == Af::V6 && !(1..=128).contains(&config.netmask) {
        return Err(Errno::INVAL);
    }
    Ok(ServiceSpec {
        key,
        sched,
        flags: flags & !flag::HASHED,
        timeout: config.timeout,
        netmask: config.netmask,
        pe_sip,
        exact,
    })
}

/// A service's configuration as the kernel shows it.
pub fn service_config(spec: &ServiceSpec) -> ServiceConfig {
    ServiceConfig {
        sched: spec.sched.map_or("none", SchedKind::name).to_string(),
        pe: spec.pe_sip.then(|| "sip".to_string()),
        flags: spec.flags | flag::HASHED,
        mask: u32::MAX,
        timeout: spec.timeout,
        netmask: spec.netmask,
    }
}

/// What a dest is to be.
///
/// # Errors
/// EINVAL for a forwarding method that is none.
pub fn dest_spec(config: &DestConfig) -> Result<DestSpec, Errno> {
    let forward = match config.forward {
        forward::MASQ => Forward::Masq,
        forward::LOCAL => Forward::Local,
        forward::TUNNEL => Forward::Tunnel,
        forward::ROUTE => Forward::Route,
        forward::BYPASS => Forward::Bypass,
        _ => return Err(Errno::INVAL),
    };
    let tunnel = match config.tun_type {
        tunnel::GUE => TunnelKind::Gue {
            port: config.tun_port,
        },
        tunnel::GRE => TunnelKind::Gre,
        _ => TunnelKind::Ipip,
    };
    let tunnel_csum = match config.tun_flags {
        flags if flags & tunnel::REMCSUM != 0 => TunnelCsum::Remote,
        flags if flags & tunnel::CSUM != 0 => TunnelCsum::Full,
        _ => TunnelCsum::None,
    };
    Ok(DestSpec {
        addr: config.key.addr,
        port: config.key.port,
        forward,
        weight: config.weight,
        upper: config.upper,
        lower: config.lower,
        tunnel,
        tunnel_csum,
    })
}
