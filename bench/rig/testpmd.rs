//! DPDK's own forwarder, swapping MAC addresses: what the machine and the drivers take without any balancing.

use std::path::Path;

use super::cases::Case;
use super::process::Process;
use super::{Input, Subject};

/// It, at work.
pub struct Testpmd {
    process: Process,
}

impl Testpmd {
    /// Starts it on this input, with as many cores as ripvsd will have.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(case: &Case, input: &Input, eal: &[String]) -> Result<Testpmd, String> {
        let mut args: Vec<String> = eal.to_vec();
        let cores = match case.workers() {
            1 => "--lcores=0@0,1@1",
            _ => "--lcores=0@0,1@0,2@1",
        };
        let own = [
            "--no-pci",
            "--no-telemetry",
            cores,
            &format!("--file-prefix=testpmd-{}", std::process::id()),
        ];
        args.extend(own.map(str::to_string));
        args.extend(["--vdev".to_string(), input.device.clone()]);
        let own = [
            "--",
            "--interactive",
            "--forward-mode=macswap",
            &format!("--nb-cores={}", case.workers()),
            &format!("--rxq={}", input.queues),
            &format!("--txq={}", input.queues),
            &format!("--total-num-mbufs={}", input.mbufs()),
            &format!("--mbuf-size={}", input.mbuf_size + 128),
        ];
        args.extend(own.map(str::to_string));
        let mut process = Process::start(Path::new("dpdk-testpmd"), &args)?;
        process.say("start")?;
        process.wait_for("packet forwarding")?;
        let mut testpmd = Testpmd { process };
        testpmd.packets()?;
        Ok(testpmd)
    }

    /// Its process, to pause it by.
    pub fn running(&self) -> &Process {
        &self.process
    }
}

impl Subject for Testpmd {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn packets(&mut self) -> Result<u64, String> {
        self.process.say("show port stats 0")?;
        let line = self.process.wait_for("RX-packets")?;
        let number = line.split_whitespace().nth(1);
        let number = number.and_then(|word| word.parse().ok());
        number.ok_or_else(|| format!("testpmd said \"{line}\""))
    }
}
