//! Mark rules and diverted marks: checked here, compiled into one table that all workers share. The last table is kept until
//! every worker has the next one, so that no worker has to free it.

use std::sync::Arc;

use ripvs_api::ripvs::{Divert, MarkRule, Prefix};
use ripvs_api::{Errno, Refusal};
use ripvs_core::delta::Delta;
use ripvs_core::mark::{self, MarkTable};
use ripvs_core::{proto, Af};

use super::super::fleet::Fleet;
use super::{network_of, Network};

fn family(prefix: Option<Prefix>) -> Option<Af> {
    prefix.map(|prefix| Af::of(prefix.addr))
}

impl Network {
    fn check_mark(&self, rule: &MarkRule) -> Result<(), Refusal> {
        let wrong = |text: &str| Err(Refusal::new(Errno::INVAL, text));
        if rule.mark == 0 {
            return wrong("0 stands for packets without a mark");
        }
        let has_ports = !rule.sports.is_empty() || !rule.dports.is_empty();
        let with_ports = [proto::TCP, proto::UDP, proto::SCTP];
        if has_ports && !rule.protocol.is_some_and(|p| with_ports.contains(&p)) {
            return wrong("ports need a protocol that has them: tcp, udp or sctp");
        }
        if let (Some(src), Some(dst)) = (family(rule.src), family(rule.dst)) {
            if src != dst {
                return wrong("source and destination are of different families");
            }
        }
        for prefix in rule.src.iter().chain(&rule.dst) {
            network_of(*prefix)?;
        }
        if let Some(dev) = &rule.dev {
            self.iface(dev)?;
        }
        Ok(())
    }

    /// `ripvsadm mark add`.
    ///
    /// # Errors
    /// EINVAL, ENODEV, EEXIST.
    pub fn add_mark(&mut self, rule: &MarkRule, fleet: &mut Fleet) -> Result<(), Refusal> {
        self.check_mark(rule)?;
        if self.marks.contains(rule) {
            return Err(Refusal::new(Errno::EXIST, "there is such a rule already"));
        }
        self.marks.push(rule.clone());
        self.tell_marks(fleet);
        Ok(())
    }

    /// `ripvsadm mark del`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn delete_mark(&mut self, rule: &MarkRule, fleet: &mut Fleet) -> Result<(), Refusal> {
        let at = self.marks.iter().position(|known| known == rule);
        let at = at.ok_or_else(|| Refusal::new(Errno::NOENT, "there is no such rule"))?;
        self.marks.remove(at);
        self.tell_marks(fleet);
        Ok(())
    }

    /// `ripvsadm mark divert add`.
    ///
    /// # Errors
    /// EINVAL for mark 0, EEXIST.
    pub fn add_divert(&mut self, divert: &Divert, fleet: &mut Fleet) -> Result<(), Refusal> {
        if divert.mark == 0 {
            return Err(Refusal::new(
                Errno::INVAL,
                "0 stands for packets without a mark",
            ));
        }
        if !self.diverts.insert(divert.mark) {
            return Err(Errno::EXIST.into());
        }
        self.tell_marks(fleet);
        Ok(())
    }

    /// `ripvsadm mark divert del`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn delete_divert(&mut self, divert: &Divert, fleet: &mut Fleet) -> Result<(), Refusal> {
        if !self.diverts.remove(&divert.mark) {
            return Err(Errno::NOENT.into());
        }
        self.tell_marks(fleet);
        Ok(())
    }

    /// The rules in order.
    pub fn show_marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// The diverted marks.
    pub fn show_diverts(&self) -> impl Iterator<Item = Divert> + '_ {
        self.diverts.iter().map(|mark| Divert { mark: *mark })
    }

    pub(super) fn tell_marks(&mut self, fleet: &mut Fleet) {
        let compiled = self.marks.iter().map(|rule| self.compiled(rule)).collect();
        let table = Arc::new(MarkTable::new(compiled));
        let old = std::mem::replace(&mut self.mark_table, table.clone());
        fleet.change(|_| Delta::Marks(table.clone()));
        fleet.keep_until_applied(old);
    }

    fn compiled(&self, rule: &MarkRule) -> mark::MarkRule {
        let ranges = |ports: &[ripvs_api::ripvs::PortRange]| {
            ports
                .iter()
                .map(|range| (range.first, range.last))
                .collect()
        };
        mark::MarkRule {
            mark: rule.mark,
            af: family(rule.src).or(family(rule.dst)),
            proto: rule.protocol,
            source: rule.src.map(|prefix| (prefix.addr, prefix.len)),
            destination: rule.dst.map(|prefix| (prefix.addr, prefix.len)),
            source_ports: ranges(&rule.sports),
            destination_ports: ranges(&rule.dports),
            iface: rule
                .dev
                .as_deref()
                .and_then(|name| self.copy.ifaces().by_name(name))
                .map(|iface| iface.id),
            divert: self.diverts.contains(&rule.mark),
        }
    }
}
