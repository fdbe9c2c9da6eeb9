//! What the process has to be and to have before DPDK is asked: rights, and the arguments DPDK is started with.

use ripvs_nic::Eal;

use crate::config::values::Device;
use crate::config::Config;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// That this process may drive the devices it is told to.
///
/// # Errors
/// What is missing and how to get it.
pub fn check_rights(config: &Config) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status) {
        Some(capabilities) => missing_rights(config, capabilities).map_or(Ok(()), Err),
        // Without /proc nothing is known; DPDK will say.
        None => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_rights(config: &Config, capabilities: u64) -> Option<String> {
    let needs = |driver: &str| match driver {
        "net_tap" => &[CAP_NET_ADMIN][..],
        "net_af_packet" | "net_af_xdp" => &[CAP_NET_ADMIN, CAP_NET_RAW][..],
        _ => &[][..],
    };
    config.ports.iter().find_map(|port| {
        let mut wanted = needs(port.device.value.driver()).to_vec();
        let has_companion = port.companion.is_some()
            || config.bonds.iter().any(|bond| {
                bond.companion.is_some() && bond.members.value.contains(&port.name.value)
            });
        if has_companion && !wanted.contains(&CAP_NET_ADMIN) {
            wanted.push(CAP_NET_ADMIN);
        }
        let lacks = wanted.iter().any(|capability| capabilities & (1 << capability) == 0);
        lacks.then(|| {
            format!(
                "port {} ({}) needs the rights of root, or the capabilities net_admin and net_raw: run ripvsd as root, \
                 or `setcap cap_net_admin,cap_net_raw,cap_ipc_lock+ep` on it",
                port.name.value, port.device.value
            )
        })
    })
}

/// A number for the socket's path (FNV-1a): the daemon that comes after one that was killed finds, and cleans, what DPDK
/// left in its run-time directory.
fn name_of(socket: &std::path::Path) -> u64 {
    let bytes = socket.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The arguments that DPDK is started with: what the configuration says, and what it doesn't but should.
pub fn eal_arguments(config: &Config) -> Vec<String> {
    let mut arguments = config.eal_args.clone();
    let given = |name: &str| {
        config
            .eal_args
            .iter()
            .any(|argument| argument == name || argument.starts_with(&format!("{name}=")))
    };
    let no_huge = given("--no-huge");
    // Nothing of this process is to be found by another one.
    if !no_huge && !given("--in-memory") && !given("--huge-dir") {
        arguments.push("--in-memory".into());
    }
    if !given("--no-shconf") && !given("--proc-type") {
        arguments.push("--no-shconf".into());
    }
    if !given("--file-prefix") {
        arguments.push(format!(
            "--file-prefix=ripvsd-{:016x}",
            name_of(&config.socket)
        ));
    }
    if !given("--no-telemetry") && !given("--telemetry") {
        arguments.push("--no-telemetry".into());
    }
    // DPDK's own default of 64 MB without hugepages is too little for two ports.
    if no_huge && !given("-m") && !given("--socket-mem") {
        arguments.extend(["-m".into(), "256".into()]);
    }
    let devices: Vec<&str> = config
        .ports
        .iter()
        .map(|port| match &port.device.value {
            Device::Pci(address) => address.as_str(),
            Device::Vdev(text) => text.as_str(),
        })
        .collect();
    let chosen =
        given("--no-pci") || given("-a") || given("--allow") || given("-b") || given("--block");
    if !chosen {
        arguments.extend(Eal::device_args(&devices));
    }
    arguments
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{self, options::Options};

    fn config(text: &str) -> Config {
        config::from_text("", text, &Options::default()).unwrap()
    }

    const TAP: &str = "[[port]]\nname = \"eth0\"\ndevice = \"net_tap0\"";

    #[test]
    fn rights_are_asked_for_where_a_driver_needs_them() {
        let tap = config(TAP);
        assert!(missing_rights(&tap, 0).unwrap().contains("eth0"));
        assert_eq!(missing_rights(&tap, 1 << CAP_NET_ADMIN), None);
        let null = config("[[port]]\nname = \"eth0\"\ndevice = \"net_null0\"");
        assert_eq!(missing_rights(&null, 0), None);
        let bond = config(
            "[[port]]\nname = \"eth0\"\ndevice = \"net_null0\"\n[[bond]]\nname = \"bond0\"\n\
             members = [\"eth0\"]\nmode = \"broadcast\"\ncompanion = \"host0\"",
        );
        assert!(missing_rights(&bond, 0).is_some());
    }

    #[test]
    fn capabilities_are_read_from_the_process_s_status() {
        assert_eq!(
            effective("Name:\tx\nCapEff:\t0000000000003000\n"),
            Some(0x3000)
        );
        assert_eq!(effective(""), None);
    }

    #[test]
    fn without_hugepages_nothing_is_said_about_them() {
        let arguments = eal_arguments(&config(&format!("[eal]\nargs = [\"--no-huge\"]\n{TAP}")));
        assert!(!arguments.iter().any(|argument| argument == "--in-memory"));
        assert!(arguments.iter().any(|argument| argument == "--no-pci"));
        assert!(arguments.iter().any(|argument| argument == "256"));
    }

    #[test]
    fn a_pci_device_is_allowed_by_name_and_no_other() {
        let arguments = eal_arguments(&config(
            "[[port]]\nname = \"eth0\"\ndevice = \"0000:03:00.0\"",
        ));
        assert!(arguments.iter().any(|argument| argument == "--in-memory"));
        assert!(!arguments.iter().any(|argument| argument == "--no-pci"));
        assert!(arguments
            .iter()
            .any(|argument| argument.contains("0000:03:00.0")));
    }

    #[test]
    fn what_the_operator_says_is_not_said_again() {
        let arguments = eal_arguments(&config(
            "[eal]\nargs = [\"--no-huge\", \"-m\", \"64\", \"--no-pci\", \"--file-prefix=x\"]",
        ));
        for name in ["-m", "--no-pci", "--no-huge"] {
            assert_eq!(
                arguments
                    .iter()
                    .filter(|argument| *argument == name)
                    .count(),
                1,
                "{name}"
            );
        }
        assert!(!arguments
            .iter()
            .any(|argument| argument.starts_with("--file-prefix=ripvsd")));
    }
}
