//! The client's end of the channel: sends requests, one or many at once, and gives their answers.

use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::message::{Answer, Refusal, Reply, Request};
use crate::nl::{self, DecodeError, Writer};
use crate::pipeline::{Event, Pipeline};
use crate::socket::{self, Received};
use crate::{DEFAULT_SOCKET, MAX_DATAGRAM, SOCKET_ENV};

/// How long the client waits for an answer if it is not told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens at the socket, or it is not there.
    NotRunning(PathBuf),
    /// The user may not use the socket.
    NotAllowed(PathBuf),
    /// The server did not answer in time.
    TimedOut,
    /// The server closed the connection.
    Closed,
    /// The server said no.
    Refused(Refusal),
    /// The server said what this client does not understand: another version, or no ripvsd at all.
    Garbled(DecodeError),
    /// The request is too long for a datagram.
    TooLong,
    /// Anything else that went wrong with the socket.
    Io(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NotRunning(path) => {
                write!(
                    f,
                    "ripvsd is not running (nothing listens at {})",
                    path.display()
                )
            }
            ClientError::NotAllowed(path) => {
                write!(f, "you may not use {} (you must be root)", path.display())
            }
            ClientError::TimedOut => write!(f, "ripvsd does not answer"),
            ClientError::Closed => write!(f, "ripvsd closed the connection"),
            ClientError::Refused(refusal) => refusal.fmt(f),
            ClientError::Garbled(error) => {
                write!(
                    f,
                    "ripvsd's answer is not understood ({error}); is it of another version?"
                )
            }
            ClientError::TooLong => write!(f, "the request is too long"),
            ClientError::Io(error) => write!(f, "talking to ripvsd failed: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
            _ => ClientError::Io(error),
        }
    }
}

/// The socket to use: `given`, else the environment's, else the usual one.
pub fn socket_path(given: Option<&Path>) -> PathBuf {
    given
        .map(Path::to_path_buf)
        .or_else(|| env::var_os(SOCKET_ENV).map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// A connection to the server.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
    /// Answers that came and were not asked for yet, with their sequence numbers.
    waiting: VecDeque<(u32, Answer)>,
}

impl Client {
    /// Connects to the server that listens at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::NotAllowed`] or [`ClientError::Io`].
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let fd = socket::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path.to_path_buf())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed(path.to_path_buf()),
            _ => ClientError::Io(error),
        })?;
        let client = Client {
            fd,
            seq: 0,
            // Room for more than the server sends, should that be of a later version.
            buffer: vec![0; 4 * MAX_DATAGRAM],
            waiting: VecDeque::new(),
        };
        client.set_timeout(DEFAULT_TIMEOUT)?;
        Ok(client)
    }

    /// How long to wait for each answer.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), ClientError> {
        Ok(socket::set_timeout(&self.fd, timeout)?)
    }

    /// Sends a request and gives all its replies.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&mut self, request: impl Into<Request>) -> Result<Vec<Reply>, ClientError> {
        self.replies(request)?.collect()
    }

    /// Sends a request and gives its replies as they come.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn replies(&mut self, request: impl Into<Request>) -> Result<Replies<'_>, ClientError> {
        let mut writer = Writer::new();
        let seq = self.next_seq();
        request.into().encode(seq, &mut writer);
        self.send(&writer)?;
        Ok(Replies {
            client: self,
            seq,
            over: false,
        })
    }

    /// Sends requests, many in a datagram, and gives what became of each, in their order. Replies are passed over.
    ///
    /// # Errors
    /// [`ClientError`], but for [`ClientError::Refused`]. Some requests may have been done all the same.
    pub fn call_all(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<(), Refusal>>, ClientError> {
        self.replies_all(requests, |_, _| {})
    }

    /// As [`Client::call_all`], and hands each reply to `take` with the number of its request.
    ///
    /// # Errors
    /// As [`Client::call_all`].
    pub fn replies_all(
        &mut self,
        requests: &[Request],
        mut take: impl FnMut(usize, Reply),
    ) -> Result<Vec<Result<(), Refusal>>, ClientError> {
        let mut results = Vec::with_capacity(requests.len());
        let mut pipeline = Pipeline::new(self);
        let mut note = |event, results: &mut Vec<_>| match event {
            Event::Reply(reply) => take(results.len(), reply),
            Event::End(_, result) => results.push(result),
        };
        for request in requests {
            pipeline.push(request.clone())?;
            while pipeline.is_full() {
                if let Some(event) = pipeline.next()? {
                    note(event, &mut results);
                }
            }
        }
        while let Some(event) = pipeline.next()? {
            note(event, &mut results);
        }
        Ok(results)
    }

    pub(crate) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Sends requests if there is room for them at once. Whether there was.
    pub(crate) fn try_send(&self, writer: &Writer) -> Result<bool, ClientError> {
        loop {
            match socket::try_send(&self.fd, writer.as_bytes()) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn send(&self, writer: &Writer) -> Result<(), ClientError> {
        if writer.overflowed() || writer.len() > MAX_DATAGRAM {
            return Err(ClientError::TooLong);
        }
        loop {
            match socket::send(&self.fd, writer.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Ok(result?),
            }
        }
    }

    /// The next answer to request `seq`. What is left of earlier requests, whose replies were not all wanted, is passed
    /// over.
    pub(crate) fn answer(&mut self, seq: u32) -> Result<Answer, ClientError> {
        loop {
            while let Some((found, answer)) = self.waiting.pop_front() {
                if found == seq {
                    return Ok(answer);
                }
            }
            self.take_in()?;
        }
    }

    /// Waits for a datagram, and keeps the answers in it until they are asked for.
    pub(crate) fn take_in(&mut self) -> Result<(), ClientError> {
        loop {
            match socket::receive(&self.fd, &mut self.buffer) {
                Ok(Received::Datagram(length)) => {
                    for message in nl::messages(&self.buffer[..length]) {
                        let answer = Answer::decode(&message).map_err(ClientError::Garbled)?;
                        self.waiting.push_back((message.header.seq, answer));
                    }
                    return Ok(());
                }
                Ok(Received::TooLong(_)) => {
                    return Err(ClientError::Garbled(DecodeError::Truncated));
                }
                Ok(Received::Closed) => return Err(ClientError::Closed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The replies to one request, as they come. An error is the last item.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut Client,
    seq: u32,
    over: bool,
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Result<Reply, ClientError>> {
        if self.over {
            return None;
        }
        let item = match self.client.answer(self.seq) {
            Ok(Answer::Reply(reply)) => return Some(Ok(reply)),
            Ok(Answer::Ack | Answer::Done) => None,
            Ok(Answer::Refused(refusal)) => Some(Err(ClientError::Refused(refusal))),
            Err(error) => Some(Err(error)),
        };
        self.over = true;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use crate::message::{Incoming, Outgoing};
    use crate::{ipvs, ripvs};
    use std::thread;

    /// A server that answers one connection until it closes: `answer` says what to.
    fn serve(
        name: &str,
        answer: impl Fn(&Incoming, &mut Outgoing) + Send + 'static,
    ) -> (PathBuf, thread::JoinHandle<()>) {
        let name = format!("ripvs-client-{}-{name}", std::process::id());
        let path = env::temp_dir().join(name);
        let listener = socket::listen(&path).unwrap();
        let removed = path.clone();
        let thread = thread::spawn(move || {
            rustix::io::ioctl_fionbio(&listener, false).unwrap();
            let connection = socket::accept(&listener).unwrap();
            std::fs::remove_file(removed).unwrap();
            rustix::io::ioctl_fionbio(&connection, false).unwrap();
            let mut buffer = vec![0; MAX_DATAGRAM];
            while let Received::Datagram(length) =
                socket::receive(&connection, &mut buffer).unwrap()
            {
                let mut out = Outgoing::new();
                for incoming in Incoming::read(&buffer[..length]) {
                    answer(&incoming, &mut out);
                }
                for datagram in out.take() {
                    socket::send(&connection, &datagram).unwrap();
                }
            }
        });
        (path, thread)
    }

    /// Acknowledges all but zeroing, shows information, and dumps three workers.
    fn simple(incoming: &Incoming, out: &mut Outgoing) {
        let to = &incoming.header;
        match incoming.request.as_ref().unwrap() {
            Request::Ipvs(ipvs::Request::GetInfo) => {
                out.reply(to, &info());
                out.ack(to);
            }
            Request::Ipvs(ipvs::Request::Zero(_)) => out.refuse(to, &Errno::SRCH.into()),
            Request::Ripvs(ripvs::Request::Diverts) => {
                for mark in 1..4 {
                    out.item(to, &divert(mark));
                }
                out.done(to);
            }
            _ => out.ack(to),
        }
    }

    fn info() -> Reply {
        Reply::Ipvs(ipvs::Reply::Info(ipvs::Info {
            version: 1,
            conn_tab_size: 2,
        }))
    }

    fn divert(mark: u32) -> Reply {
        Reply::Ripvs(ripvs::Reply::Divert(ripvs::Divert { mark }))
    }

    #[test]
    fn replies_come_until_the_acknowledgement_or_the_end() {
        let (path, thread) = serve("replies", simple);
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.call(ipvs::Request::GetInfo).unwrap(), [info()]);
        assert_eq!(client.call(ipvs::Request::Flush).unwrap(), []);
        let found = client.call(ripvs::Request::Diverts).unwrap();
        assert_eq!(found, [divert(1), divert(2), divert(3)]);
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn a_refusal_is_an_error_and_the_connection_goes_on() {
        let (path, thread) = serve("refusal", simple);
        let mut client = Client::connect(&path).unwrap();
        match client.call(ipvs::Request::Zero(None)) {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal.errno, Errno::SRCH),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.call(ipvs::Request::GetInfo).unwrap(), [info()]);
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn replies_that_are_not_wanted_are_not_taken_for_later_ones() {
        let (path, thread) = serve("unwanted", simple);
        let mut client = Client::connect(&path).unwrap();
        let first = client.replies(ripvs::Request::Diverts).unwrap().next();
        assert_eq!(first.unwrap().unwrap(), divert(1));
        assert_eq!(client.call(ipvs::Request::GetInfo).unwrap(), [info()]);
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn many_requests_go_at_once_and_keep_their_order() {
        let (path, thread) = serve("batch", simple);
        let mut client = Client::connect(&path).unwrap();
        let requests: Vec<Request> = (0..10_000)
            .map(|number| match number % 100 {
                7 => ipvs::Request::Zero(None).into(),
                8 => ipvs::Request::GetInfo.into(),
                _ => ipvs::Request::Flush.into(),
            })
            .collect();
        let mut shown = Vec::new();
        let results = client
            .replies_all(&requests, |number, _| shown.push(number))
            .unwrap();
        assert_eq!(shown, (8..10_000).step_by(100).collect::<Vec<_>>());
        assert_eq!(results.len(), requests.len());
        for (number, result) in results.iter().enumerate() {
            assert_eq!(result.is_err(), number % 100 == 7, "{number}");
        }
        drop(client);
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_is_not_there_is_told_by_its_path() {
        let path = Path::new("/nonexistent/ripvsd.sock");
        let error = Client::connect(path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ripvsd is not running (nothing listens at /nonexistent/ripvsd.sock)"
        );
    }

    #[test]
    fn a_socket_left_behind_is_told_as_no_server() {
        let path = std::env::temp_dir().join(format!("ripvs-left-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        // bound and closed again: the file stays, as after kill -9
        drop(socket::listen(&path).unwrap());
        let error = Client::connect(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
    }

    #[test]
    fn a_server_that_hangs_up_is_told() {
        let path = env::temp_dir().join(format!("ripvs-client-{}-closed", std::process::id()));
        let listener = socket::listen(&path).unwrap();
        let mut client = Client::connect(&path).unwrap();
        drop(socket::accept(&listener).unwrap());
        let error = client.call(ipvs::Request::Flush).unwrap_err();
        assert!(matches!(error, ClientError::Closed), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_socket_given_goes_before_the_usual_one() {
        let given = Path::new("/tmp/other.sock");
        assert_eq!(socket_path(Some(given)), given);
    }
}
