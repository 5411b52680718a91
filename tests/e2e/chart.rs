//! The chart of Helm: what it makes of values, with the real `helm`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{cli, root, skipped, tool};

const ALL: &str = include_str!("../fixtures/helm/all.yaml");
const VALUES: &str = include_str!("../../config/helm/jetmesh/values.yaml");
const SCHEMA: &str = include_str!("../../config/helm/jetmesh/values.schema.json");
const SAMPLE_FILE: &str = "config/helm/sample.yaml";
const ALL_FILE: &str = "tests/fixtures/helm/all.yaml";

/// What `helm` says: whether it succeeded, its output and its errors. `None`, with a line that says so: there is no `helm`.
fn helm(args: &[&str]) -> Option<(bool, String, String)> {
    let Some(helm) = tool("helm", "HELM") else {
        skipped("there is no helm, so the chart is not checked");
        return None;
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(helm);
    for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(folder, home.path());
    }
    let out = command.args(args).current_dir(root()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Some((out.status.success(), text(out.stdout), text(out.stderr)))
}

/// The objects that the chart makes of values.
struct Rendered(Vec<Value>);

impl Rendered {
    fn of(values: &str, more: &[&str]) -> Option<Rendered> {
        let args = [&["template", "mesh", "config/helm/jetmesh", "-f", values], more].concat();
        let (made, text, error) = helm(&args)?;
        assert!(made, "{more:?}: {error}");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        Some(Rendered(objects))
    }

    fn find(&self, kind: &str) -> Option<&Value> {
        self.0.iter().find(|object| object["kind"] == kind)
    }

    fn get(&self, kind: &str) -> &Value {
        self.find(kind).unwrap_or_else(|| panic!("there is no {kind}"))
    }

    fn pod(&self) -> &Value {
        &self.get("Deployment")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    fn toml(&self) -> &str {
        self.get("ConfigMap")["data"]["jetmesh.toml"].as_str().expect("text")
    }

    /// That nothing of the pod has a right which a host does not need, and everything that is mounted is there.
    fn assert_confined(&self) {
        let (pod, container) = (self.pod(), self.container());
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!([&security["runAsUser"], &security["fsGroup"]], [65532, 65532]);
        assert_eq!(security["seccompProfile"], json!({ "type": "RuntimeDefault" }));
        let own = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        assert_eq!(container["securityContext"], own);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(self.get("ServiceAccount")["automountServiceAccountToken"], false);
        let names = |list: &Value| -> Vec<String> {
            let mut names: Vec<String> = list
                .as_array()
                .into_iter()
                .flatten()
                .map(|v| v["name"].to_string())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
        let (patience, drain) = (&pod["terminationGracePeriodSeconds"], self.toml());
        let drain = drain
            .lines()
            .find_map(|line| line.strip_prefix("drain_timeout = \"")?.strip_suffix("s\""));
        let drain: u64 = drain.and_then(|drain| drain.parse().ok()).expect("seconds");
        assert!(patience.as_u64().expect("seconds") > drain);
    }

    /// That `jetmesh check` accepts the configuration. The files of secrets are in `dir` as they are below /etc/jetmesh in the pod.
    async fn assert_valid(&self, dir: &Path) {
        let here = dir.to_str().expect("UTF-8");
        let config = self
            .toml()
            .replace("/etc/jetmesh", here)
            .replace("/var/cache/jetmesh", here);
        let file = dir.join("jetmesh.toml");
        fs::write(&file, config).expect("it is writable");
        let (status, text, error) = cli::jetmesh(&["check", "--config", file.to_str().expect("UTF-8")]).await;
        assert!(status.success(), "{text}{error}\n{}", self.toml());
    }
}

#[test]
fn helm_finds_nothing_to_complain_of_and_says_what_is_missing() {
    for values in [&[][..], &["-f", SAMPLE_FILE], &["-f", ALL_FILE]] {
        let Some((fine, text, error)) = helm(&[&["lint", "--strict", "config/helm/jetmesh"], values].concat()) else {
            return;
        };
        assert!(fine && text.contains("0 chart(s) failed"), "{text}{error}");
    }
    // No handler is made up.
    let (made, _, error) = helm(&["template", "mesh", "config/helm/jetmesh"]).expect("it is there");
    assert!(
        !made && error.contains("config.handlers: there is no handler"),
        "{error}"
    );
}

#[tokio::test]
async fn the_sample_of_the_chart_is_a_host_without_rights_and_its_configuration_is_valid() {
    let Some(rendered) = Rendered::of(SAMPLE_FILE, &[]) else {
        return;
    };
    rendered.assert_confined();
    let dir = tempfile::tempdir().expect("a temporary folder");
    rendered.assert_valid(dir.path()).await;
    let mut kinds: Vec<&str> = rendered.0.iter().filter_map(|object| object["kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["ConfigMap", "Deployment", "PodDisruptionBudget", "ServiceAccount"]
    );
    let container = rendered.container();
    assert_eq!(container["image"], format!("jetmesh:{}", env!("CARGO_PKG_VERSION")));
    // Only the pod itself reaches the admin address, so it is asked in the pod.
    for (probe, what) in [
        ("startupProbe", "live"),
        ("livenessProbe", "live"),
        ("readinessProbe", "ready"),
    ] {
        let command = json!(["/usr/local/bin/jetmesh", "health", what]);
        assert_eq!(container[probe]["exec"]["command"], command, "{probe}");
    }
    assert_eq!(container["ports"], Value::Null);
    let secret = |name: &str, key: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "jetmesh-nats", "key": key } } });
    assert_eq!(container["env"][1], secret("JETMESH_NATS__USER", "user"));
    assert_eq!(container["env"][2], secret("JETMESH_NATS__PASSWORD", "password"));
    // Another configuration is another pod.
    let annotations =
        |rendered: &Rendered| rendered.get("Deployment")["spec"]["template"]["metadata"]["annotations"].clone();
    let other = Rendered::of(SAMPLE_FILE, &["--set", "config.handlers.points.max_attempts=7"]).expect("helm is there");
    assert!(other.toml().contains("max_attempts = 7\n"), "{}", other.toml());
    assert_ne!(annotations(&rendered), annotations(&other));
}

/// What a pod with every option is given below /etc/jetmesh.
fn secrets(dir: &Path) {
    let tls = root().join("tests/fixtures/tls");
    let file = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it is writable");
        fs::write(path, content).expect("it is writable");
    };
    let copy = |name: &str, from: &str| file(name, &fs::read(tls.join(from)).expect("it is there"));
    for (name, from) in [("admin/tls.crt", "server.pem"), ("admin/tls.key", "server.key")] {
        copy(name, from);
    }
    for (name, from) in [
        ("ca.crt", "ca.pem"),
        ("tls.crt", "client.pem"),
        ("tls.key", "client.key"),
    ] {
        copy(&format!("nats-tls/{name}"), from);
    }
    file("metrics/token", b"0123456789abcdef0123456789abcdef\n");
    let user = nkeys::KeyPair::new_user();
    let seed = user.seed().expect("it has one");
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n\
         ------END USER NKEY SEED------\n"
    );
    file("nats/host.creds", creds.as_bytes());
    file("nats/host.nk", seed.as_bytes());
}

#[tokio::test]
async fn every_option_of_the_chart_has_its_effect() {
    let Some(rendered) = Rendered::of(ALL_FILE, &[]) else {
        return;
    };
    rendered.assert_confined();
    let dir = tempfile::tempdir().expect("a temporary folder");
    secrets(dir.path());
    rendered.assert_valid(dir.path()).await;
    // A handler reads its settings as text: 10 is not 10.0.
    for line in ["replicas = 3\n", "per_order = 10\n", "rate = 0.5\n"] {
        assert!(rendered.toml().contains(line), "{}", rendered.toml());
    }
    let (pod, container) = (rendered.pod(), rendered.container());
    assert!(
        container["image"]
            .as_str()
            .expect("text")
            .starts_with("jetmesh@sha256:0123")
    );
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = json!({ "path": path, "port": "admin", "scheme": "HTTPS" });
        assert_eq!(container[probe]["httpGet"], asked, "{probe}");
    }
    assert_eq!(container["ports"][0], json!({ "name": "admin", "containerPort": 9465 }));
    assert_eq!(container["env"][1]["name"], "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!(pod["terminationGracePeriodSeconds"], 75);
    assert_eq!(pod["priorityClassName"], "high");
    let deployment = &rendered.get("Deployment")["spec"];
    // KEDA sets the number of hosts, and a deployment that names one would set it back.
    assert_eq!(deployment["replicas"], Value::Null);
    assert_eq!(deployment["strategy"], json!({ "type": "Recreate" }));
    let scaled = &rendered.get("ScaledObject")["spec"];
    let trigger = json!({
        "natsServerMonitoringEndpoint": "nats.nats.svc:8222", "useHttps": "false", "account": "MESH",
        "stream": "ORDERS", "consumer": "points-v2", "lagThreshold": "100",
    });
    assert_eq!(
        scaled["triggers"][0],
        json!({ "type": "nats-jetstream", "metadata": trigger })
    );
    assert_eq!(
        [&scaled["triggers"][1]["type"], &scaled["scaleTargetRef"]["name"]],
        ["cron", "mesh-jetmesh"]
    );
    let policy = &rendered.get("NetworkPolicy")["spec"];
    assert_eq!(policy["ingress"][0]["ports"][0]["port"], "admin");
    let ports: Vec<&Value> = (0..3).map(|at| &policy["egress"][at]["ports"][0]["port"]).collect();
    assert_eq!(ports, [53, 4222, 4317]);
    let monitor = &rendered.get("ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!(
        [&monitor["scheme"], &monitor["authorization"]["credentials"]["name"]],
        ["https", "admin-token"]
    );
    assert_eq!(rendered.get("Service")["spec"]["ports"][0]["port"], 9465);
    assert_eq!(rendered.get("PodDisruptionBudget")["spec"]["maxUnavailable"], "25%");
    // Without triggers of one's own: a trigger for each handler, with the consumer that a host makes for it.
    let more = ["--set", "keda.enabled=true", "--set", "keda.lagThreshold=5"];
    let each = Rendered::of(SAMPLE_FILE, &more).expect("helm is there");
    let triggers = each.get("ScaledObject")["spec"]["triggers"].as_array().expect("a list");
    let consumers: Vec<&Value> = triggers
        .iter()
        .map(|trigger| &trigger["metadata"]["consumer"])
        .collect();
    assert_eq!(consumers, ["inventory", "notify", "points"]);
    // A policy without an admin address that others reach lets none in.
    let closed = Rendered::of(SAMPLE_FILE, &["--set", "networkPolicy.enabled=true"]).expect("helm is there");
    assert_eq!(closed.get("NetworkPolicy")["spec"]["ingress"], json!([]));
    assert!(closed.find("Service").is_none());
}

#[tokio::test]
async fn each_kind_of_credentials_comes_out_of_its_secret() {
    for (kind, variable, file) in [
        ("none", None, None),
        ("token", Some("JETMESH_NATS__TOKEN"), None),
        ("nkey", None, Some("nkey = \"/etc/jetmesh/nats/host.nk\"")),
        ("creds", None, Some("creds = \"/etc/jetmesh/nats/host.creds\"")),
    ] {
        let secret = if kind == "none" { "" } else { "s" };
        let set = format!("nats.credentials.kind={kind},nats.credentials.secret={secret}");
        let Some(rendered) = Rendered::of(SAMPLE_FILE, &["--set", &set]) else {
            return;
        };
        rendered.assert_confined();
        assert_eq!(rendered.container()["env"][1]["name"].as_str(), variable, "{kind}");
        assert!(
            file.is_none_or(|line| rendered.toml().contains(line)),
            "{}",
            rendered.toml()
        );
        let dir = tempfile::tempdir().expect("a temporary folder");
        secrets(dir.path());
        rendered.assert_valid(dir.path()).await;
    }
}

#[test]
fn values_that_make_no_host_are_refused_with_what_is_wrong() {
    for (values, told) in [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=-1", "/replicas"),
        ("drainSeconds=0", "/drainSeconds"),
        ("image.digest=abc", "/image/digest"),
        ("nats.url=nats://host:secret@nats", "/nats/url"),
        ("nats.credentials.secret=", "/nats/credentials/secret"),
        ("nats.tls.clientCertificate=true", "/nats/tls/secret"),
        ("config.admin.listen=0.0.0.0:1", "/config/admin"),
        ("config.nats.password=secret", "/config/nats/password"),
        ("config.handlers.more.module=registry", "missing property 'stream'"),
        ("admin.tlsSecret=tls", "/admin/tokenSecret"),
        ("serviceMonitor.enabled=true", "/admin/tlsSecret"),
        ("keda.minReplicas=0", "/keda/minReplicas"),
        ("keda.enabled=true,keda.handlers={other}", "there is no handler other"),
        (
            "podDisruptionBudget.maxUnavailable=0",
            "/podDisruptionBudget/maxUnavailable",
        ),
        ("strategy=Other", "/strategy"),
    ] {
        let args = [
            "template",
            "mesh",
            "config/helm/jetmesh",
            "-f",
            SAMPLE_FILE,
            "--set",
            values,
        ];
        let Some((made, _, error)) = helm(&args) else {
            return;
        };
        assert!(!made && error.contains(told), "{values}: {error}");
    }
}

#[test]
fn the_chart_has_the_version_of_this_program_and_each_value_is_checked_and_tried() {
    let chart: Value = serde_saphyr::from_str(include_str!("../../config/helm/jetmesh/Chart.yaml")).expect("YAML");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!([&chart["version"], &chart["appVersion"]], [version, version]);
    let values: Value = serde_saphyr::from_str(VALUES).expect("YAML");
    let all: Value = serde_saphyr::from_str(ALL).expect("YAML");
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    for (name, value) in values.as_object().expect("a table") {
        assert!(
            schema["properties"][name].is_object(),
            "the schema does not know {name}"
        );
        // Of these the sample has the default, or KEDA replaces them.
        let untried = ["replicas", "resources"].contains(&name.as_str());
        assert!(untried || !all[name].is_null(), "{ALL_FILE} does not have {name}");
        for inner in value.as_object().into_iter().flatten().map(|(inner, _)| inner) {
            let known = &schema["properties"][name]["properties"];
            assert!(
                known.is_null() || known[inner].is_object(),
                "the schema does not know {name}.{inner}"
            );
        }
    }
    let known = schema["properties"].as_object().expect("a table").keys();
    let unknown: Vec<&String> = known
        .filter(|name| *name != "global" && values[*name].is_null())
        .collect();
    assert!(unknown.is_empty(), "values.yaml does not name {unknown:?}");
}
