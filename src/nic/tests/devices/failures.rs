//! How EAL's refusals read. EAL starts once a process, so each try is a process of its own: this test binary again, told by
//! an environment variable what to try.

use std::process::Command;

use ripvs_nic::{Device, Eal, EalError};

use crate::{Bed, Check};

/// In the order they run.
pub const CHECKS: &[Check] = &[
    ("missing_hugepages_are_named_with_the_way_out", no_hugepages),
    ("an_unknown_option_is_called_one", bad_option),
    ("a_bad_device_in_the_arguments_is_named", bad_device),
    ("too_much_memory_is_an_error", too_much_memory),
    (
        "a_second_process_with_the_same_prefix_is_told_of_the_first",
        same_prefix,
    ),
    ("a_second_start_in_one_process_is_refused", twice),
    (
        "without_rights_a_tap_says_which_it_needs",
        tap_without_rights,
    ),
    ("the_runtime_directory_goes_with_the_process", nothing_left),
    ("the_affinity_is_as_before_the_start", affinity),
];

/// The arguments to try, separated by blanks.
const TRY: &str = "RIPVS_NIC_TRY";
/// The user to try as. The process becomes that user by itself: the binary may lie where that user cannot run it.
const USER: &str = "RIPVS_NIC_TRY_USER";

/// In the process that tries: does so, and says what came of it. `None` in the test itself.
pub fn try_if_told() -> Option<String> {
    let args = std::env::var(TRY).ok()?;
    if let Ok(user) = std::env::var(USER) {
        let user = user.parse().expect("a number");
        become_user(user);
    }
    let before = std::thread::available_parallelism().ok();
    let args: Vec<&str> = args.split_whitespace().collect();
    let eal = match Eal::init(&args) {
        Ok(eal) => eal,
        Err(error) => return Some(format!("{error:?} {error}")),
    };
    let mut said = String::from("started");
    if std::thread::available_parallelism().ok() == before {
        said += ", affinity kept";
    }
    if let Err(error) = Device::attach(&eal, "net_tap0,iface=nictry0") {
        said += &format!(", tap: {error}");
    }
    // A second process while this one lives.
    if args.contains(&"--file-prefix=ripvs-nic-test") && !args.contains(&"--no-telemetry") {
        let second = try_with(&format!("{} --no-telemetry", args.join(" ")), None);
        said += &format!(", second: {second}");
    }
    if let Err(error) = eal.shutdown() {
        said += &format!(", shutdown: {error}");
    }
    Some(said)
}

#[allow(unsafe_code)] // The standard library has no such call for the own process.
fn become_user(user: u32) {
    // SAFETY: plain system calls, made before there is another thread.
    let refused = unsafe { libc::setgid(user) | libc::setuid(user) };
    assert_eq!(refused, 0, "this test needs root");
}

fn try_with(args: &str, user: Option<u32>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.env(TRY, args);
    if let Some(user) = user {
        command.env(USER, user.to_string());
    }
    let output = command.output().expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn no_hugepages(_: &Bed) {
    // On a machine that has huge pages too, no mount of them is there.
    let said = try_with("--no-pci --no-shconf --huge-dir=/nonexistent", None);
    assert!(said.contains("Hugepages {"), "{said}");
    assert!(
        said.contains("nr_hugepages") && said.contains("--no-huge"),
        "{said}"
    );
}

fn bad_option(_: &Bed) {
    for args in ["--nosuch", "--no-huge --in-memory", "--no-huge -l 9999"] {
        let said = try_with(args, None);
        assert!(said.contains("Arguments {"), "{args}: {said}");
    }
}

fn bad_device(_: &Bed) {
    let said = try_with("--no-huge --no-pci --no-shconf --vdev=net_nosuch0", None);
    assert!(
        said.contains("Device {") && said.contains("net_nosuch0"),
        "{said}"
    );
}

fn too_much_memory(_: &Bed) {
    let said = try_with("--no-huge --no-pci --no-shconf -m 100000000", None);
    assert!(said.contains("Memory {"), "{said}");
}

fn same_prefix(_: &Bed) {
    let said = try_with(
        "--no-huge --no-pci -m 64 --file-prefix=ripvs-nic-test",
        None,
    );
    // What DPDK leaves where processes may share it.
    let _ = std::fs::remove_dir_all("/run/dpdk/ripvs-nic-test");
    assert!(
        said.contains("second: Busy {") && said.contains("--file-prefix"),
        "{said}"
    );
}

fn twice(_: &Bed) {
    assert!(matches!(
        Eal::init(&["--no-huge"]),
        Err(EalError::AlreadyInitialised)
    ));
}

fn tap_without_rights(_: &Bed) {
    // The test's own binary may lie where another user can't reach it.
    let said = try_with("--no-huge --no-pci --no-shconf -m 64", Some(65534));
    assert!(
        said.contains("started") && said.contains("CAP_NET_ADMIN"),
        "{said}"
    );
}

fn affinity(_: &Bed) {
    for args in [
        "--no-huge --no-pci --no-shconf -m 64",
        "--no-huge --no-pci --no-shconf -m 64 -l 0",
    ] {
        let said = try_with(args, None);
        assert!(said.contains("affinity kept"), "{args}: {said}");
    }
}

fn nothing_left(_: &Bed) {
    let said = try_with(
        "--no-huge --no-pci --no-shconf -m 64 --file-prefix=ripvs-nic-gone",
        None,
    );
    assert!(
        said.contains("started") && !said.contains("shutdown"),
        "{said}"
    );
    assert!(!std::path::Path::new("/run/dpdk/ripvs-nic-gone").exists());
}
