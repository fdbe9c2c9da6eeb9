//! Puts results into a document: what stands between `<!-- results: NAME -->` and `<!-- end -->` becomes the table of
//! `NAME.csv`, with the machine that it is from.

use std::fs;
use std::path::{Path, PathBuf};

/// What goes where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The document.
    document: PathBuf,
    /// The directory where results are kept.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

const BEGIN: &str = "<!-- results: ";
const END: &str = "<!-- end -->";

/// Columns that a reader wants, under other names where those say more; all where a file is not listed.
const COLUMNS: [(&str, &[(&str, &str)]); 3] = [
    (
        "packets",
        &[
            ("case", "case"),
            ("flows", "flows"),
            ("testpmd_ns", "testpmd"),
            ("ripvsd_ns", "ripvs"),
            ("ripvsd_mpps", "Mpps"),
            ("added_ns", "added"),
            ("added_spread", "±"),
            ("target_ns", "to reach"),
            ("floor_added_ns", "bare loop"),
            ("ratio", "ratio"),
        ],
    ),
    (
        "alone",
        &[
            ("case", "case"),
            ("value", "value"),
            ("unit", "unit"),
            ("spread", "±"),
            ("target", "to reach"),
            ("round_p50_us", "round p50, µs"),
            ("round_p999_us", "p99.9"),
            ("round_longest_us", "longest"),
            ("seen_p999_us", "p99.9 as seen"),
            ("seen_longest_us", "longest as seen"),
        ],
    ),
    (
        "paced",
        &[
            ("case", "case"),
            ("offered_pps", "packets/s"),
            ("offered", "offered"),
            ("lost", "lost"),
            ("others_ms", "core with others, ms"),
            ("host_ms", "with the host, ms"),
            ("p50_ns", "p50, ns"),
            ("p99_ns", "p99"),
            ("p999_ns", "p99.9"),
        ],
    ),
];

/// Fills the document's places.
///
/// # Errors
/// A file cannot be read or written, or a place has no end.
pub fn run(options: &Options) -> Result<(), String> {
    let path = &options.document;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(failed)?;
    let filled = fill(&text, &|name| table(&options.results, name))?;
    fs::write(path, filled).map_err(failed)
}

/// The text with its places filled; those without results stay as they are.
fn fill(text: &str, table: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let after = &rest[at + BEGIN.len()..];
        let name = after.split(' ').next().unwrap_or_default();
        let begin = at + rest[at..].find('\n').ok_or("a place without an end")? + 1;
        let len = rest[begin..].find(END);
        let end = begin + len.ok_or_else(|| format!("{name}: a place without an end"))?;
        out += &rest[..begin];
        match table(name) {
            Some(table) => out += &table,
            None => out += &rest[begin..end],
        }
        rest = &rest[end..];
    }
    Ok(out + rest)
}

/// Nanoseconds that a NIC's driver is taken to need for receiving and sending a packet.
const DRIVER: f64 = 20.0;

/// How many cores a direction of 100 Gbit/s asks for, reckoned from the added costs.
fn cores(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("packets.csv")).ok()?;
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(cells)
        .collect();
    let at = |key: &str| rows.first()?.iter().position(|own| own == key);
    let (case, flows, added, target) =
        (at("case")?, at("flows")?, at("added_ns")?, at("target_ns")?);
    let sizes = [60.0, 420.0, 1514.0].map(|bytes| 100e9 / 8.0 / (bytes + 24.0) / 1e9);
    let mut out = "| case | flows | million packets a second a core | cores for 60 bytes | for 420 bytes | for 1,514 bytes |\n\
                   | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_string();
    for row in rows.iter().skip(1) {
        // The plain cases are those that have a figure to reach.
        let plain = row.get(target).is_some_and(|cell| !cell.is_empty());
        let many = row.get(flows).is_some_and(|cell| cell.len() >= 5);
        let cost = row.get(added).and_then(|cell| cell.parse::<f64>().ok());
        let (Some(cost), true) = (cost.map(|cost| cost + DRIVER), plain && many) else {
            continue;
        };
        let each = sizes.map(|rate| format!("{:.1}", (rate * cost).max(0.1)));
        out += &format!(
            "| {} | {} | {:.1} | {} |\n",
            row[case],
            row[flows],
            1000.0 / cost,
            each.join(" | ")
        );
    }
    Some(out)
}

/// The table of a file of results, if it is there.
fn table(dir: &Path, name: &str) -> Option<String> {
    if name == "cores" {
        return cores(dir);
    }
    let text = fs::read_to_string(dir.join(format!("{name}.csv"))).ok()?;
    let mut machine = "";
    let mut rows = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(said) => machine = said,
            None => rows.push(cells(line)),
        }
    }
    let head = rows.first()?.clone();
    let wanted = COLUMNS.iter().find(|(file, _)| *file == name);
    let columns: Vec<(usize, &str)> = match wanted {
        Some((_, columns)) => columns
            .iter()
            .filter_map(|(key, title)| Some((head.iter().position(|own| own == key)?, *title)))
            .collect(),
        None => head.iter().map(String::as_str).enumerate().collect(),
    };
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = String::new();
    if !machine.is_empty() {
        out += &format!("{machine}:\n\n");
    }
    out += &line(&mut columns.iter().map(|(_, title)| title.to_string()));
    out += &line(
        &mut columns
            .iter()
            .map(|(at, _)| if *at == 0 { "---" } else { "---:" }.into()),
    );
    for row in rows.iter().skip(1) {
        let cell = |at: usize| shorter(row.get(at).map_or("", String::as_str));
        out += &line(&mut columns.iter().map(|(at, _)| cell(*at)));
    }
    Some(out)
}

/// A line's cells; those in quotes may have commas.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => {
                if let Some(cell) = cells.last_mut() {
                    cell.push(c);
                }
            }
        }
    }
    cells
}

/// A number with no more digits than mean something.
fn shorter(cell: &str) -> String {
    match cell.parse::<f64>() {
        Ok(number) if cell.contains('.') && number.abs() >= 100.0 => format!("{number:.0}"),
        Ok(number) if cell.contains('.') && number.abs() >= 10.0 => format!("{number:.1}"),
        Ok(number) if cell.contains('.') => format!("{number:.2}"),
        _ => cell.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_all_else_stays() {
        let text = "a\n<!-- results: x -->\nold\n<!-- end -->\nb\n<!-- results: y -->\nkept\n<!-- end -->\n";
        let table = |name: &str| (name == "x").then(|| "new\n".to_string());
        let expected = "a\n<!-- results: x -->\nnew\n<!-- end -->\nb\n<!-- results: y -->\nkept\n<!-- end -->\n";
        assert_eq!(fill(text, &table).unwrap(), expected);
        assert_eq!(fill(expected, &table).unwrap(), expected);
        assert!(fill("<!-- results: x -->\n", &table).is_err());
    }

    #[test]
    fn cells_in_quotes_keep_their_commas() {
        assert_eq!(cells("\"a, b\",1,,2"), ["a, b", "1", "", "2"]);
        assert_eq!(
            ["1.234", "12.34", "123.4", "1234", "x"].map(shorter),
            ["1.23", "12.3", "123", "1234", "x"]
        );
    }
}
