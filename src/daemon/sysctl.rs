//! The settings below `net.ipv4.vs.`: names, defaults and ranges as the kernel has them (`vs_vars` in
//! net/netfilter/ipvs/ip_vs_ctl.c, 6.1). What they do is the core's business.

use crate::config::file::nearest;

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Name below `net.ipv4.vs.`.
    pub name: &'static str,
    /// Its numbers where nobody set it: one, but for sync_threshold.
    pub default: &'static [i32],
    /// Least and greatest value that is taken.
    pub range: (i32, i32),
    /// Whether the workers hold a copy of it. Of the others run_estimation is the control thread's; the rest are kept and
    /// listed, as there is nothing here for them to act on.
    pub held: bool,
}

const ANY: (i32, i32) = (i32::MIN, i32::MAX);
/// So many seconds that the kernel's ticks, 250 a second in Debian, fit a number.
const SECONDS: (i32, i32) = (0, i32::MAX / 250);
/// The kernel makes it of its free memory; this would be 8 GiB.
const SYNC_QLEN_MAX: i32 = 65_536;

const fn setting(name: &'static str, default: &'static [i32], range: (i32, i32)) -> Sysctl {
    Sysctl {
        name,
        default,
        range,
        held: true,
    }
}

const fn kept(name: &'static str, default: &'static [i32], range: (i32, i32)) -> Sysctl {
    Sysctl {
        name,
        default,
        range,
        held: false,
    }
}

/// Every setting, in alphabetical order.
pub const ALL: [Sysctl; 30] = [
    setting("am_droprate", &[10], ANY),
    setting("amemthresh", &[1024], ANY),
    kept("backup_only", &[0], ANY),
    setting("cache_bypass", &[0], ANY),
    setting("conn_reuse_mode", &[1], ANY),
    setting("conntrack", &[0], ANY),
    kept("debug_level", &[0], ANY),
    setting("drop_entry", &[0], (0, 3)),
    setting("drop_packet", &[0], (0, 3)),
    setting("expire_nodest_conn", &[0], ANY),
    setting("expire_quiescent_template", &[0], ANY),
    setting("ignore_tunneled", &[0], ANY),
    setting("lblc_expiration", &[86_400], SECONDS),
    setting("lblcr_expiration", &[86_400], SECONDS),
    setting("nat_icmp_send", &[0], ANY),
    setting("pmtu_disc", &[1], ANY),
    kept("run_estimation", &[1], ANY),
    setting("schedule_icmp", &[0], ANY),
    setting("secure_tcp", &[0], (0, 3)),
    setting("sloppy_sctp", &[0], ANY),
    setting("sloppy_tcp", &[0], ANY),
    setting("snat_reroute", &[1], ANY),
    kept("sync_persist_mode", &[0], ANY),
    kept("sync_ports", &[1], (1, i32::MAX)),
    kept("sync_qlen_max", &[SYNC_QLEN_MAX], ANY),
    kept("sync_refresh_period", &[0], ANY),
    kept("sync_retries", &[0], (0, 3)),
    kept("sync_sock_size", &[0], ANY),
    kept("sync_threshold", &[3, 50], (0, i32::MAX)),
    kept("sync_version", &[1], (0, 1)),
];

/// The setting of that name, with or without `net.ipv4.vs.` before it.
///
/// # Errors
/// There is none; the message names the likeliest.
pub fn find(name: &str) -> Result<&'static Sysctl, String> {
    let short = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
    ALL.iter().find(|known| known.name == short).ok_or_else(|| {
        match nearest(short, ALL.iter().map(|known| known.name)) {
            Some(like) => format!("there is no setting `{short}`; did you mean `{like}`?"),
            None => format!("there is no setting `{short}` in net.ipv4.vs"),
        }
    })
}

impl Sysctl {
    /// The numbers of a text: as many as the setting has, or only the first of them.
    ///
    /// # Errors
    /// It is none, there are too many, or one is out of range; the message says so.
    pub fn read(&self, text: &str) -> Result<Vec<i32>, String> {
        let number = |word: &str| {
            let number = word.parse().map_err(|_| format!("`{word}` is no number"))?;
            self.check(number)
        };
        let numbers = text.split_whitespace().map(number);
        let numbers = numbers.collect::<Result<Vec<i32>, String>>()?;
        match (numbers.len(), self.default.len()) {
            (0, _) => Err(format!("`{text}` is no number")),
            (given, most) if given > most => Err(format!("{} has {most} of them only", self.name)),
            _ => Ok(numbers),
        }
    }

    /// The value, where it is within the range.
    ///
    /// # Errors
    /// It isn't; the message gives the range.
    pub fn check(&self, value: i64) -> Result<i32, String> {
        let (least, most) = self.range;
        i32::try_from(value)
            .ok()
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| {
                format!(
                    "{} cannot be {value}; {least} to {most} would do",
                    self.name
                )
            })
    }
}

/// Numbers as the kernel shows them.
pub fn text(numbers: &[i32]) -> String {
    let words: Vec<String> = numbers.iter().map(i32::to_string).collect();
    words.join("\t")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_with_and_without_their_path() {
        assert_eq!(find("sloppy_tcp"), find("net.ipv4.vs.sloppy_tcp"));
        assert!(find("slopy_tcp").unwrap_err().contains("`sloppy_tcp`"));
    }

    #[test]
    fn the_workers_know_the_same_settings_with_the_same_defaults_and_bounds() {
        use ripvs_core::settings::Settings;
        let defaults = Settings::default();
        let held: Vec<(&str, i32)> = ALL
            .iter()
            .filter(|known| known.held)
            .map(|known| (known.name, known.default[0]))
            .collect();
        assert_eq!(defaults.list(), held);
        for known in ALL.iter().filter(|known| known.held) {
            let takes = |value: i64| {
                let value = i32::try_from(value).ok();
                value.is_some_and(|value| Settings::default().set(known.name, value).is_ok())
            };
            let (least, most) = (i64::from(known.range.0), i64::from(known.range.1));
            assert!(takes(least) && takes(most), "{}", known.name);
            assert!(!takes(least - 1) && !takes(most + 1), "{}", known.name);
        }
    }

    #[test]
    fn the_threshold_of_synchronisation_has_two_numbers_and_no_other_has() {
        let threshold = find("sync_threshold").unwrap();
        assert_eq!(threshold.read("3 50"), Ok(vec![3, 50]));
        assert_eq!(threshold.read(" 4\t"), Ok(vec![4]));
        assert!(threshold.read("3 50 7").is_err());
        assert!(threshold.read("").is_err());
        assert!(threshold.read("-1").is_err());
        assert!(find("sloppy_tcp").unwrap().read("1 1").is_err());
        assert_eq!(text(threshold.default), "3\t50");
    }

    #[test]
    fn defence_modes_end_at_three_as_in_the_kernel() {
        let drop_entry = find("drop_entry").unwrap();
        assert_eq!(drop_entry.check(3), Ok(3));
        assert!(drop_entry.check(4).is_err());
        assert!(drop_entry.check(-1).is_err());
    }
}
