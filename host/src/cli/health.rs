//! `jetmesh health`: what the admin address of the host on this machine says, as an exit code.

use clap::ValueEnum;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{Args, Error, FAILED, OK, UNSERVED};
use crate::broker::tls::certificates;
use crate::config::metrics_token;
use crate::http::{ask, reached_from_here};
use crate::plan::AdminPlan;

/// Ask the host on this machine, at its admin address, whether it is well
///
/// It ends with 0 if so, with 6 if not, and with 1 if there is no answer. It is for health checks of containers, which have no other
/// program. The configuration is that of the host; NATS is not asked.
#[derive(Debug, clap::Args)]
pub struct HealthCommand {
    /// Whether the host takes events of all its handlers, or whether its threads run
    #[arg(value_enum, default_value = "ready", value_name = "WHAT")]
    pub what: AskedHealth,
    /// The admin address; replaces `admin.listen` of the configuration
    #[arg(long = "admin", value_name = "ADDR")]
    pub listen: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AskedHealth {
    /// It takes events of all its handlers, as /readyz says
    Ready,
    /// Its threads run, as /livez says
    Live,
}

/// The certificate that the host answers with.
fn own(plan: &AdminPlan) -> Result<Option<CertificateDer<'static>>, Error> {
    let Some(files) = &plan.tls else { return Ok(None) };
    let told = |why: String| Error::Usage(format!("admin.tls_cert, {}: {why}", files.cert.display()));
    let own = certificates(&files.cert)
        .map_err(|error| told(error.to_string()))?
        .into_iter()
        .next();
    own.map(Some)
        .ok_or_else(|| told("it holds no certificate in PEM".to_owned()))
}

pub async fn run(args: &Args, asked: &HealthCommand) -> Result<u8, Error> {
    let plan = args.look()?.plan;
    let Some(address) = plan.admin.listen else {
        let text =
            "the host has no admin address: set admin.listen, for instance to \"127.0.0.1:9464\", or give --admin";
        return Err(Error::Usage(text.to_owned()));
    };
    if address.port() == 0 {
        let text = format!(
            "admin.listen is {address}, which is any free port: give the one that the host's log names, with --admin"
        );
        return Err(Error::Usage(text));
    }
    let path = match asked.what {
        AskedHealth::Ready => "/readyz",
        AskedHealth::Live => "/livez",
    };
    let address = reached_from_here(address);
    let token = plan
        .admin
        .metrics_token
        .as_deref()
        .and_then(|file| metrics_token(file).ok());
    let answer = ask(address, own(&plan.admin)?, path, token.as_deref()).await;
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            note!("error: {address} does not answer: {error}");
            return Ok(FAILED);
        }
    };
    println!("{}", String::from_utf8_lossy(&body).trim_end());
    Ok(if status.is_success() { OK } else { UNSERVED })
}
