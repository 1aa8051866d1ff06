//! Marks around the special tokens in the text of messages, so that they remain text after
//! rendering.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use super::{HfTokenizer, json};
use crate::{Error, Result};

/// Private-use characters that are put around every special token in the text of a conversation.
///
/// The token between its marks is unchanged, so that a template can still search for it or split at
/// it.
pub(super) struct Marks {
    open: char,
    close: char,
    /// The special tokens that were marked.
    spelled: BTreeSet<String>,
}

/// A rendered text with a private-use character in place of each special token that is to be
/// encoded as ordinary text.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) text: String,
    /// The characters of marks that lost their partner. They are removed after special tokens have
    /// been matched, so that the text on both sides of a mark cannot form one.
    pub(super) breaks: Vec<char>,
    /// The characters in place of special tokens, with these tokens.
    pub(super) stand_ins: Vec<(char, String)>,
}

impl Marked {
    pub(super) fn any(&self) -> bool {
        !self.breaks.is_empty() || !self.stand_ins.is_empty()
    }
}

impl Marks {
    /// Creates marks for a conversation of these strings; `None` if they have no special token.
    pub(super) fn of(strings: &[&str], tokenizer: &HfTokenizer) -> Result<Option<Self>> {
        let spelled: BTreeSet<String> = strings
            .iter()
            .flat_map(|text| {
                let ranges = tokenizer.specials_in(text).into_iter();
                ranges.map(|range| text[range].to_owned())
            })
            .collect();
        if spelled.is_empty() {
            return Ok(None);
        }
        // The strings must not contain the JSON escape of a mark either.
        let free = |mark: &char| {
            let escaped = json::escaped(&mark.to_string(), true);
            !strings.iter().any(|text| text.contains(&escaped))
        };
        let mut unused = unused(strings).filter(free);
        Ok(Some(Self {
            open: unused.next().ok_or_else(exhausted)?,
            close: unused.next().ok_or_else(exhausted)?,
            spelled,
        }))
    }

    /// Marks the special tokens in `text`.
    pub(super) fn mark(&self, text: &str, tokenizer: &HfTokenizer) -> String {
        let mut marked = String::with_capacity(text.len());
        let mut done = 0;
        for range in tokenizer.specials_in(text) {
            marked.push_str(&text[done..range.start]);
            marked.push(self.open);
            marked.push_str(&text[range.clone()]);
            marked.push(self.close);
            done = range.end;
        }
        marked + &text[done..]
    }

    /// Restores the marks that a filter such as `tojson(ensure_ascii=true)` has escaped.
    pub(super) fn unescape(&self, mut rendered: String) -> String {
        for mark in [self.open, self.close] {
            let mark = mark.to_string();
            let escaped = json::escaped(&mark, true);
            if rendered.contains(&escaped) {
                rendered = rendered.replace(&escaped, &mark);
            }
        }
        rendered
    }

    /// Returns true if the text at `range` of a rendering is between marks.
    pub(super) fn enclose(&self, rendered: &str, range: &Range<usize>) -> bool {
        rendered[..range.start].ends_with(self.open)
            && rendered[range.end..].starts_with(self.close)
    }

    /// Removes the marks from a rendering.
    pub(super) fn remove(&self, rendered: &str) -> String {
        rendered.replace([self.open, self.close], "")
    }

    /// Replaces each marked special token of a rendering by a private-use character.
    pub(super) fn read(&self, rendered: &str) -> Result<Marked> {
        let mut unused = unused(&[rendered]).filter(|mark| ![self.open, self.close].contains(mark));
        let mut text = String::with_capacity(rendered.len());
        let mut stand_ins: Vec<(char, String)> = Vec::new();
        let mut rest = rendered;
        while let Some(at) = rest.find(self.open) {
            text.push_str(&rest[..at]);
            let inside = &rest[at + self.open.len_utf8()..];
            let end = inside.find(self.close);
            let spelled = end
                .map(|end| &inside[..end])
                .filter(|&spelled| self.spelled.contains(spelled));
            let Some(spelled) = spelled else {
                text.push(self.open);
                rest = inside;
                continue;
            };
            let known = stand_ins.iter().find(|(_, text)| text == spelled);
            let stand_in = match known {
                Some((stand_in, _)) => *stand_in,
                None => {
                    let stand_in = unused.next().ok_or_else(exhausted)?;
                    stand_ins.push((stand_in, spelled.to_owned()));
                    stand_in
                }
            };
            text.push(stand_in);
            rest = &inside[spelled.len() + self.close.len_utf8()..];
        }
        text.push_str(rest);
        Ok(Marked {
            text,
            breaks: vec![self.open, self.close],
            stand_ins,
        })
    }
}

/// The characters of the private-use planes that are not in `texts`.
fn unused(texts: &[&str]) -> impl Iterator<Item = char> + use<> {
    let planes = ('\u{f0000}'..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}');
    let characters = texts.iter().flat_map(|text| text.chars());
    let used: HashSet<char> = characters.filter(|&c| c >= '\u{f0000}').collect();
    planes.filter(move |mark| !used.contains(mark))
}

fn exhausted() -> Error {
    Error::config(
        "messages",
        "text with every private-use character",
        "text without a few of them",
    )
}
