//! DNS (RFC 1035) between a resolver and the gateway: the query that takes the place of a client's,
//! and the resolver's answer to it. Of the client's query nothing is passed on but what is named
//! here.

use super::dns::{
    DNSSEC_OK, HEAD_LEN, MAX_NAME, MAX_RESPONSE, MIN_RESPONSE, OPT, OPT_LEN, Query, Question, flag,
};
use super::field::be16;

/// The longest question: a name, the type and the class.
const MAX_QUESTION: usize = MAX_NAME + 4;
/// The longest query to a resolver.
pub const MAX_QUERY: usize = HEAD_LEN + MAX_QUESTION + OPT_LEN;

/// What a client has asked, to be kept until its answer comes.
#[derive(Debug, Clone)]
pub struct Asked {
    id: u16,
    flags: u16,
    /// The size of the longest response that the client takes by EDNS.
    size: Option<u16>,
    /// Whether it takes records of DNSSEC.
    dnssec: bool,
    question_len: u16,
    question: [u8; MAX_QUESTION],
}

impl Asked {
    /// Nothing: a place for what will be asked.
    pub const NONE: Self = Self {
        id: 0,
        flags: 0,
        size: None,
        dnssec: false,
        question_len: 0,
        question: [0; MAX_QUESTION],
    };

    /// What the query asks. `None` if its question is wrong.
    pub fn of(query: &Query<'_>) -> Option<Self> {
        let question = query.question.ok()?.bytes;
        let mut asked = Self {
            id: query.id,
            flags: query.flags,
            size: query.size,
            dnssec: query.dnssec,
            question_len: question.len() as u16,
            ..Self::NONE
        };
        asked
            .question
            .get_mut(..question.len())?
            .copy_from_slice(question);
        Some(asked)
    }

    fn question(&self) -> &[u8] {
        &self.question[..usize::from(self.question_len)]
    }

    /// Whether the client asks the same again, by the same ID.
    pub fn is_repeated_by(&self, other: &Self) -> bool {
        self.id == other.id && self.question() == other.question()
    }

    /// Whether the answer has its question, without regard to case.
    pub fn has_question_of(&self, answer: &Answer<'_>) -> bool {
        let (name_end, own) = (self.question().len().saturating_sub(4), self.question());
        let other = answer.question.bytes;
        // A letter's byte may also be one of the type or class.
        own.len() == other.len()
            && own[..name_end].eq_ignore_ascii_case(&other[..name_end])
            && own[name_end..] == other[name_end..]
    }

    /// Writes the query to a resolver, by that ID, from whose link a datagram of UDP brings so many
    /// bytes of payload; returns its length. RD, AD and CD are the client's. An option record is
    /// there if the client's has one, and says that at most [`MAX_RESPONSE`] bytes are taken, and
    /// DO as the client's.
    pub fn write_query(&self, id: u16, room: usize, out: &mut [u8; MAX_QUERY]) -> usize {
        const PASSED: u16 =
            flag::RECURSION_DESIRED | flag::AUTHENTIC_DATA | flag::CHECKING_DISABLED;
        let mut writer = Writer::new(out);
        let additional = u16::from(self.size.is_some());
        for word in [id, self.flags & PASSED, 1, 0, 0, additional] {
            writer.push(&word.to_be_bytes());
        }
        writer.push(self.question());
        if self.size.is_some() {
            writer.push(&self.options(room));
        }
        writer.len
    }

    fn options(&self, room: usize) -> [u8; OPT_LEN] {
        let [high, low] = (MAX_RESPONSE.min(room) as u16).to_be_bytes();
        let dnssec = if self.dnssec { DNSSEC_OK } else { 0 };
        [0, 0, OPT as u8, high, low, 0, 0, dnssec, 0, 0, 0]
    }

    /// Writes the response to the client, to whose link a datagram of UDP takes so many bytes of
    /// payload; returns its length. It is the answer with the client's ID and question, without AD:
    /// nobody here has checked it, or what is between the resolver and us. If it is larger than the
    /// client takes, it has TC and no records.
    pub fn write_response(
        &self,
        answer: &Answer<'_>,
        room: usize,
        out: &mut [u8; MAX_RESPONSE],
    ) -> usize {
        const OF_ANSWER: u16 =
            flag::AUTHORITATIVE | flag::TRUNCATED | flag::RECURSION_AVAILABLE | flag::CODE;
        const OF_QUERY: u16 = flag::RECURSION_DESIRED | flag::CHECKING_DISABLED;
        let longest = self.size.map_or(MIN_RESPONSE, usize::from);
        let longest = longest.clamp(MIN_RESPONSE, MAX_RESPONSE).min(room);
        let flags = flag::RESPONSE | answer.flags & OF_ANSWER | self.flags & OF_QUERY;
        let fits = answer.message.len() <= longest;
        let mut writer = Writer::new(out);
        writer.push(&self.id.to_be_bytes());
        if fits {
            writer.push(&flags.to_be_bytes());
            let records = answer.message.get(HEAD_LEN + self.question().len()..);
            writer.push(&answer.message[4..HEAD_LEN]);
            writer.push(self.question());
            writer.push(records.unwrap_or_default());
            return writer.len;
        }
        let additional = u16::from(self.size.is_some());
        for word in [flags | flag::TRUNCATED, 1, 0, 0, additional] {
            writer.push(&word.to_be_bytes());
        }
        writer.push(self.question());
        if self.size.is_some() {
            writer.push(&self.options(MAX_RESPONSE));
        }
        writer.len
    }
}

/// Writes one piece behind the other.
struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Writer<'o> {
    fn new(out: &'o mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// What does not fit is left out; all that is written here does.
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.out.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// A resolver's answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'p> {
    /// The ID of the query that it is to.
    pub id: u16,
    flags: u16,
    question: Question<'p>,
    message: &'p [u8],
}

impl<'p> Answer<'p> {
    /// Reads a message. `None` if it is not the whole answer to one question.
    pub fn parse(message: &'p [u8]) -> Option<Self> {
        let (head, rest) = message.split_first_chunk::<HEAD_LEN>()?;
        let flags = be16(head, 2);
        let is_answer = flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE;
        if !is_answer || be16(head, 4) != 1 {
            return None;
        }
        Some(Self {
            id: be16(head, 0),
            flags,
            question: Question::parse(rest)?,
            message,
        })
    }

    /// Its RCODE.
    pub fn code(&self) -> u16 {
        self.flags & flag::CODE
    }
}
