//! The page: files that are in the program.

use hyper::StatusCode;

use crate::http::{self, Answer};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal: $kind:expr, $file:literal;)*) => {
        /// A path, what it is, and its content.
        const FILES: &[(&str, &str, &str)] = &[$(($path, $kind, include_str!(concat!("web/", $file)))),*];
    };
}

files! {
    "/": HTML, "index.html";
    "/icon.svg": IMAGE, "icon.svg";
    "/base.css": STYLE, "base.css";
    "/screens.css": STYLE, "screens.css";
    "/main.js": SCRIPT, "main.js";
    "/dom.js": SCRIPT, "dom.js";
    "/api.js": SCRIPT, "api.js";
    "/format.js": SCRIPT, "format.js";
    "/time.js": SCRIPT, "time.js";
    "/live.js": SCRIPT, "live.js";
    "/charts.js": SCRIPT, "charts.js";
    "/picture.js": SCRIPT, "picture.js";
    "/login.js": SCRIPT, "login.js";
    "/now.js": SCRIPT, "now.js";
    "/tryit.js": SCRIPT, "tryit.js";
    "/letters.js": SCRIPT, "letters.js";
    "/letter.js": SCRIPT, "letter.js";
    "/actions.js": SCRIPT, "actions.js";
    "/exports.js": SCRIPT, "exports.js";
    "/rehearse.js": SCRIPT, "rehearse.js";
    "/runs.js": SCRIPT, "runs.js";
    "/modules.js": SCRIPT, "modules.js";
    "/registry.js": SCRIPT, "registry.js";
    "/state.js": SCRIPT, "state.js";
    "/audit.js": SCRIPT, "audit.js";
    "/where.js": SCRIPT, "where.js";
    "/waiting.js": SCRIPT, "waiting.js";
}

/// The file at a path.
pub fn file(path: &str) -> Option<Answer> {
    let (_, kind, content) = FILES.iter().find(|(own, ..)| *own == path)?;
    Some(http::answer(StatusCode::OK, kind, *content))
}
