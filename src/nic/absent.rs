//! What a virtual device needs of the system and plainly is not there, found before DPDK is asked: the drivers' own
//! answers to it are errors of something else ("Operation not permitted" for an interface that does not exist).
#![allow(unsafe_code)] // A question of the C library's.

use std::ffi::CString;
use std::path::Path;

use crate::devargs;

/// The cause and the remedy.
pub(crate) type Absence = (String, &'static str);

/// What is missing for a device of these arguments, if anything is.
pub(crate) fn find(args: &str) -> Option<Absence> {
    let option = |name: &str| {
        args.split(',')
            .skip(1)
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    match devargs::name(args).trim_end_matches(|c: char| c.is_ascii_digit()) {
        "net_af_packet" | "net_af_xdp" => interface(option("iface")),
        "net_tap" => tap(option("iface")),
        "net_pcap" => pcap(option("rx_pcap"), option("rx_iface").or(option("iface"))),
        "net_memif" => folder(option("socket").filter(|_| option("socket-abstract") == Some("no"))),
        _ => None,
    }
}

fn exists(interface: &str) -> bool {
    let Ok(name) = CString::new(interface) else {
        return false;
    };
    // SAFETY: a terminated string, which is only read.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

fn interface(name: Option<&str>) -> Option<Absence> {
    let Some(name) = name else {
        return Some((
            "it does not say which interface".into(),
            "add `,iface=NAME` with the name of one of the kernel's (`ip link` shows them)",
        ));
    };
    (!exists(name)).then(|| {
        (
            format!("there is no interface `{name}`"),
            "`ip link` shows those of this network namespace; start ripvsd in the one where it is",
        )
    })
}

fn tap(name: Option<&str>) -> Option<Absence> {
    if !Path::new("/dev/net/tun").exists() {
        return Some((
            "there is no /dev/net/tun".into(),
            "`modprobe tun` makes it; a container is given it by `--device /dev/net/tun`",
        ));
    }
    let name = name?;
    if name.len() > 15 || name.is_empty() {
        return Some((
            format!("`{name}` cannot be an interface's name"),
            "give `iface` a name of 1 to 15 characters",
        ));
    }
    None
}

/// Why a net_tap device could not be made whose interface is there already: as something else than a TAP interface, or as
/// another program's. One that waits for its program would have done.
pub(crate) fn taken(args: &str) -> Option<String> {
    let name = args
        .split(',')
        .find_map(|part| part.strip_prefix("iface="))?;
    exists(name).then(|| format!("there is an interface `{name}` already"))
}

fn pcap(file: Option<&str>, name: Option<&str>) -> Option<Absence> {
    if let Some(file) = file {
        return std::fs::File::open(file).err().map(|error| {
            (
                format!("cannot read {file}: {error}"),
                "`rx_pcap` names a file in pcap format",
            )
        });
    }
    name.filter(|name| !exists(name))
        .and_then(|name| interface(Some(name)))
}

fn folder(socket: Option<&str>) -> Option<Absence> {
    let folder = Path::new(socket?).parent()?;
    (!folder.as_os_str().is_empty() && !folder.is_dir()).then(|| {
        (
            format!("there is no folder {}", folder.display()),
            "make it, or name another `socket`",
        )
    })
}

/// How it stands with a PCI device that DPDK did not find, by its full address; nothing where sysfs does not tell.
pub(crate) fn pci(address: &str) -> Option<String> {
    let devices = Path::new("/sys/bus/pci/devices");
    let device = devices.join(address);
    if !device.exists() {
        return devices
            .exists()
            .then(|| format!("this machine has no PCI device {address}"));
    }
    let driver = std::fs::read_link(device.join("driver")).ok();
    let name = driver.as_deref().and_then(Path::file_name);
    Some(match name {
        None => "no driver is bound to it".into(),
        Some(name) => format!("it is bound to the driver {}", name.to_string_lossy()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        for args in [
            "net_af_packet0,iface=no-such-if",
            "net_af_xdp1,iface=no-such-if,start_queue=0",
            "net_pcap0,iface=no-such-if",
        ] {
            let (cause, _) = find(args).unwrap_or_default();
            assert!(cause.contains("`no-such-if`"), "{args}: {cause}");
        }
        assert_eq!(find("net_af_packet0,iface=lo"), None);
        assert!(find("net_af_packet0").is_some_and(|(_, remedy)| remedy.contains("iface=")));
    }

    #[test]
    fn files_and_names_are_looked_at() {
        let long = "net_tap0,iface=far-too-long-a-name";
        assert!(find(long).is_some());
        assert!(taken("net_tap0,iface=lo").is_some());
        assert_eq!(taken("net_tap0,iface=ripvs-free"), None);
        let (cause, _) = find("net_pcap0,rx_pcap=/no/such.pcap,tx_pcap=/tmp/x").unwrap_or_default();
        assert!(cause.contains("/no/such.pcap"), "{cause}");
        let memif = "net_memif0,role=server,socket=/no/such/m.sock";
        assert_eq!(find(memif), None, "an abstract socket has no folder");
        assert!(find(&format!("{memif},socket-abstract=no")).is_some());
        assert_eq!(find("net_null0"), None);
        assert_eq!(find("0000:03:00.0"), None);
    }

    #[test]
    fn a_pci_address_without_a_device_is_said_to_be_that() {
        if let Some(cause) = pci("ffff:ff:1f.7") {
            assert!(cause.contains("no PCI device ffff:ff:1f.7"), "{cause}");
        }
    }
}
