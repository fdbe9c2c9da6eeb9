//! Which core each worker gets. To be asked before DPDK starts, which changes the affinity of the thread it is started by.

use core_affinity::CoreId;

use crate::config::{Config, Idle, Workers};

/// The cores that this process may use, ascending.
pub fn usable() -> Vec<CoreId> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.sort();
    cores
}

/// A core, or none to be pinned to, for each worker.
///
/// # Errors
/// A core is asked for that is not there; in words.
pub fn for_workers(config: &Config, usable: &[CoreId]) -> Result<Vec<Option<CoreId>>, String> {
    match &config.workers {
        Workers::Cores(wanted) => wanted
            .value
            .iter()
            .map(|id| {
                let core = usable.iter().find(|core| core.id == usize::from(*id));
                core.map(|core| Some(*core)).ok_or_else(|| {
                    format!(
                        "core {id} is not among those that ripvsd may use: {}",
                        list(usable)
                    )
                })
            })
            .collect(),
        // The first core is left to the control thread and everybody else.
        Workers::AllButOne => Ok(match usable {
            [] => vec![None],
            [only] => vec![Some(*only)],
            [_, rest @ ..] => rest.iter().copied().map(Some).collect(),
        }),
        Workers::Count(count) => {
            let count = usize::from(*count);
            let pinned = config.idle == Idle::Poll && count <= usable.len();
            if !pinned {
                return Ok(vec![None; count]);
            }
            Ok(usable[usable.len() - count..]
                .iter()
                .copied()
                .map(Some)
                .collect())
        }
    }
}

fn list(cores: &[CoreId]) -> String {
    let all: Vec<String> = cores.iter().map(|core| core.id.to_string()).collect();
    all.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{self, options::Options};

    fn cores(text: &str, usable: &[usize]) -> Result<Vec<Option<usize>>, String> {
        let config = config::from_text("", text, &Options::default()).unwrap();
        let usable: Vec<CoreId> = usable.iter().map(|id| CoreId { id: *id }).collect();
        let chosen = for_workers(&config, &usable)?;
        Ok(chosen
            .into_iter()
            .map(|core| core.map(|core| core.id))
            .collect())
    }

    #[test]
    fn by_default_there_is_a_worker_on_all_cores_but_one_and_at_least_one() {
        assert_eq!(cores("", &[0, 1, 2]), Ok(vec![Some(1), Some(2)]));
        assert_eq!(cores("", &[3]), Ok(vec![Some(3)]));
    }

    #[test]
    fn a_mere_number_of_workers_pins_them_only_where_they_never_sleep() {
        assert_eq!(cores("workers = 2", &[0, 1, 2]), Ok(vec![None, None]));
        assert_eq!(
            cores("workers = 2\nidle = \"poll\"", &[0, 1, 2]),
            Ok(vec![Some(1), Some(2)])
        );
        assert_eq!(
            cores("workers = 3\nidle = \"poll\"", &[0, 1]),
            Ok(vec![None; 3])
        );
    }

    #[test]
    fn a_core_that_is_not_there_is_named_with_those_that_are() {
        assert_eq!(
            cores("cores = [2, 0]", &[0, 1, 2]),
            Ok(vec![Some(2), Some(0)])
        );
        let error = cores("cores = [7]", &[0, 1]).unwrap_err();
        assert!(error.contains('7') && error.contains("0, 1"), "{error}");
    }
}
