//! The sysctls of `net.ipv4.vs` that mean something here: names, kernel defaults, allowed values. One visible table.
//! What each does is at the place that reads it.

use crate::sched::Expirations;

/// Values of the sysctls, as every worker holds a copy of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Settings {
    pub am_droprate: i32,
    pub amemthresh: i32,
    pub cache_bypass: i32,
    pub conn_reuse_mode: i32,
    pub conntrack: i32,
    pub drop_entry: i32,
    pub drop_packet: i32,
    pub expire_nodest_conn: i32,
    pub expire_quiescent_template: i32,
    pub ignore_tunneled: i32,
    pub lblc_expiration: i32,
    pub lblcr_expiration: i32,
    pub nat_icmp_send: i32,
    pub pmtu_disc: i32,
    pub schedule_icmp: i32,
    pub secure_tcp: i32,
    pub sloppy_sctp: i32,
    pub sloppy_tcp: i32,
    pub snat_reroute: i32,
}

/// Seconds.
const DAY: i32 = 24 * 60 * 60;
/// The most seconds that the kernel can count in ticks (`proc_dointvec_jiffies`), of which Debian's has 250 a second.
const LONGEST: i32 = i32::MAX / 250;

impl Settings {
    /// How long lblc and lblcr remember.
    pub(crate) fn expirations(&self) -> Expirations {
        Expirations {
            lblc: self.lblc_expiration.unsigned_abs(),
            lblcr: self.lblcr_expiration.unsigned_abs(),
        }
    }
}

impl Default for Settings {
    /// The kernel's defaults (ip_vs_ctl.c).
    fn default() -> Settings {
        Settings {
            am_droprate: 10,
            amemthresh: 1024,
            cache_bypass: 0,
            conn_reuse_mode: 1,
            conntrack: 0,
            drop_entry: 0,
            drop_packet: 0,
            expire_nodest_conn: 0,
            expire_quiescent_template: 0,
            ignore_tunneled: 0,
            lblc_expiration: DAY,
            lblcr_expiration: DAY,
            nat_icmp_send: 0,
            pmtu_disc: 1,
            schedule_icmp: 0,
            secure_tcp: 0,
            sloppy_sctp: 0,
            sloppy_tcp: 0,
            snat_reroute: 1,
        }
    }
}

/// Why a setting could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is none of that name.
    Unknown,
    /// It takes values from the first to the second number only.
    Range(i32, i32),
}

type Field = fn(&mut Settings) -> &mut i32;

/// Name below `net.ipv4.vs.`, least and greatest value, and where it is kept.
const TABLE: [(&str, i32, i32, Field); 19] = [
    ("am_droprate", i32::MIN, i32::MAX, |s| &mut s.am_droprate),
    ("amemthresh", i32::MIN, i32::MAX, |s| &mut s.amemthresh),
    ("cache_bypass", i32::MIN, i32::MAX, |s| &mut s.cache_bypass),
    ("conn_reuse_mode", i32::MIN, i32::MAX, |s| {
        &mut s.conn_reuse_mode
    }),
    ("conntrack", i32::MIN, i32::MAX, |s| &mut s.conntrack),
    ("drop_entry", 0, 3, |s| &mut s.drop_entry),
    ("drop_packet", 0, 3, |s| &mut s.drop_packet),
    ("expire_nodest_conn", i32::MIN, i32::MAX, |s| {
        &mut s.expire_nodest_conn
    }),
    ("expire_quiescent_template", i32::MIN, i32::MAX, |s| {
        &mut s.expire_quiescent_template
    }),
    ("ignore_tunneled", i32::MIN, i32::MAX, |s| {
        &mut s.ignore_tunneled
    }),
    ("lblc_expiration", 0, LONGEST, |s| &mut s.lblc_expiration),
    ("lblcr_expiration", 0, LONGEST, |s| &mut s.lblcr_expiration),
    ("nat_icmp_send", i32::MIN, i32::MAX, |s| {
        &mut s.nat_icmp_send
    }),
    ("pmtu_disc", i32::MIN, i32::MAX, |s| &mut s.pmtu_disc),
    ("schedule_icmp", i32::MIN, i32::MAX, |s| {
        &mut s.schedule_icmp
    }),
    ("secure_tcp", 0, 3, |s| &mut s.secure_tcp),
    ("sloppy_sctp", i32::MIN, i32::MAX, |s| &mut s.sloppy_sctp),
    ("sloppy_tcp", i32::MIN, i32::MAX, |s| &mut s.sloppy_tcp),
    ("snat_reroute", i32::MIN, i32::MAX, |s| &mut s.snat_reroute),
];

impl Settings {
    /// Sets the one called `name`, with or without `net.ipv4.vs.` before it.
    ///
    /// # Errors
    /// The name is unknown, or the value outside what the kernel takes.
    pub fn set(&mut self, name: &str, value: i32) -> Result<(), SettingError> {
        let (_, low, high, field) = Self::find(name).ok_or(SettingError::Unknown)?;
        if !(*low..=*high).contains(&value) {
            return Err(SettingError::Range(*low, *high));
        }
        *field(self) = value;
        Ok(())
    }

    /// The value of the one called `name`.
    pub fn get(&self, name: &str) -> Option<i32> {
        let mut copy = *self;
        Self::find(name).map(|(_, _, _, field)| *field(&mut copy))
    }

    /// Names (below `net.ipv4.vs.`) and values of all.
    pub fn list(&self) -> Vec<(&'static str, i32)> {
        let mut copy = *self;
        TABLE
            .iter()
            .map(|(name, _, _, field)| (*name, *field(&mut copy)))
            .collect()
    }

    fn find(name: &str) -> Option<&'static (&'static str, i32, i32, Field)> {
        let name = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
        TABLE.iter().find(|(known, ..)| *known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_short_and_full_name_and_keep_their_range() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("net.ipv4.vs.sloppy_tcp", 1), Ok(()));
        assert_eq!(settings.get("sloppy_tcp"), Some(1));
        assert_eq!(
            settings.set("drop_entry", 4),
            Err(SettingError::Range(0, 3))
        );
        assert_eq!(settings.set("no_such", 1), Err(SettingError::Unknown));
        assert_eq!(settings.list().len(), TABLE.len());
        for (name, value) in settings.list() {
            assert_eq!(settings.get(name), Some(value));
        }
    }
}
