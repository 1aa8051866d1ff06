//! Methods of Python's strings, lists and dicts for chat templates.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls a method that `minijinja` does not have.
///
/// Implements those that `minijinja-contrib` lacks or implements differently from Python, and
/// delegates the others to it.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let found = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_string(text, method, args)?,
        (None, ValueKind::Seq) => of_list(value, method, args)?,
        (None, ValueKind::Map) if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match found {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(
                text,
                characters,
                method != "rstrip",
                method != "lstrip",
            ))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let first = method == "partition";
            let cut = if first {
                text.split_once(separator)
            } else {
                text.rsplit_once(separator)
            };
            let parts = match cut {
                Some((before, after)) => [before, separator, after],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "split" | "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = usize::try_from(most.unwrap_or(-1)).unwrap_or(usize::MAX);
            match separator {
                Some("") => return Err(refused("empty separator")),
                Some(separator) => split_at(text, separator, most, method == "rsplit"),
                None => split_at_space(text, most, method == "rsplit"),
            }
            .into_iter()
            .collect()
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            lines(text, keep.unwrap_or(false)).into_iter().collect()
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let found = find(text, wanted, start, end, method.starts_with('r'));
            match found {
                Some(position) => Value::from(position),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(refused("substring not found")),
            }
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = text.chars().flat_map(|c| -> Vec<char> {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            });
            Value::from(swapped.collect::<String>())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match text.chars().next() {
                Some('+' | '-') => text.split_at(1),
                _ => ("", text),
            };
            let zeros = width.min(1 << 16).saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let missing = width.min(1 << 16).saturating_sub(text.chars().count());
            let fill = fill.unwrap_or(" ").repeat(missing);
            Value::from(match method {
                "ljust" => format!("{text}{fill}"),
                _ => format!("{fill}{text}"),
            })
        }
        _ => return Ok(None),
    }))
}

fn of_list(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" => Ok(Some(list.clone())),
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            for (position, item) in list.try_iter()?.checked().enumerate() {
                if item? == *wanted {
                    return Ok(Some(Value::from(position)));
                }
            }
            Err(refused("the value is not in the list"))
        }
        _ => Ok(None),
    }
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// Removes the characters, or white space, from the start and the end of `text`, if these are true.
pub(super) fn strip<'a>(
    text: &'a str,
    characters: Option<&str>,
    start: bool,
    end: bool,
) -> &'a str {
    let drop = |c: char| match characters {
        Some(characters) => characters.contains(c),
        None => is_space(c),
    };
    let text = if start {
        text.trim_start_matches(drop)
    } else {
        text
    };
    if end {
        text.trim_end_matches(drop)
    } else {
        text
    }
}

/// White space as in Python, which includes the four ASCII separators, unlike the Unicode property.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Converts letters at the start of a word to upper case, the others to lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut after_letter = false;
    for c in text.chars() {
        match after_letter {
            true => titled.extend(c.to_lowercase()),
            false => titled.extend(c.to_uppercase()),
        }
        after_letter = c.is_uppercase() || c.is_lowercase();
    }
    titled
}

fn split_at<'a>(text: &'a str, separator: &str, most: usize, from_end: bool) -> Vec<&'a str> {
    if !from_end {
        return text.splitn(most.saturating_add(1), separator).collect();
    }
    let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
    parts.reverse();
    parts
}

/// Splits the text at white space, at most `most` times.
fn split_at_space(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, true, true);
    while !rest.is_empty() {
        let cut = if from_end {
            rest.rfind(is_space)
        } else {
            rest.find(is_space)
        };
        let Some(cut) = cut.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let width = rest[cut..].chars().next().map_or(1, char::len_utf8);
        let (before, after) = (&rest[..cut], &rest[cut + width..]);
        if from_end {
            parts.push(after);
            rest = strip(before, None, false, true);
        } else {
            parts.push(before);
            rest = strip(after, None, true, false);
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// The lines of the text, with the line boundaries of Python.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    while !rest.is_empty() {
        let Some(at) = rest.find(ends) else {
            lines.push(rest);
            break;
        };
        let width = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    lines
}

/// The position of `wanted`, in characters, within the characters `start..end`.
fn find(
    text: &str,
    wanted: &str,
    start: Option<i64>,
    end: Option<i64>,
    last: bool,
) -> Option<usize> {
    let length = text.chars().count() as i64;
    let place = |index: i64| {
        if index < 0 {
            (length + index).max(0)
        } else {
            index
        }
    };
    let (start, end) = (
        place(start.unwrap_or(0)),
        place(end.unwrap_or(length)).min(length),
    );
    if start > end {
        return None;
    }
    let byte = |index: i64| {
        let mut places = text.char_indices().map(|(at, _)| at);
        places.nth(index as usize).unwrap_or(text.len())
    };
    let from = byte(start);
    let within = &text[from..byte(end)];
    let found = if last {
        within.rfind(wanted)
    } else {
        within.find(wanted)
    }?;
    Some(text[..from + found].chars().count())
}
