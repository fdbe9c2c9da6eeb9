//! A program that is measured: started, stopped while another one has its turn, and ended whatever happens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// How long a program may take to say something it was asked for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program under way. It ends with its handle, or with the thread that started it.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Process {
    /// Starts a program. What it says is read by the line.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, args: &[String]) -> Result<Process, String> {
        Process::start_with(program, args, &[])
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_with(
        program: &Path,
        args: &[String],
        environment: &[(&str, String)],
    ) -> Result<Process, String> {
        let name = program.display().to_string();
        // Should this program be killed, that one must not stay; and what it prints is wanted at once.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "stdbuf", "-oL"])
            .arg(program)
            .args(args)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (sender, said) = channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Process {
            name,
            child,
            stdin,
            said,
        })
    }

    /// Waits for a line with this in it, and returns it.
    ///
    /// # Errors
    /// It ended, or did not come in time; with what it said last.
    pub fn wait_for(&mut self, text: &str) -> Result<String, String> {
        let until = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(line) if !left.is_zero() => last.push(line),
                // Also where it talks on and on about something else.
                _ => {
                    let from = last.len().saturating_sub(8);
                    let name = &self.name;
                    let said = last[from..].join("\n");
                    return Err(format!("{name} did not say \"{text}\" but:\n{said}"));
                }
            }
        }
    }

    /// Writes a line to the program.
    ///
    /// # Errors
    /// It does not read.
    pub fn say(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("no standard input")?;
        writeln!(stdin, "{line}").map_err(|error| format!("{}: {error}", self.name))
    }

    /// Takes the program off the processor.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself, which shows elsewhere.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Processor time of each of its threads so far, in nanoseconds, by number.
    ///
    /// # Errors
    /// The program is gone.
    pub fn cpu(&self) -> Result<Vec<(u32, u64)>, String> {
        let times = self.threads()?;
        Ok(times.iter().map(|(id, [time, _])| (*id, *time)).collect())
    }

    /// For how long its busiest thread so far was ready while others had its core, in nanoseconds.
    ///
    /// # Errors
    /// The program is gone.
    pub fn waited(&self) -> Result<u64, String> {
        let busiest = self.threads()?.into_iter().map(|(_, times)| times).max();
        Ok(busiest.map_or(0, |[_, waited]| waited))
    }

    /// Processor time and time of waiting for a processor of each of its threads so far, in nanoseconds, by number.
    fn threads(&self) -> Result<Vec<(u32, [u64; 2])>, String> {
        let dir = format!("/proc/{}/task", self.child.id());
        let gone = |error: std::io::Error| format!("{} is gone: {error}", self.name);
        let mut times = Vec::new();
        for entry in fs::read_dir(dir).map_err(gone)? {
            let path = entry.map_err(gone)?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let text = fs::read_to_string(path.join("schedstat")).map_err(gone)?;
            let mut words = text.split(' ').map_while(|word| word.parse().ok());
            if let (Some(id), Some(time), Some(waited)) = (id, words.next(), words.next()) {
                times.push((id, [time, waited]));
            }
        }
        Ok(times)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.resume();
        self.signal(Signal::SIGTERM);
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By how much the processor time of the busiest threads grew, in nanoseconds, together.
pub fn busiest(before: &[(u32, u64)], after: &[(u32, u64)], threads: usize) -> u64 {
    let grown = after.iter().map(|(id, time)| {
        let old = before.iter().find(|(known, _)| known == id);
        time - old.map_or(0, |(_, time)| *time).min(*time)
    });
    let mut grown: Vec<u64> = grown.collect();
    grown.sort_unstable_by(|a, b| b.cmp(a));
    grown.iter().take(threads).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_threads_are_those_whose_time_grew_most() {
        let before = [(1, 1_000), (2, 50), (3, 7)];
        let after = [(1, 1_010), (2, 150), (3, 37), (4, 5)];
        assert_eq!(busiest(&before, &after, 1), 100);
        assert_eq!(busiest(&before, &after, 2), 130);
    }
}
