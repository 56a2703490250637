//! Which program of the application answers for a path.

use std::path::{Path, PathBuf};

/// Where a FastCGI server finds its programs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FastCgiRoot {
    /// The directory of the application, as the server sees it.
    pub root: PathBuf,
    /// The program that answers for directories and for whatever is no program: `index.php`.
    pub index: String,
}

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// This program, beneath the root, with a leading slash; what follows it in the path is its `PATH_INFO`.
    Run { name: String, path_info: String },
    /// The path is a directory's and lacks its last slash.
    AddSlash,
}

impl FastCgiRoot {
    /// The ending of programs: that of the index, `.php`.
    #[must_use]
    pub fn ending(&self) -> &str {
        self.index.rfind('.').map_or("", |dot| &self.index[dot..])
    }

    /// Finds the program for a path, percent-decoded. A program is run only if it is a file beneath the root; where this
    /// machine has no such directory (the server is on another one), names alone decide.
    pub(super) fn script(&self, path: &str) -> Script {
        let here = self.root.is_dir();
        let is_file = |name: &str| !here || self.file(name).is_file();
        if is_plain(path) {
            if let Some((name, path_info)) = self.named(path)
                && is_file(name)
            {
                return Script::Run { name: name.to_owned(), path_info: path_info.to_owned() };
            }
            let with_slash = format!("{}/{}", path.trim_end_matches('/'), self.index);
            if here && path != "/" && self.file(&with_slash).is_file() {
                return match path.ends_with('/') {
                    true => Script::Run { name: with_slash, path_info: String::new() },
                    false => Script::AddSlash,
                };
            }
        }
        Script::Run { name: format!("/{}", self.index), path_info: String::new() }
    }

    /// The file of a program.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// The first segment that ends as programs do, with all before it; and what follows it.
    fn named<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        let ending = self.ending();
        let mut end = 0;
        for segment in path.split_inclusive('/') {
            end += segment.len();
            let name = segment.trim_end_matches('/');
            if !ending.is_empty() && name.len() > ending.len() && name.ends_with(ending) {
                return Some(path.split_at(end - (segment.len() - name.len())));
            }
        }
        None
    }
}

/// Whether a path names what it seems to name: no segment leads out of the root or is hidden, no byte ends it early.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['\0', '\\'])
        && !path.split('/').any(|segment| segment.starts_with('.') && segment != ".well-known")
        && Path::new(path).components().all(|part| !matches!(part, std::path::Component::ParentDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, path_info: &str) -> Script {
        Script::Run { name: name.to_owned(), path_info: path_info.to_owned() }
    }

    #[test]
    fn only_programs_that_are_there_are_run_and_the_index_answers_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let root = FastCgiRoot { root: directory.path().to_owned(), index: "index.php".to_owned() };
        std::fs::create_dir_all(directory.path().join("wp-admin")).unwrap();
        for file in ["index.php", "a.php", "wp-admin/index.php", "picture.jpg"] {
            std::fs::write(directory.path().join(file), "").unwrap();
        }
        for (path, script) in [
            ("/", run("/index.php", "")),
            ("/a.php", run("/a.php", "")),
            ("/a.php/more/of.it", run("/a.php", "/more/of.it")),
            ("/wp-admin/", run("/wp-admin/index.php", "")),
            ("/wp-admin", Script::AddSlash),
            ("/2026/a-post/", run("/index.php", "")),
            ("/not-there.php", run("/index.php", "")),
            ("/picture.jpg/x.php", run("/index.php", "")),
            ("/picture.jpg", run("/index.php", "")),
            ("/../a.php", run("/index.php", "")),
            ("/.git/a.php", run("/index.php", "")),
            ("/a.php\0.jpg", run("/index.php", "")),
            ("/.php", run("/index.php", "")),
        ] {
            assert_eq!(root.script(path), script, "{path}");
        }
    }

    #[test]
    fn on_another_machine_names_decide() {
        let root = FastCgiRoot { root: "/not/on/this/machine".into(), index: "index.php".to_owned() };
        assert_eq!(root.script("/a/b.php/c"), run("/a/b.php", "/c"));
        assert_eq!(root.script("/a/b"), run("/index.php", ""));
        assert_eq!(root.script("/../b.php"), run("/index.php", ""));
    }
}
