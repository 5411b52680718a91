//! Which artifact of which registry a person names: `oci://HOST/REPOSITORY:TAG`, or `@sha256:DIGEST`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wasm::source::ModuleHash;

/// What a reference begins with.
pub const OCI_SCHEME: &str = "oci://";
/// Before the digits of a digest.
const SHA256: &str = "sha256:";
/// Longest name of a repository (<https://github.com/opencontainers/distribution-spec>).
const REPOSITORY_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A place in an OCI registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// The registry as it was named, with its port.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// Of the manifest; it is what counts if there is a tag as well.
    pub digest: Option<ModuleHash>,
}

impl OciReference {
    /// Whether a text is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(OCI_SCHEME)
    }

    /// Where its registry answers: the one that Docker calls `docker.io` does so at another name.
    pub fn authority(&self) -> &str {
        match self.is_docker_hub() {
            true => "registry-1.docker.io",
            false => &self.host,
        }
    }

    pub fn is_docker_hub(&self) -> bool {
        matches!(
            self.host.as_str(),
            "docker.io" | "index.docker.io" | "registry-1.docker.io"
        )
    }

    /// Whether its registry is on this machine.
    pub fn is_local(&self) -> bool {
        let (name, _) = split_port(&self.host);
        is_loopback(name)
    }

    /// As the registry is asked for its manifest.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest_text(*digest),
            (None, Some(tag)) => tag.clone(),
            (None, None) => unreachable!("it was checked when it was read"),
        }
    }

    /// The same place by the digest of a manifest.
    pub fn by_digest(&self, digest: ModuleHash) -> OciReference {
        let digest = Some(digest);
        OciReference { digest, ..self.clone() }
    }
}

/// Whether a host, without its port, is this machine.
pub fn is_loopback(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A digest as registries write it.
pub fn digest_text(hash: ModuleHash) -> String {
    format!("{SHA256}{}", hash.hex())
}

/// The digest that a text of a registry is; `None`: it is of another kind, or none.
pub fn digest_of(text: &str) -> Option<ModuleHash> {
    text.strip_prefix(SHA256).and_then(ModuleHash::parse)
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of an address of IPv6 are inside brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let is_name = |name: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        !name.is_empty() && name.chars().all(good) && !name.starts_with(['-', '.'])
    };
    let is_ip = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    inner.map_or_else(|| is_name(name), is_ip) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Words of small letters and digits, with `.`, `_`, `__` or hyphens between them, and `/` between such names.
fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let between = |run: &str| matches!(run, "" | "." | "_" | "__") || run.chars().all(|c| c == '-');
        part.starts_with(word) && part.ends_with(word) && part.split(word).all(between)
    };
    text.len() <= REPOSITORY_MAX && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_MAX && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

impl FromStr for OciReference {
    type Err = String;

    /// # Errors
    /// What it should be.
    fn from_str(text: &str) -> Result<OciReference, String> {
        let rest = text.strip_prefix(OCI_SCHEME).ok_or("it does not begin with oci://")?;
        let (host, path) = rest
            .split_once('/')
            .ok_or("it names no repository: oci://HOST/REPOSITORY:TAG")?;
        if host.contains('@') {
            return Err("a login does not belong here: it is read from where `docker login` keeps it".to_owned());
        }
        if !is_host(host) {
            return Err(format!("`{host}` is not a host, or a host with a port"));
        }
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => {
                let digest = digest_of(digest).ok_or("its digest is not sha256: and 64 small hex digits")?;
                (path, Some(digest))
            }
            None => (path, None),
        };
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(format!(
                "`{repository}` is not a repository: words of a-z and 0-9, joined by `.`, `_`, `-` and `/`"
            ));
        }
        if let Some(tag) = tag.as_ref().filter(|tag| !is_tag(tag)) {
            return Err(format!(
                "`{tag}` is not a tag: 1 to {TAG_MAX} of A-Z, a-z, 0-9, `_`, `.` and `-`"
            ));
        }
        if tag.is_none() && digest.is_none() {
            return Err("it names neither a tag nor a digest: oci://HOST/REPOSITORY:TAG".to_owned());
        }
        let mut reference = OciReference {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        };
        if reference.is_docker_hub() && !reference.repository.contains('/') {
            reference.repository = format!("library/{repository}");
        }
        Ok(reference)
    }
}

/// Without `oci://`, as other programs write it.
impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{}", digest_text(digest)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OciReference, String> {
        text.parse()
    }

    #[test]
    fn a_reference_is_read_and_written_as_it_was() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for text in [
            "ghcr.io/acme/inventory:1.3.0".to_owned(),
            format!("ghcr.io/acme/in.ven__to--ry@{digest}"),
            format!("localhost:5000/inventory:v1@{digest}"),
            "[::1]:5000/a/b/c:_".to_owned(),
            "10.0.0.1/a:1".to_owned(),
        ] {
            let reference = read(&format!("oci://{text}")).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(reference.to_string(), text);
        }
        let hub = read("oci://docker.io/inventory:1").expect("it is one");
        assert_eq!(
            (hub.authority(), hub.repository.as_str()),
            ("registry-1.docker.io", "library/inventory")
        );
        let both = read(&format!("oci://h/r:1@{digest}")).expect("it is one");
        assert_eq!(both.version(), digest, "the digest counts");
    }

    #[test]
    fn what_is_no_reference_is_told_with_its_rule() {
        for (text, why) in [
            ("oci://ghcr.io", "names no repository"),
            ("oci://ghcr.io/acme/inventory", "neither a tag nor a digest"),
            (
                "oci://anna:secret@ghcr.io/acme/inventory:1",
                "a login does not belong here",
            ),
            ("oci:///inventory:1", "not a host"),
            ("oci://ghcr.io:0/inventory:1", "not a host"),
            ("oci://ghcr.io:99999/inventory:1", "not a host"),
            ("oci://[::g]/inventory:1", "not a host"),
            ("oci://h/Inventory:1", "not a repository"),
            ("oci://h/a//b:1", "not a repository"),
            ("oci://h/a..b:1", "not a repository"),
            ("oci://h/../b:1", "not a repository"),
            ("oci://h/a:", "not a tag"),
            ("oci://h/a:1/b", "not a tag"),
            ("oci://h/a?b:1", "not a repository"),
            ("oci://h/a@sha256:12", "64 small hex digits"),
            ("oci://h/a@sha512:12", "64 small hex digits"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(why) && !told.contains("secret"), "{text}: {told}");
        }
    }

    #[test]
    fn only_addresses_of_this_machine_are_local() {
        let local = |host: &str| read(&format!("oci://{host}/a:1")).expect("it is one").is_local();
        for host in [
            "localhost",
            "LocalHost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(local(host), "{host}");
        }
        for host in [
            "0.0.0.0:5000",
            "10.0.0.1",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "[::2]",
        ] {
            assert!(!local(host), "{host}");
        }
    }
}
