//! The bytes that come from a server, made safe for the client library: a message that its parser would refuse is
//! replaced by one that it reads and that holds the refused one's bytes. Everything else passes unchanged.
//!
//! The protocol is <https://docs.nats.io/reference/reference-protocols/nats-protocol>. A replacement keeps subscription and
//! reply of what it stands for. Its subject is a secret of this connection, so that no publisher can make one.

use bytes::{Buf, Bytes, BytesMut};

use super::wire;

/// A line of the protocol is shorter: `INFO` may list some hundred servers.
const LINE_MAX: usize = 1024 * 1024;
/// The server's own bound of `max_payload` is 64 MiB.
const MESSAGE_MAX: usize = 1024 * 1024 * 1024;

/// What a server sends, message by message.
pub struct Screen {
    secret: String,
    /// How many bytes of the current message are still to come; they pass unchecked.
    passing: usize,
}

/// The bytes are not the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfStep;

impl Screen {
    /// `secret`: a word that stands in the subject of every replacement and that no publisher knows.
    pub fn new(secret: &str) -> Screen {
        Screen {
            secret: secret.to_owned(),
            passing: 0,
        }
    }

    /// Moves what can be judged from `input` to `output`. What stays needs more bytes behind it: the beginning of a line, or
    /// of headers.
    pub fn pass(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), OutOfStep> {
        loop {
            let some = self.passing.min(input.len());
            output.extend_from_slice(&input[..some]);
            input.advance(some);
            self.passing -= some;
            if self.passing > 0 {
                return Ok(());
            }
            let Some(length) = line(input) else {
                return if input.len() > LINE_MAX { Err(OutOfStep) } else { Ok(()) };
            };
            let Some(head) = MessageLine::parse(&input[..length])? else {
                self.passing = length + 2;
                continue;
            };
            let begin = length + 2;
            let Some(headers) = input.get(begin..begin + head.headers) else {
                return Ok(());
            };
            if wire::check(head.subject, headers).is_ok() {
                self.passing = begin + head.all + 2;
                continue;
            }
            self.replace(&head, output);
            self.passing = head.all + 2;
            input.advance(begin);
        }
    }

    /// The beginning of what stands for a refused message; its headers and payload follow as they are.
    fn replace(&self, head: &MessageLine<'_>, output: &mut BytesMut) {
        let lengths = format!("{} {}\n", head.subject.len(), head.headers);
        let all = lengths.len() + head.subject.len() + head.all;
        for part in [b"MSG ", self.secret.as_bytes(), b" ", head.subscription, b" "] {
            output.extend_from_slice(part);
        }
        // A reply subject that the client cannot read either is left out: then there is no answer to send.
        if let Some(reply) = head.reply.filter(|reply| std::str::from_utf8(reply).is_ok()) {
            output.extend_from_slice(reply);
            output.extend_from_slice(b" ");
        }
        output.extend_from_slice(format!("{all}\r\n{lengths}").as_bytes());
        output.extend_from_slice(head.subject);
    }
}

/// How long the first line is, without its end.
fn line(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let feed = from + bytes[from..].iter().position(|b| *b == b'\n')?;
        if feed > 0 && bytes[feed - 1] == b'\r' {
            return Some(feed - 1);
        }
        from = feed + 1;
    }
}

/// A message that the client library cannot read, as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Where it was published.
    pub subject: Bytes,
    /// As they are on the wire, `NATS/1.0\r\n…`; empty if there are none.
    pub headers: Bytes,
    /// What it carries.
    pub payload: Bytes,
}

impl Malformed {
    /// Reads the payload of a replacement.
    pub fn of(mut payload: Bytes) -> Option<Malformed> {
        let end = payload.iter().position(|b| *b == b'\n')?;
        let lengths = std::str::from_utf8(&payload[..end]).ok()?.split_once(' ')?;
        let (subject, headers): (usize, usize) = (lengths.0.parse().ok()?, lengths.1.parse().ok()?);
        payload.advance(end + 1);
        if subject.checked_add(headers)? > payload.len() {
            return None;
        }
        Some(Malformed {
            subject: payload.split_to(subject),
            headers: payload.split_to(headers),
            payload,
        })
    }

    /// What the client has against it.
    pub fn why(&self) -> String {
        wire::check(&self.subject, &self.headers)
            .err()
            .unwrap_or_else(|| "it cannot be read".to_owned())
    }
}

/// The fields of the line that begins a message.
struct MessageLine<'a> {
    subject: &'a [u8],
    subscription: &'a [u8],
    reply: Option<&'a [u8]>,
    headers: usize,
    /// Headers and payload together.
    all: usize,
}

impl<'a> MessageLine<'a> {
    /// `None`: it begins no message.
    fn parse(line: &'a [u8]) -> Result<Option<MessageLine<'a>>, OutOfStep> {
        let (rest, has_headers) = match (line.strip_prefix(b"MSG "), line.strip_prefix(b"HMSG ")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            (None, None) => return Ok(None),
        };
        let mut parts = [&[][..]; 5];
        let mut count = 0;
        for part in rest.split(|b| *b == b' ').filter(|part| !part.is_empty()) {
            *parts.get_mut(count).ok_or(OutOfStep)? = part;
            count += 1;
        }
        let [subject, subscription, ..] = parts;
        let (reply, headers, all) = match (has_headers, count) {
            (false, 3) => (None, 0, number(parts[2])?),
            (false, 4) => (Some(parts[2]), 0, number(parts[3])?),
            (true, 4) => (None, number(parts[2])?, number(parts[3])?),
            (true, 5) => (Some(parts[2]), number(parts[3])?, number(parts[4])?),
            _ => return Err(OutOfStep),
        };
        // One that is larger than any server allows would only be a way to make numbers overflow.
        if headers > all || all > MESSAGE_MAX || (has_headers && headers == 0) {
            return Err(OutOfStep);
        }
        Ok(Some(MessageLine {
            subject,
            subscription,
            reply,
            headers,
            all,
        }))
    }
}

fn number(digits: &[u8]) -> Result<usize, OutOfStep> {
    let text = std::str::from_utf8(digits).map_err(|_| OutOfStep)?;
    text.parse().map_err(|_| OutOfStep)
}
