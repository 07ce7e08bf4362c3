//! The gateway of a service.

use std::path::PathBuf;

use super::Builder;
use crate::{
    error::Error,
    gateway::{
        GATEWAY_CA_FILE_VARIABLE, GATEWAY_TOKEN_FILE_VARIABLE, GATEWAY_VARIABLE, GatewayNames,
        GatewaySettings,
    },
};

impl Builder {
    /// A gateway through which to beat while the ServiceRegistration says `carrier: Gateway`: `https://HOST:PORT`. All
    /// addresses of the host are tried. May be called several times. It needs a
    /// [`gateway_ca_file`](Self::gateway_ca_file). A value set here overrides `$BEATKEEPER_GATEWAY`, a list that is
    /// separated by commas. Default: no gateway; then the Lease is renewed, whatever the ServiceRegistration says.
    pub fn gateway(mut self, url: impl Into<String>) -> Self {
        self.gateways.push(url.into());
        self
    }

    /// The file with the CA of the gateways, as PEM. No other CA is trusted. It is read again when it changes. A value set
    /// here overrides `$BEATKEEPER_GATEWAY_CA_FILE`.
    pub fn gateway_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.gateway_ca_file = Some(file.into());
        self
    }

    /// The file with a token of the audience `beatkeeper` for the gateways. It is read again when it changes. A value set
    /// here overrides `$BEATKEEPER_GATEWAY_TOKEN_FILE`. Default: `/var/run/secrets/beatkeeper/token`.
    pub fn gateway_token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.gateway_token_file = Some(file.into());
        self
    }

    pub(super) fn gateway_settings(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<GatewaySettings>, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let named = || {
            let list = variable(GATEWAY_VARIABLE).unwrap_or_default();
            list.split(',').filter(|url| !url.trim().is_empty()).map(str::to_owned).collect()
        };
        let urls: Vec<String> =
            if self.gateways.is_empty() { named() } else { self.gateways.clone() };
        let read = |url: String| {
            url.parse().map_err(|source| Error::GatewayUrl { url: url.clone(), source })
        };
        let urls = urls.into_iter().map(read).collect::<Result<_, _>>()?;
        let file =
            |set: &Option<PathBuf>, name| set.clone().or_else(|| variable(name).map(PathBuf::from));
        let ca_file = file(&self.gateway_ca_file, GATEWAY_CA_FILE_VARIABLE);
        let token_file = file(&self.gateway_token_file, GATEWAY_TOKEN_FILE_VARIABLE);
        Ok(GatewaySettings::of(urls, ca_file, token_file, GatewayNames::default())?)
    }
}
