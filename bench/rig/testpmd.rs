//! DPDK's own forwarder, swapping MAC addresses: what the machine and the drivers take without any balancing.

use std::path::Path;

use super::process::Process;
use super::{Input, Subject};

/// It, at work.
pub struct Testpmd {
    process: Process,
}

impl Testpmd {
    /// Starts it on this input.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(input: &Input, eal: &[String]) -> Result<Testpmd, String> {
        let mut args: Vec<String> = eal.to_vec();
        let own = [
            "--no-pci",
            "--no-telemetry",
            "-l",
            "0,1",
            &format!("--file-prefix=testpmd-{}", std::process::id()),
            "--vdev",
            &input.vdev(),
            "--",
            "--interactive",
            "--forward-mode=macswap",
            &format!("--total-num-mbufs={}", input.mbufs()),
            &format!("--mbuf-size={}", input.mbuf_size() + 128),
        ];
        args.extend(own.map(str::to_string));
        let mut process = Process::start(Path::new("dpdk-testpmd"), &args)?;
        process.say("start")?;
        process.wait_for("packet forwarding")?;
        process.say("show port stats 0")?;
        process.wait_for("RX-packets")?;
        Ok(Testpmd { process })
    }
}

impl Subject for Testpmd {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn packets(&mut self) -> Result<u64, String> {
        self.process.say("show port stats 0")?;
        let line = self.process.wait_for("RX-packets")?;
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| format!("testpmd said \"{line}\""))
    }
}
