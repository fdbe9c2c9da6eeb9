//! A server for tests: the kernel's tables in their simplest form, behind a real socket. It answers one connection after
//! another, and judges requests as net/netfilter/ipvs/ip_vs_ctl.c does.

use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ripvs_api::ipvs::number::{flag, forward, sync_state, tunnel};
use ripvs_api::ipvs::{
    Dest, DestConfig, Info, Reply, Request, Service, ServiceConfig, ServiceKey, Stats, SyncDaemon,
    Timeouts,
};
use ripvs_api::ripvs::{self, Conn, ConnsEnd};
use ripvs_api::socket::{self, Received};
use ripvs_api::{Errno, Incoming, Outgoing, Refusal, Request as AnyRequest, MAX_DATAGRAM};

const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh",
];
const INTERFACES: [&str; 3] = ["lo", "eth0", "eth1"];

/// What the server has.
pub struct Tables {
    pub services: Vec<(Service, Vec<Dest>)>,
    pub timeouts: Timeouts,
    pub daemons: Vec<SyncDaemon>,
    pub conns: Vec<Conn>,
    /// What it answers of our own family, by the command's number.
    pub ours: Vec<(u8, ripvs::Reply)>,
    /// The requests of our own family that it was sent.
    pub seen: Vec<ripvs::Request>,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            services: Vec::new(),
            timeouts: Timeouts {
                tcp: Some(900),
                tcp_fin: Some(120),
                udp: Some(300),
            },
            daemons: Vec::new(),
            conns: Vec::new(),
            ours: Vec::new(),
            seen: Vec::new(),
        }
    }
}

/// A server that runs until its socket's last client is gone.
pub struct Fake {
    pub path: PathBuf,
    thread: thread::JoinHandle<Tables>,
}

impl Fake {
    /// Starts a server with these tables.
    pub fn start(tables: Tables) -> Fake {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ripvsadm-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::from(socket::listen(&path).unwrap());
        listener.set_nonblocking(false).unwrap();
        let thread = thread::spawn(move || serve(&listener, tables));
        Fake { path, thread }
    }

    /// Ends the server and gives its tables.
    pub fn stop(self) -> Tables {
        // A connection on which nothing is asked ends it.
        drop(socket::connect(&self.path).unwrap());
        std::fs::remove_file(&self.path).unwrap();
        self.thread.join().unwrap()
    }
}

fn serve(listener: &UnixListener, mut tables: Tables) -> Tables {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let connection = UnixStream::from(socket::accept(listener).unwrap());
        connection.set_nonblocking(false).unwrap();
        let mut asked = false;
        while let Received::Datagram(length) = socket::receive(&connection, &mut buffer).unwrap() {
            asked = true;
            let mut out = Outgoing::new();
            for incoming in Incoming::read(&buffer[..length]) {
                tables.answer(&incoming, &mut out);
            }
            for datagram in out.take() {
                // A client that has what it wants may be gone.
                let _ = socket::send(&connection, &datagram);
            }
        }
        if !asked {
            return tables;
        }
    }
}

impl Tables {
    fn answer(&mut self, incoming: &Incoming, out: &mut Outgoing) {
        let to = &incoming.header;
        let result = match incoming.request.as_ref().unwrap() {
            AnyRequest::Ipvs(request) => self.ipvs(request).map(|replies| {
                replies
                    .into_iter()
                    .map(Into::into)
                    .collect::<Vec<ripvs_api::Reply>>()
            }),
            AnyRequest::Ripvs(request) => self
                .ripvs(request)
                .map(|replies| replies.into_iter().map(Into::into).collect()),
            other => panic!("{other:?}"),
        };
        match result {
            Err(errno) => out.refuse(to, &Refusal::from(errno)),
            Ok(replies) if to.is_dump() => {
                for reply in &replies {
                    out.item(to, reply);
                }
                out.done(to);
            }
            Ok(replies) => {
                for reply in &replies {
                    out.reply(to, reply);
                }
                out.ack(to);
            }
        }
    }

    fn ripvs(&mut self, request: &ripvs::Request) -> Result<Vec<ripvs::Reply>, Errno> {
        self.seen.push(request.clone());
        if let ripvs::Request::Conns(from) = request {
            // Two at a time, so that the cursor is used.
            let rest = self.conns.iter().skip(from.cursor as usize).take(2);
            let mut replies: Vec<_> = rest.cloned().map(ripvs::Reply::Conn).collect();
            let next = from.cursor + 2;
            let next = (next < self.conns.len() as u64).then_some(next);
            replies.push(ripvs::Reply::ConnsEnd(ConnsEnd { next }));
            return Ok(replies);
        }
        if matches!(request, ripvs::Request::DelDivert(_)) {
            return Err(Errno::NOENT);
        }
        let command = request.command();
        let answers = self.ours.iter().filter(|(number, _)| *number == command);
        Ok(answers.map(|(_, reply)| reply.clone()).collect())
    }

    fn ipvs(&mut self, request: &Request) -> Result<Vec<Reply>, Errno> {
        match request {
            Request::NewService(key, config) => {
                if self.find(key).is_ok() {
                    return Err(Errno::EXIST);
                }
                let config = checked(config, 0)?;
                let service = Service {
                    key: *key,
                    config,
                    stats: Stats::default(),
                };
                self.services.push((service, Vec::new()));
            }
            Request::SetService(key, config) => {
                let (service, _) = self.find(key)?;
                service.config = checked(config, service.config.flags)?;
            }
            Request::DelService(key) => {
                self.find(key)?;
                self.services.retain(|(service, _)| service.key != *key);
            }
            Request::GetService(key) => return Ok(vec![Reply::Service(self.find(key)?.0.clone())]),
            Request::DumpServices => {
                let services = self.services.iter();
                return Ok(services.map(|(s, _)| Reply::Service(s.clone())).collect());
            }
            Request::NewDest(key, dest) => self.new_dest(key, (*dest)?)?,
            Request::SetDest(key, dest) => {
                let (_, dests) = self.find(key)?;
                let config = (*dest)?;
                in_range(&config)?;
                let found = dests.iter_mut().find(|dest| dest.config.key == config.key);
                found.ok_or(Errno::NOENT)?.config = config;
            }
            Request::DelDest(key, dest) => {
                let (_, dests) = self.find(key)?;
                let key = (*dest)?;
                let at = dests.iter().position(|dest| dest.config.key == key);
                dests.remove(at.ok_or(Errno::NOENT)?);
            }
            Request::DumpDests(key) => {
                let found = key.and_then(|key| self.find(&key).ok());
                let dests = found.map(|(_, dests)| dests.clone()).unwrap_or_default();
                return Ok(dests.into_iter().map(Reply::Dest).collect());
            }
            Request::NewDaemon(daemon) => self.new_daemon(daemon)?,
            Request::DelDaemon(daemon) => {
                let at = self.daemons.iter().position(|d| d.state == daemon.state);
                self.daemons.remove(at.ok_or(Errno::SRCH)?);
            }
            Request::DumpDaemons => {
                let state = |state| self.daemons.iter().filter(move |d| d.state == state);
                let daemons = state(sync_state::MASTER).chain(state(sync_state::BACKUP));
                return Ok(daemons.cloned().map(Reply::Daemon).collect());
            }
            Request::SetConfig(new) => {
                let old = self.timeouts;
                let pick = |new: Option<u32>, old| new.filter(|value| *value != 0).or(old);
                self.timeouts = Timeouts {
                    tcp: pick(new.tcp, old.tcp),
                    tcp_fin: pick(new.tcp_fin, old.tcp_fin),
                    udp: pick(new.udp, old.udp),
                };
            }
            Request::GetConfig => return Ok(vec![Reply::Config(self.timeouts)]),
            Request::GetInfo => {
                return Ok(vec![Reply::Info(Info {
                    version: 0x010201,
                    conn_tab_size: 4096,
                })]);
            }
            Request::Zero(None) => {}
            Request::Zero(Some(key)) => {
                self.find(key)?;
            }
            Request::Flush => self.services.clear(),
        }
        Ok(Vec::new())
    }

    fn find(&mut self, key: &ServiceKey) -> Result<&mut (Service, Vec<Dest>), Errno> {
        let found = self
            .services
            .iter_mut()
            .find(|(service, _)| service.key == *key);
        found.ok_or(Errno::SRCH)
    }

    fn new_dest(&mut self, key: &ServiceKey, config: DestConfig) -> Result<(), Errno> {
        let (_, dests) = self.find(key)?;
        in_range(&config)?;
        if config.tun_type == tunnel::GUE && config.tun_port == 0 {
            return Err(Errno::INVAL);
        }
        if dests.iter().any(|dest| dest.config.key == config.key) {
            return Err(Errno::EXIST);
        }
        let addr = config.key.addr;
        let unicast = match addr {
            IpAddr::V4(v4) => !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        if addr.is_unspecified() || addr.is_multicast() || !unicast {
            return Err(Errno::INVAL);
        }
        // A new one goes to the head of the list.
        let dest = Dest {
            config,
            active: 0,
            inactive: 0,
            persistent: 0,
            stats: Stats::default(),
        };
        dests.insert(0, dest);
        Ok(())
    }

    fn new_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno> {
        let mixed = |(service, dests): &(Service, Vec<Dest>)| {
            let v6 = service.key.af() == ripvs_api::ipvs::Af::V6;
            dests
                .iter()
                .any(|dest| dest.config.key.addr.is_ipv6() != v6)
        };
        if self.services.iter().any(mixed) {
            return Err(Errno::INVAL);
        }
        let name = daemon.mcast_ifn.as_deref().unwrap_or_default();
        if !INTERFACES.contains(&name) {
            return Err(Errno::NODEV);
        }
        if self.daemons.iter().any(|other| other.state == daemon.state) {
            return Err(Errno::EXIST);
        }
        let mut daemon = daemon.clone();
        let group = daemon.mcast_group.unwrap_or(IpAddr::from([224, 0, 0, 81]));
        let headers = if group.is_ipv6() { 48 } else { 28 };
        daemon.mcast_group = Some(group);
        daemon.sync_maxlen.get_or_insert(1500 - headers);
        daemon.mcast_port.get_or_insert(8848);
        daemon.mcast_ttl.get_or_insert(1);
        self.daemons.push(daemon);
        Ok(())
    }
}

/// A service's configuration as the kernel keeps it.
fn checked(config: &ServiceConfig, old_flags: u32) -> Result<ServiceConfig, Errno> {
    let known = SCHEDULERS.contains(&config.sched.as_str());
    if !known || config.pe.as_ref().is_some_and(|pe| pe != "sip") {
        return Err(Errno::NOENT);
    }
    Ok(ServiceConfig {
        flags: old_flags & !config.mask | config.flags & config.mask | flag::HASHED,
        mask: !0,
        ..config.clone()
    })
}

fn in_range(config: &DestConfig) -> Result<(), Errno> {
    if config.weight < 0 || config.lower > config.upper || config.forward > forward::BYPASS {
        return Err(Errno::RANGE);
    }
    Ok(())
}
