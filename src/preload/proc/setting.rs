//! The settings in /proc/sys/net/ipv4/vs. A read gives what the setting was when the file was opened; each write sets it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use ripvs_api::ripvs::{Sysctl, SysctlName};
use ripvs_api::{ripvs, ClientError, Reply};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{connect, errno_of, in_memory};
use crate::table::{self, Kind};

/// The names of the settings that are open.
static NAMES: Mutex<BTreeMap<RawFd, String>> = Mutex::new(BTreeMap::new());

/// Opens a setting. Writes that pass by [`write`] fail, as the file in memory is sealed.
pub fn open(name: &str, flags: OFlags) -> Result<OwnedFd, ClientError> {
    let name = format!("net.ipv4.vs.{name}");
    let question = ripvs::Request::GetSysctl(SysctlName { name: name.clone() });
    let mut text = String::new();
    for reply in connect()?.call(question)? {
        if let Reply::Ripvs(ripvs::Reply::Sysctl(setting)) = reply {
            text = setting.value + "\n";
        }
    }
    let file = in_memory(text.as_bytes(), flags)?;
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(file.as_raw_fd(), name);
        table::set(file.as_raw_fd(), Kind::Setting);
    }
    Ok(file)
}

/// Sets the setting that is open as `fd`.
///
/// # Errors
/// Those of ripvsd: EINVAL where it takes no such value.
pub fn write(fd: RawFd, text: &[u8]) -> Result<usize, Errno> {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let name = names.get(&fd).cloned().ok_or(Errno::BADF)?;
    drop(names);
    let value = std::str::from_utf8(text).map_err(|_| Errno::INVAL)?;
    let setting = Sysctl {
        name,
        value: value.trim().into(),
    };
    let set = || connect()?.call(ripvs::Request::SetSysctl(setting));
    set().map_err(errno_of)?;
    Ok(text.len())
}
