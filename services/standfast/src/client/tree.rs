//! `standfast tree`: once, or live. On a terminal the tree is redrawn in place, folded to fit, what restarted flashes
//! and the last transitions stand below; piped, each transition is a line.

mod draw;
mod live;

use std::io::IsTerminal;

use reqwest::Method;
use supervision::view::Node;

use super::http::Server;
use crate::cli::Tree;
use crate::failure::{Failure, Outcome};
use crate::out;
use draw::{Flashes, Style, draw};

/// Runs the command.
pub async fn run(tree: Tree) -> Outcome {
    let server = Server::new(&tree.at.console, "--console")?;
    if tree.watch {
        return live::watch(&server, &tree).await;
    }
    let nodes = get(&server).await?;
    let shown = below(&nodes, tree.below.as_deref())?;
    if tree.at.json {
        match &shown[..] {
            [one] => out::json(one),
            all => out::json(&all),
        }
        return Ok(());
    }
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    out::write(&draw(&shown, &Flashes::new(), clock::now(), Style { colour, lines_max: None }));
    Ok(())
}

async fn get(server: &Server) -> Outcome<Vec<Node>> {
    let value: serde_json::Value = server.json(server.request(Method::GET, "/v1/tree")).await?;
    nodes(value)
        .ok_or_else(|| Failure::failed("the console answered what is not a tree: is it of this version?"))
}

/// One node's tree, or several: the console joins all nodes of a stack.
fn nodes(value: serde_json::Value) -> Option<Vec<Node>> {
    match value {
        serde_json::Value::Array(all) => {
            all.into_iter().map(|one| serde_json::from_value(one).ok()).collect()
        }
        serde_json::Value::Object(mut map) if map.contains_key("nodes") => nodes(map.remove("nodes")?),
        one => {
            let node: Node = serde_json::from_value(one).ok()?;
            // A root above the nodes has no path of its own.
            Some(if node.path.is_empty() || node.path == "/" { node.children } else { vec![node] })
        }
    }
}

fn below(nodes: &[Node], path: Option<&str>) -> Outcome<Vec<Node>> {
    let Some(path) = path else { return Ok(nodes.to_vec()) };
    let path = path.trim_end_matches('/');
    let found = nodes.iter().find_map(|node| find(node, path)).cloned();
    let missing = || Failure::failed(format!("there is no {path}: `standfast tree` shows all paths"));
    found.map(|node| vec![node]).ok_or_else(missing)
}

fn find<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    if node.path == path {
        return Some(node);
    }
    node.children.iter().filter(|child| is_at_or_below(path, &child.path)).find_map(|child| find(child, path))
}

fn find_mut<'a>(node: &'a mut Node, path: &str) -> Option<&'a mut Node> {
    if node.path == path {
        return Some(node);
    }
    node.children
        .iter_mut()
        .filter(|child| is_at_or_below(path, &child.path))
        .find_map(|child| find_mut(child, path))
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::draw::tests::node;
    use super::*;

    #[test]
    fn a_path_names_a_part_of_the_tree() {
        let tree = [node("/n", vec![node("/n/jobs", vec![node("/n/jobs/worker-1", vec![])])])];
        assert_eq!(below(&tree, Some("/n/jobs/")).expect("it is there")[0].path, "/n/jobs");
        assert!(below(&tree, Some("/n/jo")).is_err());
    }
}
