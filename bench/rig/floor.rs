//! The bare loop of `bench/floor`: what balancing costs at the very least.

use std::path::Path;

use super::cases::Case;
use super::process::Process;
use super::{Input, Subject};
use crate::micro::Mode;

/// It, at work.
pub struct Floor {
    process: Process,
}

impl Floor {
    /// Starts it on this input.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        program: &Path,
        case: &Case,
        input: &Input,
        eal: &[String],
    ) -> Result<Floor, String> {
        let mut args: Vec<String> = eal.to_vec();
        let own = [
            "--no-pci",
            "--no-telemetry",
            "--lcores=0@0,1@1",
            &format!("--file-prefix=floor-{}", std::process::id()),
        ];
        args.extend(own.map(str::to_string));
        args.extend(["--vdev".to_string(), input.device.clone()]);
        let mode = match case.mode {
            Mode::Dr => "dr",
            Mode::Nat | Mode::NatOut => "nat",
            Mode::Tun => "tun",
        };
        let own = [
            "--",
            mode,
            &case.flows.to_string(),
            &input.mbufs().to_string(),
            &input.mbuf_size.to_string(),
        ];
        args.extend(own.map(str::to_string));
        let mut process = Process::start(program, &args)?;
        process.wait_for("ready")?;
        Ok(Floor { process })
    }

    fn counts(&mut self) -> Result<(u64, u64), String> {
        self.process.say("")?;
        let line = self.process.wait_for("received")?;
        let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(received), Some(sent)) => Ok((received, sent)),
            _ => Err(format!("the bare loop said \"{line}\"")),
        }
    }

    /// Sees whether it sent what it received.
    ///
    /// # Errors
    /// It did not, or does not say.
    pub fn check(&mut self) -> Result<(), String> {
        let (received, sent) = self.counts()?;
        match sent as f64 > received as f64 * 0.999 {
            true => Ok(()),
            false => Err(format!("the bare loop sent {sent} of {received}")),
        }
    }
}

impl Subject for Floor {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn packets(&mut self) -> Result<u64, String> {
        Ok(self.counts()?.0)
    }
}
