//! Reading dead letters: one by its id, or all that a filter means, once through the stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Filter;
use crate::broker::provision::DEAD;
use crate::broker::scan::{CLOCKS_MS, From, Scan, Scanned, count, first_since};
use crate::broker::{self, Connection};
use crate::event::{DeliveryInfo, headers_of};
use crate::mesh_streams::dead_letter::{self, Letter};

/// Messages among the letters that no client can read: something else than the mesh has written them.
#[derive(Debug, Default)]
#[must_use = "what cannot be read has to be reported"]
pub struct Unread {
    count: u64,
    /// Its sequence, and what is wrong with it.
    first: Option<(u64, String)>,
}

impl Unread {
    fn add(&mut self, sequence: u64, why: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(|| (sequence, why()));
    }

    /// For people: what they are, and how the first is removed. `None`: there are none.
    pub fn told(&self) -> Option<String> {
        let (sequence, why) = self.first.as_ref()?;
        Some(format!(
            "{} message(s) of stream {DEAD} are not dead letters, because no client can parse them; the first is \
             {sequence}: {why}; remove it with `nats stream rmm {DEAD} {sequence} --force`",
            self.count
        ))
    }
}

/// Calls `seen` for each letter that the filter means and that is not resolved, oldest first; see [`LetterScan`].
pub async fn each(
    connection: &Connection,
    filter: &Filter,
    payloads: bool,
    mut seen: impl FnMut(Letter),
) -> Result<Unread, broker::Error> {
    let mut letters = LetterScan::start(connection, filter, payloads).await?;
    while let Some(letter) = letters.next().await? {
        seen(letter);
    }
    letters.end().await
}

/// Each letter that a filter means and that is not resolved, oldest first.
pub struct LetterScan<'a> {
    connection: &'a Connection,
    filter: &'a Filter,
    scan: Scan,
    unread: Unread,
}

impl<'a> LetterScan<'a> {
    /// Their payloads are there only if `payloads` is true, or the filter needs them; that of a letter in parts never is (see
    /// [`dead_letter::read`]). `connection`: a guarded one.
    pub async fn start(
        connection: &'a Connection,
        filter: &'a Filter,
        payloads: bool,
    ) -> Result<LetterScan<'a>, broker::Error> {
        let bare = !payloads && !filter.needs_payload();
        Ok(LetterScan {
            connection,
            filter,
            scan: Scan::start(connection, DEAD, &subjects(filter), begin(filter), u64::MAX, bare).await?,
            unread: Unread::default(),
        })
    }

    pub async fn next(&mut self) -> Result<Option<Letter>, broker::Error> {
        while let Some(scanned) = self.scan.next().await? {
            if let Some(letter) = letter(self.connection, self.filter, scanned, &mut self.unread).await?
                && self.filter.matches(&letter)
            {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// What could not be read was passed over, and is returned.
    pub async fn end(self) -> Result<Unread, broker::Error> {
        self.scan.end().await?;
        Ok(self.unread)
    }
}

/// The newest letters, and how far they were looked for.
#[derive(Debug, Default)]
pub struct Newest {
    /// Those that a filter means, oldest first.
    pub letters: VecDeque<Letter>,
    pub looked: LookedBack,
    /// How many letters the stream holds, resolved ones among them, of the handler that the filter names, or of all. `None`:
    /// everything was looked at.
    pub in_stream: Option<u64>,
}

/// The newest letters that a filter means, at most `most`: read from the end of the stream, or from before a sequence, piece by piece,
/// and no further than needed, nor for longer than `time`, but for the piece at which it is then. Their payloads are there only if the
/// filter needs them.
pub async fn newest(
    connection: &Connection,
    filter: &Filter,
    most: usize,
    (before, time): (Option<u64>, Option<Duration>),
) -> Result<Newest, broker::Error> {
    let began = Instant::now();
    let mut letters = VecDeque::new();
    let mut back = LookBack::start(connection, filter, before).await?;
    while back.looked.meant < most as u64 && time.is_none_or(|time| began.elapsed() < time) {
        let Some(mut piece) = back.piece().await? else { break };
        // The newest of a piece are its last.
        piece.drain(..piece.len().saturating_sub(most - letters.len()));
        piece.append(&mut letters);
        letters = piece;
    }
    Ok(Newest {
        in_stream: if back.is_over() {
            None
        } else {
            Some(back.in_stream().await?)
        },
        looked: back.looked,
        letters,
    })
}

/// How far it was looked back.
#[derive(Debug, Default)]
pub struct LookedBack {
    /// Letters that were looked at, whatever the filter says of them.
    pub at: u64,
    /// How many of them the filter means.
    pub meant: u64,
    /// When the oldest of them was written, in milliseconds since the Unix epoch.
    pub back_to_ms: u64,
    /// The sequence from which on all was looked at.
    pub from: u64,
    /// What was among them that no client can read.
    pub unread: Unread,
}

/// Letters, read from the end of the stream, or from before a sequence, piece by piece.
pub struct LookBack<'a> {
    connection: &'a Connection,
    filter: &'a Filter,
    pub looked: LookedBack,
    /// The sequence at which what the filter means can begin.
    first: u64,
    /// Sequences of the next piece.
    width: u64,
}

impl<'a> LookBack<'a> {
    pub async fn start(
        connection: &'a Connection,
        filter: &'a Filter,
        before: Option<u64>,
    ) -> Result<LookBack<'a>, broker::Error> {
        let mut back = LookBack {
            connection,
            filter,
            looked: LookedBack::default(),
            first: 1,
            width: PIECE,
        };
        if let Some(info) = connection.stream(DEAD).await? {
            back.first = match begin(filter) {
                From::Sequence(_) => info.state.first_seq.max(1),
                since @ From::Time(_) => first_since(connection, DEAD, since).await?.max(1),
            };
            back.looked.from = before.unwrap_or(u64::MAX).min(info.state.last_seq + 1);
        }
        Ok(back)
    }

    /// Whether everything was looked at.
    pub fn is_over(&self) -> bool {
        self.looked.from <= self.first
    }

    /// How many letters the stream holds, resolved ones among them, of the handler that the filter names, or of all.
    pub async fn in_stream(&self) -> Result<u64, broker::Error> {
        count(self.connection, DEAD, &subjects(self.filter)).await
    }

    /// The letters of the next piece that the filter means, oldest first. `None`: everything was looked at.
    pub async fn piece(&mut self) -> Result<Option<VecDeque<Letter>>, broker::Error> {
        if self.is_over() {
            return Ok(None);
        }
        let (connection, filter, looked) = (self.connection, self.filter, &mut self.looked);
        let from = looked.from.saturating_sub(self.width).max(self.first);
        let (before, mut oldest_ms, mut piece) = (looked.at, None, VecDeque::new());
        let (subjects, bare) = (subjects(filter), !filter.needs_payload());
        let until = looked.from - 1;
        let mut scan = Scan::start(connection, DEAD, &subjects, From::Sequence(from), until, bare).await?;
        while let Some(scanned) = scan.next().await? {
            let Some(letter) = letter(connection, filter, scanned, &mut looked.unread).await? else {
                continue;
            };
            looked.at += 1;
            oldest_ms.get_or_insert(letter.time_ms);
            if filter.matches(&letter) {
                looked.meant += 1;
                piece.push_back(letter);
            }
        }
        scan.end().await?;
        looked.back_to_ms = oldest_ms.unwrap_or(looked.back_to_ms);
        looked.from = from;
        // Where much was overwritten, the next piece is larger.
        let most = if 2 * (looked.at - before) < self.width {
            PIECE_MAX
        } else {
            PIECE_DENSE_MAX
        };
        self.width = (self.width * 4).min(most);
        Ok(Some(piece))
    }
}

/// Sequences that are looked at first: as many as come with one request.
const PIECE: u64 = 500;
/// And at most: the headers of so many letters are in memory at a time, and for so long it is not asked whether it goes on.
const PIECE_DENSE_MAX: u64 = 8_000;
const PIECE_MAX: u64 = 32_000;

/// Without the parts of large ones, whose subjects go on.
fn subjects(filter: &Filter) -> [String; 1] {
    let handler = filter.handler.as_deref().unwrap_or("*");
    [format!("$MESH.dead.*.{handler}.*.*")]
}

/// Where what a filter means can begin: a letter is never older than its death.
fn begin(filter: &Filter) -> From {
    match filter.since_ms {
        Some(since_ms) => From::Time(since_ms.saturating_sub(CLOCKS_MS)),
        None => From::Sequence(1),
    }
}

/// A letter that was read, with its body if the filter needs it. `None`: it is resolved, or none.
async fn letter(
    connection: &Connection,
    filter: &Filter,
    scanned: Scanned,
    unread: &mut Unread,
) -> Result<Option<Letter>, broker::Error> {
    if let Some(malformed) = scanned.malformed {
        unread.add(scanned.sequence, || malformed.why());
        return Ok(None);
    }
    let info = scanned.message.reply.as_deref().and_then(DeliveryInfo::parse);
    let headers = headers_of(scanned.message.headers.as_ref());
    let mut letter = Letter {
        subject: scanned.message.subject.to_string(),
        sequence: scanned.sequence,
        time_ms: info.map_or(0, |i| i.time_ms),
        headers,
        payload: scanned.message.payload,
    };
    if letter.is_settled() {
        return Ok(None);
    }
    if filter.needs_payload() && letter.is_in_parts() {
        match dead_letter::read(connection, &letter.subject).await? {
            Some(whole) => letter.payload = whole.payload,
            None => return Ok(None),
        }
    }
    Ok(Some(letter))
}

/// One letter, whole. `None`: there is none of this id, or it is resolved.
pub async fn find(connection: &Connection, id: &str) -> Result<Option<Letter>, broker::Error> {
    let filter = format!("$MESH.dead.*.{id}");
    for subject in connection.subjects(DEAD, &filter).await? {
        if let Some(letter) = dead_letter::read(connection, &subject).await? {
            return Ok(Some(letter));
        }
    }
    Ok(None)
}

/// Why the letter of an id is resolved; `None` if it is not, or there is none.
pub async fn settled(connection: &Connection, id: &str) -> Result<Option<String>, broker::Error> {
    for subject in connection.subjects(DEAD, &format!("$MESH.dead.*.{id}")).await? {
        let letter = dead_letter::stored(connection, &subject).await?;
        if let Some(reason) = letter.as_ref().and_then(Letter::settled) {
            return Ok(Some(reason.to_owned()));
        }
    }
    Ok(None)
}

/// Whether a text can be a letter's id: HANDLER.INCARNATION.SEQUENCE.
pub fn is_id(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    tokens.len() == 3
        && tokens
            .iter()
            .all(|t| !t.is_empty() && !t.contains(['*', '>', ' ', '\t', '\r', '\n']))
}
