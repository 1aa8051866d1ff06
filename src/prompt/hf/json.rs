//! The filter `tojson` of chat templates, which writes JSON as Python does.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, Value};

/// The options of the filter.
struct Style {
    ensure_ascii: bool,
    /// One step of indentation; `None` writes everything on one line.
    indent: Option<String>,
    between_items: String,
    after_key: String,
    sort_keys: bool,
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`. HTML is
/// not escaped, and by default there is a space after every `,` and `:`.
pub(super) fn tojson(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let mut args = args.into_values();
    let named = match args.last() {
        Some(last) if last.is_kwargs() => Kwargs::try_from(last.clone())?,
        _ => Kwargs::from_iter(std::iter::empty::<(&str, Value)>()),
    };
    args.retain(|arg| !arg.is_kwargs());
    let option = |position: usize, name: &str| -> Result<Value, Error> {
        let named: Option<Value> = named.get(name)?;
        Ok(named
            .or_else(|| args.get(position).cloned())
            .unwrap_or_default())
    };
    let ensure_ascii = option(0, "ensure_ascii")?.is_true();
    let indent = option(1, "indent")?;
    let separators = option(2, "separators")?;
    let sort_keys = option(3, "sort_keys")?.is_true();
    named.assert_all_used()?;

    let indent = match (indent.as_str(), indent.as_i64()) {
        (Some(text), _) => Some(text.to_owned()),
        (None, Some(spaces)) => Some(" ".repeat(spaces.clamp(0, 64) as usize)),
        (None, None) => None,
    };
    let (between_items, after_key) = if separators.is_none() || separators.is_undefined() {
        let between_items = if indent.is_some() { "," } else { ", " };
        (between_items.to_owned(), ": ".to_owned())
    } else {
        let separator = |index| {
            let separator = separators.get_item_by_index(index)?;
            separator
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| refused("`separators` must be two strings"))
        };
        (separator(0)?, separator(1)?)
    };
    let style = Style {
        ensure_ascii,
        indent,
        between_items,
        after_key,
        sort_keys,
    };
    let mut json = String::new();
    write_value(&mut json, value, &style, 1)?;
    Ok(json)
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadSerialization, reason.into())
}

/// The maximum nesting of values, which bounds the recursion.
const DEEPEST: usize = 200;

fn write_value(json: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(refused(format!(
            "the value has more than {DEEPEST} levels of nesting"
        )));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            json.push_str(&scalar(value)?);
        }
        ValueKind::String => write_string(json, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            write_group(json, ('[', ']'), items.len(), style, depth, |json, i| {
                write_value(json, &items[i], style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            if style.sort_keys {
                keys.sort();
            }
            write_group(json, ('{', '}'), keys.len(), style, depth, |json, i| {
                let key = &keys[i];
                match key.as_str() {
                    Some(key) => write_string(json, key, style),
                    None => write_string(json, &scalar(key)?, style),
                }
                json.push_str(&style.after_key);
                write_value(json, &value.get_item(key)?, style, depth + 1)
            })?;
        }
        kind => return Err(refused(format!("{kind} cannot be written as JSON"))),
    }
    Ok(())
}

/// Writes a list or an object of `length` items.
fn write_group(
    json: &mut String,
    (open, close): (char, char),
    length: usize,
    style: &Style,
    depth: usize,
    mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |json: &mut String, depth: usize| {
        if let Some(indent) = style.indent.as_ref().filter(|_| length > 0) {
            json.push('\n');
            json.push_str(&indent.repeat(depth));
        }
    };
    json.push(open);
    for i in 0..length {
        if i > 0 {
            json.push_str(&style.between_items);
        }
        new_line(json, depth);
        item(json, i)?;
    }
    new_line(json, depth - 1);
    json.push(close);
    Ok(())
}

/// Writes `none`, a boolean or a number.
fn scalar(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => value.is_true().to_string(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => float(f64::try_from(value.clone())?),
        kind => return Err(refused(format!("{kind} cannot be a key of a JSON object"))),
    })
}

/// Writes the shortest digits that parse to the same number, with an exponent below 0.0001 and from
/// 1e16.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if number.is_infinite() {
        return format!("{sign}Infinity");
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let written = number.to_string();
        let whole = !written.contains('.');
        return written + if whole { ".0" } else { "" };
    }
    let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
    let exponent = exponent.abs();
    format!("{sign}{mantissa}e{sign_of_exponent}{exponent:02}")
}

/// Escapes `text` for a JSON string.
pub(super) fn escaped(text: &str, ensure_ascii: bool) -> String {
    let mut json = String::with_capacity(text.len());
    write_escaped(&mut json, text, ensure_ascii);
    json
}

fn write_string(json: &mut String, text: &str, style: &Style) {
    json.push('"');
    write_escaped(json, text, style.ensure_ascii);
    json.push('"');
}

fn write_escaped(json: &mut String, text: &str, ensure_ascii: bool) {
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            _ if character < ' ' || (ensure_ascii && character > '~') => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
            _ => json.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // `repr` of CPython 3.12.
        for (number, written) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456789.125, "123456789.125"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e300, "-2.5e+300"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float(number), written);
        }
    }
}
