//! A version that is promoted in the registry is taken up while its handlers serve: fetched, checked and compiled aside, and then one
//! pointer moves. One that may not serve, or cannot, leaves the old module where it is.
//!
//! The registry is looked at, not watched: one request for all names tells more than a consumer of each host would, and a host that
//! was cut off needs no other way (0034).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::broker::shared::Shared;
use crate::broker::{Connection, Error};
use crate::handler_task::rollout;
use crate::handler_task::runner::Runner;
use crate::mesh_streams::modules::{self, LoadError, PromotedRecord};
use crate::plan::Plan;
use crate::trouble::{self, Weight};
use crate::wasm::compile::Priority;
use crate::wasm::library::{Compiled, Library};

/// How often the registry is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How many names are asked for at a time, which one request has room for.
const NAMES_MAX: usize = 256;
/// How long after a failure a version is tried again that another look may find in order.
const AGAIN: Duration = Duration::from_secs(5);
/// So long after a replica has told of the registry, its leader is asked.
const UNHEARD_MAX: Duration = Duration::from_secs(5);
const UNHEARD: &str = "what is promoted is learned late, because the registry must be read from its leader";
const UNWRITTEN: &str = "the end of a rollout could not be written into the registry";
/// How many modules that serve no more stay compiled at most.
const KEPT_MAX: usize = 16;

/// What follows the registry, and for whom.
pub struct RegistryFollower {
    pub plan: Arc<Plan>,
    pub library: Arc<Library>,
    pub connections: Arc<Shared>,
    pub runners: Vec<Arc<Runner>>,
    /// By name, the revision that was taken in at start.
    pub revisions: BTreeMap<String, u64>,
}

/// A name and who serves with it.
struct Followed {
    runners: Vec<Arc<Runner>>,
    /// Of what was looked at last.
    revision: u64,
    busy: bool,
    /// Not looked at before.
    not_before: Option<Instant>,
    /// The number of the rollout whose end is written.
    ended: u64,
}

/// What came of a new revision.
struct RevisionRead {
    revision: u64,
    came: FoundModule,
}

enum FoundModule {
    /// The key was removed.
    Nothing,
    Ready(Box<PromotedRecord>, Arc<Compiled>, Option<CanaryFound>),
    /// `true`: another look may find it in order.
    Unfit(String, bool),
}

/// The module that takes over step by step; or why it cannot.
type CanaryFound = Result<Arc<Compiled>, String>;

/// Modules that served lately, so that a rollback needs no compiler.
struct KeptModules {
    window: Duration,
    modules: VecDeque<(Instant, Arc<Compiled>)>,
}

impl RegistryFollower {
    /// Follows it, for as long as this is polled.
    pub async fn run(&self) {
        let mut followed = self.followed();
        let names: Vec<&str> = self.plan.registered();
        let mut kept = KeptModules {
            window: self.plan.modules.rollback_window,
            modules: VecDeque::new(),
        };
        let mut jobs = FuturesUnordered::new();
        let mut next = Instant::now();
        let mut failed: Option<Connection> = None;
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                Some((name, taken)) = jobs.next() => {
                    let name: &str = name;
                    if let Some(one) = followed.get_mut(name) {
                        one.take(name, taken, &mut kept);
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    kept.let_go();
                    let connection = self.connections.connection(failed.as_ref()).await;
                    let looked = match &connection {
                        Ok(connection) => look(connection, &names, &mut heard).await,
                        Err(_) => Vec::new(),
                    };
                    // Between two looks there is time for what they have found, however long a look takes.
                    next = Instant::now() + LOOK;
                    let Ok(connection) = connection else { continue };
                    failed = None;
                    self.end_rollouts(&connection, &mut followed).await;
                    for (name, revision) in looked {
                        let Some((name, one)) = names.iter().find(|own| **own == name).zip(followed.get_mut(&*name)) else {
                            continue;
                        };
                        if one.is_due(revision) {
                            one.busy = true;
                            let connection = connection.clone();
                            jobs.push(async move { (*name, self.take(&connection, name).await) });
                        }
                    }
                    if connection.is_closed() {
                        failed = Some(connection);
                    }
                }
            }
        }
    }

    /// Writes into the registry what rollouts have come to; what cannot be written is tried again with the next look.
    async fn end_rollouts(&self, connection: &Connection, followed: &mut BTreeMap<String, Followed>) {
        for one in followed.values_mut() {
            let canary = one.runners.first().and_then(|runner| runner.canary.load_full());
            let Some((canary, ended)) = canary.zip(rollout::end::ended(&one.runners)) else {
                continue;
            };
            if one.ended == canary.spec.number {
                continue;
            }
            let name = &canary.spec.name;
            match rollout::end::write(connection, &canary.spec, ended).await {
                Ok(()) => {
                    one.ended = canary.spec.number;
                    trouble::over(UNWRITTEN, name);
                }
                Err(error) => {
                    let mend =
                        "grant `$KV.mesh_modules.serving.*` to this user; the hosts act by the ledgers meanwhile";
                    trouble!(Weight::Delay, name, error, { name, error = %error, mend }, "the end of a rollout could not be written into the registry");
                }
            }
        }
    }

    fn followed(&self) -> BTreeMap<String, Followed> {
        let mut followed: BTreeMap<String, Followed> = BTreeMap::new();
        for runner in &self.runners {
            let Some(name) = runner.origin.registered() else {
                continue;
            };
            let one = followed.entry(name.to_owned()).or_insert_with(|| Followed {
                runners: Vec::new(),
                revision: self.revisions.get(name).copied().unwrap_or_default(),
                busy: false,
                not_before: None,
                ended: 0,
            });
            one.runners.push(Arc::clone(runner));
        }
        followed
    }

    /// Reads what is promoted now, from the leader, and makes it ready.
    async fn take(&self, connection: &Connection, name: &str) -> Result<RevisionRead, Error> {
        let (record, revision) = modules::promoted(connection, name).await?;
        let Some(record) = record else {
            return Ok(RevisionRead {
                revision,
                came: FoundModule::Nothing,
            });
        };
        let of = (&*self.plan, &*self.library);
        let load = async |digest: &str| modules::load(connection, of, (name, digest), Priority::Lowest).await;
        let came = match load(&record.digest).await {
            Ok(compiled) => {
                let canary = match &record.rollout {
                    None => None,
                    Some(rollout) => match load(&rollout.canary).await {
                        Ok(canary) => Some(Ok(canary)),
                        Err(LoadError::Broker(error)) => return Err(error),
                        Err(LoadError::Unfit(why) | LoadError::Refused(why)) => Some(Err(why)),
                    },
                };
                FoundModule::Ready(Box::new(record), compiled, canary)
            }
            Err(LoadError::Unfit(why)) => FoundModule::Unfit(why, false),
            Err(LoadError::Refused(why)) => FoundModule::Unfit(why, true),
            Err(LoadError::Broker(error)) => return Err(error),
        };
        Ok(RevisionRead { revision, came })
    }
}

/// The revision of what is promoted under each name, as some replica tells it. If none tells of any for a while, the leader is asked.
async fn look(connection: &Connection, names: &[&str], heard: &mut Instant) -> Vec<(String, u64)> {
    let mut looked = Vec::new();
    for names in names.chunks(NAMES_MAX) {
        looked.extend(modules::glance(connection, names).await);
    }
    if !looked.is_empty() {
        *heard = Instant::now();
        trouble::over(UNHEARD, "");
        return looked;
    }
    if heard.elapsed() < UNHEARD_MAX {
        return looked;
    }
    *heard = Instant::now();
    for name in names {
        let Ok((record, revision)) = modules::promoted(connection, name).await else {
            break;
        };
        looked.push(((*name).to_owned(), revision));
        if record.is_some() {
            let why = "no replica answers a direct get of stream KV_mesh_modules";
            let mend =
                "grant `$JS.API.DIRECT.GET.KV_mesh_modules` to this user, and see that the stream has allow_direct";
            trouble!(Weight::Delay, "", why, { why, mend }, "what is promoted is learned late, because the registry must be read from its leader");
        }
    }
    looked
}

impl Followed {
    /// Whether what a look has found is to be read. A replica that is behind may tell an old revision; what is read decides.
    fn is_due(&self, revision: u64) -> bool {
        let now = Instant::now();
        !self.busy && revision != self.revision && self.not_before.is_none_or(|at| at <= now)
    }

    fn take(&mut self, name: &str, taken: Result<RevisionRead, Error>, kept: &mut KeptModules) {
        self.busy = false;
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.not_before = Some(Instant::now() + AGAIN);
                if !error.passes() {
                    self.not_taken(name, &error.to_string());
                }
                return;
            }
        };
        let again = matches!(
            taken.came,
            FoundModule::Unfit(_, true) | FoundModule::Ready(_, _, Some(Err(_)))
        );
        self.not_before = again.then(|| Instant::now() + AGAIN);
        if !again {
            self.revision = taken.revision;
        }
        match taken.came {
            FoundModule::Nothing => self.not_taken(name, "what is promoted was removed from the registry"),
            FoundModule::Unfit(why, _) => self.not_taken(name, &why),
            FoundModule::Ready(record, compiled, canary) => {
                let spec = record.rollout.as_ref();
                let found = canary.as_ref().and_then(|canary| canary.as_ref().ok()).zip(spec);
                for runner in &self.runners {
                    let old = runner.module.load().compiled();
                    if old.hash != compiled.hash {
                        kept.keep(old);
                        runner.swap(&compiled);
                    }
                    // A canary that is promoted serves already.
                    if let Some(over) = runner.canary.load_full().filter(|_| found.is_none()) {
                        kept.keep(over.module.compiled());
                    }
                    runner.set_canary(found);
                }
                match canary {
                    Some(Err(why)) => self.not_taken(name, &format!("the canary cannot serve: {why}")),
                    _ => self.runners.iter().for_each(|runner| runner.set_not_taken(None)),
                }
                tracing::debug!(
                    name,
                    by = record.by,
                    at = record.at,
                    act = record.act.word(),
                    "taken in from the registry"
                );
            }
        }
    }

    fn not_taken(&self, name: &str, why: &str) {
        let Some(first) = self.runners.first() else { return };
        let handlers: Vec<&str> = self.runners.iter().map(|runner| runner.handler.as_str()).collect();
        // Told once, however often it is tried.
        if first.not_taken().is_none_or(|before| before.why != why) {
            tracing::error!(handler = %handlers.join(","), name, error = why, serving = %first.digest(),
                "what the registry has cannot serve; the old module continues to serve");
            self.runners
                .iter()
                .for_each(|runner| runner.set_not_taken(Some(why.to_owned())));
        }
    }
}

impl KeptModules {
    fn keep(&mut self, module: Arc<Compiled>) {
        if self.window.is_zero() {
            return;
        }
        self.modules.retain(|(_, other)| other.hash != module.hash);
        self.modules.push_back((Instant::now(), module));
        if self.modules.len() > KEPT_MAX {
            self.modules.pop_front();
        }
    }

    fn let_go(&mut self) {
        while self
            .modules
            .front()
            .is_some_and(|(since, _)| since.elapsed() >= self.window)
        {
            self.modules.pop_front();
        }
    }
}
