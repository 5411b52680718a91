//! The compiled handlers that tests run.

use std::fs;
use std::path::{Path, PathBuf};

use super::{root, skipped};

/// The component of a handler in `handlers/`, by its crate's name with `_` for `-`.
///
/// # Panics
/// When it has not been built; the text tells how.
pub fn handler(name: &str) -> PathBuf {
    let path = root().join(format!("handlers/target/wasm32-wasip2/release/{name}.wasm"));
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

/// A component that does the same as `component` and has another digest, in `dir`. Returns its path.
///
/// It is a copy with one more custom section, `variant`, whose content is `tag`.
/// Format: WebAssembly core specification, 5.5.3 Custom Section; components have it too.
pub fn variant_of(component: &Path, dir: &Path, tag: &str) -> PathBuf {
    const NAME: &str = "variant";
    let mut bytes = fs::read(component).unwrap_or_else(|error| panic!("{}: {error}", component.display()));
    let mut content = leb128(NAME.len());
    content.extend(NAME.bytes().chain(tag.bytes()));
    bytes.push(0);
    bytes.extend(leb128(content.len()));
    bytes.extend(content);

    let stem = component
        .file_stem()
        .expect("a component's path names a file")
        .to_string_lossy();
    let path = dir.join(format!("{stem}-{tag}.wasm"));
    fs::write(&path, bytes).expect("the test's folder is writable");
    path
}

/// An unsigned number as WebAssembly writes it: seven bits a byte, the lowest first.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
