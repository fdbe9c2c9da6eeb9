//! Sockets: generic netlink sockets are looked after, and those that name the family IPVS become connections to ripvsd,
//! which look to the program like the netlink sockets they were.

use std::ffi::{c_int, c_uint, c_void};
use std::mem;
use std::os::fd::BorrowedFd;
use std::{cmp, ptr, slice};

use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t, timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::hooks;
use crate::next::{errno, fail};
use crate::table::{self, Kind};
use crate::{link, proc, request};

/// The C library's own.
mod real {
    use super::*;
    crate::next::next! {
        socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
        send(fd: c_int, data: *const c_void, length: size_t, flags: c_int) -> ssize_t;
        sendto(fd: c_int, data: *const c_void, length: size_t, flags: c_int,
               to: *const sockaddr, to_length: socklen_t) -> ssize_t;
        sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
        sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
        write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t;
        recv(fd: c_int, data: *mut c_void, length: size_t, flags: c_int) -> ssize_t;
        recvfrom(fd: c_int, data: *mut c_void, length: size_t, flags: c_int,
                 from: *mut sockaddr, from_length: *mut socklen_t) -> ssize_t;
        __recv_chk(fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int) -> ssize_t;
        __recvfrom_chk(fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int,
                       from: *mut sockaddr, from_length: *mut socklen_t) -> ssize_t;
        recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
        recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
                 timeout: *mut timespec) -> c_int;
        bind(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int;
        connect(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int;
        getsockname(fd: c_int, addr: *mut sockaddr, length: *mut socklen_t) -> c_int;
        getpeername(fd: c_int, addr: *mut sockaddr, length: *mut socklen_t) -> c_int;
        getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void,
                   length: *mut socklen_t) -> c_int;
        setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void,
                   length: socklen_t) -> c_int;
    }
}

// ---------------------------------------------------------------- sending

/// Who has to send.
enum Sent {
    /// The kernel, what the program gave.
    ByKernel,
    /// It is done.
    Done(Result<usize, Errno>),
}

/// Sends what goes to ripvsd, and sees to it that a socket that asks for IPVS gets there.
///
/// # Safety
/// `parts` point to memory that can be read.
unsafe fn outgoing(fd: c_int, kind: Kind, parts: &[iovec], flags: c_int) -> Sent {
    let Some(borrowed) = table::borrow(fd) else {
        return Sent::ByKernel;
    };
    match kind {
        Kind::Setting | Kind::File => return Sent::ByKernel,
        Kind::Link => {}
        Kind::Netlink => {
            let length: usize = parts.iter().map(|part| part.iov_len).sum();
            // SAFETY: as the caller promises.
            if length > request::QUESTION_MAX || !request::asks_for_ipvs(&unsafe { gather(parts) })
            {
                return Sent::ByKernel;
            }
            if let Err(errno) = link::take_over(borrowed) {
                return Sent::Done(Err(errno));
            }
        }
    }
    let flags = SendFlags::from_bits_retain(flags as u32);
    // SAFETY: as the caller promises.
    Sent::Done(link::send(borrowed, unsafe { gather(parts) }, flags))
}

/// The bytes of all parts.
///
/// # Safety
/// They point to memory that can be read.
unsafe fn gather(parts: &[iovec]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        if part.iov_len > 0 {
            // SAFETY: as the caller promises, and not null where it is not empty.
            bytes.extend_from_slice(unsafe {
                slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len)
            });
        }
    }
    bytes
}

/// A C array as a slice.
///
/// # Safety
/// There are `count` elements, unless it is 0.
unsafe fn elements<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if count == 0 || first.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

fn part(data: *const c_void, length: usize) -> iovec {
    iovec {
        iov_base: data.cast_mut(),
        iov_len: length,
    }
}

fn result(done: Result<usize, Errno>) -> ssize_t {
    match done {
        Ok(length) => length as ssize_t,
        Err(errno) => fail(errno.raw_os_error()),
    }
}

// ---------------------------------------------------------------- receiving

/// Receives from ripvsd as from the kernel's netlink.
///
/// # Safety
/// `message` is one as recvmsg(2) wants it.
unsafe fn receive(
    fd: BorrowedFd<'_>,
    number: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    loop {
        // SAFETY: as the caller promises. What recvmsg writes into it goes into a copy first, so that it can be repeated.
        let mut copy = unsafe { *message };
        (copy.msg_name, copy.msg_namelen) = (ptr::null_mut(), 0);
        // SAFETY: a copy of what the caller promises.
        let length = unsafe { real::recvmsg(number, &mut copy, flags) };
        let closed = match length {
            0 => link::is_closed(fd),
            -1 => errno() == libc::ECONNRESET,
            _ => false,
        };
        if closed {
            match link::revive(fd) {
                Ok(()) => continue,
                Err(errno) => return fail(errno.raw_os_error()),
            }
        }
        if length < 0 {
            return length;
        }
        if flags & libc::MSG_PEEK == 0 {
            // SAFETY: as the caller promises; that much of it has been written.
            let datagram = unsafe { first_part(message, length as usize) };
            link::answered(number, datagram);
        }
        // SAFETY: as the caller promises; the name has room for as many bytes as it says.
        unsafe {
            (*message).msg_flags = copy.msg_flags;
            (*message).msg_controllen = copy.msg_controllen;
            if !(*message).msg_name.is_null() {
                put_address((*message).msg_name.cast(), &mut (*message).msg_namelen, 0);
            }
        }
        return length;
    }
}

/// What a message was received into, if that is all in its first buffer; else nothing.
///
/// # Safety
/// `message` was given to recvmsg(2), which said that it received `length` bytes.
unsafe fn first_part<'a>(message: *const msghdr, length: usize) -> &'a [u8] {
    // SAFETY: as the caller promises.
    let parts = unsafe { elements((*message).msg_iov, (*message).msg_iovlen) };
    match parts.first() {
        // SAFETY: these bytes have been written.
        Some(part) if part.iov_len >= length => unsafe {
            elements(part.iov_base.cast::<u8>(), length)
        },
        _ => &[],
    }
}

/// Receives into one buffer.
///
/// # Safety
/// As recvfrom(2).
unsafe fn receive_from(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_length: *mut socklen_t,
) -> ssize_t {
    let Some(borrowed) = table::borrow(fd) else {
        return fail(libc::EBADF);
    };
    let mut buffer = part(data, length);
    // SAFETY: one of zeros is a message of nothing.
    let mut message: msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut buffer, 1);
    // SAFETY: the buffer is the caller's.
    let received = unsafe { receive(borrowed, fd, &mut message, flags) };
    if received >= 0 && !from.is_null() && !from_length.is_null() {
        // SAFETY: as the caller promises.
        unsafe { put_address(from, from_length, 0) };
    }
    received
}

/// Writes a netlink address as far as there is room, and its whole length.
///
/// # Safety
/// `to` has room for `length` bytes.
unsafe fn put_address(to: *mut sockaddr, length: *mut socklen_t, port: u32) {
    // SAFETY: an address of zeros is one.
    let mut addr: sockaddr_nl = unsafe { mem::zeroed() };
    addr.nl_family = libc::AF_NETLINK as u16;
    addr.nl_pid = port;
    let size = mem::size_of::<sockaddr_nl>();
    // SAFETY: no more than there is room for, as the caller promises.
    unsafe {
        let room = cmp::min(*length as usize, size);
        ptr::copy_nonoverlapping((&raw const addr).cast::<u8>(), to.cast::<u8>(), room);
        *length = size as socklen_t;
    }
}

// ---------------------------------------------------------------- options

/// The option numbers of the kernel's older interface to IPVS, on raw sockets: `IP_VS_BASE_CTL` and the 64 from there.
const IP_VS_OPTIONS: std::ops::Range<c_int> = 1152..1216;

fn is_older_interface(level: c_int, name: c_int) -> bool {
    level == libc::IPPROTO_IP && IP_VS_OPTIONS.contains(&name)
}

/// What a netlink socket would say where the connection says something else.
fn netlink_option(level: c_int, name: c_int) -> Option<c_int> {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => Some(libc::AF_NETLINK),
        (libc::SOL_SOCKET, libc::SO_TYPE) => Some(libc::SOCK_RAW),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => Some(libc::NETLINK_GENERIC),
        (libc::SOL_NETLINK, _) => Some(0),
        _ => None,
    }
}

// ---------------------------------------------------------------- hooks

hooks! {
    /// Generic netlink sockets are remembered.
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        // SAFETY: no memory is involved.
        let fd = unsafe { real::socket(domain, kind, protocol) };
        if fd >= 0 && domain == libc::AF_NETLINK && protocol == libc::NETLINK_GENERIC {
            table::set(fd, Kind::Netlink);
        }
        fd
    }

    /// See [`outgoing`].
    fn send(fd: c_int, data: *const c_void, length: size_t, flags: c_int) -> ssize_t {
        if let Some(kind) = table::kind(fd) {
            // SAFETY: the caller's buffer.
            if let Sent::Done(done) = unsafe { outgoing(fd, kind, &[part(data, length)], flags) } {
                return result(done);
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::send(fd, data, length, flags) }
    }

    /// See [`outgoing`].
    fn sendto(
        fd: c_int, data: *const c_void, length: size_t, flags: c_int,
        to: *const sockaddr, to_length: socklen_t,
    ) -> ssize_t {
        if let Some(kind) = table::kind(fd) {
            // SAFETY: the caller's buffer.
            if let Sent::Done(done) = unsafe { outgoing(fd, kind, &[part(data, length)], flags) } {
                return result(done);
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::sendto(fd, data, length, flags, to, to_length) }
    }

    /// See [`outgoing`].
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        if let (Some(kind), false) = (table::kind(fd), message.is_null()) {
            // SAFETY: the caller's message.
            let sent = unsafe {
                outgoing(fd, kind, elements((*message).msg_iov, (*message).msg_iovlen), flags)
            };
            if let Sent::Done(done) = sent {
                return result(done);
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::sendmsg(fd, message, flags) }
    }

    /// One message after another, as [`sendmsg`].
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        if table::kind(fd).is_none() || messages.is_null() {
            // SAFETY: the caller's arguments.
            return unsafe { real::sendmmsg(fd, messages, count, flags) };
        }
        for at in 0..count as usize {
            // SAFETY: the caller says that there are so many.
            let message = unsafe { &mut *messages.add(at) };
            // SAFETY: the caller's message.
            let sent = unsafe { sendmsg(fd, &message.msg_hdr, flags) };
            if sent < 0 {
                return if at > 0 { at as c_int } else { -1 };
            }
            message.msg_len = sent as c_uint;
        }
        count as c_int
    }

    /// On sockets as [`send`]; on a setting of IPVS it sets that.
    fn write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t {
        match table::kind(fd) {
            None => {}
            Some(Kind::Setting) => {
                // SAFETY: the caller's buffer.
                let text = unsafe { gather(&[part(data, length)]) };
                return result(proc::write_setting(fd, &text));
            }
            Some(kind) => {
                // SAFETY: the caller's buffer.
                if let Sent::Done(done) = unsafe { outgoing(fd, kind, &[part(data, length)], 0) } {
                    return result(done);
                }
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::write(fd, data, length) }
    }

    /// See [`receive`].
    fn recv(fd: c_int, data: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
        if table::kind(fd) == Some(Kind::Link) {
            // SAFETY: the caller's buffer.
            return unsafe { receive_from(fd, data, length, flags, ptr::null_mut(), ptr::null_mut()) };
        }
        // SAFETY: the caller's arguments.
        unsafe { real::recv(fd, data, length, flags) }
    }

    /// See [`receive`].
    fn recvfrom(
        fd: c_int, data: *mut c_void, length: size_t, flags: c_int,
        from: *mut sockaddr, from_length: *mut socklen_t,
    ) -> ssize_t {
        if table::kind(fd) == Some(Kind::Link) {
            // SAFETY: the caller's buffers.
            return unsafe { receive_from(fd, data, length, flags, from, from_length) };
        }
        // SAFETY: the caller's arguments.
        unsafe { real::recvfrom(fd, data, length, flags, from, from_length) }
    }

    /// [`recv`] in programs built with checks; the check itself is the C library's.
    fn __recv_chk(
        fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int,
    ) -> ssize_t {
        if length <= room && table::kind(fd) == Some(Kind::Link) {
            // SAFETY: the caller's buffer.
            return unsafe { receive_from(fd, data, length, flags, ptr::null_mut(), ptr::null_mut()) };
        }
        // SAFETY: the caller's arguments.
        unsafe { real::__recv_chk(fd, data, length, room, flags) }
    }

    /// [`recvfrom`] in programs built with checks.
    fn __recvfrom_chk(
        fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int,
        from: *mut sockaddr, from_length: *mut socklen_t,
    ) -> ssize_t {
        if length <= room && table::kind(fd) == Some(Kind::Link) {
            // SAFETY: the caller's buffers.
            return unsafe { receive_from(fd, data, length, flags, from, from_length) };
        }
        // SAFETY: the caller's arguments.
        unsafe { real::__recvfrom_chk(fd, data, length, room, flags, from, from_length) }
    }

    /// See [`receive`].
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        if table::kind(fd) == Some(Kind::Link) && !message.is_null() {
            if let Some(borrowed) = table::borrow(fd) {
                // SAFETY: the caller's message.
                return unsafe { receive(borrowed, fd, message, flags) };
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::recvmsg(fd, message, flags) }
    }

    /// One message after another, as [`recvmsg`]: the first is waited for, of the others what is there is taken.
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec,
    ) -> c_int {
        if table::kind(fd) != Some(Kind::Link) || messages.is_null() {
            // SAFETY: the caller's arguments.
            return unsafe { real::recvmmsg(fd, messages, count, flags, timeout) };
        }
        let mut flags = flags & !libc::MSG_WAITFORONE;
        for at in 0..count as usize {
            // SAFETY: the caller says that there are so many.
            let message = unsafe { &mut *messages.add(at) };
            // SAFETY: the caller's message.
            let received = unsafe { recvmsg(fd, &mut message.msg_hdr, flags) };
            if received < 0 {
                return if at > 0 { at as c_int } else { -1 };
            }
            message.msg_len = received as c_uint;
            flags |= libc::MSG_DONTWAIT;
        }
        count as c_int
    }

    /// A connection keeps the address that its netlink socket had.
    fn bind(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int {
        if table::kind(fd) == Some(Kind::Link) {
            return 0;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::bind(fd, addr, length) }
    }

    /// A connection has its other end already.
    fn connect(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int {
        if table::kind(fd) == Some(Kind::Link) {
            return 0;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::connect(fd, addr, length) }
    }

    /// The address that the netlink socket had.
    fn getsockname(fd: c_int, addr: *mut sockaddr, length: *mut socklen_t) -> c_int {
        if table::kind(fd) == Some(Kind::Link) && !addr.is_null() && !length.is_null() {
            // SAFETY: the caller's buffer.
            unsafe { put_address(addr, length, link::port(fd)) };
            return 0;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::getsockname(fd, addr, length) }
    }

    /// The kernel, which has port 0.
    fn getpeername(fd: c_int, addr: *mut sockaddr, length: *mut socklen_t) -> c_int {
        if table::kind(fd) == Some(Kind::Link) && !addr.is_null() && !length.is_null() {
            // SAFETY: the caller's buffer.
            unsafe { put_address(addr, length, 0) };
            return 0;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::getpeername(fd, addr, length) }
    }

    /// As of a netlink socket. The older interface to IPVS is not there, lest a program that finds no ripvsd turn to it
    /// and drive the kernel's.
    fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t,
    ) -> c_int {
        if is_older_interface(level, name) {
            return fail(libc::ENOPROTOOPT);
        }
        if table::kind(fd) == Some(Kind::Link) && !value.is_null() && !length.is_null() {
            if let Some(number) = netlink_option(level, name) {
                // SAFETY: the caller's buffer has room for as many bytes as it says.
                unsafe {
                    let room = cmp::min(*length as usize, mem::size_of::<c_int>());
                    ptr::copy_nonoverlapping((&raw const number).cast::<u8>(), value.cast::<u8>(), room);
                    *length = room as socklen_t;
                }
                return 0;
            }
        }
        // SAFETY: the caller's arguments.
        unsafe { real::getsockopt(fd, level, name, value, length) }
    }

    /// See [`getsockopt`]. Netlink's own options change nothing about a connection.
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t,
    ) -> c_int {
        if is_older_interface(level, name) {
            return fail(libc::ENOPROTOOPT);
        }
        if level == libc::SOL_NETLINK && table::kind(fd) == Some(Kind::Link) {
            return 0;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::setsockopt(fd, level, name, value, length) }
    }
}
