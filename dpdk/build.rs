//! Finds the installed libdpdk by pkg-config, generates bindings for the names that ripvs uses, compiles the C shim and
//! links the DPDK libraries it needs. Drivers are not linked: EAL loads them as plug-ins (see lib.rs).

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// Oldest DPDK whose interfaces the shim is written for.
const OLDEST: &str = "22.11";

/// Libraries whose symbols ripvs or the shim's inline functions name. `rte_log` is its own library from 23.11 on; what
/// the installed release doesn't have is left out.
const LIBRARIES: &[&str] = &[
    "rte_ethdev",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_eal",
    "rte_log",
];

/// DPDK functions bound as they are; the inline ones come by `shim_.*`.
const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_version",
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_alarm_set",
    "rte_eal_alarm_cancel",
    "rte_eal_has_hugepages",
    "rte_eal_get_runtime_dir",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_openlog_stream",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_pool_create_by_ops",
    "rte_pktmbuf_free_bulk",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_configure",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_set_link_up",
    "rte_eth_macaddr_get",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_mac_addr_add",
    "rte_eth_dev_mac_addr_remove",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_disable",
    "rte_eth_allmulticast_enable",
    "rte_eth_allmulticast_disable",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_rss_reta_query",
];

fn main() {
    if let Err(error) = build() {
        eprintln!("dpdk-sys: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    for input in ["build.rs", "shim.h", "shim.c"] {
        println!("cargo:rerun-if-changed={input}");
    }
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    pkg_config(&["--exists", &format!("libdpdk >= {OLDEST}")]).map_err(|reason| {
        format!("libdpdk {OLDEST} or later is needed (Debian: apt-get install libdpdk-dev clang): {reason}")
    })?;
    // The flags carry `-include rte_config.h` and the baseline -march, without which the headers don't compile.
    let cflags = words(&pkg_config(&["--cflags", "libdpdk"])?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut shim = cc::Build::new();
    shim.file("shim.c")
        .flag("-Wno-deprecated-declarations")
        .opt_level(2);
    for flag in &cflags {
        shim.flag(flag);
    }
    shim.try_compile("dpdk_shim")?;

    let mut bindings = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(&cflags)
        // Reached only by pointer: opaque, because their layout (bit fields, cache-line markers, packed and aligned at
        // once) differs between releases. What is read of an mbuf is read at the offsets that shim.h exports.
        .opaque_type("rte_mbuf|rte_mempool|rte_device|FILE|_IO_FILE")
        .opaque_type("rte_eth_.*dcb.*|rte_eth_vmdq.*|rte_eth_rxseg.*|rte_eth_rxconf__bindgen.*")
        .allowlist_var("SHIM_.*")
        .allowlist_type("shim_.*")
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false);
    for function in FUNCTIONS {
        bindings = bindings.allowlist_function(function);
    }
    bindings
        .generate()?
        .write_to_file(out.join("bindings.rs"))?;

    let installed = words(&pkg_config(&["--libs", "libdpdk"])?);
    for flag in &installed {
        if let Some(path) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={path}");
        }
    }
    for library in LIBRARIES {
        if installed.iter().any(|flag| flag == &format!("-l{library}")) {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
    Ok(())
}

fn pkg_config(arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{program} {} failed {reason}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
