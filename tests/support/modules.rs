//! The compiled handlers that tests run.

use std::path::PathBuf;

use super::{root, skipped};

/// The component of a handler in `handlers/`, by its crate's name with `_` for `-`.
///
/// # Panics
/// When it has not been built; the text tells how.
pub fn handler(name: &str) -> PathBuf {
    // The probe asks for everything that WASI gives; the others import nothing but the mesh.
    let target = if name == "probe" {
        "wasm32-wasip2"
    } else {
        "wasm32-unknown-unknown"
    };
    let path = root().join(format!("handlers/target/{target}/release/{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing: run `make test`, which builds the handlers first",
        path.display()
    );
    path
}

/// The component written in JavaScript. `None`, with a line that says so, when it is not built: the test then skips.
pub fn js_handler() -> Option<PathBuf> {
    let path = root().join("tests/fixtures/js/handler.wasm");
    if !path.is_file() {
        skipped("tests/fixtures/js/build.sh has not run, which needs npm");
        return None;
    }
    Some(path)
}
