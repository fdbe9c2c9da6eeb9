//! DPDK's environment layer: started once a process, and why it didn't start. Owns the process-wide facts (initialised,
//! live handles, all pools). Devices are attached by `device`, threads registered by `thread`.
//!
//! Sound because every function that calls into DPDK takes an `Eal` or something made with one, and DPDK's memory is given
//! back by `Eal::shutdown` only, which refuses while a handle or an mbuf is out.
#![allow(unsafe_code)]

use std::ffi::{c_char, CStr, CString};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{EalError, Errno};
use crate::quiet::Quiet;
use crate::{interrupts, logs, mempool, thread};

static STARTED: AtomicBool = AtomicBool::new(false);
static INITIALISED: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicUsize = AtomicUsize::new(0);
pub(crate) static POOLS: Mutex<Vec<&'static mempool::Inner>> = Mutex::new(Vec::new());

/// How pools' common rings are kept. DPDK's default has a thread wait for one that was preempted in the middle of a ring
/// operation; this one doesn't, which counts where threads are more than cores. Behind the caches it costs the same
/// (net_null, 16 ns a packet either way), without them 3 ns a packet more.
const POOL_RING: &str = "ring_mt_rts";

/// Part of each handle (device, queue, pool, registered thread) that keeps DPDK's memory in use.
#[derive(Debug)]
pub(crate) struct Live(());

impl Live {
    pub(crate) fn new() -> Self {
        LIVE.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Clone for Live {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Proof that DPDK runs. It stays with the thread that started it, the control thread: devices are attached and
/// configured there. Dropping it does nothing; see [`Eal::shutdown`].
#[derive(Debug)]
pub struct Eal {
    this_thread: PhantomData<*const ()>,
}

/// Why [`Eal::shutdown`] did not shut down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownError {
    /// Devices, queues, pool handles or registered threads are alive: that many.
    Handles(usize),
    /// Mbufs of this pool are still held: that many.
    Mbufs {
        /// The pool's name.
        pool: String,
        /// How many.
        held: u32,
    },
}

impl std::fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handles(count) => write!(
                f,
                "{count} devices, queues, pools or registered threads are still in use"
            ),
            Self::Mbufs { pool, held } => write!(f, "{held} mbufs of pool {pool} are still held"),
        }
    }
}

impl std::error::Error for ShutdownError {}

impl Eal {
    /// Starts DPDK with EAL arguments (without the program's name), once a process.
    ///
    /// Where the arguments choose no cores, the calling thread becomes DPDK's only lcore and may run on all the cores it
    /// could before (DPDK would start a thread per core, and pin this one to the first). Its CPU affinity is as before in
    /// any case. DPDK's log goes to the `log` crate from here on, target `dpdk`.
    ///
    /// # Errors
    /// [`EalError`] with cause and remedy. After a failure the process cannot try again; DPDK keeps half of its state.
    pub fn init<S: AsRef<str>>(args: &[S]) -> Result<Self, EalError> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let affinity = thread::Affinity::of_this_thread();
        let mut argv = vec!["ripvs".to_owned()];
        if !args.iter().any(|arg| chooses_cores(arg)) {
            if let Some(cores) = affinity.as_ref().and_then(thread::Affinity::list) {
                argv.push(format!("--lcores=0@({cores})"));
            }
        }
        if !args
            .iter()
            .any(|arg| arg.starts_with("--mbuf-pool-ops-name"))
        {
            argv.push(format!("--mbuf-pool-ops-name={POOL_RING}"));
        }
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        let strings: Vec<CString> = argv
            .into_iter()
            .map(|arg| {
                CString::new(arg).map_err(|_| EalError::Arguments {
                    said: "one holds a NUL".into(),
                })
            })
            .collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyInitialised);
        }
        logs::install();
        logs::clear();
        // DPDK permutes the array and may keep pointers into the strings: both live as long as the process.
        let mut pointers: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
        let count = pointers.len() as i32; // A command line has fewer than 2^31 arguments.
        pointers.push(std::ptr::null_mut());
        let pointers: &'static mut [*mut c_char] = pointers.leak();
        let asks_for_usage = args
            .iter()
            .any(|arg| matches!(*arg, "-h" | "--help" | "-v"));
        let quiet = if asks_for_usage { None } else { Quiet::begin() };
        // SAFETY: argc and argv describe a null-terminated array of strings, writable and never freed; STARTED makes this
        // the only call.
        let status = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        // SAFETY: reads a thread-local integer.
        let errno = unsafe { dpdk_sys::shim_errno() };
        drop(quiet);
        if let Some(affinity) = affinity {
            affinity.restore();
        }
        if status < 0 {
            return Err(diagnose(errno, &args, &logs::complaints()));
        }
        INITIALISED.store(true, Ordering::SeqCst);
        Ok(Self {
            this_thread: PhantomData,
        })
    }

    /// The EAL arguments that let DPDK touch the PCI devices named here and no other: `--no-pci` where no name is a PCI
    /// address, else `-a ADDRESS` for each. Without them DPDK probes every device bound to a driver it knows, a virtual
    /// machine's own NIC among them.
    pub fn device_args(devices: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = devices
            .iter()
            .filter(|device| crate::devargs::is_pci(device))
            .flat_map(|device| ["-a".to_owned(), (*device).to_owned()])
            .collect();
        if args.is_empty() {
            args.push("--no-pci".to_owned());
        }
        args
    }

    /// Version of the DPDK that runs, as it names itself ("DPDK 22.11.11").
    pub fn version(&self) -> String {
        // SAFETY: returns a static string.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }

    /// Whether memory comes from huge pages. Physical NICs work with them only.
    pub fn has_hugepages(&self) -> bool {
        // SAFETY: reads EAL's configuration; EAL is initialised, as `self` proves.
        unsafe { dpdk_sys::rte_eal_has_hugepages() != 0 }
    }

    /// Ends DPDK and frees its memory, which a driver that left something to DPDK's interrupt thread (net_memif) keeps until
    /// the process ends. To be called at the end of the process, after all queues, ports, pools, mbufs and
    /// registered threads are gone. Leaves nothing behind where the arguments have `--no-shconf`; else DPDK's files stay in
    /// its run-time directory (`/run/dpdk/PREFIX`), as after a process that exits without this, and the next start cleans
    /// them.
    ///
    /// # Errors
    /// [`ShutdownError`], and DPDK goes on running, where something is still held.
    pub fn shutdown(self) -> Result<(), ShutdownError> {
        // From here on no thread is registered; one that is just being so has its `Live` already, and is seen.
        INITIALISED.store(false, Ordering::SeqCst);
        let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held_by = pools.iter().filter_map(|pool| {
            // SAFETY: DPDK is shut down below, and once only, since `self` is consumed then.
            let held = unsafe { pool.in_use() };
            (held != 0).then(|| ShutdownError::Mbufs {
                pool: pool.name().to_owned(),
                held,
            })
        });
        let live = LIVE.load(Ordering::SeqCst);
        let reason = if live != 0 {
            Some(ShutdownError::Handles(live))
        } else {
            held_by.next()
        };
        if let Some(reason) = reason {
            INITIALISED.store(true, Ordering::SeqCst);
            return Err(reason);
        }
        // SAFETY: EAL is initialised; the result is a static, terminated string.
        let directory = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
        let directory = std::path::PathBuf::from(directory.to_string_lossy().into_owned());
        if !interrupts::left_behind() {
            // SAFETY: no device, queue, pool handle or registered thread is alive, none can be made any more, every mbuf is in
            // its pool, and no driver left anything to the interrupt thread: nobody has a pointer into DPDK's memory.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
        // DPDK would remove its telemetry socket at exit; the directory goes only where nothing else is in it.
        let _ = std::fs::remove_file(directory.join("dpdk_telemetry.v2"));
        let _ = std::fs::remove_dir(directory);
        Ok(())
    }
}

/// Whether DPDK runs.
pub(crate) fn initialised() -> bool {
    INITIALISED.load(Ordering::SeqCst)
}

fn chooses_cores(arg: &str) -> bool {
    // getopt takes `-l 1-3` and `-l1-3`; `--log-level` and the like have two dashes.
    let short = ["-l", "-c", "-S"]
        .iter()
        .any(|option| arg.starts_with(option));
    short || arg.starts_with("--lcores") || arg.starts_with("--main-lcore")
}

/// Puts an error number and what DPDK logged into the operator's words.
fn diagnose(errno: i32, args: &[&str], log: &[String]) -> EalError {
    let said = if log.is_empty() {
        "it said nothing".to_owned()
    } else {
        log.join("; ")
    };
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let no_huge = args.contains(&"--no-huge");
    if has(&["Cannot create lock", "another primary process"]) {
        return EalError::Busy { said };
    }
    let denied = has(&["Permission denied", "not permitted"]);
    // DPDK returns EACCES for missing huge pages too.
    if !no_huge && !denied && has(&["hugepage", "huge page", "hugetlbfs", "HUGE"]) {
        let asked = args.iter().position(|arg| *arg == "-m");
        let asked = asked.and_then(|at| args.get(at + 1));
        let asked = asked.map_or_else(String::new, |size| {
            format!(", while `-m` asks for {size} MiB")
        });
        return EalError::Hugepages {
            cause: hugepages_now().unwrap_or(said) + &asked,
        };
    }
    if denied || errno == libc::EACCES || errno == libc::EPERM {
        return EalError::Permission { cause: said };
    }
    if has(&[
        "Cannot init memory",
        "Cannot allocate memory",
        "mmap() failed",
    ]) {
        return EalError::Memory { said };
    }
    if has(&[
        "failed to probe",
        "Bus (",
        "cannot probe",
        "Cannot probe",
        "failed to parse device",
        "Cannot find device",
    ]) {
        return EalError::Device { said };
    }
    if has(&[
        "command line",
        "nvalid argument",
        "invalid parameters",
        "conflict",
    ]) || errno == libc::EINVAL
    {
        return EalError::Arguments { said };
    }
    EalError::Other {
        errno: Errno(errno),
        said,
    }
}

/// What the kernel says of huge pages: how many, how many free, and whether hugetlbfs is mounted.
fn hugepages_now() -> Option<String> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = |key: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (total, free) = (value("HugePages_Total:")?, value("HugePages_Free:")?);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some("hugetlbfs"));
    let mounted = if mounted {
        "hugetlbfs is mounted"
    } else {
        "hugetlbfs is not mounted"
    };
    Some(format!(
        "{total} pages of {} KiB are reserved, {free} of them free, and {mounted}",
        value("Hugepagesize:")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn core_options_are_recognised_and_log_options_are_not_taken_for_them() {
        for arg in [
            "-l",
            "-l1-3",
            "-c",
            "--lcores",
            "--lcores=0@1",
            "--main-lcore",
        ] {
            assert!(chooses_cores(arg), "{arg}");
        }
        for arg in [
            "--log-level=8",
            "--no-huge",
            "-m",
            "--legacy-mem",
            "net_tap0",
        ] {
            assert!(!chooses_cores(arg), "{arg}");
        }
    }

    #[test]
    fn missing_hugepages_are_told_from_other_failures() {
        let log = said(&[
            "EAL: No free 2048 kB hugepages reported on node 0",
            "EAL: FATAL: Cannot get hugepage information.",
        ]);
        assert!(matches!(
            diagnose(libc::EACCES, &[], &log),
            EalError::Hugepages { .. }
        ));
        let EalError::Hugepages { cause } = diagnose(libc::EACCES, &["-m", "60000"], &log) else {
            unreachable!("as above");
        };
        assert!(cause.contains("60000 MiB"), "{cause}");
        // The same words with --no-huge can't be about huge pages.
        assert!(!matches!(
            diagnose(libc::ENOENT, &["--no-huge"], &log),
            EalError::Hugepages { .. }
        ));
    }

    #[test]
    fn a_permission_a_lock_and_a_bad_device_each_have_their_error() {
        assert!(matches!(
            diagnose(libc::EACCES, &[], &said(&["x"])),
            EalError::Permission { .. }
        ));
        let lock = said(&["EAL: Cannot create lock on '/var/run/dpdk/rte/config'. Is another primary process running?"]);
        assert!(matches!(
            diagnose(libc::EAGAIN, &[], &lock),
            EalError::Busy { .. }
        ));
        let device = said(&["EAL: failed to parse device \"net_nosuch0\""]);
        assert!(matches!(
            diagnose(libc::ENODEV, &[], &device),
            EalError::Device { .. }
        ));
    }

    #[test]
    fn only_named_pci_devices_are_allowed() {
        assert_eq!(Eal::device_args(&["net_tap0,iface=x"]), ["--no-pci"]);
        assert_eq!(
            Eal::device_args(&["0000:01:00.0", "net_tap0"]),
            ["-a", "0000:01:00.0"]
        );
    }
}
