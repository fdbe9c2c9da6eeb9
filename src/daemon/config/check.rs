//! What must hold between the parts of a configuration: names used once, references that lead somewhere, families that
//! agree, next hops that are on a link.

use std::collections::HashMap;
use std::net::IpAddr;

use super::file::nearest;
use super::options::Wrong;
use super::values::{Cidr, Device, InterfaceName, Prefix};
use super::{At, Config, Workers};

/// Finds the first thing that does not fit together.
pub fn check(config: &Config) -> Result<(), Wrong> {
    let names = names(config)?;
    ports(config)?;
    stacked(config, &names)?;
    addresses(config)?;
    routes(config, &names)?;
    neighbours(config, &names)?;
    marks(config, &names)?;
    cores(config)
}

type Names<'a> = HashMap<&'a str, &'a At<InterfaceName>>;

/// Every interface by name.
fn names(config: &Config) -> Result<Names<'_>, Wrong> {
    let mut names = Names::new();
    let ports = config.ports.iter().map(|p| &p.name);
    let vlans = config.vlans.iter().map(|v| &v.name);
    let bonds = config.bonds.iter().map(|b| &b.name);
    for name in ports.chain(vlans).chain(bonds) {
        if name.value.0 == "lo" {
            return Err(Wrong::at(
                name,
                "`lo` is there already; its addresses belong under [loopback]",
            ));
        }
        if names.insert(&name.value.0, name).is_some() {
            return Err(Wrong::at(
                name,
                format!("there are two interfaces `{}`", name.value),
            ));
        }
    }
    Ok(names)
}

/// That `name` is an interface's.
fn known(name: &At<InterfaceName>, names: &Names<'_>, lo: bool) -> Result<(), Wrong> {
    if names.contains_key(name.value.0.as_str()) || (lo && name.value.0 == "lo") {
        return Ok(());
    }
    let mut message = format!("there is no interface `{}`", name.value);
    match nearest(&name.value.0, names.keys().copied()) {
        Some(like) => message += &format!("; did you mean `{like}`?"),
        None if names.is_empty() => message += "; none is configured",
        None => {
            let mut all: Vec<&str> = names.keys().copied().collect();
            all.sort_unstable();
            message += &format!("; there are {}", all.join(", "));
        }
    }
    Err(Wrong::at(name, message))
}

fn range(value: &Option<At<u16>>, what: &str, least: u16, most: u16) -> Result<(), Wrong> {
    match value {
        Some(at) if !(least..=most).contains(&at.value) => Err(Wrong::at(
            at,
            format!("{what} of {}; {least} to {most} would do", at.value),
        )),
        _ => Ok(()),
    }
}

fn mtu(value: &Option<At<u16>>) -> Result<(), Wrong> {
    // IPv4's least (RFC 791), and the largest frame that is supported, less its header.
    range(value, "an MTU", 68, 9000)
}

fn ports(config: &Config) -> Result<(), Wrong> {
    let mut devices: HashMap<&str, &InterfaceName> = HashMap::new();
    for port in &config.ports {
        let device = &port.device;
        if let Some(other) = devices.insert(device.value.name(), &port.name.value) {
            return Err(Wrong::at(
                device,
                format!(
                    "device {} is already driven as `{other}`",
                    device.value.name()
                ),
            ));
        }
        mtu(&port.mtu)?;
        range(&port.rx_queues, "a number of queues", 1, 128)?;
        range(&port.tx_queues, "a number of queues", 1, 128)?;
        range(&port.rx_descriptors, "a number of descriptors", 32, 32768)?;
        range(&port.tx_descriptors, "a number of descriptors", 32, 32768)?;
        let no_huge = config.eal_args.iter().any(|arg| arg == "--no-huge");
        if no_huge && matches!(device.value, Device::Pci(_)) {
            return Err(Wrong::at(
                device,
                "a PCI device needs hugepages, but the EAL arguments say --no-huge; leave that out",
            ));
        }
    }
    let mut companions: Vec<&InterfaceName> = Vec::new();
    let of_ports = config.ports.iter().map(|port| &port.companion);
    let of_bonds = config.bonds.iter().map(|bond| &bond.companion);
    for companion in of_ports.chain(of_bonds).flatten() {
        if companions.contains(&&companion.value) {
            return Err(Wrong::at(
                companion,
                format!("there are two companions `{}`", companion.value),
            ));
        }
        companions.push(&companion.value);
    }
    Ok(())
}

/// VLANs and bonds.
fn stacked(config: &Config, names: &Names<'_>) -> Result<(), Wrong> {
    let mut tags: HashMap<(&InterfaceName, u16), &InterfaceName> = HashMap::new();
    for vlan in &config.vlans {
        known(&vlan.on, names, false)?;
        if config
            .vlans
            .iter()
            .any(|other| other.name.value == vlan.on.value)
        {
            return Err(Wrong::at(
                &vlan.on,
                format!(
                    "`{}` is a VLAN itself; a VLAN lies on a port or a bond",
                    vlan.on.value
                ),
            ));
        }
        if !(1..=4094).contains(&vlan.id.value) {
            return Err(Wrong::at(
                &vlan.id,
                format!("{} is no VLAN; they are 1 to 4094", vlan.id.value),
            ));
        }
        if let Some(other) = tags.insert((&vlan.on.value, vlan.id.value), &vlan.name.value) {
            return Err(Wrong::at(
                &vlan.id,
                format!(
                    "VLAN {} of `{}` is already `{other}`",
                    vlan.id.value, vlan.on.value
                ),
            ));
        }
        mtu(&vlan.mtu)?;
    }
    let mut members: HashMap<&InterfaceName, &InterfaceName> = HashMap::new();
    for bond in &config.bonds {
        if bond.members.value.is_empty() {
            return Err(Wrong::at(&bond.members, "a bond needs at least one member"));
        }
        for member in &bond.members.value {
            let wrong = |message| Err(Wrong::at(&bond.members, message));
            let Some(port) = config.ports.iter().find(|p| p.name.value == *member) else {
                return wrong(format!("`{member}` is no [[port]]; a bond's members are"));
            };
            if !port.addresses.is_empty() {
                return wrong(format!("`{member}` has addresses; they belong to the bond"));
            }
            if port.companion.is_some() {
                return wrong(format!(
                    "`{member}` has a companion; it belongs to the bond"
                ));
            }
            if let Some(other) = members.insert(member, &bond.name.value) {
                return wrong(format!("`{member}` is a member of `{other}` already"));
            }
        }
        mtu(&bond.mtu)?;
    }
    Ok(())
}

/// Every address with the interface it is on.
fn all_addresses(config: &Config) -> impl Iterator<Item = (&str, &At<Cidr>)> {
    let lo = config.loopback.iter().map(|a| ("lo", a));
    let ports = config
        .ports
        .iter()
        .flat_map(|p| p.addresses.iter().map(|a| (p.name.value.0.as_str(), a)));
    let vlans = config
        .vlans
        .iter()
        .flat_map(|v| v.addresses.iter().map(|a| (v.name.value.0.as_str(), a)));
    let bonds = config
        .bonds
        .iter()
        .flat_map(|b| b.addresses.iter().map(|a| (b.name.value.0.as_str(), a)));
    lo.chain(ports).chain(vlans).chain(bonds)
}

fn addresses(config: &Config) -> Result<(), Wrong> {
    let mut seen: HashMap<(&str, IpAddr), ()> = HashMap::new();
    for (interface, address) in all_addresses(config) {
        if seen
            .insert((interface, address.value.address), ())
            .is_some()
        {
            return Err(Wrong::at(
                address,
                format!("`{interface}` has {} already", address.value.address),
            ));
        }
    }
    Ok(())
}

/// Whether an address is on some interface's network, as a next hop has to be.
fn on_link(config: &Config, dev: Option<&str>, address: IpAddr) -> bool {
    all_addresses(config).any(|(interface, own)| {
        dev.is_none_or(|dev| dev == interface)
            && Prefix::of(own.value.address, own.value.length).contains(address)
    })
}

fn routes(config: &Config, names: &Names<'_>) -> Result<(), Wrong> {
    for route in &config.routes {
        let prefix = &route.prefix.value;
        if let Some(dev) = &route.dev {
            known(dev, names, false)?;
        }
        if let Some(from) = &route.from {
            if from.value.address.is_ipv4() != prefix.address.is_ipv4() {
                return Err(Wrong::at(
                    from,
                    format!("{} is of another family than {prefix}", from.value),
                ));
            }
        }
        mtu(&route.mtu)?;
        let Some(via) = &route.via else {
            if route.dev.is_none() {
                return Err(Wrong::at(
                    &route.prefix,
                    format!("the route to {prefix} needs a `via` (a router's address) or a `dev` (an interface)"),
                ));
            }
            continue;
        };
        if via.value.is_ipv4() != prefix.address.is_ipv4() {
            return Err(Wrong::at(
                via,
                format!("{} is of another family than {prefix}", via.value),
            ));
        }
        let dev = route.dev.as_ref().map(|dev| dev.value.0.as_str());
        let link_local = matches!(via.value, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80);
        if link_local && dev.is_none() {
            return Err(Wrong::at(
                via,
                format!("{} is link-local; the route needs a `dev`", via.value),
            ));
        }
        if !link_local && !on_link(config, dev, via.value) {
            let on = dev.map_or_else(|| "any interface".to_string(), |dev| format!("`{dev}`"));
            return Err(Wrong::at(
                via,
                format!(
                    "the next hop {} is in no network of {on}; give that an address in its network",
                    via.value
                ),
            ));
        }
    }
    Ok(())
}

fn neighbours(config: &Config, names: &Names<'_>) -> Result<(), Wrong> {
    for neighbour in &config.neighbours {
        known(&neighbour.interface, names, false)?;
        let address = neighbour.address.value;
        if address.is_multicast() || address.is_unspecified() {
            return Err(Wrong::at(
                &neighbour.address,
                format!("{address} cannot be a neighbour"),
            ));
        }
    }
    Ok(())
}

fn marks(config: &Config, names: &Names<'_>) -> Result<(), Wrong> {
    for rule in &config.marks {
        if rule.mark.value == 0 {
            return Err(Wrong::at(
                &rule.mark,
                "0 stands for packets without a mark; 1 and up are marks",
            ));
        }
        if let Some(interface) = &rule.interface {
            known(interface, names, false)?;
        }
        if let (Some(source), Some(destination)) = (&rule.source, &rule.destination) {
            if source.value.address.is_ipv4() != destination.value.address.is_ipv4() {
                return Err(Wrong::at(
                    destination,
                    "source and destination are of different families",
                ));
            }
        }
        let has_ports = !rule.source_ports.is_empty() || !rule.destination_ports.is_empty();
        if has_ports && !rule.protocol.is_some_and(|p| matches!(p.0, 6 | 17 | 132)) {
            return Err(Wrong::at(
                &rule.mark,
                "ports need a protocol that has them: tcp, udp or sctp",
            ));
        }
    }
    Ok(())
}

fn cores(config: &Config) -> Result<(), Wrong> {
    let Workers::Cores(cores) = &config.workers else {
        return Ok(());
    };
    for (index, core) in cores.value.iter().enumerate() {
        if cores.value[..index].contains(core) {
            return Err(Wrong::at(
                cores,
                format!("core {core} is named twice; each worker needs its own"),
            ));
        }
    }
    Ok(())
}
