//! With which name and password a registry is logged in to: those that `docker login` or `podman login` has kept.

use std::env;
use std::fs;
use std::io::{Cursor, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use super::Error;
use super::reference::OciReference;

/// Names a file with logins, instead of the usual ones.
const AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// How long a credential helper may take, which may ask a person for a passphrase.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// What a credential helper says when it has no login of a registry.
const NOT_FOUND: &str = "credentials not found";

/// What a registry is logged in to with. It has no `Debug`, and is in no message.
pub struct OciCredentials {
    pub login: DockerCredential,
    /// Where it was found, for messages.
    pub file: PathBuf,
}

/// The login of a reference's registry; `None`: there is none.
///
/// # Errors
/// A file cannot be read, or the credential helper that it names does not help.
///
/// # Cancel safety
/// Dropped half-way, a credential helper may be left, which ends by itself.
pub async fn credentials(reference: &OciReference) -> Result<Option<OciCredentials>, Error> {
    let (files, named) = files();
    let (host, hub) = (reference.host.clone(), reference.is_docker_hub());
    let found = tokio::task::spawn_blocking(move || find(&files, named, &host, hub));
    match tokio::time::timeout(HELPER_LIMIT, found).await {
        Ok(found) => found.map_err(|error| Error::Login(error.to_string()))?,
        Err(_) => Err(Error::Login(format!(
            "the credential helper of {} has not answered within {HELPER_LIMIT:?}: see whether it asks for something; {REMEDY}",
            reference.host
        ))),
    }
}

/// What a person can do without a credential helper.
const REMEDY: &str = "or name a file with an `auths` entry of the registry in REGISTRY_AUTH_FILE, as `podman login --authfile FILE` writes it";

/// Where logins are kept, and whether a person has named the file; it counts alone then, and must be there.
fn files() -> (Vec<PathBuf>, bool) {
    let folder = |variable: &str| {
        env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = folder(AUTH_FILE) {
        return (vec![file], true);
    }
    let home = folder("HOME");
    let of_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let docker = folder("DOCKER_CONFIG").or_else(|| of_home(".docker"));
    let files = [
        docker.map(|folder| folder.join("config.json")),
        folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        of_home(".config/containers/auth.json"),
    ];
    (files.into_iter().flatten().collect(), false)
}

fn find(files: &[PathBuf], named: bool, host: &str, hub: bool) -> Result<Option<OciCredentials>, Error> {
    // As `docker login` and `podman login` name Docker's own registry.
    let keys: &[&str] = if hub {
        &["https://index.docker.io/v1/", "docker.io"]
    } else {
        &[host]
    };
    for file in files {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && !named => continue,
            Err(error) => return Err(Error::Login(format!("{}: {error}", file.display()))),
        };
        for key in keys {
            if let Some(login) = login(&bytes, key).map_err(|why| unusable(file, host, why))? {
                let file = file.clone();
                return Ok(Some(OciCredentials { login, file }));
            }
        }
    }
    Ok(None)
}

/// The login in a file's content, or of the credential helper that it names.
fn login(content: &[u8], key: &str) -> Result<Option<DockerCredential>, CredentialRetrievalError> {
    match get_credential_from_reader(Cursor::new(content), key) {
        Ok(login) => Ok(Some(login)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Of what a helper has printed nothing is repeated: it could be the password.
fn unusable(file: &Path, host: &str, error: CredentialRetrievalError) -> Error {
    let why = match error {
        CredentialRetrievalError::HelperFailure { helper, .. } => format!(
            "the credential helper {helper} has failed: see why with `echo {host} | {helper} get >/dev/null`, {REMEDY}"
        ),
        CredentialRetrievalError::HelperCommunicationError => format!(
            "the credential helper that `credsStore` or `credHelpers` names cannot be run: install it as docker-credential-NAME on \
             the PATH, {REMEDY}"
        ),
        CredentialRetrievalError::MalformedHelperResponse => {
            format!(
                "the credential helper that `credsStore` or `credHelpers` names has answered with no login, {REMEDY}"
            )
        }
        CredentialRetrievalError::ConfigReadError => {
            "it is not the JSON that `docker login` writes: log in again, or remove it".to_owned()
        }
        CredentialRetrievalError::CredentialDecodingError | CredentialRetrievalError::CredentialMismatchError => {
            format!("the entry of {host} in `auths` cannot be read: log in again with `docker login {host}`")
        }
        CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound => {
            "there is no login in it".to_owned()
        }
    };
    Error::Login(format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(content: &str, key: &str) -> Option<(String, String)> {
        match login(content.as_bytes(), key).expect("it can be read") {
            Some(DockerCredential::UsernamePassword(user, password)) => Some((user, password)),
            Some(DockerCredential::IdentityToken(token)) => Some(("<token>".to_owned(), token)),
            None => None,
        }
    }

    #[test]
    fn logins_are_found_as_docker_and_podman_write_them() {
        let file = r#"{"auths": {
            "ghcr.io": {"auth": "YW5uYTpzOmVjcmV0"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "127.0.0.1:5000": {"username": "u", "password": "p"},
            "acr.example": {"auth": "MDow", "identitytoken": "refresh"},
            "empty.example": {}
        }}"#;
        let of = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(password(file, "ghcr.io"), of("anna", "s:ecret"));
        assert_eq!(password(file, "https://index.docker.io/v1/"), of("hub", "pw"));
        assert_eq!(password(file, "127.0.0.1:5000"), of("u", "p"));
        assert_eq!(password(file, "acr.example"), of("<token>", "refresh"));
        assert_eq!(password(file, "127.0.0.1"), None, "another port is another registry");
        assert_eq!(password(file, "empty.example"), None);
    }

    #[test]
    fn what_a_helper_or_a_file_says_is_in_no_message() {
        let path = Path::new("/f/config.json");
        let helper = CredentialRetrievalError::HelperFailure {
            helper: "docker-credential-x".to_owned(),
            stdout: "hunter2".to_owned(),
            stderr: "hunter2".to_owned(),
        };
        let told = unusable(path, "ghcr.io", helper).to_string();
        assert!(
            told.contains("docker-credential-x get") && !told.contains("hunter2"),
            "{told}"
        );
        for content in [
            "hunter2",
            r#"{"auths": {"h": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"h": {"auth": "aHVudGVyMg=="}}}"#,
        ] {
            let error = login(content.as_bytes(), "h").map(|_| ()).expect_err("it is no login");
            let told = unusable(path, "h", error).to_string();
            assert!(told.contains("/f/config.json: ") && !told.contains("hunter2"), "{told}");
        }
    }
}
