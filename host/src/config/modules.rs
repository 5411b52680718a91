//! `[modules]`: which versions of the registry may serve, and how long one that served stays ready; and where a handler's module
//! comes from.

use std::path::Path;
use std::time::Duration;

use super::names::{NAME, is_name};
use super::reader::{Reader, Section};
use crate::plan::{ModuleOrigin, ModulesPlan};

/// No folder for compiled modules; also the default.
const NO_CACHE: &str = "none";

/// For how long a module that serves no more stays compiled, by default.
const ROLLBACK_WINDOW: Duration = Duration::from_secs(3600);

pub fn read(mut section: Section, base: &Path, reader: &mut Reader) -> ModulesPlan {
    let require = section.list(reader, "require");
    let cache = match section.text(reader, "cache").as_deref() {
        None | Some(NO_CACHE) => None,
        Some(folder) => Some(base.join(folder)),
    };
    let rollback_window = section.duration(reader, "rollback_window", Duration::ZERO, ROLLBACK_WINDOW);
    section.finish(reader);
    for (i, key) in require.iter().enumerate() {
        if nkeys::KeyPair::from_public_key(key).is_err() {
            let what = format!("\"{}\" is no public key of an nkey", key.escape_debug());
            reader.problem(
                "modules.require",
                what,
                "`nk -gen user -pubout` prints one; it begins with U",
            );
        }
        if require[..i].contains(key) {
            reader.problem(
                "modules.require",
                format!("\"{key}\" is there twice"),
                "leave one of them out",
            );
        }
    }
    ModulesPlan {
        require,
        rollback_window,
        cache,
    }
}

/// Where a handler's module comes from: `registry`, `registry:NAME`, or a file.
pub fn origin(text: &str, handler: &str, base: &Path, reader: &mut Reader) -> ModuleOrigin {
    let name = match text.split_once(':') {
        None if text == "registry" => handler,
        Some(("registry", name)) => name,
        _ => return ModuleOrigin::File(base.join(text)),
    };
    // A handler's own name has been judged where it stands.
    if name != handler && !is_name(name) {
        let what = format!("\"{}\" is not a name in the registry", name.escape_debug());
        reader.problem(format!("handlers.{handler}.module"), what, NAME);
    }
    ModuleOrigin::Registry(name.to_owned())
}
