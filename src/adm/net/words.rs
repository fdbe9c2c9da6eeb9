//! The words behind a verb, as ip(8) has them: `via 10.0.0.1 dev eth0`.

use std::fmt::Display;
use std::str::FromStr;

use ripvs_api::ripvs::PortRange;

use crate::app::{Exit, WRONG};

/// Words, taken one key at a time.
pub struct Words {
    words: Vec<String>,
    program: String,
}

impl Words {
    /// The words of a command line of `program`.
    pub fn new(words: Vec<String>, program: &str) -> Words {
        Words {
            words,
            program: program.to_owned(),
        }
    }

    /// Takes a word that stands alone, and tells whether it was there.
    pub fn flag(&mut self, key: &str) -> bool {
        let at = self.words.iter().position(|word| word == key);
        at.map(|at| self.words.remove(at)).is_some()
    }

    /// Takes a key with its value, if it is there.
    pub fn value<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<Option<T>, Exit> {
        let Some(at) = self.key(key) else {
            return Ok(None);
        };
        if at + 1 == self.words.len() {
            return Err(self.wrong(&format!("`{key}` needs a value")));
        }
        let value = self.words.remove(at + 1);
        self.words.remove(at);
        let parsed = value.parse().map(Some);
        parsed.map_err(|error| self.wrong(&format!("`{key} {value}`: {error}")))
    }

    /// Takes a key with its value, which has to be there.
    pub fn needed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<T, Exit> {
        let value = self.value(key)?;
        value.ok_or_else(|| self.wrong(&format!("`{key}` is missing")))
    }

    /// Takes a key with the name or number of a protocol.
    pub fn protocol(&mut self, key: &str) -> Result<Option<u8>, Exit> {
        let Some(name) = self.value::<String>(key)? else {
            return Ok(None);
        };
        let number = match name.as_str() {
            "icmp" => Some(1),
            "tcp" => Some(6),
            "udp" => Some(17),
            "esp" => Some(50),
            "ah" => Some(51),
            "icmp6" => Some(58),
            "sctp" => Some(132),
            number => number.parse().ok(),
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(&format!("`{name}` is no protocol"))),
        }
    }

    /// Takes a key with ports and ranges, with commas between them.
    pub fn ports(&mut self, key: &str) -> Result<Vec<PortRange>, Exit> {
        let list = self.value::<String>(key)?.unwrap_or_default();
        let parts = list.split(',').filter(|part| !part.is_empty());
        let ranges: Result<_, String> = parts.map(str::parse).collect();
        ranges.map_err(|error| self.wrong(&error))
    }

    /// Ends the reading: nothing may be left.
    pub fn end(self) -> Result<(), Exit> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(self.wrong(&format!("`{word}` has no meaning here"))),
        }
    }

    /// Where a key is. Keys stand at even places, once what stands alone is taken.
    fn key(&self, key: &str) -> Option<usize> {
        let keys = self.words.iter().enumerate().step_by(2);
        keys.filter(|(_, word)| *word == key)
            .map(|(at, _)| at)
            .next()
    }

    fn wrong(&self, message: &str) -> Exit {
        Exit::Failed(WRONG, format!("{}: {message}\n", self.program))
    }
}
