//! Manifests of OCI images and artifacts (<https://github.com/opencontainers/image-spec>), and which of their layers is a module.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reference::{OciReference, digest_of, digest_text};
use crate::text::display::clean;
use crate::wasm::source::{MODULE_BYTES_MAX, ModuleHash};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a registry is asked for.
pub const ACCEPTED: [&str; 4] = [MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE];

/// The CNCF's layout (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
pub const WASM_CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
pub const WASM_LAYER_TYPE: &str = "application/wasm";
/// A layer is a module by its own type, whatever the type of the config: the CNCF's, that of Spin, and that of wasmCloud before 1.0.
const WASM_LAYER_TYPES: [&str; 3] = [
    WASM_LAYER_TYPE,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
/// The architecture of a module in an index.
pub const WASM_ARCHITECTURE: &str = "wasm";

/// A name for people.
pub const TITLE: &str = "org.opencontainers.image.title";

/// What a manifest says of one of its parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciDescriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<OciPlatform>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OciPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// Of an image or artifact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciManifest {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    pub config: OciDescriptor,
    pub layers: Vec<OciDescriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, for different machines.
#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<OciDescriptor>,
}

/// What lies at a reference.
#[derive(Debug)]
pub enum OciFound {
    Manifest(OciManifest),
    /// The manifest to read instead.
    Elsewhere(ModuleHash),
}

/// Some programs write `null` for an empty map.
fn or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl OciDescriptor {
    pub fn new(media_type: &str, bytes: &[u8], annotations: BTreeMap<String, String>) -> OciDescriptor {
        OciDescriptor {
            media_type: media_type.to_owned(),
            digest: digest_text(ModuleHash::of(bytes)),
            size: bytes.len() as u64,
            annotations,
            platform: None,
        }
    }

    fn is_wasm(&self) -> bool {
        WASM_LAYER_TYPES.contains(&self.media_type.as_str())
    }

    fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(String::as_str)
    }

    /// As people are shown it.
    fn told(&self) -> String {
        let platform = self.platform.as_ref();
        let platform = platform.map(|platform| format!(" ({}/{})", platform.os, platform.architecture));
        let name = self.title().unwrap_or(&self.digest);
        clean(&format!("{name}{}", platform.unwrap_or_default()))
    }
}

impl OciManifest {
    pub fn new(config: OciDescriptor, layer: OciDescriptor, annotations: BTreeMap<String, String>) -> OciManifest {
        OciManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            config,
            layers: vec![layer],
            annotations,
        }
    }

    /// The layer that is a module, and its digest; of several, the one with this title.
    ///
    /// # Errors
    /// None is, or several are; or it is larger than a module may be.
    pub fn module(&self, title: Option<&str>) -> Result<(&OciDescriptor, ModuleHash), String> {
        let modules: Vec<&OciDescriptor> = self.layers.iter().filter(|layer| layer.is_wasm()).collect();
        let told = |layers: &[&OciDescriptor]| layers.iter().map(|one| one.told()).collect::<Vec<_>>().join(", ");
        let fitting: Vec<&OciDescriptor> = match title {
            Some(_) => modules.iter().copied().filter(|one| one.title() == title).collect(),
            None => modules.clone(),
        };
        let layer = match (fitting.as_slice(), title) {
            (&[layer], _) => layer,
            _ if modules.is_empty() => {
                let types = self.layers.iter().map(|one| clean(&one.media_type));
                let types: Vec<String> = types.collect();
                return Err(format!(
                    "none of its layers is a module ({}); a module has the type {}",
                    if types.is_empty() {
                        "it has none".to_owned()
                    } else {
                        types.join(", ")
                    },
                    WASM_LAYER_TYPES.join(", or ")
                ));
            }
            (_, Some(title)) => {
                return Err(format!(
                    "not one of its modules, but {}, have the title `{title}`; it has {}",
                    fitting.len(),
                    told(&modules)
                ));
            }
            (_, None) => {
                return Err(format!(
                    "it has {} modules: {}; name the title of one with --layer",
                    modules.len(),
                    told(&modules)
                ));
            }
        };
        if layer.size > MODULE_BYTES_MAX {
            return Err(format!(
                "its module has {} bytes, and the most that a module may be is {} MiB",
                layer.size,
                MODULE_BYTES_MAX / (1024 * 1024)
            ));
        }
        match digest_of(&layer.digest) {
            Some(digest) => Ok((layer, digest)),
            None => Err(format!(
                "the digest of its module is no SHA-256: {}",
                clean(&layer.digest)
            )),
        }
    }
}

/// Reads what a registry has answered.
///
/// # Errors
/// What is wrong with it.
pub fn read(reference: &OciReference, body: &[u8]) -> Result<OciFound, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ManifestKind {
        schema_version: u64,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let malformed = |error: serde_json::Error| format!("its manifest cannot be read: {error}");
    let kind: ManifestKind = serde_json::from_slice(body).map_err(malformed)?;
    if kind.schema_version != 2 {
        return Err(format!(
            "its manifest is of version {}, and 2 is read",
            kind.schema_version
        ));
    }
    if let Some(other) = kind.media_type.filter(|kind| !ACCEPTED.contains(&kind.as_str())) {
        return Err(format!(
            "its manifest has the type {}, which is not known",
            clean(&other)
        ));
    }
    if kind.manifests.is_none() {
        return Ok(OciFound::Manifest(serde_json::from_slice(body).map_err(malformed)?));
    }
    let index: OciIndex = serde_json::from_slice(body).map_err(malformed)?;
    let is_wasm = |one: &&OciDescriptor| {
        one.platform
            .as_ref()
            .is_some_and(|p| p.architecture == WASM_ARCHITECTURE)
    };
    let all = &index.manifests;
    let fitting: Vec<&OciDescriptor> = match all.as_slice() {
        [only] => vec![only],
        _ => all.iter().filter(is_wasm).collect(),
    };
    let told = |all: &[OciDescriptor]| all.iter().map(|one| one.told()).collect::<Vec<_>>().join(", ");
    let &[one] = fitting.as_slice() else {
        return Err(format!(
            "it is an index of {} manifests, of which {} are for {WASM_ARCHITECTURE}: {}; name the digest of one: oci://{}/{}@sha256:…",
            all.len(),
            fitting.len(),
            told(all),
            reference.host,
            reference.repository
        ));
    };
    match digest_of(&one.digest) {
        Some(digest) => Ok(OciFound::Elsewhere(digest)),
        None => Err(format!(
            "the digest of its manifest is no SHA-256: {}",
            clean(&one.digest)
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn layer(kind: &str, title: &str, size: u64) -> Value {
        json!({
            "mediaType": kind, "digest": format!("sha256:{}", "a".repeat(64)), "size": size, "annotations": { TITLE: title },
        })
    }

    fn manifest(layers: &[Value]) -> OciManifest {
        let config =
            json!({ "mediaType": "application/vnd.any", "digest": "sha512:0", "size": 2, "annotations": null });
        let body = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        match found(&body) {
            Ok(OciFound::Manifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    fn found(body: &Value) -> Result<OciFound, String> {
        read(
            &"oci://h/r:1".parse().expect("a reference"),
            body.to_string().as_bytes(),
        )
    }

    #[test]
    fn one_layer_is_the_module_or_none_is() {
        let other = layer("application/vnd.wasm.content.layer.v1+data", "data", 9);
        for kind in WASM_LAYER_TYPES {
            let of = manifest(&[other.clone(), layer(kind, "a.wasm", 5)]);
            assert_eq!(of.module(None).expect("it has one").0.size, 5, "{kind}");
            assert!(
                of.module(Some("b.wasm"))
                    .expect_err("another title")
                    .contains("it has a.wasm")
            );
        }
        let none = manifest(std::slice::from_ref(&other))
            .module(None)
            .map(|_| ())
            .expect_err("none");
        assert!(none.contains("(application/vnd.wasm.content.layer.v1+data)"), "{none}");
        let none = manifest(&[]).module(None).map(|_| ()).expect_err("none");
        assert!(none.contains("(it has none)"), "{none}");
        let two = manifest(&[layer(WASM_LAYER_TYPE, "a", 1), layer(WASM_LAYER_TYPE, "b\u{1b}[2J", 2)]);
        let told = two.module(None).map(|_| ()).expect_err("two");
        assert!(told.contains("2 modules: a, b") && !told.contains('\u{1b}'), "{told}");
        assert_eq!(two.module(Some("a")).expect("it has it").0.size, 1);
        let twins = manifest(&[layer(WASM_LAYER_TYPE, "a", 1), layer(WASM_LAYER_TYPE, "a", 2)]);
        assert!(twins.module(Some("a")).is_err());
    }

    #[test]
    fn a_module_is_no_larger_than_a_file_may_be() {
        let of = |size| manifest(&[layer(WASM_LAYER_TYPE, "a", size)]).module(None).map(|_| ());
        assert_eq!(of(MODULE_BYTES_MAX), Ok(()));
        let told = of(MODULE_BYTES_MAX + 1).expect_err("too large");
        assert!(told.contains("128 MiB"), "{told}");
    }

    #[test]
    fn an_index_leads_to_its_only_module() {
        let entry = |digit: char, architecture: &str| {
            json!({
                "mediaType": MANIFEST_TYPE, "digest": format!("sha256:{}", digit.to_string().repeat(64)), "size": 1,
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let index =
            |entries: &[Value]| found(&json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries }));
        let leads = |entries: &[Value]| match index(entries) {
            Ok(OciFound::Elsewhere(digest)) => digest.hex().chars().next(),
            other => panic!("{other:?}"),
        };
        assert_eq!(leads(&[entry('1', "amd64"), entry('2', "wasm")]), Some('2'));
        assert_eq!(leads(&[entry('3', "unknown")]), Some('3'));
        for entries in [
            &[entry('1', "amd64"), entry('2', "arm64")][..],
            &[entry('1', "wasm"), entry('2', "wasm")],
        ] {
            let told = index(entries).expect_err("no way to choose");
            assert!(
                told.contains("oci://h/r@sha256:") && told.contains(&"1".repeat(64)),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        for (body, why) in [
            (json!([]), "cannot be read"),
            (json!({ "schemaVersion": 1 }), "of version 1"),
            (json!({ "schemaVersion": 2, "mediaType": "text/html" }), "text/html"),
            (json!({ "schemaVersion": 2 }), "cannot be read"),
            (
                json!({ "schemaVersion": 2, "config": layer("a", "a", 1), "layers": [{ "mediaType": "a", "digest": "a", "size": -1 }] }),
                "cannot be read",
            ),
        ] {
            let told = found(&body).map(|_| ()).expect_err("it is none");
            assert!(told.contains(why), "{body}: {told}");
        }
    }
}
