//! No spelling of a path leaves the root or shows what is hidden: a table, sent as raw bytes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Instance, config, files, get, write};
use web::{NetworksConfig, RouteConfig, SiteConfig};

/// Beside the root: what must never be seen. The root's own name is a prefix of a sibling's.
fn tree() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("root");
    write(&base.path().join("secret.txt"), "SECRET");
    write(&base.path().join("root-of-others/secret.txt"), "SECRET");
    write(&root.join("page.txt"), "page");
    write(&root.join("dir/page.txt"), "page in dir");
    write(&root.join("%2e%2e/odd.txt"), "a directory with an odd name");
    write(&root.join("back\\slash.txt"), "SECRET of a name that no URL has");
    write(&root.join(".env"), "SECRET");
    write(&root.join(".git/config"), "SECRET");
    write(&root.join("dir/.htpasswd"), "SECRET");
    write(&root.join(".well-known/security.txt"), "contact");
    write(&root.join("admin/secret.txt"), "SECRET");
    symlink("../secret.txt", root.join("link-out.txt")).unwrap();
    symlink(base.path().join("secret.txt"), root.join("link-absolute.txt")).unwrap();
    symlink("..", root.join("dir/up")).unwrap();
    symlink("../..", root.join("dir/up-and-out")).unwrap();
    symlink("/", root.join("everything")).unwrap();
    symlink("dir", root.join("link-in")).unwrap();
    base
}

/// Without a guarded part: only the file system decides.
fn open_site(root: &Path) -> SiteConfig {
    SiteConfig { listing: true, ..files(root) }
}

/// With a part that nobody may see. What some server would read as `..` is then 400 anywhere on the site.
fn site(root: &Path) -> SiteConfig {
    let networks = NetworksConfig { allow: Vec::new(), deny: vec!["0.0.0.0/0".parse().unwrap()] };
    let admin = RouteConfig {
        path: "/admin".to_owned(),
        root: Some(root.join("admin")),
        networks,
        ..RouteConfig::default()
    };
    SiteConfig { routes: vec![admin], ..open_site(root) }
}

/// Raw target → status. 400: it has no one meaning; 403: the rule holds; 404: there is no such name.
#[rustfmt::skip]
const ESCAPES: &[(&str, u16)] = &[
    // Plain climbing, in every position.
    ("/../secret.txt", 400),
    ("/..", 400),
    ("/../", 400),
    ("/../../../../../../../../etc/passwd", 400),
    ("/dir/../../secret.txt", 400),
    ("/dir/..", 400),
    ("/dir/../page.txt", 400),
    ("/./page.txt", 400),
    ("/dir/.", 400),
    ("//../secret.txt", 400),
    ("/../root-of-others/secret.txt", 400),
    // Encoded dots.
    ("/%2e%2e/secret.txt", 400),
    ("/%2E%2E/secret.txt", 400),
    ("/.%2e/secret.txt", 400),
    ("/%2e./secret.txt", 400),
    ("/%2e/page.txt", 400),
    ("/dir/%2e%2e/%2e%2e/secret.txt", 400),
    // Encoded slashes.
    ("/..%2fsecret.txt", 400),
    ("/%2e%2e%2fsecret.txt", 400),
    ("/%2f..%2fsecret.txt", 400),
    ("/dir%2f..%2f..%2fsecret.txt", 400),
    ("/dir%2fpage.txt", 404),
    ("/%2fetc%2fpasswd", 404),
    ("//etc/passwd", 404),
    ("///etc/passwd", 404),
    // Backslashes, which some systems take for slashes.
    ("/..\\secret.txt", 400),
    ("/..%5csecret.txt", 400),
    ("/%2e%2e%5csecret.txt", 400),
    ("/dir\\..\\..\\secret.txt", 400),
    ("/dir%5c..%5c..%5csecret.txt", 400),
    ("/%5c..%5csecret.txt", 400),
    ("/back%5cslash.txt", 404),
    ("/dir%5cpage.txt", 404),
    ("/c:%5cwindows%5cwin.ini", 404),
    // Encoded twice: once is undone, and a name is left that is not there.
    ("/%252e%252e/secret.txt", 404),
    ("/%252e%252e%252fsecret.txt", 404),
    ("/..%252fsecret.txt", 404),
    ("/%25%32%65%25%32%65/secret.txt", 404),
    ("/%255c..%255csecret.txt", 404),
    ("/%25252e%25252e/secret.txt", 404),
    // Other spellings of a dot or slash that lax decoders know.
    ("/%c0%ae%c0%ae/secret.txt", 404),
    ("/%c0%af../secret.txt", 404),
    ("/..%c0%afsecret.txt", 404),
    ("/%e0%80%ae%e0%80%ae/secret.txt", 404),
    ("/%u002e%u002e/secret.txt", 400),
    ("/%uff0e%uff0e/secret.txt", 400),
    ("/%ef%bc%8e%ef%bc%8e/secret.txt", 404),
    ("/.../secret.txt", 404),
    ("/..../secret.txt", 404),
    ("/..;/secret.txt", 404),
    ("/..;a=b/secret.txt", 404),
    // NUL, and broken encoding.
    ("/page.txt%00", 400),
    ("/page.txt%00.html", 400),
    ("/%00/../secret.txt", 400),
    ("/%", 400),
    ("/%2", 400),
    ("/%zz", 400),
    ("/%%32%65", 400),
    ("/page.txt%", 400),
    // Names that are not shown.
    ("/.env", 404),
    ("/%2eenv", 404),
    ("/.git/config", 404),
    ("/.git/", 404),
    ("/%2egit/config", 404),
    ("//.git//config", 404),
    ("/dir/.htpasswd", 404),
    ("/dir/%2ehtpasswd", 404),
    // Links that leave the root.
    ("/link-out.txt", 404),
    ("/link-absolute.txt", 404),
    ("/everything/etc/passwd", 404),
    ("/everything/", 404),
    ("/dir/up-and-out/secret.txt", 404),
    ("/dir/up-and-out/", 404),
    // A file is no directory, and letters are what they are.
    ("/page.txt/", 404),
    ("/page.txt/x", 404),
    ("/PAGE.TXT", 404),
    ("/page.txt%20", 404),
    ("/page.txt.", 404),
    // A rule on a part of the site, by other names for it.
    ("/admin/secret.txt", 403),
    ("/admin", 403),
    ("/%61dmin/secret.txt", 403),
    ("//admin/secret.txt", 403),
    ("/admin//secret.txt", 403),
    ("/admin%2fsecret.txt", 403),
    ("/./admin/secret.txt", 400),
    ("/dir/../admin/secret.txt", 400),
    ("/dir/up/admin/secret.txt", 200), // a link of the owner's own, below the root: not another spelling
    // Not a path at all.
    ("page.txt", 400),
    ("http://localhost/../secret.txt", 400),
    ("http://localhost/%2e%2e/secret.txt", 400),
];

#[actix::test]
async fn no_spelling_of_a_path_leaves_the_root() {
    assert!(ESCAPES.len() >= 60);
    let base = tree();
    let root = base.path().join("root");
    let open = Instance::start(config(vec![open_site(&root)])).await;
    let guarded = Instance::start(config(vec![site(&root)])).await;
    for (target, status) in ESCAPES {
        let about_the_rule = target.contains("dmin");
        for (web, decides) in [(&open, !about_the_rule), (&guarded, about_the_rule)] {
            let answer = get(&web.address, target, &[]).await;
            if decides {
                assert_eq!(answer.status, *status, "{target}: {answer:?}");
            } else if !about_the_rule {
                assert!([*status, 400].contains(&answer.status), "{target}: {answer:?}");
            }
            let shown = String::from_utf8_lossy(&answer.body).contains("SECRET");
            let may = *status == 200 || (about_the_rule && !decides);
            assert!(!shown || may, "{target} shows what it must not: {answer:?}");
        }
    }
}

#[actix::test]
async fn what_may_be_seen_is_seen_in_every_honest_spelling() {
    let base = tree();
    let web = Instance::start(config(vec![open_site(&base.path().join("root"))])).await;
    for (target, text) in [
        ("/page.txt", "page"),
        ("/%70age.txt", "page"),
        ("//page.txt", "page"),
        ("/page.txt?../../secret.txt", "page"),
        ("/dir/page.txt", "page in dir"),
        ("/link-in/page.txt", "page in dir"),
        ("/dir/up/page.txt", "page"),
        ("/%252e%252e/odd.txt", "a directory with an odd name"),
        ("/.well-known/security.txt", "contact"),
        ("http://localhost/page.txt", "page"),
    ] {
        let answer = web.get(target, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, text), "{target}");
    }
}
