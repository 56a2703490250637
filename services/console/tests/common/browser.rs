//! Chromium, driven over the pipe that it offers for that (DevTools protocol: JSON texts, each ended by a NUL).

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// A browser with one page. Ends when dropped.
pub struct Browser {
    _process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What the page complained about: exceptions, refused loads, violations of its policy.
    pub complaints: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no Chromium: the test cannot be run then, and must not pass.
    pub async fn start() -> Self {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let program =
            names.iter().find(|name| std::env::split_paths(&paths).any(|dir| dir.join(name).is_file()));
        let program = program.expect("install chromium: the browser tests need it (infra/test does so)");
        let profile = tempfile::tempdir().expect("a directory");
        // The pipe is on descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium starts");
        let commands = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut browser = Self {
            _process: process,
            commands,
            answers,
            session: None,
            last: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Opens a page in a window of this size.
    pub async fn open(&mut self, url: &str, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        self.call("Page.navigate", json!({ "url": url })).await;
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
    }

    /// As a user who has scripts switched off.
    pub async fn without_script(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// As a user whose system is dark.
    pub async fn dark(&mut self) {
        let features = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", ask).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&mut self, expression: &str) {
        let deadline = clock::now() + LIMIT;
        while self.value(&format!("Boolean({expression})")).await != true {
            assert!(clock::now() < deadline, "not in time: {expression}; complaints: {:#?}", self.complaints);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Clicks on the first element that a selector finds.
    pub async fn click(&mut self, selector: &str) {
        self.until(&format!("document.querySelector({selector:?})")).await;
        self.value(&format!("document.querySelector({selector:?}).click()")).await;
    }

    /// Keeps a picture of the window below `$STANDFAST_SCREENSHOTS`, if that is set: for people to look at.
    pub async fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("STANDFAST_SCREENSHOTS") else { return };
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png =
            base64::engine::general_purpose::STANDARD.decode(answer["data"].as_str().expect("a picture"));
        let file = std::path::Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(&file, png.expect("base64")).expect("the directory can be written to");
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).await.expect("chromium listens");
        let answer = tokio::time::timeout(LIMIT, self.answer(self.last)).await;
        answer.unwrap_or_else(|_| panic!("chromium did not answer {method} in time"))
    }

    async fn answer(&mut self, id: u64) -> Value {
        loop {
            let mut text = Vec::new();
            self.answers.read_until(0, &mut text).await.expect("chromium answers");
            assert_eq!(text.pop(), Some(0), "chromium ended");
            let message: Value = serde_json::from_slice(&text).expect("JSON");
            if message["id"] == id {
                assert!(message["error"].is_null(), "{message}");
                return message["result"].clone();
            }
            if matches!(message["method"].as_str(), Some("Runtime.exceptionThrown" | "Log.entryAdded")) {
                self.complaints.push(message["params"].clone());
            }
        }
    }
}
