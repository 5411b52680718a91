//! `jetmesh schema`: what the JSON of the other commands is made of.

use super::{Error, OK};

#[derive(Debug, clap::Args)]
pub struct Schema {
    /// Name of the schema; without a name, list all
    pub name: Option<String>,
}

/// Name, what it describes, and the schema itself.
const SCHEMAS: [(&str, &str, &str); 12] = [
    ("status", "`status --json`", include_str!("../../schemas/status.json")),
    ("trace", "`trace --json`", include_str!("../../schemas/trace.json")),
    (
        "retrying",
        "a line of `retrying --json`",
        include_str!("../../schemas/retrying.json"),
    ),
    ("ls", "a line of `dlq ls --json`", include_str!("../../schemas/ls.json")),
    (
        "group",
        "a line of `dlq ls --group --json`",
        include_str!("../../schemas/group.json"),
    ),
    ("show", "`dlq show --json`", include_str!("../../schemas/show.json")),
    (
        "rehearse",
        "a line of `dlq rehearse --json`",
        include_str!("../../schemas/rehearse.json"),
    ),
    (
        "replay",
        "`dlq replay --json`",
        include_str!("../../schemas/replay.json"),
    ),
    (
        "dry-run",
        "`dlq replay --dry-run --json`",
        include_str!("../../schemas/dry-run.json"),
    ),
    (
        "discard",
        "`dlq discard --json`",
        include_str!("../../schemas/discard.json"),
    ),
    (
        "export",
        "a line of `dlq export`",
        include_str!("../../schemas/export.json"),
    ),
    (
        "import",
        "`dlq import --json`",
        include_str!("../../schemas/import.json"),
    ),
];

pub fn run(schema: &Schema) -> Result<u8, Error> {
    match &schema.name {
        None => {
            let width = SCHEMAS.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
            for (name, what, _) in SCHEMAS {
                println!("{name:width$}  {what}");
            }
        }
        Some(name) => {
            let names = || SCHEMAS.map(|(name, ..)| name).join(", ");
            let found = SCHEMAS.iter().find(|(known, ..)| known == name);
            let (.., text) =
                found.ok_or_else(|| Error::Usage(format!("there is no schema {name}; there are {}", names())))?;
            print!("{text}");
        }
    }
    Ok(OK)
}
