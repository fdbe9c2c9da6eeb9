//! The connection to ripvsd that stands for a netlink socket: made in the socket's place and under its number, and made
//! anew when ripvsd has been restarted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ripvs_api::{client, socket, ClientError};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags};

use crate::table::{self, Kind};
use crate::{next, request, tell};

/// How long a request waits for a ripvsd that has gone, as one that is restarted is back in a moment. What a program of
/// the kernel's IPVS could not send it would not send again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks meanwhile.
const GLANCE: Duration = Duration::from_millis(50);

/// What is to be known of a connection.
#[derive(Debug, Default)]
struct Session {
    /// The port id that the netlink socket had, and the program knows.
    port: u32,
    /// The last datagram sent.
    last: Vec<u8>,
    /// Whether anything has come since.
    answered: bool,
    /// Whether the answer to it has come to its end.
    complete: bool,
}

/// The connection of the last socket, kept for the next one: ipvsadm opens a socket for every line that it restores.
#[derive(Debug)]
struct Spare {
    /// Our own descriptor of it.
    door: Option<OwnedFd>,
    /// The file that this was.
    file: Option<u64>,
    /// The program's descriptor for it.
    fd: RawFd,
}

impl Spare {
    fn new(door: OwnedFd, fd: RawFd) -> Spare {
        Spare {
            file: table::identity(door.as_raw_fd()),
            door: Some(door),
            fd,
        }
    }

    /// The connection, unless a program that closes whatever is open has closed ours too: then the number may be that of
    /// another file by now, which is not to be touched.
    fn take(&mut self) -> Option<OwnedFd> {
        let door = self.door.take()?;
        if self.file.is_some() && self.file == table::identity(door.as_raw_fd()) {
            return Some(door);
        }
        let _ = door.into_raw_fd();
        None
    }

    /// Whether the program still has the socket that the connection was given to.
    fn is_open(&self) -> bool {
        self.file.is_some() && self.file == table::identity(self.fd)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        drop(self.take());
    }
}

static SPARE: Mutex<Option<Spare>> = Mutex::new(None);

fn spare() -> MutexGuard<'static, Option<Spare>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

static SESSIONS: Mutex<BTreeMap<RawFd, Session>> = Mutex::new(BTreeMap::new());

fn sessions() -> MutexGuard<'static, BTreeMap<RawFd, Session>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where ripvsd listens, as the environment was when it first mattered.
pub fn path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| client::socket_path(None))
}

/// Puts a connection to ripvsd in the place of a netlink socket.
///
/// # Errors
/// Where there is no ripvsd, ENOENT: the kernel's answer where there is no IPVS. The user is told more.
pub fn take_over(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let port = port_of(fd)?;
    let mut spare = spare();
    let kept = spare.take_if(|spare| !spare.is_open());
    let kept = kept.and_then(|mut spare| {
        let fd = spare.fd;
        spare.take().filter(|door| is_clean(door, fd))
    });
    let door = match kept {
        Some(door) => door,
        None => connect(Duration::ZERO).map_err(|trouble| {
            tell::once(&trouble);
            match trouble {
                ClientError::NotRunning(_) => Errno::NOENT,
                ClientError::NotAllowed(_) => Errno::PERM,
                _ => Errno::CONNREFUSED,
            }
        })?,
    };
    replace(fd, &door)?;
    if spare.is_none() && alone_after_fork() {
        *spare = Some(Spare::new(door, fd.as_raw_fd()));
    }
    drop(spare);
    let session = Session {
        port,
        ..Session::default()
    };
    sessions().insert(fd.as_raw_fd(), session);
    table::set(fd.as_raw_fd(), Kind::Link);
    Ok(())
}

/// Whether nothing is left on a connection of what went over it before: the last answer has come whole, and no other.
fn is_clean(door: &OwnedFd, fd: RawFd) -> bool {
    let complete = sessions().get(&fd).is_some_and(|session| session.complete);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    complete && rustix::net::recv(door, &mut [0u8; 1][..], flags) == Err(Errno::AGAIN)
}

/// Sees to it that no connection is kept over a fork: parent and child would take each other's answers. Whether that can be.
fn alone_after_fork() -> bool {
    static SEEN_TO: OnceLock<bool> = OnceLock::new();
    *SEEN_TO.get_or_init(|| next::before_forks(forget_spare))
}

/// Called before a fork.
extern "C" fn forget_spare() {
    // Who holds the lock in another thread is about to keep a connection, and the child must not wait for it.
    if let Ok(mut spare) = SPARE.try_lock() {
        *spare = None;
    }
}

/// The port id of the netlink socket that `fd` was.
pub fn port(fd: RawFd) -> u32 {
    sessions().get(&fd).map_or(0, |session| session.port)
}

/// Sends a datagram; if ripvsd has gone meanwhile, to the next one.
///
/// # Errors
/// As send(2) has them; ECONNREFUSED where there is no ripvsd any more.
pub fn send(fd: BorrowedFd<'_>, mut datagram: Vec<u8>, flags: SendFlags) -> Result<usize, Errno> {
    let flags = flags | SendFlags::NOSIGNAL;
    request::name_sender(&mut datagram, port(fd.as_raw_fd()));
    let sent = match rustix::net::send(fd, &datagram, flags) {
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
            renew(fd, patience(fd))?;
            rustix::net::send(fd, &datagram, flags)
        }
        other => other,
    }?;
    if let Some(session) = sessions().get_mut(&fd.as_raw_fd()) {
        session.last = datagram;
        session.answered = false;
        session.complete = false;
    }
    Ok(sent)
}

/// Notes that an answer has come, this part of it last.
pub fn answered(fd: RawFd, datagram: &[u8]) {
    if let Some(session) = sessions().get_mut(&fd) {
        session.answered = true;
        session.complete = request::is_answered_by(&session.last, datagram);
    }
}

/// Whether ripvsd has closed the connection: its datagrams are never empty.
pub fn is_closed(fd: BorrowedFd<'_>) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    matches!(
        rustix::net::recv(fd, &mut [0u8; 1][..], flags),
        Ok((_, 0)) | Err(Errno::CONNRESET)
    )
}

/// Finds the next ripvsd after one has gone while the program waits for something. A request without any answer is sent
/// again; if it had been done already, the answer will be that.
///
/// # Errors
/// ENOBUFS where answers were lost, as netlink has it; ECONNREFUSED where there is no ripvsd any more.
pub fn revive(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut sessions = sessions();
    let session = sessions.entry(fd.as_raw_fd()).or_default();
    let repeat = !session.answered && request::may_be_repeated(&session.last);
    let last = std::mem::take(&mut session.last);
    drop(sessions);
    if !repeat {
        renew(fd, Duration::ZERO)?;
        return Err(Errno::NOBUFS);
    }
    renew(fd, patience(fd))?;
    // What is sent is no longer kept: it is repeated once.
    rustix::net::send(fd, &last, SendFlags::NOSIGNAL).map_err(|_| Errno::CONNREFUSED)?;
    Ok(())
}

/// How long a request on this socket may wait for ripvsd.
fn patience(fd: BorrowedFd<'_>) -> Duration {
    match rustix::fs::fcntl_getfl(fd) {
        Ok(flags) if flags.contains(OFlags::NONBLOCK) => Duration::ZERO,
        _ => PATIENCE,
    }
}

fn renew(fd: BorrowedFd<'_>, patience: Duration) -> Result<(), Errno> {
    let door = connect(patience).map_err(|trouble| {
        tell::once(trouble);
        Errno::CONNREFUSED
    })?;
    replace(fd, &door)?;
    table::set(fd.as_raw_fd(), Kind::Link);
    Ok(())
}

fn connect(patience: Duration) -> Result<OwnedFd, ClientError> {
    let path = path();
    let deadline = Instant::now() + patience;
    loop {
        let trouble = match socket::connect(path) {
            Ok(door) => return Ok(door),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning(path.clone())
                }
                ErrorKind::PermissionDenied => ClientError::NotAllowed(path.clone()),
                _ => ClientError::Io(error),
            },
        };
        if !matches!(trouble, ClientError::NotRunning(_)) || Instant::now() >= deadline {
            return Err(trouble);
        }
        thread::sleep(GLANCE);
    }
}

/// Puts `door` under the number of `fd`, with what the program had set on that.
fn replace(fd: BorrowedFd<'_>, door: &OwnedFd) -> Result<(), Errno> {
    let nonblock = rustix::fs::fcntl_getfl(fd)? & OFlags::NONBLOCK;
    let flags = rustix::fs::fcntl_getfl(door)?;
    if flags & OFlags::NONBLOCK != nonblock {
        rustix::fs::fcntl_setfl(door, (flags - OFlags::NONBLOCK) | nonblock)?;
    }
    for which in [Timeout::Recv, Timeout::Send] {
        sockopt::set_socket_timeout(door, which, sockopt::socket_timeout(fd, which)?)?;
    }
    let close_on_exec = rustix::io::fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC);
    table::duplicate_onto(door, fd, close_on_exec)
}

/// The socket's port id. One that has none yet gets one, as it would when sending.
fn port_of(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let read = || SocketAddrNetlink::try_from(rustix::net::getsockname(fd)?);
    let port = read()?.pid();
    if port != 0 {
        return Ok(port);
    }
    rustix::net::bind(fd, &SocketAddrNetlink::new(0, 0))?;
    Ok(read()?.pid())
}
