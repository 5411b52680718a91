//! What a viewer wants rehearsed, and the module that comes with it.

use std::path::PathBuf;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::conditions::LetterSelection;
use super::rehearsals::LETTERS_MAX;
use super::site::{BODY_MAX, of_json};
use super::trouble::ConsoleError;
use crate::text::shell::quoted;
use crate::wasm::source::MODULE_BYTES_MAX;

/// What a viewer wants rehearsed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearsalOrder {
    pub selection: LetterSelection,
    /// The name of a file that the viewer gives; its content follows the order. null: the modules of the configuration.
    module: Option<String>,
    /// A version of the registry, by digest or by what its author calls it, for letters of one handler that follows the registry.
    #[serde(default)]
    pub version: Option<String>,
}

impl RehearsalOrder {
    /// The command that does the same.
    pub fn command(&self) -> String {
        let option = |name: &str, value: &Option<String>| {
            let value = value.iter().flat_map(|value| [name.to_owned(), quoted(value)]);
            value.collect::<Vec<_>>()
        };
        let module = option("--module", &self.module)
            .into_iter()
            .chain(option("--version", &self.version));
        let limit = ["--limit".to_owned(), LETTERS_MAX.to_string()];
        // Of ids all are meant.
        let limit = limit.into_iter().filter(|_| !self.selection.has_ids());
        self.selection
            .command("rehearse", &module.chain(limit).collect::<Vec<_>>())
    }
}

/// A module that a viewer gives.
pub struct ModuleUpload {
    /// Of the viewer's file.
    pub name: PathBuf,
    pub bytes: Vec<u8>,
    /// Of the bytes, in hexadecimal digits.
    pub sha256: String,
}

/// The first line is the order, and the rest the module that it names. `takes_uploads`: whether the console takes any.
pub async fn read(
    request: Request<Incoming>,
    takes_uploads: bool,
) -> Result<(RehearsalOrder, Option<ModuleUpload>), ConsoleError> {
    let mut body = request.into_body();
    let (mut head, mut rest): (Vec<u8>, Option<Vec<u8>>) = (Vec::new(), None);
    // Beside the bytes as they come, so that no large file is waited for.
    let mut sha256 = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ConsoleError::wrong("the order was cut"))?;
        let Ok(data) = frame.into_data() else { continue };
        let module = match rest {
            Some(_) => &data[..],
            None => {
                let end = data.iter().position(|byte| *byte == b'\n');
                head.extend_from_slice(&data[..end.unwrap_or(data.len())]);
                if head.len() > BODY_MAX {
                    return Err(ConsoleError::wrong(format!(
                        "the order is longer than {BODY_MAX} bytes"
                    )));
                }
                let Some(end) = end else { continue };
                // Before all of the module comes.
                of_head(&head, takes_uploads)?;
                &data[end + 1..]
            }
        };
        sha256.update(module);
        let rest = rest.get_or_insert_default();
        rest.extend_from_slice(module);
        if rest.len() as u64 > MODULE_BYTES_MAX {
            let most = MODULE_BYTES_MAX / (1024 * 1024);
            return Err(ConsoleError::wrong(format!(
                "the module is larger than {most} MiB, which is the most that a module may be"
            )));
        }
    }
    let order = of_head(&head, takes_uploads)?;
    let upload = match (&order.module, rest) {
        (None, _) => None,
        (Some(name), Some(bytes)) if name.len() <= 255 => {
            let digits = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            Some(ModuleUpload {
                name: PathBuf::from(name),
                bytes,
                sha256: digits,
            })
        }
        (Some(_), _) => {
            return Err(ConsoleError::wrong(
                "the module does not follow the order, or its name is too long",
            ));
        }
    };
    Ok((order, upload))
}

fn of_head(head: &[u8], takes_uploads: bool) -> Result<RehearsalOrder, ConsoleError> {
    let order: RehearsalOrder = of_json(head)?;
    if order.module.is_some() && order.version.is_some() {
        return Err(ConsoleError::wrong("a file or a version of the registry, not both"));
    }
    match order.module.is_some() && !takes_uploads {
        true => Err(ConsoleError::refused(OFF)),
        false => Ok(order),
    }
}

const OFF: &str = "this console takes no modules of viewers: `uploads = true` under [admin] of its configuration switches them on; \
                   `jetmesh console` and `jetmesh dlq rehearse --module` on your own machine do the same";
