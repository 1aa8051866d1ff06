//! The order of the modules in `src`: imports go one way, and no file is long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The folders of `src` in order: none imports from one further down.
const FOLDERS: [&str; 7] = [
    "text", "node", "number", "calculus", "grammar", "compare", "extract",
];

/// The code of every file by its module path (`node::arena`), without comments and unit tests.
fn modules() -> BTreeMap<String, String> {
    fn read(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, root, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let module = path.strip_prefix(root).unwrap().with_extension("");
            let parts: Vec<&str> = module.iter().map(|part| part.to_str().unwrap()).collect();
            found.insert(parts.join("::"), text);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    read(&root, &root, &mut found);
    assert!(found.len() > 40);
    found
}

fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let code: Vec<&str> = lines.collect();
    let end = code.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    code[..end.unwrap_or(code.len())].join("\n")
}

/// The paths of a `use` tree: `a::{b, c::{d}}` is `a::b`, `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_string()];
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = inside[start..at].trim();
                if !item.is_empty() {
                    found.extend(paths(&format!("{prefix}{item}")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Every path in the code that begins at the root of the crate or in the folder around.
fn named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let tree = code[at + 4..].split(';').next().unwrap();
        found.extend(paths(
            &tree.split_whitespace().collect::<Vec<_>>().join(" "),
        ));
    }
    for prefix in ["crate::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            found.push(code[at..].chars().take_while(|c| path(*c)).collect());
        }
    }
    found
}

/// The file that a path, named in `module`, lies in.
fn file(path: &str, module: &str, all: &BTreeMap<String, String>) -> Option<String> {
    let mut here: Vec<&str> = module.split("::").collect();
    let mut parts = path.split("::").peekable();
    match parts.peek() {
        Some(&"crate") => here.clear(),
        Some(&"super") => {}
        _ => return None,
    }
    while let Some(up) = parts.next_if(|part| matches!(*part, "crate" | "super")) {
        if up == "super" {
            here.pop();
        }
    }
    let mut last = None;
    for part in parts {
        here.push(part);
        let path = here.join("::");
        for path in [path.clone(), format!("{path}::mod")] {
            if all.contains_key(&path) {
                last = Some(path);
            }
        }
    }
    last.filter(|found| found != module)
}

/// For each file, the files that it imports from.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let all = modules();
    let mut edges = BTreeMap::new();
    for (module, text) in &all {
        if module == "lib" {
            continue;
        }
        let to = named(&code(text)).into_iter();
        let to: BTreeSet<String> = to.filter_map(|path| file(&path, module, &all)).collect();
        edges.insert(module.clone(), to);
    }
    edges
}

#[test]
fn there_is_no_import_cycle() {
    let mut left = imports();
    let edges: usize = left.values().map(BTreeSet::len).sum();
    assert!(edges > 150, "only {edges} imports found");
    // Repeatedly removes the files that import from none of the remaining ones.
    while !left.is_empty() {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !left.contains_key(to)))
            .map(|(module, _)| module.clone())
            .collect();
        assert!(!free.is_empty(), "a cycle among {left:#?}");
        for module in free {
            left.remove(&module);
        }
    }
}

#[test]
fn no_folder_imports_from_one_further_down() {
    let place = |module: &str| {
        FOLDERS
            .iter()
            .position(|folder| module.split("::").next() == Some(folder))
    };
    for (module, to) in imports() {
        for to in to {
            match (place(&module), place(&to)) {
                (Some(here), Some(there)) => assert!(there <= here, "{module} imports from {to}"),
                (None, Some(_)) => {
                    panic!("{module} is outside of the folders but imports from {to}")
                }
                (_, None) => {}
            }
        }
    }
    let folders: BTreeSet<String> = modules()
        .into_keys()
        .filter_map(|module| {
            module
                .split_once("::")
                .map(|(folder, _)| folder.to_string())
        })
        .collect();
    assert_eq!(folders, FOLDERS.map(String::from).into());
}

#[test]
fn imports_are_found_in_every_form() {
    let all: BTreeMap<String, String> = ["node::arena", "node::build", "text::mod"]
        .map(|module| (module.to_string(), String::new()))
        .into();
    let found = |code: &str| -> BTreeSet<String> {
        let paths = named(code).into_iter();
        paths
            .filter_map(|path| file(&path, "node::build", &all))
            .collect()
    };
    let arena = BTreeSet::from(["node::arena".to_string()]);
    assert_eq!(found("use super::arena::{Arena, Id};"), arena);
    assert_eq!(found("use super::{arena, build::bits};"), arena);
    assert_eq!(
        found("use crate::node::{\n    arena::{\n        Arena,\n    },\n};"),
        arena
    );
    assert_eq!(found("let x = crate::node::arena::bits(1);"), arena);
    assert_eq!(
        found("use crate::text::last;"),
        BTreeSet::from(["text::mod".to_string()])
    );
    assert!(found("use std::fmt; use dashu_ratio::RBig;").is_empty());
    assert_eq!(
        code("a // crate::x\n#[cfg(test)]\nmod tests {\n    use crate::y;\n}"),
        "a "
    );
}

#[test]
fn files_are_short_and_have_a_head_comment() {
    for (module, text) in modules() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{module} has {lines} lines");
        assert!(text.starts_with("//! "), "{module} has no head comment");
    }
}
