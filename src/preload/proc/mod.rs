//! The files below /proc by which the kernel shows IPVS, served from ripvsd: `/proc/net/ip_vs` and its like, and the
//! settings in `/proc/sys/net/ipv4/vs`.

mod again;
mod format;
mod listing;
mod setting;

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use ripvs_api::{Client, ClientError};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use crate::{link, tell};

pub use again::{remember, rewind};
pub use setting::write as write_setting;

/// Longest name that is taken for a setting's.
const NAME_MAX: usize = 64;

/// A file of the kernel's IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File<'a> {
    /// `ip_vs`: services and dests.
    Services,
    /// `ip_vs_conn`: connections.
    Conns,
    /// `ip_vs_conn_sync`: connections, with who made them.
    ConnsSync,
    /// `ip_vs_stats`: all traffic.
    Stats,
    /// `ip_vs_stats_percpu`: the same, worker by worker.
    StatsPerCpu,
    /// The folder of the settings.
    Settings,
    /// A setting, by its name in the folder.
    Setting(&'a str),
}

impl<'a> File<'a> {
    /// The file that a path names, if it is one.
    pub fn at(path: &'a [u8]) -> Option<File<'a>> {
        // Nearly all paths end here.
        let below = path.strip_prefix(b"/proc/")?;
        if let Some(vs) = below.strip_prefix(b"sys/net/ipv4/vs") {
            return match std::str::from_utf8(vs).ok()?.strip_prefix('/') {
                None => vs.is_empty().then_some(File::Settings),
                Some("") => Some(File::Settings),
                Some(name) => {
                    (name.len() <= NAME_MAX && !name.contains('/')).then_some(File::Setting(name))
                }
            };
        }
        let net = [&b"net/"[..], b"self/net/", b"thread-self/net/"];
        match net.iter().find_map(|folder| below.strip_prefix(*folder))? {
            b"ip_vs" => Some(File::Services),
            b"ip_vs_conn" => Some(File::Conns),
            b"ip_vs_conn_sync" => Some(File::ConnsSync),
            b"ip_vs_stats" => Some(File::Stats),
            b"ip_vs_stats_percpu" => Some(File::StatsPerCpu),
            _ => None,
        }
    }

    /// A file of the kernel's with the same owner, mode and size: that to be asked for these, as ours may not exist.
    pub fn like(&self) -> &'static CStr {
        match self {
            File::Settings => c"/proc/sys/net/ipv4",
            File::Setting(_) => c"/proc/sys/net/ipv4/ip_forward",
            _ => c"/proc/self/net/dev",
        }
    }

    /// Opens the file. `None` for the folder, which the kernel may have or not.
    ///
    /// # Errors
    /// As open(2) has them; ENOENT where there is no ripvsd, as where the kernel has no IPVS.
    pub fn open(&self, flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let opened = match *self {
            File::Settings => return None,
            File::Setting(name) => setting::open(name, flags),
            _ if writes => return Some(Err(Errno::ACCESS)),
            File::Services => listing::services(flags),
            File::Stats => listing::stats(flags),
            File::StatsPerCpu => listing::stats_per_cpu(flags),
            File::Conns => listing::conns(format::CONNS, flags),
            File::ConnsSync => listing::conns(format::CONNS_SYNC, flags),
        };
        Some(opened.map_err(errno_of))
    }
}

fn connect() -> Result<Client, ClientError> {
    Client::connect(link::path())
}

/// The error number for what went wrong. The user is told, where it isn't ripvsd's answer.
fn errno_of(trouble: ClientError) -> Errno {
    match &trouble {
        ClientError::Refused(refusal) => return Errno::from_raw_os_error(refusal.errno.0),
        ClientError::Io(error) => {
            if let Some(number) = error.raw_os_error() {
                return Errno::from_raw_os_error(number);
            }
        }
        _ => tell::once(&trouble),
    }
    match trouble {
        ClientError::NotRunning(_) => Errno::NOENT,
        ClientError::NotAllowed(_) => Errno::ACCESS,
        _ => Errno::IO,
    }
}

/// A file in memory that holds `text` and can be read only.
fn in_memory(text: &[u8], flags: OFlags) -> Result<OwnedFd, ClientError> {
    let mut kind = MemfdFlags::ALLOW_SEALING;
    kind.set(MemfdFlags::CLOEXEC, flags.contains(OFlags::CLOEXEC));
    let file = rustix::fs::memfd_create(c"ip_vs", kind).map_err(io)?;
    let mut at = 0;
    while at < text.len() {
        at += rustix::io::pwrite(&file, &text[at..], at as u64).map_err(io)?;
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(io)?;
    Ok(file)
}

fn io(errno: Errno) -> ClientError {
    ClientError::Io(errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_all_their_paths() {
        for folder in ["/proc/net", "/proc/self/net", "/proc/thread-self/net"] {
            let at = |name| format!("{folder}/{name}");
            assert_eq!(File::at(at("ip_vs").as_bytes()), Some(File::Services));
            assert_eq!(File::at(at("ip_vs_conn").as_bytes()), Some(File::Conns));
            assert_eq!(File::at(at("ip_vs_app").as_bytes()), None);
            assert_eq!(File::at(at("tcp").as_bytes()), None);
        }
        let settings = b"/proc/sys/net/ipv4/vs";
        assert_eq!(File::at(settings), Some(File::Settings));
        let setting = b"/proc/sys/net/ipv4/vs/sloppy_tcp";
        assert_eq!(File::at(setting), Some(File::Setting("sloppy_tcp")));
        for other in [
            "/proc",
            "/proc/sys/net/ipv4/vs2",
            "/proc/sys/net/ipv4/vs/a/b",
            "ip_vs",
            "",
        ] {
            assert_eq!(File::at(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_file_in_memory_reads_as_its_text_and_refuses_writes() {
        let file = in_memory(b"10\n", OFlags::RDONLY).unwrap();
        let mut read = [0; 8];
        let length = rustix::io::read(&file, &mut read).unwrap();
        assert_eq!(&read[..length], b"10\n");
        assert_eq!(rustix::io::write(&file, b"11\n"), Err(Errno::PERM));
    }
}
