//! The host names by which this stack is asked for: what every gate of it takes besides what its own section lists.

use http_support::Gate;
use supervision::Env;

use super::Node;
use crate::settings::Settings;

/// Keys `hosts` and `page_origins` of a section.
type Names = (Vec<String>, Vec<String>);

/// Names that the configuration mentions anywhere: of the sites, of the own pages, and of this machine as others know it.
pub fn of_the_stack(settings: &Settings) -> Vec<String> {
    let advertised = [settings.console.advertise.as_deref(), settings.web.advertise.as_deref()];
    let advertised = advertised.into_iter().flatten().map(host_of_url);
    let machine = settings.discovery.host.iter().map(String::as_str);
    let issued =
        settings.web.acme.iter().flat_map(|acme| acme.certificates.iter().flatten()).map(String::as_str);
    let more = advertised.chain(machine).chain(issued).map(str::to_owned);
    settings.web.own_names().into_iter().chain(more).filter(|name| !name.is_empty()).collect()
}

/// `console.example` of `http://console.example:7070/`.
fn host_of_url(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

impl Node {
    /// The instance's gate takes the names of a configuration that was read again at once.
    pub(super) fn names_on_reload(
        &self,
        tier: &'static str,
        instance: &str,
        env: &Env,
        section: fn(&Settings) -> Names,
    ) {
        let Some(gate) = env.get::<Gate>() else { return };
        self.on_reload(tier, instance, move |settings| {
            let (mut hosts, origins) = section(settings);
            hosts.extend(of_the_stack(settings));
            gate.know(&hosts, &origins);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_sites_and_of_the_machine_are_the_stacks() {
        let mut settings = Settings::default();
        let site =
            |host: &str| web::SiteConfig { hosts: vec![host.to_owned()], ..web::SiteConfig::default() };
        settings.web.sites = vec![site("example.org"), site("*.example.net")];
        settings.discovery.host = Some("node.internal.example".to_owned());
        settings.console.advertise = Some("http://console.example:7070".to_owned());
        let names = of_the_stack(&settings);
        for name in ["example.org", "*.example.net", "node.internal.example", "console.example"] {
            assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
        }
    }
}
