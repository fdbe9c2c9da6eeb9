//! Callgrind's files: instructions by address, and by the source lines that addresses stand for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Instructions of one dump.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// By address in the program itself.
    pub own: BTreeMap<u64, u64>,
    /// In other objects: the C library's copying and comparing.
    pub others: u64,
}

impl Dump {
    /// All instructions.
    pub fn total(&self) -> u64 {
        self.own.values().sum::<u64>() + self.others
    }
}

/// Reads a dump that was made with `--dump-instr=yes`.
///
/// # Errors
/// The file cannot be read, or is not of that form.
pub fn read(path: &Path, program: &str) -> Result<Dump, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text, program).ok_or_else(|| format!("{}: not understood", path.display()))
}

fn parse(text: &str, program: &str) -> Option<Dump> {
    let mut dump = Dump::default();
    let mut own = false;
    let mut names = BTreeMap::new();
    let mut is_call = false;
    let mut total = None;
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            // "(7) name" the first time, "(7)" from then on.
            let (id, name) = object.split_once(' ').unwrap_or((object, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            own = names.get(id)?.ends_with(program);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if let Some(sum) = line.strip_prefix("totals: ") {
            total = sum.split(' ').next()?.parse().ok();
        } else if line.starts_with("0x") {
            // What a call costs is counted where it is spent.
            if std::mem::take(&mut is_call) {
                continue;
            }
            let mut words = line.split(' ');
            let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
            let cost: u64 = words.nth(1)?.parse().ok()?;
            if own {
                *dump.own.entry(address).or_default() += cost;
            } else {
                dump.others += cost;
            }
        } else if let Some((_, name)) = line.strip_prefix("cob=").and_then(|o| o.split_once(' ')) {
            let id = line.strip_prefix("cob=")?.split(' ').next()?;
            names.insert(id, name);
        }
    }
    (total == Some(dump.total())).then_some(dump)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "version: 1\npositions: instr line\nevents: Ir\nob=(1) /x/program\nfl=(1)\nfn=(1) f\n\
        0x100 5 10\n0x104 5 2\ncob=(2) /lib/libc.so\ncfn=(2) memcpy\ncalls=3 0x900\n0x104 5 30\n\
        ob=(2)\nfn=(2)\n0x900 0 30\nob=(1)\n0x100 7 1\ntotals: 43\n";

    #[test]
    fn instructions_are_counted_once_and_where_they_are_spent() {
        let dump = parse(TEXT, "/program").unwrap();
        assert_eq!(dump.own, BTreeMap::from([(0x100, 11), (0x104, 2)]));
        assert_eq!((dump.others, dump.total()), (30, 43));
    }

    #[test]
    fn a_file_whose_sum_is_not_the_sum_of_its_lines_is_refused() {
        assert!(parse(&TEXT.replace("totals: 43", "totals: 44"), "/program").is_none());
    }
}
