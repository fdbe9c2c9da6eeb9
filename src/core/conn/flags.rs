//! Flags of a connection, with the forwarding method among them: the kernel's bits, and ours where it has none.

use ripvs_arch::zeroable;

use crate::spec::Forward;

zeroable! {
    /// Flags of a connection. The bit values are those of `linux/ip_vs.h`, so that less [`Flags::OURS`] they are what a
    /// synchronisation message has; the lowest three bits are the forwarding method.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags(pub u16);
}

impl Flags {
    /// No flags, which means NAT.
    pub const NONE: Flags = Flags(0);
    /// Made by a synchronisation message.
    pub const SYNC: Flags = Flags(0x0020);
    /// No packet of the server's has passed, nor is any expected to: only the client's side is seen.
    pub const NO_OUTPUT: Flags = Flags(0x0080);
    /// Counted among its dest's inactive connections.
    pub const INACTIVE: Flags = Flags(0x0100);
    /// Sequence numbers of the server's packets are shifted.
    pub const OUT_SEQ: Flags = Flags(0x0200);
    /// Acknowledgements of the client's packets are shifted.
    pub const IN_SEQ: Flags = Flags(0x0400);
    /// The client's port is not known yet.
    pub const NO_CPORT: Flags = Flags(0x0800);
    /// A persistence template, not a connection.
    pub const TEMPLATE: Flags = Flags(0x1000);
    /// For one packet only: never found again.
    pub const ONE_PACKET: Flags = Flags(0x2000);
    /// Has data of a persistence engine, by which a template is then found. (Ours.)
    pub const PE: Flags = Flags(0x4000);
    /// Has state of an application helper (FTP). (Ours.)
    pub const APP: Flags = Flags(0x8000);
    /// An FTP data connection: it controls nothing, and who counts it is kept beside what controls it. (Ours.)
    pub const DATA: Flags = Flags(0x0008);
    /// The record is in use; the table's own. (Ours; the kernel's value for HASHED, which means as much.)
    pub(super) const LIVE: Flags = Flags(0x0040);

    /// The bits that mean nothing outside ripvs.
    pub const OURS: Flags = Flags(0x4000 | 0x8000 | 0x0040 | 0x0008);
    /// The bits that [`super::Record::set`] and [`super::Record::clear`] change.
    pub const CHANGEABLE: Flags = Flags(0x0020 | 0x0080 | 0x0100 | 0x0200 | 0x0400);

    const FORWARD: u16 = 0x0007;

    /// The flags that a connection gets whose dest has this method: INACTIVE until it is established, and NO_OUTPUT
    /// where replies do not come back this way (`__ip_vs_update_dest`).
    pub const fn of_forward(method: Forward) -> Flags {
        match method {
            Forward::Masq => Flags(Flags::INACTIVE.0),
            Forward::Local => Flags(1 | Flags::INACTIVE.0 | Flags::NO_OUTPUT.0),
            Forward::Tunnel => Flags(2 | Flags::INACTIVE.0 | Flags::NO_OUTPUT.0),
            Forward::Route => Flags(3 | Flags::INACTIVE.0 | Flags::NO_OUTPUT.0),
            Forward::Bypass => Flags(4 | Flags::INACTIVE.0 | Flags::NO_OUTPUT.0),
        }
    }

    /// The forwarding method. Numbers that the kernel does not know count as bypass.
    pub const fn forward(self) -> Forward {
        match self.0 & Flags::FORWARD {
            0 => Forward::Masq,
            1 => Forward::Local,
            2 => Forward::Tunnel,
            3 => Forward::Route,
            _ => Forward::Bypass,
        }
    }

    /// These flags with another forwarding method.
    pub const fn with_forward(self, method: Forward) -> Flags {
        Flags(self.0 & !Flags::FORWARD | Flags::of_forward(method).0 & Flags::FORWARD)
    }

    /// These as the kernel has them: of one that is in the table, HASHED too.
    pub const fn listed(self) -> u16 {
        self.0 & !Flags::OURS.0 | self.0 & Flags::LIVE.0
    }

    /// Whether all of `other`'s bits are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other`'s bits is set.
    pub const fn any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// These and those.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These without those.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}
