//! `ripvsd --check`: what a configuration means, in words.

use std::fmt::Write;

use crate::clock::Mode;

use super::values::{Cidr, Device, InterfaceName, Mac};
use super::{At, Config, Idle, Owner, Port, Scheduling, Workers};

/// The effective configuration, a sentence for each thing.
pub fn explain(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, config);
    out
}

fn write(out: &mut String, config: &Config) -> std::fmt::Result {
    match &config.workers {
        Workers::AllButOne => writeln!(out, "Workers: one for each core but one, at least one.")?,
        Workers::Count(count) => writeln!(out, "Workers: {count}, wherever there is room.")?,
        Workers::Cores(cores) => {
            let list: Vec<String> = cores.value.iter().map(u16::to_string).collect();
            writeln!(
                out,
                "Workers: {}, on cores {}.",
                list.len(),
                list.join(", ")
            )?;
        }
    }
    let idle = match config.idle {
        Idle::Adaptive => "sleeps a little, longer each time, up to half a millisecond",
        Idle::Poll => "goes on polling",
    };
    writeln!(out, "A worker without packets {idle}.")?;
    if config.clock == Mode::Held {
        writeln!(out, "Time stands still but for `ripvsadm advance`.")?;
    }
    let owner = match config.owner {
        Owner::AddressPort => "address and port",
        Owner::Address => "address alone",
    };
    writeln!(
        out,
        "A connection's worker is found by its client's {owner}."
    )?;
    writeln!(
        out,
        "New connections are scheduled {}.",
        match config.scheduling {
            Scheduling::Local => "by each worker for itself",
            Scheduling::Exact => "by one worker for each service, in the order of one kernel",
        }
    )?;
    for service in &config.exact_services {
        writeln!(out, "Those to {service} by one worker in any case.")?;
    }
    writeln!(out, "At most {} connections are kept.", config.connections)?;
    write!(
        out,
        "Control socket: {}, mode {:04o}",
        config.socket.display(),
        config.socket_mode.0
    )?;
    match &config.socket_group {
        Some(group) => writeln!(out, ", group {group}.")?,
        None => writeln!(out, ".")?,
    }
    match &config.state_dir {
        Some(dir) => writeln!(out, "What is set at run time is kept in {}.", dir.display())?,
        None => writeln!(
            out,
            "What is set at run time is lost at the end (no state_dir)."
        )?,
    }
    writeln!(
        out,
        "Log level: {}.",
        config.log_level.as_str().to_ascii_lowercase()
    )?;
    writeln!(out, "Maglev tables have {} bits.", config.mh_table_bits)?;
    match config.icmp_ratelimit {
        0 => writeln!(out, "ICMP errors: as many as there is cause for.")?,
        limit => writeln!(out, "ICMP errors: at most {limit} a second.")?,
    }
    if config.mbufs > 0 {
        writeln!(
            out,
            "Packet buffers: {} at least, of {} bytes.",
            config.mbufs, config.mbuf_size
        )?;
    }
    if !config.ftp_ports.is_empty() {
        let list: Vec<String> = config.ftp_ports.iter().map(u16::to_string).collect();
        writeln!(out, "FTP helper: on port {}.", list.join(", "))?;
    }
    if !config.eal_args.is_empty() {
        writeln!(
            out,
            "DPDK gets besides what ripvsd says itself: {}.",
            config.eal_args.join(" ")
        )?;
    }
    interfaces(out, config)?;
    if let Some(warning) = without_ports(config) {
        writeln!(out, "Warning: {warning}.")?;
    }
    network(out, config)?;
    for (name, numbers) in &config.sysctls {
        let numbers = crate::sysctl::text(numbers);
        writeln!(out, "net.ipv4.vs.{name} is {numbers}.")?;
    }
    for (name, seconds) in ["tcp", "tcpfin", "udp"].iter().zip(config.timeouts) {
        if seconds != 0 {
            writeln!(out, "Timeout {name}: {seconds} s.")?;
        }
    }
    Ok(())
}

/// What to say where no packet can come in.
pub fn without_ports(config: &Config) -> Option<&'static str> {
    config.ports.is_empty().then_some(
        "no port is configured, so no packet comes in; a [[port]] with `name`, `device` and `addresses` makes one, or \
         --port NAME=DEVICE with --address NAME=ADDRESS/LENGTH",
    )
}

fn list(addresses: &[At<Cidr>]) -> String {
    if addresses.is_empty() {
        return "no address".into();
    }
    let all: Vec<String> = addresses.iter().map(|a| a.value.to_string()).collect();
    all.join(", ")
}

fn interfaces(out: &mut String, config: &Config) -> std::fmt::Result {
    for port in &config.ports {
        self::port(out, port)?;
    }
    for vlan in &config.vlans {
        write!(
            out,
            "Interface {}: VLAN {} on {}",
            vlan.name.value, vlan.id.value, vlan.on.value
        )?;
        mtu(out, &vlan.mtu)?;
        writeln!(out, "; {}.", list(&vlan.addresses))?;
    }
    for bond in &config.bonds {
        let members: Vec<&str> = bond.members.value.iter().map(|m| m.0.as_str()).collect();
        write!(
            out,
            "Interface {}: bond of {} ({})",
            bond.name.value,
            members.join(", "),
            bond.mode.name()
        )?;
        mac(out, bond.mac)?;
        mtu(out, &bond.mtu)?;
        write!(out, "; {}", list(&bond.addresses))?;
        companion(out, &bond.companion)?;
    }
    if !config.loopback.is_empty() {
        writeln!(out, "Interface lo: {}.", list(&config.loopback))?;
    }
    Ok(())
}

fn port(out: &mut String, port: &Port) -> std::fmt::Result {
    let kind = match port.device.value {
        Device::Pci(_) => "PCI device",
        Device::Vdev(_) => "virtual device",
    };
    write!(
        out,
        "Interface {}: {kind} {}",
        port.name.value, port.device.value
    )?;
    mac(out, port.mac)?;
    mtu(out, &port.mtu)?;
    let numbers = [
        (&port.rx_queues, "RX queues"),
        (&port.tx_queues, "TX queues"),
        (&port.rx_descriptors, "RX descriptors"),
        (&port.tx_descriptors, "TX descriptors"),
    ];
    for (number, what) in numbers {
        if let Some(number) = number {
            write!(out, ", {} {what}", number.value)?;
        }
    }
    if port.promiscuous {
        write!(out, ", promiscuous")?;
    }
    write!(out, "; {}", list(&port.addresses))?;
    companion(out, &port.companion)
}

fn mac(out: &mut String, mac: Option<Mac>) -> std::fmt::Result {
    mac.map_or(Ok(()), |mac| write!(out, ", MAC {mac}"))
}

fn mtu(out: &mut String, mtu: &Option<At<u16>>) -> std::fmt::Result {
    mtu.as_ref()
        .map_or(Ok(()), |mtu| write!(out, ", MTU {}", mtu.value))
}

/// The end of an interface's sentence.
fn companion(out: &mut String, companion: &Option<At<InterfaceName>>) -> std::fmt::Result {
    if let Some(companion) = companion {
        write!(
            out,
            "; what is the host's own goes to its interface {}",
            companion.value
        )?;
    }
    writeln!(out, ".")
}

fn network(out: &mut String, config: &Config) -> std::fmt::Result {
    for route in &config.routes {
        write!(out, "Route: {}", route.prefix.value)?;
        if let Some(from) = &route.from {
            write!(out, " for what comes from {}", from.value)?;
        }
        if let Some(via) = &route.via {
            write!(out, " by way of {}", via.value)?;
        }
        if let Some(dev) = &route.dev {
            write!(out, " on {}", dev.value)?;
        }
        if let Some(mtu) = &route.mtu {
            write!(out, ", MTU {}", mtu.value)?;
        }
        writeln!(out, ".")?;
    }
    for neighbour in &config.neighbours {
        writeln!(
            out,
            "Neighbour: {} on {} is at {}.",
            neighbour.address.value, neighbour.interface.value, neighbour.mac
        )?;
    }
    for rule in &config.marks {
        write!(out, "Mark {}: ", rule.mark.value)?;
        match rule.protocol {
            Some(protocol) => write!(out, "{protocol}")?,
            None => write!(out, "anything")?,
        }
        let sides = [
            (" from", &rule.source, &rule.source_ports),
            (" to", &rule.destination, &rule.destination_ports),
        ];
        for (word, prefix, ports) in sides {
            if let Some(prefix) = prefix {
                write!(out, "{word} {}", prefix.value)?;
            }
            if !ports.is_empty() {
                let all: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let word = if prefix.is_some() { "" } else { word };
                write!(out, "{word} port {}", all.join(", "))?;
            }
        }
        if let Some(interface) = &rule.interface {
            write!(out, " coming in on {}", interface.value)?;
        }
        if rule.divert {
            write!(out, ", which is the balancer's own whatever its address")?;
        }
        writeln!(out, ".")?;
    }
    Ok(())
}
