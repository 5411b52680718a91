//! Signatures of versions: ed25519 by nkeys, over what a version is and what it may do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use nkeys::KeyPair;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::ModuleVersion;

/// What is signed begins with this, so that no signature of anything else is one of a module.
const DOMAIN: &str = "jetmesh-module-v1";

/// A signature of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ModuleSignature {
    /// The public key of the nkey.
    pub key: String,
    /// Base64url without padding, of 64 bytes.
    pub signature: String,
    /// Who has signed.
    pub by: String,
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// Five lines: the domain, the digest, the name, the version or nothing, and the wanted grants, joined by commas.
fn signed(name: &str, version: &ModuleVersion) -> String {
    [
        DOMAIN,
        &version.digest,
        name,
        version.version.as_deref().unwrap_or_default(),
        &version.wants.join(","),
    ]
    .join("\n")
}

/// The public key of a seed.
///
/// # Errors
/// It is no seed of an nkey.
pub fn key_of_seed(seed: &str) -> Result<String, String> {
    let pair = KeyPair::from_seed(seed.trim()).map_err(|error| format!("no seed of an nkey: {error}"))?;
    Ok(pair.public_key())
}

/// Signs a version.
///
/// # Errors
/// It is no seed of an nkey.
pub fn sign(seed: &str, name: &str, version: &ModuleVersion, by: &str, at: String) -> Result<ModuleSignature, String> {
    let pair = KeyPair::from_seed(seed.trim()).map_err(|error| format!("no seed of an nkey: {error}"))?;
    let signature = pair
        .sign(signed(name, version).as_bytes())
        .map_err(|error| format!("it cannot sign: {error}"))?;
    Ok(ModuleSignature {
        key: pair.public_key(),
        signature: BASE64_URL.encode(signature),
        by: by.to_owned(),
        at,
    })
}

impl ModuleVersion {
    /// Whether a key has signed this version under this name.
    pub fn is_signed(&self, name: &str, key: &str) -> bool {
        let text = signed(name, self);
        let good = |one: &&ModuleSignature| {
            let pair = KeyPair::from_public_key(key).ok();
            let signature = BASE64_URL.decode(&one.signature).ok();
            pair.zip(signature)
                .is_some_and(|(pair, signature)| pair.verify(text.as_bytes(), &signature).is_ok())
        };
        self.signatures
            .iter()
            .filter(|one| one.key == key)
            .any(|one| good(&one))
    }

    /// Why a host that requires these keys does not serve it, if it does not.
    pub fn unsigned(&self, name: &str, require: &[String]) -> Option<String> {
        let missing: Vec<&str> = require
            .iter()
            .filter(|key| !self.is_signed(name, key))
            .map(String::as_str)
            .collect();
        let short = &self.digest[..12];
        (!missing.is_empty()).then(|| {
            format!(
                "version {short} of {name} is not signed by {}, which modules.require wants: sign it with `jetmesh modules sign \
                 {name} {short} --key FILE`",
                missing.join(" and ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh_streams::modules::version::tests::version;

    #[test]
    fn a_signature_holds_for_this_digest_name_version_and_grants_only() {
        let pair = KeyPair::new_user();
        let (seed, key) = (pair.seed().unwrap(), pair.public_key());
        assert_eq!(key_of_seed(&seed).as_ref(), Ok(&key));
        let mut signed = version();
        let signature = sign(&seed, "inventory", &signed, "anna", "2026-01-01T00:00:00Z".to_owned()).unwrap();
        assert!(!signed.is_signed("inventory", &key), "it has no signature yet");
        signed.signatures.push(signature);
        assert!(signed.is_signed("inventory", &key));
        assert_eq!(signed.unsigned("inventory", std::slice::from_ref(&key)), None);
        type Change = (&'static str, fn(&mut ModuleVersion));
        let changed: [Change; 3] = [
            ("digest", |one| one.digest = "b".repeat(64)),
            ("version", |one| one.version = None),
            ("wants", |one| one.wants.push("publish:x".to_owned())),
        ];
        for (what, change) in changed {
            let mut other = signed.clone();
            change(&mut other);
            assert!(!other.is_signed("inventory", &key), "{what}");
        }
        assert!(!signed.is_signed("points", &key));
        let other = KeyPair::new_user().public_key();
        let why = signed
            .unsigned("inventory", &[key.clone(), other.clone()])
            .expect("one is missing");
        assert!(why.contains(&other) && !why.contains(&key), "{why}");
        // One who writes the record can claim any key.
        signed.signatures[0].key = other.clone();
        assert!(!signed.is_signed("inventory", &other));
    }
}
