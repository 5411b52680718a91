//! Contexts of the `nats` CLI: named connections in JSON files
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-21.md>).

use std::path::PathBuf;

use serde::Deserialize;

/// A context, with what is empty left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Context {
    pub url: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub creds: Option<String>,
    pub nkey: Option<String>,
    pub cert: Option<String>,
    pub key: Option<String>,
    pub ca: Option<String>,
    pub tls_first: bool,
    pub inbox_prefix: Option<String>,
    pub jetstream_domain: Option<String>,
    pub jetstream_api_prefix: Option<String>,
    pub jetstream_event_prefix: Option<String>,
    nsc: Option<String>,
    user_jwt: Option<String>,
}

/// Reads a context by its name. `Err` says what is wrong with it.
pub fn load(name: &str) -> Result<Context, String> {
    if name.is_empty() || name.contains(['/', '\\']) || name.contains("..") {
        return Err(format!("\"{name}\" is not a context's name"));
    }
    let file = folder()?.join(format!("{name}.json"));
    let text =
        std::fs::read_to_string(&file).map_err(|_| format!("there is no context \"{name}\" ({})", file.display()))?;
    parse(&text).map_err(|why| format!("context \"{name}\" ({}): {why}", file.display()))
}

fn folder() -> Result<PathBuf, String> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from);
    let base = config
        .or_else(|| home().map(|home| home.join(".config")))
        .ok_or("neither XDG_CONFIG_HOME nor HOME is set")?;
    Ok(base.join("nats").join("context"))
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
}

fn parse(text: &str) -> Result<Context, String> {
    let mut context: Context = serde_json::from_str(text).map_err(|e| e.to_string())?;
    for field in [
        &mut context.url,
        &mut context.user,
        &mut context.password,
        &mut context.token,
        &mut context.creds,
        &mut context.nkey,
        &mut context.cert,
        &mut context.key,
        &mut context.ca,
        &mut context.inbox_prefix,
        &mut context.jetstream_domain,
        &mut context.jetstream_api_prefix,
        &mut context.jetstream_event_prefix,
        &mut context.nsc,
        &mut context.user_jwt,
    ] {
        // The CLI writes what is not set as "".
        if field.as_deref() == Some("") {
            *field = None;
        }
    }
    // The CLI reads `~` in its own files; nothing else does it for us.
    let files = [
        &mut context.creds,
        &mut context.nkey,
        &mut context.cert,
        &mut context.key,
        &mut context.ca,
    ];
    for file in files.into_iter().flatten() {
        if let (Some(rest), Some(home)) = (file.strip_prefix("~/"), home()) {
            *file = home.join(rest).display().to_string();
        }
    }
    if context.nsc.is_some() {
        return Err(
            "it takes its credentials from nsc: write them to a file with `nsc generate creds` and name that".into(),
        );
    }
    if context.user_jwt.is_some() {
        return Err("it holds a bare user_jwt: name a .creds file instead".into());
    }
    Ok(context)
}
