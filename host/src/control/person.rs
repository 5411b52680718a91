//! Who gives an order, for those that ask later who it was.

use std::env;
use std::fs;

use crate::broker::login::{self, Login};
use crate::plan::Nats;

/// Where Linux says how the machine is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The person at this machine: `anna@laptop`, and before that the user of NATS if it has a name: `ops (anna@laptop)`. It is what
/// the machine says, and no proof.
pub fn name(nats: &Nats) -> String {
    let here = format!("{}@{}", user(), hostname());
    match of_nats(nats) {
        Some(user) => format!("{user} ({here})"),
        None => here,
    }
}

fn of_nats(nats: &Nats) -> Option<String> {
    let of_address = login::addresses(nats)
        .into_iter()
        .find_map(|address| match address.login {
            Some(Login::User { name, .. }) => Some(name),
            Some(Login::Token(_)) | None => None,
        });
    of_address.or_else(|| nats.user.clone())
}

fn user() -> String {
    let variable = |name| env::var(name).ok().filter(|name: &String| !name.is_empty());
    let known = variable("USER").or_else(|| variable("LOGNAME"));
    known.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}

fn hostname() -> String {
    let name = fs::read_to_string(HOSTNAME).unwrap_or_default();
    match name.trim() {
        "" => "?".to_owned(),
        name => name.to_owned(),
    }
}
