//! A real Chromium, driven over its own protocol: <https://chromedevtools.github.io/devtools-protocol/>. It is spoken over two pipes, so
//! no library and no port is needed.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::wait::SOON;
use super::{skipped, tool};

/// A running browser. It is killed when dropped.
pub struct Browser {
    _child: Child,
    // Dropped after the process, which writes in it.
    dir: TempDir,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u64,
    /// What pages have said that they should not: errors of scripts, refused loads, and dialogs.
    pub complaints: Vec<String>,
    /// Answers of the console that are errors, which a browser reports as such.
    pub refused: Vec<String>,
}

/// A page of a browser, in a profile of its own: another page has none of its cookies.
pub struct Page {
    session: String,
}

impl Browser {
    /// `None`, with a line that says so, when this machine has no Chromium: the test then skips.
    pub fn start() -> Option<Browser> {
        let Some(program) = tool("chromium", "CHROMIUM").or_else(|| tool("google-chrome", "CHROMIUM")) else {
            skipped("there is no chromium, so the console is not looked at in a browser");
            return None;
        };
        let dir = TempDir::with_prefix("jetmesh-browser-").expect("a temporary folder");
        let mut command = Command::new("sh");
        // It reads from descriptor 3 and writes to 4.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        command.arg("-c").arg(script).arg(&program).args(flags(dir.path()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.expect("both are piped");
        Some(Browser {
            _child: child,
            dir,
            input,
            output: BufReader::new(output),
            calls: 0,
            complaints: Vec::new(),
            refused: Vec::new(),
        })
    }

    /// A new page with a window of this size.
    pub async fn page(&mut self, width: u32, height: u32) -> Page {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await;
        let downloads = json!({ "behavior": "allow", "downloadPath": self.dir.path(), "browserContextId": context["browserContextId"] });
        self.call(None, "Browser.setDownloadBehavior", downloads).await;
        let target = json!({ "url": "about:blank", "browserContextId": context["browserContextId"] });
        let target = self.call(None, "Target.createTarget", target).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach).await;
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let page = Page { session };
        for domain in ["Page", "Runtime", "Log"] {
            self.call(Some(&page), &format!("{domain}.enable"), json!({})).await;
        }
        self.resize(&page, width, height).await;
        page
    }

    pub async fn resize(&mut self, page: &Page, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call(Some(page), "Emulation.setDeviceMetricsOverride", size).await;
    }

    pub async fn dark(&mut self, page: &Page, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call(Some(page), "Emulation.setEmulatedMedia", media).await;
    }

    pub async fn open(&mut self, page: &Page, url: &str) {
        self.call(Some(page), "Page.navigate", json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// If it throws.
    pub async fn value(&mut self, page: &Page, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call(Some(page), "Runtime.evaluate", ask).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, page: &Page, expression: &str) {
        let ask = format!("Boolean({expression})");
        let looked = async || self.value(page, &ask).await;
        let found = tokio::time::timeout(SOON, async {
            let mut looked = looked;
            while looked().await != true {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        if found.await.is_err() {
            let text = self.value(page, "document.body.innerText").await;
            panic!(
                "waited in vain for {expression}; the page says:\n{text}\n{:?}",
                self.complaints
            );
        }
    }

    /// Clicks on what has this text, once it is there and can be clicked.
    pub async fn click(&mut self, page: &Page, selector: &str, text: &str) {
        let find = format!(
            "[...document.querySelectorAll({selector:?})].find((one) => one.textContent.trim().startsWith({text:?}) && !one.disabled)"
        );
        self.until(page, &find).await;
        self.value(page, &format!("void {find}.click()")).await;
    }

    /// Types into a field.
    pub async fn fill(&mut self, page: &Page, selector: &str, text: &str) {
        let field = format!("document.querySelector({selector:?})");
        self.until(page, &field).await;
        let fill = format!(
            "{{ const field = {field}; field.value = {text:?}; field.dispatchEvent(new Event('input')); \
             field.dispatchEvent(new Event('change')); }}"
        );
        self.value(page, &fill).await;
    }

    /// Chooses a file in a field for files.
    pub async fn choose(&mut self, page: &Page, selector: &str, file: &Path) {
        let field = format!("document.querySelector({selector:?})");
        self.until(page, &field).await;
        let found = self
            .call(Some(page), "Runtime.evaluate", json!({ "expression": field }))
            .await;
        let files = json!({ "files": [file], "objectId": found["result"]["objectId"] });
        self.call(Some(page), "DOM.setFileInputFiles", files).await;
    }

    /// Writes what the page shows to a file.
    pub async fn screenshot(&mut self, page: &Page, file: &Path) {
        let shot = self
            .call(Some(page), "Page.captureScreenshot", json!({ "format": "png" }))
            .await;
        let bytes = STANDARD
            .decode(shot["data"].as_str().unwrap_or_default())
            .expect("base64");
        std::fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    async fn call(&mut self, page: Option<&Page>, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut order = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(page) = page {
            order["sessionId"] = json!(page.session);
        }
        let text = format!("{order}\0");
        self.input.write_all(text.as_bytes()).await.expect("the browser reads");
        loop {
            let mut bytes = Vec::new();
            let read = tokio::time::timeout(SOON, self.output.read_until(0, &mut bytes)).await;
            let length = read
                .unwrap_or_else(|_| panic!("{method}: no answer"))
                .expect("the browser writes");
            assert!(length > 0, "the browser has ended at {method}");
            bytes.pop();
            let mut answer: Value = serde_json::from_slice(&bytes).expect("JSON");
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let told = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Page.javascriptDialogOpening") => format!("a dialog: {}", params["message"]),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                let entry = params["entry"].to_string();
                if entry.contains("/api/") {
                    self.refused.push(entry);
                    return;
                }
                entry
            }
            _ => return,
        };
        self.complaints.push(told);
    }
}

fn flags(dir: &Path) -> Vec<String> {
    let flags = [
        "--headless=new",
        // Containers give it neither a sandbox nor much shared memory.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-extensions",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
    ];
    let profile = format!("--user-data-dir={}", dir.display());
    flags
        .into_iter()
        .map(str::to_owned)
        .chain([profile, "about:blank".to_owned()])
        .collect()
}
