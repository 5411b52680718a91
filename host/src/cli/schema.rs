//! `jetmesh schema`: what the JSON of the other commands is made of, from the types that they print.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::dlq::edit::EditJson;
use super::dlq::export::Imported;
use super::dlq::note::NoteJson;
use super::modules::show::{HistoryLine, NamedVersion};
use super::modules::why::ModulesWhyPage;
use super::{Error, OK};
use crate::control::delayed::{DelayedActed, DelayedEvent};
use crate::control::modules::{ModuleChanged, ModulePushed, ModuleRehearsed, PrunedModules};
use crate::control::pause::{Paused, Resumed};
use crate::control::retrying::RetryingActed;
use crate::dlq::archive::ExportJson;
use crate::dlq::discard::Discarded;
use crate::mesh_streams::audit::AuditRecord;
use crate::micro::trace::{TraceAnswer, TraceRequest};
use crate::report::letters::{GroupJson, LetterJson, ShowJson};
use crate::report::outbox::OutboxStatus;
use crate::report::redrive::RedriveJson;
use crate::report::rehearsal::RehearsalLine;
use crate::report::replay::{AccountJson, DryRunJson};
use crate::report::retrying::RetryingJson;
use crate::report::schedule::{ScheduleDue, ScheduleJson};
use crate::report::status::json::MeshStatus;
use crate::report::trace::TraceJson;

#[derive(Debug, clap::Args)]
pub struct Schema {
    /// Name of the schema; without a name, list all
    pub name: Option<String>,
}

/// A schema that is published.
pub struct Published {
    pub name: &'static str,
    /// What it describes.
    what: &'static str,
    /// Makes its text from the type that is printed.
    pub make: fn() -> String,
}

impl Published {
    const fn of<T: JsonSchema>(name: &'static str, what: &'static str) -> Published {
        let make = make::<T>;
        Published { name, what, make }
    }
}

pub static SCHEMAS: [Published; 33] = [
    Published::of::<MeshStatus>("status", "`status --json`"),
    Published::of::<TraceJson>("trace", "`trace --json`"),
    Published::of::<AuditRecord>("audit", "a line of `audit --json`"),
    Published::of::<TraceRequest>("trace-request", "a request to `jetmesh.trace`"),
    Published::of::<TraceAnswer>("trace-answer", "the answer of `jetmesh.trace`"),
    Published::of::<Paused>("pause", "a line of `pause --json`"),
    Published::of::<Resumed>("resume", "a line of `resume --json`"),
    Published::of::<DelayedEvent>("delayed", "a line of `delayed --json`"),
    Published::of::<DelayedActed>("delayed-acted", "`delayed now --json`, `delayed cancel --json`"),
    Published::of::<NamedVersion>("module-version", "a line of `modules ls --json`, `modules show --json`"),
    Published::of::<HistoryLine>("module-history", "a line of `modules history --json`"),
    Published::of::<ModulePushed>("module-push", "`modules push --json`, `modules sign --json`"),
    Published::of::<ModuleChanged>(
        "module-change",
        "`modules promote`, `rollback`, `hold`, `resume`, with --json",
    ),
    Published::of::<ModuleRehearsed>("module-rehearse", "`modules rehearse --json`"),
    Published::of::<ModulesWhyPage>("module-why", "`modules why --json`"),
    Published::of::<PrunedModules>("module-prune", "`modules prune --json`"),
    Published::of::<RetryingJson>("retrying", "a line of `retrying --json`"),
    Published::of::<RetryingActed>("retrying-acted", "`retrying now --json`, `retrying give-up --json`"),
    Published::of::<ScheduleJson>("schedule", "`schedule show --json`, a line of `schedule ls --json`"),
    Published::of::<ScheduleDue>("schedule-next", "a line of `schedule next --json`"),
    Published::of::<RedriveJson>("redrive", "a line of `redrive status --json`"),
    Published::of::<OutboxStatus>("outbox", "a line of `outbox status --json`"),
    Published::of::<LetterJson>("ls", "a line of `dlq ls --json`"),
    Published::of::<GroupJson>("group", "a line of `dlq ls --group --json`"),
    Published::of::<ShowJson>("show", "`dlq show --json`"),
    Published::of::<RehearsalLine>("rehearse", "a line of `dlq rehearse --json`"),
    Published::of::<AccountJson>("replay", "`dlq replay --json`"),
    Published::of::<DryRunJson>("dry-run", "`dlq replay --dry-run --json`"),
    Published::of::<EditJson>("edit", "`dlq edit --json`"),
    Published::of::<NoteJson>("note", "`dlq note --json`"),
    Published::of::<Discarded>("discard", "`dlq discard --json`"),
    Published::of::<ExportJson>("export", "a line of `dlq export`"),
    Published::of::<Imported>("import", "`dlq import --json`"),
];

pub fn run(schema: &Schema) -> Result<u8, Error> {
    let Some(name) = &schema.name else {
        let width = SCHEMAS.iter().map(|one| one.name.len()).max().unwrap_or(0);
        for one in &SCHEMAS {
            println!("{:width$}  {}", one.name, one.what);
        }
        return Ok(OK);
    };
    let found = SCHEMAS.iter().find(|one| one.name == name);
    let Some(found) = found else {
        let names = SCHEMAS.each_ref().map(|one| one.name).join(", ");
        return Err(Error::Usage(format!("there is no schema {name}; there are {names}")));
    };
    print!("{}", (found.make)());
    Ok(OK)
}

/// The schema of what is printed of a type.
fn make<T: JsonSchema>() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with_transform(RecursiveTransform(plain));
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema serialises");
    text + "\n"
}

/// A comment's lines are one text, and how wide an integer is in memory says nothing about the JSON.
fn plain(schema: &mut schemars::Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    let width = schema.get("format").and_then(Value::as_str);
    if width.is_some_and(|format| format.starts_with("int") || format.starts_with("uint")) {
        schema.remove("format");
    }
}
