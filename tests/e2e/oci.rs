//! Modules of OCI registries: what is written there is read as it was, and nothing else is taken for a module.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::mesh::{Config, Mesh};
use crate::modules::second_version;
use crate::support::oci::{OciRegistry, ask, digest};
use crate::support::{cli, modules};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const WASM: &str = "application/wasm";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

fn probe() -> Vec<u8> {
    fs::read(modules::handler("probe")).expect("the probe is readable")
}

/// A handler that follows the registry of the mesh.
fn config() -> Config {
    let lines = "bucket = \"probe\"\npublish = [\"events.>\"]";
    Config::new().handler("probe", Path::new("registry"), lines)
}

/// A mesh with such a handler.
async fn mesh() -> Mesh {
    Mesh::new(config()).await
}

/// Runs `jetmesh` in a folder with no logins but those of these variables.
pub async fn jetmesh(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (ExitStatus, String, String) {
    let home = dir.to_str().expect("UTF-8");
    let none = [
        ("HOME", home),
        ("XDG_RUNTIME_DIR", home),
        ("DOCKER_CONFIG", ""),
        ("REGISTRY_AUTH_FILE", ""),
    ];
    cli::jetmesh_with(dir, args, &[&none, env].concat()).await
}

/// The same with the configuration of a mesh; it must succeed.
async fn done(mesh: &Mesh, args: &[&str]) -> String {
    let file = mesh.write_config();
    let args = [args, &["--config", file.to_str().expect("UTF-8")]].concat();
    let (status, stdout, stderr) = jetmesh(mesh.dir.path(), &args, &[]).await;
    assert!(status.success(), "{args:?}: {status}\n{stdout}{stderr}");
    stdout
}

/// Pushes what must not be taken, and returns why. What is wrong with it is told without a server of NATS.
pub async fn refused(dir: &Path, reference: &str, more: &[&str], env: &[(&str, &str)]) -> String {
    let (status, stdout, stderr) = pushed_without_nats(dir, reference, more, env).await;
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{reference}: {stderr}");
    stderr
}

/// Pushes while no server of NATS is there.
pub async fn pushed_without_nats(
    dir: &Path,
    reference: &str,
    more: &[&str],
    env: &[(&str, &str)],
) -> (ExitStatus, String, String) {
    let file = dir.join("no-nats.toml");
    fs::write(&file, config().text("nats://127.0.0.1:9")).expect("the test's folder is writable");
    let file = file.to_str().expect("UTF-8");
    let push = ["modules", "push", reference, "--as", "probe", "--config", file];
    jetmesh(dir, &[&push, more].concat(), env).await
}
#[tokio::test]
async fn a_module_is_written_to_an_oci_registry_and_read_back_as_it_was() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    let mesh = mesh().await;
    let file = mesh.dir.path().join("probe.wasm");
    fs::write(&file, second_version()).expect("the test's folder is writable");
    let file = file.to_str().expect("UTF-8");
    done(&mesh, &["modules", "push", file, "--as", "probe", "--version", "2.0.0"]).await;
    let reference = registry.reference("acme/probe:2.0.0");
    let pull = ["modules", "pull", "probe", "2.0.0", "--output", &reference];
    let told = done(&mesh, &pull).await;
    let (manifest, pinned) = registry.manifest("acme/probe", "2.0.0").await;
    assert!(
        told.contains(&format!(
            "{}:2.0.0@{pinned}",
            registry.reference("acme/probe").trim_start_matches("oci://")
        )),
        "{told}"
    );
    let module = digest(&second_version());
    assert_eq!(
        (
            &manifest["mediaType"],
            &manifest["config"]["mediaType"],
            &manifest["layers"][0]["mediaType"]
        ),
        (&json!(MANIFEST), &json!(WASM_CONFIG), &json!(WASM))
    );
    assert_eq!(
        (&manifest["layers"][0]["digest"], &manifest["layers"][1]),
        (&json!(module), &Value::Null)
    );
    assert!(
        registry.blob("acme/probe", &module).await == second_version(),
        "the bytes of the module"
    );
    let config = registry
        .blob("acme/probe", manifest["config"]["digest"].as_str().expect("a digest"))
        .await;
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let component = &config["component"];
    assert_eq!(
        (
            &config["os"],
            &config["architecture"],
            &config["layerDigests"],
            &component["exports"],
            &component["target"]
        ),
        (
            &json!("wasip2"),
            &json!("wasm"),
            &json!([module]),
            &json!(["jetmesh:handler/handler@0.1.0"]),
            &json!("jetmesh:handler/event-handler@0.1.0")
        )
    );
    let imports = component["imports"].as_array().expect("a list");
    assert!(imports.contains(&json!("jetmesh:handler/state@0.1.0")), "{config}");
    // Written again, it is the same; another module does not take its tag unless a person says so.
    assert!(done(&mesh, &pull).await.contains(" is already at "));
    fs::write(file, probe()).expect("the test's folder is writable");
    done(&mesh, &["modules", "push", file, "--as", "probe", "--version", "1.0.0"]).await;
    let path = mesh.write_config();
    let other = [
        "modules",
        "pull",
        "probe",
        "1.0.0",
        "--output",
        &reference,
        "--config",
        path.to_str().expect("UTF-8"),
    ];
    let (status, _, stderr) = jetmesh(mesh.dir.path(), &other, &[]).await;
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("the tag is something else already") && stderr.contains(&pinned),
        "{stderr}"
    );
    assert_eq!(registry.manifest("acme/probe", "2.0.0").await.1, pinned);

    // Back into the registry of the mesh, as another name.
    let push = [
        "modules",
        "push",
        &reference,
        "--as",
        "second",
        "--label",
        "commit=1a2b",
        "--json",
    ];
    let pushed: Value = serde_json::from_str(&done(&mesh, &push).await).expect("JSON");
    let named = reference.trim_start_matches("oci://");
    assert_eq!(
        format!("sha256:{}", pushed["digest"].as_str().expect("a digest")),
        module
    );
    assert_eq!(
        pushed["labels"],
        json!({ "commit": "1a2b", "oci.reference": named, "oci.manifest": pinned })
    );
    let audit = done(&mesh, &["audit", "--on", "second"]).await;
    assert!(audit.contains(&format!("from {named}@{pinned}")), "{audit}");
    // By its digest it is the same version, from wherever it comes.
    let again = [
        "modules",
        "push",
        &registry.reference(&format!("acme/probe@{pinned}")),
        "--as",
        "second",
        "--json",
    ];
    let again: Value = serde_json::from_str(&done(&mesh, &again).await).expect("JSON");
    assert_eq!(
        (&again["changed"], &again["labels"]),
        (&json!(false), &pushed["labels"])
    );
    // The tag may be moved; what was read by it stays named by its digest.
    done(&mesh, &[&other[..6], &["--replace"]].concat()).await;
    let (moved, by_now) = registry.manifest("acme/probe", "2.0.0").await;
    assert_ne!(by_now, pinned);
    assert_eq!(moved["layers"][0]["digest"], digest(&probe()));
    let file = mesh.dir.path().join("from-digest.wasm");
    done(
        &mesh,
        &[
            "modules",
            "push",
            &registry.reference(&format!("acme/probe@{pinned}")),
            "--as",
            "third",
        ],
    )
    .await;
    done(
        &mesh,
        &[
            "modules",
            "pull",
            "third",
            &pushed["digest"].as_str().expect("a digest")[..12],
            "-o",
            file.to_str().expect("UTF-8"),
        ],
    )
    .await;
    assert!(fs::read(file).expect("it was written") == second_version());
}

#[tokio::test]
async fn the_layouts_of_spin_and_of_wasmcloud_are_read_and_of_several_modules_one_is_named() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    let mesh = mesh().await;
    let spin = "application/vnd.wasm.content.layer.v1+wasm";
    let data = ("application/vnd.wasm.content.layer.v1+data", "asset", &b"data"[..]);
    let spin_config = "application/vnd.fermyon.spin.application.v1+config";
    registry
        .put_artifact("spin", spin_config, &[data, (spin, "probe.wasm", &probe())])
        .await;
    let cloud = "application/vnd.module.wasm.content.layer.v1+wasm";
    let cloud_config = "application/vnd.wasmcloud.actor.archive.config";
    registry
        .put_artifact("cloud", cloud_config, &[(cloud, "probe.wasm", &probe())])
        .await;
    let two = [
        (spin, "first.wasm", &probe()[..]),
        (spin, "second.wasm", &second_version()[..]),
    ];
    registry.put_artifact("two", spin_config, &two).await;
    for (reference, more, wanted) in [
        ("spin:1", &[][..], probe()),
        ("cloud:1", &[][..], probe()),
        ("two:1", &["--layer", "second.wasm"][..], second_version()),
    ] {
        let name = reference.split(':').next().expect("a name");
        let reference = registry.reference(reference);
        let push = [&["modules", "push", &reference, "--as", name, "--json"], more].concat();
        let pushed: Value = serde_json::from_str(&done(&mesh, &push).await).expect("JSON");
        assert_eq!(
            format!("sha256:{}", pushed["digest"].as_str().expect("a digest")),
            digest(&wanted),
            "{name}"
        );
    }
    let dir = mesh.dir.path();
    let why = refused(dir, &registry.reference("two:1"), &[], &[]).await;
    assert!(
        why.contains("2 modules: first.wasm, second.wasm") && why.contains("--layer"),
        "{why}"
    );
    let why = refused(dir, &registry.reference("two:1"), &["--layer", "third.wasm"], &[]).await;
    assert!(
        why.contains("`third.wasm`") && why.contains("first.wasm, second.wasm"),
        "{why}"
    );
    registry.put_artifact("data", spin_config, &[data]).await;
    let why = refused(dir, &registry.reference("data:1"), &[], &[]).await;
    assert!(
        why.contains("none of its layers is a module (application/vnd.wasm.content.layer.v1+data)"),
        "{why}"
    );
    // What a layer of its type is no module is told as of a file.
    registry
        .put_artifact("text", WASM_CONFIG, &[(WASM, "text", b"text")])
        .await;
    let text = registry.reference("text:1");
    let (status, _, why) = pushed_without_nats(dir, &text, &[], &[]).await;
    assert_eq!(status.code(), Some(2));
    assert!(
        why.contains("not a WebAssembly file") && why.contains("text:1"),
        "{why}"
    );
}

#[tokio::test]
async fn an_index_leads_to_the_one_manifest_of_a_module() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    let mesh = mesh().await;
    let module = registry
        .put_artifact("many", WASM_CONFIG, &[(WASM, "probe.wasm", &probe())])
        .await;
    let other = registry
        .put_artifact("many", "application/vnd.oci.image.config.v1+json", &[])
        .await;
    let entry = |digest: &str, architecture: &str| {
        json!({
            "mediaType": MANIFEST, "digest": digest, "size": 10, "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = |entries: &[Value]| json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries });
    registry
        .put_manifest("many", "one", &index(&[entry(&other, "amd64"), entry(&module, "wasm")]))
        .await;
    let reference = registry.reference("many:one");
    let push = ["modules", "push", &reference, "--as", "probe", "--json"];
    let pushed: Value = serde_json::from_str(&done(&mesh, &push).await).expect("JSON");
    assert_eq!(pushed["labels"]["oci.manifest"], module);
    registry
        .put_manifest(
            "many",
            "none",
            &index(&[entry(&other, "amd64"), entry(&module, "arm64")]),
        )
        .await;
    let why = refused(mesh.dir.path(), &registry.reference("many:none"), &[], &[]).await;
    assert!(
        why.contains("an index of 2 manifests") && why.contains(&module),
        "{why}"
    );
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_or_is_not_there_is_refused() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    let dir = registry.dir.path();
    let pinned = registry
        .put_artifact("probe", WASM_CONFIG, &[(WASM, "probe.wasm", &probe())])
        .await;
    // The registry's disk has another content, as long as the old one.
    let file = registry.blob_file(&digest(&probe()));
    fs::write(&file, second_version()).expect("the test's folder is writable");
    let why = refused(dir, &registry.reference("probe:1"), &[], &[]).await;
    assert!(
        why.contains("its SHA-256 is another") && why.contains(&digest(&probe())),
        "{why}"
    );
    fs::write(&file, &probe()[..1000]).expect("the test's folder is writable");
    let why = refused(dir, &registry.reference("probe:1"), &[], &[]).await;
    assert!(why.contains(&format!("has not the {} bytes", probe().len())), "{why}");
    // So has its manifest.
    let file = registry.blob_file(&pinned);
    let manifest = fs::read_to_string(&file).expect("it is readable");
    fs::write(&file, manifest.replace("probe.wasm", "other.wasm")).expect("the test's folder is writable");
    let why = refused(dir, &registry.reference(&format!("probe@{pinned}")), &[], &[]).await;
    assert!(why.contains("another manifest: sha256:"), "{why}");
    for missing in ["probe:none", "none:1", &format!("probe@sha256:{}", "0".repeat(64))] {
        let why = refused(dir, &registry.reference(missing), &[], &[]).await;
        assert!(
            why.contains("its registry has nothing there") && why.contains(missing),
            "{why}"
        );
    }
    for (wrong, why) in [("probe", "neither a tag nor a digest"), ("Probe:1", "not a repository")] {
        let reference = registry.reference(wrong);
        let (status, _, told) = pushed_without_nats(dir, &reference, &[], &[]).await;
        assert_eq!(status.code(), Some(2), "{told}");
        assert!(told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn a_module_that_is_too_large_is_refused_before_it_is_read() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    let digest = registry.put_blob("large", b"small").await;
    let manifest = |size: u64| {
        let layer = json!({ "mediaType": WASM, "digest": digest, "size": size });
        let config = json!({ "mediaType": WASM_CONFIG, "digest": digest, "size": 5 });
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] })
    };
    registry
        .put_manifest("large", "1", &manifest(128 * 1024 * 1024 + 1))
        .await;
    let why = refused(registry.dir.path(), &registry.reference("large:1"), &[], &[]).await;
    assert!(why.contains("the most that a module may be is 128 MiB"), "{why}");
    let reads = |log: &str| log.matches("GET /v2/large/blobs/").count();
    assert_eq!(reads(&registry.log()), 0, "{}", registry.log());
    // One that says that it is smaller than it is.
    registry.put_manifest("large", "2", &manifest(4)).await;
    let why = refused(registry.dir.path(), &registry.reference("large:2"), &[], &[]).await;
    assert!(why.contains("has not the 4 bytes that its manifest says"), "{why}");
    assert!(reads(&registry.log()) > 0, "the log has what is read");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it has one");
    // The server's side takes connections and says nothing.
    let begun = Instant::now();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    let why = refused(dir, &format!("oci://{addr}/probe:1"), &[], &[]).await;
    assert!(
        why.contains(&format!("registry {addr} has not answered within 15s")),
        "{why}"
    );
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    drop(listener);
    let why = refused(dir, &format!("oci://{addr}/probe:1"), &[], &[]).await;
    assert!(why.contains(&format!("registry {addr} cannot be reached: ")), "{why}");
}

#[tokio::test]
async fn only_a_registry_on_this_machine_is_asked_without_encryption() {
    let Some(registry) = OciRegistry::start().await else {
        return;
    };
    registry
        .put_artifact("probe", WASM_CONFIG, &[(WASM, "probe.wasm", &probe())])
        .await;
    // The same registry, at an address that is not known to be of this machine.
    let reference = format!("oci://0.0.0.0:{}/probe:1", registry.addr.port());
    let asked = ask(registry.addr, "GET", "/v2/", &[], b"").await;
    assert_eq!(asked.status, 200);
    let why = refused(registry.dir.path(), &reference, &[], &[]).await;
    assert!(
        why.contains("does not answer with TLS") && why.contains("a tunnel at 127.0.0.1"),
        "{why}"
    );
    let requests = registry.log().matches("GET /v2/probe/").count();
    assert_eq!(requests, 0, "nothing was asked: {}", registry.log());
}
