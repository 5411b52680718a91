//! `[streams]`: what is created at start if it is missing.

use std::time::Duration;

use super::names::{check_stream, check_subject};
use super::narrow;
use super::reader::{Reader, Section};
use crate::event::subject::overlap;
use crate::plan::{Retention, Stream};

pub fn read(root: &mut Section, reader: &mut Reader) -> Vec<Stream> {
    let mut found: Vec<Stream> = Vec::new();
    for (name, mut section) in root.sections(reader, "streams") {
        let key = section.key("subjects");
        check_stream(reader, &format!("streams.{name}"), &name);
        if name.starts_with("MESH_") || name.starts_with("KV_") {
            let what = "streams named MESH_… and KV_… are made by the mesh itself";
            reader.problem(format!("streams.{name}"), what, "use another name");
        }
        let subjects = section.list(reader, "subjects");
        if subjects.is_empty() {
            reader.problem(
                &key,
                "a stream captures at least one subject",
                "subjects = [\"orders.>\"]",
            );
        }
        for (i, subject) in subjects.iter().enumerate() {
            check_subject(reader, &key, subject);
            if let Some(other) = subjects[..i].iter().find(|other| overlap(other, subject)) {
                reader.problem(
                    &key,
                    format!("`{subject}` overlaps with `{other}`"),
                    "leave one of them out",
                );
            }
            if let Some(other) = found
                .iter()
                .find(|s| s.subjects.iter().any(|theirs| overlap(theirs, subject)))
            {
                let what = format!("`{subject}` overlaps with stream {}", other.name);
                reader.problem(&key, what, "JetStream lets a subject be captured by one stream only");
            }
        }
        let kinds = [
            ("limits", Retention::Limits),
            ("interest", Retention::Interest),
            ("workqueue", Retention::WorkQueue),
        ];
        let retention = section.word(reader, "retention", &kinds, Retention::Limits);
        let replicas = narrow(section.number(reader, "replicas", 1..=5, 1));
        let max_age = section.duration_or(reader, "max_age", Duration::from_secs(1));
        let window = Duration::from_secs(120);
        let duplicate_window = section.duration(reader, "duplicate_window", Duration::from_millis(100), window);
        let max_bytes = section.bytes_or(reader, "max_bytes", 1 << 20..=1 << 50);
        section.finish(reader);
        found.push(Stream {
            name,
            subjects,
            retention,
            replicas,
            max_age,
            max_bytes,
            duplicate_window,
            markers: Vec::new(),
        });
    }
    found
}
