//! A module is read from a registry.

use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Method, Response, StatusCode};

use super::Error;
use super::client::{Access, OciClient};
use super::manifest::{self, ACCEPTED, OciFound, OciManifest};
use super::reference::{OciReference, digest_text};
use crate::wasm::source::ModuleHash;

/// Most that a manifest may be, as registries have it as well.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

/// A module of a registry.
pub struct OciModule {
    pub bytes: Bytes,
    /// Of the manifest that it was found by.
    pub manifest: ModuleHash,
}

/// Reads the module at a reference; of several, the one with this title.
///
/// # Errors
/// It cannot be read, or is not what its digests say.
///
/// # Cancel safety
/// Dropped half-way, nothing is left of it.
pub async fn read(reference: &OciReference, title: Option<&str>) -> Result<OciModule, Error> {
    let client = &mut OciClient::open(reference, Access::Pull).await?;
    let unfit = |why| Error::unfit(reference, why);
    let (manifest, digest) = whole_manifest(client, reference).await?;
    let (layer, hash) = manifest.module(title).map_err(unfit)?;
    let url = client.of_repository(&format!("blobs/{}", layer.digest));
    let answer = client.ask(Method::GET, &url, &[], Bytes::new()).await?;
    if answer.status() != StatusCode::OK {
        return Err(client.refused(answer, "the request for its module").await);
    }
    if answer.content_length().is_some_and(|bytes| bytes != layer.size) {
        return Err(unfit(of_other_size(layer.size)));
    }
    let bytes = client.body(answer, layer.size).await?;
    if bytes.len() as u64 != layer.size {
        return Err(unfit(of_other_size(layer.size)));
    }
    match ModuleHash::of(&bytes) == hash {
        true => Ok(OciModule {
            bytes: bytes.into(),
            manifest: digest,
        }),
        false => Err(unfit(format!(
            "its module is not the one of {}: its SHA-256 is another",
            layer.digest
        ))),
    }
}

fn of_other_size(size: u64) -> String {
    format!("its module has not the {size} bytes that its manifest says")
}

/// The manifest at a reference, or the one that an index there leads to.
async fn whole_manifest(client: &mut OciClient, reference: &OciReference) -> Result<(OciManifest, ModuleHash), Error> {
    let mut at = reference.clone();
    for _ in 0..2 {
        let Some((body, digest)) = manifest_at(client, &at).await? else {
            return Err(Error::unfit(
                &at,
                "its registry has nothing there: look at its name and its tag",
            ));
        };
        match manifest::read(reference, &body).map_err(|why| Error::unfit(&at, why))? {
            OciFound::Manifest(manifest) => return Ok((manifest, digest)),
            OciFound::Elsewhere(digest) => at = at.by_digest(digest),
        }
    }
    Err(Error::unfit(
        reference,
        "it is an index of indexes: name the digest of a manifest",
    ))
}

/// The manifest at a reference as it is stored, and its digest; `None`: there is none.
///
/// # Errors
/// It is not the one of the reference's digest.
pub async fn manifest_at(client: &mut OciClient, at: &OciReference) -> Result<Option<(Vec<u8>, ModuleHash)>, Error> {
    let url = client.of_repository(&format!("manifests/{}", at.version()));
    let accepted = ACCEPTED.join(", ");
    let headers: [(HeaderName, &str); 1] = [(ACCEPT, &accepted)];
    let answer: Response = client.ask(Method::GET, &url, &headers, Bytes::new()).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(client.refused(answer, "the request for its manifest").await),
    }
    let body = client.body(answer, MANIFEST_MAX).await?;
    let digest = ModuleHash::of(&body);
    match at.digest.filter(|wanted| *wanted != digest) {
        None => Ok(Some((body, digest))),
        Some(_) => Err(Error::unfit(
            at,
            format!("its registry answers with another manifest: {}", digest_text(digest)),
        )),
    }
}
