//! Whether the JetStream API answers under the configured prefix.

use bytes::Bytes;

use super::connection::Connection;
use super::error::Error;

impl Connection {
    /// Where JetStream is said to be in another domain or account: whether it answers there. Only a certain no is an error.
    pub(super) async fn is_heard(&self) -> Result<(), Error> {
        if !self.is_elsewhere() {
            return Ok(());
        }
        let info = format!("{}.INFO", self.api_prefix());
        match self.request(&info, None, Bytes::new()).await {
            Err(error @ Error::NoResponders { .. }) => Err(self.unheard(error)),
            _ => Ok(()),
        }
    }

    /// The error of a call of the API. A server with JetStream listens on all subjects of the API, so no responders means that
    /// there is no JetStream.
    pub(super) fn unheard(&self, error: Error) -> Error {
        if !matches!(error, Error::NoResponders { .. }) {
            return error;
        }
        let prefix = self.api_prefix().to_owned();
        let why = match (self.domain(), self.is_elsewhere()) {
            (Some(domain), _) => format!(
                "no server that this one reaches has a JetStream of the domain `{domain}`. Set nats.js_domain to the \
                 `domain` in the `jetstream` block of the server that has it, or see why the leafnode connection to it is down"
            ),
            (None, true) => format!(
                "nothing is imported there. Set nats.js_api_prefix to what the account of this user imports `$JS.API.>` as, or \
                 import it `to: {prefix}.>`"
            ),
            (None, false) => "JetStream is starting on the server, or is not enabled for this account".to_owned(),
        };
        Error::NoApi { prefix, why }
    }
}
