//! A small server of the control socket: services and dests in a list, judged by nothing but whether they are there.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ripvs_api::ipvs::{self, Dest, DestConfig, Info, Service, ServiceConfig, ServiceKey, Stats};
use ripvs_api::ripvs::{self, Conn, ConnsEnd, Sysctl, Traffic};
use ripvs_api::socket::{self, Received};
use ripvs_api::{Errno, Incoming, Outgoing, Reply, Request, MAX_DATAGRAM};

/// What it keeps; shared between servers, as a daemon's state outlives its restarts.
#[derive(Default)]
pub struct State {
    pub services: Vec<(ServiceKey, ServiceConfig, Vec<DestConfig>)>,
    pub sloppy_tcp: String,
    pub conns: u64,
    /// How many requests are to be taken and not answered, as by a daemon that ends.
    pub swallow: u32,
    /// How many connections there have been.
    pub connections: u32,
}

pub type Shared = Arc<Mutex<State>>;

/// A server that runs until it is dropped.
pub struct Server {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(path: &Path, state: &Shared) -> Server {
        let listener = socket::listen(path).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (over, state) = (over.clone(), state.clone());
            move || serve(listener, &over, &state)
        });
        Server {
            path: path.to_path_buf(),
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One connection after another is looked at: tests have few.
fn serve(listener: OwnedFd, over: &AtomicBool, state: &Shared) {
    let mut connections: Vec<OwnedFd> = Vec::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    while !over.load(Ordering::Relaxed) {
        if let Ok(connection) = socket::accept(&listener) {
            state.lock().unwrap().connections += 1;
            connections.push(connection);
        }
        connections.retain(|connection| loop {
            match socket::receive(connection, &mut buffer) {
                Ok(Received::Datagram(length)) => {
                    if !answer(&buffer[..length], connection, state) {
                        return false;
                    }
                }
                Ok(Received::Closed) => return false,
                Ok(Received::TooLong(_)) => panic!("a datagram too long"),
                Err(_) => return true,
            }
        });
        thread::sleep(Duration::from_millis(1));
    }
}

/// Answers a datagram. Returns whether the connection goes on.
fn answer(datagram: &[u8], connection: &OwnedFd, state: &Shared) -> bool {
    let mut out = Outgoing::new();
    for incoming in Incoming::read(datagram) {
        let mut state = state.lock().unwrap();
        let family = matches!(incoming.request, Ok(Request::Families(_)));
        if !family && state.swallow > 0 {
            state.swallow -= 1;
            return false;
        }
        let to = &incoming.header;
        let dump = matches!(&incoming.request, Ok(request) if request.is_dump());
        match incoming
            .request
            .and_then(|request| judge(request, &mut state))
        {
            Ok(replies) if dump => {
                replies.iter().for_each(|reply| out.item(to, reply));
                out.done(to);
            }
            Ok(replies) => {
                replies.iter().for_each(|reply| out.reply(to, reply));
                out.ack(to);
            }
            Err(errno) => out.refuse(to, &errno.into()),
        }
    }
    for datagram in out.take() {
        let mut sent = socket::send(connection, &datagram);
        while matches!(&sent, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
            thread::sleep(Duration::from_millis(1));
            sent = socket::send(connection, &datagram);
        }
        if sent.is_err() {
            return false;
        }
    }
    true
}

fn judge(request: Request, state: &mut State) -> Result<Vec<Reply>, Errno> {
    match request {
        Request::Families(query) => Ok(query.answer()?.into_iter().map(Reply::Family).collect()),
        Request::Ipvs(request) => judge_ipvs(request, state),
        Request::Ripvs(request) => judge_ripvs(request, state),
        Request::Nothing => Ok(Vec::new()),
    }
}

fn judge_ipvs(request: ipvs::Request, state: &mut State) -> Result<Vec<Reply>, Errno> {
    use ipvs::Request as R;
    let services = &mut state.services;
    let at = |services: &[(ServiceKey, _, _)], key| services.iter().position(|s| s.0 == key);
    match request {
        R::NewService(key, _) if at(services, key).is_some() => return Err(Errno::EXIST),
        R::NewService(key, config) => services.push((key, config, Vec::new())),
        R::SetService(key, config) => {
            let at = at(services, key).ok_or(Errno::SRCH)?;
            services[at].1 = config;
        }
        R::DelService(key) => {
            let at = at(services, key).ok_or(Errno::SRCH)?;
            services.remove(at);
        }
        R::NewDest(key, dest) => {
            let at = at(services, key).ok_or(Errno::SRCH)?;
            services[at].2.push(dest?);
        }
        R::SetDest(key, dest) => {
            let (at, dest) = (at(services, key).ok_or(Errno::SRCH)?, dest?);
            let found = services[at].2.iter_mut().find(|d| d.key == dest.key);
            *found.ok_or(Errno::NOENT)? = dest;
        }
        R::DelDest(key, dest) => {
            let (at, dest) = (at(services, key).ok_or(Errno::SRCH)?, dest?);
            services[at].2.retain(|d| d.key != dest);
        }
        R::GetService(key) => {
            let at = at(services, key).ok_or(Errno::SRCH)?;
            return Ok(vec![shown(&services[at])]);
        }
        R::DumpServices => return Ok(services.iter().map(shown).collect()),
        R::DumpDests(key) => {
            let found = key.and_then(|key| at(services, key));
            let dests = found.map_or(&[][..], |at| &services[at].2);
            return Ok(dests.iter().map(shown_dest).collect());
        }
        R::GetInfo => {
            return Ok(vec![ipvs::Reply::Info(Info {
                version: 0x010201,
                conn_tab_size: 4096,
            })
            .into()]);
        }
        R::Flush => services.clear(),
        _ => {}
    }
    Ok(Vec::new())
}

fn shown((key, config, _): &(ServiceKey, ServiceConfig, Vec<DestConfig>)) -> Reply {
    ipvs::Reply::Service(Service {
        key: *key,
        config: config.clone(),
        stats: Stats::default(),
    })
    .into()
}

fn shown_dest(config: &DestConfig) -> Reply {
    ipvs::Reply::Dest(Dest {
        config: *config,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
    })
    .into()
}

fn judge_ripvs(request: ripvs::Request, state: &mut State) -> Result<Vec<Reply>, Errno> {
    use ripvs::Request as R;
    const NAME: &str = "net.ipv4.vs.sloppy_tcp";
    Ok(match request {
        R::Conns(from) => {
            let end = state.conns.min(from.cursor + u64::from(from.limit));
            let conns = (from.cursor..end).map(|number| ripvs::Reply::Conn(a_conn(number)).into());
            let next = Some(end).filter(|end| *end < state.conns);
            let end: Reply = ripvs::Reply::ConnsEnd(ConnsEnd { next }).into();
            conns.chain([end]).collect()
        }
        R::Traffic => {
            let stats = |conns| Stats {
                conns,
                ..Stats::default()
            };
            let each = [(Some(0), 2), (Some(1), 3), (None, 5)];
            let traffic = each.map(|(worker, conns)| Traffic::new(worker, &stats(conns)));
            traffic.map(|one| ripvs::Reply::Traffic(one).into()).into()
        }
        R::GetSysctl(asked) if asked.name == NAME => {
            let value = state.sloppy_tcp.clone();
            let setting = Sysctl {
                name: asked.name,
                value,
            };
            vec![ripvs::Reply::Sysctl(setting).into()]
        }
        R::SetSysctl(setting) if setting.name == NAME => {
            setting.value.parse::<i32>().map_err(|_| Errno::INVAL)?;
            state.sloppy_tcp = setting.value;
            Vec::new()
        }
        R::GetSysctl(_) | R::SetSysctl(_) => return Err(Errno::NOENT),
        _ => return Err(Errno::OPNOTSUPP),
    })
}

fn a_conn(number: u64) -> Conn {
    Conn {
        protocol: 6,
        caddr: std::net::Ipv4Addr::from(0x0a00_0000 + number as u32).into(),
        cport: 1000,
        vaddr: [192, 0, 2, 100].into(),
        vport: 80,
        daddr: [10, 0, 0, 11].into(),
        dport: 8080,
        state: "ESTABLISHED".into(),
        expires_ms: 899_000,
        flags: 0,
        pe_name: None,
        pe_data: None,
        worker: 0,
    }
}
