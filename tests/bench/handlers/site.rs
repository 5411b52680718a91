//! What is measured: a server, twenty modules, and the configuration of a host.

use std::fs;
use std::path::{Path, PathBuf};

use async_nats::jetstream::{self, Context};
use tempfile::TempDir;

use crate::support::{NatsServer, modules};

/// Services of a tenant, each with a module of its own.
pub const SERVICES: usize = 20;
/// Source streams, which the tenants share.
pub const STREAMS: usize = 10;
/// What handlers emit.
pub const EMITTED: &str = "EMITTED";

/// Who has a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buckets {
    Tenant,
    Handler,
}

impl Buckets {
    pub fn named(name: &str) -> Buckets {
        match name {
            "tenant" => Buckets::Tenant,
            "handler" => Buckets::Handler,
            other => panic!("BENCH_BUCKETS: {other:?} is neither \"tenant\" nor \"handler\""),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Buckets::Tenant => "tenant",
            Buckets::Handler => "handler",
        }
    }
}

/// What a handler does with its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Writes,
    Emits,
    Nothing,
}

/// One handler of one tenant.
#[derive(Debug, Clone, Copy)]
pub struct Handler {
    pub number: usize,
}

impl Handler {
    pub fn name(self) -> String {
        format!("h{}", self.number)
    }

    fn service(self) -> usize {
        self.number % SERVICES
    }

    fn tenant(self) -> usize {
        self.number / SERVICES
    }

    pub fn does(self) -> Does {
        match self.service() % 4 {
            0 | 2 => Does::Writes,
            1 => Does::Emits,
            _ => Does::Nothing,
        }
    }

    pub fn stream(self) -> String {
        stream(self.tenant() % STREAMS)
    }

    pub fn subject(self) -> String {
        format!("source{}.h{}", self.tenant() % STREAMS, self.number)
    }

    /// The bucket of one that writes.
    pub fn bucket(self, buckets: Buckets) -> String {
        match buckets {
            Buckets::Tenant => format!("tenant{}", self.tenant()),
            Buckets::Handler => format!("h{}", self.number),
        }
    }

    /// Its event: orders for the tests' own handler.
    pub fn order(self) -> String {
        match self.does() {
            Does::Writes => format!(r#"{{"op":"set","key":"h{}","value":"1"}}"#, self.number),
            Does::Emits => format!(r#"{{"op":"emit","subject":"emitted.h{}","payload":1}}"#, self.number),
            Does::Nothing => r#"{"op":"ok"}"#.to_owned(),
        }
    }
}

pub fn stream(number: usize) -> String {
    format!("SOURCE{number}")
}

pub struct Site {
    pub buckets: Buckets,
    pub handlers: Vec<Handler>,
    pub server: NatsServer,
    pub js: Context,
    pub dir: TempDir,
}

impl Site {
    pub async fn open(handlers: usize, buckets: Buckets) -> Site {
        let server = NatsServer::start().await;
        let js = jetstream::new(server.client().await);
        let dir = TempDir::with_prefix("jetmesh-bench-").expect("a temporary folder");
        let probe = fs::read(modules::handler("probe")).expect("it has been built");
        for service in 0..SERVICES {
            fs::write(module(dir.path(), service), other(&probe, service)).expect("the folder is ours");
        }
        Site {
            buckets,
            handlers: (0..handlers).map(|number| Handler { number }).collect(),
            server,
            js,
            dir,
        }
    }

    pub fn server_version(&self) -> String {
        self.js.client().server_info().version
    }

    /// The names of all buckets that handlers write to.
    pub fn buckets(&self) -> Vec<String> {
        let writers = self.handlers.iter().filter(|h| h.does() == Does::Writes);
        let mut names: Vec<String> = writers.map(|h| h.bucket(self.buckets)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The configuration of the host, with nothing said that has a default.
    pub fn config(&self) -> String {
        let mut text = format!(
            "[nats]\nurl = \"{}\"\n[log]\nfilter = \"warn,jetmesh::app=info,jetmesh::handler_task::serve=info\"\n[streams.{EMITTED}]\nsubjects = [\"emitted.>\"]\n",
            self.server.url()
        );
        for number in 0..STREAMS {
            text += &format!("[streams.{}]\nsubjects = [\"source{number}.>\"]\n", stream(number));
        }
        for handler in &self.handlers {
            text += &format!(
                "[handlers.{}]\nmodule = {:?}\nstream = \"{}\"\nsubjects = [\"{}\"]\n",
                handler.name(),
                module(self.dir.path(), handler.service()),
                handler.stream(),
                handler.subject()
            );
            text += &match handler.does() {
                Does::Writes => format!("bucket = \"{}\"\n", handler.bucket(self.buckets)),
                Does::Emits => format!("publish = [\"emitted.{}\"]\n", handler.name()),
                Does::Nothing => String::new(),
            };
        }
        text
    }
}

fn module(dir: &Path, service: usize) -> PathBuf {
    dir.join(format!("service{service}.wasm"))
}

/// The same component with another digest: a custom section (id 0) of a name and one byte, which no engine uses
/// (<https://webassembly.github.io/spec/core/binary/modules.html#custom-section>).
fn other(component: &[u8], number: usize) -> Vec<u8> {
    let name = b"service";
    let number = u8::try_from(number).expect("there are few services");
    let length = |bytes: usize| u8::try_from(bytes).expect("one byte of LEB128 is enough");
    let section = [&[0, length(name.len() + 2), length(name.len())], &name[..], &[number]].concat();
    [component, &section].concat()
}
