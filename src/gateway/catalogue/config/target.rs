//! The name that an analysis asks. Knows names only.

use super::values::vendor_id_is_valid;
use crate::base::names;
use crate::types::provider::{LOCAL, is_local};

/// The configured names, and which of them an analysis asks.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct Names {
    pub(super) routes: Vec<String>,
    pub(super) models: Vec<String>,
    pub(super) endpoints: Vec<String>,
    pub(super) default_route: Option<String>,
}

impl Names {
    /// The name that an analysis asks: its own `route`, a route of its name, the default route, the embedded provider
    /// if there are no endpoints, or the only model. `Err` says what is missing or unknown.
    pub(in crate::gateway) fn target(&self, analysis: &str, route: Option<&str>) -> Result<String, String> {
        if let Some(route) = route {
            let (endpoint, vendor_model) = route.split_once('/').unzip();
            if let Some(vendor_model) = vendor_model.filter(|vendor_model| !vendor_id_is_valid(vendor_model))
                && self.endpoints.iter().any(|name| Some(name.as_str()) == endpoint)
            {
                return Err(format!(
                    "expected a vendor's model id of A-Z a-z 0-9 . _ : @ / + - after the endpoint, found \
                     {vendor_model:?}"
                ));
            }
            let known = is_local(route)
                || self.routes.iter().chain(&self.models).any(|name| name == route)
                || endpoint.is_some_and(|endpoint| self.endpoints.iter().any(|name| name == endpoint));
            return if known {
                Ok(route.to_owned())
            } else {
                let routes = names::list(&self.routes);
                let models = names::list(&self.models);
                let hint = match endpoint {
                    Some(endpoint) => names::hint(endpoint, &self.endpoints),
                    None => names::hint(route, &[&self.routes[..], &self.models, &[LOCAL.to_owned()]].concat()),
                };
                Err(format!(
                    "no route or model {route:?}; routes: {routes}; models: {models}; or \"endpoint/vendor-model\", or \
                     \"local\", the embedded provider{hint}"
                ))
            };
        }
        if self.routes.iter().any(|name| name == analysis) {
            return Ok(analysis.to_owned());
        }
        if let Some(route) = &self.default_route {
            return Ok(route.clone());
        }
        if self.endpoints.is_empty() {
            return Ok(LOCAL.to_owned());
        }
        match self.models.as_slice() {
            [model] => Ok(model.clone()),
            _ => Err(format!(
                "missing; expected a route or model, or a route named {analysis:?}, or [gateway] default_route (\"local\" is \
                 the embedded provider)"
            )),
        }
    }
}
