//! Many requests under way at once: sent many in a datagram, some datagrams ahead of the answers. So neither end waits for
//! the other, and each answer still belongs to its request.

use std::collections::VecDeque;

use crate::client::{Client, ClientError};
use crate::message::{Answer, Refusal, Reply, Request};
use crate::nl::Writer;

/// Bytes of requests in a datagram: many, and few enough that the server has begun on them while more are made.
const DATAGRAM: usize = 16 * 1024;
/// Requests under way beyond which an answer is awaited before more are added. The server takes that many and more of one
/// client before it stops reading.
const WINDOW: usize = 2048;

/// What comes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A reply to the request whose end comes next.
    Reply(Reply),
    /// A request is done or refused.
    End(Request, Result<(), Refusal>),
}

/// Requests on their way over a client's connection, whose answers come in the same order. Dropped before all have ended, it
/// leaves the rest of the answers unread; later ones are still told from them.
#[derive(Debug)]
pub struct Pipeline<'a> {
    client: &'a mut Client,
    /// What is to be sent next.
    batch: Writer,
    /// Requests that have not ended, those of the batch at the end.
    under_way: VecDeque<(u32, Request)>,
    /// How many of them are in the batch.
    unsent: usize,
}

impl<'a> Pipeline<'a> {
    /// Nothing under way.
    pub fn new(client: &'a mut Client) -> Pipeline<'a> {
        Pipeline {
            client,
            batch: Writer::new(),
            under_way: VecDeque::new(),
            unsent: 0,
        }
    }

    /// Whether so many are under way that [`Pipeline::next`] should be called until it is no longer so.
    pub fn is_full(&self) -> bool {
        self.under_way.len() >= WINDOW
    }

    /// Adds a request, which is sent with others.
    ///
    /// # Errors
    /// [`ClientError`]; the request is too long, or the connection is no more.
    pub fn push(&mut self, request: impl Into<Request>) -> Result<(), ClientError> {
        let request = request.into();
        let seq = self.client.next_seq();
        let before = self.batch.len();
        request.encode(seq, &mut self.batch);
        if self.batch.overflowed() || self.batch.len() - before > crate::MAX_DATAGRAM / 2 {
            return Err(ClientError::TooLong);
        }
        self.under_way.push_back((seq, request));
        self.unsent += 1;
        if self.batch.len() >= DATAGRAM {
            self.send()?;
        }
        Ok(())
    }

    /// The next reply or end; none where nothing is under way. Refusals are events, not errors.
    ///
    /// # Errors
    /// [`ClientError`], but for [`ClientError::Refused`]. Some requests may have been done all the same.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, ClientError> {
        if self.under_way.len() == self.unsent {
            self.send()?;
        }
        let Some((seq, _)) = self.under_way.front() else {
            return Ok(None);
        };
        let result = match self.client.answer(*seq)? {
            Answer::Reply(reply) => return Ok(Some(Event::Reply(reply))),
            Answer::Ack | Answer::Done => Ok(()),
            Answer::Refused(refusal) => Err(refusal),
        };
        let ended = self.under_way.pop_front();
        Ok(ended.map(|(_, request)| Event::End(request, result)))
    }

    /// Sends the batch. While there is no room for it, answers are taken in: the server may be waiting for just that.
    fn send(&mut self) -> Result<(), ClientError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while !self.client.try_send(&self.batch)? {
            if self.under_way.len() == self.unsent {
                self.client.send(&self.batch)?;
                break;
            }
            self.client.take_in()?;
        }
        self.batch.clear();
        self.unsent = 0;
        Ok(())
    }
}
