//! What is well-formed and will not work on this machine: directories and files that are not there. It is no error of the
//! configuration, because a disk may be mounted later; but who checks it wants to know before a client does.

use std::path::Path;

use super::{Config, SiteConfig};

impl Config {
    /// Each with its key.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (at, site) in self.sites.iter().enumerate() {
            site.troubles(&format!("web.sites[{at}]"), &mut troubles);
        }
        for (name, pool) in &self.pools {
            troubles.extend(pool.troubles(&format!("web.pools.{name}"), true));
        }
        if let Some(file) = &self.access_log.file
            && let Some(trouble) = unwritable(file)
        {
            troubles.push(format!("web.access_log.file = \"{}\": {trouble}", file.display()));
        }
        if self.tls_listen.is_some() {
            troubles.extend(self.tls.troubles("web.tls"));
        }
        troubles
    }
}

impl SiteConfig {
    fn troubles(&self, key: &str, troubles: &mut Vec<String>) {
        let whole = (key.to_owned(), self.root.as_deref(), self.fallback_file.as_deref());
        let routes = self.routes.iter().enumerate().map(|(at, route)| {
            (format!("{key}.routes[{at}]"), route.root.as_deref(), route.fallback_file.as_deref())
        });
        for (key, root, fallback) in std::iter::once(whole).chain(routes) {
            let Some(root) = root else { continue };
            if let Err(error) = std::fs::read_dir(root) {
                troubles.push(format!("{key}.root = \"{}\": {error}", root.display()));
                continue;
            }
            let missing = fallback.filter(|file| !root.join(file.trim_start_matches('/')).is_file());
            if let Some(file) = missing {
                troubles.push(format!("{key}.fallback_file = {file:?}: there is no such file in the root"));
            }
        }
        if let Some(root) = self.root.as_deref().filter(|root| root.is_dir()) {
            for (status, page) in &self.error_pages {
                if !root.join(page.trim_start_matches('/')).is_file() {
                    troubles.push(format!(
                        "{key}.error_pages.{status} = {page:?}: there is no such file in the root"
                    ));
                }
            }
        }
    }
}

/// Why no file can be appended to at `path`, if none can. Nothing is made or changed.
fn unwritable(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Some("it is a directory".to_owned()),
        Ok(_) => std::fs::OpenOptions::new().append(true).open(path).err().map(|error| error.to_string()),
        Err(_) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            (!directory.is_dir()).then(|| format!("there is no directory {}", directory.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named_with_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        std::fs::write(directory.path().join("index.html"), "").unwrap();
        let troubles = |text: &str| toml::from_str::<Config>(text).unwrap().troubles();
        let fine = format!("[[sites]]\nroot = '{root}'\nfallback_file = '/index.html'\n");
        assert_eq!(troubles(&fine), Vec::<String>::new());
        for (text, words) in [
            ("[[sites]]\nroot = '/no/such/root'\n".to_owned(), "web.sites[0].root = \"/no/such/root\": No such file"),
            (format!("[[sites]]\nroot = '{root}/index.html'\n"), "Not a directory"),
            (
                format!("[[sites]]\nroot = '{root}'\nroutes = [{{ path = '/a', root = '/no/such' }}]\n"),
                "web.sites[0].routes[0].root",
            ),
            (format!("[[sites]]\nroot = '{root}'\nfallback_file = '/spa.html'\n"), "web.sites[0].fallback_file"),
            (format!("[[sites]]\nroot = '{root}'\nerror_pages = {{ 404 = '/no.html' }}\n"), "error_pages.404"),
            ("[pools.a]\ntiers = ['apps']\n".to_owned(), "web.pools.a.tiers: there is no tier \"apps\""),
            ("[access_log]\nfile = '/no/such/access.log'\n".to_owned(), "there is no directory /no/such"),
            (format!("[access_log]\nfile = '{root}'\n"), "web.access_log.file"),
            (
                "tls_listen = '127.0.0.1:0'\n[tls]\ncertificates = [{ chain = '/no.crt', key = '/no.key' }]\n".to_owned(),
                "web.tls.certificates[0]: /no.crt",
            ),
        ] {
            let said = troubles(&text);
            assert!(said.len() == 1 && said[0].contains(words), "{text}: {said:?}");
        }
    }
}
