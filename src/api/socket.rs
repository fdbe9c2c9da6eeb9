//! Unix sockets of type SOCK_SEQPACKET, for both ends: one datagram is one call, and its length is bounded.
//!
//! The server's sockets do not block; when to read and write is for the daemon's own polling.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    self, sockopt, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// What came of reading a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// That many bytes.
    Datagram(usize),
    /// One that was longer than the buffer, of that many bytes, and is lost.
    TooLong(usize),
    /// The other end has closed.
    Closed,
}

/// Who is at the other end of a connection, as of when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Listens at `path`. The socket does not block.
///
/// A socket file that nobody listens at is removed first. The file's mode is what the process's umask leaves; the caller
/// changes it before it tells anybody.
///
/// # Errors
/// EADDRINUSE where someone listens there or something else than a socket is there; others as bind(2) has them.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let addr = SocketAddrUnix::new(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) => {
            use std::os::unix::fs::FileTypeExt;
            if !found.file_type().is_socket() || answers(&addr)? {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let fd = seqpacket(SocketFlags::NONBLOCK)?;
    net::bind(&fd, &addr)?;
    net::listen(&fd, 64)?;
    Ok(fd)
}

/// Whether someone listens at `addr`.
fn answers(addr: &SocketAddrUnix) -> io::Result<bool> {
    // Without blocking, so that one whose backlog is full counts as alive too.
    let probe = seqpacket(SocketFlags::NONBLOCK)?;
    match net::connect(&probe, addr) {
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the next connection. Its socket does not block.
///
/// # Errors
/// `WouldBlock` where there is none; others as accept(2) has them.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::accept_with(listener, flags)?)
}

/// Who is at the other end.
///
/// # Errors
/// As getsockopt(2) has them.
pub fn peer(connection: impl AsFd) -> io::Result<Peer> {
    let found = sockopt::socket_peercred(connection)?;
    Ok(Peer {
        pid: found.pid.as_raw_nonzero().get(),
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}

/// Connects to the server at `path`. The socket blocks.
///
/// # Errors
/// As connect(2) has them.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let addr = SocketAddrUnix::new(path)?;
    let fd = seqpacket(SocketFlags::empty())?;
    net::connect(&fd, &addr)?;
    Ok(fd)
}

/// Bounds the time that sending and receiving may block.
///
/// # Errors
/// As setsockopt(2) has them.
pub fn set_timeout(fd: impl AsFd, timeout: Duration) -> io::Result<()> {
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(timeout))?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(timeout))?;
    Ok(())
}

/// Sends a datagram.
///
/// # Errors
/// `WouldBlock` where there is no room; `BrokenPipe` where the other end has closed; others as send(2) has them.
pub fn send(fd: impl AsFd, datagram: &[u8]) -> io::Result<()> {
    net::send(fd, datagram, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sends a datagram if there is room at once, on a socket that would block too.
///
/// # Errors
/// As [`send`].
pub fn try_send(fd: impl AsFd, datagram: &[u8]) -> io::Result<()> {
    net::send(fd, datagram, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Receives a datagram into `buffer`.
///
/// # Errors
/// `WouldBlock` where there is none; others as recv(2) has them. A client that closes with answers unread shows as
/// `ConnectionReset`, which is [`Received::Closed`] here.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let room = buffer.len();
    match net::recv(fd, &mut *buffer, RecvFlags::TRUNC) {
        Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => Ok(Received::Closed),
        Ok((_, length)) if length > room => Ok(Received::TooLong(length)),
        Ok((_, length)) => Ok(Received::Datagram(length)),
        Err(error) => Err(error.into()),
    }
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A path that is free; what is there is removed in the end.
    struct TempPath(PathBuf);

    impl TempPath {
        fn new(name: &str) -> TempPath {
            let name = format!("ripvs-api-{}-{name}", std::process::id());
            TempPath(std::env::temp_dir().join(name))
        }
    }

    impl Drop for TempPath {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn datagrams_keep_their_bounds() {
        let path = TempPath::new("bounds");
        let listener = listen(&path.0).unwrap();
        let client = connect(&path.0).unwrap();
        let server = accept(&listener).unwrap();
        send(&client, b"one").unwrap();
        send(&client, b"three").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(
            receive(&server, &mut buffer).unwrap(),
            Received::Datagram(3)
        );
        assert_eq!(receive(&server, &mut buffer).unwrap(), Received::TooLong(5));
        let error = receive(&server, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(peer(&server).unwrap().pid, std::process::id() as i32);
        drop(client);
        assert_eq!(receive(&server, &mut buffer).unwrap(), Received::Closed);
    }

    #[test]
    fn a_client_that_leaves_with_answers_unread_has_closed() {
        let path = TempPath::new("unread");
        let listener = listen(&path.0).unwrap();
        let client = connect(&path.0).unwrap();
        let server = accept(&listener).unwrap();
        send(&server, b"answer").unwrap();
        drop(client);
        assert_eq!(receive(&server, &mut [0; 4]).unwrap(), Received::Closed);
    }

    #[test]
    fn a_second_listener_is_refused_and_a_stale_socket_is_not() {
        let path = TempPath::new("stale");
        let first = listen(&path.0).unwrap();
        let error = listen(&path.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.0.exists());
        listen(&path.0).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let path = TempPath::new("file");
        fs::write(&path.0, "precious").unwrap();
        let error = listen(&path.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path.0).unwrap(), "precious");
    }
}
