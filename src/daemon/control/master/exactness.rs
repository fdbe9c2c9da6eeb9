//! Which services are scheduled at one worker, in the order of one kernel: as the configuration says for all, and as
//! somebody said for one. What is said of a service holds whether or not it is there, so that it outlives a service that a
//! tool deletes and adds again.

use std::collections::HashMap;

use ripvs_api::ripvs::{ServiceExact, ServiceName};
use ripvs_api::{ipvs, ripvs};

/// What is said of all services, and of some.
#[derive(Clone, Default)]
pub struct Exactness {
    all: bool,
    said: HashMap<ipvs::ServiceKey, bool>,
    /// As it was configured.
    configured: HashMap<ipvs::ServiceKey, bool>,
}

impl Exactness {
    /// What the configuration says: of all, and which are exact in any case.
    pub fn new(all: bool, exact: &[ServiceName]) -> Exactness {
        let said: HashMap<_, _> = exact.iter().map(|name| (name.0, true)).collect();
        Exactness {
            all,
            configured: said.clone(),
            said,
        }
    }

    /// Whether a service is scheduled at one worker.
    pub fn of(&self, key: &ipvs::ServiceKey) -> bool {
        self.said.get(key).copied().unwrap_or(self.all)
    }

    /// Says so of one, or says no more of it.
    pub fn say(&mut self, key: &ipvs::ServiceKey, exact: Option<bool>) {
        match exact {
            Some(exact) => self.said.insert(*key, exact),
            None => self.said.remove(key),
        };
    }

    /// What is said of single services, in the order of their names.
    pub fn list(&self) -> Vec<ServiceExact> {
        let said = self.said.iter().map(|(key, exact)| ServiceExact {
            service: ServiceName(*key),
            exact: Some(*exact),
        });
        sorted(said)
    }

    /// Another configuration says this. Returns what is to be said then of the services that it says otherwise of.
    pub fn reconfigure(&mut self, exact: &[ServiceName]) -> Vec<ServiceExact> {
        let new: HashMap<_, _> = exact.iter().map(|name| (name.0, true)).collect();
        let old = std::mem::replace(&mut self.configured, new);
        let gone = old.keys().filter(|key| !self.configured.contains_key(key));
        let added = self.configured.keys().filter(|key| !old.contains_key(key));
        let gone = gone.map(|key| (key, None));
        let added = added.map(|key| (key, Some(true)));
        sorted(gone.chain(added).map(|(key, exact)| ServiceExact {
            service: ServiceName(*key),
            exact,
        }))
    }

    /// The requests that make this out of what was configured.
    pub fn requests(&self) -> Vec<ripvs::Request> {
        let gone = self
            .configured
            .keys()
            .filter(|key| !self.said.contains_key(key));
        let new = self
            .said
            .iter()
            .filter(|(key, exact)| self.configured.get(key) != Some(exact));
        let gone = gone.map(|key| (key, None));
        let new = new.map(|(key, exact)| (key, Some(*exact)));
        let changes = gone.chain(new).map(|(key, exact)| ServiceExact {
            service: ServiceName(*key),
            exact,
        });
        let changes = sorted(changes).into_iter();
        changes.map(ripvs::Request::SetServiceExact).collect()
    }
}

fn sorted(said: impl Iterator<Item = ServiceExact>) -> Vec<ServiceExact> {
    let mut said: Vec<_> = said.collect();
    said.sort_by_key(|said| said.service.to_string());
    said
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_said_of_one_service_goes_before_what_is_said_of_all() {
        let (a, b) = (name("tcp 192.0.2.1:80"), name("mark 7"));
        for all in [false, true] {
            let mut exactness = Exactness::new(all, &[a]);
            assert!(exactness.of(&a.0));
            assert_eq!(exactness.of(&b.0), all);
            exactness.say(&a.0, Some(false));
            exactness.say(&b.0, Some(!all));
            assert!(!exactness.of(&a.0));
            assert_eq!(exactness.of(&b.0), !all);
            exactness.say(&b.0, None);
            assert_eq!(exactness.of(&b.0), all);
        }
    }

    #[test]
    fn what_was_said_since_is_made_again_out_of_the_configuration() {
        let mut exactness = Exactness::new(false, &[name("mark 1"), name("mark 2")]);
        exactness.say(&name("mark 1").0, None);
        exactness.say(&name("mark 3").0, Some(true));
        let mut again = Exactness::new(false, &[name("mark 1"), name("mark 2")]);
        for request in exactness.requests() {
            let ripvs::Request::SetServiceExact(said) = request else {
                continue;
            };
            again.say(&said.service.0, said.exact);
        }
        assert_eq!(again.list(), exactness.list());
        assert_eq!(exactness.requests().len(), 2);
    }

    #[test]
    fn another_configuration_changes_what_it_says_otherwise() {
        let mut exactness = Exactness::new(false, &[name("mark 1"), name("mark 2")]);
        let changes: Vec<(String, Option<bool>)> = exactness
            .reconfigure(&[name("mark 2"), name("mark 3")])
            .into_iter()
            .map(|said| (said.service.to_string(), said.exact))
            .collect();
        assert_eq!(
            changes,
            [
                ("mark 1".to_owned(), None),
                ("mark 3".to_owned(), Some(true))
            ]
        );
        assert!(exactness
            .reconfigure(&[name("mark 3"), name("mark 2")])
            .is_empty());
    }
}
