//! What the TOML library says of a wrong file, in the operator's words: what is wrong, and what would be right, by the
//! documented example. Reads the library's messages (toml 0.8), and repeats those it does not know.

use super::file::nearest;

/// A configuration with every key, commented ones included.
pub(super) const EXAMPLE: &str = include_str!("../../../docs/ripvsd.example.toml");

/// Tables that there may be several of.
const LISTS: [&str; 5] = ["port", "vlan", "bond", "route", "neighbour"];
const MARK: &str = "mark";
const TABLES: [&str; 4] = ["eal", "loopback", "sysctl", "timeouts"];

fn is_list(table: &str) -> bool {
    LISTS.contains(&table) || table == MARK
}

/// A key of the example: its table (empty at the top), its name, and the line it stands in.
struct Known {
    table: &'static str,
    key: &'static str,
    line: &'static str,
}

fn known() -> Vec<Known> {
    let mut all: Vec<Known> = Vec::new();
    let mut table = "";
    for line in EXAMPLE.lines() {
        if let Some(name) = header(line) {
            table = name;
            continue;
        }
        let line = line.trim_start_matches("# ");
        let line = line.split("  #").next().unwrap_or(line).trim_end();
        let key = line.split(" = ").next().unwrap_or("");
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key && key.len() < line.len() && !all.iter().any(|k| k.table == table && k.key == key)
        {
            all.push(Known { table, key, line });
        }
    }
    all
}

/// The name in a table's header.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?;
    let name = inner.trim_start_matches('[').split([']', ' ', '#']).next();
    name.filter(|name| !name.is_empty())
}

/// Where in a file a mistake is: the table, the key whose value it is, and the text of the value from there on.
struct Place<'a> {
    table: &'a str,
    key: &'a str,
    rest: &'a str,
}

impl<'a> Place<'a> {
    fn find(text: &'a str, start: usize) -> Place<'a> {
        let before = text.get(..start).unwrap_or("");
        let rest = text.get(start..).unwrap_or("").lines().next().unwrap_or("");
        let mut place = Place {
            table: "",
            key: "",
            rest: rest.trim(),
        };
        for line in before.lines().rev() {
            if let Some(name) = header(line) {
                place.table = name;
                break;
            }
            if let Some((key, _)) = line.split_once('=').filter(|_| place.key.is_empty()) {
                place.key = key.trim();
            }
        }
        place
    }

    /// The example's line for the key.
    fn example(&self) -> Option<&'static str> {
        let line = |k: Known| (k.table == self.table && k.key == self.key).then_some(k.line);
        known().into_iter().find_map(line)
    }

    /// `said`, with what would be right where the example has it.
    fn with_example(&self, said: String) -> String {
        match self.example() {
            Some(line) => format!("{said}; right would be `{line}`"),
            None => said,
        }
    }
}

/// Puts a message of the library about `text`, at the byte `start` of it, into words.
pub(super) fn explain(message: &str, text: &str, start: Option<usize>) -> String {
    let message = message.trim_end();
    let place = Place::find(text, start.unwrap_or(0));
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        return wrong_value(rest, &place);
    }
    if let Some(rest) = message.strip_prefix("invalid value: ") {
        return wrong_value(rest, &place);
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return missing(name.trim_matches('`'), text, start.unwrap_or(0));
    }
    if message.starts_with("unknown field") {
        return unknown_key(message, text, start.unwrap_or(0));
    }
    if message.starts_with("unknown variant") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let unknown = quoted.next().unwrap_or("");
        let all: Vec<&str> = quoted.collect();
        return format!(
            "`{unknown}` is no {}; there are {}",
            place.key,
            all.join(", ")
        ) + &suggestion(unknown, all.iter().copied());
    }
    match message {
        "wanted string or table" => {
            wrong_value(&format!("`{}`, expected a string", place.rest), &place)
        }
        "invalid IP address syntax" => {
            place.with_example(format!("{} is no IPv4 or IPv6 address", place.rest))
        }
        _ => syntax(message, &place),
    }
}

/// `integer `70000`, expected u16` and its like.
fn wrong_value(said: &str, place: &Place<'_>) -> String {
    let (found, wanted) = said.rsplit_once(", expected ").unwrap_or((said, ""));
    let is_value = place.example().is_some();
    if !is_value && (is_list(place.key) || (place.key.is_empty() && found == "map")) {
        let table = if place.key.is_empty() {
            header(place.rest).unwrap_or("")
        } else {
            place.key
        };
        return format!(
            "there may be several of `{table}`; each begins with [[{table}]], in two brackets"
        );
    }
    if !is_value && TABLES.contains(&place.key) {
        return format!(
            "`{0}` is a table; it begins with [{0}], and its keys follow, a line each",
            place.key
        );
    }
    let found = match (found, found.split_once(' ')) {
        ("map", _) => "a table".into(),
        ("sequence", _) => "a list".into(),
        (_, Some(("string", text))) => format!("the text {text}"),
        _ => found.split('`').nth(1).unwrap_or(found).to_string(),
    };
    let wanted = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list in brackets",
        "a string" | "path string" | "IP address" => "a text in quotes",
        other => other,
    };
    let in_list =
        wanted != "a list in brackets" && place.example().is_some_and(|line| line.contains("= ["));
    let each = if in_list { "each value of " } else { "" };
    place.with_example(format!(
        "{each}`{}` has to be {wanted}, not {found}",
        place.key
    ))
}

fn missing(name: &str, text: &str, start: usize) -> String {
    let line = text.get(start..).unwrap_or("").lines().next().unwrap_or("");
    let table = header(line).unwrap_or("");
    let place = Place {
        table,
        key: name,
        rest: "",
    };
    place.with_example(format!("this [[{table}]] has no `{name}`"))
}

fn suggestion<'a>(unknown: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    match nearest(unknown, candidates) {
        Some(like) => format!("; did you mean `{like}`?"),
        None => String::new(),
    }
}

fn unknown_key(message: &str, text: &str, start: usize) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().unwrap_or("");
    let here: Vec<&str> = quoted.collect();
    let like = suggestion(unknown, here.iter().copied());
    if !like.is_empty() {
        return format!("there is no key `{unknown}` here{like}");
    }
    let table = Place::find(text, start).table;
    let all = known();
    let mut elsewhere: Vec<String> = Vec::new();
    for known in all.iter().filter(|k| k.key == unknown && k.table != table) {
        elsewhere.push(match known.table {
            "" => "to the top of the file, before the first table".into(),
            table if is_list(table) => format!("under [[{table}]]"),
            table => format!("under [{table}]"),
        });
    }
    if !elsewhere.is_empty() {
        return format!(
            "there is no key `{unknown}` here; it belongs {}",
            elsewhere.join(" or ")
        );
    }
    format!(
        "there is no key `{unknown}` here; there are {}",
        here.join(", ")
    )
}

/// What is no TOML at all.
fn syntax(message: &str, place: &Place<'_>) -> String {
    let (what, expected) = message.split_once('\n').unwrap_or((message, ""));
    let nothing = place.rest.is_empty() || place.rest.starts_with('#');
    if let Some(key) = what
        .strip_prefix("duplicate key `")
        .and_then(|rest| rest.split('`').next())
    {
        return format!("`{key}` is there already; say it once");
    }
    match what {
        "" | "invalid string" if nothing => place.with_example(format!("`{}` has no value", place.key)),
        "invalid string" => {
            place.with_example(format!("`{}` is neither a number, true or false, nor a text in quotes", place.rest))
        }
        "invalid basic string" | "invalid literal string" => {
            "the quote that begins this text has none to end it on the same line".into()
        }
        "expected `.`, `=`" => "between a key and its value there has to be `=`".into(),
        "expected newline, `#`" => {
            "something follows the value; each key has a line of its own, and a text stands in quotes".into()
        }
        "invalid array" => "the list has no end: `]` is missing, or `,` between two of its values".into(),
        "invalid table header" => {
            "a table's name stands in brackets, [eal] or [[port]], as many at its end as at its beginning".into()
        }
        "invalid escape sequence" => {
            "`\\` has a meaning of its own in a text; write `\\\\`, or put the text in single quotes".into()
        }
        // Our own words about a value, which say what would be right.
        _ if !what.starts_with("invalid ") && !what.contains("expected") => message.into(),
        _ => {
            let expected = expected.replace("expected ", "; there should be ");
            place.with_example(format!("{what}{expected}"))
        }
    }
}

#[cfg(test)]
mod tests {

    /// What is said about a text that is wrong.
    fn said(text: &str) -> String {
        match super::super::file::parse(text) {
            Ok(_) => format!("{text:?} is right"),
            Err(mistake) => mistake.message,
        }
    }

    #[test]
    fn the_library_s_words_do_not_reach_the_operator() {
        let port = "[[port]]\nname = \"eth0\"\ndevice = \"net_tap0\"\n";
        let rows: [(&str, &[&str]); 36] = [
            ("[[mark]]\nmark = \"7\"", &["whole number", "mark = 7"]),
            (
                "[[mark]]\nmark = 7\ndestination_ports = [80]",
                &[
                    "each value of `destination_ports`",
                    "text in quotes",
                    "not 80",
                ],
            ),
            ("socket = /run/x", &["/run/x", "quotes", "socket = \""]),
            ("socket = \"/run/x\n", &["quote", "end"]),
            ("socket = '/run/x\n", &["quote", "end"]),
            ("socket = \"C:\\x\"", &["single quotes"]),
            ("workers =", &["`workers` has no value", "workers = 2"]),
            (
                "workers = \"two\"",
                &["`workers`", "0 to 65535", "the text \"two\"", "workers = 2"],
            ),
            ("workers = 70000", &["0 to 65535", "70000"]),
            ("workers = -1", &["0 to 65535", "-1"]),
            ("workers = 1.5", &["whole number", "not 1.5;"]),
            ("workers = 0x", &["hexadecimal", "workers = 2"]),
            ("workers 2", &["`=`"]),
            ("scheduling: local", &["`=`"]),
            ("workers = 2 3", &["line of its own"]),
            ("workers = 1\nworkers = 2", &["`workers`", "once"]),
            ("cores = [1, 2\n", &["`]`"]),
            ("cores = 1", &["list in brackets", "cores = [1, 2]"]),
            ("[eal\nargs = []", &["brackets"]),
            ("[[port]\n", &["brackets"]),
            ("[port]\nname = \"eth0\"", &["[[port]]", "several"]),
            ("port = \"eth0\"", &["[[port]]"]),
            ("loopback = [\"192.0.2.1/32\"]", &["[loopback]"]),
            (
                "[eal]\nargs = \"--no-huge\"",
                &["list in brackets", "args = ["],
            ),
            (
                "[[port]]\nname = \"eth0\"",
                &["[[port]]", "no `device`", "0000:03:00.0"],
            ),
            (
                "[[route]]\nprefix = \"default\"\nvia = \"1.2.3\"",
                &["\"1.2.3\"", "no IPv4", "via = \"198.18.0.1\""],
            ),
            (
                "[[route]]\nprefix = \"default\"\nvia = 1",
                &["text in quotes", "not 1", "via = \"198.18.0.1\""],
            ),
            (
                "socket_mode = 660",
                &["text in quotes", "socket_mode = \"0660\""],
            ),
            (
                "idle = \"pol\"",
                &["no idle", "adaptive, poll", "did you mean `poll`"],
            ),
            ("idle = 3", &["text in quotes", "not 3"]),
            ("state_dir = 5", &["text in quotes", "state_dir = \"/var"]),
            (
                "[sysctl]\nsloppy_tcp = true",
                &["whole number", "sloppy_tcp = 1"],
            ),
            (
                "[timeouts]\ntcp = \"15m\"",
                &["whole number", "\"15m\"", "tcp = 900"],
            ),
            ("companion = \"x\"", &["no key `companion`", "[[port]]"]),
            ("wrokers = 1", &["did you mean `workers`"]),
            ("frobnicate = 1", &["there are workers, cores"]),
        ];
        for (text, words) in rows {
            let said = said(text);
            for word in words {
                assert!(
                    said.contains(word),
                    "{text:?}: {word:?} is missing in: {said}"
                );
            }
        }
        for (value, words) in [
            ("promiscuous = yes", ["yes", "promiscuous = false"]),
            (
                "promiscuous = \"yes\"",
                ["true or false", "promiscuous = false"],
            ),
            ("mtu = 90000", ["0 to 65535", "mtu = 1500"]),
            (
                "addresses = \"10.0.0.1/24\"",
                ["list in brackets", "addresses = ["],
            ),
            ("workers = 1", ["no key `workers`", "top of the file"]),
        ] {
            let said = said(&format!("{port}{value}"));
            for word in words {
                assert!(
                    said.contains(word),
                    "{value:?}: {word:?} is missing in: {said}"
                );
            }
        }
    }

    #[test]
    fn what_we_say_ourselves_stays_as_it_is() {
        let said = said("[[route]]\nprefix = \"10.0.0.1/8\"");
        assert!(said.ends_with("the network is 10.0.0.0/8"), "{said}");
    }

    #[test]
    fn a_value_over_several_lines_belongs_to_its_key() {
        let said = said("cores = [\n  1,\n  \"2\",\n]");
        assert!(
            said.contains("`cores`") && said.contains("the text \"2\""),
            "{said}"
        );
    }
}
