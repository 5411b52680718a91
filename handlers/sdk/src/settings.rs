//! The handler's own settings, from `[handlers.NAME.settings]` of the configuration.

use crate::host;

/// The value of a setting as text (numbers and booleans as TOML writes them), or nothing if it is not set.
pub fn get(name: &str) -> Option<String> {
    host::setting(name)
}
