//! Where modules are beside the registry of the mesh: in files, and in OCI registries.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::name;
use crate::app;
use crate::broker::Connection;
use crate::cli::text::size;
use crate::cli::{Error, OK};
use crate::control::modules::PushedFrom;
use crate::mesh_streams::modules::{content, named, promoted, version, versions_of};
use crate::oci::{self, OciArtifact, OciReference};
use crate::plan::Plan;
use crate::wasm::compile::Priority;
use crate::wasm::library::{Library, WIT_WORLD};
use crate::wasm::source;

/// Write the module of a version into a file, or to an OCI registry
#[derive(Debug, clap::Args)]
pub struct ModulesPull {
    /// The name in the registry
    #[arg(value_parser = name)]
    name: String,
    /// Digest or version [default: what is promoted]
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    /// The file [default: NAME.wasm], which must not exist; or a tag in an OCI registry: oci://HOST/REPOSITORY:TAG
    #[arg(short, long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(target))]
    output: Option<ModulePlace>,
    /// Also if the tag is something else already; it is moved then
    #[arg(long)]
    replace: bool,
}

/// A file, or a place in an OCI registry.
#[derive(Debug, Clone)]
pub enum ModulePlace {
    File(PathBuf),
    Oci(OciReference),
}

impl ModulePlace {
    /// For messages.
    pub fn path(&self) -> PathBuf {
        match self {
            ModulePlace::File(path) => path.clone(),
            ModulePlace::Oci(reference) => reference.to_string().into(),
        }
    }
}

/// A place from which a module is read.
pub fn place(text: OsString) -> Result<ModulePlace, String> {
    match text.to_str().filter(|text| OciReference::is_meant(text)) {
        Some(text) => text.parse().map(ModulePlace::Oci),
        None => Ok(ModulePlace::File(text.into())),
    }
}

/// A place to which a module is written.
fn target(text: OsString) -> Result<ModulePlace, String> {
    match place(text)? {
        ModulePlace::Oci(OciReference { digest: Some(_), .. }) => {
            Err("a module is written to a tag, and its digest is told: oci://HOST/REPOSITORY:TAG".to_owned())
        }
        place => Ok(place),
    }
}

/// What is at a place; for an OCI registry also where exactly it was.
pub async fn fetched(place: &ModulePlace, layer: Option<&str>) -> Result<(Bytes, Option<PushedFrom>), Error> {
    match place {
        ModulePlace::File(_) if layer.is_some() => {
            Err(Error::Usage("--layer is for modules of an OCI registry".to_owned()))
        }
        ModulePlace::File(path) => {
            let read = source::read(path).await;
            let read = read.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
            Ok((read.bytes.into(), None))
        }
        ModulePlace::Oci(reference) => {
            let module = oci::read(reference, layer).await?;
            let origin = PushedFrom {
                reference: reference.to_string(),
                manifest: format!("sha256:{}", module.manifest.hex()),
            };
            Ok((module.bytes, Some(origin)))
        }
    }
}

/// Where a module came from, with its digest whether it was named by it or not.
pub fn pinned(origin: &PushedFrom) -> String {
    let name = origin.reference.split('@').next().unwrap_or_default();
    format!("{name}@{}", origin.manifest)
}

pub async fn pull(connection: &Connection, plan: &Plan, asked: &ModulesPull) -> Result<u8, Error> {
    let name = &asked.name;
    let digest = match &asked.digest {
        Some(text) => {
            let versions = versions_of(connection, name).await?;
            named(&versions, name, text).map_err(Error::Failed)?.digest.clone()
        }
        None => {
            let (promoted, _) = promoted(connection, name).await?;
            let none = || Error::Failed(format!("nothing is promoted as {name}: name a version"));
            promoted.ok_or_else(none)?.digest
        }
    };
    let bytes = content(connection, &digest).await?;
    let length = size(bytes.len() as u64);
    let told = format!("{} of {name}", &digest[..12]);
    let default = || ModulePlace::File(format!("{name}.wasm").into());
    match asked.output.clone().unwrap_or_else(default) {
        ModulePlace::File(_) if asked.replace => {
            return Err(Error::Usage("--replace is for tags of an OCI registry".to_owned()));
        }
        ModulePlace::File(path) => {
            write_file(&path, &bytes)?;
            println!("{told} is in {}, {length}", path.display());
        }
        ModulePlace::Oci(reference) => {
            let artifact = artifact(connection, plan, (name, &digest), bytes.into()).await?;
            let written = oci::write(&reference, &artifact, asked.replace).await?;
            let already = if written.changed { "" } else { " already" };
            println!(
                "{told} is{already} at {reference}@sha256:{}, {length}",
                written.manifest.hex()
            );
        }
    }
    Ok(OK)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::Usage(format!("{} exists: name another file with --output", path.display())),
        _ => Error::Failed(format!("{}: {error}", path.display())),
    })
}

/// A version as it is written to an OCI registry, once it is seen to be a module that a host would take.
async fn artifact(
    connection: &Connection,
    plan: &Plan,
    (name, digest): (&str, &str),
    module: Bytes,
) -> Result<OciArtifact, Error> {
    let (Some(version), _) = version(connection, name, digest).await? else {
        return Err(Error::Failed(format!(
            "the registry does not describe version {} of {name}: push the file again with `jetmesh modules push FILE --as {name}`",
            &digest[..12]
        )));
    };
    let library = Library::new(app::runtime(plan)?);
    let called = format!("{} of {name}", version.told());
    let compiled = library
        .given(Path::new(&called), module.to_vec(), Priority::Usual)
        .await;
    let compiled = compiled.map_err(|error| Error::Failed(error.to_string()))?;
    Ok(OciArtifact {
        module,
        name: name.to_owned(),
        version: version.version,
        created: version.at,
        exports: compiled.exports.clone(),
        imports: compiled.imports.clone(),
        world: WIT_WORLD.to_owned(),
    })
}
