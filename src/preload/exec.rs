//! `ripvs-exec PROGRAM...`: runs a program of the kernel's IPVS so that it drives ripvs.
//!
//! It sets the environment in which the dynamic linker preloads the library beside it, and becomes the program. A program
//! that the linker would not preload anything for is refused, as it would drive the kernel's IPVS instead.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use ripvs_api::{client, SOCKET_ENV};

const USAGE: &str = "\
usage: ripvs-exec [--socket PATH] PROGRAM [ARGUMENT...]

Runs ipvsadm, keepalived or another program made for the kernel's IPVS so that it
drives ripvs: ripvs-exec ipvsadm -Ln

  --socket PATH  where ripvsd listens (else RIPVS_SOCKET, else /run/ripvs/ripvsd.sock)
  -h, --help     print this
  -V, --version  print the version

RIPVS_PRELOAD names the library if it is not where it was installed.
";

/// The library.
const LIBRARY: &str = "libripvs_preload.so";
/// Its name in the environment.
const LIBRARY_ENV: &str = "RIPVS_PRELOAD";
/// Where it is looked for: from this program's folder, or anywhere.
const FOLDERS: [&str; 4] = [
    ".",
    "../lib/ripvs",
    "/usr/local/lib/ripvs",
    "/usr/lib/ripvs",
];
/// What the dynamic linker reads.
const PRELOAD_ENV: &str = "LD_PRELOAD";

/// Ended by the usage, as ipvsadm has it.
const USAGE_STATUS: i32 = 2;
/// A program that cannot be run, and one that is not there, as shells have it.
const NOT_RUN_STATUS: i32 = 126;
const NOT_FOUND_STATUS: i32 = 127;

fn main() {
    let (status, trouble) = run();
    eprintln!("ripvs-exec: {trouble}");
    process::exit(status);
}

/// Becomes the program. Returns only if it can't.
fn run() -> (i32, String) {
    let mut words = env::args_os().skip(1);
    let mut socket = None;
    let program = loop {
        let Some(word) = words.next() else {
            return (USAGE_STATUS, format!("which program?\n{USAGE}"));
        };
        match word.to_str() {
            Some("-h" | "--help") => {
                print!("{USAGE}");
                process::exit(0);
            }
            Some("-V" | "--version") => {
                println!("ripvs-exec {}", env!("CARGO_PKG_VERSION"));
                process::exit(0);
            }
            Some("--socket") => match words.next() {
                Some(path) => socket = Some(PathBuf::from(path)),
                None => return (USAGE_STATUS, "--socket needs a path".into()),
            },
            Some("--") => match words.next() {
                Some(word) => break word,
                None => return (USAGE_STATUS, format!("which program?\n{USAGE}")),
            },
            Some(option) if option.starts_with('-') => {
                return (USAGE_STATUS, format!("unknown option `{option}`\n{USAGE}"));
            }
            _ => break word,
        }
    };
    let library = match library() {
        Ok(library) => library,
        Err(trouble) => return (NOT_RUN_STATUS, trouble),
    };
    let Some(path) = find(&program) else {
        let name = program.to_string_lossy();
        return (NOT_FOUND_STATUS, format!("there is no program `{name}`"));
    };
    if let Err(trouble) = may_preload(&path) {
        return (NOT_RUN_STATUS, format!("{}: {trouble}", path.display()));
    }
    // The program may change its folder before it needs the socket.
    let socket = client::socket_path(socket.as_deref());
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    let error = Command::new(&path)
        .arg0(&program)
        .args(words)
        .env(SOCKET_ENV, socket)
        .env(PRELOAD_ENV, preloaded(&library))
        .exec();
    (NOT_RUN_STATUS, format!("{}: {error}", path.display()))
}

/// Where the library is.
fn library() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(LIBRARY_ENV).map(PathBuf::from) {
        return match fs::canonicalize(&path) {
            Ok(path) => Ok(path),
            Err(error) => Err(format!("{} ({LIBRARY_ENV}): {error}", path.display())),
        };
    }
    let own = env::current_exe().unwrap_or_default();
    let own = own.parent().unwrap_or(Path::new("/"));
    FOLDERS
        .iter()
        .find_map(|folder| fs::canonicalize(own.join(folder).join(LIBRARY)).ok())
        .ok_or_else(|| {
            format!(
                "{LIBRARY} is not in {} nor where it would be installed; {LIBRARY_ENV} can name it",
                own.display()
            )
        })
}

/// What is to be preloaded: our library before what is so already.
fn preloaded(library: &Path) -> OsString {
    let mut list = library.as_os_str().to_os_string();
    if let Some(before) = env::var_os(PRELOAD_ENV).filter(|before| !before.is_empty()) {
        list.push(":");
        list.push(before);
    }
    list
}

/// The file that the shell would run.
fn find(program: &OsStr) -> Option<PathBuf> {
    let runs = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    // These programs live where the paths of most users do not lead.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = env::split_paths(&folders).chain(more);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| runs(path)))
}

/// Whether the dynamic linker will preload a library for this program.
fn may_preload(path: &Path) -> Result<(), String> {
    let error = |error: std::io::Error| error.to_string();
    let found = fs::metadata(path).map_err(error)?;
    if found.mode() & 0o6000 != 0 && found.uid() != rustix::process::getuid().as_raw() {
        return Err("runs with another user's rights, so no library can be preloaded".into());
    }
    let mut start = Vec::new();
    let file = fs::File::open(path).map_err(error)?;
    file.take(64 * 1024)
        .read_to_end(&mut start)
        .map_err(error)?;
    match has_interpreter(&start) {
        Some(false) => Err("is linked statically, so no library can be preloaded".into()),
        _ => Ok(()),
    }
}

/// Whether an ELF file of 64 bits in this machine's byte order asks for a dynamic linker. `None` for other files.
fn has_interpreter(file: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    if !file.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_ne_bytes(*file.get(at..)?.first_chunk()?));
    let first = u64::from_ne_bytes(*file.get(32..)?.first_chunk()?);
    let (size, count) = (u64::from(u16_at(54)?), u64::from(u16_at(56)?));
    for number in 0..count {
        let at = first.checked_add(number * size)?;
        let kind = file.get(usize::try_from(at).ok()?..)?.first_chunk()?;
        if u32::from_ne_bytes(*kind) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_dynamic_linker_can_be_preloaded_for() {
        let own = env::current_exe().unwrap();
        let bytes = fs::read(&own).unwrap();
        assert_eq!(has_interpreter(&bytes), Some(true));
        assert_eq!(may_preload(&own), Ok(()));
    }

    #[test]
    fn a_program_without_one_is_told_from_a_script() {
        let mut elf = vec![0; 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        assert_eq!(has_interpreter(&elf), Some(false));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        // a table of segments that is not there
        elf[56] = 1;
        elf[32..40].fill(0xff);
        assert_eq!(has_interpreter(&elf), None);
    }

    #[test]
    fn a_program_is_found_as_the_shell_finds_it() {
        assert!(find(OsStr::new("sh")).is_some());
        assert!(find(OsStr::new("/bin/sh")).is_some());
        assert_eq!(find(OsStr::new("no-such-program")), None);
        assert_eq!(find(OsStr::new("/etc/passwd")), None);
    }
}
