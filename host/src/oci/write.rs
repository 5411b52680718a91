//! A module is written to a registry, in the CNCF's layout
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::Error;
use super::client::{Access, OciClient};
use super::manifest::{
    MANIFEST_TYPE, OciDescriptor, OciManifest, TITLE, WASM_ARCHITECTURE, WASM_CONFIG_TYPE, WASM_LAYER_TYPE,
};
use super::read::manifest_at;
use super::reference::{OciReference, digest_text};
use crate::wasm::source::ModuleHash;

/// The system that a component is for.
const COMPONENT_OS: &str = "wasip2";
const CREATED: &str = "org.opencontainers.image.created";
const VERSION: &str = "org.opencontainers.image.version";

/// What is written. The same artifact has the same digest, by any person and at any time.
pub struct OciArtifact {
    pub module: Bytes,
    pub name: String,
    pub version: Option<String>,
    /// When the version was pushed, as RFC 3339 has it.
    pub created: String,
    pub exports: Vec<String>,
    pub imports: Vec<String>,
    /// The world that it was built for.
    pub world: String,
}

/// What has become of it.
pub struct OciWritten {
    /// Of the manifest.
    pub manifest: ModuleHash,
    /// `false`: it was there.
    pub changed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [&'a str; 1],
    component: ComponentConfig<'a>,
}

#[derive(Serialize)]
struct ComponentConfig<'a> {
    exports: &'a [String],
    imports: &'a [String],
    target: &'a str,
}

/// Its config and its manifest, as they are stored.
fn documents(artifact: &OciArtifact) -> (Vec<u8>, OciManifest) {
    let titled = BTreeMap::from([(TITLE.to_owned(), format!("{}.wasm", artifact.name))]);
    let layer = OciDescriptor::new(WASM_LAYER_TYPE, &artifact.module, titled);
    let config = WasmConfig {
        created: &artifact.created,
        architecture: WASM_ARCHITECTURE,
        os: COMPONENT_OS,
        layer_digests: [&layer.digest],
        component: ComponentConfig {
            exports: &artifact.exports,
            imports: &artifact.imports,
            target: &artifact.world,
        },
    };
    let config = serde_json::to_vec(&config).expect("it serialises");
    let mut annotations = BTreeMap::from([
        (CREATED.to_owned(), artifact.created.clone()),
        (TITLE.to_owned(), artifact.name.clone()),
    ]);
    annotations.extend(artifact.version.clone().map(|version| (VERSION.to_owned(), version)));
    let described = OciDescriptor::new(WASM_CONFIG_TYPE, &config, BTreeMap::new());
    (config, OciManifest::new(described, layer, annotations))
}

/// Writes an artifact to the tag of a reference. With `replace` also if the tag is something else by now.
///
/// # Errors
/// It cannot be written, or the tag is something else.
///
/// # Cancel safety
/// Dropped half-way, parts of it may be stored, and the tag is what it was, or whole.
pub async fn write(reference: &OciReference, artifact: &OciArtifact, replace: bool) -> Result<OciWritten, Error> {
    let (config, manifest) = documents(artifact);
    let body = serde_json::to_vec(&manifest).expect("it serialises");
    let digest = ModuleHash::of(&body);
    let client = &mut OciClient::open(reference, Access::Push).await?;
    let there = manifest_at(client, reference).await?;
    match there.map(|(_, there)| there) {
        Some(there) if there == digest => {
            return Ok(OciWritten {
                manifest: digest,
                changed: false,
            });
        }
        Some(there) if !replace => {
            return Err(Error::unfit(
                reference,
                format!(
                    "the tag is something else already, {}: choose another tag, or say --replace",
                    digest_text(there)
                ),
            ));
        }
        _ => {}
    }
    put_blob(client, &manifest.layers[0].digest, artifact.module.clone()).await?;
    put_blob(client, &manifest.config.digest, config.into()).await?;
    let url = client.of_repository(&format!("manifests/{}", reference.version()));
    let answer = client
        .ask(Method::PUT, &url, &[(CONTENT_TYPE, MANIFEST_TYPE)], body.into())
        .await?;
    match answer.status() {
        StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(OciWritten {
            manifest: digest,
            changed: true,
        }),
        _ => Err(client.refused(answer, "a new manifest").await),
    }
}

/// Stores bytes under their digest, if they are not there.
async fn put_blob(client: &mut OciClient, digest: &str, bytes: Bytes) -> Result<(), Error> {
    let url = client.of_repository(&format!("blobs/{digest}"));
    let there = client.ask(Method::HEAD, &url, &[], Bytes::new()).await?;
    match there.status() {
        StatusCode::OK => return Ok(()),
        StatusCode::NOT_FOUND => {}
        _ => return Err(client.refused(there, "the question whether it has a part").await),
    }
    let url = client.of_repository("blobs/uploads/");
    let begun = client.ask(Method::POST, &url, &[], Bytes::new()).await?;
    let place = begun.headers().get(LOCATION).and_then(|place| place.to_str().ok());
    let Some(place) = place
        .filter(|_| begun.status() == StatusCode::ACCEPTED)
        .map(str::to_owned)
    else {
        return Err(client.refused(begun, "the begin of an upload").await);
    };
    let mut url = client.named(&place, "a place for uploads")?;
    url.query_pairs_mut().append_pair("digest", digest);
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    let stored = client.ask(Method::PUT, &url, &kind, bytes).await?;
    match stored.status() {
        StatusCode::CREATED => Ok(()),
        _ => Err(client.refused(stored, "an upload").await),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn artifact() -> OciArtifact {
        OciArtifact {
            module: Bytes::from_static(b"module"),
            name: "inventory".to_owned(),
            version: Some("1.3.0".to_owned()),
            created: "2026-01-01T00:00:00.000Z".to_owned(),
            exports: vec!["jetmesh:handler/handler@0.1.0".to_owned()],
            imports: vec!["jetmesh:handler/state@0.1.0".to_owned()],
            world: "jetmesh:handler/event-handler@0.1.0".to_owned(),
        }
    }

    #[test]
    fn an_artifact_has_the_layout_of_the_cncf() {
        let (config, manifest) = documents(&artifact());
        let layer = digest_text(ModuleHash::of(b"module"));
        assert_eq!(
            serde_json::from_slice::<Value>(&config).expect("JSON"),
            json!({
                "created": "2026-01-01T00:00:00.000Z", "architecture": "wasm", "os": "wasip2", "layerDigests": [layer],
                "component": {
                    "exports": ["jetmesh:handler/handler@0.1.0"], "imports": ["jetmesh:handler/state@0.1.0"],
                    "target": "jetmesh:handler/event-handler@0.1.0",
                },
            })
        );
        assert_eq!(
            serde_json::to_value(&manifest).expect("JSON"),
            json!({
                "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                "config": { "mediaType": WASM_CONFIG_TYPE, "digest": digest_text(ModuleHash::of(&config)), "size": config.len() },
                "layers": [{
                    "mediaType": "application/wasm", "digest": layer, "size": 6, "annotations": { TITLE: "inventory.wasm" },
                }],
                "annotations": { CREATED: "2026-01-01T00:00:00.000Z", TITLE: "inventory", VERSION: "1.3.0" },
            })
        );
        // It is read as it is written.
        assert_eq!(manifest.module(None).expect("it has one").1, ModuleHash::of(b"module"));
    }

    #[test]
    fn the_same_artifact_has_the_same_bytes() {
        let bytes = || serde_json::to_vec(&documents(&artifact()).1).expect("it serialises");
        assert_eq!(bytes(), bytes());
    }
}
