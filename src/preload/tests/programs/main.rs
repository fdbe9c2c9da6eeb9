//! Real programs, the library preloaded, talk to a small server: ipvsadm, and Python for what ipvsadm does not do.
//! `scripts/setup test` installs both.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod server;

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use server::{Server, Shared, State};

/// A server in a folder of its own.
struct Bench {
    folder: PathBuf,
    state: Shared,
    server: Option<Server>,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let folder = env::temp_dir().join(format!("ripvs-preload-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let state = Arc::new(Mutex::new(State {
            sloppy_tcp: "0".into(),
            ..State::default()
        }));
        let mut bench = Bench {
            folder,
            state,
            server: None,
        };
        bench.start();
        bench
    }

    fn start(&mut self) {
        let path = self.folder.join("sock");
        self.server = Some(Server::start(&path, &self.state));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let exec = env!("CARGO_BIN_EXE_ripvs-exec");
        let tests = env::current_exe().unwrap();
        let mut command = Command::new(exec);
        command
            .arg(program)
            .args(arguments)
            .env("RIPVS_PRELOAD", tests.with_file_name("libripvs_preload.so"))
            .env("RIPVS_SOCKET", self.folder.join("sock"))
            .env("LC_ALL", "C");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// What an ipvsadm command that must succeed prints.
    fn ipvsadm(&self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        done(&self.run("ipvsadm", &words), line)
    }

    /// What a Python program that must succeed prints.
    fn python(&self, program: &str) -> String {
        done(&self.run("python3", &["-c", program]), program)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn done(output: &Output, what: &str) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}: {stderr}",
        output.status
    );
    assert_eq!(stderr, "", "{what}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ipvsadm_does_everything() {
    let bench = Bench::new("ipvsadm");
    for line in [
        "-A -t 192.0.2.100:80 -s rr",
        "-a -t 192.0.2.100:80 -r 10.0.0.11:8080 -m -w 3",
        "-a -t 192.0.2.100:80 -r 10.0.0.12:8080 -m",
        "-E -t 192.0.2.100:80 -s wrr -p 100",
        "-e -t 192.0.2.100:80 -r 10.0.0.12:8080 -m -w 0",
        "-A -u [2001:db8::1]:53 -s mh",
        "-Z",
        "--set 100 0 0",
    ] {
        assert_eq!(bench.ipvsadm(line), "", "{line}");
    }
    assert_eq!(
        bench.ipvsadm("-Sn"),
        "-A -t 192.0.2.100:80 -s wrr -p 100\n\
         -a -t 192.0.2.100:80 -r 10.0.0.11:8080 -m -w 3\n\
         -a -t 192.0.2.100:80 -r 10.0.0.12:8080 -m -w 0\n\
         -A -u [2001:db8::1]:53 -s mh\n"
    );
    let listing = bench.ipvsadm("-Ln");
    assert!(
        listing.starts_with("IP Virtual Server version 1.2.1 (size=4096)\n"),
        "{listing}"
    );
    bench.ipvsadm("-d -t 192.0.2.100:80 -r 10.0.0.12:8080");
    bench.ipvsadm("-D -u [2001:db8::1]:53");
    let state = bench.state.lock().unwrap();
    assert_eq!((state.services.len(), state.services[0].2.len()), (1, 1));
    drop(state);
    bench.ipvsadm("-C");
    assert!(bench.state.lock().unwrap().services.is_empty());
}

#[test]
fn ipvsadm_restores_from_its_input() {
    let bench = Bench::new("restore");
    let mut command = bench.command("ipvsadm", &["-R"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let lines = "-A -t 192.0.2.100:80 -s rr\n-a -t 192.0.2.100:80 -r 10.0.0.11:80 -g -w 1\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.ipvsadm("-Sn"), lines);
}

#[test]
fn all_lines_of_a_restore_go_over_one_connection() {
    let bench = Bench::new("one-connection");
    let mut command = bench.command("ipvsadm", &["-R"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let lines: String = (1..=50)
        .map(|port| format!("-A -t 192.0.2.100:{port} -s rr\n"))
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let state = bench.state.lock().unwrap();
    assert_eq!(state.services.len(), 50);
    // Its first question leaves something unread.
    assert!(state.connections <= 2, "{}", state.connections);
}

#[test]
fn a_socket_gets_no_answer_of_the_one_before() {
    let bench = Bench::new("before");
    // The first closes with its answer unread, the second when it has come whole, the third stays open, the fourth is a
    // child's: none of them may leave anything to the next.
    let found = bench.python(&format!(
        "{NETLINK}
def new():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    s.bind((0, 0))
    return s
def question(number):
    question = bytearray(ask('IPVS', number))
    question[6] = 5
    return question
def whole(s, number):
    s.send(question(number))
    for _ in range(2):
        print(struct.unpack('IHHII', s.recv(65536)[:16])[3] - number)
s = new()
s.send(question(100))
select.select([s], [], [])
s.close()
s = new()
whole(s, 200)
s.close()
s = new()
whole(s, 300)
t = new()
whole(t, 400)
whole(s, 500)
t.close()
s.close()
sys.stdout.flush()
child = os.fork()
s = new()
whole(s, 600 if child else 700)
s.close()
if child:
    print(os.waitpid(child, 0)[1])
else:
    sys.stdout.flush()
    os._exit(0)
os.closerange(3, 100)
files = [open('/dev/null') for _ in range(8)]
s = new()
whole(s, 800)
print({{os.fstat(file.fileno()).st_rdev for file in files}} == {{os.stat('/dev/null').st_rdev}})"
    ));
    assert_eq!(found, "0\n".repeat(15) + "True\n");
}

#[test]
fn a_refusal_is_the_kernel_s_to_ipvsadm() {
    let bench = Bench::new("refusal");
    bench.ipvsadm("-A -t 192.0.2.100:80");
    let again = bench.run("ipvsadm", &["-A", "-t", "192.0.2.100:80"]);
    assert_eq!(again.status.code(), Some(255));
    assert_eq!(
        String::from_utf8_lossy(&again.stderr),
        "Service already exists\n"
    );
}

#[test]
fn a_dump_of_many_datagrams_arrives_whole() {
    let bench = Bench::new("many");
    bench.ipvsadm("-A -t 192.0.2.100:80");
    let dests: Vec<_> = (0..1500)
        .map(|n| {
            format!(
                "-a -t 192.0.2.100:80 -r 10.0.{}.{}:80 -g -w 1\n",
                n / 250,
                n % 250 + 1
            )
        })
        .collect();
    let mut child = bench
        .command("ipvsadm", &["-R"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(dests.concat().as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.ipvsadm("-Ln").lines().count(), 3 + 1 + 1500);
}

#[test]
fn connections_are_listed_however_many() {
    let bench = Bench::new("conns");
    for count in [0, 1, 10_000] {
        bench.state.lock().unwrap().conns = count;
        let listing = bench.ipvsadm("-Lnc");
        assert_eq!(listing.lines().count() as u64, 2 + count);
        let shown = listing.lines().nth(2).unwrap_or_default();
        if count > 0 {
            assert_eq!(
                shown,
                "TCP 14:59  ESTABLISHED 10.0.0.0:1000      192.0.2.100:80     10.0.0.11:8080"
            );
        }
        let file = bench.run("cat", &["/proc/net/ip_vs_conn"]);
        assert_eq!(done(&file, "cat").lines().count() as u64, 1 + count);
        let first = bench.run("head", &["-n", "1", "/proc/net/ip_vs_conn_sync"]);
        assert!(done(&first, "head").ends_with(" Origin Expires\n"));
    }
}

#[test]
fn other_files_in_proc_are_served() {
    let bench = Bench::new("proc");
    bench.ipvsadm("-A -t 192.0.2.100:80 -s rr");
    bench.ipvsadm("-a -t 192.0.2.100:80 -r 10.0.0.11:8080 -m");
    let files = bench.run("cat", &["/proc/net/ip_vs", "/proc/self/net/ip_vs_stats"]);
    assert_eq!(
        done(&files, "cat"),
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
           -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
         TCP  C0000264:0050 rr  \n  \
           -> 0A00000B:1F90      Masq    1      0          0         \n   \
            Total Incoming Outgoing         Incoming         Outgoing\n   \
            Conns  Packets  Packets            Bytes            Bytes\n       \
                5        0        0                0                0\n\n \
          Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       \
                0        0        0                0                0\n"
    );
    let workers = done(&bench.run("cat", &["/proc/net/ip_vs_stats_percpu"]), "cat");
    assert_eq!(
        workers
            .lines()
            .filter(|line| line.starts_with("  1 "))
            .count(),
        1,
        "{workers}"
    );
    let found = bench.python(
        "import os, stat\n\
         s = os.stat('/proc/net/ip_vs')\n\
         print(stat.filemode(s.st_mode), os.access('/proc/net/ip_vs_conn', os.R_OK))\n\
         print(stat.filemode(os.stat('/proc/sys/net/ipv4/vs/sloppy_tcp').st_mode))\n\
         print(os.path.isdir('/proc/sys/net/ipv4/vs'), os.path.exists('/proc/net/ip_vs_none'))",
    );
    assert_eq!(found, "-r--r--r-- True\n-rw-r--r--\nTrue False\n");
}

#[test]
fn a_file_that_stays_open_is_made_anew_at_its_start() {
    let bench = Bench::new("again");
    let found = bench.python(
        "import os, subprocess
files = [os.open(name, os.O_RDONLY) for name in ('/proc/net/ip_vs', '/proc/sys/net/ipv4/vs/sloppy_tcp')]
print([os.read(f, 65536).count(b'TCP') for f in files])
subprocess.run(['ipvsadm', '-A', '-t', '192.0.2.100:80'])
print([os.read(f, 65536) for f in files])
print([os.lseek(f, 0, os.SEEK_SET) for f in files])
print([os.read(f, 65536).count(b'TCP') for f in files])",
    );
    assert_eq!(found, "[0, 0]\n[b'', b'']\n[0, 0]\n[1, 0]\n");
}

#[test]
fn settings_are_read_and_written() {
    let bench = Bench::new("settings");
    let path = "/proc/sys/net/ipv4/vs/sloppy_tcp";
    assert_eq!(done(&bench.run("cat", &[path]), "cat"), "0\n");
    assert_eq!(
        done(
            &bench.run("sysctl", &["-w", "net.ipv4.vs.sloppy_tcp=1"]),
            "sysctl"
        ),
        "net.ipv4.vs.sloppy_tcp = 1\n"
    );
    assert_eq!(bench.state.lock().unwrap().sloppy_tcp, "1");
    let mut tee = bench.command("tee", &[path]);
    let mut child = tee
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"2\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.state.lock().unwrap().sloppy_tcp, "2");
    let found = bench.python(&format!(
        "import os
f = os.open('{path}', os.O_WRONLY)
print(os.write(f, b'3\\n'))
try:
    os.write(f, b'x')
except OSError as error:
    print(error.strerror)"
    ));
    assert_eq!(found, "2\nInvalid argument\n");
    assert_eq!(bench.state.lock().unwrap().sloppy_tcp, "3");
    let unknown = bench.run("cat", &["/proc/sys/net/ipv4/vs/no_such"]);
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("No such file"),
        "{unknown:?}"
    );
    // what writes past us is told, and changes nothing
    let past = bench.run("bash", &["-c", &format!("echo 4 >{path}")]);
    assert!(!past.status.success(), "{past:?}");
    assert_eq!(bench.state.lock().unwrap().sloppy_tcp, "3");
}

/// Opens a generic netlink socket and asks on it for a family, by number in libc calls of Python's.
const NETLINK: &str = "
import errno, os, select, socket, struct, sys
def ask(name, seq=1):
    name = name.encode() + b'\\0'
    attr = struct.pack('HH', 4 + len(name), 2) + name
    attr += b'\\0' * (-len(attr) % 4)
    return struct.pack('IHHII', 20 + len(attr), 16, 1, seq, 0) + struct.pack('BBH', 3, 1, 0) + attr
def request(kind, command, flags, seq=2):
    return struct.pack('IHHII', 20, kind, flags, seq, 0) + struct.pack('BBH', command, 1, 0)
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
";

#[test]
fn other_families_and_sockets_stay_the_kernel_s() {
    let bench = Bench::new("others");
    let found = bench.python(&format!(
        "{NETLINK}
s.bind((0, 0))
s.send(ask('nlctrl'))
print(struct.unpack('IHHII', s.recv(65536)[:16])[1], os.readlink('/proc/self/fd/%d' % s.fileno())[:6])
print(s.getsockopt(socket.SOL_SOCKET, 38))
r = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
r.bind((0, 0))
r.send(ask('IPVS'))
print(len(r.recv(65536)) > 0)
print(open('/proc/net/unix').read().count('{}'))",
        bench.folder.join("sock").display()
    ));
    // the listener's line alone: nobody has connected
    assert_eq!(found, "16 socket\n16\nTrue\n1\n");
}

#[test]
fn a_socket_looks_like_netlink_all_the_time() {
    let bench = Bench::new("looks");
    let found = bench.python(&format!(
        "{NETLINK}
s.setblocking(True)
s.sendto(ask('IPVS'), (0, 0))
port = s.getsockname()[0]
print(port > 0, s.getsockname()[1], s.getpeername())
length = s.recv(1, socket.MSG_PEEK | socket.MSG_TRUNC)
n, anc, flags, addr = s.recvmsg_into([bytearray(8)], 0, socket.MSG_PEEK | socket.MSG_TRUNC)
data, sender = s.recvfrom(65536)
print(n == len(data) > 8, bool(flags & socket.MSG_TRUNC), addr, sender)
print(struct.unpack('IHHII', data[:16])[4] == port)
family = struct.unpack('H', data[data.index(struct.pack('HH', 6, 1)) + 4:][:2])[0]
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_RAW)
s.setsockopt(270, 10, 1)
print(s.getsockopt(270, 10), s.getsockopt(socket.SOL_SOCKET, 39))
poll = select.poll()
poll.register(s, select.POLLIN)
print(poll.poll(0))
s.sendmsg([request(family, 15, 5)])
print(len(poll.poll(5000)))
for _ in range(2):
    data, ancillary, flags, sender = s.recvmsg(65536)
    print(struct.unpack('IHHII', data[:16])[1:4], sender)
s.setblocking(False)
try:
    s.recv(10)
except BlockingIOError:
    print('nothing more')"
    ));
    assert_eq!(
        found,
        "True 0 (0, 0)\nTrue True (0, 0) (0, 0)\nTrue\nTrue\n0 16\n[]\n1\n\
         (33, 0, 2) (0, 0)\n(2, 256, 2) (0, 0)\nnothing more\n"
    );
}

#[test]
fn what_the_program_set_on_its_socket_stays_set() {
    let bench = Bench::new("set");
    let found = bench.python(&format!(
        "{NETLINK}
s.settimeout(None)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 50000))
os.set_inheritable(s.fileno(), True)
s.send(ask('IPVS'))
s.recv(65536)
print(os.get_inheritable(s.fileno()))
try:
    s.recv(65536)
except BlockingIOError:
    print('waited')"
    ));
    assert_eq!(found, "True\nwaited\n");
}

#[test]
fn a_restarted_server_gets_the_next_request() {
    let mut bench = Bench::new("restart");
    let mut child = bench
        .command(
            "python3",
            &[
                "-c",
                &format!(
                    "{NETLINK}
s.send(ask('IPVS'))
s.recv(65536)
print('ready', flush=True)
input()
s.send(request(33, 15, 5))
for _ in range(2):
    print(struct.unpack('IHHII', s.recv(65536)[:16])[1], flush=True)"
                ),
            ],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    bench.server = None;
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    // it looks for the server, which is away for a moment
    std::thread::sleep(std::time::Duration::from_millis(200));
    bench.start();
    let answers: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(answers, ["33", "2"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_request_that_died_with_the_server_is_sent_again_and_a_dump_is_not() {
    let bench = Bench::new("swallow");
    bench.state.lock().unwrap().swallow = 1;
    assert_eq!(bench.ipvsadm("-A -t 192.0.2.100:80 -s rr"), "");
    assert_eq!(bench.state.lock().unwrap().services.len(), 1);
    bench.state.lock().unwrap().swallow = 1;
    let found = bench.python(&format!(
        "{NETLINK}
s.send(ask('IPVS'))
s.recv(65536)
s.send(request(33, 4, 0x301))
try:
    s.recv(65536)
except OSError as error:
    print(errno.errorcode[error.errno])
s.send(request(33, 15, 5))
print(len(s.recv(65536)) > 0)"
    ));
    assert_eq!(found, "ENOBUFS\nTrue\n");
}

#[test]
fn without_a_server_the_user_is_told_once_and_the_kernel_is_left_alone() {
    let mut bench = Bench::new("nobody");
    bench.server = None;
    let failed = bench.run("ipvsadm", &["-Ln"]);
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success());
    assert_eq!(
        stderr
            .matches("ripvs: ripvsd is not running (nothing listens at ")
            .count(),
        1,
        "{stderr}"
    );
    let program = format!(
        "{NETLINK}
try:
    s.send(ask('IPVS'))
except OSError as error:
    print(errno.errorcode[error.errno])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for call in (lambda: raw.getsockopt(0, 1152, 64), lambda: raw.setsockopt(0, 1157, b'')):
    try:
        call()
    except OSError as error:
        print(errno.errorcode[error.errno])
try:
    open('/proc/net/ip_vs')
except OSError as error:
    print(errno.errorcode[error.errno])"
    );
    let asked = bench.run("python3", &["-c", &program]);
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert_eq!(
        stderr.matches("ripvsd is not running").count(),
        1,
        "{stderr}"
    );
    let found = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(found, "ENOENT\nENOPROTOOPT\nENOPROTOOPT\nENOENT\n");
}

#[test]
fn ripvs_exec_says_what_is_wrong() {
    let exec = env!("CARGO_BIN_EXE_ripvs-exec");
    let status = |arguments: &[&str]| Command::new(exec).args(arguments).output().unwrap();
    assert_eq!(status(&[]).status.code(), Some(2));
    assert_eq!(status(&["--no-such-option"]).status.code(), Some(2));
    assert_eq!(status(&["--help"]).status.code(), Some(0));
    let bench = Bench::new("exec");
    let missing = bench.run("no-such-program", &[]);
    assert_eq!(missing.status.code(), Some(127));
    let words = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(words, "ripvs-exec: there is no program `no-such-program`\n");
}
