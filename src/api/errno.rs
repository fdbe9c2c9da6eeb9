//! Error numbers as they go over the wire: Linux errno values.

use std::fmt;

/// An errno value, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! names {
    ($($name:ident = $number:literal,)*) => {
        impl Errno {
            $(
                #[doc = concat!("`E", stringify!($name), "`")]
                pub const $name: Errno = Errno($number);
            )*
        }
    };
}

names! {
    PERM = 1,
    NOENT = 2,
    SRCH = 3,
    INTR = 4,
    IO = 5,
    NXIO = 6,
    AGAIN = 11,
    NOMEM = 12,
    ACCES = 13,
    BUSY = 16,
    EXIST = 17,
    NODEV = 19,
    INVAL = 22,
    NOSPC = 28,
    RANGE = 34,
    NAMETOOLONG = 36,
    PROTO = 71,
    BADMSG = 74,
    MSGSIZE = 90,
    NOPROTOOPT = 92,
    PROTONOSUPPORT = 93,
    OPNOTSUPP = 95,
    AFNOSUPPORT = 97,
    ADDRINUSE = 98,
    ADDRNOTAVAIL = 99,
    NETUNREACH = 101,
    NOBUFS = 105,
    TIMEDOUT = 110,
    HOSTUNREACH = 113,
}

impl fmt::Display for Errno {
    /// The words of strerror(3).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        // The standard library adds " (os error N)" to them.
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_strerror() {
        assert_eq!(Errno::NODEV.to_string(), "No such device");
        assert_eq!(Errno::RANGE.to_string(), "Numerical result out of range");
        assert_eq!(Errno(0).to_string(), "Success");
    }
}
