//! Sysctls and timeouts: what the workers hold a copy of, and what is only kept and listed.

use std::collections::BTreeMap;

use ripvs_api::ipvs::{self, Timeouts};
use ripvs_api::ripvs::{self, Sysctl};
use ripvs_api::{Errno, Refusal};
use ripvs_core::delta::Delta;
use ripvs_core::settings;

use super::fleet::Fleet;
use crate::config::Config;
use crate::sysctl;

/// Seconds that the kernel takes at most: INT_MAX in its ticks, of which Debian's has 250 a second.
const LONGEST: u32 = i32::MAX as u32 / 250;
/// Where nobody set others: TCP, TCP after FIN, UDP.
const TIMEOUTS: [u32; 3] = [900, 120, 300];
const PREFIX: &str = "net.ipv4.vs.";

/// All settings.
pub struct Settings {
    effective: settings::Settings,
    /// Those that change nothing here.
    inert: BTreeMap<&'static str, Vec<i32>>,
    timeouts: [u32; 3],
    /// As they were configured.
    configured: (BTreeMap<&'static str, String>, [u32; 3]),
}

impl Default for Settings {
    fn default() -> Self {
        let inert = sysctl::ALL.iter().filter(|known| !known.held);
        let mut settings = Settings {
            effective: settings::Settings::default(),
            inert: inert
                .map(|known| (known.name, known.default.to_vec()))
                .collect(),
            timeouts: TIMEOUTS,
            configured: (BTreeMap::new(), TIMEOUTS),
        };
        settings.configured.0 = settings.values();
        settings
    }
}

impl Settings {
    /// Takes over what the configuration says.
    pub fn configure(
        &mut self,
        sysctls: &[(&'static str, Vec<i32>)],
        timeouts: [u32; 3],
        fleet: &mut Fleet,
    ) {
        for (name, numbers) in sysctls {
            let text = sysctl::text(numbers);
            if self.put(name, &text).is_err() {
                log::warn!("{PREFIX}{name} cannot be {text} and stays as it is");
            }
        }
        self.tell(fleet);
        let [tcp, tcp_fin, udp] = timeouts.map(Some);
        // The configuration's bound is the stricter one.
        let _ = self.set_timeouts(&Timeouts { tcp, tcp_fin, udp }, fleet);
        self.configured = (self.values(), self.timeouts);
    }

    fn values(&self) -> BTreeMap<&'static str, String> {
        let effective = self.effective.list().into_iter();
        let inert = self.inert.iter();
        effective
            .map(|(name, value)| (name, value.to_string()))
            .chain(inert.map(|(name, numbers)| (*name, sysctl::text(numbers))))
            .collect()
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let known = sysctl::find(name).map_err(|text| Refusal::new(Errno::NOENT, text))?;
        let refuse = |text| Refusal::new(Errno::INVAL, text);
        let mut numbers = known.read(value).map_err(refuse)?;
        if known.held {
            let cannot = |_| refuse(format!("{} cannot be {value}", known.name));
            return self.effective.set(known.name, numbers[0]).map_err(cannot);
        }
        let old = self.inert.entry(known.name).or_default();
        numbers.extend(old.iter().skip(numbers.len()).copied());
        // `proc_do_sync_threshold`.
        if let [threshold, period] = numbers[..] {
            if period != 0 && threshold >= period {
                let text = format!("{threshold} packets of every {period} are none to choose");
                return Err(refuse(text));
            }
        }
        *old = numbers;
        Ok(())
    }

    fn tell(&self, fleet: &mut Fleet) {
        let settings = self.effective;
        fleet.change(|_| Delta::Settings(settings));
    }

    /// `ripvsadm sysctl set`.
    ///
    /// # Errors
    /// ENOENT for an unknown name, EINVAL for a value that is none for it.
    pub fn set(&mut self, sysctl: &Sysctl, fleet: &mut Fleet) -> Result<(), Refusal> {
        self.put(&sysctl.name, &sysctl.value)?;
        self.tell(fleet);
        Ok(())
    }

    /// `ripvsadm sysctl get`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn show(&self, name: &str) -> Result<Sysctl, Refusal> {
        let known = sysctl::find(name).map_err(|text| Refusal::new(Errno::NOENT, text))?;
        let value = self.values().remove(known.name);
        let value = value.unwrap_or_else(|| sysctl::text(known.default));
        Ok(shown(known.name, value))
    }

    /// All sysctls.
    pub fn show_all(&self) -> Vec<Sysctl> {
        self.values()
            .into_iter()
            .map(|(name, value)| shown(name, value))
            .collect()
    }

    /// Whether counters are summed up for listings and rates.
    pub fn estimates(&self) -> bool {
        self.inert
            .get("run_estimation")
            .is_none_or(|numbers| numbers[..] != [0])
    }

    /// The timeouts: TCP, TCP after FIN, UDP; seconds.
    pub fn timeouts(&self) -> [u32; 3] {
        self.timeouts
    }

    /// `ipvsadm --set`: 0 leaves a timeout as it is.
    ///
    /// # Errors
    /// EINVAL for one that the kernel could not count (`ip_vs_set_timeout`).
    pub fn set_timeouts(&mut self, asked: &Timeouts, fleet: &mut Fleet) -> Result<(), Errno> {
        let asked = [asked.tcp, asked.tcp_fin, asked.udp].map(|timeout| timeout.unwrap_or(0));
        if asked.iter().any(|seconds| *seconds > LONGEST) {
            return Err(Errno::INVAL);
        }
        for (timeout, asked) in self.timeouts.iter_mut().zip(asked) {
            if asked != 0 {
                *timeout = asked;
            }
        }
        let [tcp, tcp_fin, udp] = self.timeouts;
        fleet.change(|_| Delta::Timeouts { tcp, tcp_fin, udp });
        Ok(())
    }

    /// Takes over what another configuration says otherwise than the last one; what is no longer said goes back to its
    /// default.
    pub fn reconfigure(&mut self, old: &Config, new: &Config, fleet: &mut Fleet) -> Vec<String> {
        let mut changed = Vec::new();
        for known in &sysctl::ALL {
            let of = |config: &Config| {
                let said = config
                    .sysctls
                    .iter()
                    .rev()
                    .find(|(name, _)| *name == known.name);
                let numbers = said.map_or(known.default, |(_, numbers)| &numbers[..]);
                sysctl::text(numbers)
            };
            let value = of(new);
            if of(old) == value {
                continue;
            }
            // Both values were checked with their configurations.
            if self.put(known.name, &value).is_ok() {
                changed.push(format!("{PREFIX}{} is {value}", known.name));
                self.configured.0.insert(known.name, value);
            }
        }
        self.tell(fleet);
        let names = ["tcp", "tcpfin", "udp"];
        for (number, name) in names.into_iter().enumerate() {
            if old.timeouts[number] == new.timeouts[number] {
                continue;
            }
            let seconds = match new.timeouts[number] {
                0 => TIMEOUTS[number],
                seconds => seconds,
            };
            self.timeouts[number] = seconds;
            self.configured.1[number] = seconds;
            changed.push(format!("timeout {name} is {seconds} s"));
        }
        let [tcp, tcp_fin, udp] = self.timeouts;
        fleet.change(|_| Delta::Timeouts { tcp, tcp_fin, udp });
        changed
    }

    /// The requests that make these settings out of the configured ones.
    pub fn requests(&self) -> Vec<ripvs_api::Request> {
        let (values, timeouts) = &self.configured;
        let mut requests: Vec<ripvs_api::Request> = self
            .values()
            .into_iter()
            .filter(|(name, value)| values.get(name) != Some(value))
            .map(|(name, value)| ripvs::Request::SetSysctl(shown(name, value)).into())
            .collect();
        if self.timeouts != *timeouts {
            let [tcp, tcp_fin, udp] = self.timeouts.map(Some);
            requests.push(ipvs::Request::SetConfig(Timeouts { tcp, tcp_fin, udp }).into());
        }
        requests
    }
}

fn shown(name: &str, value: String) -> Sysctl {
    Sysctl {
        name: format!("{PREFIX}{name}"),
        value,
    }
}
