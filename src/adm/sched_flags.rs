//! The words for flags of schedulers: sh and mh have their own, others are numbered.

use ripvs_api::ipvs::number::flag;

/// All flags that schedulers may have.
pub const ALL: u32 = flag::SCHED1 | flag::SCHED2 | flag::SCHED3;

/// Words for any scheduler.
const NUMBERED: [(&str, u32); 3] = [
    ("flag-1", flag::SCHED1),
    ("flag-2", flag::SCHED2),
    ("flag-3", flag::SCHED3),
];

/// Words for one scheduler.
const NAMED: [(&str, &str, u32); 4] = [
    ("sh", "sh-fallback", flag::SCHED1),
    ("sh", "sh-port", flag::SCHED2),
    ("mh", "mh-fallback", flag::SCHED1),
    ("mh", "mh-port", flag::SCHED2),
];

/// The flags in a list of words with commas between them.
///
/// # Errors
/// The message.
pub fn parse(sched: &str, list: &str) -> Result<u32, String> {
    let mut flags = 0;
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let named = NAMED.iter().find(|(_, name, _)| *name == word);
        let numbered = NUMBERED.iter().find(|(name, _)| *name == word);
        flags |= match (named, numbered) {
            (Some((whose, _, flag)), _) if *whose == sched => *flag,
            (Some(_), _) => return Err(format!("incompatible scheduler flag `{word}'")),
            (None, Some((_, flag))) => *flag,
            (None, None) => return Err(format!("invalid scheduler flag `{word}'")),
        };
    }
    Ok(flags)
}

/// The words for flags, with commas between them. What sh and mh have no word for is left out.
pub fn show(sched: &str, flags: u32) -> String {
    let named: Vec<(&str, u32)> = NAMED
        .iter()
        .filter(|(whose, ..)| *whose == sched)
        .map(|(_, name, flag)| (*name, *flag))
        .collect();
    let words = if named.is_empty() {
        &NUMBERED[..]
    } else {
        &named
    };
    let set = words.iter().filter(|(_, flag)| flags & flag != 0);
    set.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_scheduler_or_numbers() {
        assert_eq!(parse("sh", "sh-port,sh-port"), Ok(flag::SCHED2));
        assert_eq!(
            parse("mh", "mh-port,flag-2,mh-fallback"),
            Ok(flag::SCHED1 | flag::SCHED2)
        );
        assert_eq!(
            parse("rr", ",flag-1,,flag-3,"),
            Ok(flag::SCHED1 | flag::SCHED3)
        );
        assert_eq!(parse("", ""), Ok(0));
    }

    #[test]
    fn other_words_are_refused_in_their_order() {
        let incompatible = Err("incompatible scheduler flag `mh-port'".to_owned());
        assert_eq!(parse("sh", "mh-port,nosuch"), incompatible);
        let invalid = |word| Err(format!("invalid scheduler flag `{word}'"));
        assert_eq!(parse("sh", "sh-port,nosuch"), invalid("nosuch"));
        assert_eq!(parse("rr", "FLAG-1"), invalid("FLAG-1"));
        assert_eq!(parse("rr", "flag-1 flag-2"), invalid("flag-1 flag-2"));
    }

    #[test]
    fn flags_are_shown_as_they_are_typed() {
        assert_eq!(show("sh", ALL), "sh-fallback,sh-port");
        assert_eq!(show("rr", flag::SCHED1 | flag::SCHED3), "flag-1,flag-3");
        assert_eq!(show("mh", flag::SCHED3), "");
    }
}
