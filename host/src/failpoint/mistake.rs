//! Mistakes that can be planted, to see that model, property tests and fault tests find them. A build
//! without the feature `failpoints` has none.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// An event is answered when it has joined, before its entry is stored.
    AckBeforeCommit,
    /// The head is written without expecting the one that it follows.
    #[cfg(any(feature = "failpoints", test))]
    HeadBlind,
    /// Neither head nor entry expects anything.
    #[cfg(any(feature = "failpoints", test))]
    HeadAndEntryBlind,
    /// A key is written whatever its revision is.
    #[cfg(any(feature = "failpoints", test))]
    KeyBlind,
    /// A replay's `done` is written whatever has become of its death.
    #[cfg(any(feature = "failpoints", test))]
    DeathBlind,
    /// A key that was only read may have changed.
    #[cfg(any(feature = "failpoints", test))]
    CarrierBlind,
    /// A transaction joins whatever has become of what it has read.
    JoinBlind,
    /// A death joins without what its verdict rests on.
    RejectOutside,
    /// A refused batch is taken for one that is stored.
    RefusedIsDone,
    /// A refused batch goes out again without looking at what has changed.
    RefusedKeepsReads,
    /// A reconnect keeps the keys that were known before.
    StaleReopen,
    /// An emitted event is published under another id each time.
    EmitWithoutId,
    /// The relay acks what is not confirmed.
    RelayAcksEarly,
    /// The relay takes a publish that was refused for one that is confirmed.
    BlockedIsPublished,
    /// The floor passes what has only joined.
    #[cfg(any(feature = "failpoints", test))]
    FloorFromOverlay,
    /// Entries are collected above the floor.
    CollectAbove,
    /// Whichever timer of a schedule comes is taken for the one that it waits for: one that comes again counts as armed twice.
    ArmedTwice,
    /// A replay of redrive runs whatever has become of its letter since it was read.
    RedriveUnbound,
    /// A timer of a handler fires whatever its key says: also if it was cancelled or set again.
    TimerKeyBlind,
    /// What has failed on a canary runs on it again.
    CanaryAgain,
    /// Each step of a rollout draws other events.
    SharesMoveBack,
    /// The marker of an outbox's batch expects no marker before it: the stream refuses no relay.
    OutboxUnfenced,
}

#[cfg(feature = "failpoints")]
impl Mistake {
    /// Every mistake with the name by which a test asks for it.
    pub const ALL: [(&'static str, Mistake); 22] = [
        ("ack-before-commit", Mistake::AckBeforeCommit),
        ("head-blind", Mistake::HeadBlind),
        ("head-and-entry-blind", Mistake::HeadAndEntryBlind),
        ("key-blind", Mistake::KeyBlind),
        ("death-blind", Mistake::DeathBlind),
        ("carrier-blind", Mistake::CarrierBlind),
        ("join-blind", Mistake::JoinBlind),
        ("reject-outside", Mistake::RejectOutside),
        ("refused-is-done", Mistake::RefusedIsDone),
        ("refused-keeps-reads", Mistake::RefusedKeepsReads),
        ("stale-reopen", Mistake::StaleReopen),
        ("emit-without-id", Mistake::EmitWithoutId),
        ("relay-acks-early", Mistake::RelayAcksEarly),
        ("blocked-is-published", Mistake::BlockedIsPublished),
        ("floor-from-overlay", Mistake::FloorFromOverlay),
        ("collect-above", Mistake::CollectAbove),
        ("armed-twice", Mistake::ArmedTwice),
        ("redrive-unbound", Mistake::RedriveUnbound),
        ("timer-key-blind", Mistake::TimerKeyBlind),
        ("canary-again", Mistake::CanaryAgain),
        ("shares-move-back", Mistake::SharesMoveBack),
        ("outbox-unfenced", Mistake::OutboxUnfenced),
    ];
}

/// What is planted, if anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Planted(#[cfg(any(feature = "failpoints", test))] Option<Mistake>);

impl Planted {
    /// Without the feature nothing is planted.
    #[cfg(any(feature = "failpoints", test))]
    pub fn new(mistake: Option<Mistake>) -> Planted {
        Planted(mistake)
    }

    pub fn is(self, mistake: Mistake) -> bool {
        #[cfg(any(feature = "failpoints", test))]
        return self.0 == Some(mistake);
        #[cfg(not(any(feature = "failpoints", test)))]
        {
            let _ = mistake;
            false
        }
    }

    /// No mistake spoils a batch.
    #[cfg(not(any(feature = "failpoints", test)))]
    pub fn spoilt<T>(self, batch: T) -> T {
        batch
    }
}
