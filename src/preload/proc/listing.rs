//! Fills the files in /proc/net. Short ones are made when they are opened and lie in memory; a long list of connections
//! comes through a socket, page by page as it is read.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::thread;

use ripvs_api::ripvs::{ConnsEnd, ConnsFrom, Traffic};
use ripvs_api::{ipvs, ripvs, Client, ClientError, Reply};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::format::{self, ConnsFormat};
use super::{connect, in_memory, io};
use crate::{next, tell};

/// Connections in a page.
const PAGE: u32 = 4096;

/// `ip_vs`.
pub fn services(flags: OFlags) -> Result<OwnedFd, ClientError> {
    let mut client = connect()?;
    let mut text = String::new();
    for reply in client.call(ipvs::Request::GetInfo)? {
        if let Reply::Ipvs(ipvs::Reply::Info(info)) = reply {
            format::services_heading(&mut text, &info);
        }
    }
    for reply in client.call(ipvs::Request::DumpServices)? {
        let Reply::Ipvs(ipvs::Reply::Service(service)) = reply else {
            continue;
        };
        format::service(&mut text, &service);
        for reply in client.replies(ipvs::Request::DumpDests(Some(service.key)))? {
            if let Reply::Ipvs(ipvs::Reply::Dest(dest)) = reply? {
                format::dest(&mut text, &dest);
            }
        }
    }
    in_memory(text.as_bytes(), flags)
}

/// `ip_vs_stats`.
pub fn stats(flags: OFlags) -> Result<OwnedFd, ClientError> {
    let (_, total) = traffic()?;
    let mut text = String::new();
    format::stats(&mut text, &total);
    in_memory(text.as_bytes(), flags)
}

/// `ip_vs_stats_percpu`.
pub fn stats_per_cpu(flags: OFlags) -> Result<OwnedFd, ClientError> {
    let (workers, total) = traffic()?;
    let mut text = String::new();
    format::stats_per_cpu(&mut text, &workers, &total);
    in_memory(text.as_bytes(), flags)
}

/// Each worker's traffic, and the sum.
fn traffic() -> Result<(Vec<Traffic>, Traffic), ClientError> {
    let mut workers = Vec::new();
    let mut total = Traffic::new(None, &ipvs::Stats::default());
    for reply in connect()?.call(ripvs::Request::Traffic)? {
        match reply {
            Reply::Ripvs(ripvs::Reply::Traffic(sum)) if sum.worker.is_none() => total = sum,
            Reply::Ripvs(ripvs::Reply::Traffic(one)) => workers.push(one),
            _ => {}
        }
    }
    Ok((workers, total))
}

/// `ip_vs_conn` or `ip_vs_conn_sync`.
pub fn conns(format: ConnsFormat, flags: OFlags) -> Result<OwnedFd, ClientError> {
    let mut client = connect()?;
    let mut text = String::from(format.heading);
    match page(&mut client, 0, format, &mut text)? {
        None => in_memory(text.as_bytes(), flags),
        Some(next) => stream(client, format, text, next, flags),
    }
}

/// Adds a page to `text`. Returns where the next one begins.
fn page(
    client: &mut Client,
    cursor: u64,
    format: ConnsFormat,
    text: &mut String,
) -> Result<Option<u64>, ClientError> {
    let mut after = None;
    let limit = PAGE;
    for reply in client.replies(ripvs::Request::Conns(ConnsFrom { cursor, limit }))? {
        match reply? {
            Reply::Ripvs(ripvs::Reply::Conn(conn)) => (format.line)(text, &conn),
            Reply::Ripvs(ripvs::Reply::ConnsEnd(ConnsEnd { next })) => after = next,
            _ => {}
        }
    }
    Ok(after)
}

/// The reading end of a list that a thread writes as far ahead as the socket has room.
///
/// Unlike a pipe's, a socket's writer can be spared the signal when the reader has left.
fn stream(
    mut client: Client,
    format: ConnsFormat,
    mut text: String,
    mut cursor: u64,
    flags: OFlags,
) -> Result<OwnedFd, ClientError> {
    let (reader, writer) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io)?;
    if !flags.contains(OFlags::CLOEXEC) {
        rustix::io::fcntl_setfd(&reader, FdFlags::empty()).map_err(io)?;
    }
    // A reader that writes by mistake is told so.
    rustix::net::shutdown(&reader, rustix::net::Shutdown::Write).map_err(io)?;
    let write = move || loop {
        if send_all(&writer, text.as_bytes()).is_err() {
            return;
        }
        text.clear();
        match page(&mut client, cursor, format, &mut text) {
            Ok(Some(next)) => cursor = next,
            Ok(None) => {
                let _ = send_all(&writer, text.as_bytes());
                return;
            }
            Err(trouble) => {
                let mut words = String::from("the list of connections is not complete: ");
                let _ = write!(words, "{trouble}");
                return tell::once(words);
            }
        }
    };
    let thread = thread::Builder::new().name("ip_vs_conn".into());
    next::without_signals(|| thread.spawn(write)).map_err(ClientError::Io)?;
    Ok(reader)
}

fn send_all(writer: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::net::send(writer, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
