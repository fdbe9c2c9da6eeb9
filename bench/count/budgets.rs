//! What a packet may cost in instructions: the recorded figures, and what is too far from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// By how much a figure may be above its budget.
pub const MARGIN: f64 = 0.03;

/// The recorded figures.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The compiler they were counted with.
    pub rustc: String,
    /// Instructions for a packet, by case.
    pub instructions: BTreeMap<String, f64>,
}

/// What was counted, in order.
pub type Counted = Vec<(String, f64)>;

impl Budgets {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or no such file.
    pub fn read(path: &Path) -> Result<Budgets, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes what was counted as the budgets from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &Path, rustc: &str, counted: &Counted) -> Result<(), String> {
        let mut text = format!(
            "# Instructions that a worker needs for a packet, counted by callgrind. `scripts/bench instructions` fails where one\n\
             # is more than {:.0}% above its figure here; `scripts/bench instructions --record` writes this file anew.\n\
             rustc = \"{rustc}\"\n\n[instructions]\n",
            MARGIN * 100.0
        );
        for (name, count) in counted {
            text += &format!("\"{name}\" = {count:.1}\n");
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The budget of a case.
    pub fn of(&self, name: &str) -> Option<f64> {
        self.instructions.get(name).copied()
    }

    /// What is wrong with what was counted, a line each.
    pub fn complaints(&self, counted: &Counted) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, count) in counted {
            match self.of(name) {
                None => wrong.push(format!("{name}: there is no budget")),
                Some(budget) if *count > budget * (1.0 + MARGIN) => wrong.push(format!(
                    "{name}: {count:.1} instructions, {:.1}% above the budget of {budget:.1}",
                    (count / budget - 1.0) * 100.0
                )),
                Some(_) => {}
            }
        }
        for name in self.instructions.keys() {
            if !counted.iter().any(|(known, _)| known == name) {
                wrong.push(format!("{name}: there is a budget, but no such case"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: f64) -> Counted {
        vec![("DR".to_string(), count)]
    }

    fn budgets() -> Budgets {
        Budgets {
            rustc: String::new(),
            instructions: BTreeMap::from([("DR".to_string(), 100.0)]),
        }
    }

    #[test]
    fn three_percent_more_is_let_through_and_what_is_above_is_not() {
        assert!(budgets().complaints(&counted(103.0)).is_empty());
        assert!(budgets().complaints(&counted(50.0)).is_empty());
        assert_eq!(budgets().complaints(&counted(103.2)).len(), 1);
    }

    #[test]
    fn cases_without_budget_and_budgets_without_case_are_told() {
        assert_eq!(Budgets::default().complaints(&counted(1.0)).len(), 1);
        assert_eq!(budgets().complaints(&Vec::new()).len(), 1);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let path = std::env::temp_dir().join(format!("ripvs-budgets-{}", std::process::id()));
        Budgets::write(&path, "rustc 1", &counted(12.3)).unwrap();
        let read = Budgets::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            (read.rustc.as_str(), read.of("DR")),
            ("rustc 1", Some(12.3))
        );
    }
}
