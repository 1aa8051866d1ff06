//! The text that a template writes after the model's reply, and the check that it does not change
//! the text before.

use std::ops::Range;

use super::json;
use super::methods::strip;
use super::rendering::Rendering;
use crate::types::Message;
use crate::{Error, Result};

/// The number of characters that an error shows before and after the first difference.
const BEFORE: usize = 30;
const AFTER: usize = 60;

/// The renderings of a question, a reply and observations that are compared.
pub(super) struct Continuation<'a> {
    pub(super) rendering: &'a Rendering<'a>,
    /// The question, and the start of the model's message.
    pub(super) prompt: String,
    /// The question alone.
    pub(super) question: String,
    /// The question and the reply.
    pub(super) before: String,
    /// The question, the reply, the observations, and the start of the model's next message.
    pub(super) after: String,
    /// The marker at the end of the reply's content and of its last call's arguments.
    pub(super) sentinel: &'a str,
}

/// The token that closes the reply, and the text after it.
pub(super) struct Appended {
    pub(super) close: String,
    pub(super) text: String,
}

impl Continuation<'_> {
    /// The text after the reply's last stop token, for [`History::Strict`](super::History::Strict):
    /// the prompt must be a prefix of the history, and the history of its continuation.
    pub(super) fn strict(&self) -> Result<Appended> {
        let Self {
            prompt,
            before,
            after,
            ..
        } = self;
        if !before.starts_with(prompt) {
            let wrong = "changes the prompt once a reply follows";
            return Err(self.rewritten(wrong, prompt, before));
        }
        let stops = self.rendering.stops(before).into_iter();
        let last = stops
            .filter(|stop| stop.start >= prompt.len())
            .max_by_key(|stop| stop.end);
        let close = last.ok_or_else(|| self.unclosed(&before[prompt.len()..]))?;
        let Some(text) = after.strip_prefix(&before[..close.end]) else {
            let wrong = "changes the history once an observation follows";
            return Err(self.rewritten(wrong, &before[..close.end], after));
        };
        Ok(Appended {
            close: before[close].to_owned(),
            text: text.to_owned(),
        })
    }

    /// The text after the reply's close, for [`History::Keep`](super::History::Keep): the history
    /// may change, and so may the token that closes the reply, but not the end of the reply.
    pub(super) fn kept(&self) -> Result<Appended> {
        let behind_reply = |text: &str| Some(text.rfind(self.sentinel)? + self.sentinel.len());
        let (Some(at), Some(again)) = (behind_reply(&self.before), behind_reply(&self.after))
        else {
            return Err(self.refuse(
                format!("omits the reply: {}", self.tail(&self.after)),
                "a template that writes the content of a reply, or its calls, into the history",
            ));
        };
        let (before, after) = (&self.before[at..], &self.after[again..]);
        let stops = self.rendering.stops(before).into_iter();
        let stop = stops.min_by_key(|stop| stop.start);
        let stop = stop.ok_or_else(|| self.unclosed(before))?;
        let rest = after.strip_prefix(&before[..stop.start]);
        let close = rest.and_then(|rest| self.rendering.leading_special(rest));
        let (Some(rest), Some(close)) = (rest, close) else {
            let wrong = "changes the end of the reply once an observation follows";
            return Err(self.rewritten(wrong, &before[..stop.end], after));
        };
        Ok(Appended {
            close: close.to_owned(),
            text: rest[close.len()..].to_owned(),
        })
    }

    /// Checks the text to append: it has every observation in order, then the start of the model's
    /// message, and it is also the end of the `whole` conversation.
    pub(super) fn check(&self, text: &str, observations: &[Message], whole: &str) -> Result<()> {
        let mut rest = text;
        for (at, message) in observations.iter().enumerate() {
            let content = strip(&message.content, None, true, true);
            let content = self.rendering.mark(content);
            let forms = [false, true].map(|ascii| {
                let escaped = json::escaped(&content, ascii);
                self.rendering.unescape(escaped)
            });
            let [written, ascii] = &forms;
            let ends = [&content, written, ascii].map(|form| Some(rest.find(form)? + form.len()));
            let Some(end) = ends.into_iter().flatten().min() else {
                return Err(self.refuse(
                    format!(
                        "omits observation {at}, of the role {:?}: {:?} is not in {:?}",
                        message.role,
                        shortened(&message.content),
                        shortened(&self.shown(text)),
                    ),
                    "a template that writes the content of every observation, in order",
                ));
            };
            rest = &rest[end..];
        }
        let header = &self.prompt[common(&self.question, &self.prompt)..];
        if !rest.ends_with(header) {
            return Err(self.refuse(
                format!(
                    "starts no turn of the model after the observations: {} does not end with {:?}",
                    self.tail(text),
                    self.shown(header)
                ),
                "a template that starts the model's turn as after a question",
            ));
        }
        if whole.ends_with(text) {
            return Ok(());
        }
        let start = whole.len().saturating_sub(text.len());
        let start = (start..=whole.len()).find(|&at| whole.is_char_boundary(at));
        let end = &whole[start.unwrap_or(whole.len())..];
        let wrong =
            "writes observations differently in the whole conversation than after one question";
        Err(self.rewritten(wrong, text, end))
    }

    /// The ids of the text, encoded together with the close but without its id.
    pub(super) fn ids(
        &self,
        appended: &Appended,
        close_id: Option<u32>,
        prefix: &str,
    ) -> Result<Vec<u32>> {
        let Appended { close, text } = appended;
        let mut ids = self.rendering.encode(&format!("{close}{text}{prefix}"))?;
        if ids.is_empty() || Some(ids[0]) != close_id {
            let found = format!(
                "{close:?} is encoded as other tokens before {:?}",
                shortened(&self.shown(text))
            );
            let expected = "a token that closes the reply and is matched in every context";
            return Err(Error::config("tokenizer", found, expected));
        }
        ids.remove(0);
        Ok(ids)
    }

    fn rewritten(&self, wrong: &str, written: &str, again: &str) -> Error {
        let (written, again) = (self.shown(written), self.shown(again));
        let at = common(&written, &again);
        let found = format!(
            "{wrong}: {:?} becomes {:?}",
            around(&written, at),
            around(&again, at)
        );
        self.refuse(
            found,
            "a template that only appends to earlier text, or `History::Keep` if it keeps the end of the reply",
        )
    }

    fn unclosed(&self, reply: &str) -> Error {
        let found = format!("writes no stop token after the reply: {}", self.tail(reply));
        self.refuse(
            found,
            "a template that closes the model's turn with a stop token",
        )
    }

    fn refuse(&self, found: String, expected: &str) -> Error {
        Error::config("chat_template", found, expected)
    }

    /// A rendered text without marks and sentinels.
    fn shown(&self, rendered: &str) -> String {
        self.rendering.shown(rendered).replace(self.sentinel, "")
    }

    /// The end of a rendered text, quoted.
    fn tail(&self, rendered: &str) -> String {
        let shown = self.shown(rendered);
        let skipped = shown.chars().count().saturating_sub(BEFORE + AFTER);
        format!("{:?}", shown.chars().skip(skipped).collect::<String>())
    }
}

/// The length of the common prefix in bytes, up to a character boundary.
fn common(left: &str, right: &str) -> usize {
    let pairs = left.char_indices().zip(right.chars());
    let different = pairs.into_iter().find(|((_, left), right)| left != right);
    different.map_or(left.len().min(right.len()), |((at, _), _)| at)
}

/// The part of `text` around a byte offset.
fn around(text: &str, at: usize) -> String {
    let range = |text: &str| -> Range<usize> {
        let start = text[..at].char_indices().rev().take(BEFORE).last();
        let end = text[at..].char_indices().nth(AFTER);
        start.map_or(at, |(start, _)| start)..end.map_or(text.len(), |(end, _)| at + end)
    };
    text[range(text)].to_owned()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(BEFORE + AFTER) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}
