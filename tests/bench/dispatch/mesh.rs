//! The mesh at work: the shipped program, with the logging that it has when nothing is said.

use std::path::Path;

use crate::measure::{CONSUMER, STREAM, SUBJECT};
use crate::support::{Host, modules};
use crate::{Running, Taker};

/// Starts `jetmesh run`. The handler has neither a bucket nor a publish grant, so that an event is run and acked.
pub fn start(url: &str, taker: Taker, concurrency: usize, dir: &Path) -> Running {
    let module = modules::handler("parse");
    let instance = taker.name();
    let config = format!(
        r#"
        [nats]
        url = "{url}"

        [handlers.{CONSUMER}]
        module = {module:?}
        stream = "{STREAM}"
        subjects = ["{SUBJECT}"]
        start = "all"
        instance = "{instance}"
        concurrency = {concurrency}
        in_flight = {concurrency}
        "#
    );
    Running::Mesh(Host::start(&config, dir, &[]))
}
