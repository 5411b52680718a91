//! All that a person can do to the mesh and that changes something in it.

macro_rules! actions {
    ($($action:ident = $name:literal),* $(,)?) => {
        /// What a person does to the mesh. What only looks is none of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AuditAction {
            $($action),*
        }

        impl AuditAction {
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The words of the command, joined by `-`.
            pub fn name(self) -> &'static str {
                match self {
                    $(AuditAction::$action => $name),*
                }
            }
        }
    };
}

actions! {
    DlqReplay = "dlq-replay",
    // Of a replay that a console makes; of a command it is Ctrl-C, and no order to the mesh.
    ReplayStop = "replay-stop",
    DlqDiscard = "dlq-discard",
    // Of a rehearsal on a module that a viewer of a console gives; other rehearsals only look.
    DlqRehearse = "dlq-rehearse",
    DlqEdit = "dlq-edit",
    DlqNote = "dlq-note",
    DlqImport = "dlq-import",
    Pause = "pause",
    Resume = "resume",
    RetryingNow = "retrying-now",
    RetryingGiveUp = "retrying-give-up",
    DelayedNow = "delayed-now",
    DelayedCancel = "delayed-cancel",
    SchedulePause = "schedule-pause",
    ScheduleResume = "schedule-resume",
    ScheduleRun = "schedule-run",
    ScheduleBackfill = "schedule-backfill",
    RedrivePause = "redrive-pause",
    RedriveResume = "redrive-resume",
    OutboxPause = "outbox-pause",
    OutboxResume = "outbox-resume",
    OutboxSkip = "outbox-skip",
    ModulesPush = "modules-push",
    ModulesSign = "modules-sign",
    ModulesPromote = "modules-promote",
    ModulesRollback = "modules-rollback",
    ModulesHold = "modules-hold",
    ModulesResume = "modules-resume",
    ModulesPrune = "modules-prune",
    Reset = "reset",
}
