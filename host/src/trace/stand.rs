//! How one handler stands to one event.

use schemars::JsonSchema;
use serde::Serialize;

use super::ledger::{Told, TracedDecision, Word};
use super::{Part, TracedMessage, Tracer};
use crate::broker::Error;
use crate::broker::consumer::META_INCARNATION;
use crate::broker::error::Code;
use crate::event::{EventId, rfc3339};
use crate::ledger::core::entry::DecisionKind;
use crate::mesh_streams::attempts::{self, AttemptRecord};
use crate::mesh_streams::dead_letter::{self, LetterEdit};
use crate::mesh_streams::replay_queue;
use crate::plan::Handler;

/// What a handler has made of an event.
#[derive(Debug)]
pub enum Stand {
    Done {
        decided: Box<TracedDecision>,
    },
    Dead {
        /// `None`: its ledger does not know it, or there is none.
        decided: Option<Box<TracedDecision>>,
        /// `None`: it is not stored yet, or was removed.
        letter: Option<TracedLetter>,
        /// A replay of it is asked for and not over.
        replay: bool,
    },
    /// Done by a replay of its dead letter; no ledger keeps more of it.
    Replayed {
        at: String,
    },
    /// It failed, and is tried again; or it is being tried again now.
    Retrying {
        record: Box<AttemptRecord>,
        max_attempts: u32,
    },
    /// Given to a host, and not decided; without a ledger it may be answered already.
    Delivered {
        ledger: bool,
    },
    /// Not delivered to a host yet: the consumer is at this sequence.
    Waiting {
        delivered: u64,
        /// Why the consumer gives nothing more for now; `None`: it does.
        held_up: Option<String>,
    },
    /// It lies before the consumer's start.
    BeforeStart {
        start: u64,
    },
    /// The consumer was never created, or was deleted.
    NoConsumer,
    /// Decided, and the ledger no longer knows when and how. If the event was removed from its stream, it is not known whether
    /// it was this handler's.
    Forgotten {
        done: bool,
        was_its: bool,
    },
    /// The server is through with it; a handler without a ledger leaves nothing else behind.
    Answered,
    /// The server is through with it, and the ledger does not have it: a host's sweep has it run again.
    Lost,
    /// Not known: it was removed from its stream, and nothing of this handler mentions it.
    Unknown,
    /// It was not found before the bound was reached.
    NotFound {
        /// How, that is: decided it is.
        decided: bool,
    },
}

/// A dead letter. `jetmesh trace --json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "letter", description = "A dead letter.")]
pub struct TracedLetter {
    /// What `jetmesh dlq` calls it.
    pub id: String,
    /// When the event died, RFC 3339; if it is resolved, when it was.
    #[serde(rename = "dead_since")]
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// Empty if it is resolved, as are code and error.
    pub cause: String,
    pub code: String,
    pub error: String,
    /// 0: not known.
    pub attempts: u32,
    /// Why it is not listed any more; null: it is.
    pub settled: Option<String>,
}

impl TracedLetter {
    /// A replay of it has succeeded.
    pub fn is_replayed(&self) -> bool {
        self.settled.as_deref() == Some(dead_letter::REPLAYED)
    }
}

impl Stand {
    /// Whether something tells of the event.
    pub fn is_known(&self) -> bool {
        match self {
            Stand::Done { .. }
            | Stand::Dead { .. }
            | Stand::Replayed { .. }
            | Stand::Retrying { .. }
            | Stand::Forgotten { .. }
            | Stand::NotFound { decided: true } => true,
            Stand::Delivered { .. }
            | Stand::Waiting { .. }
            | Stand::BeforeStart { .. }
            | Stand::NoConsumer
            | Stand::Answered
            | Stand::Lost
            | Stand::Unknown
            | Stand::NotFound { decided: false } => false,
        }
    }

    /// Whether the next step is a host's.
    pub fn waits(&self) -> bool {
        match self {
            Stand::Retrying { .. }
            | Stand::Delivered { .. }
            | Stand::Waiting { .. }
            | Stand::Lost
            | Stand::Dead { replay: true, .. } => true,
            Stand::Done { .. }
            | Stand::Dead { replay: false, .. }
            | Stand::Replayed { .. }
            | Stand::BeforeStart { .. }
            | Stand::NoConsumer
            | Stand::Forgotten { .. }
            | Stand::Answered
            | Stand::Unknown
            | Stand::NotFound { .. } => false,
        }
    }
}

impl Tracer<'_> {
    /// One handler's part, without what followed.
    pub(super) async fn stand(
        &mut self,
        handler: &Handler,
        event: &EventId,
        message: Option<&TracedMessage>,
    ) -> Result<Part, Error> {
        let part = self.look(handler, event, message).await?;
        if !matches!(part.stand, Stand::Lost | Stand::Answered) {
            return Ok(part);
        }
        // It may have been decided after the ledger, or the dead letters, were asked and before the consumer was.
        if let Some(ledger) = &handler.ledger {
            self.heads.remove(ledger);
        }
        self.look(handler, event, message).await
    }

    async fn look(
        &mut self,
        handler: &Handler,
        event: &EventId,
        message: Option<&TracedMessage>,
    ) -> Result<Part, Error> {
        let told = match &handler.ledger {
            Some(ledger) => self.word((handler, ledger), event, message).await?,
            None => Word::Undecided.into(),
        };
        let Told {
            word,
            before_resets,
            note,
        } = told;
        let stand = self.stand_by(word, handler, event, message).await?;
        Ok(Part {
            handler: handler.name.clone(),
            edits: self.edits(handler, event, &stand).await?,
            stand,
            before_resets,
            follows: Vec::new(),
            hindered: Vec::new(),
            paused: None,
            note,
        })
    }

    async fn stand_by(
        &self,
        word: Word,
        handler: &Handler,
        event: &EventId,
        message: Option<&TracedMessage>,
    ) -> Result<Stand, Error> {
        match word {
            Word::Decided(decided) if decided.decision.verdict == DecisionKind::Done => Ok(Stand::Done { decided }),
            Word::Decided(decided) => {
                let letter = self.letter(handler, event).await?;
                self.dead(handler, event, Some(decided), letter).await
            }
            Word::Collected(verdict) => match (self.letter(handler, event).await?, verdict) {
                (Some(letter), None | Some(DecisionKind::Dead)) => self.dead(handler, event, None, Some(letter)).await,
                (Some(_), Some(DecisionKind::Done)) | (None, _) => Ok(Stand::Forgotten {
                    done: verdict == Some(DecisionKind::Done),
                    was_its: message.is_some() || verdict.is_some(),
                }),
            },
            Word::Bound { decided } => Ok(Stand::NotFound { decided }),
            Word::Undecided => {
                if handler.ledger.is_none()
                    && let Some(letter) = self.letter(handler, event).await?
                {
                    return self.dead(handler, event, None, Some(letter)).await;
                }
                self.undecided(handler, event, message.is_some()).await
            }
        }
    }

    async fn dead(
        &self,
        handler: &Handler,
        event: &EventId,
        decided: Option<Box<TracedDecision>>,
        letter: Option<TracedLetter>,
    ) -> Result<Stand, Error> {
        if decided.is_none()
            && let Some(replayed) = letter.as_ref().filter(|letter| letter.is_replayed())
        {
            return Ok(Stand::Replayed {
                at: replayed.since.clone(),
            });
        }
        let replay = replay_queue::waits(&self.reading.connection, &handler.name, event).await?;
        Ok(Stand::Dead {
            decided,
            letter,
            replay,
        })
    }

    async fn letter(&self, handler: &Handler, event: &EventId) -> Result<Option<TracedLetter>, Error> {
        self.letter_on(&dead_letter::subject(&handler.stream, &handler.name, event))
            .await
    }

    /// The letter on a subject, settled or not.
    pub(super) async fn letter_on(&self, subject: &str) -> Result<Option<TracedLetter>, Error> {
        let letter = match dead_letter::stored(&self.reading.connection, subject).await {
            Err(Error::Api {
                code: Code::STREAM_NOT_FOUND,
                ..
            }) => None,
            letter => letter?,
        };
        Ok(letter.map(|letter| {
            let of = |name| letter.header(name).to_owned();
            TracedLetter {
                id: letter.id().to_owned(),
                since: rfc3339(letter.dead_since_ms()),
                cause: of(dead_letter::CAUSE),
                code: of(dead_letter::CODE),
                error: of(dead_letter::ERROR),
                attempts: of(dead_letter::ATTEMPTS).parse().unwrap_or(0),
                settled: letter.settled().map(str::to_owned),
            }
        }))
    }

    /// Only of what has died there is a letter, and only letters are edited.
    async fn edits(&self, handler: &Handler, event: &EventId, stand: &Stand) -> Result<Vec<LetterEdit>, Error> {
        let died = match stand {
            Stand::Done { decided } => decided.decision.follows_death.is_some(),
            Stand::Dead { .. } | Stand::Replayed { .. } | Stand::Forgotten { .. } => true,
            _ => false,
        };
        if !died {
            return Ok(Vec::new());
        }
        let letter = dead_letter::subject(&handler.stream, &handler.name, event);
        let mut edits = dead_letter::edits_of(&self.reading.connection, &letter).await?;
        Ok(edits.remove(&letter).unwrap_or_default())
    }

    /// What the attempts and the consumer tell.
    async fn undecided(&self, handler: &Handler, event: &EventId, there: bool) -> Result<Stand, Error> {
        let connection = &self.reading.connection;
        let held = attempts::load(connection, &handler.name, event).await?;
        if held.record.attempts > 0 {
            return Ok(Stand::Retrying {
                record: Box::new(held.record),
                max_attempts: handler.retry.max_attempts,
            });
        }
        if !there {
            return Ok(Stand::Unknown);
        }
        let Some(info) = connection.consumer(&handler.stream, &handler.consumer).await? else {
            return Ok(Stand::NoConsumer);
        };
        if info
            .metadata(META_INCARNATION)
            .is_some_and(|token| *token != *event.incarnation)
        {
            return Ok(Stand::Unknown);
        }
        let start = info.start()?.unwrap_or(0);
        Ok(if event.sequence < start {
            Stand::BeforeStart { start }
        } else if event.sequence > info.delivered.stream_seq {
            Stand::Waiting {
                delivered: info.delivered.stream_seq,
                held_up: info.held_up(&handler.stream),
            }
        } else if event.sequence > info.settled_floor() {
            Stand::Delivered {
                ledger: handler.ledger.is_some(),
            }
        } else if handler.ledger.is_none() {
            Stand::Answered
        } else {
            Stand::Lost
        })
    }
}
