//! Renderings of a conversation whose special tokens in messages are marked as text.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::Value;

use super::marks::Marks;
use super::values::{map_strings, strings};
use super::{ChatTemplate, HfTokenizer, Variables};
use crate::Result;

/// The template, variables and marks that the renderings of a conversation share, so that their
/// texts can be compared.
pub(super) struct Rendering<'a> {
    template: &'a ChatTemplate,
    tokenizer: &'a HfTokenizer,
    variables: Variables,
    marks: Option<Marks>,
}

impl<'a> Rendering<'a> {
    /// Creates the context for conversations without special tokens other than those in the text of
    /// `messages` and `variables`.
    pub(super) fn new(
        template: &'a ChatTemplate,
        tokenizer: &'a HfTokenizer,
        variables: &Variables,
        messages: &[Value],
    ) -> Result<Self> {
        // Each string once, because all messages have the same field names.
        let mut spelled: BTreeSet<String> = variables.strings().into_iter().collect();
        spelled.extend(messages.iter().flat_map(strings));
        let spelled: Vec<&str> = spelled.iter().map(String::as_str).collect();
        let marks = Marks::of(&spelled, tokenizer)?;
        let variables = match &marks {
            Some(marks) => variables.map(|text| marks.mark(text, tokenizer)),
            None => variables.clone(),
        };
        Ok(Self {
            template,
            tokenizer,
            variables,
            marks,
        })
    }

    /// Marks the special tokens in `text`.
    pub(super) fn mark(&self, text: &str) -> String {
        match &self.marks {
            Some(marks) => marks.mark(text, self.tokenizer),
            None => text.to_owned(),
        }
    }

    /// Marks the special tokens in messages.
    pub(super) fn marked(&self, messages: Vec<Value>) -> Vec<Value> {
        if self.marks.is_none() {
            return messages;
        }
        let mark = |message| map_strings(message, &mut |text| self.mark(text));
        messages.iter().map(mark).collect()
    }

    /// Renders marked messages.
    pub(super) fn render(&self, marked: &[Value], add_generation_prompt: bool) -> Result<String> {
        let messages = marked.to_vec();
        let rendered =
            self.template
                .render_values(messages, &self.variables, add_generation_prompt)?;
        Ok(self.unescape(rendered))
    }

    /// Restores the marks that a filter has escaped.
    pub(super) fn unescape(&self, text: String) -> String {
        match &self.marks {
            Some(marks) => marks.unescape(text),
            None => text,
        }
    }

    /// Encodes a rendered text.
    pub(super) fn encode(&self, rendered: &str) -> Result<Vec<u32>> {
        match &self.marks {
            Some(marks) => self.tokenizer.encode_marked(&marks.read(rendered)?),
            None => self.tokenizer.encode_with_specials(rendered),
        }
    }

    /// A rendered text without marks.
    pub(super) fn shown(&self, rendered: &str) -> String {
        match &self.marks {
            Some(marks) => marks.remove(rendered),
            None => rendered.to_owned(),
        }
    }

    /// The stop tokens in a rendered text that the template wrote, in no particular order.
    pub(super) fn stops(&self, rendered: &str) -> Vec<Range<usize>> {
        let spelled = |range: &Range<usize>| {
            let marks = self.marks.as_ref();
            marks.is_some_and(|marks| marks.enclose(rendered, range))
        };
        let mut stops = Vec::new();
        for token in self.tokenizer.stop_texts() {
            let found = rendered.match_indices(&token);
            let found = found.map(|(at, token)| at..at + token.len());
            stops.extend(found.filter(|range| !spelled(range)));
        }
        stops
    }

    /// The special token that a rendered text starts with.
    pub(super) fn leading_special<'t>(&self, rendered: &'t str) -> Option<&'t str> {
        let specials = self.tokenizer.specials_in(rendered);
        let first = specials.first().filter(|range| range.start == 0)?;
        Some(&rendered[first.clone()])
    }
}
