//! The control socket's place in the file system, and who may use it. One daemon has it: a lock beside it says which.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{chown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{geteuid, Gid, Group, Uid, User};
use ripvs_api::socket;

/// Why there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// Another daemon has it; its process id, where it is known.
    InUse(PathBuf, Option<u32>),
    /// There is no such group.
    NoGroup(String),
    /// Something else, with what was being done.
    Io(String, io::Error),
}

impl std::fmt::Display for SocketError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SocketError::InUse(path, Some(pid)) => write!(
                out,
                "another ripvsd (process {pid}) has the socket {}; stop it, or give this one another `socket`",
                path.display()
            ),
            SocketError::InUse(path, None) => write!(
                out,
                "something answers at {} already; stop it, or give this daemon another `socket`",
                path.display()
            ),
            SocketError::NoGroup(name) => write!(
                out,
                "there is no group `{name}` (socket_group); `groupadd --system {name}` makes it"
            ),
            SocketError::Io(what, error) => write!(
                out,
                "cannot {what}: {error}; its directory has to be one where ripvsd may write, and its path at most 100 \
                 characters long: name another by `socket` or --socket"
            ),
        }
    }
}

impl std::error::Error for SocketError {}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> SocketError {
    let what = what.into();
    move |error| SocketError::Io(what, error)
}

/// The listening socket. Its file and its lock's go with it.
pub struct ControlSocket {
    listener: OwnedFd,
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
    mode: u32,
    group: Option<Group>,
}

impl ControlSocket {
    /// Listens at `path`. The file has its mode and group before it appears there, and what a dead daemon left is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn open(path: &Path, mode: u32, group: Option<&str>) -> Result<ControlSocket, SocketError> {
        let group = match group {
            None => None,
            Some(name) => Some(
                Group::from_name(name)
                    .ok()
                    .flatten()
                    .ok_or_else(|| SocketError::NoGroup(name.to_string()))?,
            ),
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(io_error(format!("make {}", dir.display())))?;
        }
        let lock_path = beside(path, ".lock");
        let lock = lock(path, &lock_path)?;
        let at = |what: &str| format!("{what} the socket {}", path.display());
        // The lock is ours, so whoever answers there is no daemon of ours; and no daemon makes this other name.
        let new = beside(path, ".new");
        let _ = fs::remove_file(&new);
        let probe = socket::connect(path);
        if probe.is_ok() {
            return Err(SocketError::InUse(path.to_path_buf(), None));
        }
        let listener = socket::listen(&new).map_err(io_error(at("make")))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))
            .map_err(io_error(at("set the mode of")))?;
        if let Some(group) = &group {
            chown(&new, None, Some(group.gid.as_raw()))
                .map_err(io_error(at("set the group of")))?;
        }
        fs::rename(&new, path).map_err(io_error(at("put in place")))?;
        Ok(ControlSocket {
            listener,
            path: path.to_path_buf(),
            lock_path,
            _lock: lock,
            mode,
            group,
        })
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The next client, if there is one. Who may not use the socket is turned away.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let client = match socket::accept(&self.listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let peer = socket::peer(&client)?;
        if self.may_use(peer.uid, peer.gid) {
            return Ok(Some(client));
        }
        log::warn!(
            "process {} of user {} may not use the control socket and is turned away",
            peer.pid,
            peer.uid
        );
        // It is closed here, and the caller asks for the next.
        drop(client);
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// Root, the daemon's own user, and who the mode admits: the group's members, or everybody.
    fn may_use(&self, uid: u32, gid: u32) -> bool {
        let owner = uid == 0 || uid == geteuid().as_raw();
        owner || self.mode & 0o002 != 0 || (self.mode & 0o020 != 0 && self.in_group(uid, gid))
    }

    fn in_group(&self, uid: u32, gid: u32) -> bool {
        let Some(group) = &self.group else {
            return gid == Gid::effective().as_raw();
        };
        if gid == group.gid.as_raw() {
            return true;
        }
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.is_some_and(|user| user.gid == group.gid || group.mem.contains(&user.name))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        for path in [&self.path, &self.lock_path] {
            if let Err(error) = fs::remove_file(path) {
                log::warn!("{} stays behind: {error}", path.display());
            }
        }
    }
}

/// `path` with something added to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Takes the lock, and writes our process id into it.
fn lock(path: &Path, lock_path: &Path) -> Result<Flock<File>, SocketError> {
    let what = || format!("lock {}", lock_path.display());
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path)
            .map_err(io_error(what()))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                // Who it is is nice to know and no more.
                let _ = file.read_to_string(&mut text);
                return Err(SocketError::InUse(
                    path.to_path_buf(),
                    text.trim().parse().ok(),
                ));
            }
            Err((_, error)) => return Err(SocketError::Io(what(), error.into())),
        };
        // A daemon that ended between our opening and locking has removed the file: then this lock guards nothing.
        let ours = lock.metadata().map_err(io_error(what()))?.ino();
        let named = fs::metadata(lock_path).map(|found| found.ino());
        if named.is_ok_and(|named| named == ours) {
            let write = |lock: &mut Flock<File>| {
                lock.set_len(0)?;
                lock.seek(SeekFrom::Start(0))?;
                writeln!(lock, "{}", std::process::id())
            };
            write(&mut lock).map_err(io_error(what()))?;
            return Ok(lock);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path =
                std::env::temp_dir().join(format!("ripvs-socket-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_who_has_it() {
        let dir = Dir::new("second");
        let path = dir.0.join("sock");
        let first = ControlSocket::open(&path, 0o600, None).unwrap();
        let error = ControlSocket::open(&path, 0o600, None).err().unwrap();
        assert!(matches!(error, SocketError::InUse(_, Some(pid)) if pid == std::process::id()));
        drop(first);
        assert_eq!(
            fs::read_dir(&dir.0).unwrap().count(),
            0,
            "nothing is left behind"
        );
        ControlSocket::open(&path, 0o600, None).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = Dir::new("stale");
        let path = dir.0.join("sock");
        fs::create_dir_all(&dir.0).unwrap();
        drop(socket::listen(&path).unwrap());
        assert!(path.exists());
        let _socket = ControlSocket::open(&path, 0o600, None).unwrap();
        socket::connect(&path).unwrap();
    }

    #[test]
    fn another_program_s_socket_is_left_alone() {
        let dir = Dir::new("foreign");
        let path = dir.0.join("sock");
        fs::create_dir_all(&dir.0).unwrap();
        let _other = socket::listen(&path).unwrap();
        let error = ControlSocket::open(&path, 0o600, None).err().unwrap();
        assert!(matches!(error, SocketError::InUse(_, None)));
        socket::connect(&path).unwrap();
    }

    #[test]
    fn the_file_has_the_mode_that_was_asked_for() {
        let dir = Dir::new("mode");
        let path = dir.0.join("sock");
        let _socket = ControlSocket::open(&path, 0o620, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
    }

    #[test]
    fn who_may_use_it_follows_from_mode_and_group() {
        let dir = Dir::new("who");
        let stranger = 54321;
        let open = |mode| ControlSocket::open(&dir.0.join("sock"), mode, None).unwrap();
        let own_group = Gid::effective().as_raw();
        let socket = open(0o600);
        assert!(socket.may_use(0, stranger) && !socket.may_use(stranger, own_group));
        drop(socket);
        let socket = open(0o660);
        assert!(socket.may_use(stranger, own_group) && !socket.may_use(stranger, stranger));
        drop(socket);
        assert!(open(0o666).may_use(stranger, stranger));
    }

    #[test]
    fn an_unknown_group_is_named() {
        let dir = Dir::new("group");
        let error = ControlSocket::open(&dir.0.join("sock"), 0o660, Some("no-such-group"))
            .err()
            .unwrap();
        assert!(error.to_string().contains("no-such-group"));
    }
}
