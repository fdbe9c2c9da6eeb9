//! What ipvsadm says when the server refuses something: its own words for some error numbers of some commands, and the C
//! library's for the rest.

use ripvs_api::ipvs::Request;
use ripvs_api::{Errno, Refusal};

/// The words for a refusal of `request`. Where the server gave a sentence of its own, it says more than they do.
pub fn message(request: &Request, refusal: &Refusal) -> String {
    if let Some(text) = &refusal.text {
        return text.clone();
    }
    match of_command(request, refusal.errno).or_else(|| of_any(refusal.errno)) {
        Some(words) => words.to_owned(),
        None => refusal.errno.to_string(),
    }
}

fn of_command(request: &Request, errno: Errno) -> Option<&'static str> {
    Some(match (request, errno) {
        (Request::NewService(..), Errno::EXIST) => "Service already exists",
        (Request::NewService(..) | Request::SetService(..), Errno::NOENT) => {
            "Scheduler or persistence engine not found"
        }
        (
            Request::SetService(..)
            | Request::DelService(_)
            | Request::Zero(_)
            | Request::GetService(_)
            | Request::DumpServices
            | Request::DumpDests(_),
            Errno::SRCH,
        ) => "No such service",
        (Request::NewDest(..) | Request::SetDest(..) | Request::DelDest(..), Errno::SRCH) => {
            "Service not defined"
        }
        (Request::NewDest(..), Errno::EXIST) => "Destination already exists",
        (Request::SetDest(..) | Request::DelDest(..), Errno::NOENT) => "No such destination",
        (Request::NewDaemon(_), Errno::EXIST) => "Daemon has already run",
        (Request::DelDaemon(_), Errno::SRCH) => "No daemon is running",
        _ => return None,
    })
}

fn of_any(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::PERM => "Permission denied (you must be root)",
        Errno::INVAL => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        Errno::NOPROTOOPT => "Protocol not available",
        Errno::NOMEM => "Memory allocation problem",
        Errno::OPNOTSUPP => "Operation not supported with IPv6",
        Errno::AFNOSUPPORT => "Operation not supported with specified address family",
        Errno::MSGSIZE => "Module is wrong version",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripvs_api::ipvs::{Af, ServiceKey, SyncDaemon};

    #[test]
    fn the_words_depend_on_the_command() {
        let key = ServiceKey::Mark {
            mark: 1,
            af: Af::V4,
        };
        let daemon = SyncDaemon::default;
        for (request, errno, words) in [
            (Request::DelService(key), Errno::SRCH, "No such service"),
            (Request::Zero(Some(key)), Errno::SRCH, "No such service"),
            (Request::GetService(key), Errno::SRCH, "No such service"),
            (
                Request::DelDest(key, Err(Errno::INVAL)),
                Errno::SRCH,
                "Service not defined",
            ),
            (
                Request::DelDest(key, Err(Errno::INVAL)),
                Errno::NOENT,
                "No such destination",
            ),
            (
                Request::NewDest(key, Err(Errno::INVAL)),
                Errno::EXIST,
                "Destination already exists",
            ),
            (
                Request::NewDaemon(daemon()),
                Errno::EXIST,
                "Daemon has already run",
            ),
            (Request::NewDaemon(daemon()), Errno::NODEV, "No such device"),
            (
                Request::DelDaemon(daemon()),
                Errno::SRCH,
                "No daemon is running",
            ),
            (
                Request::Flush,
                Errno::PERM,
                "Permission denied (you must be root)",
            ),
            (Request::Flush, Errno::SRCH, "No such process"),
            (
                Request::Flush,
                Errno::RANGE,
                "Numerical result out of range",
            ),
        ] {
            assert_eq!(message(&request, &errno.into()), words, "{request:?}");
        }
    }

    #[test]
    fn the_servers_own_words_go_first() {
        let refusal = Refusal::new(Errno::INVAL, "worker 2 does not answer");
        assert_eq!(
            message(&Request::Flush, &refusal),
            "worker 2 does not answer"
        );
    }
}
