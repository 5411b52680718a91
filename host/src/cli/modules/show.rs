//! What the registry has: names, versions, and what served when.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::name;
use crate::broker::Connection;
use crate::cli::table::{self, Narrow};
use crate::cli::text::{json_line, json_page, size};
use crate::cli::{Error, OK};
use crate::mesh_streams::modules::{self, ModuleVersion, Promoted, PromotedRecord, named, versions_of};
use crate::plan::Plan;
use crate::text::display::clean;

/// List the names of the registry with what they serve; of a name, its versions
#[derive(Debug, clap::Args)]
pub struct ModulesLs {
    /// The name in the registry [default: all]
    #[arg(value_parser = name)]
    name: Option<String>,
    /// Print JSON, one version per line
    #[arg(long)]
    json: bool,
}

/// Show a version: what it imports and wants, who has pushed it, and who has signed it
#[derive(Debug, clap::Args)]
pub struct ModulesShow {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version [default: what is promoted]
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show what a name has served, the newest first: who has changed it, when and why
#[derive(Debug, clap::Args)]
pub struct ModulesHistory {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Print JSON, one change per line
    #[arg(long)]
    json: bool,
}

/// Show how two versions of a name differ
#[derive(Debug, clap::Args)]
pub struct ModulesDiff {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version
    #[arg(value_name = "DIGEST")]
    old: String,
    /// Digest or version [default: what is promoted]
    #[arg(value_name = "DIGEST")]
    new: Option<String>,
}

/// A version with its name.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(
    title = "A line of `jetmesh modules ls --json`, `jetmesh modules show --json`",
    description = ""
)]
pub struct NamedVersion {
    name: String,
    /// It is what its name serves.
    promoted: bool,
    #[serde(flatten)]
    version: ModuleVersion,
}

/// A change of what a name serves.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "A line of `jetmesh modules history --json`", description = "")]
pub struct HistoryLine {
    name: String,
    /// Of the key of what is promoted.
    revision: u64,
    #[serde(flatten)]
    record: PromotedRecord,
}

pub async fn ls(connection: &Connection, plan: &Plan, asked: &ModulesLs) -> Result<u8, Error> {
    let found = modules::versions(connection, asked.name.as_deref()).await?;
    let mut by_name: BTreeMap<&str, Vec<&ModuleVersion>> = BTreeMap::new();
    for (name, version) in &found {
        match version {
            Ok(version) => by_name.entry(name).or_default().push(version),
            Err(error) => note!("warning: {error}"),
        }
    }
    if by_name.is_empty() && !asked.json {
        match &asked.name {
            Some(name) => println!("the registry has no version of {name}"),
            None => println!("the registry is empty; `jetmesh modules push FILE --as NAME` pushes a module"),
        }
        return Ok(OK);
    }
    let mut rows = Vec::new();
    for (name, versions) in by_name {
        let (promoted, _) = modules::promoted(connection, name).await?;
        let serves = |one: &ModuleVersion| promoted.as_ref().is_some_and(|now| now.digest == one.digest);
        if asked.json {
            for &version in &versions {
                let (promoted, version) = (serves(version), version.clone());
                let name = name.to_owned();
                println!(
                    "{}",
                    json_line(&NamedVersion {
                        name,
                        promoted,
                        version
                    })
                );
            }
        } else if asked.name.is_some() {
            rows.extend(versions.iter().rev().map(|one| of_version(one, serves(one))));
        } else {
            rows.push(of_name(name, &versions, promoted.as_ref(), plan));
        }
    }
    let narrow = |leave_out: &'static [usize]| Narrow { leave_out, cut: &[] };
    match (asked.json, &asked.name) {
        (true, _) => {}
        (_, Some(_)) => {
            let header = [
                "DIGEST", "VERSION", "PROMOTED", "SIZE", "SIGNED", "PUSHED", "BY", "NOTE",
            ];
            table::print_narrow(&header, &rows, &narrow(&[6, 3]));
        }
        (_, None) => {
            let header = ["NAME", "SERVES", "SINCE", "BY", "VERSIONS", "HANDLERS", "HOLD"];
            table::print_narrow(&header, &rows, &narrow(&[4, 3]));
        }
    }
    Ok(OK)
}

fn of_version(version: &ModuleVersion, serves: bool) -> Vec<String> {
    let dash = |text: Option<&String>| text.map_or("-".to_owned(), |text| clean(text));
    vec![
        version.digest[..12].to_owned(),
        dash(version.version.as_ref()),
        if serves { "yes" } else { "-" }.to_owned(),
        size(version.size),
        version.signatures.len().to_string(),
        version.at.clone(),
        clean(&version.by),
        dash(version.note.as_ref()),
    ]
}

fn of_name(name: &str, versions: &[&ModuleVersion], promoted: Option<&PromotedRecord>, plan: &Plan) -> Vec<String> {
    let told = |now: &PromotedRecord| match versions.iter().find(|one| one.digest == now.digest) {
        Some(version) => version.told(),
        None => now.short().to_owned(),
    };
    let followers = plan
        .handlers
        .iter()
        .filter(|handler| handler.module.registered() == Some(name));
    let followers: Vec<&str> = followers.map(|handler| handler.name.as_str()).collect();
    let hold = promoted.and_then(|now| now.hold.as_ref());
    let dash = || "-".to_owned();
    vec![
        name.to_owned(),
        promoted.map_or_else(dash, told),
        promoted.map_or_else(dash, |now| now.at.clone()),
        promoted.map_or_else(dash, |now| clean(&now.by)),
        versions.len().to_string(),
        if followers.is_empty() {
            dash()
        } else {
            followers.join(", ")
        },
        hold.map_or_else(dash, |hold| {
            clean(&format!(
                "by {}{}",
                hold.by,
                hold.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
            ))
        }),
    ]
}

/// The version that a text names, or the promoted one.
async fn chosen(
    connection: &Connection,
    name: &str,
    text: Option<&str>,
) -> Result<(ModuleVersion, Option<PromotedRecord>, u64), Error> {
    let versions = versions_of(connection, name).await?;
    let (promoted, revision) = modules::promoted(connection, name).await?;
    let text = match (text, &promoted) {
        (Some(text), _) => text.to_owned(),
        (None, Some(now)) => now.digest.clone(),
        (None, None) => {
            let newest = versions.last().map(ModuleVersion::told).unwrap_or_default();
            return Err(Error::Failed(format!(
                "nothing is promoted as {name}: name a version; the newest is {newest}"
            )));
        }
    };
    Ok((
        named(&versions, name, &text).map_err(Error::Failed)?.clone(),
        promoted,
        revision,
    ))
}

pub async fn show(connection: &Connection, asked: &ModulesShow) -> Result<u8, Error> {
    let (version, now, revision) = chosen(connection, &asked.name, asked.digest.as_deref()).await?;
    let promoted = now.as_ref().is_some_and(|now| now.digest == version.digest);
    if asked.json {
        let name = asked.name.clone();
        println!(
            "{}",
            json_page(&NamedVersion {
                name,
                promoted,
                version
            })
        );
        return Ok(OK);
    }
    let list = |list: &[String]| {
        if list.is_empty() {
            "-".to_owned()
        } else {
            clean(&list.join(", "))
        }
    };
    let labels: Vec<String> = version
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut lines = vec![
        ("name", asked.name.clone()),
        ("digest", version.digest.clone()),
        ("version", version.version.clone().unwrap_or_else(|| "-".to_owned())),
        ("size", size(version.size)),
        ("wit", version.wit.clone()),
        ("imports", list(&version.imports)),
        ("wants", list(&version.wants)),
        ("labels", list(&labels)),
        ("pushed", format!("{} by {}", version.at, version.by)),
        ("note", version.note.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    for one in &version.signatures {
        let good = if version.is_signed(&asked.name, &one.key) {
            "good"
        } else {
            "WRONG"
        };
        lines.push(("signature", format!("{good}: {} by {} at {}", one.key, one.by, one.at)));
    }
    lines.push((
        "promoted",
        match &now {
            Some(now) if promoted => format!("{} at {} by {}, revision {revision}", now.act.word(), now.at, now.by),
            Some(now) => format!("no: {} is, revision {revision}", now.short()),
            None => "no: nothing is".to_owned(),
        },
    ));
    if let Some(hold) = now.and_then(|now| now.hold) {
        let reason = hold.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(("hold", format!("since {} by {}{reason}", hold.at, hold.by)));
    }
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    for (key, value) in lines {
        println!("{key:width$}  {}", clean(&value));
    }
    Ok(OK)
}

pub async fn history(connection: &Connection, asked: &ModulesHistory) -> Result<u8, Error> {
    let (history, left_out) = modules::history(connection, &asked.name).await?;
    if left_out > 0 {
        note!("warning: {left_out} record(s) cannot be read, and are left out");
    }
    if history.is_empty() {
        return match asked.json {
            true => Ok(OK),
            false => Err(Error::Failed(format!("nothing was promoted as {}", asked.name))),
        };
    }
    if asked.json {
        for Promoted { record, revision } in history {
            let name = asked.name.clone();
            println!("{}", json_line(&HistoryLine { name, revision, record }));
        }
        return Ok(OK);
    }
    let rows: Vec<Vec<String>> = history.iter().map(of_change).collect();
    let narrow = Narrow {
        leave_out: &[0],
        cut: &[3],
    };
    table::print_narrow(&["REVISION", "AT", "WHAT", "BY", "DIGEST", "NOTE"], &rows, &narrow);
    Ok(OK)
}

fn of_change(one: &Promoted) -> Vec<String> {
    let record = &one.record;
    vec![
        one.revision.to_string(),
        record.at.clone(),
        record.act.word().to_owned(),
        clean(&record.by),
        record.short().to_owned(),
        record.note.as_ref().map_or("-".to_owned(), |note| clean(note)),
    ]
}

pub async fn diff(connection: &Connection, asked: &ModulesDiff) -> Result<u8, Error> {
    let (old, _, _) = chosen(connection, &asked.name, Some(&asked.old)).await?;
    let (new, _, _) = chosen(connection, &asked.name, asked.new.as_deref()).await?;
    if old.digest == new.digest {
        println!("both are {}", old.told());
        return Ok(OK);
    }
    let labels = |one: &ModuleVersion| one.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let lists: [(&str, Vec<String>, Vec<String>); 3] = [
        ("imports", old.imports.clone(), new.imports.clone()),
        ("wants", old.wants.clone(), new.wants.clone()),
        ("label", labels(&old), labels(&new)),
    ];
    let of = |one: &ModuleVersion| format!("{}, {}, pushed {} by {}", one.told(), size(one.size), one.at, one.by);
    println!("- {}\n+ {}", clean(&of(&old)), clean(&of(&new)));
    if old.wit != new.wit {
        println!("- wit {}\n+ wit {}", clean(&old.wit), clean(&new.wit));
    }
    for (what, old, new) in lists {
        old.iter()
            .filter(|one| !new.contains(one))
            .for_each(|one| println!("- {what} {}", clean(one)));
        new.iter()
            .filter(|one| !old.contains(one))
            .for_each(|one| println!("+ {what} {}", clean(one)));
    }
    Ok(OK)
}
