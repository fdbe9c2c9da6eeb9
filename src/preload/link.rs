//! The connection to ripvsd that stands for a netlink socket: made in the socket's place and under its number, and made
//! anew when ripvsd has been restarted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
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
use crate::{request, tell};

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
    let door = connect(Duration::ZERO).map_err(|trouble| {
        tell::once(&trouble);
        match trouble {
            ClientError::NotRunning(_) => Errno::NOENT,
            ClientError::NotAllowed(_) => Errno::PERM,
            _ => Errno::CONNREFUSED,
        }
    })?;
    replace(fd, &door)?;
    let session = Session {
        port,
        ..Session::default()
    };
    sessions().insert(fd.as_raw_fd(), session);
    table::set(fd.as_raw_fd(), Kind::Link);
    Ok(())
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
    }
    Ok(sent)
}

/// Notes that an answer has come.
pub fn answered(fd: RawFd) {
    if let Some(session) = sessions().get_mut(&fd) {
        session.answered = true;
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
    rustix::fs::fcntl_setfl(door, flags | nonblock)?;
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
