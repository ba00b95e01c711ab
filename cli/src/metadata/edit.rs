//! Changing a file of metadata without touching what does not change: entries are found by their lines, and every change is checked by
//! reading the result.

use std::path::Path;

use super::{Entry, parse};
use crate::fault::{Exit, Fault};

/// The lines of one entry: from its dash to the line before the next entry or the end of the list.
struct Lines {
    start: usize,
    end: usize,
    /// Columns before the keys of the entry.
    indent: usize,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_blank(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

/// Where the entries of `servers:` are.
fn entries(lines: &[&str]) -> Vec<Lines> {
    let Some(list) = lines
        .iter()
        .position(|line| line.trim_end() == "servers:" || line.starts_with("servers: #"))
    else {
        return Vec::new();
    };
    let mut found: Vec<Lines> = Vec::new();
    let mut end = list + 1;
    for (at, line) in lines.iter().enumerate().skip(list + 1) {
        if is_blank(line) {
            continue;
        }
        let dash = indent(line);
        let is_item = line.trim_start().starts_with("- ");
        let top = found.first().map(|first| first.indent - 2);
        if dash == 0 && !is_item {
            break;
        }
        if is_item && top.is_none_or(|top| top == dash) {
            if let Some(last) = found.last_mut() {
                last.end = end;
            }
            found.push(Lines {
                start: at,
                end: at + 1,
                indent: dash + 2,
            });
        }
        end = at + 1;
    }
    if let Some(last) = found.last_mut() {
        last.end = end;
    }
    found
}

/// The text of a key at the level of the entry's own keys.
fn value<'a>(lines: &[&'a str], entry: &Lines, key: &str) -> Option<(usize, &'a str)> {
    (entry.start..entry.end).find_map(|at| {
        let line = lines.get(at)?;
        let text = if at == entry.start {
            line.trim_start().strip_prefix("- ")?.trim_start()
        } else {
            line.trim_start()
        };
        let own = at == entry.start || indent(line) == entry.indent;
        let rest = text.strip_prefix(key)?.strip_prefix(':')?;
        own.then_some((at, rest))
    })
}

fn scalar(text: &str) -> &str {
    let text = text.split(" #").next().unwrap_or_default().trim();
    text.trim_matches(['"', '\''])
}

fn find(lines: &[&str], name: &str) -> Option<Lines> {
    entries(lines)
        .into_iter()
        .find(|entry| value(lines, entry, "name").is_some_and(|(_, text)| scalar(text) == name))
}

/// The file with an entry added at its end, or in the place of the one of that name.
pub(crate) fn put_entry(path: &Path, text: &str, entry: &Entry) -> Result<String, Fault> {
    let body =
        serde_saphyr::to_string(entry).map_err(|error| Fault::new(Exit::Failed, "writing the entry").caused_by(&error))?;
    let lines: Vec<&str> = text.lines().collect();
    let place = find(&lines, &entry.name);
    let columns = place.as_ref().or(entries(&lines).first()).map_or(4, |first| first.indent);
    let item: Vec<String> = body
        .lines()
        .enumerate()
        .map(|(at, line)| {
            let lead = if at == 0 {
                format!("{}- ", " ".repeat(columns - 2))
            } else {
                " ".repeat(columns)
            };
            format!("{lead}{line}")
        })
        .collect();
    let mut made: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    match place {
        Some(place) => drop(made.splice(place.start..place.end, item)),
        None if made.iter().all(|line| is_blank(line)) => {
            made.extend(["version: v1".to_owned(), "servers:".to_owned()]);
            made.extend(item);
        }
        None => {
            if let Some(list) = made.iter_mut().find(|line| line.trim_end() == "servers: []") {
                "servers:".clone_into(list);
            }
            let lines: Vec<&str> = made.iter().map(String::as_str).collect();
            let end = entries(&lines).last().map(|last| last.end);
            let after_head = lines.iter().position(|line| line.trim_end() == "servers:").map(|at| at + 1);
            if let Some(at) = end.or(after_head) {
                drop(made.splice(at..at, item));
            } else {
                made.push("servers:".to_owned());
                made.extend(item);
            }
        }
    }
    checked(path, &made, entry)
}

/// The file with some texts of an entry set.
pub(crate) fn set_fields(path: &Path, text: &str, name: &str, fields: &[(&str, &str)]) -> Result<String, Fault> {
    let before = parse(path, text)?;
    let wanted = before.servers.into_iter().find(|entry| entry.name == name);
    let mut wanted = wanted.ok_or_else(|| Fault::new(Exit::NotFound, format!("{} has no server `{name}`", path.display())))?;
    let mut made: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, new) in fields {
        match *key {
            "image" => wanted.image = Some((*new).to_owned()),
            "imageTag" => wanted.image_tag = Some((*new).to_owned()),
            _ => {}
        }
        let lines: Vec<&str> = made.iter().map(String::as_str).collect();
        let Some(place) = find(&lines, name) else {
            return Err(by_hand(path));
        };
        if let Some((at, old)) = value(&lines, &place, key) {
            let line = lines.get(at).copied().unwrap_or_default();
            let comment = old.find(" #").and_then(|start| old.get(start..)).unwrap_or_default();
            let head = line.get(..line.len() - old.len()).unwrap_or_default();
            let line = format!("{head} {new}{comment}");
            made.splice(at..=at, [line]);
        } else {
            let at = value(&lines, &place, "name").map_or(place.start, |(at, _)| at) + 1;
            let line = format!("{}{key}: {new}", " ".repeat(place.indent));
            made.splice(at..at, [line]);
        }
    }
    checked(path, &made, &wanted)
}

/// The text, when reading it gives what was meant.
fn checked(path: &Path, lines: &[String], wanted: &Entry) -> Result<String, Fault> {
    let mut text = lines.join("\n");
    text.push('\n');
    let read = parse(path, &text).map_err(|_| by_hand(path))?;
    if read.servers.iter().any(|entry| entry == wanted) {
        Ok(text)
    } else {
        Err(by_hand(path))
    }
}

fn by_hand(path: &Path) -> Fault {
    Fault::new(
        Exit::Failed,
        format!("{} is written in a form that cannot be changed line by line", path.display()),
    )
    .hint("change it by hand, or write the list under `servers:` with one dash for each server")
}
