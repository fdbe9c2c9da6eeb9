//! Which core each worker gets. To be asked before DPDK starts, which changes the affinity of the thread it is started by.

use core_affinity::CoreId;

use crate::config::{Config, Idle, Workers};

/// The cores that the kernel would run this process on, ascending. Those set apart by `isolcpus=` are not among them.
pub fn usable() -> Vec<CoreId> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.sort();
    cores
}

/// The most cores that the kernel's masks can name here.
const MOST: usize = 1024;

/// The cores that a thread can be pinned to: all that are online and within what the container allows.
///
/// # Errors
/// No thread can be had to try it with.
pub fn pinnable() -> std::io::Result<Vec<CoreId>> {
    let all = || (0..MOST).map(|id| CoreId { id });
    let attempt = move || all().filter(|core| core_affinity::set_for_current(*core));
    let thread = std::thread::Builder::new().spawn(move || attempt().collect());
    Ok(thread?.join().unwrap_or_default())
}

/// A core, or none to be pinned to, for each worker. Asked for by number it may be any that is `pinnable`.
///
/// # Errors
/// A core is asked for that is not there; in words.
pub fn for_workers(
    config: &Config,
    usable: &[CoreId],
    pinnable: &[CoreId],
) -> Result<Vec<Option<CoreId>>, String> {
    match &config.workers {
        Workers::Cores(wanted) => wanted
            .value
            .iter()
            .map(|id| {
                let core = CoreId {
                    id: usize::from(*id),
                };
                match pinnable.contains(&core) {
                    true => Ok(Some(core)),
                    false => Err(format!(
                        "core {id} is not among those that there are: {}",
                        list(pinnable)
                    )),
                }
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
        let pinnable = [0, 1, 2, 3].map(|id| CoreId { id });
        let chosen = for_workers(&config, &usable, &pinnable)?;
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
    fn a_core_that_the_kernel_leaves_alone_is_taken_where_it_is_named() {
        assert_eq!(cores("cores = [3]", &[0, 1]), Ok(vec![Some(3)]));
        let pinnable = pinnable().unwrap();
        assert!(usable().iter().all(|core| pinnable.contains(core)));
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
